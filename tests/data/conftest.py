from pathlib import Path

import numpy as np
import pytest

from mgm.data.index import DEFAULTS, Video, file_of
from tests.helpers.videos import write_video


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """Return a function that writes a small video of a content, and returns its path.

    A content is a number: a bright square that moves over noise. Equal contents are equal bytes.
    """
    folder = tmp_path_factory.mktemp("clips")

    def clip(path: Path, content: int, codec="libx264", frames=8, size=48) -> Path:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        made = folder / f"{content}-{codec}-{frames}-{size}{path.suffix}"
        if not made.exists():
            rng = np.random.default_rng(content)
            picture_HWC = rng.integers(0, 120, (size // 4, size // 4, 3)).repeat(4, 0).repeat(4, 1)
            frames_THWC = np.repeat(picture_HWC[None].astype(np.uint8), frames, 0)
            for t in range(frames):
                place = (content * 3 + 2 * t) % (size - 12)
                frames_THWC[t, 10:22, place : place + 12] = 240
            write_video(made, frames_THWC, codec=codec)
        path.write_bytes(made.read_bytes())
        return path

    return clip


@pytest.fixture
def touch(tmp_path):
    """Return a function that makes empty files below a folder, and returns the folder."""

    def touch(*names: str, below: str = "source") -> Path:
        for name in names:
            (tmp_path / below / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / below / name).touch()
        return tmp_path / below

    return touch


@pytest.fixture
def stored():
    """Return a function that makes a row of an index, with the two files of a video."""

    def stored(out: Path, name: str, **fields) -> Video:
        facts = {"label": 0, "split": "train", "group": name, "frames": 8, "fps": 25.0}
        facts |= {"width": 48, "height": 48, "codec": "h264", "vectors": "source", "bytes": 5}
        facts |= {"source": f"{name}.avi", "source_sha256": name}
        video = Video(str(out), file_of(name, DEFAULTS), name, **{**facts, **fields})
        for path in map(Path, (video.path, video.track())):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"12345")
        return video

    return stored
