import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mgm.data.index import Video
from mgm.errors import UserError
from mgm.spec import Model, Probe
from mgm.stages import probe_kinds
from mgm.stages.features import LabelledClips, Split
from mgm.stages.probe import units
from mgm.stages.probe_kinds import (
    KINDS,
    PENALTIES,
    choose_penalty,
    fit,
    fit_path,
    held_out,
)
from tests.helpers.small_runs import SMALL


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
    # Find the weights of the fitted linear function.
    normal = (x_ND - x_ND.mean(0)) / (x_ND.var(0, correction=0) + 1e-6).sqrt()
    solution = torch.linalg.lstsq(
        torch.cat([normal, torch.ones(60, 1, dtype=torch.float64)], 1), logits(x_ND)
    ).solution
    weight, bias = solution[:-1].T.clone().requires_grad_(), solution[-1].clone().requires_grad_()
    loss = F.cross_entropy(normal @ weight.T + bias, label_N) + 0.01 * weight.square().sum() / 2
    loss.backward()
    # L-BFGS stops when its own gradient is 1e-6; `lstsq` above adds rounding.
    assert weight.grad.abs().max() < 1e-4
    assert bias.grad.abs().max() < 1e-4


def test_a_path_of_penalties_has_the_fits_of_each_alone():
    """The fits of a path of penalties have converged.

    With more features than videos and a weak penalty, unconverged fits would differ by whole
    logits.
    """
    generator = torch.Generator().manual_seed(0)
    label_N = torch.arange(60) % 3
    x_ND = torch.randn(60, 90, generator=generator, dtype=torch.float64)
    x_ND = (
        x_ND
        * torch.logspace(0, -3, 90, dtype=torch.float64)
        @ torch.randn(90, 90, generator=generator, dtype=torch.float64)
    )
    path = fit_path(x_ND, label_N, 3, PENALTIES)
    for penalty in PENALTIES:
        alone = fit(x_ND, label_N, 3, penalty)
        torch.testing.assert_close(path[penalty](x_ND), alone(x_ND), rtol=0, atol=0.05)


def test_fit_does_not_see_the_scale_of_features(blobs):
    x_ND, label_N = blobs
    one = fit(x_ND, label_N, 3, 0.01)(x_ND)
    other = fit(100 * x_ND - 5, label_N, 3, 0.01)(100 * x_ND - 5)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-3)


def test_penalty_is_chosen_by_held_out_videos(blobs):
    x_ND, label_N = blobs
    sample_N = torch.arange(60)
    assert choose_penalty(x_ND, label_N, sample_N, 3, seed=0) in PENALTIES
    noise = torch.randn(60, 40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    noise[:, 0] += 4 * label_N  # one real feature among noise: a weak penalty overfits
    assert choose_penalty(noise, label_N, sample_N, 3, seed=0) > PENALTIES[0]


def clips(count, seed, classes=3, tokens=6, width=16):
    """Return clips whose classes differ in the direction of one token, at any place."""
    generator = torch.Generator().manual_seed(seed)
    label_N = torch.arange(count) % classes
    x_NLD = torch.randn(count, tokens, width, generator=generator)
    place_N = torch.randint(tokens, (count,), generator=generator)
    x_NLD[torch.arange(count), place_N] += 4 * F.one_hot(label_N, width)
    return Split(x_NLD.mean(1), torch.arange(count)), label_N


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_finds_the_classes_and_repeats_itself(kind):
    (train, label_N), (test, wanted_N) = clips(120, 0), clips(60, 1)
    spec = Probe(**SMALL | {"model": Model(width=16, heads=2, depth=1, patch=8)}, kind=kind)
    training = LabelledClips(train.x_ND, label_N, torch.arange(120))
    logits_NC, chosen = KINDS[kind](training, test, 3, spec)
    assert logits_NC.shape == (60, 3)
    assert (logits_NC.argmax(1) == wanted_N).float().mean() > 0.45  # chance is 0.33
    again_NC, same = KINDS[kind](training, test, 3, spec)
    assert torch.equal(logits_NC, again_NC)
    assert chosen == same


def test_nearest_are_those_of_the_whole_product(monkeypatch):
    monkeypatch.setattr(probe_kinds, "SIMILARITIES", 7 * 150)
    generator = torch.Generator().manual_seed(0)
    query_ND, x_MD = (torch.randn(count, 9, generator=generator) for count in (20, 150))
    similarity_NK, place_NK = probe_kinds.nearest(query_ND, x_MD, 5)
    wanted = (F.normalize(query_ND) @ F.normalize(x_MD).T).topk(5)
    assert torch.equal(place_NK, wanted.indices)
    torch.testing.assert_close(similarity_NK, wanted.values)


def test_votes_are_dinos_weighted_vote():
    x_ND = torch.eye(3)[torch.tensor([0, 0, 1, 2])] + 0.1
    test = Split(torch.tensor([[1.0, 0.5, 0.0]]), torch.zeros(1, dtype=torch.long))
    label_N = torch.tensor([0, 1, 1, 2])
    training = LabelledClips(x_ND, label_N, torch.arange(4))
    logits_NC, _ = KINDS["knn"](training, test, 3, Probe(**SMALL, kind="knn", neighbours=3))
    similarity_N = F.cosine_similarity(test.x_ND, x_ND)
    votes = np.bincount(label_N[:3], (similarity_N[:3] / 0.07).exp().numpy(), minlength=3)
    np.testing.assert_allclose(logits_NC.softmax(1)[0], votes / votes.sum(), rtol=1e-4)


def test_more_neighbours_than_clips_are_refused():
    (train, label_N), (test, _) = clips(12, 0), clips(6, 1)
    training = LabelledClips(train.x_ND, label_N, torch.arange(12))
    with pytest.raises(UserError) as error:
        KINDS["knn"](training, test, 3, Probe(**SMALL, kind="knn", neighbours=13))
    assert "neighbours is 13, but there are 12 training clips" in str(error.value)


def test_groups_are_held_out_whole():
    group_N = torch.arange(120) // 8  # 15 groups
    held_N = held_out(group_N, seed=0)
    assert set(group_N[held_N].tolist()).isdisjoint(group_N[~held_N].tolist())
    assert held_N.sum() == 3 * 8
    with pytest.raises(UserError, match="2 videos .* 3 .*held_out"):
        held_out((group_N > 7).long(), seed=0)


def test_units_are_numbered_by_their_first_video():
    videos = [
        Video(path, 0, "train", group, 16, 25.0, 32, 32, "h264", True, 1)
        for path, group in (("a", "g2"), ("b", "g1"), ("c", "g2"), ("d", "d"))
    ]
    assert units(videos, "groups").tolist() == [0, 1, 0, 2]
    assert units(videos, "videos").tolist() == [0, 1, 2, 3]
