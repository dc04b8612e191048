"""The linear kernel against an obvious slow version."""

import pytest
import torch

from mgm.models import kernels
from mgm.models.kernels import bf16_slowdown, linear
from mgm.stages.fit import SLOW


def with_gradients(f, inputs, gradient):
    inputs = [x.detach().requires_grad_() for x in inputs]
    out = f(*inputs)
    return [out.detach(), *torch.autograd.grad(out, inputs, gradient.to(out.dtype))]


def error(found, wanted):
    """Return the norm of the error relative to the norm of `wanted`."""
    return ((found.double() - wanted.double()).norm() / wanted.double().norm()).item()


@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize("shape", [(2, 70, 256, 320), (2, 7, 24, 96)], ids=["wide", "narrow"])
def test_linear_and_its_gradients_are_the_sums(shape, onednn, monkeypatch):
    monkeypatch.setattr(kernels, "uses_onednn", lambda: onednn)
    torch.manual_seed(0)
    B, L, K, N = shape
    inputs, gradient = (
        [torch.randn(B, L, K), torch.randn(N, K), torch.randn(N)],
        torch.randn(B, L, N),
    )
    slow = with_gradients(
        lambda x, weight, bias: x @ weight.T + bias, [x.double() for x in inputs], gradient
    )
    for found, wanted in zip(with_gradients(linear, inputs, gradient), slow, strict=True):
        assert found.dtype == torch.float32
        assert error(found, wanted) < 1e-6  # float32 sums of some hundred products


def test_linear_follows_autocast_and_runs_without_gradients(monkeypatch):
    monkeypatch.setattr(kernels, "uses_onednn", lambda: True)
    x, weight = torch.randn(3, 256), torch.randn(256, 256)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight).dtype == torch.bfloat16
    with torch.inference_mode():
        torch.testing.assert_close(linear(x, weight), x @ weight.T, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("cpu", "onednn"),
    [
        ({"cpu_name": "AMD EPYC", "avx512_f": True}, True),
        ({"cpu_name": "AMD EPYC", "avx512_f": False}, False),
        ({"cpu_name": "Intel Xeon", "avx512_f": True}, False),
        ({}, False),
    ],
)
def test_the_kernel_is_a_function_of_the_cpu(cpu, onednn, monkeypatch):
    """A resumed run thus uses the kernel of the stopped run."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: cpu, raising=False)
    assert kernels.uses_onednn.__wrapped__() is onednn


@pytest.mark.slow  # it measures time
def test_bf16_is_slow_where_a_cpu_has_no_units_for_it():
    cpu = torch.cpu.get_capabilities()
    units = cpu.get("avx512_bf16") or cpu.get("amx_bf16") or cpu.get("bf16")
    assert (bf16_slowdown() > SLOW) == (not units)


def test_attention_masks_hide_keys():
    """A hidden key changes nothing."""
    from mgm.models.vit import Attention

    torch.manual_seed(0)
    attention, x_BVD = Attention(16, heads=2), torch.randn(1, 5, 16)
    sees_BVV = torch.ones(1, 5, 5, dtype=torch.bool)
    sees_BVV[:, :, 4] = False
    short = attention(x_BVD[:, :4])
    torch.testing.assert_close(attention(x_BVD, sees_BVV)[:, :4], short)
    assert not torch.allclose(attention(x_BVD)[:, :4], short)
