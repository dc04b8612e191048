import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from mgm.data.synthetic.generator import generate
from mgm.data.synthetic.params import Synthetic

# Folder below a generated set that `mgm prepare` takes as source.
BELOW = {
    "ucf101": "videos",
    "hmdb51": "videos",
    "diving48": "videos",
    "ssv2": ".",
    "k400": ".",
}


@pytest.fixture(scope="session")
def generated(tmp_path_factory):
    """Return (folder, index) of a small generated set."""
    out = tmp_path_factory.mktemp("generated") / "set"
    return out, generate(Synthetic(train_per_class=3, test_per_class=1), out)


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """Return a function that draws a tiny look-alike of a published set once.

    Its result has `source`, the folder for `mgm prepare`, and `index`, as drawn.
    """
    sets = {}

    def draw(kind):
        if kind not in sets:
            out = tmp_path_factory.mktemp("published") / kind
            index = generate(
                Synthetic(
                    kind=kind, classes=3, train_per_class=2, test_per_class=1, size=32, frames=8
                ),
                out,
            )
            sets[kind] = SimpleNamespace(source=out / BELOW[kind], index=index)
        return sets[kind]

    return draw


@pytest.fixture
def build(tmp_path, published):
    """Return a function that builds a folder with copies of a video and with lists.

    The video has 8 frames (0.7 s). Lists are texts or JSON values, by path. Each call empties the
    folder first.
    """
    video = published("diving48").index.videos[0].path

    def build(*videos: str, lists=None) -> Path:
        source = tmp_path / "source"
        shutil.rmtree(source, ignore_errors=True)
        for name in videos:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(video, source / name)
        for name, value in (lists or {}).items():
            if value is not None:
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                (source / name).write_text(
                    value if isinstance(value, str) else json.dumps(value),
                    encoding="utf-8",
                    newline="",
                )
        return source

    return build
