import pytest
import torch

from mgm.errors import UserError
from mgm.models import build_classifier, build_features, build_mae, load_encoder, reconstruction_loss, save_weights
from mgm.models.vit import patchify
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


def test_a_second_mask_says_what_is_predicted_and_the_decoder_sees_no_more(batch):
    frames, masked = batch
    model = build_mae(PRETRAIN)
    second = masked & (masked.cumsum(1) % 2 == 0)  # every other hidden token
    all_of_them, target = model(frames, masked)
    some, its_target = model(frames, masked, second)
    wanted = second[masked].view(3, HIDDEN)
    assert some.shape == (3, HIDDEN // 2, 2 * 8 * 8 * 3)
    assert torch.equal(its_target, target[wanted].view(its_target.shape))
    assert not torch.allclose(some, all_of_them[wanted].view(some.shape))  # fewer mask tokens are attended to


def test_target_is_each_hidden_patch_normalised_per_channel(batch):
    frames, masked = batch
    _, target = build_mae(PRETRAIN)(frames, masked)
    assert target.shape == (3, HIDDEN, 2 * 8 * 8 * 3)
    patches = patchify(frames, 2, 8).double() / 255
    for clip in range(3):
        for place, token in enumerate(masked[clip].nonzero().flatten().tolist()):
            for channel in range(3):
                values = patches[clip, token, :, channel]
                normal = (values - values.mean()) / (values.var(unbiased=True).sqrt() + 1e-6)
                got = target[clip, place].reshape(-1, 3)[:, channel]
                torch.testing.assert_close(got.double(), normal, rtol=0, atol=1e-5)  # float32 against float64


def test_prediction_depends_on_visible_pixels_alone(batch):
    frames, masked = batch
    model = build_mae(PRETRAIN)
    before, _ = model(frames, masked)
    hidden_changed, visible_changed = frames.clone(), frames.clone()
    for clip in range(3):
        for token in range(L):
            slot, row, column = token // 9, token % 9 // 3, token % 3
            part = (clip, slice(2 * slot, 2 * slot + 2), slice(8 * row, 8 * row + 8), slice(8 * column, 8 * column + 8))
            (hidden_changed if masked[clip, token] else visible_changed)[part] = 7
    assert torch.equal(model(hidden_changed, masked)[0], before)
    assert not torch.allclose(model(visible_changed, masked)[0], before)


def test_decoder_predicts_in_the_order_of_hidden_tokens(batch):
    """Swapping two hidden positions' embeddings swaps their predictions, and only theirs."""
    frames, masked = batch
    model = build_mae(PRETRAIN)
    before, _ = model(frames[:1], masked[:1])
    a, b = masked[0].nonzero().flatten()[[1, 4]].tolist()
    model.pos_embed[0, [a, b]] = model.pos_embed[0, [b, a]]
    after, _ = model(frames[:1], masked[:1])
    order = list(range(HIDDEN))
    order[1], order[4] = 4, 1
    torch.testing.assert_close(after[:, order], before, rtol=0, atol=1e-5)


def test_a_clip_of_weight_zero_has_no_gradient_and_keeps_its_place(batch):
    frames, masked = batch
    model = build_mae(PRETRAIN)
    predicted, target = model(frames, masked)
    one = (predicted[0] - target[0]).square().mean()
    loss = reconstruction_loss(predicted, target, torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(loss, one / 3)
    frames[1:] = 0
    again = reconstruction_loss(*model(frames, masked), torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(again, loss)


def test_it_learns_one_batch(batch):
    frames, masked = batch
    model = build_mae(PRETRAIN)
    frames[:] = 8 * torch.arange(24, dtype=torch.uint8)[:, None, None]  # the same gradient in every patch
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = reconstruction_loss(*model(frames, masked), torch.ones(3))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_models_are_functions_of_the_seed():
    weights = [build_mae(PRETRAIN.model_copy(update={"seed": seed})).state_dict() for seed in (0, 0, 1)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["encoder.blocks.0.mlp.fc1.weight"], weights[2]["encoder.blocks.0.mlp.fc1.weight"])


def test_the_head_starts_near_zero():
    model = build_classifier(Finetune(**SMALL), classes=5)
    assert 0 < model.head.weight.abs().max() < 1e-4


def test_features_are_the_mean_of_normalised_tokens(batch):
    model = build_features(Probe(**SMALL))
    tokens = model.encoder(patchify(batch[0], 2, 8))
    torch.testing.assert_close(model(batch[0]), sum(tokens[:, token] for token in range(L)) / L)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_pretrained_encoder_arrives_whole(tmp_path):
    parent = build_mae(PRETRAIN)
    save_weights(parent, tmp_path / "weights.safetensors")
    classifier = build_classifier(Finetune(**SMALL, seed=1), classes=5)
    features = build_features(Probe(**SMALL, seed=1))
    for model in (classifier, features):
        load_encoder(model, tmp_path / "weights.safetensors")
        own = model.encoder.state_dict()
        assert all(torch.equal(own[name], parent.encoder.state_dict()[name]) for name in own)
    assert "norm.weight" in features.encoder.state_dict()  # a probe keeps the final norm, a classifier drops it
    assert "norm.weight" not in classifier.encoder.state_dict()


def test_weights_of_another_model_are_one_clear_line(tmp_path):
    path = tmp_path / "weights.safetensors"
    model = build_classifier(Finetune(**SMALL), classes=5)
    with pytest.raises(UserError, match=r"weights\.safetensors: no such weights"):
        load_encoder(model, path)
    path.write_bytes(b"not weights")
    with pytest.raises(UserError, match="not a whole safetensors file"):
        load_encoder(model, path)
    other = {**SMALL, "model": Model(width=16, depth=1, heads=2, patch=8)}
    save_weights(build_mae(PRETRAIN.model_copy(update=other)), path)
    with pytest.raises(UserError, match=r"has no encoder\.blocks\.1.*checkpoint of another model"):
        load_encoder(model, path)
    other = {**SMALL, "model": Model(width=16, depth=3, heads=2, patch=8)}
    save_weights(build_mae(PRETRAIN.model_copy(update=other)), path)
    with pytest.raises(UserError, match=r"the model has no encoder\.blocks\.2.*checkpoint of another model"):
        load_encoder(model, path)
    other = {**SMALL, "model": Model(width=32, depth=2, heads=2, patch=8)}
    save_weights(build_mae(PRETRAIN.model_copy(update=other)), path)
    with pytest.raises(UserError, match=r"is \(.*32.*\), the model's is \(.*16.*\)"):
        load_encoder(model, path)
    broken = build_mae(PRETRAIN)
    with torch.no_grad():
        broken.encoder.blocks[0].norm1.weight[0] = float("nan")
    save_weights(broken, path)
    with pytest.raises(UserError, match="not finite"):
        load_encoder(model, path)


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
    predicted_BMP, _ = build_mae(spec)(frames_BTHWC, masked_BL)
    assert bool((predicted_BMP == 0).all()) == (init == "zero")
