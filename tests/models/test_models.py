"""The models against slow loops in plain operations, and what training relies on."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mgm.masking import Grid, make_mask
from mgm.models import (
    attention_map,
    build_classifier,
    build_frozen_encoder,
    build_mae,
    reconstruct,
    reconstruction_loss,
)
from mgm.models.classifier import AttentivePooler
from mgm.models.encoder import Encoder
from mgm.models.mae import unpatchify
from mgm.models.vit import Block, gather_tokens, patchify
from mgm.spec import Clips, Decoder, Finetune, Mask, Model, Pretrain, Probe
from mgm.training.optim import parameter_groups
from tests.helpers.small_runs import SMALL

PRETRAIN = Pretrain(**SMALL, decoder=Decoder(width=12, depth=2, heads=2), std_floor=0.1)
GRID, L = (2, 3, 3), 18


@pytest.fixture
def batch():
    """Return three clips and masks."""
    draw = torch.Generator().manual_seed(0)
    frames_BTHWC = torch.randint(0, 256, (3, 4, 24, 24, 3), dtype=torch.uint8, generator=draw)
    masked_BL = torch.zeros(3, L, dtype=torch.bool)
    for masked_L in masked_BL:
        masked_L[torch.randperm(L, generator=draw)[: 2 * PRETRAIN.hidden]] = True
    return frames_BTHWC, masked_BL


def shaken(model, std=0.3):
    """Return a model far from its initial weights, so that attention is not uniform."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(std * torch.randn_like(parameter))
    return model


def where(token):
    return token // 9, token % 9 // 3, token % 3


def test_prediction_depends_on_visible_pixels_alone(batch):
    frames, masked = batch
    model = build_mae(PRETRAIN)
    before, _ = model.predict(frames, masked)
    patches = patchify(frames, 2, 8)
    assert torch.equal(unpatchify(patches, GRID, 2, 8), frames)
    hidden = unpatchify(torch.where(masked[..., None, None], 7, patches), GRID, 2, 8)
    visible = unpatchify(torch.where(masked[..., None, None], patches, 7), GRID, 2, 8)
    assert torch.equal(model.predict(hidden, masked)[0], before)
    assert not torch.allclose(model.predict(visible, masked)[0], before)


def test_a_clip_of_weight_zero_has_no_gradient_and_keeps_its_place(batch):
    frames, masked = batch
    model = build_mae(PRETRAIN)
    predicted, target = model.predict(frames, masked)
    one = (predicted[0] - target[0]).square().mean()
    weight_B = torch.tensor([1.0, 0.0, 0.0])
    torch.testing.assert_close(reconstruction_loss(predicted, target, weight_B), one / 3)
    frames[1:] = 0
    again, numbers = model(frames, masked, weight_B)
    torch.testing.assert_close(again, one / 3)
    assert numbers.keys() == {"trivial_loss"}


def test_models_are_functions_of_the_seed_and_heads_start_small(batch):
    first, same, other = (
        build_mae(PRETRAIN.model_copy(update={"seed": seed})).state_dict() for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[name], same[name]) for name in first)
    name = "encoder.blocks.0.mlp.fc1.weight"
    assert not torch.equal(first[name], other[name])
    assert 0 < build_classifier(Finetune(**SMALL), 5).head.weight.abs().max() < 1e-4
    zero = build_mae(PRETRAIN.model_copy(update={"head_init": "zero"}))
    assert not zero.predict(*batch)[0].any()


def test_a_masked_autoencoder_begins_with_xaviers_weights():
    block = build_mae(PRETRAIN).encoder.blocks[0]
    # The largest of 768 uniform draws is close to the bound.
    bound = (6 / (16 + 48)) ** 0.5
    assert 0.95 * bound < block.attn.qkv.weight.abs().max() <= bound
    assert not block.mlp.fc1.bias.any()


def test_a_classifier_smooths_drops_and_begins_as_its_spec_says(batch):
    how = {"label_smoothing": 0.2, "drop_path": 0.3, "head_dropout": 0.4, "init_std": 0.005}
    model = build_classifier(Finetune(**SMALL, **how), 3).eval()
    assert [block.drop_path for block in model.encoder.blocks] == pytest.approx([0, 0.3])
    assert model.dropout.p == 0.4
    # 10 % are 5 standard errors of the deviation of 1,024 draws.
    weight = model.encoder.blocks[0].mlp.fc1.weight
    assert weight.std().item() == pytest.approx(0.005, rel=0.1)
    shaken(model)
    label_B = torch.tensor([2, 0, 1])
    loss, _ = model(batch[0], label_B, torch.ones(3))
    target_BC = F.one_hot(label_B, 3) * 0.8 + 0.2 / 3
    wanted = -(target_BC * model(batch[0]).log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(loss, wanted)


def test_features_are_means_of_normalised_tokens(batch):
    mean, grid = (shaken(build_frozen_encoder(Probe(**SMALL, pool=p))) for p in ("mean", "grid"))
    tokens_BLD = mean.encoder(patchify(batch[0], 2, 8))
    torch.testing.assert_close(mean(batch[0]), sum(tokens_BLD.unbind(1)) / L)
    # A grid of 3 x 3 tokens has fewer rows than 4, so each token is kept.
    torch.testing.assert_close(grid(batch[0]), tokens_BLD.flatten(1))
    assert not any(parameter.requires_grad for parameter in mean.parameters())


def test_a_grid_of_features_keeps_place_and_time():
    spec = Probe(**SMALL | {"clips": Clips(frames=4, size=64)}, pool="grid")
    encoder = build_frozen_encoder(spec)
    frames = torch.randint(0, 256, (2, 4, 64, 64, 3), dtype=torch.uint8)
    tokens_BSHWD = encoder.encoder(patchify(frames, 2, 8)).unflatten(1, (2, 8, 8))
    features = encoder(frames).view(2, 2, 4, 4, 16)
    part = tokens_BSHWD[:, 1, 4:6, 2:4].mean((1, 2))
    torch.testing.assert_close(features[:, 1, 2, 1], part)
    # The other pooling subtracts what all slots share.
    change = build_frozen_encoder(spec.model_copy(update={"pool": "change"}))
    both = features.flatten(2)
    torch.testing.assert_close(change(frames).view(both.shape), both - both.mean(1, keepdim=True))


def test_drop_path_drops_whole_clips_more_often_in_deeper_blocks():
    torch.manual_seed(0)
    block, branch = Block(width=8, heads=2, drop_path=0.5).train(), torch.ones(4000, 2, 8)
    kept = block._keep(branch)
    assert set(kept.flatten().tolist()) == {0.0, 2.0}
    assert torch.equal(kept.amax(dim=(1, 2)), kept.amin(dim=(1, 2)))
    # 5 standard errors of 4,000 coin flips
    assert kept.mean().item() == pytest.approx(1, abs=0.08)
    assert torch.equal(block.eval()._keep(branch), branch)
    encoder = Encoder((2, 2, 2), Model(width=8, depth=3, heads=2, patch=4), drop_path=0.2)
    assert [block.drop_path for block in encoder.blocks] == pytest.approx([0, 0.1, 0.2])


@torch.inference_mode()
def test_each_query_sees_what_the_models_own_attention_weighs(batch):
    """With the unit matrix as values, PyTorch's attention returns its weights."""
    encoder, caught = shaken(build_mae(PRETRAIN)).encoder.eval(), []
    attention = encoder.blocks[-1].attn
    attention.register_forward_pre_hook(lambda module, inputs: caught.append(inputs[0]))
    encoder(patchify(batch[0], 2, 8))
    bias = torch.cat((attention.q_bias, torch.zeros(16), attention.v_bias))
    qkv = F.linear(caught[0], attention.qkv.weight, bias).unflatten(-1, (3, 2, 8))
    q, k, _ = qkv.permute(2, 0, 3, 1, 4)
    expected_BLL = F.scaled_dot_product_attention(q, k, torch.eye(L).expand(3, 2, L, L)).mean(1)
    for token in range(L):
        found = attention_map(encoder, batch[0], where(token))
        torch.testing.assert_close(found.flatten(1), expected_BLL[:, token], rtol=0, atol=1e-6)
    assert expected_BLL.std(dim=2).min() > 0.01


@torch.inference_mode()
def test_reconstructed_patches_have_the_statistics_of_visible_ones(batch):
    frames, masked = batch
    model = build_mae(PRETRAIN)
    predicted, _ = model.predict(frames, masked)
    got, patches = patchify(reconstruct(model, frames, masked), 2, 8), patchify(frames, 2, 8)
    assert torch.equal(got[~masked], patches[~masked])
    visible, hidden = ((x[0]).nonzero().flatten().tolist() for x in (~masked, masked))
    for place, token in enumerate(hidden):
        mean, deviation, total = torch.zeros(3).double(), torch.zeros(3).double(), 0.0
        for other in visible:
            square = sum((a - b) ** 2 for a, b in zip(where(token), where(other)))
            values = patches[0, other].double() / 255
            mean += values.mean(0) / square**2
            deviation += values.std(0) / square**2
            total += 1 / square**2
        normal = predicted[0, place].double().reshape(-1, 3)
        expected = 255 * (normal * (deviation / total + 0.1) + mean / total).clamp(0, 1)
        # Rounded to whole values.
        torch.testing.assert_close(got[0, token].double(), expected, rtol=0, atol=0.51)


# --- The attentive classifier ---


def plain_block(weights, x_BLD, heads):
    """V-JEPA's block (a0517b4) in plain operations."""
    at, width = dict(weights), x_BLD.shape[2]

    def normal(x, name):
        return F.layer_norm(x, x.shape[-1:], at[f"{name}.weight"], at[f"{name}.bias"])

    seen_BLD = normal(x_BLD, "norm1")
    q_D = at["q.weight"] @ at["query"][0] + at["q.bias"]
    k_BLD, v_BLD = seen_BLD @ at["k.weight"].T, seen_BLD @ at["v.weight"].T + at["v.bias"]
    per, outs = width // heads, []
    for head in range(heads):
        own = slice(head * per, (head + 1) * per)
        weight_BL = (k_BLD[..., own] @ q_D[own] / per**0.5).softmax(1)
        outs.append((weight_BL[..., None] * v_BLD[..., own]).sum(1))
    x_BD = at["query"] + torch.cat(outs, 1)
    hidden = F.gelu(normal(x_BD, "norm2") @ at["fc1.weight"].T + at["fc1.bias"])
    return x_BD + hidden @ at["fc2.weight"].T + at["fc2.bias"]


def test_the_pooler_is_the_block_that_it_abbreviates():
    torch.manual_seed(0)
    x_BLD, pooler = 3 * torch.randn(3, 7, 12) + 1, AttentivePooler(12, 3)
    for parameter in pooler.parameters():
        nn.init.normal_(parameter, std=0.5)
    wanted = plain_block(pooler.named_parameters(), x_BLD, 3)
    torch.testing.assert_close(pooler(x_BLD), wanted, rtol=1e-4, atol=1e-4)


def test_only_the_attentive_head_trains_and_its_query_decays(batch):
    model = build_classifier(Finetune(**SMALL, head="attentive"), 3)
    groups = parameter_groups(model, 0.01)
    decays = {id(x): group["weight_decay"] for group in groups for x in group["params"]}
    model(batch[0], torch.tensor([0, 1, 2]), torch.ones(3))[0].backward()
    for name, weight in model.named_parameters():
        trained = not name.startswith("encoder.")
        assert (id(weight) in decays) == (weight.grad is not None) == trained
        if trained:
            matrix = name == "pooler.query" or (name.endswith("weight") and "norm" not in name)
            assert (decays[id(weight)] > 0) == matrix


# --- TimeSformer ---

OBLONG = Grid(slots=4, height=3, width=5)
TIMESFORMER = Model(backbone="timesformer", width=24, depth=2, heads=3, patch=8)


def attend(attention, x_ND):
    """Compute textbook attention among the given tokens, head by head."""
    q, k, v = (x_ND @ part.T for part in attention.qkv.weight.chunk(3))
    q, v = q + attention.q_bias, v + attention.v_bias
    size = x_ND.shape[1] // attention.heads
    parts = [slice(head * size, (head + 1) * size) for head in range(attention.heads)]
    heads = [(q[:, p] @ k[:, p].T / size**0.5).softmax(dim=-1) @ v[:, p] for p in parts]
    return attention.proj(torch.cat(heads, dim=-1))


def slow_encoder(encoder, patches_LPC, visible):
    """Encode a clip, block by block, place by place and slot by slot."""
    x_VD = (encoder.patch_embed(patches_LPC[None])[0] + encoder.pos_embed[0])[visible]
    for block in encoder.blocks:
        steps = (
            (block.temporal_attn, block.temporal_norm1, block.temporal_fc, visible % 15),
            (block.attn, block.norm1, nn.Identity(), visible // 15),
        )
        for attention, norm, last, group_V in steps:
            step_VD = torch.zeros_like(x_VD)
            for group in group_V.unique():
                own = group_V == group
                step_VD[own] = last(attend(attention, norm(x_VD[own])))
            x_VD = x_VD + step_VD
        x_VD = x_VD + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x_VD))))
    return encoder.norm(x_VD)


@pytest.mark.parametrize("name", ["agnostic", "tube", "mgm", ""])
def test_divided_attention_is_the_literal_loop(name):
    """Outputs and gradients agree to 1e-9 of the largest value, in float64."""
    torch.manual_seed(0)
    encoder = Encoder((4, 3, 5), TIMESFORMER)
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.3)
    encoder.double()
    patches = torch.randint(0, 256, (3, 60, 128, 3), dtype=torch.uint8)
    masked_BL = np.zeros((3, 60), bool)
    if name:
        motion_BSHW = np.random.default_rng(2).random((3, 4, 6, 10))
        masked_BL = make_mask(Mask(name=name, ratio=0.6), OBLONG, motion_BSHW, np.arange(3))
    index_BV = torch.from_numpy(~masked_BL).nonzero()[:, 1].view(3, -1)
    slow = torch.stack([slow_encoder(encoder, *own) for own in zip(patches, index_BV)])
    outputs = [encoder(gather_tokens(patches, index_BV), index_BV), slow]
    outputs += [] if name else [encoder(patches)]
    grads = []
    for output in outputs:
        weight = torch.linspace(-1, 1, output.numel(), dtype=torch.float64)
        loss = (output * weight.view_as(output)).sum()
        grads.append([output, *torch.autograd.grad(loss, list(encoder.parameters()))])
    for fast in (grads[0], *grads[2:]):
        for a, b in zip(fast, grads[1]):
            assert (a - b).abs().max() <= 1e-9 * b.abs().max() + 1e-15
