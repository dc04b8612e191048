"""Videos go through `mgm prepare`, training and testing, with a tiny model."""

import csv
import json

import pytest
import torch
from typer.testing import CliRunner

from mgm.cli import app
from mgm.data.index import read_index
from mgm.spec import Clips, Data, Decoder, Finetune, FinetuneOptim, Model, Optim, Pretrain, Views
from mgm.stages.finetune import finetune
from mgm.stages.job import Workplace
from mgm.stages.pretrain import pretrain
from mgm.stages.runner import run_all

OPTIM = {"lr": 0.064, "min_lr": 1e-4, "batch": 2, "steps": 2, "precision": "float32"}
# Names like those in HMDB51 and K400, and worse ones.
NAMES = [
    "-a (b) [c] {d} #1; é ü 跳.mp4",
    "100% 'x' & $y, *?.mp4",
    "plain.mp4",
]


@pytest.mark.slow
@pytest.mark.parametrize("copy", [[], ["--copy", "pack"]])
def test_files_of_any_name_are_prepared_trained_on_and_tested(build, tmp_path, copy):
    torch.set_num_threads(1)
    source = build(
        *(f"{folder}/{name}" for folder in ("-class (1)", "été #2; x") for name in NAMES)
    )
    out, results = tmp_path / "index [1]", tmp_path / "results"
    done = CliRunner().invoke(
        app, ["prepare", "folder", "--source", str(source), "--out", str(out), *copy]
    )
    assert done.exit_code == 0, done.output
    index = read_index(out)
    assert f", digest {index.digest}\n" in done.output
    assert len(index.videos) == 6

    small = {
        "data": Data(dataset="folder", digest=index.digest),
        "clips": Clips(frames=4, size=24, stride=2, flip=False),
        "model": Model(width=16, depth=1, heads=2, patch=8),
    }
    pretraining = Pretrain(
        **small, decoder=Decoder(width=8, depth=1, heads=2), optim=Optim(**OPTIM), std_floor=0.1
    )
    finetuning = Finetune(
        **small,
        parent=pretraining.run_id,
        optim=FinetuneOptim(**OPTIM),
        views=Views(temporal=2, spatial=1),
    )
    run_all([pretraining], pretrain, Workplace(results, {"folder": out}))
    run_all([finetuning], finetune, Workplace(results, {"folder": out}))
    result = json.loads((results / finetuning.run_id / "result.json").read_text())
    assert (result["data"]["train"], result["data"]["test"], result["failed_videos"]) == (
        len(index.train),
        len(index.test),
        [],
    )
    with (results / finetuning.run_id / "predictions.csv").open(
        newline="", encoding="utf-8"
    ) as file:
        rows = list(csv.DictReader(file))
    assert [(row["path"], row["label"]) for row in rows] == [
        (index.name(video), index.classes[video.label]) for video in index.test
    ]
    assert all(row["prediction"] in index.classes for row in rows)
