"""The Snakefile on a real Slurm of two nodes.

Its jobs are killed, stopped by their time limit, or refused.
"""

import json
import os
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
from tests.helpers import programs
from tests.helpers.cluster import cluster, unfit
from tests.helpers.own_videos import own_study
from tests.helpers.programs import BIN, ROOT

ENVIRONMENT = programs.ENVIRONMENT | {"OMP_NUM_THREADS": "1"}

# 1500 s: a job runs into its time limit of a minute and waits until Slurm starts it again.
pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module", autouse=True)
def slurm(tmp_path_factory):
    if why := unfit():
        pytest.skip(why)
    with cluster(tmp_path_factory.mktemp("slurm")):
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a study of own videos, in a hundred steps, and a cluster file."""
    folder = tmp_path_factory.mktemp("here")
    own_study(folder, factor=32, specs_per_job=1, train=16)
    small = {"nodes": 1, "gpus": 0, "cpus": 1, "mem_gb": 1.5, "hours": 0.1}
    # Copies, so that the YAML file has no aliases.
    jobs = {
        "pretrain": small | {"nodes": 2, "gpus": 1, "hours": 1 / 60},
        "finetune": dict(small),
        "probe": dict(small),
    }
    # A shell would run these commands. Slurm stores them as an address and sends no mail.
    hostile = '--mail-user=$(touch pwned); `touch pwned` "x" | y'
    (folder / "cluster.yaml").write_text(yaml.safe_dump({"jobs": jobs, "sbatch": [hostile]}))
    return folder


def config(place: Path, **more: str) -> list[str]:
    options = {"study": place / "mine.yaml", "cluster": place / "cluster.yaml"} | more
    return ["--config", *(f"{name}={value}" for name, value in options.items())]


def snakemake(
    place: Path, *words: str, environment=ENVIRONMENT, timeout=700, **more: str
) -> subprocess.CompletedProcess:
    """Run `snakemake --profile slurm` in the repository's root, with results in `place`.

    It checks the jobs' status after one second, to save time.
    """
    command = [
        BIN / "snakemake",
        "--profile",
        "slurm",
        "--directory",
        place,
        "--slurm-init-seconds-before-status-checks",
        "1",
    ]
    return subprocess.run(
        [*map(str, command), *config(place, **more), "--", *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def when_saved(folder: Path, number: signal.Signals) -> None:
    """Send the run's writer a signal once it has saved its first checkpoint."""
    while not (folder / "checkpoint.pt").exists():
        time.sleep(0.02)
    os.kill(json.loads((folder / "writer.lock").read_text())["pid"], number)


def test_killed_and_timed_out_jobs_end_as_if_undisturbed(place):
    workflow = Workflow(
        {"study": str(place / "mine.yaml")},
        *(place / name for name in ("results", "reports", "data")),
    )
    finetuned = next(
        spec
        for spec in workflow.plan.specs.values()
        if spec.stage == "finetune" and "mgm" in str(spec.parent)
    )
    killed = next(run_id for run_id in workflow.plan.specs if run_id.startswith("pretrain-block"))
    ids = [str(finetuned.parent), finetuned.run_id, killed]
    results = place / "results" / "mine"
    watchers = [
        threading.Thread(target=when_saved, args=(results / run_id, number), daemon=True)
        # The stopped job hangs until its time limit of a minute. Then Slurm continues and ends it.
        for run_id, number in ((killed, signal.SIGKILL), (str(finetuned.parent), signal.SIGSTOP))
    ]
    for watcher in watchers:
        watcher.start()
    done = snakemake(place, *(f"results/mine/{run_id}/result.json" for run_id in ids))
    assert done.returncode == 0, done.stderr
    assert not any(watcher.is_alive() for watcher in watchers)
    assert "Trying to restart job" in done.stderr  # the killed one
    jobs = subprocess.run(
        ["scontrol", "show", "job", "--oneliner"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    # The time limit stopped the other job at least once.
    assert [job for job in jobs if "NumNodes=2" in job and "Restarts=0" not in job], jobs

    workflow.start()
    # The same runs here, undisturbed, with the same numbers of processes.
    alone = place / "alone"
    for run_id, processes in zip(ids, (2, 1, 2)):
        command = (
            [BIN / "torchrun", "--standalone", "--nproc-per-node", str(processes), "-m", "mgm"]
            if processes > 1
            else [BIN / "mgm"]
        )
        verb = run_id.split("-")[0]
        spec, data = results / "specs" / f"{run_id}.json", f"clips={place / 'data'}"
        run = subprocess.run(
            [*map(str, command), verb, str(spec), "--data", data, "--out", str(alone)],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        there, here = (
            load_file(folder / run_id / "weights.safetensors") for folder in (results, alone)
        )
        # After a restart, two processes sum float32 numbers in buckets of other sizes, and so in
        # another order.
        for name in here:
            torch.testing.assert_close(there[name], here[name], rtol=1e-3, atol=1e-4)


def test_what_the_cluster_refuses_fails_with_its_reason(place, tmp_path):
    cluster = yaml.safe_load((place / "cluster.yaml").read_text())
    cluster["jobs"]["pretrain"] |= {"gpus": 4, "mem_gb": 1}
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(cluster))
    done = snakemake(place, "all", cluster=tmp_path / "cluster.yaml")
    assert done.returncode != 0, done.stderr
    assert "a batch of 6 " in done.stderr
    assert "has been submitted" not in done.stderr
    cluster["jobs"]["probe"] |= {"gpus": 3}  # a node has two
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(cluster))
    study = yaml.safe_load((place / "mine.yaml").read_text()) | {"study": "refused"}
    (tmp_path / "refused.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    known = Workflow({"study": str(tmp_path / "refused.yaml")}).plan.specs
    run = next(
        run_id for run_id, spec in known.items() if spec.stage == "probe" and not spec.parent
    )
    words = [f"results/refused/{run}/result.json"]
    files = {"study": tmp_path / "refused.yaml", "cluster": tmp_path / "cluster.yaml"}
    done = snakemake(place, *words, **files)
    assert done.returncode != 0, done.stderr
    assert "Requested node configuration is not available" in done.stderr


def test_without_slurm_one_line_says_so(place, tmp_path):
    for name in ("bash", "sh", "which"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    done = snakemake(place, "all", environment=ENVIRONMENT | {"PATH": f"{BIN}:{tmp_path}"})
    assert done.returncode != 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("mgm: ")]
    assert "no Slurm" in line
