"""Motion-Guided Masking (Fan et al., ICCV 2023) and its baselines for video masked autoencoders.

The functions of `mgm.api` are the short way in. They return `mgm.Clip`, `mgm.Motion` and
`mgm.Track`. `mgm.Crop` is a crop, and `mgm.rng.clip_seed` draws the seeds of clips.

Shape suffixes, used after an underscore everywhere (`frames_THWC`, `masked_BL`):

    B batch      T frames     S slots (tubelets in time)    H W pixels, or cells of a motion map
    C channels   L tokens     V visible tokens              M masked tokens       D width
"""

from mgm.version import __version__

# Importing `typing` takes most of the time in which Ctrl-C would end `mgm` with a traceback.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mgm import rng
    from mgm.api import blocks, draw_frames, load, masks, packets, patch_positions, read, track
    from mgm.video.clip import Clip
    from mgm.video.crop import Crop
    from mgm.video.motion import Motion
    from mgm.video.track import Track

_FUNCTIONS = "blocks draw_frames load masks packets patch_positions read track"
_PLACES = dict.fromkeys(_FUNCTIONS.split(), "mgm.api")
_PLACES |= {name: f"mgm.video.{name.lower()}" for name in ("Clip", "Crop", "Motion", "Track")}
__all__ = [
    "Clip",
    "Crop",
    "Motion",
    "Track",
    "__version__",
    "blocks",
    "draw_frames",
    "load",
    "masks",
    "packets",
    "patch_positions",
    "read",
    "rng",
    "track",
]


def __getattr__(name: str) -> "Any":
    """Import the interface on first use, so that `mgm --help` is fast."""
    from importlib import import_module

    if name == "rng":
        return import_module("mgm.rng")
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
