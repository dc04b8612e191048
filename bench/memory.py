"""Memory of a process that reads clips: megabytes in the last tenth of the reads over those in the
second; 1 where it is flat. 2,000 reads by default; --reads 20000 takes an hour.

Both are means over a tenth: at a single moment, a batch that is there or not is 3 %. Clips are as
in bench/loader.py, from two generated videos, their training-ready copies, their shards, and a file
cut short that always fails; ours come from the training loader, in batches, read in its own process
or in a worker. The peer is decord, which reads the whole files. Each is in a process of its own.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import islice
from multiprocessing import active_children
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import common
import numpy as np
import torch
from common import Row
from loader import CLIPS, TUBELET, generate, in_shards, with_decord

from mgm.data.encode import encode
from mgm.video import Loading, probe_video, training_loader
from mgm.video.sample import training_indices

BATCH = 8


class Named(NamedTuple):
    """A video for the loader."""

    path: str
    frames: int
    label: int = 0


def resident() -> float:
    """Megabytes of the process that reads: the worker, if there is one."""
    (pid,) = [worker.pid for worker in active_children()] or [os.getpid()]
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def grown(reader: str, reads: int, paths: list[str]) -> float:
    """What the process has in the last tenth of `reads` clips over what it had in the second."""
    torch.set_num_threads(1)
    videos = [
        Named(path, 300 if path.endswith("cut.mp4") else probe_video(path).frames) for path in paths
    ]
    batches = (
        by_decord(videos, reads)
        if reader == "decord"
        else by_loader(videos, reads, workers=int(reader == "worker"))
    )
    held = [resident() for _ in batches]
    tenth = len(held) // 10
    return mean(held[-tenth:]) / mean(held[tenth : 2 * tenth])


def by_loader(videos: list[Named], reads: int, workers: int) -> Iterator[object]:
    return islice(
        training_loader(videos, CLIPS, TUBELET, seed=0, batch=BATCH, how=Loading(workers=workers)),
        reads // BATCH,
    )


def by_decord(videos: list[Named], reads: int) -> Iterator[object]:
    rng = np.random.default_rng(0)
    for first in range(0, reads // BATCH * BATCH, BATCH):
        chosen = [videos[number % len(videos)] for number in range(first, first + BATCH)]
        yield [
            with_decord(video.path, training_indices(CLIPS, video.frames, rng), first)
            for video in chosen
        ]


def in_a_process(reader: str, reads: int, paths: list[str]) -> float:
    done = subprocess.run(
        [sys.executable, __file__, "--one", reader, str(reads), *paths],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def main() -> None:
    parser = common.arguments(__doc__, repeats=1)
    parser.add_argument("--reads", type=int, default=2000, help="clips to read (2000)")
    parser.add_argument("--frames", type=int, default=300, help="of a generated video (300)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        whole = generate(Path(folder), args.frames)
        for number, path in enumerate(list(whole)):
            whole.append(str(Path(folder, f"copy{number}.mp4")))
            with open(whole[-1], "wb") as file:
                encode(path, file, 256)
        cut = Path(folder, "cut.mp4")
        cut.write_bytes(Path(whole[0]).read_bytes()[:100_000])  # PyAV's MP4 has its header last
        shards = [*in_shards(whole[:2], Path(folder) / "shards").values()]

        def row(name: str, reader: str, paths: list[str]) -> list[Row]:
            mine, theirs = (
                in_a_process(reader, args.reads, paths),
                in_a_process("decord", args.reads, whole),
            )
            return [
                Row(
                    f"memory at the end of {args.reads:,} reads{name}",
                    mine,
                    theirs,
                    theirs / mine,
                    1.02,
                    "times",
                    "ours",
                )
            ]

        ways = (
            ("", "loader", [*whole, str(cut)]),
            (", in a worker", "worker", [*whole, str(cut)]),
            (", from shards", "loader", shards),
        )
        tasks = {
            name or "in its process": partial(row, name, reader, paths)
            for name, reader, paths in ways
        }
        rows = common.measured("memory", f"{args.reads / 300:.0f} minutes", tasks, args.json)
    common.finish(rows, args.json)


if __name__ == "__main__":
    if "--one" in sys.argv:
        reader, reads, *paths = sys.argv[2:]
        print(grown(reader, int(reads), paths))
    else:
        main()
