"""What several processes of one run exchange: thin names over torch.distributed that also work in a
process on its own.

torchrun starts the processes, says in their environment which is which, and ends all of them when
one fails. Objects and decisions travel by gloo on the host, gradients by NCCL where they are on a
GPU, so that a decision costs the GPU no synchronisation.
"""

import os
import re
import signal
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from mgm.errors import UserError, as_user_error

TIMEOUT = timedelta(minutes=30)  # for the slowest to decode its share, or for rank 0 to write

T = TypeVar("T")


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """True on rank 0, which alone writes and speaks, and in a process on its own."""
    return rank() == 0


@contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that torchrun started for the block, one GPU each. The first to fail says
    why; the others end silently.

    Raises:
        UserError: the processes do not meet, or are more than the GPUs of their node.
        SystemExit: something failed in the block.
    """
    for number in (
        signal.SIGTERM,
        signal.SIGUSR1,
    ):  # training has its own handler; a launcher may have had them ignored
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
            f"torch.distributed: the processes did not meet ({str(error).splitlines()[0]}); start them by torchrun"
        ) from error
    try:
        _choose_gpu()
        yield
        barrier()
    except BaseException as error:
        _say_why(error, store)
        code = (
            error.code
            if isinstance(error, SystemExit)
            else 130
            if isinstance(error, KeyboardInterrupt)
            else 1
        )
        os._exit(
            2 if as_user_error(error) else code if isinstance(code, int) else 1
        )  # a group that lost a process cannot be destroyed
    dist.destroy_process_group()


def _choose_gpu() -> None:
    if not torch.cuda.is_available():
        return
    local_rank, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local_rank >= gpus:
        raise UserError(
            f"--nproc-per-node {os.environ['LOCAL_WORLD_SIZE']}: the node has {gpus} GPUs; start one process for each GPU"
        )
    torch.cuda.set_device(local_rank)


def is_peer_loss(error: BaseException) -> bool:
    """Tell the error of a process whose peer is gone:

    gloo raises a plain RuntimeError. The run itself is as whole as after any kill.
    """
    if world_size() == 1:
        return False
    gone = re.search(r"gloo|NCCL|Connection (closed|reset)|peer", str(error))
    return isinstance(error, dist.DistError) or (type(error) is RuntimeError and gone is not None)


def _say_why(error: BaseException, store: dist.Store) -> None:
    """Print why the run ends, unless another process has done so, or all were told to."""
    with suppress(RuntimeError):  # the store is gone when torchrun is
        if not isinstance(error, Exception) or store.add("failed", 1) > 1:
            return
    if is_peer_loss(error):
        line = f"mgm: another process of this run is gone, so rank {rank()} ends ({str(error).splitlines()[0][:200]}); run again"
    elif known := as_user_error(error):
        line = f"mgm: {known}"
    else:
        line = "".join(traceback.format_exception(error)).rstrip()
    print(line, file=sys.stderr, flush=True)


def barrier() -> None:
    """Wait until all processes are here."""
    all_gather_object(None)


def all_gather_object(own: T) -> list[T]:
    """Return what every process has, by rank."""
    if world_size() == 1:
        return [own]
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, own)
    return gathered


def gather_object(own: T) -> list[T]:
    """Return on rank 0 what every process has, by rank; elsewhere nothing."""
    if world_size() == 1:
        return [own]
    gathered: list[Any] | None = [None] * world_size() if is_main() else None
    dist.gather_object(own, gathered)
    return gathered or []


def broadcast_object(own: T) -> T:
    """Return what rank 0 has."""
    if world_size() == 1:
        return own
    box: list[Any] = [own]
    dist.broadcast_object_list(box, 0)
    return box[0]


@torch.no_grad()
def broadcast_(tensors: Iterable[Tensor]) -> None:
    """Give tensors the values they have on rank 0."""
    if world_size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def all_reduce(tensor: Tensor) -> Tensor:
    """Replace a tensor by its sum over all processes."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def all_reduce_max(*own: int) -> list[int]:
    """Return the largest of each number over all processes."""
    if world_size() == 1:
        return [*own]
    numbers = torch.tensor(own)
    dist.all_reduce(numbers, dist.ReduceOp.MAX)
    return numbers.tolist()


def all_gather_cat(own_B: Tensor) -> Tensor:
    """(world_size * B, ...): the tensors of all processes, laid end to end by rank."""
    whole = own_B.new_zeros(world_size(), *own_B.shape)
    whole[rank()] = own_B
    return all_reduce(whole).flatten(0, 1)


def exchange(own_B: Tensor, index_N: Tensor) -> Tensor:
    """(B, ...): this process's part of all_gather_cat(own_B)[index_N], of which only what is needed
    travels. `index_N` is a permutation, on the host."""
    source_N = index_N.div(len(own_B), rounding_mode="floor").view(world_size(), -1)  # by rank
    leaving = (index_N[source_N.flatten() == rank()] - rank() * len(own_B)).to(
        own_B.device, non_blocking=True
    )
    order = source_N[rank()].argsort(stable=True).to(own_B.device, non_blocking=True)
    coming = own_B.new_empty(own_B.shape)
    counts = (
        torch.bincount(source_N[rank()], minlength=world_size()).tolist(),
        (source_N == rank()).sum(1).tolist(),
    )
    dist.all_to_all_single(coming, own_B[leaving], *counts)
    return torch.empty_like(coming).index_copy_(0, order, coming)
