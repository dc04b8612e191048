"""A very small dataset and specs of small runs, shared by the tests of training and stages."""

from pathlib import Path

from mgm.data.index import Index, Video
from mgm.data.prepare import list_drawn, prepare
from mgm.drawn.params import Synthetic
from mgm.spec import (
    Augment,
    Clips,
    Data,
    Decoder,
    Finetune,
    FinetuneOptim,
    Model,
    Optim,
    Pretrain,
    Views,
)

PARAMS = Synthetic(classes=3, train_per_class=8, test_per_class=4, size=32, frames=12)
SMALL = {
    "data": Data(dataset="ssv2", digest=PARAMS.digest),
    "clips": Clips(frames=4, size=24, stride=2, flip=False),
    "model": Model(backbone="toy", width=16, depth=2, heads=2, patch=8),
}
OPTIM = {"lr": 0.064, "min_lr": 1e-4, "batch": 4, "steps": 12, "precision": "float32"}
PRETRAIN = Pretrain(
    **SMALL,
    decoder=Decoder(width=8, depth=1, heads=2),
    optim=Optim(**OPTIM),
    std_floor=0.1,
    repeats=2,
)
# Dropout and drop path draw random numbers; mixup and CutMix mix.
FINETUNE = Finetune(
    **SMALL,
    optim=FinetuneOptim(**OPTIM),
    drop_path=0.3,
    head_dropout=0.3,
    augment=Augment(mixup=0.8, cutmix=1.0, repeats=2),
    views=Views(temporal=2, spatial=1),
)
ATTENTIVE = Finetune(
    **SMALL, head="attentive", optim=FinetuneOptim(**OPTIM), views=Views(temporal=1, spatial=1)
)


def small_set(out: Path) -> Index:
    """Prepare the small set in this process."""
    return prepare(list_drawn(PARAMS), out, processes=1, drawn=PARAMS)


def without_file(video: Video, folder: Path) -> Video:
    """Return a video whose track is there, and whose frames are not."""
    (folder / "tracks").symlink_to(Path(video.store, "tracks"))
    return video._replace(store=str(folder))
