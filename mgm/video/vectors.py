"""Write the track of a video; read and summarise all its motion vectors."""

import re
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mgm.errors import UserError
from mgm.results.atomic import atomic_write
from mgm.video.container import DecodedFrame, VideoReader, open_video, transcode
from mgm.video.decode import is_interlaced, probe_video
from mgm.video.track import SUFFIX, Track, TrackWriter, pack_cells
from mgm.video.videos import Video

WINDOW, STRIDE = 16, 4  # the paper's clips
INTERLACED = (
    "interlaced: vertical vectors may be half or twice the motion; deinterlace first (ffmpeg -vf "
    "bwdif)"
)
CROPPED = "its container crops it, which mgm does not read, and players do; transcode it first"
# The box of MP4 that crops, and the elements of Matroska, which stand before its first cluster.
CLAP = re.compile(rb"\0\0\0\x28clap(.{16})", re.DOTALL)
PIXEL_CROP = re.compile(rb"\x54[\xaa\xbb\xcc\xdd](?:\x81[^\0]|\x82(?!\0\0))")
CLUSTER = b"\x1f\x43\xb6\x75"


def record(video: VideoReader, writer: TrackWriter) -> Iterator[DecodedFrame]:
    """Yield a video's pictures, and add them to a track.

    Raises:
        UserError: their size changes.
    """
    size = None
    for picture in video.pictures(motion=video.has_vectors):
        if size not in (None, picture.size):
            now, before = (f"{height} x {width}" for height, width in (picture.size, size))
            raise UserError(
                f"{video.path}: frame {picture.index} has {now} pixels, earlier frames {before}; "
                f"transcode it: {transcode(video.path)}"
            )
        size = picture.size
        packed = b"" if picture.vectors is None else pack_cells(*picture.cells())
        writer.add(picture.index, picture.kind, picture.is_reference, packed)
        yield picture


def write_track(
    path: str | Path, file: BinaryIO, frames: int | None = None, source: str = ""
) -> None:
    """Write the track of a video's own vectors, in one decoding pass without converting pixels.

    Args:
        frames: the number of its frames, which must all decode. None: those that decode.
        source: SHA-256 of the file that it is a copy of.

    Raises:
        UserError: the video cannot be read, its frames change their size, or fewer decode.
    """
    writer, size = TrackWriter(file), None
    with open_video(path) as video:
        for picture in record(video, writer):
            size = picture.size
        if size is None:
            raise UserError(f"{path}: no frame decodes; replace the file or leave it out")
        found = len(video.timeline.times_T) if video.timeline else len(writer.rows)
        decoded = sum(kind != "" for _, _, kind in writer.rows)
        if frames is not None and not decoded == found == frames:
            raise UserError(f"{path}: {decoded:,} of {frames:,} frames decode; replace the file")
        moves = len(writer.rows) == 1 or any(kind != "I" for _, _, kind in writer.rows)
        moves = moves and video.has_vectors
        facts = {"codec": video.codec, "vectors": moves, "source": source}
        writer.finish(video, found, size, method="codec", **facts)


def read_track(path: str | Path) -> Track:
    """Return the track of a video, which is decoded once, or a track that `mgm prepare` wrote.

    Args:
        path: a video, or a file that ends in .track.

    Raises:
        UserError: the file cannot be read, or the video's frames change their size.
    """
    if str(path).endswith(SUFFIX):
        return Track(path)
    file = BytesIO()
    write_track(path, file)
    return Track(path, file.getvalue())


def write_vectors(path: str | Path, out: Path) -> str:
    """Write the motion of a video's frames to an npz file, and return a line about it.

    The file has kinds_T of all frames, and of the N frames with motion information index_N,
    motion_NHW2 and distance_NHW; and height and width in pixels.

    Raises:
        NoMotion: the codec has none.
        UserError: the file cannot be read, or `out` has another format.
    """
    if out.suffix != ".npz":
        raise UserError(f"{out}: write motion vectors to a file that ends in .npz")
    track = read_track(path)
    index_N = np.flatnonzero(track.has_mv_T)
    motion = track[index_N]
    with atomic_write(out) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            kinds_T=track.kinds_T,
            index_N=index_N,
            motion_NHW2=motion.vectors_THW2,
            distance_NHW=motion.distance_THW,
            height=track.facts.height,
            width=track.facts.width,
        )
    return f"wrote {out}: {len(index_N)} of {len(track)} frames have vectors"


@dataclass(frozen=True)
class Inspection:
    """Properties of a file that was decoded to its end, and of its motion.

    Args:
        info: the result of `probe_video`.
        pictures: number of decoded pictures of each type ("I", "P", "B").
        has_mv: share of frames with motion information.
        coverage: share of cells with a nonzero vector, mean over those frames.
        concentration: share of the motion in the fastest tenth of the cells, mean over the frames
            with motion. 0.1 means that motion is spread evenly, as in a pan. 1 means that all
            motion is in a tenth of the cells. It replaces the paper's saliency score, which needs
            annotated boxes (section 1: motion inside boxes over motion outside).
        speed: mean speed of the moving cells, in pixels per frame.
        windows: number of places for a clip of 16 frames, 4 frames apart, or less in a shorter
            video. A video of fewer frames has none.
        blind: number of windows of which no frame has motion information.
        interlaced: whether the first picture has fields (`is_interlaced`).
    """

    path: str
    info: Video
    pictures: dict[str, int]
    has_mv: float
    coverage: float
    concentration: float
    speed: float
    windows: int
    blind: int
    interlaced: bool

    def describe(self) -> str:
        """Return a few lines of text."""
        info = self.info
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.pictures.items()))
        lines = [
            self.path,
            f"  video     {info.codec}, {info.width} x {info.height}, {info.frames} frames, "
            f"{info.fps:.4g} per second, {info.duration_s:.1f} s",
            f"  pictures  {kinds}",
        ]
        if info.has_vectors:
            lines += [
                f"  vectors   on {self.has_mv:.0%} of frames; nonzero in {self.coverage:.0%} "
                "of their cells",
                f"  motion    {self.speed:.1f} pixels per frame where it moves; "
                f"{self.concentration:.0%} of it in a tenth of the cells",
            ]
            if self.interlaced:
                lines.append(f"  warning   {INTERLACED}")
        else:
            lines.append(
                f"  vectors   none ({info.kind}); transcode to H.264, or use a mask without motion "
                "guidance"
            )
        if is_cropped(info):
            lines.append(f"  warning   {CROPPED}")
        return "\n".join(lines)


def is_cropped(video: Video) -> bool:
    """Return whether a file's container crops its pictures. PyAV does not read this."""
    with open(video.path, "rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        if box := CLAP.search(data):
            wide, of_wide, high, of_high = struct.unpack(">4I", box[1])
            sides = {video.width, video.height}
            return sides != {wide / max(of_wide, 1), high / max(of_high, 1)}
        return bool(PIXEL_CROP.search(data, 0, max(data.find(CLUSTER), 0)))


def inspect_video(path: str | Path) -> Inspection:
    """Decode a whole file and measure its motion vectors."""
    return inspect_track(probe_video(path), read_track(path))


def inspect_track(info: Video, track: Track) -> Inspection:
    """Measure the motion vectors of a video's track."""
    kinds, has_mv = Counter(track.kinds_T), int(track.has_mv_T.sum())
    coverage = concentration = speed = 0.0
    if has_mv:
        speed_NL = track[np.flatnonzero(track.has_mv_T)].speed.reshape(has_mv, -1)
        total_N, tenth = speed_NL.sum(1), max(speed_NL.shape[1] // 10, 1)
        top_N, moves_N = np.sort(speed_NL, 1)[:, -tenth:].sum(1), total_N > 0
        coverage = float((speed_NL > 0).mean())
        if moves_N.any():
            concentration = float((top_N[moves_N] / total_N[moves_N]).mean())
            speed = float(speed_NL[speed_NL > 0].mean())
    share = has_mv / kinds.total()
    last = WINDOW - 1
    stride = min(max((len(track) - 1) // last, 1), STRIDE)
    windows = max(len(track) - last * stride, 0)
    of_window_NW = [track.has_mv_T[stride * n : stride * n + windows] for n in range(WINDOW)]
    blind = windows - int(np.any(of_window_NW, 0).sum()) if windows else 0
    of_motion = share, coverage, concentration, speed, windows, blind
    return Inspection(info.path, info, dict(kinds), *of_motion, is_interlaced(info.path))
