"""Measure controls: accuracies of a linear probe on features that need no trained model.

The accuracy of a model shows video understanding only if it is higher than these. There are four
kinds of features: properties of the file, small pictures (appearance), statistics of the codec's
motion vectors (motion), and random weights (an untrained model of the same size).

Labels, draws, splits, groups and the classifier are the same as for probes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from mgm.data.index import Index, Video, read_index
from mgm.errors import UserError
from mgm.models import build_frozen_encoder
from mgm.spec import CONTROLS, Data, Measure, Probe, Run, Views, read_spec
from mgm.stages.evaluate import check_views, predictions
from mgm.stages.features import Split
from mgm.stages.frozen import over_videos
from mgm.stages.job import Job, Workplace, best_device
from mgm.stages.measure import simple_features as simple
from mgm.stages.probe import fit_draws

# {control: features of each video of the index, (D,) or a row per view (V, D)}
Features = dict[str, np.ndarray | list[np.ndarray]]
NOT_TESTED = (np.nan, np.nan, np.nan)  # in place of an accuracy and its interval
RESAMPLES = 2000  # bootstrap samples of test groups and label draws, for an interval
GIVES_AWAY = 10.0  # points above chance at which a file fact is a warning


def controls(
    index: Index, like: Probe | Measure, *, weights: bool = True, workers: int = 0
) -> pd.DataFrame:
    """Classify an index's videos by each control.

    Args:
        index: the videos, their splits and groups.
        like: has the labels, draws, seed, clips, views and model. Its `parent` is ignored, since
            weights are random.
        weights: whether to measure random weights, the only control that runs a model.
        workers: number of processes that decode. 0: this process decodes.

    Returns:
        A row per control: `control`, `title`, `kind` (file, picture, motion or model), `top1` in
        per cent (mean over label draws), `ci_low` and `ci_high` (95 %, bootstrap over test groups
        and label draws), `why` (why there is no number), `chance` (the most frequent test class)
        and `warning`.
    """
    if cannot := unmeasurable(index):
        return _table(index, [(*NOT_TESTED, cannot)] * len(CONTROLS))
    return classify(index, read(index, like if weights else None, workers), like)


def unmeasurable(index: Index) -> str:
    """Return why no control can be measured on an index; empty if they can."""
    if len(index.classes) < 2:
        return f"the dataset has {len(index.classes)} class, and a probe needs 2"
    if not index.test:
        return "the dataset has no test videos"
    if len({video.label for video in index.train}) < 2:
        return "the training videos are of fewer than 2 classes"
    return ""


def remarks(index: Index) -> list[str]:
    """Return notes on the index that matter for the meaning of its controls and probes."""
    notes = []
    trained = {video.label for video in index.train}
    for label in sorted({video.label for video in index.test} - trained):
        notes.append(f"class {index.classes[label]} has test videos but no training videos")
    groups: list[set[str]] = [set() for _ in index.classes]
    for video in index.videos:
        groups[video.label].add(video.group)
    several = len(index.videos) > len({video.group for video in index.videos})
    whole = [name for name, some in zip(index.classes, groups) if len(some) == 1]
    if several and whole:
        notes.append(
            f"all videos of class {', '.join(whole)} are of one group: "
            "whatever distinguishes the group passes for the class"
        )
    without = [video for video in index.videos if not video.has_vectors]
    if without and len(without) < len(index.videos):
        notes.append(
            f"{len(without)} of {len(index.videos)} videos have no motion vectors and count as "
            "still, which may itself distinguish classes"
        )
    return notes


def read(index: Index, like: Probe | Measure | None = None, workers: int = 0) -> Features:
    """Return the features of each video. With `like`, also those of random weights."""
    videos = index.videos
    features: Features = {}
    for name, values_NF in simple.file_facts(videos).items():
        train_N = np.array([video.split == "train" for video in videos])
        features[name] = simple.binned(values_NF[train_N], values_NF)
    features["file_facts"] = np.concatenate(list(features.values()), axis=1)
    numbers_of = list(simple.read_all(videos, workers))
    if numbers_of:
        for name in numbers_of[0]:
            features[name] = np.stack([numbers[name] for numbers in numbers_of]).astype(float)
    if like is not None:
        features["random_weights"] = _random_weights(videos, _probe(like), workers)
    return features


def _random_weights(videos: Sequence[Video], like: Probe, workers: int) -> list[np.ndarray]:
    """Return the features (V, D) of each video's views by an encoder that was not trained."""
    encoder = build_frozen_encoder(like).to(best_device())
    x_of: dict[int, np.ndarray] = {}
    for tested, views in ((False, Views(temporal=like.train_clips, spatial=1)), (True, like.views)):
        numbers = [n for n, video in enumerate(videos) if (video.split == "test") == tested]
        of_split = [videos[number] for number in numbers]
        for x_BD, sample_B in over_videos(encoder, of_split, like.clips, views, workers=workers):
            of_batch_BD, sample_N = x_BD.double().cpu().numpy(), sample_B.numpy()
            for sample in np.unique(sample_N).tolist():
                x_of[numbers[sample]] = of_batch_BD[sample_N == sample]
    return [x_of[number] for number in range(len(videos))]


def classify(index: Index, features: Features, like: Probe | Measure) -> pd.DataFrame:
    """Fit and test a linear probe on each control's features. Return the table of `controls`."""
    like = _probe(like)
    job = Job(like, Path(), Workplace(Path(), {}), index)
    draws = [job.training_videos(number) for number in range(like.label_draws)]
    number_of = {video.path: number for number, video in enumerate(index.videos)}
    videos = list({video.path: video for drawn in draws for video in drawn}.values())
    train_N = np.array([number_of[video.path] for video in videos])
    test_N = np.array([number_of[video.path] for video in index.test])
    moves = any(video.has_vectors for video in index.videos)
    rows = []
    for control in CONTROLS:
        tested, why = NOT_TESTED, ""
        if control.kind == "motion" and not moves:
            why = "no video has motion vectors: its codec exports none; transcode to H.264"
        elif control.name not in features:
            why = "no model was given"
        elif _is_constant(features[control.name]):
            why = "it is the same for all videos"
        else:
            train, test = (_split(features[control.name], of_N) for of_N in (train_N, test_N))
            try:
                logits, _ = fit_draws(job, draws, videos, train, test)
                tested = _tested(index, test.sample_N.numpy(), logits)
            except UserError as error:
                why = str(error)
        rows.append((*tested, why))
    return _table(index, rows)


def _tested(
    index: Index, sample_N: np.ndarray, logits: Sequence[np.ndarray]
) -> tuple[float, float, float]:
    """Return the accuracy and its interval."""
    right_LN = predictions(sample_N, logits) == np.array([video.label for video in index.test])
    return 100 * right_LN.mean(), *interval(right_LN, [video.group for video in index.test])


def _is_constant(features: np.ndarray | list[np.ndarray]) -> bool:
    x_ND = np.concatenate([np.atleast_2d(x) for x in features])
    return np.ptp(x_ND, axis=0).max(initial=0) == 0


def _split(features: np.ndarray | list[np.ndarray], video_N: np.ndarray) -> Split:
    """Return these videos' features as a split, with a row per view."""
    views = [np.atleast_2d(features[video]) for video in video_N]
    sample_N = np.repeat(np.arange(len(views)), [len(x_VD) for x_VD in views])
    return Split(torch.from_numpy(np.concatenate(views)).float(), torch.from_numpy(sample_N))


def _table(index: Index, rows: Sequence[tuple[float, float, float, str]]) -> pd.DataFrame:
    """Return the table of `controls`, from accuracy, interval and `why` of each control."""
    chance = chance_of(index)
    table = pd.DataFrame(rows, columns=["top1", "ci_low", "ci_high", "why"]).assign(chance=chance)
    table["warning"] = [
        f"{control.says} alone predicts the class: {top1:.0f} % (chance {chance:.0f} %)"
        if control.kind == "file" and top1 >= chance + GIVES_AWAY
        else ""
        for control, top1 in zip(CONTROLS, table.top1, strict=True)
    ]
    names = [(control.name, control.title, control.kind) for control in CONTROLS]
    return pd.DataFrame(names, columns=["control", "title", "kind"]).join(table)


def chance_of(index: Index) -> float:
    """Return the accuracy of always predicting the most frequent test class, in per cent."""
    labels = [video.label for video in index.test]
    return 100 * max(np.bincount(labels)) / len(labels) if labels else np.nan


def interval(right_LN: np.ndarray, groups: Sequence[str]) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a mean accuracy, in per cent.

    Test groups and label draws are resampled as a whole, since videos of a group share their scene,
    and predictions of a draw share their classifier.

    Args:
        right_LN: whether each draw's classifier is right about each test video.
        groups: each test video's group.
    """
    _, group_N = np.unique(groups, return_inverse=True)
    size_G = np.bincount(group_N)
    if len(size_G) < 2:
        return np.nan, np.nan
    right_LG = np.stack([np.bincount(group_N, right_N, len(size_G)) for right_N in right_LN])
    draw = np.random.default_rng(0)
    draws, count = len(right_LG), len(size_G)
    weight_RG = draw.multinomial(count, np.full(count, 1 / count), RESAMPLES)
    weight_RL = draw.multinomial(draws, np.full(draws, 1 / draws), RESAMPLES) / draws
    mean_R = ((weight_RL @ right_LG) * weight_RG).sum(1) / (weight_RG @ size_G)
    low, high = np.percentile(mean_R, (2.5, 97.5))
    return 100 * float(low), 100 * float(high)


def _probe(like: Run) -> Probe:
    """Return the logistic probe of random weights that `like` describes, as far as it does."""
    fields = ("data", "clips", "model", "seed", "train_clips", "label_draws", "held_out", "views")
    return Probe(**{name: getattr(like, name) for name in fields if hasattr(like, name)})


def describe(table: pd.DataFrame, index: Index, draws: int) -> str:
    """Return the controls as text: a line for each, then warnings and notes.

    Args:
        draws: of the labels.
    """
    labels = f"{draws} draws of the labels" if draws > 1 else "one draw"
    lines = [
        f"{len(index.classes)} classes, {len(index.train):,} training and {len(index.test):,} test "
        f"videos; chance {table.chance[0]:.1f} %; mean over {labels}",
        f"{'linear probe on':<38}{'top-1':>6}  95 % interval",
    ]
    for row in table.to_dict("records"):
        bounds = "" if np.isnan(row["ci_low"]) else f"  [{row['ci_low']:.1f}, {row['ci_high']:.1f}]"
        number = f"not measured: {row['why']}" if row["why"] else f"{row['top1']:6.1f}{bounds}"
        lines.append(f"{row['title']:<38}{number}")
    notes = [f"warning: {text}" for text in table.warning if text]
    notes += [f"note: {text}" for text in remarks(index)]
    return "\n".join([*lines, *notes])


def controls_now(folder: Path, like: Path | None, workers: int) -> str:
    """Measure a dataset's controls and return them as text, without writing a result.

    Args:
        folder: of the dataset's index.
        like: spec or folder of a probe or another run, which has the labels, clips, views and the
            model for random weights. None: all labels, and no random weights.
        workers: number of processes that decode.
    """
    index = read_index(folder)
    spec = _probe(read_spec(like)) if like else Probe(data=Data(dataset="folder"))
    table = controls(index, spec, weights=like is not None, workers=workers)
    return describe(table, index, spec.label_draws)


def measure(job: Job[Measure]) -> dict[str, Any]:
    """Measure the controls of a run. Return {control: metric}, and write the rest to arrays.npz."""
    check_views(job)
    table = controls(job.index, job.spec, workers=job.workers)
    numbers = ("top1", "ci_low", "ci_high")
    words = ("control", "title", "kind", "why", "warning")
    arrays: dict[str, Any] = {f"{name}_N": np.array(table[name], float) for name in numbers}
    arrays |= {f"{name}_N": np.array(table[name].tolist()) for name in words}
    arrays["remarks"] = np.array(remarks(job.index))
    np.savez_compressed(job.folder / "arrays.npz", **arrays)
    done = table[table.why == ""]
    return dict(zip(done.control, done.top1.astype(float))) | {"chance": float(table.chance[0])}
