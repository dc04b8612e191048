"""A training run's log.jsonl, and its lines on the terminal."""

import resource
import time
from pathlib import Path

import torch

from mgm.console import duration, show
from mgm.device import gpu_name
from mgm.results.run import append_log, rewind_log
from mgm.spec.compute import peak_of

SHOW_S = 10  # seconds between lines on the terminal


class TrainingLog:
    """The log of a run.

    A run that continues drops the lines after its checkpoint, so that no step is logged twice.

    Args:
        first: the step that it starts at.
        clips: per step.
        flops: per clip of this process, for the MFU.
    """

    def __init__(self, folder: Path, run_id: str, first: int, steps: int, clips: int, flops: float):
        rewind_log(folder, first)
        self.folder, self.run_id, self.steps, self.clips = folder, run_id, steps, clips
        gpu = gpu_name()
        # FLOPs per clip, in units of what the GPU can do in a second.
        self.share = flops / peak if (peak := peak_of(gpu)) else 0.0
        self.on_gpu = bool(gpu)
        self.last_step, self.last_time = first, time.monotonic()
        # The first line's step and time, since a start says nothing of the other steps.
        self.begun: tuple[int, float] | None = None
        self.shown = self.last_time

    def write(self, step: int, numbers: dict[str, float], waited: float) -> None:
        """Append a line, and show one every `SHOW_S` seconds. `waited` is in seconds."""
        now = time.monotonic()
        seconds = max(now - self.last_time, 1e-9)  # since the last line
        clips_per_s = self.clips * (step - self.last_step) / seconds
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if self.on_gpu:
            memory = torch.cuda.max_memory_allocated() / 2**20
        mfu, waiting = self.share * clips_per_s, min(waited / seconds, 1.0)
        line = {
            "step": step,
            "steps": self.steps,
            # Nine digits hold a float32 exactly.
            **{name: float(f"{value:.9g}") for name, value in numbers.items()},
            "clips_per_s": float(f"{clips_per_s:.6g}"),
            **({"mfu": round(mfu, 4)} if mfu else {}),
            "waiting": round(waiting, 4),
            "memory_mb": round(memory, 1),
            "seconds": round(seconds, 6),
            "time": round(time.time(), 3),
        }
        append_log(self.folder, line)
        self.last_step, self.last_time = step, now
        if not self.begun:
            self.begun = step, now
        elif now - self.shown >= SHOW_S:
            first, started = self.begun
            left = (self.steps - step) * (now - started) / (step - first)
            show(
                f"{self.run_id}: step {step} of {self.steps}, loss {numbers['loss']:.3f}, "
                f"{clips_per_s:.0f} clips/s, "
                + (f"MFU {mfu:.0%}, " if mfu else "")
                + f"waiting {waiting:.0%}, {duration(left)} left"
            )
            self.shown = now
