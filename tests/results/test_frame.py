"""The frame: what a study wants, joined with its runs, from a folder or from NAME.csv.xz."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from mgm.errors import UserError
from mgm.files import locked
from mgm.report.cells import by_place, cells
from mgm.results import frame as frames
from mgm.results.frame import load, pack
from mgm.results.frozen import freeze
from mgm.results.run import LOCK, UNFROZEN
from mgm.study.expand import expand
from tests.helpers.archived import archived
from tests.helpers.errors import refused
from tests.helpers.fake_results import finish, finish_all, read, smoke, study_of

SMOKE = smoke((0,))
SMALL = study_of(dataset_seeds="1-2")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of studies and a folder of results."""
    monkeypatch.setattr(frames, "STUDIES", tmp_path / "studies")
    (tmp_path / "studies").mkdir()
    return tmp_path


def write(place, study):
    fields = study.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    (place / "studies/small.yaml").write_text(yaml.safe_dump(fields, sort_keys=False))


def run(place, study=SMALL):
    """Freeze a study, and finish its runs."""
    write(place, study)
    found = expand([study], SMOKE)
    freeze(place / "results/small", [study], SMOKE, found)
    finish_all(place / "results/small", found.specs)
    return found


def test_each_number_has_its_run(place):
    found = run(place, study_of(dataset_seeds="1-2"))
    table = load("small", place / "results").frame
    assert {*table.status} == {"finished"}
    assert {*table.run_id} == {*found.specs}
    numbers = table[table.column != ""]
    assert len(numbers) == len(found.cells)
    assert numbers.value.notna().all()
    assert {*table[table.column == ""].stage} == {"pretrain"}
    assert {*table.commit} == {"d67827d" + "0" * 33}


def test_a_row_whose_mask_is_measured_alone_has_no_pretraining(place):
    hidden = {"stage": "measure", "name": "hidden", "metric": "hidden"}
    run(place, study_of(columns={"Hidden": hidden}, controls=[]))
    table = load("small", place / "results").frame
    assert {*table.stage} == {"measure"}


def test_runs_that_did_not_finish_say_why(place):
    found = run(place)
    first, second = found.cells.run_id[~found.cells.control].iloc[:2]
    (place / "results/small" / first / "result.json").unlink()
    (place / "results/small" / second / "result.json").write_text("{")
    with locked(place / "results/small" / first / LOCK, first):
        table = load("small", place / "results").frame.set_index("run_id")
        assert (table.status[first], table.status[second]) == ("running", "damaged")
        assert second in table.why[second]
        assert table.value[[first, second]].isna().all()
        # Where the study is read back, nothing runs.
        pack_and_leave(place)
    table = load("small", place / "results").frame.set_index("run_id")
    assert (table.status[first], table.why[first]) == ("not run", "")


def test_a_control_that_a_dataset_does_not_have_has_no_row(place):
    found = run(place)
    control = found.cells[found.cells.control].iloc[0]
    finish(place / "results/small", found.specs[control.run_id], metrics={"frames": 40.0})
    table = load("small", place / "results").frame
    assert [*table[table.run_id == control.run_id].row] == ["Number of frames"]


def start(place, study):
    """Start the workflow of a study: add what it wants now."""
    write(place, study)
    freeze(place / "results/small", [study], SMOKE, expand([study], SMOKE))


def test_an_edited_row_is_not_run(place):
    rows = {"Tube": {"mask": "tube"}, "MGM": {}, "Longer": {"from": "MGM"}}
    run(place, study_of(dataset_seeds="1-2", rows=rows))
    pack("small", place / "results")
    rows["MGM"] = {"mask.ratio": 0.6}
    start(place, study_of(dataset_seeds="1-2", rows=rows))
    found = load("small", place / "results")
    numbers = found.frame[found.frame.column != ""]
    # "Longer" starts from its runs.
    edited = numbers.row.isin(("MGM", "Longer"))
    assert {*numbers[edited].status} == {"not run"}
    assert not numbers[edited].as_frozen.any()
    assert {*numbers[numbers.row == "Tube"].status} == {"finished"}
    assert "+      changes:\n+        mask.ratio: 0.6" in found.changes
    # What was frozen is still there, for its predictions.
    frozen = found.as_frozen("small")
    assert {*frozen.status} == {"finished"}
    assert {"MGM", "Longer"} <= {*frozen.row}


def test_a_number_that_was_added_is_not_as_frozen(place):
    run(place, study_of(dataset_seeds="1-2"))
    more = study_of(dataset_seeds="1-3")
    start(place, more)
    # A second start, or one after the addition was taken back, forgets nothing that was frozen.
    for study in (more, study_of(dataset_seeds="1-2"), more):
        start(place, study)
    frame = load("small", place / "results").frame
    assert {*frame.dataset_seed[frame.as_frozen & (frame.column != "")]} == {1, 2}
    assert {*frame.dataset_seed[~frame.as_frozen & (frame.column != "")]} == {3}


PROSE = {"question": "Which mask?", "answer": "Yes.", "views": {}, "limitations": {"Few": "Two."}}
CHANGES = [
    ({"rows": {"Tube": {"mask": "tube"}}}, "-    MGM: {}"),
    ({"settings": {"pretrain": {"optim.lr": 0.1}}}, "+      optim.lr: 0.1"),
    ({"overlap": 0.25}, "+  overlap: 0.25"),
    ({"in_order": True}, "+  in_order: true"),
    ({"question": "Another?"}, "+  question: Another?"),
    (PROSE, ""),
]


@pytest.mark.parametrize(("fields", "line"), CHANGES)
def test_what_has_changed_since_the_freeze_is_a_diff(place, fields, line):
    study = study_of(dataset_seeds="1-2", compare=[])
    run(place, study)
    write(place, study_of(**{"dataset_seeds": "1-2", "compare": []} | fields))
    changes = load("small", place / "results").changes
    assert line in changes
    assert bool(line) == bool(changes)


OTHERS = [
    {"rows": {"Tube": {"mask": "tube"}, "MGM": {"mask.ratio": 0.6}}},
    {"datasets": {"one": {"generate": {"sprites": 1}}}, "compare": []},
    {"dataset_seeds": "3-4"},
]


@pytest.mark.parametrize("fields", OTHERS)
def test_a_study_with_the_name_of_another_packed_one_is_refused(place, fields):
    run(place)
    pack_and_leave(place)
    other = study_of(**{"dataset_seeds": "1-2"} | fields)
    with refused(f"{place}/results/small.study.yaml: is a packed study of this name"):
        freeze(place / "results/small", [other], SMOKE, expand([other], SMOKE))
    # The packed study with more rows goes on.
    rows = {"No pretraining": "none", "Tube": {"mask": "tube"}, "MGM": {}, "SMM": {"mask": "smm"}}
    start(place, study_of(dataset_seeds="1-2", rows=rows))
    frame = load("small", place / "results").frame
    assert {*frame.row[frame.status == "not run"]} == {"SMM"}


def test_a_folder_of_an_older_version_is_packed_with_what_its_text_wants(place):
    study = study_of(dataset_seeds="1-2")
    run(place, study)
    (place / "results/small/wanted.csv").unlink()
    write(place, study_of(dataset_seeds="1-3"))
    with refused(f"{place}/results/small: has no wanted.csv"):
        load("small", place / "results")
    pack("small", place / "results")
    frame = load("small", place / "results").frame
    assert {*frame.status} == {"finished"}
    assert {*frame.dataset_seed[frame.column != ""]} == {1, 2}
    assert frame.as_frozen.all()


def test_a_packed_number_is_replaced_only_on_demand(place):
    found = run(place)
    path = pack("small", place / "results")
    before = path.read_bytes()
    spec = found.specs[found.cells.run_id[found.cells.column == "Fine-tuned"].iloc[0]]
    finish(place / "results/small", spec, top1=12.5)
    with refused(f"{path}: 1 of its numbers are others in", f"top1 of {spec.run_id}", "12.5"):
        pack("small", place / "results")
    assert path.read_bytes() == before
    pack("small", place / "results", replace=True)
    shutil.rmtree(place / "results/small")
    frame = load("small", place / "results").frame
    assert {*frame.value[frame.run_id == spec.run_id]} == {12.5}


def test_the_archive_hides_no_failure_and_counts_a_run_once(place):
    found = run(place)
    path = pack("small", place / "results")
    lost = found.cells.run_id[~found.cells.control].iloc[0]
    folder = place / "results/small" / lost
    (folder / "result.json").unlink()
    (folder / "error.txt").write_text("out of memory")
    # Two packs that were joined by hand. In the first one, nothing is finished.
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    pd.concat([table.assign(status="not run", value=""), table]).to_csv(path, index=False)
    frame = load("small", place / "results").frame
    assert {*frame.status[frame.run_id == lost]} == {"failed"}
    assert len(frame) == len(table)
    # Where it was never run, the archive has its number.
    shutil.rmtree(folder)
    assert {*load("small", place / "results").frame.status} == {"finished"}


BROKEN = {
    "small.csv.xz": [b"", b"version https://git-lfs.github.com/spec/v1\n", "half", "column"],
    "small.study.yaml": [b"", b"[]", b"study: small\n", "half"],
}


@pytest.mark.parametrize(
    ("name", "content"), [(name, one) for name, many in BROKEN.items() for one in many]
)
def test_a_damaged_file_is_one_line_with_its_path(place, name, content):
    run(place)
    pack_and_leave(place)
    path = place / "results" / name
    if content == "half":
        content = path.read_bytes()[: path.stat().st_size // 2]
    elif content == "column":
        pd.read_csv(path, dtype=str).drop(columns="n_test").to_csv(path, index=False)
        content = path.read_bytes()
    path.write_bytes(content)
    with refused(f"{path}: "):
        load("small", place / "results")


def pack_and_leave(place, study=SMALL):
    write(place, study)
    pack("small", place / "results")
    shutil.rmtree(place / "results/small")


def test_a_packed_study_is_read_back_and_continued_elsewhere(place):
    wins = {"row": "MGM", "minus": "Tube", "above": 0}
    study = study_of(dataset_seeds="1-2", predictions=[wins])
    found = run(place, study)
    before = load("small", place / "results")
    pack_and_leave(place, study)
    after = load("small", place / "results")
    pd.testing.assert_frame_equal(before.frame, after.frame)
    assert (after.frozen, after.folder) == (before.frozen, None)
    folder = place / "results/small"
    last = found.cells.run_id[found.cells.column == "Fine-tuned"].iloc[0]
    # A study is frozen once.
    freeze(folder, [SMALL], SMOKE, found)
    finish(folder, found.specs[last], top1=12.5)
    after = load("small", place / "results")
    assert after.frozen == before.frozen
    is_last = before.frame.run_id == last
    assert {*after.frame.value[is_last]} == {12.5}
    pd.testing.assert_frame_equal(before.frame[~is_last], after.frame[~is_last], check_dtype=False)
    # Packing adds to what is packed.
    pack("small", place / "results", replace=True)
    shutil.rmtree(folder)
    assert (load("small", place / "results").frame.status == "finished").all()


def test_prepared_videos_may_be_gone_when_a_page_is_read(place, data):
    root = shutil.copytree(data, place / "mine")
    datasets = {"mine": {"title": "Mine", "root": str(root), "recipe": "ssv2"}}
    run(place, study_of(datasets=datasets, dataset_seeds=(), seeds="0", controls=[], compare=[]))
    shutil.rmtree(root)
    before = load("small", place / "results").frame
    assert {*before.status} == {"finished"}
    assert "" not in {*before.digest}
    pack("small", place / "results")
    shutil.rmtree(place / "results/small")
    pd.testing.assert_frame_equal(before, load("small", place / "results").frame)


def test_packing_loses_no_run_that_the_study_does_not_want_any_more(place):
    found = run(place)
    path = pack("small", place / "results")
    # All runs are in the folder too.
    assert load("small", place / "results").problems == []
    rows = {"MGM": {"mask.ratio": 0.6}, "Tube": {"mask": "tube"}}
    edited = study_of(dataset_seeds="1-2", rows=rows)
    start(place, edited)
    more = expand([edited], SMOKE)
    new = {run_id: spec for run_id, spec in more.specs.items() if run_id not in found.specs}
    finish_all(place / "results/small", new)
    lost = len({*found.specs} - {*more.specs})
    what = f"has {lost} runs that are not wanted any more"
    folder, archive = load("small", place / "results").problems
    assert folder.startswith(f"{place}/results/small: {what}")
    assert archive.startswith(f"{path}: {what}")
    # They were frozen, so they stay.
    pack("small", place / "results")
    packed = path.read_bytes()
    # Those that were added are lost.
    few = study_of(dataset_seeds="1-2", rows={"Tube": {"mask": "tube"}}, compare=[])
    start(place, few)
    with refused(f"{path}: has {len(new)} runs that are not finished in"):
        pack("small", place / "results")
    assert path.read_bytes() == packed


def test_packing_elsewhere_loses_no_number_and_no_prediction(place):
    found = run(place, study_of(dataset_seeds="1-2"))
    path = pack("small", place / "results")
    packed, folder = path.read_bytes(), place / "results/small"
    # A run that is finished in the archive fails here.
    lost = found.cells.run_id[~found.cells.control].iloc[0]
    (folder / lost / "result.json").unlink()
    (folder / lost / "error.txt").write_text("out of memory")
    with refused(f"{path}: has 1 runs that are not finished in {folder}", lost):
        pack("small", place / "results")
    shutil.rmtree(folder / lost)
    # The study was frozen here too, before its archive came.
    own = folder / "study.yaml"
    own.write_text(own.read_text().replace("date: '2", "date: '3"))
    frozen = place / "results/small.study.yaml"
    before = frozen.read_bytes()
    with refused(f"{frozen}: is another frozen study than {own}"):
        pack("small", place / "results")
    assert (path.read_bytes(), frozen.read_bytes()) == (packed, before)


def test_names_that_look_like_missing_values_stay_names(place):
    rows = {name: {"optim.steps": 10 + at} for at, name in enumerate(("None", "NA", "null", "007"))}
    study = study_of(dataset_seeds="1-2", rows=rows, compare=[["NA", "007"]])
    run(place, study)
    pack_and_leave(place, study)
    table = load("small", place / "results").frame
    assert [*table[~table.control & (table.column != "")].row.unique()] == [*rows]


def test_a_users_own_file_is_found_again(place):
    found = expand([SMALL], SMOKE)
    own = place / "own.yaml"
    fields = SMALL.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    own.write_text(yaml.safe_dump(fields | {"question": "Mine?"}))
    # Another one of the same name does not replace it.
    write(place, study_of(question="Of the package?"))
    freeze(place / "results/small", [SMALL], SMOKE, found, str(own))
    assert load("small", place / "results").studies["small"].question == "Mine?"
    own.write_text(yaml.safe_dump(fields | {"study": "other"}))
    assert load("small", place / "results").studies["small"].question == "Which mask?"


def test_a_suite_that_never_ran_has_studies_and_no_numbers(tmp_path):
    found = load("smoke", tmp_path)
    assert [*found.studies] == ["table1", "table2", "table3", "table4", "table4e", "measured"]
    assert found.frame.empty
    assert found.folder is None


def test_a_mean_of_datasets_is_computed_per_seed(place):
    study = study_of(
        datasets={
            "one": {"generate": {"sprites": 1}},
            "three": {"generate": {"sprites": 3}},
            "both": {"title": "Both", "mean_of": ["one", "three"]},
            "effect": {"mean_of": ["three"], "minus_mean_of": ["one"]},
        },
        dataset_seeds="1-3",
    )
    found = run(place, study)
    table = read(place / "results/small", found, study)
    wide = table[table.column == "Fine-tuned"].pivot_table(
        index=["row", "seed"], columns="dataset", values="value"
    )
    assert (wide.both - (wide.one + wide.three) / 2).abs().max() < 1e-9
    assert (wide.effect - (wide.three - wide.one)).abs().max() < 1e-9
    # A number that lacks a dataset has no mean.
    gone = table[(table.dataset == "one") & (table.seed == 2) & (table.row == "MGM")].iloc[0]
    shutil.rmtree(place / "results/small" / gone.run_id)
    table = read(place / "results/small", found, study)
    lost = table[(table.dataset == "both") & (table.seed == 2) & (table.row == "MGM")]
    assert lost[lost.column == gone.column].value.isna().all()


def test_a_mean_counts_the_seeds_of_all_its_parts(place):
    """A seed that one part lacks is wanted and has no number, also after packing."""
    datasets = {"one": {"generate": {"sprites": 1}, "dataset_seeds": "1-4"}}
    datasets |= {"three": {"generate": {"sprites": 3}, "dataset_seeds": "3-8"}}
    datasets |= {"both": {"mean_of": ["one", "three"]}, "alone": {"mean_of": ["three"]}}
    study = study_of(datasets=datasets, controls=[])
    run(place, study)
    for packed in (False, True):
        if packed:
            pack_and_leave(place, study)
        frame = load("small", place / "results").frame
        means = cells(by_place(frame[frame.derived])).set_index("dataset")
        assert {*zip(means.n["both"], means.wanted["both"])} == {(2, 8)}
        assert {*zip(means.n["alone"], means.wanted["alone"])} == {(6, 6)}


def test_what_is_not_there_is_refused(place):
    with pytest.raises(UserError, match="no such study"):
        load("smal", place / "results")
    write(place, study_of())
    with pytest.raises(UserError, match="no run is finished"):
        pack("small", place / "results")


@pytest.mark.parametrize(
    "path", sorted(Path("results").glob("*.csv.xz")), ids=lambda path: path.name
)
def test_committed_numbers_name_their_runs_and_their_frozen_study(path):
    found = archived(path.name.removesuffix(".csv.xz"))
    assert found.problems == []
    assert found.frozen.commit
    done = found.frame[found.frame.status == "finished"]
    assert done.commit.str.fullmatch("[0-9a-f]{40}").all()
    assert not done.dirty.any()
    # A study that chooses settings predicts nothing.
    if any(study.predictions for study in found.studies.values()):
        tests = done[done.stage != "pretrain"]
        assert (tests.started > found.frozen.date[:19]).all()
        assert not (tests.study_sha256 == UNFROZEN).any()
