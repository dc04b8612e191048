"""Run a model over the videos of a folder or an index: what `mgm embed` and `mgm predict` share.

Work is kept in parts beside the output, so that the same command continues where it was stopped. A
video that cannot be read is listed and left out.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mgm.console import track
from mgm.data.files import files_below, open_all
from mgm.data.index import Video, read_index
from mgm.errors import UserError
from mgm.models import model_of, read_weights
from mgm.models.files import weights_digest
from mgm.results import files
from mgm.results.files import table_writer
from mgm.spec import Clips, Finetune, Model, Pretrain, Views, read_spec
from mgm.stages.data import with_channels
from mgm.stages.provenance import verified_weights
from mgm.video import view_batches

PART = 64  # videos between two writes


@dataclass(frozen=True)
class Source:
    """Weights, and the clips and sizes they are for."""

    weights: Path
    clips: Clips
    model: Model


def find_source(place: Path, frames: int, size: int, stride: int) -> Source:
    """A run's folder, whose spec says all, or a file of weights in any format, from whose shapes
    the model is read.

    Args:
        frames, size, stride: of a clip, for weights without a spec.

    Raises:
        UserError: a run without weights of its own; no weights.
    """
    if place.is_dir() and (place / "spec.json").exists():
        spec = read_spec(place)
        if not isinstance(spec, Pretrain | Finetune):
            raise UserError(
                f"{place}: is a {spec.verb} run, which has no weights of its own; give a pretraining or finetuning run"
            )
        return Source(verified_weights(place)[0], spec.clips, spec.model)
    return Source(
        place,
        Clips(frames=frames, size=size, stride=stride, sampling="window"),
        model_of(read_weights(place), place),
    )


def find_videos(source: Path) -> tuple[dict[str, Video], list[tuple[str, str]]]:
    """Videos by name of an index, of all files below a folder, or of one file; and (name, reason)
    of what cannot be read.

    Raises:
        UserError: there is none.
    """
    if (source / "index.json").is_file():
        index = read_index(source)
        return {index.name(video): video for video in index.videos}, list(index.excluded)
    if not source.exists():
        raise UserError(f"{source}: no such folder, index or video; correct the path")
    root = source if source.is_dir() else source.parent
    names, unusable = files_below(source) if source.is_dir() else ([source.name], [])
    videos, unreadable = open_all(root, sorted(names))
    if not videos:
        reason = f"; {unreadable[0][0]}: {unreadable[0][1]}" if unreadable else ""
        raise UserError(f"{source}: holds no video that can be read{reason}")
    return videos, unusable + unreadable


def apply(
    compute: Callable[[Tensor], Tensor],
    reduce: Callable[[np.ndarray], np.ndarray],
    source: Source,
    videos: Mapping[str, Video],
    views: Views,
    out: Path,
    workers: int,
) -> tuple[dict[str, np.ndarray], list[tuple[str, str]]]:
    """`reduce(compute(views))` of every video, from parts that are there already or anew.

    Args:
        compute: uint8 frames (V, T, H, W, C) of a video's views to (V, D).
        reduce: (V, D) to what is kept of a video; all keep one shape.
        out: the output file; parts lie in `out`.parts until they are joined.

    Returns:
        An array a video by its name; and (name, reason) of those that could not be read.

    Raises:
        UserError: the parts there are of other weights, views or videos; no video could be read.
    """
    parts = out.with_name(out.name + ".parts")
    listed = hashlib.sha256("\n".join(videos).encode()).hexdigest()
    shapes = [part.model_dump_json() for part in (source.clips, source.model, views)]
    about = json.dumps(
        [weights_digest(source.weights), listed, reduce.__name__, *shapes]
    )  # what parts depend on
    known = parts / "about.json"
    if known.exists() and known.read_text() != about:
        raise UserError(
            f"{parts}: holds parts of other weights, videos or views; delete it, or choose another --out"
        )
    files.write(known, about)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    names = list(videos)
    groups = {
        parts / f"{start:08d}.npz": names[start : start + PART]
        for start in range(0, len(names), PART)
    }
    missing = {path: group for path, group in groups.items() if not path.exists()}
    wanted = [videos[name] for group in missing.values() for name in group]
    batches = track(
        view_batches(wanted, source.clips, source.model.tubelet, views, workers),
        "videos",
        len(wanted),
    )
    for path, group in missing.items():
        found, bad = {}, {}
        for name in group:
            batch = next(batches)
            if isinstance(batch, UserError):
                bad[name] = str(batch)
                continue
            with torch.inference_mode():
                frames_VTHWC = with_channels(batch.frames_BTHWC.to(device), source.model.channels)
                found[name] = reduce(compute(frames_VTHWC).float().cpu().numpy())
        with files.atomic_write(path) as temporary, temporary.open("wb") as file:
            np.savez(file, names=list(found), values=list(found.values()), failed=json.dumps(bad))
    for _ in batches:  # lets it say that all is done
        pass
    values: dict[str, np.ndarray] = {}
    failed: dict[str, str] = {}
    for path in groups:
        with np.load(path) as part:
            values |= dict(zip(part["names"].tolist(), part["values"]))
            failed |= json.loads(str(part["failed"]))
    if not values:
        raise UserError(
            f"{out}: none of {len(names)} videos could be read; the first: {next(iter(failed.values()))}"
        )
    return values, list(failed.items())


def discard_parts(out: Path) -> None:
    """Remove the parts once the output is written."""
    shutil.rmtree(out.with_name(out.name + ".parts"), ignore_errors=True)


def write_failed(out: Path, failed: list[tuple[str, str]]) -> str:
    """List what could not be read beside the output, and say so in words;

    nothing where all could.
    """
    if not failed:
        return ""
    path = out.with_suffix(".failed.csv")
    with (
        files.atomic_write(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        table_writer(file).writerows([("path", "reason"), *failed])
    return f"; {len(failed)} could not be read: {path}"
