"""The specs of runs, one class per stage: validated, hashed and named."""

import hashlib
import json
import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, TypeAdapter, model_validator

from mgm.errors import UserError, valid
from mgm.reading import read_json
from mgm.spec.masks import MASKS, Compensate, Mask
from mgm.spec.values import (
    LARGE,
    Augment,
    Clips,
    Data,
    Decoder,
    FinetuneOptim,
    FrozenModel,
    Model,
    Name,
    Optim,
    ProbeKind,
    Views,
    sized,
)

MOST_TOKENS = 10**6  # per clip; the paper's clips have 1,568


class Run(FrozenModel):
    """Fields of every run. `run_id` names the run and the folder of its results.

    In files, the field `stage` is called `verb`. Run ids depend on this older name.
    """

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    data: Data
    clips: Clips = Clips()
    model: Model = Model()
    seed: int = Field(0, ge=0, lt=2**63)
    stage: str = Field(alias="verb")

    # Cached, because reports read it a hundred thousand times.
    @cached_property
    def hash(self) -> str:
        """Eight hex digits of the SHA-256 of the fields that differ from their defaults.

        The fields are canonical JSON. A new field with a default changes no run id.
        """
        text = json.dumps(changed_fields(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def __hash__(self) -> int:
        # Equal runs have equal ids; pydantic's own hash fails on a field that is a dict.
        return hash(self.run_id)

    @cached_property
    def run_id(self) -> str:
        return "-".join([*self.slug(), self.hash])

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with changed fields and a new run id."""
        copy = super().model_copy(update=update, deep=deep)
        for name in ("hash", "run_id"):
            copy.__dict__.pop(name, None)
        return copy

    def slug(self) -> list[str]:
        return [self.stage, self.model.backbone.replace("-", ""), self.data.dataset]

    @model_validator(mode="after")
    def _patches_divide_clip(self):
        for side, part in (("size", "patch"), ("frames", "tubelet")):
            whole, unit = getattr(self.clips, side), getattr(self.model, part)
            if whole % unit:
                raise ValueError(f"clips.{side} {whole} is not a multiple of model.{part} {unit}")
        if (tokens := math.prod(self.grid)) > MOST_TOKENS:
            raise ValueError(
                f"clips.frames {self.clips.frames} and clips.size {self.clips.size} are "
                f"{tokens:,} tokens, more than {MOST_TOKENS:,}"
            )
        return self

    @property
    def grid(self) -> tuple[int, int, int]:
        """Time slots, rows and columns of the token grid."""
        side = self.clips.size // self.model.patch
        return self.clips.frames // self.model.tubelet, side, side


class Pretrain(Run):
    """Masked autoencoding (the paper's Table 5)."""

    stage: Literal["pretrain"] = Field("pretrain", alias="verb")
    # Run id of the pretraining run to start from. Empty: from scratch.
    parent: Name = ""
    decoder: Decoder = Decoder()
    mask: Mask = Mask()
    optim: Optim = Optim()
    # Added to the standard deviation that normalises a target patch.
    std_floor: float = Field(1e-6, gt=0)
    # Weights of the decoder's last layer before training.
    head_init: Literal["xavier", "zero"] = "xavier"
    # Clips per video and step, from one decoding pass, each with its own crop, flip and mask. The
    # learning rate does not count them. VideoMAE V2 and MAE-ST take 4.
    repeats: int = Field(1, ge=1, le=LARGE)

    @model_validator(mode="before")
    @classmethod
    def _decoder_of_the_backbone(cls, fields: Any) -> Any:
        """Complete the sizes of the decoder by those of the backbone."""
        if not isinstance(fields, dict) or not isinstance(fields.get("decoder", {}), dict):
            return fields
        model = fields.get("model")
        backbone = (
            model.get("backbone") if isinstance(model, dict) else getattr(model, "backbone", 0)
        )
        return fields | {"decoder": sized(fields.get("decoder", {}), backbone, 1)}

    def slug(self) -> list[str]:
        stage, *rest = super().slug()
        return [stage, self.mask.name, *rest, f"e{self.optim.epochs}"]

    @property
    def hidden(self) -> int:
        """Patches hidden per time slot; for agnostic masking, their mean."""
        _, height, width = self.grid
        return self.mask.hidden(height * width)

    @model_validator(mode="after")
    def _has_directions(self):
        if MASKS[self.mask.name].directional and self.mask.guidance == "difference":
            raise ValueError(
                f"mask {self.mask.name} reads directions, and mask.guidance difference has none"
            )
        return self

    @model_validator(mode="after")
    def _mask_hides_some(self):
        _, height, width = self.grid
        patches, hidden = height * width, self.hidden
        if patches < 2:
            raise ValueError(
                f"clips.size {self.clips.size} is one patch of model.patch {self.model.patch}"
            )
        if not 0 < hidden < patches:
            raise ValueError(
                f"mask.ratio {self.mask.ratio} hides {hidden} of {patches} patches per slot; "
                f"choose one that hides 1 to {patches - 1}"
            )
        return self


class Finetune(Run):
    """Supervised training, from a parent or from scratch (the paper's Table 6)."""

    stage: Literal["finetune"] = Field("finetune", alias="verb")
    # Run id of the pretraining run. Empty: from scratch.
    parent: Name = ""
    # linear: train all weights. attentive: freeze the encoder, and train V-JEPA's attentive probe.
    head: Literal["linear", "attentive"] = "linear"
    optim: FinetuneOptim = FinetuneOptim()
    # Standard deviation of linear layers' weights from scratch. VideoMAE's 0.02 is too small for
    # narrow models.
    init_std: float = Field(0.02, gt=0)
    layer_decay: float = Field(0.75, gt=0, le=1)
    drop_path: float = Field(0.1, ge=0, lt=1)
    head_dropout: float = Field(0.0, ge=0, lt=1)
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    augment: Augment = Augment()
    views: Views = Views()

    def slug(self) -> list[str]:
        scratch = "scratch" if self.head == "linear" else "random"
        return [
            *super().slug(),
            f"e{self.optim.epochs}",
            self.parent.rsplit("-", 1)[-1] or scratch,
        ]

    @model_validator(mode="after")
    def _frozen_encoder_has_no_settings(self):
        for name in ("init_std", "layer_decay", "drop_path", "head_dropout"):
            default = type(self).model_fields[name].default
            if self.head == "attentive" and getattr(self, name) != default:
                raise ValueError(
                    f"{name} is for head linear, since head attentive freezes the encoder; leave "
                    "it out"
                )
        return self

    @model_validator(mode="after")
    def _has_clips_to_mix(self):
        clips = self.optim.batch * self.augment.repeats
        if clips < 2 and (self.augment.mixup or self.augment.cutmix):
            raise ValueError(
                f"augment.mixup and augment.cutmix mix a step's clips, but it has {clips}"
            )
        return self


class Probe(Run):
    """Linear classification of frozen features, of a parent run or of random weights.

    The paper does not state its recipe.
    """

    stage: Literal["probe"] = Field("probe", alias="verb")
    # Run id of the pretraining run. Empty: random weights.
    parent: Name = ""
    # Clips per training video, evenly spaced.
    train_clips: int = Field(1, ge=1, le=LARGE)
    # Draws of `data.labels_per_class`, each fitted and tested. Top-1 is their mean.
    label_draws: int = Field(1, ge=1, le=1000)
    # The classifier; `mgm.stages.probe_kinds` has one function per kind.
    kind: ProbeKind = "logistic"
    # knn: neighbours that vote.
    neighbours: int = Field(20, ge=1, le=LARGE)
    # Hold out a fifth of the training videos, or of their groups, to choose a penalty or a learning
    # rate. With groups, the classifier is not fitted to videos of a held-out source.
    held_out: Literal["videos", "groups"] = "videos"
    views: Views = Views()

    def slug(self) -> list[str]:
        return [*super().slug(), self.parent.rsplit("-", 1)[-1] or "random"]

    @model_validator(mode="after")
    def _has_labels_to_draw(self):
        if self.label_draws > 1 and not self.data.labels_per_class:
            raise ValueError(
                f"label_draws is {self.label_draws}, but data.labels_per_class 0 takes all labels"
            )
        return self


class Visualise(Run):
    """Arrays of a figure that shows clips; `mgm.report.figures.draw` draws them."""

    stage: Literal["visualise"] = Field("visualise", alias="verb")
    figure: Literal["5", "6", "7", "8"] = "5"
    # Run ids of the pretraining runs that the figure shows.
    parents: tuple[Name, ...] = ()
    # Figure 5: the settings of all masks except name, ratio and guidance.
    mask: Mask = Mask()

    def slug(self) -> list[str]:
        return [self.stage, f"figure{self.figure}", self.data.dataset]


class Measure(Run):
    """A number from the papers' text, or one that explains their masks.

    `mgm.stages.measure` computes it.
    """

    stage: Literal["measure"] = Field("measure", alias="verb")
    name: Literal[
        "saliency",
        "coverage",
        "visible",
        "explained",
        "controls",
    ]
    # explained: run id of the pretraining run.
    parent: Name = ""
    # visible: the mask. coverage: the settings of all masks except name, ratio and guidance.
    mask: Mask = Mask()
    # Videos to measure, evenly spaced. 0: all. They are test videos, and training videos for
    # visible.
    videos: int = Field(0, ge=0, le=LARGE)
    # coverage: subtract the camera's motion in this way. Guided masks are measured with and
    # without it.
    compensate: Compensate = "none"
    # controls: the fields of a probe.
    train_clips: int = Field(1, ge=1, le=LARGE)
    label_draws: int = Field(1, ge=1, le=1000)
    held_out: Literal["videos", "groups"] = "videos"
    views: Views = Views()

    def slug(self) -> list[str]:
        mask = [self.mask.name] if self.name == "visible" else []
        parent = [self.parent.rsplit("-", 1)[-1]] if self.parent else []
        return [self.stage, self.name, *mask, self.data.dataset, *parent]


Spec = Pretrain | Finetune | Probe | Visualise | Measure
_adapter: TypeAdapter[Spec] = TypeAdapter(Annotated[Spec, Field(discriminator="stage")])


def parse(fields: dict[str, Any], source: str) -> Spec:
    """Return the spec that `fields` describe.

    Args:
        fields: the fields of a spec file. The stage may be called `stage` or `verb`.
        source: the file's name, for the error.

    Raises:
        UserError: a field is unknown, missing or invalid. The error names it.
    """
    # The first part of a fault's path is the stage.
    with valid(f"{source}: ", below=1):
        return _adapter.validate_python(fields)


def read_spec(place: Path) -> Spec:
    """Read the spec in a run's folder, or in a JSON file.

    Raises:
        UserError: there is no spec, or the file is not a spec.
    """
    path = place / "spec.json" if place.is_dir() else place
    if not path.is_file():
        raise UserError(f"{path}: no such spec; name a run's folder, as in results/NAME/RUN_ID")
    return parse(read_json(path), str(path))


def parents(spec: Spec) -> tuple[str, ...]:
    """Return the ids of the runs that `spec` starts from."""
    if isinstance(spec, Visualise):
        return spec.parents
    parent = getattr(spec, "parent", "")
    return (parent,) if parent else ()


def changed_fields(spec: Run) -> dict[str, Any]:
    """Return the fields of `spec` that differ from their defaults, and its stage."""
    return {**spec.model_dump(mode="json", exclude_defaults=True), "verb": spec.stage}


def dotted(fields: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return nested fields by their dotted names."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        flat |= (
            dotted(value, f"{before}{name}.") if isinstance(value, dict) else {before + name: value}
        )
    return flat


def nested(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that `dotted` named."""
    groups: dict[str, Any] = {}
    for name, value in fields.items():
        *path, last = name.split(".")
        place = groups
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return groups
