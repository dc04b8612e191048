"""What runs compute on. Nothing here needs a GPU."""

import os
import subprocess
import sys

import pytest

from mgm.device import best_device, listed_gpus, say_device, visible_gpus
from tests.helpers.errors import refused


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """Return a function that makes an nvidia-smi of some lines of a shell."""

    def made(lines: str) -> None:
        fake = tmp_path / "nvidia-smi"
        fake.write_text(f"#!/bin/sh\n{lines}\n")
        fake.chmod(0o755)
        listed_gpus.cache_clear()

    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    yield made
    listed_gpus.cache_clear()


def test_nvidia_smi_is_asked_once(smi, tmp_path):
    smi(f"echo asked >> {tmp_path}/asked; echo 'GPU 0: H200'")
    assert visible_gpus() == visible_gpus() == ["0"]
    assert (tmp_path / "asked").read_text().split() == ["asked"]


@pytest.mark.parametrize(
    ("visible", "gpus"),
    [
        (None, ["0", "1", "2"]),
        ("", []),
        ("2,0", ["2", "0"]),
        ("-1", []),
        ("0,1,", ["0", "1"]),
        ("1,-1,0", ["1"]),
        ("GPU-5ae3, GPU-77b1", ["GPU-5ae3", "GPU-77b1"]),
        ("MIG-GPU-5ae3/1/0", ["MIG-GPU-5ae3/1/0"]),
    ],
)
def test_gpus_are_those_that_cuda_sees(visible, gpus, smi, monkeypatch):
    smi("for i in 0 1 2; do echo \"GPU $i: H200\"; echo '  MIG 1g'; done")
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert visible_gpus() == gpus


def test_a_hanging_nvidia_smi_is_left_alone(smi, monkeypatch, capsys):
    smi("exec sleep 60")
    monkeypatch.setattr("mgm.device.SMI_S", 0.2)
    assert visible_gpus() == []
    assert "nvidia-smi does not answer" in capsys.readouterr().err


@pytest.fixture
def no_gpu(smi, monkeypatch):
    """Let PyTorch see no GPU, and nothing promise one."""
    smi("exit 9")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for name in ("SLURM_JOB_GPUS", "MGM_CPU", "MGM_GPUS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("promise", ["CUDA_VISIBLE_DEVICES", "Slurm", "nvidia-smi"])
def test_a_promised_gpu_that_is_absent_is_an_error(promise, no_gpu, smi, monkeypatch, capsys):
    assert best_device().type == "cpu"
    if promise == "nvidia-smi":
        smi("echo 'GPU 0: Tesla V100'")
    else:
        name = "SLURM_JOB_GPUS" if promise == "Slurm" else promise
        monkeypatch.setenv(name, "0,1")
    monkeypatch.setattr("torch.version.cuda", "13.2")
    with refused(promise, "driver 580 or newer", "MGM_CPU=1"):
        best_device()
    monkeypatch.setattr("torch.version.cuda", None)
    with refused(promise, "a build for CPUs", "MGM_CPU=1"):
        best_device()
    monkeypatch.setenv("MGM_CPU", "1")
    assert best_device().type == "cpu"
    say_device()
    assert capsys.readouterr().err == "device: CPU\n"


def test_a_run_says_what_it_computes_on(no_gpu, monkeypatch, capsys):
    """The Snakefile has said it for its jobs. With MGM_CPU=1 it was wrong."""
    for said, cpu, told in ((None, "", True), ("", "", False), ("0,1", "1", True)):
        if said is not None:
            monkeypatch.setenv("MGM_GPUS", said)
        monkeypatch.setenv("MGM_CPU", cpu)
        say_device()
        assert ("device: CPU" in capsys.readouterr().err) == told


@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_ends_before_it_begins_without_its_gpu(processes, tmp_path):
    """One line, in each of its processes."""
    code = "from mgm.errors import one_line\nfrom mgm.training.distributed import process_group\n"
    code += "from mgm.stages.run import run_specs\nfrom pathlib import Path\n"
    code += "with one_line(), process_group(): run_specs([], {}, Path())"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "7", "WORLD_SIZE": str(processes)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.returncode == 2
    [line] = done.stderr.decode().splitlines()
    assert line.startswith("mgm: CUDA_VISIBLE_DEVICES names 1 GPUs")
