"""A scale's file: what it changes in the paper's studies, and one line for what is wrong."""

import pytest
import yaml

from mgm.drawn.params import world
from mgm.errors import UserError
from mgm.study import CONFIG
from mgm.study.scales import Steps, load_scale, merged, of_paper


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


def test_a_scale_changes_and_leaves_out_studies(tmp_path):
    changes = {
        "table2": None,
        "table4e": {
            "rows": {"*": None, "MGM": {}, "Tube": {"mask": "tube"}},
            "compare": [["MGM", "Tube"]],
            "views": None,
        },
    }
    studies = {
        study.study: study for study in of_paper(load_scale(written(tmp_path, studies=changes)))
    }
    assert "table2" not in studies
    assert [*studies["table4e"].rows] == ["MGM", "Tube"]
    assert next(iter(studies["table1"].rows)) == "MGM, 200"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"seedz": 1}, "seedz is not a field"),
        ({"name": "../evil"}, "name"),
        ({"datasets": {"x": {}}}, "needs one of generate, adapt, root"),
        ({"overrides": {"train": {}}}, "overrides.train"),
        ({"studies": {"table5": None}}, "studies.table5 is unknown"),
        ({"studies": {"table4e": {"epochs": 0}}}, "studies.table4e.epochs"),
    ],
)
def test_a_wrong_scale_is_refused_in_one_line(tmp_path, fields, named):
    with pytest.raises(UserError) as caught:
        of_paper(load_scale(written(tmp_path, **fields)))
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_merging_null_leaves_a_field_out():
    fields = {"a": {"b": 1, "c": 2}, "d": 3}
    assert merged(fields, {"a": {"b": None, "e": 4}}) == {"a": {"c": 2, "e": 4}, "d": 3}
    assert merged(fields, {"a": {"*": None, "e": 4}, "d": None}) == {"a": {"e": 4}}


def test_steps_follow_from_epochs_unless_a_stage_has_its_own():
    steps = Steps(factor=14, power=1, warmup=0.1)
    assert steps.of({"optim.epochs": 600, "optim.steps": 0}) == {
        "optim.steps": 8400,
        "optim.warmup_epochs": 60,
    }
    assert steps.of({"optim.epochs": 600, "optim.steps": 5})["optim.steps"] == 5
    assert steps.of({}) == {}


def words(seed):
    drawn = world(seed)
    discs, quick = drawn.get("sprites"), drawn.get("quick")
    what = f"{discs} disc{'s' * (discs > 1)}, back in {quick} of 30 frames" if discs else "a person"
    return f"{seed}: {what}, contrast {drawn['contrast']} %{', pan' * bool(drawn['pan'])}"


def test_mini_lists_its_worlds():
    mini = load_scale(CONFIG / "mini.yaml")
    [study] = (study for study in of_paper(mini) if study.study == "table4e")
    seeds = sorted({*mini.dataset_seeds, *study.datasets["people"].dataset_seeds})
    assert study.limitations["Worlds"] == "; ".join(map(words, seeds)) + "."
