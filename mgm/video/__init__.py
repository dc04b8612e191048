"""Turn video files into batches of clips. The parts that need torch are imported on first use."""

from mgm.video.clip import Clip
from mgm.video.container import NoVectors, open_video
from mgm.video.decode import VideoInfo, probe_video, read_pictures
from mgm.video.motion import compensated, slot_displacement, slot_magnitude
from mgm.video.read import Cache, read_clip
from mgm.video.vectors import Inspection, Vectors, inspect_video, read_vectors


def __getattr__(name: str):
    if name in ("Batch", "BatchOptions", "test_loader", "training_loader", "view_batches"):
        from mgm.video import loader

        return getattr(loader, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
