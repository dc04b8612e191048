import pytest
import torch
from torch.nn import functional as F

from mgm.stages.probe import PENALTIES, _choose_penalty, fit


@pytest.fixture
def blobs():
    generator = torch.Generator().manual_seed(0)
    label_N = torch.arange(60) % 3
    x_ND = torch.randn(60, 5, generator=generator, dtype=torch.float64) + 1.5 * F.one_hot(
        label_N, 5
    )
    return 7 * x_ND + 3, label_N  # scale and offset must not matter


def test_fit_is_the_optimum_of_penalised_logistic_regression(blobs):
    x_ND, label_N = blobs
    logits = fit(x_ND, label_N, classes=3, penalty=0.01)
    # its weights, read off the linear function
    normal = (x_ND - x_ND.mean(0)) / (x_ND.var(0, correction=0) + 1e-6).sqrt()
    solution = torch.linalg.lstsq(
        torch.cat([normal, torch.ones(60, 1, dtype=torch.float64)], 1), logits(x_ND)
    ).solution
    weight, bias = solution[:-1].T.clone().requires_grad_(), solution[-1].clone().requires_grad_()
    loss = F.cross_entropy(normal @ weight.T + bias, label_N) + 0.01 * weight.square().sum() / 2
    loss.backward()
    assert (
        weight.grad.abs().max() < 1e-4
    )  # L-BFGS stops at 1e-6 on its own gradient; the solve above adds rounding
    assert bias.grad.abs().max() < 1e-4


def test_fit_does_not_see_the_scale_of_features(blobs):
    x_ND, label_N = blobs
    one = fit(x_ND, label_N, 3, 0.01)(x_ND)
    other = fit(100 * x_ND - 5, label_N, 3, 0.01)(100 * x_ND - 5)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-3)


def test_penalty_is_chosen_by_held_out_videos(blobs):
    x_ND, label_N = blobs
    sample_N = torch.arange(60)
    assert _choose_penalty(x_ND, label_N, sample_N, 3, seed=0) in PENALTIES
    noise = torch.randn(60, 40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    noise[:, 0] += 4 * label_N  # one real feature among noise: a weak penalty overfits
    assert _choose_penalty(noise, label_N, sample_N, 3, seed=0) > PENALTIES[0]
