"""The videos of a dataset, as its index holds them (`mgm.data.index`)."""

import os
from dataclasses import dataclass
from pathlib import Path

from mgm.video.videos import Video

SPLITS = ("train", "test")


@dataclass(frozen=True)
class Index:
    """The videos of a dataset.

    Attributes:
        digest: 12 hex digits that identify the content, wherever it is stored.
        note: where the split comes from.
        excluded: (path below the root, reason) of every listed video that is not used.
    """

    root: Path
    classes: tuple[str, ...]
    videos: tuple[Video, ...]
    excluded: tuple[tuple[str, str], ...]
    digest: str
    note: str

    @property
    def train(self) -> tuple[Video, ...]:
        return tuple(video for video in self.videos if video.split == "train")

    @property
    def test(self) -> tuple[Video, ...]:
        return tuple(video for video in self.videos if video.split == "test")

    @property
    def grouped(self) -> bool:
        """Whether several training videos come from one source."""
        return len({video.group for video in self.train}) < len(self.train)

    def name(self, video: Video) -> str:
        """Return the video's path below the root. It is the same on every machine."""
        return below(video.path, self.root)


def below(path: str, root: Path) -> str:
    """Return a path relative to the root, with slashes."""
    return os.path.relpath(path, root).replace(os.sep, "/")
