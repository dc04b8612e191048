"""The settings of a mask, and the table of all masks. `mgm.masking` computes them.

To add a mask, write mgm/masking/NAME.py with a function NAME, and add a line to MASKS. A hyphen in
the name is an underscore in the file's name. The function takes the mask's settings, the token grid
and the seeds of a batch; if guided, also the magnitude of motion; if directional, also its
displacement (`mgm.masking.make_mask`). It returns the hidden patches, (B, S, patches) bool, or
`Boxes` whose nearest patches are hidden.
"""

from importlib.metadata import entry_points
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import AfterValidator, Field, model_validator

from mgm.errors import nearest
from mgm.spec.values import FrozenModel


class MaskInfo(NamedTuple):
    """Facts about a mask for tables and figures."""

    row: str = ""  # its row in Table 4e; empty: none
    guided: bool = False  # reads motion
    directional: bool = False  # and the motion's direction
    largest: bool = False  # looks for the largest motion (eq. 6), so it reads `Mask.cells`
    # The method's paper, if it is not the MGM paper. Then the study `masks` lists its row.
    source: str = ""
    # Raise this number when the same spec makes another mask, so that its runs get other ids.
    version: int = 1
    # The module of `mgm.masking` with the mask's function. Empty: the mask's name.
    file: str = ""
    # The function of an installed package, as MODULE:NAME.
    function: str = ""


Edge = Literal["grow", "clamp"]
EDGES = get_args(Edge)
MASKS = {
    "agnostic": MaskInfo(file="paper"),
    "tube": MaskInfo("Random Tube", file="paper"),
    "block": MaskInfo("Random Block", file="paper"),
    "smm-sparse": MaskInfo("SMM (Sparse)", file="paper"),
    "smm": MaskInfo("SMM (Dense)", file="paper"),
    "mgm-sparse": MaskInfo("MGM (Sparse)", guided=True, largest=True, file="paper"),
    "mgm": MaskInfo("MGM (Dense)", guided=True, largest=True, file="paper"),
    "warped": MaskInfo("Warped (MGMAE)", True, True, source="MGMAE", version=2, file="others"),
    "motion-bins": MaskInfo(
        "Motion Bins (TrackMAE)", True, source="TrackMAE", version=2, file="others"
    ),
    "multi-block": MaskInfo("Multi-Block (V-JEPA)", source="V-JEPA", file="others"),
    "green-noise": MaskInfo(
        "Green Noise (Green3D)", source="Structured-Noise Masked Modeling", file="others"
    ),
    "codec-keep": MaskInfo(
        "Codec Keep (OneVision-Encoder)", True, source="OneVision-Encoder", file="others"
    ),
}

# Masks of installed packages, which are not imported here (docs/extend.md).
for _group, _guided in (("mgm.masks", False), ("mgm.masks.guided", True)):
    for _point in entry_points(group=_group):
        MASKS.setdefault(_point.name, MaskInfo(guided=_guided, function=_point.value))


def _known(name: str) -> str:
    if name not in MASKS:
        raise ValueError(f"no such mask; {nearest(name, MASKS)}")
    return name


MaskName = Annotated[str, AfterValidator(_known)]
Flow = Literal["raft-small", "dis"]  # RAFT-small from torchvision, DIS from OpenCV
# What a track holds (`mgm.video.track`): the codec's motion vectors, or optical flow.
Method = Literal["codec", Flow]
Guidance = Literal["vectors", Flow, "shuffled", "difference"]
FLOWS = get_args(Flow)
CODEC = ("vectors", "shuffled")  # guidance by the motion vectors that the codec stored
Distance = Literal["estimated", "none"]
Compensate = Literal["none", "median", "affine"]
Cells = Literal["centre", "max"]


class Mask(FrozenModel):
    """All settings of a mask."""

    name: MaskName = "mgm"
    # The share of patches hidden in every slot (`hidden`). Agnostic: in the clip.
    ratio: float = Field(0.75, gt=0, lt=1)
    # The part of a box outside the frame is hidden on the other side (grow), or the box is moved
    # inside (clamp).
    edge: Edge = "grow"
    # Whether mgm's box changes its aspect ratio from slot to slot (eq. 7).
    jitter: bool = True
    # The codec's motion vectors, or optical flow (`mgm.video.optical_flow`). Shuffled is a control:
    # the codec's motion vectors of another training video. Difference is a control without a
    # codec: how much the clip's pixels change from frame to frame.
    guidance: Guidance = "vectors"
    # Whether a vector is divided by the frames to its reference. None is eq. 6 as printed. Optical
    # flow is never divided.
    distance: Distance = "estimated"
    # How the camera's motion is subtracted before the magnitude is computed: not (the paper), as
    # the median vector of each frame, or as an affine fit to each frame's vectors (pan, zoom and
    # rotation), which holds while objects cover less than 25 % of the frame.
    compensate: Compensate = "none"
    # The motion of a cell of 8 x 8 pixels of the clip: that of the video's cell at its centre, or
    # the largest of the video's cells that it covers. Max is eq. 6 to the letter: a crop of a large
    # frame has more cells than the clip. Masks without `MaskInfo.largest` always have "centre".
    cells: Cells = "centre"
    # The version of the mask's definition. Default: the one that this code computes.
    version: int = Field(1, ge=1, le=10**9)

    @model_validator(mode="before")
    @classmethod
    def _from_a_bare_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _is_what_this_code_makes(self):
        if "version" not in self.model_fields_set:
            self.__dict__["version"] = MASKS[self.name].version
        if not MASKS[self.name].largest:
            self.__dict__["cells"] = "centre"
        return self

    def hidden(self, patches: int) -> int:
        """Return K, how many patches of a slot are hidden. For `agnostic`, it is the average.

        Masks round the number of hidden patches down, as VideoMAE does. MGMAE's code rounds the
        number of visible patches down, here to at least one. At 0.9 it shows 19 of 196 patches, and
        VideoMAE shows 20.
        """
        if self.name == "warped":
            return patches - max(1, int(patches * (1 - self.ratio)))
        return int(self.ratio * patches)
