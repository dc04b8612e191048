"""The files of a run's folder: its result, its log, and what state it is in.

A folder `results/NAME/RUN_ID` has spec.json, log.jsonl, run.lock, checkpoints while it trains, then
weights.safetensors or predictions.csv, and at the end result.json, written in one step.
"""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from mgm.errors import UserError, valid
from mgm.files import held, naming, read_json, write_text
from mgm.spec import FrozenModel, Spec, read_spec

RESULT, LOCK = "result.json", "run.lock"
# The frozen study beside the runs, and what a result records if there is none.
FROZEN, UNFROZEN = "study.yaml", "none"
EXTERNAL = "external.json"  # path and digest of weights that no run here trained
State = Literal["finished", "running", "failed", "not run"]


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
    """State of a run. `why` says what is wrong, in every state but finished."""

    state: State
    why: str = ""
    result: Result | None = None


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
        return Result.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        why = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
        raise UserError(f"{path}: {why}; delete it, and run it again") from None


def external(folder: Path) -> External | None:
    """Return what a folder says of weights that no run here trained; None if it says nothing."""
    path = folder / EXTERNAL
    if not path.exists():
        return None
    with valid(f"{path}: ", "delete its folder, and run again"):
        return External.model_validate(read_json(path))


def own_result(folder: Path) -> Result | None:
    """Return the result of the run that a folder is named by."""
    result = read_result(folder)
    if result and result.run_id != folder.name:
        raise UserError(
            f"{folder / RESULT}: is of {result.run_id}; delete it, and run {folder.name} again"
        )
    return result


def own_spec(folder: Path) -> Spec:
    """Return the spec in a folder of any name. It must be that of its result, if that is there."""
    spec, result = read_spec(folder), read_result(folder)
    if result and result.run_id != spec.run_id:
        raise UserError(
            f"{folder / 'spec.json'}: is of {spec.run_id}, and {RESULT} of {result.run_id}; "
            "restore it"
        )
    return spec


def status(folder: Path, spec: Spec | None = None) -> Status:
    """Return the state of a run. A result of another spec does not count."""
    try:
        result = own_result(folder)
    except (UserError, OSError) as error:
        return Status("not run", str(error))
    if result:
        return Status("finished", result=result)
    if (error_file := folder / "error.txt").is_file():
        return Status("failed", " ".join(error_file.read_text(errors="replace").split()))
    if not (folder / "spec.json").is_file():
        return Status("not run")
    lines = log_lines(folder)
    step = f"step {lines[-1]['step']} of {lines[-1].get('steps', '?')}" if lines else "step 0"
    if held(folder / LOCK):
        return Status("running", step)
    return Status("not run", f"stopped at {step}; run it again to continue")


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
