"""Linear layers by oneDNN on the CPUs where it is faster, and the speed of bf16.

The choice depends only on the CPU and on PyTorch's version, so a resumed run has the same kernels.
"""

from collections.abc import Mapping
from functools import cache
from timeit import repeat
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDE = 256  # channels. Smaller products are not faster


class Linear(nn.Linear):
    """A linear layer that computes by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute F.linear. Wide float32 products use oneDNN on CPUs where it is faster."""
    wide = x.dtype == torch.float32 and min(weight.shape) >= WIDE and x.device.type == "cpu"
    plain = torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu")
    if wide and not plain and uses_onednn():
        # For some strides, oneDNN takes thousands of times as long.
        return OneDNNLinear.apply(x.contiguous(), weight, bias)
    return F.linear(x, weight, bias)


class OneDNNLinear(torch.autograd.Function):
    """A linear layer with oneDNN's products, without copies to oneDNN's own tensors."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        gradient = gradient.contiguous()
        rows = gradient.flatten(0, -2)
        return (
            _product(gradient, weight.t()) if of_x else None,
            _product(rows.t(), x.flatten(0, -2).t()) if of_weight else None,
            rows.sum(0) if of_bias else None,
        )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


@cache
def uses_onednn() -> bool:
    """Return whether oneDNN computes wide float32 products: on AMD CPUs with AVX-512.

    There its product takes half the time of PyTorch's (MKL). On Intel's AVX-512 a step of ViT-B
    took 1.3 times as long with it, and with AVX2 1.05 to 1.1 times.
    """
    # Older versions of PyTorch do not describe the CPU. A newer one may lack the private product.
    cpu: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    amd = str(cpu.get("cpu_name")).startswith("AMD")
    return amd and bool(cpu.get("avx512_f")) and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@cache
@torch.inference_mode()
def bf16_slowdown() -> float:
    """Return how many times longer a product takes in bf16 than in float32 on this CPU.

    The result is far above 1 on a CPU without units for bf16.
    """
    x, weight = torch.ones(64, 256), torch.ones(256, 256)
    halves = x.bfloat16(), weight.bfloat16()
    # Other programs can only add time, so the shortest time of several is the best estimate.
    single = min(repeat(lambda: linear(x, weight), number=1, repeat=9))
    return min(repeat(lambda: F.linear(*halves), number=1, repeat=9)) / single
