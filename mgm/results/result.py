"""Write, read and verify `result.json` and `log.jsonl`, the files of a run.

A result is valid if its seal is correct, if it belongs to exactly this run, and if it was made from
the weights that its parents have now. Otherwise `examine` returns a state and a reason.
"""

import hashlib
import json
import operator
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import from_json

from mgm.errors import UserError, valid
from mgm.reading import file_digest, read_json, read_table
from mgm.results import atomic
from mgm.spec import Spec, parents, parse
from mgm.version import __version__

State = Literal["finished", "altered", "running", "failed", "not run"]

Count = Annotated[int, Field(ge=0, le=10**9)]
Percent = Annotated[float, Field(ge=0, le=100)]


class _Checked(BaseModel):
    """Fields that must have exactly these types. Others may be present."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class _Data(_Checked):
    dataset: str
    digest: str
    note: str
    classes: Count
    train: Count
    test: Count


class _Metrics(_Checked):
    # The bound keeps sums of metrics finite.
    __pydantic_extra__: dict[str, Annotated[float, Field(ge=-1e300, le=1e300)]]
    top1: Percent = 0


class _Result(_Checked):
    """Fields of a result besides run_id and spec."""

    verb: str
    commit: str
    dirty: bool
    device: str
    started: str
    finished: str
    n_test: Count
    seed: int
    threads: Annotated[int, Field(ge=1, le=10**5)]
    wall_s: Annotated[float, Field(ge=0, le=1e9)]
    metrics: _Metrics
    data: _Data
    files: dict[str, str]
    versions: dict[str, str]
    parents: list[str]
    weights_sha256: str | None
    # Results of older versions lack these.
    parents_sha256: dict[str, str | None] = {}
    failed_videos: list[str] = []


# Largest difference between a recorded accuracy (%) and the same one computed from predictions.csv.
ROUNDING = 1e-6
# If nothing was written to a folder for this many seconds, no running job owns it.
QUIET_S = 600


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of mgm and of these packages."""
    return {"mgm": __version__, **{name: version(name) for name in packages}}


@dataclass(frozen=True)
class RunStatus:
    """State of a run's folder.

    Attributes:
        why: what is wrong, in every state except `finished`.
        result: the fields of result.json, only in state `finished`.
    """

    state: State
    why: str = ""
    result: dict[str, Any] | None = None


def seal(fields: dict[str, Any]) -> str:
    """Return the SHA-256 of the canonical JSON of all fields except the seal.

    Raises:
        ValueError: a field is NaN, which JSON does not have.
    """
    bare = {name: value for name, value in fields.items() if name != "seal"}
    return hashlib.sha256(
        json.dumps(bare, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    ).hexdigest()


def write_result(folder: Path, fields: dict[str, Any]) -> None:
    """Write `folder`/result.json atomically, with its seal."""
    atomic.write(
        folder / "result.json",
        json.dumps({**fields, "seal": seal(fields)}, indent=1, allow_nan=False) + "\n",
    )


def read_result(folder: Path) -> dict[str, Any]:
    """Read `folder`/result.json and verify its seal.

    Raises:
        UserError: the file does not exist, is not JSON, or has a wrong seal.
    """
    path = folder / "result.json"
    try:
        fields = read_json(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such result; run {folder.name} first") from None
    except UserError as error:
        raise UserError(f"{error}; delete it and run {folder.name} again") from None
    if not isinstance(fields, dict) or fields.get("seal") != seal(fields):
        raise UserError(
            f"{path}: changed since it was written; delete it and run {folder.name} again"
        )
    return fields


def examine(folder: Path, spec: Spec, weights: bool = False) -> RunStatus:
    """Return whether `folder` contains a valid result of `spec`, and if not, why not.

    This writes nothing and raises nothing. A folder that cannot be read is altered.

    Args:
        weights: verify the weights too, which takes about a second per gigabyte. Reports and
            archives need it; to know which runs are done, it is not needed.
    """
    try:
        return _examine(folder, spec, weights)
    except OSError as error:
        return RunStatus(
            "altered",
            f"{folder.name}: {error.filename or folder}: cannot be read ({error.strerror})",
        )


def _examine(folder: Path, spec: Spec, weights: bool) -> RunStatus:
    if (folder / "result.json").exists():
        try:
            result = read_result(folder)
        except UserError as error:
            return RunStatus("altered", str(error).removeprefix(f"{folder}/"))
        if why := _disagreement(folder, spec, result, weights):
            return RunStatus("altered", f"{folder.name}: {why}")
        return RunStatus("finished", result=result)
    error_file = folder / "error.txt"
    if error_file.is_file():
        return RunStatus(
            "failed", " ".join(error_file.read_text(errors="replace").split()) or "no reason given"
        )
    progress = _progress(folder)
    if progress and age(folder) < QUIET_S:
        return RunStatus("running", progress)
    return RunStatus("not run", f"stopped, {progress}; run again to continue" if progress else "")


def _disagreement(folder: Path, spec: Spec, result: dict[str, Any], weights: bool) -> str:
    """Return how a sealed result contradicts `spec`, itself, its files or its parents' weights.

    The text is empty if it does not.
    """
    try:
        with valid("result.json: "):
            _Result.model_validate(result)
        # A report cannot print half a character.
        json.dumps(result, ensure_ascii=False).encode()
        if datetime.fromisoformat(result["started"]) > datetime.fromisoformat(result["finished"]):
            return f"result.json: finished is {result['finished']}, before it started"
        data, files = result["data"], dict(result["files"])
        checks: list[tuple[str, Any, Any]] = [
            ("run_id", result["run_id"], spec.run_id),
            ("spec", parse(result["spec"], "result.json").run_id, spec.run_id),
            ("verb", result["verb"], spec.stage),
            ("seed", result["seed"], spec.seed),
            ("parents", list(result["parents"]), list(parents(spec))),
            ("data.dataset", data["dataset"], spec.data.dataset),
            # Published datasets have no digest.
            ("data.digest", data["digest"], spec.data.digest or data["digest"]),
        ]
        if (own := folder / "spec.json").exists():
            checks.append(("spec.json", parse(read_json(own), "spec.json").run_id, spec.run_id))
        if weights and result["weights_sha256"] and (folder / "weights.safetensors").exists():
            files["weights.safetensors"] = result["weights_sha256"]
        if spec.stage in ("finetune", "probe") and "predictions.csv" not in files:
            return "result.json: files does not name predictions.csv"
        checks += [
            (f"the SHA-256 of {name}", file_digest(folder / name), digest)
            for name, digest in files.items()
        ]
        # Results of older versions do not have this field.
        if "parents_sha256" in result:
            checks += [
                (
                    f"parents_sha256, the weights of {parent} it started from,",
                    result["parents_sha256"][parent],
                    wanted,
                )
                for parent in parents(spec)
                if (wanted := recorded_digest(folder.parent / parent))
            ]
        for name, value, wanted in checks:
            if value != wanted:
                return f"{name} is {value}, not {wanted}"
        return _untested(folder, result) if spec.stage in ("finetune", "probe") else ""
    except (UserError, ValueError) as error:
        return str(error)
    except (KeyError, TypeError, AttributeError) as error:
        return f"result.json: a field is missing or malformed ({error})"


def _untested(folder: Path, result: dict[str, Any]) -> str:
    """Return which number of the test contradicts predictions.csv or the data, or an empty text."""
    metrics, videos = result["metrics"], result["data"]["test"]
    if result["n_test"] != videos:
        return f"result.json: n_test is {result['n_test']}, and the test split has {videos} videos"
    if not (0 <= metrics.get("outside", 0) <= 100 and "top1" in metrics):
        return f"result.json: metrics {metrics} has no top1, or outside is not from 0 to 100"
    path = folder / "predictions.csv"
    head, *rows = [row for _, row in read_table(path)] or [[]]
    if len(rows) != videos or len({len(row) for row in (head, *rows)}) > 1:
        return f"predictions.csv has {len(rows)} rows, and should have {videos} of equal length"
    return next(
        (
            f"result.json: {name} is {metrics[name]}, and by predictions.csv it is {value:.6g}"
            for name, value in _accuracy(rows).items()
            if not abs(metrics.get(name, value) - value) <= ROUNDING
        ),
        "",
    )


def _accuracy(rows: list[list[str]]) -> dict[str, float]:
    labels = {row[1] for row in rows}
    predicted = [(row[1], name) for row in rows for name in row[2:]]
    return {
        "top1": 100 * sum(label == name for label, name in predicted) / len(predicted),
        "outside": 100 * sum(name not in labels for _, name in predicted) / len(predicted),
    }


def recorded_digest(folder: Path) -> str | None:
    """Return the SHA-256 of a run's weights from its result.

    Returns:
        None if the run has no weights, or no readable result.
    """
    with suppress(UserError, FileNotFoundError):
        result = read_json(folder / "result.json")
        return result.get("weights_sha256") if isinstance(result, dict) else None
    return None


def lacks_weights(folder: Path) -> bool:
    """Return whether a finished run's weights are gone, as those of an archived run are."""
    return recorded_digest(folder) is not None and not (folder / "weights.safetensors").exists()


def _progress(folder: Path) -> str:
    """Return how far an unfinished run is; empty if it never started.

    A run that has started has a spec.json, even if it has no log yet.
    """
    lines = log_lines(folder)
    if lines:
        return f"step {lines[-1]['step']} of {lines[-1].get('steps', '?')}"
    return "no step logged" if (folder / "spec.json").exists() else ""


def age(folder: Path) -> float:
    """Return the seconds since the last change of the log or of the folder.

    A new checkpoint changes the folder, since it is renamed into place. A time in the future, from
    a wrong clock, counts by its distance from now.
    """
    log = folder / "log.jsonl"
    latest = max(folder.stat().st_mtime, log.stat().st_mtime if log.exists() else 0)
    return abs(time.time() - latest)


LARGEST = 2**53  # steps are smaller
LAST = 12  # lines of a log that say how a fine-tuning ended


def log_lines(folder: Path) -> list[dict[str, Any]]:
    """Read the lines of `folder`/log.jsonl, sorted by step.

    Incomplete lines of a killed run, and lines that are not from a log, are left out. If a step
    appears twice, its last line counts.
    """
    path = folder / "log.jsonl"
    lines: dict[int, dict[str, Any]] = {}
    for text in path.read_text(errors="replace").splitlines() if path.is_file() else []:
        try:
            # This takes a fifth of json's time, and a report reads half a million lines.
            line = from_json(text)
            if abs(line["step"]) < LARGEST:
                lines[operator.index(line["step"])] = line
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return [lines[step] for step in sorted(lines)]


def last_losses(log: Sequence[Mapping[str, float]]) -> tuple[float, float]:
    """Return a pretraining's loss and that of predicting zeros, over the last tenth of its log.

    Logs of older versions, without the trivial loss, have zeros.
    """
    last = [line for line in log if "trivial_loss" in line][-max(len(log) // 10, 1) :]
    loss, trivial = (
        sum(line[name] for line in last) / max(len(last), 1) for name in ("loss", "trivial_loss")
    )
    return loss, trivial


# A model that explains less of the loss of predicting zeros has learnt nothing, in per cent.
LEAST_EXPLAINED = 1


def learnt_nothing(loss: float, trivial: float) -> str:
    """Return a warning if a run explains less than `LEAST_EXPLAINED` of the loss; empty otherwise.

    Small models on flat patches reach that loss within some steps, and may stay there.
    """
    if loss < (1 - LEAST_EXPLAINED / 100) * trivial or not trivial:
        return ""
    return (
        f"the loss is {loss:.3g}, and predicting zeros has {trivial:.3g}, so the model has learnt "
        "nothing yet; train longer, or raise std_floor"
    )


def rewind_log(folder: Path, step: int) -> None:
    """Delete the lines after `step`, so that a run that continues there logs no step twice."""
    kept = [json.dumps(line) + "\n" for line in log_lines(folder) if line["step"] <= step]
    atomic.write(folder / "log.jsonl", "".join(kept))


def append_log(folder: Path, line: dict[str, Any]) -> None:
    """Append a line to the log. It must have the field `step`.

    Raises:
        UserError: the run's folder was deleted.
    """
    try:
        with atomic.naming(path := folder / "log.jsonl"), path.open("a") as file:
            file.write(json.dumps(line) + "\n")
    except FileNotFoundError:
        raise UserError(f"{folder}: was deleted during its run; run it again") from None
