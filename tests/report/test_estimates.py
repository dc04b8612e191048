"""Estimates of a study, differences, predictions, and their check against git."""

import subprocess
from dataclasses import replace
from math import inf
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from mgm.errors import UserError
from mgm.reading import found_in
from mgm.report.estimates import (
    StudyResults,
    estimate,
    selected,
    selected_differences,
    units_of,
)
from mgm.report.judge import judge
from mgm.report.people import by_person
from mgm.report.views import line, scatter
from mgm.results.frame import frame_of
from mgm.results.result import RunStatus
from mgm.results.statistics import Estimate, over_seeds, over_seeds_and_people
from mgm.study.formula import parse_formula, parse_statement
from mgm.study.load import read_studies
from mgm.study.schema import Study, View
from tests.helpers.plans import plan_at, plan_of
from tests.helpers.programs import ROOT
from tests.study.test_study import small

COMMIT = subprocess.run(
    ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
).stdout.strip()


def findings(study: Study, started: str = "2020-01-01T00:00:00+00:00", **less) -> StudyResults:
    """Return results in which a run's number follows from its place in the study.

    Args:
        less: `without`: rows that lack a draw. `test`: how many test videos there are.
    """
    plan = plan_of(study)
    found = {run_id: RunStatus("not run", "") for run_id in plan.specs}
    for one in plan.cells:
        if one.row in less.get("without", ()) and one.dataset_seed == 6:
            continue
        status = found[one.run_id]
        metrics = status.result["metrics"] if status.result else {}
        result = {
            "metrics": metrics | {one.metric: number(one)},
            "n_test": 10,
            "commit": COMMIT,
            "dirty": False,
            "started": started,
        }
        if test := less.get("test"):
            result["data"] = {"classes": 4, "train": 10, "test": test, "note": ""}
        found[one.run_id] = RunStatus("finished", result=result)
    return StudyResults(plan, frame_of(plan, found), study, found, Path())


def again(found: StudyResults) -> StudyResults:
    """Return results whose frame is made once more, from changed statuses."""
    return replace(found, frame=frame_of(found.plan, found.statuses))


def number(one) -> float:
    """Return a number that differs between rows, dataset seeds and seeds."""
    values = np.random.default_rng(
        [*map(ord, one.dataset + one.row), max(one.dataset_seed, 0), one.seed]
    )
    return float(50 + 10 * values.random())


def cell(found: StudyResults, dataset: str, row: str, column: str = "Linear") -> Estimate:
    cells = found.cells[(found.cells.dataset == dataset) & (found.cells.row == row)]
    cells = cells[cells.column == column]
    return Estimate(*cells.iloc[0][list(Estimate._fields)])


def test_an_interval_is_students_over_draws():
    found = findings(small(dataset_seeds="1-9", datasets={"a": {"generate": {}}}, predictions=[]))
    value = {(one.row, one.dataset_seed): number(one) for one in found.plan.cells}
    tube, mgm = ([value[row, draw] for draw in range(1, 10)] for row in ("Tube", "MGM"))
    for text, values in (("Tube", tube), ("MGM minus Tube", np.subtract(mgm, tube))):
        low, high = stats.t.interval(0.95, 8, np.mean(values), stats.sem(values))
        # t is rounded to four decimals.
        assert estimate(found, "a", text)[:3] == pytest.approx(
            (np.mean(values), low, high), rel=1e-4
        )


def test_a_draw_counts_once_all_its_rows_are_done():
    study = small(datasets={"a": {"generate": {}}}, predictions=[])
    assert estimate(findings(study), "a", "MGM").n == 2
    partly = findings(study, without=("Tube",))
    assert estimate(partly, "a", "MGM").n == 1
    every = findings(study.model_copy(update={"complete": False}), without=("Tube",))
    assert estimate(every, "a", "MGM").n == 2


def test_runs_can_be_the_unit():
    study = small(datasets={"a": {"generate": {}}}, seeds="0-2", predictions=[])
    by_draw = findings(study)
    assert estimate(by_draw, "a", "MGM").n == 2
    assert cell(by_draw, "a", "MGM") == estimate(by_draw, "a", "MGM")
    by_run = findings(study.model_copy(update={"unit": "runs"}))
    assert estimate(by_run, "a", "MGM").n == 6


def test_a_control_is_compared_with_every_run_of_its_draw():
    study = small(datasets={"a": {"generate": {}}}, seeds="0-2", unit="runs", predictions=[])
    found = findings(study)
    difference = estimate(found, "a", "MGM minus File size")
    assert difference.n == 6
    # The other way round it is the same, and not that of the first seed alone.
    turned = estimate(found, "a", "File size minus MGM")
    assert (turned.n, turned.mean) == (6, pytest.approx(-difference.mean))


@pytest.mark.parametrize(
    ("said", "interval", "verdict"),
    [
        ("A above 5", (6, 8), "holds"),
        ("A above 5", (4, 10), "open"),
        ("A above 5", (4, 5), "refuted"),
        ("A above 5", (-4, 7), "open"),  # a mean below 5 does not refute
        ("A at least 5", (5, 9), "holds"),
        ("A below 0", (-2, -0.1), "holds"),
        ("A below 0", (-2, 3), "open"),
        ("A below 0", (0.1, 3), "refuted"),
        ("A within 3", (-2, 3), "holds"),
        ("A within 3", (-4, 3), "open"),
        ("A within 3", (-5, -3.5), "refuted"),
        # Level states no margin.
        ("A level", (-1, 7), "open"),
        ("A level", (1, 5), "refuted"),
        ("A above 5", (-inf, inf), "open"),
        ("A is 5", (4.6, 5.4), "holds"),
        ("A is 5.0", (4.6, 5.4), "open"),
        ("A is 5.0", (4.96, 5.04), "holds"),
        ("A is 5 ± 2", (3.5, 6.5), "holds"),
        ("A is 5 ± 2", (3.5, 8), "open"),
        ("A is 5 ± 2", (8, 9), "refuted"),
        ("A is -5", (4, 6), "refuted"),
    ],
)
def test_a_statement_holds_is_refuted_or_stays_open(said, interval, verdict):
    low, high = interval
    mean = (low + high) / 2 if np.isfinite(low) else 7
    estimate = Estimate(mean, low, high, 6, "", (high - low) / 5.14, 5)
    assert judge(parse_statement(said), estimate).verdict == verdict


def test_fewer_than_six_units_have_no_verdict_and_an_open_one_says_how_many_it_needs():
    statement = parse_statement("A above 0")
    assert judge(statement, None).verdict == "not run"
    assert judge(statement, over_seeds([-9.0, -8.0])) == ("not run", "two runs")
    assert judge(statement, over_seeds([9.0, 9.1, 9.2, 9.0, 9.1])).verdict == "open"
    estimate = over_seeds([-1.0, 2.0, 3.0, 0.0, -1.0, 2.0])
    verdict, why = judge(statement, estimate)
    units = int(why.split()[0])
    assert verdict == "open"
    half = stats.t.ppf(0.975, units - 1) * estimate.error * (6 / units) ** 0.5
    assert half <= estimate.mean < half * 1.2


def test_differences_have_intervals_over_seeds_and_people_too(tmp_path):
    study = small(
        datasets={"a": {"generate": {}}},
        dataset_seeds="5-7",
        people="_s([0-9]+)_",
        compare={"Masks": ["MGM minus Tube"]},
    )
    found = replace(findings(study), folder=tmp_path)
    # Two videos of person 1 and one of person 2. MGM is right of the first in dataset seeds 5 and 7, and of
    # all but the third in draw 6. The tube is right of the third.
    right = {"MGM": {5: "YNN", 6: "YYN", 7: "YNN"}, "Tube": dict.fromkeys((5, 6, 7), "NNY")}
    for number in found.plan.cells:
        if number.column == "Linear" and number.row in right:
            folder = tmp_path / number.run_id
            folder.mkdir()
            answers = right[number.row][number.dataset_seed]
            lines = [f"{video},Y,{answer}" for video, answer in zip(VIDEOS, answers)]
            (folder / "predictions.csv").write_text("\n".join(["path,label,prediction", *lines]))
    table = found.differences.set_index("family")
    over_both = table.loc["Masks, over seeds and people"]
    value_SP = np.array([[50.0, -100], [100, -100], [50, -100]])
    assert Estimate(*over_both[list(Estimate._fields)]) == over_seeds_and_people(value_SP)
    assert table.loc["Masks"].n == 3
    # A video of nobody is not left out.
    (folder / "predictions.csv").write_text("path,label,prediction\nclip.mp4,Y,Y")
    with pytest.raises(UserError, match=r"predictions.csv: clip.mp4 .*people"):
        by_person(found.values, tmp_path, study.people)


def test_a_regular_expression_that_backtracks_cannot_hang():
    paths = ["a_" * 40 + "x.mp4", "v_s12_c1.mp4"]
    assert found_in(paths, r"(([^_]+_?)+)+\.zzz", "people") == [None, None]
    assert found_in(paths, "_s([0-9]+)_", "people") == [None, "12"]
    assert found_in(paths, "S[0-9]+|(?i)V_S[0-9]", "people") == [None, "v_s1"]
    for wrong in ("(?=a)", "(", r"(a)\1"):
        with pytest.raises(UserError, match="people: "):
            found_in(paths, wrong, "people")


def test_cells_say_what_is_missing_and_quote_what_is_not_run():
    study = small(datasets={"a": {"generate": {}}}, predictions=[])
    found = findings(study, without=("Tube",))
    cells = found.cells.set_index("row")
    assert cells.status["MGM"].tolist() == ["finished", "finished"]
    assert (cells.status["Tube"], cells.wanted["Tube"]) == ("partial", 2)
    # Draw 6 is not complete, so a mean over draw 5 stands alone.
    assert cells["mean"]["Tube"] == pytest.approx(estimate(found, "a", "Tube").mean)
    statuses = dict(found.statuses)
    (run_id,) = found.runs.run_id[(found.runs.row == "Tube") & (found.runs.dataset_seed == 5)]
    statuses[run_id] = RunStatus(
        "finished", result=statuses[run_id].result | {"metrics": {"top1": float("nan")}}
    )
    altered = again(replace(found, statuses=statuses)).cells.set_index("row").loc["Tube"]
    assert altered.status == "altered"
    assert np.isnan(altered["mean"])
    assert "metrics.top1" in altered.why


def test_a_view_of_some_seeds_shows_what_these_runs_found():
    found = findings(small(datasets={"a": {"generate": {}}}, dataset_seeds="5-8", predictions=[]))
    shown = selected(found, View(dataset_seeds="7-8", rows=("MGM",), columns=("Linear",)))
    numbers = [number(one) for one in found.plan.cells if one.row == "MGM" if one.dataset_seed > 6]
    assert shown["mean"].tolist() == [pytest.approx(np.mean(numbers[::2]))]


VIDEOS = ("a_s1_1.mp4", "a_s1_2.mp4", "a_s2_1.mp4")


def test_a_figure_draws_the_columns_of_its_study_alone():
    """The paper's Table 1 also prints GFLOPs, which are no accuracy."""
    plan = plan_at("paper")
    statuses = {run_id: RunStatus("not run", "") for run_id in plan.specs}
    found = StudyResults(
        plan, frame_of(plan, statuses), read_studies(Path(), plan)["table1"], statuses, Path()
    )
    assert "GFLOPs" in set(found.cells.column)
    view = found.study.views["figure1"]
    shown = selected(found, view)
    assert "GFLOPs" in set(shown.column)
    points = line.data(shown, view)
    # The methods that are only quoted have the epochs that the paper prints.
    assert set(points.metric) == {"top1"}
    assert points[points.line == "BEVT"].x.tolist() == [950]


def test_a_gain_stands_over_what_was_measured():
    columns = {
        "Linear": {},
        "Seen": {"stage": "measure", "name": "visible", "metric": "motion"},
    }
    fields = {"kind": "scatter", "x": "Seen", "y": "Linear", "minus": "Random weights"}
    found = findings(small(columns=columns, views={"gain": fields}))
    view = found.study.views["gain"]
    points = scatter.data(selected(found, view), view)
    rows = points[points.panel == "a"].set_index("row")
    assert "Random weights" not in rows.index
    assert rows.x["MGM"] == cell(found, "a", "MGM", "Seen").mean
    gain = estimate(found, "a", "MGM minus Random weights", "Linear")
    assert (rows["mean"]["MGM"], rows.low["MGM"]) == (gain.mean, gain.low)
    figure = scatter.draw(points, view)
    marks = [tuple(xy) for axes in figure.axes for xy in axes.collections[0].get_offsets()]
    assert (rows.x["MGM"], rows["mean"]["MGM"]) in [pytest.approx(mark) for mark in marks]


def test_an_effect_is_the_mean_over_some_datasets_minus_that_over_others():
    datasets = {name: {"generate": {"quick": 1 + n}} for n, name in enumerate("abcd")}
    effects = {"rhythm": {"high": ["a", "b"], "low": ["c", "d"]}}
    says = {"in": "rhythm", "says": "MGM minus Tube above 50"}
    families = {"Steps": ["MGM minus Tube"]}
    fields = {"datasets": datasets, "effects": effects, "compare": families}
    study = small(dataset_seeds="1-8", predictions=[says], **fields)
    found = findings(study)
    lead = {
        name: units_of(found, name, parse_formula("MGM minus Tube"), "Linear") for name in "abcd"
    }
    per_draw = (lead["a"] + lead["b"]) / 2 - (lead["c"] + lead["d"]) / 2
    effect = over_seeds(per_draw.tolist())
    assert estimate(found, "rhythm", "MGM minus Tube") == effect
    shown = selected_differences(found, "Steps", "Linear")
    assert shown["mean"][shown.dataset == "rhythm"].tolist() == [effect.mean]
    assert found.predictions.verdict.tolist() == ["refuted"]
