"""A clip: frames of a video and their motion, whole or under a crop."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mgm.errors import require_count, valid
from mgm.spec import Clips
from mgm.video.crop import Crop
from mgm.video.motion import Motion
from mgm.video.transform import random_crop, view_crop


@dataclass(frozen=True, repr=False)
class Clip:
    """Chosen frames of a video and their motion, as `mgm.read` returns them.

    Args:
        frames_THWC: uint8 RGB.
        motion: their motion, cut as the frames are. None: read without it.
    """

    frames_THWC: np.ndarray
    motion: Motion | None = None

    def __repr__(self) -> str:
        has_mv = int(self.has_motion_T.sum())
        frames = f"{len(self.frames_THWC)} frames of {self.height} x {self.width} pixels"
        return f"Clip({frames}, {has_mv} with motion)"

    def __getitem__(self, index: Any) -> "Clip":
        """Return the clip of some of the frames; of one, by its number."""
        index = [index] if isinstance(index, int | np.integer) else index
        return Clip(self.frames_THWC[index], self.motion and self.motion[index])

    @property
    def height(self) -> int:
        """Return the height of the frames in pixels."""
        return self.frames_THWC.shape[1]

    @property
    def width(self) -> int:
        """Return the width of the frames in pixels."""
        return self.frames_THWC.shape[2]

    @property
    def known(self) -> Motion:
        """Return the motion, without motion information if it was not read."""
        return self.motion or Motion.none(*self.frames_THWC.shape[:3])

    @property
    def motion_THW2(self) -> np.ndarray:
        """Return float32 (dx, dy) per cell of 8 x 8 pixels (`Motion.vectors_THW2`)."""
        return self.known.at_centres.vectors_THW2

    @property
    def distance_THW(self) -> np.ndarray:
        """Return the distance to the reference frame in frames, at least 1."""
        return self.known.at_centres.distance_THW

    @property
    def has_motion_T(self) -> np.ndarray:
        """Return True for frames with motion information (`Motion.has_mv_T`)."""
        return self.known.has_mv_T

    def cut(self, crop: Crop, size: int) -> "Clip":
        """Cut the frames, and scale them to `size` x `size` pixels. A clip is cut once.

        The motion is in pixels of the new size, on size // 8 cells per side.

        Raises:
            UserError: the crop is not in the frame, the clip is cut already, or the size is no
                number of pixels.
        """
        require_count("size", size)
        crop.require_in(self.height, self.width)
        motion = self.motion and self.motion.under(crop, size, (self.height, self.width))
        return Clip(np.stack([cut(frame, crop, size) for frame in self.frames_THWC]), motion)

    def cut_to(self, size: int) -> "Clip":
        """Cut the largest square out of the middle, and scale it to `size` x `size` pixels."""
        return self.cut(view_crop(self.height, self.width), size)

    def cut_at_random(
        self,
        size: int,
        seed: int,
        crop: Literal["multiscale", "resized", "centre"] = "multiscale",
        flip: bool = True,
    ) -> "Clip":
        """Cut at a random place, mirrored half of the time, and scale to `size` x `size` pixels.

        Training draws the same crop for a clip of this seed.

        Args:
            seed: of the clip (`mgm.rng.clip_seed`).
            crop: how it is drawn: VideoMAE's in pretraining (multiscale) or in fine-tuning
                (resized), or the middle.
            flip: whether it may be mirrored.
        """
        require_count("size", size)
        with valid("cut_at_random: "):
            clips = Clips(size=max(size, 8), crop=crop, flip=flip)
        return self.cut(random_crop(clips, self.height, self.width, seed), size)


def cut(frame_HWC: np.ndarray, crop: Crop, size: int) -> np.ndarray:
    """Cut a frame at the nearest whole pixels, scale it to `size` x `size`, and mirror it."""
    top, left = round(crop.top), round(crop.left)
    bottom, right = round(crop.top + crop.height), round(crop.left + crop.width)
    part_HWC = frame_HWC[top : max(bottom, top + 1), left : max(right, left + 1)]
    cut_HWC = resize(part_HWC, size, size)
    if not crop.flip:
        return cut_HWC
    # OpenCV takes a tenth of a second to import. NumPy would copy a mirrored view pixel by pixel.
    import cv2

    return cv2.flip(cut_HWC, 1)


def resize(frame_HWC: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scale a uint8 frame to `height` x `width` with OpenCV.

    It is bilinear. It averages over all pixels if a side shrinks by more than 1.5.
    """
    old_height, old_width = frame_HWC.shape[:2]
    if (old_height, old_width) == (height, width):
        return frame_HWC
    import cv2

    shrinks = max(old_height / height, old_width / width) > 1.5
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(frame_HWC, (width, height), interpolation=way)
