"""Read batches in worker processes, which write them into memory shared with this process.

    this process    sends (slot, batch, part) into a pipe. The next free worker takes it
    a worker        writes the part into the slot's arrays, and sends an answer
    this process    waits for answers, and yields the arrays of a whole batch. It copies nothing

A ring of slots is reused: the arrays of a batch are valid until the next one is asked for. Workers
ignore the signals that stop a run, since its last step may need them, and end with this process.
"""

import math
import mmap
import os
import signal
import struct
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, count
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any, cast

import numpy as np
import torch

from mgm.errors import LostWorkers, UserError
from mgm.processes import end_with

Arrays = Mapping[str, np.ndarray]
# Writes a part of a batch into its arrays. Takes the arrays, the batch's number and the part's.
Fill = Callable[[Arrays, int, int], Any]
Waits = Callable[[float], None]

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
PARTS = 2  # that are ready or in work per worker
HANGS_S = 600  # seconds without an answer after which workers are given up
TASK = struct.Struct("=qqq")  # slot, batch, part. A pipe keeps so few bytes together


def read_batches(
    fill: Fill,
    numbers: Iterable[int],
    parts: int,
    clips: int,
    example: Arrays,
    workers: int,
    waits: Waits = lambda seconds: None,
    pin: bool = False,
) -> Iterator[tuple[Arrays, list[Any]]]:
    """Yield the arrays of each batch, and the answers of its parts.

    Args:
        fill: called in a worker, or in this process without workers.
        numbers: of the batches.
        parts: per batch.
        clips: the most per batch: the length of the arrays.
        example: arrays of one clip.
        waits: called with the seconds that an answer has been awaited for, every second. It may
            raise an exception.
        pin: register the memory with CUDA, so that copies to a GPU need no other.

    Raises:
        LostWorkers: a worker was killed, or none has answered for `HANGS_S` seconds.
    """
    if not workers:
        for number in numbers:
            arrays = {
                name: np.empty((clips, *one.shape[1:]), one.dtype) for name, one in example.items()
            }
            yield arrays, [fill(arrays, number, part) for part in range(parts)]
        return
    slots = [_shared(example, clips) for _ in range(2 + math.ceil(PARTS * workers / parts))]
    tasks, ends, pinned = os.pipe(), dict[Connection, int](), list[int]()
    try:
        for _ in range(workers):
            pid, answers = _started(fill, slots, tasks)
            ends[answers] = pid
        # A forked process could not use memory that CUDA has registered.
        for array in chain.from_iterable(slot.values() for slot in slots if pin):
            if not array.size:
                continue
            code = torch.cuda.cudart().cudaHostRegister(array.ctypes.data, array.nbytes, 0)
            torch.cuda.check_error(code)
            pinned.append(array.ctypes.data)
        asked, answered, left = 0, defaultdict[int, dict[int, Any]](dict), iter(numbers)
        for position in count():
            # The batch before has been used, so its slot is free.
            while asked < position + len(slots) and (wanted := next(left, None)) is not None:
                for part in range(parts):
                    os.write(tasks[1], TASK.pack(asked % len(slots), wanted, part))
                asked += 1
            if position == asked:
                return
            slot = position % len(slots)
            while len(answered[slot]) < parts:
                for place, part, answer in _answers(ends, waits):
                    if isinstance(answer, Exception):
                        raise answer
                    answered[place][part] = answer
            of_part = answered.pop(slot)
            yield slots[slot], [of_part[part] for part in range(parts)]
    finally:
        for end in tasks:
            os.close(end)
        for answers, pid in ends.items():
            answers.close()
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        for address in pinned:
            torch.cuda.cudart().cudaHostUnregister(address)


def _shared(example: Arrays, clips: int) -> dict[str, np.ndarray]:
    """Return arrays in memory that forked processes share. It is not limited by /dev/shm."""
    arrays = {}
    for name, one in example.items():
        shape = (clips, *one.shape[1:])
        # An array may be empty, and memory may not.
        memory = mmap.mmap(-1, max(math.prod(shape) * one.itemsize, 1))
        arrays[name] = np.ndarray(shape, one.dtype, memory)
    return arrays


def _started(fill: Fill, slots: Sequence[Arrays], tasks: tuple[int, int]) -> tuple[int, Connection]:
    """Start a worker. Return its process id, and the pipe of its answers."""
    ours, theirs = Pipe(duplex=False)
    # The worker inherits this. So no signal can come before it ignores them.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    parent = os.getpid()
    pid = os.fork()
    if not pid:
        try:
            ours.close()
            end_with(parent, signal.SIGKILL)
            _work(fill, slots, tasks, theirs)
        finally:
            os._exit(1)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    return pid, ours


def _work(fill: Fill, slots: Sequence[Arrays], tasks: tuple[int, int], answers: Connection) -> None:
    os.close(tasks[1])
    torch.set_num_threads(1)
    while task := os.read(tasks[0], TASK.size):
        slot, number, part = TASK.unpack(task)
        try:
            answer = fill(slots[slot], number, part)
        except Exception as error:
            if not isinstance(error, UserError):
                error.add_note(traceback.format_exc())
            answer = error
        answers.send((slot, part, answer))


def _answers(ends: dict[Connection, int], waits: Waits) -> Iterator[tuple[int, int, Any]]:
    """Wait for answers, and yield each with its slot and part. A lost worker leaves `ends`."""
    since = time.monotonic()
    while not (ready := wait(list(ends), timeout=1)):
        waits(time.monotonic() - since)
        if time.monotonic() - since > HANGS_S:
            raise LostWorkers(
                f"no worker process has read a clip for {HANGS_S} s; see whether the disk answers, "
                "then run again"
            )
    for answers in cast(list[Connection], ready):
        try:
            yield answers.recv()
        except (EOFError, OSError):
            _, status = os.waitpid(ends.pop(answers), 0)
            number = os.waitstatus_to_exitcode(status)
            how = f"was killed by signal {-number}" if number < 0 else f"ended with {number}"
            raise LostWorkers(
                f"a worker process {how}, perhaps for lack of memory; run again, with fewer "
                "--workers if so"
            ) from None
