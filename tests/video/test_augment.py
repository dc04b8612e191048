"""One draw for all frames of a clip; timm's own draw for its first frame."""

import random

import numpy as np
import pytest
from PIL import Image

from mgm.rng import generator, seeded
from mgm.spec import Augment
from mgm.video.augment import ClipAugmentation

RAND = "rand-m7-n4-mstd0.5-inc1"


@pytest.fixture(scope="module")
def rand():
    return ClipAugmentation(Augment(rand=RAND))


def pictures(frames=4, height=40, width=56, seed=0):
    """Smooth pictures, so that every operation shows."""
    coarse = np.random.default_rng(seed).integers(0, 256, (frames, 5, 7, 3), np.uint8)
    return np.stack(
        [np.asarray(Image.fromarray(image).resize((width, height))) for image in coarse]
    )


def test_every_frame_gets_the_same_operations_at_the_same_strength(rand, monkeypatch):
    """What timm is asked to do to each frame, written down."""
    done = []
    for op in rand._rand.ops:

        def noted(image, *args, name=op.name, real=op.aug_fn, **kwargs):
            done.append((name, args, kwargs["resample"]))
            return real(image, *args, **kwargs)

        monkeypatch.setattr(op, "aug_fn", noted)
    seen = set()
    for seed in range(60):
        done.clear()
        rand.rand(pictures(6, seed=seed), generator(seed, "augment"))
        one_frame, rest = divmod(len(done), 6)
        assert rest == 0
        assert done == done[:one_frame] * 6
        assert one_frame <= 4
        assert all(resample == Image.Resampling.BICUBIC for *_, resample in done)
        seen |= {name for name, *_ in done}
    assert seen == {op.name for op in rand._rand.ops}
    assert len(seen) == 15


def test_a_frame_is_what_timm_makes_of_it(rand):
    from timm.data.auto_augment import rand_augment_transform

    frames, policy = (
        pictures(),
        rand_augment_transform(RAND, {"interpolation": Image.Resampling.BICUBIC}),
    )
    for seed in range(20):
        out = rand.rand(frames, generator(seed, "augment"))
        for frame, got in zip(frames, out):
            with seeded(int(generator(seed, "augment").integers(2**32))):
                expected = policy(Image.fromarray(frame))
            np.testing.assert_array_equal(got, np.asarray(expected))


def test_the_global_generators_are_left_as_they_were(rand):
    random.seed(1)
    np.random.seed(1)
    expected = random.random(), np.random.rand()
    random.seed(1)
    np.random.seed(1)
    augmentation = ClipAugmentation(Augment(rand=RAND, erasing=1.0))
    augmentation.erase(
        augmentation.rand(pictures(), generator(3, "augment")), generator(3, "augment")
    )
    assert (random.random(), np.random.rand()) == expected


def test_one_box_is_erased_from_all_frames_and_nothing_else():
    erasing = ClipAugmentation(Augment(erasing=1.0))
    frames = np.repeat(pictures(1, 48, 48), 6, 0)
    areas = []
    for seed in range(100):
        out = erasing.erase(frames, generator(seed, "augment"))
        changed_THW = (out != frames).any(-1)
        rows, columns = (np.flatnonzero(changed_THW.any((0, axis))) for axis in (2, 1))
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert (
            changed_THW[:, *box].mean() > 0.95
        )  # noise may hit a pixel's own value in all channels, rarely
        areas.append(len(rows) * len(columns) / 48**2)
        assert (out[0] != out[1]).any()  # noise is each frame's own
    assert 0.015 < min(areas) < 0.06
    assert 0.25 < max(areas) < 0.35


def test_the_noise_has_imagenets_mean_and_deviation():
    erasing, frames = (
        ClipAugmentation(Augment(erasing=1.0)),
        np.full((16, 224, 224, 3), 1, np.uint8),
    )
    out = erasing.erase(frames, generator(0, "augment"))
    noise_NC = out[:, (out != 1).any((0, 3))].reshape(-1, 3) / 255
    np.testing.assert_allclose(noise_NC.mean(0), [0.485, 0.456, 0.406], atol=0.01)
    np.testing.assert_allclose(
        noise_NC.std(0), [0.229, 0.224, 0.225], atol=0.02
    )  # a little less: cut off at black and white
