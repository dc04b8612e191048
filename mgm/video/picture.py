"""Draw motion vectors on frames, and write PNG and GIF files, with NumPy and PyAV alone."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.filter import Graph

from mgm.results.atomic import atomic_write
from mgm.video.decode import probe_video
from mgm.video.motion import CELL
from mgm.video.read import read_clip

STEP = 2  # cells per arrow, along each side
ARROW, SHADOW = (255, 176, 0), (40, 20, 0)
BOX = 200, 30, 60
SHORTEST = 0.25  # pixels per frame: shorter vectors have no arrow
LONGEST = 3 * STEP * CELL  # pixels: longer arrows are cut
FRAMES = 16  # in a picture
COLUMNS = 4
GAP = 4  # pixels between frames


def show_vectors(video: Path, out: Path, start: int | None = None) -> None:
    """Draw consecutive frames with their motion vectors.

    Args:
        video: a file with motion vectors.
        out: a GIF file, at the video's rate, if its name ends in .gif. Otherwise a PNG file, with
            the frames side by side.
        start: the first frame. Default: the frames in the video's middle.

    Raises:
        UserError: the video cannot be read, has no motion vectors, or ends before `start`.
    """
    info = probe_video(video)
    if start is None:
        start = max(info.frames - FRAMES, 0) // 2
    clip = read_clip(video, range(start, max(min(start + FRAMES, info.frames), start + 1)))
    speed_THW2 = clip.motion_THW2 / clip.distance_THW[..., None]
    drawn = [with_arrows(*pair) for pair in zip(clip.frames_THWC, speed_THW2)]
    if out.suffix == ".gif":
        write_gif(out, drawn, info.fps)
    else:
        write_png(out, side_by_side(drawn, COLUMNS))


def with_arrows(frame_HWC: np.ndarray, speed_HW2: np.ndarray, scale: float = 4) -> np.ndarray:
    """Return a frame with an arrow per 2 x 2 cells, along their mean velocity.

    Args:
        frame_HWC: uint8 RGB.
        speed_HW2: (dx, dy) in pixels per frame, per cell of 8 x 8 pixels.
        scale: an arrow is so many times longer than the motion per frame.
    """
    drawn_HWC = frame_HWC.copy()
    rows, columns = (side // STEP for side in speed_HW2.shape[:2])
    blocks = speed_HW2[: rows * STEP, : columns * STEP].reshape(rows, STEP, columns, STEP, 2)
    for (row, column), (dx, dy) in zip(
        np.ndindex(rows, columns), blocks.mean((1, 3)).reshape(-1, 2)
    ):
        speed = float(np.hypot(dx, dy))
        if speed < SHORTEST:
            continue
        length = min(scale * speed, LONGEST)
        unit = np.array([dx, dy]) / speed
        side = np.array([-unit[1], unit[0]])
        tail = (np.array([column, row]) + 0.5) * STEP * CELL - unit * length / 2
        tip = tail + unit * length
        barb = min(4.0, length / 2)
        ends = tail, tip - barb * (unit + 0.6 * side), tip - barb * (unit - 0.6 * side)
        for shift, colour in ((1, SHADOW), (0, ARROW)):
            for begin in ends:
                _line(drawn_HWC, begin + shift, tip + shift, colour)
    return drawn_HWC


def draw_box(frame_HWC: np.ndarray, x: float, y: float, width: float, height: float) -> None:
    """Draw a rectangle, given its centre and sides in pixels."""
    left, right, top, bottom = x - width / 2, x + width / 2, y - height / 2, y + height / 2
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    for inset in (0, 1):
        for begin, end in zip(corners, [*corners[1:], corners[0]]):
            _line(frame_HWC, np.array(begin) + inset, np.array(end) + inset, BOX)


def _line(
    frame_HWC: np.ndarray, begin: np.ndarray, end: np.ndarray, colour: tuple[int, int, int]
) -> None:
    steps = int(np.ceil(np.abs(end - begin).max())) + 1
    x_N, y_N = np.linspace(begin, end, steps).round().astype(int).T
    height, width, _ = frame_HWC.shape
    inside_N = (x_N >= 0) & (x_N < width) & (y_N >= 0) & (y_N < height)
    frame_HWC[y_N[inside_N], x_N[inside_N]] = colour


def side_by_side(frames: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Return a picture of frames in rows, with a white gap between them."""
    height, width, _ = frames[0].shape
    columns = min(columns, len(frames))
    rows = -(-len(frames) // columns)
    shape = rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3
    picture_HWC = np.full(shape, 255, np.uint8)
    for at, frame_HWC in enumerate(frames):
        top, left = (height + GAP) * (at // columns), (width + GAP) * (at % columns)
        picture_HWC[top : top + height, left : left + width] = frame_HWC
    return picture_HWC


def write_png(path: Path, picture_HWC: np.ndarray) -> None:
    """Write a PNG file."""
    codec = av.CodecContext.create("png", "w")
    codec.height, codec.width, codec.pix_fmt = *picture_HWC.shape[:2], "rgb24"
    codec.time_base = Fraction(1, 1)
    packets = codec.encode(av.VideoFrame.from_ndarray(picture_HWC, "rgb24")) + codec.encode(None)
    with atomic_write(path) as temporary:
        temporary.write_bytes(b"".join(map(bytes, packets)))


def write_gif(path: Path, frames: Sequence[np.ndarray], fps: float) -> None:
    """Write a GIF file that repeats without end, with the 256 colours that fit its frames best.

    Args:
        fps: frames per second. GIF stores durations in 1 / 100 s.
    """
    height, width, _ = frames[0].shape
    graph = Graph()
    source = graph.add_buffer(
        width=width, height=height, format=av.VideoFormat("rgb24"), time_base=Fraction(1, 100)
    )
    split, palette = graph.add("split"), graph.add("palettegen", "stats_mode=diff")
    coloured = graph.add("paletteuse", "dither=none:diff_mode=rectangle")
    sink = graph.add("buffersink")
    source.link_to(split)
    split.link_to(coloured, 0, 0)
    split.link_to(palette, 1, 0)
    palette.link_to(coloured, 0, 1)
    coloured.link_to(sink)
    graph.configure()
    for at, frame_HWC in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(frame_HWC, "rgb24")
        frame.pts, frame.time_base = round(100 * at / fps), Fraction(1, 100)
        source.push(frame)
    source.push(None)
    with atomic_write(path) as temporary, av.open(str(temporary), "w", format="gif") as container:
        stream = container.add_stream("gif", rate=100)
        stream.height, stream.width, stream.pix_fmt = height, width, "pal8"
        stream.codec_context.time_base = Fraction(1, 100)
        for _ in frames:
            coloured_frame = sink.pull()
            assert isinstance(coloured_frame, av.VideoFrame)
            container.mux(stream.encode(coloured_frame))
        container.mux(stream.encode(None))
