"""YAML has the numbers of JSON, and booleans are no numbers."""

import pytest

from mgm.dag.cluster import load_cluster
from mgm.reading import parse_value
from mgm.spec import Data, Optim, RunOptions
from tests.helpers.errors import refused


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-0", 0),
        ("1e-5", 1e-5),
        ("2.5", 2.5),
        ("true", True),
        ("null", None),
        ("", None),
        *((text, text) for text in ("010", "0x10", "24:00:00", "1:30", "1_000", "2024_11", ".5")),
        *((text, text) for text in ("yes", "on", "No", "~", ".inf", ".nan", "2026-01-01", "=")),
    ],
)
def test_yaml_has_the_numbers_of_json(text, value):
    read = parse_value(text, "x")
    assert (read, type(read)) == (value, type(value))


def test_sexagesimal_hours_are_refused(tmp_path):
    path = tmp_path / "cluster.yaml"
    for hours in ("24:00:00", "1:30", "on"):
        path.write_text(f"jobs:\n  probe: {{hours: {hours}}}\n")
        with refused("cluster.yaml: ", "jobs.probe.hours"):
            load_cluster(str(path))


def test_booleans_are_no_numbers():
    for kind, fields in (
        (Optim, {"steps": True}),
        (Optim, {"betas": [True, 0.5]}),
        (Data, {"dataset": True}),
    ):
        with pytest.raises(ValueError, match="true"):
            kind.model_validate(fields)
    assert RunOptions.model_validate({"recompute": True}).recompute
