"""The coverage that a pretraining logs."""

import torch

from mgm.masking import Grid
from mgm.stages.pretrain import motion_coverage


def test_coverage_does_not_depend_on_how_a_batch_is_shared():
    """A mean of ratios of sums over shares would move with the number of processes."""
    generator = torch.Generator().manual_seed(0)
    motion = torch.rand(8, 2, 8, 8, generator=generator) * torch.arange(8)[:, None, None, None]
    masked = torch.rand(8, 32, generator=generator) < 0.5
    whole = motion_coverage(masked, motion, Grid(2, 4, 4))
    for shares in (2, 4):
        parts = [
            motion_coverage(own, moved, Grid(2, 4, 4))
            for own, moved in zip(masked.chunk(shares), motion.chunk(shares), strict=True)
        ]
        torch.testing.assert_close(torch.stack(parts).mean(), whole)
    assert motion_coverage(masked[:1], motion[:1], Grid(2, 4, 4)) == masked[0].float().mean()
