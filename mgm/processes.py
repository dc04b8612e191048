"""Tie the life of a process to that of its parent."""

import ctypes
import os

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with(parent: int, number: int) -> None:
    """Let the kernel send this process a signal when its parent ends, even by SIGKILL.

    Other systems than Linux have no such call.

    Args:
        parent: its process id. If it has ended already, the signal comes at once.
    """
    if prctl := getattr(ctypes.CDLL(None), "prctl", None):
        prctl(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:
            os.kill(os.getpid(), number)
