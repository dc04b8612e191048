"""A scale: the same experiments at another size. It lists what differs from the paper, and nothing else."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import yaml
from pydantic import Field, ValidationError

from mgm.errors import UserError
from mgm.spec import Flow, Part, Run, parse

NAME = r"(?!\.\.?$)[A-Za-z0-9._][A-Za-z0-9._-]{0,99}"  # of results and datasets: a folder's name, and a word of a shell
OWN = "folder"  # the dataset name of a user's own videos

R = TypeVar("R", bound=Run)


class Dataset(Part):
    """Where a dataset comes from: drawn by our generator with these parameters, made of two others for domain adaptation (source,
    target), or prepared by the user under `root`."""

    generate: dict[str, Any] = Field(default_factory=dict)
    adapt: tuple[()] | tuple[str, str] = ()
    root: str = ""
    digest: str = ""  # filled in by the workflow for generated sets and for a user's folder


class Execution(Part):
    """How jobs run here; none of it changes a result (beyond rounding, for threads)."""

    threads: int = Field(1, ge=1)
    workers: int = Field(0, ge=0)
    cache_mb: int = Field(0, ge=0)
    checkpoint_s: float = Field(300, ge=0)


class Steps(Part):
    """steps = factor * epochs ** power, one monotone rule for every run of a scale; `warmup` is the share of them that warms up."""

    factor: float = Field(gt=0)
    power: float = Field(gt=0, le=1)
    warmup: float = Field(ge=0, lt=1)


class Scale(Part):
    """`overrides` maps a verb to {dotted field: value}; `backbones` maps a backbone to its encoder's fields."""

    name: str
    promise: str  # what a reader may conclude from numbers of this scale, shown with every table
    takes: str  # time, machine and disk of the whole DAG, said before it starts
    seeds: tuple[int, ...] = Field(min_length=1)
    more_seeds: dict[str, tuple[int, ...]] = Field(default_factory=dict)  # of single targets, such as table4e
    steps: Steps | None = None  # none: real epochs
    overrides: dict[str, dict[str, Any]] = Field(default_factory=dict)
    backbones: dict[str, dict[str, int]] = Field(default_factory=dict)
    datasets: dict[str, Dataset]
    flow: Flow = "raft-small"  # what Table 4b's optical flow is
    flow_weights: str = ""  # a file with RAFT-small's weights; empty: torchvision's own, from the network
    weights: dict[str, str] = Field(default_factory=dict)  # row of Table 1: weights a user gives, to be finetuned in its place
    specs_per_job: int = Field(1, ge=1)
    execution: Execution = Execution()

    @property
    def own_videos(self) -> bool:
        return OWN in self.datasets

    def apply(self, spec: R, seed: int) -> R:
        """`spec`, as this scale runs it with `seed`."""
        fields = spec.model_dump(mode="json")
        for dotted, value in self.overrides.get(spec.verb, {}).items():
            _set(fields, dotted, value, f"scale {self.name}: overrides.{spec.verb}.{dotted}")
        fields["model"] |= self.backbones.get(spec.model.backbone, {})
        if self.steps and "optim" in fields:
            epochs = fields["optim"]["epochs"]
            fields["optim"]["steps"] = round(self.steps.factor * epochs**self.steps.power)
            fields["optim"]["warmup_epochs"] = self.steps.warmup * epochs
        fields["data"]["digest"] = self.datasets[spec.data.dataset].digest
        fields["seed"] = seed
        return parse(fields, f"scale {self.name}")  # type: ignore[return-value]


def load_scale(path: Path, given: Mapping[str, Any] = MappingProxyType({})) -> Scale:
    """The scale in a YAML file, with the fields that are `given` beside it.

    Raises:
        UserError: no such scale, or a field that is unknown, missing or invalid.
    """
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.yaml")))
        raise UserError(f"{path}: no such scale; choose one of {known}")
    return parse_scale({**yaml.safe_load(path.read_text()), **given}, path)


def parse_scale(fields: Any, source: Path) -> Scale:
    """The scale that `fields` describe; `source` is named in the error."""
    try:
        return Scale.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{source}: {where}: {first['msg']}; correct it, or for results of an older version use that version") from None


def _set(fields: dict[str, Any], dotted: str, value: Any, source: str) -> None:
    *groups, last = dotted.split(".")
    for group in groups:
        fields = fields.get(group, {})
    if last not in fields:
        raise UserError(f"{source} is not a field of a spec; correct its name")
    fields[last] = value
