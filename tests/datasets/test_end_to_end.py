"""Each published layout goes through `mgm prepare`, training and testing, with a tiny model."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from mgm.cli import app
from mgm.datasets.index import read_index
from mgm.errors import UserError
from mgm.jobs.data import Execution
from mgm.jobs.finetune import finetune
from mgm.jobs.pretrain import pretrain
from mgm.jobs.runner import run_all
from mgm.spec import Clips, Data, Decoder, Finetune, FinetuneOptim, Mask, Model, Optim, Pretrain, Views

SHARED = Path(__file__).parents[3] / "shared" / "data"
WEBM = SHARED / "clips" / "other"
OPTIM = {"lr": 0.064, "min_lr": 1e-4, "batch": 2, "steps": 2, "precision": "float32"}


def prepare(kind: str, source: Path, out: Path):
    result = CliRunner().invoke(app, ["prepare", kind, "--source", str(source), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[0].split(", digest ")[1] == read_index(out).digest
    return read_index(out), result.output


def small(kind: str, index, frames: int = 4) -> dict:
    return {
        "data": Data(dataset=kind, digest=index.digest),
        "clips": Clips(frames=frames, size=24, stride=2, flip=False),
        "model": Model(width=16, depth=1, heads=2, patch=8),
    }


def train_and_test(kind: str, index, out: Path, results: Path, mask: str = "mgm") -> list[dict[str, str]]:
    """Pretrain two steps, finetune two, and test: the predictions."""
    torch.set_num_threads(1)
    pretraining = Pretrain(
        **small(kind, index), decoder=Decoder(width=8, depth=1, heads=2), mask=Mask(name=mask), optim=Optim(**OPTIM), std_floor=0.1
    )
    finetuning = Finetune(
        **small(kind, index), parent=pretraining.run_id, optim=FinetuneOptim(**OPTIM), drop_path=0.0, head_dropout=0.0,
        views=Views(temporal=2, spatial=1),
    )  # fmt: skip
    execution = Execution(results, {kind: out})
    run_all([pretraining], pretrain, execution)
    run_all([finetuning], finetune, execution)
    folder = results / finetuning.run_id
    result = json.loads((folder / "result.json").read_text())
    assert (result["data"]["train"], result["data"]["test"], result["failed_videos"]) == (len(index.train), len(index.test), [])
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("kind", ["ssv2", "ucf101"])  # test_listed.py reads them all
def test_the_official_layout_is_prepared_trained_on_and_tested(published, tmp_path, kind):
    index, output = prepare(kind, published(kind).source, tmp_path / "index")
    assert "6 of 6 train videos are there, 3 of 3 test videos are there" in output
    rows = train_and_test(kind, index, tmp_path / "index", tmp_path / "results")
    assert [(row["path"], row["label"]) for row in rows] == [(index.name(video), index.classes[video.label]) for video in index.test]
    assert all(row["prediction"] in index.classes for row in rows)


@pytest.mark.skipif(not WEBM.is_dir(), reason="the webm clips are not here")
def test_real_webm_is_trained_on_with_a_mask_that_needs_no_vectors(tmp_path):
    source = tmp_path / "ssv2"
    for name, split, clip in (("41", "train", "task41_1"), ("5", "train", "task5_0"), ("42", "validation", "task41_1")):
        (source / "labels").mkdir(parents=True, exist_ok=True)
        shutil.copy(WEBM / f"{clip}.webm", source / f"{name}.webm")
        template = "Closing [something]" if clip == "task5_0" else "Moving [something] away from the camera"
        path = source / "labels" / f"{split}.json"
        rows = json.loads(path.read_text()) if path.exists() else []
        path.write_text(json.dumps([*rows, {"id": name, "template": template}]))
    (source / "labels" / "labels.json").write_text(json.dumps({"Closing something": "0", "Moving something away from the camera": "1"}))
    index, output = prepare("ssv2", source, tmp_path / "index")
    assert "3 videos have no motion vectors (vp9)" in output
    rows = train_and_test("ssv2", index, tmp_path / "index", tmp_path / "results", mask="tube")
    assert [(row["path"], row["label"]) for row in rows] == [("42.webm", "Moving something away from the camera")]
    with pytest.raises(UserError, match="codec vp9 gives no motion vectors"):
        train_and_test("ssv2", index, tmp_path / "index", tmp_path / "guided")


def test_hmdb51_takes_its_split_from_the_command_line(published, tmp_path):
    result = CliRunner().invoke(
        app, ["prepare", "hmdb51", "--source", str(published("hmdb51").source), "--out", str(tmp_path), "--split", "2"]
    )
    assert isinstance(result.exception, UserError)
    assert "has no lists *_test_split2.txt" in str(result.exception)


NAMES = ["-a (b) [c] {d} #1; é ü 跳.mp4", "100% 'x' & $y, *?.mp4"]  # as HMDB51 and K400 have them, and worse


@pytest.mark.parametrize("transcode", [[], ["--transcode"]])
def test_files_of_any_name_are_prepared_trained_on_and_tested(published, tmp_path, transcode):
    videos = published("k400").index.train
    for folder in ("-class (1)", "été #2; x"):
        (tmp_path / "videos" / folder).mkdir(parents=True)
        for name, video in zip([*NAMES, "plain.mp4"], videos):
            shutil.copy(video.path, tmp_path / "videos" / folder / name)
    out = tmp_path / "index [1]"
    result = CliRunner().invoke(app, ["prepare", "folder", "--source", str(tmp_path / "videos"), "--out", str(out), *transcode])
    assert result.exit_code == 0, result.output
    index = read_index(out)
    assert len(index.videos) == 6
    rows = train_and_test("folder", index, out, tmp_path / "results")
    assert [row["path"] for row in rows] == [index.name(video) for video in index.test]
