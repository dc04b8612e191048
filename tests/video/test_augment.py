"""RandAugment and random erasing of clips: timm's draws, applied on the device."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import auto_augment as timm

from mgm.rng import generator, seeded
from mgm.spec import Augment
from mgm.video.augment import OPERATIONS, ClipAugmentation, augmented, operate
from mgm.video.crop import Crop

RAND = "rand-m7-n4-mstd0.5-inc1"
BICUBIC = Image.Resampling.BICUBIC
HOW = {"fillcolor": (128, 128, 128), "resample": BICUBIC}
# Arguments that timm draws: weak and strong, of both signs.
FACTORS, SHARES = (0.1, 0.37, 1.0, 1.63, 1.9), (-0.3, -0.11, 0.21, 0.45)
ARGUMENTS = {
    "auto_contrast": (0,),
    "equalize": (0,),
    "invert": (0,),
    "posterize": (1, 2, 4, 8),
    "solarize": (0, 77, 255, 256),
    "solarize_add": (0, 77, 128),
    "rotate": (-30, -7.7, 21, 30),
    **dict.fromkeys(("color", "contrast", "brightness", "sharpness"), FACTORS),
    **dict.fromkeys(("shear_x", "shear_y", "translate_x_rel", "translate_y_rel"), SHARES),
}
# The others round differently, or interpolate with another bicubic kernel.
EQUAL = {"equalize", "invert", "posterize", "solarize", "solarize_add", "brightness", "sharpness"}


def pictures(frames=4, height=40, width=56, seed=0):
    """Return smooth pictures, on which every operation is visible."""
    coarse = np.random.default_rng(seed).integers(0, 256, (frames, 5, 7, 3), np.uint8)
    return np.stack(
        [np.asarray(Image.fromarray(image).resize((width, height))) for image in coarse]
    )


def by_timm(name: str, frames_THWC: np.ndarray, argument: float) -> np.ndarray:
    """Apply timm's operation to each frame."""
    words = () if ARGUMENTS[name] == (0,) else (argument,)
    if name in ("posterize", "solarize", "solarize_add"):
        words = (int(argument),)
    images = map(Image.fromarray, frames_THWC)
    return np.stack([np.asarray(getattr(timm, name)(image, *words, **HOW)) for image in images])


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_does_what_timms_does(name):
    frames_THWC, off = pictures(), list[float]()
    for argument in ARGUMENTS[name]:
        x_TCHW = torch.from_numpy(frames_THWC).permute(0, 3, 1, 2)
        got = operate(name, x_TCHW, argument).permute(0, 2, 3, 1).int().numpy()
        off.append(float(np.abs(got - by_timm(name, frames_THWC, argument)).mean()))
    # Of 255.
    assert max(off) <= (0 if name in EQUAL else 0.9)


def test_timm_draws_the_operations():
    """Those that it would apply to an image, one after another."""
    policy = timm.rand_augment_transform(RAND, {"interpolation": BICUBIC})
    augmentation, [frame] = ClipAugmentation(Augment(rand=RAND)), pictures(1)
    seen = set[int]()
    for seed in range(40):
        drawn = augmentation.operations(generator(seed, "augment"))
        with seeded(int(generator(seed, "augment").integers(2**32))):
            expected = policy(Image.fromarray(frame))
        own_THWC = frame[None]
        for number, argument in drawn:
            own_THWC = by_timm(OPERATIONS[number], own_THWC, argument)
        np.testing.assert_array_equal(own_THWC[0], np.asarray(expected))
        seen |= {number for number, _ in drawn}
    assert seen == {*range(15)}
    assert augmentation.layers == 4


def test_the_global_generators_are_left_as_they_were():
    random.seed(1)
    np.random.seed(1)
    expected = random.random(), np.random.rand()
    random.seed(1)
    np.random.seed(1)
    augmentation = ClipAugmentation(Augment(rand=RAND, erasing=1.0))
    augmentation.operations(generator(3, "augment"))
    augmentation.box(24, generator(3, "augment"))
    assert (random.random(), np.random.rand()) == expected


def applied(augment, frames_THWC, seed, crop=None, size=48, device="cpu"):
    """Draw and apply an augmentation to one clip: (T, size, size, 3)."""
    from mgm.spec import Clips

    augmentation, sides = ClipAugmentation(augment), frames_THWC.shape[1:3]
    arrays = augmentation.blank(Clips(frames=len(frames_THWC), size=size), sides[0] * sides[1] + 9)
    arrays["seed_B"] = np.array([seed])
    arrays["whole_BTPC"][0, :, :-9] = frames_THWC.reshape(len(frames_THWC), -1, 3)
    one = {name: x[0] for name, x in arrays.items() if name != "seed_B"}
    augmentation.draw(generator(seed, "augment"), sides, crop or Crop(0, 0, *sides), size, one)
    host = {name: torch.from_numpy(x) for name, x in arrays.items()}
    return augmented(size, host["whole_BTPC"].to(device), host)[0]


def test_frames_have_the_same_draw_and_the_crop_comes_after():
    frames_THWC = np.repeat(pictures(1, 60, 70), 3, 0)
    whole, cut = (
        applied(Augment(rand=RAND), frames_THWC, 5, crop, 60)
        for crop in (Crop(0, 0, 60, 60), Crop(0, 10, 60, 60, True))
    )
    assert (whole[0] == whole).all()
    assert torch.equal(whole[:, :, 10:], cut.flip(2)[:, :, :-10])


def test_one_box_is_erased_from_all_frames_and_nothing_else():
    frames_THWC, areas = np.repeat(pictures(1, 48, 48), 6, 0), list[float]()
    for seed in range(100):
        out = applied(Augment(erasing=1.0), frames_THWC, seed).numpy()
        changed_THW = (out != frames_THWC).any(-1)
        rows, columns = (np.flatnonzero(changed_THW.any((0, axis))) for axis in (2, 1))
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert changed_THW[:, *box].mean() > 0.95  # rarely, noise equals a pixel in all channels
        areas.append(len(rows) * len(columns) / 48**2)
        assert (out[0] != out[1]).any()  # each frame has its own noise
    assert 0.015 < min(areas) < 0.06
    assert 0.25 < max(areas) < 0.35


def test_the_noise_has_imagenets_mean_and_deviation():
    frames_THWC = np.full((16, 224, 224, 3), 1, np.uint8)
    out = applied(Augment(erasing=1.0), frames_THWC, 0, size=224).numpy()
    noise_NC = out[:, (out != 1).any((0, 3))].reshape(-1, 3) / 255
    np.testing.assert_allclose(noise_NC.mean(0), [0.485, 0.456, 0.406], atol=0.01)
    # A little less, because noise is cut off at black and white.
    np.testing.assert_allclose(noise_NC.std(0), [0.229, 0.224, 0.225], atol=0.02)


def test_a_device_reads_and_copies_no_number(monkeypatch):
    """Tensors of the device "meta" have no content, so reading one is an error."""
    real = torch.tensor

    def tensor(*values, device=None, **how):
        assert torch.device(device or "cpu").type == "cpu", f"{values} are copied"
        return real(*values, **how)

    monkeypatch.setattr("torch.tensor", tensor)
    x_TCHW = torch.from_numpy(pictures()).permute(0, 3, 1, 2).to("meta")
    for name in OPERATIONS:
        assert operate(name, x_TCHW, ARGUMENTS[name][-1]).shape == x_TCHW.shape
    assert applied(Augment(rand=RAND), pictures(), 3, device="meta").shape == (4, 48, 48, 3)
