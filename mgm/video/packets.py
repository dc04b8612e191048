"""Read the times of a video's pictures from its packets, and H.264's headers, without decoding."""

import math
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
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
        disposable_T: True for frames that no other frame refers to, as far as is known.
        key_K: presentation times of key frames, sorted. FFmpeg seeks by them.
        start: the time of the first packet.
    """

    times_T: np.ndarray
    packet_T: np.ndarray
    disposable_T: np.ndarray
    key_K: np.ndarray
    start: int

    @property
    def reorders(self) -> bool:
        """Return whether pictures are stored in another order than they are shown."""
        return bool((np.diff(self.packet_T) < 0).any())

    def seeks(self, frame: int) -> list[int]:
        """Return the times to seek to, to decode a frame: its nearest key frame, then the start."""
        time = self.times_T[min(frame, len(self.times_T) - 1)]
        place = int(np.searchsorted(self.key_K, time, side="right")) - 1
        return [*self.key_K[max(place, 0) : place + 1].tolist(), self.start]

    def starting(self, first: int) -> "Timeline":
        """Return the timeline without the frames before `first`."""
        of_frames = self.times_T[first:], self.packet_T[first:], self.disposable_T[first:]
        return Timeline(*of_frames, self.key_K, self.start)

    def frame_at(self, time: int | None) -> int | None:
        """Return the frame with a presentation time, if there is one."""
        place = 0 if time is None else bisect_left(self.times_T, time)
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
    times_T, key_K = np.array(times)[order], np.array(sorted(keys), np.int64)
    return Timeline(times_T, packet_T, np.zeros(len(times_T), bool), key_K, int(start))


class SequenceHeader(NamedTuple):
    """What an H.264 stream's header says about its pictures.

    Args:
        left, top: pixels that the shown picture leaves out of the coded one.
        fields: whether a packet may hold one field, so that two of them are a frame.
    """

    left: int = 0
    top: int = 0
    fields: bool = False


class Slices:
    """What the packets of an H.264 stream say about its pictures, gathered while they are read.

    Args:
        extradata: what the container stores next to the packets.

    Attributes:
        headers: of all sequence parameter sets. Those before the first picture replace the set in
            the extradata.
        kinds: types of the slices: "P", "B", "I" and two rare ones.
        pictures: number of packets with slices.
        disposable: presentation times of the pictures that no other picture refers to.
    """

    def __init__(self, extradata: bytes):
        # The bytes of a unit's length; 0: start codes separate units.
        configured = extradata[:1] == b"\1" and len(extradata) > 5
        self._length = (extradata[4] & 3) + 1 if configured else 0
        first = [extradata[8:]] if configured and extradata[5] & 31 else []
        units = first if configured else _units(extradata, 0)
        self.headers = {sequence_header(unit) for unit in units if _kind(unit) == 7}
        self.kinds, self.pictures, self.disposable = set[str](), 0, set[int]()

    @property
    def intra(self) -> bool:
        """Return whether no picture refers to another one. Of a single picture it is unknown."""
        return self.kinds == {"I"} and self.pictures > 1

    def read(self, packets: Iterable[Any]) -> Iterator[Any]:
        """Yield the packets, and look into each."""
        for packet in packets:
            slices, referred = set[str](), False
            for unit in _units(bytes(packet), self._length):
                if _kind(unit) == 7:
                    known = self.headers if self.kinds else set()
                    self.headers = {*known, sequence_header(unit)}
                elif _kind(unit) in (1, 5):
                    slices.add(_slice_type(unit))
                    referred |= bool(unit[0] & 0x60)
            self.kinds |= slices
            self.pictures += bool(slices)
            if slices and not referred:
                self.disposable.add(packet.pts)
            yield packet


def _units(data: bytes, length: int) -> Iterator[bytes]:
    """Yield the units of a packet. Each begins with a byte whose last 5 bits are its kind."""
    if not length:
        yield from re.split(b"\0\0\1", data)[1:]
        return
    start = length
    while start < len(data):
        end = start + int.from_bytes(data[start - length : start], "big")
        yield data[start:end]
        start = end + length


def _kind(unit: bytes) -> int:
    """Return 7 for a sequence parameter set, 1 or 5 for a slice."""
    return unit[0] & 31 if unit else 0


def _slice_type(unit: bytes) -> str:
    """Return the type of a slice, the second number of its header (7.3.3)."""
    bits, value = f"{int.from_bytes(unit[1:17].ljust(16, bytes(1)), 'big'):0128b}1", 0
    for _ in range(2):
        zeros = bits.index("1")
        value = int(bits[zeros : 2 * zeros + 1] or "1", 2) - 1
        bits = f"{bits[2 * zeros + 1 :]}1"
    return ("P", "B", "I", "SP", "SI")[value % 5]


def sequence_header(unit: bytes) -> SequenceHeader:
    """Parse an H.264 sequence parameter set.

    Source: ISO/IEC 14496-10, 7.3.2.1.1.
    """
    data = unit[1:].replace(b"\0\0\3", b"\0\0")
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
