"""What the benches share: paired timing, a table, a JSON file.

Machines are noisy, so ours and the peer take turns, and a ratio is the median of the ratios of
neighbours. It is always the peer's time
over ours: above 1 we are faster.
"""

import argparse
import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Row:
    """A line of the table. The goal is for the ratio (at least) or for our own number (at most)."""

    name: str
    ours: float
    peer: float
    ratio: float
    goal: float
    unit: str
    goal_for: Literal["ratio", "ours"] = "ratio"

    @property
    def met(self) -> bool:
        return self.ratio >= self.goal if self.goal_for == "ratio" else self.ours <= self.goal


def paired(
    ours: Callable[[], float], peer: Callable[[], float], repeats: int
) -> tuple[float, float, float]:
    """Medians of what both return, seconds, and of the ratios peer / ours of neighbours.

    The first pair warms up.
    """
    return compared(ours, [peer], repeats)[0]


def compared(
    ours: Callable[[], float], peers: Sequence[Callable[[], float]], repeats: int
) -> list[tuple[float, float, float]]:
    """`paired` for several peers, which take turns with us."""
    works, turns = [ours, *peers], list[list[float]]()
    for turn in range(repeats + 1):
        order = range(len(works)) if turn % 2 else reversed(range(len(works)))
        took = {number: works[number]() for number in order}
        turns.append([took[number] for number in range(len(works))])
    mine, *others = zip(*turns[1:])
    median = statistics.median
    return [
        (median(mine), median(theirs), median(b / a for a, b in zip(mine, theirs)))
        for theirs in others
    ]


def lend_pyavs_ffmpeg() -> None:
    """Start this script again with the FFmpeg of PyAV's wheel under its common names:

    torchcodec brings none.
    """
    import av

    found = {}
    for path in (Path(av.__file__).parents[1] / "av.libs").glob("*.so.*"):
        if name := re.fullmatch(r"(lib(?:av|sw)\w+)-\w+\.so\.(\d+)\..*", path.name):
            found[f"{name[1]}.so.{name[2]}"] = path
    folder = Path(tempfile.gettempdir()) / f"mgm-ffmpeg-{os.getuid()}-{version('av')}"
    if not found or str(folder) in os.environ.get("LD_LIBRARY_PATH", ""):
        return
    folder.mkdir(exist_ok=True)
    for name, path in found.items():
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(path)
    os.environ["LD_LIBRARY_PATH"] = f"{folder}:{os.environ.get('LD_LIBRARY_PATH', '')}"
    os.execv(sys.executable, [sys.executable, *sys.argv])


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def cpu_seconds(work: Callable[[], object]) -> float:
    """Of all threads of this process:

    what else the machine does disturbs them less than the clock.
    """
    started = time.process_time()
    work()
    return time.process_time() - started


def arguments(description: str, repeats: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    parser.add_argument(
        "--repeats", type=int, default=repeats, help=f"pairs to measure ({repeats})"
    )
    return parser


def measured(
    bench: str, takes: str, tasks: Mapping[str, Callable[[], list[Row]]], file: Path | None
) -> list[Row]:
    """Say how long it takes, measure task after task, and print each row when it is there.

    With a `file` they are also written beside it, to FILE.part, from which an interrupted bench
    goes on; `finish` removes it.
    """
    print(
        f"{bench}: {takes} on two idle cores (load is {os.getloadavg()[0]:.1f} now)",
        file=sys.stderr,
        flush=True,
    )
    found = each(
        bench,
        {name: lambda work=work: [asdict(row) for row in work()] for name, work in tasks.items()},
        _part(file),
    )
    return [Row(**row) for name in tasks for row in found[name]]


def each(
    bench: str,
    tasks: Mapping[str, Callable[[], Any]],
    lines: Path | None,
    again: Callable[[Any], bool] = lambda value: False,
    seconds: float = math.inf,
) -> dict[str, Any]:
    """Return what each task gives, as JSON; what stands in `lines` already is not measured again,
    unless `again` says so. No task starts later than `seconds`: the others are missing."""
    found = (
        dict(map(json.loads, lines.read_text().splitlines())) if lines and lines.exists() else {}
    )
    started = time.monotonic()
    for number, (task, work) in enumerate(tasks.items(), 1):
        if task in found and not again(found[task]):
            continue
        if time.monotonic() - started > seconds:
            break
        print(f"{bench} {number} of {len(tasks)}: {task} ...", end=" ", file=sys.stderr, flush=True)
        begun = time.monotonic()
        found[task] = work()
        print(f"{time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
        if lines:
            lines.parent.mkdir(parents=True, exist_ok=True)
            with lines.open("a") as out:
                out.write(json.dumps([task, found[task]]) + "\n")
    return {task: found[task] for task in tasks if task in found}


def _part(file: Path | None) -> Path | None:
    return file.with_name(f"{file.name}.part") if file else None


def finish(rows: Sequence[Row], file: Path | None) -> None:
    """Print the table; write the JSON if asked to."""
    print(table(rows))
    if file and (part := _part(file)):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8"
        )
        part.unlink(missing_ok=True)


def table(rows: Sequence[Row]) -> str:
    """In Markdown."""
    cells = [("", "ours", "peer", "unit", "ratio", "goal", "")]
    for row in rows:
        goal = f"ratio >= {row.goal:g}" if row.goal_for == "ratio" else f"ours <= {row.goal:g}"
        cells.append(
            (
                row.name,
                f"{row.ours:.4g}",
                f"{row.peer:.4g}",
                row.unit,
                f"{row.ratio:.2f}",
                goal,
                "met" if row.met else "missed",
            )
        )
    cells.insert(1, tuple("-" * max(map(len, column)) for column in zip(*cells)))
    widths = [max(map(len, column)) for column in zip(*cells)]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |"
        for line in cells
    )


def machine() -> str:
    """Where and with what: one line."""
    cpu = Path("/proc/cpuinfo")
    names = (
        [
            line.partition(":")[2].strip()
            for line in cpu.read_text().splitlines()
            if line.startswith("model name")
        ]
        if cpu.exists()
        else []
    )
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    packages = ", ".join(
        f"{name} {version(name)}" for name in ("mgm-video", "torch", "av", "decord", "numpy")
    )
    return (
        f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {platform.system()}, "
        f"Python {platform.python_version()}, {packages}; commit {commit.stdout.strip() or 'unknown'}"
    )
