"""Exported weights predict in transformers as in our models, and come back bit-equal."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

import mgm
from mgm.errors import UserError
from mgm.masking import Grid, make_mask
from mgm.models import build_classifier, build_mae, read_weights, reconstruction_loss, save_weights
from mgm.models.vit import patchify
from mgm.reading import file_digest
from mgm.spec import Clips, Data, Decoder, Finetune, Model, Pretrain, Probe
from mgm.stages.export import FILES, export
from mgm.stages.parents import sizes_of
from tests.helpers.videos import moving_square, write_video

SMALL = {
    "data": Data(dataset="ssv2"),
    "clips": Clips(frames=6, size=48),
    "model": Model(width=48, depth=3, heads=3, patch=8),
}
PRETRAIN = Pretrain(**SMALL, decoder=Decoder(width=32, depth=2, heads=4))
FINETUNE = Finetune(**SMALL)
TOLERANCE = 1e-5  # relative to the largest value; float32 sums in another order
# The epsilon of Hugging Face's last norm is 9e-6 above ours. It shrinks values of variance v by
# 4.5e-6 / v, and v is about 1 here.
FIXED_EPSILON = 5e-5


def run_of(spec, folder):
    """Write a run's folder as a job does, and return its model.

    Biases, norms and the head differ from their initial values.
    """
    model = build_mae(spec) if isinstance(spec, Pretrain) else build_classifier(spec, classes=3)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 or name == "head.weight":
                parameter.add_(0.2 * torch.randn_like(parameter))
    folder.mkdir()
    (folder / "spec.json").write_text(spec.model_dump_json())
    save_weights(model, folder / "weights.safetensors")
    return model.eval()


def loaded(kind, folder):
    model, about = kind.from_pretrained(folder, output_loading_info=True)
    assert not any(about.values()), about
    return model.eval()


def clips():
    return torch.randint(
        0, 256, (2, 6, 48, 48, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def processed(folder):
    """Return the clips from Hugging Face's processor, with our settings."""
    processor = transformers.VideoMAEImageProcessor.from_pretrained(folder)
    return processor([list(clip.numpy()) for clip in clips()], return_tensors="pt")["pixel_values"]


def error(ours, theirs):
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@torch.inference_mode()
def test_transformers_predicts_the_hidden_pixels_as_we_do(tmp_path):
    ours = run_of(PRETRAIN, tmp_path / "run")
    told = export(tmp_path / "run", "hf", tmp_path / "hf")
    theirs, frames = loaded(transformers.VideoMAEForPreTraining, tmp_path / "hf"), clips()
    masked_BL = make_mask("tube", Grid(*PRETRAIN.grid), None, np.arange(2))
    masked_BL = torch.from_numpy(masked_BL)
    predicted, target = ours.predict(frames, masked_BL)
    wanted = theirs(processed(tmp_path / "hf"), bool_masked_pos=masked_BL)
    assert error(predicted, wanted.logits) < FIXED_EPSILON
    assert "model.decoder.norm.eps = 1e-6" in told
    theirs.decoder.norm.eps = 1e-6
    wanted = theirs(processed(tmp_path / "hf"), bool_masked_pos=masked_BL)
    assert error(predicted, wanted.logits) < TOLERANCE
    assert error(reconstruction_loss(predicted, target, torch.ones(2)), wanted.loss) < TOLERANCE


@torch.inference_mode()
def test_transformers_classifies_as_we_do(tmp_path):
    ours = run_of(FINETUNE, tmp_path / "run")
    told = export(tmp_path / "run", "hf", tmp_path / "hf")
    theirs = loaded(transformers.VideoMAEForVideoClassification, tmp_path / "hf")
    logits = ours(clips())
    assert error(logits, theirs(processed(tmp_path / "hf")).logits) < FIXED_EPSILON
    assert "model.fc_norm.eps = 1e-6" in told
    theirs.fc_norm.eps = 1e-6
    assert error(logits, theirs(processed(tmp_path / "hf")).logits) < TOLERANCE
    assert theirs.config.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}


@pytest.mark.parametrize("spec", [PRETRAIN, FINETUNE], ids=["pretrain", "finetune"])
def test_what_comes_back_is_bit_equal(tmp_path, spec):
    run_of(spec, tmp_path / "run")
    ours = load_file(tmp_path / "run" / "weights.safetensors")
    kind = (
        transformers.VideoMAEForPreTraining
        if spec is PRETRAIN
        else transformers.VideoMAEForVideoClassification
    )
    for to in ("hf", "videomae"):
        export(tmp_path / "run", to, tmp_path / to)
        back = read_weights(tmp_path / to)
        assert back.keys() == ours.keys()
        assert all(torch.equal(back[name], ours[name]) for name in ours)
    # Convert through transformers, and to the names that it writes.
    loaded(kind, tmp_path / "hf").save_pretrained(tmp_path / "theirs")
    shutil.copy(tmp_path / "hf" / "preprocessor_config.json", tmp_path / "theirs")
    back = read_weights(tmp_path / "theirs")
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[name], ours[name]) for name in ours)


def test_the_videomae_file_is_what_that_code_reads(tmp_path):
    run_of(FINETUNE, tmp_path / "run")
    told = export(tmp_path / "run", "videomae", tmp_path / "out")
    found = torch.load(tmp_path / "out" / "checkpoint.pth", weights_only=True)
    assert found.keys() == {"model", "config"}
    assert found["config"]["mgm"]["run"] == FINETUNE.run_id
    assert {
        "patch_embed.proj.weight",
        "blocks.2.attn.q_bias",
        "fc_norm.weight",
        "head.bias",
    } <= found["model"].keys()
    assert (
        "VisionTransformer(img_size=48, patch_size=8, tubelet_size=2, qkv_bias=True, embed_dim=48, depth=3, num_heads=3"
        in told
    )
    run_of(PRETRAIN, tmp_path / "mae")
    told = export(tmp_path / "mae", "videomae", tmp_path / "out", force=True)
    assert (
        "decoder_num_classes=384, decoder_embed_dim=32, decoder_depth=2, decoder_num_heads=4"
        in told
    )
    assert "positions only for 16 frames. For 6 frames, set tables of 108 positions" in told


def test_classes_have_the_names_that_the_run_records(tmp_path):
    run_of(FINETUNE, tmp_path / "run")
    names = ["up", "down", "aside"]
    (tmp_path / "run" / "result.json").write_text(json.dumps({"data": {"class_names": names}}))
    export(tmp_path / "run", "hf", tmp_path / "hf")
    with pytest.raises(UserError, match=r"model\.safetensors: exists"):
        export(tmp_path / "run", "hf", tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert list(config["id2label"].values()) == names
    assert config["label2id"] == {name: label for label, name in enumerate(names)}
    assert config["mgm"] == {
        "run": FINETUNE.run_id,
        "weights_sha256": file_digest(tmp_path / "run" / "weights.safetensors"),
        "seed": 0,
        "dataset": "SSv2",
        "model": "toy: width is 48, and vit-b has 768",
        "data_digest": "",
        "stride": 4,
    }


def test_what_cannot_be_exported_is_one_clear_line(tmp_path):
    timesformer = SMALL["model"].model_copy(update={"backbone": "timesformer"})
    run_of(PRETRAIN.model_copy(update={"model": timesformer}), tmp_path / "timesformer")
    with pytest.raises(UserError, match="timesformer: .*TimeSformer"):
        export(tmp_path / "timesformer", "hf", tmp_path / "out")
    (tmp_path / "probe").mkdir()
    (tmp_path / "probe" / "spec.json").write_text(Probe(**SMALL).model_dump_json())
    with pytest.raises(UserError, match="probe: .*probe run"):
        export(tmp_path / "probe", "hf", tmp_path / "out")
    with pytest.raises(UserError, match=f"{tmp_path}/none: "):
        export(tmp_path / "none", "hf", tmp_path / "out")
    run_of(FINETUNE, tmp_path / "run")
    (tmp_path / "run" / "spec.json").write_text(PRETRAIN.model_dump_json())
    with pytest.raises(UserError, match=r"weights\.safetensors: has no decoder\.blocks\.0"):
        export(tmp_path / "run", "hf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def folder(tmp_path):
    """Return an exported folder, and the exported model: width 48 with 3 heads."""
    model = run_of(PRETRAIN, tmp_path / "run")
    export(tmp_path / "run", "hf", tmp_path / "hf")
    return tmp_path / "hf", model


def changed(folder, **fields):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))


@torch.inference_mode()
def test_a_folders_heads_and_clips_are_those_of_its_config(folder):
    """Without it, heads have 64 channels: one head at width 48, and other features."""
    place, ours = folder
    found = mgm.load(place)
    assert (found.clips.frames, found.clips.size) == (6, 48)
    tokens = ours.encoder(patchify(clips(), 2, 8))
    torch.testing.assert_close(found.encoder.cpu()(clips()), tokens.mean(1))
    assert mgm.load(place, frames=4).clips.frames == 4
    assert sizes_of(place, "pretrain")["decoder"] == {"width": 32, "depth": 2, "heads": 4}
    (place / "config.json").unlink()
    alone = mgm.load(place, frames=6, size=48)
    assert not torch.allclose(alone.encoder.cpu()(clips()), tokens.mean(1), atol=0.1)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"hidden_act": "relu"}, r"config\.json: hidden_act is relu"),
        ({"patch_size": 16}, r"hf: tokens of 2 x 8 x 8 .* patch_size 16"),
        ({"num_attention_heads": 5}, "width 48 .* heads 5"),
        ({"num_frames": 7}, "frames 7 .*tubelet 2"),
        ({"image_size": "large"}, r"config\.json: image_size"),
    ],
    ids=str,
)
def test_a_config_of_another_model_is_one_line(folder, fields, said):
    changed(folder[0], **fields)
    with pytest.raises(UserError, match=said):
        mgm.load(folder[0])


@pytest.mark.parametrize(
    "fields",
    [
        {"model_type": "VideoMAEv2_Base", "model_config": {"embed_dim": 48, "num_heads": 3}},
        {"model_type": "vivit", "image_size": "large", "hidden_act": "gelu_fast"},
        {"model_type": "videomae", "hidden_size": 768, "num_attention_heads": 12},
        {"architectures": ["Other"]},
    ],
    ids=str,
)
@torch.inference_mode()
def test_a_config_of_another_kind_is_not_read(folder, fields):
    """A folder of VideoMAE V2 has its own kind; a file may lie next to another model's."""
    place, _ = folder
    (place / "config.json").unlink()
    expected = mgm.load(place, frames=6, size=48).encoder.cpu()(clips())
    (place / "config.json").write_text(json.dumps(fields))
    for name in (place, place / "model.safetensors"):
        found = mgm.load(name, frames=6, size=48).encoder.cpu()(clips())
        torch.testing.assert_close(found, expected)


def test_a_name_of_a_hub_is_not_resolved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="MCG-NJU/videomae-base: no such weights; names of a hub"):
        mgm.load("MCG-NJU/videomae-base")


@pytest.mark.parametrize("to", ["hf", "videomae"])
def test_an_export_keeps_the_clips_and_so_the_features(tmp_path, to):
    spec = PRETRAIN.model_copy(update={"clips": Clips(frames=6, size=48, stride=3)})
    run_of(spec, tmp_path / "run")
    video = write_video(tmp_path / "video.mp4", moving_square(40, 64, 64, (2, 1)))
    feature_D = mgm.load(tmp_path / "run").embed(video)
    export(tmp_path / "run", to, tmp_path / "out")
    weights = tmp_path / "run" / "weights.safetensors"
    paths = [tmp_path / "out", tmp_path / "out" / FILES[to][0], weights]
    if to == "videomae":
        # The checkpoint alone has them too.
        paths.append(shutil.copy(tmp_path / "out" / "checkpoint.pth", tmp_path / "alone.pth"))
    for path in paths:
        model = mgm.load(path)
        assert (model.clips.frames, model.clips.size, model.clips.stride) == (6, 48, 3)
        np.testing.assert_array_equal(model.embed(video), feature_D)
    # Weights without a run are exported too.
    (other,) = {*FILES} - {to}
    export(tmp_path / "out" / FILES[to][0], other, tmp_path / "again")
    np.testing.assert_array_equal(mgm.load(tmp_path / "again").embed(video), feature_D)
