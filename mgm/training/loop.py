"""The training loop of pretraining and finetuning, from the first step to the last."""

import math
import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mgm.errors import LostWorkers, UserError
from mgm.rng import clip_seed
from mgm.spec import Finetune, Pretrain, RunOptions
from mgm.spec.compute import multiply_adds, passes
from mgm.training import collectives
from mgm.training.checkpoint import load_checkpoint, save_checkpoint
from mgm.training.efficiency import faster
from mgm.training.log import TrainingLog
from mgm.training.optim import build_optimiser, learning_rate, set_learning_rate, steps_of

LOGGED = 100  # steps of a run that are logged, about
GRACE_S = 5  # that a stopped run still waits for a batch, to end its step

# Called with the seconds that a batch has been awaited for. It may raise an exception.
Waits = Callable[[float], None]
# `batches(first_step, waits)` yields, per step, what the model's forward pass takes of this
# process's clips, on the device, and the names of the videos that could not be read. `waits`: see
# `mgm.video.ring.read_batches`.
Batches = Callable[[int, Waits], Generator[tuple[Sequence[Tensor], Sequence[str]], None, None]]


def train(
    spec: Pretrain | Finetune,
    model: nn.Module,
    videos: int,
    batches: Batches,
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

    Args:
        model: on the device. Its forward pass returns the mean loss of clips, and numbers for the
            log.
        videos: number of training videos. At most 1 % of them may fail.

    Returns:
        The names of the videos that could not be read.

    Raises:
        UserError: the batch cannot be divided equally among processes and micro-batches, the loss
            is not finite, more than 1 % of the videos could not be read, or a GPU's memory is full.
        SystemExit: one of these signals came.
    """
    optim, steps, parts = spec.optim, steps_of(spec.optim, videos), options.accumulate
    processes, is_main = collectives.world_size(), collectives.is_main()
    if optim.batch % (parts * processes):
        raise UserError(
            f"--accumulate {parts} times {processes} process(es) does not divide optim.batch "
            f"{optim.batch}"
        )
    show = show if is_main else lambda line: None
    parameters = list(model.parameters())
    device = parameters[0].device
    bf16 = optim.precision == "bf16"
    precision = torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext()
    layer_decay = spec.layer_decay if isinstance(spec, Finetune) else 1.0
    repeats = spec.augment.repeats if isinstance(spec, Finetune) else spec.repeats
    log_every = math.ceil(steps / LOGGED)

    with (
        _caught_signals() as signals,
        _advice_on_memory(spec.run_id),
        faster(model, device, options, show, processes),
        ExitStack() as end,
    ):
        # --- Restore the state of the last checkpoint, or start at step 0 ---
        optimiser = build_optimiser(model, optim, layer_decay)
        # The videos that failed are the keys of a dict, in order.
        first, failures = 0, dict[str, None]()
        state = load_checkpoint(folder, spec.run_id, steps, show) if is_main else None
        if state := collectives.broadcast_object(state):
            first, failures = state["step"], dict.fromkeys(state["failed"])
            model.load_state_dict(state["model"])
            optimiser.load_state_dict(state["optimiser"])
            torch.set_rng_state(state["rng"])
            show(f"{spec.run_id}: continues at step {first} of {steps}")

        def save_at(step: int) -> None:
            state = {
                "run_id": spec.run_id,
                "step": step,
                "model": model.state_dict(),
                "optimiser": optimiser.state_dict(),
                "rng": torch.get_rng_state(),
                "failed": list(failures),
            }
            save_checkpoint(folder, state)

        parallel: Any = model
        if processes > 1:
            # It copies rank 0's weights to all processes. Without static_graph: with it, PyTorch
            # 2.15 queues its all-reduce inside no_sync too.
            parallel = DistributedDataParallel(model, gradient_as_bucket_view=True)
            # Buffers are constants. PyTorch 2.15 deprecates the argument of this name.
            parallel.broadcast_buffers = False
        log = None
        if is_main:
            # A multiply-add is two operations.
            flops = 2.0 * passes(spec) * multiply_adds(spec) / processes
            clips = optim.batch * repeats
            log = TrainingLog(folder, spec.run_id, first, steps, clips, show, flops)

        def waits(seconds: float) -> None:
            # A stopped run ends its step, unless the step's batch does not come.
            if signals and seconds > GRACE_S:
                sys.exit(128 + signals[0])

        loader = batches(first, waits)
        loader = end.enter_context(closing(log.timed(loader) if log else loader))
        unreadable = list[tuple[int, str]]()  # (step, name) that other processes do not know yet
        saved_at = time.monotonic()
        model.train()
        for step in range(first, steps):
            # A checkpoint holds the generator of the CPU alone.
            if processes > 1 or device.type != "cpu":
                torch.manual_seed(clip_seed(spec.seed, step, -3 - collectives.rank()))
            try:
                batch, unread = next(loader)
                unreadable += [(step, name) for name in unread]

                # --- Forward and backward ---
                rate = learning_rate(step, steps, optim)
                set_learning_rate(optimiser, rate)
                optimiser.zero_grad()
                computed = list[dict[str, Tensor]]()
                for micro_batch in zip(*(x.chunk(parts) for x in batch)):
                    # Processes exchange gradients after the last micro-batch.
                    last = len(computed) + 1 == parts
                    with nullcontext() if last or processes == 1 else parallel.no_sync():
                        with precision:
                            loss, numbers = parallel(*micro_batch)
                        (loss / parts).backward()
                    computed.append({"loss": loss.detach(), **numbers})
                if optim.clip_grad:
                    norm = torch.nn.utils.clip_grad_norm_(parameters, optim.clip_grad)
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
                    save_at(step)
                if isinstance(error, SystemExit):
                    _say_stopped(spec.run_id, step, steps, show)
                raise
            if failed:
                of_all = chain(*collectives.all_gather_object(unreadable))
                # Sort by step, as a single process would find them.
                failures |= dict.fromkeys(name for _, name in sorted(of_all, key=itemgetter(0)))
                unreadable.clear()
                if len(failures) > 0.01 * videos:
                    raise UserError(
                        f"{spec.run_id}: {len(failures)} of {videos} training videos could not be "
                        f"read, more than 1 %: {next(iter(failures))} first"
                    )

            # --- Log. Only some steps read numbers, since reading waits for a GPU. ---
            if stop or save or (step + 1) % log_every == 0 or step + 1 == steps:
                means = _means(computed)
                _require_finite(spec, step, steps, loss=means["loss"], gradient=norm.item())
                if log:
                    own = {"loss": means["loss"], "lr": rate, "grad_norm": norm.item()}
                    log.write(step + 1, own | means)

            # --- Update the weights, save, stop ---
            optimiser.step()
            if (stop or save) and is_main:
                save_at(step + 1)
                saved_at = time.monotonic()
            if stop:
                # Wait for all, since torchrun ends all processes when one has ended.
                collectives.barrier()
                _say_stopped(spec.run_id, step + 1, steps, show)
                sys.exit(128 + stop)
        # A bad weight shows in the next step's loss. After the last step there is none.
        largest = torch.stack([x.detach().abs().max() for x in parameters]).max()
        _require_finite(spec, steps, steps, largest_weight=largest.item())
    return list(failures)


def _means(computed: Sequence[dict[str, Tensor]]) -> dict[str, float]:
    """Return the means of numbers over equal micro-batches, and over all processes."""
    count = len(computed) * collectives.world_size()
    sums = torch.stack([torch.stack([x / count for x in one.values()]) for one in computed]).sum(0)
    return dict(zip(computed[0], collectives.all_reduce(sums).tolist()))


# --- What ends a run early ---


def _require_finite(spec: Pretrain | Finetune, step: int, steps: int, **numbers: float) -> None:
    if not all(map(math.isfinite, numbers.values())):
        values = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in numbers.items())
        raise UserError(
            f"{spec.run_id}: {values} at step {step} of {steps}; lower optim.lr (now "
            f"{spec.optim.lr}) or set optim.clip_grad"
        )


def _say_stopped(run_id: str, step: int, steps: int, show: Callable[[str], None]) -> None:
    # This file tells the workflow that the run was stopped and did not fail.
    if (marker := os.environ.get("MGM_STOPPED")) and collectives.is_main():
        Path(marker).touch()
    show(f"{run_id}: stopped at step {step} of {steps}; run again to continue")


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
