"""A clip: frames of a video and their motion, whole or under a crop."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from mgm.errors import UserError, require_count, valid
from mgm.spec import Clips
from mgm.video.crop import Crop, cut
from mgm.video.motion import Motion, per_slot
from mgm.video.transform import random_crop, view_crop

# Masks that follow what a clip's vectors do not predict. They are those of codec-clip, by `score`.
RESIDUAL_MASKS = ("codec-residual", "codec-fused")


@dataclass(frozen=True, repr=False)
class Clip:
    """Chosen frames of a video and their motion, as `mgm.read` returns them.

    Args:
        frames_THWC: uint8 RGB.
        motion: their motion, cut as the frames are. None: read without it.
        residual_THW: int16, what motion compensation leaves of their luma, an estimate, cut as the
            frames are. Of intra-coded cells, what differs from the cell's mean. None: not read.
        intra_THW: True for cells of 8 x 8 pixels without a vector.
    """

    frames_THWC: np.ndarray
    motion: Motion | None = None
    residual_THW: np.ndarray | None = None
    intra_THW: np.ndarray | None = None

    def __repr__(self) -> str:
        has_mv = int(self.has_motion_T.sum())
        frames = f"{len(self.frames_THWC)} frames of {self.height} x {self.width} pixels"
        return f"Clip({frames}, {has_mv} with motion)"

    def __getitem__(self, index: Any) -> "Clip":
        """Return the clip of some of the frames; of one, by its number."""
        index = [index] if isinstance(index, int | np.integer) else index
        left = [x if x is None else x[index] for x in (self.residual_THW, self.intra_THW)]
        return Clip(self.frames_THWC[index], self.motion and self.motion[index], *left)

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
        frames_THWC = np.stack([cut(frame, crop, size) for frame in self.frames_THWC])
        if self.motion is None or self.intra_THW is None or self.residual_THW is None:
            return Clip(frames_THWC, motion)
        left_THW = np.stack([cut(left_HW, crop, size) for left_HW in self.residual_THW])
        # Cells are cut as distances are.
        cells = replace(self.motion, distance_THW=self.intra_THW)
        intra_THW = cells.under(crop, size, (self.height, self.width)).at_centres.distance_THW
        return Clip(frames_THWC, motion, left_THW, intra_THW)

    def score(self, name: str, tubelet: int) -> np.ndarray:
        """Return what a mask of `RESIDUAL_MASKS` follows, per slot and cell, (S, H, W) float32.

        It is the mean size of the residual. For codec-fused, it and the speed are divided by the
        95th percentile of their frame, cut off at 1, and averaged.
        """
        import cv2

        if self.residual_THW is None:
            raise UserError(f"mask {name} needs the residual; read the clip by residual=True")
        speed_THW, left_THW = self.known.at_centres.speed_THW, list[np.ndarray]()
        sides = speed_THW.shape[:0:-1]
        for left_HW in np.abs(self.residual_THW).astype(np.float32):
            left_THW.append(cv2.resize(left_HW, sides, interpolation=cv2.INTER_AREA))
        score_THW = np.stack(left_THW)
        if name == "codec-fused":
            score_THW = (_of_largest(score_THW) + _of_largest(speed_THW)) / 2
        return per_slot(score_THW, tubelet)

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


def _of_largest(x_THW: np.ndarray) -> np.ndarray:
    """Return values over their frame's 95th percentile, at most 1."""
    top_T = np.percentile(x_THW, 95, axis=(1, 2), keepdims=True)
    return np.minimum(x_THW / np.maximum(top_T, np.float32(1e-30)), 1)
