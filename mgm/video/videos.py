"""A video as an index describes it. This module imports neither NumPy nor PyAV."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, NonNegativeInt


@dataclass(frozen=True, slots=True)
class Video:
    """A video. `path` can be opened as it is.

    The limits hold for rows of index.csv, which pydantic reads. `probe_video` returns the facts of
    a file that is in no index, without label, split and group.

    Args:
        group: videos of a group are all in the same split.
        fps: average frame rate.
        width, height: of the frame as shown, in pixels. Boxes are drawn from them.
        bytes: size of the file. Reading a clip compares it, and the frame's size. 0: unknown.
    """

    path: str
    label: NonNegativeInt
    split: Annotated[str, Field(pattern="^(train|test)$")]
    group: str
    frames: NonNegativeInt
    fps: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    width: NonNegativeInt
    height: NonNegativeInt
    codec: str
    has_vectors: bool
    bytes: NonNegativeInt

    @property
    def duration_s(self) -> float:
        """Return the duration in seconds; 0 if the frame rate is unknown."""
        return self.frames / self.fps if self.fps else 0.0
