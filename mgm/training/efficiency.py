"""Make training steps faster and smaller: compile, recompute blocks, keep freed memory."""

import ctypes
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mgm.spec import RunOptions

Forward = Callable[..., Any]

# The largest number of compiled versions of a block. They differ in width, drop path or tokens.
# This is more than any model here needs. PyTorch's own limit is 8.
MOST_VERSIONS = 64
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h


def block_compiler(
    choice: str, device: torch.device, show: Callable[[str], None]
) -> Callable[[Forward], Forward] | None:
    """Return a function that compiles a block's forward pass, or None not to compile blocks.

    "auto" compiles only on a GPU. All blocks of the same shape share a compiled block, so compiling
    takes seconds. Gradients are ready block by block, so several processes exchange them during the
    backward pass. Results are equal up to rounding, since dropout and drop path draw the same
    numbers.
    """
    if choice == "off" or (choice == "auto" and device.type != "cuda"):
        return None
    # These take seconds, and only compiled blocks need them.
    import torch._dynamo.config
    import torch._inductor.config

    try:
        # A cached result of an earlier process would hide that compiling fails.
        with (
            torch._inductor.config.patch(force_disable_caches=True),
            warnings.catch_warnings(action="ignore"),
        ):
            torch.compile(_trial, dynamic=False)(torch.ones(8, device=device))
    # Examples: no C++ compiler, no Triton, no headers. Each raises another exception.
    except Exception as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        show(
            f"torch.compile fails, so blocks are not compiled ({why}); "
            "install a C++ compiler, or pass --compile off"
        )
        return None
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MOST_VERSIONS)
    return partial(torch.compile, dynamic=False, options={"fallback_random": True})


def _trial(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.gelu(x) + x.sum()


def recomputed(forward: Forward) -> Forward:
    """Keep only a block's input for the backward pass, which computes the rest again.

    This is activation checkpointing (Chen et al., 2016). It takes a third more computing and saves
    most of the memory. Losses and gradients are the same, also with drop path.
    """
    return partial(checkpoint, forward, use_reentrant=False)


@contextmanager
def wrapped_blocks(model: nn.Module, *wraps: Callable[[Forward], Forward]) -> Iterator[None]:
    """Wrap each transformer block's forward method inside the `with` statement.

    The first of `wraps` is the innermost.
    """
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    blocks = [block for blocks in lists for block in blocks]
    try:
        for block, wrap in product(blocks, wraps):
            block.forward = wrap(block.forward)
        yield
    finally:
        for block in blocks:
            # Then the class's own method is used again.
            vars(block).pop("forward", None)


@contextmanager
def faster(
    model: nn.Module,
    device: torch.device,
    options: RunOptions,
    show: Callable[[str], None],
    processes: int = 1,
) -> Iterator[None]:
    """Compile a model and recompute its blocks inside the `with` statement, as the options say.

    One process compiles the whole model, with the loss if its forward pass returns it. Several
    compile block by block, so that they exchange gradients during the backward pass.
    """
    if device.type == "cpu":
        set_malloc_options()
    compiled = block_compiler(options.compile, device, show)
    recompute = [recomputed] if options.recompute else []
    if compiled and processes == 1:
        with compiled_model(model, compiled, recompute, show):
            yield
    else:
        with wrapped_blocks(model, *([compiled] if compiled else []), *recompute):
            yield


@contextmanager
def compiled_model(
    model: nn.Module,
    compiled: Callable[[Forward], Forward],
    recompute: Sequence[Callable[[Forward], Forward]],
    show: Callable[[str], None],
) -> Iterator[None]:
    """Compile the whole forward pass inside the `with` statement.

    If the compiler fails on it, a line says so, and each block is compiled instead.
    """
    own = model.forward
    with ExitStack() as blocks:
        blocks.enter_context(wrapped_blocks(model, *recompute))
        whole: Forward | None = compiled(own)

        def forward(*args: Any) -> Any:
            nonlocal whole
            if whole is None:
                return own(*args)
            try:
                return whole(*args)
            except torch.OutOfMemoryError:
                raise
            # The compiler raises many kinds of error.
            except Exception as error:
                why = (str(error).strip().splitlines() or [type(error).__name__])[0]
                show(f"the whole model does not compile, so its blocks are compiled ({why})")
                whole = None
                blocks.close()
                blocks.enter_context(wrapped_blocks(model, compiled, *recompute))
                return own(*args)

        model.forward = forward
        try:
            yield
        finally:
            # Then the class's own method is used again.
            vars(model).pop("forward", None)


def set_malloc_options() -> None:
    """Make glibc keep the memory that this process frees. Do nothing with another C library.

    By default, glibc returns the memory of large tensors to the system. The system clears it and
    returns it in each step. In a step of 64 small clips, this was 2 GB and a quarter of the time.
    Keeping it increased peak memory by 15 to 28 % in such steps.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
