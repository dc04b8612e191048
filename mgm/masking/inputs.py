"""The token grid of clips."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Grid:
    """The token grid of a clip: `slots` in time, each of `height` x `width` patches."""

    slots: int
    height: int
    width: int

    @property
    def patches(self) -> int:
        """Return the number of patches per slot."""
        return self.height * self.width
