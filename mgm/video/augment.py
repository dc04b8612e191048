"""Finetuning's augmentation of a clip, by timm: one draw serves all frames.

timm augments images. Applied to a clip as it stands, it would draw anew for every frame, and what
moves would no longer be what moved.
"""

import numpy as np
import torch

from mgm.rng import seeded
from mgm.spec import Augment


class ClipAugmentation:
    """RandAugment on the frames as decoded, and random erasing on the clip cut from them (VideoMAE:
    kinetics.py, `_aug_frame`).

    Both move or change pixels and leave motion vectors alone, so they are for training without
    vectors. timm is imported here, in the
    process that trains, before it starts workers: it takes seconds.
    """

    def __init__(self, augment: Augment):
        from timm.data.auto_augment import rand_augment_transform
        from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
        from timm.data.random_erasing import RandomErasing
        from timm.data.transforms import str_to_pil_interp
        from torchvision.transforms.functional import to_pil_image

        bicubic = {"interpolation": str_to_pil_interp("bicubic")}
        self._rand = rand_augment_transform(augment.rand, bicubic) if augment.rand else None
        self._to_image = to_pil_image
        self._erase = RandomErasing(augment.erasing, device="cpu")
        self._mean, self._std = (
            255 * np.array(values) for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
        )

    def rand(self, frames_THWC: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """RandAugment: the same operations, with the same strengths, on every uint8 frame."""
        if self._rand is None:
            return frames_THWC
        seed = int(rng.integers(2**32))
        images = []
        for frame_HWC in frames_THWC:
            with seeded(
                seed
            ):  # timm draws from global generators: from the same state for every frame
                images.append(
                    np.asarray(self._rand(self._to_image(np.ascontiguousarray(frame_HWC))))
                )
        return np.stack(images)

    def erase(self, frames_THWC: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Random erasing: with the given probability, noise in one box of all frames.

        Noise is drawn per frame, pixel and channel, normal with ImageNet's mean and deviation:
        VideoMAE's "pixel" mode, in whole values.
        """
        with seeded(int(rng.integers(2**32))):
            kept_HW = self._erase(torch.ones(1, *frames_THWC.shape[1:3]))[0].bool().numpy()
        if kept_HW.all():
            return frames_THWC
        erased_THWC = frames_THWC.copy()
        noise = rng.normal(self._mean, self._std, (len(frames_THWC), (~kept_HW).sum(), 3))
        erased_THWC[:, ~kept_HW] = noise.round().clip(0, 255)
        return erased_THWC
