import pytest
import torch

from mgm.models.encoder import Encoder
from mgm.models.vit import Block, patchify
from mgm.spec import Model


def test_patchify_is_the_literal_cut():
    frames = torch.randint(0, 256, (2, 4, 6, 9, 3), dtype=torch.uint8)
    patches = patchify(frames, tubelet=2, patch=3)
    assert patches.shape == (2, 2 * 2 * 3, 18, 3)
    token = 0
    for slot in range(2):
        for row in range(2):
            for column in range(3):
                cut = frames[:, 2 * slot : 2 * slot + 2, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3]
                assert torch.equal(patches[:, token], cut.reshape(2, 18, 3))
                token += 1


def test_drop_path_drops_whole_clips_and_keeps_the_mean():
    torch.manual_seed(0)
    block = Block(width=8, heads=2, drop_path=0.5).train()
    branch = torch.ones(4000, 2, 8)
    kept = block._keep(branch)
    assert set(kept.flatten().tolist()) == {0.0, 2.0}
    assert torch.equal(kept.amax(dim=(1, 2)), kept.amin(dim=(1, 2)))
    assert kept.mean().item() == pytest.approx(1, abs=0.08)  # 5 standard errors of 4,000 coin flips
    assert torch.equal(block.eval()._keep(branch), branch)


def test_deeper_blocks_drop_more():
    encoder = Encoder((2, 2, 2), Model(width=8, depth=3, heads=2, patch=4), drop_path=0.2)
    assert [block.drop_path for block in encoder.blocks] == pytest.approx([0, 0.1, 0.2])
