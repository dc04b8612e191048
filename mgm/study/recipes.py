"""The paper's recipes; every value has its source.

Scales change these recipes to smaller sizes. The sources:

- P: the paper (its Tables 5 and 6).
- V: the official VideoMAE code. The paper adopts its values ("same as [40]"). Where P and V
  differ, P wins.
- X: SlowFast's configuration of MViT (Kinetics/MVIT_B_16x4_CONV).
- J: V-JEPA's attentive probe (facebookresearch/jepa at a0517b4, evals/video_classification_frozen
  and configs/evals).

To add a dataset's recipe, add an entry to `RECIPES`. A dataset without one names the dataset that
it follows: a published one in `mgm.spec.datasets`, another in its study (`recipe: ssv2`). SSv2's
does not flip clips, since labels may depend on the direction.
"""

from functools import cache
from typing import Any, NamedTuple

from mgm.errors import UserError
from mgm.spec import (
    PUBLISHED,
    Augment,
    Clips,
    Data,
    Finetune,
    FinetuneOptim,
    Mask,
    Measure,
    Model,
    Optim,
    Pretrain,
    Probe,
    Views,
    mask_info,
)

PRETRAIN_OPTIM = Optim(
    lr=1.5e-4,  # P Table 5, for a batch of 256
    weight_decay=0.05,  # P Table 5
    betas=(0.9, 0.95),  # P Table 5
    batch=512,  # P Table 5
    warmup_epochs=40,  # P Table 5
    min_lr=1e-5,  # V: run_mae_pretraining.py
    clip_grad=0.0,  # V: none
)
AUGMENT = Augment(  # V: run_class_finetuning.py
    rand="rand-m7-n4-mstd0.5-inc1", erasing=0.25, mixup=0.8, cutmix=1.0
)


def _finetune(
    *,
    lr: float,
    layer_decay: float,
    repeats: int,
    warmup: float,
    epochs: int,
    drop_path: float,
    dropout=0.0,
) -> dict[str, Any]:
    """Return the fields of a column of P Table 6, except flip."""
    optim = FinetuneOptim(
        lr=lr,  # P Table 6, for a batch of 256
        weight_decay=0.05,  # P Table 6
        betas=(0.9, 0.999),  # P Table 6
        batch=128,  # P Table 6
        warmup_epochs=warmup,  # P Table 6
        epochs=epochs,  # P Table 6
        # V: run_class_finetuning.py. V's scripts for UCF101, and for K400 with ViT-H, have 1e-5.
        min_lr=1e-6,
    )
    return {
        "optim": optim,
        "layer_decay": layer_decay,  # P Table 6
        "drop_path": drop_path,  # P Table 6
        "head_dropout": dropout,
        "label_smoothing": 0.1,  # V: run_class_finetuning.py
        # P Table 6 prints five values for six columns; the value of K400 is our interpretation.
        "augment": AUGMENT.model_copy(update={"repeats": repeats}),
    }


class Recipe(NamedTuple):
    """What the paper does differently from dataset to dataset.

    Attributes:
        pretrain_clips: clips of pretraining.
        finetune_clips: clips of fine-tuning and of probes.
        views: test views.
        finetune: the other fields of fine-tuning.
    """

    pretrain_clips: Clips
    finetune_clips: Clips
    views: Views
    finetune: dict[str, Any]


# P 4.2: 16 frames, 224 x 224, stride 2; Table 5: MultiScaleCrop, no flip.
_SSV2_CLIPS = Clips(frames=16, size=224, stride=2, crop="multiscale", flip=False)
# V: kinetics.py; P Table 6: flip. P does not state the sampling of UCF101, HMDB51 and Diving48.
# They follow K400, as UCF101 does in V.
_WINDOWS = Clips(sampling="window", stride=4, crop="resized", flip=True)
_FIVE_BY_THREE = Views(temporal=5, spatial=3)  # P 4.2
# P Table 6, the same for HMDB51 and Diving48. V has no recipe for them.
_SMALL = _finetune(lr=5e-4, layer_decay=0.7, repeats=2, warmup=0, epochs=100, drop_path=0.2)

RECIPES = {
    "ssv2": Recipe(
        pretrain_clips=_SSV2_CLIPS,
        # P 4.2: TSN sampling; Table 6: no flip; V: ssv2.py.
        finetune_clips=Clips(sampling="segments", stride=2, crop="resized", flip=False),
        views=Views(temporal=2, spatial=3),  # P 4.2
        # P Table 6
        finetune=_finetune(
            lr=5e-4, layer_decay=0.75, repeats=2, warmup=5, epochs=30, drop_path=0.1
        ),
    ),
    "k400": Recipe(
        # P 4.2: 16 frames, 224 x 224, stride 4; Table 5: MultiScaleCrop, flip.
        pretrain_clips=Clips(frames=16, size=224, stride=4, crop="multiscale", flip=True),
        finetune_clips=_WINDOWS,
        views=_FIVE_BY_THREE,
        # P Table 6
        finetune=_finetune(
            lr=1e-3, layer_decay=0.75, repeats=2, warmup=5, epochs=75, drop_path=0.1
        ),
    ),
    # P does not pretrain on the others. Their pretraining follows SSv2, P's ablations.
    "ucf101": Recipe(
        pretrain_clips=_SSV2_CLIPS,
        finetune_clips=_WINDOWS,
        views=_FIVE_BY_THREE,
        # P Table 6. Dropout: V's script for UCF101.
        finetune=_finetune(
            lr=5e-4, layer_decay=0.75, repeats=2, warmup=0, epochs=100, drop_path=0.2, dropout=0.5
        ),
    ),
    "hmdb51": Recipe(_SSV2_CLIPS, _WINDOWS, _FIVE_BY_THREE, _SMALL),
    "diving48": Recipe(_SSV2_CLIPS, _WINDOWS, _FIVE_BY_THREE, _SMALL),
}

# X, for the first row of P Table 2. X has no recipe from scratch for SSv2, which uses this one too.
SUPERVISED = {
    "optim": FinetuneOptim(
        # X states it for 512 clips: 256 videos, each twice. The learning rate here counts videos.
        lr=1.6e-3,
        batch=256,
        # X: 1e-6 times its 16 shards, as the peak is scaled (BASE_LR_SCALE_NUM_SHARDS).
        min_lr=1.6e-5,
        weight_decay=0.05,
        betas=(0.9, 0.999),
        epochs=200,
        warmup_epochs=30,  # X starts it from 1.6e-5; here it starts from 0
        clip_grad=1.0,
    ),
    "layer_decay": 1.0,
    "drop_path": 0.2,
    "head_dropout": 0.5,
    "label_smoothing": 0.1,
    # X has the same values as V, and two repeats.
    "augment": AUGMENT.model_copy(update={"repeats": 2}),
}

# J, for head attentive. Its clips and views are those of fine-tuning.
ATTENTIVE = {
    "head": "attentive",
    "optim": FinetuneOptim(
        lr=1e-3,  # J, for 64 processes of 4 clips
        batch=256,  # J
        min_lr=0.0,
        weight_decay=0.01,  # J lets it fall to 1e-6
        epochs=20,
        warmup_epochs=0,
        clip_grad=1.0,
    ),
    "label_smoothing": 0.0,
    "augment": Augment(rand="rand-m7-n4-mstd0.5-inc1", erasing=0.25),  # J
}


@cache
def pretrain(
    dataset: str, mask: str = "mgm", epochs: int = 200, backbone: str = "vit-b"
) -> Pretrain:
    """Return the paper's pretraining recipe (P Table 5)."""
    return Pretrain(
        data=Data(dataset=dataset),
        clips=recipe_of(dataset).pretrain_clips,
        model=Model(backbone=backbone),
        mask=Mask(name=mask, ratio=mask_info(mask).ratio),
        optim=PRETRAIN_OPTIM.model_copy(update={"epochs": epochs}),
    )


@cache
def finetune(dataset: str, head: str = "linear") -> Finetune:
    """Return the paper's fine-tuning recipe (P Table 6), or that of an attentive head (J)."""
    fields = ATTENTIVE if head == "attentive" else recipe_of(dataset).finetune
    return Finetune(**_tested(dataset), **fields)


@cache
def supervised(dataset: str) -> Finetune:
    """Return MViT's recipe from scratch (P Table 2, first row), with fine-tuning's clips."""
    return Finetune(**_tested(dataset), **SUPERVISED)


@cache
def probe(dataset: str) -> Probe:
    """Return a linear probe on frozen features, tested with fine-tuning's views.

    The paper has no recipe for its probe.
    """
    same = _tested(dataset)
    same["clips"] = same["clips"].model_copy(update={"crop": "centre"})
    return Probe(**same)


def controls(like: Probe) -> Measure:
    """Return the run that classifies a probe's videos, with its labels, without a model."""
    same = {"data", "clips", "model", "seed", "train_clips", "views"}
    return Measure(name="controls", **like.model_dump(include=same))


def _tested(dataset: str) -> dict[str, Any]:
    """Return a dataset with the clips and test views of its fine-tuning."""
    recipe = recipe_of(dataset)
    return {"data": Data(dataset=dataset), "clips": recipe.finetune_clips, "views": recipe.views}


def recipe_of(dataset: str) -> Recipe:
    """Return a dataset's recipe, or that of the dataset it follows."""
    follows = PUBLISHED[dataset].recipe if dataset in PUBLISHED else ""
    if recipe := RECIPES.get(follows or dataset):
        return recipe
    raise UserError(
        f"dataset {dataset} has no recipe; set `recipe` of it to the dataset that it follows: "
        f"{', '.join(RECIPES)}"
    )
