"""The options of `snakemake --config`, and the JSON Schemas of what a user writes.

There is one each for these options, a scale and a cluster's file.
"""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, Field

from mgm.dag import WORKFLOW
from mgm.dag.cluster import Cluster
from mgm.errors import UserError, valid
from mgm.paper.scales import ResultsName, Scale
from mgm.spec import FrozenModel


class Config(FrozenModel):
    """Options of `snakemake --config`, or of a `config.yaml`; all may be left out."""

    model_config = ConfigDict(coerce_numbers_to_str=True)  # name=2024 is a name

    scale: str = Field(
        "smoke", description="A scale's name (smoke, mini, day, paper), or a YAML file of your own."
    )
    name: ResultsName | None = Field(None, description="The results' name, by default the scale's.")
    videos: str | None = Field(
        None,
        description="A folder or CSV of your own videos, or what `mgm prepare folder` made of "
        "them, in place of the paper's datasets; needs a name.",
    )
    weights: dict[str, str] = Field(
        {}, description="Row of Table 1: weights to finetune in its place."
    )
    flow_weights: str = Field(
        "",
        description="A file with RAFT-small's weights; by default torchvision's own, from the "
        "network.",
    )
    sources: dict[str, str] | None = Field(
        None,
        description="Published dataset: the folder it was downloaded to, to be prepared by jobs.",
    )
    shards: int | None = Field(
        None, ge=1, description="Jobs that share the videos of such a dataset."
    )
    ucf101: str | None = Field(None, description="The same as sources='{ucf101: DIR}'.")
    hmdb51: str | None = Field(None, description="The same as sources='{hmdb51: DIR}'.")
    gpu: str = Field(
        "", description="A scale's size, such as 24gb and 80gb of scale day; by default its first."
    )
    steps: int | None = Field(
        None, ge=1, description="Cut every training run to this many steps, to rehearse a scale."
    )
    yes: bool = Field(
        False, description="Run on this machine though its GPU is missing or too small."
    )
    cluster: str | None = Field(
        None,
        description="A YAML file that says what Slurm's jobs ask for; by default jobs run on this "
        "machine.",
    )
    partition: str = Field(
        "", description="Slurm's partition, before the one in the cluster's file."
    )
    account: str = Field("", description="Slurm's account, before the one in the cluster's file.")


def parse_config(config: Mapping[str, Any]) -> Config:
    """Read Snakemake's `config`.

    Raises:
        UserError: an option that is unknown or invalid, named.
    """
    for name in ("weights", "sources"):
        if not isinstance(value := config.get(name, {}), Mapping | None):
            raise UserError(
                f"--config {name}: write it as {name}='{{NAME: VALUE, ...}}' (got {value!r})"
            )
    with valid("--config ", f"the options are {', '.join(Config.model_fields)}"):
        return Config.model_validate(dict(config))


def schemas() -> dict[str, str]:
    """Return the text of each file in workflow/schemas, from the models that check these inputs."""
    found = {
        name: model.model_json_schema()
        for name, model in (("config", Config), ("scale", Scale), ("cluster", Cluster))
    }
    for part in (found["cluster"], *found["cluster"]["$defs"].values()):
        part.pop("required")  # a user's file keeps what differs from the profile's
    draft = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {
        f"{name}.schema.json": json.dumps(draft | schema, indent=1) + "\n"
        for name, schema in found.items()
    }


if __name__ == "__main__":  # `make format`
    for name, text in schemas().items():
        (WORKFLOW / "schemas" / name).write_text(text)
