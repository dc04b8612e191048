"""Read, write and summarise all motion vectors of a video file. `read.py` reads those of clips."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mgm.errors import UserError
from mgm.results.atomic import atomic_write
from mgm.video.container import open_video, transcode
from mgm.video.decode import is_interlaced, probe_video
from mgm.video.motion import cell_distance, reference_distance
from mgm.video.pack import is_pack, open_pack
from mgm.video.videos import Video

INTERLACED = (
    "interlaced: vertical vectors may be half or twice the motion; deinterlace first (ffmpeg -vf "
    "bwdif)"
)


@dataclass(frozen=True)
class Vectors:
    """The motion information of a whole file: T pictures, N with motion information.

    Args:
        kinds_T: picture types ("I", "P", "B"), in presentation order.
        index_N: indices of the frames with motion information.
        motion_NHW2, distance_NHW: of these frames, as in `Clip`.
        height, width: of the frame as shown, in pixels; 0 if no frame decodes.
    """

    kinds_T: tuple[str, ...]
    index_N: np.ndarray
    motion_NHW2: np.ndarray
    distance_NHW: np.ndarray
    height: int
    width: int

    @property
    def speed(self) -> np.ndarray:
        """Return magnitude / estimated reference distance: (N, H, W) float32, pixels per frame."""
        return np.hypot(self.motion_NHW2[..., 0], self.motion_NHW2[..., 1]) / self.distance_NHW


def read_vectors(path: str | Path) -> Vectors:
    """Read all motion vectors of a file in one decoding pass, without converting pixels.

    Returns:
        `Vectors`, with N = 0 for a codec without vectors.

    Raises:
        UserError: the file cannot be read, or its frames change their size.
    """
    if is_pack(path):
        with open_pack(path) as pack:
            motion = pack.motion(pack.rows, [packed for _, packed in pack.frames(pack.rows)])
        kinds_T = tuple(kind.decode() for kind in pack.rows["kind"].tolist())
        index_N, motion = np.flatnonzero(motion.informed_T), motion[motion.informed_T]
        return Vectors(kinds_T, index_N, motion.vectors_THW2, motion.distance_THW, *pack.size)
    kinds, references, indices = list[str](), list[int](), list[int]()
    cells = list[tuple[np.ndarray, np.ndarray]]()
    height, width = 0, 0
    with open_video(path) as video:
        for picture in video.pictures(motion=video.has_vectors):
            if kinds and picture.size != (height, width):
                raise UserError(
                    f"{path}: frame {picture.index} has {picture.size[0]} x {picture.size[1]} "
                    f"pixels, earlier frames {height} x {width}; transcode it: {transcode(path)}"
                )
            height, width = picture.size
            kinds.append(picture.kind)
            if picture.is_reference:
                references.append(picture.index)
            if picture.vectors is not None:
                indices.append(picture.index)
                cells.append(picture.cells())
    if not indices:
        none_HW = np.empty((0, 0, 0), np.float32)
        none_HW2 = np.empty((0, 0, 0, 2), np.float32)
        return Vectors(tuple(kinds), np.empty(0, int), none_HW2, none_HW, height, width)
    motion_NHW2, future_NHW = map(np.stack, zip(*cells))
    distances = reference_distance(np.array(indices), np.array(references))
    distance_NHW = cell_distance(future_NHW, *distances)
    return Vectors(tuple(kinds), np.array(indices), motion_NHW2, distance_NHW, height, width)


def write_vectors(path: str | Path, out: Path) -> str:
    """Write the arrays of `Vectors` to an npz file, and return a line about it.

    Raises:
        NoVectors: the codec has none.
        UserError: the file cannot be read, or `out` has another format.
    """
    if out.suffix != ".npz":
        raise UserError(f"{out}: write motion vectors to a file that ends in .npz")
    vectors = read_vectors(path)
    if not len(vectors.index_N):
        # Raise the error about the codec, if there is no frame for that reason.
        with open_video(path) as video:
            next(video.pictures(), None)
    with atomic_write(out) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **vars(vectors))
    return f"wrote {out}: {len(vectors.index_N)} of {len(vectors.kinds_T)} frames have vectors"


@dataclass(frozen=True)
class Inspection:
    """Properties of a file that was decoded to its end, and of its motion.

    Args:
        info: the result of `probe_video`.
        pictures: number of decoded pictures of each type ("I", "P", "B").
        informed: share of frames with motion information.
        coverage: share of cells with a nonzero vector, mean over those frames.
        concentration: share of the motion in the fastest tenth of the cells, mean over the frames
            with motion. 0.1 means that motion is spread evenly, as in a pan. 1 means that all
            motion is in a tenth of the cells. It replaces the paper's saliency score, which needs
            annotated boxes (section 1: motion inside boxes over motion outside).
        speed: mean speed of the moving cells, in pixels per frame.
        interlaced: whether the first picture has fields (`is_interlaced`).
    """

    path: str
    info: Video
    pictures: dict[str, int]
    informed: float
    coverage: float
    concentration: float
    speed: float
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
                f"  vectors   on {self.informed:.0%} of frames; nonzero in {self.coverage:.0%} "
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
        return "\n".join(lines)


def inspect_video(path: str | Path) -> Inspection:
    """Decode a whole file and measure its motion vectors."""
    info, vectors = probe_video(path), read_vectors(path)
    kinds, informed = Counter(vectors.kinds_T), len(vectors.index_N)
    if not kinds:
        raise UserError(f"{path}: no frame decodes; replace the file or leave it out")
    coverage = concentration = speed = 0.0
    if informed:
        speed_NL = vectors.speed.reshape(informed, -1)
        total_N, tenth = speed_NL.sum(1), max(speed_NL.shape[1] // 10, 1)
        top_N, moves_N = np.sort(speed_NL, 1)[:, -tenth:].sum(1), total_N > 0
        coverage = float((speed_NL > 0).mean())
        if moves_N.any():
            concentration = float((top_N[moves_N] / total_N[moves_N]).mean())
            speed = float(speed_NL[speed_NL > 0].mean())
    share = informed / kinds.total()
    of_motion = share, coverage, concentration, speed
    return Inspection(str(path), info, dict(kinds), *of_motion, is_interlaced(path))
