"""The files of a run's folder: its result, its log, and what state it is in.

A folder `results/NAME/RUN_ID` has spec.json, log.jsonl, run.lock, a checkpoint while it trains,
then weights.safetensors or predictions.csv, and at the end result.json, written in one step.

`status` alone says what a run has come to, for `mgm run`, the workflow, children and pages.
"""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from mgm.errors import UserError, valid
from mgm.files import held, locked, naming, read_json, write_text
from mgm.spec import FrozenModel, Spec, read_spec

RESULT, LOCK = "result.json", "run.lock"
WEIGHTS, CHECKPOINT = "weights.safetensors", "checkpoint.pt"
# The frozen study beside the runs, and what a result records if there is none.
FROZEN, UNFROZEN = "study.yaml", "none"
EXTERNAL = "external.json"  # path and digest of weights that no run here trained
# A stopped run has begun, and the same command continues it. Whether one runs is unknown to those
# who may not read its lock. A run is damaged if its result cannot be read.
State = Literal["not run", "running", "stopped", "unknown", "failed", "damaged", "finished"]


class Seen(BaseModel):
    """The dataset that a run saw. `classes` are their names, or how many there are."""

    model_config = ConfigDict(extra="allow")

    dataset: str
    digest: str
    note: str = ""
    classes: int | list[str]
    train: int
    test: int


class External(FrozenModel):
    """Weights that no run here trained."""

    path: str
    sha256: str


class Result(BaseModel):
    """What a run came to. `parents` has the SHA-256 of the weights that it started from."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    run_id: str
    stage: str
    spec: dict[str, Any]
    metrics: dict[str, float]
    seed: int
    parents: dict[str, str | None] = {}
    data: Seen
    # Test videos that the metrics count. 0: it is no test.
    n_test: int = 0
    commit: str
    dirty: bool
    device: str
    versions: dict[str, str] = {}
    # Times in ISO 8601, UTC.
    started: str
    finished: str
    wall_s: float
    weights_sha256: str | None = None
    # Digest of the frozen study beside the run when it started, or that there was none. Empty: an
    # older version, which did not say.
    study_sha256: str = ""
    failed_videos: list[str] = []


@dataclass(frozen=True)
class Status:
    """State of a run. `why` says more, in all states but finished and not run."""

    state: State
    why: str = ""
    result: Result | None = None

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.state, self.why)))


def write_result(folder: Path, fields: Mapping[str, Any]) -> None:
    """Write the result of a run."""
    path = folder / RESULT
    with valid(f"{path}: "):
        result = Result.model_validate(fields)
    write_text(path, result.model_dump_json(indent=1) + "\n")


def read_result(folder: Path) -> Result | None:
    """Return the result in a folder of any name; None if it is not there."""
    path = folder / RESULT
    try:
        with valid(f"{path}: ", "delete it, and run it again"):
            return Result.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None


def external(folder: Path) -> External | None:
    """Return what a folder says of weights that no run here trained; None if it says nothing."""
    path = folder / EXTERNAL
    if not path.exists():
        return None
    with valid(f"{path}: ", "delete its folder, and run again"):
        return External.model_validate(read_json(path))


def own_spec(folder: Path) -> Spec:
    """Return the spec in a folder of any name. It must be that of its result, if that is there."""
    spec, result = read_spec(folder), read_result(folder)
    if result and result.run_id != spec.run_id:
        raise UserError(
            f"{folder / 'spec.json'}: is of {spec.run_id}, and {RESULT} of {result.run_id}; "
            "restore it"
        )
    return spec


def status(folder: Path, weights: bool = False) -> Status:
    """Return the state of the run that a folder is named by.

    Args:
        weights: whether they count, as for a child. A finished run without them is then one that
            was stopped. Its numbers stay.
    """
    try:
        return _status(folder, weights)
    except PermissionError as error:
        return Status("unknown", f"{error.filename}: {error.strerror}")
    except (UserError, OSError) as error:
        return Status("damaged", str(error))


def _status(folder: Path, weights: bool) -> Status:
    """Return the state of a run, as `status` does. Raise an error if the run is damaged."""
    result, other = read_result(folder), external(folder)
    if result and result.run_id != folder.name:
        raise UserError(
            f"{folder / RESULT}: is of {result.run_id}; delete it, and run {folder.name} again"
        )
    if other and not Path(other.path).exists():
        raise UserError(f"{other.path}: no such weights; restore them")
    lacks = weights and result and result.weights_sha256 and not (folder / WEIGHTS).is_file()
    if other or (result and not lacks):
        return Status("finished", result=result)
    if not (folder / "spec.json").is_file():
        return Status("not run")
    lines, runs = log_lines(folder), held(folder / LOCK)
    at = f"step {lines[-1]['step']} of {lines[-1].get('steps', '?')}" if lines else "step 0"
    if runs:
        return Status("running", at)
    if (error_file := folder / "error.txt").is_file():
        return Status("failed", " ".join(error_file.read_text(errors="replace").split()))
    if runs is None:
        return Status("unknown", f"at {at}; its lock cannot be read")
    at = f"without {WEIGHTS}" if lacks else f"at {at}"
    return Status("stopped", f"{at}; run it again to continue")


@contextmanager
def claimed(folder: Path) -> Iterator[Status]:
    """Hold the lock of a run, and yield its state, in which weights count.

    What a killed process has left is removed: parts of files, and a finished run's checkpoint. A
    run that has begun and is not finished is then running, by this process.
    """
    with locked(folder / LOCK, folder.name):
        now = status(folder, weights=True)
        for path in leftovers(folder, now):
            path.unlink()
        yield now


def leftovers(folder: Path, now: Status) -> list[Path]:
    """Return the files that a killed process has left in the folder of a run that nobody runs."""
    done = [folder / CHECKPOINT] if now.state == "finished" else []
    # As large as a checkpoint.
    return [*filter(Path.is_file, done), *folder.glob(".[0-9]*.*")]


def log_lines(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's log, sorted by step.

    If a step appears twice, its last line counts. Half a line of a killed run is left out.
    """
    path, lines = folder / "log.jsonl", dict[int, dict[str, Any]]()
    for text in path.read_text(errors="replace").splitlines() if path.is_file() else []:
        try:
            line = json.loads(text)
            lines[int(line["step"])] = line
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            continue
    return [lines[step] for step in sorted(lines)]


def append_log(folder: Path, line: Mapping[str, Any]) -> None:
    """Append a line, which has the field `step`, to a run's log."""
    path = folder / "log.jsonl"
    with naming(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def rewind_log(folder: Path, step: int) -> None:
    """Delete the lines after `step`, so that a run that continues there logs no step twice."""
    kept = [json.dumps(line) + "\n" for line in log_lines(folder) if line["step"] <= step]
    write_text(folder / "log.jsonl", "".join(kept))


def frozen_sha256(path: Path) -> str:
    """Return the digest of a frozen study, or `UNFROZEN`."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else UNFROZEN


def git_commit() -> tuple[str, bool]:
    """Return the commit of the running code, and whether the code differs from it.

    The commit is empty outside a checkout.
    """
    root = Path(__file__).parents[2]

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    if not (root / ".git").exists() or not shutil.which("git"):
        return "", False
    changed = git("status", "--porcelain", "--untracked-files=no", "--", "mgm")
    return git("rev-parse", "HEAD"), bool(changed)
