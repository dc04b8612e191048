"""Weights of other programs are read whole under our names. Others are refused with one line.

`published_keys.json` maps the parameters of published files to their shapes (`12 blocks.#` stands
for twelve blocks), or names an equal list.
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mgm.errors import UserError
from mgm.models import (
    build_classifier,
    build_frozen_encoder,
    build_mae,
    load_encoder,
    load_weights,
    read_weights,
    save_weights,
)
from mgm.models.vit import sinusoid_table
from mgm.models.weights import (
    LATER,
    Config,
    check_processor,
    config_of,
    sizes_of,
    to_huggingface,
    to_ours,
)
from mgm.spec import BACKBONES, Data, Decoder, Finetune, Model, Pretrain, Probe
from tests.helpers import small_runs
from tests.helpers.huggingface import sharpened, translated

DATA = Data(dataset="k400")
SMALL = small_runs.SMALL | {"data": DATA}
PRETRAIN = Pretrain(**SMALL, decoder=Decoder(width=8, depth=1, heads=2))
FINETUNE = Finetune(**SMALL)
# The same sizes in Hugging Face's words.
SIZES = {
    **{"image_size": 24, "patch_size": 8, "num_frames": 4, "hidden_size": 16},
    **{"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
}
DECODER = {
    **{"decoder_hidden_size": 8, "decoder_num_hidden_layers": 1},
    **{"decoder_num_attention_heads": 2, "decoder_intermediate_size": 32},
}
HERE = Path("any.file")
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
KEYS = json.loads((Path(__file__).parent / "published_keys.json").read_text())


def models():
    """Return a masked autoencoder and a classifier whose weights hide no mistake."""
    for model in (build_mae(PRETRAIN), build_classifier(FINETUNE, 5)):
        torch.manual_seed(1)
        sharpened(model, 0.2)
        yield model


def weights_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def official(weights):
    """Return the names of VideoMAE's code."""
    short = "fc_norm.weight" in weights
    return {
        name.removeprefix("encoder.") if short else name: value for name, value in weights.items()
    }


def test_round_trips_are_bit_equal(tmp_path):
    for model in models():
        ours = weights_of(model)
        for names in (to_huggingface, translated, official):
            assert same(to_ours(names(ours), HERE), ours)
        save_weights(model, tmp_path / "weights.safetensors")
        assert same(read_weights(tmp_path), ours)
        for wrapped in (ours, {"model": ours, "epoch": 3}, {"module": official(ours)}):
            torch.save(wrapped, tmp_path / "w.pth")
            assert same(read_weights(tmp_path / "w.pth"), ours)
            # The format before PyTorch 1.6.
            torch.save(wrapped, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
            assert same(read_weights(tmp_path / "w.pth"), ours)


@pytest.mark.parametrize("name", ["mae", "classifier", "encoder"])
def test_hugging_faces_own_files_arrive_whole(tmp_path, name):
    import transformers

    how = {} if name == "classifier" else {"use_mean_pooling": False}
    config = transformers.VideoMAEConfig(**SIZES, **DECODER, **how, num_labels=5)
    theirs, ours = {
        "mae": (transformers.VideoMAEForPreTraining, build_mae(PRETRAIN)),
        "classifier": (transformers.VideoMAEForVideoClassification, build_classifier(FINETUNE, 5)),
        "encoder": (transformers.VideoMAEModel, build_frozen_encoder(Probe(**SMALL))),
    }[name]
    theirs(config).save_pretrained(tmp_path)
    load_weights(ours, tmp_path)
    found = {key.removeprefix("videomae."): x for key, x in translated(weights_of(ours)).items()}
    wanted = weights_of(theirs.from_pretrained(tmp_path))
    assert same(found, {key.removeprefix("videomae."): x for key, x in wanted.items()})
    fields = sizes_of(read_weights(tmp_path), tmp_path)
    assert {**SMALL["model"].model_dump(), "backbone": fields["model"]["backbone"]} == fields[
        "model"
    ]
    if name == "mae":
        assert fields["decoder"] == PRETRAIN.decoder.model_dump()


@pytest.mark.parametrize(
    "fields",
    [
        {"size": 224}, {"size": 224, "crop_size": 224, "do_resize": True},
        {"size": {"shortest_edge": 224}, "crop_size": 224},
        {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}},
        {"size": {"shortest_edge": 224, "longest_edge": None}, "do_center_crop": None},
        {"size": 224, "rescale_factor": float(np.float32(1 / 255))},
        {"size": 224, "image_std": np.float32(IMAGENET["image_std"]).tolist()},
    ],
)  # fmt: skip
def test_processor_files_of_all_years_are_read(tmp_path, fields):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(IMAGENET | fields))
    check_processor(tmp_path, 224)
    with pytest.raises(UserError, match="size is"):
        check_processor(tmp_path, 96)


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"do_resize": False}, "do_resize is False"), ({"size": 256, "crop_size": 224}, "size is"),
        ({"size": 224, "crop_size": 196}, "crop_size is"), ({"do_center_crop": False}, "do_center"),
        ({"size": {"height": 224, "width": 224}}, "size is"), ({"do_normalize": False}, "do_norm"),
        ({"rescale_factor": 1 / 127.5}, "rescale_factor"), ({"image_mean": 0.5}, "image_mean is"),
    ],
)  # fmt: skip
def test_a_processor_of_other_pixels_is_refused(tmp_path, fields, fault):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(IMAGENET | fields))
    with pytest.raises(UserError, match=fault):
        check_processor(tmp_path, 224)


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"hidden_act": "relu"}, "hidden_act"), ({"layer_norm_eps": 0.1}, "layer_norm_eps"),
        ({"qkv_bias": False}, "qkv_bias"), ({"num_channels": 4}, "num_channels"),
        ({"num_attention_heads": 0}, "num_attention_heads"), ({"mgm": []}, "mgm"),
    ],
)  # fmt: skip
def test_a_config_of_another_model_is_refused(tmp_path, fields, fault):
    file = tmp_path / "config.json"
    usual = {"model_type": "videomae", "hidden_act": "gelu", "layer_norm_eps": 1e-12}
    file.write_text(json.dumps(usual))
    assert config_of(tmp_path) == Config(layer_norm_eps=1e-12)
    file.write_text(json.dumps(usual | fields))
    with pytest.raises(UserError, match=rf"config\.json: {fault}"):
        config_of(tmp_path)
    file.write_text("[]")
    with pytest.raises(UserError, match="no JSON object"):
        config_of(tmp_path)
    file.write_text(json.dumps({"model_type": "vit"} | fields))
    assert config_of(tmp_path) is None


def shapes_of(name):
    found = KEYS[name]
    if isinstance(found, str):
        return shapes_of(found)
    return {
        key.split()[1].replace("#", str(n)): tuple(map(int, shape.split()))
        for key, shape in found.items()
        for n in range(int(key.split()[0]))
    }


def value(name, shape):
    """Return the sinusoid table, or zeros that take up one number in a file."""
    fixed = name.endswith("pos_embed")
    return sinusoid_table(*shape[1:]) if fixed else torch.zeros(1).expand(shape)


@pytest.mark.parametrize("name", KEYS)
def test_every_key_of_a_published_encoder_is_used(tmp_path, name):
    method, rest = name.split(" ViT-")
    size, kind = rest.split()[:2]
    path, shapes = tmp_path / "published.pth", shapes_of(name)
    wrapper = "module" if "V2" in method else "model"
    torch.save({wrapper: {key: value(key, shape) for key, shape in shapes.items()}}, path)
    weights = read_weights(path)
    model = Model(**sizes_of(weights, path)["model"])
    assert (model.backbone, model.misnamed) == (f"vit-{size.lower()}", "")
    with torch.device("meta"):
        if kind == "finetune":
            ours, used = build_classifier(Finetune(data=DATA, model=model), 400), weights
        else:
            ours = build_frozen_encoder(Probe(data=DATA, model=model))
            used = {key: x for key, x in weights.items() if key.startswith("encoder.")}
    wanted = {key: x.shape for key, x in ours.state_dict().items()}
    assert {key: x.shape for key, x in used.items()} == wanted
    later = any(LATER.fullmatch(key) for key in shapes)
    assert later == (kind == "pretrain" and method in ("AdaMAE", "MME", "SIGMA", "TrackMAE"))
    if kind == "pretrain" and not later:
        decoder = dict(zip(("width", "depth", "heads"), BACKBONES[model.backbone][1]))
        assert sizes_of(weights, path)["decoder"] == decoder
        with torch.device("meta"):
            mae = build_mae(Pretrain(data=DATA, model=model, decoder=decoder)).state_dict()
        found = {key: x.shape for key, x in weights.items()}
        assert found == {key: x.shape for key, x in mae.items()}


def test_one_bias_of_queries_keys_and_values_is_split():
    """TrackMAE stores one bias. That of keys changes nothing."""
    found = to_ours({"blocks.0.attn.qkv.bias": torch.arange(6.0)}, HERE)
    at = "encoder.blocks.0.attn."
    assert {name: x.tolist() for name, x in found.items()} == {
        f"{at}q_bias": [0, 1],
        f"{at}v_bias": [4, 5],
    }


def test_encoders_arrive_with_the_norm_that_both_have(tmp_path):
    """A pretrained encoder has its norm before the mean, a fine-tuned one after it."""
    mae, tuned = models()
    attentive = build_classifier(FINETUNE.model_copy(update={"head": "attentive"}), 5)
    for name, source in (("mae", mae), ("tuned", tuned), ("attentive", attentive)):
        path = tmp_path / f"{name}.safetensors"
        save_weights(source, path)
        wanted = source.encoder.state_dict()
        for head in ("linear", "attentive"):
            model = build_classifier(Finetune(**SMALL, head=head, seed=7), 3)
            load_encoder(model, path)
            found = model.encoder.state_dict()
            assert all(torch.equal(found[key], wanted[key]) for key in found.keys() & wanted.keys())
            assert wanted.keys() - found.keys() <= {"norm.weight", "norm.bias"}
            if head == "linear":
                own = model.fc_norm.weight
                assert torch.equal(own, tuned.fc_norm.weight if name == "tuned" else own * 0 + 1)
        features = build_frozen_encoder(Probe(**SMALL), path)
        assert hasattr(features.fc_norm, "weight") == (name == "tuned")
        assert hasattr(features.encoder.norm, "weight") == (name != "tuned")


class Evil:
    def __reduce__(self):
        return os.system, ("touch ran",)


def test_an_official_checkpoint_with_its_arguments_and_numpy_numbers(tmp_path):
    path, model = tmp_path / "checkpoint-799.pth", next(models())
    rates = {"param_groups": [{"lr": np.float64(1e-4), "last": np.float32(0), "params": [0]}]}
    weights, more = weights_of(model), {"args": argparse.Namespace(lr=1e-4), "optimizer": rates}
    torch.save({"model": weights} | more, path, _use_new_zipfile_serialization=False)
    # As NumPy 1 names it.
    path.write_bytes(path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert same(read_weights(path), weights)
    halves = {name: x.half() for name, x in weights.items()}
    torch.save({"model": halves} | more, path)
    other = build_mae(PRETRAIN.model_copy(update={"seed": 7}))
    load_weights(other, path)
    assert same(weights_of(other), {name: x.float() for name, x in halves.items()})


def test_positions_are_left_out_if_they_are_fixed_and_refused_if_learned():
    weights, table = weights_of(next(models())), sinusoid_table(18, 16)
    for fixed in (table, table.bfloat16()):
        assert same(to_ours(weights | {"encoder.pos_embed": fixed}, HERE), weights)
    with pytest.raises(UserError, match=r"any\.file: encoder\.pos_embed is learned"):
        to_ours(weights | {"encoder.pos_embed": torch.randn_like(table)}, HERE)


def test_bad_files_are_one_clear_line_and_run_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pth"
    mae, classifier = (weights_of(model) for model in models())

    def refused(content, line=".", target=None, load=load_weights):
        path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
        with pytest.raises(UserError, match=line) as caught:
            load(target or build_mae(PRETRAIN), path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
        assert not (tmp_path / "ran").exists()

    processor = tmp_path / "preprocessor_config.json"
    processor.write_text('{"do_normalize": true}')
    with pytest.raises(UserError, match=rf"{processor}: image_mean is 0\.5"):
        read_weights(tmp_path / "weights.pth")
    processor.unlink()
    refused({"model": mae, "x": Evil()}, "holds code")
    refused(b"", "damaged")
    torch.save(mae, path)
    refused(path.read_bytes()[:-500], "damaged")
    refused(torch.zeros(3), "no named weights")
    refused({"optimizer": {"state": {}}, "epoch": 3}, "optimizer is dict, and weights are")
    refused(mae | {3: torch.zeros(2)}, "no named weights")
    refused(mae | {"encoder.pos_embed": torch.zeros(16)}, "pos_embed is learned")
    refused(mae | {"encoder.blocks.0.attn.qkv.bias": torch.zeros(2)}, r"has the shape \(2,\)")
    for kind in (torch.complex64, torch.bool, torch.int8):
        refused(mae | {"mask_token": torch.zeros(1, 1, 8, dtype=kind)}, f"mask_token is {kind}")
    refused(mae | {"encoder_to_decoder.weight": torch.tensor(1.0)}, "weight is Tensor, and")
    parts = {"query": (3, 3), "key": (3, 4), "value": (3, 3)}
    parts = {f"encoder.blocks.0.attn.{x}.weight": torch.zeros(y) for x, y in parts.items()}
    refused(mae | parts, "query.weight and .* have other shapes")
    refused(mae | {"x": torch.zeros(2)}, "Unexpected .*x")
    classes = build_classifier(FINETUNE, 5)
    refused(mae | {"cls_token": torch.zeros(2)}, "cls_token", classes, load_encoder)
    lacking = {name: x for name, x in mae.items() if name != "decoder.norm.bias"}
    refused(lacking, "Missing .*decoder.norm.bias")
    refused(classifier, "Missing")
    refused(mae | {"mask_token": torch.zeros(1, 1, 9)}, r"mask_token.*9\].*8\]")
    refused(mae | {"mask_token": torch.full((1, 1, 8), torch.nan)}, "mask_token .*not finite")
    path = tmp_path / "weights.safetensors"
    save_file(mae, path)
    refused(path.read_bytes()[:-4], "damaged")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: holds none of"):
        read_weights(tmp_path / "empty")
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(UserError, match="pipe.pth: is not a file"):
        read_weights(tmp_path / "pipe.pth")


def test_weights_are_read_where_files_cannot_be_mapped(tmp_path):
    """Of FUSE with direct_io. A map of a file would be closed with it, and its tensors with that."""
    path = tmp_path / "weights.safetensors"
    save_weights(next(models()), path)
    read = read_weights(path)
    path.write_bytes(bytes(path.stat().st_size))
    assert all(torch.equal(x, read[name]) for name, x in weights_of(next(models())).items())
