"""The paper's values, each with its source. Everything else that trains is one of these, changed by a scale.

P is the paper (its Tables 5 and 6), V the official VideoMAE code whose values the paper adopts ("same as [40]").
"""

from mgm.spec import Clips, Data, Finetune, FinetuneOptim, Mask, MaskName, Model, Optim, Pretrain, Probe, Views

MASK_RATIO: dict[str, float] = {
    "mgm": 0.75,  # P 4.5, Figure 4a
    "smm": 0.75,  # paper silent; as MGM
    "block": 0.75,  # paper silent; as MGM
    "mgm-sparse": 0.75,  # paper silent; as MGM
    "smm-sparse": 0.75,  # paper silent; as MGM
    "tube": 0.9,  # V: scripts/*/pretrain.sh
    "agnostic": 0.9,  # ST-MAE's abstract
}

PRETRAIN_CLIPS = {
    "ssv2": Clips(stride=2, flip=False),  # P 4.2: stride 2; Table 5: no flip, left and right are labels
    "k400": Clips(stride=4, flip=True),  # P 4.2: stride 4; Table 5: flip
}

FINETUNE = {  # P Table 6
    "ssv2": {"optim": FinetuneOptim(lr=5e-4, epochs=30, warmup_epochs=5), "layer_decay": 0.75, "drop_path": 0.1},
}
FINETUNE_CLIPS = {
    "ssv2": Clips(sampling="segments", stride=2, crop="resized", flip=False),  # P 4.2: TSN sampling; V ssv2.py
}
VIEWS = {"ssv2": Views(temporal=2, spatial=3)}  # P 4.2


def pretrain(dataset: str, mask: MaskName = "mgm", epochs: int = 200) -> Pretrain:
    """P Table 5. Datasets the paper does not pretrain on follow SSv2, the set of its ablations."""
    return Pretrain(
        data=Data(dataset=dataset),
        clips=PRETRAIN_CLIPS.get(dataset, PRETRAIN_CLIPS["ssv2"]),
        mask=Mask(name=mask, ratio=MASK_RATIO[mask]),
        optim=Optim(epochs=epochs),
    )


def finetune(dataset: str, parent: str, model: Model) -> Finetune:
    """P Table 6."""
    return Finetune(
        data=Data(dataset=dataset),
        clips=FINETUNE_CLIPS.get(dataset, FINETUNE_CLIPS["ssv2"]),
        model=model,
        parent=parent,
        views=VIEWS.get(dataset, VIEWS["ssv2"]),
        **FINETUNE.get(dataset, FINETUNE["ssv2"]),
    )


def probe(dataset: str, parent: str, model: Model) -> Probe:
    """Paper silent: MAE's linear probe on frozen features (RECIPES), tested with finetuning's views."""
    return Probe(
        data=Data(dataset=dataset),
        clips=FINETUNE_CLIPS.get(dataset, FINETUNE_CLIPS["ssv2"]).model_copy(update={"crop": "centre"}),
        model=model,
        parent=parent,
        views=VIEWS.get(dataset, VIEWS["ssv2"]),
    )
