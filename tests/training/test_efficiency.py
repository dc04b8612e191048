"""Compiled blocks, and blocks that recompute their activations, against plain blocks."""

import pytest
import torch

from mgm.models import build_classifier, build_mae
from mgm.spec import Clips, Data, Decoder, Finetune, Model, Pretrain, RunOptions
from mgm.training.efficiency import (
    block_compiler,
    compiled_model,
    faster,
    recomputed,
    wrapped_blocks,
)

SHAPES = {"data": Data(dataset="k400"), "clips": Clips(frames=4, size=32)}
VIT = Model(width=32, depth=2, heads=2, patch=8)


def test_auto_leaves_a_cpu_alone_and_off_leaves_all():
    assert block_compiler("auto", torch.device("cpu"), print) is None
    assert block_compiler("off", torch.device("cpu"), print) is None


def pretraining(model: Model):
    spec = Pretrain(**SHAPES, model=model, decoder=Decoder(width=16, depth=2, heads=2))
    mae = build_mae(spec)
    masked_BL = (
        torch.rand(3, 32, generator=torch.Generator().manual_seed(0)).argsort(dim=1)
        < spec.grid[0] * spec.hidden
    )
    return mae, lambda frames_BTHWC: mae(frames_BTHWC, masked_BL, torch.ones(3))[0]


def finetuning(model: Model):
    classifier = build_classifier(
        Finetune(**SHAPES, model=model, drop_path=0.5, head_dropout=0.5), 5
    )
    return classifier, lambda frames_BTHWC: classifier(
        frames_BTHWC, torch.arange(3), torch.ones(3)
    )[0]


def step(model, loss_of, precision: str) -> tuple[torch.Tensor, torch.Tensor]:
    frames_BTHWC = torch.randint(
        0, 256, (3, 4, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    torch.manual_seed(1)  # for drop path and dropout
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        loss = loss_of(frames_BTHWC)
    loss.backward()
    return loss.detach(), torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


@pytest.mark.slow  # compiling takes a minute of a CPU
@pytest.mark.parametrize(
    ("build", "precision", "of_loss", "of_gradients"),
    [
        (pretraining, "bf16", 5e-3, 0.03),
        (finetuning, "float32", 1e-6, 1e-5),  # bf16 has 8 bits; float32 sums in another order
    ],
)
def test_compiled_blocks_give_the_same_step(build, precision, of_loss, of_gradients):
    said = list[str]()
    compiled = block_compiler("on", torch.device("cpu"), said.append)
    assert compiled, said
    torch._dynamo.reset()
    made, loss_of = build(VIT)
    made.train()
    loss, gradients = step(made, loss_of, precision)
    with wrapped_blocks(made, compiled, *([recomputed] if precision == "bf16" else [])):
        again, gradients_again = step(made, loss_of, precision)
    assert again.item() == pytest.approx(loss.item(), rel=of_loss)
    assert (gradients_again - gradients).norm() < of_gradients * gradients.norm()
    assert torch._dynamo.utils.counters["frames"]["ok"] >= 2
    assert torch.equal(step(made, loss_of, precision)[0], loss)  # the blocks are as before


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("build", [pretraining, finetuning])
def test_recomputed_activations_give_the_same_gradients_from_less_memory(build, precision):
    kept, whole = list[int](), build(VIT)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: kept.append(x.nbytes) or x, lambda x: x
    ):
        loss, gradients = step(*whole, precision)
        of_all = sum(kept)
        with wrapped_blocks(whole[0], recomputed):
            again, gradients_again = step(*whole, precision)
        # In bf16, the first pass leaves casts of the weights.
        assert precision == "bf16" or sum(kept) < 1.5 * of_all
        assert step(*whole, precision)[0] == loss  # the blocks are as before
    assert torch.equal(loss, again)
    assert torch.equal(gradients, gradients_again)


def test_without_a_compiler_a_line_says_so_and_blocks_run_as_they_are(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    # The environment may switch off compiling, as bench/gpu.sh does.
    monkeypatch.setattr("torch._dynamo.config.disable", False)
    said = list[str]()
    assert block_compiler("on", torch.device("cpu"), said.append) is None
    assert ["C++ compiler" in line and "\n" not in line for line in said] == [True]


@pytest.mark.slow  # compiling takes a minute of a CPU
def test_a_compiled_model_and_loss_give_the_same_step():
    made, loss_of = pretraining(VIT)
    loss, gradients = step(made.train(), loss_of, "float32")
    with faster(made, torch.device("cpu"), RunOptions(compile="on"), print):
        again, gradients_again = step(made, loss_of, "float32")
    # float32 sums in another order
    assert again.item() == pytest.approx(loss.item(), rel=1e-5)
    assert (gradients_again - gradients).norm() < 1e-4 * gradients.norm()
    assert torch.equal(step(made, loss_of, "float32")[0], loss)


def test_a_model_that_does_not_compile_as_a_whole_has_compiled_blocks():
    made, loss_of = pretraining(VIT)
    loss, gradients = step(made.train(), loss_of, "float32")
    blocks, said = [], list[str]()

    def compiled(forward):
        def run(*args, **kwargs):
            if getattr(forward, "__self__", None) is made:
                raise RuntimeError("no\nkernel")
            blocks.append(forward)
            return forward(*args, **kwargs)

        return run

    with compiled_model(made, compiled, [], said.append):
        for _ in range(2):
            again, gradients_again = step(made, loss_of, "float32")
    assert (len(said), len(blocks)) == (1, 2 * 4)
    assert torch.equal(again, loss)
    assert torch.equal(gradients_again, gradients)
    assert "forward" not in vars(made)
