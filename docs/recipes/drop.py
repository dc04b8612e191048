"""Drop tokens by motion, for a method without a decoder.

LeVJEPA (Kuhn et al., arXiv:2608.27395) trains one encoder on views of a clip, of which it drops
95 % of the tokens uniformly at random. Here tokens that move stay more often; `FLOOR = 1` is
uniform. They remain spread over the clip, since its authors found that hiding tubes hurts.

A token is a patch of 16 x 16 pixels of one frame. `keep_VK` has the numbers of the tokens that each
view sees, to be gathered behind the embedding of patches, and `position_VK3` their places:

    frames_THWC, keep_VK, position_VK3 = Views(["video.mp4"])[0]
    x_VKD = x_LD[keep_VK]  # of all tokens of the clip, with their positions
"""

from collections.abc import Sequence

import numpy as np
from torch.utils.data import Dataset

import mgm
from mgm.masking import Grid, summed_motion
from mgm.masking.draws import SET, topk_mask, uniform
from mgm.rng import clip_seed
from mgm.spec import Mask

FLOOR = 0.25  # the share of a patch's weight that does not see motion


class Views(Dataset):
    """Clips of 16 frames, every second one, cut to 224 pixels, and the tokens of their views."""

    def __init__(self, videos: Sequence[str], count: int = 2, ratio: float = 0.95):
        self.videos, self.count, self.ratio = videos, count, ratio

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        index_T = mgm.draw_frames(len(mgm.packets(self.videos[n])), stride=2, seed=n)
        clip = mgm.read(self.videos[n], index_T).cut_to(224)
        mask = {"name": f"{__name__}:by_motion", "ratio": self.ratio}
        views = [
            mgm.masks(clip, mask, seed=clip_seed(n, 0, view), tubelet=1)
            for view in range(self.count)
        ]
        keep_VK = np.stack([np.flatnonzero(~masked_THW) for masked_THW in views])
        position_VK3 = np.stack([mgm.patch_positions(masked_THW, index_T) for masked_THW in views])
        return clip.frames_THWC, keep_VK, position_VK3


def by_motion(mask: Mask, grid: Grid, seed_B: np.ndarray, magnitude_BSHW: np.ndarray) -> np.ndarray:
    """Hide all patches of a frame but some, which are drawn by their motion without replacement.

    A patch weighs FLOOR, and the rest by its motion over the frame's mean. The patches with the
    smallest -log(1 - u) / weight stay (Efraimidis and Spirakis, 2006).
    """
    motion_BSN = summed_motion(grid, magnitude_BSHW)
    mean_BS1 = np.maximum(motion_BSN.mean(2, keepdims=True), np.float32(1e-6))
    weight_BSN = FLOOR + (1 - FLOOR) * motion_BSN / mean_BS1
    u_BSN = uniform(seed_B, SET, grid.slots * grid.patches).reshape(motion_BSN.shape)
    kept = grid.patches - mask.hidden(grid.patches)
    return ~topk_mask(-np.log1p(-u_BSN) / weight_BSN, kept)
