"""The paper's recipes; every value has its source.

Scales change these recipes to smaller sizes. The sources:

- P: the paper (its Tables 5 and 6).
- V: the official VideoMAE code. The paper adopts its values ("same as [40]"). Where P and V
  differ, P wins.
- X: SlowFast's configuration of MViT (Kinetics/MVIT_B_16x4_CONV).

A dataset that is not named here follows SSv2, the dataset of P's ablations. That recipe does not
flip clips, since labels may depend on the direction.
"""

from typing import Any

from mgm.spec import (
    BACKBONES,
    MASKS,
    PUBLISHED,
    Augment,
    Clips,
    Data,
    Decoder,
    Finetune,
    FinetuneOptim,
    Mask,
    Measure,
    Model,
    Optim,
    Pretrain,
    Probe,
    Views,
)

MASK_RATIO: dict[str, float] = {
    **dict.fromkeys(MASKS, 0.75),  # P 4.5, Figure 4a, for MGM; P does not state the others
    "tube": 0.9,  # V: scripts/*/pretrain.sh
    "agnostic": 0.9,  # ST-MAE's abstract
    "warped": 0.9,  # MGMAE: scripts/mgmae/*.sh
    "motion-bins": 0.8,  # TrackMAE: README.md
    "multi-block": 0.9,  # V-JEPA: "an average masking ratio of about 90 %"
    "green-noise": 0.9,  # as tube masking, which it replaces
}

MODELS = {name: Model(backbone=name) for name in BACKBONES}
DECODERS = {
    name: Decoder(width=width, depth=depth, heads=heads)
    for name, (_, (width, depth, heads)) in BACKBONES.items()
}

PRETRAIN_OPTIM = Optim(
    lr=1.5e-4,  # P Table 5, for a batch of 256
    weight_decay=0.05,  # P Table 5
    betas=(0.9, 0.95),  # P Table 5
    batch=512,  # P Table 5
    warmup_epochs=40,  # P Table 5
    min_lr=1e-5,  # V: run_mae_pretraining.py
    clip_grad=0.0,  # V: none
)
PRETRAIN_CLIPS = {  # P 4.2: 16 frames, 224 x 224, strides 2 and 4; Table 5: MultiScaleCrop, flip
    "ssv2": Clips(frames=16, size=224, stride=2, crop="multiscale", flip=False),
    "k400": Clips(frames=16, size=224, stride=4, crop="multiscale", flip=True),
}

AUGMENT = Augment(  # V: run_class_finetuning.py
    rand="rand-m7-n4-mstd0.5-inc1",
    erasing=0.25,
    mixup=0.8,
    cutmix=1.0,
)


def _column(
    *,
    lr: float,
    layer_decay: float,
    repeats: int,
    warmup: float,
    epochs: int,
    drop_path: float,
    dropout=0.0,
) -> dict[str, Any]:
    """A column of P Table 6 (flip is in FINETUNE_CLIPS)."""
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


# P Table 6. Dropout 0.5 is V's for UCF101; V has no recipe for HMDB51 and Diving48.
FINETUNE = {
    "ssv2": _column(lr=5e-4, layer_decay=0.75, repeats=2, warmup=5, epochs=30, drop_path=0.1),
    "k400": _column(lr=1e-3, layer_decay=0.75, repeats=2, warmup=5, epochs=75, drop_path=0.1),
    "ucf101": _column(
        lr=5e-4, layer_decay=0.75, repeats=2, warmup=0, epochs=100, drop_path=0.2, dropout=0.5
    ),
    **dict.fromkeys(
        ("hmdb51", "diving48"),
        _column(lr=5e-4, layer_decay=0.7, repeats=2, warmup=0, epochs=100, drop_path=0.2),
    ),
}

FINETUNE_CLIPS = {
    # P 4.2: TSN sampling; Table 6: no flip; V: ssv2.py.
    "ssv2": Clips(sampling="segments", stride=2, crop="resized", flip=False),
    # V: kinetics.py; Table 6: flip. P does not state the sampling of the last four. They follow
    # K400, as UCF101 does in V.
    **dict.fromkeys(
        ("k400", "ucf101", "hmdb51", "diving48"),
        Clips(sampling="window", stride=4, crop="resized", flip=True),
    ),
}
# P 4.2.
VIEWS = {
    "ssv2": Views(temporal=2, spatial=3),
    **dict.fromkeys(("k400", "ucf101", "hmdb51", "diving48"), Views(temporal=5, spatial=3)),
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


def pretrain(
    dataset: str, mask: str = "mgm", epochs: int = 200, backbone: str = "vit-b"
) -> Pretrain:
    """Return the paper's pretraining recipe (P Table 5)."""
    return Pretrain(
        data=Data(dataset=dataset),
        clips=_for_dataset(PRETRAIN_CLIPS, dataset),
        model=MODELS[backbone],
        decoder=DECODERS[backbone],
        mask=Mask(name=mask, ratio=MASK_RATIO[mask]),
        optim=PRETRAIN_OPTIM.model_copy(update={"epochs": epochs}),
    )


def finetune(dataset: str) -> Finetune:
    """Return the paper's fine-tuning recipe (P Table 6)."""
    recipe = _for_dataset(FINETUNE, dataset)
    return Finetune(**_tested(dataset), **recipe)


def supervised(dataset: str) -> Finetune:
    """Return MViT's recipe from scratch (P Table 2, first row), with fine-tuning's clips."""
    return Finetune(**_tested(dataset), **SUPERVISED)


def probe(dataset: str) -> Probe:
    """Return a linear probe on frozen features, tested with fine-tuning's views.

    The paper has no recipe for its probe; this one is MAE's.
    """
    same = _tested(dataset)
    same["clips"] = same["clips"].model_copy(update={"crop": "centre"})
    grouped = dataset in PUBLISHED and PUBLISHED[dataset].grouped
    return Probe(held_out="groups" if grouped else "videos", **same)


def controls(like: Probe) -> Measure:
    """Return the run that classifies a probe's videos, with its labels, without a model."""
    same = {"data", "clips", "model", "seed", "train_clips", "label_draws", "held_out", "views"}
    return Measure(name="controls", **like.model_dump(include=same))


def _tested(dataset: str) -> dict[str, Any]:
    """Return a dataset with the clips and test views of its fine-tuning."""
    return {
        "data": Data(dataset=dataset),
        "clips": _for_dataset(FINETUNE_CLIPS, dataset),
        "views": _for_dataset(VIEWS, dataset),
    }


def _for_dataset(by_dataset: dict[str, Any], dataset: str) -> Any:
    """Return a dataset's value, or that of the dataset it follows, by default SSv2."""
    follows = PUBLISHED[dataset].recipe if dataset in PUBLISHED else ""
    return by_dataset.get(follows or dataset, by_dataset["ssv2"])
