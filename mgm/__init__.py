"""Motion-Guided Masking (Fan et al., ICCV 2023) and its baselines for video masked autoencoders.

Shape suffixes, used after an underscore everywhere (`frames_THWC`, `masked_BL`):

    B batch      T frames     S slots (tubelets in time)    H W pixels, or cells of a motion map
    C channels   L tokens     V visible tokens              M masked tokens       D width
"""

__version__ = "0.1.0"
