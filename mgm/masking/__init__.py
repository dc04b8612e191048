"""Masks for video masked autoencoders: the paper's method (3.2, 3.3), its baselines, and later
papers' masks, each in a file of its own.

    masked_BL = make_mask("mgm", Grid(slots=8, height=14, width=14), ratio=0.75, seed_B=seeds,
    motion_BSHW=magnitude)

MASKS is the one list of masks. Specs, tables and figures read it without loading torch; the rest of
the package loads torch on first use. To add a mask, write mgm/masking/NAME.py with a function NAME
from `Clips` to a (B, S, patches) bool tensor, or to `Boxes`, to which the nearest patches are
hidden, and add a line here (a hyphen in the name is an underscore in the file's name).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

if TYPE_CHECKING:
    from mgm.masking.boxes import Boxes
    from mgm.masking.clips import Clips, Grid
    from mgm.masking.make import make_boxes, make_mask
    from mgm.masking.running_cell import predicted


class MaskInfo(NamedTuple):
    """What tables and figures know of a mask."""

    row: str = ""  # its row in Table 4e; empty: none
    guided: bool = False  # needs motion
    carried: bool = False  # and its direction
    # the method it is from, where that is not MGM's paper: its row is of our own
    # (`mgm.paper.tables.OTHERS`)
    source: str = ""
    # of the mask's definition: raise it when the same spec makes another mask, so that its runs
    # get other ids
    version: int = 1


Edge = Literal["grow", "clamp", "spill"]  # what a box does at the edge of the frame
EDGES = get_args(Edge)
MASKS = {
    "agnostic": MaskInfo(),
    "tube": MaskInfo("Random Tube"),
    "block": MaskInfo("Random Block"),
    "smm-sparse": MaskInfo("SMM (Sparse)"),
    "smm": MaskInfo("SMM (Dense)"),
    "mgm-sparse": MaskInfo("MGM (Sparse)", guided=True),
    "mgm": MaskInfo("MGM (Dense)", guided=True),
    "warped": MaskInfo("Warped (MGMAE)", guided=True, carried=True, source="MGMAE", version=2),
    "motion-bins": MaskInfo("Motion Bins (TrackMAE)", guided=True, source="TrackMAE", version=2),
    "multi-block": MaskInfo("Multi-Block (V-JEPA)", source="V-JEPA"),
    "green-noise": MaskInfo("Green Noise (Green3D)", source="Structured-Noise Masked Modeling"),
    "running-cell": MaskInfo("Running Cell (VideoMAE V2)", source="VideoMAE V2"),
}


def hidden_patches(name: str, ratio: float, patches: int) -> int:
    """Return how many of a slot's patches a mask hides; `agnostic` hides as many on average.

    Every mask rounds the hidden ones down, as VideoMAE does. MGMAE's code rounds the visible ones
    down, here to at least one: it shows 19 of 196 patches at 0.9, where VideoMAE's shows 20.
    """
    if name == "warped":
        return patches - max(1, int(patches * (1 - ratio)))
    return int(ratio * patches)


_FILES = {
    "Boxes": "boxes",
    "Clips": "clips",
    "Grid": "clips",
    "make_boxes": "make",
    "make_mask": "make",
    "predicted": "running_cell",
}
__all__ = [
    "EDGES",
    "MASKS",
    "Boxes",
    "Clips",
    "Edge",
    "Grid",
    "MaskInfo",
    "hidden_patches",
    "make_boxes",
    "make_mask",
    "predicted",
]


def __getattr__(name: str):
    """Load what needs torch on first use."""
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_FILES[name]}"), name)
