"""`mgm.load`, `mgm embed`, `mgm predict` and `mgm export`."""

import csv
import json
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import mgm
from mgm.cli import app
from mgm.data.index import read_index
from mgm.errors import UserError
from mgm.models import build_classifier, load_weights, save_weights
from mgm.spec import ApplyOptions, Clips, Finetune, Model, PredictOptions, Views
from mgm.stages.apply import class_names, embed, find_trained, of_file, predict
from mgm.stages.export import export
from mgm.video.transform import view_crop, view_indices
from tests.helpers.disk import full_disk
from tests.helpers.small_runs import ATTENTIVE, PRETRAIN
from tests.stages.conftest import TUNED

ROOT = Path(__file__).parents[2]
WALK = ROOT / "docs" / "walk.mp4"


@pytest.fixture
def tuned(trained):
    return trained.results / TUNED.run_id


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_features_of_a_dataset_are_those_of_its_files(trained, tmp_path):
    """The store's files are MP4, so they are loose videos, too."""
    weights = trained.results / PRETRAIN.run_id
    embed(trained.data, weights, tmp_path / "a.npz", ApplyOptions(workers=0))
    found, videos = np.load(tmp_path / "a.npz"), trained.index.videos
    assert found["path_N"].tolist() == [video.name for video in videos]
    assert found["split_N"].tolist() == [video.split for video in videos]
    classes = [trained.index.classes[video.label] for video in videos]
    assert found["class_N"].tolist() == classes
    embed(Path(videos[2].path), weights, tmp_path / "b.npz", ApplyOptions())
    one = np.load(tmp_path / "b.npz")
    assert {*one} == {"path_N", "feature_ND"}
    np.testing.assert_allclose(one["feature_ND"][0], found["feature_ND"][2], atol=1e-5)
    feature_D = mgm.load(weights).embed(videos[2].path)
    np.testing.assert_allclose(feature_D, found["feature_ND"][2], atol=1e-5)


def test_a_file_has_each_view_in_time_and_of_each_all_views_in_space():
    clips, views = Clips(frames=4, size=32, stride=2), Views(temporal=2, spatial=3)
    found_VD = of_file(lambda frames: frames.float().mean((1, 2, 3)), clips, views, WALK)
    whole, wanted = mgm.read(WALK), []
    for view, place in product(range(2), range(3)):
        clip = whole[view_indices(clips, len(whole.frames_THWC), view, 2)]
        crop = view_crop(clip.height, clip.width, place, 3)
        wanted.append(clip.cut(crop, 32).frames_THWC.mean((0, 1, 2)))
    np.testing.assert_allclose(found_VD, wanted, rtol=1e-5)


def test_predictions_repeat_the_runs_own_test(trained, tuned, tmp_path):
    out, options = tmp_path / "p.csv", PredictOptions(split="test", workers=0)
    said = predict(trained.data, tuned, out, None, options)
    own = rows_of(tuned / "predictions.csv")
    rows = rows_of(out)
    assert [row["prediction"] for row in rows] == [row["prediction"] for row in own]
    top1 = 100 * np.mean([row["prediction"] == row["class"] for row in rows])
    assert said.endswith(f"top-1 {top1:.2f}")
    scores = [[float(row[f"score {name}"]) for name in trained.index.classes] for row in rows]
    np.testing.assert_allclose(np.sum(scores, 1), 1, rtol=1e-6)
    with pytest.raises(UserError, match=r"p\.csv: exists"):
        predict(trained.data, tuned, out, None, options)


def test_an_attentive_probe_predicts(trained, tmp_path):
    model = build_classifier(ATTENTIVE, 3)
    (folder := tmp_path / "run").mkdir()
    save_weights(model, folder / "weights.safetensors")
    (folder / "spec.json").write_text(ATTENTIVE.model_dump_json())
    said = predict(trained.data, folder, tmp_path / "p.csv", None, PredictOptions())
    assert "3 classes" in said
    with pytest.raises(UserError, match="attentive probe"):
        export(folder, tmp_path / "hf")


def test_a_video_that_cannot_be_read_is_left_out_and_named(trained, tuned, tmp_path, capsys):
    shutil.copytree(trained.data, tmp_path / "data")
    lost = read_index(tmp_path / "data").test[1]
    content = Path(lost.path).read_bytes()
    Path(lost.path).write_bytes(bytes(len(content)))
    options = PredictOptions(split="test", workers=0)
    predict(tmp_path / "data", tuned, tmp_path / "p.csv", None, options)
    names = [video.name for video in trained.index.test if video.name != lost.name]
    assert [row["path"] for row in rows_of(tmp_path / "p.csv")] == names
    assert f"left out: {lost.name}: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("walk\nrun\njump\n\n", ["walk", "run", "jump"]),
        ("jump 2\r\nrun 1\r\nwalk 0\r\n", ["walk", "run", "jump"]),
        ("0,walk\n2,jump\n1,run\n", ["walk", "run", "jump"]),
        ("3 jump\n1 walk\n2 run\n", ["walk", "run", "jump"]),
        ("\ufeffwalk\nrun\njump\n", ["walk", "run", "jump"]),
        ("class 0\nclass 1\nclass 2\n", ["class 0", "class 1", "class 2"]),
        ("walk\nwalk\nrun\n", None),
    ],
)
def test_a_file_of_classes_may_number_them(tmp_path, text, names):
    file = tmp_path / "classes.txt"
    file.write_bytes(text.encode())
    if names:
        assert class_names(file, tmp_path, 3) == names
    else:
        with pytest.raises(UserError, match=r"classes\.txt: .* number"):
            class_names(file, tmp_path, 3)


# --- Weights of a run, and of others ---


def test_a_features_is_the_same_after_a_notebook_has_set_pytorchs_defaults():
    wanted = mgm.load(ROOT / "weights" / "mgm").embed(WALK)
    assert wanted.shape == (48,)
    torch.set_default_dtype(torch.bfloat16)
    torch.set_default_device("meta")
    try:
        found = mgm.load(ROOT / "weights" / "mgm").embed(WALK)
        assert torch.get_default_dtype() == torch.bfloat16
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(("edge", "cut"), [(32, True), (40, True), (32, False)])
def test_a_processor_that_cuts_otherwise_is_refused_unless_the_size_is_given(tmp_path, edge, cut):
    import transformers

    config = transformers.VideoMAEConfig(
        **{"hidden_size": 128, "num_hidden_layers": 1, "num_attention_heads": 4},
        **{"intermediate_size": 512, "image_size": 32, "num_frames": 4},
    )
    transformers.VideoMAEForVideoClassification(config).save_pretrained(tmp_path)
    transformers.VideoMAEImageProcessor(
        **{"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
        **{"size": {"shortest_edge": edge}, "crop_size": {"height": 32, "width": 32}},
        do_center_crop=cut,
    ).save_pretrained(tmp_path)
    if (edge, cut) != (32, True):
        with pytest.raises(UserError, match=r"preprocessor_config\.json: .* the size \(32\)"):
            find_trained(tmp_path)
    found = find_trained(tmp_path, size=None if (edge, cut) == (32, True) else 32)
    assert (found.clips.frames, found.clips.size) == (4, 32)
    assert found.model == Model(backbone="vit-b", width=128, depth=1, heads=4)


def test_the_options_decide_without_a_config(tmp_path, capsys):
    model = build_classifier(Finetune(**{**TUNED.model_dump(), "head_dropout": 0}), 3)
    save_weights(model, tmp_path / "w.safetensors")
    found = find_trained(tmp_path / "w.safetensors", 4, 24, 2)
    assert (found.clips.frames, found.clips.size, found.clips.stride) == (4, 24, 2)
    assert "config.json" not in capsys.readouterr().err
    assert find_trained(tmp_path / "w.safetensors").clips.size == 224
    assert "has no config.json" in capsys.readouterr().err
    with pytest.raises(UserError, match="patch 8"):
        find_trained(tmp_path / "w.safetensors", 4, 25, 2)


# --- Export ---


@torch.inference_mode()
def test_an_exported_classifier_has_the_same_logits(trained, tuned, tmp_path):
    import transformers

    said = export(tuned, tmp_path / "hf")
    assert "VideoMAEForVideoClassification.from_pretrained" in said
    theirs = transformers.VideoMAEForVideoClassification.from_pretrained(tmp_path / "hf").eval()
    theirs.fc_norm.eps = 1e-6
    assert [*theirs.config.id2label.values()] == list(trained.index.classes)
    ours = build_classifier(TUNED, 3).eval()
    load_weights(ours, tuned / "weights.safetensors")
    frames_BTHWC = torch.randint(0, 256, (2, 4, 24, 24, 3), dtype=torch.uint8)
    processor = transformers.VideoMAEImageProcessor.from_pretrained(tmp_path / "hf")
    videos = [list(frames.permute(0, 3, 1, 2)) for frames in frames_BTHWC]
    pixels = processor(videos, return_tensors="pt").pixel_values
    torch.testing.assert_close(theirs(pixels).logits, ours(frames_BTHWC), atol=1e-5, rtol=1e-4)
    # And back: the folder has the class names and the clips.
    back = find_trained(tmp_path / "hf")
    assert (back.clips.frames, back.clips.size, back.clips.stride) == (4, 24, 2)
    out = tmp_path / "p.csv"
    predict(trained.data, tmp_path / "hf", out, None, PredictOptions(split="test"))
    own = [row["prediction"] for row in rows_of(tuned / "predictions.csv")]
    assert [row["prediction"] for row in rows_of(out)] == own


def test_an_exported_pretraining_loads_with_its_norm(trained, tmp_path):
    import transformers

    export(trained.results / PRETRAIN.run_id, tmp_path)
    model, about = transformers.VideoMAEForPreTraining.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(about[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.videomae.layernorm is not None
    assert json.loads((tmp_path / "config.json").read_text())["mgm"]["run"] == PRETRAIN.run_id
    with pytest.raises(UserError, match="exists"):
        export(trained.results / PRETRAIN.run_id, tmp_path)


@pytest.mark.parametrize("stops", ["weights", "config"])
def test_an_export_that_is_stopped_leaves_no_config_next_to_other_weights(
    trained, tuned, tmp_path, monkeypatch, stops
):
    export(trained.results / PRETRAIN.run_id, tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    if stops == "weights":
        with full_disk(), pytest.raises(OSError, match="too large"):
            export(tuned, tmp_path, force=True)
    else:
        monkeypatch.setattr("mgm.stages.export.write_text", None)
        with pytest.raises(TypeError):
            export(tuned, tmp_path, force=True)
    run = json.loads((tmp_path / "config.json").read_text())["mgm"]["run"]
    weights = tmp_path / "model.safetensors"
    assert run == PRETRAIN.run_id
    assert not weights.exists() or weights.read_bytes() == before
    monkeypatch.undo()
    export(tuned, tmp_path, force=True)
    assert json.loads((tmp_path / "config.json").read_text())["mgm"]["run"] == tuned.name
    assert weights.read_bytes() != before


def test_the_commands(trained, tuned, tmp_path):
    data, out = str(trained.data), str(tmp_path / "a")
    for words in (
        ["embed", data, "--weights", str(tuned), "--out", f"{out}.npz", "--temporal", "1"],
        ["predict", data, "--weights", str(tuned), "--out", f"{out}.csv", "--split", "test"],
        ["export", str(tuned), "--out", out],
    ):
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
        assert "wrote" in done.output
    words = ["predict", data, "--weights", str(tuned), "--out", f"{out}.csv"]
    assert "exists" in str(CliRunner().invoke(app, words).exception)
    assert "one .csv file" in str(CliRunner().invoke(app, [*words[:-1], "a.txt"]).exception)
