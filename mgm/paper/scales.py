"""A scale: the same experiments at another size.

It lists what differs from the paper, and nothing else.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, model_validator

from mgm.errors import UserError, valid
from mgm.masking import MaskName
from mgm.reading import deep_merge, read_yaml
from mgm.spec import BACKBONES, Flow, FrozenModel, KnownBackbone, ProbeKind, Run, RunOptions, parse

OWN = "folder"  # the dataset name of a user's own videos

R = TypeVar("R", bound=Run)


class Dataset(FrozenModel):
    """The origin of a dataset.

    It is drawn by our generator with the parameters `generate`, made of two others for domain
    adaptation (`adapt`: source, target), or prepared by the user under `root`.
    """

    generate: dict[str, Any] = Field(default_factory=dict)
    adapt: tuple[()] | tuple[str, str] = ()
    root: str = ""
    digest: str = ""  # filled in by the workflow for generated sets and for a user's folder
    grouped: bool = False  # filled in for a user's folder: several videos come from one source
    several_labels: bool = False  # filled in for a user's folder: a video may have several labels

    @model_validator(mode="after")
    def _has_a_source(self) -> Self:
        if not (self.generate or self.adapt or self.root):
            raise ValueError(
                "needs `root`, the folder where `mgm prepare` wrote its index, or `generate` or "
                "`adapt`"
            )
        return self


class Steps(FrozenModel):
    """One rule for the runs of a scale: steps = factor * epochs ** power.

    `optim.steps` in a stage's overrides wins over it.

    `warmup` is the share of them that warms up.
    """

    factor: float = Field(gt=0)
    power: float = Field(gt=0, le=1)
    warmup: float = Field(ge=0, lt=1)


# Of a folder, and one word to a shell.
Name = Annotated[str, Field(pattern="^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$")]


def _not_reserved(name: str) -> str:
    if name.lower().startswith(RESERVED) or name.lower().endswith(".tar.xz"):
        raise ValueError(f"is a name of mgm's own files beside results; choose another than {name}")
    return name


RESERVED = ("mlflow.db", "mlflow-artifacts")
ResultsName = Annotated[Name, AfterValidator(_not_reserved)]
Stage = Literal["pretrain", "finetune", "probe", "measure", "visualise"]
TRAINING: tuple[Stage, Stage] = ("pretrain", "finetune")


class Comparison(FrozenModel):
    """A comparison of masks in place of the paper's tables; see `mgm.paper.ablations`."""

    data: Name
    masks: tuple[MaskName, ...] = Field(min_length=1)  # the most important first
    epochs: int = Field(200, ge=1)
    backbone: KnownBackbone = "vit-b"
    # `attentive` first: its pass over the videos leaves what the other kinds read
    kinds: tuple[ProbeKind, ...] = ("attentive", "logistic", "sgd", "knn")
    finetune: bool = True
    transfer: tuple[Name, ...] = ()  # datasets that the weights are probed on as well


class Scale(FrozenModel):
    """The experiments at one size: what differs from the paper, and nothing else.

    `overrides` maps a stage to {dotted field: value}.
    """

    name: ResultsName
    caveat: str  # what its numbers allow to conclude, shown with every table
    expected_cost: str  # of the whole DAG, said before it starts
    seeds: tuple[int, ...] = Field(min_length=1)
    # Of targets such as table4e, or of its probes: table4e.probe.
    more_seeds: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    # Seeds that generated datasets are drawn from: seed s is run on the one of data_seeds[s % n].
    # Empty: on the one of `datasets`.
    data_seeds: tuple[int, ...] = ()
    steps: Steps | None = None  # none: real epochs
    overrides: dict[Stage, dict[str, Any]] = Field(default_factory=dict)
    # The encoder's fields in place of a backbone's; `backbone` is the name that they go by.
    backbones: dict[KnownBackbone, dict[str, int | str]] = Field(default_factory=dict)
    datasets: dict[Name, Dataset]
    flow: Flow = "raft-small"  # what Table 4b's optical flow is
    # A file with RAFT-small's weights; empty: torchvision's own, from the network.
    flow_weights: str = ""
    # Row of Table 1: weights a user gives, to be finetuned in its place.
    weights: dict[str, str] = Field(default_factory=dict)
    # Whether Table 4e has rows for other papers' masks, each a pretraining a seed more.
    other_masks: bool = False
    grid: Comparison | None = None
    memory_gb: float = Field(0, ge=0)  # that a GPU needs for it; 0: not known
    hours: float = Field(0, ge=0)  # that it is meant to fill on one GPU; 0: not bounded
    # fields over these, by the name of a size (`--config gpu=`); empty once one is chosen
    sizes: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    specs_per_job: int = Field(1, ge=1)
    execution: RunOptions = RunOptions()

    @model_validator(mode="before")
    @classmethod
    def _draws_datasets(cls, fields: Any) -> Any:
        """Add a dataset for each generated one and data seed."""
        if not isinstance(fields, dict) or not fields.get("data_seeds"):
            return fields
        given, more = fields.get("datasets"), dict[str, Any]()
        if not isinstance(given, dict) or not all(isinstance(x, dict) for x in given.values()):
            return fields
        if adapted := [name for name, dataset in given.items() if dataset.get("adapt")]:
            raise ValueError(f"data_seeds draws no dataset like {adapted[0]}, which adapts others")
        drawn = {f"{name}-d{seed}" for name in given for seed in fields["data_seeds"]}
        for name, dataset in given.items():
            if dataset.get("generate") and name not in drawn:
                more |= {
                    f"{name}-d{seed}": {"generate": dataset["generate"] | {"seed": seed}}
                    for seed in fields["data_seeds"]
                }
        return fields | {"datasets": {**more, **given}}

    @property
    def own_videos(self) -> bool:
        return OWN in self.datasets

    def drawn(self, dataset: str, seed: int) -> str:
        """Return the dataset that a run with this seed sees in the place of `dataset`."""
        if not self.data_seeds or not self.datasets[dataset].generate:
            return dataset
        return f"{dataset}-d{self.data_seeds[seed % len(self.data_seeds)]}"

    def named(self, text: str) -> str:
        """Return a title or axis that names no published set where this scale draws its data.

        Own videos carry the name of their results.
        """
        if self.own_videos:
            return text.replace("own videos", f"own videos ({self.name})")
        if not any(dataset.generate for dataset in self.datasets.values()):
            return text
        names = "Something-Something V2|SSv2|Kinetics-400|K400|Mini-K200|UCF101|HMDB51|Diving48"
        names += "|UCF14|HMDB14|HMDB7|UCF7|UCF|HMDB"
        short = {"Something-Something V2": "SSv2", "Kinetics-400": "K400"}
        found = re.sub(rf"\b({names})\b", lambda one: f"{short.get(one[1], one[1])} stand-in", text)
        return found if found == text else f"{found} (generated)"

    def shortened(self, steps: int) -> Self:
        """Cut every training run to `steps`; warm-up keeps its share."""
        cut = {stage: {**self.overrides.get(stage, {}), "optim.steps": steps} for stage in TRAINING}
        return self.model_copy(update={"steps": None, "overrides": {**self.overrides, **cut}})

    def placed(self, places: Mapping[str, str]) -> Self:
        """Take the roots of datasets from `places` where it names them."""
        datasets = {
            name: dataset.model_copy(update={"root": places.get(name, dataset.root)})
            for name, dataset in self.datasets.items()
        }
        return self.model_copy(update={"datasets": datasets})

    def apply(self, spec: R, seed: int) -> R:
        """Return `spec` as this scale runs it with `seed`."""
        fields = spec.model_dump(mode="json")
        if self.datasets[spec.data.dataset].grouped and "held_out" in fields:
            fields["held_out"] = "groups"
        for dotted, value in self.overrides.get(spec.stage, {}).items():  # type: ignore[call-overload]
            _set(fields, dotted, value, f"scale {self.name}: overrides.{spec.stage}.{dotted}")
        if self.datasets[spec.data.dataset].several_labels:
            # These count or draw videos by their one label.
            fields["data"]["labels_per_class"] = 0
            one = {"label_draws": 1, "class_weights": "none", "kind": "logistic"}
            fields |= {name: value for name, value in one.items() if name in fields}
        if self.backbones:  # none: full sizes
            if spec.model.backbone not in self.backbones:
                raise UserError(
                    f"scale {self.name}: backbones has no {spec.model.backbone}, whose full size "
                    "would train; add its sizes"
                )
            fields["model"] |= self.backbones[spec.model.backbone]
        if self.steps and "optim" in fields:
            epochs = fields["optim"]["epochs"]
            # An override of this stage's steps wins.
            fields["optim"]["steps"] = fields["optim"]["steps"] or round(
                self.steps.factor * epochs**self.steps.power
            )
            fields["optim"]["warmup_epochs"] = self.steps.warmup * epochs
        fields["data"]["dataset"] = dataset = self.drawn(spec.data.dataset, seed)
        fields["data"]["digest"] = self.datasets[dataset].digest
        fields["seed"] = seed
        return parse(fields, f"scale {self.name}")  # type: ignore[return-value]


def load_scale(
    path: Path, given: Mapping[str, Any] = MappingProxyType({}), size: str = ""
) -> Scale:
    """Read the scale in a YAML file, with the fields that are `given` next to it.

    Args:
        size: of a scale with several `sizes`, by default the first. Its fields are put over the
            scale's own, group by group.

    Raises:
        UserError: no such scale or size, or a field that is unknown, missing or invalid.
    """
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.yaml")))
        other = "give a YAML file, or one of smoke, mini, day, paper"
        raise UserError(f"{path}: no such scale; {f'choose one of {known}' if known else other}")
    fields = read_yaml(path)
    sizes = fields.pop("sizes", {})
    if not isinstance(sizes, dict) or not all(isinstance(one, dict) for one in sizes.values()):
        raise UserError(f"{path}: sizes is not a group of fields by name; correct it")
    if size and size not in sizes:
        known = f"choose one of {', '.join(sizes)}" if sizes else "it has one size; leave gpu out"
        raise UserError(f"{path}: has no size {size}; {known}")
    if sizes:
        fields = deep_merge(fields, sizes[size or next(iter(sizes))])
    scale = parse_scale({**fields, **given}, path)
    if not UNNAMED_SIZES.fullmatch(str(fields.get("name"))):
        for name, sizes in scale.backbones.items():
            if {"width", "depth", "heads"} & sizes.keys() and sizes.get(
                "backbone", name
            ) in BACKBONES:
                raise UserError(
                    f"{path}: backbones.{name} gives other sizes to a known name; add "
                    f"backbone: {name}-{scale.name.lower()} to it, the name that they go by"
                )
    return scale


# Scales whose toy sizes go by the paper's names: ids of committed runs rest on them.
UNNAMED_SIZES = re.compile(r"mini|guidance-\w+")


def parse_scale(fields: Any, source: Path) -> Scale:
    """The scale that `fields` describe; `source` is named in the error."""
    with valid(f"{source}: ", "correct it, or for results of an older version use that version"):
        return Scale.model_validate(fields)


def _set(fields: dict[str, Any], dotted: str, value: Any, source: str) -> None:
    *groups, last = dotted.split(".")
    for group in groups:
        fields = fields.get(group, {})
    if last not in fields:
        raise UserError(f"{source} is not a field of a spec; correct its name")
    fields[last] = value
