"""Motion-Guided Masking (Fan et al., ICCV 2023) and its baselines for video masked autoencoders.

`mgm.load`, `mgm.masks`, `mgm.read` and `mgm.track` are the short way in (`mgm.api`).

Shape suffixes, used after an underscore everywhere (`frames_THWC`, `masked_BL`):

    B batch      T frames     S slots (tubelets in time)    H W pixels, or cells of a motion map
    C channels   L tokens     V visible tokens              M masked tokens       D width
"""

from importlib import import_module
from typing import TYPE_CHECKING

from mgm.version import __version__

if TYPE_CHECKING:
    from mgm.api import load, masks, read, track

__all__ = ["__version__", "load", "masks", "read", "track"]


def __getattr__(name: str):
    """Import the interface on first use, so that `mgm --help` is fast."""
    if name in __all__:
        return getattr(import_module("mgm.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
