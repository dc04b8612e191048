import math

import pytest

from mgm.models import build_classifier, build_mae
from mgm.spec import Finetune, FinetuneOptim, Optim, Pretrain
from mgm.training.optim import build_optimiser, learning_rate, parameter_groups
from tests.helpers.small_runs import SMALL


def test_schedule_is_linear_then_half_a_cosine():
    optim = Optim(lr=1e-3, min_lr=1e-5, batch=512, epochs=100, warmup_epochs=10)
    rates = [learning_rate(step, 1000, optim) for step in range(1000)]
    assert rates[0] == 0
    assert rates[50] == pytest.approx(1e-3)  # half of the peak, 1e-3 * 512 / 256
    assert max(rates) == rates[100] == pytest.approx(2e-3)
    assert rates[550] == pytest.approx((2e-3 + 2e-5) / 2)
    for step in range(100, 1000):
        progress = (step - 100) / 900
        assert rates[step] == pytest.approx(
            2e-5 + (2e-3 - 2e-5) * 0.5 * (1 + math.cos(math.pi * progress))
        )


def test_every_parameter_is_in_one_group_and_one_dimensional_ones_do_not_decay():
    model = build_mae(Pretrain(**SMALL))
    groups = parameter_groups(model, weight_decay=0.05)
    decay = {
        id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]
    }
    assert (
        len(decay) == sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    )
    for name, parameter in model.named_parameters():
        assert decay[id(parameter)] == (
            0.0 if parameter.ndim == 1 or name == "mask_token" else 0.05
        ), name
    assert {group["lr_scale"] for group in groups} == {1.0}


def test_adamw_has_the_settings_of_its_spec():
    model = build_classifier(Finetune(**SMALL), classes=3)
    optim = FinetuneOptim(betas=(0.8, 0.95), weight_decay=0.3)
    groups = build_optimiser(model, optim, layer_decay=0.5).param_groups
    assert {group["betas"] for group in groups} == {(0.8, 0.95)}
    assert {group["weight_decay"] for group in groups} == {0.0, 0.3}
    assert {group["lr_scale"] for group in groups} == {0.125, 0.25, 0.5, 1.0}


def test_layer_decay_grows_towards_the_input():
    model = build_classifier(Finetune(**SMALL), classes=3)
    scale = {
        id(p): group["lr_scale"]
        for group in parameter_groups(model, 0.05, layer_decay=0.5)
        for p in group["params"]
    }
    wanted = {
        "encoder.patch_embed": 0.5**3,
        "encoder.blocks.0": 0.5**2,
        "encoder.blocks.1": 0.5,
        "fc_norm": 1.0,
        "head": 1.0,
    }
    for name, parameter in model.named_parameters():
        assert scale[id(parameter)] == next(
            value for prefix, value in wanted.items() if name.startswith(prefix)
        ), name
