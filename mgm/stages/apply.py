"""Run a model over the videos of a folder or an index, for `mgm embed` and `mgm predict`.

Results are kept in parts next to the output, so that the same command continues where it was
stopped. A video that cannot be read is listed and left out.
"""

import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mgm.console import track
from mgm.data.index import Index, Video, read_index
from mgm.data.opening import fault, files_below, open_all
from mgm.data.unchanged import check_files
from mgm.errors import UserError, valid
from mgm.models import FrozenEncoder, build_frozen_encoder, model_of, read_weights, require_fit
from mgm.models.weights import is_classifier
from mgm.models.weights_file import weights_digest
from mgm.reading import read_arrays, read_text
from mgm.results import atomic
from mgm.results.atomic import table_writer
from mgm.results.outputs import output
from mgm.spec import ApplyOptions, Clips, Data, Finetune, Model, Pretrain, Probe, Views, read_spec
from mgm.stages.job import CLIPS, best_device, computed
from mgm.stages.parents import verified_weights
from mgm.video import BatchOptions, view_batches
from mgm.video.shard_reader import original_name, shard_of

PART = 64  # videos per part
NOT_FINITE = "the weights compute numbers for it that are not finite"
ABOUT = "about.json"
# A part's name is a number (`Parts.write`), or a video's digest and a window's number
# (`mgm.stages.windows`).
PART_NAME = re.compile(r"\d{8}|[0-9a-f]{16}-\d{8}")


@dataclass(frozen=True)
class Trained:
    """Weights, and the clips and the model that they were trained with."""

    weights: Path
    clips: Clips
    model: Model

    def encoder(self) -> FrozenEncoder:
        """Return the frozen encoder, on the CPU."""
        spec = Probe(data=Data(dataset="folder"), clips=self.clips, model=self.model)
        return build_frozen_encoder(spec, self.weights)


def find_trained(place: Path, how: ApplyOptions) -> Trained:
    """Return the weights at `place`, with their clips and model.

    Args:
        place: a run's folder with a spec, or weights in any format. The shapes of such weights
            determine the model.
        how: the clips for weights without a spec.

    Raises:
        UserError: there are no weights, or the run's stage has none.
    """
    if place.is_dir() and (place / "spec.json").exists():
        spec = read_spec(place)
        if not isinstance(spec, Pretrain | Finetune):
            raise UserError(
                f"{place}: is a {spec.stage} run, which has no weights of its own; pass a "
                "pretraining or fine-tuning run"
            )
        return Trained(verified_weights(place)[0], spec.clips, spec.model)
    weights = read_weights(place)
    model = model_of(weights, place)
    flags = f"--frames {how.frames} --size {how.size} --stride {how.stride}"
    with valid(f"{place}: {flags}: "):
        clips = how.clips()
        spec = Probe(data=Data(dataset="folder"), clips=clips, model=model)
    require_fit(lambda: FrozenEncoder(spec, finetuned=is_classifier(weights)), weights, place)
    return Trained(place, clips, model)


def find_views(how: ApplyOptions) -> Views:
    """Return the views that the command line asks for.

    Raises:
        UserError: a number of views is out of range.
    """
    with valid(f"--temporal {how.temporal} --spatial {how.spatial}: "):
        return how.views()


def find_videos(source: Path) -> tuple[dict[str, Video], list[tuple[str, str]], Index | None]:
    """Find the videos of an index, of a folder or of one file.

    Returns:
        {name: video}, (name, reason) of the files that cannot be read, and the index if there is
        one.

    Raises:
        UserError: there is no video.
    """
    if (source / "index.json").is_file():
        index = read_index(source)
        if any(shard_of(video.path) for video in index.videos[:1]):
            check_files(index)
            faults = [""] * len(index.videos)
        else:
            with ThreadPoolExecutor(8) as pool:
                faults = list(pool.map(fault, index.videos))
        pairs = [(original_name(index.name(video)), video) for video in index.videos]
        changed = [(name, why) for (name, _), why in zip(pairs, faults) if why]
        same = {name: video for (name, video), why in zip(pairs, faults) if not why}
        if not same:
            raise UserError(
                f"{source}: all of its {len(changed)} videos have changed or are missing "
                f"({changed[0][0]}: {changed[0][1]}); run `mgm prepare` again"
            )
        return same, [*index.excluded, *changed], index
    if not source.exists():
        raise UserError(f"{source}: no such folder, index or video; correct the path")
    root = source if source.is_dir() else source.parent
    names, unusable = files_below(source) if source.is_dir() else ([source.name], [])
    videos, unreadable = open_all(root, sorted(names))
    if not videos:
        reason = f"; {unreadable[0][0]}: {unreadable[0][1]}" if unreadable else ""
        raise UserError(f"{source}: holds no video that can be read{reason}")
    return videos, unusable + unreadable, None


def apply(
    compute: Callable[[Tensor], Tensor],
    reduce: Callable[[np.ndarray], np.ndarray],
    trained: Trained,
    videos: Mapping[str, Video],
    views: Views,
    out: Path,
    workers: int,
) -> tuple[dict[str, np.ndarray], list[tuple[str, str]]]:
    """Compute `reduce(compute(views))` of every video, except those in existing parts.

    Args:
        compute: maps uint8 frames (V, T, H, W, C) of a video's views to (V, D).
        reduce: maps (V, D) to the array that is kept. It has the same shape for all videos.
        out: the output file. Parts are in `out`.parts until they are joined.

    Returns:
        {name: array}, and (name, reason) of the videos that could not be read.

    Raises:
        UserError: existing parts are of other weights or views, mgm did not make their folder, or
            no video could be read.
    """
    longest = max(video.frames for video in videos.values())
    if views.temporal > longest:
        raise UserError(
            f"--temporal {views.temporal}: the longest video has {longest} frames; lower it"
        )
    shapes = [part.model_dump_json() for part in (trained.clips, trained.model, views)]
    parts = Parts(out, [weights_digest(trained.weights), reduce.__name__, *shapes])
    key_of = {name: content_key(name, video) for name, video in videos.items()}
    done, failed = parts.read()
    missing = [name for name, key in key_of.items() if key not in done and key not in failed]
    values = track(
        _values(compute, trained, [videos[name] for name in missing], views, workers),
        "videos",
        len(missing),
    )
    for start in range(0, len(missing), PART):
        # The keys come first, so that `zip` takes no value of the next part.
        own = dict(zip((key_of[name] for name in missing[start : start + PART]), values))
        results = {key: reduce(x) for key, x in own.items() if not isinstance(x, str)}
        bad = {key: reason for key, reason in own.items() if isinstance(reason, str)}
        parts.write(results, bad)
        done |= results
        failed |= bad
    # Read to the end, so that `track` prints its last line.
    for _ in values:
        pass
    results = {name: done[key] for name, key in key_of.items() if key in done}
    reasons = [(name, failed[key]) for name, key in key_of.items() if key in failed]
    require_some(results, out, reasons)
    return results, reasons


def _values(
    compute: Callable[[Tensor], Tensor],
    trained: Trained,
    videos: Sequence[Video],
    views: Views,
    workers: int,
) -> Iterator[np.ndarray | str]:
    """Yield the values (V, D) of each video's views, or why it has none."""
    # On a CPU, a video's values would depend by rounding on the others of its batch.
    clips = 1 if best_device().type == "cpu" else CLIPS
    how = BatchOptions(None, workers=workers)
    for batch, errors in view_batches(
        videos, trained.clips, trained.model.tubelet, views, clips, how
    ):
        values: dict[int, np.ndarray | str] = {sample: str(errors[sample]) for sample in errors}
        if batch:
            value_BD = computed(compute, batch.frames_BTHWC, trained.model.channels)
            own_ND, sample_N = value_BD.float().cpu().numpy(), batch.sample_B.numpy()
            for sample in np.unique(sample_N).tolist():
                value_VD = own_ND[sample_N == sample]
                values[sample] = value_VD if np.isfinite(value_VD).all() else NOT_FINITE
        yield from (values[sample] for sample in sorted(values))


def require_some(values: Collection[Any], out: Path, reasons: Sequence[tuple[str, str]]) -> None:
    """Check that some video has a value.

    Raises:
        UserError: none has. The message has the first reason.
    """
    if not values:
        raise UserError(
            f"{out}: 0 of {len(reasons)} videos have a result; the first: {reasons[0][1]}"
        )


def content_key(name: str, video: Video) -> str:
    """Return a key of the video's name, size, content and modification time.

    Its result depends only on them and the settings.
    """
    time = os.stat(video.path).st_mtime_ns if os.path.exists(video.path) else 0
    return json.dumps([name, video.bytes, video.content, time])


class Parts:
    """Files next to the output with the results of some videos, until all are joined.

    A part names its videos by `content_key`. So a replaced file is computed again, and a removed
    file is left out. A part that cannot be read counts as missing.

    Args:
        out: the output file. Parts are in `out`.parts.
        settings: what all results depend on, besides the device: a GPU computes in bf16.

    Raises:
        UserError: mgm did not make the folder, or its parts are of other settings.
    """

    def __init__(self, out: Path, settings: Sequence[Any]):
        settings_text = json.dumps([*settings, best_device().type])
        self.folder = folder_of_parts(out)
        known = self.folder / ABOUT
        if known.is_file():
            if read_text(known) != settings_text:
                raise UserError(
                    f"{self.folder}: holds parts of other weights, views, windows or devices; "
                    "delete it, or choose another --out"
                )
        elif self.folder.is_symlink() or self.folder.exists():
            raise UserError(
                f"{self.folder}: exists and was not made by mgm, which writes its parts there; "
                "move it away, or choose another --out"
            )
        else:
            atomic.write(known, settings_text)

    def load(self, name: str) -> dict[str, np.ndarray] | None:
        """Return the arrays of a part; None if it is missing, damaged or another part."""
        with suppress(UserError, OSError, ValueError):
            arrays = read_arrays(self.folder / f"{name}.npz")
            if str(arrays.pop("part", "")) == name:
                return arrays
        return None

    def save(self, name: str, **arrays: Any) -> None:
        """Write a part."""
        path = self.folder / f"{name}.npz"
        with atomic.atomic_write(path) as temporary, temporary.open("wb") as file:
            np.savez(file, part=name, **arrays)

    def read(self) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """Return {key: result} and {key: reason} of all parts."""
        done, failed = dict[str, np.ndarray](), dict[str, str]()
        for path in sorted(self.folder.glob("*.npz")):
            with suppress(ValueError, KeyError, TypeError):
                part = self.load(path.stem) or {}
                keys, values = part["keys"].tolist(), part["values"]
                bad = json.loads(str(part["failed"]))
                done |= dict(zip(keys, values, strict=True))
                failed |= bad
        return done, failed

    def write(self, results: Mapping[str, np.ndarray], bad: Mapping[str, str]) -> None:
        """Write the next part."""
        numbers = [int(path.stem) for path in self.folder.glob("*.npz") if path.stem.isdecimal()]
        self.save(
            f"{max(numbers, default=-1) + 1:08d}",
            keys=list(results),
            values=list(results.values()),
            failed=json.dumps(dict(bad)),
        )


def folder_of_parts(out: Path) -> Path:
    """Return the folder of the parts of an output file."""
    return out.with_name(out.name + ".parts")


def discard_parts(out: Path) -> None:
    """Remove the parts, and their folder if it has no other files. Call this after writing."""
    folder = folder_of_parts(out)
    for path in folder.glob("*.npz"):
        if PART_NAME.fullmatch(path.stem):
            path.unlink()
    (folder / ABOUT).unlink(missing_ok=True)
    with suppress(OSError):
        atomic.remove_parts(folder)
        folder.rmdir()


def failed_file(out: Path) -> Path:
    """Return the file that lists the videos that could not be read."""
    return out.with_suffix(".failed.csv")


def write_failed(out: Path, failed: list[tuple[str, str]]) -> str:
    """List the videos that could not be read in a file next to the output.

    Returns:
        Text about them; empty if there are none.
    """
    if not failed:
        return ""
    path = failed_file(out)
    with (
        output(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        table_writer(file).writerows([("path", "reason"), *failed])
    return f"; {len(failed)} could not be read: {path}"
