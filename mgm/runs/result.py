"""What a finished run leaves behind, and whether it may be believed.

A result is believed when its seal holds and it is the result of exactly the run that was asked for;
otherwise a reader gets a state and a reason, not a number.
"""

import hashlib
import json
import operator
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import UnionType
from typing import Any, Literal

from mgm.errors import UserError
from mgm.runs import files as atomic
from mgm.spec import Spec, parents, parse

State = Literal["run", "altered", "running", "failed", "not run"]

FIELDS: dict[str, type | UnionType] = {  # of a result, beside run_id and spec: what its readers may rely on
    **dict.fromkeys(("verb", "commit", "device", "started", "finished"), str),
    **dict.fromkeys(("n_test", "seed", "threads"), int),
    **dict.fromkeys(("metrics", "data", "files", "versions"), dict),
    "parents": list,
    "dirty": bool,
    "weights_sha256": str | None,
    "wall_s": int | float,
}
DATA_FIELDS: dict[str, type] = {**dict.fromkeys(("dataset", "digest", "note"), str), **dict.fromkeys(("classes", "train", "test"), int)}
LARGEST = 2**53  # a step or a time is smaller
QUIET_S = 600  # a folder nothing was written to for this long belongs to no live job


def seal(fields: dict[str, Any]) -> str:
    """SHA-256 of the canonical JSON of everything but the seal itself; a NaN has no JSON and raises ValueError."""
    bare = {name: value for name, value in fields.items() if name != "seal"}
    return hashlib.sha256(json.dumps(bare, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file, as `files` and `weights_sha256` of a result record it."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_result(folder: Path, fields: dict[str, Any]) -> None:
    """`folder`/result.json, sealed. It appears whole or not at all."""
    atomic.write(folder / "result.json", json.dumps({**fields, "seal": seal(fields)}, indent=1, allow_nan=False) + "\n")


def read_result(folder: Path) -> dict[str, Any]:
    """The sealed fields of `folder`/result.json.

    Raises:
        UserError: no such file, not JSON, or a seal that does not hold.
    """
    path = folder / "result.json"
    try:
        fields = json.loads(path.read_text(), parse_constant=_refuse)
    except FileNotFoundError:
        raise UserError(f"{path}: no such result; run {folder.name} first") from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: not JSON ({error}); delete it and run {folder.name} again") from None
    found = fields.get("seal", "no seal") if isinstance(fields, dict) else "no fields"
    if not isinstance(fields, dict) or found != seal(fields):
        raise UserError(f"{path}: changed since it was written (seal {str(found)[:12]}); delete it and run {folder.name} again")
    return fields


@dataclass(frozen=True)
class Found:
    """What a run's folder holds. `result` is there only in state `run`; `why` says what is wrong in the other states."""

    state: State
    why: str = ""
    result: dict[str, Any] | None = None


def state(folder: Path, spec: Spec) -> State:
    """The state of the run `spec` in its `folder`; see `examine`."""
    return examine(folder, spec).state


def examine(folder: Path, spec: Spec) -> Found:
    """Whether `folder` holds the result of `spec`, and if not, why not. Reads every file but the weights, writes nothing."""
    if (folder / "result.json").exists():
        try:
            result = read_result(folder)
        except UserError as error:
            return Found("altered", str(error).removeprefix(f"{folder}/"))
        if result.get("run_id") != spec.run_id:
            return Found("altered", f"{folder.name} holds the result of {result.get('run_id')}")
        why = _disagreement(folder, spec, result)
        return Found("altered", f"{folder.name}: {why}") if why else Found("run", result=result)
    if (folder / "error.txt").exists():
        return Found("failed", " ".join((folder / "error.txt").read_text(errors="replace").split()) or "no reason given")
    progress = _progress(folder)
    if progress and _age(folder) < QUIET_S:
        return Found("running", progress)
    return Found("not run", f"stopped, {progress}; run again to continue" if progress else "")


def _disagreement(folder: Path, spec: Spec, result: dict[str, Any]) -> str:
    """What in a sealed result contradicts `spec`, or itself."""
    try:
        for fields, place, types in ((result, "", FIELDS), (result["data"], "data.", DATA_FIELDS)):
            for name, kind in types.items():
                if not isinstance(fields[name], kind):
                    return f"result.json: {place}{name} is {fields[name]!r}, which it cannot be"
        for name in ("started", "finished"):
            datetime.fromisoformat(result[name])
        recorded = parse(result["spec"], "result.json")
        data = result["data"]
        checks = [
            ("spec", recorded.run_id, spec.run_id),
            ("verb", result["verb"], spec.verb),
            ("seed", result["seed"], spec.seed),
            ("parents", list(result["parents"]), list(parents(spec))),
            ("data.dataset", data["dataset"], spec.data.dataset),
        ]
        if spec.data.digest:  # published sets have none
            checks.append(("data.digest", data["digest"], spec.data.digest))
        if (folder / "spec.json").exists():
            checks.append(("spec.json", parse(json.loads((folder / "spec.json").read_text()), "spec.json").run_id, spec.run_id))
        if spec.verb in ("finetune", "probe"):
            checks.append(("metrics.top1", 0 <= result["metrics"]["top1"] <= 100, True))
        for name, digest in result["files"].items():
            if (folder / name).exists():
                checks.append((name, file_digest(folder / name), digest))
    except (UserError, ValueError) as error:
        return str(error)
    except (KeyError, TypeError, AttributeError) as error:
        return f"result.json lacks or garbles {error}"
    return next((f"{name} is {found}, not {wanted}" for name, found, wanted in checks if found != wanted), "")


def log_lines(folder: Path) -> list[dict[str, Any]]:
    """The lines of `folder`/log.jsonl, by step. One that a kill cut short, or that is none of ours, is left out; of a step that stands
    there twice the last counts."""
    path = folder / "log.jsonl"
    lines: dict[int, dict[str, Any]] = {}
    for text in path.read_text(errors="replace").splitlines() if path.is_file() else []:
        try:
            line = json.loads(text)
            if abs(line["step"]) < LARGEST:
                lines[operator.index(line["step"])] = line
        except (ValueError, KeyError, TypeError):
            continue
    return [lines[step] for step in sorted(lines)]


def _progress(folder: Path) -> str:
    """How far an unfinished run is; empty if it never started. A run without a log has its spec from the start."""
    lines = log_lines(folder)
    if lines:
        return f"step {lines[-1]['step']} of {lines[-1].get('steps', '?')}"
    return "no step logged" if (folder / "spec.json").exists() else ""


def _age(folder: Path) -> float:
    """Seconds since the log grew or a file came or went (a checkpoint is renamed into place)."""
    log = folder / "log.jsonl"
    return time.time() - max(folder.stat().st_mtime, log.stat().st_mtime if log.exists() else 0)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")
