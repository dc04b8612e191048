"""The specs of runs, one class per stage, and their parts: validated, hashed and named.

A default never changes, since run ids leave it out. A new field with a default changes no run id.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, Field, model_validator

from mgm.errors import UserError, nearest, valid
from mgm.files import read_json
from mgm.spec.masks import MASKS, FrozenModel, Mask

LARGE = 10**9  # the largest integer in a spec
MOST_TOKENS = 10**6  # per clip; the paper's clips have 1,568

# A part of a path.
Name = Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$")]

# Width, depth and heads of the encoder, then of the decoder.
# Sources: VideoMAE's modeling_finetune.py, modeling_pretrain.py, and
# scripts/kinetics/videomae_vit_{base,large,huge}_*/pretrain.sh for the decoder's depth.
BACKBONES = {
    "vit-s": ((384, 12, 6), (192, 4, 3)),
    "vit-b": ((768, 12, 12), (384, 4, 6)),
    "vit-l": ((1024, 24, 16), (512, 12, 8)),
    "vit-h": ((1280, 32, 16), (640, 12, 8)),
    # ViT-B's sizes (paper, 4.2). The paper does not describe the decoder; here it attends jointly.
    "timesformer": ((768, 12, 12), (384, 4, 6)),
}

# A name of BACKBONES, or another one for other sizes. "timesformer-..." has divided attention too.
BackboneName = Annotated[str, Field(pattern="^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=40)]
KnownBackbone = Annotated[str, Field(pattern=f"^({'|'.join(BACKBONES)})$")]
SIZES = ("width", "depth", "heads")
Count = Annotated[int, Field(ge=1, le=LARGE)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class Data(FrozenModel):
    """The videos of a run."""

    dataset: Name
    # Digest of the index of a user's folder or of a generated dataset; empty for published ones.
    digest: str = ""
    # Training videos per class. 0: every labelled training video.
    labels_per_class: int = Field(0, ge=0, le=LARGE)


class Clips(FrozenModel):
    """How a clip of `frames` x `size` x `size` is cut from a video."""

    frames: int = Field(16, ge=1, le=4096)
    size: int = Field(224, ge=8, le=4096)
    sampling: Literal["stride", "segments", "window"] = "stride"
    stride: Count = 4
    crop: Literal["multiscale", "resized", "centre"] = "multiscale"
    flip: bool = True


def _heads_divide_width(part):
    if part.width % part.heads:
        raise ValueError(f"width {part.width} is not a multiple of heads {part.heads}")
    return part


class Model(FrozenModel):
    """The encoder: a ViT, or a TimeSformer (divided attention).

    The name of a backbone in `BACKBONES` determines its sizes. A name of your own needs all three.
    A token is a tubelet of `tubelet` x `patch` x `patch` pixels.
    """

    backbone: BackboneName = "vit-b"
    width: int = Field(768, ge=8, le=LARGE)
    depth: Count = 12
    heads: Count = 12
    tubelet: Count = 2
    patch: Count = 16

    @model_validator(mode="before")
    @classmethod
    def _of_the_backbone(cls, fields: Any) -> Any:
        """Complete the sizes by those of the backbone."""
        if not isinstance(fields, dict):
            return fields
        name = fields.get("backbone")
        known = not isinstance(name, str) or name in BACKBONES
        if not known and (absent := [size for size in SIZES if size not in fields]):
            raise ValueError(
                f"backbone {name} is not one of {', '.join(BACKBONES)}, and has no {absent[0]}"
            )
        return sized(fields, name, 0)

    @property
    def divided(self) -> bool:
        """Whether attention is divided: over time, then over space."""
        return self.backbone.partition("-")[0] == "timesformer"

    @property
    def misnamed(self) -> str:
        """The first size that differs from the backbone's, in words; empty if none does."""
        if self.backbone not in BACKBONES:
            return ""
        for size, known in zip(SIZES, BACKBONES[self.backbone][0]):
            if getattr(self, size) != known:
                return f"{size} is {getattr(self, size)}, and {self.backbone} has {known}"
        return ""

    _check = model_validator(mode="after")(_heads_divide_width)


class Decoder(FrozenModel):
    """The decoder, a small ViT over all tokens."""

    width: int = Field(384, ge=8, le=LARGE)
    depth: Count = 4
    heads: Count = 6

    _check = model_validator(mode="after")(_heads_divide_width)


def sized(fields: dict[str, Any], backbone: Any, part: int) -> dict[str, Any]:
    """Complete width, depth and heads of an encoder (part 0) or a decoder (part 1)."""
    if not isinstance(backbone, str) or backbone not in BACKBONES:
        return fields
    return dict(zip(SIZES, BACKBONES[backbone][part], strict=True)) | fields


class Optim(FrozenModel):
    """AdamW with linear warm-up and cosine decay.

    The learning rate of a step of `batch` clips is lr * batch / 256.
    """

    lr: float = Field(1.5e-4, gt=0)
    min_lr: float = Field(1e-5, ge=0)
    betas: tuple[Decay, Decay] = (0.9, 0.95)
    weight_decay: float = Field(0.05, ge=0)
    batch: Count = 512
    # Epochs over the data. They are part of the run's name.
    epochs: Count = 800
    # Steps in place of `epochs`; warm-up keeps its share of them. 0: none, train for `epochs`.
    steps: int = Field(0, ge=0, le=LARGE)
    warmup_epochs: float = Field(40, ge=0)
    # Largest norm of the gradient. 0: no clipping.
    clip_grad: float = Field(0.0, ge=0)
    precision: Literal["float32", "bf16"] = "bf16"

    @property
    def odd(self) -> str:
        """What is wrong with the learning rate's course, in words; empty if nothing is."""
        if self.warmup_epochs >= self.epochs:
            return (
                f"warmup_epochs is {self.warmup_epochs:g} of {self.epochs} epochs, so the learning "
                "rate never falls; shorten the warm-up"
            )
        if self.min_lr > self.lr:
            return f"min_lr {self.min_lr:g} is above lr {self.lr:g}, so the learning rate rises"
        return ""


class FinetuneOptim(Optim):
    """The optimiser with the defaults of fine-tuning."""

    lr: float = Field(5e-4, gt=0)
    min_lr: float = Field(1e-6, ge=0)
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    batch: Count = 128
    epochs: Count = 100
    warmup_epochs: float = Field(5, ge=0)


class Augment(FrozenModel):
    """Augmentation in fine-tuning, in addition to crop and flip. By default it is off."""

    # RandAugment in timm's notation. Empty: none.
    rand: str = Field("", pattern=r"^(rand-m\d+-n\d+(-mstd\d+(\.\d+)?)?(-inc[01])?)?$")
    # Probability that a box of the clip is erased.
    erasing: float = Field(0.0, ge=0, le=1)
    # Parameter a of Beta(a, a). 0: off. If MixUp and CutMix are both on, each has half the steps.
    mixup: float = Field(0.0, ge=0)
    cutmix: float = Field(0.0, ge=0)
    # Clips per video and step, from one decoding pass. The learning rate does not count them.
    repeats: Count = 1


class Views(FrozenModel):
    """Test views of a video; their softmax scores are averaged."""

    temporal: Count = 5
    spatial: Literal[1, 3] = 3


def leaves(kind: type[BaseModel], before: str = "") -> list[str]:
    """Return the dotted names of all fields of a spec, or of a part of it."""
    names = list[str]()
    for name, field in kind.model_fields.items():
        part = field.annotation
        if isinstance(part, type) and issubclass(part, BaseModel):
            names += leaves(part, f"{before}{name}.")
        else:
            names.append(f"{before}{name}")
    return names


# Fields that several kinds of run do not read.
# Views have crops of their own, and no flip.
VIEWED = {"clips.crop", "clips.flip"}
UNTRAINED = VIEWED | {f"model.{name}" for name in ("backbone", *SIZES)} | {"data.labels_per_class"}
EVERY_MASK = {"mask.name", "mask.ratio", "mask.guidance"}
VIEWS = {"train_clips", *leaves(Views, "views.")}


class Run(FrozenModel):
    """Fields of every run. `run_id` names the run and the folder of its results."""

    # Fields that change no result, by the `name` of a measure; "" for other kinds. They stay in the
    # spec, since removing a field would change the ids of runs that set it.
    unread: ClassVar[dict[str, set[str]]] = {"": set()}

    stage: str
    data: Data
    clips: Clips = Clips()
    model: Model = Model()
    seed: int = Field(0, ge=0, lt=2**63)

    # Cached, because reports read it a hundred thousand times.
    @cached_property
    def run_id(self) -> str:
        """A name, and eight hex digits of the SHA-256 of the fields that differ from defaults."""
        fields = self.model_dump(mode="json", exclude_defaults=True) | {"stage": self.stage}
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return "-".join([*self.slug(), hashlib.sha256(text.encode()).hexdigest()[:8]])

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with changed fields and a new run id."""
        copy = super().model_copy(update=update, deep=deep)
        copy.__dict__.pop("run_id", None)
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

    stage: Literal["pretrain"] = "pretrain"
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
    repeats: Count = 1

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
        mask = self.mask.name.rpartition(":")[2].replace("_", "-")
        return [stage, mask, *rest, f"e{self.optim.epochs}"]

    @property
    def hidden(self) -> int:
        """Patches hidden per time slot. Masks that count over the clip: their mean."""
        _, height, width = self.grid
        return self.mask.hidden(height * width)

    @model_validator(mode="after")
    def _mask_hides_some(self):
        slots, height, width = self.grid
        patches, hidden = height * width, self.hidden
        if not 0 < hidden < patches:
            raise ValueError(f"mask.ratio {self.mask.ratio} hides {hidden} of {patches} patches")
        if self.mask.name == "codec-clip" and slots * (patches - hidden) <= patches:
            raise ValueError(
                f"mask codec-clip shows its first slot alone at mask.ratio {self.mask.ratio} of "
                f"{slots} slots, so motion changes nothing; lower the ratio, or raise clips.frames"
            )
        return self

    @model_validator(mode="after")
    def _frames_are_evenly_spaced(self):
        info = MASKS.get(self.mask.name)
        if info and info.directional and self.clips.sampling == "segments":
            raise ValueError(
                f"mask {self.mask.name} moves by whole strides, and clips.sampling segments has "
                "none; choose stride or window"
            )
        return self


class Finetune(Run):
    """Supervised training, from a parent or from scratch (the paper's Table 6)."""

    stage: Literal["finetune"] = "finetune"
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

    @property
    def repeats(self) -> int:
        """Clips per video and step, as a pretraining has them."""
        return self.augment.repeats

    def slug(self) -> list[str]:
        scratch = "scratch" if self.head == "linear" else "random"
        parent = self.parent.rsplit("-", 1)[-1] or scratch
        return [*super().slug(), f"e{self.optim.epochs}", parent]

    @model_validator(mode="after")
    def _frozen_encoder_has_no_settings(self):
        for name in ("init_std", "layer_decay", "drop_path", "head_dropout"):
            default = type(self).model_fields[name].default
            if self.head == "attentive" and getattr(self, name) != default:
                raise ValueError(f"{name} is for head linear; head attentive freezes the encoder")
        return self

    @model_validator(mode="after")
    def _has_clips_to_mix(self):
        clips = self.optim.batch * self.repeats
        if clips < 2 and (self.augment.mixup or self.augment.cutmix):
            raise ValueError(f"augment.mixup and augment.cutmix need two clips; a step has {clips}")
        return self


class Probe(Run):
    """Logistic regression on frozen features, of a parent run or of random weights.

    The penalty is chosen on a fifth of the training videos. The paper does not state its recipe.
    """

    unread: ClassVar[dict[str, set[str]]] = {"": VIEWED}

    stage: Literal["probe"] = "probe"
    # Run id of the pretraining run. Empty: random weights.
    parent: Name = ""
    # Clips per training video, evenly spaced.
    train_clips: Count = 1
    # mean: the mean of all tokens. grid: the means of 4 x 4 regions per time slot, or of single
    # tokens if the token grid is smaller, so that a feature keeps its place and time. change: grid
    # minus each region's mean over time, which is mostly of the scene.
    pool: Literal["mean", "grid", "change"] = "mean"
    views: Views = Views()

    def slug(self) -> list[str]:
        return [*super().slug(), self.parent.rsplit("-", 1)[-1] or "random"]


class Measure(Run):
    """A number from the papers' text, or a control without a trained model."""

    unread: ClassVar[dict[str, set[str]]] = {
        "saliency": {"data.labels_per_class", "seed", *VIEWS}
        | {*leaves(Clips, "clips."), *leaves(Model, "model."), *leaves(Mask, "mask.")},
        "coverage": UNTRAINED | EVERY_MASK | VIEWS,
        "hidden": UNTRAINED | VIEWS,
        "controls": VIEWED | {"videos", *leaves(Mask, "mask.")},
    }

    stage: Literal["measure"] = "measure"
    name: Literal["saliency", "coverage", "hidden", "controls"]
    # hidden: the mask. coverage: the settings of all masks except name, ratio and guidance.
    mask: Mask = Mask()
    # Test videos to measure, evenly spaced. 0: all.
    videos: int = Field(0, ge=0, le=LARGE)
    # controls: the fields of a probe.
    train_clips: Count = 1
    views: Views = Views()

    def slug(self) -> list[str]:
        return [self.stage, self.name, self.data.dataset]


class Sample(Run):
    """Arrays of a figure that shows clips; `mgm.report.clips` draws them."""

    unread: ClassVar[dict[str, set[str]]] = {"": UNTRAINED | EVERY_MASK}

    stage: Literal["sample"] = "sample"
    figure: Literal["5", "6", "7", "8"] = "5"
    # Run ids of the pretraining runs that the figure shows.
    parents: tuple[Name, ...] = ()
    # Figure 5: masks by the names of their rows. None: every mask that this package knows.
    masks: tuple[tuple[str, Mask], ...] = ()
    # Without `masks`: the settings of all masks except name, ratio and guidance.
    mask: Mask = Mask()

    def slug(self) -> list[str]:
        return [self.stage, f"figure{self.figure}", self.data.dataset]


Spec = Pretrain | Finetune | Probe | Measure | Sample
STAGES: dict[str, type[Run]] = {
    kind.model_fields["stage"].default: kind
    for kind in (Pretrain, Finetune, Probe, Measure, Sample)
}


def parse(fields: dict[str, Any], source: str) -> Spec:
    """Return the spec that `fields` describe.

    Args:
        source: the file's name, for the error.
    """
    stage = fields.get("stage") if isinstance(fields, dict) else None
    if not isinstance(stage, str) or stage not in STAGES:
        raise UserError(f"{source}: stage {stage!r}: {nearest(str(stage), STAGES)}")
    with valid(f"{source}: "):
        return STAGES[stage].model_validate(fields)  # type: ignore[return-value]


def read_spec(place: Path) -> Spec:
    """Read the spec in a run's folder, or in a JSON file."""
    path = place / "spec.json" if place.is_dir() else place
    if not path.is_file():
        raise UserError(f"{path}: no such spec; name a run's folder, as in results/NAME/RUN_ID")
    return parse(read_json(path), str(path))


def parents(spec: Run) -> tuple[str, ...]:
    """Return the ids of the runs that `spec` starts from."""
    if isinstance(spec, Sample):
        return spec.parents
    parent = getattr(spec, "parent", "")
    return (parent,) if parent else ()


def drawn_masks(spec: Run) -> list[Mask]:
    """Return the masks that a run draws."""
    if isinstance(spec, Sample):
        return [mask for _, mask in spec.masks]
    return [spec.mask] if isinstance(spec, Pretrain | Measure) else []


def dotted(fields: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return nested fields by their dotted names."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        key = f"{before}{name}"
        flat |= dotted(value, f"{key}.") if isinstance(value, dict) else {key: value}
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
