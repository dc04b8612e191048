"""Verify a study: its runs' commits, its predictions' dates, and the numbers of its cells."""

import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pandas as pd

from mgm.errors import UserError
from mgm.report.findings import Findings
from mgm.results.frame import read_specs
from mgm.study.schema import Prediction
from mgm.study.suite import Suite

ROOT = Path(__file__).parents[2]


def verify(findings: Findings, results: Path) -> tuple[list[str], int]:
    """Check a study against git and its files in the folder `results`.

    - Each run that has a result agrees with its files. `examine` computes every accuracy again from
      predictions.csv.
    - Each finished run of the folder is one of the study.
    - Each run's commit is in the repository, and nothing was changed when the run started, or the
      study's field `unclean` says why.
    - Each prediction's commit is older than the first evaluation that tests it, or its field `late`
      says why not.

    Returns:
        A line per check, and the number of checks that failed.
    """
    lines, failed = [], 0
    for passes, line in (
        *_files(findings),
        *_strangers(findings, results),
        *_commits(findings),
        *_predictions(findings),
    ):
        lines.append(f"{'ok' if passes else 'FAILED'}: {line}")
        failed += not passes
    return lines, failed


Check = tuple[bool, str]


def _files(findings: Findings) -> Iterator[Check]:
    states = {run_id: findings.statuses[run_id] for run_id in findings.suite.specs}
    done = sum(status.state == "run" for status in states.values())
    yield True, f"{done} of {len(states)} runs have a result that agrees with their files"
    for status in states.values():
        if status.state == "altered":
            yield False, status.why


def _strangers(findings: Findings, results: Path) -> Iterator[Check]:
    for folder in unwanted(findings.suite, results):
        yield False, f"{folder}: is no run of this study"


def unwanted(suite: Suite, results: Path) -> list[Path]:
    """Return the folders of finished runs in `results` that no table or figure uses.

    A folder counts as a run only if it has the spec of the run id that is its name.
    """
    return [
        results / run_id
        for run_id, spec in sorted(read_specs(results).items())
        if run_id not in suite.specs and not isinstance(spec, UserError)
        if (results / run_id / "result.json").exists() and not (results / run_id).is_symlink()
    ]


def _commits(findings: Findings) -> Iterator[Check]:
    results = [status.result for status in findings.statuses.values() if status.result]
    table = pd.DataFrame({name: [run[name] for run in results] for name in ("commit", "dirty")})
    for (commit, dirty), runs in table.groupby(["commit", "dirty"]):
        line = f"{len(runs)} runs of commit {str(commit)[:7]}"
        here = _date(str(commit)) is not None
        if here and not dirty:
            yield True, f"{line}, clean"
            continue
        line += " with changes that were not committed" if here else ", which this repository lacks"
        why = findings.study.unclean
        yield bool(why), f"{line}. {why}" if why else line


def _predictions(findings: Findings) -> Iterator[Check]:
    for prediction in findings.study.predictions:
        text = f"{prediction.dataset}: {prediction.says}"
        written, tested = _date(prediction.since), first_test(findings, prediction)
        if not written:
            yield False, f"{text}: its commit {prediction.since} is not in this repository"
        elif tested is None:
            yield True, f"{text}: of {written:%Y-%m-%d %H:%M}, not tested yet"
        else:
            seconds = (tested - written).total_seconds()
            words = "before" if seconds > 0 else "AFTER"
            line = f"{text}: {abs(seconds) / 60:.0f} min {words} its first test"
            yield (
                seconds > 0 or bool(prediction.late),
                f"{line}. {prediction.late}" if prediction.late else line,
            )


def first_test(findings: Findings, prediction: Prediction) -> datetime | None:
    """Return when the first evaluation started that completed a test of a prediction.

    A difference is tested by a unit once both of its runs are there.
    """
    runs = findings.tested_by(prediction)
    latest, terms = [], len(runs[["row", "column"]].drop_duplicates())
    for _, unit in runs.groupby(["draw", "seed"]):
        results = [findings.statuses[run_id].result for run_id in unit.run_id]
        if all(results) and len(unit[["row", "column"]].drop_duplicates()) == terms:
            latest.append(max(run["started"] for run in results if run))
    return datetime.fromisoformat(min(latest)) if latest else None


def _date(commit: str) -> datetime | None:
    """Return the date of a commit, in UTC; None if the repository lacks it."""
    command = ["git", "-C", str(ROOT), "show", "--no-patch", "--format=%cI", f"{commit}^{{commit}}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return datetime.fromisoformat(done.stdout.strip()) if done.returncode == 0 else None
