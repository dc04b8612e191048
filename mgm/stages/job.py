"""A run's spec, folder, videos and batches."""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from mgm import rng
from mgm.data.copies import check_files
from mgm.data.index import Index, Video, read_index, require_labels, require_vectors
from mgm.data.opening import cores
from mgm.errors import UserError
from mgm.spec import MASKS, Method, Pretrain, Run, RunOptions
from mgm.spec.options import ReadOptions
from mgm.stages.parents import verified_weights
from mgm.training import collectives
from mgm.video.loader import track_method

S = TypeVar("S", bound=Run)
T = TypeVar("T")
CLIPS = 64  # clips of a forward pass without gradients


@dataclass(frozen=True)
class Workplace:
    """The folders and the options of runs.

    Args:
        results: folder of all runs.
        data: {dataset's name: folder of its index}.
        options: how runs are computed.
        features: those of the last weights that this process probed (`mgm.stages.features`).
    """

    results: Path
    data: dict[str, Path]
    options: RunOptions = RunOptions()
    features: dict[Any, dict[Any, Any]] = field(default_factory=dict, compare=False, repr=False)


def best_device() -> torch.device:
    """Return the GPU, or the CPU if there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def readers(options: ReadOptions) -> int:
    """Return the number of worker processes that decode videos for this process."""
    if options.workers is not None:
        return options.workers
    if best_device().type != "cuda":
        return 0
    return max(cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1, 0)


@dataclass
class Job(Generic[S]):
    """A run that is being computed.

    Attributes:
        index: the videos of its dataset.
        failed: names of the training videos that could not be read.
        parents_sha256: {parent's run id: SHA-256 of its weights}, of loaded weights.
    """

    spec: S
    folder: Path
    workplace: Workplace
    index: Index
    failed: list[str] = field(default_factory=list)
    parents_sha256: dict[str, str] = field(default_factory=dict)

    @property
    def options(self) -> RunOptions:
        return self.workplace.options

    @property
    def workers(self) -> int:
        """Return the number of worker processes that decode its videos."""
        return readers(self.options)

    @property
    def device(self) -> torch.device:
        return best_device()

    def weights(self, run_id: str) -> Path:
        """Check a parent's weights against its result, and return their path.

        Their digest becomes part of this run's result.
        """
        path, self.parents_sha256[run_id] = verified_weights(self.workplace.results / run_id)
        return path

    def training_videos(self, number: int = 0) -> list[Video]:
        """Return the training videos, with the labels that `data` asks for.

        The draw depends only on the run's seed and on `number`. So
        runs that are compared see the same labels.
        """
        data, videos = self.spec.data, list(self.index.train)
        require_labels(self.index, self.spec)
        draw = rng.generator(rng.clip_seed(self.spec.seed, number, -1), "labels")
        if data.labels_per_class:
            kept = []
            seen = Counter[int]()
            for position in draw.permutation(len(videos)):
                seen[videos[position].label] += 1
                if seen[videos[position].label] <= data.labels_per_class:
                    kept.append(position)
            videos = [videos[position] for position in sorted(kept)]
        return videos


@torch.inference_mode()
def computed(compute: Callable[[torch.Tensor], T], frames_BTHWC: torch.Tensor) -> T:
    """Return `compute` of frames on the device. A GPU with bf16 units computes in bf16."""
    device = best_device()
    bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
        return compute(frames_BTHWC.to(device, non_blocking=True))


def find_index(spec: Run, workplace: Workplace) -> Index:
    """Return the index of the spec's dataset."""
    name = spec.data.dataset
    if name not in workplace.data:
        raise UserError(
            f"{spec.run_id}: no folder is given for dataset {name}; pass --data {name}=FOLDER"
        )
    index = read_index(workplace.data[name])
    if spec.data.digest and index.digest != spec.data.digest:
        raise UserError(
            f"{workplace.data[name]}: holds videos with digest {index.digest}, and the run needs "
            f"{spec.data.digest}; run `mgm prepare` again"
        )
    method: Method | None = None
    if isinstance(spec, Pretrain) and MASKS[spec.mask.name].guided:
        method = track_method(spec.mask.guidance)
        if method == "codec":
            require_vectors(index.train, spec.mask.name)
    # One process checks for all, since it looks at each file.
    if collectives.is_main():
        check_files(workplace.data[name], index, method)
    return index


def moving_videos(index: Index) -> list[Video]:
    """Return the test videos that have motion vectors."""
    if not (moving := [video for video in index.test if video.has_vectors]):
        raise UserError(
            f"{index.root}: none of the {len(index.test)} test videos has motion vectors; use H.264"
        )
    return moving
