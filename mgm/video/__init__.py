"""Turn video files into batches of clips. Each name is imported on first use.

So an index is read without PyAV, and clips are read without PyTorch.
"""

from importlib import import_module
from typing import Any

_MODULE_OF = {
    "Clip": "clip",
    "Motion": "clip",
    "open_video": "container",
    "probe_video": "decode",
    "read_pictures": "decode",
    "compensated": "motion",
    "slot_displacement": "motion",
    "slot_magnitude": "motion",
    "read_clip": "decode",
    "Track": "track",
    "read_track": "vectors",
    "inspect_video": "vectors",
    "Video": "videos",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
