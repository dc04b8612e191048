"""A crop of a video's frames, and how frames are cut and scaled. It needs only NumPy and OpenCV."""

from dataclasses import dataclass

import numpy as np

from mgm.errors import UserError


@dataclass(frozen=True)
class Crop:
    """A part of a video's frames, in pixels.

    Args:
        flip: mirror the crop, left to right.
    """

    top: float
    left: float
    height: float
    width: float
    flip: bool = False

    @property
    def edges(self) -> tuple[int, int, int, int]:
        """Return the nearest whole pixels: first row and column, and the row and column after."""
        top, left = round(self.top), round(self.left)
        bottom, right = round(self.top + self.height), round(self.left + self.width)
        return top, left, max(bottom, top + 1), max(right, left + 1)

    def require_in(self, height: int, width: int) -> None:
        """Check that the crop is in a frame. A millionth of a pixel is a rounding error."""
        bottom, right = self.top + self.height, self.left + self.width
        inside = min(self.top, self.left) >= 0 and bottom <= height + 1e-6 and right <= width + 1e-6
        some = inside and min(self.height, self.width) > 0
        # A frame is cut at the nearest whole pixels, which a crop of NaN does not have.
        if not (some and self.edges[0] < height and self.edges[1] < width):
            raise UserError(f"{self} is not in a frame of {height} x {width} pixels")


def cut(frame_HWC: np.ndarray, crop: Crop, size: int) -> np.ndarray:
    """Cut a frame at the nearest whole pixels, scale it to `size` x `size`, and mirror it."""
    top, left, bottom, right = crop.edges
    cut_HWC = resize(frame_HWC[top:bottom, left:right], size, size)
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
