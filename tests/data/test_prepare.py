import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import mgm
from mgm.cli import app
from mgm.data.folder import index_folder
from mgm.data.index import read_index, write_index
from mgm.data.prepare import read_params, summary
from mgm.data.synthetic.generator import generate
from mgm.data.synthetic.params import Synthetic
from tests.helpers.errors import refused


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("[]", "Input should be a valid dictionary"),
        ('{"sprite": 2}', "sprite is not a field"),
        ('{"kind": "ucf11"}', "kind:"),
        ('{"classes": 13}', "classes:"),
        ('{"kind": "hmdb51", "classes": 15}', "classes:"),
        ('{"size": 40}', "size:"),
        ('{"layout": "jump"}', "layout"),
        ('{"layout": "sway", "kind": "hmdb51"}', "ssv2 and k400"),
        ('{"sprites": 3}', "sway"),
        ('{"layout": "sway", "quick": 15}', "quick"),
        ('{"layout": "binding", "classes": 3, "sprites": 4}', "sprites:"),
    ],
)
def test_bad_parameters_name_file_and_field(tmp_path, text, says):
    path = tmp_path / "params.json"
    path.write_text(text)
    with refused(f"{path}: ", says):
        read_params(path)


def test_parameters_from_a_file_make_the_set_and_its_summary(tmp_path):
    (tmp_path / "params.json").write_text(
        '{"classes": 2, "train_per_class": 2, "test_per_class": 1, "size": 32, "frames": 4}'
    )
    index = generate(read_params(tmp_path / "params.json"), tmp_path / "set")
    assert index.digest == read_params(tmp_path / "params.json").digest
    first, second, head, left, right = summary(index).splitlines()
    assert first.startswith("6 videos of 2 classes in ")
    assert "seed 0" in second
    assert head.split() == ["train", "test"]
    assert (left.split()[-2:], right.split()[-2:]) == (["2", "1"], ["2", "1"])


def test_derived_indices_are_prepared_from_the_command_line(tmp_path):
    """Derived indices are made from the given folders; bad folders are refused with one line."""
    for kind in ("ucf101", "hmdb51"):
        generate(
            Synthetic(kind=kind, train_per_class=1, test_per_class=1, size=32, frames=2),
            tmp_path / kind,
        )
    command = [
        "prepare",
        "hmdb14-ucf7",
        "--source",
        f"{tmp_path}/hmdb51",
        "--target",
        f"{tmp_path}/ucf101",
    ]
    result = CliRunner().invoke(app, [*command, "--out", f"{tmp_path}/pda"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("21 videos of 14 classes in ")
    assert (tmp_path / "pda" / "index.json").is_file()
    result = CliRunner().invoke(
        app, ["prepare", "mini-k200", "--source", f"{tmp_path}/ucf101", "--out", f"{tmp_path}/mini"]
    )
    assert "0 of its 28 files are named ID_START_END.ext" in str(result.exception)
    result = CliRunner().invoke(
        app,
        [
            "prepare",
            "hmdb51",
            "--source",
            f"{tmp_path}/hmdb51/videos",
            "--out",
            f"{tmp_path}/x",
            "--split",
            "2",
        ],
    )
    assert "has no lists *_test_split2.txt" in str(result.exception)


def test_the_summary_lists_what_was_left_out(generated):
    from dataclasses import replace

    index = generated[1]
    still = tuple(replace(video, codec="vp9", has_vectors=False) for video in index.videos[:3])
    text = summary(
        replace(index, videos=(*still, *index.videos[3:]), excluded=(("a/x.mp4", "is empty"),))
    )
    assert "3 videos have no motion vectors (vp9)" in text
    assert text.endswith("1 files left out:\n  a/x.mp4: is empty")


@pytest.mark.slow
def test_a_published_dataset_is_its_file_and_a_line(build, tmp_path):
    """The command and the recipe know the new dataset."""
    package = tmp_path / "mgm"
    shutil.copytree(
        Path(mgm.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("workflow", "studies"):
        (tmp_path / name).symlink_to(Path(mgm.__file__).parents[1] / name)
    sets = package / "data" / "published"
    (sets / "tiny.py").write_text(
        "from mgm.data.published.json_lists import index_ssv2 as index_tiny  # noqa: F401\n"
    )
    with (package / "spec" / "datasets.py").open("r+") as file:
        lines = file.read()
        file.seek(0)
        line = 'Published("tiny", "Tiny", "the videos", train=1, test=1, classes=1, recipe="k400"),'
        file.write(lines.replace("_DATASETS = (\n", f"_DATASETS = (\n    {line}\n", 1))
    code = (
        "from mgm.__main__ import main; from mgm.study.recipes import MODELS, finetune; import mgm\n"
        f"assert mgm.__file__.startswith({str(tmp_path)!r})\n"
        "assert finetune('tiny', 'x', MODELS['vit-b']).clips == finetune('k400', 'x', "
        "MODELS['vit-b']).clips\nmain()"
    )
    lists = {
        "labels.json": {"Closing something": "0"},
        "train.json": [{"id": "1", "template": "Closing [something]"}],
        "validation.json": [{"id": "2", "template": "Closing [something]"}],
    }
    command = [
        sys.executable,
        "-c",
        code,
        "prepare",
        "tiny",
        "--source",
        str(build("1.mp4", "2.mp4", lists=lists)),
        "--out",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert len(read_index(tmp_path / "out").videos) == 2


def test_a_file_of_the_user_is_not_replaced_by_an_index(build, tmp_path):
    source, out = build("a/1.mp4", "a/2.mp4", "b/1.mp4", "b/2.mp4"), tmp_path / "out"
    command = ["prepare", "folder", "--source", str(source), "--out", str(out)]
    out.mkdir()
    for name, text in (
        ("index.csv", "path,label,split,group\na.mp4,a,train,g\n"),
        ("index.json", "{}"),
    ):
        (out / name).write_text(text)
        assert f"{out / name}: is not an index" in str(CliRunner().invoke(app, command).exception)
        assert (out / name).read_text() == text
        (out / name).unlink()
    # The rows of a killed call are replaced.
    write_index(index_folder(source, tmp_path / "other"), out)
    (out / "index.json").unlink()
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0
    # What the masks leave visible is printed.
    assert "% of textured patches" in done.output
