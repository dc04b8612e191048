"""A crop of a video's frames. This module needs nothing of the package but its error."""

from dataclasses import dataclass

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

    def require_in(self, height: int, width: int) -> None:
        """Check that the crop is in a frame. A millionth of a pixel is a rounding error."""
        bottom, right = self.top + self.height, self.left + self.width
        inside = min(self.top, self.left) >= 0 and bottom <= height + 1e-6 and right <= width + 1e-6
        some = min(self.height, self.width) > 0
        # A frame is cut at the nearest whole pixels.
        if not (inside and some and round(self.top) < height and round(self.left) < width):
            raise UserError(f"{self} is not in a frame of {height} x {width} pixels")

    def scaled(self, own: tuple[int, int], frame: tuple[int, int]) -> "Crop":
        """Return this crop of frames of size `own`, (height, width), in pixels of `frame`."""
        down, across = frame[0] / own[0], frame[1] / own[1]
        top, left, height, width = self.top, self.left, self.height, self.width
        return Crop(top * down, left * across, height * down, width * across, self.flip)
