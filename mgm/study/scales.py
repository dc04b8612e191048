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
    if "studies" in fields:
        with valid(f"{path}: "):
            suite = _Suite.model_validate(fields)
        name, scale, cost = path.stem, suite.scale, suite.expected_cost
        studies = [_study_in(suite, one, path) for one in suite.studies]
    else:
        study = load_study(path)
        name, scale, cost = study.study, study.scale, study.expected_cost
        studies = [study]
        if name in study.views:
            raise UserError(f"{path}: views.{name}: is the study's name; choose another")
    known = dict[str, str]()
    for study in studies:
        require_names(study, f"{path}: ")
        for key in dict.fromkeys([study.study, *study.shown_views]):
            if key in known:
                raise UserError(
                    f"{path}: studies: {known[key]} and {study.study} both have the name {key}; "
                    "choose another, or remove one"
                )
            known[key] = study.study
    file = file_of(scale, CONFIG)
    return Suite(name, studies, load_scale(file), cost, [path, file])


def _study_in(suite: _Suite, one: str | dict[str, Any], path: Path) -> Study:
    """Return a study of a suite, whose file is `path`."""
    if isinstance(one, str):
        return load_study(PAPER / f"{one}.yaml")
    with valid(f"{path}: studies.{one.get('study', '?')}."):
        return Study.model_validate({"scale": suite.scale, **one})
