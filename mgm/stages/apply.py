"""`mgm embed` and `mgm predict`: run a trained model over videos, and write one file."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mgm.console import show, show_once, track
from mgm.data.copies import check_files
from mgm.data.index import Index, Video, read_index
from mgm.data.opening import files_below, open_all
from mgm.errors import UserError, require_new, valid
from mgm.models import (
    FrozenEncoder,
    build_classifier,
    build_frozen_encoder,
    classes_of,
    config_of,
    load_weights,
    model_of,
    read_weights,
)
from mgm.reading import read_text
from mgm.results.atomic import atomic_write, table_text, write
from mgm.spec import ApplyOptions, Clips, Data, Finetune, Model, PredictOptions, Probe
from mgm.stages.evaluate import recorded_classes, softmax_mean
from mgm.stages.frozen import over_videos
from mgm.stages.job import CLIPS, best_device, readers
from mgm.stages.parents import trained_spec, verified_weights


@dataclass(frozen=True)
class Trained:
    """Weights, and the clips and the model that they were trained with."""

    weights: Path
    clips: Clips
    model: Model

    def encoder(self) -> FrozenEncoder:
        """Return the frozen encoder, on the best device."""
        spec = Probe(data=Data(dataset="folder"), clips=self.clips, model=self.model)
        return build_frozen_encoder(spec, self.weights).to(best_device())


def find_trained(path: Path, options: ApplyOptions) -> Trained:
    """Return the weights at `path`, with their clips and model.

    Args:
        path: a run's folder with a spec, or the weights in it, or weights in any format. The
            shapes of such weights determine the model, and a config.json next to them its heads
            and clips.
        options: the clips for weights without a spec. Options that are set replace config.json's.
    """
    run = path.parent if path.name == "weights.safetensors" else path
    if (run / "spec.json").exists():
        spec = trained_spec(run)
        return Trained(verified_weights(run)[0], spec.clips, spec.model)
    if not path.exists():
        where = "names of a hub are not resolved, pass a folder"
        if path.parts[:1] == ("weights",):
            where = "the models of weights/ are in a clone of the repository; pass their path there"
        raise UserError(f"{path}: no such weights; {where}")
    weights = read_weights(path)
    model = model_of(weights, path)
    config = config_of(path, weights)
    with valid(f"{path}: "):
        given = (config.num_frames, config.image_size, config.mgm.stride) if config else ()
        clips = options.clips(*given)
    if config is None and None in (options.frames, options.size, options.stride):
        show_once(
            f"{path}: has no config.json of its model, so a clip is {clips.frames} frames of "
            f"{clips.size} x {clips.size} pixels, {clips.stride} apart, and a head has "
            f"{model.width // model.heads} channels; frames, size and stride can be given"
        )
    with valid(f"{path}: --frames {clips.frames} --size {clips.size} --stride {clips.stride}: "):
        Probe(data=Data(dataset="folder"), clips=clips, model=model)
    return Trained(path, clips, model)


def find_videos(source: Path) -> tuple[dict[str, Video], list[tuple[str, str]], Index | None]:
    """Find the videos of an index, of a folder or of one file.

    Returns:
        {name: video}, (name, reason) of the files that cannot be read, and the index if there is
        one.
    """
    if (source / "index.json").is_file():
        index = read_index(source)
        check_files(source, index)
        return {index.name(video): video for video in index.videos}, list(index.excluded), index
    if not source.exists():
        raise UserError(f"{source}: no such folder, index or video; correct the path")
    root = source if source.is_dir() else source.parent
    names, unusable = files_below(source) if source.is_dir() else ([source.name], [])
    videos, unreadable = open_all(root, sorted(names))
    if not videos:
        reason = f"; {unreadable[0][0]}: {unreadable[0][1]}" if unreadable else ""
        raise UserError(f"{source}: holds no video that can be read{reason}")
    return videos, unusable + unreadable, None


def embed(source: Path, weights: Path, out: Path, options: ApplyOptions) -> str:
    """Write the encoder's feature of every video to an npz file.

    The file has path_N and feature_ND (float32), and of an index label_N, class_N and split_N. A
    clip's feature is the mean of its tokens after the final norm. A fine-tuned encoder applies its
    own norm to the tokens' mean. A video's feature is the mean over its views.

    Args:
        source: a video, a folder of videos, or an index.
        weights: a run's folder, or weights in any format.
        options: clips and views.

    Returns:
        A line about what was written.

    Raises:
        UserError: there are no videos or no weights, or `out` exists or has another file format.
    """
    _require_new(out, ".npz", options.force)
    trained = find_trained(weights, options)
    videos, unreadable, index = find_videos(source)
    feature_of, left_out = _apply(trained.encoder(), trained, videos, unreadable, options)
    columns = _columns(feature_of, videos, index)
    feature_ND = np.stack([x_VD.mean(0) for x_VD in feature_of.values()])
    with atomic_write(out) as temporary, temporary.open("wb") as file:
        arrays: dict[str, Any] = {f"{name}_N": np.array(column) for name, column in columns.items()}
        np.savez(file, **arrays, feature_ND=feature_ND)
    count, width = feature_ND.shape
    return f"wrote {out}: features of {count} videos, width {width}{left_out}"


def predict(
    source: Path, weights: Path, out: Path, classes: Path | None, options: PredictOptions
) -> str:
    """Write the classes of every video to a CSV file.

    Its columns are path, of an index label, class and split, then prediction, and `score CLASS` per
    class: the mean over the video's views of the softmax.

    Args:
        source: a video, a folder of videos, or an index.
        weights: a fine-tuning run's folder, or a classifier's weights in any format.
        classes: an index, or a file with a class name per line, in the order of labels.
        options: clips, views, and the split of an index.

    Returns:
        A line about what was written, with the top-1 of a split.

    Raises:
        UserError: there are no videos or no classifier, the names do not fit its classes, or `out`
            exists or has another file format.
    """
    _require_new(out, ".csv", options.force)
    trained = find_trained(weights, options)
    tensors = read_weights(trained.weights)
    count = classes_of(tensors, trained.weights)
    videos, unreadable, index = find_videos(source)
    names = _class_names(classes, count, recorded_classes(weights), index)
    if options.split:
        if index is None or names != list(index.classes):
            known = f"has {', '.join(index.classes[:3])}" if index else "is no index"
            raise UserError(
                f"--split {options.split}: {source} {known}, and the weights distinguish {count} "
                f"classes ({', '.join(names[:3])}); pass an index with these, in this order"
            )
        videos = {name: video for name, video in videos.items() if video.split == options.split}
        if not videos:
            raise UserError(f"{source}: has no {options.split} videos")
    spec = Finetune(
        data=Data(dataset="folder"),
        clips=trained.clips,
        model=trained.model,
        head="attentive" if "pooler.query" in tensors else "linear",
    )
    model = build_classifier(spec, count)
    load_weights(model, trained.weights)
    model.to(best_device()).eval()
    logits_of, left_out = _apply(model, trained, videos, unreadable, options)
    score_NC = np.stack([softmax_mean(logits_VC) for logits_VC in logits_of.values()])
    columns = _columns(logits_of, videos, index)
    header = [*columns, "prediction", *(f"score {name}" for name in names)]
    rows = [
        [*about, names[score_C.argmax()], *score_C.tolist()]
        for about, score_C in zip(zip(*columns.values()), score_NC)
    ]
    write(out, table_text(header, rows))
    told = f"wrote {out}: {len(rows)} videos, {count} classes{left_out}"
    if options.split:
        right_N = score_NC.argmax(1) == columns["label"]
        told += f"; top-1 {100 * right_N.mean():.2f}"
    return told


def _require_new(out: Path, suffix: str, force: bool) -> None:
    """Check the output's name before anything is computed."""
    if out.suffix != suffix:
        raise UserError(f"{out}: the output is one {suffix} file; name it so")
    require_new(out, force)


def _apply(
    compute: Callable[[Tensor], Tensor],
    trained: Trained,
    videos: Mapping[str, Video],
    unreadable: list[tuple[str, str]],
    options: ApplyOptions,
) -> tuple[dict[str, np.ndarray], str]:
    """Return {name: values of the views (V, D)}, and how many videos were left out, in words.

    Each video that is left out is shown with the reason.
    """
    torch.set_num_threads(options.threads)
    with valid(f"--temporal {options.temporal} --spatial {options.spatial}: "):
        views = options.views()
    longest = max(video.frames for video in videos.values())
    if views.temporal > longest:
        raise UserError(
            f"--temporal {views.temporal}: the longest video has {longest} frames; lower it"
        )
    names, failed = list(videos), dict[int, UserError]()
    batches = -(-len(names) // max(CLIPS // (views.temporal * views.spatial), 1))
    values = dict[str, np.ndarray]()
    loop = over_videos(
        compute,
        list(videos.values()),
        trained.clips,
        views,
        workers=readers(options),
        failed=failed,
    )
    for value_BD, sample_B in track(loop, "batches", batches):
        of_batch_ND, sample_N = value_BD.float().cpu().numpy(), sample_B.numpy()
        for sample in np.unique(sample_N).tolist():
            values[names[sample]] = of_batch_ND[sample_N == sample]
    reasons = unreadable + [(names[sample], str(error)) for sample, error in failed.items()]
    for name in [name for name, value_VD in values.items() if not np.isfinite(value_VD).all()]:
        del values[name]
        reasons.append((name, "the weights compute numbers for it that are not finite"))
    for name, reason in reasons:
        show(f"left out: {name}: {reason}")
    if not values:
        raise UserError(f"0 of {len(reasons)} videos have a result; the first: {reasons[0][1]}")
    return values, f"; {len(reasons)} were left out, listed above" if reasons else ""


def _columns(
    names: Mapping[str, object], videos: Mapping[str, Video], index: Index | None
) -> dict[str, list]:
    """Return the columns that describe videos."""
    columns: dict[str, list] = {"path": list(names)}
    if index:
        columns["label"] = [videos[name].label for name in names]
        columns["class"] = [index.classes[videos[name].label] for name in names]
        columns["split"] = [videos[name].split for name in names]
    return columns


def _class_names(
    classes: Path | None, count: int, recorded: list[str], index: Index | None
) -> list[str]:
    """Return the names that are given, or those of the weights, or those of the videos' index."""
    if classes is None:
        numbers = [f"class {label}" for label in range(count)]
        of_index = list(index.classes) if index else []
        return next((names for names in (recorded, of_index) if len(names) == count), numbers)
    if classes.is_dir():
        names = list(read_index(classes).classes)
    else:
        # str.splitlines would split names at further characters.
        names = [line.rstrip("\r\n") for line in io.StringIO(read_text(classes), newline=None)]
    if len(names) != count or len(set(names)) != count or recorded not in ([], names):
        raise UserError(
            f"{classes}: has {len(set(names))} names ({', '.join(names[:3])}), the weights "
            f"distinguish {count} classes ({', '.join(recorded[:3])}); "
            "pass the names of the classes that they were trained on"
        )
    return names
