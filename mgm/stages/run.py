"""Run specs in their folders, one after another, and record their results."""

import ctypes
import os
import platform
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import cv2
import torch

from mgm import rng
from mgm.console import duration, show
from mgm.data.index import Index, Video, read_index, require_labels
from mgm.data.loader import Batch, Reading, on_device, training_batches
from mgm.device import best_device, gpu_name, say_device
from mgm.errors import UserError, as_user_error
from mgm.files import write_text
from mgm.models.weights import weights_digest
from mgm.processes import cores
from mgm.results.run import (
    CHECKPOINT,
    FROZEN,
    WEIGHTS,
    claimed,
    external,
    frozen_sha256,
    git_commit,
    read_result,
    status,
    write_result,
)
from mgm.spec import (
    MASKS,
    ApplyOptions,
    Finetune,
    Mask,
    Measure,
    Pretrain,
    Run,
    RunOptions,
    Spec,
)
from mgm.training import distributed
from mgm.version import __version__

# Of malloc.h: M_TRIM_THRESHOLD, and M_MMAP_THRESHOLD with the largest value that it takes.
MALLOPT = {-1: 1 << 30, -3: 1 << 25}


@dataclass
class RunContext:
    """What a run has besides its spec.

    Attributes:
        folder: of the run. `results` is the folder of all runs.
        index: the videos of its dataset.
        workers: processes that read videos, per training process.
        failed: names of the training videos that could not be read.
        parents: {run id: SHA-256 of its weights}, of the weights that were loaded.
    """

    folder: Path
    results: Path
    index: Index
    options: RunOptions
    device: torch.device
    workers: int
    failed: list[str] = field(default_factory=list)
    parents: dict[str, str] = field(default_factory=dict)

    def weights(self, run_id: str) -> Path:
        """Return the path of the weights of a parent, which must be finished."""
        parent = status(self.results / run_id, weights=True)
        if parent.state != "finished":
            raise UserError(f"{run_id}: is needed first, and is {parent}")
        path, self.parents[run_id] = verified_weights(self.results / run_id)
        return path

    def training_videos(self, spec: Run) -> list[Video]:
        """Return the training videos, with as many labels per class as `spec.data` asks for.

        The draw depends only on the run's seed, so runs that are compared see the same labels.
        """
        videos, per_class = list(self.index.train), spec.data.labels_per_class
        require_labels(self.index, spec)
        if not per_class:
            return videos
        draw = rng.generator(rng.clip_seed(spec.seed, 0, -1), "labels")
        kept, seen = list[int](), Counter[int]()
        for position in draw.permutation(len(videos)).tolist():
            seen[videos[position].label] += 1
            if seen[videos[position].label] <= per_class:
                kept.append(position)
        return [videos[position] for position in sorted(kept)]

    def pixels(self, spec: Spec) -> Literal["rgb", "planes"]:
        """Return what the clips of a run are: RGB, or planes that a GPU converts and scales.

        Their pixels differ by rounding and by how they are scaled. So a result names them.
        """
        if self.device.type != "cuda" or not isinstance(spec, Pretrain | Finetune):
            return "rgb"
        augmented = isinstance(spec, Finetune) and (spec.augment.rand or spec.augment.erasing)
        return "planes" if spec.clips.crop == "multiscale" and not augmented else "rgb"

    def batches(
        self,
        spec: Pretrain | Finetune,
        videos: Sequence[Video],
        first_step: int,
        reading: Reading,
        **options: Any,
    ) -> Iterator[tuple[Batch, Batch]]:
        """Yield this process's training batches on the device, and the same on the host.

        Args:
            reading, options: see `training_batches`.
        """
        loader = training_batches(
            videos,
            spec.clips,
            spec.seed,
            spec.optim.batch,
            first_step=first_step,
            share=(distributed.rank(), distributed.world_size()),
            workers=self.workers,
            pin=self.device.type == "cuda",
            reading=reading,
            planes=self.pixels(spec) == "planes",
            **options,
        )
        compiled = self.options.compiles(self.device.type)
        return on_device(loader, spec.clips.size, self.device, compiled)


def verified_weights(folder: Path) -> tuple[Path, str]:
    """Return the path and the SHA-256 of a run's weights. They must be those that it wrote.

    Args:
        folder: of the run, or of weights that no run here trained.
    """
    path, result = folder / WEIGHTS, read_result(folder)
    wanted = result and result.weights_sha256
    if other := external(folder):
        path, wanted = Path(other.path), other.sha256
    if not path.exists():
        raise UserError(f"{path}: no such weights; run {folder.name} first")
    digest = weights_digest(path)
    if wanted and digest != wanted:
        raise UserError(
            f"{path}: its SHA-256 is {digest[:12]}, and the run wrote {wanted[:12]}; restore it, "
            f"or delete {folder} and run it again"
        )
    return path, digest


def run_specs(
    specs: Sequence[Spec],
    data: Mapping[str, Sequence[Path]],
    out: Path,
    options: RunOptions = RunOptions(),
) -> None:
    """Run each spec in its folder out/RUN_ID.

    Finished runs are skipped. With several specs, a failed run does not stop the others: each
    cause is printed once, and the error at the end counts the failures. With several processes,
    each computes its share of each run, and a failure ends all.

    Args:
        data: folders of prepared datasets by name. A spec takes the one with its digest.
    """
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    # glibc gives large blocks back to the system, and each step would fault them in again.
    with suppress(AttributeError):
        for parameter, value in MALLOPT.items():
            ctypes.CDLL(None).mallopt(parameter, value)
    if distributed.is_main():
        say_device()
    failed = dict[str, str]()  # run id: why
    for spec in specs:
        folder = out / spec.run_id
        try:
            with _to_do(folder) as to_do:
                if to_do:
                    _run_one(spec, folder, data, options)
        except Exception as error:
            known = as_user_error(error)
            if known is None or distributed.world_size() > 1 or len(specs) == 1:
                raise
            same = next((run_id for run_id, why in failed.items() if why == str(known)), None)
            failed[spec.run_id] = str(known)
            show(f"{spec.run_id}: failed, as {same}" if same else f"{spec.run_id}: failed: {known}")
    if failed:
        raise UserError(f"{len(failed)} of {len(specs)} runs failed, for the reasons above")


@contextmanager
def _to_do(folder: Path) -> Iterator[bool]:
    """Hold the lock of a run. Yield whether it must be computed: False if it is finished.

    An error of the block is written to error.txt, for reports. Of several processes, only one with
    an error for the user writes, since the others have lost it.
    """
    with ExitStack() as lock:
        done = False
        if distributed.is_main():
            now = lock.enter_context(claimed(folder))
            if now.state == "damaged":
                raise UserError(now.why)
            if done := now.state == "finished":
                show(f"{folder.name}: already done")
            else:
                (folder / "error.txt").unlink(missing_ok=True)
        try:
            yield not distributed.gather(done)[0]
        except Exception as error:
            known = as_user_error(error)
            if known or distributed.world_size() == 1:
                # The error counts, even if it cannot be written.
                with suppress(OSError):
                    text = str(known or f"{type(error).__name__}: {error}")
                    write_text(folder / "error.txt", f"{text}\n")
            raise


def _run_one(
    spec: Spec, folder: Path, data: Mapping[str, Sequence[Path]], options: RunOptions
) -> None:
    """Compute one run, or this process's share of it. Rank 0 writes the result."""
    # Before anything can fail: readers know a run by its spec.
    if distributed.is_main():
        write_text(folder / "spec.json", spec.model_dump_json(indent=1) + "\n")
    started, clock = datetime.now(UTC), time.monotonic()
    # The code of the run's start: it may be changed meanwhile.
    code = provenance()
    frozen = frozen_sha256(folder.parent / FROZEN)
    mask: Mask | None = getattr(spec, "mask", None)
    if mask and mask.name in MASKS and mask.version != MASKS[mask.name].version:
        raise UserError(
            f"{spec.run_id}: mask.version is {mask.version}, and this code makes version "
            f"{MASKS[mask.name].version} of {mask.name}; remove the field for a new run"
        )
    where = folder, folder.parent, find_index(spec, data)
    run = RunContext(*where, options, best_device(), readers(options))
    # Each stage has imports of its own.
    name = spec.name if isinstance(spec, Measure) else spec.stage
    file = {"sample": "samples", "hidden": "coverage"}.get(name, name)
    module = import_module(f"mgm.stages.{file}")
    metrics = getattr(module, name)(spec, run)
    if not distributed.is_main():
        return
    # The machine's clock may have been set back meanwhile.
    wall_s = round(time.monotonic() - clock, 3)
    weights, index = folder / WEIGHTS, run.index
    fields = {
        "run_id": spec.run_id,
        "stage": spec.stage,
        "spec": spec.model_dump(mode="json"),
        "metrics": metrics,
        "seed": spec.seed,
        "parents": run.parents,
        "data": {
            "dataset": spec.data.dataset,
            "digest": index.digest,
            "note": index.note,
            # The meaning of a classifier's outputs.
            "classes": list(index.classes) if spec.stage == "finetune" else len(index.classes),
            "train": len(index.train),
            "test": len(index.test),
        },
        "pixels": run.pixels(spec),
        "n_test": len(index.test) if "top1" in metrics or name == "controls" else 0,
        **code,
        "started": started.isoformat(timespec="seconds"),
        "finished": (started + timedelta(seconds=wall_s)).isoformat(timespec="seconds"),
        "wall_s": wall_s,
        "weights_sha256": weights_digest(weights) if weights.exists() else None,
        "study_sha256": frozen,
        "failed_videos": run.failed,
    }
    write_result(folder, fields)
    (folder / CHECKPOINT).unlink(missing_ok=True)
    text = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    show(f"{spec.run_id}: {text or 'done'} in {duration(wall_s)}")


def find_index(spec: Run, data: Mapping[str, Sequence[Path]]) -> Index:
    """Return the index that has the digest of the spec's dataset."""
    name, others = spec.data.dataset, list[str]()
    for folder in data.get(name, ()):
        index = read_index(folder)
        if index.digest == spec.data.digest:
            return index
        others.append(f", and {folder} has {index.digest}")
    wanted = f"needs {name} with digest {spec.data.digest}{''.join(others)}"
    raise UserError(f"{spec.run_id}: {wanted}; pass its folder as --data {name}=FOLDER")


# --- The machine and the code ---


def readers(options: RunOptions | ApplyOptions) -> int:
    """Return the number of worker processes that read videos for this process.

    On a GPU they are its share of the cores, without one for this process. The machine's GPUs train
    one run together (LOCAL_WORLD_SIZE), or one run each (MGM_GPUS).
    """
    if options.workers is not None:
        return options.workers
    if best_device().type != "cuda":
        return 0
    together = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    shares = max(together, len(os.environ.get("MGM_GPUS", "").split(",")))
    return max(cores() // shares - 1, 0)


def provenance() -> dict[str, Any]:
    """Return the code, the packages and the machine of this process, for a result."""
    commit, dirty = git_commit()
    packages = {name: version(name) for name in ("torch", "av", "numpy")}
    return {
        "commit": commit,
        "dirty": dirty,
        "versions": {"mgm": __version__, "python": platform.python_version(), **packages},
        "device": gpu_name() or platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "processes": distributed.world_size(),
    }
