"""Find the pictures that motion vectors refer to. FFmpeg exports only the side: past or future.

Packets of H.264 tell in which order pictures are decoded, which of them others refer to, and how
many a picture chooses from. If it is one, it is the nearest. Otherwise a block that moves by more
than a pixel refers to the one that fits its pixels best (`reach`). Codecs other than H.264 refer to
the nearest I- and P-pictures.
"""

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.frame import PictureType

from mgm.video.motion import CELL, UPRIGHT, cells, rasterise
from mgm.video.track import B_PICTURES

UNKNOWN = 4  # pictures that one chooses from, if its head cannot be read
MOST = 16  # references that H.264 allows
# References whose pixels are kept beyond those that a picture chooses from. Encoders may drop
# others first, and pictures are decoded in another order than they are shown.
MORE = 2
KEPT = 4
REORDERED = 16  # most pictures that come earlier in a file than one that is shown before them
# Pixels that are compared, from a block's centre, in eighths of its side.
PLACES = np.array([-3, -1, 1, 3])
BETTER = 0.9  # of the error at the nearest reference, below which another one is chosen
HEAD = 64  # bytes of a NAL unit that are read
SLICES, SPS, PPS = (1, 5), 7, 8
SIX = np.array([1, -5, 20, 20, -5, 1]) / 32  # H.264's filter of half pixels
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
    """

    number: int
    anchor: bool
    frame: av.VideoFrame


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
        self.waiting = deque[tuple[Shown, Known | None]]()
        self.shown = dict[int, Shown]()  # references, by place
        self.last: Shown | None = None  # the last I- or P-picture

    def add(self, picture: Shown, known: Known | None) -> None:
        self.waiting.append((picture, known))
        if known and known.referred:
            self.shown[known.place] = picture
            while len(self.shown) > len(known.earlier) + KEPT:
                del self.shown[next(iter(self.shown))]

    @property
    def ready(self) -> bool:
        """Return whether the first picture need not wait any longer."""
        if not self.waiting or len(self.waiting) > REORDERED:
            return bool(self.waiting)
        picture, known = self.waiting[0]
        if known:
            return all(place in self.shown for place in known.earlier)
        return picture.anchor or self._next() is not None

    def _next(self) -> Shown | None:
        """Return the first I- or P-picture after the first that waits."""
        return next((one for one, _ in islice(self.waiting, 1, None) if one.anchor), None)

    def take(self) -> tuple[av.VideoFrame, References]:
        """Return the first picture, and those that it may refer to."""
        later, (own, known) = self._next(), self.waiting.popleft()
        anchors = self.last, later
        found = [one for one in anchors if one]
        if known:
            found = [self.shown[place] for place in known.earlier if place in self.shown]
        counts = (known.past, known.future) if known and not own.frame.interlaced_frame else (1, 1)
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
        window.add(Shown(number, anchor, frame), order.known.pop(frame.pts, None))
        while window.ready:
            yield window.take()
    while window.waiting:
        yield window.take()


def reach(vectors: np.ndarray, frame: av.VideoFrame, references: References) -> np.ndarray:
    """Return how far each vector of a picture reaches, uint8 (`References`).

    Args:
        vectors: as FFmpeg exports them, in pixels of the picture.
    """
    future_N = vectors["source"] > 0
    reach_N = future_N.astype(np.uint8)
    # Without a choice, all reach to the nearest I- or P-picture.
    if all(far < 2 for side in references for far, _ in side):
        return reach_N
    import cv2

    remap: Any = cv2.remap  # its types lack the None of one map
    luma_HW, scale_N = luma(frame), np.maximum(vectors["motion_scale"], 1)
    motion_N2 = np.empty((len(vectors), 2), np.float32)
    np.divide(vectors["motion_x"], scale_N, out=motion_N2[:, 0], casting="same_kind")
    np.divide(vectors["motion_y"], scale_N, out=motion_N2[:, 1], casting="same_kind")
    moves_N = np.einsum("ni,ni->n", motion_N2, motion_N2) > 1
    for side_N, found in zip((~future_N, future_N), references):
        if found:
            reach_N[side_N] = found[0][0]
        chosen = np.flatnonzero(side_N & moves_N) if len(found) > 1 else ()
        if not len(chosen):
            continue
        part, (height, width) = vectors[chosen], luma_HW.shape
        x_NX = part["dst_x"][:, None] + (part["w"] >> 3)[:, None].astype(np.int32) * PLACES
        y_NY = part["dst_y"][:, None] + (part["h"] >> 3)[:, None].astype(np.int32) * PLACES
        place_NYX2 = np.empty((len(part), len(PLACES), len(PLACES), 2), np.float32)
        place_NYX2[..., 0] = x_NX.clip(0, width - 1)[:, None]
        place_NYX2[..., 1] = y_NY.clip(0, height - 1)[:, :, None]
        place_NP2 = place_NYX2.reshape(len(part), -1, 2)
        own_NP = remap(luma_HW, place_NP2, None, cv2.INTER_NEAREST)
        place_NP2 += motion_N2[chosen, None]
        error_KN = np.empty((len(found), len(part)), np.float32)
        for error_N, (_, other) in zip(error_KN, found):
            how: Any = {"interpolation": cv2.INTER_LINEAR, "borderMode": cv2.BORDER_REPLICATE}
            difference_NP = cv2.absdiff(own_NP, remap(luma(other), place_NP2, None, **how))
            error_N[:] = cv2.reduce(difference_NP, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S)[:, 0]
        error_KN[0] *= BETTER
        reach_N[chosen] = np.array([one for one, _ in found], np.uint8)[error_KN.argmin(0)]
    return reach_N


def residual(
    vectors: np.ndarray, frame: av.VideoFrame, references: References, half: bool
) -> np.ndarray:
    """Return what motion compensation leaves of a picture, (H, W) int16.

    A cell with a past and a future vector has the best of both, and of their mean. Of one without a
    vector, which is intra-coded, it is what differs from the cell's mean.

    Args:
        vectors: see `reach`.
        half: half pixels are those of H.264. Otherwise they are bilinear.
    """
    luma_HW, future_N = luma(frame), vectors["source"] > 0
    reach_N = reach(vectors, frame, references)
    (height, width), own_HW = luma_HW.shape, luma_HW.astype(np.float32)
    made = list[tuple[np.ndarray, np.ndarray]]()
    for side_N, found, sign in zip((~future_N, future_N), references, (-1, 1)):
        place = np.zeros(256, np.uint8)  # of each reach. 0: a cell has no vector of this side
        place[[far for far, _ in found]] = 1 + np.arange(len(found))
        side = vectors[side_N], height, width, UPRIGHT, place[reach_N[side_N]]
        moved_HW2, place_HW = rasterise(*side)
        predicted_HW = np.zeros_like(own_HW)
        for number, (_, other) in enumerate(found, start=1):
            if (here_HW := place_HW == number).any():
                other_HW = _moved(luma(other), sign * moved_HW2, half)
                np.copyto(predicted_HW, other_HW, where=_pixels(here_HW, luma_HW))
        made.append((predicted_HW, place_HW > 0))
    (past_HW, has_past_HW), (future_HW, has_future_HW) = made
    both_HW = has_past_HW & has_future_HW
    mean_HW = np.floor((past_HW + future_HW + 1) / 2)
    left_HW = own_HW - _pixels(np.rint(_means(own_HW)), luma_HW)
    least_HW = np.full(both_HW.shape, np.inf)
    for predicted_HW, has_HW in (*made, (mean_HW, both_HW)):
        if has_HW.any():
            difference_HW = own_HW - predicted_HW
            error_HW = _means(np.abs(difference_HW))
            better_HW = has_HW & (error_HW < least_HW)
            least_HW = np.where(better_HW, error_HW, least_HW)
            np.copyto(left_HW, difference_HW, where=_pixels(better_HW, luma_HW))
    return left_HW.astype(np.int16)


def _pixels(cells_HW: np.ndarray, luma_HW: np.ndarray) -> np.ndarray:
    """Return the cell's value at each pixel of a picture."""
    height, width = luma_HW.shape
    return cells_HW.repeat(CELL, 0).repeat(CELL, 1)[:height, :width]


def _means(pixels_HW: np.ndarray) -> np.ndarray:
    """Return the mean of each cell. The edge is repeated."""
    import cv2

    rows, columns = map(cells, pixels_HW.shape)
    down, across = CELL * rows - pixels_HW.shape[0], CELL * columns - pixels_HW.shape[1]
    whole_HW = cv2.copyMakeBorder(pixels_HW, 0, down, 0, across, cv2.BORDER_REPLICATE)
    return cv2.resize(whole_HW, (columns, rows), interpolation=cv2.INTER_AREA)


def _moved(luma_HW: np.ndarray, source_HW2: np.ndarray, half: bool) -> np.ndarray:
    """Return a picture whose cells are from elsewhere in `luma_HW`, by so many pixels."""
    import cv2

    remap: Any = cv2.remap
    y_HW, x_HW = np.indices(luma_HW.shape, np.float32)
    place_HW2 = _pixels(source_HW2, luma_HW) + np.stack([x_HW, y_HW], 2)
    if half:
        luma_HW, place_HW2 = _doubled(luma_HW), 2 * place_HW2
    return remap(luma_HW, place_HW2, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _doubled(luma_HW: np.ndarray) -> np.ndarray:
    """Return a picture of twice the size, with H.264's half pixels in between."""
    import cv2

    out, one = np.empty((2 * luma_HW.shape[0], 2 * luma_HW.shape[1]), np.uint8), np.ones(1)
    out[::2, ::2] = luma_HW
    for y, x in ((0, 1), (1, 0), (1, 1)):
        kernels, anchor = (SIX if x else one, SIX if y else one), (2 * x, 2 * y)
        out[y::2, x::2] = cv2.sepFilter2D(
            luma_HW, -1, *kernels, anchor=anchor, borderType=cv2.BORDER_REPLICATE
        )
    return out


def luma(frame: av.VideoFrame) -> np.ndarray:
    """Return the luma of a frame, (H, W) uint8, in FFmpeg's own buffer where it has 8 bits."""
    plane, deep = frame.planes[0], frame.format.components[0].bits - 8
    lines: Any = np.frombuffer(memoryview(plane), np.uint16 if deep > 0 else np.uint8)
    lines = lines.reshape(plane.height, -1)[:, : plane.width]
    return (lines >> deep).astype(np.uint8) if deep > 0 else lines
