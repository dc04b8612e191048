"""Choose how many parts a micro-batch is computed in, so that a step fits into a GPU's memory."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

# The backward pass needs more than the saved tensors: gradients of activations, products' results.
# PyTorch's MemTracker finds 1.03 to 1.06 times as much, on ViT-S and ViT-B without values. The rest
# is for the workspaces of kernels.
MARGIN = 1.2
USABLE = 0.92  # of the free memory; the allocator's blocks leave gaps
GRADIENT, MOMENTS, HALF = 4, 8, 2  # bytes per weight: gradient, AdamW's state, copy in bf16


def saved_bytes(loss: Callable[[], Tensor], parameters: Iterable[Tensor]) -> int:
    """Return the bytes of all tensors that a loss keeps for its backward pass.

    A storage counts once, however many tensors share it. Weights do not count.
    """
    known = {parameter.untyped_storage()._cdata for parameter in parameters}
    kept = dict[int, Tensor]()  # the tensors stay alive, so that no storage is counted twice

    def keep(x: Tensor) -> Tensor:
        kept.setdefault(x.untyped_storage()._cdata, x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        value = loss()
    del value
    return sum(x.untyped_storage().nbytes() for name, x in kept.items() if name not in known)


def free_bytes(device: torch.device) -> int | None:
    """Return the memory that tensors may still take on a GPU; None for other devices."""
    if device.type != "cuda":
        return None
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + held


def fewest_parts(clips: int, per_clip: float, fixed: float, free: float) -> int:
    """Return the smallest divisor of `clips` whose parts fit, or `clips` if none does.

    Args:
        per_clip: bytes saved for the backward pass per clip.
        fixed: bytes of gradients and of the optimiser's state.
        free: bytes that are free.
    """
    room = USABLE * free - fixed
    fitting = (
        parts
        for parts in range(1, clips + 1)
        if clips % parts == 0 and MARGIN * per_clip * clips / parts <= room
    )
    return next(fitting, clips)


def parts_that_fit(
    model: nn.Module,
    loss_of: Callable[[int], Tensor],
    clips: int,
    bf16: bool,
    free: int,
    stateless: bool,
) -> tuple[int, float]:
    """Measure the memory of one and of two clips, and choose the parts of a micro-batch.

    Args:
        loss_of: returns the loss of the first clips of the micro-batch, as many as it is given.
        clips: of the micro-batch.
        bf16: whether the loss is computed in bf16, so that weights are copied.
        free: bytes (`free_bytes`).
        stateless: whether the optimiser has no state yet.

    Returns:
        The number of parts, and the bytes that the micro-batch would take in one part.
    """
    parameters = [value for value in model.parameters() if value.requires_grad]
    weights = sum(value.numel() for value in parameters)
    fixed = weights * (GRADIENT + MOMENTS * stateless + HALF * bf16)
    devices = [value.device for value in parameters if value.device.type == "cuda"]
    # Draws of dropout must not move on.
    with torch.random.fork_rng(devices[:1]):
        of_one = saved_bytes(lambda: loss_of(1), model.parameters())
        of_two = saved_bytes(lambda: loss_of(2), model.parameters()) if clips > 1 else 2 * of_one
    per_clip = of_two - of_one
    return fewest_parts(clips, per_clip, fixed, free), fixed + MARGIN * per_clip * clips
