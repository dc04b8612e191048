"""Turn video files into batches of clips. Each name is imported on first use.

So an index is read without PyAV, and clips are read without PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mgm.video.clip import Clip
    from mgm.video.container import NoVectors, open_video
    from mgm.video.decode import probe_video, read_pictures
    from mgm.video.loader import Batch, BatchOptions, test_loader, training_loader, view_batches
    from mgm.video.motion import compensated, slot_displacement, slot_magnitude
    from mgm.video.read import Cache, read_clip
    from mgm.video.vectors import Inspection, Vectors, inspect_video, read_vectors
    from mgm.video.videos import Video

_MODULES = {
    "clip": ("Clip",),
    "container": ("NoVectors", "open_video"),
    "decode": ("probe_video", "read_pictures"),
    "loader": ("Batch", "BatchOptions", "test_loader", "training_loader", "view_batches"),
    "motion": ("compensated", "slot_displacement", "slot_magnitude"),
    "read": ("Cache", "read_clip"),
    "vectors": ("Inspection", "Vectors", "inspect_video", "read_vectors"),
    "videos": ("Video",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
