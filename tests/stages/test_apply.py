"""`mgm embed`, `mgm predict` and the one loop of a frozen model over videos."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import mgm
from mgm.cli import app
from mgm.data.synthetic.generator import generate
from mgm.data.synthetic.params import Synthetic
from mgm.errors import UserError
from mgm.models import (
    build_classifier,
    build_frozen_encoder,
    build_mae,
    model_of,
    read_weights,
    save_weights,
)
from mgm.spec import (
    ApplyOptions,
    Clips,
    Data,
    Decoder,
    Finetune,
    Model,
    PredictOptions,
    Pretrain,
    Probe,
    Views,
)
from mgm.stages import apply as applied
from mgm.stages.apply import embed, predict
from mgm.stages.evaluate import recorded_classes
from mgm.video.loader import test_loader as views_loader
from tests.helpers.videos import moving_square, write_video

# Features on a GPU are in half precision.
pytestmark = pytest.mark.usefixtures("cpu")
SMALL = {
    "data": Data(dataset="folder"),
    "clips": Clips(frames=4, size=24, stride=2),
    "model": Model(width=16, depth=2, heads=2, patch=8),
}
FINETUNE, PRETRAIN = (
    Finetune(**SMALL),
    Pretrain(**SMALL, decoder=Decoder(width=8, depth=1, heads=2)),
)


@pytest.fixture
def place(tmp_path, monkeypatch, videos) -> Path:
    """Return a folder with a fine-tuned run, a pretrained run and generated clips.

    Four clips are in `videos`, next to a broken file; one is `film.mp4`.
    """
    for name, spec, model in (
        ("run", FINETUNE, build_classifier(FINETUNE, 3)),
        ("pretrained", PRETRAIN, build_mae(PRETRAIN)),
    ):
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        (tmp_path / name).mkdir()
        (tmp_path / name / "spec.json").write_text(spec.model_dump_json())
        save_weights(model, tmp_path / name / "weights.safetensors")
    for path in sorted(videos.rglob("*.mp4"))[:4]:
        (tmp_path / "videos" / "deep").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "videos" / "deep" / path.name)
    shutil.copy(path, tmp_path / "film.mp4")
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "classes.txt").write_text("up\ndown\naside\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def features_of(spec, weights, views):
    model = build_frozen_encoder(Probe(data=spec.data, clips=spec.clips, model=spec.model), weights)
    found, *_ = applied.find_videos(Path("videos"))
    batches = views_loader(list(found.values()), spec.clips, views, batch=1)
    with torch.inference_mode():
        return np.stack([model(batch.frames_BTHWC).numpy() for batch in batches])


def test_features_are_the_means_over_views_and_name_what_was_left_out(place):
    words = ["embed", "videos", "--weights", "run", "--out", "features.npz", "--temporal", "2"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, (done.output, done.exception)
    file = np.load("features.npz")
    assert file["path_N"].tolist() == sorted(
        f"deep/{path.name}" for path in Path("videos/deep").iterdir()
    )
    expected_NVD = features_of(
        FINETUNE, Path("run/weights.safetensors"), Views(temporal=2, spatial=1)
    )
    # Sums of products in batches may have another order.
    np.testing.assert_allclose(file["feature_ND"], expected_NVD.mean(1), rtol=1e-4, atol=1e-6)
    assert "4 videos, width 16; 1 were left out" in done.output
    assert "left out: broken.mp4: " in done.output
    one = mgm.load("run").embed(f"videos/{file['path_N'][2]}", clips=2)
    np.testing.assert_allclose(one, file["feature_ND"][2], rtol=1e-4, atol=1e-6)


def test_predictions_are_one_table(place):
    assert "4 videos, 3 classes" in predict(
        Path("videos"), Path("run"), Path("p.csv"), Path("classes.txt"), HOW
    )
    table = pd.read_csv("p.csv")
    scores = table[["score up", "score down", "score aside"]]
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=2e-4)
    assert (scores.idxmax(axis=1) == "score " + table.prediction).all()
    assert table.path.is_monotonic_increasing


def test_a_video_that_is_damaged_after_it_was_found_is_left_out(place, monkeypatch):
    damaged, found = sorted(Path("videos/deep").iterdir())[2], applied.find_videos(Path("videos"))
    embed(Path("videos"), Path("run"), Path("all.npz"), HOW)
    damaged.write_bytes(b"no video")
    monkeypatch.setattr(applied, "find_videos", lambda source: found)
    assert "2 were left out" in embed(Path("videos"), Path("run"), Path("some.npz"), HOW)
    whole, some = np.load("all.npz"), np.load("some.npz")
    kept = whole["path_N"] != f"deep/{damaged.name}"
    assert some["path_N"].tolist() == whole["path_N"][kept].tolist()
    np.testing.assert_allclose(some["feature_ND"], whole["feature_ND"][kept], rtol=1e-4, atol=1e-6)


HOW = PredictOptions(temporal=2, spatial=1)


@pytest.mark.parametrize(
    "command",
    [
        "embed film.mp4 --weights run --out mine.npz",
        "predict film.mp4 --weights run --out mine.csv",
    ],
)
def test_only_force_replaces_a_file(place, command):
    out = Path(command.rpartition(" ")[2])
    out.write_text("years of work")
    refused = CliRunner().invoke(app, shlex.split(command))
    assert f"{out}: exists" in str(refused.exception)
    assert out.read_text() == "years of work"
    assert CliRunner().invoke(app, [*shlex.split(command), "--force"]).exit_code == 0
    assert out.read_bytes() != b"years of work"


def test_the_order_of_classes_is_that_of_their_numbers(tmp_path):
    """Hugging Face sorts the keys of id2label as text: 0, 1, 10, 11, 2."""
    names = [f"class {label}" for label in range(12)]
    pairs = sorted((str(label), name) for label, name in enumerate(names))
    (tmp_path / "config.json").write_text(pd.io.json.ujson_dumps({"id2label": dict(pairs)}))
    assert recorded_classes(tmp_path) == names
    (tmp_path / "config.json").write_text('{"id2label": {"0": "a", "2": "b"}}')
    with pytest.raises(UserError, match=r"config\.json: id2label"):
        recorded_classes(tmp_path)


def test_a_video_shorter_than_a_clip_has_no_feature(place):
    write_video(place / "short.mp4", moving_square(3, 32, 32))
    with pytest.raises(UserError, match=r"short\.mp4: has 3 frames, .* 4"):
        mgm.load("run").embed("short.mp4")


def test_weights_alone_say_their_model_and_bad_input_is_one_line(place):
    weights = Path("pretrained/weights.safetensors")
    assert model_of(read_weights(weights), weights) == SMALL["model"].model_copy(
        update={"heads": 1}
    )
    how = ApplyOptions(frames=4, size=24, stride=2, force=True)
    assert "4 videos, width 16" in embed(Path("videos"), weights, Path("f.npz"), how)
    for call, line in (
        (lambda: embed(Path("videos"), weights, Path("f.txt"), how), "f.txt: "),
        (
            lambda: embed(Path("nowhere"), weights, Path("f.npz"), how),
            "nowhere",
        ),
        (
            lambda: embed(Path("videos/broken.mp4"), weights, Path("f.npz"), how),
            "; broken.mp4: ",
        ),
        (
            lambda: predict(Path("videos"), weights, Path("p.csv"), None, HOW),
            "weights.safetensors: has no head.bias",
        ),
        (
            lambda: predict(
                Path("videos"), Path("run"), Path("p.csv"), Path("videos/broken.mp4"), how
            ),
            "broken.mp4",
        ),
    ):
        with pytest.raises(UserError, match=re.escape(line)) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_features_of_an_index_name_class_and_split(place):
    index = generate(
        Synthetic(classes=2, train_per_class=1, test_per_class=1, size=32, frames=16), place / "set"
    )
    embed(Path("set"), Path("run"), Path("of_index.npz"), ApplyOptions())
    file = np.load("of_index.npz")
    assert sorted(file["split_N"]) == ["test", "test", "train", "train"]
    assert [index.classes[label] for label in file["label_N"]] == file["class_N"].tolist()
    predict(Path("set"), Path("run"), Path("of_index.csv"), None, PredictOptions())
    assert pd.read_csv("of_index.csv")["class"].tolist() == file["class_N"].tolist()


def test_weights_that_overflow_have_no_predictions(place):
    path = place / "run" / "weights.safetensors"
    weights = read_weights(path)
    weights["head.weight"].fill_(3.4e38)
    save_file(weights, place / "huge.safetensors")
    how = PredictOptions(frames=4, size=24, stride=2)
    with pytest.raises(UserError, match=r"0 of 1 .*not finite"):
        predict(place / "film.mp4", place / "huge.safetensors", place / "told.csv", None, how)
