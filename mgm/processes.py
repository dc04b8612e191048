"""Worker processes: `in_order` for readers of clips, `as_done` for work on whole videos.

Workers ignore the signals that stop a run, since its last step may need them. They end with the
call's generator, and with their parent, even if that is killed. The thread that began them may end
before.
"""

import ctypes
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from itertools import islice, product
from pathlib import Path
from typing import Any, TypeVar

from mgm.errors import LostWorkers

T = TypeVar("T")
R = TypeVar("R")
CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
AHEAD = 2  # items that are done or in work per worker
# Seconds without a result after which workers are given up: those that read clips, and those that
# decode or measure a whole video, which may be a film.
HANGS_S, VIDEO_HANGS_S = 600, 7200
LOOKS_S = 0.5  # how often a worker looks whether its parent is there
PR_SET_PDEATHSIG = 1  # of Linux's prctl.h
# Signals that stop a run.
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


def cores() -> int:
    """Return how many cores this process may use, by its affinity and its cgroups' quotas."""
    allowed = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    return min([allowed, *(max(quota // period, 1) for quota, period in _quotas() if quota > 0)])


def _quotas() -> Iterator[tuple[int, int]]:
    """Yield microseconds of CPU and their period, of this process's cgroups and those above."""
    places = {""}
    with suppress(OSError):
        lines = [line.split(":", 2) for line in OWN_CGROUPS.read_text().splitlines()]
        places |= {place.strip("/") for _, of, place in lines if not of or "cpu" in of.split(",")}
    for root, place in product(("", "cpu", "cpu,cpuacct"), places):
        own = CGROUPS / root / place
        for folder in (own, *own.parents):
            # Without a limit, version 2 has the word "max", and version 1 has -1.
            with suppress(OSError, ValueError):
                quota, period = map(int, (folder / "cpu.max").read_text().split())
                yield quota, period
            with suppress(OSError, ValueError):
                quota, period = (
                    int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period")
                )
                yield quota, period


def in_order(work: Callable[[T], R], items: Iterable[T], workers: int) -> Generator[R]:
    """Yield `work(item)` of each item, in order. Workers are `AHEAD` items ahead each.

    Workers are forked: they start at once, share memory that was mapped before, and need nothing
    pickled but items and results.

    Args:
        workers: 0: this process does the work.

    Raises:
        LostWorkers: a worker died, or the next result has not come for `HANGS_S` seconds.
    """
    if not workers:
        yield from map(work, items)
        return
    import cv2

    # Workers inherit the number. OpenCV's threads do not survive a fork, and ending them hangs.
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with _pool(work, workers, "fork") as submit:
            waiting = deque[Future[R]]()
            for item in items:
                waiting.append(submit(item))
                if len(waiting) > AHEAD * workers:
                    yield _next(waiting)
            while waiting:
                yield _next(waiting)
    finally:
        cv2.setNumThreads(threads)


def as_done(work: Callable[[T], R], items: Sequence[T], processes: int) -> Generator[R]:
    """Yield `work(item)` of each item, in the order in which they finish.

    Workers are new processes ("spawn"), since libraries that whole videos need (OpenCV, x264,
    PyTorch) may have threads in this one, which a fork would not copy. So `work` is pickled.

    Args:
        processes: at most one per item. 1: this process does the work.

    Raises:
        LostWorkers: a worker died, or no result has come for `VIDEO_HANGS_S` seconds.
    """
    processes = min(processes, len(items))
    if processes <= 1:
        yield from map(work, items)
        return
    with _pool(work, processes, "spawn") as submit:
        left, pending = iter(items), set[Future[R]]()
        while True:
            free = 1 + AHEAD * processes - len(pending)
            pending |= {submit(item) for item in islice(left, free)}
            if not pending:
                return
            done = _done(pending, VIDEO_HANGS_S)
            pending -= done
            yield from (future.result() for future in done)


def _next(waiting: "deque[Future[R]]") -> R:
    """Return the oldest result."""
    oldest = waiting.popleft()
    _done({oldest}, HANGS_S)
    return oldest.result()


def _done(pending: "set[Future[R]]", limit: float) -> "set[Future[R]]":
    """Wait until one is done, and return all that are."""
    done = wait(pending, limit, FIRST_COMPLETED).done
    if not done:
        raise LostWorkers(
            f"worker processes have done nothing for {limit} s; see whether the disk answers, then "
            "run again"
        )
    return done


@contextmanager
def _pool(work: Callable[[T], R], workers: int, start: str) -> Iterator[Callable[[T], "Future[R]"]]:
    """Yield a function that submits an item. Workers end with the block, busy or not."""
    context = multiprocessing.get_context(start)
    # Linux ends a worker with the thread that started it, which the main one outlives.
    main = threading.current_thread() is threading.main_thread()
    pool = ProcessPoolExecutor(workers, context, _begin, (os.getpid(), main, work))

    def submit(item: T) -> "Future[R]":
        # This may start workers, which must not meet the signals before they ignore them.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        try:
            return pool.submit(_do, item)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    try:
        yield submit
    except BrokenProcessPool:
        raise LostWorkers(
            "a worker process died, perhaps for lack of memory; run again, with fewer worker "
            "processes if so"
        ) from None
    finally:
        # Python 3.14 has `kill_workers`.
        for worker in [*(pool._processes or {}).values()]:
            worker.kill()
        pool.shutdown(cancel_futures=True)


def _begin(parent: int, main: bool, work: Callable[[Any], Any]) -> None:
    """Prepare a worker: it ends with its parent, and does `work` in one thread.

    Args:
        main: whether the parent's main thread starts it. Then it ends even while it cannot run.
    """
    global _work
    _work = work
    # Collecting garbage would copy the memory of all that it shares with its parent: 117 MiB with
    # 240,000 videos.
    gc.freeze()
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    # Other systems than Linux have no such call.
    with suppress(AttributeError):
        if main:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    # PyTorch's threads do not survive a fork either.
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


def _end_with(parent: int) -> None:
    """End this worker soon after its parent."""
    while os.getppid() == parent:
        time.sleep(LOOKS_S)
    os._exit(1)


def _do(item: Any) -> Any:
    return _work(item)


_work: Callable[[Any], Any]
