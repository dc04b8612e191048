"""The sentences of the overview follow from the numbers."""

from pathlib import Path

import pytest

from mgm.report.cells import fill_all, filled_of
from mgm.report.findings import Findings
from mgm.report.page.overview import caveat, cost, finding, overview
from mgm.report.page.sections import by_class
from mgm.report.tables import views_of
from mgm.results.frame import examine_all
from mgm.spec import OWN, Pretrain
from tests.helpers.fake_results import finish, finish_all, registry


def finished(tmp_path, accuracies, **changes):
    """Return a registry and its runs, with these accuracies per row and seed in Table 4e."""
    known = registry(**changes)
    for cell in known.tables["4e"].cells:
        for run, top1 in zip(cell.runs, accuracies.get(cell.row, ())):
            finish(tmp_path, run, top1, videos=1000)
    found = examine_all(tmp_path, known.specs)
    return known, found


def told(tmp_path, accuracies, name="smoke", **changes):
    """Return comparisons and conclusions for these accuracies per row and seed in Table 4e."""
    known, found = finished(tmp_path, accuracies, name=name, **changes)
    said = overview(known, found, views_of(known, fill_all(Findings(known, found, Path()))), [])
    return [text for text, _ in said["compares"]], [text for text, _ in said["concludes"]]


OTHERS = ("Random Block", "SMM (Sparse)", "Random Tube", "MGM (Sparse)", "SMM (Dense)")


def test_ours_is_above_below_or_within_noise_of_each_mask(tmp_path):
    accuracies = dict.fromkeys(OTHERS, (60.0, 60.1, 60.2)) | {
        "MGM (Dense)": (70.0, 70.2, 70.1),
        "No pretraining": (10.0, 10.1, 10.3),
    }
    accuracies |= {"Random Tube": (80.0, 80.0, 80.3), "SMM (Dense)": (70.1, 69.0, 71.3)}
    compares, _ = told(tmp_path, accuracies)
    ours = next(
        text for text in compares if text.startswith("Other masks, SSv2 stand-in (generated):")
    )
    assert "is above Random Block, SMM (Sparse), MGM (Sparse);" in ours
    assert "; below Random Tube;" in ours
    assert "; within noise of 1 of 5 (" in ours
    gains = [
        text for text in compares if text.startswith("No pretraining, SSv2 stand-in (generated):")
    ]
    assert len(gains) == 1
    assert (
        "6 masks of Table 4e is +56.6 points [" in gains[0]
    )  # (60.1 * 3 + 80.1 + 70.13 + 70.1) / 6 - 10.13
    assert "noise" not in gains[0]


def test_a_mask_that_is_not_run_leaves_the_mean_gain_of_the_others(tmp_path):
    accuracies = dict.fromkeys(OTHERS, (60.0, 60.0, 60.0)) | {"No pretraining": (10.0, 10.0, 10.0)}
    compares, _ = told(tmp_path, accuracies)
    gains = [text for text in compares if text.startswith("No pretraining")]
    assert gains
    assert all("5 masks of Table 4e is +50.0 points" in gain for gain in gains)


def found_in(tmp_path, accuracies, **changes):
    """Return the main finding for these accuracies per row and seed in Table 4e."""
    known, found = finished(tmp_path, accuracies, **changes)
    return finding(known, views_of(known, fill_all(Findings(known, found, Path()))), {"4_seeds"})


def test_the_finding_names_the_base_and_the_nearest_mask_with_their_intervals(tmp_path):
    accuracies = dict.fromkeys(OTHERS, (60.0, 60.1, 60.2)) | {
        "MGM (Dense)": (70.0, 70.2, 70.1),
        "No pretraining": (10.0, 10.1, 10.3),
        "Random Tube": (80.0, 80.0, 80.3),
        "Histogram of motion vectors, 81 numbers": (40.0,),
    }
    lead = found_in(tmp_path, accuracies)
    assert (lead["table"], lead["figure"]) == ("4e", "4_seeds")
    said = lead["sentence"]
    assert "linear probe" in said
    assert ": MGM (Dense) reaches 70.1 % top-1 accuracy (mean of 3 seeds)" in said
    # Differences by seed: 60.0, 60.1, 59.8, and -10.0, -9.8, -10.2.
    assert "60.0 points [59.6, 60.3] above No pretraining" in said
    assert "10.0 points [9.5, 10.5] below Random Tube, the best of 5 other masks" in said
    assert "Without a model: 40.0 %" in said


def test_nothing_is_found_before_the_first_run(tmp_path):
    assert found_in(tmp_path, {})["sentence"] == ""


def test_one_seed_tells_no_two_methods_apart(tmp_path):
    rows_of = (*OTHERS, "MGM (Dense)")
    compares, concludes = told(
        tmp_path, dict.fromkeys(rows_of, (60.0,)) | {"No pretraining": (10.0,)}, seeds=(0,)
    )
    assert not [text for text in compares if text.startswith("Other masks")]
    assert [
        text.endswith(", from one seed.") for text in compares if text.startswith("No pretraining")
    ] == [True, True]
    single = [text for text in concludes if "rest on one seed" in text]
    assert len(single) == 1
    assert (
        len(set(single[0].split()[0:3:2])) == 1
    )  # "14 of 14", or more where other tables share the runs


@pytest.mark.parametrize(
    ("name", "words"),
    [("smoke", "no difference is shown"), ("paper", "inside our 95 % interval in 1 of 2 cells")],
)
def test_the_paper_is_compared_with_at_its_scale_alone(tmp_path, name, words):
    """The paper's 67.3 is inside [67.1, 67.5], and its 62.9 is below [66.4, 67.4].

    The mean of the differences +0.0 and +4.0 is +2.0.
    """
    accuracies = {"MGM (Dense)": (67.2, 67.3, 67.4), "Random Block": (66.7, 66.9, 67.1)}
    compares, _ = told(
        tmp_path, accuracies, name, more_seeds={"table4a": (7,), "table4b": (7,), "table4c": (7,)}
    )
    assert words in compares[0]
    assert ("is +2.0 points" in compares[0]) == (name == "paper")


def test_costs_add_up(tmp_path):
    known = registry()
    finish_all(tmp_path, known, steps=2)
    (tmp_path / next(iter(known.specs)) / "result.json").unlink()
    everything, verbs, targets = cost(known, examine_all(tmp_path, known.specs))
    assert everything == [
        (
            "All",
            "#runs",
            len(known.specs),
            len(known.specs) - 1,
            pytest.approx(12.5 * (len(known.specs) - 1)),
        )
    ]
    for column in (2, 3, 4):
        assert sum(line[column] for line in verbs) == pytest.approx(everything[0][column])
    lines = {line[0]: line for line in targets}
    assert lines["Table 4e"][2] == len(known.runs_of("table4e"))
    assert set(lines) >= {"Table 4e", "Table 4, edge", "Figure 4a", "Figure 5"}


def classes_of(tmp_path):
    """Return the accuracies by class of two runs, each with 240 predictions of 12 classes.

    Their first 60 and 120 predictions are correct; the others name the next class.
    """
    known = registry()
    cell = next(cell for cell in known.tables["4e"].cells if cell.row == "MGM (Dense)")
    for run, top1 in zip(cell.runs[:2], (25.0, 50.0)):
        finish(tmp_path, run, top1, videos=240)
    found = examine_all(tmp_path, known.specs)
    return by_class(
        next(
            row
            for row in filled_of(known.tables["4e"], fill_all(Findings(known, found, Path())))
            if row.runs == cell.runs
        ),
        tmp_path,
        found,
    )


def test_predictions_of_all_runs_are_counted_by_class(tmp_path):
    found = classes_of(tmp_path)
    assert found["runs"] == 2
    assert len(found["lines"]) == 12
    for line in found["lines"]:
        assert (line["predictions"], line["accuracy"]) == (40, pytest.approx(37.5))
        assert line["confused_with"] == str((int(line["name"]) + 1) % 12)
        assert line["confused"] == pytest.approx(62.5)
    assert found["matrix"]["3"]["3"] == pytest.approx(37.5)
    assert found["matrix"]["3"]["4"] == pytest.approx(62.5)
    assert sum(found["matrix"]["3"].values()) == pytest.approx(100)


def test_many_classes_have_no_matrix(tmp_path, monkeypatch):
    monkeypatch.setattr("mgm.report.page.sections.LARGEST_MATRIX", 11)
    found = classes_of(tmp_path)
    assert found["matrix"] == {}
    assert len(found["lines"]) == 12


def test_without_predictions_there_is_none(tmp_path):
    assert by_class(None, tmp_path, {}) is None


def test_the_caveat_of_own_videos_names_the_clips_that_models_are_trained_on(tmp_path):
    """Figure 5 shows clips of 224 x 224, which are larger than the training clips."""
    known = registry(seeds=(0,), datasets=(OWN,), name="boxing", other_masks=False)
    trained = [spec for spec in known.specs.values() if isinstance(spec, Pretrain)]
    assert known.figures["5"].run.clips.size > trained[0].clips.size
    text = caveat(known, examine_all(tmp_path, known.specs))
    size = trained[0].clips.size
    assert f"clips of {trained[0].clips.frames} x {size} x {size})" in text
