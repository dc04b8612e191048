"""`log.jsonl`: one line of numbers now and then, and a line for whoever watches."""

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mgm.console import duration
from mgm.results.log import append_log, rewind_log

SHOW_S = 10  # seconds between lines for whoever watches


class Log:
    """Appends to a run's log.

    A run that continues drops the lines past its checkpoint, so that no step stands twice.
    """

    def __init__(
        self, path: Path, first: int, steps: int, batch: int, show: Callable[[str], None], name: str
    ):
        rewind_log(path.parent, first)
        self.path, self.steps, self.batch, self.show, self.name = path, steps, batch, show, name
        self.first, self.started, self.shown = first, time.monotonic(), time.monotonic()
        self.last_step, self.last_time = first, self.started

    def write(self, step: int, numbers: dict[str, Any]) -> None:
        now = time.monotonic()
        seconds = max(now - self.last_time, 1e-9)  # of the steps since the last line
        clips_per_s = self.batch * (step - self.last_step) / seconds
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if torch.cuda.is_available():
            memory = torch.cuda.max_memory_allocated() / 2**20
        line = {
            "step": step,
            "steps": self.steps,
            **numbers,
            "clips_per_s": clips_per_s,
            "memory_mb": memory,
        }
        line |= {"seconds": seconds, "time": time.time()}
        append_log(self.path.parent, line)
        self.last_step, self.last_time = step, now
        if now - self.shown >= SHOW_S:
            left = (self.steps - step) * (now - self.started) / (step - self.first)
            self.show(
                f"{self.name}: step {step} of {self.steps}, loss {numbers['loss']:.3f}, {clips_per_s:.0f} clips/s, {duration(left)} left"
            )
            self.shown = now
