import math

import pytest
import torch
from torch import nn

from mgm.models.encoder import Encoder
from mgm.models.vit import Attention, Block, TubeletEmbedding, patchify, sinusoid_table
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


def test_embedding_is_the_convolution_of_normalised_pixels():
    torch.manual_seed(0)
    embedding = TubeletEmbedding(width=8, tubelet=2, patch=4)
    frames = torch.randint(0, 256, (2, 4, 8, 8, 3), dtype=torch.uint8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = ((frames / 255 - mean) / std).permute(0, 4, 1, 2, 3)
    slow = embedding.proj(pixels).flatten(2).transpose(1, 2)
    # float32 sums of 96 products in another order: 1e-5 of values near 1
    torch.testing.assert_close(embedding(patchify(frames, 2, 4)), slow, rtol=0, atol=1e-5)


def test_positions_are_sines_and_cosines():
    table = sinusoid_table(5, 6)[0]
    for position in range(5):
        for channel in range(6):
            angle = position / 10000 ** (2 * (channel // 2) / 6)
            wanted = math.sin(angle) if channel % 2 == 0 else math.cos(angle)
            assert table[position, channel].item() == pytest.approx(wanted, abs=1e-6)


def test_attention_is_the_textbook_formula_and_keys_have_no_bias():
    torch.manual_seed(0)
    attention = Attention(width=8, heads=2)
    nn.init.normal_(attention.q_bias)
    nn.init.normal_(attention.v_bias)
    x = torch.randn(3, 5, 8)
    q, k, v = (x @ part.T for part in attention.qkv.weight.chunk(3))
    q, v = q + attention.q_bias, v + attention.v_bias
    heads = []
    for part in (slice(0, 4), slice(4, 8)):
        weights = (q[..., part] @ k[..., part].transpose(1, 2) / 2).softmax(dim=-1)
        heads.append(weights @ v[..., part])
    torch.testing.assert_close(attention(x), attention.proj(torch.cat(heads, dim=-1)), rtol=0, atol=1e-5)


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
