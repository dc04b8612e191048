import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mgm.masking import Grid, make_mask
from mgm.models import build_classifier, build_frozen_encoder, build_mae
from mgm.models.encoder import Encoder
from mgm.models.vit import gather_tokens
from mgm.spec import MASKS, Clips, Data, Decoder, Finetune, Mask, Model, Pretrain, Probe

GRID = Grid(slots=4, height=3, width=5)
PLACES = GRID.height * GRID.width
MODEL = Model(backbone="timesformer", width=24, depth=2, heads=3, patch=8)
SMALL = {"data": Data(dataset="ssv2"), "clips": Clips(frames=8, size=24), "model": MODEL}
PRETRAIN = Pretrain(**SMALL, decoder=Decoder(width=8, depth=1, heads=2))


@pytest.fixture
def encoder():
    """Return an encoder without weights of 0 or 1, temporal_fc's included.

    It computes in float64, so that tolerances can be small.
    """
    torch.manual_seed(0)
    encoder = Encoder((GRID.slots, GRID.height, GRID.width), MODEL)
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.3)
    return encoder.double()


@pytest.fixture
def patches():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(
        0, 256, (3, GRID.slots * PLACES, 2 * 8 * 8, 3), dtype=torch.uint8, generator=generator
    )


def attend(attention, x_ND):
    """Compute textbook attention among the given tokens, head by head."""
    q, k, v = (x_ND @ part.T for part in attention.qkv.weight.chunk(3))
    q, v = q + attention.q_bias, v + attention.v_bias
    size = x_ND.shape[1] // attention.heads
    heads = []
    for head in range(attention.heads):
        part = slice(head * size, (head + 1) * size)
        heads.append((q[:, part] @ k[:, part].T / size**0.5).softmax(dim=-1) @ v[:, part])
    return attention.proj(torch.cat(heads, dim=-1))


def slow_encoder(encoder, patches_BLPC, masked_BL):
    """Encode clip by clip, block by block, place by place and slot by slot."""
    tokens_BVD = []
    for patches_LPC, masked_L in zip(patches_BLPC, masked_BL):
        visible = [token for token in range(len(masked_L)) if not masked_L[token]]
        x_VD = (encoder.patch_embed(patches_LPC[None])[0] + encoder.pos_embed[0])[visible]
        for block in encoder.blocks:
            for attention, norm, last, group_of in (
                (
                    block.temporal_attn,
                    block.temporal_norm1,
                    block.temporal_fc,
                    lambda token: token % PLACES,
                ),
                (block.attn, block.norm1, nn.Identity(), lambda token: token // PLACES),
            ):
                groups = {}
                for position, token in enumerate(visible):
                    groups.setdefault(group_of(token), []).append(position)
                step_VD = torch.zeros_like(x_VD)
                for positions in groups.values():
                    step_VD[positions] = last(attend(attention, norm(x_VD[positions])))
                x_VD = x_VD + step_VD
            x_VD = x_VD + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x_VD))))
        tokens_BVD.append(encoder.norm(x_VD))
    return torch.stack(tokens_BVD)


def assert_same(fast, slow, encoder):
    """Assert that outputs and gradients agree to 1e-9 of the largest value.

    The gradients are those of a sum that weighs each output differently.
    """
    grads = []
    for output in (fast, slow):
        encoder.zero_grad()
        (
            output * torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view_as(output)
        ).sum().backward()
        grads.append({name: parameter.grad for name, parameter in encoder.named_parameters()})
    for name, (a, b) in {
        "output": (fast, slow),
        **{name: (grads[0][name], grads[1][name]) for name in grads[0]},
    }.items():
        assert (a - b).abs().max().item() <= 1e-9 * b.abs().max().item() + 1e-15, name


def test_nothing_hidden_is_the_same_by_index_and_by_loop(encoder, patches):
    everything = torch.arange(patches.shape[1]).expand(3, -1)
    assert_same(encoder(patches, everything), encoder(patches), encoder)
    assert_same(
        encoder(patches), slow_encoder(encoder, patches, torch.zeros(3, patches.shape[1])), encoder
    )


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("ratio", [0.3, 0.9])
def test_every_mask_is_the_literal_loop(encoder, patches, name, ratio):
    rng = np.random.default_rng(2)
    motion_BSHW = rng.random((3, GRID.slots, 6, 10))
    masked_BL = make_mask(
        Mask(name=name, ratio=ratio),
        GRID,
        motion_BSHW,
        np.arange(3),
        rng.random((*motion_BSHW.shape, 2)) - 0.5,
    )
    masked_BL = torch.from_numpy(masked_BL)
    index_BV = (~masked_BL).nonzero()[:, 1].view(3, -1)
    assert_same(
        encoder(gather_tokens(patches, index_BV), index_BV),
        slow_encoder(encoder, patches, masked_BL),
        encoder,
    )


def test_temporal_fc_starts_at_zero():
    for model in (
        build_mae(PRETRAIN),
        build_classifier(Finetune(**SMALL), classes=5),
        build_frozen_encoder(Probe(**SMALL)),
    ):
        for block in model.encoder.blocks:
            assert not block.temporal_fc.weight.any()
            assert not block.temporal_fc.bias.any()
            assert block.temporal_attn.qkv.weight.std() > 0.01
