"""A training run's log.jsonl, and its lines on the terminal."""

import resource
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TypeVar

import torch

from mgm.console import duration
from mgm.results.result import append_log, rewind_log
from mgm.spec.compute import peak_of

SHOW_S = 10  # seconds between lines on the terminal
JUDGE_S = 30  # seconds of training before a slow loader is reported

T = TypeVar("T")


class TrainingLog:
    """The log of a run.

    A run that continues drops the lines after its checkpoint, so that no step is logged twice.

    Args:
        first: the step that it starts at.
        clips: per step.
        flops: per clip of this process, for the MFU. 0: unknown.
    """

    def __init__(
        self,
        folder: Path,
        run_id: str,
        first: int,
        steps: int,
        clips: int,
        show: Callable[[str], None],
        flops: float = 0.0,
    ):
        rewind_log(folder, first)
        self.folder, self.run_id, self.show = folder, run_id, show
        self.steps, self.clips = steps, clips
        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
        # FLOPs per clip, in units of what the GPU can do in a second.
        self.share = flops / peak if (peak := peak_of(gpu)) else 0.0
        self.first, self.last_step = first, first
        self.started = self.last_time = self.shown = time.monotonic()
        self.waited = self.waited_before = 0.0  # seconds for the loader, now and at the last line
        self.begun = self.judged = False

    def timed(self, batches: Iterator[T]) -> Generator[T, None, None]:
        """Yield batches, and add up the time that they take."""
        while True:
            asked_at = time.monotonic()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self.waited += time.monotonic() - asked_at
            yield batch

    def write(self, step: int, numbers: dict[str, float]) -> None:
        """Append a line, and show one every `SHOW_S` seconds."""
        now = time.monotonic()
        seconds = max(now - self.last_time, 1e-9)  # since the last line
        clips_per_s = self.clips * (step - self.last_step) / seconds
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if torch.cuda.is_available():
            memory = torch.cuda.max_memory_allocated() / 2**20
        line = {
            "step": step,
            "steps": self.steps,
            # Nine digits hold a float32 exactly.
            **{name: float(f"{value:.9g}") for name, value in numbers.items()},
            "clips_per_s": float(f"{clips_per_s:.6g}"),
            **({"mfu": round(self.share * clips_per_s, 4)} if self.share else {}),
            "waiting": round(min((self.waited - self.waited_before) / seconds, 1.0), 4),
            "memory_mb": round(memory, 1),
            "seconds": round(seconds, 6),
            "time": round(time.time(), 3),
        }
        append_log(self.folder, line)
        self.last_step, self.last_time, self.waited_before = step, now, self.waited
        if not self.begun:
            # Workers started, and code was compiled: this says nothing of the other steps.
            self.begun, self.first, self.started, self.waited = True, step, now, 0.0
            self.waited_before = 0.0
            return
        if now - self.shown >= SHOW_S:
            left = (self.steps - step) * (now - self.started) / (step - self.first)
            self.show(
                f"{self.run_id}: step {step} of {self.steps}, loss {numbers['loss']:.3f}, "
                f"{clips_per_s:.0f} clips/s, "
                + (f"MFU {self.share * clips_per_s:.0%}, " if self.share else "")
                + f"waiting {line['waiting']:.0%}, {duration(left)} left"
            )
            self.shown = now
        if not self.judged and now - self.started >= JUDGE_S:
            self.judged = True
            self._judge_loader(now - self.started)

    def _judge_loader(self, seconds: float) -> None:
        """Say once if the run waits for clips more than half of its time."""
        if self.waited > seconds / 2:
            self.show(
                f"{self.run_id}: waiting for clips took {self.waited / seconds:.0%} of the "
                f"first {duration(seconds)}; raise --workers, or read copies "
                "(`mgm prepare ... --copy mp4`)"
            )
