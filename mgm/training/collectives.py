"""Communication between the processes of a run, by torch.distributed. A single process works too.

torchrun starts the processes, numbers them in their environment, and ends all when one fails. gloo
on the host exchanges objects and decisions. NCCL exchanges gradients of GPUs. So a decision does
not synchronise the GPU.
"""

import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from mgm.errors import UserError, as_user_error
from mgm.processes import end_with

# The longest time that a process waits while another decodes or rank 0 writes.
TIMEOUT = timedelta(minutes=30)

T = TypeVar("T")


def rank() -> int:
    """Return this process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Return True on rank 0, and in a single process. Only rank 0 writes files and messages."""
    return rank() == 0


@contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that torchrun started, with one GPU each, inside the `with` statement.

    The first process that fails prints the reason. The others end silently.

    Raises:
        UserError: the processes cannot connect, or a node has fewer GPUs than processes.
    """
    # A killed torchrun stops its processes, as a signal would.
    end_with(os.getppid(), signal.SIGTERM)
    # Set handlers, since a launcher may ignore these signals. Training sets its own.
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    try:
        store, own_rank, size = next(dist.rendezvous("env://", timeout=TIMEOUT))
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
            store=store,
            rank=own_rank,
            world_size=size,
            timeout=TIMEOUT,
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"torch.distributed: the processes cannot connect ({str(error).splitlines()[0]}); "
            "start them with torchrun"
        ) from error
    try:
        _choose_gpu()
        yield
        barrier()
    except BaseException as error:
        _say_why(error, store)
        # Exit immediately, since a group that lost a process cannot be destroyed.
        os._exit(_exit_status(error))
    dist.destroy_process_group()


def _exit_status(error: BaseException) -> int:
    if as_user_error(error):
        return 2
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code
    return 1


def _choose_gpu() -> None:
    if not torch.cuda.is_available():
        return
    local_rank, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local_rank >= gpus:
        raise UserError(
            f"--nproc-per-node {os.environ['LOCAL_WORLD_SIZE']}: the node has {gpus} GPUs; "
            "start one process per GPU"
        )
    torch.cuda.set_device(local_rank)


def is_peer_loss(error: BaseException) -> bool:
    """Return whether an error means that another process of the run has ended.

    Then the run can be continued, as after any kill.
    """
    if world_size() == 1:
        return False
    # gloo raises a plain RuntimeError.
    gone = re.search(r"gloo|NCCL|Connection (closed|reset)|peer", str(error))
    return isinstance(error, dist.DistError) or (type(error) is RuntimeError and gone is not None)


def _say_why(error: BaseException, store: dist.Store) -> None:
    """Print why the run ends, unless another process has printed it, or a signal ends all."""
    # The store does not exist if torchrun has ended.
    with suppress(RuntimeError):
        if not isinstance(error, Exception) or store.add("failed", 1) > 1:
            return
    if is_peer_loss(error):
        why = str(error).splitlines()[0][:200]
        line = f"mgm: another process of this run is gone, so rank {rank()} ends ({why}); run again"
    elif known := as_user_error(error):
        line = f"mgm: {known}"
    else:
        line = "".join(traceback.format_exception(error)).rstrip()
    print(line, file=sys.stderr, flush=True)


def barrier() -> None:
    """Wait until all processes have called this function."""
    all_gather_object(None)


def all_gather_object(value: T) -> list[T]:
    """Return the objects of all processes, by rank."""
    if world_size() == 1:
        return [value]
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def broadcast_object(value: T) -> T:
    """Return rank 0's object."""
    if world_size() == 1:
        return value
    box: list[Any] = [value]
    dist.broadcast_object_list(box, 0)
    return box[0]


def all_reduce(tensor: Tensor) -> Tensor:
    """Replace a tensor by its sum over all processes."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def all_reduce_max(*values: int) -> list[int]:
    """Return the maximum of each number over all processes."""
    if world_size() == 1:
        return [*values]
    numbers = torch.tensor(values)
    dist.all_reduce(numbers, dist.ReduceOp.MAX)
    return numbers.tolist()
