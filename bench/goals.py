"""Compare how clips are fed with the code before the redesign, in turns, on the same copies.

    python bench goals          exports the old code from git, and measures both

This file is also the program that runs in each of them: `goals.py copies VIDEOS OUT` makes copies,
`goals.py clips COPIES WORKERS PLANES` prints numbers per clip: seconds, and CPU milliseconds of the
process and of the mask.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

BEFORE = "133f0977"
BATCH, STEPS, SKIPPED = 32, 4, 2
# Name, workers, whether the new code reads planes, the number that counts, and the goal: the new
# code's number, in units of the old one's or on its own.
GOALS = (
    ("CPU per clip from a copy", 0, False, 1, 0.75, True),
    ("CPU per clip from a copy, planes", 0, True, 1, 0.55, True),
    ("CPU of MGM's mask per clip (ms)", 0, False, 2, 1.0, False),
    ("CPU per clip of the main process, two workers (ms)", 2, False, 1, 0.1, False),
    ("seconds per clip, two workers", 2, False, 0, 1 / 1.5, True),
)


def goals(repeats: int) -> list[str]:
    """Return a line of Markdown per goal: the smallest of `repeats` turns of each code."""
    from peers import draw

    root = Path(__file__).parents[1]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        old = subprocess.run(
            ["git", "-C", root, "archive", BEFORE, "mgm", "workflow", "studies"],
            stdout=subprocess.PIPE,
            check=True,
        )
        (place / "old").mkdir()
        subprocess.run(["tar", "-x", "-C", place / "old"], input=old.stdout, check=True)
        draw(place)
        for code, name in ((place / "old", "before"), (root, "now")):
            _run(code, "copies", place / "drawn", place / name)
        for name, workers, planes, number, goal, relative in GOALS:
            taken: dict[Path, list[float]] = {place / "old": [], root: []}
            for _ in range(repeats):
                for code, numbers in taken.items():
                    copies = place / ("now" if code == root else "before")
                    own = planes and code == root
                    said = _run(code, "clips", copies, str(workers), str(int(own)))
                    numbers.append(float(said.split()[number]))
            before, now = (min(numbers) for numbers in taken.values())
            found = now / before if relative else now
            met = "met" if found <= goal else "missed"
            # The old code's mask is computed elsewhere.
            old = f"{before:.3g} | {now / before:.2f}" if before else "- | -"
            rows.append(f"| {name} | {now:.3g} | {old} | at most {goal:.3g} | {met} |")
            print(rows[-1], flush=True)
    return rows


def _run(code: Path, *words: str | Path) -> str:
    """Run this file with the package of a checkout, and return its output."""
    given = os.environ | {"PYTHONPATH": str(code), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, *words]
    return subprocess.run(
        command, env=given, cwd=code, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def copies(videos: Path, out: Path) -> None:
    """Write copies and tracks of a folder of videos. Each code reads its own tracks."""
    from mgm.data.copies import copy_videos
    from mgm.data.folder import index_folder
    from mgm.data.prepare import prepare_tracks

    copy_videos(prepare_tracks(partial(index_folder, videos), out / "index", processes=1), out)


def clips(copies: Path, workers: int, planes: bool) -> None:
    """Print seconds, and milliseconds of CPU of this process and of the mask, per clip."""
    import torch

    from mgm.data.index import read_index
    from mgm.spec import Data, Mask, Pretrain
    from mgm.stages import guidance
    from mgm.training.efficiency import set_malloc_options
    from mgm.video.loader import training_loader

    # Our jobs set these options.
    set_malloc_options()
    torch.set_num_threads(1)
    spec = Pretrain(data=Data(dataset="folder"), mask=Mask(name="mgm"))
    videos = list(read_index(copies).videos) * BATCH
    parts, took = (spec.mask, spec.clips, spec.model), list[float]()
    if hasattr(guidance, "mask_options"):
        how = {"how": guidance.mask_options(*parts, workers=workers)}
    else:
        how = {"workers": workers, "planes": planes, **guidance.guided(*parts)}
        how["mask"] = timed(how["mask"], took)
    batches = training_loader(videos, spec.clips, 0, BATCH, **how)
    for _ in islice(batches, SKIPPED):
        pass
    took.clear()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in islice(batches, STEPS):
        pass
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(*(x / (BATCH * STEPS) for x in (wall, 1e3 * cpu, 1e3 * sum(took))), flush=True)
    # The old code's workers take seconds to end.
    os._exit(0)


def timed(mask: Callable[..., Any], took: list[float]) -> Callable[..., Any]:
    """Return the function, which then also notes its seconds of CPU."""

    def masked(*given: Any) -> Any:
        start = time.process_time()
        found = mask(*given)
        took.append(time.process_time() - start)
        return found

    return masked


if __name__ == "__main__":
    if sys.argv[1] == "copies":
        copies(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        clips(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "1")
