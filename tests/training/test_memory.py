"""What is computed again is what was computed."""

import torch
from torch import Tensor, nn

from mgm.models.vit import Block
from mgm.training.memory import recomputed, wrapped_blocks


class Stack(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Block(16, heads=2, drop_path=0.5) for _ in range(4))

    def forward(self, x_BLD: Tensor) -> Tensor:
        for block in self.blocks:
            x_BLD = block(x_BLD)
        return x_BLD.square().mean()


def step(model: nn.Module, x_BLD: Tensor) -> tuple[Tensor, list[Tensor], int]:
    """Loss, gradients, and the bytes that were kept from the forward pass."""
    kept = list[int]()
    model.zero_grad()
    torch.manual_seed(0)  # of drop path
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.nbytes) or x, lambda x: x):
        loss = model(x_BLD)
    loss.backward()
    return loss.detach(), [parameter.grad.clone() for parameter in model.parameters()], sum(kept)


def test_recomputed_activations_give_the_same_gradients_from_less_memory():
    model, x_BLD = Stack(), torch.randn(6, 32, 16)
    loss, gradients, kept = step(model, x_BLD)
    with wrapped_blocks(model, recomputed):
        again, gradients_again, kept_again = step(model, x_BLD)
    assert torch.equal(loss, again)
    assert all(map(torch.equal, gradients, gradients_again))
    assert len({float(gradient.abs().sum()) for gradient in gradients}) > 4
    assert kept_again < kept / 4
    assert step(model, x_BLD)[2] == kept  # as before
