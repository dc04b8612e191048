from pathlib import Path

import pytest
from typer.testing import CliRunner

from mgm.cli import app
from mgm.data import tracks
from mgm.data.folder import index_folder
from mgm.data.index import Video, read_index, write_index
from mgm.data.prepare import read_params, summary
from mgm.data.synthetic.generator import generate
from mgm.data.synthetic.params import Synthetic
from mgm.data.tracks import write_track
from mgm.errors import UserError
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
        ('{"quick": 15}', "quick"),
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


@pytest.mark.parametrize("kind", ["folder", "synthetic"])
def test_a_set_that_was_stopped_at_its_tracks_is_not_whole(build, tmp_path, monkeypatch, kind):
    """A workflow takes a set with an index for whole, and would not prepare it again."""
    words = ["prepare", kind, "--out", str(tmp_path / "out"), "--processes", "1"]
    if kind == "folder":
        words += ["--source", str(build("a/1.mp4", "a/2.mp4", "b/1.mp4", "b/2.mp4"))]
    else:
        for size in ("classes=2", "train_per_class=2", "test_per_class=1", "size=32", "frames=4"):
            words += ["--set", size]
    written = list[Path]()

    def stopped(video: Video, *rest: object) -> None:
        if written:
            raise KeyboardInterrupt
        write_track(video, *rest)
        written.append(Path(video.track))

    with monkeypatch.context() as patch:
        patch.setattr(tracks, "write_track", stopped)
        CliRunner().invoke(app, words)
    assert written
    assert not (tmp_path / "out" / "index.json").exists()
    assert CliRunner().invoke(app, words).exit_code == 0
    assert all(map(tracks.has_track, read_index(tmp_path / "out").videos))


def test_parameters_can_be_set_without_a_file(tmp_path):
    params = read_params(None, ["layout=people", "size=96"])
    assert params == Synthetic(layout="people", size=96)
    with pytest.raises(UserError, match="layuot"):
        read_params(None, ["layuot=people"])
