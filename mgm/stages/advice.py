"""Say before any training what pretraining gains on a dataset: the advice of `mgm inspect DIR`.

    gain = LEVEL * level + TUBE * level (of the random tube) + HALF (of MGM that hides half)
    level = (histogram - random) * (1 - contrast / MOST)

Gains are of linear probes over random weights, in points. `histogram` and `random` are the
accuracies of linear probes on a histogram of motion vectors and on random weights, in per cent.
`contrast` is how much the static patches of a clip differ, in grey levels; above `MOST` the level
is 0.

`studies/rule.py` fitted the numbers to small models. The study `unseen` tested them on eight
settings that the fit had not seen.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from mgm.data.index import Index, Video, spread
from mgm.spec import Clips, Data, Model, Probe
from mgm.stages.measure.controls import classify, read, unmeasurable
from mgm.stages.measure.explained import COMMON, moves
from mgm.stages.measure.visible import GREY, first_clips

LEVEL, TUBE, HALF = 0.432, -0.259, 5.18
MOST = 15.0  # grey levels: the textured ground's
# Root mean square errors in points: on the drawn videos of `unseen`, and on real ones that were
# left out of the fit. On these the rule's order of the masks was wrong.
ON_DRAWN, ON_REAL = 9, 13
HISTOGRAM, RANDOM = "Histogram by quadrant, 324 numbers", "Random weights"
CLASSES, PER_CLASS = 12, 10  # that are read
SMALL = Model(backbone="small", width=48, depth=2, heads=4, patch=8)  # of the scale `mini`


class Facts(NamedTuple):
    """What the rule reads of a dataset: accuracies in per cent, and grey levels."""

    histogram: float
    random: float
    contrast: float


def level_of(facts: Any) -> Any:
    """Return the level of `Facts`, or of a table with these columns."""
    room = facts.histogram - facts.random
    return room * np.clip(1 - facts.contrast / MOST, 0, None)


def advice(facts: Facts) -> list[str]:
    """Return lines on what each mask gains, by the rule."""
    level = level_of(facts)
    return [
        f"linear probes: {facts.histogram:.0f} % on motion vectors, {facts.random:.0f} % on random "
        f"weights; static patches differ by {facts.contrast:.0f} grey levels",
        f"so pretraining gains, in points: MGM that hides half {LEVEL * level + HALF:.0f}, other "
        f"boxes {LEVEL * level:.0f}, tube {(LEVEL + TUBE) * level:.0f}",
        f"this rule is off by {ON_DRAWN} points on drawn videos; on real ones by {ON_REAL}, and "
        "its order of masks was wrong there (docs/results.md)",
    ]


def facts_of(index: Index) -> Facts | None:
    """Measure a dataset; None if it cannot be.

    At most `PER_CLASS` training and test videos of `CLASSES` classes are read.
    """
    few = _few(index)
    if unmeasurable(few) or not any(video.has_vectors for video in few.videos):
        return None
    # A clip spans about half of a typical video, as in the studies, and at most 57 frames.
    frames = int(np.median([video.frames for video in few.videos]))
    clips = Clips(frames=8, size=48, stride=min(max(frames // 12, 1), 8), crop="centre")
    like = Probe(data=Data(dataset="folder"), clips=clips, model=SMALL)
    features = read(few, like)
    # Fits take the most time, and the rule needs no other control.
    needed = {name: features[name] for name in ("vector_quadrants", "random_weights")}
    top1 = classify(few, needed, like).set_index("title").top1
    histogram, random = (float(top1[title]) for title in (HISTOGRAM, RANDOM))
    # Too few videos for a probe leave no number.
    if np.isnan(histogram + random):
        return None
    return Facts(histogram, random, static_contrast(few.train, clips, SMALL))


def static_contrast(videos: Sequence[Video], clips: Clips, model: Model) -> float:
    """Return how much the static patches of the first clips of videos differ, in grey levels.

    It is the standard deviation of their mean brightness over a clip, robust against the parts of
    an object that do not move.
    """
    slots, side, patch = clips.frames // model.tubelet, clips.size // model.patch, model.patch
    found = list[float]()
    for batch in first_clips(videos, clips, model, [COMMON]):
        grey_BTHW = batch.frames_BTHWC.numpy() @ GREY
        B = len(grey_BTHW)
        mean_BSHW = grey_BTHW.reshape(B, slots, -1, side, patch, side, patch).mean((2, 4, 6))
        moves_BL = moves(batch.frames_BTHWC, (slots, side, side)).numpy()
        for mean_L, moves_L in zip(mean_BSHW.reshape(B, -1), moves_BL):
            static = mean_L[~moves_L]
            enough = len(static) > 0.1 * len(mean_L)
            off = abs(static - np.median(static)) if enough else np.zeros(1)
            found.append(1.4826 * float(np.median(off)))
    return float(np.mean(found))


def _few(index: Index) -> Index:
    """Return an index of few classes, and of few videos of each, evenly spread."""
    labels = spread(range(len(index.classes)), CLASSES)
    videos = [
        replace(video, label=new)
        for new, label in enumerate(labels)
        for split in (index.train, index.test)
        for video in spread([video for video in split if video.label == label], PER_CLASS)
    ]
    classes = tuple(index.classes[label] for label in labels)
    return replace(index, classes=classes, videos=tuple(videos))
