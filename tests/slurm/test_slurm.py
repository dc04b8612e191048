"""The Snakefile on a real Slurm of two nodes, whose jobs are cancelled, told to end, and long."""

import os
import re
import shlex
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
from tests.helpers.processes import is_alive, wait_for
from tests.helpers.programs import BIN, ROOT
from tests.helpers.small_runs import PRETRAIN
from tests.helpers.tiny_study import tiny_study

STEPS = 60

# A job runs for five turns of a minute.
pytestmark = [pytest.mark.slurm, pytest.mark.timeout(2400), pytest.mark.usefixtures("cpu")]


class Plain(yaml.SafeDumper):
    """YAML without aliases."""

    def ignore_aliases(self, data):
        return True


@pytest.fixture(scope="module", autouse=True)
def slurm(tmp_path_factory):
    if why := unfit():
        pytest.skip(why)
    with pytest.MonkeyPatch.context() as patch, cluster(tmp_path_factory.mktemp("slurm")):
        # Slurm's GPUs are files without a device. Jobs inherit this.
        patch.setenv("MGM_CPU", "1")
        yield


def profile(folder: Path) -> Path:
    """Write the profile with jobs of a minute, of which pretraining has two nodes.

    Return its folder.
    """
    fields = yaml.safe_load((ROOT / "slurm/config.yaml").read_text())
    small = {"nodes": 1, "gpus": 0, "cpus_per_task": 1, "mem_mb": 1500, "runtime": 10}
    gpu = {"gpus": 1, "gres": "gpu:1", "tasks_per_gpu": 0}
    asked = fields["set-resources"]
    assert {*asked} == {"prepare", "flow", "pretrain", "finetune", "probe", "measure", "sample"}
    fields |= {
        "set-threads": {"prepare": 1, "flow": 1},
        "set-resources": dict.fromkeys(asked, small),
        "configfile": [str(ROOT / "slurm/options.yaml")],
        # Look at the jobs after a second, to save time.
        "slurm-init-seconds-before-status-checks": 1,
    }
    two = {"nodes": 2, "tasks": 2, "runtime": 1}
    fields["set-resources"] |= {
        "pretrain": asked["pretrain"] | small | gpu | two,
        "finetune": small | {"runtime": 1},
        "probe": small | gpu,
    }
    (folder / "small").mkdir(parents=True)
    (folder / "small" / "config.yaml").write_text(yaml.dump(fields, Dumper=Plain))
    return folder / "small"


def told(*words: str | Path) -> str:
    return subprocess.run([*map(str, words)], capture_output=True, text=True, check=True).stdout


def jobs_of(run_id: str) -> list[str]:
    """Return what Slurm says of each job of a run."""
    jobs = told("scontrol", "show", "job", "--oneliner").splitlines()
    return [job for job in jobs if run_id in job]


def main_process(folder: Path, last: int = 0) -> int:
    """Wait until a run saves steps in a process other than `last`. Return its process."""
    before = len(log_lines(folder))
    while True:
        time.sleep(0.02)
        lock = folder / "run.lock"
        found = re.findall(r"process (\d+) on", lock.read_text()) if lock.is_file() else []
        if found and int(found[0]) != last and len(log_lines(folder)) > before:
            return int(found[0])


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def first_of_step(pid: int) -> int:
    """Return the process that Slurm started, and of which `pid` descends.

    With proctrack/cgroup it alone gets Slurm's signals. Here all processes of a step get them.
    """
    while not Path(f"/proc/{parent(pid)}/cmdline").read_bytes().startswith(b"slurmstepd"):
        pid = parent(pid)
    return pid


def hold(folder: Path, turns: int, signalled: list[int]) -> None:
    """Let a run make a few steps in each of some turns, and stand still until its job's end.

    Send SIGTERM to the first process of its step, as before a time limit, if that is not its own.
    """
    pid = 0
    for _ in range(turns):
        pid = main_process(folder, pid)
        os.kill(pid, signal.SIGSTOP)
        if b"snakemake" in Path(f"/proc/{first_of_step(pid)}/cmdline").read_bytes():
            os.kill(first_of_step(pid), signal.SIGTERM)
            signalled.append(pid)
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        [end] = [word[12:] for word in environment if word.startswith(b"MGM_JOB_END=")]
        # The run's alarm, a quarter of its time before, rang while it stood still, however late it began.
        time.sleep(max(int(end) - 1 - time.time(), 0))
        os.kill(pid, signal.SIGCONT)
        wait_for(lambda pid=pid: not is_alive(pid))


def cancel(folder: Path, cancelled: list[str]) -> None:
    """Cancel the job of a run that has saved a checkpoint."""
    main_process(folder)
    [job] = [job for job in jobs_of(folder.name) if "JobState=RUNNING" in job]
    cancelled.append(job.partition(" ")[0])
    told("scancel", cancelled[0].removeprefix("JobId="))


def test_cancelled_jobs_and_long_runs_end_as_if_undisturbed(tmp_path):
    """A pretraining on two nodes is cancelled. Another one and a fine-tuning need more turns.

    They know the end: Slurm would wait ten minutes longer. No signal of Slurm reaches them, and no
    retry is used.
    """
    study = Workflow({"study": str(tiny_study(tmp_path, steps=STEPS)), "slurm": True})
    runs = [run_id for run_id in study.specs if run_id.startswith("pretrain")]
    probes = [run_id for run_id, spec in study.specs.items() if spec.stage == "probe"]
    [tuned] = [
        one
        for one in study.specs
        if getattr(study.specs[one], "parent", "") == runs[1]
        and study.specs[one].stage == "finetune"
    ]
    results, cancelled, signalled = tmp_path / "results" / "tiny", list[str](), list[int]()
    tasks = (
        (cancel, results / runs[0], cancelled),
        (hold, results / runs[1], 4, signalled),
        (hold, results / tuned, 1, signalled),
    )
    watchers = [threading.Thread(target=task, args=words, daemon=True) for task, *words in tasks]
    for watcher in watchers:
        watcher.start()
    words = [BIN / "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", tmp_path]
    words += ["--profile", profile(tmp_path), "--config", f"study={tmp_path / 'tiny.yaml'}"]
    words += ["--", *(f"results/tiny/{run_id}/result.json" for run_id in [*runs, tuned, *probes])]
    done = programs.run(words, tmp_path, 2000, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not any(watcher.is_alive() for watcher in watchers)
    assert len(signalled) == 1
    [was] = [job for job in jobs_of(runs[0]) if job.startswith(f"{cancelled[0]} ")]
    assert "JobState=CANCELLED" in was
    assert "Restarts=0" in was
    for run_id, turns in ((runs[1], 5), (tuned, 2)):
        [job] = jobs_of(run_id)
        # A busy machine may need more turns.
        assert int(re.search(r"Restarts=(\d+) ", job)[1]) >= turns - 1
        said = "".join(path.read_text() for path in (tmp_path / "logs").rglob(f"*{run_id}*/*.log"))
        assert "DUE TO TIME LIMIT" not in said
    for run_id in [*runs, tuned]:
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


def test_a_preempted_job_goes_on_if_its_steps_first_process_alone_is_told(data, tmp_path):
    """It is torchrun, on one of two nodes."""
    spec = PRETRAIN.model_copy(update={"optim": PRETRAIN.optim.model_copy(update={"steps": STEPS})})
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    folder = tmp_path / "results" / spec.run_id
    command = ["bash", ROOT / "slurm" / "launch.sh", 2, 0, 1, BIN / "mgm", "run", "spec.json"]
    command += ["--data", f"ssv2={data}", "--checkpoint-s", "1000"]
    (tmp_path / "logs").mkdir()
    words = ["--nodes=2", "--ntasks-per-node=1", "--mem=1500", "--time=10", "--requeue"]
    words += [
        f"--chdir={tmp_path}",
        "--parsable",
        f"--output={tmp_path}/said",
        "--open-mode=append",
    ]
    job = told("sbatch", *words, "--wrap", shlex.join(map(str, command))).strip()
    os.kill(first_of_step(main_process(folder)), signal.SIGTERM)
    wait_for((folder / "result.json").is_file, 300)
    said = (tmp_path / "said").read_text()
    assert f"job {job}: requeued, time 1 of" in said
    assert re.search(r"continues at step [1-9]", said)
    assert [line["step"] for line in log_lines(folder)][-1] == STEPS


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
