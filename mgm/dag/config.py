"""The options of `snakemake --config`."""

from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, Field

from mgm.errors import valid
from mgm.spec import FrozenModel
from mgm.study.scales import ResultsName


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
