"""The training loop, for pretraining and finetuning alike."""

import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mgm.errors import UserError
from mgm.rng import clip_seed
from mgm.spec import Optim
from mgm.training import distributed
from mgm.training.checkpoint import load_checkpoint, save_checkpoint
from mgm.training.log import Log
from mgm.training.memory import keep_freed_memory, recomputing
from mgm.training.optimiser import AdamW, build_optimiser, learning_rate, set_learning_rate

LOGS = 100  # lines a run's log has, about


@dataclass(frozen=True)
class Training:
    """A training run.

    `batches(first_step)` yields, a step, the equal parts of this process's share of its batch and the names of the videos in it that could
    not be read; `loss_of(part)` is a part's mean loss and what to log beside it.
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
    seed: int = 0  # of the run


def train(
    run: Training, folder: Path, *, checkpoint_s: float = 300, recompute: bool = False, show: Callable[[str], None] = print
) -> list[str]:  # fmt: skip
    """Train to the last step, from the last checkpoint if there is one. Returns the names of the videos that could not be read.

    Stopped at any step and run again, the weights are bit-equal to an uninterrupted run's (on the CPU, same threads): batches are a
    function of the step, and a checkpoint holds all other state. SIGTERM (the end of a time limit) and SIGUSR1 (its warning, where Slurm
    is asked for one: `--signal=USR1@60`) stop it after the step with a checkpoint; what exit statuses mean is in `mgm.errors`.

    Several processes (`mgm.training.distributed`) train one model: losses and gradients are those of the whole batch but for the order of
    float32 sums, and all agree on when to stop, a step later than one would. Stopped and run again on as many, they end bit-equal too;
    on another number all but the draws of dropout and drop path goes on as it was. Those draw by (seed, step, rank), so that no process
    has a state to keep; a process on its own draws from one stream, which its checkpoint holds.

    Raises:
        UserError: the loss is not finite, more than 1 % of the clips could not be read, or a GPU is full.
        SystemExit: SIGTERM or SIGUSR1 came.
    """
    keep_freed_memory()
    with _terminations() as terminated, recomputing(run.model) if recompute else nullcontext():
        try:
            return _train(run, folder, checkpoint_s, show, terminated)
        except torch.OutOfMemoryError as error:
            why = str(error).partition(". ")[0]
            raise UserError(
                f"{run.run_id}: {why}; raise --accumulate, so that fewer clips are computed at a time, or pass --recompute"
            ) from error


def _train(run: Training, folder: Path, checkpoint_s: float, show: Callable[[str], None], terminated: list[int]) -> list[str]:
    optimiser = build_optimiser(run.model, run.optim, run.layer_decay)
    leads, processes = distributed.rank() == 0, distributed.size()
    first, failed = 0, dict[str, None]()  # a dict keeps the order of failure
    if leads and (state := load_checkpoint(folder, run.run_id, show)):
        run.model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["rng"])
        first, failed = state["step"], dict.fromkeys(state["failed"])
        show(f"{run.run_id}: continues at step {first} of {run.steps}")
    first, failed = distributed.told((first, failed))
    distributed.copied([*run.model.parameters(), *optimiser.tensors()])
    device = next(run.model.parameters()).device
    precision = torch.autocast(device.type, torch.bfloat16) if run.optim.precision == "bf16" else nullcontext()
    log_every = math.ceil(run.steps / LOGS)
    log = Log(folder / "log.jsonl", first, run.steps, run.optim.batch * run.repeats, show, run.run_id) if leads else None
    gradients, agreement = distributed.Gradients(run.model), distributed.Agreement()
    unreadable = list[tuple[int, str]]()  # with their steps, until all processes know
    saved_at = time.monotonic()
    run.model.train()

    batches = run.batches(first)
    for step in range(first, run.steps):
        if processes > 1:
            torch.manual_seed(clip_seed(run.seed, step, -3 - distributed.rank()))
        parts, names = next(batches)
        unreadable += [(step, name) for name in names]
        rate = learning_rate(step, run.steps, run.optim)
        set_learning_rate(optimiser, rate)
        optimiser.zero_grad()
        sums = dict[str, Tensor]()  # over parts and, at last, processes
        for number, part in enumerate(parts, 1):
            with precision:
                loss, extra = run.loss_of(part)
            share = len(parts) * processes
            with gradients.adding(last=number == len(parts)):
                (loss / share).backward()
            for name, value in {"loss": loss.detach(), **extra}.items():
                sums[name] = sums.get(name, torch.zeros((), device=device)) + value / share
        norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), run.optim.clip_grad or math.inf)

        last, late = step + 1 == run.steps, leads and time.monotonic() - saved_at >= checkpoint_s
        stop, save, found = agreement.on(terminated[0] if terminated else 0, late, bool(unreadable), now=last)
        due = bool(stop or save)
        if found or due:
            of_all = sorted(chain(*distributed.gathered(unreadable)), key=itemgetter(0))  # as one process would have met them
            failed |= dict.fromkeys(name for _, name in of_all)
            unreadable.clear()
            _check_failed(run, failed)
        if due or (step + 1) % log_every == 0 or last:
            mean = dict(zip(sums, distributed.summed(torch.stack([*sums.values()])).tolist()))
            if not math.isfinite(mean["loss"]) or not math.isfinite(norm.item()):
                raise UserError(
                    f"{run.run_id}: the loss is {mean['loss']} and its gradient's norm {norm.item()} at step {step} of {run.steps}; "
                    f"lower optim.lr (now {run.optim.lr}) or set optim.clip_grad, and run it again"
                )
            if log:
                log.write(step + 1, {"loss": mean.pop("loss"), "lr": rate, "grad_norm": norm.item()} | mean)
        optimiser.step()
        if due and leads:
            save_checkpoint(folder, _state(run, optimiser, step + 1, failed))
            saved_at = time.monotonic()
        if stop:
            distributed.everyone()  # the first to end would end rank 0 while it writes
            if leads:
                show(f"{run.run_id}: stopped at step {step + 1} of {run.steps}; run again to continue")
            sys.exit(128 + stop)
    return list(failed)


def _check_failed(run: Training, failed: dict[str, None]) -> None:
    if len(failed) > 0.01 * run.videos:
        raise UserError(
            f"{run.run_id}: {len(failed)} of {run.videos} training videos could not be read, more than 1 %: "
            f"{next(iter(failed))} first; restore them, or prepare the dataset again to leave them out"
        )


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
