"""What runs compute on: one GPU per process, or the CPU.

A GPU that is promised and absent is an error, since a run on the CPU would take weeks. MGM_CPU=1
computes on the CPU all the same.
"""

import os
import re
import subprocess
from functools import cache
from itertools import takewhile
from typing import TYPE_CHECKING

from mgm.console import show
from mgm.errors import UserError

if TYPE_CHECKING:
    import torch

SMI_S = 20  # seconds that nvidia-smi may take
# The oldest NVIDIA driver for each version of CUDA, from the release notes of its toolkit.
DRIVERS = {"12": 525, "13": 580}


def visible_gpus() -> list[str]:
    """Return the GPUs that runs on this machine may use, as CUDA_VISIBLE_DEVICES names them.

    Without it they are those that nvidia-smi lists.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        # As CUDA does, count up to the first that is no name of a GPU, such as -1 or none.
        names = map(str.strip, visible.split(","))
        return [*takewhile(re.compile(r"\d+$|GPU-|MIG-").match, names)]
    return listed_gpus()


@cache
def listed_gpus() -> list[str]:
    """Return the numbers of the GPUs that nvidia-smi lists. It is asked once: it may take long."""
    try:
        # It may hang in the driver, where no signal ends it, so do not wait for its end.
        smi = subprocess.Popen(["nvidia-smi", "-L"], stdout=subprocess.PIPE, text=True)
        lines = smi.communicate(timeout=SMI_S)[0]
    except OSError:
        return []
    except subprocess.TimeoutExpired:
        show(f"mgm: nvidia-smi does not answer in {SMI_S} s; runs start without GPUs of their own")
        return []
    return [str(n) for n in range(len(re.findall("^GPU ", lines, re.MULTILINE)))]


def best_device() -> "torch.device":
    """Return this process's GPU, or the CPU if there is none or with MGM_CPU=1.

    Raises:
        UserError: a GPU was promised (`_promise`), and PyTorch does not see it.
    """
    import torch

    if os.environ.get("MGM_CPU") == "1":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    if promise := _promise():
        cuda, why = torch.version.cuda, "is a build for CPUs: install one for CUDA"
        if cuda:
            driver = DRIVERS.get(cuda.partition(".")[0])
            why = f"for CUDA {cuda} sees none: it needs NVIDIA's driver {driver} or newer"
        raise UserError(
            f"{promise}, but PyTorch {torch.__version__} {why}; set MGM_CPU=1 to compute on the CPU"
        )
    return torch.device("cpu")


def _promise() -> str:
    """Return what says that there is a GPU, or nothing. An empty CUDA_VISIBLE_DEVICES hides all."""
    hidden_or_named = "CUDA_VISIBLE_DEVICES" in os.environ
    if gpus := visible_gpus():
        source = "CUDA_VISIBLE_DEVICES" if hidden_or_named else "nvidia-smi"
        return f"{source} names {len(gpus)} GPUs"
    given = os.environ.get("SLURM_JOB_GPUS", "")
    return f"Slurm gave this job the GPUs {given}" if given and not hidden_or_named else ""


def gpu_name() -> str:
    """Return the driver's name of this process's GPU, or nothing on the CPU."""
    import torch

    return torch.cuda.get_device_name() if best_device().type == "cuda" else ""


def say_device() -> None:
    """Print what this process computes on.

    The Snakefile says it for its jobs. They say it only if it is something else.
    """
    name, said = gpu_name(), os.environ.get("MGM_GPUS")
    if said is None or bool(said) != bool(name):
        show(f"device: {name or 'CPU'}")
