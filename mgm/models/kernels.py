"""Linear layers and attention by the kernel that is fastest where they run: on a CPU not always the one that PyTorch picks.

Measured on one Zen 5 core with torch 2.15, forward and backward; elsewhere PyTorch's own choice stands.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CPU_KERNELS = torch.backends.mkldnn.is_available() and hasattr(torch, "_softmax_backward_data")  # private: a release may drop it
WIDE = 256  # channels from which a float32 product repays its copy into oneDNN's tensors


class Linear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """F.linear; wide ones in float32 on a CPU by oneDNN (190 GFLOP/s) and not by MKL, which uses AVX2 alone on AMD's processors (100)."""
    plain = CPU_KERNELS and x.dtype == torch.float32 and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    if plain and min(weight.shape) >= WIDE:
        return F.linear(x.to_mkldnn(), weight, bias).to_dense()
    return F.linear(x, weight, bias)


def scaled_dot_product_attention(q_BNVD: Tensor, k_BNLD: Tensor, v_BNLD: Tensor, attn_mask_BVL: Tensor | None = None) -> Tensor:
    """softmax(q k' / sqrt(D)) v for N heads. `attn_mask_BVL` says which queries see which keys; default: all."""
    if CPU_KERNELS and attn_mask_BVL is None and q_BNVD.device.type == "cpu" and q_BNVD.dtype == torch.bfloat16:
        return RecomputedAttention.apply(q_BNVD, k_BNLD, v_BNLD)
    return F.scaled_dot_product_attention(q_BNVD, k_BNLD, v_BNLD, attn_mask=None if attn_mask_BVL is None else attn_mask_BVL[:, None])


class RecomputedAttention(torch.autograd.Function):
    """Attention in bf16 as two matrix products a clip, whose weights are computed again in the backward pass and never kept.

    Twice as fast as PyTorch's fused kernel, whose bf16 is no faster than its float32. Scores are rounded to bf16 before the softmax, as
    Hugging Face's eager attention does; the fused kernel keeps them in float32.
    """

    @staticmethod
    def forward(ctx, q_BNVD, k_BNLD, v_BNLD):
        ctx.save_for_backward(q_BNVD, k_BNLD, v_BNLD)
        out_BVND = q_BNVD.new_empty(q_BNVD.transpose(1, 2).shape)
        for out_VND, q_NVD, k_NLD, v_NLD in zip(out_BVND, q_BNVD, k_BNLD, v_BNLD):
            out_VND.copy_((_weights(q_NVD, k_NLD) @ v_NLD).transpose(0, 1))
        return out_BVND.transpose(1, 2)

    @staticmethod
    def backward(ctx, gradient_BNVD):
        gradients = tuple(torch.empty_like(x) for x in ctx.saved_tensors)
        for g_NVD, q_NVD, k_NLD, v_NLD, dq_NVD, dk_NLD, dv_NLD in zip(gradient_BNVD, *ctx.saved_tensors, *gradients):
            weights_NVL = _weights(q_NVD, k_NLD)
            dv_NLD.copy_(weights_NVL.mT @ g_NVD)
            dscores_NVL = torch._softmax_backward_data(g_NVD @ v_NLD.mT, weights_NVL, -1, weights_NVL.dtype)
            dscores_NVL *= q_NVD.shape[-1] ** -0.5
            dq_NVD.copy_(dscores_NVL @ k_NLD)
            dk_NLD.copy_(dscores_NVL.mT @ q_NVD)
        return gradients


def _weights(q_NVD: Tensor, k_NLD: Tensor) -> Tensor:
    return (q_NVD @ k_NLD.mT).mul_(q_NVD.shape[-1] ** -0.5).softmax(dim=-1, dtype=q_NVD.dtype)
