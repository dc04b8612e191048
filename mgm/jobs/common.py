"""What every job shares: its place, its data, its record. A job reads a spec and writes a folder; it talks to nothing else."""

import json
import os
import platform
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from operator import itemgetter
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from mgm import rng
from mgm.datasets.index import Index, Video, check_files, read_index
from mgm.errors import UserError
from mgm.experiments.cost import work
from mgm.runs import files as atomic
from mgm.runs.lock import sole_writer
from mgm.runs.result import examine, file_digest, write_result
from mgm.spec import Augment, Guidance, Run, Spec, parents, parse
from mgm.training import distributed, duration, remove_checkpoints
from mgm.video.loader import NO_AUGMENT, Batch, Cache, training_loader

S = TypeVar("S", bound=Run)


@dataclass(frozen=True)
class Execution:
    """Where and how jobs run. None of it is in a run's id, since none of it may change a result."""

    results: Path
    data: dict[str, Path]  # dataset name: folder of its index
    threads: int = 1
    workers: int = 0
    accumulate: int = 1  # parts that a process's share of a step's batch is computed in
    checkpoint_s: float = 300
    recompute: bool = False  # activations, in the backward pass
    cache: Cache | None = None
    flow_weights: Path | None = None  # of RAFT-small; torchvision's own where None


@dataclass
class Job(Generic[S]):
    """One run: its spec, its folder, and the videos it may use."""

    spec: S
    folder: Path
    execution: Execution
    index: Index
    failed: list[str] = field(default_factory=list)  # training videos that could not be read

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def weights(self, run_id: str) -> Path:
        return self.execution.results / run_id / "weights.safetensors"

    def training_videos(self) -> list[Video]:
        """The training split; with `labels_per_class`, so many of each class, and with `shuffle_labels`, under wrong names.

        Both draws are functions of the run's seed, so runs that are compared see the same labels.
        """
        data, videos = self.spec.data, list(self.index.train)
        draw = rng.generator(rng.clip_seed(self.spec.seed, 0, -1), "labels")
        if data.labels_per_class:
            order = draw.permutation(len(videos))
            kept = []
            for label, name in enumerate(self.index.classes):
                of_class = [position for position in order if videos[position].label == label]
                if len(of_class) < data.labels_per_class:
                    raise UserError(
                        f"data.labels_per_class is {data.labels_per_class}, but class {name} has {len(of_class)} training videos; lower it"
                    )
                kept += of_class[: data.labels_per_class]
            videos = [videos[position] for position in sorted(kept)]
        if data.shuffle_labels:
            labels = draw.permutation([video.label for video in videos])
            videos = [replace(video, label=int(label)) for video, label in zip(videos, labels, strict=True)]
        return videos


def run_all(specs: Sequence[Spec], compute: Callable[[Job], dict[str, Any]], execution: Execution) -> None:
    """Run each spec in its folder, one after another; what is done already is left alone, and a failure does not stop the others.

    Of several processes rank 0 alone writes; the others do their share of each run that it does. There a failure ends all.

    Raises:
        UserError: the first failure, once all have been tried; that another process writes a run's folder is one.
    """
    torch.set_num_threads(execution.threads)
    first_error = None
    for spec in specs:
        folder = execution.results / spec.run_id
        if distributed.rank():
            if distributed.told(False):
                compute(Job(spec, folder, execution, find_index(spec, execution)))
            continue
        if _done(folder, spec):
            distributed.told(False)
            continue
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with distributed.held as held:
                held.enter_context(sole_writer(folder))
                if distributed.told(not _done(folder, spec)):  # by one that was the writer until now
                    held.enter_context(_recorded(folder))
                    _compute(spec, folder, compute, execution)
        except UserError as error:
            if distributed.size() > 1:
                raise
            first_error = first_error or error
            show(f"{spec.run_id}: failed: {error}")
    if first_error:
        raise first_error


def _done(folder: Path, spec: Spec) -> bool:
    if done := examine(folder, spec).state == "run":
        _tidy(folder)  # after one that was killed once its result was written
        show(f"{spec.run_id}: already done")
    return done


def _tidy(folder: Path) -> None:
    """Leave in a finished run's folder what a run leaves, whoever was killed there while writing."""
    remove_checkpoints(folder)
    atomic.remove_parts(folder)


@contextmanager
def _recorded(folder: Path) -> Iterator[None]:
    """A failure is recorded in error.txt, for reports."""
    (folder / "error.txt").unlink(missing_ok=True)
    try:
        yield
    except distributed.Lost:  # as after a kill, nothing is wrong with the run
        raise
    except Exception as error:
        atomic.write(folder / "error.txt", f"{error}\n" if isinstance(error, UserError) else f"{type(error).__name__}: {error}\n")
        raise


def _compute(spec: Spec, folder: Path, compute: Callable[[Job], dict[str, Any]], execution: Execution) -> None:
    started, clock = datetime.now(UTC), time.monotonic()
    atomic.write(folder / "spec.json", spec.model_dump_json(indent=1) + "\n")
    job = Job(spec, folder, execution, find_index(spec, execution))
    metrics = compute(job)
    index, weights = job.index, folder / "weights.safetensors"
    commit, dirty = _commit()
    write_result(
        folder,
        {
            "run_id": spec.run_id,
            "verb": spec.verb,
            "spec": json.loads(spec.model_dump_json()),
            "metrics": metrics,
            "n_test": len(index.test) if "top1" in metrics else 0,
            "seed": spec.seed,
            "parents": list(parents(spec)),
            "commit": commit,
            "dirty": dirty,
            "data": {
                "dataset": spec.data.dataset,
                "digest": index.digest,
                "classes": len(index.classes),
                "train": len(index.train),
                "test": len(index.test),
                "note": index.note,
            },
            "weights_sha256": file_digest(weights) if weights.exists() else None,
            "files": {name: file_digest(folder / name) for name in ("predictions.csv", "arrays.npz") if (folder / name).exists()},
            "versions": {"python": platform.python_version(), **{name: version(name) for name in ("mgm", "torch", "av", "numpy")}},
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "processes": distributed.size(),
            "wall_s": round(time.monotonic() - clock, 3),
            "started": started.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "failed_videos": job.failed,
        },
    )
    _tidy(folder)
    told = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items() if isinstance(value, float))
    show(f"{spec.run_id}: {told or 'done'} in {duration(time.monotonic() - clock)}{_progress(execution)}")


def find_index(spec: Run, execution: Execution) -> Index:
    """The index of the spec's dataset.

    Raises:
        UserError: the dataset has no place, no index, is not the one the spec was made for, or does not match its files.
    """
    name = spec.data.dataset
    if name not in execution.data:
        raise UserError(f"{spec.run_id}: no place for dataset {name}; pass --data {name}=FOLDER, the folder `mgm prepare` made")
    index = read_index(execution.data[name])
    if spec.data.digest and index.digest != spec.data.digest:
        raise UserError(
            f"{execution.data[name]}: holds videos with digest {index.digest}, the run wants {spec.data.digest}; run `mgm prepare` again"
        )
    if distributed.rank() == 0:  # once for all processes: it asks for each of the videos
        check_files(index)
    return index


def training_batches(
    job: Job, videos: Sequence[Video], motion: Guidance | None, first_step: int, *, augment: Augment = NO_AUGMENT,
    change: Callable[[int, Batch], Batch] = lambda step, batch: batch,
) -> Iterator[tuple[list[Batch], tuple[str, ...]]]:  # fmt: skip
    """The batches of a run from a step on, or this process's share of them, each changed on the device (`change(step, batch)`) and then
    cut into as many equal parts as the execution accumulates."""
    spec, parts, processes = job.spec, job.execution.accumulate, distributed.size()
    if spec.optim.batch % (parts * processes):
        if processes == 1:
            raise UserError(f"--accumulate {parts} does not divide optim.batch {spec.optim.batch}; choose a divisor")
        raise UserError(
            f"{processes} processes with --accumulate {parts} do not divide optim.batch {spec.optim.batch}; {processes} x {parts} must"
        )
    size = spec.optim.batch // (parts * processes) * augment.repeats
    loader = training_loader(
        videos, spec.clips, spec.model.tubelet, spec.seed, spec.optim.batch,
        workers=job.execution.workers, cache=job.execution.cache, motion=motion, first_step=first_step, augment=augment,
        share=(distributed.rank(), processes),
    )  # fmt: skip
    for step, batch in enumerate(loader, first_step):
        changed = change(step, batch.map(lambda x: x.to(job.device, non_blocking=True)))
        yield [changed.map(itemgetter(slice(start, start + size))) for start in range(0, size * parts, size)], batch.failed


def show(line: str) -> None:
    """A line for whoever watches; results go to files. Who has left (a log's writer that was stopped with us) misses nothing."""
    with suppress(BrokenPipeError):
        print(line, file=sys.stderr, flush=True)


def _progress(execution: Execution) -> str:
    """'; 23 of 61 runs done, about 2 min left', from the files, when the workflow has listed what there is to do."""
    specs = [parse(json.loads(path.read_text()), str(path)) for path in (execution.results / "specs").glob("*.json")]
    done = 0
    seconds, worked, left = (defaultdict[str, float](float) for _ in range(3))  # by verb
    for spec in specs:
        result = execution.results / spec.run_id / "result.json"
        if result.exists():
            done += 1
            seconds[spec.verb] += json.loads(result.read_text())["wall_s"]
            worked[spec.verb] += work(spec)
        else:
            left[spec.verb] += work(spec)
    if not done:
        return ""
    rates = {verb: seconds[verb] / worked[verb] for verb in worked}
    rest = sum(amount * rates.get(verb, sum(seconds.values()) / sum(worked.values())) for verb, amount in left.items())
    rest /= max(1, (os.cpu_count() or 1) // execution.threads)
    return f"; {done} of {len(specs)} runs done" + (f", about {duration(rest)} of computing left" if left else "")


def _commit() -> tuple[str, bool]:
    """The commit of the code that runs, and whether tracked files differ from it; empty when it is not a checkout."""
    root = Path(__file__).parents[2]

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel") or "/").resolve() != root.resolve():
            return "", False
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except FileNotFoundError:  # no git here
        return "", False


def softmax_mean(scores_VC: np.ndarray) -> np.ndarray:
    """Softmax each view's logits, then average: (V, C) -> (C,). Averaging logits first is another, wrong number (RECIPES)."""
    shifted = np.exp(scores_VC - scores_VC.max(axis=-1, keepdims=True))
    return (shifted / shifted.sum(axis=-1, keepdims=True)).mean(axis=-2)
