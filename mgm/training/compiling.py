"""torch.compile for transformer blocks, where it works."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch

from mgm.training.memory import Forward

Compile = Literal["auto", "on", "off"]
# graphs of one block that differ in width, drop path or tokens: more than any model here has;
# PyTorch gives up at 8
BLOCKS = 64


def block_compiler(
    choice: Compile, device: torch.device, show: Callable[[str], None]
) -> Callable[[Forward], Forward] | None:
    """Return what compiles a block's forward pass; None where blocks run as they are: without a
    compiler, and by "auto" on a CPU.

    One block is compiled and serves all of its shape, in seconds; gradients still leave block by
    block, so that several processes exchange them meanwhile. Results are the same to rounding:
    dropout and drop path draw as they do without it.
    """
    if choice == "off" or (choice == "auto" and device.type != "cuda"):
        return None
    import torch._dynamo.config
    import torch._inductor.config

    try:
        with (
            torch._inductor.config.patch(force_disable_caches=True),
            warnings.catch_warnings(action="ignore"),
        ):
            # without caches, or an earlier process's result would hide that nothing compiles
            torch.compile(_trial, dynamic=False)(torch.ones(8, device=device))
    except Exception as error:  # no C++ compiler, no Triton, no headers: each fails in its own way
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        show(
            f"torch.compile does not work here, so blocks run without it ({why}); install a C++ compiler, or pass --compile off"
        )
        return None
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, BLOCKS)
    return partial(torch.compile, dynamic=False, options={"fallback_random": True})


def _trial(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.gelu(x) + x.sum()
