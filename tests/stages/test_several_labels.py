"""Videos with several labels each, as in docs/own-videos.md."""

import csv
import json
import re
import shlex
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from typer.testing import CliRunner

from mgm.cli import app
from mgm.data.index import read_index
from mgm.errors import UserError
from mgm.results.result import examine
from mgm.results.statistics import (
    average_precision,
    mean_average_precision,
    precision_interval,
)
from mgm.spec import (
    ApplyOptions,
    Augment,
    Clips,
    Data,
    Finetune,
    FinetuneOptim,
    Model,
    Probe,
    Views,
)
from mgm.stages.export import export
from mgm.stages.finetune import require_one_label
from mgm.stages.measure.controls import controls, describe
from mgm.stages.predict import predict

PAGE = (Path(__file__).parents[2] / "docs" / "own-videos.md").read_text()
SECTION = PAGE.split("## Several labels per video")[1].split("\n## ")[0]
COMMANDS = re.findall(r"^mgm [^\n]*", SECTION, re.MULTILINE)
OPTIM = FinetuneOptim(lr=0.02, batch=4, steps=6, precision="float32")


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30))
def test_average_precision_is_scikit_learns(pairs):
    score_N, positive_N = np.array([p[0] / 7 for p in pairs]), np.array([p[1] for p in pairs])
    if positive_N.any():
        wanted = average_precision_score(positive_N, score_N)
        assert average_precision(score_N, positive_N) == pytest.approx(wanted, abs=1e-12)


def test_the_mean_leaves_out_classes_without_a_video_and_its_interval_holds_it():
    draw = np.random.default_rng(0)
    positive_NC = draw.random((60, 4)) < 0.3
    positive_NC[:, 2] = False
    score_NC = draw.random((60, 4)) + 0.5 * positive_NC
    found = mean_average_precision(score_NC, positive_NC)
    wanted = [average_precision_score(positive_NC[:, c], score_NC[:, c]) for c in (0, 1, 3)]
    assert found == pytest.approx(100 * np.mean(wanted))
    low, high = precision_interval(score_NC, positive_NC, resamples=200)
    assert low < found < high


def test_the_pages_commands(several):
    common = {"clips": Clips(frames=4, size=24, stride=2, flip=False),
              "model": Model(backbone="vit-small", width=16, depth=2, heads=2, patch=8),
              "data": Data(dataset="several"), "views": Views(temporal=2, spatial=1)}  # fmt: skip
    Path("several.json").write_text(Finetune(**common, optim=OPTIM).model_dump_json())
    for command in COMMANDS:
        words = shlex.split(command)[1:]
        if words[0] == "probe":
            fields = json.loads(Probe(**common).model_dump_json())
            for part in ("clips", "model", "views"):
                for name, value in fields[part].items():
                    words += ["--set", f"{part}.{name}={json.dumps(value)}"]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, (command, done.output, done.exception)
    assert len(COMMANDS) == 3

    index = read_index(Path("data/several"))
    assert index.several_labels
    (run,) = Path("results").glob("finetune-*")
    predict(Path("data/several"), run, Path("p"), Path("data/several"), ApplyOptions(temporal=2))
    predicted = pd.read_parquet("p/scores.parquet").set_index("path")["odd"]
    # The weights alone and an export score by the sigmoid too.
    export(run, "hf", Path("exported"))
    for weights in (run / "weights.safetensors", Path("exported")):
        how = ApplyOptions(temporal=2, frames=4, size=24, stride=2)
        predict(Path("data/several"), weights, Path("q") / weights.name, None, how)
        alone = pd.read_parquet(Path("q") / weights.name / "scores.parquet").set_index("path")
        assert alone[list(index.classes)].sum(axis=1).max() > 1.01
    with (run / "predictions.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            assert predicted[row["path"]] == pytest.approx(float(row["odd"]), abs=1e-5)
    assert "odd" in index.classes
    assert {len(video.labels) for video in index.videos} == {1, 2}
    for folder in Path("results").glob("*-*"):
        if not (folder / "result.json").is_file():
            continue
        result = json.loads((folder / "result.json").read_text())
        rows = list(csv.DictReader((folder / "predictions.csv").open(newline="")))
        assert len(rows) == result["n_test"] == len(index.test)
        score_NC = np.array([[float(row[name]) for name in index.classes] for row in rows])
        given_NC = np.array(
            [[name in row["labels"].split(";") for name in index.classes] for row in rows]
        )
        wanted = average_precision_score(given_NC, score_NC, average="macro")
        assert result["metrics"]["map"] == pytest.approx(100 * wanted)
        assert result["metrics"]["map_low"] <= result["metrics"]["map"]


def test_controls_are_mean_average_precisions(several):
    CliRunner().invoke(app, shlex.split(COMMANDS[0])[1:])
    index = read_index(Path("data/several"))
    like = Probe(data=Data(dataset="several"))
    table = controls(index, like, weights=False).set_index("control")
    share_C = np.mean(
        [[label in video.labels for label in range(len(index.classes))] for video in index.test], 0
    )
    assert table.chance.to_list() == pytest.approx([100 * share_C[share_C > 0].mean()] * len(table))
    done = table[table.why == ""]
    assert ((done.ci_low <= done.top1) & (done.top1 <= done.ci_high)).all()
    # Motion distinguishes the classes.
    assert done.top1["vector_histogram"] > done.chance.iloc[0] + 10
    assert "mAP  95 % interval" in describe(table.reset_index(), index, 1)


def test_a_score_that_was_changed_is_found(several):
    common = {"clips": Clips(frames=4, size=24, stride=2), "views": Views(temporal=1, spatial=1),
              "model": Model(backbone="vit-small", width=16, depth=1, heads=2, patch=8)}  # fmt: skip
    spec = Probe(data=Data(dataset="several"), **common)
    Path("p.json").write_text(spec.model_dump_json())
    for words in (
        ["prepare", "folder", "--source", "videos.csv", "--out", "data"],
        ["probe", "p.json", "--data", "several=data", "--out", "results"],
    ):
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.exception
    folder = Path("results") / spec.run_id
    assert examine(folder, spec).state == "run"
    lines = (folder / "predictions.csv").read_text().splitlines()
    cells = lines[1].split(",")
    lines[1] = ",".join([*cells[:2], *("0.0" if name in cells[1].split(";") else "1.0"
                                       for name in lines[0].split(",")[2:])])  # fmt: skip
    (folder / "predictions.csv").write_text("\n".join(lines) + "\n")
    assert examine(folder, spec).state != "run"


@pytest.mark.parametrize(
    ("cell", "said"), [("a;", "labels.1"), ("a;a", "different labels"), ("", "labels.0")]
)
def test_labels_that_are_none_are_one_line(several, cell, said):
    lines = Path("videos.csv").read_text().splitlines()
    path, _, split = lines[1].split(",")
    lines[1] = f"{path},{cell},{split}"
    Path("videos.csv").write_text("\n".join(lines))
    done = CliRunner().invoke(app, ["prepare", "folder", "--source", "videos.csv", "--out", "data"])
    assert said in str(done.exception)


def test_what_needs_one_label_is_refused():
    spec = Finetune(data=Data(dataset="a"), augment=Augment(mixup=0.8))
    with pytest.raises(UserError, match=r"augment\.mixup is 0\.8"):
        require_one_label(spec)


def test_a_probe_of_another_kind_is_refused_before_it_decodes(several, monkeypatch):
    CliRunner().invoke(app, shlex.split(COMMANDS[0])[1:])
    module = import_module("mgm.stages.evaluate")
    monkeypatch.setattr(module, "test_loader", lambda *args, **how: pytest.fail("decodes"))
    words = ["--data", "several=data/several", "--out", "results", "--set", "kind=knn"]
    done = CliRunner().invoke(app, ["probe", *words])
    assert "kind is knn, which needs one label per video" in str(done.exception)
