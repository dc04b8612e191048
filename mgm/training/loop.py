"""The training loop, for pretraining and finetuning alike."""

import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mgm.errors import UserError
from mgm.spec import Optim
from mgm.training.checkpoint import load_checkpoint, save_checkpoint
from mgm.training.log import Log
from mgm.training.optimiser import AdamW, build_optimiser, learning_rate, set_learning_rate

LOGS = 100  # lines a run's log has, about


@dataclass(frozen=True)
class Training:
    """A training run.

    `batches(first_step)` yields, a step, the equal parts of its batch and the names of the videos in it that could not be read;
    `loss_of(part)` is a part's mean loss and what to log beside it.
    """

    run_id: str
    model: nn.Module
    optim: Optim
    steps: int
    videos: int  # of the training split, to judge how many may fail
    batches: Callable[[int], Iterator[tuple[Sequence[Any], Sequence[str]]]]
    loss_of: Callable[[Any], tuple[Tensor, dict[str, Tensor]]]
    layer_decay: float = 1.0
    repeats: int = 1  # clips that each of the batch's videos gives, for the log's clips/s


def train(run: Training, folder: Path, *, checkpoint_s: float = 300, show: Callable[[str], None] = print) -> list[str]:
    """Train to the last step, from the last checkpoint if there is one. Returns the names of the videos that could not be read.

    Stopped at any step and run again, the weights are bit-equal to an uninterrupted run's (on the CPU, same threads): batches are a
    function of the step, and a checkpoint holds all other state. SIGTERM (the end of a time limit) and SIGUSR1 (its warning, where Slurm
    is asked for one: `--signal=USR1@60`) stop it after the step with a checkpoint; what exit statuses mean is in `mgm.errors`.

    Raises:
        UserError: the loss is not finite, or more than 1 % of the clips could not be read.
        SystemExit: SIGTERM or SIGUSR1 came.
    """
    with _terminations() as terminated:
        return _train(run, folder, checkpoint_s, show, terminated)


def _train(run: Training, folder: Path, checkpoint_s: float, show: Callable[[str], None], terminated: list[int]) -> list[str]:
    optimiser = build_optimiser(run.model, run.optim, run.layer_decay)
    first, failed = 0, dict[str, None]()  # a dict keeps the order of failure
    if state := load_checkpoint(folder, run.run_id, show):
        run.model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["rng"])
        first, failed = state["step"], dict.fromkeys(state["failed"])
        show(f"{run.run_id}: continues at step {first} of {run.steps}")
    device = next(run.model.parameters()).device
    precision = torch.autocast(device.type, torch.bfloat16) if run.optim.precision == "bf16" else nullcontext()
    log_every = math.ceil(run.steps / LOGS)
    log = Log(folder / "log.jsonl", first, run.steps, run.optim.batch * run.repeats, show, run.run_id)
    saved_at = time.monotonic()
    run.model.train()

    batches = run.batches(first)
    for step in range(first, run.steps):
        parts, unreadable = next(batches)
        failed |= dict.fromkeys(unreadable)
        if len(failed) > 0.01 * run.videos:
            raise UserError(
                f"{run.run_id}: {len(failed)} of {run.videos} training videos could not be read, more than 1 %: "
                f"{next(iter(failed))} first; restore them, or prepare the dataset again to leave them out"
            )
        rate = learning_rate(step, run.steps, run.optim)
        set_learning_rate(optimiser, rate)
        optimiser.zero_grad()
        total, extra = torch.zeros((), device=device), dict[str, Tensor]()
        for part in parts:
            with precision:
                loss, extra = run.loss_of(part)
            loss = loss / len(parts)
            loss.backward()
            total += loss.detach()
        norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), run.optim.clip_grad or math.inf)

        due = bool(terminated) or time.monotonic() - saved_at >= checkpoint_s
        if due or (step + 1) % log_every == 0 or step + 1 == run.steps:
            if not math.isfinite(value := total.item()) or not math.isfinite(norm.item()):
                raise UserError(
                    f"{run.run_id}: the loss is {value} and its gradient's norm {norm.item()} at step {step} of {run.steps}; "
                    f"lower optim.lr (now {run.optim.lr}) or set optim.clip_grad, and run it again"
                )
            log.write(step + 1, {"loss": value, "lr": rate, "grad_norm": norm.item()} | {name: float(x) for name, x in extra.items()})
        optimiser.step()
        if due:
            save_checkpoint(folder, _state(run, optimiser, step + 1, failed))
            saved_at = time.monotonic()
        if terminated:
            show(f"{run.run_id}: stopped at step {step + 1} of {run.steps}; run again to continue")
            sys.exit(128 + terminated[0])
    return list(failed)


@contextmanager
def _terminations() -> Iterator[list[int]]:
    """The SIGTERMs and SIGUSR1s that come meanwhile. Outside of training both end a process at once, as is their default."""
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, frame: came.append(number)) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:  # after the last step's look
        sys.exit(128 + came[0])


def _state(run: Training, optimiser: AdamW, step: int, failed: dict[str, None]) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "step": step,
        "model": run.model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "rng": torch.get_rng_state(),
        "failed": list(failed),
    }
