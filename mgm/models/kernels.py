"""Linear layers and attention with faster CPU kernels than PyTorch's choice.

The choice depends only on the CPU's instructions, so a resumed run has the same kernels. GPUs and
compiled blocks keep PyTorch's own kernels.
"""

import time
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# These functions are private, so a release of PyTorch may remove them.
CPU_KERNELS = hasattr(torch.ops.mkldnn, "_linear_pointwise") and hasattr(
    torch, "_softmax_backward_data"
)
WIDE = 256  # channels or tokens. Smaller products are not faster


class Linear(nn.Linear):
    """A linear layer that computes by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute F.linear. Wide float32 products use oneDNN on CPUs where it is faster."""
    wide = x.dtype == torch.float32 and min(weight.shape) >= WIDE
    if wide and _on_cpu(x) and not torch.is_autocast_enabled("cpu") and uses_onednn():
        # For some strides, oneDNN takes thousands of times as long.
        return OneDNNLinear.apply(x.contiguous(), weight, bias)
    return F.linear(x, weight, bias)


def _on_cpu(x: Tensor) -> bool:
    return CPU_KERNELS and x.device.type == "cpu" and not torch.compiler.is_compiling()


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
    """Return whether oneDNN computes wide float32 products: on CPUs with AVX-512.

    On an AMD EPYC with AVX-512, oneDNN's product took half the time of PyTorch's (MKL). With AVX2
    it was 1.1 times as fast, but a whole step took longer, because of copies around the product.
    """
    return "AVX512" in torch.backends.cpu.get_cpu_capability()


@cache
def bf16_slowdown() -> float:
    """Return how many times longer a product takes in bf16 than in float32 on this CPU.

    The result is far above 1 on a CPU without units for bf16.
    """
    x, weight = torch.ones(64, 256), torch.ones(256, 256)
    halves = x.bfloat16(), weight.bfloat16()
    single, half = _fastest(lambda: linear(x, weight), lambda: F.linear(*halves))
    return half / single


@torch.inference_mode()
def _fastest(*works: Callable[[], object], turns: int = 8) -> list[float]:
    """Return the shortest time of each work in seconds, of several turns after one to warm up.

    Other programs on the machine can only add time, so the shortest time is the best estimate.
    """
    seconds = list[list[float]]()
    for _ in range(turns + 1):
        marks = [time.perf_counter()]
        for work in works:
            work()
            marks.append(time.perf_counter())
        seconds.append([after - before for before, after in pairwise(marks)])
    return [min(of_work) for of_work in zip(*seconds[1:])]


def scaled_dot_product_attention(
    q_BNVD: Tensor, k_BNLD: Tensor, v_BNLD: Tensor, attn_mask_BVL: Tensor | None = None
) -> Tensor:
    """Return softmax(q k' / sqrt(D)) v for N heads.

    `attn_mask_BVL` is True where a query sees a key. None: everywhere.
    """
    if _on_cpu(q_BNVD) and attn_mask_BVL is None:
        wide = min(q_BNVD.shape[2], k_BNLD.shape[2]) >= WIDE
        if q_BNVD.dtype == torch.bfloat16 or (
            q_BNVD.dtype == torch.float32 and wide and uses_onednn()
        ):
            return RecomputedAttention.apply(q_BNVD, k_BNLD, v_BNLD)
    return F.scaled_dot_product_attention(
        q_BNVD, k_BNLD, v_BNLD, attn_mask=None if attn_mask_BVL is None else attn_mask_BVL[:, None]
    )


class RecomputedAttention(torch.autograd.Function):
    """Attention as two matrix products. The backward pass computes the attention weights again.

    In bf16 it is twice as fast as PyTorch's fused kernel, which is no faster in bf16 than in
    float32. In float32, with oneDNN, it is 1.6 times as fast. In bf16, scores are rounded to bf16
    before the softmax, as in Hugging Face's eager attention. The fused kernel keeps them in
    float32.
    """

    @staticmethod
    def forward(ctx, q_BNVD, k_BNLD, v_BNLD):
        q_BNVD = (q_BNVD * q_BNVD.shape[-1] ** -0.5).contiguous()
        k_BNLD, v_BNLD = k_BNLD.contiguous(), v_BNLD.contiguous()
        ctx.save_for_backward(q_BNVD, k_BNLD, v_BNLD)
        out_BNVD = q_BNVD.new_empty(q_BNVD.transpose(1, 2).shape).transpose(1, 2)
        for out, q, k, v in _parts(out_BNVD, q_BNVD, k_BNLD, v_BNLD):
            out.copy_(_matmul(_matmul(q, k.mT).softmax(dim=-1), v))
        return out_BNVD

    @staticmethod
    def backward(ctx, gradient_BNVD):
        gradients = tuple(torch.empty_like(x) for x in ctx.saved_tensors)
        for g, q, k, v, dq, dk, dv in _parts(gradient_BNVD, *ctx.saved_tensors, *gradients):
            weights = _matmul(q, k.mT).softmax(dim=-1)
            dscores = torch._softmax_backward_data(_matmul(g, v.mT), weights, -1, weights.dtype)
            # Transpose the smaller matrix.
            dv.copy_(_matmul(g.mT, weights).mT)
            dk.copy_(_matmul(q.mT, dscores).mT)
            dq.copy_(_matmul(dscores, k)).mul_(q.shape[-1] ** -0.5)
        return gradients


def _parts(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield parts that fit a cache: clips in bf16, heads in float32."""
    return zip(
        *(
            x if x.dtype == torch.bfloat16 else [head for clip in x for head in clip]
            for x in tensors
        )
    )


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    return a @ b if a.dtype == torch.bfloat16 else _product(a.contiguous(), b.mT)
