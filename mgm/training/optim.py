"""Optimisers by name, their parameter groups, and the schedule of the learning rate."""

import inspect
import math
import re
from importlib.metadata import entry_points
from typing import Any, cast

import torch
from torch import nn
from torch.optim.adamw import adamw

from mgm.errors import UserError
from mgm.spec import Optim
from mgm.training import collectives

# Packages register their optimisers in this group, as "module:Class".
ENTRY_POINTS = "mgm.optimisers"


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019) by PyTorch's fused kernel.

    It calls the same function as torch.optim.AdamW(fused=True), so results are bit-equal. That
    class imports torch._dynamo on first use, which was half of the time until a process's first
    step.

    Args:
        groups: each has `params` on one device, their `weight_decay` and `lr`.
    """

    def __init__(self, groups: list[dict[str, Any]], betas: tuple[float, float], eps: float = 1e-8):
        self.param_groups, self.betas, self.eps = groups, betas, eps
        self.moments = [
            {
                "first": [torch.zeros_like(parameter) for parameter in group["params"]],
                "second": [torch.zeros_like(parameter) for parameter in group["params"]],
                "steps": [
                    torch.zeros((), device=parameter.device) for parameter in group["params"]
                ],
            }
            for group in groups
        ]

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters that have a gradient."""
        for group, moments in zip(self.param_groups, self.moments, strict=True):
            columns = zip(
                group["params"], moments["first"], moments["second"], moments["steps"], strict=True
            )
            moved = [
                (parameter, parameter.grad, *own)
                for parameter, *own in columns
                if parameter.grad is not None
            ]
            if not moved:
                continue
            parameters, gradients, first, second, steps = map(list, zip(*moved))
            adamw(
                parameters,
                gradients,
                first,
                second,
                [],
                steps,
                fused=True,
                lr=group["lr"],
                beta1=self.betas[0],
                beta2=self.betas[1],
                weight_decay=group["weight_decay"],
                eps=self.eps,
                amsgrad=False,
                maximize=False,
            )

    def tensors(self) -> list[torch.Tensor]:
        """Return all tensors of the state."""
        return [
            tensor for moments in self.moments for tensors in moments.values() for tensor in tensors
        ]

    def state_dict(self) -> list[dict[str, list[torch.Tensor]]]:
        """Return the state of each group."""
        return self.moments

    @torch.no_grad()
    def load_state_dict(self, state: list[dict[str, list[torch.Tensor]]]) -> None:
        """Overwrite the state."""
        for own, saved in zip(self.moments, state, strict=True):
            for name, tensors in own.items():
                torch._foreach_copy_(
                    tensors, [tensor.to(tensors[0].device) for tensor in saved[name]]
                )


def parameter_groups(model: nn.Module, weight_decay: float, layer_decay: float = 1.0) -> list[dict]:
    """Return parameter groups by weight decay and depth.

    One-dimensional parameters and the mask token have no weight decay (VideoMAE: optim_factory.py).
    `layer_decay` ** (depth + 1 - layer) scales the learning rate. The embedding is layer 0, block i
    is layer i + 1, and everything after the encoder's blocks is layer depth + 1 (BEiT; the paper's
    Table 6).
    """
    names = "\n".join(dict(model.named_parameters()))
    blocks = map(int, re.findall(r"^encoder\.blocks\.(\d+)\.", names, re.M))
    depth = 1 + max(blocks, default=0)
    groups: dict[tuple[bool, int], dict] = {}
    for name, parameter in model.named_parameters():
        decays = parameter.ndim > 1 and name != "mask_token"
        block = re.match(r"encoder\.blocks\.(\d+)\.", name)
        if block:
            layer = int(block[1]) + 1
        else:
            layer = 0 if name.startswith("encoder.patch_embed.") else depth + 1
        group = groups.setdefault(
            (decays, layer),
            {
                "params": [],
                "weight_decay": weight_decay if decays else 0.0,
                "lr_scale": layer_decay ** (depth + 1 - layer),
            },
        )
        group["params"].append(parameter)
    return list(groups.values())


Optimiser = AdamW | torch.optim.Optimizer


def build_optimiser(model: nn.Module, optim: Optim, layer_decay: float = 1.0) -> Optimiser:
    """Return the optimiser that `optim` names, for the model's parameter groups.

    "AdamW" is the class above. Other names are classes of torch.optim. "module:Class" is a class
    that an installed package registers as an entry point. Every class is called with `lr` and
    `optim.options`, and with `betas` if it has them.

    Raises:
        UserError: there is no such class, it does not accept the options, or its `step` needs more
            than dense gradients.
    """
    groups = parameter_groups(model, optim.weight_decay, layer_decay)
    optimiser: Optimiser
    if optim.name == "AdamW" and not optim.options:
        optimiser = AdamW(groups, optim.betas)
    else:
        kind = _find_class(optim.name)
        known = {*inspect.signature(kind).parameters, *optim.options}
        arguments = {"lr": optim.lr, "betas": optim.betas, **optim.options}
        arguments = {name: x for name, x in arguments.items() if name in known}
        trial = nn.Parameter(torch.zeros(2, 2))
        trial.grad = torch.zeros(2, 2)
        try:
            kind([trial], **arguments).step()
            optimiser = cast(torch.optim.Optimizer, kind(groups, **arguments))
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"optim.name {optim.name}: {error}; change optim.options, or choose another"
            ) from None
    set_learning_rate(optimiser, optim.lr)
    return optimiser


def _find_class(name: str) -> type:
    """Return the class that `optim.name` names.

    A spec may come from a stranger, and importing a module runs its code. So only classes of
    torch.optim and of entry points are found.
    """
    points = {point.value: point for point in entry_points(group=ENTRY_POINTS)}
    kind = points[name].load() if name in points else getattr(torch.optim, name, None)
    if not isinstance(kind, type) or not hasattr(kind, "step"):
        raise UserError(
            f"optim.name {name}: is neither an optimiser of torch.optim, such as SGD, nor an "
            f"installed entry point of the group {ENTRY_POINTS}; correct it, or install yours"
        )
    return kind


def share_state(optimiser: Optimiser) -> None:
    """Copy the state of rank 0's optimiser to every process."""
    if isinstance(optimiser, AdamW):
        collectives.broadcast_(optimiser.tensors())
    elif collectives.world_size() > 1:
        optimiser.load_state_dict(collectives.broadcast_object(optimiser.state_dict()))


def learning_rate(step: int, steps: int, optim: Optim) -> float:
    """Return a step's learning rate: linear warm-up from 0, then a half cosine to the minimum.

    The largest rate and the minimum are scaled by batch / 256 (the paper's Tables 5 and 6; VideoMAE
    scales the minimum too). The warm-up takes the share warmup_epochs / epochs of the steps.

    Args:
        step: from 0.
    """
    scale = optim.batch / 256
    warmup = round(steps * optim.warmup_epochs / optim.epochs)
    if step < warmup:
        return optim.lr * scale * step / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return scale * (
        optim.min_lr + (optim.lr - optim.min_lr) * (1 + math.cos(math.pi * progress)) / 2
    )


def set_learning_rate(optimiser: Optimiser, rate: float) -> None:
    """Set every group's learning rate to `rate` times its scale."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["lr_scale"]
