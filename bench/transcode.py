"""Transcoded files (`mgm prepare --transcode`): clips per second of CPU time, against the sources and against decord on the sources.

Clips, and rows without another reader, are as in bench/loader.py; each turn takes the same frames, crop and resize of source and copy.
"From P-frames" starts on multiples of 4 (`clips.start_multiple`).

Below the table: whether a copy's vectors lead masks to the same places, as the distance between the centres of MGM's boxes, in patches of
a 14 x 14 grid, for slots where both moved; beside it that of two different videos, which is what chance gives.

Without --videos: two generated ones like K400's, and those of ../shared/data/clips that have vectors. The goal of 7 is for the former.
"""

import tempfile
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import common
import numpy as np
import torch
from common import Row
from loader import CLIPS, GENERATED, REAL, Take, by_codec, compare, ffmpeg_alone, generate, ours, with_decord, without_vectors

from mgm.datasets.synthetic.encode import encode
from mgm.masking import Grid, make_boxes
from mgm.video import probe_video
from mgm.video.sample import training_indices

GRID = Grid(slots=8, height=14, width=14)
CLIPS_PER_VIDEO = 4


def copies(paths: Sequence[str], folder: Path, short_side: int) -> dict[str, str]:
    """{source: its copy}."""
    made = {}
    for number, path in enumerate(paths):
        made[path] = str(folder / f"{number}.mp4")
        with open(made[path], "wb") as file:
            encode(path, file, short_side)
    return made


def speed(name: str, copy_of: dict[str, str], repeats: int) -> list[Row]:
    copies = copy_of.__getitem__
    mine, starts_on_p = Take(ours, copies), Take(ours, copies, CLIPS.model_copy(update={"start_multiple": 4}))
    alone, exporting = Take(ffmpeg_alone, copies), Take(partial(ffmpeg_alone, motion=True), copies)
    goal = 7 if name == GENERATED else 1
    return [
        compare(f"copies of {name} ({len(copy_of)}), {against}", copy_of, one, other, repeats, goal)
        for against, one, other, goal in (
            ("against mgm on the sources", mine, Take(ours), 1),
            ("against decord on the sources", mine, Take(with_decord), goal),
            ("from P-frames, against decord on the sources", starts_on_p, Take(with_decord), goal),
            ("against decord on the copies", mine, Take(with_decord, copies), 1),
            ("from P-frames, against any start", starts_on_p, mine, 1),
            ("without vectors", mine, Take(without_vectors, copies), 1 / 1.08),
            ("exporting vectors", exporting, alone, 1 / 1.08),
            ("FFmpeg alone", mine, alone, 0.5),
        )
    ]


def centres(path: str, index_T: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(x, y) of the box in each slot, in patches, and whether the slot moved."""
    motion_BSHW = torch.from_numpy(ours(path, index_T, seed)[1][None])
    boxes = make_boxes("mgm", GRID, 0.75, torch.tensor([seed]), motion_BSHW)
    return torch.stack([boxes.x_BS[0], boxes.y_BS[0]], 1).numpy(), (motion_BSHW[0].flatten(1).amax(1) > 0).numpy()


def agreement(copies_of: dict[str, dict[str, str]]) -> str:
    """A line for each codec of the sources, and one for chance: each copy with the video before it."""
    rng = np.random.default_rng(0)
    found = defaultdict[str, list[np.ndarray]](list)
    earlier = None
    for codec, copy_of in copies_of.items():
        for path, copy in copy_of.items():
            for _ in range(CLIPS_PER_VIDEO):
                index_T, seed = training_indices(CLIPS, probe_video(path).frames, rng), int(rng.integers(1000))
                first, second = centres(path, index_T, seed), centres(copy, index_T, seed)
                found[f"{codec} and its copy"].append(distances(first, second))
                if earlier is not None:
                    found["two videos"].append(distances(earlier, second))
            earlier = first
    lines = []
    for what, parts in found.items():
        all_N = np.concatenate(parts)
        near = f"{(all_N <= 2).mean():.0%} within 2, median {np.median(all_N):.2f}"
        lines.append(f"{what}: centres {all_N.mean():.2f} patches apart, {near} ({len(all_N)} slots of {len(parts)} clips)")
    return "\n".join(lines)


def distances(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """In slots after the first, whose box is anywhere, that moved in both."""
    moved = a[1] & b[1]
    moved[0] = False
    return np.linalg.norm(a[0] - b[0], axis=1)[moved]


def main() -> None:
    parser = common.arguments(__doc__, repeats=5)
    parser.add_argument("--videos", type=Path, nargs="+", metavar="DIR|FILE", help="videos to transcode and read")
    parser.add_argument("--most", type=int, default=8, help="videos of a codec, evenly picked (8)")
    parser.add_argument("--short-side", type=int, default=256)
    args = parser.parse_args()
    torch.set_num_threads(1)
    copies_of = {}
    with tempfile.TemporaryDirectory() as folder:
        groups = {} if args.videos else {GENERATED: generate(Path(folder), 300)}
        for name, paths in (groups | by_codec(args.videos or ([REAL] if REAL.exists() else []))).items():
            (Path(folder) / name).mkdir()
            copies_of[name] = copies(paths[:: -(-len(paths) // args.most)], Path(folder) / name, args.short_side)
        rows = [row for name, copy_of in copies_of.items() for row in speed(name, copy_of, args.repeats)]
        said = agreement({name: copy_of for name, copy_of in copies_of.items() if name != GENERATED})
    common.finish(rows, args.json)
    print(said)


if __name__ == "__main__":
    main()
