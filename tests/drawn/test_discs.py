import hashlib
from dataclasses import fields, replace

import numpy as np
import pytest

from mgm.drawn import discs
from mgm.drawn.discs import boxes, draw, scene, tracks
from mgm.drawn.params import CLASSES, MOTIONS, Synthetic

KINDS = tuple(CLASSES)


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_hold_what_moves_and_little_else(kind, monkeypatch):
    params = Synthetic(kind=kind)
    for number in (0, 8, 9, 10):
        what = scene(params, "train", number)
        frames = draw(params, what).astype(int)
        with monkeypatch.context() as patch:
            patch.setattr(discs, "_paint", lambda *_: None)
            background = draw(params, what).astype(int)
        changed_THW = np.abs(frames - background).max(-1) > 0
        inside_THW = np.zeros_like(changed_THW)
        boxes_TK4 = boxes(params, what)
        assert boxes_TK4.dtype == np.float32
        assert boxes_TK4.min() >= 0
        assert boxes_TK4.max() <= 64
        for inside_HW, boxes_K4 in zip(inside_THW, boxes_TK4, strict=True):
            for top, left, bottom, right in boxes_K4:
                rows, columns = (int(top), int(np.ceil(bottom))), (int(left), int(np.ceil(right)))
                inside_HW[slice(*rows), slice(*columns)] = True
        assert not (changed_THW & ~inside_THW).any()
        assert changed_THW.sum() > 0.35 * inside_THW.sum()
        luma = np.array([0.299, 0.587, 0.114])
        assert (frames @ luma)[changed_THW].mean() > (background @ luma).mean() + 50


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("ssv2", ("42baf6798207", "07968648e93edd1e")),
        ("k400", ("7244012c3b6e", "1bff70faf148512e")),
        ("ucf101", ("98c64f75e0d1", "0d99ca4af8b75141")),
        ("hmdb51", ("b4fe94ad78e0", "97d6a816e1da9dda")),
        ("diving48", ("af6409e151ec", "4feb98c4952a5cf2")),
    ],
)
def test_every_machine_draws_these_pixels(kind, expected):
    """If the drawing changed on purpose, raise GENERATOR_VERSION and put the new values here."""
    params = Synthetic(kind=kind)
    digest = hashlib.sha256()
    for number in range(12):
        digest.update(draw(params, scene(params, "train", number)))
    assert (params.digest, digest.hexdigest()[:16]) == expected


def test_contrast_scales_the_ground_alone():
    plain = Synthetic(sprites=1, ground="textured", pan=0)
    sets = [plain.model_copy(update={"contrast": contrast}) for contrast in (100, 50, 0)]
    for number in range(4):
        full, half, none = (draw(p, scene(p, "test", number))[0].astype(int) for p in sets)
        top, left, bottom, right = boxes(sets[0], scene(sets[0], "test", number))[0, 0].astype(int)
        # The disc has the same pixels, and elsewhere a flat ground the tint alone.
        middle = (top + bottom) // 2, (left + right) // 2
        np.testing.assert_array_equal(full[middle], none[middle])
        outside = np.ones((64, 64), bool)
        outside[top : bottom + 1, left : right + 1] = False
        assert np.ptp(none[outside], axis=0).max() == 0
        deviations = [image[outside].std(0).mean() for image in (full, half)]
        np.testing.assert_allclose(deviations[1], deviations[0] / 2, rtol=0.05)


@pytest.mark.parametrize("kind", ["k400", "hmdb51"])
def test_a_mirrored_video_is_a_video_of_its_class(kind):
    """It is equally likely, and equal to the pixel."""
    params = Synthetic(kind=kind, frames=6)
    for number in range(params.classes):
        one = scene(params, "train", number)
        other = replace(one, mirrored=not one.mirrored)
        assert one.label == other.label
        np.testing.assert_array_equal(draw(params, one), draw(params, other)[:, :, ::-1])
        top_TK, left_TK, bottom_TK, right_TK = np.moveaxis(boxes(params, other), -1, 0)
        wanted_TK4 = np.stack([top_TK, 64 - right_TK, bottom_TK, 64 - left_TK], axis=-1)
        np.testing.assert_array_equal(boxes(params, one), wanted_TK4)
    every = [scene(params, "train", number).mirrored for number in range(100 * params.classes)]
    mirrored = np.reshape(every, (100, -1))
    assert (abs(mirrored.mean(0) - 0.5) < 0.2).all()  # four standard errors per class


def test_a_video_is_a_function_of_seed_split_and_index():
    def pixels(split, number, **changes):
        params = Synthetic(**{"frames": 4, **changes})
        return draw(params, scene(params, split, number)).tobytes()

    one = pixels("train", 5)
    assert one == pixels("train", 5, train_per_class=1, test_per_class=7, fps=30)
    others = pixels("train", 17), pixels("test", 5), pixels("train", 5, seed=1)
    assert len({one, *others}) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_motion_depends_on_the_class(kind):
    few, many = Synthetic(kind=kind, classes=5), Synthetic(kind=kind)
    for number in range(5, many.classes):
        one, other = scene(few, "train", number), scene(many, "train", number)
        assert one.label != other.label
        for field in fields(one):
            if field.name != "label":
                np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


@pytest.mark.parametrize(("kind", "quick"), [("ssv2", 1), ("k400", 10)])
def test_a_frame_of_swaying_sprites_tells_nothing_of_the_class(kind, quick):
    """Coordinates and diameters are spread evenly over one range, at any time and in any class."""
    params = Synthetic(kind=kind, sprites=3, quick=quick, train_per_class=150, frames=9)
    found = [[] for _ in MOTIONS[kind]]
    for number in range(params.classes * params.train_per_class):
        what = scene(params, "train", number)
        centres_TK2, diameters_TK = tracks(params, what)
        near_TK1 = np.log2(diameters_TK / 64 / 0.33)[..., None]
        found[what.label].append(np.concatenate([centres_TK2 / 64, near_TK1], axis=-1))
    for of_class in found:
        values_NV = np.reshape(of_class, (150, 27, 3)).transpose(0, 2, 1)[..., ::4]
        values_NV = values_NV.reshape(150, -1)
        low_V = np.where(values_NV.min(0) > 0, 0.1, -0.5)
        assert distance_to_uniform(values_NV, low_V, np.where(low_V > 0, 0.8, 1)).max() < FAR


# A Kolmogorov-Smirnov test of 150 values has p = 1e-5 at this distance.
FAR = (np.log(2e5) / 300) ** 0.5


def distance_to_uniform(values_NV, low_V, width_V) -> np.ndarray:
    """Return the largest distance between each column's distribution and the uniform one."""
    share_NV = np.clip((np.sort(values_NV, axis=0) - low_V) / width_V, 0, 1)
    rank_N1 = np.arange(len(values_NV))[:, None] / len(values_NV)
    return np.maximum(share_NV - rank_N1, rank_N1 + 1 / len(values_NV) - share_NV).max(0)


@pytest.mark.parametrize("quick", [10, 1])
@pytest.mark.parametrize("kind", MOTIONS)
def test_swaying_sprites_move_as_their_class_says(kind, quick):
    params = Synthetic(kind=kind, quick=quick, frames=31)
    for label, (name, ways) in enumerate(MOTIONS[kind].items()):
        centres_TK2, diameters_TK = tracks(params, scene(params, "train", label))
        values_TK3 = np.concatenate([centres_TK2, diameters_TK[..., None]], axis=-1)
        steps_3T = np.diff(values_TK3[:, 0], axis=0).T
        for way, steps_T in zip(ways, steps_3T, strict=True):
            forward, back = (steps_T > 0).sum(), (steps_T < 0).sum()
            if way == 0:
                assert forward == back == 0, name
            elif way == 2:
                assert abs(forward - back) <= 2, name
            else:
                assert way * (back - forward) > 5, name
