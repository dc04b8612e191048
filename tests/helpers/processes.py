"""Processes that a test has started, and theirs."""

import time
from collections.abc import Callable
from pathlib import Path


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until the condition holds.

    Raises:
        TimeoutError: it does not hold after some seconds.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"what a test waits for has not come in {seconds} s")
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    """Return the processes that a process has started, without Python's tracker of resources."""
    of_threads = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [
        int(one)
        for one in " ".join(of_threads).split()
        if b"resource_tracker" not in Path(f"/proc/{one}/cmdline").read_bytes()
    ]


def is_alive(pid: int) -> bool:
    """Return whether a process runs. A zombie has ended."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"
