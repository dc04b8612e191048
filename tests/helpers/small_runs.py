"""A very small dataset and model, shared by the tests of jobs."""

from mgm.data.synthetic.params import Synthetic
from mgm.spec import Clips, Data, Model

PARAMS = Synthetic(classes=3, train_per_class=8, test_per_class=4, size=32, frames=12)
SMALL = {
    "data": Data(dataset="ssv2", digest=PARAMS.digest),
    "clips": Clips(frames=4, size=24, stride=2, flip=False),
    "model": Model(backbone="toy", width=16, depth=2, heads=2, patch=8),
}
