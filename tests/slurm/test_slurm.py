"""The Snakefile on a real Slurm of two nodes, whose jobs are cancelled and reach their time limit."""

import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from mgm.dag.workflow import Workflow
from mgm.results.run import log_lines
from tests.helpers import programs
from tests.helpers.cluster import cluster, unfit
from tests.helpers.programs import BIN, ROOT
from tests.helpers.tiny_study import tiny_study

STEPS = 60

# A job runs into its time limit of two minutes and waits until Slurm starts it again.
pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1500), pytest.mark.usefixtures("cpu")]


class Plain(yaml.SafeDumper):
    """YAML without aliases."""

    def ignore_aliases(self, data):
        return True


@pytest.fixture(scope="module", autouse=True)
def slurm(tmp_path_factory):
    if why := unfit():
        pytest.skip(why)
    with cluster(tmp_path_factory.mktemp("slurm")):
        yield


def profile(folder: Path) -> Path:
    """Write the profile with small jobs, of which pretraining has two nodes. Return its folder."""
    fields = yaml.safe_load((ROOT / "slurm/config.yaml").read_text())
    small = {"nodes": 1, "gpus": 0, "cpus_per_task": 1, "mem_mb": 1500, "runtime": 10}
    gpu = {"gpus": 1, "gres": "gpu:1", "tasks_per_gpu": 0}
    asked = fields["set-resources"]
    assert {*asked} == {"prepare", "flow", "pretrain", "finetune", "probe", "measure", "sample"}
    pretrain = asked["pretrain"] | small | gpu | {"nodes": 2, "tasks": 2, "runtime": 2}
    # Slurm may warn a minute too early, so here the time limit itself sends the signal.
    del pretrain["slurm_extra"]
    fields |= {
        "set-threads": {"prepare": 1, "flow": 1},
        "set-resources": dict.fromkeys(asked, small) | {"pretrain": pretrain},
        "configfile": [str(ROOT / "slurm/options.yaml")],
        # Look at the jobs after a second, to save time.
        "slurm-init-seconds-before-status-checks": 1,
    }
    fields["set-resources"]["probe"] = small | gpu
    (folder / "small").mkdir(parents=True)
    (folder / "small" / "config.yaml").write_text(yaml.dump(fields, Dumper=Plain))
    return folder / "small"


def squeue() -> list[list[str]]:
    """Return the id and the comment of each job that runs."""
    words = ["squeue", "--noheader", "--states=R", "--Format=JobID:10,Comment:200"]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return [line.split() for line in told.splitlines()]


def wait_for_checkpoint(folder: Path) -> None:
    while not list(folder.glob("checkpoint*")):
        time.sleep(0.02)


def hang_when_saved(folder: Path) -> None:
    """Stop a run's process. At the time limit Slurm continues and ends it."""
    wait_for_checkpoint(folder)
    [pid] = re.findall(r"process (\d+) on", (folder / "run.lock").read_text())
    os.kill(int(pid), signal.SIGSTOP)


def cancel_when_saved(folder: Path, cancelled: list[str]) -> None:
    """Cancel the job of a run once it has saved a checkpoint."""
    wait_for_checkpoint(folder)
    [job] = [job for job, comment, *_ in squeue() if folder.name in comment]
    subprocess.run(["scancel", job], check=True)
    cancelled.append(job)


def test_cancelled_and_timed_out_jobs_end_as_if_undisturbed(tmp_path):
    """One pretraining on two nodes is cancelled. Another one hangs until its time limit."""
    study = Workflow({"study": str(tiny_study(tmp_path, steps=STEPS)), "slurm": True})
    runs = [run_id for run_id in study.specs if run_id.startswith("pretrain")]
    probes = [run_id for run_id, spec in study.specs.items() if spec.stage == "probe"]
    results, cancelled = tmp_path / "results" / "tiny", list[str]()
    watchers = [
        threading.Thread(
            target=cancel_when_saved, args=(results / runs[0], cancelled), daemon=True
        ),
        threading.Thread(target=hang_when_saved, args=(results / runs[1],), daemon=True),
    ]
    for watcher in watchers:
        watcher.start()
    words = [BIN / "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", tmp_path]
    words += ["--profile", profile(tmp_path), "--config", f"study={tmp_path / 'tiny.yaml'}"]
    words += ["--", *(f"results/tiny/{run_id}/result.json" for run_id in [*runs, *probes])]
    done = programs.run(words, tmp_path, 1200, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not any(watcher.is_alive() for watcher in watchers)
    jobs = subprocess.run(
        ["scontrol", "show", "job", "--oneliner"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    [job] = [job for job in jobs if job.startswith(f"JobId={cancelled[0]} ")]
    assert "JobState=CANCELLED" in job
    assert "Restarts=0" in job
    assert [job for job in jobs if "NumNodes=2" in job and "Restarts=0" not in job], jobs
    for run_id in runs:
        assert [line["step"] for line in log_lines(results / run_id)][-1] == STEPS

    # The same runs here, undisturbed, with as many processes.
    [data] = (tmp_path / "data").iterdir()
    for run_id in runs:
        words = [BIN / "torchrun", "--standalone", "--nproc-per-node", "2", "-m", "mgm", "run"]
        words += [results / "specs" / f"{run_id}.json", "--data", f"ssv2={data}"]
        words += ["--out", tmp_path / "alone", "--checkpoint-s", "0"]
        done = programs.run(words, timeout=1200, OMP_NUM_THREADS="1")
        assert done.returncode == 0, done.stderr
        there, here = (
            load_file(folder / run_id / "weights.safetensors")
            for folder in (results, tmp_path / "alone")
        )
        for name in here:
            # After a restart, two processes sum float32 numbers in another order.
            torch.testing.assert_close(there[name], here[name], rtol=1e-3, atol=1e-4)


def test_what_slurm_refuses_fails_with_its_reason(tmp_path):
    tiny_study(tmp_path, steps=2)
    folder = profile(tmp_path)
    fields = yaml.safe_load((folder / "config.yaml").read_text())
    fields["set-resources"]["prepare"] |= {"gres": "gpu:3"}  # a node has two
    (folder / "config.yaml").write_text(yaml.dump(fields | {"retries": 0}, Dumper=Plain))
    words = [BIN / "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", tmp_path]
    words += ["--profile", folder, "--config", f"study={tmp_path / 'tiny.yaml'}"]
    done = programs.run(words, tmp_path, 1200, OMP_NUM_THREADS="1")
    assert done.returncode != 0
    assert "Requested node configuration is not available" in done.stderr
    assert os.listdir(tmp_path / "results" / "tiny")
