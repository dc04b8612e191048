"""A study's file: what it says, and one line for what is wrong."""

from math import inf
from pathlib import Path

import pytest
import yaml

from mgm.errors import UserError
from mgm.study import STUDIES
from mgm.study.scales import load_suite
from mgm.study.schema import Prediction, load_study, new_study
from mgm.study.settings import require_effect
from tests.helpers.errors import refused
from tests.helpers.fake_results import study_of

GAINS = {
    "check": {"datasets": ["one"], "columns": ["Linear probe"]},
    "gains": {"kind": "gains", "rows": ["MGM"], "minus": "Tube", "over": "check"},
}
TWO = {"a": {"generate": {}}, "b": {"generate": {}}}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"rowz": {}}, "rowz is not a field"),
        ({"compare": [["MGM", "Tub"]]}, "'Tub' is unknown; did you mean Tube?"),
        ({"controls": ["Probe"]}, "'Probe' is unknown"),
        ({"views": {"t": {"datasets": ["two"]}}}, "views.t: 'two' is unknown"),
        ({"views": {"t": {"kind": "ladder"}}}, "views.t.kind"),
        ({"columns": {"A": {"stage": "prob"}}}, "columns.A.stage"),
        ({"rows": {"A": {"from": "B"}, "B": {}}}, "rows.A.from: 'B' is unknown"),
        ({"rows": {"File size": {}, "MGM": {}, "Tube": {}}}, "File size is a control"),
        ({"dataset_seeds": "8-x"}, "dataset_seeds"),
        ({"dataset_seeds": "8-1"}, "dataset_seeds: has a range that goes down"),
        ({"dataset_seeds": ()}, "add dataset_seeds"),
        ({"dataset_seeds": [1, 1, 2]}, "dataset_seeds: has 1 twice"),
        ({"dataset_seeds": "1-3, 2"}, "dataset_seeds: has 2 twice"),
        ({"dataset_seeds": "0-20241130"}, "dataset_seeds: has more than 10,000 numbers"),
        ({"dataset_seeds": -1}, "dataset_seeds.0: Input should be greater than or equal to 0"),
        ({"seeds": True}, "seeds.0: Input should be a valid integer"),
        ({"datasets": {"a": {"root": "data/{x}"}}}, "datasets.a: root: data/{x} has braces"),
        ({"datasets": TWO | {"m": {"mean_of": ["a", "a"]}}}, "datasets.m: has a twice"),
        (
            {"datasets": TWO | {"m": {"mean_of": ["a"], "minus_mean_of": ["a"]}}},
            "datasets.m: has a twice",
        ),
        (
            {"datasets": TWO | {"m": {"mean_of": ["a"]}, "n": {"mean_of": ["m", "b"]}}},
            "datasets.n.mean_of: 'm' is unknown; choose from a, b",
        ),
        (
            {
                "datasets": {"a": {"generate": {}}, "b": {"generate": {}, "title": "a"}}
                | {"c": {"generate": {}, "title": "a"}}
            },
            "two have the title a",
        ),
        ({"views": {"t": {"kind": "paper"}}}, "views.t.kind: paper is for the paper's tables"),
        (
            {
                "datasets": TWO | {"m": {"mean_of": ["a"]}},
                "views": {"t": {"show": "masks", "kind": "clips", "datasets": ["m"]}},
            },
            "views.t.datasets: a mean has no videos",
        ),
        (
            {"views": {"g": {"kind": "gains", "minus": "Tube"}}},
            "views.g: gains needs minus, and over",
        ),
        ({"views": {"g": {"kind": "gains", "over": "h"}}}, "views.g: 'h' is unknown"),
        (
            {"overlap": 0.25}
            | {"views": {"a": GAINS["check"], "g": GAINS["gains"] | {"over": "a"}}},
            "views.g.kind: gains needs units that do not overlap",
        ),
        ({"predictions": [{"row": "MGM", "above": float("nan")}]}, "predictions.0.above"),
        ({"predictions": [{"row": "MGM", "above": 2, "below": 2}]}, "above is not less than below"),
        ({"predictions": [{"row": "MGM", "above": 2, "within": 2}]}, "needs one of above, below"),
        ({"datasets": {"a": {"title": "A"}}}, "needs one of use, generate, root"),
        ({"datasets": {"a": {"use": "ssv2", "shift": 1}}}, "shift needs"),
        ({"datasets": TWO | {"c": {"adapt": ["a", "z"]}}}, "'z' is unknown"),
        ({"datasets": TWO | {"c": {"adapt": ["a", "c"]}}}, "datasets.c: 'c' is unknown"),
        (
            {"datasets": {"a": {"videos_of": "b"}, "b": {"videos_of": "a"}}},
            "datasets.a: 'b' is unknown",
        ),
        ({"predictions": [{"row": "MGM", "minus": "Tube"}]}, "needs one of above, below, within"),
        ({"predictions": [{"row": "MGM", "than": ["A", "B"], "above": 0}]}, "than needs minus"),
        ({"predictions": [{"in": "two", "row": "MGM", "above": 0}]}, "'two' is unknown"),
    ],
)
def test_a_wrong_study_is_refused_in_one_line(tmp_path, fields, named):
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(study_of().model_dump(mode="json", by_alias=True) | fields))
    with refused(f"{path}: ", named):
        load_study(path)


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join(9 * [f'*a{n - 1}'])}]\n" for n in range(1, 9)
)
TWICE = "study: a\nrows:\n  MGM: {}\n  MGM: {mask: tube}\n"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("- a\n", ""),
        ("a: [\n", ""),
        ("", ""),
        (TWICE, ".*MGM is there twice.*line 4"),
        ("a: " + 100_000 * "[", ".*more than 50 levels"),
        (LAUGHS, ".*more than 100,000 values"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text, fault):
    path = tmp_path / "small.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=f"small.yaml: is not{fault}"):
        load_study(path)


@pytest.mark.parametrize(
    ("fields", "bounds", "says"),
    [
        ({"above": 5}, (5, inf), "MGM minus Tube above 5"),
        ({"below": -0.5}, (-inf, -0.5), "MGM minus Tube below -0.5"),
        ({"within": 3}, (-3, 3), "MGM minus Tube within 3"),
        ({"above": 0, "than": ("A", "B")}, (0, inf), "MGM minus Tube minus (A minus B) above 0"),
    ],
)
def test_a_prediction_has_bounds_and_a_sentence(fields, bounds, says):
    one = Prediction(row="MGM", minus="Tube", **fields)
    assert (one.bounds, one.says) == (bounds, says)


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_each_study_is_valid(path):
    suite = load_suite(str(path))
    require_effect(suite.studies, suite.scale)
    assert suite.name == path.stem
    for study in suite.studies:
        assert study.caveat or suite.scale.caveat
        assert not any(sign.isdigit() for sign in study.answer)


@pytest.mark.parametrize("test", [None, "clips/labelled"])
@pytest.mark.parametrize(
    ("folder", "name"),
    [
        *(("mine", "mine"), ("2024", "2024"), ("on", "on"), ("my videos: #1", "my-videos-1")),
        ('my "best"\\new\n', "my-best-new"),
    ],
)
def test_a_new_study_is_valid(tmp_path, test, folder, name):
    path = tmp_path / "007.yaml"
    path.write_text(new_study(path, Path("clips", folder), test and Path(test)))
    study = load_study(path)
    assert study.study == "007"
    assert [*study.shown] == ([f"{name}-test"] if test else [name])
    assert study.datasets[name].root == f"clips/{folder}"


@pytest.mark.parametrize("name", ["all", "bad name", "#", 'a"b'])
def test_a_file_whose_name_no_study_can_have_is_refused(name):
    with pytest.raises(UserError, match=f"{name}.yaml: study: "):
        new_study(Path(f"{name}.yaml"), Path("clips"))
