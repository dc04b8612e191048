"""Worker processes: order, errors, and how they end."""

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mgm import processes
from mgm.errors import LostWorkers
from mgm.processes import AHEAD, as_done, cores, in_order
from tests.helpers.processes import children, is_alive, wait_for

BOTH = pytest.mark.parametrize("apply", [in_order, as_done])


def later(number: int) -> int:
    time.sleep(0.002 * (number % 3))
    return number * number


def test_in_order_is_map_and_runs_ahead_by_so_many_items():
    assert [*in_order(later, range(20), 0)] == [*in_order(later, range(20), 3)]
    taken = []
    done = in_order(later, (taken.append(n) or n for n in range(100)), 2)
    assert [next(done) for _ in range(5)] == [0, 1, 4, 9, 16]
    assert len(taken) == 5 + AHEAD * 2
    done.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_as_done_does_everything_once(workers):
    assert sorted(as_done(later, range(20), workers)) == [n * n for n in range(20)]


@BOTH
def test_an_error_keeps_its_kind_and_its_place(apply):
    with pytest.raises(ZeroDivisionError) as error:
        list(apply(partial(divmod, 1), [1, 0, 1], 2))
    assert "_do" in str(error.value.__cause__)


@BOTH
def test_a_worker_that_dies_is_one_line(apply):
    with pytest.raises(LostWorkers, match="a worker process died") as error:
        list(apply(os._exit, [1, 1], 2))
    assert "\n" not in str(error.value)


def test_a_worker_that_hangs_is_lost(monkeypatch):
    done = in_order(time.sleep, [0, 60, 0], 2)
    # Workers may start slowly. The first item is done, so the second is the one that hangs.
    assert next(done) is None
    monkeypatch.setattr(processes, "HANGS_S", 0.5)
    with pytest.raises(LostWorkers, match=r"for 0\.5 s"):
        next(done)


def test_work_on_whole_videos_has_a_limit_too(monkeypatch):
    monkeypatch.setattr(processes, "VIDEO_HANGS_S", 0.5)
    with pytest.raises(LostWorkers, match=r"for 0\.5 s"):
        list(as_done(time.sleep, [60, 60], 2))


@BOTH
def test_workers_outlive_the_thread_that_began_them(apply):
    """A result is read in one thread, and the others after its end."""
    done, first = apply(later, range(20), 2), list[int]()
    thread = threading.Thread(target=lambda: first.append(next(done)))
    thread.start()
    thread.join()
    time.sleep(1)
    assert sorted([*first, *done]) == [n * n for n in range(20)]


def stop(number: int) -> int:
    """Stop this worker, which then cannot run."""
    if number:
        os.kill(os.getpid(), signal.SIGSTOP)
    return os.getpid()


def test_workers_end_with_the_generator_even_if_they_cannot_run():
    done = in_order(stop, [0, 1, 1, 1, 1, 1], 2)
    pid = next(done)
    ends = threading.Thread(target=done.close, daemon=True)
    ends.start()
    ends.join(30)
    assert not ends.is_alive()
    assert not Path(f"/proc/{pid}").exists()


def ignored(number: int) -> bool:
    os.kill(os.getpid(), number)
    return signal.getsignal(number) == signal.SIG_IGN


@BOTH
def test_workers_ignore_what_stops_a_run(apply):
    assert all(apply(ignored, processes.STOPS, 2))


@pytest.mark.parametrize("name", ["in_order", "as_done"])
def test_workers_end_with_a_parent_that_is_killed(name):
    """A thread starts them, with which Linux must not end them."""
    code = "import threading, time; from mgm.processes import *; threading.Thread(target=lambda: "
    code += f"[*{name}(time.sleep, [60, 60], 2)]).start(); time.sleep(60)"
    parent = subprocess.Popen([sys.executable, "-c", code])
    wait_for(lambda: len(children(parent.pid)) == 2)
    time.sleep(0.5)
    workers = children(parent.pid)
    parent.kill()
    parent.wait()
    wait_for(lambda: not any(map(is_alive, workers)))
    assert len(workers) == 2


def test_python_ends_while_workers_wait():
    """An error leaves its results unclosed, and workers ignore what stops a run."""
    code = "from mgm.processes import *; g = in_order(abs, iter(int, 1), 2); next(g); 1 / 0"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert (done.returncode, b"ZeroDivisionError" in done.stderr) == (1, True)


def blurred(_: int) -> int:
    return int(cv2.GaussianBlur(np.full((500, 500, 3), 7, np.uint8), (9, 9), 2).max())


def threads_of_torch(_: int) -> int:
    return torch.get_num_threads()


def test_workers_work_after_libraries_have_used_threads(monkeypatch):
    """Those of OpenCV and PyTorch do not survive a fork."""
    monkeypatch.setattr(processes, "HANGS_S", 30)
    threads, others = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(4)
    torch.set_num_threads(4)
    blurred(0)
    try:
        assert [*in_order(blurred, range(4), 2)] == [7] * 4
        assert [*in_order(threads_of_torch, range(4), 2)] == [1] * 4
        assert (cv2.getNumThreads(), torch.get_num_threads()) == (4, 4)
    finally:
        cv2.setNumThreads(threads)
        torch.set_num_threads(others)


@pytest.mark.parametrize("own", ["0::/", "0::/a/b", "4:cpu,cpuacct:/a/b\n0::/", "1:cpu:/of/a/host"])
@pytest.mark.parametrize("place", ["", "a", "cpu", "cpu,cpuacct/a"])
def test_cores_follow_the_quotas_of_cgroups(tmp_path, monkeypatch, own, place):
    """Of version 1 and 2, as a container shows them, or above this process's own."""
    monkeypatch.setattr(processes, "CGROUPS", tmp_path)
    monkeypatch.setattr(processes, "OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(processes.os, "sched_getaffinity", lambda _: range(8))
    (tmp_path / "own").write_text(f"9:name=systemd:/\n3:cpuset:/c\n{own}\n")
    (folder := tmp_path / place).mkdir(parents=True, exist_ok=True)
    inside = not place.endswith("a") or "/a/b" in own
    for quota, count in (("250000", 2), ("50000", 1), ("max", 8)):
        (folder / "cpu.max").write_text(f"{quota} 100000\n")
        assert cores() == (count if inside else 8)
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    for quota, count in (("350000", 3), ("-1", 8)):
        (folder / "cpu.cfs_quota_us").write_text(f"{quota}\n")
        assert cores() == (count if inside else 8)
