"""Runs in their folders: what they leave, what they refuse, and what they take from parents."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from itertools import combinations
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from mgm.cli import app
from mgm.cli.train import complete, fields_of
from mgm.data.index import read_index, with_digest, write_index
from mgm.files import locked
from mgm.results.run import read_result, status
from mgm.spec import STAGES, Augment, Data, Mask, Model, RunOptions, parse, read_spec
from mgm.stages import run as runs
from mgm.stages.apply import find_trained, recorded_classes
from mgm.stages.pretrain import pretrain
from mgm.stages.run import find_index, run_specs, verified_weights
from tests.helpers.errors import refused
from tests.helpers.small_runs import FINETUNE, PRETRAIN, without_file
from tests.stages.conftest import PROBE, TUNED


@pytest.fixture
def folders(trained) -> dict[str, list[Path]]:
    return {"ssv2": [trained.data]}


@pytest.fixture
def results(trained) -> Path:
    return trained.results


def weights(folder: Path, spec) -> dict:
    return load_file(folder / spec.run_id / "weights.safetensors")


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def command(results: Path, folders, *specs, mark: Path | None = None):
    """Call `mgm run` on specs."""
    words = ["run", "--out", str(results), "--data", f"ssv2={folders['ssv2'][0]}"]
    for spec in specs:
        (results / f"{spec.run_id}.json").write_text(spec.model_dump_json())
        words.append(str(results / f"{spec.run_id}.json"))
    return CliRunner().invoke(app, [*words, *(["--mark", str(mark)] if mark else [])])


def test_a_chain_of_runs_leaves_believable_results(results, folders):
    for spec in (PRETRAIN, TUNED, PROBE):
        folder = results / spec.run_id
        assert status(folder).state == "finished"
        assert read_spec(folder) == spec
        assert not list(folder.glob("checkpoint*"))
        result = read_result(folder)
        assert (result.data.train, result.data.test) == (24, 12)
        assert result.data.digest == spec.data.digest
        assert parse(result.spec, "result.json") == spec
        assert result.pixels == "rgb"
    digest = read_result(results / PRETRAIN.run_id).weights_sha256
    for spec in (TUNED, PROBE):
        result = read_result(results / spec.run_id)
        assert result.parents == {PRETRAIN.run_id: digest}
        assert result.n_test == 12
        assert 0 <= result.metrics["top1"] <= 100
    assert read_result(results / TUNED.run_id).data.classes == list(
        read_index(folders["ssv2"][0]).classes
    )
    (*_, line) = (results / PRETRAIN.run_id / "log.jsonl").read_text().splitlines()
    names = {"step", "steps", "loss", "lr", "grad_norm", "clips_per_s", "waiting", "memory_mb"}
    assert names | {"coverage", "trivial_loss", "time"} <= json.loads(line).keys()
    assert 0 < json.loads(line)["coverage"] <= 1


@pytest.mark.parametrize("call", [run_specs, command])
def test_a_finished_run_is_never_trained_again(results, folders, monkeypatch, capsys, call):
    """A kill after the result leaves checkpoints, and one before it a part of a file."""
    folder = results / PRETRAIN.run_id
    left = folder / "checkpoint.pt", folder / ".999999.checkpoint.pt"
    for path in left:
        path.touch()
    before = (folder / "result.json").stat()
    monkeypatch.setattr(runs, "_run_one", None)
    said = (
        run_specs([PRETRAIN], folders, results)
        if call is run_specs
        else command(results, folders, PRETRAIN).stderr
    )
    after = (folder / "result.json").stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)
    assert not any(path.exists() for path in left)
    assert "already done" in (said or capsys.readouterr().err)


def test_two_preparations_are_two_runs(results, folders, tmp_path):
    """A spec without a digest is named by the videos of the folder that it is given."""
    [folder] = folders["ssv2"]
    bare = PRETRAIN.model_copy(update={"data": Data(dataset="ssv2")})
    assert with_digest(bare, folders) == PRETRAIN
    index = read_index(folder)
    write_index(dataclasses.replace(index, root=tmp_path / "other", named="0123456789ab"))
    other = with_digest(bare, {"ssv2": [tmp_path / "other"]})
    assert other.data.digest == "0123456789ab"
    assert other.run_id != PRETRAIN.run_id
    # What a run saw is found again by its digest alone.
    both = {"ssv2": [folder, tmp_path / "other"]}
    assert find_index(other, both).root == tmp_path / "other"
    assert find_index(PRETRAIN, both) == index
    with refused("dataset ssv2 has several folders", "0123456789ab", PRETRAIN.data.digest):
        with_digest(bare, both)
    with refused("dataset ssv2 has no folder; pass --data ssv2=FOLDER"):
        with_digest(bare, {})
    (tmp_path / "spec.json").write_text(bare.model_dump_json())
    words = ["run", str(tmp_path / "spec.json"), "--data", f"ssv2={folder}", "--out", str(results)]
    said = CliRunner().invoke(app, words)
    assert f"{PRETRAIN.run_id}: already done" in said.stderr


def test_a_copied_or_renamed_run_is_a_model(results, tmp_path):
    folder = tmp_path / "my best model"
    shutil.copytree(results / TUNED.run_id, folder)
    path, digest = verified_weights(folder)
    assert (path.parent, digest) == (folder, read_result(results / TUNED.run_id).weights_sha256)
    assert recorded_classes(folder) == read_result(folder).data.classes
    assert find_trained(folder).model == TUNED.model
    # Where its name is read, it is another run.
    now = status(folder)
    assert now.state == "damaged"
    assert f"is of {TUNED.run_id}" in now.why


def test_a_spec_that_is_not_the_results_is_refused(results, tmp_path):
    """Its clips and model would be believed."""
    folder = tmp_path / PRETRAIN.run_id
    shutil.copytree(results / PRETRAIN.run_id, folder)
    clips = PRETRAIN.clips.model_copy(update={"stride": 7})
    edited = PRETRAIN.model_copy(update={"clips": clips})
    (folder / "spec.json").write_text(edited.model_dump_json())
    fields = {"stage": "probe", "data": {"dataset": "ssv2"}, "parent": PRETRAIN.run_id}
    for call in (lambda: find_trained(folder), lambda: complete(fields, "s.json", tmp_path)):
        with refused(f"spec.json: is of {edited.run_id}, and result.json of {PRETRAIN.run_id}"):
            call()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"path": 3, "sha256": ""}'])
def test_a_broken_record_of_external_weights_is_one_line(tmp_path, text):
    (tmp_path / "external.json").write_text(text)
    with refused(f"{tmp_path / 'external.json'}: "):
        verified_weights(tmp_path)


def test_a_second_process_waits_for_the_first(results, folders, capsys, tmp_path):
    folder = tmp_path / PRETRAIN.run_id
    waits = threading.Thread(target=run_specs, args=([PRETRAIN], folders, tmp_path))
    with locked(folder / "run.lock", "a test"):
        waits.start()
        waits.join(1)
        assert waits.is_alive()
        assert not (folder / "spec.json").exists()
        # It is the other process that finishes the run.
        for name in ("spec.json", "weights.safetensors", "result.json"):
            (folder / name).write_bytes((results / PRETRAIN.run_id / name).read_bytes())
    waits.join(60)
    said = capsys.readouterr().err
    assert f"{PRETRAIN.run_id}: waits for process {os.getpid()}" in said
    assert "already done" in said


def test_every_part_of_the_augmentation_reaches_the_training(folders, tmp_path):
    """Switching off any part of the augmentation changes the weights."""
    every = Augment(rand="rand-m7-n4-mstd0.5-inc1", erasing=0.25, mixup=0.8, cutmix=1.0, repeats=2)
    without = ({}, {"rand": ""}, {"erasing": 0.0}, {"mixup": 0.0}, {"cutmix": 0.0}, {"repeats": 1})
    plain = FINETUNE.model_copy(update={"drop_path": 0.0, "head_dropout": 0.0})
    specs = [
        plain.model_copy(update={"augment": every.model_copy(update=change)}) for change in without
    ]
    run_specs(specs, folders, tmp_path)
    found = [weights(tmp_path, spec) for spec in specs]
    assert not any(same(one, two) for one, two in combinations(found, 2))


def test_options_do_not_change_a_result(results, folders, tmp_path):
    """Accumulation adds float32 numbers in another order, and recomputing none."""
    run_specs([PRETRAIN], folders, tmp_path / "recomputed", RunOptions(recompute=True))
    assert same(weights(tmp_path / "recomputed", PRETRAIN), weights(results, PRETRAIN))
    run_specs([PRETRAIN], folders, tmp_path / "parts", RunOptions(accumulate=2))
    whole, parts = weights(results, PRETRAIN), weights(tmp_path / "parts", PRETRAIN)
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-3, atol=1e-4)


def test_an_unreadable_training_video_is_counted_and_listed(trained, tmp_path):
    index = trained.index
    gone = without_file(index.train[0], tmp_path)
    once = PRETRAIN.model_copy(
        update={"optim": PRETRAIN.optim.model_copy(update={"steps": 31}), "repeats": 1}
    )
    many = trained.context(tmp_path / "a", videos=(gone, *5 * index.train, *index.test))
    pretrain(once, many)
    assert many.failed == [gone.name]
    few = trained.context(tmp_path / "b", videos=(gone, *index.train, *index.test))
    says = "1 of 25 training videos could not be read, more than 1 %; the first: "
    with refused(f"{says}{gone.name}: ", "cannot be read"):
        pretrain(once, few)


def test_a_gpu_takes_planes_where_no_worker_needs_rgb(trained, tmp_path):
    """RandAugment and erasing need it. The device of a context needs no driver."""

    def pixels(spec, crop, device="cuda") -> str:
        run = trained.context(tmp_path, device)
        clips = spec.clips.model_copy(update={"crop": crop})
        return run.pixels(spec.model_copy(update={"clips": clips}))

    erased = FINETUNE.model_copy(update={"augment": Augment(erasing=0.25)})
    assert [pixels(spec, "multiscale") for spec in (PRETRAIN, FINETUNE)] == ["planes"] * 2
    assert [pixels(spec, "multiscale") for spec in (erased, PROBE)] == ["rgb"] * 2
    assert pixels(PRETRAIN, "centre") == pixels(PRETRAIN, "multiscale", "cpu") == "rgb"


def test_few_labels_are_the_same_for_all_runs_of_a_seed(trained, tmp_path):
    few, run = Data(dataset="ssv2", labels_per_class=3), trained.context(tmp_path)

    def chosen(spec, **changes) -> list[str]:
        videos = run.training_videos(spec.model_copy(update={"data": few, **changes}))
        assert [sum(video.label == label for video in videos) for label in range(3)] == [3, 3, 3]
        return [video.name for video in videos]

    assert chosen(FINETUNE) == chosen(TUNED) == chosen(PROBE) != chosen(FINETUNE, seed=1)
    many = FINETUNE.model_copy(update={"data": few.model_copy(update={"labels_per_class": 9})})
    with refused("data.labels_per_class is 9", " 8 "):
        run.training_videos(many)


def test_a_failure_is_recorded_and_the_others_still_run(results, folders, tmp_path, capsys):
    """Equal causes are told once."""
    lost = [
        FINETUNE.model_copy(update={"parent": "pretrain-mgm-vitb-ssv2-e800-00000000", "seed": seed})
        for seed in range(2)
    ]
    with refused("2 of 3 runs failed"):
        run_specs([*lost, FINETUNE], folders, tmp_path)
    why = (tmp_path / lost[0].run_id / "error.txt").read_text()
    assert f"{lost[0].parent}: is needed first, and is not run" in why
    assert status(tmp_path / lost[0].run_id).state == "failed"
    assert status(tmp_path / FINETUNE.run_id).state == "finished"
    assert f"{lost[1].run_id}: failed, as {lost[0].run_id}" in capsys.readouterr().err


@pytest.mark.parametrize("marked", [True, False])
def test_a_damaged_result_holds_up_its_own_children_alone(folders, tmp_path, marked):
    """Each call names it. The children of other runs are run."""
    mark = tmp_path / "batch.done" if marked else None
    other = PRETRAIN.model_copy(update={"seed": 1})
    tuned = {spec: TUNED.model_copy(update={"parent": spec.run_id}) for spec in (PRETRAIN, other)}
    assert command(tmp_path, folders, PRETRAIN).exit_code == 0
    damaged = tmp_path / PRETRAIN.run_id / "result.json"
    damaged.write_text(damaged.read_text()[:99])
    for batch in [(PRETRAIN, other), (tuned[PRETRAIN], tuned[other])]:
        said = command(tmp_path, folders, *batch, mark=mark)
        assert str(damaged) in said.stderr
        assert bool(said.exit_code) == (not marked)
        assert status(tmp_path / batch[1].run_id).state == "finished"
    assert status(tmp_path / PRETRAIN.run_id).state == "damaged"
    assert status(tmp_path / tuned[PRETRAIN].run_id).state == ("not run" if marked else "failed")
    damaged.unlink()
    command(tmp_path, folders, PRETRAIN, mark=mark)
    command(tmp_path, folders, tuned[PRETRAIN], mark=mark)
    assert status(tmp_path / tuned[PRETRAIN].run_id).state == "finished"


def test_a_parent_whose_weights_were_deleted_is_run_again(results, folders, tmp_path):
    folder = tmp_path / PRETRAIN.run_id
    shutil.copytree(results / PRETRAIN.run_id, folder)
    before = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").unlink()
    with refused(f"{PRETRAIN.run_id}: is needed first", "run it again"):
        run_specs([TUNED], folders, tmp_path)
    command(tmp_path, folders, PRETRAIN)
    assert (folder / "weights.safetensors").read_bytes() == before
    command(tmp_path, folders, TUNED)
    assert status(tmp_path / TUNED.run_id).state == "finished"


def test_weights_that_are_not_the_parents_are_refused(results, folders, tmp_path):
    copy = tmp_path / PRETRAIN.run_id
    copy.mkdir()
    for name in ("spec.json", "result.json"):
        (copy / name).write_bytes((results / PRETRAIN.run_id / name).read_bytes())
    changed = weights(results, PRETRAIN)
    changed["mask_token"] += 1
    save_file(changed, copy / "weights.safetensors")
    with refused("its SHA-256 is", "the run wrote"):
        run_specs([TUNED], folders, tmp_path)


def test_a_dataset_is_found_by_its_name_and_digest(results, folders, tmp_path):
    with refused(PRETRAIN.run_id, "needs ssv2 with digest", "pass its folder as --data ssv2="):
        run_specs([PRETRAIN], {}, tmp_path)
    other = PRETRAIN.model_copy(update={"data": Data(dataset="ssv2", digest="0" * 12)})
    with refused("needs ssv2 with digest 000000000000", PRETRAIN.data.digest):
        run_specs([other], folders, tmp_path)
    old = PRETRAIN.model_copy(update={"mask": Mask(name="warped", version=1)})
    with refused("mask.version is 1, and this code makes version 2 of warped"):
        run_specs([old], folders, tmp_path)


def test_a_spec_takes_clips_and_model_from_its_parent(results):
    fields = {"stage": "probe", "data": {"dataset": "ssv2"}, "parent": PRETRAIN.run_id}
    spec = complete(fields | {"clips": {"stride": 3}}, "s.json", results)
    assert spec.model == PRETRAIN.model
    assert spec.clips == PRETRAIN.clips.model_copy(update={"stride": 3})
    assert complete(fields | {"parent": ""}, "s.json", results).model == Model()


def test_a_run_starts_from_external_weights(results, folders, tmp_path):
    """Its id depends on what they are, not on where they are."""
    path = tmp_path / "own.safetensors"
    path.write_bytes((results / PRETRAIN.run_id / "weights.safetensors").read_bytes())
    fields = json.loads(FINETUNE.model_dump_json()) | {"init": str(path)}
    del fields["parent"], fields["model"]
    heads = {"model": {"backbone": "toy", "heads": 2}}
    with refused("seed"):
        complete(fields | heads | {"seed": "none"}, "s.json", tmp_path)
    assert [*tmp_path.iterdir()] == [path]
    spec = complete(fields | heads, "s.json", tmp_path)
    assert spec.model == PRETRAIN.model
    run_specs([spec], folders, tmp_path)
    assert same(weights(tmp_path, spec), weights(results, TUNED))
    moved = path.rename(tmp_path / "moved.safetensors")
    again = complete(fields | heads | {"init": str(moved)}, "s.json", tmp_path)
    assert again.run_id == spec.run_id
    with refused("both init and parent"):
        complete(fields | {"parent": "x"}, "s.json", tmp_path)


@pytest.mark.parametrize("stage", STAGES)
def test_fields_lists_what_a_spec_may_contain(stage):
    lines = fields_of(STAGES[stage])
    names = [line.partition(":")[0] for line in lines]
    assert {"data.dataset", "clips.frames", "seed"} <= {*names}
    assert "data.dataset: (required)" in lines[1]


@pytest.mark.slow
def test_the_command_runs_specs_and_skips_finished_ones_without_torch(results, folders, tmp_path):
    spec = tmp_path / "spec.json"
    spec.write_text(PRETRAIN.model_dump_json())
    words = [sys.executable, "-X", "importtime", "-m", "mgm", "run", str(spec)]
    words += ["--out", str(tmp_path), "--data", f"ssv2={folders['ssv2'][0]}"]
    for imports_torch in (True, False):
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        assert bool(re.search(r"\| +torch\n", done.stderr)) == imports_torch
        assert f"{PRETRAIN.run_id}: " in done.stderr
    assert same(weights(tmp_path, PRETRAIN), weights(results, PRETRAIN))
    spec.write_text('{"stage": "probe", "data": {"dataset": "ssv2"}}')
    two = {**os.environ, "WORLD_SIZE": "2"}
    done = subprocess.run(words[:1] + words[3:], capture_output=True, text=True, env=two)
    assert done.returncode == 2
    assert "a probe runs in one process" in done.stderr
