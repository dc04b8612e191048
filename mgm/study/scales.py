"""Scales: the paper's experiments at other sizes.

A scale lists only what differs from the paper.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from mgm.errors import UserError, nearest, valid
from mgm.reading import read_yaml
from mgm.spec import Flow, FrozenModel, KnownBackbone, RunOptions
from mgm.spec.values import SIZES
from mgm.study.schema import Name, ResultsName, Stage
from mgm.study.selection import Numbers


class ScaleDataset(FrozenModel):
    """The origin of a dataset, one of three.

    Our generator draws it with the parameters `generate`. Or jobs make it from two other datasets
    for domain adaptation (`adapt`: source, target). Or the user prepared it in the folder `root`.
    """

    generate: dict[str, Any] = Field(default_factory=dict)
    adapt: tuple[()] | tuple[str, str] = ()
    root: str = ""
    # Its name in specs; by default its name in the scale.
    name: str = ""
    # The dataset whose recipe its runs have (`mgm.study.recipes`); by default its own.
    recipe: str = ""
    # `mgm.study.videos` fills in the digest of generated datasets and of a user's folder, and
    # whether several of the folder's videos come from one source.
    digest: str = ""
    grouped: bool = False

    @model_validator(mode="after")
    def _has_a_source(self) -> Self:
        if not (self.generate or self.adapt or self.root):
            raise ValueError("needs `root` (a folder with an index), `generate` or `adapt`")
        return self


class Steps(FrozenModel):
    """The number of steps of a scale's runs: steps = factor * epochs ** power.

    `optim.steps` in a stage's overrides has precedence. `warmup` is the share of the steps that
    warms up.
    """

    factor: float = Field(gt=0)
    power: float = Field(gt=0, le=1)
    warmup: float = Field(ge=0, lt=1)

    def of(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the steps of a run with these fields; nothing if it does not train by epochs."""
        # A spec refuses what is not a whole number.
        if type(epochs := fields.get("optim.epochs")) is not int:
            return {}
        return {
            "optim.steps": fields["optim.steps"] or round(self.factor * epochs**self.power),
            "optim.warmup_epochs": self.warmup * epochs,
        }


class Scale(FrozenModel):
    """The experiments at one size, as differences from the paper."""

    name: ResultsName
    # What its numbers allow to conclude. It is shown with every table.
    caveat: str
    # Cost of the whole DAG, printed before it starts.
    expected_cost: str
    seeds: Numbers = Field(min_length=1)
    # Seeds of a study's columns where they are others, as in {table4e: {Linear probe: 0-53}}.
    seeds_of: dict[str, dict[str, Numbers]] = Field(default_factory=dict)
    # None: steps follow from the paper's epochs.
    steps: Steps | None = None
    # Each stage with its {dotted field: value}.
    overrides: dict[Stage, dict[str, Any]] = Field(default_factory=dict)
    # Fields of the encoder that replace a backbone's. `backbone` is the name of the new sizes. It
    # may be the paper's, as the ids of mini's runs have it.
    backbones: dict[KnownBackbone, dict[str, int | str]] = Field(default_factory=dict)
    datasets: dict[Name, ScaleDataset]
    # Method of the optical flow of Table 4b.
    flow: Flow = "raft-small"
    # Studies of the paper's suite that this scale leaves out.
    without: tuple[str, ...] = ()
    specs_per_job: int = Field(1, ge=1)
    execution: RunOptions = RunOptions()


# What a study without a scale has: the defaults of a spec.
UNSCALED = Scale(name="none", caveat="", expected_cost="", seeds=(0,), datasets={})


def file_of(name: str, folder: Path) -> Path:
    """Return a user's own YAML file, or the one of that name in a folder."""
    return Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"


def read_named(path: Path, what: str) -> dict[str, Any]:
    """Read the fields of the YAML file of a scale or a study.

    Raises:
        UserError: there is no such file, or it is not YAML.
    """
    if not path.exists():
        known = sorted(file.stem for file in path.parent.glob("*.yaml"))
        raise UserError(f"{path}: no such {what}; name a YAML file, or {nearest(path.stem, known)}")
    return read_yaml(path)


def parse_scale(fields: dict[str, Any], source: str) -> Scale:
    """Return the scale that `fields` describe."""
    with valid(f"{source}: "):
        return Scale.model_validate(fields)


def load_scale(path: Path) -> Scale:
    """Read a scale from a YAML file.

    Raises:
        UserError: there is no such scale, or a field is unknown, missing or invalid.
    """
    scale = parse_scale(read_named(path, "scale"), str(path))
    for name, own in scale.backbones.items():
        if {*SIZES} & own.keys() and "backbone" not in own:
            raise UserError(
                f"{path}: backbones.{name} has other sizes than {name}; add "
                f"backbone: {name}-{scale.name.lower()} to it, to name them"
            )
    return scale
