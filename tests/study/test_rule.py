"""`studies/rule.py`: the rule is found in lines that follow it, and scored as it says."""

import importlib
from dataclasses import replace
from itertools import product
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from mgm.data.index import Index
from mgm.data.synthetic.generator import generate
from mgm.data.synthetic.params import parse_params
from mgm.spec import Clips
from mgm.stages import advice
from mgm.study import STUDIES

NUMBERS = {"a": 0.4, "b": -0.2, "c": 3.0}
ROWS = (("tube", 0.75, "vectors"), ("block", 0.75, "vectors"), ("mgm", 0.5, "vectors"))


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    """Return a function that imports a script of studies/."""
    monkeypatch.syspath_prepend(STUDIES)
    return importlib.import_module


@pytest.fixture
def rule(script) -> ModuleType:
    return script("rule")


@pytest.fixture
def lines() -> pd.DataFrame:
    """Return four kinds of videos, each with three rows that gain what the rule says."""
    rows = []
    for (number, contrast), (mask, ratio, guidance) in product(enumerate([0, 5, 10, 20]), ROWS):
        room = 50 + 5 * number
        level = room * max(0.0, 1 - contrast / 15)
        gain = NUMBERS["a"] * level
        gain += NUMBERS["b"] * level * (mask == "tube") + NUMBERS["c"] * (mask == "mgm")
        rows.append(
            {"study": "made-up", "dataset": f"set{number}", "row": f"{mask}, {ratio}"}
            | {"videos": f"videos{number}", "steps": 2800, "mask": mask, "ratio": ratio}
            | {"guidance": guidance, "contrast": contrast, "random": 20, "histogram": 20 + room}
            | {"texture": 20.0, "motion": 20.0, "energy": 100.0, "without": 0.0, "gain": gain}
        )
    return pd.DataFrame(rows)


def test_numbers_of_the_rule_are_found(rule, lines):
    assert rule.fitted(lines, rule.RULE).to_dict() == pytest.approx(NUMBERS)
    found = rule.scores(lines, rule.left_out(lines, rule.RULE))
    assert found["rmse"] == pytest.approx(0, abs=1e-9)
    # The last ground's level is 0, so two of its rows are equal.
    assert found["pairs"] == 12
    assert found["right"] == pytest.approx(100 * 11.5 / 12)


def test_videos_that_are_left_out_are_not_used(rule, lines):
    """A constant says of each kind of videos the mean of the others."""
    said = rule.left_out(lines, ["one"])
    for videos, own in lines.groupby("videos"):
        others = lines[lines.videos != videos].gain.mean()
        np.testing.assert_allclose(said[own.index], others)


def test_scores_say_where_the_error_lies(rule, lines):
    shifted = lines.gain + np.where(lines.videos == "videos0", 4, 0)
    found = rule.scores(lines, shifted)
    assert (found["rmse"], found["between"], found["within"]) == pytest.approx((2, 2, 0))
    backwards = rule.scores(lines, -lines.gain)
    assert backwards["right"] == pytest.approx(100 * 0.5 / 12)
    equal = rule.scores(lines, 0 * lines.gain)
    assert equal["right"] == 50


def test_study_with_more_rows_counts_no_more(rule, lines):
    """A kind of videos counts once, however many rows it has."""
    doubled = pd.concat([lines, lines[lines.videos == "videos0"]], ignore_index=True)
    noisy = lines.gain + 5 * (lines.videos == "videos1")
    more = pd.concat([noisy, noisy[lines.videos == "videos0"]], ignore_index=True)
    first = rule.fitted(lines.assign(gain=noisy), rule.RULE)
    pd.testing.assert_series_equal(first, rule.fitted(doubled.assign(gain=more), rule.RULE))


def test_a_figure_has_a_mark_per_row_on_the_line_where_the_rule_is_right(rule, lines):
    bars = {"rule": lines.gain, "low": lines.gain - 1, "high": lines.gain + 1}
    titles = {dataset: dataset.title() for dataset in lines.dataset}
    figure = rule.drawn(lines.assign(**bars), titles)
    assert [axes.get_title("left") for axes in figure.axes] == [*titles.values()]
    marks = np.concatenate([axes.collections[0].get_offsets() for axes in figure.axes])
    assert len(marks) == len(lines)
    np.testing.assert_allclose(marks[:, 0], marks[:, 1])


def test_advice_has_the_numbers_that_were_tested(rule):
    """They are those of the fit whose predictions the study `unseen` tests."""
    table = pd.read_csv(rule.TABLE)
    said = pd.read_csv(STUDIES / "unseen-predicted.csv").rule
    new = table[table.study == "unseen"].reset_index(drop=True)
    numbers = pd.Series({"a": advice.LEVEL, "b": advice.TUBE, "c": advice.HALF})
    np.testing.assert_allclose(rule.terms(new)[rule.RULE] @ numbers, said, atol=0.1)


@pytest.fixture(scope="module")
def grounds(tmp_path_factory) -> dict[str, Index]:
    """Return two classes of one disc before three grounds."""
    folder = tmp_path_factory.mktemp("grounds")
    common = {"classes": 2, "train_per_class": 4, "test_per_class": 2, "sprites": 1, "pan": 0}
    grounds = {
        "black": {"ground": "black"},
        "half": {"ground": "textured", "contrast": 50},
        "full": {"ground": "textured"},
    }
    return {
        name: generate(parse_params(common | ground, name), folder / name)
        for name, ground in grounds.items()
    }


def test_contrast_is_that_of_the_static_ground(grounds):
    """Half of the ground's contrast is half of the measured one, and a black ground has none."""
    clips = Clips(frames=8, size=48, stride=2, crop="centre")
    measured = {
        name: advice.static_contrast(index.train, clips, advice.SMALL)
        for name, index in grounds.items()
    }
    assert measured["black"] == 0
    assert measured["full"] > 5
    assert measured["half"] == pytest.approx(measured["full"] / 2, rel=0.1)


def test_advice_reads_few_videos_and_needs_vectors_and_tests(grounds, monkeypatch):
    index = grounds["black"]
    monkeypatch.setattr(advice, "PER_CLASS", 2)
    facts = advice.facts_of(index)
    # Files that are not read may be missing.
    read = {video.path for video in advice._few(index).videos}
    assert len(read) == 8
    videos = [v if v.path in read else replace(v, path="missing.mp4") for v in index.videos]
    assert advice.facts_of(replace(index, videos=tuple(videos))) == facts
    assert facts.contrast == 0
    # Without vectors, or without test videos.
    still = tuple(replace(video, has_vectors=False) for video in index.videos)
    assert advice.facts_of(replace(index, videos=still)) is None
    assert advice.facts_of(replace(index, videos=index.train)) is None
    # With one training video per class, none can be held out to choose a penalty.
    first = {video.label: video for video in index.train}
    one_each = tuple(first.values()) + index.test
    assert advice.facts_of(replace(index, videos=one_each)) is None
