"""Scales, which are sizes of experiments, and suites, which are studies at a scale.

`workflow/config/NAME.yaml` holds a scale, as differences from the paper's recipes.
`studies/NAME.yaml` holds a suite: one study, or a list of studies with their scale.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr

from mgm.errors import UserError, valid
from mgm.spec import Flow, FrozenModel, KnownBackbone, RunOptions
from mgm.study import CONFIG, STUDIES
from mgm.study.schema import (
    PAPER,
    Dataset,
    Name,
    Numbers,
    Stage,
    Study,
    load_study,
    read_yaml,
    require_names,
)


class Steps(FrozenModel):
    """The number of training steps of a stage that trains by epochs: factor * epochs ** power.

    `warmup` is the share of the steps that warms up. Every other field of a run goes before these.
    """

    factor: float = Field(gt=0)
    power: float = Field(gt=0, le=1)
    warmup: float = Field(ge=0, lt=1)

    def of(self, epochs: float) -> dict[str, Any]:
        """Return the fields of a run that trains for so many epochs."""
        steps = round(self.factor * float(epochs) ** self.power)
        return {"optim.steps": steps, "optim.warmup_epochs": self.warmup * float(epochs)}


class Scale(FrozenModel):
    """The size of experiments, as differences from the paper's recipes."""

    name: Name
    # What its numbers allow to conclude. A page shows it, unless its one study has a caveat.
    caveat: str = ""
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
    # Each has one of `generate`, `adapt` and `root`, and may have a `recipe`.
    datasets: dict[Name, Dataset] = Field(default_factory=dict)
    # Method of the optical flow of Table 4b.
    flow: Flow = "raft-small"
    # Runs per job.
    specs_per_job: int = Field(1, ge=1)
    execution: RunOptions = RunOptions()
    _file: Path | None = PrivateAttr(None)

    @property
    def place(self) -> str:
        """Return the file that it was read from, or its name, for errors."""
        return str(self._file or f"scale {self.name}")


def file_of(name: str, folder: Path) -> Path:
    """Return a user's own YAML file, or the one of that name in a folder."""
    return Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"


def _fields(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return the fields of a scale, which replace those of the scale that `base` names.

    Overrides and backbones are merged.

    Args:
        above: the files that name this one.
    """
    if path in above:
        raise UserError(f"{path}: is the base of its own base")
    fields = read_yaml(path, "scale")
    if base := fields.pop("base", ""):
        own = file_of(str(base), path.parent)
        # A user's file may have the name of the scale that it changes.
        if not own.is_file() or own.samefile(path):
            own = file_of(str(base), CONFIG)
        old = _fields(own, (*above, path))
        for name in ("overrides", "backbones"):
            fields[name] = _merged(old.get(name, {}), fields.get(name, {}))
        return old | fields
    return fields


def _merged(old: Any, new: Any) -> Any:
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return new
    return {**old, **{name: _merged(old.get(name), value) for name, value in new.items()}}


def load_scale(path: Path) -> Scale:
    """Read a scale from a YAML file."""
    fields = _fields(path)
    with valid(f"{path}: "):
        scale = Scale.model_validate(fields)
    scale._file = path
    return scale


class _Suite(FrozenModel):
    """The file of a suite of several studies."""

    scale: str
    expected_cost: str = ""
    # Studies of the paper by name, or fields of studies as in a file of their own.
    studies: tuple[str | dict[str, Any], ...] = Field(min_length=1)


@dataclass(frozen=True)
class Suite:
    """Studies at a scale, the cost of all their runs in words, and the files that say so."""

    name: str
    studies: list[Study]
    scale: Scale
    cost: str
    files: list[Path]


def load_suite(name: str) -> Suite:
    """Read a suite: of studies/, or a YAML file of a user."""
    path = file_of(name, STUDIES)
    fields = read_yaml(path, "study")
    if "studies" not in fields:
        study = load_study(path)
        if study.study in study.views:
            raise UserError(f"{path}: views.{study.study}: is the study's name; choose another")
        return _suite(study.study, [study], study.scale, study.expected_cost, path)
    with valid(f"{path}: "):
        suite = _Suite.model_validate(fields)
    studies, views = list[Study](), dict[str, str]()
    for at, one in enumerate(suite.studies):
        if isinstance(one, str):
            study = load_study(PAPER / f"{one}.yaml")
        else:
            with valid(f"{path}: studies.{one.get('study', at)}."):
                study = Study.model_validate({"scale": suite.scale, **one})
            require_names(study, f"{path}: studies.{study.study}.")
        if study.study in [other.study for other in studies]:
            raise UserError(f"{path}: studies: {study.study} is there twice; remove one")
        for key in study.shown_views:
            if key in views:
                raise UserError(
                    f"{path}: studies.{study.study}.views.{key}: {views[key]} has a view of that "
                    "name; rename one"
                )
            views[key] = study.study
        studies.append(study)
    return _suite(path.stem, studies, suite.scale, suite.expected_cost, path)


def _suite(name: str, studies: list[Study], scale: str, cost: str, path: Path) -> Suite:
    file = file_of(scale, CONFIG)
    return Suite(name, studies, load_scale(file), cost, [path, file])
