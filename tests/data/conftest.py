import json
import shutil
from pathlib import Path

import pytest

from mgm.data.synthetic.generator import generate
from mgm.data.synthetic.params import Synthetic


@pytest.fixture(scope="session")
def generated(tmp_path_factory):
    """Return (folder, index) of a small generated set: 18 videos of 8 frames (0.7 s)."""
    out = tmp_path_factory.mktemp("generated") / "set"
    params = Synthetic(classes=3, train_per_class=5, test_per_class=1, size=32, frames=8)
    return out, generate(params, out)


@pytest.fixture
def build(tmp_path, generated):
    """Return a function that builds a folder with copies of a video and with lists.

    Lists are texts or JSON values, by path. Each call empties the folder first.
    """
    video = generated[1].videos[0].path

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
