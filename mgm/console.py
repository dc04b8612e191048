"""Print lines and progress bars on the terminal. Results go to files."""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")
LINE_S = 30.0  # seconds between lines of progress where there is no terminal


def show(line: str) -> None:
    """Print a line to stderr, and ignore a closed pipe."""
    with suppress(BrokenPipeError):
        print(line, file=sys.stderr, flush=True)


def say(text: str) -> None:
    """Print a result's lines to stdout."""
    try:
        print(text, flush=True)
    except OSError as error:
        # It may be a file on a full disk. At its end, Python would write the rest again, and fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise type(error)(error.errno, error.strerror, "stdout") from None


def progress(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """Yield `items` and show progress: a bar on a terminal, else a line from time to time."""
    if sys.stderr.isatty():
        # Rich takes a tenth of a second, and only a terminal needs it.
        from rich.console import Console
        from rich.progress import track as bar

        yield from bar(items, what, total, console=Console(stderr=True))
        return
    started = last_shown = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last_shown >= LINE_S or done == total:
            last_shown, left = now, (now - started) / done * (total - done)
            ends = f", about {duration(left)} left" if left else f" in {duration(now - started)}"
            show(f"{what}: {done} of {total}{ends}")


def duration(seconds: float) -> str:
    """Return a duration such as "48 s", "3 min" or "2 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
