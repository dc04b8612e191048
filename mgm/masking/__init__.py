"""Masks for video masked autoencoders: the paper's method (3.2, 3.3), its baselines, later masks.

    masked_BL = make_mask("mgm", Grid(slots=8, height=14, width=14), Motion(magnitude), seeds)

MASKS is the one list of masks, and `Mask` holds all settings of one. Specs, tables and figures read
them without loading torch; the rest of the package loads on first use.

To add a mask, write mgm/masking/NAME.py with a function NAME, and add a line to MASKS. A hyphen in
the name is an underscore in the file's name. The function takes a batch of clips (`MaskInput`). It
returns the hidden patches, (B, S, patches) bool, or `Boxes` whose nearest patches are hidden.
"""

from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from mgm.masking.boxes import Boxes
    from mgm.masking.inputs import Grid, MaskInput, Motion
    from mgm.masking.make import make_boxes, make_mask
    from mgm.masking.others import predicted


class MaskInfo(NamedTuple):
    """Facts about a mask for tables and figures."""

    row: str = ""  # its row in Table 4e; empty: none
    guided: bool = False  # reads motion
    carried: bool = False  # and the motion's direction
    # the paper of the method, if it is not MGM's; its row is our own addition
    # (`mgm.paper.experiments.OTHERS`)
    source: str = ""
    # of the mask's definition: raise it when the same spec makes another mask, so that its runs
    # get other ids
    version: int = 1
    file: str = ""  # module of `mgm.masking` that has its function; empty: one of the mask's name


Edge = Literal["grow", "clamp", "spill"]
EDGES = get_args(Edge)
MASKS = {
    "agnostic": MaskInfo(file="paper"),
    "tube": MaskInfo("Random Tube", file="paper"),
    "block": MaskInfo("Random Block", file="paper"),
    "smm-sparse": MaskInfo("SMM (Sparse)", file="paper"),
    "smm": MaskInfo("SMM (Dense)", file="paper"),
    "mgm-sparse": MaskInfo("MGM (Sparse)", guided=True, file="paper"),
    "mgm": MaskInfo("MGM (Dense)", guided=True, file="paper"),
    "warped": MaskInfo("Warped (MGMAE)", True, True, source="MGMAE", version=2, file="others"),
    "motion-bins": MaskInfo(
        "Motion Bins (TrackMAE)", True, source="TrackMAE", version=2, file="others"
    ),
    "multi-block": MaskInfo("Multi-Block (V-JEPA)", source="V-JEPA", file="others"),
    "green-noise": MaskInfo(
        "Green Noise (Green3D)", source="Structured-Noise Masked Modeling", file="others"
    ),
    "running-cell": MaskInfo("Running Cell (VideoMAE V2)", source="VideoMAE V2", file="others"),
}


def _known(name: Any) -> Any:
    """Refuse a name that is no mask's, and name the nearest one."""
    if isinstance(name, str) and name not in MASKS:
        nearest = get_close_matches(name, MASKS, 1, 0.0)[0]
        raise ValueError(f"no such mask; did you mean {nearest}? The masks are {', '.join(MASKS)}")
    return name


MaskName = Annotated[str, Field(pattern=f"^({'|'.join(MASKS)})$"), BeforeValidator(_known)]
Flow = Literal["raft-small", "dis"]  # RAFT-small from torchvision, DIS from OpenCV
Guidance = Literal["vectors", "shuffled", Flow]
CODEC = ("vectors", "shuffled")  # guidance by the motion vectors that the codec stored
Distance = Literal["estimated", "none"]
Compensate = Literal["none", "median", "affine"]


class Mask(BaseModel):
    """All settings of a mask."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: MaskName = "mgm"
    # share of the patches hidden in every slot (`hidden_patches`); agnostic: in the clip
    ratio: float = Field(0.75, gt=0, lt=1)
    # the part of a box beyond the frame: hidden on the other side (grow), moved inside (clamp), or
    # hidden at random places (spill)
    edge: Edge = "grow"
    # whether mgm's box changes its aspect ratio from slot to slot (eq. 7)
    jitter: bool = True
    # mgm's box follows the motion in slot 0 too, where the paper puts it at random (3.3)
    guided_start: bool = False
    # the codec's motion vectors, or optical flow from sidecars (`mgm.video.optical_flow`); shuffled
    # is a control: the codec's motion vectors of another training video
    guidance: Guidance = "vectors"
    # frames to a vector's reference, which divide it; none: eq. 6 to the letter; flow has none
    distance: Distance = "estimated"
    # the camera's motion, subtracted before the magnitude is taken: none (the paper); the median
    # vector of each frame; or a robust affine fit to each frame's vectors (pan, zoom and rotation)
    compensate: Compensate = "none"
    # what the decoder predicts: all hidden tokens, or half of them (VideoMAE V2)
    predicts: Literal["all", "running-cell"] = "all"
    # of the mask's definition; unless given, the one that this code computes
    version: int = Field(1, ge=1, le=10**9)

    @model_validator(mode="before")
    @classmethod
    def _from_a_bare_name(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _is_what_this_code_makes(self):
        if "version" not in self.model_fields_set:
            self.__dict__["version"] = MASKS[self.name].version
        return self


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
    "Grid": "inputs",
    "MaskInput": "inputs",
    "Motion": "inputs",
    "make_boxes": "make",
    "make_mask": "make",
    "predicted": "others",
}
__all__ = [
    "EDGES",
    "MASKS",
    "Boxes",
    "Compensate",
    "Distance",
    "Edge",
    "Flow",
    "Grid",
    "Guidance",
    "Mask",
    "MaskInfo",
    "MaskInput",
    "Motion",
    "hidden_patches",
    "make_boxes",
    "make_mask",
    "predicted",
]


def __getattr__(name: str):
    """Load the part that needs torch on first use."""
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_FILES[name]}"), name)
