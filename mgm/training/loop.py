"""The training loop of pretraining and finetuning, from the first step to the last."""

import math
import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mgm.errors import LostWorkers, UserError
from mgm.rng import clip_seed
from mgm.spec import Optim, RunOptions
from mgm.training import collectives
from mgm.training.checkpoint import load_checkpoint, save_checkpoint
from mgm.training.efficiency import faster
from mgm.training.log import TrainingLog
from mgm.training.optim import build_optimiser, learning_rate, set_learning_rate

LOGGED = 100  # steps of a run that are logged, about
GRACE_S = 5  # that a stopped run still waits for a batch, to end its step

Numbers = Callable[[], dict[str, Tensor]]
# Called with the seconds that a batch has been awaited for. It may raise an exception.
Waits = Callable[[float], None]


@dataclass(frozen=True)
class TrainingRun:
    """A training run.

    Args:
        batches: `batches(first_step, waits)` yields, per step, this process's batch on the device,
            and the names of its videos that could not be read. `waits`: see
            `mgm.video.ring.read_batches`.
        loss_of: returns the mean loss of clips of the batch, and a function that computes further
            numbers. It is called only at steps that are logged.
        videos: number of training videos. At most 1 % of them may fail.
        repeats: clips per video of a batch, for the log's clips per second.
        seed: the run's seed.
        flops: of a clip's step, for the log's MFU. 0: unknown.
    """

    run_id: str
    model: nn.Module
    optim: Optim
    steps: int
    videos: int
    batches: Callable[[int, Waits], Generator[tuple[Any, Sequence[str]], None, None]]
    loss_of: Callable[[Any], tuple[Tensor, Numbers]]
    layer_decay: float = 1.0
    repeats: int = 1
    seed: int = 0
    flops: float = 0.0


def train(
    run: TrainingRun,
    folder: Path,
    options: RunOptions = RunOptions(),
    show: Callable[[str], None] = print,
) -> list[str]:
    """Train to the last step, from the last checkpoint if there is one.

    A stopped and continued run ends with bit-equal weights, on a CPU with the same number of
    threads: batches depend only on the step, and a checkpoint holds all other state. SIGINT
    (Ctrl-C), SIGTERM (the end of a time limit) and SIGUSR1 (Slurm's warning before it:
    `--signal=USR1@60`) finish the step, write a checkpoint and exit with 128 plus their number.

    Several processes train the same model by DistributedDataParallel. Losses and gradients are
    those of the whole batch, up to the order of float32 sums. Dropout and drop path of several
    processes, and on a GPU, draw by (seed, step, rank), and mixup and CutMix mix the clips of a
    rank. A single process on a CPU draws from a stream that its checkpoint holds. So weights with
    other numbers of processes are equal up to rounding, except for these draws.

    Returns:
        The names of the videos that could not be read.

    Raises:
        UserError: the batch cannot be divided equally among processes and micro-batches, the loss
            is not finite, more than 1 % of the videos could not be read, or a GPU's memory is full.
        SystemExit: one of these signals came.
    """
    processes, is_main, parts = collectives.world_size(), collectives.is_main(), options.accumulate
    _require_equal_parts(run, parts * processes)
    show = show if is_main else lambda line: None
    parameters = list(run.model.parameters())
    device = parameters[0].device
    log_every = math.ceil(run.steps / LOGGED)
    bf16 = run.optim.precision == "bf16"
    precision = torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext()

    with (
        _caught_signals() as signals,
        _advice_on_memory(run.run_id),
        faster(run.model, device, options, show, processes),
        ExitStack() as end,
    ):
        # --- Restore the state of the last checkpoint, or start at step 0 ---
        optimiser = build_optimiser(run.model, run.optim, run.layer_decay)
        first, failures = _restore(run, optimiser, folder, show)
        # DistributedDataParallel copies rank 0's weights to all processes.
        loss_module = _parallel(_Loss(run))
        clips = run.optim.batch * run.repeats
        log = None
        if is_main:
            how = clips, show, run.flops / processes
            log = TrainingLog(folder, run.run_id, first, run.steps, *how)

        def waits(seconds: float) -> None:
            # A stopped run ends its step, unless the step's batch does not come.
            if signals and seconds > GRACE_S:
                sys.exit(128 + signals[0])

        batches = run.batches(first, waits)
        batches = end.enter_context(closing(log.timed(batches) if log else batches))
        unreadable = list[tuple[int, str]]()  # (step, name) that other processes do not know yet
        saved_at = time.monotonic()
        run.model.train()
        for step in range(first, run.steps):
            # A checkpoint holds the generator of the CPU alone.
            if processes > 1 or device.type != "cpu":
                torch.manual_seed(clip_seed(run.seed, step, -3 - collectives.rank()))
            try:
                batch, unread = next(batches)
                unreadable += [(step, name) for name in unread]

                # --- Backward ---
                rate = learning_rate(step, run.steps, run.optim)
                set_learning_rate(optimiser, rate)
                optimiser.zero_grad()
                micro_batch = clips // parts // processes
                computed = _backward(loss_module, batch, parts, micro_batch, precision)
                if run.optim.clip_grad:
                    norm = torch.nn.utils.clip_grad_norm_(parameters, run.optim.clip_grad)
                else:
                    # Clipping to an infinite norm would turn an infinite gradient into NaN
                    # everywhere.
                    gradients = [x.grad for x in parameters if x.grad is not None]
                    norm = torch.nn.utils.get_total_norm(gradients)

                # --- Agree with the other processes on what to do next ---
                due = is_main and time.monotonic() - saved_at >= options.checkpoint_s
                stop, save, failed = collectives.all_reduce_max(
                    signals[0] if signals else 0, due, bool(unreadable)
                )
            # Workers or another process are gone, or the batch of a stopped run does not come.
            except (LostWorkers, RuntimeError, SystemExit) as error:
                # The weights are still those of the step before.
                if is_main and step > first:
                    save_checkpoint(folder, _state(run, optimiser, step, failures))
                if isinstance(error, SystemExit):
                    _say_stopped(run, step, show)
                raise
            if failed:
                of_all = chain(*collectives.all_gather_object(unreadable))
                # Sort by step, as a single process would find them.
                failures |= dict.fromkeys(name for _, name in sorted(of_all, key=itemgetter(0)))
                unreadable.clear()
                _require_few_failures(run, failures)

            # --- Log. Only some steps read numbers, since reading waits for a GPU. ---
            if stop or save or (step + 1) % log_every == 0 or step + 1 == run.steps:
                with torch.no_grad(), precision:
                    loss, means = _means(computed)
                _require_finite(run, step, loss=loss, gradient=norm.item())
                if log:
                    numbers = {"loss": loss, "lr": rate, "grad_norm": norm.item()}
                    log.write(step + 1, numbers | means)

            # --- Update the weights, save, stop ---
            optimiser.step()
            if (stop or save) and is_main:
                save_checkpoint(folder, _state(run, optimiser, step + 1, failures))
                saved_at = time.monotonic()
            if stop:
                # Wait for all, since torchrun ends all processes when one has ended.
                collectives.barrier()
                _say_stopped(run, step + 1, show)
                sys.exit(128 + stop)
        # A bad weight shows in the next step's loss. After the last step there is none.
        largest = torch.stack([x.detach().abs().max() for x in parameters]).max()
        _require_finite(run, run.steps, largest_weight=largest.item())
    return list(failures)


def _backward(
    loss_module: nn.Module, batch: Any, parts: int, clips: int, precision: Any
) -> list[tuple[Tensor, Numbers]]:
    """Add up the gradients of each micro-batch of `clips`. Return the losses and more numbers."""
    computed = list[tuple[Tensor, Numbers]]()
    no_sync = getattr(loss_module, "no_sync", nullcontext)
    for number in range(parts):
        micro_batch = batch.map(itemgetter(slice(number * clips, (number + 1) * clips)))
        # Processes exchange gradients after the last micro-batch.
        with nullcontext() if number + 1 == parts else no_sync():
            with precision:
                loss, numbers = loss_module(micro_batch)
            (loss / parts).backward()
        computed.append((loss.detach(), numbers))
    return computed


def _means(computed: Sequence[tuple[Tensor, Numbers]]) -> tuple[float, dict[str, float]]:
    """Return the mean loss and the means of the further numbers, over all processes."""
    found = [{"loss": loss, **numbers()} for loss, numbers in computed]
    count = len(found) * collectives.world_size()
    sums = torch.stack([torch.stack([x / count for x in one.values()]) for one in found]).sum(0)
    loss, *others = collectives.all_reduce(sums).tolist()
    return loss, dict(zip([*found[0]][1:], others))


# --- State, and what several processes share ---


def _restore(
    run: TrainingRun,
    optimiser: torch.optim.Optimizer,
    folder: Path,
    show: Callable[[str], None],
) -> tuple[int, dict[str, None]]:
    """Load the newest checkpoint.

    Returns:
        The first step, and the videos that failed before it, as the keys of a dict in order.
    """
    state = load_checkpoint(folder, run.run_id, run.steps, show) if collectives.is_main() else None
    if not (state := collectives.broadcast_object(state)):
        return 0, {}
    run.model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    torch.set_rng_state(state["rng"])
    show(f"{run.run_id}: continues at step {state['step']} of {run.steps}")
    return state["step"], dict.fromkeys(state["failed"])


def _state(
    run: TrainingRun, optimiser: torch.optim.Optimizer, step: int, failures: dict[str, None]
) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "step": step,
        "model": run.model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "rng": torch.get_rng_state(),
        "failed": list(failures),
    }


class _Loss(nn.Module):
    """The loss as a module, so that DistributedDataParallel sees the whole forward pass."""

    def __init__(self, run: TrainingRun):
        super().__init__()
        self.model, self.loss_of = run.model, run.loss_of

    def forward(self, micro_batch: Any) -> tuple[Tensor, Numbers]:
        return self.loss_of(micro_batch)


def _parallel(loss: nn.Module) -> nn.Module:
    """Average the gradients of all processes in the backward pass."""
    if collectives.world_size() == 1:
        return loss
    # Without static_graph: with it, PyTorch 2.15 queues its all-reduce inside no_sync too.
    parallel = DistributedDataParallel(loss, gradient_as_bucket_view=True)
    # Buffers are constants. PyTorch 2.15 deprecates the argument of this name.
    parallel.broadcast_buffers = False
    return parallel


# --- What ends a run early ---


def _require_equal_parts(run: TrainingRun, parts: int) -> None:
    if run.optim.batch % parts:
        processes = collectives.world_size()
        raise UserError(
            f"--accumulate {parts // processes} times {processes} process(es) does not divide "
            f"optim.batch {run.optim.batch}"
        )


def _require_few_failures(run: TrainingRun, failures: dict[str, None]) -> None:
    if len(failures) > 0.01 * run.videos:
        raise UserError(
            f"{run.run_id}: {len(failures)} of {run.videos} training videos could not be read, "
            f"more than 1 %: {next(iter(failures))} first"
        )


def _require_finite(run: TrainingRun, step: int, **numbers: float) -> None:
    if not all(map(math.isfinite, numbers.values())):
        values = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in numbers.items())
        raise UserError(
            f"{run.run_id}: {values} at step {step} of {run.steps}; lower optim.lr (now "
            f"{run.optim.lr}) or set optim.clip_grad"
        )


def _say_stopped(run: TrainingRun, step: int, show: Callable[[str], None]) -> None:
    # This file tells the workflow that the run was stopped and did not fail.
    if (marker := os.environ.get("MGM_STOPPED")) and collectives.is_main():
        Path(marker).touch()
    show(f"{run.run_id}: stopped at step {step} of {run.steps}; run again to continue")


@contextmanager
def _caught_signals() -> Iterator[list[int]]:
    """Collect signals that stop a run during the block. Outside of it, they end the process."""
    came: list[int] = []
    caught = [signal.SIGTERM, signal.SIGUSR1]
    # A shell lets its background jobs ignore the Ctrl-C of the command in front.
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        caught.append(signal.SIGINT)
    before = {
        number: signal.signal(number, lambda number, frame: came.append(number))
        for number in caught
    }
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    # The signal came after the last step had checked.
    if came:
        sys.exit(128 + came[0])


@contextmanager
def _advice_on_memory(run_id: str) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        why = str(error).partition(". ")[0]
        raise UserError(
            f"{run_id}: {why}; raise --accumulate, which computes fewer clips at a time, or pass "
            "--recompute (under Snakemake: `execution` in the scale's or the study's file)"
        ) from error
