"""All motion vectors of a video file, in one decoding pass that converts no pixels."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mgm.errors import UserError
from mgm.video.container import open_video, transcode
from mgm.video.motion import reference_distance
from mgm.video.shard_reader import open_record, shard_of


@dataclass(frozen=True)
class Vectors:
    """The motion information of a whole file: T pictures decode, N of them carry some.

    Attributes:
        kinds_T: picture types ("I", "P", "B"), in presentation order.
        index_N: the frames that carry motion information.
        motion_NHW2, distance_NHW: as in `Clip`, for these frames; cells of 8 x 8 pixels.
        height, width: of the frame as shown, in pixels; 0 where nothing decodes.
    """

    kinds_T: tuple[str, ...]
    index_N: np.ndarray
    motion_NHW2: np.ndarray
    distance_NHW: np.ndarray
    height: int
    width: int

    @property
    def speed(self) -> np.ndarray:
        """(N, H, W) float32, pixels a frame:

        magnitudes, each divided by its estimated reference distance.
        """
        return np.hypot(self.motion_NHW2[..., 0], self.motion_NHW2[..., 1]) / self.distance_NHW


def read_vectors(path: str | Path) -> Vectors:
    """Decode a whole file; where its codec gives no vectors, N is 0.

    Raises:
        UserError: the file cannot be read, or its frames change their size.
    """
    if shard_of(path):
        record = open_record(path)
        motion_NHW2, distance_NHW, informed_N = record.motion(record.rows)
        kinds_T = tuple(kind.decode() for kind in record.rows["kind"].tolist())
        index_N = record.every * np.flatnonzero(informed_N)
        return Vectors(
            kinds_T, index_N, motion_NHW2[informed_N], distance_NHW[informed_N], *record.size
        )
    kinds, references, indices, motions, futures = (
        list[str](),
        list[int](),
        list[int](),
        list[np.ndarray](),
        list[np.ndarray](),
    )
    height, width = 0, 0
    with open_video(path) as video:
        for picture in video.pictures(motion=video.has_vectors):
            if kinds and picture.size != (height, width):
                raise UserError(
                    f"{path}: frame {picture.index} is {picture.size[0]} x {picture.size[1]} pixels, earlier ones {height} x {width}; "
                    f"transcode it: {transcode(path)}"
                )
            height, width = picture.size
            kinds.append(picture.kind)
            if picture.is_reference:
                references.append(picture.index)
            if picture.vectors is not None:
                indices.append(picture.index)
                motion_HW2, future_HW = picture.cells()
                motions.append(motion_HW2)
                futures.append(future_HW)
    if not indices:
        return Vectors(
            tuple(kinds),
            np.empty(0, int),
            np.empty((0, 0, 0, 2), np.float32),
            np.empty((0, 0, 0), np.float32),
            height,
            width,
        )
    past_N, future_N = reference_distance(np.array(indices), np.array(references))
    distance_NHW = np.where(futures, future_N[:, None, None], past_N[:, None, None]).astype(
        np.float32
    )
    return Vectors(tuple(kinds), np.array(indices), np.stack(motions), distance_NHW, height, width)
