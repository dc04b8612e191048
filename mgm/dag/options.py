"""Options of `snakemake --config`, and the study and the scale that they name."""

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from mgm.errors import UserError
from mgm.spec import PUBLISHED, FrozenModel
from mgm.study import CONFIG, STUDIES
from mgm.study.load import load_study
from mgm.study.scales import UNSCALED, Scale, file_of, load_scale
from mgm.study.schema import Study

# Datasets that jobs can prepare from a user's downloads.
PREPARED = [name for name, dataset in PUBLISHED.items() if not dataset.derived_from]


class DagOptions(FrozenModel):
    """Options of `snakemake --config`; all may be left out."""

    # A scale (smoke, mini, paper), or a YAML file. Default: smoke, and with `cluster` paper.
    scale: str = ""
    # A study of studies/, or a YAML file, in place of the paper's experiments.
    study: str = ""
    # Published datasets that jobs prepare, each with the folder of its download. `ucf101=DIR` is
    # one of them.
    sources: dict[str, str] = Field(default_factory=dict)
    # A YAML file with the resources of Slurm jobs. Default: jobs run on this machine.
    cluster: str = ""

    @model_validator(mode="before")
    @classmethod
    def _sources_by_name(cls, fields: dict[str, Any]) -> dict[str, Any]:
        sources = {name: fields[name] for name in PREPARED if name in fields}
        others = {name: value for name, value in fields.items() if name not in sources}
        return {"sources": sources} | others if sources else others


def named(options: DagOptions) -> tuple[Study | None, Scale]:
    """Return the study, if one is named, and the scale."""
    if not options.study:
        named = options.scale or ("paper" if options.cluster else "smoke")
        return None, load_scale(file_of(named, CONFIG))
    if options.scale:
        raise UserError(
            f"--config study={options.study} has its own scale; leave out scale={options.scale}"
        )
    study = load_study(file_of(options.study, STUDIES))
    present = {
        name
        for name, place in study.datasets.items()
        if name in options.sources or Path(place.root, "index.json").is_file()
    }
    scale = load_scale(file_of(study.scale, CONFIG)) if study.scale else UNSCALED
    return study.without_absent(present), scale
