"""Each kernel against an obvious slow version."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from mgm.models import kernels
from mgm.models.kernels import linear, scaled_dot_product_attention
from mgm.stages.pretrain import SLOW


def with_gradients(f, inputs, gradient):
    inputs = [x.detach().requires_grad_() for x in inputs]
    out = f(*inputs)
    return [out.detach(), *torch.autograd.grad(out, inputs, gradient.to(out.dtype))]


def error(found, wanted):
    """Return the norm of the error relative to the norm of `wanted`."""
    return ((found.double() - wanted.double()).norm() / wanted.double().norm()).item()


@pytest.fixture(params=[True, False], ids=["onednn", "own"])
def either_kernel(request, monkeypatch):
    """Run a test with and without oneDNN, whichever this CPU would choose."""
    monkeypatch.setattr(kernels, "uses_onednn", lambda: request.param)


@pytest.mark.usefixtures("either_kernel")
@pytest.mark.parametrize("shape", [(2, 70, 256, 320), (2, 7, 24, 96)], ids=["wide", "narrow"])
def test_linear_and_its_gradients_are_the_sums(shape):
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


def test_linear_follows_autocast_and_runs_without_gradients():
    x, weight = torch.randn(3, 256), torch.randn(256, 256)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight).dtype == torch.bfloat16
    with torch.inference_mode():
        torch.testing.assert_close(linear(x, weight), x @ weight.T, rtol=1e-5, atol=1e-4)


def doubled(q, k, v):
    return scaled_dot_product_attention(2 * q, k, v)


@pytest.mark.usefixtures("either_kernel")
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)]
)  # bf16 has 8 bits, scores here reach 8
@pytest.mark.parametrize(("V", "L"), [(17, 29), (256, 260)])  # fewer queries than keys
def test_attention_and_its_gradients_are_the_formula(V, L, dtype, tolerance):
    torch.manual_seed(0)
    B, N, D = 3, 2, 24
    inputs = [torch.randn(B, count, N, D).to(dtype).transpose(1, 2) for count in (V, L, L)]
    gradient = torch.randn(B, N, V, D).to(dtype)
    slow = with_gradients(
        lambda q, k, v: (2 * q @ k.mT / D**0.5).softmax(dim=-1) @ v,
        [x.double() for x in inputs],
        gradient.double(),
    )
    for found, wanted in zip(with_gradients(doubled, inputs, gradient), slow, strict=True):
        assert found.dtype == dtype
        assert error(found, wanted) < tolerance


def test_the_switch_leaves_pytorchs_own_kernels(monkeypatch):
    """PyTorch's kernels are used on a release that lacks the private functions."""
    x, weight = torch.randn(3, 256), torch.randn(256, 256)
    q_BNVD = torch.randn(1, 2, 5, 8, dtype=torch.bfloat16)
    monkeypatch.setattr(kernels, "CPU_KERNELS", False)
    assert torch.equal(linear(x, weight), F.linear(x, weight))
    own = F.scaled_dot_product_attention(q_BNVD, q_BNVD, q_BNVD)
    assert torch.equal(scaled_dot_product_attention(q_BNVD, q_BNVD, q_BNVD), own)


def test_the_kernel_is_a_function_of_the_instructions(monkeypatch):
    """A resumed run thus uses the kernel of the stopped run."""
    for name, onednn in (("AVX512", True), ("AVX2", False), ("DEFAULT", False)):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda name=name: name)
        assert kernels.uses_onednn.__wrapped__() is onednn


@pytest.mark.slow  # each starts a process
@pytest.mark.parametrize("isa", ["AVX2", "AVX512_CORE_BF16"])
def test_bf16_is_slow_where_a_cpu_has_no_units_for_it(isa):
    """bf16 is slow on a core limited to AVX2, and fast on one with bf16 units."""
    if isa != "AVX2" and "avx512_bf16" not in Path("/proc/cpuinfo").read_text():
        return
    told = (
        "import torch; torch.set_num_threads(1); "
        "from mgm.models.kernels import bf16_slowdown; print(bf16_slowdown())"
    )
    done = subprocess.run(
        [sys.executable, "-c", told],
        capture_output=True,
        text=True,
        env=os.environ | {"ONEDNN_MAX_CPU_ISA": isa},
    )
    assert (float(done.stdout) > SLOW) == (isa == "AVX2"), done.stderr
