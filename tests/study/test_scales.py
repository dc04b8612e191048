"""Files of scales and suites: what they say, and one line for what is wrong."""

import pytest
import yaml

from mgm.errors import UserError
from mgm.study import CONFIG
from mgm.study.scales import load_scale, load_suite
from tests.helpers.errors import refused

OWN = {"study": "mine", "question": "?", "datasets": {"ssv2": {"use": "ssv2"}}}
OWN |= {"rows": {"MGM": {}}, "columns": {"Probe": {}}}


def written(folder, **fields):
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump({"base": str(CONFIG / "smoke.yaml"), "name": "own", **fields}))
    return path


def test_a_scale_has_the_fields_of_its_base(tmp_path):
    own = load_scale(written(tmp_path, overrides={"pretrain": {"optim.lr": 1.0}}))
    smoke = load_scale(CONFIG / "smoke.yaml")
    assert own.overrides["pretrain"] == {**smoke.overrides["pretrain"], "optim.lr": 1.0}
    assert own.datasets == smoke.datasets


def test_a_scale_may_have_the_name_of_its_base(tmp_path):
    path = tmp_path / "smoke.yaml"
    path.write_text(yaml.safe_dump({"base": "smoke", "name": "own"}))
    assert load_scale(path).datasets == load_scale(CONFIG / "smoke.yaml").datasets


def test_scales_that_are_each_others_base_are_refused(tmp_path):
    for name, base in {"one": "two", "two": "three", "three": "one"}.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"base": base}))
    with pytest.raises(UserError, match=r"one\.yaml: .*base"):
        load_scale(tmp_path / "one.yaml")


def test_a_suite_has_studies_of_the_paper_and_its_own(tmp_path):
    path = tmp_path / "both.yaml"
    path.write_text(yaml.safe_dump({"scale": "smoke", "studies": ["table4e", OWN]}))
    suite = load_suite(str(path))
    assert [study.study for study in suite.studies] == ["table4e", "mine"]
    assert (suite.name, suite.scale.name) == ("both", "smoke")
    study = tmp_path / "file.yaml"
    study.write_text(yaml.safe_dump({**OWN, "scale": "mini"}))
    assert (load_suite(str(study)).name, load_suite(str(study)).scale.name) == ("mine", "mini")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"studies": ["table5"]}, "table5.yaml: no such study"),
        ({"studies": []}, "studies"),
        ({"studies": ["table4e", "table4e"]}, "table4e and table4e both have the name table4e"),
        ({"studies": [OWN | {"epochs": 0}]}, "studies.mine.epochs"),
        ({"studies": [OWN | {"views": {"report": {}}}]}, "views.report: report is a reserved"),
        (
            {"studies": ["table4e", OWN | {"views": {"masks": {}}}]},
            "table4e and mine both have the name masks",
        ),
        ({"scale": "smoke", "studies": ["table1"], "rows": {}}, "rows is not a field"),
        (OWN | {"scale": "smoke", "views": {"mine": {}}}, "views.mine: is the study's name"),
        (OWN | {"scale": "smoke", "study": "prepare"}, "study: prepare is a reserved name"),
    ],
)
def test_a_wrong_suite_is_refused_in_one_line(tmp_path, fields, named):
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({"scale": "smoke", **fields}))
    with refused(named):
        load_suite(str(path))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"seedz": 1}, "seedz is not a field"),
        ({"name": "../evil"}, "name"),
        ({"datasets": {"x": {}}}, "datasets.x: needs one of"),
        ({"overrides": {"train": {}}}, "overrides.train"),
        ({"studies": []}, "studies is not a field"),
    ],
)
def test_a_wrong_scale_is_refused_in_one_line(tmp_path, fields, named):
    with refused(named):
        load_scale(written(tmp_path, **fields))
