"""Communication between the processes of a run, by torch.distributed. A single process works too.

torchrun starts the processes, numbers them in their environment, ends all when one fails, and
reports the first that failed (`torch.distributed.elastic`). gloo on the host exchanges objects and
decisions. NCCL exchanges gradients of GPUs. So a decision does not synchronise the GPU.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from mgm.console import show
from mgm.errors import UserError
from mgm.processes import end_with

# The longest time that a process waits while another decodes or rank 0 writes.
TIMEOUT = timedelta(minutes=30)
LATE_S = 10  # seconds until a process says that it waits for the others

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

    A process that fails leaves without a farewell, which the others notice.

    Raises:
        UserError: the processes cannot connect, or a node has fewer GPUs than processes.
    """
    # A killed torchrun stops its processes, as a signal would.
    end_with(os.getppid(), signal.SIGTERM)
    # Connecting waits where Python handles no signal. A launcher may also ignore these.
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    waiting = threading.Timer(LATE_S, _say_waiting)
    waiting.daemon = True
    waiting.start()
    try:
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=TIMEOUT)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"torch.distributed: the processes cannot connect ({str(error).splitlines()[0]}); "
            "start them with torchrun"
        ) from error
    finally:
        waiting.cancel()
    # Training sets its own handlers.
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    _choose_gpu()
    yield
    barrier()
    dist.destroy_process_group()


def _say_waiting() -> None:
    about = [os.environ.get(name, "?") for name in ("RANK", "WORLD_SIZE")]
    place = ":".join(os.environ.get(name, "?") for name in ("MASTER_ADDR", "MASTER_PORT"))
    show(f"rank {about[0]} waits for {about[1]} processes to connect at {place}")


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
