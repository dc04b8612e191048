"""A study at a scale becomes cells and runs: which, with which fields, and in which order."""

from types import SimpleNamespace

import pytest

from mgm.errors import UserError
from mgm.spec import Finetune, Mask, Measure, Pretrain, Probe, dotted, parents
from mgm.study import CONFIG, videos
from mgm.study.expand import expand, with_parents
from mgm.study.recipes import SUPERVISED
from mgm.study.scales import load_scale, load_suite
from mgm.study.schema import CONTROL_ROWS
from tests.helpers.errors import refused
from tests.helpers.fake_results import study_of

SMOKE = load_scale(CONFIG / "smoke.yaml")


def expanded(**fields):
    return expand([study_of(**fields)], SMOKE)


def cell(found, **place):
    chosen = found.cells
    for name, value in place.items():
        chosen = chosen[chosen[name] == value]
    return chosen.iloc[0]


def test_it_is_a_cross_join_with_controls():
    found = expanded()
    own = found.cells[~found.cells.control]
    assert len(own) == 2 * 8 * 3 * 2
    assert {*found.cells[found.cells.control].row} == {*CONTROL_ROWS}
    assert (own.dataset_seed == own.seed).all()
    assert {*found.datasets} == {
        f"{name}-{seed}" for name in ("one", "three") for seed in range(1, 9)
    }


@pytest.fixture
def prepared(monkeypatch):
    """Make folders look prepared, each with a digest of its name's last sign."""
    monkeypatch.setattr(
        videos, "read_about", lambda root: SimpleNamespace(digest=root.name[-1] * 12)
    )


@pytest.mark.usefixtures("prepared")
def test_folds_are_units_and_datasets_share_their_runs():
    folds = {"root": "clips/mine-{seed}", "recipe": "ssv2"}
    datasets = {
        "gate": {**folds, "dataset_seeds": "0-1", "rows": ["MGM"]},
        "folds": {**folds, "dataset_seeds": "0-3"},
        "mine-2": {"root": "clips/mine-2", "recipe": "ssv2", "pretrained_on": "folds"},
    }
    study = study_of(datasets=datasets, controls=[])
    found = expand([study], SMOKE)
    assert {key: one.root for key, one in found.datasets.items()} == {
        f"mine-{seed}": f"clips/mine-{seed}" for seed in range(4)
    }
    gate, cells = (found.cells[found.cells.dataset == name] for name in ("gate", "folds"))
    assert [*gate.dataset_seed.unique()] == [0, 1]
    assert {*found.cells.unit} == {"folds"}
    assert len(cells) == 4 * 3 * 2 == cells.run_id.nunique()
    assert {*gate.run_id} < {*cells.run_id}
    # One fold tests the models of all folds. That of its own is the same run.
    tests = found.cells[found.cells.dataset == "mine-2"]
    assert {*tests.pretraining} == {*cells.pretraining}
    assert [*tests.dataset_seed.unique()] == [0, 1, 2, 3]
    assert {found.specs[run_id].data.digest for run_id in tests.run_id} == {"2" * 12}
    same = {*tests.run_id} & {*cells.run_id}
    assert same == {*tests.run_id[tests.dataset_seed == 2]}
    assert len(same) == 3 * 2


@pytest.mark.usefixtures("prepared")
def test_two_folders_of_one_name_are_refused():
    roots = {name: {"root": f"{name}/mine-{{seed}}", "recipe": "ssv2"} for name in ("red", "blue")}
    study = study_of(datasets=roots, controls=[])
    with pytest.raises(UserError, match="two datasets are called mine-1"):
        expand([study], SMOKE)


def test_studies_of_a_suite_do_not_share_a_name_of_other_videos():
    one, other = (
        study_of(study=name, datasets={"one": {"generate": {"sprites": sprites}}})
        for name, sprites in (("first", 1), ("second", 3))
    )
    with refused("study second: two datasets are called one-1"):
        expand([one, other], SMOKE)


def test_layers_change_a_recipe_from_the_scale_to_the_row():
    found = expanded(
        settings={"pretrain": {"optim.lr": 0.1, "optim.batch": 8, "mask.name": "block"}},
        datasets={"one": {"generate": {}, "settings": {"pretrain": {"optim.batch": 10}}}},
        rows={"Tube": {"mask": "tube", "clips.stride": 1, "optim.steps": 7}, "MGM": {}},
    )
    spec = found.specs[cell(found, row="Tube").pretraining]
    fields = dotted(spec.model_dump(mode="json"))
    assert fields["mask.name"] == "tube"
    assert fields["mask.ratio"] == 0.9  # the recipe's
    assert fields["model.patch"] == 8  # the scale's
    assert fields["optim.lr"] == 0.1  # the study's
    assert fields["optim.batch"] == 10  # the dataset's
    assert fields["clips.stride"] == 1  # the row's
    assert fields["optim.steps"] == 7
    plain = found.specs[cell(found, row="MGM").pretraining]
    assert (plain.mask.name, plain.optim.steps) == ("block", 399)  # the study's, by its epochs


def test_a_column_changes_fields_of_single_rows():
    own = {"stage": "finetune", "optim.lr": 0.1, "rows": {"Tube": {"optim.lr": 0.2}}}
    rows = {"Tube": {"mask": "tube"}, "MGM": {}}
    found = expanded(columns={"Tuned": own}, rows=rows, controls=["Tuned"], compare=[])
    tuned = {row: found.specs[cell(found, row=row).run_id].optim.lr for row in rows}
    assert tuned == {"Tube": 0.2, "MGM": 0.1}
    with pytest.raises(ValueError, match=r"columns.Tuned.rows: 'Tubee' is unknown"):
        study_of(columns={"Tuned": own | {"rows": {"Tubee": {}}}}, rows=rows, controls=[])
    with pytest.raises(ValueError, match=r"columns.Tuned.rows: 'Tube' is unknown"):
        study_of(columns={"Tuned": own | {"only": {"rows": ["MGM"]}}}, rows=rows, controls=[])


STEPS = ["optim.steps", "optim.warmup_epochs", "optim.epochs"]


@pytest.mark.parametrize(
    ("place", "row", "fields"),
    [
        ("settings", {}, (399, 7, 200)),
        ("settings", {"optim.warmup_epochs": 9}, (399, 9, 200)),
        # The rule has the epochs that are left in the end, and the row's are the last.
        ("epochs", {"epochs": 800}, (544, 7, 800)),
        ("epochs", {}, (466, 7, 400)),
    ],
)
def test_the_rule_of_steps_is_the_first_layer(place, row, fields):
    own = {"optim.warmup_epochs": 7} | ({"optim.epochs": 400} if place == "epochs" else {})
    found = expanded(settings={"pretrain": own}, rows={"MGM": row}, compare=[])
    spec = dotted(found.specs[cell(found, row="MGM").pretraining].model_dump(mode="json"))
    assert tuple(spec[name] for name in STEPS) == fields


def test_videos_of_another_dataset_may_have_seeds_of_their_own():
    datasets = {"one": {"generate": {}}, "few": {"videos_of": "one", "dataset_seeds": "2-3"}}
    found = expanded(datasets=datasets)
    assert [*found.cells[found.cells.dataset == "few"].dataset_seed.unique()] == [2, 3]


def test_a_test_has_the_model_of_its_pretraining_and_starts_from_it():
    found = expanded()
    for column, kind in {"Linear probe": Probe, "Fine-tuned": Finetune}.items():
        one = cell(found, row="MGM", column=column)
        spec = found.specs[one.run_id]
        assert isinstance(spec, kind)
        assert spec.parent == one.pretraining
        assert spec.model == found.specs[one.pretraining].model
        none = found.specs[cell(found, row="No pretraining", column=column).run_id]
        assert none.parent == ""
    start = found.specs[one.pretraining]
    assert isinstance(start, Pretrain)
    assert (one["mask"], one.ratio, one.epochs, one.steps) == ("mgm", 0.75, 200, 399)


def test_a_row_may_go_on_from_the_weights_of_another():
    rows = {"MGM": {}, "Tube": {"mask": "tube"}, "Longer": {"mask": "tube", "from": "Tube"}}
    found = expanded(rows=rows, compare=[])
    longer = found.specs[cell(found, row="Longer").pretraining]
    assert longer.parent == cell(found, row="Tube").pretraining


def test_only_limits_rows_and_columns():
    found = expanded(
        rows={"Tube": {"mask": "tube", "only": {"datasets": ["one"]}}, "MGM": {}},
        columns={"A": {"only": {"rows": ["MGM"]}}, "B": {"stage": "finetune"}},
        controls=[],
    )
    places = found.cells[["dataset", "row", "column"]].drop_duplicates()
    assert [*places.itertuples(index=False, name=None)] == [
        ("one", "Tube", "B"),
        ("one", "MGM", "A"),
        ("one", "MGM", "B"),
        ("three", "MGM", "A"),
        ("three", "MGM", "B"),
    ]


def test_a_row_may_train_with_labels_before_it_is_tested():
    rows = {"Supervised": {"from": "none", "then": "supervised"}, "Tuned": {"then": "finetune"}}
    found = expanded(rows=rows, compare=[])
    last = {}
    for row in rows:
        one = cell(found, row=row, column="Linear probe")
        last[row] = found.specs[found.specs[one.run_id].parent]
        assert isinstance(last[row], Finetune)
    assert last["Supervised"].parent == ""
    assert last["Tuned"].parent == cell(found, row="Tuned").pretraining
    assert last["Supervised"].label_smoothing == SUPERVISED["label_smoothing"]


def test_stand_ins_for_published_datasets_say_so():
    datasets = {"ssv2": {"use": "ssv2"}, "own": {"use": "ssv2", "title": "Mine"}}
    study = study_of(datasets=datasets, seeds="0", controls=[])
    titles = {}
    for scale in ("smoke", "paper"):
        cells = expand([study], load_scale(CONFIG / f"{scale}.yaml")).cells
        titles[scale] = dict(zip(cells.dataset, cells.title))
    assert titles["smoke"] == {"ssv2": "SSv2 stand-in (generated)", "own": "Mine"}
    assert titles["paper"]["ssv2"] == "SSv2"


def test_a_column_has_controls_where_it_has_cells():
    only = {"A": {"only": {"datasets": ["one"]}}, "B": {}, "C": {"only": {"rows": ["MGM"]}}}
    found = expanded(columns=only, controls=["A", "B", "C"])
    controls = found.cells[found.cells.control]
    places = {*controls[["dataset", "column"]].itertuples(index=False, name=None)}
    assert places == {
        ("one", "A"),
        *((name, column) for name in ("one", "three") for column in "BC"),
    }


def test_a_view_of_a_mean_needs_the_runs_of_its_parts():
    mean = {"mean_of": ["one", "three"]}
    study = study_of()
    datasets = {"mean": mean, **study.model_dump(exclude_defaults=True)["datasets"]}
    found = expanded(datasets=datasets, views={"means": {"datasets": ["mean"]}})
    assert {*found.targets["means"]} == {*found.cells.run_id}


def test_a_view_needs_the_rows_that_it_subtracts_and_those_that_it_is_over():
    one = {"datasets": ["one"], "columns": ["Fine-tuned"], "rows": ["MGM"]}
    check = {"datasets": ["three"], "columns": ["Linear probe"]}
    views = {"check": check, "compared": one | {"kind": "differences"}}
    views["gains"] = one | {"kind": "gains", "minus": "No pretraining", "over": "check"}
    found = expanded(views=views)
    compared, gains = (
        found.cells[found.cells.run_id.isin(found.targets[key])] for key in ("compared", "gains")
    )
    assert {*compared.row} == {"MGM", "Tube"}
    places = gains[["dataset", "row", "column"]].itertuples(index=False, name=None)
    rows = ("MGM", "No pretraining")
    wanted = {
        (*place, row)
        for place in (("one", "Fine-tuned"), ("three", "Linear probe"))
        for row in rows
    }
    assert {(dataset, column, row) for dataset, row, column in places} == wanted


def test_a_picture_of_masks_has_those_of_the_rows():
    rows = {"No pretraining": "none", "Tube": {"mask": "tube", "mask.ratio": 0.75}, "MGM": {}}
    rows |= {"MGM, longer": {"epochs": 800}, "MGM, shuffled": {"mask.guidance": "shuffled"}}
    views = {"rows": {"show": "masks"}, "tubes": {"show": "masks", "rows": ["Tube"]}}
    views |= {"every": {"show": "every-mask"}}
    views = {key: view | {"kind": "clips", "datasets": ["three"]} for key, view in views.items()}
    found = expanded(rows=rows, views=views)
    rows, tubes, every = (found.specs[found.pictures[key]] for key in views)
    tube, mgm = Mask(name="tube", ratio=0.75), Mask()
    shuffled = mgm.model_copy(update={"guidance": "shuffled"})
    assert rows.masks == (("Tube", tube), ("MGM", mgm), ("MGM, shuffled", shuffled))
    assert tubes.masks == (("Tube", tube),)
    assert every.masks == ()
    start = found.specs[cell(found, dataset="three", row="MGM").pretraining]
    assert (rows.grid, rows.data) == (start.grid, start.data)
    assert not any(parents(spec) for spec in (rows, tubes, every))
    # The picture of an archive keeps its name.
    mini = load_suite("mini")
    assert expand(mini.studies, mini.scale).pictures["figure5"] == "sample-figure5-ssv2-7b007c4a"


def test_a_picture_of_models_has_none_for_rows_that_are_not_pretrained():
    view = {"kind": "clips", "show": "reconstructions", "datasets": ["three"]}
    found = expanded(views={"r": view | {"rows": ["No pretraining", "File size", "MGM"]}})
    mgm = cell(found, dataset="three", row="MGM").pretraining
    assert parents(found.specs[found.pictures["r"]]) == (mgm,)
    for show in ("masks", "reconstructions"):
        with refused("views.r: none of its rows is pretrained"):
            expanded(views={"r": view | {"show": show, "rows": ["No pretraining", "File size"]}})


@pytest.mark.usefixtures("prepared")
def test_a_prepared_folder_has_a_named_recipe():
    datasets = {"mine": {"root": "clips/mine", "recipe": "k400"}}
    study = study_of(datasets=datasets, seeds="3", controls=[])
    found = expand([study], SMOKE)
    spec = found.specs[cell(found, row="Tube").pretraining]
    assert (spec.data.dataset, spec.data.digest, spec.seed) == ("mine", "e" * 12, 3)
    assert spec.mask.ratio == 0.9


def test_a_backbone_that_a_scale_lacks_is_named_with_the_scales_file():
    with refused(f"{CONFIG / 'smoke.yaml'}: backbones lacks vit-h"):
        expanded(backbone="vit-h")


def test_a_scale_may_draw_each_dataset_once_per_seed():
    mini = load_suite("mini")
    found = expand(mini.studies, mini.scale)
    own = found.cells[(found.cells.study == "table4e") & (found.cells.dataset == "ssv2")]
    assert {*own.dataset_seed} == {*range(2001, 2017)}
    assert (own.dataset_seed == own.seed).all()
    digests = {found.specs[run].data.digest for run in own.run_id}
    assert len(digests) == 16
    # The same runs stand in several datasets of the study.
    people = found.cells[(found.cells.dataset == "people") & (found.cells.row == "Random Block")]
    assert len({*people.run_id} & {*own.run_id}) == 4 * 1


@pytest.mark.parametrize("name", ["smoke", "paper", "mini", "ladder", "masks", "rates", "day"])
def test_the_paper_and_our_studies_expand(name):
    suite = load_suite(name)
    found = expand(suite.studies, suite.scale)
    wanted = {"all", *found.pictures}
    for study in suite.studies:
        wanted |= {study.study, *study.shown_views}
        means = {key for key, place in study.datasets.items() if place.mean_of}
        assert {*study.shown} == {*found.cells[found.cells.study == study.study].dataset} | means
    assert found.targets.keys() == wanted
    seen = set()
    for run_id, spec in found.specs.items():
        assert {*parents(spec)} <= seen
        seen.add(run_id)
    last = found.cells.run_id.iloc[-1]
    assert [spec.run_id for spec in with_parents(found.specs, [last])][-1] == last
    for run_id in found.pictures.values():
        assert found.specs[run_id].stage in ("sample", "measure")


def test_shared_runs_of_the_paper_are_one_run():
    suite = load_suite("paper")
    found = expand(suite.studies, suite.scale)
    mgm = {
        ("table4e", "MGM (Dense)"),
        ("table4", "MGM (ViT-B, vectors, jitter)"),
        ("table1", "MGM, 200"),
    }
    tuned = found.cells[(found.cells.dataset == "ssv2") & (found.cells.column == "Fine-tuned")]
    runs = {one.run_id for one in tuned.itertuples() if (one.study, one.row) in mgm}
    assert len(runs) == 1


def test_controls_have_the_labels_of_their_column():
    found = expanded()
    control = found.specs[cell(found, row="File size", column="Linear probe").run_id]
    probe = found.specs[cell(found, row="MGM", column="Linear probe").run_id]
    assert isinstance(control, Measure)
    assert (control.data, control.views, control.seed) == (probe.data, probe.views, probe.seed)


def test_models_of_a_world_are_tested_on_the_next_and_adapted_to_it():
    worlds = {"generate": {"kind": "world"}}
    after = {"pretrained_on": "worlds", "dataset_seeds": "1"}
    datasets = {
        "worlds": worlds,
        "next": {"videos_of": "worlds", "shift": 1, **after},
        "half": {"generate": {"kind": "world", "classes": 6}, "shift": 1, "tested": False},
        "adapted": {"adapt": ["worlds", "half"], **after},
    }
    mini = load_scale(CONFIG / "mini.yaml")
    found = expand([study_of(datasets=datasets, dataset_seeds="1-2", controls=[])], mini)
    own = cell(found, dataset="worlds", dataset_seed=1, row="MGM")
    two = cell(found, dataset="worlds", dataset_seed=2, row="MGM")
    moved = cell(found, dataset="next", row="MGM")
    assert moved.pretraining == own.pretraining != two.pretraining
    assert found.specs[moved.run_id].data == found.specs[two.run_id].data
    adapted = cell(found, dataset="adapted", row="MGM")
    assert (adapted.pretraining, adapted.unit) == (own.pretraining, "worlds")
    assert found.datasets["adapted-1"].adapt == ("worlds-1", "half-2")
    assert found.datasets["half-2"].generate["seed"] == 2


def test_draws_of_two_worlds_share_no_seed():
    names = ("worlds", "second", "third")
    datasets = {"worlds": {"generate": {"kind": "world"}}}
    datasets |= {name: {"videos_of": "worlds", "draw": n + 2} for n, name in enumerate(names[1:])}
    columns = {"Linear probe": {}, "Fine-tuned": {"stage": "finetune"}}
    mini = load_scale(CONFIG / "mini.yaml")
    study = study_of(datasets=datasets, columns=columns, dataset_seeds="1-2", controls=[])
    found = expand([study], mini)
    for column in columns:
        cells = found.cells[(found.cells.column == column) & (found.cells.row == "MGM")]
        # The draws of a world test one model, with the same videos.
        assert list(cells.groupby("dataset_seed").pretraining.nunique()) == [1, 1]
        runs = [found.specs[run_id] for run_id in cells.run_id]
        assert len({run.data.digest for run in runs}) == 2
        assert len({run.seed for run in runs}) == len(names) * 2
        assert [run.seed for run in runs if run.seed < 1_000_000] == [1, 2]
