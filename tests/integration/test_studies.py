"""The numbers of studies in the docs are those of their committed results."""

import importlib.util
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
# Studies import one another.
sys.path.append(str(ROOT / "studies"))


@pytest.mark.parametrize(
    ("study", "csv"),
    [
        ("guidance", "guidance.csv"),
        ("real_clips", "real-clips.csv"),
        ("drawn", "drawn-sets.csv"),
        ("gestures", "gestures.csv"),
        ("gestures_longer", "gestures-longer.csv"),
        ("features", "features.csv"),
        ("motion_target", "motion-target.csv"),
    ],
)
def test_the_csv_holds_every_run(study, csv):
    spec = importlib.util.spec_from_file_location(study, ROOT / "studies" / f"{study}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found, printed = module.probes().round(2), pd.read_csv(ROOT / "docs" / csv)
    pd.testing.assert_frame_equal(found.reset_index(drop=True), printed, check_dtype=False)


def load(study):
    spec = importlib.util.spec_from_file_location(study, ROOT / "studies" / f"{study}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_masks_of_a_drawn_dataset_share_all_but_the_mask():
    """Differences are paired by videos, seed and recipe. Mini was tuned on other data seeds."""
    drawn = load("drawn")
    assert not {0, 1, 2} & set(drawn.DATA_SEEDS)
    (layout, params), *_ = drawn.datasets(["one"], [701])
    assert (layout, params.sprites, params.quick, params.seed) == ("one", 1, 1, 701)
    runs = drawn.specs(params)
    assert set(runs) == set(drawn.TITLES)
    parents = {mask: parent for mask, (parent, _) in runs.items() if parent}
    for parent in parents.values():
        assert (parent.data.digest, parent.seed, parent.optim.steps) == (params.digest, 701, 2800)
        assert parent.model_copy(update={"mask": parents["mgm"].mask}) == parents["mgm"]
    shuffled = parents["shuffled"].mask.model_dump() | {"guidance": "vectors"}
    assert shuffled == parents["mgm"].mask.model_dump()
    ratios = {mask: parent.mask.ratio for mask, parent in parents.items()}
    assert ratios == dict.fromkeys(parents, 0.75) | {"tube": 0.9}
    for mask, (parent, probe) in runs.items():
        assert probe.parent == (parent.run_id if parent else ""), mask
    assert {mask: parents[mask].mask.compensate for mask in parents} == dict.fromkeys(
        parents, "none"
    ) | {"median": "median", "affine": "affine"}


def test_only_the_panning_layout_compensates():
    drawn = load("drawn")
    (_, pan), (_, one) = drawn.datasets(["pan", "one"], [701])
    assert pan.model_copy(update={"pan": one.pan}) == one
    assert set(drawn.masks_of("pan")) - set(drawn.masks_of("one")) == {"median", "affine"}
    assert "none" in drawn.masks_of("one")


def test_a_finished_dataset_is_neither_drawn_nor_run_again(monkeypatch, capsys):
    """The committed archive holds datasets 701 to 708 of layout mini."""
    drawn = load("drawn")
    monkeypatch.setattr(drawn, "generate", lambda *_: pytest.fail("draws a finished dataset"))
    drawn.train(["mini"], [701, 708])
    assert capsys.readouterr().out.count("done already") == 2


def test_a_measured_dataset_is_not_measured_again(tmp_path, monkeypatch):
    """Only missing datasets are added to the table. It is sorted, and each row has its commit."""
    drawn, measured = load("drawn"), []
    monkeypatch.setattr(drawn, "DOCS", tmp_path)
    monkeypatch.setattr(drawn, "generate", lambda params, place: measured.append(params.seed))
    rows = pd.DataFrame(
        [
            ("bytes", "File size", 12.345, 8.33, 480, 10),
            ("duration", "Duration", None, 8.33, 480, 10),
        ],
        columns=["control", "title", "top1", "chance", "n_test", "label_draws"],
    )
    monkeypatch.setattr(drawn, "controls", lambda index, linear, weights: rows)
    monkeypatch.setattr(drawn, "git_commit", lambda: ("abc", True))
    drawn.measure_controls(["mini"], [702])
    drawn.measure_controls(["mini"], [701, 702])
    assert measured == [702, 701]
    found = pd.read_csv(tmp_path / "drawn-controls.csv")
    assert found.data_seed.tolist() == [701, 702]
    assert found.top1.tolist() == pytest.approx([12.345, 12.345], abs=0.006)
    assert set(found.commit) == {"abc-dirty"}


def test_every_way_of_a_gesture_mask_starts_from_its_weights(monkeypatch):
    """Runs of two masks differ only in the mask. Ways share labels and seed, so they are paired."""
    gestures = load("gestures")
    monkeypatch.setattr(gestures, "dataset", lambda: {"dataset": "gestures", "digest": "0" * 64})
    of_masks = gestures.specs(301)
    assert set(of_masks) == set(gestures.TITLES)
    mgm, _ = of_masks["mgm"]
    ids = set()
    for mask, (parent, runs) in of_masks.items():
        assert set(runs) == {(way, labels) for way in gestures.WAYS for labels in gestures.LABELS}
        if parent:
            assert parent.model_copy(update={"mask": mgm.mask}) == mgm
        for (way, labels), run in runs.items():
            assert run.parent == (parent.run_id if parent else ""), (mask, way)
            assert (run.seed, run.data.labels_per_class) == (301, gestures.LABELS[labels][0])
            assert gestures.way_of(run) == way
            ids.add(run.run_id)
    assert len(ids) == len(of_masks) * len(gestures.WAYS) * len(gestures.LABELS)


def test_longer_training_of_gestures_changes_the_steps_alone(monkeypatch):
    gestures, study = load("gestures"), load("gestures_longer")
    monkeypatch.setattr(gestures, "dataset", lambda: {"dataset": "gestures", "digest": "0" * 64})
    first, runs = gestures.specs(301)["mgm"]
    parent, found = study.longer(first, runs, 16_000)
    assert (first.optim.steps, parent.optim.steps) == (2000, 16_000)
    assert parent.model_copy(update={"optim": first.optim}) == first
    assert set(found) == set(runs)
    assert {run.parent for run in found.values()} == {parent.run_id}


def test_the_ladder_starts_at_mini_and_changes_what_it_says():
    """Rungs differ from mini's MGM in steps, width, patch and target alone, on unseen datasets."""
    features, drawn = load("features"), load("drawn")
    assert not set(features.DATA_SEEDS) & set(range(701, 709))
    base, linear = drawn.specs(features.dataset(709))["mgm"]
    assert features.specs(features.RUNGS[1], 709, 709) == (base, [linear])
    ids = set()
    for rung in features.RUNGS:
        for data_seed, seed in rung.on:
            parent, probes = features.specs(rung, data_seed, seed)
            runs = [parent, *probes] if parent else probes
            ids |= {run.run_id for run in runs}
            for run in runs:
                assert run.data.digest == features.dataset(data_seed).digest
                assert run.model.width // run.model.heads == 12
                assert (run.model.width, run.model.patch) == (rung.width, rung.patch)
            if parent:
                assert (parent.optim.steps, parent.target) == (rung.steps, rung.target)
                assert parent.mask == base.mask
                assert 3 * parent.decoder.width == 2 * rung.width
                lr = base.optim.lr * base.model.width
                assert parent.optim.lr * rung.width == pytest.approx(lr)
            assert {probe.parent for probe in probes} == {parent.run_id if parent else ""}
    planned = [run.run_id for _, runs in features.order() for run in runs]
    tuned = {run.run_id for seed in (709, 710) for _, run in features.ceilings(seed).values()}
    assert set(planned) == ids | tuned
    # A parent is in the order before the runs that start from it.
    seen = set()
    for _, runs in features.order():
        for run in runs:
            assert not getattr(run, "parent", "") or run.parent in seen
            seen.add(run.run_id)


def test_a_drawn_datasets_interval_is_over_datasets(tmp_path):
    """Differences are paired within a dataset. Intervals are Student's t over datasets."""
    drawn = load("drawn")
    top1 = {"none": 30, "tube": 50, "block": 55, "smm": 56, "mgm": 60, "shuffled": 61}
    rows = [
        ("mini", seed, mask, value + (seed % 3 if mask == "mgm" else 0), "id", "c")
        for seed in (701, 702, 703)
        for mask, value in top1.items()
    ]
    columns = ["layout", "data_seed", "mask", "top1", "run_id", "commit"]
    table = drawn.estimates(pd.DataFrame(rows, columns=columns)).set_index("what")
    found = table.loc["MGM minus random tube"]
    assert (found["mean"], found.datasets) == (pytest.approx(11), 3)
    assert found.high - found.low == pytest.approx(2 * 4.3027 / 3**0.5)


def test_a_difference_within_noise_does_not_pass_holm():
    """A clear difference passes. A difference with 0 in its interval does not."""
    drawn = load("drawn")
    noise = {701: -4, 702: 5, 703: -1, 704: 2}
    rows = []
    for seed, apart in noise.items():
        top1 = {"none": 20 + apart / 9, "tube": 60 + apart, "block": 30, "smm": 31, "mgm": 60}
        rows += [("one", seed, mask, value, "id", "c") for mask, value in top1.items()]
        rows.append(("one", seed, "shuffled", 29 + apart / 9, "id", "c"))
    columns = ["layout", "data_seed", "mask", "top1", "run_id", "commit"]
    table = drawn.estimates(pd.DataFrame(rows, columns=columns)).set_index("what")
    assert table.holm["MGM minus random weights"] is True
    assert table.holm["MGM minus random tube"] is False
    assert table.holm["MGM"] == ""
