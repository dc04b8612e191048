"""The training loop of pretraining and finetuning, from the first step to the last."""

import math
import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from mgm.console import show
from mgm.data.loader import Reading
from mgm.errors import UserError
from mgm.processes import STOPS
from mgm.rng import clip_seed
from mgm.spec import Finetune, Pretrain, RunOptions
from mgm.spec.compute import gpu_bytes, multiply_adds, passes
from mgm.training import distributed
from mgm.training.checkpoint import load_checkpoint, save_checkpoint
from mgm.training.log import TrainingLog
from mgm.training.optim import build_optimiser, learning_rate, steps_of

LOGGED = 100  # steps of a run that are logged, about
GRACE_S = 5  # that a stopped run still waits for a batch, to end its step
END_S = 120  # before its job's end, a run stops
ROOM = 0.85  # of a GPU's free memory, that a step may need by the estimate

# Per step, what the model's forward pass takes of this process's clips, on the device, and the
# batch on the host (`mgm.data.loader.training_batches`).
Batches = Generator[tuple[Sequence[Tensor], dict[str, Tensor]], None, None]


def train(
    spec: Pretrain | Finetune,
    model: nn.Module,
    videos: Sequence[str],
    batches: Callable[[int, Reading], Batches],
    folder: Path,
    options: RunOptions = RunOptions(),
) -> list[str]:
    """Train to the last step, from the last checkpoint. Return the videos that cannot be read.

    A stopped and continued run ends with bit-equal weights, on a CPU with the same number of
    threads: batches and random numbers depend only on the step, and a checkpoint holds all other
    state. SIGINT (Ctrl-C), SIGTERM, SIGUSR1 and SIGHUP (a closed terminal) finish the step, write a
    checkpoint and exit with 128 plus their number. The end of the run's job does what SIGTERM does
    (`_seconds_to_end`).

    Several processes train the same model by DistributedDataParallel. Losses and gradients are
    those of the whole batch, up to the order of float32 sums. Dropout and drop path draw by (seed,
    step, rank), and mixup and CutMix mix the clips of a rank. So weights with other numbers of
    processes are equal up to rounding, except for these draws.

    Args:
        model: on the device. Its forward pass returns the mean loss of clips, and numbers for the
            log.
        batches: yields the batches from a step on, and tells of their reading.
        videos: names of the training videos. At most 1 % of them may fail.

    Raises:
        UserError: the batch cannot be divided equally among processes and micro-batches, the loss
            is not finite, more than 1 % of the videos could not be read, or a GPU's memory is full.
        SystemExit: one of these signals came.

    Before any error but that of a loss, the steps that are done are saved. If another process on a
    GPU is lost, the last checkpoint counts, which is at most `options.checkpoint_s` old.
    """
    optim, steps = spec.optim, steps_of(spec.optim, len(videos))
    rank, processes, is_main = distributed.rank(), distributed.world_size(), distributed.is_main()
    least = options.accumulate or 1
    if optim.batch % (least * processes):
        raise UserError(
            f"--accumulate {least} times {processes} process(es) does not divide optim.batch "
            f"{optim.batch}"
        )
    log_every = math.ceil(steps / LOGGED)
    parameters = [x for x in model.parameters() if x.requires_grad]
    device = parameters[0].device
    parts = options.accumulate or micro_batches(spec, optim.batch // processes, device, options)
    if is_main and parts != least:
        show(f"{spec.run_id}: {parts} micro-batches per step fit the GPU's memory, by an estimate")
    bf16 = optim.precision == "bf16"
    precision = torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext()
    layer_decay = spec.layer_decay if isinstance(spec, Finetune) else 1.0
    optimiser = build_optimiser(model, optim, layer_decay)
    # The videos that failed, and why, in order.
    first, failures, reading = 0, dict[str, str](), Reading()

    # --- Restore the state of the last checkpoint ---
    state = distributed.of_main(load_checkpoint(folder, spec.run_id) if is_main else None)
    if state:
        first, failures = state["step"], state["failed"]
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        if is_main:
            show(f"{spec.run_id}: continues at step {first} of {steps}")
    # It is as large as the model and the optimiser.
    del state

    def save_at(step: int) -> None:
        made = {"model": model.state_dict(), "optimiser": optimiser.state_dict()}
        about = {"run_id": spec.run_id, "step": step, "failed": failures}
        save_checkpoint(folder, about | made)

    # --- Compile the model with its loss, and share gradients between processes ---
    model.train()
    step_of: Any = model
    if options.compiles(device.type):
        # By default it starts up to 32 processes, beside those that read videos.
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "8")
        # Dropout and drop path draw the same numbers as without compiling.
        step_of = torch.compile(model, dynamic=False, options={"fallback_random": True})
    if processes > 1:
        # It copies rank 0's weights to all processes. Buffers are constants.
        step_of = DistributedDataParallel(step_of, gradient_as_bucket_view=True)
        step_of.broadcast_buffers = False
        if options.bf16_gradients:
            step_of.register_comm_hook(None, bf16_compress_hook)
    # A multiply-add is two operations.
    flops = 2.0 * passes(spec) * multiply_adds(spec) / processes
    clips = optim.batch * spec.repeats
    log = TrainingLog(folder, spec.run_id, first, steps, clips, flops) if is_main else None

    saved_at = time.monotonic()
    with (
        _caught_signals() as stops,
        _advice(spec.run_id),
        closing(batches(first, reading)) as loader,
    ):
        for step in range(first, steps):
            # `torch.manual_seed` would format a stack for each kind of device that is not there.
            seed = clip_seed(spec.seed, step, -3 - rank)
            torch.default_generator.manual_seed(seed)
            if device.type == "cuda":
                torch.cuda.manual_seed(seed)
            try:
                # --- Data ---
                try:
                    stops.waiting = True
                    batch, host = next(loader)
                finally:
                    stops.waiting = False

                # --- Forward, loss, backward ---
                rate = learning_rate(step, steps, optim)
                for group in optimiser.param_groups:
                    group["lr"] = rate * group["lr_scale"]
                optimiser.zero_grad()
                computed = list[dict[str, Tensor]]()
                for micro_batch in zip(*(x.chunk(parts) for x in batch)):
                    # Processes exchange gradients after the last micro-batch.
                    last = len(computed) + 1 == parts
                    with nullcontext() if last or processes == 1 else step_of.no_sync():
                        with precision:
                            loss, numbers = step_of(*micro_batch)
                        (loss / parts).backward()
                    computed.append({"loss": loss.detach(), **numbers})

                # --- Clip gradients. No clipping is clipping to an infinite norm, which would turn
                # an infinite gradient into NaN everywhere. ---
                if optim.clip_grad:
                    norm = torch.nn.utils.clip_grad_norm_(parameters, optim.clip_grad)
                else:
                    gradients = [x.grad for x in parameters if x.grad is not None]
                    norm = torch.nn.utils.get_total_norm(gradients)

                # --- Agree with the other processes on what to do next ---
                lost = {videos[sample]: str(why) for sample, why in reading.failed.items()}
                reading.failed.clear()
                due = is_main and time.monotonic() - saved_at >= options.checkpoint_s
                stop, save, failed = distributed.largest(stops.number, due, bool(lost))
                if failed:
                    every = distributed.gather(lost)
                    lost = {name: why for own in every for name, why in own.items()}
                    _require_most(spec, failures | lost, len(videos))
            # Workers, another process, files or the GPU are gone, or the batch of a stopped run
            # does not come.
            except (Exception, SystemExit) as error:
                # The weights are still those of the step before. But a copy of them waits for NCCL,
                # which waits for a lost process.
                stuck = processes > 1 and device.type == "cuda" and isinstance(error, RuntimeError)
                if is_main and step > first and not stuck:
                    _save_anyway(save_at, step)
                # Of several processes that stop, one may end first, and the others lose it.
                gone = (SystemExit, RuntimeError) if processes > 1 else SystemExit
                if stops.number and isinstance(error, gone):
                    _say_stopped(spec.run_id, step, steps)
                    sys.exit(128 + stops.number)
                raise
            failures |= lost

            # --- Log. Only some steps read numbers, since reading waits for a GPU. ---
            due_log = (step + 1) % log_every == 0 or step + 1 == steps
            if stop or save or due_log:
                means = _means(computed, host)
                _require_finite(spec, step, steps, loss=means["loss"], gradient=norm.item())
                if log and due_log:
                    own = {"loss": means["loss"], "lr": rate, "grad_norm": norm.item()}
                    log.write(step + 1, own | means, reading.waited_s)
                    reading.waited_s = 0.0

            # --- Update the weights ---
            optimiser.step()

            # --- Save, stop ---
            if (stop or save) and is_main:
                save_at(step + 1)
                saved_at = time.monotonic()
            if stop:
                # Wait for all, since torchrun ends all processes when one has ended.
                distributed.barrier()
                _say_stopped(spec.run_id, step + 1, steps)
                sys.exit(128 + stop)
        # A bad weight shows in the next step's loss. After the last step there is none.
        largest = torch.stack([x.detach().abs().max() for x in parameters]).max()
        _require_finite(spec, steps, steps, largest_weight=largest.item())
    return list(failures)


def micro_batches(
    spec: Pretrain | Finetune, videos: int, device: torch.device, options: RunOptions
) -> int:
    """Return the fewest equal micro-batches of a step that fit the GPU's free memory; 1 on a CPU.

    Args:
        videos: per step and process.
    """
    if device.type != "cuda":
        return 1
    # The rest is for what the estimate leaves out: buffers of libraries, and gaps.
    room = ROOM * torch.cuda.mem_get_info(device)[0]
    divisors = [parts for parts in range(1, videos + 1) if videos % parts == 0]
    # The classifier's last layer is small.
    needs = (gpu_bytes(spec, videos * spec.repeats, n, 0, options.recompute) for n in divisors)
    fits = (n for n, need in zip(divisors, needs) if need <= room)
    return distributed.largest(next(fits, videos))[0]


def _means(computed: Sequence[dict[str, Tensor]], host: dict[str, Tensor]) -> dict[str, float]:
    """Return the means of numbers over equal micro-batches, and over all processes."""
    every = {name: torch.stack([one[name] for one in computed]) for name in computed[0]}
    means = {name: x.float().mean() for name, x in every.items()}
    if "guide_hidden_B" in host:
        means["coverage"] = host["guide_hidden_B"].mean().to(means["loss"].device)
    mean_N = distributed.mean_of(torch.stack(list(means.values())))
    return dict(zip(means, mean_N.tolist()))


# --- What ends a run early ---


def _save_anyway(save_at: Callable[[int], None], step: int) -> None:
    """Save a run that ends by an error. If that fails too, the first error counts."""
    try:
        save_at(step)
    except Exception as error:
        show(f"step {step} could not be saved: {error}")


def _require_most(spec: Pretrain | Finetune, failures: dict[str, str], videos: int) -> None:
    if len(failures) > 0.01 * videos:
        raise UserError(
            f"{spec.run_id}: {len(failures)} of {videos} training videos could not be read, more "
            f"than 1 %; the first: {next(iter(failures.values()))}"
        )


def _require_finite(spec: Pretrain | Finetune, step: int, steps: int, **numbers: float) -> None:
    if not all(map(math.isfinite, numbers.values())):
        values = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in numbers.items())
        raise UserError(
            f"{spec.run_id}: {values} at step {step} of {steps}; lower optim.lr (now "
            f"{spec.optim.lr}) or set optim.clip_grad"
        )


def _say_stopped(run_id: str, step: int, steps: int) -> None:
    # This file tells the workflow that the run was stopped and did not fail.
    if marker := os.environ.get("MGM_STOPPED"):
        Path(marker).touch()
    if distributed.is_main():
        show(f"{run_id}: stopped at step {step} of {steps}; run again to continue")


class _Stops:
    """The signal that stops the run: `number`, or 0. The end of the run's job is a SIGTERM.

    While `waiting` for a batch, the run ends `GRACE_S` seconds after the signal.
    """

    def __init__(self) -> None:
        self.number, self.waiting = 0, False

    def came(self, number: int, frame: Any) -> None:
        # One period of grace, however many signals.
        if not self.number:
            self.number = number
            signal.alarm(GRACE_S)

    def rang(self, number: int, frame: Any) -> None:
        if not self.number:
            self.came(signal.SIGTERM, frame)
        elif self.waiting:
            sys.exit(128 + self.number)
        else:
            # The step is computed, and may yet wait for the next batch.
            signal.alarm(1)


def _seconds_to_end() -> int:
    """Return the seconds until a run must stop for its job's end; 0 if the job has none.

    slurm/launch.sh says the end, since most clusters deliver no signal before it. A short job keeps
    three quarters of its time.
    """
    if not (end := os.environ.get("MGM_JOB_END")):
        return 0
    left = int(end) - time.time()
    return max(int(left - min(END_S, left / 4)), 1)


@contextmanager
def _caught_signals() -> Iterator[_Stops]:
    """Collect signals that stop a run during the block. Outside of it, they end the process."""
    stops = _Stops()
    before = {signal.SIGALRM: signal.signal(signal.SIGALRM, stops.rang)}
    signal.alarm(_seconds_to_end())
    for number in STOPS:
        # A shell lets its background jobs ignore the Ctrl-C of the command in front, and nohup
        # lets its program ignore a closed terminal.
        if signal.getsignal(number) != signal.SIG_IGN:
            before[number] = signal.signal(number, stops.came)
    try:
        yield stops
    finally:
        signal.alarm(0)
        for number, handler in before.items():
            signal.signal(number, handler)
    # The signal came after the last step had checked.
    if stops.number:
        sys.exit(128 + stops.number)


@contextmanager
def _advice(run_id: str) -> Iterator[None]:
    """Say what to do about a full memory of a GPU, and about a machine without a compiler."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        why = str(error).partition(". ")[0]
        raise UserError(
            f"{run_id}: {why}; raise --accumulate, which computes fewer clips at a time, or pass "
            "--recompute (under Snakemake: `execution` in the scale's or the study's file)"
        ) from error
    except RuntimeError as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{run_id}: torch.compile fails ({why}); install a C++ compiler, or pass --compile off"
        ) from error
