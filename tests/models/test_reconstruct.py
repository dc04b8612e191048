import pytest
import torch

from mgm.models import build_mae, reconstruct
from mgm.models.reconstruct import unpatchify
from mgm.models.vit import patchify
from mgm.spec import Clips, Data, Decoder, Model, Pretrain

SPEC = Pretrain(
    data=Data(dataset="ssv2"),
    clips=Clips(frames=4, size=24),
    model=Model(width=16, depth=1, heads=2, patch=8),
    decoder=Decoder(width=12, depth=1, heads=2),
    std_floor=0.1,
)
GRID, L = (2, 3, 3), 18


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (2, 4, 24, 24, 3), dtype=torch.uint8, generator=generator)
    masked = torch.zeros(2, L, dtype=torch.bool)
    for clip in range(2):
        masked[clip, torch.randperm(L, generator=generator)[: 2 * SPEC.hidden]] = True
    return frames, masked


def test_unpatchify_undoes_patchify(batch):
    assert torch.equal(unpatchify(patchify(batch[0], 2, 8), GRID, 2, 8), batch[0])


@torch.inference_mode()
def test_each_hidden_patch_has_the_statistics_of_visible_ones(batch):
    """Token by token, in double precision;

    a prediction of the model is undone with the mean and deviation of visible patches.
    """
    frames, masked = batch
    model = build_mae(SPEC)
    predicted, _ = model(frames, masked)
    got = patchify(reconstruct(model, frames, masked), 2, 8)
    patches = patchify(frames, 2, 8)
    for clip in range(2):
        visible, hidden = (
            (~masked[clip]).nonzero().flatten().tolist(),
            masked[clip].nonzero().flatten().tolist(),
        )
        for token in visible:
            assert torch.equal(got[clip, token], patches[clip, token])
        for place, token in enumerate(hidden):
            mean, deviation, total = torch.zeros(3).double(), torch.zeros(3).double(), 0.0
            for other in visible:
                square = sum((a - b) ** 2 for a, b in zip(where(token), where(other)))
                values = patches[clip, other].double() / 255
                mean += values.mean(0) / square**2
                deviation += values.std(0) / square**2
                total += 1 / square**2
            normal = predicted[clip, place].double().reshape(-1, 3)
            expected = 255 * (normal * (deviation / total + 0.1) + mean / total).clamp(0, 1)
            torch.testing.assert_close(
                got[clip, token].double(), expected, rtol=0, atol=0.51
            )  # rounded to whole values


def where(token):
    return token // 9, token % 9 // 3, token % 3


@torch.inference_mode()
def test_nothing_of_a_hidden_patch_leaks(batch):
    frames, masked = batch
    model = build_mae(SPEC)
    hidden = unpatchify(masked[:, :, None, None].expand(2, L, 2 * 8 * 8, 3), GRID, 2, 8)
    before = reconstruct(model, frames, masked)
    assert torch.equal(
        reconstruct(model, torch.where(hidden, 255 - frames, frames), masked), before
    )
    assert torch.equal(reconstruct(model, torch.where(hidden, 7, frames), masked), before)
    assert not torch.equal(
        reconstruct(model, torch.where(hidden, frames, 255 - frames), masked)[hidden],
        before[hidden],
    )
