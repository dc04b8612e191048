"""Steps on a GPU that is only pretended: PyTorch's fake tensors, which have shapes and no values.

An operation on tensors of two devices, or one that needs a value on the host, raises.
"""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mgm.models import build_classifier, build_mae
from mgm.spec import Finetune
from mgm.training.optim import build_optimiser

GPU = "cuda"


@pytest.mark.parametrize("backbone", ["toy", "timesformer"])
@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_a_step_has_no_tensor_of_another_device(pretraining, finetuning, stage, backbone):
    spec = pretraining if stage == "pretrain" else finetuning
    spec = spec.model_copy(update={"model": spec.model.model_copy(update={"backbone": backbone})})
    tuned = isinstance(spec, Finetune)
    model = (build_classifier(spec, 3) if tuned else build_mae(spec)).train()
    with FakeTensorMode():
        for module in model.modules():
            for name, x in [*module._parameters.items(), *module._buffers.items()]:
                if x is not None:
                    moved = torch.empty(x.shape, dtype=x.dtype, device=GPU)
                    setattr(module, name, nn.Parameter(moved) if x.requires_grad else moved)
        frames_BTHWC = torch.empty(2, 4, 24, 24, 3, dtype=torch.uint8, device=GPU)
        if tuned:
            label_B = torch.empty(2, dtype=torch.int64, device=GPU)
            loss, _ = model(frames_BTHWC, label_B, torch.empty(2, device=GPU))
        else:
            masked_BL = torch.empty(2, 18, dtype=torch.bool, device=GPU)
            motion_BSHW = torch.empty(2, 2, 3, 3, device=GPU)
            loss, _ = model(frames_BTHWC, masked_BL, torch.empty(2, device=GPU), motion_BSHW)
        # Without a GPU, PyTorch has no backward pass on one.
        for x in model.parameters():
            x.grad = torch.empty_like(x)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        build_optimiser(model, spec.optim).step()
        assert loss.device.type == GPU
        with pytest.raises(RuntimeError, match="at least two devices"):
            frames_BTHWC + torch.empty_like(frames_BTHWC, device="cpu")
