"""What a run is: frozen, validated, hashed. No torch here.

A spec holds science only. `RunOptions` hold how a run is computed (threads, workers, accumulation,
compilation and so on), because that must not change its result.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from mgm.errors import MOST_PROCESSES, UserError, valid
from mgm.masking import CODEC as CODEC
from mgm.masking import Distance as Distance
from mgm.masking import Flow as Flow
from mgm.masking import Guidance as Guidance
from mgm.masking import Mask as Mask
from mgm.masking import hidden_patches
from mgm.reading import read_json

LARGE = 10**9  # no whole number of a spec is larger
MOST_TOKENS = 10**6  # of a clip; the paper's have 1,568


Name = Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$")]  # becomes part of a path

# width, depth, heads of the encoder (V: modeling_finetune.py), then of the decoder (V:
# modeling_pretrain.py, pretrain.sh)
BACKBONES = {
    "vit-s": ((384, 12, 6), (192, 4, 3)),
    "vit-b": ((768, 12, 12), (384, 4, 6)),
    "vit-l": (
        (1024, 24, 16),
        (512, 12, 8),
    ),  # decoder depth: scripts/kinetics/videomae_vit_large_*/pretrain.sh
    "vit-h": (
        (1280, 32, 16),
        (640, 12, 8),
    ),  # decoder depth: scripts/kinetics/videomae_vit_huge_*/pretrain.sh
    "timesformer": (
        (768, 12, 12),
        (384, 4, 6),
    ),  # ViT-B's sizes (paper, 4.2); paper silent on the decoder, which attends jointly
}


BackboneName = Annotated[str, Field(pattern=f"^({'|'.join(BACKBONES)})$")]
ProbeKind = Literal["logistic", "sgd", "attentive", "knn"]


class FrozenModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LoadOptions(FrozenModel):
    """How a stage that reads videos is computed."""

    threads: int = Field(1, ge=1, le=MOST_PROCESSES, description="Threads of a process.")
    workers: int = Field(
        0,
        ge=0,
        le=MOST_PROCESSES,
        description="Processes that decode videos for one that computes; 0: it decodes itself.",
    )
    cache_mb: int = Field(
        0, ge=0, description="Memory for decoded videos, for datasets small enough to keep."
    )


class RunOptions(LoadOptions):
    """How a run is computed. A run's id has none of it, since none of it may change a result.

    The command line, the files of scales and clusters, and the training loop share this one value.
    A new option is a field here and the line that reads it.
    """

    accumulate: int = Field(
        1,
        ge=1,
        description="Parts a process's share of a step's batch is split into, to save memory.",
    )
    checkpoint_s: float = Field(300, ge=0, description="Seconds between checkpoints.")
    recompute: bool = Field(
        False, description="Compute activations again in the backward pass, to save memory."
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto", description="torch.compile for a model's blocks; auto: on a GPU."
    )
    bf16_gradients: bool = Field(
        False, description="Several processes exchange gradients in bf16: half the traffic."
    )

    def changed(self, by: "RunOptions") -> "RunOptions":
        """Return these options, with those that `by` was given in their place."""
        names = RunOptions.model_fields.keys() & by.model_fields_set
        return self.model_copy(update={name: getattr(by, name) for name in names})

    def words(self, names: Iterable[str]) -> list[str]:
        """Return the command line of those options of `names` that differ from their defaults."""
        words: list[str] = []
        for name in names:
            value = getattr(self, name)
            if value != RunOptions.model_fields[name].default:
                text = f"{value:g}" if isinstance(value, float) else str(value)
                words += [f"--{name.replace('_', '-')}", *([] if value is True else [text])]
        return words


class Data(FrozenModel):
    """Which videos.

    `digest` is the index digest of a user's folder or of a generated set; published sets have none.
    """

    dataset: Name
    digest: str = ""
    labels_per_class: int = Field(0, ge=0, le=LARGE)  # 0: every labelled training video
    shuffle_labels: bool = False  # a control: with it, accuracy must fall to chance


# names that readers know, for data that may be drawn in their place
PUBLISHED_NAMES = {
    "ssv2": "SSv2",
    "k400": "K400",
    "mini-k200": "Mini-K200",
    "ucf101": "UCF101",
    "hmdb51": "HMDB51",
    "diving48": "Diving48",
}


def data_name(data: Data) -> str:
    """Return a dataset's name for readers: generated data never carries a published set's name.

    Only generated sets and own folders have a digest; published sets have none.
    """
    name = PUBLISHED_NAMES.get(data.dataset, data.dataset)
    if data.digest and data.dataset != "folder":
        return f"{name} stand-in (generated)"
    return name


class Clips(FrozenModel):
    """How a video becomes a clip of `frames` x `size` x `size`."""

    frames: int = Field(16, ge=1, le=4096)
    size: int = Field(224, ge=8, le=4096)
    sampling: Literal["stride", "segments", "window"] = "stride"
    stride: int = Field(4, ge=1, le=LARGE)
    crop: Literal["multiscale", "resized", "centre"] = "multiscale"
    flip: bool = True
    start_multiple: int = Field(
        1, ge=1, le=LARGE
    )  # random starts of "stride" are its multiples: 4 meets transcoded P-frames

    @model_validator(mode="after")
    def _has_starts(self):
        if self.start_multiple > 1 and self.sampling != "stride":
            raise ValueError(
                f"start_multiple {self.start_multiple} is for sampling stride; set it to 1 for sampling {self.sampling}"
            )
        return self


class Model(FrozenModel):
    """The encoder:

    a ViT or a TimeSformer (divided attention) over tubelets of `tubelet` x `patch` x `patch`
    pixels.
    """

    backbone: BackboneName = "vit-b"
    width: int = Field(768, ge=8, le=LARGE)
    depth: int = Field(12, ge=1, le=LARGE)
    heads: int = Field(12, ge=1, le=LARGE)
    tubelet: int = Field(2, ge=1, le=LARGE)
    patch: int = Field(16, ge=1, le=LARGE)
    channels: int = Field(3, ge=1, le=64)  # of a frame; video files give 3, or 1 as grey

    positions: (
        tuple[()] | tuple[int, int, int]
    ) = ()  # grid of the encoder's table, which is interpolated to the clips'; empty: the clips'

    @model_validator(mode="after")
    def _check(self):
        if any(side < 1 for side in self.positions):
            raise ValueError(
                f"positions {list(self.positions)} is no grid; write slots, rows and columns, each at least 1"
            )
        return _heads_divide_width(self)


class Decoder(FrozenModel):
    """The light decoder over all tokens."""

    width: int = Field(384, ge=8, le=LARGE)
    depth: int = Field(4, ge=1, le=LARGE)
    heads: int = Field(6, ge=1, le=LARGE)

    @model_validator(mode="after")
    def _check(self):
        return _heads_divide_width(self)


def _heads_divide_width(part):
    if part.width % part.heads:
        raise ValueError(
            f"width {part.width} is not a multiple of heads {part.heads}; change one of them"
        )
    return part


Decay = Annotated[float, Field(ge=0, lt=1)]


class Optim(FrozenModel):
    """An optimiser with linear warm-up and cosine decay.

    The learning rate of a step of `batch` clips is lr * batch / 256.
    """

    # AdamW, another class of torch.optim, or module:Class (`mgm.training.optim`)
    name: str = Field("AdamW", pattern=r"^([A-Za-z_][\w.]*:)?[A-Za-z_]\w*$", max_length=200)
    # further arguments of the class, such as momentum
    options: dict[str, bool | int | float | str] = {}

    lr: float = Field(1.5e-4, gt=0)
    min_lr: float = Field(1e-5, ge=0)
    betas: tuple[Decay, Decay] = (0.9, 0.95)
    weight_decay: float = Field(0.05, ge=0)
    batch: int = Field(512, ge=1, le=LARGE)
    epochs: int = Field(800, ge=1, le=LARGE)  # the paper's epochs: the name of the run
    steps: int = Field(
        0, ge=0, le=LARGE
    )  # 0: epochs over the data; otherwise this many, and warm-up keeps its share
    warmup_epochs: float = Field(40, ge=0)
    clip_grad: float = Field(0.0, ge=0)  # 0: none
    precision: Literal["float32", "bf16"] = "bf16"


class FinetuneOptim(Optim):
    """The same with finetuning's defaults."""

    lr: float = Field(5e-4, gt=0)
    min_lr: float = Field(1e-6, ge=0)
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    batch: int = Field(128, ge=1, le=LARGE)
    epochs: int = Field(100, ge=1, le=LARGE)
    warmup_epochs: float = Field(5, ge=0)


class Augment(FrozenModel):
    """Finetuning's augmentation beside crop and flip; off unless a recipe says so."""

    rand: str = Field(
        "", pattern=r"^(rand-m\d+-n\d+(-mstd\d+(\.\d+)?)?(-inc[01])?)?$"
    )  # RandAugment in timm's notation; empty: none
    erasing: float = Field(0.0, ge=0, le=1)  # probability that a box of the clip is erased
    mixup: float = Field(
        0.0, ge=0
    )  # parameter of Beta(a, a); 0: none. With CutMix on too, each has half of the steps
    cutmix: float = Field(0.0, ge=0)
    repeats: int = Field(
        1, ge=1, le=LARGE
    )  # clips of a video in a step, from one decoding pass; the learning rate does not count them


class Views(FrozenModel):
    """Test views of a video; their softmax scores are averaged."""

    temporal: int = Field(5, ge=1, le=LARGE)
    spatial: Literal[1, 3] = 3


class Run(FrozenModel):
    """Fields every run has. `run_id` names the run and the folder of its results."""

    data: Data
    clips: Clips = Clips()
    model: Model = Model()
    seed: int = Field(0, ge=0, lt=2**63)  # a 64-bit integer wherever it goes
    version: int = Field(
        1, ge=1, le=1
    )  # of the science: raise it where a change of code makes other numbers of the same fields
    verb: str

    @cached_property  # reports ask for it a hundred thousand times
    def hash(self) -> str:
        """8 hex digits of the canonical JSON of the fields that differ from their defaults, so a
        new field orphans no run.
        """
        text = json.dumps(differences(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def __hash__(self) -> int:
        # Equal runs have equal ids; pydantic's own hash fails on a field that is a dict.
        return hash(self.run_id)

    @cached_property
    def run_id(self) -> str:
        return "-".join([*self.slug(), self.hash])

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other values, which names itself anew."""
        copy = super().model_copy(update=update, deep=deep)
        for name in ("hash", "run_id"):
            copy.__dict__.pop(name, None)
        return copy

    def slug(self) -> list[str]:
        return [self.verb, self.model.backbone.replace("-", ""), self.data.dataset]

    @model_validator(mode="after")
    def _patches_divide_clip(self):
        if self.clips.size % self.model.patch:
            raise ValueError(
                f"clips.size {self.clips.size} is not a multiple of model.patch {self.model.patch}; change one of them"
            )
        if self.clips.frames % self.model.tubelet:
            raise ValueError(
                f"clips.frames {self.clips.frames} is not a multiple of model.tubelet {self.model.tubelet}; change one of them"
            )
        if (tokens := math.prod(self.grid)) > MOST_TOKENS:
            raise ValueError(
                f"clips.frames {self.clips.frames} and clips.size {self.clips.size} are "
                f"{tokens:,} tokens, more than {MOST_TOKENS:,}; lower one of them"
            )
        return self

    @property
    def grid(self) -> tuple[int, int, int]:
        """Slots, rows and columns of the token grid."""
        side = self.clips.size // self.model.patch
        return self.clips.frames // self.model.tubelet, side, side


class Pretrain(Run):
    """Masked autoencoding (DESIGN 2; the paper's Table 5)."""

    verb: Literal["pretrain"] = "pretrain"
    parent: Name = (
        ""  # run id of the pretraining run whose weights it starts from; empty: from scratch
    )
    decoder: Decoder = Decoder()
    mask: Mask = Mask()
    optim: Optim = Optim()
    std_floor: float = Field(
        1e-6, gt=0
    )  # added to the standard deviation that normalises a target patch
    # the tubelet embedding and so many first blocks of the encoder keep the parent's weights
    freeze_blocks: int = Field(0, ge=0, le=LARGE)
    head_init: Literal["xavier", "zero"] = (
        "xavier"  # weights of the decoder's last layer, before training
    )

    def slug(self) -> list[str]:
        verb, *rest = super().slug()
        return [verb, self.mask.name, *rest, f"e{self.optim.epochs}"]

    @property
    def hidden(self) -> int:
        """Patches hidden in every slot; agnostic masking hides as many on average."""
        _, height, width = self.grid
        return hidden_patches(self.mask.name, self.mask.ratio, height * width)

    @model_validator(mode="after")
    def _has_blocks_to_freeze(self):
        if self.freeze_blocks and not self.parent:
            raise ValueError(
                f"freeze_blocks is {self.freeze_blocks}, but there is no parent whose weights to "
                "keep; set parent, or freeze_blocks to 0"
            )
        if self.freeze_blocks > self.model.depth:
            raise ValueError(
                f"freeze_blocks is {self.freeze_blocks}, but the encoder has {self.model.depth} "
                "blocks; lower it"
            )
        return self

    @model_validator(mode="after")
    def _mask_hides_some(self):
        _, height, width = self.grid
        patches, hidden = height * width, self.hidden
        if patches < 2:
            raise ValueError(
                f"clips.size {self.clips.size} is one patch of model.patch {self.model.patch}, which hides all or nothing; lower it"
            )
        if self.mask.predicts != "all" and (self.mask.name == "agnostic" or hidden < 2):
            raise ValueError(
                f"mask.predicts {self.mask.predicts} takes half of what each slot hides, and mask {self.mask.name} at mask.ratio "
                f"{self.mask.ratio} has no two hidden patches in every slot; choose another mask or raise the ratio"
            )
        if not 0 < hidden < patches:
            raise ValueError(
                f"mask.ratio {self.mask.ratio} hides {hidden} of {patches} patches a slot; choose one that hides 1 to {patches - 1}"
            )
        return self


class Finetune(Run):
    """Supervised training of all weights, from a parent run or from scratch (the paper's Table 6)."""

    verb: Literal["finetune"] = "finetune"
    parent: Name = ""  # run id of the pretraining run; empty: from scratch
    optim: FinetuneOptim = FinetuneOptim()
    init_std: float = Field(
        0.02, gt=0
    )  # of linear layers' weights, from scratch; narrow models need more than V's
    layer_decay: float = Field(0.75, gt=0, le=1)
    drop_path: float = Field(0.1, ge=0, lt=1)
    head_dropout: float = Field(0.0, ge=0, lt=1)
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    class_weights: Literal["none", "inverse"] = (
        "none"  # inverse: a clip's loss counts by 1 / the videos of its class, 1 on average
    )
    augment: Augment = Augment()
    views: Views = Views()

    def slug(self) -> list[str]:
        return [
            *super().slug(),
            f"e{self.optim.epochs}",
            self.parent.rsplit("-", 1)[-1] or "scratch",
        ]

    @model_validator(mode="after")
    def _has_clips_to_mix(self):
        clips = self.optim.batch * self.augment.repeats
        if clips < 2 and (self.augment.mixup or self.augment.cutmix):
            raise ValueError(
                f"augment.mixup and augment.cutmix mix a step's clips, but it has {clips}; set both to 0 or raise optim.batch"
            )
        return self


class Probe(Run):
    """Linear classification of frozen features, from a parent run or from random weights.

    The paper is silent on the recipe.
    """

    verb: Literal["probe"] = "probe"
    parent: Name = ""  # run id of the pretraining run; empty: random weights
    train_clips: int = Field(1, ge=1, le=LARGE)  # clips a training video gives, evenly spaced
    label_draws: int = Field(
        1, ge=1, le=1000
    )  # draws of `data.labels_per_class`, each fitted and tested; top-1 is their mean
    # a control: every clip is its middle frame, repeated, so that accuracy is what one frame tells
    still: bool = False
    kind: ProbeKind = "logistic"  # mgm.stages.probe_kinds
    neighbours: int = Field(20, ge=1, le=LARGE)  # that vote, of kind knn
    # what is held out to choose a penalty or a rate: a fifth of the training videos, or of their
    # groups, so that nothing is fitted to a source that is held out
    held_out: Literal["videos", "groups"] = "videos"
    views: Views = Views()

    def slug(self) -> list[str]:
        return [*super().slug(), self.parent.rsplit("-", 1)[-1] or "random"]

    @model_validator(mode="after")
    def _has_labels_to_draw(self):
        if self.label_draws > 1 and not self.data.labels_per_class:
            raise ValueError(
                f"label_draws is {self.label_draws}, but data.labels_per_class 0 takes all labels; set one of them"
            )
        return self


class Visualise(Run):
    """Arrays for a figure that shows clips; `mgm.report.figures.draw` draws them."""

    verb: Literal["visualise"] = "visualise"
    figure: Literal["5", "6", "7", "8"] = "5"
    parents: tuple[
        Name, ...
    ] = ()  # run ids of the pretraining runs whose models the figure looks into

    def slug(self) -> list[str]:
        return [self.verb, f"figure{self.figure}", self.data.dataset]


class Measure(Run):
    """A number that the papers state in their text, or that explains their masks;

    see `mgm.stages.measure`.
    """

    verb: Literal["measure"] = "measure"
    name: Literal["saliency", "motion-time", "step-time", "coverage", "controls"]
    flow: Flow = "raft-small"  # what motion-time compares reading vectors with
    decoder: Decoder = Decoder()  # of step-time
    ratio: float = Field(0.9, gt=0, lt=1)  # of step-time; coverage takes each mask's own
    videos: int = Field(0, ge=0, le=LARGE)  # of the test split, evenly spaced; 0: all
    # of controls, as a probe's
    train_clips: int = Field(1, ge=1, le=LARGE)
    label_draws: int = Field(1, ge=1, le=1000)
    held_out: Literal["videos", "groups"] = "videos"
    views: Views = Views()

    def slug(self) -> list[str]:
        return [self.verb, self.name, self.data.dataset]


Spec = Pretrain | Finetune | Probe | Visualise | Measure
_adapter: TypeAdapter[Spec] = TypeAdapter(Annotated[Spec, Field(discriminator="verb")])


def parse(fields: dict[str, Any], source: str) -> Spec:
    """The spec that `fields` describe; `source` (a file's name) stands in the error.

    Raises:
        UserError: an unknown, missing or invalid field, named.
    """
    with valid(f"{source}: ", below=1):  # below the verb
        return _adapter.validate_python(fields)


def read_spec(place: Path) -> Spec:
    """The spec in a run's folder, or in a JSON file.

    Raises:
        UserError: there is none, or it is none.
    """
    path = place / "spec.json" if place.is_dir() else place
    if not path.is_file():
        raise UserError(f"{path}: no such spec; give a run's folder, as in results/NAME/RUN_ID")
    try:
        fields = read_json(path)
    except UserError as error:
        raise UserError(
            f"{error}; give the folder of a whole run, as in results/NAME/RUN_ID"
        ) from None
    return parse(fields, str(path))


def parents(spec: Spec) -> tuple[str, ...]:
    """Run ids whose weights `spec` starts from."""
    if isinstance(spec, Visualise):
        return spec.parents
    parent = getattr(spec, "parent", "")
    return (parent,) if parent else ()


def differences(spec: Run) -> dict[str, Any]:
    """The fields of `spec` that differ from their defaults, `verb` always among them."""
    version = (
        {"version": spec.version} if spec.version > 1 else {}
    )  # 1 was the first: a later default must change the hash
    return {
        **spec.model_dump(mode="json", exclude={"version"}, exclude_defaults=True),
        "verb": spec.verb,
        **version,
    }


def dotted(fields: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Nested fields by their dotted names."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        flat |= (
            dotted(value, f"{before}{name}.") if isinstance(value, dict) else {before + name: value}
        )
    return flat
