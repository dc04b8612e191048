"""Clips cut out of a video while it is decoded: a frame is cropped and scaled as it comes, and then
forgotten.

What comes out is what `transform.apply` makes of `read_clip`'s whole frames, bit for bit. Laying
those out in memory, 4 MB a clip, would cost more time than converting them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from mgm.spec import Guidance
from mgm.video.decode import Clip, open_reading, read_clip
from mgm.video.optical_flow import read_flow
from mgm.video.transform import Box, cut_frames, cut_motion


class IndexedVideo(Protocol):
    """What a loader needs of an index row."""

    @property
    def path(self) -> str: ...
    @property
    def frames(self) -> int: ...
    @property
    def label(self) -> int: ...


@dataclass(frozen=True)
class Cut:
    """A clip to be:

    frames `index_T`; given a frame's height and width, its box and whether it is mirrored.
    """

    index_T: np.ndarray
    place: Callable[[int, int], tuple[Box, bool]]


def read_cuts(
    video: IndexedVideo, cuts: Sequence[Cut], size: int, motion: Guidance | None
) -> list[Clip]:
    """The clips of a video, of `size` x `size` pixels, from one decoding pass. All have as many
    frames.

    Raises:
        NoVectors, NoFlow, UserError: as `read_whole`.
    """
    wanted_N, inverse = np.unique(np.stack([cut.index_T for cut in cuts]), return_inverse=True)
    place_VT = inverse.reshape(len(cuts), -1)
    frames_VTHWC = np.empty((*place_VT.shape, size, size, 3), np.uint8)
    boxes: list[tuple[Box, bool]] = []
    with open_reading(video.path, wanted_N, motion == "vectors") as reading:
        for n, frame_HWC in reading:
            shape = frame_HWC.shape[:2]
            boxes = boxes or [cut.place(*(reading.size or shape)) for cut in cuts]
            for v in np.flatnonzero((place_VT == n).any(1)):
                box, flip = boxes[v]
                frames_VTHWC[v, place_VT[v] == n] = cut_frames(
                    frame_HWC[None], box.on(shape, reading.size), size, flip
                )
        motion_NHW2, distance_NHW, informed_N = reading.motion()
    if motion == "raft-small" or motion == "dis":
        motion_NHW2, informed_N = read_flow(
            video.path, motion, wanted_N, (video.frames, *distance_NHW.shape[1:])
        )
    return [
        Clip(
            frames_THWC,
            *cut_motion(motion_NHW2[place_T], distance_NHW[place_T], box, size, flip),
            informed_N[place_T],
        )
        for frames_THWC, place_T, (box, flip) in zip(frames_VTHWC, place_VT, boxes)
    ]


def read_whole(video: IndexedVideo, index_T: np.ndarray, motion: Guidance | None) -> Clip:
    """The frames `index_T` of a video with the codec's vectors, with the flow of its sidecar, or
    without motion.

    Raises:
        NoVectors, UserError: as `read_clip`.
        NoFlow: as `read_flow`.
    """
    clip = read_clip(video.path, index_T, motion == "vectors")
    if motion is None or motion == "vectors" or motion == "shuffled":
        return clip
    flow_THW2, has_motion_T = read_flow(
        video.path, motion, index_T, (video.frames, *clip.distance_THW.shape[1:])
    )
    return replace(
        clip, motion_THW2=flow_THW2, has_motion_T=has_motion_T
    )  # the distance is 1 throughout already
