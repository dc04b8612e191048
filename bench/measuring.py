"""Measure our work and that of peers in turns, with torch.utils.benchmark."""

import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import av
from torch.backends.cpu import get_cpu_capability
from torch.utils.benchmark import Timer

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Comparison:
    """Our work, and the same work of peers.

    Args:
        peers: by name, the work and the goal: the smallest ratio of its time to ours. 0: none.
        per: the number of clips, or of frames, in the work. Times are per one of them.
        clock: `time.process_time` counts all threads of this process, and no other process.
    """

    name: str
    ours: Callable[[], object]
    peers: Mapping[str, tuple[Callable[[], object], float]]
    repeats: int = 5
    clock: Callable[[], float] = field(default=time.perf_counter)
    per: int = 1


def compared(comparison: Comparison) -> list[str]:
    """Measure in turns, so that other load on the machine affects all. The first turn warms up.

    Returns:
        A line of Markdown per peer: median times, the median ratio within a turn, and the goal.
    """
    works = [comparison.ours, *(work for work, _ in comparison.peers.values())]
    timers = [Timer("work()", globals={"work": work}, timer=comparison.clock) for work in works]
    turns = list[list[float]]()
    for turn in range(comparison.repeats + 1):
        order = range(len(timers)) if turn % 2 else reversed(range(len(timers)))
        took = {number: timers[number].timeit(1).median / comparison.per for number in order}
        turns.append([took[number] for number in range(len(timers))])
    mine, *others = zip(*turns[1:])
    ours, rows = statistics.median(mine), []
    for (peer, (_, least)), theirs in zip(comparison.peers.items(), others):
        ratio = statistics.median(b / a for a, b in zip(mine, theirs))
        goal = (
            f"at least {least:g} | {'met' if ratio >= least else 'missed'}" if least else "none |"
        )
        shown = f"{readable(ours)} | {readable(statistics.median(theirs))} | {ratio:.2f}"
        rows.append(f"| {comparison.name}, against {peer} | {shown} | {goal} |")
    return rows


def lend_ffmpeg() -> None:
    """Start this program again with PyAV's FFmpeg under its common names, for torchcodec.

    torchcodec brings no FFmpeg, and the dynamic linker reads its path only at the start.
    """
    folder = Path(tempfile.gettempdir()) / f"mgm-ffmpeg-{os.getuid()}-{av.__version__}"
    search = os.environ.get("LD_LIBRARY_PATH", "")
    if str(folder) in search:
        return
    folder.mkdir(exist_ok=True)
    for path in (Path(av.__file__).parents[1] / "av.libs").glob("*.so.*"):
        if name := re.fullmatch(r"(lib(?:av|sw)\w+)-\w+\.so\.(\d+)\..*", path.name):
            link = folder / f"{name[1]}.so.{name[2]}"
            link.unlink(missing_ok=True)
            link.symlink_to(path)
    os.environ["LD_LIBRARY_PATH"] = f"{folder}:{search}"
    os.execv(sys.executable, sys.orig_argv)


def readable(seconds: float) -> str:
    factor, unit = (1, "s") if seconds >= 1 else (1e3, "ms") if seconds >= 1e-3 else (1e6, "us")
    return f"{seconds * factor:.3g} {unit}"


def machine() -> str:
    """Return the machine and the versions of packages as one line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line for line in lines if line.startswith("model name")]
    known = ("mgm-video", "torch", "av", "decord", "numpy")
    packages = ", ".join(f"{name} {version(name)}" for name in known)
    chip = names[0].partition(":")[2].strip() if names else platform.machine()
    return (
        f"{chip} ({get_cpu_capability()}), {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; "
        f"{platform.system()}, Python {platform.python_version()}, {packages}; commit {commit()}"
    )


def commit() -> str:
    """Return the commit of the code, with -dirty if files differ from it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
