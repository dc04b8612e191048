"""A video as an index describes it. This module imports neither NumPy nor PyAV."""

from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field, NonNegativeInt

# Pixels, of a file and of a crop. x264, JPEG and OpenCV have limits from 16,384 to 65,500.
LARGEST_SIDE = 16_384
# FFmpeg's decoders of these codecs export motion vectors. Those of HEVC, VP8, VP9 and AV1 do not,
# although the paper names H.265.
CODECS_WITH_VECTORS = frozenset(
    [
        *("h264", "mpeg1video", "mpeg2video", "mpeg4", "msmpeg4v2", "msmpeg4v3", "wmv1", "wmv2"),
        *("h261", "h263", "flv1", "rv10", "rv20", "snow"),
    ]
)


@dataclass(frozen=True, slots=True)
class Video:
    """A video. `path` can be opened as it is.

    The limits hold for rows of index.csv, which pydantic reads. `probe_video` returns the facts of
    a file that is in no index, without label, split and group.

    Args:
        group: videos of a group are all in the same split.
        fps: average frame rate.
        width, height: of the frame as shown, in pixels. Boxes are drawn from them. Of a copy, they
            are the source's.
        bytes: size of the file. Reading a clip compares it, and the frame's size. 0: unknown.
        track: where the video's tracks are (`mgm.video.track.track_path`). It follows from the
            place of the index, which does not store it. Empty: there are none.
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
    track: str = field(default="", compare=False)

    @property
    def duration_s(self) -> float:
        """Return the duration in seconds; 0 if the frame rate is unknown."""
        return self.frames / self.fps if self.fps else 0.0

    @property
    def kind(self) -> str:
        """Return the codec, and whether it lacks motion vectors because all frames are I-frames."""
        intra = not self.has_vectors and self.codec in CODECS_WITH_VECTORS
        return f"{self.codec}, all I-frames" if intra else self.codec
