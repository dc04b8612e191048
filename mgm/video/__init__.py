"""A file becomes a clip:

decode, motion, sample, transform, loader. The parts that need torch load on first use.
"""

from mgm.video.container import NoVectors, open_video
from mgm.video.decode import Clip, VideoInfo, probe_video, read_clip
from mgm.video.inspection import Inspection, inspect_video
from mgm.video.motion import slot_displacement, slot_magnitude


def __getattr__(name: str):
    if name in ("Batch", "Cache", "Loading", "test_loader", "training_loader", "view_batches"):
        from mgm.video import loader

        return getattr(loader, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
