"""What a job works on: its spec, its folder, its videos, and the batches they give."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Generic, TypeVar

import torch

from mgm import rng
from mgm.data.index import Index, Video, check_files, read_index
from mgm.errors import UserError
from mgm.masking import Motion
from mgm.spec import Run, RunOptions
from mgm.stages.provenance import verified_weights
from mgm.training import collectives
from mgm.video.loader import Batch, Cache, Loading, training_loader

S = TypeVar("S", bound=Run)


@dataclass(frozen=True)
class Workplace:
    """Where runs read and write, and how they are computed.

    Args:
        results: folder of all runs.
        data: the folder of each dataset's index, by the dataset's name.
        options: how runs are computed.
        flow_weights: of RAFT-small; torchvision's own if None.
    """

    results: Path
    data: dict[str, Path]
    options: RunOptions = RunOptions()
    flow_weights: Path | None = None

    @cached_property
    def cache(self) -> Cache | None:
        """Decoded videos, shared by the runs of a process."""
        return Cache(self.options.cache_mb) if self.options.cache_mb else None


@dataclass
class Job(Generic[S]):
    """One run: its spec, its folder, and the videos it may use."""

    spec: S
    folder: Path
    workplace: Workplace
    index: Index
    failed: list[str] = field(default_factory=list)  # training videos that could not be read
    parents_sha256: dict[str, str] = field(default_factory=dict)  # of the weights that were loaded

    @property
    def options(self) -> RunOptions:
        return self.workplace.options

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def weights(self, run_id: str) -> Path:
        """Weights of a parent, after a check that they are those that its result names;

        their digest goes into this run's result.
        """
        path, self.parents_sha256[run_id] = verified_weights(self.workplace.results / run_id)
        return path

    def training_videos(self, number: int = 0) -> list[Video]:
        """The training split; with `labels_per_class`, so many of each class, and with
        `shuffle_labels`, under wrong names.

        Both draws are functions of the run's seed and the draw's number, so runs that are compared
        see the same labels.
        """
        data, videos = self.spec.data, list(self.index.train)
        draw = rng.generator(rng.clip_seed(self.spec.seed, number, -1), "labels")
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
            videos = [
                replace(video, label=int(label))
                for video, label in zip(videos, labels, strict=True)
            ]
        return videos


def with_channels(frames_BTHWC: torch.Tensor, channels: int) -> torch.Tensor:
    """RGB frames as a model of so many channels takes them: for 1, grey (ITU-R BT.601).

    Raises:
        UserError: another number; video files have no more.
    """
    if channels == 3:
        return frames_BTHWC
    if channels != 1:
        raise UserError(
            f"model.channels is {channels}, and video files give 3, or 1 as grey; train such models from Python on frames of your own"
        )
    grey = frames_BTHWC.to(torch.int32) @ torch.tensor(
        [299, 587, 114], dtype=torch.int32, device=frames_BTHWC.device
    )
    return ((grey + 500) // 1000).to(torch.uint8)[..., None]


def motion_of(batch: Batch) -> Motion | None:
    """Return the motion of a batch as masks take it; None if it was read without."""
    if batch.motion_BSHW is None:
        return None
    return Motion(batch.motion_BSHW, batch.displacement_BSHW2)


def find_index(spec: Run, workplace: Workplace) -> Index:
    """The index of the spec's dataset.

    Raises:
        UserError: the dataset has no place, no index, is not the one the spec was made for, or does
            not match its files.
    """
    name = spec.data.dataset
    if name not in workplace.data:
        raise UserError(
            f"{spec.run_id}: no place for dataset {name}; pass --data {name}=FOLDER, the folder `mgm prepare` made"
        )
    index = read_index(workplace.data[name])
    if spec.data.digest and index.digest != spec.data.digest:
        raise UserError(
            f"{workplace.data[name]}: holds videos with digest {index.digest}, the run wants {spec.data.digest}; run `mgm prepare` again"
        )
    if collectives.is_main():  # once for all processes: it asks for each of the videos
        check_files(index)
    return index


def share_crops(job: Job) -> None:
    """Let a run with a cache read a generated set's centre crops from the store beside the set."""
    spec, place = job.spec, job.workplace.data[job.spec.data.dataset]
    cache = job.workplace.cache
    if cache and not job.options.workers and (place / "generated.json").exists():
        cache.share_crops(place, job.index.videos, spec.clips.size)


def moving_videos(index: Index) -> list[Video]:
    """The test videos that have motion vectors.

    Raises:
        UserError: none has.
    """
    if not (moving := [video for video in index.test if video.has_vectors]):
        raise UserError(
            f"{index.root}: none of the {len(index.test)} test videos has motion vectors; "
            "re-encode them to H.264 (ffmpeg -i IN -c:v libx264 OUT.mp4)"
        )
    return moving


def unchanged(step: int, batch: Batch, weight_B: torch.Tensor) -> Batch:
    """Return the batch as it is."""
    return batch


def training_batches(
    job: Job,
    videos: Sequence[Video],
    wanted: Loading,
    change: Callable[[int, Batch, torch.Tensor], Batch],
    first_step: int,
) -> Iterator[tuple[list[Batch], tuple[str, ...]]]:
    """Yield each step's micro-batches of this process, and the videos that could not be read.

    Args:
        wanted: motion and augmentation of the batches.
        change: `change(step, batch, weight_B)` returns what a step is computed from. It gets the
            batch on the device, and the weights on the host too, so that reading them does not wait
            for the device.
        first_step: where to begin.

    Raises:
        UserError: the batch does not divide into the processes' parts.
    """
    spec, parts, processes = job.spec, job.options.accumulate, collectives.world_size()
    if spec.optim.batch % (parts * processes):
        if processes == 1:
            raise UserError(
                f"--accumulate {parts} does not divide optim.batch {spec.optim.batch}; choose a divisor"
            )
        raise UserError(
            f"{processes} processes with --accumulate {parts} do not divide optim.batch {spec.optim.batch}; {processes} x {parts} must"
        )
    size = spec.optim.batch // (parts * processes) * wanted.augment.repeats
    how = replace(
        wanted,
        workers=job.options.workers,
        cache=job.workplace.cache,
        share=(collectives.rank(), processes),
    )
    loader = training_loader(
        videos,
        spec.clips,
        spec.model.tubelet,
        spec.seed,
        spec.optim.batch,
        first_step=first_step,
        how=how,
    )
    copy = device_copy(job.device)
    for step, batch in enumerate(loader, first_step):
        there = copy(batch)
        there = there._replace(frames_BTHWC=with_channels(there.frames_BTHWC, spec.model.channels))
        changed = change(step, there, batch.weight_B)
        yield (
            [
                changed.map(itemgetter(slice(start, start + size)))
                for start in range(0, size * parts, size)
            ],
            batch.failed,
        )


def device_copy(device: torch.device) -> Callable[[Batch], Batch]:
    """Return what copies a batch to the device:

    on a GPU from pinned memory and on a stream of its own, beside the step before.
    """
    if device.type != "cuda":
        return lambda batch: batch.map(lambda x: x.to(device))
    copying = torch.cuda.Stream(device)

    def copy(batch: Batch) -> Batch:
        with torch.cuda.stream(copying):
            there = batch.map(lambda x: x.to(device, non_blocking=True))
        computing = torch.cuda.current_stream(device)
        computing.wait_stream(copying)
        for tensor in there:
            if isinstance(tensor, torch.Tensor):
                tensor.record_stream(
                    computing
                )  # or its memory could be given away while the step reads it
        return there

    return copy
