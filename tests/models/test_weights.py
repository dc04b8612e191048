"""Weights from other programs.

Every format is read completely under our names; others are refused with one line.
"""

import argparse
import errno
import os
import pickle
import resource
import signal
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from mgm.errors import UserError
from mgm.models import (
    build_classifier,
    build_frozen_encoder,
    build_mae,
    config_of,
    load_encoder,
    load_weights,
    read_weights,
    save_weights,
)
from mgm.models.formats import to_huggingface, to_ours, to_videomae
from mgm.models.vit import sinusoid_table
from mgm.models.weights_file import weights_digest, weights_file
from mgm.reading import file_digest
from mgm.spec import Clips, Data, Decoder, Finetune, Model, Pretrain, Probe
from mgm.stages.parents import resolve_init, verified_weights
from tests.helpers.huggingface import sharpened, translated

SMALL = {
    "data": Data(dataset="k400"),
    "clips": Clips(frames=4, size=24),
    "model": Model(width=16, depth=2, heads=2, patch=8),
}
PRETRAIN = Pretrain(**SMALL, decoder=Decoder(width=8, depth=1, heads=2))
FINETUNE = Finetune(**SMALL)
SIZES = {  # the same sizes in Hugging Face's words
    "image_size": 24,
    "patch_size": 8,
    "num_frames": 4,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
DECODER = {
    "decoder_hidden_size": 8,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
}
HERE = Path("any.file")
IMAGENET = '{"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}'


class Evil:
    def __reduce__(self):
        return os.system, ("touch ran",)


def models():
    """Yield a small masked autoencoder and a small classifier.

    Their weights have no values that could hide a mistake.
    """
    for model in (build_mae(PRETRAIN), build_classifier(FINETUNE, classes=5)):
        torch.manual_seed(1)
        sharpened(model, 0.2)
        yield model


def weights_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def new_style(theirs):
    """Rename weights as transformers 5.x does."""
    return {
        name.replace("q_bias", "query.bias").replace("v_bias", "value.bias"): value
        for name, value in theirs.items()
    }


def test_round_trips_are_bit_equal():
    for model in models():
        ours = weights_of(model)
        for there in (
            to_huggingface,
            to_videomae,
            lambda weights: new_style(to_huggingface(weights)),
        ):
            assert same(to_ours(there(ours), HERE), ours)
        assert same(
            new_style(to_huggingface(ours)), translated(ours)
        )  # the names that the parity tests spell out


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: weights,
        lambda weights: {"model": weights, "epoch": 3},
        lambda weights: {"module": weights, "ds_version": "0.5"},
        lambda weights: {"model": {f"module.{name}": value for name, value in weights.items()}},
        lambda weights: {
            "state_dict": {f"module.model.{name}": value for name, value in weights.items()}
        },
        lambda weights: {f"backbone.{name}": value for name, value in weights.items()},
    ],
    ids=["plain", "model", "module", "model-ddp", "state_dict", "backbone"],
)
@pytest.mark.parametrize(
    "convert",
    [lambda weights: weights, to_videomae, to_huggingface],
    ids=["ours", "videomae", "hf"],
)
def test_the_names_in_a_file_decide_its_format(tmp_path, wrap, convert):
    path = tmp_path / "weights.pth"
    (tmp_path / "preprocessor_config.json").write_text(IMAGENET)
    for model in models():
        torch.save(wrap(convert(weights_of(model))), path)
        assert same(read_weights(path), weights_of(model))
        torch.save(
            wrap(convert(weights_of(model))), path, _use_new_zipfile_serialization=False
        )  # the format before PyTorch 1.6
        assert same(read_weights(path), weights_of(model))


def test_safetensors_and_folders(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(IMAGENET)
    for model in models():
        save_weights(model, tmp_path / "ours.safetensors")
        assert same(read_weights(tmp_path / "ours.safetensors"), weights_of(model))
        save_file(to_huggingface(weights_of(model)), tmp_path / "model.safetensors")
        assert same(read_weights(tmp_path), weights_of(model))


def test_hugging_faces_own_files_arrive_whole(tmp_path):
    """Files that transformers writes for each of its classes are read completely."""
    for name in ("mae", "classifier", "encoder"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "preprocessor_config.json").write_text(IMAGENET)
    mae = transformers.VideoMAEForPreTraining(
        transformers.VideoMAEConfig(**SIZES, **DECODER, use_mean_pooling=False)
    )
    mae.save_pretrained(tmp_path / "mae")
    ours = build_mae(PRETRAIN)
    load_weights(ours, tmp_path / "mae")
    assert same(translated(weights_of(ours)), weights_of(mae))

    classifier = transformers.VideoMAEForVideoClassification(
        transformers.VideoMAEConfig(**SIZES, num_labels=5)
    )
    classifier.save_pretrained(tmp_path / "classifier")
    ours = build_classifier(FINETUNE, classes=5)
    load_weights(ours, tmp_path / "classifier")
    assert same(translated(weights_of(ours)), weights_of(classifier))

    encoder = transformers.VideoMAEModel(
        transformers.VideoMAEConfig(**SIZES, use_mean_pooling=False)
    )
    encoder.save_pretrained(tmp_path / "encoder")
    features = build_frozen_encoder(Probe(**SMALL), tmp_path / "encoder")
    theirs = {
        name.removeprefix("videomae."): value
        for name, value in translated(weights_of(features)).items()
    }
    assert same(theirs, weights_of(encoder))


def test_weights_in_several_files_arrive_whole_or_not_at_all(tmp_path):
    """transformers splits large models into several files and an index that names them."""
    (tmp_path / "preprocessor_config.json").write_text(IMAGENET)
    mae = transformers.VideoMAEForPreTraining(
        transformers.VideoMAEConfig(**SIZES, **DECODER, use_mean_pooling=False)
    )
    mae.save_pretrained(tmp_path, max_shard_size="20KB")
    index, parts = (
        tmp_path / "model.safetensors.index.json",
        sorted(tmp_path.glob("model-*.safetensors")),
    )
    assert len(parts) > 1
    for place in (tmp_path, index):
        assert same(translated(read_weights(place)), weights_of(mae))

    def refused(line):
        with pytest.raises(UserError, match=line) as caught:
            read_weights(tmp_path)
        assert "\n" not in str(caught.value)

    whole, listed = parts[0].read_bytes(), index.read_text()
    parts[0].write_bytes(whole[:-4])
    refused(f"{parts[0].name}: ")
    first = load_file(parts[1])
    save_file(first | {"more": torch.zeros(2)}, parts[0])
    refused(f"{parts[0].name}: .* {index.name}")
    parts[0].unlink()
    refused(f"{index.name}: .*{parts[0].name}, .* {len(parts)} files")
    index.write_text(listed.replace(parts[0].name, "../" + parts[0].name))
    refused(rf"{index.name}: .*\.\./{parts[0].name}")
    index.write_text("{}")
    refused(f"{index.name}: .*weight_map")


@pytest.mark.parametrize("size", ["1GB", "20KB"])
def test_a_file_of_hugging_faces_cache_is_read_as_its_folder(tmp_path, size):
    """The cache has links in a folder that is named by a commit to files named by their digests.

    A run names such a file by its path there.
    """
    mae = transformers.VideoMAEForPreTraining(transformers.VideoMAEConfig(**SIZES, **DECODER))
    mae.save_pretrained(tmp_path / "plain", max_shard_size=size)
    (tmp_path / "plain" / "preprocessor_config.json").write_text(IMAGENET)
    (tmp_path / "blobs").mkdir()
    (snapshot := tmp_path / "snapshots" / "commit").mkdir(parents=True)
    for file in (tmp_path / "plain").iterdir():
        (tmp_path / "blobs" / (digest := file_digest(file))).write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(f"../../blobs/{digest}")
    wanted = read_weights(tmp_path / "plain")
    file = weights_file(snapshot)
    fields = resolve_init({"init": str(file)}, "mine.json", tmp_path)
    for path in (snapshot, file, verified_weights(tmp_path / fields["parent"])[0]):
        assert same(read_weights(path), wanted)
        assert config_of(path, wanted).num_frames == 4
        assert weights_digest(path) == weights_digest(tmp_path / "plain")


def test_an_official_checkpoint_with_its_arguments_and_numpy_numbers(tmp_path):
    """VideoMAE's checkpoint has argparse arguments and an optimiser with NumPy learning rates.

    Neither runs code.
    """
    path = tmp_path / "checkpoint-799.pth"
    model = next(models())
    rates = {"param_groups": [{"lr": np.float64(1e-4), "last": np.float32(0), "params": [0]}]}
    checkpoint = {
        "model": weights_of(model),
        "optimizer": rates,
        "epoch": 799,
        "args": argparse.Namespace(lr=1e-4),
    }
    torch.save(checkpoint, path, _use_new_zipfile_serialization=False)
    path.write_bytes(
        path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    )  # as numpy 1 names it
    assert same(read_weights(path), weights_of(model))
    torch.save(checkpoint, path)
    other = build_mae(PRETRAIN.model_copy(update={"seed": 7}))
    load_weights(other, path)
    assert same(weights_of(other), weights_of(model))
    for target in (build_classifier(FINETUNE, classes=3), build_frozen_encoder(Probe(**SMALL))):
        load_encoder(target, path)
        assert torch.equal(
            target.encoder.blocks[1].attn.qkv.weight, model.encoder.blocks[1].attn.qkv.weight
        )


@pytest.mark.parametrize(
    "more", [np.array([Evil()]), Evil(), PurePosixPath("x"), slice(3)], ids=["0", "1", "2", "3"]
)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_whole_file_is_never_called_incomplete(tmp_path, more, zipped):
    content = {"model": weights_of(next(models())), "more": more}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"w\.pth: .*save only the model's state_dict"):
        read_weights(tmp_path / "w.pth")


def test_positions_are_left_out_if_they_are_the_fixed_ones_and_refused_if_learned():
    weights = to_videomae(weights_of(list(models())[1]))
    table = sinusoid_table(2 * 3 * 3, 16)
    assert same(to_ours(weights | {"pos_embed": table}, HERE), to_ours(weights, HERE))
    assert same(to_ours(weights | {"pos_embed": table.bfloat16()}, HERE), to_ours(weights, HERE))
    with pytest.raises(UserError, match=r"any\.file: pos_embed"):
        to_ours(weights | {"pos_embed": torch.randn_like(table)}, HERE)


def test_bad_files_are_one_clear_line_and_run_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, model = tmp_path / "weights.pth", build_mae(PRETRAIN)
    mae, classifier = (weights_of(model) for model in models())

    def refused(content, line=".", target=model, load=load_weights):
        path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
        with pytest.raises(UserError, match=line) as caught:
            load(target, path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
        assert not (tmp_path / "ran").exists()

    refused({"model": mae, "x": Evil()}, r"(posix|nt)\.system")
    refused(pickle.dumps(Evil(), protocol=2), r"(posix|nt)\.system")
    refused(b"")
    refused(b"PK\x03\x04 nothing")
    refused(b"\x89HDF\r\n\x1a\n" + bytes(99))
    np.savez(tmp_path / "arrays.npz", a=np.zeros(3))
    refused((tmp_path / "arrays.npz").read_bytes())
    torch.save(mae, path)
    refused(path.read_bytes()[:-500])
    refused(path.read_bytes()[: len(path.read_bytes()) // 3])
    torch.save(mae, path, _use_new_zipfile_serialization=False)
    refused(path.read_bytes()[:-500])
    path = tmp_path / "weights.safetensors"
    save_file(mae, path)
    refused(path.read_bytes()[:-4])
    path = tmp_path / "weights.pth"
    itself = {"epoch": 1}
    itself["model"] = itself
    refused(itself, "epoch is int")
    refused(torch.zeros(3), "Tensor")
    refused(
        mae | {"mask_token": mae["mask_token"].long()},
        "mask_token is torch.int64",
    )
    refused(mae | {"mask_token": mae["mask_token"].cfloat()}, "mask_token is torch.complex64")
    refused(
        mae | {"mask_token": mae["mask_token"].to_sparse()},
        "mask_token is torch.float32, torch.sparse_coo",
    )
    refused(
        mae | {"mask_token": mae["mask_token"].to("meta")},
        "mask_token is torch.float32, torch.strided, on meta",
    )
    refused([1, 2], " list")
    refused({})
    refused({"model": {"a": 1}}, " a is int")
    refused({"optimizer": {"state": {}}, "epoch": 3}, "optimizer is dict")

    refused(
        mae | {"cls_token": torch.zeros(2), "x.1.y": torch.zeros(2)},
        r"2 of \d+ .*: cls_token, x\.1\.y",
    )
    refused(
        to_huggingface(mae) | {"pooler.dense.weight": torch.zeros(2)},
        r"1 of \d+ .*: pooler\.dense\.weight",
    )
    refused(
        mae | {"x": torch.zeros(2)},
        r"1 of \d+ .*: x",
        load=load_encoder,
        target=build_classifier(FINETUNE, 5),
    )
    refused(
        mae | {"module.mask_token": torch.zeros(2)},
        "mask_token and another",
    )
    both = to_huggingface(mae)
    both["videomae.encoder.layer.0.attention.attention.query.bias"] = torch.zeros(16)
    refused(both, r"videomae\.encoder\.layer\.0\.attention\.attention\.q")
    lacking = to_huggingface(mae)
    del lacking["videomae.encoder.layer.1.attention.attention.key.weight"]
    refused(
        lacking,
        r"encoder\.blocks\.1\.attn\.query\.weight.*no encoder\.blocks\.1\.attn\.key\.weight",
    )
    lacking = {name: value for name, value in mae.items() if name != "decoder.norm.bias"}
    refused(
        lacking,
        r"decoder\.norm\.bias \(1 of \d+ ",
    )
    refused(
        classifier,
        r"decoder.* \(\d+ of \d+ .* fc_norm\.bias, .*\(4 ",
    )
    refused(
        mae | {"mask_token": torch.zeros(1, 1, 9)},
        r"mask_token .*\(1, 1, 9\).*\(1, 1, 8\)",
    )
    refused(
        mae | {"mask_token": torch.full((1, 1, 8), torch.nan)},
        "mask_token .*not finite",
    )
    refused(
        classifier,
        r"head\.bias .*\(5,\).*\(3,\)",
        target=build_classifier(FINETUNE, 3),
    )
    os.mkfifo(tmp_path / "fifo")
    for special in (tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(UserError, match=str(special)):
            read_weights(special)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: "):
        read_weights(tmp_path / "empty")


def test_a_name_that_no_format_has_is_found_behind_every_prefix():
    """Renaming any key is noticed: each key is either used or reported as unknown."""
    for model in models():
        for convert in (to_videomae, to_huggingface):
            theirs = convert(weights_of(model))
            for name in theirs:
                renamed = {
                    f"{name}x" if key == name else key: value for key, value in theirs.items()
                }
                with pytest.raises(UserError, match=r"any\.file: "):
                    to_ours(renamed, HERE)


def test_weights_have_the_mode_that_the_umask_allows(tmp_path):
    before = os.umask(0o027)
    try:
        save_weights(next(models()), tmp_path / "w.safetensors")
    finally:
        os.umask(before)
    assert (tmp_path / "w.safetensors").stat().st_mode & 0o777 == 0o640


def test_a_quota_that_ends_names_the_weights(tmp_path):
    """safetensors raises an error of its own, which holds the system's number."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"w\.safetensors") as caught:
            save_weights(next(models()), tmp_path / "w.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert caught.value.errno == errno.EFBIG
    assert not list(tmp_path.iterdir())
