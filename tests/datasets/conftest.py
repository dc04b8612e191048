from types import SimpleNamespace

import pytest

from mgm.datasets.synthetic.make import generate
from mgm.datasets.synthetic.params import Synthetic

BELOW = {"ucf101": "videos", "hmdb51": "videos", "diving48": "videos", "ssv2": ".", "k400": "."}  # the source, in a generated set


@pytest.fixture(scope="session")
def generated(tmp_path_factory):
    """A small generated set: (its folder, its index)."""
    out = tmp_path_factory.mktemp("generated") / "set"
    return out, generate(Synthetic(train_per_class=3, test_per_class=1), out)


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """Draws a tiny look-alike of a published set, once: `source`, what `mgm prepare` is given, and the `index` as drawn."""
    sets = {}

    def draw(kind):
        if kind not in sets:
            out = tmp_path_factory.mktemp("published") / kind
            index = generate(Synthetic(kind=kind, classes=3, train_per_class=2, test_per_class=1, size=32, frames=8), out)
            sets[kind] = SimpleNamespace(source=out / BELOW[kind], index=index)
        return sets[kind]

    return draw
