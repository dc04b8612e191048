"""Kill Snakemake, its group or a job, and call it again: nothing is lost or trained twice.

Batches have runs that fail. The others end, with weights that are bit-equal to those of an
undisturbed study.
"""

import hashlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from mgm.dag.workflow import Workflow
from mgm.results.run import log_lines
from mgm.spec import parents
from tests.helpers.programs import ENVIRONMENT, snakemake
from tests.helpers.tiny_study import tiny_study

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500), pytest.mark.usefixtures("cpu")]
STEPS = 100
# Who gets which signal. A study is disturbed by all of them, one after another.
# The last ones let jobs that run end their batches.
KILLS = [
    ("group", signal.SIGINT),
    ("group", signal.SIGTERM),
    ("group", signal.SIGKILL),
    ("job", signal.SIGKILL),
    ("job", signal.SIGTERM),
    ("process", signal.SIGTERM),
    ("process", signal.SIGKILL),
]


def study_with_failures(here: Path, steps: int = STEPS, seeds: str = "0-4") -> Path:
    """Write a study of which a third of the pretrainings fail, two runs per batch."""
    path = tiny_study(here, steps=steps, specs_per_job=2, seeds=seeds)
    fields = yaml.safe_load(path.read_text())
    fields["rows"] = {"Bad": {"optim.lr": 1e38}, "Tube": {"mask": "tube"}, "MGM": {}}
    del fields["columns"]["Fine-tuned"]
    path.write_text(yaml.safe_dump(fields, sort_keys=False))
    return path


def sound_and_failed(path: Path) -> tuple[set[str], set[str]]:
    """Return the runs of a study that can end, and those that fail."""
    specs = Workflow({"study": str(path)}).specs
    failed = {run_id for run_id, spec in specs.items() if getattr(spec, "optim", None)}
    failed = {run_id for run_id in failed if specs[run_id].optim.lr == 1e38}
    sound = {run for run, one in specs.items() if failed.isdisjoint((run, *parents(one)))}
    return sound, failed


def start(here: Path) -> subprocess.Popen:
    """Start Snakemake in its own session, so that a signal reaches all its processes."""
    words = snakemake(here, "--config", f"study={here / 'tiny.yaml'}")
    with (here / "said.txt").open("a") as said:
        return subprocess.Popen(
            words,
            env=ENVIRONMENT,
            stdout=said,
            stderr=said,
            start_new_session=True,
            # What a shell starts in the background ignores SIGINT, and so would its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


def jobs(here: Path) -> list[int]:
    """Return the processes of `mgm run` in a folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().split(b"\0")
            if b"run" in words[1:3] and Path(os.readlink(place / "cwd")) == here:
                found.append(int(place.name))
        except OSError:  # it has ended
            pass
    return sorted(found)


def results(here: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in here.glob("results/tiny/*/result.json")}


def weights(here: Path) -> dict[str, str]:
    files = here.glob("results/tiny/*/weights.safetensors")
    return {path.parent.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def in_training(here: Path) -> bool:
    """Return whether a run has logged a step in this call, and is not done."""
    logs = here.glob("results/tiny/*/log.jsonl")
    return bool(jobs(here)) and any(not (log.parent / "result.json").exists() for log in logs)


def test_however_it_is_killed_the_same_command_continues(tmp_path):
    here, alone = tmp_path / "here", tmp_path / "alone"
    for folder in (here, alone):
        study = study_with_failures(folder)
    for whom, number in KILLS:
        before = results(here)
        dag = start(here)
        while dag.poll() is None and not in_training(here):
            time.sleep(0.02)
        time.sleep(0.3)
        assert dag.poll() is None, "the study is too short"
        target = jobs(here)[0] if whom == "job" else dag.pid
        (os.killpg if whom == "group" else os.kill)(target, number)
        dag.wait(300)
        if (whom, number) == KILLS[0]:
            said = (here / "said.txt").read_text()
            assert "stopped; the same command continues" in said
            assert "Traceback" not in said
            assert "RuleException" not in said
        # A finished run stays as it is.
        assert before.items() <= results(here).items(), (whom, number)
    sound, failed = sound_and_failed(study)
    for folder in (here, alone):
        # The page's job names the failed runs, and ends with 1.
        assert start(folder).wait(600) == 1
        said = (folder / "said.txt").read_text()
        assert all(f"{run_id}: failed" in said for run_id in failed)
        assert results(folder).keys() == sound
    assert not jobs(here)
    assert weights(here) == weights(alone)
    for run_id in weights(here):
        steps = [line["step"] for line in log_lines(here / "results" / "tiny" / run_id)]
        assert steps == sorted({*steps})
        assert steps[-1] == STEPS
