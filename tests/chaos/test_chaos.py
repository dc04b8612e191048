"""A handful of kills of real processes; `make chaos` does a hundred."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mgm.datasets.index import read_index
from mgm.datasets.synthetic.make import generate
from mgm.training import load_checkpoint
from tests.helpers.killer import PARAMS, PRETRAIN, STEPS, Run, disturbed, verdict

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chaos") / "ssv2"
    generate(PARAMS, folder)
    return folder


def test_runs_killed_at_random_moments_end_bit_equal(data, tmp_path):
    with ThreadPoolExecutor(1) as pool:
        undisturbed = pool.submit(disturbed, data, tmp_path / "whole", 0, {"pretrain": 0, "finetune": 0}, print)
        kills, outcomes = disturbed(data, tmp_path / "killed", 0, {"pretrain": 3, "finetune": 2}, print)
        _, whole = undisturbed.result()
    print(verdict(kills))
    assert outcomes == whole
    assert all(outcome["rest"] == [] for outcome in whole.values())
    assert outcomes["finetune"]["weights.safetensors"] != outcomes["pretrain"]["weights.safetensors"]


def test_usr1_stops_a_run_after_its_step_and_a_second_writer_meanwhile_is_told_so(data, tmp_path):
    run = Run("pretrain", data, tmp_path)
    first = run.start()
    while not run.folder.joinpath("log.jsonl").exists():
        assert first.poll() is None
        time.sleep(0.001)
    os.kill(first.pid, signal.SIGSTOP)  # so that it is still there when the second comes
    second = subprocess.run(run.command, capture_output=True, text=True, check=False)
    assert second.returncode == 2
    assert f"{run.folder}: process {first.pid} on " in second.stderr.splitlines()[-1]
    assert not (run.folder / "error.txt").exists()  # it marks nothing
    os.kill(first.pid, signal.SIGUSR1)
    os.kill(first.pid, signal.SIGCONT)
    assert first.wait() == 128 + signal.SIGUSR1
    said = run.said.read_text().splitlines()[-1]
    step = load_checkpoint(run.folder, PRETRAIN.run_id)["step"]
    assert 0 < step < STEPS
    assert said == f"{PRETRAIN.run_id}: stopped at step {step} of {STEPS}; run again to continue"


def test_drawing_killed_at_random_moments_ends_with_the_same_files(data, tmp_path):
    """Its pool's processes outlive it for a moment and must not spoil what the next call draws."""
    (tmp_path / "params.json").write_text(PARAMS.model_dump_json())
    out, draw, cut = tmp_path / "ssv2", random.Random(0), 0
    command = [str(Path(sys.executable).with_name("mgm")), "prepare", "synthetic", "--params", str(tmp_path / "params.json")]
    command += ["--out", str(out), "--processes", "2"]
    for _ in range(4):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while not out.exists():
            assert process.poll() is None
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 1))
        process.kill()
        process.wait()
        if (out / "index.json").exists():
            shutil.rmtree(out)
        else:
            cut += 1
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert cut >= 2, "the kills came too late to show anything"
    names = sorted(path.relative_to(data) for path in (data / "videos").rglob("*"))
    assert names == sorted(path.relative_to(out) for path in (out / "videos").rglob("*"))
    assert all((data / name).read_bytes() == (out / name).read_bytes() for name in names if (data / name).is_file())
    assert read_index(out).digest == read_index(data).digest
    assert not (out / "writer.lock").exists()
