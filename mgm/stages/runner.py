"""Run specs in their folders, one after another, and record what each left."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from mgm.console import duration, show
from mgm.data.index import compared
from mgm.errors import UserError, as_user_error
from mgm.masking import MASKS
from mgm.paper.cost import train_flops
from mgm.reading import file_digest, read_json
from mgm.results import files
from mgm.results.lock import folder_lock
from mgm.results.result import examine, write_result
from mgm.spec import Pretrain, Spec, parents, read_spec
from mgm.stages.data import Job, Workplace, find_index, share_crops
from mgm.stages.provenance import provenance
from mgm.training import collectives, remove_checkpoints


def run_all(
    specs: Sequence[Spec], compute: Callable[[Job], dict[str, Any]], workplace: Workplace
) -> None:
    """Run each spec in its folder, one after another; what is done already is left alone, and a
    failure does not stop the others.

    Of several processes rank 0 alone writes; the others do their share of each run that it does.
    There a failure ends all.

    A cause is told once: of one run by the error raised, of several when it first occurs, and the
    error only counts them.

    Raises:
        UserError: what failed, once all have been tried; that another process writes a run's folder
            is one, and a full disk.
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
                text = _run(spec, folder, compute, workplace)
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
        raise UserError(
            f"{len(failed)} of {len(specs)} runs failed, for what is said above; mend it and run the same command again"
        )


def _lock_unless_done(folder: Path, spec: Spec, lock: ExitStack) -> bool:
    """Lock the folder of a run that is to be computed; leave one that is done clean, and say so."""
    done = examine(folder, spec).state == "run"
    if (
        not done or (folder / "writer.lock").exists()
    ):  # of a writer that was killed once its result was written
        folder.mkdir(parents=True, exist_ok=True)
        lock.enter_context(folder_lock(folder))
        done = examine(folder, spec).state == "run"  # another may have been the writer until now
    if done:
        with suppress(OSError):
            clean_up(folder)
        show(f"{spec.run_id}: already done")
    return not done


def clean_up(folder: Path) -> None:
    """Leave in a finished run's folder only what a run leaves, whoever was killed there while
    writing.
    """
    remove_checkpoints(folder)
    files.remove_parts(folder)


@contextmanager
def record_errors(folder: Path) -> Iterator[None]:
    """Write a failure of the block to error.txt, for reports;

    where that fails too, as on a full disk, the first failure counts.
    """
    try:
        yield
    except Exception as error:
        with suppress(OSError):
            if not collectives.is_peer_loss(error):
                files.write(
                    folder / "error.txt",
                    f"{as_user_error(error) or f'{type(error).__name__}: {error}'}\n",
                )
        raise


def _run(
    spec: Spec, folder: Path, compute: Callable[[Job], dict[str, Any]], workplace: Workplace
) -> str:
    """Compute one run, or this process's share of it;

    rank 0 writes its result, and says in some words how it went.
    """
    started, clock = datetime.now(UTC), time.monotonic()
    with record_errors(folder):
        if spec.version != type(spec).model_fields["version"].default:
            raise UserError(
                f"{spec.run_id}: version {spec.version} of the science; this code computes another, check out the older code"
            )
        if isinstance(spec, Pretrain) and spec.mask.version != MASKS[spec.mask.name].version:
            raise UserError(
                f"{spec.run_id}: mask.version is {spec.mask.version}, and this code makes version "
                f"{MASKS[spec.mask.name].version} of {spec.mask.name}; remove the field for a new "
                "run, or check out the code that made the other"
            )
        if collectives.is_main():
            (folder / "error.txt").unlink(missing_ok=True)
            files.remove_parts(folder)  # a killed writer's, each as large as a checkpoint
            files.write(folder / "spec.json", spec.model_dump_json(indent=1) + "\n")
        job = Job(spec, folder, workplace, find_index(spec, workplace))
        share_crops(job)
        metrics = compute(job)
        if not collectives.is_main():
            return ""
        times = {
            "wall_s": round(time.monotonic() - clock, 3),
            "started": started.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_result(folder, result_fields(job, metrics) | times)
    clean_up(folder)
    text = ", ".join(
        f"{name} {value:.4g}" for name, value in metrics.items() if isinstance(value, float)
    )
    return f"{text or 'done'} in {duration(time.monotonic() - clock)}"


def result_fields(job: Job, metrics: dict[str, Any]) -> dict[str, Any]:
    """What result.json says of a run beside its times."""
    spec, index, folder = job.spec, job.index, job.folder
    weights = folder / "weights.safetensors"
    return {
        "run_id": spec.run_id,
        "verb": spec.verb,
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
            "train": len(index.train),
            "test": len(index.test),
            "note": index.note,
            "checked": compared(index),
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


def progress(workplace: Workplace) -> str:
    """'; 23 of 61 runs done, about 2 min left', from the files, when the workflow has listed what
    there is to do. What cannot be read is
    not counted: progress stops no run."""
    done, left = (
        list[tuple[str, float, float]](),
        list[tuple[str, float]](),
    )  # verb, work (and seconds) of each run
    for path in (workplace.results / "specs").glob("*.json"):
        with suppress(UserError, OSError, ValueError, KeyError, TypeError, OverflowError):
            spec = read_spec(path)
            work = train_flops(spec)
            if (result := workplace.results / path.stem / "result.json").exists():
                done.append((spec.verb, work, float(read_json(result)["wall_s"])))
            else:
                left.append((spec.verb, work))
    if not done:
        return ""
    alike = {
        verb: [one for one in done if one[0] == verb] for verb in {verb for verb, *_ in done}
    } | {"any": done}
    rates = {
        verb: sum(seconds for *_, seconds in some) / sum(work for _, work, _ in some)
        for verb, some in alike.items()
    }
    rest = sum(work * rates.get(verb, rates["any"]) for verb, work in left) / max(
        1, (os.cpu_count() or 1) // workplace.options.threads
    )
    return f"; {len(done)} of {len(done) + len(left)} runs done" + (
        f", about {duration(rest)} of computing left" if left else ""
    )
