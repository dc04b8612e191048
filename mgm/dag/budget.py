"""Choose the size, the seeds and the steps of a study so that it ends in about a given time.

A few steps and a probe are run as the study will run them, at the same time on every core or GPU.
"""

import os
import subprocess
import sys
import time
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from mgm.console import duration
from mgm.dag.workflow import Workflow
from mgm.device import visible_gpus
from mgm.errors import UserError
from mgm.files import write_text
from mgm.processes import cores
from mgm.results.run import log_lines, read_result
from mgm.results.statistics import ENOUGH, FEWEST
from mgm.spec import Measure, Pretrain, Probe, Spec
from mgm.study.schema import new_study


class Size(NamedTuple):
    """A scale, the fewest steps of its pretraining, and those from which seeds are added."""

    scale: str
    fewest: int
    full: int


# From small to large. A larger one needs the seeds of a verdict at its full steps.
SIZES = (Size("smoke", 400, 2800), Size("gestures", 3000, 3000))
MOST_SEEDS = 16
MOST_STEPS = 10_000_000
FIRST, STEPS = 10, 100  # steps that are run before any is measured, and those of a run
# Seconds of a study in which it trains nothing: Snakemake's start, pictures, page and MLflow.
REST_S = 45.0
JOB_S = 60.0  # that a job should take, since Python starts once per job
# Standard deviation over folds or worlds of MGM minus the tube by linear probes, in points: that of
# study hands (4.3) and of a draw of confirmation (10.4), rounded.
SPREAD = (4.0, 10.0)


class Speed(NamedTuple):
    """Seconds that parts of a study take.

    Attributes:
        start: a job, before its first run.
        fixed: a pretraining, without its steps.
    """

    start: float
    fixed: float
    step: float
    probe: float
    controls: float


class Budget(NamedTuple):
    """What was chosen, and what it takes."""

    scale: str
    seeds: int
    steps: int
    per_job: int
    seconds: float
    speed: Speed
    at_once: int

    def fields(self) -> dict[str, Any]:
        """Return the fields of a study (`new_study`)."""
        cost = f"about {duration(self.seconds)} where it was planned, {self.at_once} runs at once"
        return {
            "scale": self.scale,
            "seeds": f"0-{self.seeds - 1}",
            "settings": {"pretrain": {"optim.steps": self.steps}},
            "specs_per_job": self.per_job,
            "expected_cost": cost,
        }

    def says(self) -> list[str]:
        """Return what was measured and chosen, and what it can show."""
        from scipy.special import stdtrit

        speed, half = self.speed, float(stdtrit(self.seeds - 1, 0.975)) / self.seeds**0.5
        low, high = (half * spread for spread in SPREAD)
        verdicts = "" if self.seeds >= ENOUGH else f"; verdicts need {ENOUGH} seeds"
        return [
            f"measured, {self.at_once} runs at once: {1000 * speed.step:.0f} ms per step, "
            f"{speed.probe:.1f} s per probe",
            f"chosen: scale {self.scale}, {self.seeds} seeds, {self.steps:,} steps of "
            f"pretraining; about {duration(self.seconds)}",
            f"A difference between two masks will have an interval of about +-{low:.0f} to "
            f"+-{high:.0f} points, if seeds differ as in our studies{verdicts}.",
        ]


def budget(path: Path, root: Path, test: Path | None, hours: float) -> Budget:
    """Return the largest study of three masks that ends in about so many hours.

    Args:
        path, root, test: see `new_study`.

    Raises:
        UserError: there is no time for the smallest study.
    """
    devices, chosen = visible_gpus() or [""] * cores(), list[Budget]()
    for size in SIZES:
        speed = _measured(path, root, test, size.scale, devices)
        found = choose(size, speed, 3600 * hours, len(devices))
        # A larger model needs the seeds of a verdict.
        if found and (not chosen or found.seeds >= ENOUGH):
            chosen.append(found)
        elif not chosen:
            least, _ = seconds_of(FEWEST, size.fewest, speed, len(devices))
            raise UserError(
                f"--hours {hours:g}: the smallest study, {FEWEST} seeds of {size.fewest} steps, "
                f"takes {least / 3600:.2g} hours here; allow more"
            )
        if not found or found.seeds < MOST_SEEDS:
            break
    return chosen[-1]


def choose(size: Size, speed: Speed, seconds: float, at_once: int) -> Budget | None:
    """Return the study of a size that takes `seconds`; None if there is too little time.

    More seeds than a verdict needs are worth their time only if all have their full steps.
    """
    for seeds in range(MOST_SEEDS, FEWEST - 1, -1):

        def took(steps: int, seeds: int = seeds) -> float:
            return seconds_of(seeds, steps, speed, at_once)[0]

        steps = bisect_right(range(MOST_STEPS), seconds, key=took) - 1
        if steps >= (size.full if seeds > ENOUGH else size.fewest):
            took_s, per_job = seconds_of(seeds, steps, speed, at_once)
            return Budget(size.scale, seeds, steps, per_job, took_s, speed, at_once)
    return None


def seconds_of(seeds: int, steps: int, speed: Speed, at_once: int) -> tuple[float, int]:
    """Return how long the study that `new_study` writes takes, and its runs per job."""
    run = speed.fixed + max(steps, 1) * speed.step
    per_job = max(min(int(JOB_S / run), seeds // at_once), 1)
    # Three masks; of each, and of random weights, a probe.
    pretrained, probed = 3 * seeds, 4 * seeds
    jobs = -(-pretrained // per_job) + -(-probed // per_job)
    # The last pretrainings end together, if each core has as many.
    rounds = -(-pretrained // at_once)
    work = probed * speed.probe + speed.controls + jobs * speed.start
    return REST_S + rounds * run + work / at_once, per_job


def _measured(
    path: Path, root: Path, test: Path | None, scale: str, devices: Sequence[str]
) -> Speed:
    """Run a few steps, a probe and the controls of a study. As many processes run as it will have.

    Args:
        devices: the GPU of each process; empty on a CPU.
    """
    with TemporaryDirectory() as name:
        place = Path(name)
        text = new_study(path, root, test, {"scale": scale, "seeds": 0})
        write_text(place / path.name, text)
        workflow = Workflow({"study": str(place / path.name)})
        specs = [*workflow.specs.values()]
        full = next(run for run in specs if isinstance(run, Pretrain) and run.mask.name == "mgm")
        warm, timed = (
            full.model_copy(update={"optim": full.optim.model_copy(update={"steps": steps})})
            for steps in (FIRST, STEPS)
        )
        probe = next(run for run in specs if isinstance(run, Probe) and run.parent == full.run_id)
        controls = next(run for run in specs if isinstance(run, Measure))
        # A process pays for its start with its first run.
        runs: list[Spec] = [
            warm,
            timed,
            probe.model_copy(update={"parent": timed.run_id}),
            controls,
        ]
        began = time.monotonic()
        started = [
            _start(runs, place / str(number), workflow, device)
            for number, device in enumerate(devices)
        ]
        said, _ = started[0].communicate()
        took_s = time.monotonic() - began
        for other in started[1:]:
            other.communicate()
        results = [read_result(place / "0" / run.run_id) for run in runs]
        if not all(results):
            last = said.strip().rpartition("\n")[2]
            raise UserError(f"{root}: a few steps failed: {last}")
        _, timed_s, probe_s, controls_s = (result.wall_s for result in results if result)
        each_s = [line["seconds"] for line in log_lines(place / "0" / timed.run_id)]
    step_s = sum(each_s[FIRST:]) / (STEPS - FIRST)
    start_s = max(took_s - timed_s - probe_s - controls_s, 0)
    return Speed(start_s, max(timed_s - sum(each_s), 0), step_s, probe_s, controls_s)


def _start(
    runs: Sequence[Spec], folder: Path, workflow: Workflow, device: str
) -> "subprocess.Popen[str]":
    """Start `mgm run` of some runs in a folder."""
    files = [folder / "specs" / f"{run.run_id}.json" for run in runs]
    for run, file in zip(runs, files):
        write_text(file, run.model_dump_json())
    words = [sys.executable, "-m", "mgm", "run", *map(str, files), *workflow.data_of(runs)]
    words += ["--out", str(folder), *workflow.execution.words()]
    env = os.environ | ({"CUDA_VISIBLE_DEVICES": device} if device else {})
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(words, env=env, text=True, **pipes)
