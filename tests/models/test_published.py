"""The published files of VideoMAE and of later methods are read, and all encoder keys are used.

Each file is made from a list in `published_keys.json`. A list maps a parameter to its shape (`12
blocks.#` stands for twelve blocks) or names an equal list.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from mgm.cli import app
from mgm.data.index import write_index
from mgm.data.synthetic.generator import generate
from mgm.data.synthetic.params import Synthetic
from mgm.errors import UserError
from mgm.models import (
    build_classifier,
    build_frozen_encoder,
    build_mae,
    load_encoder,
    load_weights,
    model_of,
    read_weights,
)
from mgm.models.formats import OTHERS, to_ours, to_videomae
from mgm.models.vit import sinusoid_table
from mgm.spec import Clips, Data, Decoder, Finetune, Model, Pretrain, Probe
from mgm.study.recipes import DECODERS

KEYS = json.loads((Path(__file__).parent / "published_keys.json").read_text())
DATA = Data(dataset="k400")
SMALL = {
    "data": DATA,
    "clips": Clips(frames=4, size=24),
    "model": Model(width=16, depth=2, heads=2, patch=8),
}
PRETRAIN = Pretrain(**SMALL, decoder=Decoder(width=8, depth=1, heads=2))


def shapes_of(name: str) -> dict[str, tuple[int, ...]]:
    found = KEYS[name]
    if isinstance(found, str):
        return shapes_of(found)
    return {
        key.split()[1].replace("#", str(n)): tuple(map(int, shape.split()))
        for key, shape in found.items()
        for n in range(int(key.split()[0]))
    }


def method_of(name: str) -> str:
    return name.partition(" ViT-")[0]


def value(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Return the sinusoid table, or zeros that take up one number in a file."""
    return (
        sinusoid_table(*shape[1:]) if name.endswith("pos_embed") else torch.zeros(1).expand(shape)
    )


@pytest.mark.parametrize("name", KEYS)
def test_every_key_of_the_encoder_is_used(tmp_path, name):
    method, size, kind = method_of(name), *name.split(" ViT-")[1].split()[:2]
    path, shapes = tmp_path / "published.pth", shapes_of(name)
    torch.save(
        {
            "module" if "V2" in method else "model": {
                key: value(key, shape) for key, shape in shapes.items()
            }
        },
        path,
    )
    weights = read_weights(path, 8 * 14 * 14)
    model = model_of(weights, path)
    assert model.backbone == f"vit-{size.lower()}"
    with torch.device("meta"):
        if kind == "finetune":
            ours = build_classifier(Finetune(data=DATA, model=model), 400).state_dict()
            used = weights
        else:
            ours = build_frozen_encoder(Probe(data=DATA, model=model)).state_dict()
            used = {key: v for key, v in weights.items() if key.startswith("encoder.")}
    assert {key: v.shape for key, v in used.items()} == {key: v.shape for key, v in ours.items()}
    dropped = {key for key in shapes if OTHERS.fullmatch(key)}
    assert bool(dropped) == (
        kind == "pretrain" and method in ("AdaMAE", "MME", "SIGMA", "TrackMAE")
    )
    if kind == "pretrain" and not dropped and method != "SMILE":  # the decoder is VideoMAE's too
        with torch.device("meta"):
            mae = build_mae(
                Pretrain(data=DATA, model=model, decoder=DECODERS[model.backbone])
            ).state_dict()
        assert {key: v.shape for key, v in weights.items()} == {
            key: v.shape for key, v in mae.items()
        }
    if name.startswith("VideoMAE ViT-B"):  # and back to the published names
        assert {key: tuple(v.shape) for key, v in to_videomae(weights).items()} == shapes


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> tuple[Path, int]:
    """Return an index, and how many of its test videos are of class 2.

    The index has videos of three classes, but 400 class names, as published heads have.
    """
    out = tmp_path_factory.mktemp("tiny")
    index = generate(
        Synthetic(classes=3, train_per_class=3, test_per_class=1, size=32, frames=12), out
    )
    write_index(
        replace(index, classes=(*index.classes, *(f"class {n}" for n in range(3, 400)))), out
    )
    return out, sum(video.label == 2 for video in index.test)


STARTS = [
    "VideoMAE ViT-S finetune",
    "VideoMAE V2 ViT-S finetune",
    *{method_of(name): name for name in KEYS if "pretrain" in name}.values(),
]


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * ("ViT-S" not in name)) for name in STARTS],
)
def test_a_file_starts_a_run_and_one_with_a_head_is_evaluated(tmp_path, tiny, name):
    """The commands take a published file at full size, most on clips of eight tokens.

    The bias of the file's head prefers class 2.
    """
    (videos, right), shapes = tiny, shapes_of(name)
    weights = {key: value(key, shape) for key, shape in shapes.items()}
    if "finetune" in name:
        weights["head.bias"] = torch.eye(shapes["head.bias"][0])[2]
    torch.save({"module" if "V2" in name else "model": weights}, tmp_path / "published.pth")
    model = model_of(read_weights(tmp_path / "published.pth"), tmp_path)
    # A file with its table of positions is for clips of 1,568 tokens.
    table = any(key.endswith("encoder.pos_embed") for key in shapes)
    frames, size = (16, 224) if table else (4, 32)
    fields = {
        "data": {"dataset": "mine"},
        "clips": {"frames": frames, "size": size, "stride": 2},
        "model": model.model_dump(mode="json"),
    }
    fields |= {"views": {"temporal": 1, "spatial": 1}}
    probe = tmp_path / "probe.json"
    fields |= {"verb": "probe", "init": str(tmp_path / "published.pth")}
    probe.write_text(json.dumps(fields))
    results = tmp_path / "results"
    commands = [["probe", str(probe), "--out", str(results), "--data", f"mine={videos}"]]
    if "finetune" in name:
        words = f"predict {videos} --weights {tmp_path}/published.pth --out {tmp_path}/p.csv"
        words += f" --split test --frames {frames} --size {size} --stride 2"
        commands.append([*words.split(), "--temporal", "1", "--spatial", "1"])
    for command in commands:
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, (command, done.output, done.exception)
    (run,) = results.glob("probe-*")
    assert json.loads((run / "result.json").read_text())["parents"][0].startswith("external-")
    if "finetune" in name:
        assert done.output.endswith(f"top-1 {100 * right / 3:.2f}\n")


def test_one_bias_of_queries_keys_and_values_gives_the_same_features(tmp_path):
    """TrackMAE stores one bias for queries, keys and values; its key bias changes nothing."""
    torch.manual_seed(0)
    model = build_frozen_encoder(Probe(**SMALL))
    theirs = {}
    for name, weight in model.state_dict().items():
        drawn = weight + 0.1 * torch.randn_like(weight)
        if name.endswith("q_bias"):
            theirs[name.replace("q_bias", "qkv.bias")] = torch.cat(
                [drawn, torch.randn(16), torch.randn(16)]
            )
        elif not name.endswith("v_bias"):
            theirs[name] = drawn
    torch.save({"model": theirs}, tmp_path / "track.pth")
    load_encoder(model, tmp_path / "track.pth")
    x_BLD = torch.randn(2, 5, 16)
    attention, name = model.encoder.blocks[0].attn, "encoder.blocks.0.attn.qkv."
    q, k, v = (
        torch.nn.functional.linear(x_BLD, theirs[f"{name}weight"], theirs[f"{name}bias"])
        .unflatten(-1, (3, 2, 8))
        .permute(2, 0, 3, 1, 4)
    )
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attention(x_BLD), attention.proj(expected), atol=1e-5, rtol=1e-5)


def test_half_precision_is_read(tmp_path):
    weights = {name: v.half() for name, v in build_mae(PRETRAIN).state_dict().items()}
    torch.save({"module": weights}, tmp_path / "half.pt")
    model = build_mae(PRETRAIN)
    load_weights(model, tmp_path / "half.pt")
    assert all(v.dtype == torch.float32 for v in model.state_dict().values())
    assert torch.equal(
        model.encoder.blocks[0].mlp.fc1.weight, weights["encoder.blocks.0.mlp.fc1.weight"].float()
    )


def test_what_holds_no_video_vit_says_so():
    mae = shapes_of("MME ViT-B pretrain")
    with pytest.raises(UserError, match=r"any: .*encoder\.patch_embed\.proj\.weight"):
        model_of(
            to_ours(
                {key: value(key, shape) for key, shape in mae.items() if "patch_embed" not in key},
                Path("any"),
            ),
            Path("any"),
        )


@pytest.mark.parametrize(("frames", "size", "patch"), [(8, 24, 8), (32, 16, 4)])
def test_sizes_go_in_and_out(tmp_path, frames, size, patch):
    model = Model(width=16, depth=1, heads=2, patch=patch)
    spec = Pretrain(
        data=DATA,
        clips=Clips(frames=frames, size=size),
        model=model,
        decoder=Decoder(width=8, depth=1, heads=2),
    )
    mae = build_mae(spec)
    torch.save({"model": mae.state_dict()}, tmp_path / "w.pth")
    assert model_of(read_weights(tmp_path / "w.pth"), tmp_path).patch == patch
    again = build_mae(spec.model_copy(update={"seed": 3}))
    load_weights(again, tmp_path / "w.pth")
    frames_BTHWC = torch.randint(0, 256, (1, frames, size, size, 3), dtype=torch.uint8)
    slots, rows, columns = spec.grid
    masked_BL = torch.zeros(1, slots, rows * columns, dtype=torch.bool)
    masked_BL[:, :, : spec.hidden] = True
    predicted, target = again.predict(frames_BTHWC, masked_BL.flatten(1))
    assert predicted.shape == target.shape == (1, slots * spec.hidden, 3 * 2 * patch**2)
    assert torch.equal(predicted, mae.predict(frames_BTHWC, masked_BL.flatten(1))[0])
    other = spec.model_copy(update={"model": model.model_copy(update={"tubelet": 4})})
    with pytest.raises(UserError, match=r"w\.pth: decoder\.head\.bias "):
        load_weights(build_mae(other), tmp_path / "w.pth")
