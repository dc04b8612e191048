"""The exported schemas are the models' own, and Snakemake's check by them agrees with ours."""

import pytest
from snakemake.exceptions import WorkflowError
from snakemake.utils import validate

from mgm.dag import WORKFLOW
from mgm.dag.cluster import PROFILE
from mgm.dag.config import schemas
from mgm.reading import read_yaml

SCHEMAS = WORKFLOW / "schemas"
FILES = [("scale", path) for path in sorted((WORKFLOW / "config").glob("*.yaml"))]
FILES += [
    ("cluster", PROFILE / "cluster.yaml"),
    ("config", PROFILE / "paper.yaml"),
    ("config", WORKFLOW / "config" / "config.yml"),
]


def test_the_schemas_are_current():
    assert {
        path.name: path.read_text() for path in SCHEMAS.iterdir()
    } == schemas()  # `make format` writes them


@pytest.mark.parametrize(("kind", "path"), FILES, ids=lambda given: getattr(given, "name", given))
def test_snakemake_takes_what_we_ship_and_refuses_a_field_more(kind, path):
    schema, fields = str(SCHEMAS / f"{kind}.schema.json"), read_yaml(path)
    validate(fields, schema, set_default=False)
    with pytest.raises(WorkflowError, match="epochs_"):
        validate({**fields, "epochs_": 3}, schema, set_default=False)
