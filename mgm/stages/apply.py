"""Apply a trained model to videos: `mgm.load`, `mgm embed` and `mgm predict`."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor

from mgm.console import show
from mgm.data.index import Index, read_index
from mgm.device import best_device
from mgm.errors import UserError, require_new, valid
from mgm.files import read_text, replacing, write_csv
from mgm.models import FrozenEncoder, build_classifier, build_frozen_encoder, load_weights
from mgm.models.weights import Config, check_processor, config_of, read_weights, sizes_of
from mgm.results.run import WEIGHTS, own_spec, read_result
from mgm.spec import (
    ApplyOptions,
    Clips,
    Data,
    Finetune,
    Model,
    PredictOptions,
    Pretrain,
    Probe,
    Views,
)
from mgm.stages.evaluate import CLIPS, computed, merged, over_videos
from mgm.stages.run import readers, verified_weights
from mgm.video.decode import probe, read
from mgm.video.transform import view_crop, view_indices

DATA = Data(dataset="folder")


@contextmanager
def usual_torch() -> Iterator[None]:
    """Build and compute in float32 from the CPU, whatever a notebook has set for other models."""
    kind = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(kind)


@dataclass(frozen=True)
class Trained:
    """Weights, with the clips and the model that they were trained with."""

    weights: Path
    clips: Clips
    model: Model

    @cached_property
    def encoder(self) -> FrozenEncoder:
        """The frozen encoder, on the best device: uint8 (B, T, H, W, C) to features (B, D)."""
        spec = Probe(data=DATA, clips=self.clips, model=self.model)
        with usual_torch():
            return build_frozen_encoder(spec, self.weights).to(best_device())


def find_trained(
    path: Path, frames: int | None = None, size: int | None = None, stride: int | None = None
) -> Trained:
    """Return the weights at `path`, with their clips and model.

    Args:
        path: a run's folder with a spec, or the weights in it, or weights in any format. The
            shapes of such weights determine the model, and a config.json next to them its heads
            and clips.
        frames, size, stride: the clips, for weights without a spec. They replace config.json's.
    """
    run = path.parent if path.name == WEIGHTS else path
    if (run / "spec.json").is_file():
        if (frames, size, stride) != (None, None, None):
            raise UserError(
                f"{run}: is a run with clips of its own; pass no frames, size or stride"
            )
        spec = trained_spec(run)
        return Trained(verified_weights(run)[0], spec.clips, spec.model)
    model, found = sizes_of(read_weights(path), path)["model"], config_of(path)
    if not found and None in (frames, size, stride):
        show(f"{path}: has no config.json, so unless given, a clip is 16 frames of 224, 4 apart")
    config = found or Config()
    if size is None:
        size = config.image_size
        check_processor(path, size)
    fields = {
        "frames": config.num_frames if frames is None else frames,
        "size": size,
        "stride": config.mgm.stride if stride is None else stride,
    }
    with valid(f"{path}: "):
        # A probe checks that the clips have whole tokens.
        whole = Probe(data=DATA, clips=Clips(**fields, sampling="window"), model=Model(**model))
    return Trained(path, whole.clips, whole.model)


def trained_spec(run: Path) -> Pretrain | Finetune:
    """Return the spec of a run that has weights of its own."""
    spec = own_spec(run)
    if not isinstance(spec, Pretrain | Finetune):
        raise UserError(f"{run}: is a {spec.stage} run; pass a pretraining or fine-tuning run")
    return spec


# --- Videos ---


@usual_torch()
def of_file(
    compute: Callable[[Tensor], Tensor], clips: Clips, views: Views, video: Path
) -> np.ndarray:
    """Return what a model computes of the views of a video file, (V, D) float32."""
    about, count = probe(video), views.temporal
    index_VT = [view_indices(clips, about.frames, view, count) for view in range(count)]
    clip = read(video, np.concatenate(index_VT), motion=False)
    crops = [view_crop(clip.height, clip.width, x, views.spatial) for x in range(views.spatial)]
    # Of each view in time, all views in space.
    views_T = np.split(np.arange(len(clip.frames_THWC)), count)
    cuts = [clip[own_T].cut(crop, clips.size).frames_THWC for own_T in views_T for crop in crops]
    parts = torch.from_numpy(np.stack(cuts)).split(CLIPS)
    return np.concatenate([computed(compute, part, best_device()) for part in parts])


def _apply(
    compute: Callable[[Tensor], Tensor], clips: Clips, source: Path, options: ApplyOptions
) -> tuple[dict[str, list], np.ndarray, np.ndarray, Index | None]:
    """Compute values of all views of the videos in `source`.

    A prepared video that cannot be read is left out, and shown with the reason.

    Returns:
        Columns that describe the videos: path, and of a prepared dataset label, class and split.
        value_ND: of the views. sample_N: each view's video, without gaps. And the index.
    """
    torch.set_num_threads(options.threads)
    views = Views(temporal=options.temporal, spatial=options.spatial)
    if not source.is_dir():
        value_VD = of_file(compute, clips, views, source)
        return {"path": [source.name]}, value_VD, np.zeros(len(value_VD), int), None
    index, split = read_index(source), getattr(options, "split", None)
    videos = [video for video in index.videos if split in (None, video.split)]
    failed = dict[int, UserError]()
    where = clips, views, best_device()
    value_ND, sample_N = over_videos(
        compute, videos, *where, workers=readers(options), failed=failed, show_progress=True
    )
    for error in failed.values():
        show(f"left out: {error}")
    if not len(value_ND):
        raise UserError(f"{source}: has no video of the split that can be read")
    kept, sample_N = np.unique(sample_N, return_inverse=True)
    videos = [videos[number] for number in kept]
    columns: dict[str, list] = {
        "path": [video.name for video in videos],
        "label": [video.label for video in videos],
        "class": [index.classes[video.label] for video in videos],
        "split": [video.split for video in videos],
    }
    return columns, value_ND, sample_N, index


@usual_torch()
def embed(source: Path, weights: Path, out: Path, options: ApplyOptions) -> str:
    """Write the encoder's feature of every video to an npz file. Return a line that says so.

    The file has path_N and feature_ND (float32), and of a prepared dataset label_N, class_N and
    split_N. A clip's feature is the mean of its tokens after the final norm. A fine-tuned encoder
    applies its own norm to the tokens' mean. A video's feature is the mean over its views.
    """
    _require_new(out, ".npz", options.force)
    trained = find_trained(weights, options.frames, options.size, options.stride)
    columns, value_ND, sample_N, _ = _apply(trained.encoder, trained.clips, source, options)
    feature_ND = merged(value_ND, sample_N).astype(np.float32)
    arrays = {f"{name}_N": np.array(column) for name, column in columns.items()}
    with replacing(out) as temporary:
        np.savez(temporary, feature_ND=feature_ND, **arrays)  # type: ignore[arg-type]
    return f"wrote {out}: features of {len(feature_ND)} videos, width {feature_ND.shape[1]}"


@usual_torch()
def predict(
    source: Path, weights: Path, out: Path, classes: Path | None, options: PredictOptions
) -> str:
    """Write the classes of every video to a CSV file. Return a line that says so, with the top-1.

    Its columns are path, of a prepared dataset label, class and split, then prediction, and
    `score CLASS` per class: the mean over the video's views of the softmax. Classes have the names
    of `class_names`, else those of the prepared dataset if it has as many. The top-1 is that of a
    split with the weights' classes.
    """
    _require_new(out, ".csv", options.force)
    trained = find_trained(weights, options.frames, options.size, options.stride)
    tensors = read_weights(trained.weights)
    if "head.bias" not in tensors:
        raise UserError(f"{weights}: has no head.bias, so it holds no classifier")
    count, head = len(tensors["head.bias"]), "attentive" if "pooler.query" in tensors else "linear"
    names = class_names(classes, weights, count)
    spec = Finetune(data=DATA, clips=trained.clips, model=trained.model, head=head)  # type: ignore[arg-type]
    model = build_classifier(spec, count)
    load_weights(model, trained.weights)
    model.to(best_device()).eval()
    columns, logits_NC, sample_N, index = _apply(model, trained.clips, source, options)
    score_MC = merged(softmax(logits_NC, axis=1), sample_N)
    names = names or list(index.classes if index else ())
    if len(names) != count:
        names = [f"class {number}" for number in range(count)]
    told = f"wrote {out}: {len(score_MC)} videos, {count} classes"
    if options.split and index and list(index.classes) == names:
        told += f"; top-1 {100 * (score_MC.argmax(1) == columns['label']).mean():.2f}"
    titles = [*columns, "prediction", *(f"score {name}" for name in names)]
    rows = (
        [*about, names[score_C.argmax()], *score_C.tolist()]
        for about, score_C in zip(zip(*columns.values()), score_MC)
    )
    write_csv(out, [titles, *rows])
    return told


def _require_new(out: Path, suffix: str, force: bool) -> None:
    if out.suffix != suffix:
        raise UserError(f"{out}: the output is one {suffix} file; name it so")
    require_new(out, force)


def class_names(classes: Path | None, weights: Path, count: int) -> list[str]:
    """Return the names of a classifier's outputs; empty if none are known.

    Args:
        classes: a prepared dataset, or a file with a name per line, in the order of the labels. If
            every line has a number, before or after the name, the names are in their order.
        weights: of the classifier. Its run or its config.json may record names.
    """
    recorded = recorded_classes(weights)
    if classes is None:
        return recorded
    if classes.is_dir():
        names = list(read_index(classes).classes)
    else:
        lines = read_text(classes).splitlines()
        names = [line.strip() for line in lines if line.strip()]
    # From 0, or from 1 as in UCF101's classInd.txt.
    numbers = [[*range(first, first + len(names))] for first in (0, 1)]
    for pattern in (r"(?P<name>.+)[\s,]+(?P<number>\d+)", r"(?P<number>\d+)[\s,]+(?P<name>.+)"):
        found = [re.fullmatch(pattern, name) for name in names]
        named = {int(one["number"]): one["name"].strip() for one in found if one}
        if sorted(named) in numbers and len({*named.values()}) == len(names):
            names = [named[number] for number in sorted(named)]
            break
    if not len({*names}) == len(names) == count or recorded not in ([], names):
        raise UserError(
            f"{classes}: has {len({*names})} names, {', '.join(names[:3])}; the weights have "
            f"{count} classes, {', '.join(recorded[:3]) or 'without names'}; write a name per line "
            "in their order, or each with its number"
        )
    return names


def recorded_classes(weights: Path) -> list[str]:
    """Return the class names that a classifier's run or config.json records; empty if none."""
    if result := read_result(weights if weights.is_dir() else weights.parent):
        return result.data.classes if isinstance(result.data.classes, list) else []
    known = (config_of(weights) or Config()).id2label
    names = [known[number] for number in sorted(known)]
    return [] if "LABEL_0" in names else names
