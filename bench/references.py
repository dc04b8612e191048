"""How far vectors reach: pans of known speed, and real videos before and after the fit.

    python bench/references.py [VIDEOS ...] [--frames 60]

"Nearest" takes each vector's reference to be the nearest I- or P-frame, "fit" is what `mgm` does.
Of pans of fine noise it prints the mean speed of all cells; of videos, how many of the cells that
move have another distance, how far the centre of MGM's box moves by it, in patches of a grid of 14,
and what is left of the change between frames: the mean size of the residual over that of the
difference from the frame before. Times are of one CPU thread, in milliseconds per frame.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from io import BytesIO
from itertools import islice, product
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from mgm.masking import Grid, make_boxes
from mgm.video.compensation import luma
from mgm.video.decode import Source
from mgm.video.motion import Motion
from mgm.video.references import NO_REFERENCES
from mgm.video.track import Track, TrackWriter

SPEEDS, REFERENCES = (1.25, 2.37, 3.5), (1, 3, 16)
STRUCTURES = {
    "no B-frames": {"bf": "0"},
    "B-frames": {"bf": "3", "b-pyramid": "none"},
    "B-pyramid": {"bf": "3", "b-pyramid": "normal", "b-adapt": "0"},
}


def pan(speed: float, frames: int = 24, height: int = 192, width: int = 256) -> Iterator[Any]:
    """Yield frames (H, W) of fine noise that moves right by `speed` pixels per frame."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (height, width + int(speed * frames) + 8)).astype(np.uint8)
    noise = cv2.GaussianBlur(noise, (0, 0), 0.7)
    for t in range(frames, 0, -1):
        shift = np.array([[1, 0, -speed * t], [0, 1, 0]], np.float32)
        yield cv2.warpAffine(noise, shift, (width, height), flags=cv2.INTER_CUBIC)


def encode(path: Path, frames: Iterator[np.ndarray], options: dict[str, str]) -> None:
    """Write grey frames by x264, with its defaults but for `options`."""
    pictures = [av.VideoFrame.from_ndarray(frame_HW, format="gray") for frame_HW in frames]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"crf": "18", **options})
        stream.height, stream.width = pictures[0].height, pictures[0].width
        stream.pix_fmt, stream.codec_context.thread_count = "yuv420p", 1
        for picture in pictures:
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def tracks(path: Path, most: int) -> tuple[list[Track], np.ndarray, list[float]]:
    """Return the tracks of a video, nearest and fit, the residual's share, and times per frame.

    Times are those of decoding, of cells by the nearest and by fit, and of the residual.
    """
    writers, shares, spent = (TrackWriter(), TrackWriter()), list[float](), [0.0] * 4
    source, before_HW, start = Source(path), None, time.process_time()
    for picture in islice(source, most):
        spent[2] += time.process_time() - start
        for n, (writer, found) in enumerate(zip(writers, (NO_REFERENCES, picture.references))):
            start, picture.references = time.process_time(), found
            cells = picture.cells()
            spent[n] += time.process_time() - start
            writer.add(picture.kind, *cells)
        own_HW, start = luma(picture.frame), time.process_time()
        left_HW, _ = picture.residual()
        spent[3] += time.process_time() - start
        if before_HW is not None and picture.vectors is not None:
            change = np.abs(own_HW.astype(int) - before_HW).mean()
            shares.append(np.abs(left_HW).mean() / max(change, 1e-9))
        before_HW, start = own_HW.astype(int), time.process_time()
    out = []
    for writer in writers:
        writer.write(file := BytesIO(), source.facts("source"), {"time": source.times})
        out.append(Track(path, file.getvalue()))
    nearest, fit, decode, residual = (1e3 * one / len(source.kinds) for one in spent)
    return out, np.array(shares), [decode, nearest, fit, residual]


def box_distance(motions: list[Motion]) -> float:
    """Return how far apart the centres of MGM's boxes are, in patches: the mean over slots."""
    slots = len(motions[0]) // 2
    centres = []
    for motion in motions:
        magnitude_1SHW = motion[: 2 * slots].magnitude(2)[None]
        boxes = make_boxes("mgm", Grid(slots, 14, 14), magnitude_1SHW, np.zeros(1, np.int64))
        assert boxes
        centres.append(np.stack([boxes.x_BS, boxes.y_BS]))
    return float(np.hypot(*(centres[0] - centres[1])).mean())


def pans() -> None:
    """Print the mean speed of pans, which are made."""
    print("| Speed | References | Structure | Nearest | Fit |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pan.mp4")
        for speed, count, (name, options) in product(SPEEDS, REFERENCES, STRUCTURES.items()):
            encode(path, pan(speed), {"refs": str(count), **options})
            means = []
            for track in tracks(path, 24)[0]:
                inner = track[6:18].velocity_THW2[track.has_mv_T[6:18]][:, 2:-2, 5:-5, 0]
                means.append(f"{inner.mean():.2f}")
            print(f"| {speed} | {count} | {name} | {' | '.join(means)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("videos", nargs="*", type=Path)
    parser.add_argument("--no-pans", action="store_true")
    parser.add_argument("--frames", type=int, default=60)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    if not given.no_pans:
        pans()
    names = ["Video", "Moving cells", "Other distance", "Speed, nearest / fit", "Box", "Residual"]
    names += ["Decode, ms", "Nearest", "Fit", "Residual, ms"]
    if given.videos:
        print(f"\n| {' | '.join(names)} |\n{'|---' * len(names)}|")
    for video in given.videos:
        (old, new), shares, spent = tracks(video, given.frames)
        motions = [old[:], new[:]]
        moves_THW = np.hypot(*np.moveaxis(motions[0].vectors_THW2, -1, 0)) > 1
        other = (motions[0].distance_THW != motions[1].distance_THW)[moves_THW].mean()
        near, fit = [float(motion.speed_THW[moves_THW].mean()) for motion in motions]
        row = [video.name, f"{moves_THW.mean():.0%}", f"{other:.1%}", f"{near / fit:.2f}"]
        row += [f"{box_distance(motions):.1f}", f"{np.median(shares):.2f}"]
        row += [f"{one:.1f}" for one in spent]
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
