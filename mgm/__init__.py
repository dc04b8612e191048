"""Motion-Guided Masking (Fan et al., ICCV 2023) and its baselines for video masked autoencoders.

`mgm.load`, `mgm.masks`, `mgm.read` and `mgm.track` are the short way in (`mgm.api`). `mgm.Crop` is
a crop, and `mgm.rng.clip_seed` draws the seeds of clips.

Shape suffixes, used after an underscore everywhere (`frames_THWC`, `masked_BL`):

    B batch      T frames     S slots (tubelets in time)    H W pixels, or cells of a motion map
    C channels   L tokens     V visible tokens              M masked tokens       D width
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mgm.version import __version__

if TYPE_CHECKING:
    from mgm import rng
    from mgm.api import load, masks, read, track
    from mgm.video.clip import Crop

_PLACES = dict.fromkeys(("load", "masks", "read", "track"), "mgm.api") | {"Crop": "mgm.video.clip"}
__all__ = ["Crop", "__version__", "load", "masks", "read", "rng", "track"]


def __getattr__(name: str) -> Any:
    """Import the interface on first use, so that `mgm --help` is fast."""
    if name == "rng":
        return import_module("mgm.rng")
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
