"""Several processes train one run: each takes its share of every step's batch, the gradients are added up, and rank 0 alone writes.

`mgm.launch` says which processes belong together, `joined` brings them together and ends them together. All else here may be called by a
process on its own, and then does what one process does.

Objects and decisions travel on the host (gloo) and gradients on the device (NCCL, where it is a GPU), so that a decision that all must
agree on costs the GPU no synchronisation.
"""

import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mgm.errors import UserError
from mgm.launch import Place

MEET_S = 300  # how long processes wait for one another at the start
WAIT_S = 1800  # and later: for the slowest to decode its share, for rank 0 to write
POLL_S = 0.25  # between looks at whether the run has ended
SILENT_S = 30  # a process not heard of for so long is dead
KILLED = 128 + signal.SIGKILL
BUCKET = 25 * 2**20 // 4  # numbers that are added up at a time, as in DistributedDataParallel

T = TypeVar("T")
held = ExitStack()  # what rank 0 holds while it writes a run: given back by whoever learns first that the run has ended, and how


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def joined(place: Place) -> Iterator[None]:
    """Be one of several processes that do the block together, and end together, with one exit status.

    An exception or a signal in any of them ends all: rank 0 gives back what it holds, says the one line, and then all exit, from whatever
    they wait for. An exception does so not leave this block.

    Raises:
        UserError: the processes do not meet, or are more than the GPUs they share.
    """
    ending = _Ending(place, _meet(place))
    for number in (signal.SIGTERM, signal.SIGUSR1):  # outside of training, where they are noticed between steps
        signal.signal(number, ending.interrupt)
    try:
        _own_gpu(place)
        yield
        ending.together()
    except BaseException as error:
        ending.because(error)
    dist.destroy_process_group()


def _meet(place: Place) -> dist.Store:
    try:
        address = next(address for address in place.addresses if _is_known(address))
        host = f"[{address}]" if ":" in address else address
        store, _, _ = next(dist.rendezvous(f"tcp://{host}:{place.port}", place.rank, place.size, timeout=timedelta(seconds=MEET_S)))
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=place.rank, world_size=place.size, timeout=timedelta(seconds=WAIT_S))
    except StopIteration:
        raise UserError(
            f"{' '.join(place.addresses) or 'MASTER_ADDR'}: no such host; set MASTER_ADDR to the first node's address"
        ) from None
    except (dist.DistError, OSError) as error:
        raise UserError(
            f"process {place.rank} of {place.size}: did not meet the others at {address}:{place.port} within {MEET_S} s "
            f"({str(error).splitlines()[0][:200]}); see that all were started, or set MASTER_ADDR and MASTER_PORT"
        ) from error
    return store


def _is_known(address: str) -> bool:
    with suppress(OSError):
        return bool(socket.getaddrinfo(address, None))
    return False


def _own_gpu(place: Place) -> None:
    """One GPU for each process, whether a process sees all GPUs of its node or only its own, as Slurm can bind them."""
    if not torch.cuda.is_available():
        return
    torch.cuda.set_device(place.local_rank % torch.cuda.device_count())
    host = socket.gethostname()
    taken = Counter(gathered((host, str(torch.cuda.get_device_properties().uuid))))
    for host in dict.fromkeys(host for host, _ in taken):
        processes, gpus = sum(count for (of, _), count in taken.items() if of == host), sum(of == host for of, _ in taken)
        if processes > gpus:
            raise UserError(f"{host}: {processes} processes share {gpus} GPUs; start as many on a node as it has, or ask for more GPUs")


class Lost(Exception):
    """Another process was killed, or cannot be reached. As after any SIGKILL: run again."""


@contextmanager
def _peers() -> Iterator[None]:
    """Where a process waits for others, gloo and NCCL say by a RuntimeError that one is gone."""
    try:
        yield
    except RuntimeError as error:
        raise Lost(f"a process of this run is gone ({str(error).splitlines()[0][:200]}); run again") from error


class _Ending:
    """How the processes end together, though each may be waiting in the middle of anything: by a thread that waits for nothing.

    The first to fail says why in the store. Rank 0 reads it, gives back what it holds, says the line; only then do all exit, since a
    launcher kills the others as soon as one is gone.
    """

    def __init__(self, place: Place, store: dist.Store):
        self.place, self.store, self.over, self.done = place, store.clone(), False, threading.Event()
        self.thread = threading.Thread(target=self._watch, args=(store.clone(),), daemon=True)
        self.thread.start()

    def interrupt(self, number: int, frame: object) -> None:
        if not self.over:
            sys.exit(128 + number)

    def because(self, error: BaseException) -> None:
        """End all processes, this one among them. Returns never."""
        self.over = True
        status, line = 1, "".join(traceback.format_exception(error))
        if isinstance(error, UserError):
            status, line = 2, f"mgm: {error}\n"
        elif isinstance(error, Lost):
            status, line = KILLED, f"mgm: {error}\n"
        elif isinstance(error, SystemExit | KeyboardInterrupt):
            status, line = error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 130, ""
        if isinstance(error, Lost):
            time.sleep(2 * POLL_S)  # one that could still say why it ends has said so
        with suppress(dist.DistError):
            self.store.compare_set("end", "", json.dumps([status, line]))
        time.sleep(10)  # the thread ends us before that
        os._exit(status)

    def together(self) -> None:
        """All have done the block."""
        everyone()
        self.over = True
        self.done.set()
        self.thread.join()
        with suppress(dist.DistError):
            if self.place.rank:
                self.store.add("gone", 1)
            else:
                self._outlast(self.store, 10)

    def _outlast(self, store: dist.Store, seconds: float) -> None:
        """The store may be this process's: stay until the others need it no more."""
        end = time.monotonic() + seconds
        while store.add("gone", 0) < self.place.size - 1 and time.monotonic() < end:
            time.sleep(POLL_S / 10)

    def _watch(self, store: dist.Store) -> None:
        try:
            self._beat(store)
        except RuntimeError:  # the store is gone, and rank 0 or torchrun with it
            os._exit(KILLED)

    def _beat(self, store: dist.Store) -> None:
        turn, beats = 0, dict[int, int]()  # in turns, not seconds, as all may have been suspended
        while not store.check(["end"]):
            turn += 1
            store.add(f"beat{self.place.rank}", 1)
            if self.place.rank == 0 and turn % (SILENT_S / POLL_S) == 0:
                before, beats = beats, {other: store.add(f"beat{other}", 0) for other in range(1, self.place.size)}
                if silent := [other for other in beats if beats[other] == before.get(other)]:
                    line = f"mgm: process {silent[0]} of {self.place.size} was not heard of for {SILENT_S} s; run again\n"
                    store.compare_set("end", "", json.dumps([KILLED, line]))
            if self.done.wait(POLL_S):
                return
        status, line = json.loads(store.get("end"))
        self.over = True
        if self.place.rank == 0:
            brief = line.strip().rpartition("\n")[2].removeprefix("mgm: ")
            error = UserError(brief) if status in (1, 2) else SystemExit(status)
            with suppress(BaseException):
                held.__exit__(type(error), error, None)
            with suppress(BrokenPipeError):
                print(line, end="", file=sys.stderr, flush=True)
            store.set("told", "")
            self._outlast(store, 10 if status != KILLED else 2)  # one of them will not come
        else:
            with suppress(dist.DistError):
                store.wait(["told"], timedelta(seconds=10))
                store.add("gone", 1)
        os._exit(status)


def everyone() -> None:
    """Wait until all processes are here."""
    gathered(None)


def gathered(own: T) -> list[T]:
    """What every process has, by rank."""
    if size() == 1:
        return [own]
    found: list[Any] = [None] * size()
    with _peers():
        dist.all_gather_object(found, own)
    return found


def brought(own: T) -> list[T]:
    """To rank 0: what every process has, by rank. To the others: their own alone."""
    if size() == 1:
        return [own]
    found: list[Any] | None = [None] * size() if rank() == 0 else None
    with _peers():
        dist.gather_object(own, found)
    return found or [own]


def told(own: T) -> T:
    """What rank 0 has."""
    if size() == 1:
        return own
    found: list[Any] = [own]
    with _peers():
        dist.broadcast_object_list(found, 0)
    return found[0]


def copied(tensors: Iterable[Tensor]) -> None:
    """Give tensors the values they have on rank 0."""
    if size() > 1:
        with _peers(), torch.no_grad():
            for tensor in tensors:
                dist.broadcast(tensor, 0)


def summed(tensor: Tensor) -> Tensor:
    """The sum of a tensor over all processes."""
    if size() > 1:
        with _peers():
            dist.all_reduce(tensor)
    return tensor


def end_to_end(own_B: Tensor) -> Tensor:
    """(size * B, ...): the tensors of all processes, laid end to end."""
    whole = own_B.new_zeros(size(), *own_B.shape)
    whole[rank()] = own_B
    return summed(whole).flatten(0, 1)


def fetched(own_B: Tensor, index_N: Tensor) -> Tensor:
    """This process's part, (B, ...), of end_to_end(own_B)[index_N], of which only what is needed travels. `index_N` is a permutation."""
    source_N = index_N.div(len(own_B), rounding_mode="floor").view(size(), -1)  # by rank
    leaving = index_N[source_N.flatten() == rank()] - rank() * len(own_B)
    order = source_N[rank()].argsort(stable=True)
    coming = own_B.new_empty(own_B.shape)
    counts = torch.bincount(source_N[rank()], minlength=size()).tolist(), (source_N == rank()).sum(1).tolist()
    with _peers():
        dist.all_to_all_single(coming, own_B[leaving], *counts)
    return torch.empty_like(coming).index_copy_(0, order, coming)


@dataclass
class Agreement:
    """A few numbers that all processes agree on each step, the largest of each: by messages between hosts, looked at a step later, when
    they have long come. A number that must not be lost stays up until it was looked at."""

    sent: tuple[Tensor, Any] | None = field(default=None)

    def on(self, *own: int, now: bool = False) -> list[int]:
        """The numbers of the step before; `now` waits for this step's. A process on its own agrees with itself at once."""
        if size() == 1:
            return [*own]
        numbers, before = torch.tensor(own), self.sent
        with _peers():
            self.sent = (numbers, dist.all_reduce(numbers, dist.ReduceOp.MAX, async_op=True))
            looked_at = self.sent if now else before
            if looked_at is None:
                return [0] * len(own)
            looked_at[1].wait()
        return looked_at[0].tolist()


class Gradients:
    """Adds up the gradients of all processes, while the backward pass still computes the rest.

    What DistributedDataParallel does, without importing torch._dynamo, which costs a process's start more than all else together:
    parameters share buckets in the order backward reaches them, the last layer's first; a full bucket is on its way at once.
    """

    def __init__(self, model: nn.Module):
        self.buckets: list[list[nn.Parameter]] = [[]]
        self.missing, self.works = list[int](), list[Any]()
        self.device = next(model.parameters()).device
        if size() == 1:
            return
        for parameter in reversed([parameter for parameter in model.parameters() if parameter.requires_grad]):
            if sum(other.numel() for other in self.buckets[-1]) >= BUCKET:
                self.buckets.append([])
            self.buckets[-1].append(parameter)
            place = len(self.buckets) - 1
            parameter.register_post_accumulate_grad_hook(lambda _, place=place: self._arrived(place))

    @contextmanager
    def adding(self, last: bool) -> Iterator[None]:
        """Around a backward pass: the last of a step's adds up what it and those before it have accumulated."""
        if size() == 1 or not last:
            yield
            return
        self.missing, self.works = [len(bucket) for bucket in self.buckets], []
        yield
        self._send(all_of_them=True)
        self.missing = []
        with _peers():
            for work in self.works:
                work.wait()

    def _arrived(self, place: int) -> None:
        if self.missing:
            self.missing[place] -= 1
            self._send()

    def _send(self, all_of_them: bool = False) -> None:
        """Send the buckets that are full, in order: the same on all processes. A parameter that has no gradient is none on any."""
        while len(self.works) < len(self.buckets) and (all_of_them or not self.missing[len(self.works)]):
            bucket = [(parameter, parameter.grad) for parameter in self.buckets[len(self.works)] if parameter.grad is not None]
            sums = torch.cat([torch.empty(0, device=self.device), *(gradient.flatten() for _, gradient in bucket)])
            for (parameter, gradient), part in zip(bucket, sums.split([gradient.numel() for _, gradient in bucket])):
                parameter.grad = part.view_as(gradient)
            with _peers():
                self.works.append(dist.all_reduce(sums, async_op=True))
