"""Guards: frames, vectors, crops and masks of three small videos stay as they are.

Vectors and masks are compared bit for bit. Frames and compensated motion are compared within a
tolerance, since swscale and LAPACK round differently on other CPUs. To write the file again, run
this module: `python -m tests.video.test_golden`.
"""

import hashlib
import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from mgm.spec import MASKS, Clips, Mask, Model
from mgm.stages.guidance import guided
from mgm.video import loader, probe_video, read_clip, read_track
from mgm.video.transform import random_crop
from tests.helpers.videos import indexed

ROOT = Path(__file__).parents[1]
VIDEOS = sorted(path for path in (ROOT / "data" / "videos").iterdir() if path.suffix != ".md")
GOLDEN = ROOT / "golden" / "clips.json"
CLIPS, TUBELET = Clips(frames=8, size=64, stride=2), 2
GUIDES = {
    "vectors": {},
    "none": {"distance": "none"},
    "median": {"compensate": "median"},
    "max": {"cells": "max"},
    "shuffled": {"guidance": "shuffled"},
    "difference": {"guidance": "difference"},
}


def digest(*arrays) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(x).tobytes() for x in arrays)).hexdigest()[
        :16
    ]


def motion_of(clip) -> str:
    return digest(clip.motion_THW2, clip.distance_THW, clip.has_motion_T)


def whole(path: Path) -> dict:
    """Return a digest of a video's vectors, and the brightness of quarters of some frames."""
    clip = read_clip(path, range(probe_video(path).frames))
    tracked = read_track(path)[:]
    for name in ("vectors_THW2", "distance_THW", "has_mv_T"):
        # A turned video may have -0, which a track stores as 0.
        assert np.array_equal(getattr(tracked, name), getattr(clip.motion, name)), name
    grey_THW = clip.frames_THWC[::7].mean(3)
    top, left = (side // 2 for side in grey_THW.shape[1:])
    quarters = [grey_THW[:, :top, :left], grey_THW[:, top:, left:]]
    return {
        "shape": list(clip.frames_THWC.shape),
        "vectors": motion_of(clip),
        "brightness": [quarter.mean((1, 2)).tolist() for quarter in quarters],
    }


def crops(path: Path) -> dict:
    """Return digests of the motion under random crops, and sums of compensated motion."""
    vectors, largest, affine = [], [], []
    for seed in range(6):
        clip = read_clip(path, range(seed, seed + 8))
        clips = replaced(CLIPS, crop=["multiscale", "resized", "centre"][seed % 3])
        box = random_crop(clips, clip.height, clip.width, seed)
        box = replace(box, flip=bool(seed % 2))
        cut = clip.cut(box, CLIPS.size)
        vectors.append(motion_of(cut))
        largest.append(digest(cut.motion.magnitude(TUBELET, cells="max")))
        affine.append(cut.motion.magnitude(TUBELET, compensate="affine").sum((1, 2)).tolist())
    return {"vectors": vectors, "largest": largest, "affine": affine}


def replaced(clips: Clips, **fields) -> Clips:
    return clips.model_copy(update=fields)


def masks(guide: str) -> dict:
    """Return a digest of each mask, over two batches of three clips."""
    videos = [indexed(str(path), probe_video(path).frames, n) for n, path in enumerate(VIDEOS)]
    drawn = {}
    for name, info in MASKS.items():
        if (guide == "max" and not info.largest) or (guide == "difference" and info.directional):
            continue
        how = guided(Mask(name=name, **GUIDES[guide]), CLIPS, Model(patch=8))
        batches = islice(loader.training_loader(videos, CLIPS, seed=3, batch=3, **how), 2)
        drawn[name] = digest(*(np.packbits(batch.masked_BL.numpy()) for batch in batches))
    return drawn


def computed() -> dict:
    return {
        "whole": {path.name: whole(path) for path in VIDEOS},
        "crops": {path.name: crops(path) for path in VIDEOS},
        "masks": {guide: masks(guide) for guide in GUIDES},
    }


@pytest.mark.parametrize("path", VIDEOS, ids=lambda path: path.name)
def test_frames_vectors_and_crops_are_the_golden_ones(path):
    golden = json.loads(GOLDEN.read_text())
    known, now = golden["whole"][path.name], whole(path)
    np.testing.assert_allclose(now.pop("brightness"), known.pop("brightness"), atol=0.5)
    assert now == known
    known, now = golden["crops"][path.name], crops(path)
    np.testing.assert_allclose(now.pop("affine"), known.pop("affine"), rtol=1e-3, atol=1e-2)
    assert now == known


@pytest.mark.parametrize("guide", GUIDES)
def test_masks_are_the_golden_ones(guide):
    torch.set_num_threads(1)
    assert masks(guide) == json.loads(GOLDEN.read_text())["masks"][guide]


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(computed(), indent=1) + "\n")
