"""Scales: the paper's experiments at other sizes.

A scale lists only what differs from the paper.
"""

from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import Field, PositiveInt, TypeAdapter, model_validator

from mgm.errors import UserError, nearest, valid
from mgm.reading import deep_merge, read_yaml
from mgm.spec import (
    BACKBONES,
    Data,
    Flow,
    FrozenModel,
    KnownBackbone,
    Probe,
    Run,
    RunOptions,
    parse,
)
from mgm.spec.values import SIZES
from mgm.study.schema import Name, Numbers, ResultsName, Stage, Study

R = TypeVar("R", bound=Run)


class Dataset(FrozenModel):
    """The origin of a dataset, one of three.

    Our generator draws it with the parameters `generate`. Or jobs make it from two other datasets
    for domain adaptation (`adapt`: source, target). Or the user prepared it in the folder `root`.
    """

    generate: dict[str, Any] = Field(default_factory=dict)
    adapt: tuple[()] | tuple[str, str] = ()
    root: str = ""
    # Its name in specs; by default its name in the scale.
    name: str = ""
    # The workflow fills in the next field for generated datasets and for a user's folder.
    digest: str = ""
    # The workflow fills in the next for a user's folder: several videos come from one source.
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


class Scale(FrozenModel):
    """The experiments at one size, as differences from the paper."""

    name: ResultsName
    # What its numbers allow to conclude. It is shown with every table.
    caveat: str
    # Cost of the whole DAG, printed before it starts.
    expected_cost: str
    seeds: Numbers = Field(min_length=1)
    # Seeds of a study such as table4e, or of one column of it, such as "table4e.Linear probe".
    more_seeds: dict[str, Numbers] = Field(default_factory=dict)
    # None: steps follow from the paper's epochs.
    steps: Steps | None = None
    # Steps of pretraining in a study of the paper's suite, such as table1.
    steps_of: dict[str, PositiveInt] = Field(default_factory=dict)
    # Each stage with its {dotted field: value}.
    overrides: dict[Stage, dict[str, Any]] = Field(default_factory=dict)
    # The model of a study's runs.
    backbone: KnownBackbone = "vit-b"
    # Fields of the encoder that replace a backbone's. `backbone` is the name of the new sizes.
    backbones: dict[KnownBackbone, dict[str, int | str]] = Field(default_factory=dict)
    datasets: dict[Name, Dataset]
    # Method of the optical flow of Table 4b.
    flow: Flow = "raft-small"
    # A file with RAFT-small's weights. Empty: torchvision downloads its own.
    flow_weights: str = ""
    # The workflow fills in the run ids of the files of weights that rows start from.
    weights: dict[str, str] = Field(default_factory=dict)
    # Add the rows of other papers' masks to Table 4e. Each takes one more pretraining run per seed.
    other_masks: bool = False
    # Studies of the paper's suite that this scale leaves out.
    without: tuple[str, ...] = ()
    # The study whose runs these are, in place of the paper's.
    study: Study | None = None
    # The workflow fills in the study's file, as seen from the folder of results.
    study_file: str = ""
    # Memory that a GPU needs. 0: unknown.
    memory_gb: float = Field(0, ge=0)
    # Fields that replace these, by the name of a size (`--config gpu=`). Empty once one is chosen.
    sizes: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    # The size that was chosen.
    size: str = ""
    specs_per_job: int = Field(1, ge=1)
    execution: RunOptions = RunOptions()

    def key_of(self, data: Data) -> str:
        """Return the name in `datasets` of a run's data."""
        return self._keys.get((data.dataset, data.digest), data.dataset)

    @cached_property
    def _keys(self) -> dict[tuple[str, str], str]:
        return {
            (dataset.name or key, dataset.digest): key for key, dataset in self.datasets.items()
        }

    def of_study(self, study: str) -> Self:
        """Return this scale with the steps of pretraining that it has for a study."""
        if study not in self.steps_of:
            return self
        own = {**self.overrides.get("pretrain", {}), "optim.steps": self.steps_of[study]}
        return self.model_copy(update={"overrides": {**self.overrides, "pretrain": own}})

    def apply(self, spec: R, seed: int) -> R:
        """Return `spec` as this scale runs it with `seed`.

        Raises:
            UserError: the scale lacks the run's backbone, or a field is invalid.
        """
        source, fields = f"scale {self.name}", spec.model_dump(mode="json")
        key, backbone = spec.data.dataset, spec.model.backbone
        dataset = self.datasets[key]
        if dataset.grouped and isinstance(spec, Probe):
            fields["held_out"] = "groups"
        for dotted, value in self.overrides.get(spec.stage, {}).items():  # type: ignore[call-overload]
            set_field(fields, dotted, value, f"{source}: overrides.{spec.stage}.{dotted}")
        # Without `backbones`, a scale has full sizes.
        if self.backbones:
            if backbone not in self.backbones:
                raise UserError(f"{source}: backbones lacks {backbone}; add its sizes")
            fields["model"] |= self.backbones[backbone]
        if self.steps and "optim" in fields:
            if type(epochs := fields["optim"]["epochs"]) is not int:
                # An override, such as "20".
                epochs = parse(fields, source).optim.epochs  # type: ignore[union-attr]
            # An override of this stage's steps has precedence.
            fields["optim"]["steps"] = fields["optim"]["steps"] or round(
                self.steps.factor * epochs**self.steps.power
            )
            fields["optim"]["warmup_epochs"] = self.steps.warmup * epochs
        fields["data"] |= {"dataset": dataset.name or key, "digest": dataset.digest}
        fields["seed"] = seed
        return parse(fields, source)  # type: ignore[return-value]


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


def load_scale(path: Path, size: str = "") -> Scale:
    """Read a scale from a YAML file.

    Args:
        size: one of the file's `sizes`, by default the first. Its fields replace the scale's own,
            group by group.

    Raises:
        UserError: there is no such scale or size, or a field is unknown, missing or invalid.
    """
    fields = read_named(path, "scale")
    with valid(f"{path}: sizes: "):
        sizes = TypeAdapter(dict[Name, dict[str, Any]]).validate_python(fields.pop("sizes", {}))
    if size and size not in sizes:
        known = f"choose one of {', '.join(sizes)}" if sizes else "it has one size; leave gpu out"
        raise UserError(f"{path}: has no size {size}; {known}")
    if sizes:
        size = size or next(iter(sizes))
        fields = {**deep_merge(fields, sizes[size]), "size": size}
    scale = parse_scale(fields, path)
    new = scale.name != UNNAMED_SIZES
    for name, own in scale.backbones.items():
        if new and {*SIZES} & own.keys() and own.get("backbone", name) in BACKBONES:
            raise UserError(
                f"{path}: backbones.{name} has other sizes than {name}; add "
                f"backbone: {name}-{scale.name.lower()} to it, to name them"
            )
    return scale


# The scale that uses the paper's names for toy sizes. The ids of committed runs depend on them.
UNNAMED_SIZES = "mini"


def parse_scale(fields: Any, source: Path) -> Scale:
    """Return the scale that `fields` describe. Errors name `source`."""
    with valid(f"{source}: ", "correct it, or for results of an older version use that version"):
        return Scale.model_validate(fields)


def set_field(fields: dict[str, Any], dotted: str, value: Any, source: str) -> None:
    """Set a field of a spec by its dotted name.

    Raises:
        UserError: there is no such field. The error names `source`.
    """
    *groups, last = dotted.split(".")
    for group in groups:
        fields = fields.get(group, {})
    if last not in fields:
        raise UserError(f"{source} is not a field of a spec; correct its name")
    fields[last] = value
