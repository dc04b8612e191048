"""The plan's arithmetic, compared with the models and with numbers by hand."""

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from mgm.cli import app
from mgm.dag.resolved import resolved
from mgm.dag.workflow import Workflow
from mgm.models import build_classifier, build_mae
from mgm.spec import (
    PUBLISHED,
    Clips,
    Data,
    Decoder,
    Finetune,
    FinetuneOptim,
    Model,
    Pretrain,
    Probe,
    Views,
)
from mgm.spec.compute import PEAK, parameters
from mgm.study.cost import cost, costs
from mgm.study.videos import size_of
from tests.helpers.errors import refused

SSV2 = Data(dataset="ssv2")
CLIPS = Clips(frames=8, size=32)
SIZES = {
    "vit": Model(width=32, depth=3, heads=2, patch=8),
    "timesformer": Model(backbone="timesformer", width=16, depth=2, heads=2, patch=16),
}


@pytest.mark.parametrize("size", SIZES)
def test_parameters_are_the_models_own(size):
    mae = Pretrain(
        data=SSV2, clips=CLIPS, model=SIZES[size], decoder=Decoder(width=12, depth=2, heads=2)
    )
    assert parameters(mae, 0) == sum(weight.numel() for weight in build_mae(mae).parameters())
    for head in ("linear", "attentive"):
        classifier = Finetune(data=SSV2, clips=CLIPS, model=SIZES[size], head=head)
        assert parameters(classifier, 7) == sum(
            weight.numel() for weight in build_classifier(classifier, 7).parameters()
        )


def test_a_run_by_hand():
    """A view of ViT-B takes 180.3e9 multiply-adds and the last layer's 768 x 10.

    Ten epochs are 7 whole batches of 4 videos each, two clips per video.
    """
    videos = replace(PUBLISHED["ssv2"], train=30, test=5, classes=10)
    views = Views(temporal=2, spatial=3)
    optim = FinetuneOptim(batch=4, epochs=10)
    spec = Finetune(data=SSV2, optim=optim, augment={"repeats": 2}, views=views)
    view = 2 * (180.3e9 + 7680)
    # 180.3 is rounded.
    assert cost(spec, videos).flops == pytest.approx((3 * 560 + 5 * 6) * view, rel=3e-4)
    frozen = spec.model_copy(update={"head": "attentive"})
    # The backward pass of the head is left out. The head takes 0.1 % of a view.
    assert cost(frozen, videos).flops == pytest.approx((560 + 5 * 6) * view, rel=2e-3)
    probed = cost(Probe(data=SSV2, train_clips=2, views=views), videos)
    assert probed.flops == pytest.approx((60 + 30) * 2 * 180.3e9, rel=3e-4)
    assert probed.parameters == 0


def costs_of(workflow: Workflow, flops: float):
    def videos(data):
        return size_of(workflow.datasets, workflow.key_of(data))

    return costs(workflow.plan, videos, flops)


def test_the_tables_of_the_paper():
    paper = Workflow({"scale": "paper"})
    plan = paper.plan
    table = costs_of(paper, 1e14)
    whole, table4e = table.loc["all"], table.loc["table4e"]
    assert table.index[-1] == "all"
    assert whole["runs"] == len(plan.specs)
    assert table4e["runs"] == len(plan.runs_of("table4e"))
    assert (table["GPU h"] <= whole["GPU h"]).all()
    # Shared runs count once.
    assert table["GPU h"][:-1].sum() > whole["GPU h"]
    flops = sum(cost(spec, PUBLISHED[spec.data.dataset]).flops for spec in plan.runs_of("table4e"))
    assert table4e["GPU h"] == pytest.approx(flops / 1e14 / 3600)
    stages = ["pretrain h", "finetune h", "probe h"]
    assert table[stages].sum(axis=1).to_numpy() == pytest.approx(table["GPU h"].to_numpy())
    # Twice the speed takes half the time and the same disk.
    faster = costs_of(paper, 2e14)
    assert faster["GPU h"].to_numpy() == pytest.approx(table["GPU h"].to_numpy() / 2)
    assert (faster["GB"] == table["GB"]).all()


def test_the_command_prints_the_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["plan", "--study", "drawn", "--gpu", "a100", "--utilisation", "0.1"]
    *_, last = CliRunner().invoke(app, words).output.splitlines()
    drawn = Workflow({"study": "drawn"})
    expected = costs_of(drawn, PEAK["a100"] * 0.1).loc["all"]
    assert last.split()[:2] == ["all", f"{expected['runs']:.0f}"]
    # "<0.1" stands for less than 0.05.
    assert float(last.split()[-2].replace("<0.1", "0")) == pytest.approx(
        expected["GPU h"], abs=0.051
    )


def test_a_runs_fields_name_the_layer_that_sets_them():
    workflow = Workflow({"scale": "smoke"})
    cell = next(cell for cell in workflow.plan.cells if cell.row == "MGM at ratio 0.6")
    table = resolved(workflow, cell.pretraining).set_index("field")
    layers = {"mask.ratio": "row", "clips.frames": "scale", "optim.weight_decay": "recipe"}
    for field, layer in (layers | {"seed": "seed", "--workers": "option"}).items():
        assert table.layer[field] == layer
    assert table.value["mask.ratio"] == "0.6"
    assert "MGM at ratio 0.6" in table.source["mask.ratio"]
    with refused("--spec pretrain-mgm", "smoke"):
        resolved(workflow, "pretrain-mgm")
