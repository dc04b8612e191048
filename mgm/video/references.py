"""Find the pictures that motion vectors refer to. FFmpeg exports only the side: past or future.

Packets of H.264 tell in which order pictures are decoded, which of them others refer to, and how
many a picture chooses from. If it is one, it is the nearest. Otherwise `mgm.video.compensation`
chooses. Codecs other than H.264 refer to the nearest I- and P-pictures.
"""

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import av
from av.video.frame import PictureType

from mgm.video.track import B_PICTURES

UNKNOWN = 4  # pictures that one chooses from, if its head cannot be read
MOST = 16  # references that H.264 allows
# References whose pixels are kept beyond those that a picture chooses from. Encoders may drop
# others first, and pictures are decoded in another order than they are shown.
MORE = 2
KEPT = 4
REORDERED = 16  # most pictures that come earlier in a file than one that is shown before them
HEAD = 64  # bytes of a NAL unit that are read
SLICES, SPS, PPS = (1, 5), 7, 8
# Profiles whose SPS has fields about chroma.
HIGH = (44, 83, 86, 100, 110, 118, 122, 128, 244)


class References(NamedTuple):
    """The pictures that a picture may refer to, nearest first: (reach, frame).

    A reach of 0 is the nearest I- or P-picture of the past, and 1 that of the future. Any other
    is the distance in frames, plus one.
    """

    past: list[tuple[int, av.VideoFrame]]
    future: list[tuple[int, av.VideoFrame]]


NO_REFERENCES = References([], [])


class Known(NamedTuple):
    """What a packet tells of its picture.

    Args:
        place: in the order of decoding.
        referred: whether later pictures may refer to it.
        past, future: how many pictures its blocks choose from.
        earlier: places of the last references before it.
    """

    place: int
    referred: bool
    past: int
    future: int
    earlier: tuple[int, ...]


class Shown(NamedTuple):
    """A decoded picture.

    Args:
        number: in the order of showing.
        anchor: whether it is an I- or P-picture.
        known: what its packet tells. None: nothing.
    """

    number: int
    anchor: bool
    frame: av.VideoFrame
    known: Known | None


class Bits:
    """Reads the fields of a NAL unit's head."""

    def __init__(self, data: bytes):
        data = data.replace(b"\0\0\3", b"\0\0")
        self.text, self.at = f"{int.from_bytes(data):0{8 * len(data)}b}", 0

    def number(self, bits: int) -> int:
        self.at += bits
        return int(self.text[self.at - bits : self.at], 2)

    def golomb(self) -> int:
        zeros = self.text.index("1", self.at) - self.at
        self.at += zeros
        return self.number(zeros + 1) - 1


class Order:
    """The order of a stream's pictures, from packets as they are decoded."""

    def __init__(self, context: Any):
        self.h264, extra = context.name == "h264", context.extradata or b""
        self.sps, self.pps = dict[int, tuple[int, int, int]](), dict[int, tuple[int, ...]]()
        self.known, self.place = dict[int | None, Known](), 0
        self.earlier = deque[int](maxlen=MOST + MORE)
        # MP4 and Matroska: each NAL unit follows its length, of so many bytes.
        self.length = (extra[4] & 3) + 1 if extra[:1] == b"\1" and len(extra) > 6 else 0
        if self.h264:
            for unit in _listed(extra) if self.length else self._units(extra):
                self._set(unit)

    def add(self, packet: av.Packet) -> None:
        """Take the next packet."""
        if not self.h264 or packet.pts is None:
            return
        for unit in self._units(bytes(packet)):
            self._set(unit)
            if unit[0] & 31 in SLICES:
                if unit[0] & 31 == 5:  # pictures after it refer to none before
                    self.earlier.clear()
                referred = bool(unit[0] & 0x60)
                past, future = self._counts(unit)
                earlier = tuple(self.earlier)[-(past + future + MORE) :]
                self.known[packet.pts] = Known(self.place, referred, past, future, earlier)
                if referred:
                    self.earlier.append(self.place)
                break
        self.place += 1

    def _units(self, data: bytes) -> Iterator[bytes]:
        """Yield the heads of NAL units."""
        at = 0
        while self.length and at + self.length < len(data):
            start = at + self.length
            yield data[start : start + HEAD]
            at = start + int.from_bytes(data[at:start])
        while not self.length and (at := data.find(b"\0\0\1", at) + 3) > 2 and at < len(data):
            yield data[at : at + HEAD]

    def _set(self, unit: bytes) -> None:
        """Keep what slices refer to. What is not known is left out."""
        bits = Bits(unit[1:])
        try:
            if unit[0] & 31 == SPS:
                profile, _, name = bits.number(8), bits.number(16), bits.golomb()
                if profile in HIGH:
                    planes = bits.golomb() == 3 and bits.number(1)
                    bits.golomb(), bits.golomb(), bits.number(1)
                    if planes or bits.number(1):  # scaling lists
                        return
                number, how = bits.golomb() + 4, bits.golomb()
                order = bits.golomb() + 4 if how == 0 else 0
                bits.golomb(), bits.number(1), bits.golomb(), bits.golomb()
                if how != 1:
                    self.sps[name] = number, order, 1 - bits.number(1)
            elif unit[0] & 31 == PPS:
                name, sps, _, pair = bits.golomb(), bits.golomb(), bits.number(1), bits.number(1)
                if not bits.golomb():  # groups of slices
                    self.pps[name] = sps, pair, bits.golomb() + 1, bits.golomb() + 1
        except ValueError:
            return

    def _counts(self, unit: bytes) -> tuple[int, int]:
        """Return how many past and future pictures a slice's blocks choose from."""
        bits = Bits(unit[1:])
        try:
            _, kind = bits.golomb(), bits.golomb() % 5
            sps, pair, past, future = self.pps[bits.golomb()]
            number, order, fields = self.sps[sps]
            bits.number(number)
            if fields and bits.number(1):
                return 1, 1
            if unit[0] & 31 == 5:
                bits.golomb()
            if order:
                bits.number(order)
                if pair:
                    bits.golomb()
            if kind == 1:
                bits.number(1)
            if kind < 2 and bits.number(1):
                past = bits.golomb() + 1
                future = bits.golomb() + 1 if kind == 1 else 0
            return past, future if kind == 1 else 0
        except (KeyError, ValueError):
            return UNKNOWN, UNKNOWN


def _listed(extra: bytes) -> Iterator[bytes]:
    """Yield the parameter sets that the head of an MP4 or Matroska file lists."""
    at = 5
    for mask in (31, 255):
        count, at = extra[at : at + 1] or b"\0", at + 1
        for _ in range(count[0] & mask):
            size = int.from_bytes(extra[at : at + 2])
            if size:
                yield extra[at + 2 : at + 2 + size]
            at += 2 + size


class Window:
    """Pictures in the order of showing, each until those that it may refer to are decoded."""

    def __init__(self) -> None:
        self.waiting = deque[Shown]()
        self.shown = dict[int, Shown]()  # references, by place
        self.last: Shown | None = None  # the last I- or P-picture

    def add(self, picture: Shown) -> None:
        self.waiting.append(picture)
        if (known := picture.known) and known.referred:
            self.shown[known.place] = picture
            while len(self.shown) > len(known.earlier) + KEPT:
                del self.shown[next(iter(self.shown))]

    @property
    def ready(self) -> bool:
        """Return whether the first picture need not wait any longer."""
        if not self.waiting or len(self.waiting) > REORDERED:
            return bool(self.waiting)
        first = self.waiting[0]
        if first.known:
            return self.shown.keys() >= {*first.known.earlier}
        return first.anchor or self._next() is not None

    def _next(self) -> Shown | None:
        """Return the first I- or P-picture after the first that waits."""
        return next((one for one in islice(self.waiting, 1, None) if one.anchor), None)

    def take(self) -> tuple[av.VideoFrame, References]:
        """Return the first picture, and those that it may refer to."""
        later, own = self._next(), self.waiting.popleft()
        known, anchors, counts = own.known, (self.last, later), (1, 1)
        found = [one for one in anchors if one]
        if known:
            found = [self.shown[place] for place in known.earlier if place in self.shown]
            counts = (1, 1) if own.frame.interlaced_frame else (known.past, known.future)
        sides = list[list[tuple[int, av.VideoFrame]]]()
        for future, (anchor, count) in enumerate(zip(anchors, counts)):
            sign = 1 if future else -1
            far = sorted((sign * (one.number - own.number), one) for one in found)
            near = [(far, one) for far, one in far if 0 < far < 255][:count]
            sides.append([(future if one is anchor else far + 1, one.frame) for far, one in near])
        if own.anchor:
            self.last = own
        return own.frame, References(*sides)


def referring(
    frames: Iterator[av.VideoFrame], order: Order | None
) -> Iterator[tuple[av.VideoFrame, References]]:
    """Yield frames, each with those that it may refer to. Without an order, it has none."""
    if not order:
        yield from ((frame, NO_REFERENCES) for frame in frames)
        return
    window = Window()
    for number, frame in enumerate(frames):
        anchor = PictureType(frame.pict_type).name not in B_PICTURES
        window.add(Shown(number, anchor, frame, order.known.pop(frame.pts, None)))
        while window.ready:
            yield window.take()
    while window.waiting:
        yield window.take()
