"""The optimiser, its parameter groups, and the schedule of the learning rate."""

import math
import re
from inspect import unwrap

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from mgm.errors import UserError
from mgm.spec import Optim


def parameter_groups(model: nn.Module, weight_decay: float, layer_decay: float = 1.0) -> list[dict]:
    """Return parameter groups by weight decay and depth, of the weights that are not frozen.

    One-dimensional parameters and the mask token have no weight decay (VideoMAE: optim_factory.py).
    `layer_decay` ** (depth + 1 - layer) scales the learning rate. The embedding is layer 0, block i
    is layer i + 1, and everything after the encoder's blocks is layer depth + 1 (BEiT; the paper's
    Table 6).
    """
    trained = {name: x for name, x in model.named_parameters() if x.requires_grad}
    names = "\n".join(trained)
    blocks = map(int, re.findall(r"^encoder\.blocks\.(\d+)\.", names, re.M))
    depth = 1 + max(blocks, default=0)
    groups: dict[tuple[bool, int], dict] = {}
    for name, parameter in trained.items():
        decays = parameter.ndim > 1 and name != "mask_token"
        block = re.match(r"encoder\.blocks\.(\d+)\.", name)
        if block:
            layer = int(block[1]) + 1
        else:
            layer = 0 if name.startswith("encoder.patch_embed.") else depth + 1
        decay, scale = weight_decay if decays else 0.0, layer_decay ** (depth + 1 - layer)
        new = {"params": [], "weight_decay": decay, "lr_scale": scale}
        groups.setdefault((decays, layer), new)["params"].append(parameter)
    return list(groups.values())


class _AdamW(AdamW):
    """AdamW whose methods do not import torch._dynamo, Triton and SymPy, which takes 2.4 s."""

    add_param_group = unwrap(Optimizer.add_param_group)
    zero_grad = unwrap(Optimizer.zero_grad)
    state_dict = unwrap(Optimizer.state_dict)
    load_state_dict = unwrap(Optimizer.load_state_dict)
    step = torch.no_grad()(unwrap(AdamW.step))


def build_optimiser(model: nn.Module, optim: Optim, layer_decay: float = 1.0) -> AdamW:
    """Return AdamW for the model's parameter groups. Each step sets their learning rates."""
    groups = parameter_groups(model, optim.weight_decay, layer_decay)
    return _AdamW(groups, lr=optim.lr, betas=optim.betas, fused=True)


def steps_of(optim: Optim, videos: int) -> int:
    """Return the number of optimiser steps: `optim.steps`, or epochs of whole batches."""
    if optim.steps:
        return optim.steps
    if videos < optim.batch:
        raise UserError(
            f"optim.batch is {optim.batch}, but there are {videos} training videos; lower it"
        )
    return optim.epochs * (videos // optim.batch)


def learning_rate(step: int, steps: int, optim: Optim) -> float:
    """Return the learning rate of a step, from 0: linear warm-up, then a half cosine.

    The largest rate and the minimum are scaled by batch / 256 (the paper's Tables 5 and 6; VideoMAE
    scales the minimum too). The warm-up takes the share warmup_epochs / epochs of the steps.
    """
    scale = optim.batch / 256
    warmup = round(steps * optim.warmup_epochs / optim.epochs)
    if step < warmup:
        return optim.lr * scale * step / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    falling = (optim.lr - optim.min_lr) * (1 + math.cos(math.pi * progress)) / 2
    return scale * (optim.min_lr + falling)
