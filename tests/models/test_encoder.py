import pytest
import torch
from torch.nn import functional as F

from mgm.models import attention_map, build_mae
from mgm.models.vit import Attention, patchify
from mgm.spec import Clips, Data, Decoder, Model, Pretrain

SPEC = Pretrain(
    data=Data(dataset="ssv2"),
    clips=Clips(frames=4, size=24),
    model=Model(width=16, depth=3, heads=2, patch=8),
    decoder=Decoder(width=12),
)
GRID = (2, 3, 3)


@pytest.fixture
def encoder():
    encoder = build_mae(SPEC).encoder.eval()
    with torch.no_grad():
        # Far from the initial weights, so that attention is not uniform.
        for parameter in encoder.parameters():
            parameter.add_(
                0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
            )
    return encoder


@pytest.fixture
def frames():
    return torch.randint(
        0, 256, (2, 4, 24, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def slow_weights(encoder, frames):
    """Return the last block's attention weights, (B, heads, L, L), from PyTorch's attention.

    With the unit matrix as values, the output is the weights.
    """
    caught = []
    attention = encoder.blocks[-1].attn
    handle = attention.register_forward_pre_hook(lambda module, inputs: caught.append(inputs[0]))
    encoder(patchify(frames, 2, 8))
    handle.remove()
    bias = torch.cat((attention.q_bias, torch.zeros(16), attention.v_bias))
    q, k, _ = (
        F.linear(caught[0], attention.qkv.weight, bias)
        .unflatten(-1, (3, 2, 8))
        .permute(2, 0, 3, 1, 4)
    )
    return F.scaled_dot_product_attention(q, k, torch.eye(18).expand(2, 2, 18, 18))


@torch.inference_mode()
def test_each_query_sees_what_the_models_own_attention_weighs(encoder, frames):
    expected_BLL = slow_weights(encoder, frames).mean(dim=1)
    for token in range(18):
        query = (token // 9, token % 9 // 3, token % 3)
        found = attention_map(encoder, frames, query)
        assert found.shape == (2, *GRID)
        torch.testing.assert_close(
            found.flatten(1), expected_BLL[:, token], rtol=0, atol=1e-6
        )  # float32, weights up to 1
        torch.testing.assert_close(found.sum(dim=(1, 2, 3)), torch.ones(2), rtol=0, atol=1e-6)
    assert expected_BLL.std(dim=2).min() > 0.01  # otherwise uniform weights would pass too


def test_attention_masks_hide_keys():
    """A hidden key changes nothing."""
    torch.manual_seed(0)
    attention, x_BVD = Attention(16, heads=2), torch.randn(1, 5, 16)
    sees_BVV = torch.ones(1, 5, 5, dtype=torch.bool)
    sees_BVV[:, :, 4] = False
    short = attention(x_BVD[:, :4])
    torch.testing.assert_close(attention(x_BVD, sees_BVV)[:, :4], short)
    assert not torch.allclose(attention(x_BVD)[:, :4], short)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-6), ("bf16", 1e-2)])
def test_the_products_of_a_gpu_have_the_values_of_a_cpus(precision, tolerance):
    """A product's sums may be in another order. bf16 has 8 bits, and values are below 2."""
    torch.manual_seed(0)
    attention, x_BVD = Attention(16, 2), torch.randn(2, 5, 16)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        cpu, gpu = attention.two_products(x_BVD), attention.one_product(x_BVD)
    for ours, theirs in zip(cpu, gpu, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
