"""Scales: the paper's experiments at other sizes, as differences from the paper.

`workflow/config/NAME.yaml` holds one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from mgm.errors import UserError, nearest, valid
from mgm.spec import Flow, FrozenModel, KnownBackbone, RunOptions
from mgm.study import CONFIG
from mgm.study.schema import Name, Numbers, Stage, Study, read_yaml

# The paper's studies, in the order of its tables.
PAPER = Path(__file__).with_name("paper")
NAMES = ("table1", "table2", "table3", "table4", "table4e", "measured")


class ScaleDataset(FrozenModel):
    """Where the videos of a dataset come from: one of `generate`, `adapt`, `root`."""

    # Parameters of a drawn dataset (`mgm.drawn`).
    generate: dict[str, Any] = Field(default_factory=dict)
    # The source and the target of partial domain adaptation.
    adapt: tuple[()] | tuple[str, str] = ()
    # A folder that `mgm prepare` wrote.
    root: str = ""
    # Its name in specs; by default its name in the scale.
    name: str = ""
    # The dataset whose recipe its runs have (`mgm.study.recipes`); by default its own.
    recipe: str = ""
    # Filled in by `mgm.study.expand`. Published datasets have none.
    digest: str = ""

    @model_validator(mode="after")
    def _has_a_source(self) -> Self:
        if sum(map(bool, (self.generate, self.adapt, self.root))) != 1:
            raise ValueError("needs one of generate, adapt, root")
        return self


class Steps(FrozenModel):
    """The number of training steps: factor * epochs ** power, where a stage has no `optim.steps`.

    `warmup` is the share of the steps that warms up.
    """

    factor: float = Field(gt=0)
    power: float = Field(gt=0, le=1)
    warmup: float = Field(ge=0, lt=1)

    def of(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the steps of a run with these fields; nothing if it does not train by epochs."""
        epochs = fields.get("optim.epochs")
        if not epochs:
            return {}
        steps = fields["optim.steps"] or round(self.factor * float(epochs) ** self.power)
        return {"optim.steps": steps, "optim.warmup_epochs": self.warmup * float(epochs)}


class Scale(FrozenModel):
    """The experiments at one size, as differences from the paper."""

    name: Name
    # What its numbers allow to conclude. Every page shows it.
    caveat: str = ""
    # Cost of all its runs, printed before they start.
    expected_cost: str = ""
    # Seeds of runs.
    seeds: Numbers = (0,)
    # Seeds of every generated dataset. Then a run has the seed of its dataset, and intervals are
    # over datasets.
    dataset_seeds: Numbers = ()
    # None: steps follow from the paper's epochs.
    steps: Steps | None = None
    # Fields of each stage that differ from the recipes.
    overrides: dict[Stage, dict[str, Any]] = Field(default_factory=dict)
    # Fields of the encoder that replace a backbone's. Empty: full sizes.
    backbones: dict[KnownBackbone, dict[str, int | str]] = Field(default_factory=dict)
    datasets: dict[Name, ScaleDataset] = Field(default_factory=dict)
    # Method of the optical flow of Table 4b.
    flow: Flow = "raft-small"
    # What this scale changes in the paper's studies: fields that are merged into theirs. A field,
    # or a study, that is null is left out. `"*": null` leaves out all fields of a mapping.
    studies: dict[str, dict[str, Any] | None] = Field(default_factory=dict)
    specs_per_job: int = Field(1, ge=1)
    execution: RunOptions = RunOptions()


def merged(fields: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested fields with `changes`. A change to None leaves the field out; "*" is all."""
    result = {} if "*" in changes else dict(fields)
    for name, change in changes.items():
        old = result.get(name)
        if change is None:
            result.pop(name, None)
        elif isinstance(old, Mapping) and isinstance(change, Mapping):
            result[name] = merged(old, change)
        else:
            result[name] = change
    return result


def file_of(name: str, folder: Path) -> Path:
    """Return a user's own YAML file, or the one of that name in a folder."""
    return Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"


def _fields(path: Path) -> dict[str, Any]:
    """Return the fields of a scale, merged into those of the scale that `base` names."""
    fields = read_yaml(path, "scale")
    if base := fields.pop("base", ""):
        own = file_of(str(base), path.parent)
        # A user's file may have the name of the scale that it changes.
        if not own.is_file() or own.samefile(path):
            own = file_of(str(base), CONFIG)
        return merged(_fields(own), fields)
    return fields


def load_scale(path: Path) -> Scale:
    """Read a scale from a YAML file.

    Raises:
        UserError: there is no such scale, or a field is unknown, missing or invalid.
    """
    fields = _fields(path)
    with valid(f"{path}: "):
        return Scale.model_validate(fields)


def of_paper(scale: Scale) -> list[Study]:
    """Return the paper's studies as a scale has them.

    Raises:
        UserError: the scale changes a study so that it is invalid, or names one that is not there.
    """
    if unknown := scale.studies.keys() - {*NAMES}:
        name = min(unknown)
        raise UserError(f"scale {scale.name}: studies.{name} is unknown; {nearest(name, NAMES)}")
    studies = []
    for name in NAMES:
        changes = scale.studies.get(name, {})
        if changes is not None:
            fields = merged(read_yaml(PAPER / f"{name}.yaml", "study"), changes)
            with valid(f"scale {scale.name}: studies.{name}."):
                studies.append(Study.model_validate(fields))
    return studies
