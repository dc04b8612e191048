"""The processes of a run, by torch.distributed. A single process works too.

torchrun starts the processes, numbers them in their environment, ends all when one fails, and
reports the first that failed. gloo on the host exchanges objects and decisions, NCCL the gradients
of GPUs. So a decision does not synchronise the GPU.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from mgm.device import best_device
from mgm.errors import UserError

# The longest time that a process waits while another reads or rank 0 writes.
TIMEOUT = timedelta(minutes=30)
# What to do where a host has several networks, or its name an address of its own.
NETWORK = "name the nodes' network, as in `ip addr`, by GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME"

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
    """Join the processes that torchrun started, if any, with one GPU each, inside the block.

    A process that fails leaves without a farewell, which the others notice.
    """
    if int(os.environ.get("WORLD_SIZE") or 1) == 1:
        yield
        return
    # A killed torchrun stops its processes, as a signal would.
    torch.multiprocessing._prctl_pr_set_pdeathsig(signal.SIGTERM)  # type: ignore[attr-defined]
    # Connecting waits where Python handles no signal. A launcher may also ignore these.
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    gpus = torch.cuda.device_count() if best_device().type == "cuda" else 0
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=TIMEOUT)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"torch.distributed: the processes cannot connect ({str(error).splitlines()[0]}); "
            f"start them with torchrun; on several nodes, {NETWORK}"
        ) from error
    # Training sets its own handlers.
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    if gpus:
        local_rank = int(os.environ["LOCAL_RANK"])
        if local_rank >= gpus:
            raise UserError(f"the node has {gpus} GPUs; start one process per GPU")
        torch.cuda.set_device(local_rank)
    try:
        yield
    except dist.DistBackendError as error:
        why = str(error).splitlines()[0]
        raise UserError(
            f"NCCL: {why}; see whether another process failed first, or on several nodes {NETWORK}"
        ) from error
    barrier()
    dist.destroy_process_group()


def barrier() -> None:
    """Wait until all processes have called this function."""
    gather(None)


def gather(value: T) -> list[T]:
    """Return the objects of all processes, by rank."""
    if not dist.is_initialized():
        return [value]
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def of_main(value: T) -> T:
    """Return rank 0's object, with its tensors on the CPU. Those of other ranks do not count."""
    if not dist.is_initialized():
        return value
    # First without the contents of tensors, which have no copy then.
    sent: list[Any] = [tree_map(_bare, value)]
    dist.broadcast_object_list(sent, device=torch.device("cpu"))
    received = value if is_main() else tree_map(_empty, sent[0])
    for tensor in tree_leaves(received):
        if isinstance(tensor, Tensor):
            dist.broadcast(tensor, 0)
    return received


def _bare(value: Any) -> Any:
    return value.to("meta") if isinstance(value, Tensor) else value


def _empty(value: Any) -> Any:
    return torch.empty_like(value, device="cpu") if isinstance(value, Tensor) else value


def mean_of(tensor: Tensor) -> Tensor:
    """Return a tensor's mean over all processes. The tensor itself becomes the sum."""
    if not dist.is_initialized():
        return tensor
    dist.all_reduce(tensor)
    return tensor / dist.get_world_size()


def largest(*values: int) -> list[int]:
    """Return the maximum of each number over all processes."""
    if not dist.is_initialized():
        return [*values]
    numbers = torch.tensor(values)
    dist.all_reduce(numbers, dist.ReduceOp.MAX)
    return numbers.tolist()
