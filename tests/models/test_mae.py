import pytest
import torch

from mgm.errors import UserError
from mgm.models import (
    build_classifier,
    build_frozen_encoder,
    build_mae,
    load_encoder,
    reconstruct,
    reconstruction_loss,
    save_weights,
)
from mgm.models.encoder import Encoder
from mgm.models.mae import unpatchify
from mgm.models.vit import Block, patchify
from mgm.spec import Clips, Data, Decoder, Finetune, Mask, Model, Pretrain, Probe

SMALL = {
    "data": Data(dataset="ssv2"),
    "clips": Clips(frames=4, size=24),
    "model": Model(width=16, depth=2, heads=2, patch=8),
}
PRETRAIN = Pretrain(**SMALL, decoder=Decoder(width=8, depth=1, heads=2), mask=Mask(ratio=0.75))
L = 2 * 3 * 3
HIDDEN = 2 * int(0.75 * 9)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (3, 4, 24, 24, 3), dtype=torch.uint8, generator=generator)
    masked = torch.zeros(3, L, dtype=torch.bool)
    for clip in range(3):
        masked[clip, torch.randperm(L, generator=generator)[:HIDDEN]] = True
    return frames, masked


def test_prediction_depends_on_visible_pixels_alone(batch):
    frames, masked = batch
    model = build_mae(PRETRAIN)
    before, _ = model.predict(frames, masked)
    hidden_changed, visible_changed = frames.clone(), frames.clone()
    for clip in range(3):
        for token in range(L):
            slot, row, column = token // 9, token % 9 // 3, token % 3
            part = (
                clip,
                slice(2 * slot, 2 * slot + 2),
                slice(8 * row, 8 * row + 8),
                slice(8 * column, 8 * column + 8),
            )
            (hidden_changed if masked[clip, token] else visible_changed)[part] = 7
    assert torch.equal(model.predict(hidden_changed, masked)[0], before)
    assert not torch.allclose(model.predict(visible_changed, masked)[0], before)


def test_a_clip_of_weight_zero_has_no_gradient_and_keeps_its_place(batch):
    frames, masked = batch
    model = build_mae(PRETRAIN)
    predicted, target = model.predict(frames, masked)
    one = (predicted[0] - target[0]).square().mean()
    loss = reconstruction_loss(predicted, target, torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(loss, one / 3)
    frames[1:] = 0
    again, numbers = model(frames, masked, torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(again, loss)
    assert numbers.keys() == {"trivial_loss"}


@pytest.mark.parametrize("more", [-1, 1])
def test_a_mask_that_hides_another_number_of_tokens_is_refused(batch, more):
    frames, masked = batch
    masked[0, (masked[0] if more < 0 else ~masked[0]).nonzero()[0]] = more > 0
    with pytest.raises(UserError, match=rf"hide \[{HIDDEN + more}, {HIDDEN}, {HIDDEN}\] tokens"):
        build_mae(PRETRAIN).predict(frames, masked)


def test_models_are_functions_of_the_seed():
    weights = [
        build_mae(PRETRAIN.model_copy(update={"seed": seed})).state_dict() for seed in (0, 0, 1)
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(
        weights[0]["encoder.blocks.0.mlp.fc1.weight"], weights[2]["encoder.blocks.0.mlp.fc1.weight"]
    )


def test_the_head_starts_near_zero():
    model = build_classifier(Finetune(**SMALL), classes=5)
    assert 0 < model.head.weight.abs().max() < 1e-4


def test_features_are_the_mean_of_normalised_tokens(batch):
    model = build_frozen_encoder(Probe(**SMALL))
    tokens = model.encoder(patchify(batch[0], 2, 8))
    torch.testing.assert_close(model(batch[0]), sum(tokens[:, token] for token in range(L)) / L)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_pretrained_encoder_arrives_whole(tmp_path):
    parent = build_mae(PRETRAIN)
    save_weights(parent, tmp_path / "weights.safetensors")
    classifier = build_classifier(Finetune(**SMALL, seed=1), classes=5)
    features = build_frozen_encoder(Probe(**SMALL, seed=1))
    for model in (classifier, features):
        load_encoder(model, tmp_path / "weights.safetensors")
        own = model.encoder.state_dict()
        assert all(torch.equal(own[name], parent.encoder.state_dict()[name]) for name in own)
    assert (
        "norm.weight" in features.encoder.state_dict()
    )  # a probe keeps the final norm, a classifier drops it
    assert "norm.weight" not in classifier.encoder.state_dict()


@pytest.mark.parametrize("init", ["zero", "xavier"])
def test_a_head_from_zero_predicts_zeros_before_training(init):
    spec = Pretrain(
        data=Data(dataset="ssv2"),
        clips=Clips(frames=4, size=32),
        model=Model(width=16, depth=1, heads=2, patch=8),
        decoder=Decoder(width=8, depth=1, heads=2),
        head_init=init,
    )
    frames_BTHWC = torch.randint(0, 256, (2, 4, 32, 32, 3), dtype=torch.uint8)
    masked_BL = (torch.arange(32) % 16 < spec.hidden).expand(2, -1)
    predicted_BMP, _ = build_mae(spec).predict(frames_BTHWC, masked_BL)
    assert bool((predicted_BMP == 0).all()) == (init == "zero")


def test_patchify_is_the_literal_cut():
    frames = torch.randint(0, 256, (2, 4, 6, 9, 3), dtype=torch.uint8)
    patches = patchify(frames, tubelet=2, patch=3)
    assert patches.shape == (2, 2 * 2 * 3, 18, 3)
    token = 0
    for slot in range(2):
        for row in range(2):
            for column in range(3):
                cut = frames[
                    :, 2 * slot : 2 * slot + 2, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3
                ]
                assert torch.equal(patches[:, token], cut.reshape(2, 18, 3))
                token += 1


def test_drop_path_drops_whole_clips_and_keeps_the_mean():
    torch.manual_seed(0)
    block = Block(width=8, heads=2, drop_path=0.5).train()
    branch = torch.ones(4000, 2, 8)
    kept = block._keep(branch)
    assert set(kept.flatten().tolist()) == {0.0, 2.0}
    assert torch.equal(kept.amax(dim=(1, 2)), kept.amin(dim=(1, 2)))
    assert kept.mean().item() == pytest.approx(1, abs=0.08)  # 5 standard errors of 4,000 coin flips
    assert torch.equal(block.eval()._keep(branch), branch)


def test_deeper_blocks_drop_more():
    encoder = Encoder((2, 2, 2), Model(width=8, depth=3, heads=2, patch=4), drop_path=0.2)
    assert [block.drop_path for block in encoder.blocks] == pytest.approx([0, 0.1, 0.2])


SPEC = Pretrain(
    data=Data(dataset="ssv2"),
    clips=Clips(frames=4, size=24),
    model=Model(width=16, depth=1, heads=2, patch=8),
    decoder=Decoder(width=12, depth=1, heads=2),
    std_floor=0.1,
)
GRID = (2, 3, 3)


@pytest.fixture
def two_clips():
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (2, 4, 24, 24, 3), dtype=torch.uint8, generator=generator)
    masked = torch.zeros(2, L, dtype=torch.bool)
    for clip in range(2):
        masked[clip, torch.randperm(L, generator=generator)[: 2 * SPEC.hidden]] = True
    return frames, masked


def test_unpatchify_undoes_patchify(two_clips):
    assert torch.equal(unpatchify(patchify(two_clips[0], 2, 8), GRID, 2, 8), two_clips[0])


@torch.inference_mode()
def test_each_hidden_patch_has_the_statistics_of_visible_ones(two_clips):
    """Hidden patches equal those of a slow loop, token by token, in double precision.

    The model's predictions are scaled by the mean and deviation of visible patches.
    """
    frames, masked = two_clips
    model = build_mae(SPEC)
    predicted, _ = model.predict(frames, masked)
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
