"""Mixup and CutMix on clips: labels have the shares that pixels have."""

import numpy as np
import pytest
import torch

from mgm.rng import generator
from mgm.training.mixing import mix

B, T, SIDE = 6, 4, 20
WHOLE = torch.ones(B)
LABELS = torch.arange(B)


def flat_clips():
    """Return clips with the value 40 * b in every pixel of clip b."""
    value_B1111 = 40 * torch.arange(B, dtype=torch.uint8).view(B, 1, 1, 1, 1)
    return value_B1111.repeat(1, T, SIDE, SIDE, 3)


@pytest.mark.parametrize("seed", range(30))
def test_cutmix_replaces_exactly_the_share_that_the_label_says(seed):
    frames, target_BC = mix(flat_clips(), LABELS, WHOLE, B, 0.0, 1.0, generator(seed, "augment"))
    for b in range(B):
        partner = B - 1 - b
        replaced_THW = (frames[b] == 40 * partner).all(-1)
        assert ((frames[b] == 40 * b).all(-1) ^ replaced_THW).all()
        # The same pixels in every frame.
        assert (replaced_THW == replaced_THW[:1]).all()
        share = replaced_THW.sum().item() / (T * SIDE * SIDE)
        # To float32's last place.
        assert target_BC[b, partner].item() == pytest.approx(share, abs=1e-7)
        assert target_BC[b, b].item() == pytest.approx(1 - share, abs=1e-7)
        rows, columns = replaced_THW[0].any(1).sum(), replaced_THW[0].any(0).sum()
        assert rows * columns == replaced_THW[0].sum()  # a box
    assert target_BC.sum(1).allclose(torch.ones(B))


@pytest.mark.parametrize("seed", range(10))
def test_mixup_mixes_every_pixel_as_the_label_says(seed):
    torch.manual_seed(seed)
    frames = torch.randint(0, 256, (B, T, SIDE, SIDE, 3), dtype=torch.uint8)
    mixed, target_BC = mix(frames, LABELS, WHOLE, B, 0.8, 0.0, generator(seed, "augment"))
    for b in range(B):
        partner = B - 1 - b
        expected = target_BC[b, b] * frames[b].double()
        expected += target_BC[b, partner] * frames[partner].double()
        assert (mixed[b].double() - expected).abs().max() <= 0.501
        assert target_BC[b].count_nonzero() <= 2
    assert len(set(target_BC.diagonal().tolist())) == 1  # one ratio per batch
    assert mixed.dtype == torch.uint8


def test_each_of_the_two_has_half_of_the_steps():
    cut = []
    for seed in range(300):
        frames, _ = mix(flat_clips(), LABELS, WHOLE, B, 0.8, 1.0, generator(seed, "augment"))
        plain = torch.isin(frames, flat_clips()).all()
        cut.append(bool(plain and (frames != frames[:, :, :1, :1]).any()))
    assert 0.4 < np.mean(cut) < 0.6


@pytest.mark.parametrize("lost", [[1], [0, 5], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5]])
@pytest.mark.parametrize("seed", range(4))
def test_an_unreadable_clip_is_no_part_of_it(lost, seed):
    """Readable clips are mixed as if the others were not there."""
    weight_B = WHOLE.clone()
    weight_B[lost] = 0
    frames, readable = flat_clips() + 1, weight_B.bool()
    frames[lost] = 0
    mixed, target_BC = mix(frames, LABELS, weight_B, B, 0.8, 1.0, generator(seed, "augment"))
    assert not mixed[lost].any()
    assert torch.equal(target_BC[lost], torch.eye(B)[lost])
    assert not target_BC[readable][:, lost].any()
    alone, alone_BC = mix(
        frames[readable], LABELS[readable], WHOLE[readable], B, 0.8, 1.0, generator(seed, "augment")
    )
    assert torch.equal(mixed[readable], alone)
    assert torch.equal(target_BC[readable], alone_BC)
    assert mixed[readable].flatten(1).all()  # no black clip was mixed in
