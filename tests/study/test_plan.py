"""The plan's arithmetic, compared with the models, a slow version and a published time."""

import json
import math
import re
from dataclasses import replace
from itertools import pairwise, permutations

import pandas as pd
import pytest
from typer.testing import CliRunner

from mgm.cli import app
from mgm.dag.study import Workflow
from mgm.data.synthetic.params import Synthetic
from mgm.errors import UserError
from mgm.models import build_classifier, build_mae
from mgm.report.compute_plan import describe, draw, write_json
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
    parents,
)
from mgm.spec.compute import multiply_adds, parameters
from mgm.study.machine import Machine, machine, read_measured
from mgm.study.plan import check, cost, cpu_hours, make_plan, wall
from mgm.study.quoted import PEAK

SSV2 = Data(dataset="ssv2")
CLIPS = Clips(frames=8, size=32)


def videos_of(train, test):
    """Return a dataset of ten classes with this number of videos."""
    return replace(PUBLISHED["ssv2"], train=train, test=test, classes=10)


SIZES = {
    "vit": Model(width=32, depth=3, heads=2, patch=8),
    "timesformer": Model(backbone="timesformer", width=16, depth=2, heads=2, patch=16),
}


@pytest.fixture(scope="module")
def registry():
    return Workflow({"scale": "paper"}).registry


@pytest.fixture(scope="module")
def plan(registry):
    return make_plan(registry, machine("h100", 0.4, 64), 0.4)


@pytest.mark.parametrize("size", SIZES)
def test_parameters_are_the_models_own(size):
    mae = Pretrain(
        data=SSV2, clips=CLIPS, model=SIZES[size], decoder=Decoder(width=12, depth=2, heads=2)
    )
    assert parameters(mae, 0) == sum(weight.numel() for weight in build_mae(mae).parameters())
    classifier = Finetune(data=SSV2, clips=CLIPS, model=SIZES[size])
    assert parameters(classifier, 7) == sum(
        weight.numel() for weight in build_classifier(classifier, 7).parameters()
    )


def test_a_run_by_hand():
    """A view of ViT-B takes 180.3e9 multiply-adds and the last layer's 768 x 10.

    Ten epochs are 7 whole batches of 4 videos each, two clips per video.
    """
    videos, gpu = videos_of(30, 5), Machine("slow", 1e12, 1, 1)
    optim = FinetuneOptim(batch=4, epochs=10)
    spec = Finetune(
        data=SSV2, optim=optim, augment={"repeats": 2}, views=Views(temporal=2, spatial=3)
    )
    view = 2 * (180.3e9 + 7680)
    got = cost(spec, videos, gpu)
    assert got.needs == pytest.approx(280 / (got.train / 1e12))
    assert got.train == pytest.approx(3 * 560 * view, rel=3e-4)  # 180.3 is rounded
    assert got.test == pytest.approx(5 * 6 * view, rel=3e-4)
    assert got.hours == pytest.approx((got.train + got.test) / 1e12 / 3600)
    probed = cost(Probe(data=SSV2, train_clips=2, views=Views(temporal=2, spatial=3)), videos, gpu)
    assert (probed.train, probed.test) == (
        pytest.approx(60 * view, rel=3e-4),
        pytest.approx(30 * view, rel=3e-4),
    )
    assert probed.checkpoint == probed.weights == 0


def test_the_published_time():
    """800 x 240,000 clips took 27 h on 64 V100s of 125 TFLOP/s.

    A clip is 35.4e9 multiply-adds in the official code (test_compute), six FLOPs each.
    """
    got = check(0.4)
    assert got.flops == pytest.approx(800 * 240_000 * 35.4e9 * 6, rel=1.5e-3)  # 35.4 is rounded
    assert got.implied == pytest.approx(got.flops / (64 * 125e12 * 27 * 3600))
    assert got.planned_h / got.hours == pytest.approx(got.implied / 0.4)
    assert 0.05 < got.implied < 0.055
    assert check(got.implied).planned_h == pytest.approx(27)


def test_wall_time_against_every_order(registry):
    """With two runs at a time, no order of Table 4c's runs ends earlier than ours.

    With one at a time, the time is the sum.
    """
    specs = registry.runs_of("table4c")
    hours = {run_id: 1 + sum(map(ord, run_id)) % 7 for run_id in registry.specs}

    def slow(order):
        free, ended = [0.0, 0.0], dict[str, float]()
        for spec in order:
            if any(parent not in ended for parent in parents(spec)):
                return math.inf
            slot = min(range(2), key=lambda place: free[place])
            start = max(free[slot], *(ended[parent] for parent in parents(spec)), 0.0)
            free[slot] = ended[spec.run_id] = start + hours[spec.run_id]
        return max(ended.values())

    whole = sum(hours[spec.run_id] for spec in specs)
    assert wall(specs, hours, Machine("x", 1, 2, 1)) == min(map(slow, permutations(specs)))
    assert wall(specs, hours, Machine("x", 1, 1, 1)) == whole
    assert wall(specs, hours, Machine("x", 1, 4, 4)) == pytest.approx(whole / 4)


def test_the_parts_of_the_paper(plan, registry):
    parts = pd.DataFrame(plan.parts).set_index("target")
    whole, table4e, table4d = (parts.loc[name] for name in ("all", "table4e", "table4d"))
    assert parts.index[-1] == "all"
    assert whole.runs == len(registry.specs)
    assert (parts.hours <= whole.hours).all()
    assert (parts.own_hours <= parts.hours).all()
    assert (parts.wall_h <= whole.wall_h + 1e-9).all()
    assert parts.hours[:-1].sum() > whole.hours  # shared runs count once
    assert whole.hours == pytest.approx(whole.flops / (989e12 * 0.4) / 3600)
    assert table4e.runs == len(registry.runs_of("table4e"))
    # Its rows of MGM and of random tubes are also in other tables.
    assert 0 < table4e.own_hours < table4e.hours
    assert table4d.own_hours == pytest.approx(table4d.hours)
    assert whole.wall_h >= max(whole.hours / 64, sum(hours for _, hours in plan.chain))
    assert "figure5" not in parts.index


def test_the_critical_path_is_a_chain_and_the_longest(plan, registry):
    ids = [run_id for run_id, _ in plan.chain]
    for before, after in pairwise(ids):
        assert before in parents(registry.specs[after])
    assert not parents(registry.specs[ids[0]])
    # Slow version: the time of each run with all its ancestors. Runs of two parents are left out.
    costs = {
        run_id: cost(spec, PUBLISHED[spec.data.dataset], plan.machine).hours
        for run_id, spec in registry.specs.items()
    }
    longest = max(
        sum(costs[earlier.run_id] for earlier in registry.with_parents([run_id]))
        for run_id, spec in registry.specs.items()
        if len(parents(spec)) < 2
    )
    assert sum(hours for _, hours in plan.chain) == pytest.approx(longest / 8)


def test_compute_stands_beside_epochs(plan):
    lines = {(line["target"], line["row"]): line for line in plan.lines}
    mgm, videomae = lines["table1", "MGM, K400, 800"], lines["table1", "VideoMAE, K400, 800"]
    assert (mgm["epochs"], videomae["epochs"]) == (800, 800)
    # Multiply-adds as in test_compute, rounded.
    assert (
        mgm["pretrain"] / videomae["pretrain"]
        == pytest.approx(mgm["equivalent_epochs"] / 800)
        == pytest.approx(55.0 / 33.35, rel=0.002)
    )
    assert videomae["equivalent_epochs"] == 800
    assert lines["table2a", "MGM + K400 Finetune"]["supervised"] == (75, 100)
    assert lines["table2a", "Supervised (K400)"]["epochs"] == 0
    assert {target for target, _ in lines} >= {"table1", "table4e", "figure4a"}
    text = describe(plan)
    assert "costs 1.65 times an epoch at 0.9 (1.62 times in the" in text.replace("\n", " ")
    assert "Table 4e alone: " in text


def test_json_and_picture(plan, tmp_path):
    write_json(plan, tmp_path / "plan.json")
    fields = json.loads((tmp_path / "plan.json").read_text())
    assert fields["parts"][-1]["hours"] == plan.parts[-1]["hours"]
    assert fields["machine"]["decoded"] is None
    for name in ("plan.svg", "plan.png", "again.svg"):
        draw(plan, tmp_path / name)
    assert (tmp_path / "plan.svg").read_bytes() == (tmp_path / "again.svg").read_bytes()
    with pytest.raises(UserError, match=r"plan\.txt: .*\.png"):
        draw(plan, tmp_path / "plan.txt")


def test_what_is_no_machine_nor_target(registry):
    with pytest.raises(UserError, match="--gpu b7: .*h100.*--clips-per-s"):
        machine("b7", 0.4, 64)
    with pytest.raises(UserError, match="--gpus-per-run 8: .* --gpus 4"):
        machine("h100", 0.4, 4, 8)
    given = machine("a100", 0.4, 4)
    assert (given.flops, given.gpus_a_run, given.slots) == (PEAK["a100"] * 0.4, 4, 1)
    with pytest.raises(UserError, match="table9: "):
        make_plan(registry, given, 0.4, "table9")


def test_generated_datasets_count_by_their_parameters(tmp_path, monkeypatch):
    """A probe reads every training video once, and the test videos as often as it has views."""
    monkeypatch.chdir(tmp_path)
    registry = Workflow({"study": "features"}).registry
    (drawn, *_) = (Synthetic(**data.generate) for data in registry.scale.datasets.values())
    probe = next(spec for spec in registry.specs.values() if isinstance(spec, Probe))
    views = probe.views.temporal * probe.views.spatial
    videos = probe.train_clips * drawn.train_per_class + views * drawn.test_per_class
    videos *= drawn.classes
    hours = cpu_hours(registry, 1e9)[probe.run_id]
    assert hours == pytest.approx(2 * multiply_adds(probe) * videos / 1e9 / 3600)
    said = CliRunner().invoke(app, ["plan", "--study", "features"]).output
    assert re.search(rf"^ *{len(registry.specs)} +0 .* all$", said, re.MULTILINE)


def test_the_plan_takes_its_rate_from_the_gpu_bench(tmp_path, monkeypatch):
    """The files have the format of bench/gpu.py.

    Jobs compile their models, so the compiled rate goes before the eager one. Toy sizes do not
    count.
    """
    assert not read_measured(tmp_path)
    (tmp_path / "machine.json").write_text(
        json.dumps({"chip": "NVIDIA H200", "date": "2026-11-21T09:00:00+00:00"})
    )
    lines = [["toy, pretraining at 0.75, ours eager", {"clips_per_s": 5.0}]]
    for name, rate in (
        (None, None),
        ("ours eager", 800.0),
        ("ours compile", 1000.0),
        ("transformers sdpa eager", 9.0),
    ):
        lines += [[f"ViT-B, pretraining at 0.75, {name}", {"clips_per_s": rate}]] if name else []
        (tmp_path / "step.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        read = read_measured(tmp_path)
        assert read.get("clips_per_s") == (rate if name is None or "ours" in name else 1000.0)
    monkeypatch.chdir(tmp_path)
    given = {
        "measured": ["--measured", str(tmp_path)],
        "assumed": ["--gpu", "h100"],
        "7 clips/s": ["--clips-per-s", "7"],
    }
    told = {
        source: CliRunner()
        .invoke(app, ["plan", "--target", "table4e", "--gpus", "8", *given[source]])
        .output
        for source in given
    }
    for source, text in told.items():
        assert source in next(line for line in text.splitlines() if "TFLOP/s per GPU" in line)
    assert "NVIDIA H200" in told["measured"]
    (tmp_path / "step.jsonl").write_text("[")
    with pytest.raises(UserError, match=f"{tmp_path}: .*line 1 column 2"):
        read_measured(tmp_path)
