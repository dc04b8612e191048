"""Read the order, times and types of a video's pictures from its packets, without decoding."""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np

# The start code of a picture's header.
_PICTURE = {
    "mpeg1video": b"\0\0\1\0",
    "mpeg2video": b"\0\0\1\0",
    "mpeg4": b"\0\0\1\xb6",
}
MPEG = frozenset(_PICTURE)
# Bytes. A shorter P-picture of MPEG-4 may be a placeholder that is not shown (FFmpeg's
# MAX_NVOP_SIZE).
PLACEHOLDER = 20


# --- The pictures of a file ---


@dataclass(frozen=True)
class Timeline:
    """The order and the times of a file's pictures.

    MP4 and Matroska store presentation times. AVI and MPEG streams do not. There the order follows
    from the picture types, and the time of a picture is its number.

    Args:
        times: presentation times of all frames, sorted.
        keys: (presentation time, offset to seek to) of each key frame.
        start: the offset of the first packet.
        order: (presentation time or -1, number of IDR pictures up to here) of each packet, in
            decoding order.
        marks: {CRC-32 of a key frame's packet: its position in `order`}. None if the file stores
            times.
    """

    times: np.ndarray
    keys: list[tuple[int, int]]
    start: int
    order: list[tuple[int, int]]
    marks: dict[int, int] | None = None

    @property
    def reorders(self) -> bool:
        """Return whether pictures are decoded in another order than they are shown."""
        times = [time for time, _ in self.order if time >= 0]
        return times != sorted(times)

    def needed(self, wanted: Collection[int]) -> list[int]:
        """Return the times of the packets that the pictures of times `wanted` may need.

        They are in decoding order. A picture does not need later packets. After an IDR picture, no
        picture needs a packet from before it (ISO/IEC 14496-10, 3.69).
        """
        last = {period: at for at, (time, period) in enumerate(self.order) if time in wanted}
        return [time for at, (time, period) in enumerate(self.order) if at <= last.get(period, -1)]


def stored_times(packets: Iterable[Any], seek_by_time: bool, prefix: int) -> Timeline | None:
    """Return the timeline of a container that stores presentation times.

    Args:
        packets: all packets.
        seek_by_time: whether the container's index has presentation times (Matroska) instead of
            decoding times.
        prefix: size in bytes of the length field before each unit of an H.264 packet. 0 for other
            streams.

    Returns:
        The timeline. None if the times cannot be trusted: a time is missing or occurs twice, or
        decoding times decrease, as in Matroska files of XviD in VfW mode.
    """
    order, times, keys = list[tuple[int, int]](), list[int](), list[tuple[int, int]]()
    start, period, decoded = None, 0, -math.inf
    for packet in packets:
        if not packet.size:
            continue
        time = packet.pts
        if time is None or (packet.dts is not None and packet.dts < decoded):
            return None
        decoded = decoded if packet.dts is None else packet.dts
        offset = time if seek_by_time or packet.dts is None else packet.dts
        start = offset if start is None else min(start, offset)
        if packet.is_keyframe:
            keys.append((time, offset))
            period += prefix > 0 and is_idr(memoryview(packet), prefix)
        if not packet.is_discard:
            times.append(time)
        order.append((time, period))
    if start is None or not times or len(set(times)) < len(times):
        return None
    return Timeline(np.array(sorted(times), np.int64), sorted(keys), start, order)


def counted_times(packets: Iterable[Any], codec: str) -> Timeline | None:
    """Return the timeline of an MPEG-1, 2 or 4 stream without presentation times.

    A picture's time is its number.

    Returns:
        The timeline. None if a packet does not hold exactly one picture, or if the first pictures
        need earlier ones.
    """
    # `seekable` has (position, offset, CRC-32) of key frames.
    kinds, seekable = list[str](), list[tuple[int, int, int]]()
    for packet in packets:
        if not packet.size:
            continue
        kind = mpeg_kind(data := bytes(packet), codec)
        if kind is None:
            return None
        if kind == "I" and packet.is_keyframe and packet.dts is not None:
            seekable.append((len(kinds), packet.dts, crc32(from_sequence_header(data, codec))))
        kinds.append(kind)
    marks = {mark: place for place, _, mark in seekable}
    begins_whole = bool(seekable) and seekable[0][0] == 0 and kinds[1:2] != ["B"]
    if not begins_whole or len(marks) < len(seekable):
        return None
    shown = shown_order(kinds)
    keys = [(shown[place], offset) for place, offset, _ in seekable]
    order = [(time, 0) for time in shown]
    return Timeline(np.arange(max(shown) + 1), keys, keys[0][1], order, marks)


def shown_order(kinds: list[str]) -> list[int]:
    """Return each picture's position in presentation order, given types in decoding order.

    An I- or P-picture is shown after the B-pictures that follow it. A packet without a picture
    (type "") has position -1.
    """
    shown, waiting, count = [-1] * len(kinds), None, 0
    for at, kind in enumerate([*kinds, "I"]):
        done = at if kind == "B" else waiting
        if kind and done is not None:
            shown[done] = count
            count += 1
        if kind not in ("", "B"):
            waiting = at
    return shown


# --- The bytes of a packet ---


def mpeg_kind(packet: bytes, codec: str) -> str | None:
    """Return the picture type ("I", "P", "B", "S") of a packet of MPEG-1, 2 or 4.

    After the start code, MPEG-1 and 2 have 10 bits of order, then 3 bits of type (ISO/IEC 13818-2,
    6.2.3). MPEG-4 has 2 bits of type (ISO/IEC 14496-2, 6.2.5).

    Returns:
        The type. "" for a packet without a picture. None if the packet may hold two pictures, or a
        picture that is not shown.
    """
    code = _PICTURE[codec]
    at = packet.find(code) + 4
    if at < 4:
        return ""
    two_fields = codec == "mpeg2video" and packet.find(code, at) >= 0
    if len(packet) < at + 2 or two_fields:
        return None
    if codec != "mpeg4":
        return {1: "I", 2: "P", 3: "B"}.get(packet[at + 1] >> 3 & 7)
    kind = "IPBS"[packet[at] >> 6]
    return None if kind == "P" and len(packet) < PLACEHOLDER else kind


def from_sequence_header(packet: bytes, codec: str) -> bytes:
    """Return a key frame's packet without the bytes before its sequence header.

    After a seek in an MPEG stream, these bytes may be the end of an earlier picture.
    """
    if codec == "mpeg4":
        return packet
    header = packet.rfind(b"\0\0\1\xb3", 0, max(packet.find(_PICTURE[codec]), 0))
    return packet[header:] if header > 0 else packet


def is_idr(packet: memoryview | bytes, prefix: int) -> bool:
    """Return whether an H.264 packet holds an IDR picture, after which earlier ones are not needed.

    Before each unit of the packet is its length, in `prefix` bytes. A unit's first byte holds its
    type (ISO/IEC 14496-10, 7.3.1).
    """
    at = 0
    while at + prefix < len(packet):
        size, at = int.from_bytes(packet[at : at + prefix], "big"), at + prefix
        if 1 <= packet[at] & 31 <= 5:
            return packet[at] & 31 == 5
        at += size
    return False
