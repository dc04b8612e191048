"""What transcoding does to vectors: how far apart MGM's boxes lie on copies (`mgm prepare
--transcode`) and on their sources.

The distance is between the boxes' centres, in patches of a 14 x 14 grid, for slots where both
moved; the peer is the distance on two different videos, which is what chance gives. How fast copies
are: bench/loader.py.

Without --videos: those of ../shared/data/clips that have vectors, or two generated ones.
"""

import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import common
import numpy as np
import torch
from common import Row
from loader import CLIPS, REAL, by_codec, copies, generate, ours

from mgm.masking import Grid, Motion, make_boxes
from mgm.video import probe_video
from mgm.video.sample import training_indices

GRID = Grid(slots=8, height=14, width=14)
CLIPS_PER_VIDEO = 4
CHANCE = "two videos"


def centres(path: str, index_T: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(x, y) of the box in each slot, in patches, and whether the slot moved."""
    motion_BSHW = torch.from_numpy(ours(path, index_T, seed)[1][None])
    boxes = make_boxes("mgm", GRID, Motion(motion_BSHW), torch.tensor([seed]))
    return torch.stack([boxes.x_BS[0], boxes.y_BS[0]], 1).numpy(), (
        motion_BSHW[0].flatten(1).amax(1) > 0
    ).numpy()


def agreement(copies_of: dict[str, dict[str, str]]) -> Iterator[Row]:
    """A line for each codec of the sources, and one for chance:

    each copy with the video before it.
    """
    rng = np.random.default_rng(0)
    found = defaultdict[str, list[np.ndarray]](list)
    earlier = None
    for codec, copy_of in copies_of.items():
        for path, copy in copy_of.items():
            for _ in range(CLIPS_PER_VIDEO):
                index_T, seed = (
                    training_indices(CLIPS, probe_video(path).frames, rng),
                    int(rng.integers(1000)),
                )
                first, second = centres(path, index_T, seed), centres(copy, index_T, seed)
                found[f"{codec} and its copy"].append(distances(first, second))
                if earlier is not None:
                    found[CHANCE].append(distances(earlier, second))
            earlier = first
    chance = np.concatenate(found.pop(CHANCE, [np.ones(1)])).mean().item()
    for name, parts in found.items():
        all_N = np.concatenate(parts)
        title = f"boxes of {name}: {(all_N <= 2).mean():.0%} of {len(all_N)} slots within 2 patches; their mean distance"
        yield Row(title, mean := all_N.mean().item(), chance, chance / mean, 1, "patches")


def distances(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """In slots after the first, whose box is anywhere, that moved in both."""
    moved = a[1] & b[1]
    moved[0] = False
    return np.linalg.norm(a[0] - b[0], axis=1)[moved]


def main() -> None:
    parser = common.arguments(__doc__, repeats=5)
    parser.add_argument(
        "--videos", type=Path, nargs="+", metavar="DIR|FILE", help="videos to transcode and read"
    )
    parser.add_argument("--most", type=int, default=8, help="videos of a codec, evenly picked (8)")
    parser.add_argument("--short-side", type=int, default=256)
    args = parser.parse_args()
    torch.set_num_threads(1)
    copies_of = {}
    with tempfile.TemporaryDirectory() as folder:
        groups = by_codec(args.videos or ([REAL] if REAL.exists() else [])) or {
            "h264": generate(Path(folder), 300)
        }
        for name, paths in groups.items():
            copies_of[name] = copies(
                paths[:: -(-len(paths) // args.most)], Path(folder) / name, args.short_side
            )
        common.finish(list(agreement(copies_of)), args.json)


if __name__ == "__main__":
    main()
