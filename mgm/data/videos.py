"""The videos of a dataset, as its index holds them (`mgm.data.index`)."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeInt

SPLITS = ("train", "test")


@dataclass(frozen=True, slots=True)
class Video:
    """A video. `path` can be opened as it is. `Index.name` returns its part below the root.

    The limits hold for rows of index.csv, which pydantic reads.
    """

    path: str
    label: NonNegativeInt
    split: Annotated[str, Field(pattern="^(train|test)$")]
    group: str  # videos of a group are all in the same split
    frames: NonNegativeInt
    fps: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    width: NonNegativeInt  # pixels, as stored
    height: NonNegativeInt
    codec: str
    has_vectors: bool
    bytes: NonNegativeInt


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
