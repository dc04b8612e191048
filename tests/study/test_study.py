"""Studies: their fields, their runs, and that a run of a committed study keeps its id."""

import json
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from mgm.cli import app
from mgm.dag.messages import problems
from mgm.dag.workflow import Workflow
from mgm.data.folder import index_folder
from mgm.errors import UserError
from mgm.report.views import check_views
from mgm.spec import MASKS, Measure, Pretrain, Probe, parents
from mgm.spec.masks import MaskInfo
from mgm.study import STUDIES, recipes
from mgm.study.formula import Term, parse_statement
from mgm.study.load import load_study, read_studies
from mgm.study.schema import Study
from tests.helpers.errors import refused
from tests.helpers.own_videos import own_videos
from tests.helpers.plans import plan_at, plan_of

SMALL = {
    "study": "small",
    "question": "Does it work?",
    "scale": "mini",
    "datasets": {"a": {"generate": {}}, "b": {"generate": {"sprites": 1}, "dataset_seeds": "5"}},
    "dataset_seeds": "5-6",
    "rows": {
        "Random weights": "none",
        "Tube": {"mask": "tube"},
        "MGM": {},
        "Longer": {"optim.steps": 9, "only": {"datasets": ["a"]}},
        "Further": {"from": "MGM", "optim.steps": 7, "only": {"dataset_seeds": "5"}},
    },
    "columns": {"Linear": {}, "k-NN": {"kind": "knn", "only": {"rows": ["MGM"]}}},
    "controls": ["Linear"],
    "compare": ["MGM minus *"],
    "predictions": [{"in": "a", "says": "MGM minus Tube above 0", "since": "HEAD"}],
}


# Rows with a mask to measure.
MASKED = {name: row for name, row in SMALL["rows"].items() if name != "Random weights"}


def small(**fields) -> Study:
    return Study.model_validate(deepcopy(SMALL) | fields)


@pytest.fixture(scope="module")
def plan():
    return plan_of(small())


def test_settings_change_the_sizes_that_the_scale_has():
    sizes = {"model.width": 96, "model.depth": 4, "decoder.width": 64}
    specs = plan_of(small(settings={"pretrain": sizes})).specs.values()
    starts = [spec for spec in specs if isinstance(spec, Pretrain)]
    assert {(one.model.width, one.model.depth, one.decoder.width) for one in starts} == {
        (96, 4, 64)
    }
    # A test has the model that was pretrained.
    assert {spec.model.width for spec in specs if isinstance(spec, Probe)} == {96}


def test_a_dataset_can_have_settings_of_its_own():
    longer = {"pretrain": {"optim.steps": 70}}
    datasets = {"a": {"generate": {}}, "b": {"videos_of": "a", "settings": longer}}
    plan = plan_of(small(datasets=datasets, settings={"pretrain": {"optim.steps": 60}}))
    starts = {
        (one.dataset, one.dataset_seed): plan.specs[one.pretraining]
        for one in plan.cells
        if one.row == "MGM"
    }
    assert {name: starts[name, 5].optim.steps for name in "ab"} == {"a": 60, "b": 70}
    assert starts["a", 5].data == starts["b", 5].data


def test_a_row_is_the_scales_pretraining_with_its_changes(plan):
    values = [value for value in plan.cells if value.dataset == "a" and value.dataset_seed == 5]
    by_row = {
        value.row: plan.specs[plan.specs[value.run_id].parent]
        for value in values
        if getattr(plan.specs[value.run_id], "parent", "")
    }
    assert by_row["Tube"].mask.name == "tube"
    assert by_row["Tube"].mask.ratio == 0.9
    assert by_row["MGM"].mask.name == "mgm"
    assert by_row["Longer"].optim.steps == 9
    assert by_row["Further"].parent == by_row["MGM"].run_id
    (scratch,) = [plan.specs[value.run_id] for value in values if value.row == "Random weights"]
    assert scratch.parent == ""


def test_what_models_explain_is_measured_on_pretraining_runs():
    column = {"Explained": {"stage": "measure", "name": "explained", "metric": "explained_moving"}}
    plan = plan_of(small(columns=column, controls=[], predictions=[], rows=MASKED))
    measured = {
        value.row: plan.specs[value.run_id] for value in plan.cells if value.dataset_seed == 5
    }
    for row, mask in (("Tube", "tube"), ("MGM", "mgm")):
        assert plan.specs[measured[row].parent].mask.name == mask
        assert measured[row].data == plan.specs[measured[row].parent].data


def test_every_run_comes_after_the_runs_it_starts_from(plan):
    seen = set()
    for run_id, spec in plan.specs.items():
        assert set(parents(spec)) <= seen
        seen.add(run_id)


def test_a_draw_is_complete_before_the_next_one(plan):
    drawn = [(value.dataset, value.dataset_seed) for value in plan.cells]
    changes = [pair for pair in pairwise(drawn) if pair[0] != pair[1]]
    assert len(changes) + 1 == len(set(drawn))


def test_people_are_held_out_to_choose_a_penalty_and_not_from_the_test():
    place = {"root": "data/none", "digest": "0123456789ab", "grouped": True, "recipe": "k400"}
    columns = {
        "Linear": {},
        "Fine-tuned": {"stage": "finetune"},
    }
    study = small(
        datasets={"own": place},
        dataset_seeds=[],
        seeds="1",
        columns=columns,
        rows={"MGM": {}},
        compare=[],
        controls=[],
        predictions=[],
    )
    plan = plan_of(study)
    run_of = {value.column: plan.specs[value.run_id] for value in plan.cells}
    assert run_of["Linear"].held_out == "groups"


def test_limits_hold_and_controls_share_the_probes_labels(plan):
    assert {value.dataset for value in plan.cells if value.row == "Longer"} == {"a"}
    assert {value.dataset_seed for value in plan.cells if value.row == "Further"} == {5}
    assert {value.row for value in plan.cells if value.column == "k-NN"} == {"MGM"}
    (control,) = {
        plan.specs[value.run_id]
        for value in plan.cells
        if value.control and value.dataset_seed == 6
    }
    (probe,) = [
        plan.specs[value.run_id]
        for value in plan.cells
        if value.dataset_seed == 6 and value.row == "Random weights"
    ]
    assert isinstance(control, Measure)
    assert isinstance(probe, Probe)
    assert (control.data, control.label_draws, control.views) == (
        probe.data,
        probe.label_draws,
        probe.views,
    )


def test_draws_have_their_own_data_and_one_name(plan):
    data = {
        value.dataset_seed: plan.specs[value.run_id].data
        for value in plan.cells
        if value.dataset == "a"
    }
    assert data[5].dataset == data[6].dataset == "ssv2"
    assert data[5].digest != data[6].digest


def test_a_measured_column_trains_nothing():
    seen = {"Seen": {"stage": "measure", "name": "visible", "metric": "texture"}}
    runs = plan_of(small(columns=seen, controls=[], rows=MASKED)).specs.values()
    assert {run.stage for run in runs} == {"measure"}
    assert {run.mask.name for run in runs} == {"tube", "mgm"}


@pytest.mark.parametrize(
    "fields",
    [
        {"compare": ["MGM minus Nothing"]},
        {"compare": ["MGM"]},
        {"compare": ["MGM over Tube"]},
        {"predictions": [{"in": "a", "says": "MGM minus 5 above 0", "since": "1"}]},
        {"predictions": [{"in": "a", "says": "Nothing above 0", "since": "1"}]},
        {"predictions": [{"in": "c", "says": "MGM above 0", "since": "1"}]},
        {"predictions": [{"in": "a", "says": "MGM is best", "since": "1"}]},
        {"predictions": [{"in": "a", "says": "MGM above 0", "column": "Nothing", "since": "1"}]},
        {"dataset_seeds": [], "datasets": {"a": {"generate": {}}}},
        {"datasets": {"a": {"generate": {}, "root": "x"}}},
        {"datasets": {"a": {"root": "x"}}, "seeds": "1"},
        {"datasets": {"a": {}}},
        {"datasets": {"a": {"generate": {}, "pretrained_on": "c"}}},
        {"rows": {"A": {"from": "B"}}},
        {"rows": SMALL["rows"] | {"MGM": {"from": "Further"}}},
        {"rows": SMALL["rows"] | {"Tube": {"mask": "nothing"}}},
        {"controls": ["Nothing"]},
        {"dataset_seeds": "5 to 6"},
        {"dataset_seeds": "0-999999"},
        {"dataset_seeds": "5, 5"},
        {"columns": {"Linear": {"metric": "accuracy"}}},
        {"columns": {"Seen": {"stage": "measure", "name": "visible"}}, "controls": []},
        {"answer": ["It is {a: MGM minus Nothing}."]},
        {"answer": ["It is {MGM}."]},
        {"views": {"over": {"kind": "line", "rows": ["Nothing"]}}},
        {"figures": {"over": {"kind": "over"}}},
        {"tables": {"1": {}}},
        {"views": {"table1": {"columns": ["Nothing"]}}},
        {"unknown": 1},
    ],
)
def test_a_study_that_names_what_is_not_there_is_refused_before_any_run(fields, tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL | fields, sort_keys=False))
    with pytest.raises(UserError, match=path.name) as error:
        load_study(path)
    assert "\n" not in str(error.value)


def test_two_datasets_of_one_name_are_refused(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text("study: x\ndatasets:\n  a: {generate: {}}\n  a: {generate: {pan: 1.0}}\n")
    with pytest.raises(UserError, match="small.yaml: .*a is given twice.* line 4"):
        load_study(path)


def test_a_field_that_no_spec_has_is_refused():
    with pytest.raises(UserError, match=r"study small: rows\.A\.mask\.nothing"):
        plan_of(small(rows={"A": {"mask.nothing": 1}, "MGM": {}, "Tube": {"mask": "tube"}}))


def test_the_order_of_a_rows_keys_does_not_matter():
    """A mask keeps the scale's other fields, and its own ratio is that of its recipe or its row."""
    ratios = [{"mask": "tube", "mask.ratio": 0.5}, {"mask.ratio": 0.5, "mask": "tube"}]
    for changes in ratios:
        rows = SMALL["rows"] | {"Tube": changes}
        settings = {"pretrain": {"mask.edge": "clamp"}}
        specs = plan_of(small(rows=rows, settings=settings)).specs.values()
        (mask,) = {
            run.mask for run in specs if isinstance(run, Pretrain) and run.mask.name == "tube"
        }
        assert (mask.ratio, mask.edge) == (0.5, "clamp")


@pytest.mark.parametrize(
    "datasets",
    [
        {"a": {"generate": {}}, "a-5": {"root": "x", "digest": "1", "recipe": "ssv2"}},
        {"a": {"use": "ssv2"}, "ssv2": {"root": "x"}},
    ],
)
def test_two_datasets_of_one_key_are_refused(datasets):
    fields = {"compare": [], "predictions": [], "rows": {"MGM": {}}, "columns": {"Linear": {}}}
    with refused("study small: datasets: ", "is the name of two"):
        plan_of(small(datasets=datasets, seeds="1", **fields))


@pytest.mark.parametrize("same", [{"mask": "mgm"}, {"optim.batch": 6}])
def test_two_rows_of_one_run_are_refused(same):
    with refused("study small: ", "rows.Again", "MGM"):
        plan_of(small(rows=SMALL["rows"] | {"Again": same}))


@pytest.mark.parametrize(
    "fields",
    [
        {"settings": {"finetune": {"optim.lr": 1}}},
        {"settings": {"measure": {"videos": 1}}},
        {"datasets": {"a": {"generate": {}, "settings": {"measure": {"videos": 1}}}}},
    ],
)
def test_settings_that_no_run_reads_are_refused(fields):
    with refused("study small: ", "settings"):
        plan_of(small(predictions=[], rows={"MGM": {}, "Tube": {"mask": "tube"}}, **fields))


def test_settings_of_measurements_change_measured_columns():
    seen = {"Seen": {"stage": "measure", "name": "visible", "metric": "texture"}}
    fields = {"columns": seen, "controls": [], "rows": MASKED}
    specs = plan_of(small(**fields, settings={"measure": {"videos": 7}})).specs.values()
    assert {spec.videos for spec in specs} == {7}


def test_a_statement_is_a_mean_or_a_difference():
    said = parse_statement("MGM [k-NN] minus MGM, shuffled guidance above -2.5")
    assert said.formula.terms == (Term("MGM", "k-NN"), Term("MGM, shuffled guidance"))
    assert said.formula.signs == (1, -1)
    assert (said.relation, said.bound) == ("above", -2.5)
    assert parse_statement("A minus B level").bound == 0
    assert parse_statement("A below 3").formula.terms == (Term("A"),)
    said = parse_statement("table1/ssv2: A over B is 1.47 ± 0.005")
    assert said.formula.terms == (Term("A", "", "table1/ssv2"), Term("B", "", "table1/ssv2"))
    assert (said.formula.is_ratio, said.tolerance) == (True, 0.005)
    for wrong in ("A minus B", "A above", "A level 3", "A above 3 ± 1"):
        with pytest.raises(ValueError, match=wrong):
            parse_statement(wrong)


def test_the_dag_has_a_job_for_each_run_and_dataset(tmp_path, monkeypatch):
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL, sort_keys=False))
    monkeypatch.chdir(tmp_path)
    workflow = Workflow({"study": str(path)}, data=Path("data"))
    assert {spec.run_id for job in workflow.jobs.values() for spec in job.specs} == set(
        workflow.plan.specs
    )
    assert len(workflow.built) == 3
    for job in workflow.jobs.values():
        folders = {word.partition("=")[2] for word in job.words if word.startswith("ssv2=")}
        assert len(folders) <= 1
        for spec in job.specs:
            assert folders == {str(workflow.places[workflow.key_of(spec.data)])}


def test_a_new_column_names_the_lost_weights_of_its_rows(tmp_path, monkeypatch):
    """As after an archive was unpacked: its runs are finished, and have no weights."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.yaml"

    def workflow(**fields):
        path.write_text(yaml.safe_dump(SMALL | fields, sort_keys=False))
        return Workflow({"study": str(path)}, data=Path("data"))

    archived = workflow()
    for run_id, spec in archived.plan.specs.items():
        digest = "0" * 64 if spec.stage in ("pretrain", "finetune") else None
        folder = archived.results / run_id
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps({"weights_sha256": digest}))
    new = workflow(
        columns=SMALL["columns"] | {"New": {"kind": "knn", "only": {"rows": ["Further"]}}}
    )
    lines = problems(new, new.jobs.keys() - new.done)
    parents = {new.plan.specs[c.run_id].parent for c in new.plan.cells if c.column == "New"}
    assert {line.partition(":")[0] for line in lines} == {
        str(new.results / parent) for parent in parents
    }


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_study_of_the_project_has_runs(path):
    study = load_study(path)
    assert study.study == path.stem
    plan = plan_of(study)
    assert {value.row for value in plan.cells if not value.control} == set(study.rows)
    for spec in plan.specs.values():
        assert not isinstance(spec, Pretrain) or spec.mask.name


def test_a_new_study_of_own_videos_has_its_rows_and_controls(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "data" / "mine"
    index_folder(own_videos(tmp_path / "mine", tmp_path / "drawn", train=6, test=1), root)
    assert CliRunner().invoke(app, ["new-study"]).exit_code == 0
    workflow = Workflow({"study": "studies/mine.yaml"})
    rows = {cell.row for cell in workflow.plan.cells if cell.metric and not cell.control}
    assert rows == {"Random weights", "Random tube", "Random block", "MGM"}
    assert {cell.seed for cell in workflow.plan.cells} == {0, 1, 2}
    assert any(cell.control for cell in workflow.plan.cells)
    (dataset,) = {spec.data.dataset for spec in workflow.plan.specs.values()}
    assert dataset == "mine"
    # The study reads other videos than its digest says.
    text = Path("studies/mine.yaml").read_text()
    Path("studies/mine.yaml").write_text(text.replace("root:", "digest: 0123456789ab, root:"))
    with pytest.raises(UserError, match="mine: .* 0123456789ab"):
        Workflow({"study": "studies/mine.yaml"})


def test_a_new_study_of_videos_without_labels(tmp_path, monkeypatch):
    """It has no probes, or tests on other videos."""
    monkeypatch.chdir(tmp_path)
    drawn = own_videos(tmp_path / "labelled", tmp_path / "drawn", train=6, test=1)
    index_folder(drawn, tmp_path / "data" / "labelled")
    (tmp_path / "flat").mkdir()
    for number, video in enumerate(sorted(drawn.rglob("*.mp4"))):
        (tmp_path / "flat" / f"{number}.mp4").symlink_to(video)
    index_folder(tmp_path / "flat", tmp_path / "data" / "mine")
    for words, stages in (
        ([], {"pretrain", "measure", "visualise"}),
        (["--test", "data/labelled"], {"pretrain", "probe", "measure", "visualise"}),
    ):
        Path("studies/mine.yaml").unlink(missing_ok=True)
        done = CliRunner().invoke(app, ["new-study", *words])
        assert done.exit_code == 0, done.output
        plan = Workflow({"study": "studies/mine.yaml"}).plan
        assert {spec.stage for spec in plan.specs.values()} == stages
        assert {cell.row for cell in plan.cells} >= {"Random tube", "Random block", "MGM"}


def test_a_digest_gives_the_same_runs_with_and_without_the_folder(tmp_path):
    """Also where the folder's index has groups, and the study does not say so."""
    root = tmp_path / "data"
    videos = own_videos(tmp_path / "mine", tmp_path / "drawn", train=6, test=1)
    index = index_folder(videos, root, groups=r"\d$")
    assert index.grouped
    place = {"root": str(root), "digest": index.digest, "recipe": "ssv2"}
    for grouped in (False, True):
        own = {"own": place | {"grouped": grouped}}
        study = small(
            datasets=own, dataset_seeds=[], seeds="1", rows={"MGM": {}}, compare=[], predictions=[]
        )
        with_folder = plan_of(study)
        root.rename(tmp_path / "elsewhere")
        assert plan_of(study) == with_folder
        (tmp_path / "elsewhere").rename(root)


def test_a_dataset_is_made_before_the_first_run_that_reads_it(tmp_path, monkeypatch):
    """So a study that stops early has whole dataset_seeds, and has not drawn the later ones."""
    monkeypatch.chdir(tmp_path)
    jobs = Workflow({"study": "larger"}).jobs.values()
    dataset_seeds = {job.name: job.priority for job in jobs if job.rule == "prepare"}
    assert len(set(dataset_seeds.values())) == len(dataset_seeds) > 1
    for job in jobs:
        assert all(
            dataset_seeds[name] >= job.priority for name in job.after if name in dataset_seeds
        )
    assert min(dataset_seeds.values()) < max(job.priority for job in jobs if job.specs)


PAPER_SCALES = ("smoke", "paper")


@pytest.mark.parametrize("name", PAPER_SCALES)
def test_every_table_and_figure_of_the_paper_is_a_target(name):
    plan = plan_at(name)
    tables = ("1", "2a", "2b", "2c", "2d", "3", "4a", "4b", "4c", "4d", "4e", "measured")
    figures = ("1", "4a", "4b", "5", "5_coverage", "6", "7", "8")
    wanted = {*(f"table{part}" for part in tables), *(f"figure{part}" for part in figures)}
    assert wanted <= plan.targets.keys()
    for target in wanted:
        assert plan.runs_of(target)
    assert {*Workflow({"scale": name}).targets} >= wanted
    # A table goes before a study of its name, which also has rows of figures.
    assert "MGM, 200" in {cell.row for cell in plan.cells if cell.study == "table1"}
    rows = {cell.row for cell in plan.cells if "table1" in cell.views}
    table1 = {cell.run_id for cell in plan.cells if cell.study == "table1" and cell.row in rows}
    assert {*plan.targets["table1"]} == table1
    with refused("table9", "did you mean table"):
        plan.runs_of("table9")


def test_a_table_is_left_out_where_the_scale_lacks_its_datasets_or_rows():
    targets = {name: plan_at(name).targets for name in ("mini", "paper")}
    assert "table4d" not in targets["mini"]
    assert {"table4a", "table4_guidance"} <= targets["mini"].keys()
    assert "table4_guidance" not in targets["paper"]  # one seed


def test_a_run_of_several_tables_is_one_run():
    plan = plan_at("paper")
    targets = plan.targets
    shared = [{*targets[f"table{name}"]} for name in ("4a", "4b", "4c", "4e")]
    (run_id,) = set.intersection(*shared)
    assert plan.specs[plan.specs[run_id].parent].mask.name == "mgm"


def test_chains_train_once_more_before_they_are_evaluated():
    plan = plan_at("paper")
    of_row = {
        (value.row, value.dataset): plan.specs[value.run_id]
        for value in plan.cells
        if value.study == "table2" and value.column == "Fine-tuned"
    }
    place = "ucf101-after-k400"
    then = plan.specs[of_row["MGM + Finetune", place].parent]
    assert (then.stage, then.data.dataset) == ("finetune", "k400")
    start = plan.specs[then.parent]
    assert (start.stage, start.optim.epochs, start.data.dataset) == ("pretrain", 800, "k400")
    supervised = plan.specs[of_row["Supervised", place].parent]
    assert (supervised.stage, supervised.parent, supervised.optim.epochs) == ("finetune", "", 200)


def test_a_mask_that_a_user_adds_gets_a_row_of_table_4e(monkeypatch):
    monkeypatch.setitem(MASKS, "mine", MaskInfo("My mask"))
    monkeypatch.setitem(recipes.MASK_RATIO, "mine", 0.5)
    assert "My mask" in {cell.row for cell in plan_at("smoke").cells}
    monkeypatch.setitem(MASKS, "mine", MaskInfo("My mask", source="A paper"))
    assert "My mask" not in {cell.row for cell in plan_at("smoke").cells}


def test_generated_data_never_carries_a_published_name():
    published = ("SSv2", "K400", "Kinetics", "Something", "UCF101", "HMDB51", "Diving48")
    for name in ("smoke", "mini", "paper"):
        plan = plan_at(name)
        studies = read_studies(Path(), plan).values()
        titles = [title for study in studies for title in study.shown.values()]
        assert {*titles} <= {cell.title for cell in plan.cells}
        assert titles
        for title in titles:
            assert any(known in title for known in published)
            assert ("stand-in" in title and "(generated)" in title) == (name != "paper")
        for study in studies:
            parts = [view.title for view in study.shown_views.values()]
            assert not any(known in text for text in parts for known in published)


def test_columns_of_a_scale_can_have_seeds_of_their_own():
    more = {"table4e": {"Fine-tuned": (0, 1), "Linear probe": (0, 1, 2)}}
    seeds = dict[str, set[int]]()
    for cell in plan_at("smoke", seeds_of=more).cells:
        if (cell.study, cell.row) == ("table4e", "MGM (Dense)"):
            seeds.setdefault(cell.column, set()).add(cell.seed)
    assert seeds == {"Fine-tuned": {0, 1}, "Linear probe": {0, 1, 2}}
    with refused("smoke", "without.table9"):
        plan_at("smoke", without=("table9",))
    with refused("smoke", "seeds_of.table9"):
        plan_at("smoke", seeds_of={"table9": {}})
    with refused("smoke", "seeds_of.table4e.k-NN"):
        plan_at("smoke", seeds_of={"table4e": {"k-NN": (1,)}})


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        (
            {
                "rows": SMALL["rows"]
                | {"Longer": {"optim.steps": 9, "only": {"dataset_seeds": "99"}}}
            },
            "Longer",
        ),
        (
            {
                "rows": SMALL["rows"]
                | {"Longer": {"optim.steps": 9, "only": {"dataset_seeds": "5-9"}}}
            },
            "dataset seed 7",
        ),
        ({"columns": SMALL["columns"] | {"k-NN": {"kind": "knn", "only": {"seeds": 3}}}}, "k-NN"),
        ({"rows": SMALL["rows"] | {"Other": {"only": {"rows": ["MGM"]}}}}, "Other"),
        ({"answer": ["It is {b: Longer}."]}, "Longer"),
        ({"predictions": [{"in": "b", "says": "Longer above 5"}]}, "Longer"),
        ({"predictions": [{"in": "a", "says": "Tube above 5", "column": "k-NN"}]}, "Tube"),
        (
            {"predictions": [{"in": "a", "says": "Tube above 5", "dataset_seeds": "7"}]},
            "dataset seed 7",
        ),
        ({"compare": ["Further [k-NN] minus MGM"]}, "Further"),
        ({"views": {"table1": {"rows": ["Tube"], "columns": ["k-NN"]}}}, "views.table1"),
    ],
)
def test_a_study_that_names_what_selects_no_run_is_refused(fields, named):
    with refused("study small: ", named):
        plan_of(small(**fields))


def test_a_view_has_the_runs_that_it_selects():
    """Their keys are targets of the workflow."""
    seen = {"stage": "measure", "name": "visible", "metric": "motion"}
    study = small(
        columns={"Linear": {}, "Seen": seen, "Other": {"stage": "finetune"}},
        rows={
            "Random weights": "none",
            "MGM": {},
            "Half": {"mask.ratio": 0.5, "line": "MGM"},
            "Rare": {"mask.ratio": 0.6, "line": "MGM", "figure_only": True},
        },
        views={
            "gain": {"kind": "scatter", "columns": ["Linear", "Seen"]},
            "over": {"kind": "line", "lines": ["MGM"], "columns": ["Other"], "datasets": ["a"]},
            "tablesmall": {"columns": ["Other"]},
        },
        compare=[],
        predictions=[],
    )
    cells = plan_of(study).cells
    assert {cell.column for cell in cells if "gain" in cell.views} == {"Linear", "Seen"}
    over = {(cell.dataset, cell.row, cell.column) for cell in cells if "over" in cell.views}
    assert over == {("a", row, "Other") for row in ("MGM", "Half", "Rare")}
    table = {cell.row for cell in cells if "tablesmall" in cell.views}
    assert table == {"Random weights", "MGM", "Half"}


@pytest.mark.parametrize(
    ("view", "named"),
    [
        ({"kind": "lien"}, "line"),
        ({"kind": "line", "x": "step", "axis": "Steps"}, "x"),
        ({"kind": "line", "x": "steps", "axis": "Steps", "colum": 1}, "colum"),
        ({"kind": "order"}, "x"),
        ({"kind": "order", "x": "a/b/c", "show": "masks"}, "show"),
        ({"kind": "clips"}, "show"),
        ({"kind": "clips", "show": "attention", "datasets": ["a"]}, "rows"),
        ({"kind": "clips", "show": "masks", "rows": ["MGM"], "datasets": ["a"]}, "rows"),
    ],
)
def test_a_view_of_an_unknown_kind_or_option_is_refused(view, named):
    with refused("study small: views.wrong", named):
        check_views(small(views={"wrong": view}))
    for key in ("report", "../../evil", ""):
        with pytest.raises(ValueError, match="views"):
            small(views={key: {}})


def test_an_expression_that_matches_nothing_is_refused_on_loading():
    with pytest.raises(ValueError, match="people"):
        small(people="(")


def test_a_report_says_which_rows_a_plan_lacks_and_refuses_that_of_another_study(tmp_path, capsys):
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL, sort_keys=False))
    results = tmp_path / "results" / "small"
    plan = replace(plan_of(small()), name="small", file="../../small.yaml")
    plan.write(results)
    assert list(read_studies(results, plan)["small"].rows) == list(SMALL["rows"])
    assert not capsys.readouterr().err
    rows = SMALL["rows"] | {"New": {"mask": "smm"}}
    path.write_text(yaml.safe_dump(SMALL | {"rows": rows}, sort_keys=False))
    assert "New" not in read_studies(results, plan)["small"].rows
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "rows.New" in line
    assert "snakemake --cores 1 report --config study=" in line
    other = replace(plan, cells=[cell._replace(study="other") for cell in plan.cells])
    with refused("results/small/plan: is the plan of other, not of small"):
        read_studies(results, other)
