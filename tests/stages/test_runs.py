"""Pretraining, fine-tuning and probing on generated videos: output, interruptions and refusals."""

import csv
import errno
import json
import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from itertools import combinations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mgm.data.copies import copy_videos
from mgm.data.index import read_index
from mgm.errors import UserError
from mgm.results import atomic
from mgm.results.result import examine, last_losses, learnt_nothing, log_lines, write_result
from mgm.spec import Data, Finetune, PredictOptions, RunOptions, Views, Visualise, parse
from mgm.stages import fit as fitting
from mgm.stages import runner
from mgm.stages.apply import predict
from mgm.stages.evaluate import softmax_mean
from mgm.stages.export import export
from mgm.stages.finetune import finetune
from mgm.stages.job import Job, Workplace
from mgm.stages.pretrain import pretrain
from mgm.stages.probe import probe
from mgm.stages.runner import progress, run_all
from mgm.stages.visualise import visualise

COMPUTE = {"pretrain": pretrain, "finetune": finetune, "probe": probe}


def run(spec, execution):
    run_all([spec], COMPUTE[spec.stage], execution)
    return execution.results / spec.run_id


def weights(folder):
    return load_file(folder / "weights.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_chain_of_runs_leaves_believable_results(
    execution, pretraining, finetuning, probing, result_of
):
    for spec in (pretraining, finetuning, probing):
        folder = run(spec, execution)
        assert examine(folder, spec).state == "finished"
        assert parse(json.loads((folder / "spec.json").read_text()), "spec.json") == spec
        assert not list(folder.glob("checkpoint*"))
        result = result_of(spec)
        assert result["data"] == result["data"] | {
            "digest": spec.data.digest,
            "classes": 3,
            "train": 24,
            "test": 12,
        }
        assert result["failed_videos"] == []
    assert result_of(finetuning)["parents"] == [pretraining.run_id]
    lines = [
        json.loads(line)
        for line in (execution.results / pretraining.run_id / "log.jsonl").read_text().splitlines()
    ]
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert {
        "step",
        "steps",
        "loss",
        "lr",
        "grad_norm",
        "clips_per_s",
        "waiting",
        "memory_mb",
        "coverage",
        "trivial_loss",
        "time",
    } <= lines[0].keys()
    assert all(0 < line["coverage"] <= 1 for line in lines)

    for spec in (finetuning, probing):
        with (execution.results / spec.run_id / "predictions.csv").open() as file:
            rows = list(csv.DictReader(file))
        index = read_index(execution.data["ssv2"])
        assert [row["path"] for row in rows] == [index.name(video) for video in index.test]
        assert [row["label"] for row in rows] == [
            index.classes[video.label] for video in index.test
        ]
        assert result_of(spec)["metrics"]["top1"] == pytest.approx(
            100 * sum(row["label"] == row["prediction"] for row in rows) / 12
        )
        assert result_of(spec)["n_test"] == 12
    before = (folder / "result.json").stat()
    for name in (
        "checkpoint.pt",
        ".999999.checkpoint.pt",
        "writer.lock",
    ):  # as a kill after the result and before the clean-up leaves them
        (folder / name).touch()
    after = (run(probing, execution) / "result.json").stat()  # a finished run is left alone
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)
    assert not {path.name for path in folder.iterdir()} - {
        "result.json",
        "spec.json",
        "predictions.csv",
    }


@pytest.mark.parametrize("kind", ["pretraining", "augmented"])
def test_accumulation_changes_nothing_but_rounding(execution, pretraining, kind, tmp_path, request):
    spec = request.getfixturevalue(kind)
    if kind == "augmented":  # dropout draws per part
        spec = spec.model_copy(update={"parent": "", "drop_path": 0.0, "head_dropout": 0.0})
    whole = weights(run(spec, execution))
    parts = weights(
        run(
            spec,
            replace(
                execution,
                results=tmp_path / "parts",
                # Without the cache, a GPU would convert the pixels.
                options=execution.options.model_copy(update={"accumulate": 2}),
            ),
        )
    )
    for name in whole:  # float32 sums in another order, through 12 steps of Adam
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-3, atol=1e-4)
    with pytest.raises(UserError, match=r"--accumulate 3 .*optim\.batch 4"):
        run(
            pretraining,
            replace(execution, results=tmp_path / "thirds", options=RunOptions(accumulate=3)),
        )


def test_repeats_are_clips_of_the_batch(execution, pretraining, result_of):
    """Two clips per video, each with its own crop and mask, are another run."""
    spec = pretraining.model_copy(update={"repeats": 2})
    assert spec.run_id != pretraining.run_id
    folder = run(spec, execution)
    assert not same(weights(folder), weights(run(pretraining, execution)))
    assert result_of(spec)["metrics"]["explained"]


@pytest.mark.parametrize("slower", [40.0, 0.5])
def test_a_job_says_before_it_trains_that_bf16_is_slow_here(
    execution, pretraining, capsys, monkeypatch, slower
):
    spec = pretraining.model_copy(
        update={"optim": pretraining.optim.model_copy(update={"precision": "bf16", "steps": 1})}
    )
    monkeypatch.setattr("mgm.stages.fit.bf16_slowdown", lambda: slower)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    run(spec, execution)
    told = [
        line
        for line in capsys.readouterr().err.splitlines()
        if spec.run_id in line and "40 times" in line and "optim.precision" in line
    ]
    assert len(told) == (slower > 1)


def job(spec, execution, folder, **changes) -> Job:
    index = read_index(execution.data["ssv2"])
    folder.mkdir()
    return Job(spec, folder, execution, replace(index, **changes))


def test_every_part_of_the_augmentation_reaches_the_training(execution, augmented, tmp_path):
    """Switching off any part of the augmentation changes the weights."""
    spec = augmented.model_copy(update={"parent": "", "drop_path": 0.0, "head_dropout": 0.0})
    found = [weights(run(spec, execution))]
    for change in ({"rand": ""}, {"erasing": 0.0}, {"mixup": 0.0}, {"cutmix": 0.0}, {"repeats": 1}):
        less = spec.model_copy(update={"augment": spec.augment.model_copy(update=change)})
        found.append(weights(run(less, execution)))
    assert not any(same(one, two) for one, two in combinations(found, 2))


def test_more_views_than_frames_stop_a_run_before_it_trains(
    execution, finetuning, probing, monkeypatch
):
    monkeypatch.setattr(fitting, "training_loader", None)
    for spec in (finetuning, probing):
        many = spec.model_copy(update={"parent": "", "views": Views(temporal=13, spatial=1)})
        with pytest.raises(UserError, match=r"views\.temporal is 13.* 12 frames"):
            run(many, execution)
    many = probing.model_copy(update={"parent": "", "train_clips": 10**9})
    with pytest.raises(UserError, match="train_clips is 1000000000"):
        run(many, execution)


def test_an_unreadable_training_video_is_counted_and_listed(execution, pretraining, tmp_path):
    index = read_index(execution.data["ssv2"])
    gone = replace(index.train[0], path=str(tmp_path / "gone.mp4"))
    many = [replace(video, group=str(copy)) for copy in range(5) for video in index.train]
    one = job(pretraining, execution, tmp_path / "one", videos=(gone, *many, *index.test))
    spec = pretraining.model_copy(
        update={"optim": pretraining.optim.model_copy(update={"steps": 31})}
    )  # every video once: 31 x 4 > 121
    one = replace(one, spec=spec)
    pretrain(one)
    assert one.failed == [str(tmp_path / "gone.mp4")]
    few = job(spec, execution, tmp_path / "few", videos=(gone, *index.train, *index.test))
    with pytest.raises(UserError, match=r"1 of 25 .*gone\.mp4"):
        pretrain(few)


def test_an_unreadable_test_video_always_stops(
    execution, pretraining, finetuning, probing, tmp_path
):
    run(pretraining, execution)
    index = read_index(execution.data["ssv2"])
    gone = replace(index.test[5], path=str(tmp_path / "gone.mp4"))
    for spec in (finetuning, probing):
        with pytest.raises(UserError, match=r"gone\.mp4"):
            COMPUTE[spec.stage](
                job(
                    spec,
                    execution,
                    tmp_path / spec.stage,
                    videos=(*index.train, *index.test[:5], gone),
                )
            )


def test_a_codec_without_vectors_is_refused_by_guided_masks_alone(
    execution, pretraining, monkeypatch
):
    index = read_index(execution.data["ssv2"])
    still = tuple(replace(video, has_vectors=False, codec="vp9") for video in index.videos)
    monkeypatch.setattr("mgm.stages.job.read_index", lambda out: replace(index, videos=still))
    with pytest.raises(UserError, match="vp9 .*24 of 24 .*mgm"):
        run(pretraining, execution)
    tube = pretraining.model_copy(
        update={"mask": pretraining.mask.model_copy(update={"name": "tube"})}
    )
    assert (run(tube, execution) / "weights.safetensors").exists()


def test_a_run_from_copies_has_the_masks_of_the_files(execution, pretraining, videos, tmp_path):
    """The logged coverage is equal bit for bit; losses differ, as pixels are encoded again."""
    copies = copy_videos(read_index(videos), tmp_path / "copies", 64)
    spec = pretraining.model_copy(update={"data": Data(dataset="ssv2", digest=copies.digest)})
    logs = [
        log_lines(run(pretraining, execution)),
        log_lines(run(spec, replace(execution, data={"ssv2": tmp_path / "copies"}))),
    ]
    assert len(logs[0]) == 12
    for before, here in zip(*logs, strict=True):
        assert (here["step"], here["coverage"]) == (before["step"], before["coverage"])
        assert here["loss"] == pytest.approx(before["loss"], rel=0.1)


def test_few_labels_are_the_same_for_all_runs_of_a_seed(execution, finetuning, probing, tmp_path):
    data = finetuning.data.model_copy(update={"labels_per_class": 3})
    chosen = []
    for number, spec in enumerate(
        (finetuning, finetuning.model_copy(update={"parent": "", "seed": 0}), probing)
    ):
        videos = job(
            spec.model_copy(update={"data": data}), execution, tmp_path / str(number)
        ).training_videos()
        assert [sum(video.label == label for video in videos) for label in range(3)] == [3, 3, 3]
        chosen.append([video.path for video in videos])
    assert chosen[0] == chosen[1] == chosen[2]
    other = job(
        finetuning.model_copy(update={"data": data, "seed": 1}), execution, tmp_path / "other"
    ).training_videos()
    assert [video.path for video in other] != chosen[0]
    data = data.model_copy(update={"labels_per_class": 9})
    with pytest.raises(UserError, match=r"data\.labels_per_class is 9.* 8 "):
        job(
            finetuning.model_copy(update={"data": data}), execution, tmp_path / "many"
        ).training_videos()


def test_draws_of_labels_are_independent_probes_whose_mean_is_reported(
    execution, pretraining, probing, result_of
):
    run(pretraining, execution)
    few = probing.model_copy(
        update={"data": probing.data.model_copy(update={"labels_per_class": 3})}
    )
    many = few.model_copy(update={"label_draws": 4})
    alone, together = (
        list(csv.reader((run(spec, execution) / "predictions.csv").open(newline="")))
        for spec in (few, many)
    )
    # The first draw equals the only draw of the other run.
    assert [row[:3] for row in together] == alone
    right = [[row[column] == row[1] for row in together[1:]] for column in range(2, 6)]
    assert result_of(many)["metrics"]["top1"] == pytest.approx(100 * np.mean(right))
    assert len({tuple(column) for column in zip(*(row[2:] for row in together[1:]))}) > 1


def test_a_failure_is_recorded_and_the_others_still_run(execution, pretraining, finetuning):
    lost = finetuning.model_copy(update={"parent": "pretrain-mgm-vitb-ssv2-e800-00000000"})
    run(pretraining, execution)
    with pytest.raises(UserError, match="1 of 2 runs"):
        run_all([lost, finetuning], finetune, execution)
    assert (
        "weights.safetensors: no such weights; run the parent first"
        in (execution.results / lost.run_id / "error.txt").read_text()
    )
    assert examine(execution.results / lost.run_id, lost).state == "failed"
    assert examine(execution.results / finetuning.run_id, finetuning).state == "finished"


def test_a_clock_that_is_set_back_during_a_run_leaves_a_valid_result(
    execution, pretraining, monkeypatch
):
    class SetBack(datetime):
        years = iter(range(2030, 2000, -1))

        @classmethod
        def now(cls, *zone):
            return datetime(next(cls.years), 1, 1, tzinfo=UTC)

    monkeypatch.setattr(runner, "datetime", SetBack)
    assert examine(run(pretraining, execution), pretraining).state == "finished"


def test_a_cause_is_told_once(execution, pretraining, capfd):
    nowhere = replace(execution, data={"ssv2": execution.results / "nowhere"})
    with pytest.raises(UserError, match=r"nowhere/index\.json: ") as alone:
        run_all([pretraining], pretrain, nowhere)
    assert not capfd.readouterr().err  # the command line prints the raised error
    with pytest.raises(UserError, match="2 of 2 runs") as several:
        run_all([pretraining, pretraining.model_copy(update={"seed": 1})], pretrain, nowhere)
    assert (capfd.readouterr().err + str(several.value)).count(str(alone.value)) == 1


def test_a_folder_removed_in_mid_run_is_one_line(execution, pretraining, monkeypatch, capfd):
    """The run fails with one line, the others go on, and the next call starts it again."""
    other, real = pretraining.model_copy(update={"seed": 1}), fitting.training_loader
    folder = execution.results / pretraining.run_id

    def removing(*args, **kwargs):
        for step, batch in enumerate(real(*args, **kwargs)):
            if step == 5 and (folder / "log.jsonl").exists():
                shutil.rmtree(folder)
            yield batch

    monkeypatch.setattr(fitting, "training_loader", removing)
    with pytest.raises(UserError, match="1 of 2 runs"):
        run_all([pretraining, other], pretrain, execution)
    [told] = [line for line in capfd.readouterr().err.splitlines() if "failed" in line]
    assert (
        told == f"{pretraining.run_id}: failed: {folder}: was deleted during its run; run it again"
    )
    assert examine(folder, pretraining).state == "failed"
    assert examine(execution.results / other.run_id, other).state == "finished"
    monkeypatch.setattr(fitting, "training_loader", real)
    assert examine(run(pretraining, execution), pretraining).state == "finished"


def test_results_that_came_without_weights_say_so(execution, pretraining, finetuning):
    run(pretraining, execution)
    (execution.results / pretraining.run_id / "weights.safetensors").unlink()
    with pytest.raises(UserError, match=r"weights\.safetensors: .*delete"):
        run_all([finetuning], finetune, execution)


def test_data_that_is_missing_or_another_is_refused(execution, pretraining, tmp_path):
    with pytest.raises(UserError, match=f"{pretraining.run_id}: .*dataset ssv2"):
        run(pretraining, Workplace(tmp_path / "a", {}))
    other = pretraining.model_copy(update={"data": Data(dataset="ssv2", digest="0" * 12)})
    with pytest.raises(UserError, match=f"{pretraining.data.digest}.* 000000000000"):
        run(other, execution)


def test_views_are_merged_by_the_mean_of_softmax_scores():
    scores = np.array([[9.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 3.0, 0.0]])
    slow = np.mean([[np.exp(x) / sum(np.exp(row)) for x in row] for row in scores], axis=0)
    np.testing.assert_allclose(softmax_mean(scores), slow)
    assert softmax_mean(scores).argmax() == 1  # the mean of logits would choose class 0
    assert scores.mean(axis=0).argmax() == 0


@pytest.mark.parametrize(("loss", "said"), [(0.0698, True), (0.06, False)])
def test_a_run_that_predicts_nothing_says_so(loss, said):
    fell = [{"loss": 0.27, "trivial_loss": 0.07}] * 10  # early lines do not count
    assert (
        bool(learnt_nothing(*last_losses([*fell, *[{"loss": loss, "trivial_loss": 0.07}] * 2])))
        == said
    )
    assert not learnt_nothing(*last_losses([{"loss": loss}]))


def test_weights_that_are_not_the_parents_are_refused_everywhere(
    execution, pretraining, finetuning, probing, tmp_path
):
    """Weights that do not match their recorded SHA-256 are refused by children and commands."""
    for spec in (pretraining, pretraining.model_copy(update={"seed": 1}), finetuning):
        run(spec, execution)
    parent, child = (
        execution.results / spec.run_id / "weights.safetensors"
        for spec in (pretraining, finetuning)
    )
    other = (
        execution.results
        / pretraining.model_copy(update={"seed": 1}).run_id
        / "weights.safetensors"
    )
    own = parent.read_bytes()
    parent.write_bytes(other.read_bytes())
    child.write_bytes(child.read_bytes()[:-4] + b"\0\0\0\0")
    videos = execution.data["ssv2"]
    shown = Visualise(
        data=pretraining.data,
        clips=pretraining.clips,
        model=pretraining.model,
        figure="7",
        parents=(pretraining.run_id,),
    )
    for use in (
        lambda: run(finetuning.model_copy(update={"seed": 1}), execution),
        lambda: run(probing, execution),
        lambda: run_all([shown], visualise, execution),
        lambda: export(parent.parent, "hf", tmp_path / "out"),
        lambda: predict(videos, child.parent, tmp_path / "p.csv", None, PredictOptions()),
    ):
        with pytest.raises(UserError, match=r"weights\.safetensors: .*SHA-256"):
            use()
    parent.write_bytes(own)
    assert run(probing, execution)


def test_an_attentive_probe_trains_its_head_alone(execution, pretraining, finetuning, tmp_path):
    plain = {"drop_path": 0.1, "head_dropout": 0.0, "layer_decay": 0.75}
    plain["optim"] = finetuning.optim.model_copy(update={"steps": 60, "lr": 0.3})
    spec = finetuning.model_copy(update=plain | {"head": "attentive"})
    parent, folder = run(pretraining, execution), run(spec, execution)
    before, after = weights(parent), weights(folder)
    frozen = {name for name in after if name.startswith("encoder.")}
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    assert any(name.startswith("pooler.") for name in after.keys() - frozen)
    losses = [line["loss"] for line in log_lines(folder)]
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    data = execution.data["ssv2"]
    options = PredictOptions(split="test", temporal=2)
    predict(data, folder, tmp_path / "again.csv", None, options)
    with (tmp_path / "again.csv").open() as again, (folder / "predictions.csv").open() as first:
        told = [
            {row["path"]: row["prediction"] for row in csv.DictReader(f)} for f in (again, first)
        ]
    assert told[0] == told[1]
    with pytest.raises(UserError, match=f"attentive.*{pretraining.run_id}"):
        export(folder, "hf", tmp_path / "out")


@pytest.mark.parametrize("name", ["init_std", "layer_decay", "drop_path", "head_dropout"])
def test_settings_of_a_trained_encoder_are_refused_with_a_frozen_one(finetuning, name):
    fields = {"data": finetuning.data, "head": "attentive", name: 0.3}
    with pytest.raises(ValueError, match=name):
        Finetune(**fields)


def test_a_child_of_other_weights_is_altered(execution, pretraining, probing, result_of):
    run(pretraining, execution)
    folder = run(probing, execution)
    recorded = result_of(probing)
    assert recorded["parents_sha256"] == {
        pretraining.run_id: result_of(pretraining)["weights_sha256"]
    }
    write_result(folder, recorded | {"parents_sha256": {pretraining.run_id: "0" * 64}})
    assert examine(folder, probing).state == "altered"
    del recorded["parents_sha256"]
    write_result(folder, recorded)  # from before parents_sha256 was recorded
    assert examine(folder, probing).state == "finished"


def test_a_full_disk_is_one_line_even_for_its_record(execution, pretraining, monkeypatch, capfd):
    free = pretraining.model_copy(update={"seed": 1})

    def refuse(path, text):
        if pretraining.run_id in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return real(path, text)

    real = atomic.write
    monkeypatch.setattr(atomic, "write", refuse)
    with pytest.raises(UserError, match="1 of 2 runs"):
        run_all([pretraining, free], pretrain, execution)
    assert "spec.json: " in capfd.readouterr().err
    assert examine(execution.results / free.run_id, free).state == "finished"


def test_progress_counts_finished_runs(execution, pretraining):
    specs = execution.results / "specs"
    specs.mkdir(parents=True)
    assert progress(execution) == ""
    for seed in range(3):
        run_id = pretraining.model_copy(update={"seed": seed}).run_id
        (specs / f"{run_id}.json").touch()
        (execution.results / run_id).mkdir()
        if seed:
            (execution.results / run_id / "result.json").touch()
    assert progress(execution) == "; 2 of 3 runs done"
