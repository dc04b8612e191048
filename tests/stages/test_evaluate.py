"""`mgm evaluate` tests fine-tuned weights from any source again, with the same or other views."""

import csv
import json
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from mgm.cli import app
from mgm.errors import UserError
from mgm.models import build_classifier, save_weights
from mgm.spec import read_spec
from mgm.stages.evaluate import evaluate
from mgm.stages.export import export
from mgm.stages.finetune import finetune
from mgm.stages.runner import run_all


@pytest.fixture
def run(execution, finetuning):
    """Return the folder of a run that was fine-tuned from scratch."""
    spec = finetuning.model_copy(update={"parent": ""})
    run_all([spec], finetune, execution)
    return execution.results / spec.run_id


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def predictions(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_other_views_weights_and_datasets(run, execution, tmp_path, videos):
    assert evaluate(run, None, execution, {"temporal": 1, "spatial": 3}).endswith("1 x 3 views")
    assert "of other," in evaluate(run, None, replace(execution, data={"other": videos}), {})
    for to in ("hf", "videomae"):
        export(run, to, tmp_path / to)
        line = evaluate(run / "spec.json", tmp_path / to, execution, {}, tmp_path / f"{to}-out")
        assert predictions(tmp_path / f"{to}-out" / "predictions.csv") == predictions(
            run / "predictions.csv"
        )
        scores = json.loads((tmp_path / f"{to}-out" / "evaluation.json").read_text())
        assert f"top1 {scores['metrics']['top1']:.2f}" in line
    model = build_classifier(read_spec(run), classes=3)
    with torch.no_grad():
        model.head.bias[1] += 100  # always predicts the second class
    save_weights(model, tmp_path / "one.safetensors")
    assert "top1 33.33" in evaluate(run, tmp_path / "one.safetensors", execution, {})


@pytest.mark.slow  # compiling takes half a minute of a CPU
def test_compiled_blocks_predict_the_same(run, execution, tmp_path):
    torch._dynamo.reset()
    options = execution.options.model_copy(update={"compile": "on"})
    evaluate(run, None, replace(execution, options=options), {}, tmp_path)
    assert torch._dynamo.utils.counters["frames"]["ok"] >= 1
    assert predictions(tmp_path / "predictions.csv") == predictions(run / "predictions.csv")


def test_what_cannot_be_evaluated_is_one_clear_line(run, execution, pretraining, tmp_path):
    for place, weights, out, line in [
        (tmp_path / "none", None, None, f"{tmp_path}/none: "),
        (
            run / "spec.json",
            None,
            None,
            r"spec\.json: .*--weights",
        ),
        (run, tmp_path / "none.pth", None, r"none\.pth: "),
        (
            run,
            None,
            run,
            f"{run}/predictions.csv: ",
        ),
    ]:
        with pytest.raises(UserError, match=line):
            evaluate(place, weights, execution, {}, out)
    save_weights(build_classifier(read_spec(run), classes=5), tmp_path / "five.safetensors")
    with pytest.raises(UserError, match=r"five\.safetensors: .*5 classes"):
        evaluate(run, tmp_path / "five.safetensors", execution, {})
    (tmp_path / "spec.json").write_text(pretraining.model_dump_json())
    with pytest.raises(UserError, match=r"spec\.json: is a pretrain run"):
        evaluate(tmp_path / "spec.json", run / "weights.safetensors", execution, {})


def test_the_command_line(run, videos, tmp_path):
    def mgm(*words):
        return CliRunner().invoke(app, list(map(str, words)))

    top1 = json.loads((run / "result.json").read_text())["metrics"]["top1"]
    before = files(run)
    done = mgm("evaluate", run, "--data", f"ssv2={videos}", "--out", tmp_path / "out", "--force")
    assert files(run) == before
    [line] = done.output.splitlines()
    assert line == f"{run.name}: top1 {top1:.2f} on 12 videos of ssv2, 2 x 1 views"
    assert (tmp_path / "out" / "evaluation.json").exists()
    done = mgm("export", run, "--to", "hf", "--out", tmp_path / "hf", "--index", videos)
    assert done.output.startswith(f"wrote {tmp_path / 'hf'}: ")
    done = mgm("evaluate", run, "--data", f"ssv2={videos}", "--spatial", "2")
    assert str(done.exception) == "views.spatial: Input should be 1 or 3 (got 2)"
