"""Masks for video masked autoencoders: the paper's (3.2, 3.3), its baselines, and later ones.

    masked_BL = make_mask("mgm", Grid(slots=8, height=14, width=14), magnitude_BSHW, seed_B)

`mgm.spec.masks` lists all masks and their settings, for specs, tables and figures. This package
needs only NumPy and pydantic.
"""

from mgm.masking.boxes import Boxes, Grid
from mgm.masking.cells import largest_motion, summed_motion
from mgm.masking.make import make_boxes, make_mask, mask_clips, require_hiding
