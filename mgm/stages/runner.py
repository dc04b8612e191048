"""Run specs in their folders, one after another, and record the results."""

import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import torch

from mgm.console import duration, show, show_once
from mgm.errors import UserError, as_user_error
from mgm.reading import file_digest
from mgm.results import atomic
from mgm.results.lock import folder_lock
from mgm.results.result import examine, versions, write_result
from mgm.spec import MASKS, Pretrain, Spec, parents
from mgm.stages.job import Job, Workplace, find_index
from mgm.training import collectives, remove_checkpoints


def run_all(
    specs: Sequence[Spec], compute: Callable[[Job], dict[str, Any]], workplace: Workplace
) -> None:
    """Run each spec in its folder, one after another. Finished runs are skipped.

    With several runs, a failed run does not stop the others. Each cause is printed once, and the
    error at the end counts the failures. The error of a single run is raised unchanged.

    With several processes, each computes its share of each run, and only rank 0 writes. Then a
    failure ends all processes.
    """
    torch.set_num_threads(workplace.options.threads)
    failed: dict[str, str] = {}  # run id: why
    for spec in specs:
        folder = workplace.results / spec.run_id
        try:
            with ExitStack() as lock:
                if not collectives.broadcast_object(
                    collectives.is_main() and _lock_unless_done(folder, spec, lock)
                ):
                    continue
                text = _run_one(spec, folder, compute, workplace)
                if collectives.is_main():
                    show(f"{spec.run_id}: {text}{progress(workplace)}")
        except Exception as error:
            known = as_user_error(error)
            if known is None or collectives.world_size() > 1 or len(specs) == 1:
                raise
            same = next((run_id for run_id, why in failed.items() if why == str(known)), None)
            failed[spec.run_id] = str(known)
            show(f"{spec.run_id}: failed, as {same}" if same else f"{spec.run_id}: failed: {known}")
    if failed:
        raise UserError(f"{len(failed)} of {len(specs)} runs failed, for the reasons above")


def _lock_unless_done(folder: Path, spec: Spec, lock: ExitStack) -> bool:
    """Lock the folder of a run that must be computed, or clean up that of a finished run.

    Returns:
        Whether the run must be computed.
    """
    done = examine(folder, spec).state == "finished"
    # A writer that was killed after it wrote the result leaves its lock file.
    if not done or (folder / "writer.lock").exists():
        folder.mkdir(parents=True, exist_ok=True)
        lock.enter_context(folder_lock(folder))
        # Another process may have finished the run while this one waited for the lock.
        done = examine(folder, spec).state == "finished"
    if done:
        with suppress(OSError):
            clean_up(folder)
        show(f"{spec.run_id}: already done")
    return not done


def clean_up(folder: Path) -> None:
    """Remove checkpoints and partial files from a finished run's folder."""
    remove_checkpoints(folder)
    atomic.remove_parts(folder)


@contextmanager
def record_errors(folder: Path) -> Iterator[None]:
    """Write an error of the block to error.txt, for reports, and raise it again.

    Of several processes, only one with an error for the user writes, since the others have lost it.
    If error.txt cannot be written, as on a full disk, the error of the block is still raised.
    """
    try:
        yield
    except Exception as error:
        with suppress(OSError):
            known = as_user_error(error)
            if known or collectives.world_size() == 1:
                text = str(known or f"{type(error).__name__}: {error}")
                atomic.write(folder / "error.txt", f"{text}\n")
        raise


def _run_one(
    spec: Spec, folder: Path, compute: Callable[[Job], dict[str, Any]], workplace: Workplace
) -> str:
    """Compute one run, or this process's share of it.

    Rank 0 writes the result.

    Returns:
        A line about the result; empty on other ranks.
    """
    started, clock = datetime.now(UTC), time.monotonic()
    with record_errors(folder):
        if isinstance(spec, Pretrain) and spec.mask.version != MASKS[spec.mask.name].version:
            raise UserError(
                f"{spec.run_id}: mask.version is {spec.mask.version}, and this code has version "
                f"{MASKS[spec.mask.name].version} of {spec.mask.name}; remove the field for a new "
                "run, or check out the code of that version"
            )
        if collectives.is_main():
            (folder / "error.txt").unlink(missing_ok=True)
            # Partial files of a killed process are as large as checkpoints.
            atomic.remove_parts(folder)
            atomic.write(folder / "spec.json", spec.model_dump_json(indent=1) + "\n")
        job = Job(spec, folder, workplace, find_index(spec, workplace))
        metrics = compute(job)
        if not collectives.is_main():
            return ""
        # The machine's clock may have been set back meanwhile.
        wall_s = round(time.monotonic() - clock, 3)
        times = {
            "wall_s": wall_s,
            "started": started.isoformat(timespec="seconds"),
            "finished": (started + timedelta(seconds=wall_s)).isoformat(timespec="seconds"),
        }
        write_result(folder, result_fields(job, metrics) | times)
    clean_up(folder)
    text = ", ".join(
        f"{name} {value:.4g}" for name, value in metrics.items() if isinstance(value, float)
    )
    return f"{text or 'done'} in {duration(time.monotonic() - clock)}"


def result_fields(job: Job, metrics: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of result.json except its times."""
    spec, index, folder = job.spec, job.index, job.folder
    weights = folder / "weights.safetensors"
    return {
        "run_id": spec.run_id,
        "verb": spec.stage,
        "spec": spec.model_dump(mode="json"),
        "metrics": metrics,
        "n_test": len(index.test) if "top1" in metrics else 0,
        "seed": spec.seed,
        "parents": list(parents(spec)),
        "parents_sha256": job.parents_sha256,
        "data": {
            "dataset": spec.data.dataset,
            "digest": index.digest,
            "classes": len(index.classes),
            # The meaning of a classifier's outputs.
            **({"class_names": index.classes} if spec.stage == "finetune" else {}),
            "train": len(index.train),
            "test": len(index.test),
            # Test videos of one group are not independent.
            "groups": len({video.group or video.path for video in index.test}),
            "note": index.note,
        },
        "weights_sha256": file_digest(weights) if weights.exists() else None,
        "files": {
            name: file_digest(folder / name)
            for name in ("predictions.csv", "arrays.npz")
            if (folder / name).exists()
        },
        "failed_videos": job.failed,
        **provenance(),
    }


def provenance() -> dict[str, Any]:
    """Return the code, the packages and the machine of this process, for a result."""
    commit, dirty = git_commit()
    return {
        "commit": commit,
        "dirty": dirty,
        "versions": {"python": platform.python_version(), **versions("torch", "av", "numpy")},
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "processes": collectives.world_size(),
    }


def git_commit() -> tuple[str, bool]:
    """Return the commit of the running code, and whether tracked files of the code differ from it.

    The commit is empty outside a checkout. If git does not read the checkout, as that of another
    user, its sentence is shown.
    """
    root = Path(__file__).parents[2]

    # In a hook, git's own variables name the hook's repository.
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=False, env=own
        )
        if done.returncode and (root / ".git").exists():
            show_once(f"results name no commit: {' '.join(done.stderr.split())}")
        return done.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel") or "/").resolve() != root.resolve():
            return "", False
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "mgm")
        return git("rev-parse", "HEAD"), bool(changed)
    except FileNotFoundError:
        # git is not installed.
        return "", False


def progress(workplace: Workplace) -> str:
    """Return text like '; 23 of 61 runs done'; empty outside the workflow, which lists specs."""
    names = [path.stem for path in (workplace.results / "specs").glob("*.json")]
    done = sum((workplace.results / name / "result.json").exists() for name in names)
    return f"; {done} of {len(names)} runs done" if names else ""
