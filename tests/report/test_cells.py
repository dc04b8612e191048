"""Cells, differences and verdicts, against a plain computation with pandas and scipy."""

import shutil
from math import isinf

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mgm.errors import UserError
from mgm.report.cells import by_place, cells, differences, verdicts
from mgm.report.tables import predictions_table
from mgm.results.frame import with_means
from mgm.results.frozen import Frozen
from mgm.results.run import UNFROZEN
from mgm.results.statistics import binomial
from mgm.study.expand import expand
from mgm.study.schema import Prediction
from tests.helpers.archived import archived
from tests.helpers.fake_results import finished, read, results_of, smoke, study_of, suite


def plain(values):
    """Student's interval of a series."""
    half = stats.t.ppf(0.975, len(values) - 1) * values.std() / len(values) ** 0.5
    return values.mean(), max(values.mean() - half, -100), min(values.mean() + half, 100)


def test_the_ladder_is_what_pandas_computes():
    """All means, intervals and paired differences of 1,656 runs."""
    table = pd.read_csv("results/ladder.csv.xz", keep_default_na=False)
    table = table[table.column.isin(["Linear probe", "Fine-tuned, 3 labels"])]
    table = table.assign(value=table.value.astype(float))
    found = archived("ladder")
    own = cells(by_place(found.frame)).set_index(["dataset", "row", "column"])
    for place, values in table.groupby(["dataset", "row", "column"]).value:
        one = own.loc[place]
        assert (one["mean"], one.low, one.high) == pytest.approx(plain(values))
        assert (one.n, one.unit, one.status) == (8, "datasets", "finished")
    wide = table.pivot_table(index=["dataset", "column", "seed"], columns="row", values="value")
    pairs = [("MGM", "Random tube"), ("SMM", "File size"), ("MGM", "SMM")]
    drawn = [name for name, place in found.studies["ladder"].datasets.items() if not place.mean_of]
    study = found.studies["ladder"]
    compared = differences(by_place(found.frame), study, pairs)
    checked = 0
    for one in compared[compared.dataset.isin(drawn)].itertuples():
        values = (wide[one.row] - wide[one.minus])[one.dataset, one.column].dropna()
        assert (one.mean, one.low, one.high) == pytest.approx(plain(values))
        checked += 1
    assert checked == 10 * 2 * 2 + 10


def test_the_ladders_means_over_settings_and_its_verdicts():
    """Each step averaged over its eight settings of discs, as an audit computed it."""
    found = archived("ladder")
    study = found.studies["ladder"]
    table = differences(by_place(found.frame), study)
    table = table[table.dataset == "discs-mean"].set_index(["column", "row", "minus"])
    one = table.loc["Linear probe", "Random block", "Random tube"]
    assert [round(one[name], 1) for name in ("mean", "low", "high")] == [5.9, 4.7, 7.1]
    one = table.loc["Fine-tuned, 3 labels", "MGM", "Random tube"]
    assert [round(one[name], 1) for name in ("mean", "low", "high")] == [8.7, 7.1, 10.4]
    assert (one.n, one.unit) == (8, "datasets")
    table = verdicts(found, "ladder")
    assert table.verdict.value_counts().to_dict() == {"open": 21, "holds": 19, "refuted": 2}
    assert {*table.note} == {""}


def frame_of(tmp_path, study):
    found = expand([study], smoke())
    return finished(tmp_path, found), found


def test_one_run_has_the_interval_of_its_test_videos(tmp_path):
    frame = finished(tmp_path, suite(seeds=(0,)))
    one = cells(by_place(frame)).iloc[2]
    exact = binomial(one["mean"], 240)
    assert (one.low, one.high) == (exact.low, exact.high)
    assert (one.n, one.unit, one.wanted) == (240, "test videos", 1)
    study = archived("smoke").studies["table4e"]
    difference = differences(by_place(frame), study).iloc[0]
    assert difference.unit == "test videos"
    assert difference.low < difference["mean"] < difference.high
    # Older controls do not count theirs.
    older = differences(by_place(frame.assign(n_test=frame.n_test.mask(frame.control, 0))), study)
    assert older[older.column == "Linear probe"].low.map(isinf).all()
    assert not older[older.column == "Fine-tuned"].low.map(isinf).any()


def test_units_are_seeds_or_datasets(tmp_path):
    table = cells(by_place(finished(tmp_path, suite(seeds=(0, 1, 2)))))
    tests = table[~table.control]
    assert {*tests.unit} == {"seeds"}
    assert {*tests.n} == {3}
    # Controls are measured once.
    assert {*table[table.control].unit} == {"test videos"}
    frame, _ = frame_of(tmp_path / "drawn", study_of())
    table = cells(by_place(frame.assign(chance=frame.dataset_seed.astype(float))))
    assert {*table.unit} == {"datasets"}
    # Of the datasets 1 to 8.
    assert {*table.chance} == {4.5}


def test_a_control_stands_for_each_seed_of_its_videos(tmp_path):
    frame = finished(tmp_path, suite(seeds=(0, 1, 2)))
    study = archived("smoke").studies["table4e"]
    pairs = [("MGM (Dense)", "File size")]
    [one] = differences(by_place(frame), study, pairs).itertuples()
    assert (one.n, one.unit, one.column) == (3, "seeds", "Linear probe")


def test_a_mean_minus_a_mean_may_be_negative(tmp_path):
    known = {"one": {"generate": {"sprites": 1}}, "three": {"generate": {"sprites": 3}}}
    effect = {"mean_of": ["one"], "minus_mean_of": ["three"]}
    study = study_of(datasets=known | {"effect": effect})
    frame, _ = frame_of(tmp_path, study)
    # Made-up numbers around zero, whose interval reaches below it.
    ups = frame.dataset_seed.map(lambda seed: 50.0 + 5 * (seed % 3))
    frame["value"] = frame.value.where(frame.dataset != "one", ups)
    frame["value"] = frame.value.where(frame.dataset != "three", 55.0)
    table = cells(by_place(with_means(frame.drop(columns="derived"), {"small": study})))
    effects = table[(table.dataset == "effect") & ~table.control]
    assert (effects.low < 0).all()
    assert (effects.high < 100).all()
    # A unit that a part lacks has no mean.
    frame["value"] = frame.value.mask((frame.dataset == "three") & (frame.dataset_seed == 1))
    means = with_means(frame.drop(columns="derived"), {"small": study})
    lost = means[(means.dataset == "effect") & (means.dataset_seed == 1)]
    assert {*lost.status} == {"not run"}
    assert lost.value.isna().all()


def test_the_difference_of_two_tests_has_newcombes_interval(tmp_path):
    frame = finished(tmp_path, suite(seeds=(0,)))
    study, pair = archived("smoke").studies["table4e"], ("MGM (Dense)", "Random Tube")
    table = differences(by_place(frame), study, [pair]).set_index("column")
    own = frame.set_index(["column", "row"]).value
    for column in ("Linear probe", "Fine-tuned"):
        shares = [own[column, row] for row in pair]
        ends = [
            stats.binomtest(round(2.4 * share), 240).proportion_ci(0.95, "exact")
            for share in shares
        ]
        (one, other), (first, second) = shares, ends
        low = one - other - np.hypot(one - 100 * first.low, 100 * second.high - other)
        high = one - other + np.hypot(100 * first.high - one, other - 100 * second.low)
        assert (table.low[column], table.high[column]) == pytest.approx((low, high))


def test_two_units_have_no_interval_and_none_no_number(tmp_path):
    study = study_of(dataset_seeds="1-2")
    frame, found = frame_of(tmp_path, study)
    assert cells(by_place(frame)).low.map(isinf).all()
    shutil.rmtree(tmp_path)
    table = cells(by_place(read(tmp_path, found)))
    assert table["mean"].isna().all()
    assert {*table.status} == {"not run"}
    assert differences(by_place(read(tmp_path, found)), study).empty


def test_a_part_of_the_runs_is_paired(tmp_path):
    study = study_of(predictions=[{"row": "MGM", "minus": "Tube", "above": -200}])
    frame, found = frame_of(tmp_path, study)
    lost = frame[(frame.row == "Tube") & frame.seed.isin((1, 2)) & (frame.column != "")]
    for run_id in lost.run_id:
        shutil.rmtree(tmp_path / run_id)
    frame = read(tmp_path, found)
    assert {*cells(by_place(frame))[cells(by_place(frame)).row == "Tube"].status} == {"partial"}
    compared = differences(by_place(frame), study)
    assert {*zip(compared.n, compared.wanted, compared.status)} == {(6, 8, "partial")}
    # What one of the rows does not want is not wanted of both.
    few = frame[(frame.row != "Tube") | (frame.dataset_seed != 8)]
    assert {*differences(by_place(few), study).wanted} == {7}
    tests = frame[frame.column != ""]
    wide = tests.pivot_table("value", ["dataset", "column", "seed"], "row")
    units = (wide["MGM"] - wide["Tube"]).dropna()
    means = units.groupby(["dataset", "column"]).mean()
    own = compared.set_index(["dataset", "column"])["mean"]
    assert own.to_dict() == pytest.approx(means.to_dict())
    # A verdict on a part says so, and names the unit that is most against it.
    judged = verdicts(results_of(frame, study), "small")
    first = units["one", "Linear probe"]
    assert [*judged.against] == [f"{first.min():.1f} ({first.idxmin()})"]
    assert [*judged.verdict] == ["holds"]
    assert "over 6 of 8 datasets" in predictions_table(judged.assign(paper=np.nan)).note


def test_a_lines_name_has_no_number(tmp_path):
    table = cells(by_place(finished(tmp_path, suite(seeds=(0,), studies=("table1", "table4e")))))
    lines = dict(zip(table.row, table.line))
    assert lines["MGM, 400"] == lines["MGM, 2400"] == "MGM"
    assert lines["MGM (Dense) at ratio 0.6"] == lines["MGM (Dense)"] == "MGM (Dense)"


PREDICTED = [
    ({"above": -200}, "holds"),
    ({"above": 200}, "refuted"),
    ({"below": 200}, "holds"),
    ({"within": 300}, "holds"),
    ({"than": ["Tube", "MGM"], "within": 400}, "holds"),
]


@pytest.mark.parametrize(("fields", "verdict"), PREDICTED)
def test_a_verdict_compares_the_interval_with_the_bounds(tmp_path, fields, verdict):
    study = study_of(predictions=[{"row": "MGM", "minus": "Tube", **fields}])
    frame, _ = frame_of(tmp_path, study)
    [one] = verdicts(results_of(frame, study), "small").itertuples()
    assert (one.verdict, one.n, one.unit) == (verdict, 8, "datasets")


def test_a_verdict_is_open_where_the_interval_has_both_and_with_few_units(tmp_path):
    predictions = [{"row": "MGM", "minus": "Tube", "above": 0}]
    study = study_of(predictions=predictions)
    frame, _ = frame_of(tmp_path, study)
    middle = float(differences(by_place(frame), study)["mean"].iloc[0])
    study = study_of(predictions=[{"row": "MGM", "minus": "Tube", "above": middle}])
    assert verdicts(results_of(frame, study), "small").verdict[0] == "open"
    few = study_of(
        dataset_seeds="1-5", predictions=[{"row": "MGM", "minus": "Tube", "above": -200}]
    )
    frame, _ = frame_of(tmp_path / "few", few)
    [one] = verdicts(results_of(frame, few), "small").itertuples()
    assert (one.verdict, one.why) == ("open", "5 datasets; a verdict needs 6 units of training")


def test_predictions_in_order_stop_at_the_first_that_does_not_hold(tmp_path):
    sure = {"row": "MGM", "minus": "Tube", "above": -200}
    wrong, third = {**sure, "above": 99}, {**sure, "above": -150}
    study = study_of(predictions=[sure, wrong, third], in_order=True)
    frame, _ = frame_of(tmp_path, study)
    assert [*verdicts(results_of(frame, study), "small").verdict] == [
        "holds",
        "refuted",
        "not tested",
    ]


def test_predictions_that_were_added_after_the_runs_are_marked(tmp_path):
    before = Prediction(row="MGM", minus="Tube", above=0)
    after = Prediction(row="MGM", minus="Tube", above=1)
    study = study_of(predictions=[before, after])
    frame, _ = frame_of(tmp_path, study)
    old = study_of(predictions=[before])
    frozen = Frozen(commit="c", date="2025", studies=[old], scale={}, sha256="abc")

    def notes(tests, others="abc"):
        """Return the notes of runs that saw these frozen studies."""
        saw = np.where(frame.column == "", others, tests)
        own = results_of(frame.assign(study_sha256=saw), study, frozen=frozen)
        return [*verdicts(own, "small").note]

    assert notes("abc") == ["", "added after runs began"]
    assert notes(UNFROZEN) == notes("def") == ["added after runs began"] * 2
    assert [*verdicts(results_of(frame, study), "small").note] == ["added after runs began"] * 2
    # Pretrainings may be another study's.
    assert notes("abc", others=UNFROZEN) == ["", "added after runs began"]
    # One that was taken out of the file is judged all the same.
    gone = study_of(predictions=[after])
    table = verdicts(results_of(frame, gone, frozen=frozen), "small")
    assert [*table.says] == ["MGM minus Tube above 0", "MGM minus Tube above 1"]
    # A frozen one stays one of its column, which may have another place or name now.
    columns = {"Fine-tuned": {"stage": "finetune"}, "Linear probe": {}}
    other = study_of(columns=columns, predictions=[])
    table = verdicts(results_of(frame, other, frozen=frozen), "small")
    assert [*table.column] == ["Linear probe"]


EDITS = [
    {"in_order": False},
    {"overlap": 0.0},
    {"in_order": False, "rows": {"Tube": {}, "MGM": {}}},
]


@pytest.mark.parametrize("edit", EDITS)
def test_a_frozen_prediction_is_judged_by_the_frozen_study(tmp_path, edit):
    sure = {"row": "MGM", "minus": "Tube", "above": -200}
    asked = {"predictions": [{**sure, "above": 99}, sure], "in_order": True, "overlap": 0.25}
    old = study_of(**asked)
    frame, _ = frame_of(tmp_path, old)
    frozen = Frozen(commit="c", date="2025", studies=[old], scale={})
    before = verdicts(results_of(frame, old, frozen=frozen), "small")
    edited = results_of(frame, study_of(**asked | edit), frozen=frozen)
    pd.testing.assert_frame_equal(verdicts(edited, "small"), before)
    assert [*before.verdict] == ["refuted", "not tested"]
    assert edited.changes


def test_two_units_of_one_run_are_refused(tmp_path):
    frame, _ = frame_of(tmp_path, study_of())
    own = frame[frame.row == "MGM"]
    with pytest.raises(UserError, match="MGM: two of its units are one run"):
        by_place(own.assign(run_id=own.run_id.iloc[0]))
