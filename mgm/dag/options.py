"""The options of `snakemake --config`."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from mgm.errors import valid
from mgm.spec import FrozenModel


def _text(value: Any) -> Any:
    """Refuse what Snakemake does not read as text, such as 007 (read as 7) and 2023_11 (202311)."""
    if isinstance(value, int | float):
        raise ValueError("Snakemake does not read it as text; quote it twice: 'NAME=\"007\"'")
    return value


Text = Annotated[str, BeforeValidator(_text)]


class Options(FrozenModel):
    """Options of `snakemake --config`; all may be left out."""

    # A scale (smoke, mini, paper), or a YAML file. Default: smoke, and with `cluster` paper.
    scale: Text = ""
    # A study of studies/, or a YAML file, in place of the paper's experiments.
    study: Text = ""
    # One of the scale's sizes, such as 24gb or 80gb of study=day. Default: the first.
    gpu: Text = ""
    # Published datasets, each with the folder of its download. Jobs prepare them.
    sources: dict[str, str] = Field(default_factory=dict)
    # The same as sources='{ucf101: DIR, hmdb51: DIR}'.
    ucf101: Text = ""
    hmdb51: Text = ""
    # A file with RAFT-small's weights. Default: torchvision downloads its own.
    flow_weights: Text = ""
    # Run even if the GPU is missing or too small, or if archives are incomplete.
    yes: bool = False
    # A YAML file with the resources of Slurm jobs. Default: jobs run on this machine.
    cluster: Text = ""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.study and self.scale:
            raise ValueError(f"study={self.study} has its own scale; leave out scale={self.scale}")
        return self


def parse_options(config: Mapping[str, Any]) -> Options:
    """Read Snakemake's `config`.

    Raises:
        UserError: an option is unknown or invalid. The error names it.
    """
    with valid("--config ", f"the options are {', '.join(Options.model_fields)}"):
        return Options.model_validate(dict(config))
