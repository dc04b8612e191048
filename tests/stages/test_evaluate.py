"""`mgm predict --split test` repeats the test of a fine-tuning run."""

import csv
import json

import pytest
import torch
from typer.testing import CliRunner

from mgm.cli import app
from mgm.data.index import read_index
from mgm.models import build_classifier, save_weights
from mgm.spec import PredictOptions, Views, read_spec
from mgm.stages import frozen
from mgm.stages.apply import predict
from mgm.stages.export import export
from mgm.stages.finetune import finetune
from mgm.stages.runner import run_all
from tests.helpers.errors import refused
from tests.helpers.small_runs import SMALL

# Weights without a run have no clips.
CLIPS = {"frames": 4, "size": 24, "stride": 2}


@pytest.fixture
def run(execution, finetuning):
    """Return the folder of a run that was fine-tuned from scratch."""
    spec = finetuning.model_copy(update={"parent": ""})
    run_all([spec], finetune, execution)
    return execution.results / spec.run_id


def columns(path, *names):
    with path.open() as file:
        return [[row[name] for name in names] for row in csv.DictReader(file)]


def test_predictions_and_top1_are_those_of_the_run(run, videos, tmp_path):
    words = ["predict", videos, "--weights", run, "--out", tmp_path / "p.csv", "--split", "test"]
    words += ["--temporal", 2, "--spatial", 1]
    done = CliRunner().invoke(app, list(map(str, words)))
    top1 = json.loads((run / "result.json").read_text())["metrics"]["top1"]
    assert done.output.endswith(f"p.csv: 12 videos, 3 classes; top-1 {top1:.2f}\n")
    written = columns(tmp_path / "p.csv", "path", "class", "prediction")
    assert written == columns(run / "predictions.csv", "path", "label", "prediction")
    assert "label" not in " ".join(map(str, written))


def test_other_weights_views_and_splits(run, videos, tmp_path):
    how = PredictOptions(temporal=2, spatial=1, split="test")
    line = predict(videos, run, tmp_path / "own.csv", None, how)
    for to in ("hf", "videomae"):
        export(run, to, tmp_path / to)
        named = how.model_copy(update=CLIPS)
        out = tmp_path / f"{to}.csv"
        assert predict(videos, tmp_path / to, out, videos, named).endswith(line.rpartition(";")[2])
    model = build_classifier(read_spec(run), classes=3)
    with torch.no_grad():
        # Always predict the second class.
        model.head.bias[1] += 100
    save_weights(model, tmp_path / "one.safetensors")
    one = PredictOptions(split="train", temporal=1, **CLIPS)
    told = predict(videos, tmp_path / "one.safetensors", tmp_path / "one.csv", None, one)
    assert "24 videos" in told
    assert told.endswith("top-1 33.33")


def test_a_split_needs_an_index_with_the_classes_of_the_weights(run, videos, tmp_path):
    how = PredictOptions(split="test", **CLIPS)
    with refused("--split test", "is no index"):
        predict(next(videos.rglob("*.mp4")), run, tmp_path / "p.csv", None, how)
    save_weights(build_classifier(read_spec(run), classes=5), tmp_path / "five.safetensors")
    with refused("--split test", "5 classes"):
        predict(videos, tmp_path / "five.safetensors", tmp_path / "p.csv", None, how)


def test_batches_from_workers_keep_their_videos(videos, monkeypatch):
    """Workers write later batches into the memory of earlier ones."""
    monkeypatch.setattr(frozen, "CLIPS", 1)
    test, views = read_index(videos).test, Views(temporal=1, spatial=1)
    clips = SMALL["clips"]
    found = list(frozen.over_videos(torch.clone, test, clips, views, workers=1))
    assert [sample_B.tolist() for _, sample_B in found] == [[n] for n in range(len(test))]
