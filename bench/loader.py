"""Loading: clips a second with motion vectors, against decord without, on one thread.

A clip is 16 frames at stride 4 from a random start, cut by MultiScaleCrop and resized to 224; both open the file anew for each, and take
the same frames, crop and resize. Ours reads the vectors as well and makes the magnitude of each slot.

Without --videos: the clips in ../shared/data if they are there, and always two generated videos like K400's (340 x 256, 300 frames).
"""

import tempfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import av
import common
import decord
import numpy as np
import torch
from common import Row, paired, seconds

from mgm.errors import UserError
from mgm.spec import Clips, Guidance
from mgm.video import Clip, probe_video, slot_magnitude
from mgm.video.cut import Cut, read_cuts
from mgm.video.sample import training_indices
from mgm.video.transform import Box, resize, training_box

CLIPS, TUBELET = Clips(), 2
REAL = common.ROOT.parent / "shared" / "data" / "clips"


@dataclass(frozen=True)
class File:
    """A video as the loader knows it."""

    path: str
    frames: int = 0
    label: int = 0


def cut(path: str, index_T: np.ndarray, seed: int, motion: Guidance | None) -> Clip:
    def place(height: int, width: int) -> tuple[Box, bool]:
        return training_box(CLIPS, height, width, np.random.default_rng(seed)), False

    return read_cuts(File(path), [Cut(index_T, place)], CLIPS.size, motion)[0]


def ours(path: str, index_T: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    clip = cut(path, index_T, seed, "vectors")
    return clip.frames_THWC, slot_magnitude(clip.motion_THW2, clip.distance_THW, clip.has_motion_T, TUBELET)


def without_vectors(path: str, index_T: np.ndarray, seed: int) -> np.ndarray:
    return cut(path, index_T, seed, None).frames_THWC


def peer(path: str, index_T: np.ndarray, seed: int) -> np.ndarray:
    reader = decord.VideoReader(path, num_threads=1)
    frames_THWC = reader.get_batch(index_T.clip(max=len(reader) - 1)).asnumpy()
    box = training_box(CLIPS, *frames_THWC.shape[1:3], np.random.default_rng(seed))
    return resize(frames_THWC[:, box.top : box.top + box.height, box.left : box.left + box.width], CLIPS.size)


def generate(folder: Path, frames: int) -> list[str]:
    """Videos of a textured scene that pans, a square that crosses it and some noise, as x264 writes them by default: long groups of
    pictures, three B-frames between the others."""
    paths = []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        scene = rng.integers(0, 256, (40, 60, 3)).astype(np.uint8).repeat(16, 0).repeat(16, 1)
        paths.append(str(folder / f"{seed}.mp4"))
        with av.open(paths[-1], "w") as container:
            stream = container.add_stream("libx264", rate=30)
            stream.width, stream.height, stream.pix_fmt = 340, 256, "yuv420p"
            for t in range(frames):
                shown = scene[t : t + 256, t : t + 340] // 2 + rng.integers(0, 24, (256, 340, 1), np.uint8)
                shown[100:160, (5 * t) % 280 : (5 * t) % 280 + 60] = 230
                container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
            container.mux(stream.encode())
    return paths


def by_codec(given: Iterable[Path]) -> dict[str, list[str]]:
    """The videos among files and folders that have vectors."""
    groups = defaultdict(list)
    for path in given:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            try:
                if (info := probe_video(file)).has_vectors:
                    groups[info.codec].append(str(file))
            except UserError:  # not a video
                pass
    return groups


def main() -> None:
    parser = common.arguments(__doc__, repeats=7)
    parser.add_argument("--videos", type=Path, nargs="+", metavar="DIR|FILE", help="videos to read")
    parser.add_argument("--most", type=int, default=8, help="videos of a codec, evenly picked (8)")
    parser.add_argument("--frames", type=int, default=300, help="of a generated video (300)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        groups = {} if args.videos else {"generated, h264": generate(Path(folder), args.frames)}
        groups |= by_codec(args.videos or ([REAL] if REAL.exists() else []))
        rows = [measure(name, paths[:: -(-len(paths) // args.most)], args.repeats) for name, paths in groups.items()]
    common.finish(rows, args.json)


def measure(name: str, paths: list[str], repeats: int) -> Row:
    """One clip of each video is a turn; the next turn's clips start elsewhere."""
    frames = {path: probe_video(path).frames for path in paths}

    def turn_of(read):
        turn = iter(range(repeats + 1))

        def read_all():
            rng = np.random.default_rng(next(turn))
            for path in paths:
                read(path, training_indices(CLIPS, frames[path], rng), seed=int(rng.integers(1000)))

        return lambda: seconds(read_all)

    mine, theirs, ratio = paired(turn_of(ours), turn_of(peer), repeats)
    return Row(f"load {name} ({len(paths)} videos)", len(paths) / mine, len(paths) / theirs, ratio, goal=1, unit="clips/s")


if __name__ == "__main__":
    main()
