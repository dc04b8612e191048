"""Read the times of a video's pictures from its packets, and H.264's headers, without decoding."""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, NamedTuple

import numpy as np

# Profiles whose sequence headers have fields about chroma (ISO/IEC 14496-10, 7.3.2.1.1).
_HIGH_PROFILES = {44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244}


@dataclass(frozen=True)
class Timeline:
    """The times of a file's pictures, as MP4 and Matroska store them.

    Args:
        times_T: presentation times of the T frames, sorted.
        packet_T: position of each frame's packet, in decoding order.
        key_K: presentation times of key frames, sorted. FFmpeg seeks by them.
        start: the time of the first packet.
    """

    times_T: np.ndarray
    packet_T: np.ndarray
    key_K: np.ndarray
    start: int

    @property
    def reorders(self) -> bool:
        """Return whether pictures are decoded in another order than they are shown."""
        return bool((np.diff(self.packet_T) < 0).any())

    def seeks(self, frame: int) -> list[int]:
        """Return the times to seek to, to decode a frame: its nearest key frame, then the start."""
        time = self.times_T[min(frame, len(self.times_T) - 1)]
        place = int(np.searchsorted(self.key_K, time, side="right")) - 1
        return [*self.key_K[max(place, 0) : place + 1].tolist(), self.start]

    def frame_at(self, time: int | None) -> int | None:
        """Return the frame with a presentation time, if there is one."""
        place = 0 if time is None else int(np.searchsorted(self.times_T, time))
        known = time is not None and place < len(self.times_T) and self.times_T[place] == time
        return place if known else None


def stored_times(packets: Iterable[Any]) -> Timeline | None:
    """Return the timeline of the packets of a container that stores presentation times.

    It is None if the times cannot be trusted: a time is missing or occurs twice, or decoding times
    decrease, as in Matroska files of XviD in VfW mode.
    """
    times, places, keys = list[int](), list[int](), list[int]()
    start, decoded = math.inf, -math.inf
    for place, packet in enumerate(packet for packet in packets if packet.size):
        time, dts = packet.pts, packet.dts
        if time is None or (dts is not None and dts < decoded):
            return None
        decoded = decoded if dts is None else dts
        start = min(start, time, time if dts is None else dts)
        if packet.is_keyframe:
            keys.append(time)
        if not packet.is_discard:
            times.append(time)
            places.append(place)
    if not times or len(set(times)) < len(times):
        return None
    order = np.argsort(times)
    packet_T = np.array(places, np.int32)[order]
    return Timeline(np.array(times)[order], packet_T, np.array(sorted(keys), np.int64), int(start))


class SequenceHeader(NamedTuple):
    """What an H.264 stream's header says about its pictures.

    Args:
        left, top: pixels that the shown picture leaves out of the coded one.
        fields: whether a packet may hold one field, so that two of them are a frame.
    """

    left: int = 0
    top: int = 0
    fields: bool = False


def sequence_header(extradata: bytes) -> SequenceHeader:
    """Parse the first sequence parameter set in the extradata of an H.264 stream.

    Without one, the picture is not cropped and has no fields.

    Source: ISO/IEC 14496-10, 7.3.2.1.1.
    """
    marked = re.search(b"\0\0\x01[\x07\x27\x47\x67]", extradata)
    at = 9 if extradata[:1] == b"\1" else marked.end() if marked else len(extradata)
    data = extradata[at:].replace(b"\0\0\3", b"\0\0")
    if len(data) < 4:
        return SequenceHeader()
    # A header that was cut off continues with ones, which most fields read as 0.
    bits = chain("".join(f"{byte:08b}" for byte in data[3:]), repeat("1"))

    def flag() -> int:
        return int(next(bits))

    def golomb() -> int:
        zeros = next((n for n in range(33) if flag()), 0)
        return int("1" + "".join(next(bits) for _ in range(zeros)), 2) - 1

    def signed() -> int:
        code = golomb()
        return (code + 1) // 2 if code % 2 else -(code // 2)

    def skip(*fields: Callable[[], int]) -> None:
        for field in fields:
            field()

    golomb()  # the set's number
    chroma = 1
    if data[0] in _HIGH_PROFILES:
        chroma = golomb()
        skip(*[flag] * (chroma == 3))  # separate planes
        skip(golomb, golomb, flag)  # bit depths, lossless
        for matrix in range((12 if chroma == 3 else 8) * flag()):
            last = following = 8
            for _ in range((16 if matrix < 6 else 64) * flag()):
                following = (last + signed()) % 256 if following else 0
                last = following or last
    golomb()  # length of frame numbers
    order = golomb()
    if order == 0:
        golomb()
    elif order == 1:
        skip(flag, golomb, golomb, *min(golomb(), 255) * [golomb])
    skip(golomb, flag, golomb, golomb)  # references, gaps, width, height
    fields = not flag()
    skip(*[flag] * (2 if fields else 1))
    if not flag():
        return SequenceHeader(fields=fields)
    left, _, top = (min(golomb(), 1 << 14) for _ in range(3))
    across, down = (2 if chroma in (1, 2) else 1), (2 if chroma == 1 else 1)
    return SequenceHeader(across * left, down * (2 if fields else 1) * top, fields)
