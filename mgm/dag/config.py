"""The options of `snakemake --config`, and the JSON Schemas of the files that a user writes.

There are three schemas: for these options, for a scale and for a cluster's file.
"""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, Field

from mgm.dag import WORKFLOW
from mgm.dag.cluster import Cluster
from mgm.errors import valid
from mgm.spec import FrozenModel
from mgm.study.scales import ResultsName, Scale


class Config(FrozenModel):
    """Options of `snakemake --config`, or of a `config.yaml`; all may be left out."""

    # Names may be numbers, as in name=2024.
    model_config = ConfigDict(coerce_numbers_to_str=True)

    scale: str = Field(
        "smoke",
        description="The name of a scale (smoke, mini, paper), or a YAML file of your own.",
    )
    study: str = Field(
        "",
        description="The name of a study in studies/, or a YAML file of your own, in place of the "
        "paper's experiments and of `scale`.",
    )
    name: ResultsName | None = Field(
        None, description="The name of the results; by default the scale's name."
    )
    videos: str | None = Field(
        None,
        description="Your own videos, in place of the paper's datasets: a folder, a CSV file, or "
        "a folder that `mgm prepare folder` wrote. Needs `name`.",
    )
    weights: dict[str, str] = Field(
        {},
        description="Rows of Table 1, each with a file of weights to fine-tune instead of quoting "
        "the paper.",
    )
    flow_weights: str = Field(
        "",
        description="A file with RAFT-small's weights; by default torchvision downloads its own.",
    )
    sources: dict[str, str] | None = Field(
        None,
        description="Published datasets, each with the folder of its download. Jobs prepare them.",
    )
    shards: int | None = Field(
        None, ge=1, description="The number of jobs that prepare a dataset of `sources`."
    )
    ucf101: str | None = Field(None, description="The same as sources='{ucf101: DIR}'.")
    hmdb51: str | None = Field(None, description="The same as sources='{hmdb51: DIR}'.")
    gpu: str = Field(
        "",
        description="One of the scale's sizes, such as 24gb or 80gb of study=day; by default the "
        "first.",
    )
    steps: int | None = Field(
        None, ge=1, description="Shorten every training run to this many steps, to try a scale out."
    )
    yes: bool = Field(
        False,
        description="Run even if the GPU is missing or too small, or if archives are incomplete.",
    )
    cluster: str | None = Field(
        None,
        description="A YAML file with the resources of Slurm jobs; by default jobs run on this "
        "machine.",
    )


def parse_config(config: Mapping[str, Any]) -> Config:
    """Read Snakemake's `config`.

    Raises:
        UserError: an option is unknown or invalid. The error names it.
    """
    with valid("--config ", f"the options are {', '.join(Config.model_fields)}"):
        return Config.model_validate(dict(config))


def schemas() -> dict[str, str]:
    """Return the text of each file in workflow/schemas, made from the models of these files."""
    models = {
        name: model.model_json_schema()
        for name, model in (("config", Config), ("scale", Scale), ("cluster", Cluster))
    }
    for part in (models["cluster"], *models["cluster"]["$defs"].values()):
        # A user's file has only the fields that differ from the profile's.
        part.pop("required")
    draft = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {
        f"{name}.schema.json": json.dumps(draft | schema, indent=1) + "\n"
        for name, schema in models.items()
    }


# `make format` runs this.
if __name__ == "__main__":
    for name, text in schemas().items():
        (WORKFLOW / "schemas" / name).write_text(text)
