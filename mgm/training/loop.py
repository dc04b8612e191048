"""The training loop, for pretraining and finetuning alike."""

import math
import os
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
from mgm.spec import Optim, RunOptions
from mgm.training import collectives
from mgm.training.checkpoint import load_checkpoint, save_checkpoint
from mgm.training.compiling import block_compiler
from mgm.training.memory import recomputed, set_malloc_options, wrapped_blocks
from mgm.training.optim import (
    Optimiser,
    build_optimiser,
    learning_rate,
    set_learning_rate,
    share_state,
)
from mgm.training.train_log import Log

LOGS = 100  # lines a run's log has, about


@dataclass(frozen=True)
class Training:
    """A training run.

    `batches(first_step)` yields, a step, the equal parts of this process's share of its batch and
    the names of the videos in it that could not be read; `loss_of(part)` is a part's mean loss and
    what to log beside it.
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
    run: Training,
    folder: Path,
    options: RunOptions = RunOptions(),
    show: Callable[[str], None] = print,
) -> list[str]:
    """Train to the last step, from the last checkpoint if there is one. Returns the names of the
    videos that could not be read.

    Stopped at any step and run again, the weights are bit-equal to an uninterrupted run's (on the
    CPU, same threads): batches are a function of the step, and a checkpoint holds all other state.
    SIGTERM (the end of a time limit) and SIGUSR1 (its warning, where Slurm
    is asked for one: `--signal=USR1@60`) stop it after the step with a checkpoint; what exit
    statuses mean is in `mgm.errors`.

    Several processes (`mgm.training.collectives`) train one model by DistributedDataParallel:
    losses and gradients are those of the whole batch but for the order of float32 sums, and all
    agree on when to stop. Stopped and run again, on as many processes or others, they end with the
    same weights to rounding, but for the draws of dropout and drop path on another number. Those
    draw by (seed, step, rank), so that no process has a state to keep; a process on its own draws
    from one stream, which its checkpoint holds.

    Raises:
        UserError: the loss is not finite, more than 1 % of the clips could not be read, or a GPU is
            full.
        SystemExit: SIGTERM or SIGUSR1 came.
    """
    device = next(run.model.parameters()).device
    if device.type == "cpu":
        set_malloc_options()
    compiled = block_compiler(
        options.compile, device, show if collectives.is_main() else lambda line: None
    )
    wraps = [wrap for wrap in (compiled, recomputed if options.recompute else None) if wrap]
    with _catch_signals() as signals, wrapped_blocks(run.model, *wraps):
        try:
            return _train(run, folder, options, show, signals)
        except torch.OutOfMemoryError as error:
            why = str(error).partition(". ")[0]
            raise UserError(
                f"{run.run_id}: {why}; raise --accumulate, so that fewer clips are computed at a time, or pass --recompute"
            ) from error


class _Loss(nn.Module):
    """A step's loss as a module, so that DistributedDataParallel sees the whole forward pass."""

    def __init__(self, run: Training):
        super().__init__()
        self.model, self.loss_of = run.model, run.loss_of

    def forward(self, part: Any) -> tuple[Tensor, dict[str, Tensor]]:
        return self.loss_of(part)


def _parallel(loss: nn.Module, bf16_gradients: bool) -> nn.Module:
    """Average the gradients of all processes in the backward pass.

    Without `static_graph`: with it, PyTorch 2.15 queues its all-reduce inside `no_sync` too, which
    accumulation needs.
    """
    if collectives.world_size() == 1:
        return loss
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
    from torch.nn.parallel import DistributedDataParallel

    parallel = DistributedDataParallel(loss, gradient_as_bucket_view=True)
    if bf16_gradients:
        parallel.register_comm_hook(None, bf16_compress_hook)
    return parallel


def _train(
    run: Training,
    folder: Path,
    options: RunOptions,
    show: Callable[[str], None],
    signals: list[int],
) -> list[str]:
    optimiser = build_optimiser(run.model, run.optim, run.layer_decay)
    is_main, processes = collectives.is_main(), collectives.world_size()
    first, failures = 0, dict[str, None]()  # a dict keeps the order of failure
    if is_main and (state := load_checkpoint(folder, run.run_id, show)):
        run.model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["rng"])
        first, failures = state["step"], dict.fromkeys(state["failed"])
        show(f"{run.run_id}: continues at step {first} of {run.steps}")
    first, failures = collectives.broadcast_object((first, failures))
    share_state(optimiser)
    loss_module = _parallel(
        _Loss(run), options.bf16_gradients
    )  # copies the model's weights of rank 0
    no_sync = getattr(loss_module, "no_sync", nullcontext)
    device = next(run.model.parameters()).device
    precision = (
        torch.autocast(device.type, torch.bfloat16)
        if run.optim.precision == "bf16"
        else nullcontext()
    )
    log_every = math.ceil(run.steps / LOGS)
    log = (
        Log(folder / "log.jsonl", first, run.steps, run.optim.batch * run.repeats, show, run.run_id)
        if is_main
        else None
    )
    unreadable = list[tuple[int, str]]()  # with their steps, until all processes know
    saved_at = time.monotonic()
    run.model.train()

    batches = run.batches(first)
    for step in range(first, run.steps):
        if processes > 1:
            torch.manual_seed(clip_seed(run.seed, step, -3 - collectives.rank()))
        parts, names = next(batches)
        unreadable += [(step, name) for name in names]
        rate = learning_rate(step, run.steps, run.optim)
        set_learning_rate(optimiser, rate)
        optimiser.zero_grad()
        sums = dict[str, Tensor]()  # over parts and, when logged, processes
        for number, part in enumerate(parts, 1):
            with no_sync() if number < len(parts) else nullcontext():
                with precision:
                    loss, extra = loss_module(part)
                (loss / len(parts)).backward()
            for name, value in {"loss": loss.detach(), **extra}.items():
                sums[name] = sums.get(name, torch.zeros((), device=device)) + value / (
                    len(parts) * processes
                )
        norm = torch.nn.utils.clip_grad_norm_(
            run.model.parameters(), run.optim.clip_grad or math.inf
        )

        last, checkpoint_due = (
            step + 1 == run.steps,
            is_main and time.monotonic() - saved_at >= options.checkpoint_s,
        )
        stop, save, failed = collectives.all_reduce_max(
            signals[0] if signals else 0, checkpoint_due, bool(unreadable)
        )
        save_now = bool(stop or save)
        if failed:
            of_all = sorted(
                chain(*collectives.all_gather_object(unreadable)), key=itemgetter(0)
            )  # as one process would have met them
            failures |= dict.fromkeys(name for _, name in of_all)
            unreadable.clear()
            if len(failures) > 0.01 * run.videos:
                raise UserError(
                    f"{run.run_id}: {len(failures)} of {run.videos} training videos could not be read, more than 1 %: "
                    f"{next(iter(failures))} first; restore them, or prepare the dataset again to leave them out"
                )
        if save_now or (step + 1) % log_every == 0 or last:
            mean = dict(zip(sums, collectives.all_reduce(torch.stack([*sums.values()])).tolist()))
            if not math.isfinite(mean["loss"]) or not math.isfinite(norm.item()):
                raise UserError(
                    f"{run.run_id}: the loss is {mean['loss']} and its gradient's norm {norm.item()} at step {step} of {run.steps}; "
                    f"lower optim.lr (now {run.optim.lr}) or set optim.clip_grad, and run it again"
                )
            if log:
                log.write(
                    step + 1,
                    {"loss": mean.pop("loss"), "lr": rate, "grad_norm": norm.item()} | mean,
                )
        optimiser.step()
        if save_now and is_main:
            save_checkpoint(folder, _state(run, optimiser, step + 1, failures))
            saved_at = time.monotonic()
        if stop:
            collectives.barrier()  # torchrun ends all others once one has ended
            if is_main:
                if marker := os.environ.get("MGM_STOPPED"):
                    Path(marker).touch()
                show(
                    f"{run.run_id}: stopped at step {step + 1} of {run.steps}; run again to continue"
                )
            sys.exit(128 + stop)
    return list(failures)


@contextmanager
def _catch_signals() -> Iterator[list[int]]:
    """Collect the SIGTERMs and SIGUSR1s that come during the block.

    Outside of training both end a process at once.
    """
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: came.append(number))
        for number in (signal.SIGTERM, signal.SIGUSR1)
    }
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:  # after the last step's look
        sys.exit(128 + came[0])


def _state(
    run: Training, optimiser: Optimiser, step: int, failures: dict[str, None]
) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "step": step,
        "model": run.model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "rng": torch.get_rng_state(),
        "failed": list(failures),
    }
