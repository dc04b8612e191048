"""The parts of a run's spec: data, clips, model, optimiser, augmentation, views."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

LARGE = 10**9  # the largest integer in a spec

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
ProbeKind = Literal["logistic", "knn"]


class FrozenModel(BaseModel):
    """An immutable value that refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _booleans_are_no_numbers(cls, fields: Any) -> Any:
        """Refuse true for 1, as in `seeds: true`."""
        for name, value in fields.items() if isinstance(fields, dict) else ():
            listed = value if isinstance(value, list) else (value,)
            if any(one is True or one is False for one in listed):
                field = cls.model_fields.get(name)
                if field and "bool" not in str(field.annotation) and field.annotation is not Any:
                    raise ValueError(f"{name}: {str(value).lower()} is not a number or a text")
        return fields


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
    stride: int = Field(4, ge=1, le=LARGE)
    crop: Literal["multiscale", "resized", "centre"] = "multiscale"
    flip: bool = True


class Model(FrozenModel):
    """The encoder: a ViT, or a TimeSformer (divided attention).

    The name of a backbone in `BACKBONES` determines its sizes. A name of your own needs all three.
    A token is a tubelet of `tubelet` x `patch` x `patch` pixels.
    """

    backbone: BackboneName = "vit-b"
    width: int = Field(768, ge=8, le=LARGE)
    depth: int = Field(12, ge=1, le=LARGE)
    heads: int = Field(12, ge=1, le=LARGE)
    tubelet: int = Field(2, ge=1, le=LARGE)
    patch: int = Field(16, ge=1, le=LARGE)

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

    @model_validator(mode="after")
    def _check(self):
        return _heads_divide_width(self)


class Decoder(FrozenModel):
    """The decoder, a small ViT over all tokens."""

    width: int = Field(384, ge=8, le=LARGE)
    depth: int = Field(4, ge=1, le=LARGE)
    heads: int = Field(6, ge=1, le=LARGE)

    @model_validator(mode="after")
    def _check(self):
        return _heads_divide_width(self)


def _heads_divide_width(part):
    if part.width % part.heads:
        raise ValueError(f"width {part.width} is not a multiple of heads {part.heads}")
    return part


def sized(fields: dict[str, Any], backbone: Any, part: int) -> dict[str, Any]:
    """Complete width, depth and heads of an encoder (part 0) or a decoder (part 1)."""
    if not isinstance(backbone, str) or backbone not in BACKBONES:
        return fields
    return dict(zip(SIZES, BACKBONES[backbone][part], strict=True)) | fields


Decay = Annotated[float, Field(ge=0, lt=1)]


class Optim(FrozenModel):
    """AdamW with linear warm-up and cosine decay.

    The learning rate of a step of `batch` clips is lr * batch / 256.
    """

    lr: float = Field(1.5e-4, gt=0)
    min_lr: float = Field(1e-5, ge=0)
    betas: tuple[Decay, Decay] = (0.9, 0.95)
    weight_decay: float = Field(0.05, ge=0)
    batch: int = Field(512, ge=1, le=LARGE)
    # Epochs over the data. They are part of the run's name.
    epochs: int = Field(800, ge=1, le=LARGE)
    # Steps in place of `epochs`; warm-up keeps its share of them. 0: none, train for `epochs`.
    steps: int = Field(0, ge=0, le=LARGE)
    warmup_epochs: float = Field(40, ge=0)
    # Largest norm of the gradient. 0: no clipping.
    clip_grad: float = Field(0.0, ge=0)
    precision: Literal["float32", "bf16"] = "bf16"


class FinetuneOptim(Optim):
    """The optimiser with the defaults of fine-tuning."""

    lr: float = Field(5e-4, gt=0)
    min_lr: float = Field(1e-6, ge=0)
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    batch: int = Field(128, ge=1, le=LARGE)
    epochs: int = Field(100, ge=1, le=LARGE)
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
    repeats: int = Field(1, ge=1, le=LARGE)


class Views(FrozenModel):
    """Test views of a video; their softmax scores are averaged."""

    temporal: int = Field(5, ge=1, le=LARGE)
    spatial: Literal[1, 3] = 3
