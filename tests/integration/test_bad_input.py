"""Damaged or hostile input, and files in another encoding, cause an error of one line.

There is never a traceback or a hang.
"""

import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from mgm.cli import app
from mgm.data.folder import index_folder
from mgm.data.index import read_index
from mgm.errors import UserError
from mgm.models import build_classifier, save_weights
from mgm.models.weights_file import read_tensors
from mgm.reading import read_arrays, read_json, read_table, read_text, read_yaml
from mgm.results.result import examine
from mgm.spec import Clips, Data, Finetune, Model, Pretrain
from mgm.stages.measure.saliency import read_boxes
from mgm.video import probe_video, read_clip
from tests.helpers.errors import refused
from tests.helpers.videos import moving_square, write_video

LATIN_1 = "path,frame\nä.mp4,1\n".encode("latin-1")
UTF_16 = "path,label\nä.mp4,b\n".encode("utf-16")
BINARY = bytes(range(256)) * 3
NUL = b"path,\0label\n"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """Folder with three videos of each of two classes, and their index."""
    folder = tmp_path_factory.mktemp("prepared")
    for label in "ab":
        (folder / "videos" / label).mkdir(parents=True)
        for number in range(3):
            frames = moving_square(4, 32, 32, side=12, seed=number + ord(label))
            write_video(folder / "videos" / label / f"{number}.mp4", frames)
    index_folder(folder / "videos", folder / "index")
    return folder


@pytest.fixture
def place(prepared, tmp_path) -> Path:
    """Copy of `prepared`, for a test to damage."""
    return Path(shutil.copytree(prepared, tmp_path / "place"))


@pytest.mark.parametrize(
    "data", [LATIN_1, UTF_16, BINARY, NUL], ids=["latin1", "utf16", "bin", "nul"]
)
@pytest.mark.parametrize(
    ("file", "read"),
    [
        ("index/index.csv", lambda place: read_index(place / "index")),
        ("index/index.json", lambda place: read_index(place / "index")),
        (
            "index/boxes.csv",
            lambda place: read_boxes(place / "index", read_index(place / "index")),
        ),
        ("videos/videos.csv", lambda place: index_folder(place / "videos", place / "new")),
        ("scale.yaml", lambda place: read_yaml(place / "scale.yaml")),
        ("x.json", lambda place: read_json(place / "x.json")),
        (
            "model.safetensors.index.json",
            lambda place: read_tensors(place / "model.safetensors.index.json"),
        ),
    ],
)
def test_what_is_not_utf_8_is_one_line(place, file, read, data):
    (place / file).write_bytes(data)
    with refused(f"{place / file}: "):
        read(place)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    (tmp_path / "x").write_bytes("\ufeffä\r\n".encode())
    assert read_text(tmp_path / "x") == "ä\r\n"
    assert list(read_table(tmp_path / "x")) == [(1, ["ä"])]


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:200] + bytes(40) + data[240:],
        lambda data: b"text",
        lambda data: b"",
    ],
)
def test_damaged_arrays_are_one_line(tmp_path, change):
    path = tmp_path / "boxes.npz"
    np.savez(path, a=np.arange(50.0), b=np.arange(3))
    path.write_bytes(change(path.read_bytes()))
    with refused(f"{path}: "):
        read_arrays(path)


def test_a_name_cannot_act_on_the_terminal(tmp_path):
    """Escape codes become text, and a name of a megabyte is shortened."""
    for name in ("\x1b[31mred\x1b[2J\r\n\u202e", "a" * 10**6):
        torch.save({name: torch.zeros(3, dtype=torch.int64)}, tmp_path / "w.pt")
        with pytest.raises(UserError) as error:
            read_tensors(tmp_path / "w.pt")
        message = str(error.value)
        assert message.isprintable()
        assert len(message) < 2000
        assert "torch.int64" in message


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_no_reader_hangs_at_a_pipe_or_a_device(tmp_path, make):
    make(tmp_path / "x.yaml")
    for read in (read_text, read_yaml, read_json, read_arrays, lambda path: [*read_table(path)]):
        with refused("x.yaml: is a pipe"):
            read(tmp_path / "x.yaml")


def repeated(path: Path, copy: Path) -> None:
    """Copy a video. Frame 20 has the time of frame 19, counted from 0."""
    with av.open(str(path)) as source, av.open(str(copy), "w") as target:
        stream, last = target.add_stream_from_template(source.streams.video[0]), 0
        for number, packet in enumerate(source.demux(source.streams.video[0])):
            if packet.dts is None:
                continue
            packet.stream = stream
            if number == 20:
                packet.pts = packet.dts = last
            last = packet.pts
            target.mux(packet)


def test_a_matroska_file_with_a_repeated_time_is_read_to_its_end(tmp_path):
    """The packets do not show the frames' order, so the file is decoded from its start."""
    frames = moving_square(40, 64, 64)
    write_video(tmp_path / "a.mkv", frames, gop=10, b_frames=0)
    repeated(tmp_path / "a.mkv", tmp_path / "b.mkv")
    assert probe_video(tmp_path / "b.mkv").frames == 40
    for motion in (True, False):
        whole = read_clip(tmp_path / "a.mkv", [0, 19, 20, 39], motion)
        clip = read_clip(tmp_path / "b.mkv", [0, 19, 20, 39], motion)
        np.testing.assert_array_equal(clip.frames_THWC, whole.frames_THWC)
        np.testing.assert_array_equal(clip.motion_THW2, whole.motion_THW2)


def test_an_mp4_file_with_a_repeated_time_is_read_to_its_end(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, moving_square(40, 64, 64), gop=10, b_frames=0)
    data = bytearray(path.read_bytes())
    at = data.index(b"stts") + 8  # the number of entries, then count and duration of each
    assert struct.unpack(">II", data[at : at + 8]) == (1, 40)
    # All frames get the same time.
    data[at + 8 : at + 12] = struct.pack(">I", 0)
    path.write_bytes(data)
    with av.open(str(path)) as file:
        times = [packet.pts for packet in file.demux(file.streams.video[0]) if packet.size]
    assert len(set(times)) < len(times)
    assert probe_video(path).frames == 40
    assert len(read_clip(path, [0, 19, 20, 39]).frames_THWC) == 4


def test_carriage_returns_in_names_stay_in_them(place):
    (place / "videos" / "a").rename(place / "videos" / "a\rc")
    (place / "videos" / "b" / "0.mp4").rename(place / "videos" / "b" / "0\r\n.mp4")
    made = index_folder(place / "videos", place / "index")
    assert read_index(place / "index") == made
    assert made.classes == ("a\rc", "b")
    assert {"b/0\r\n.mp4", "a\rc/1.mp4"} <= {made.name(video) for video in made.videos}


SMALL = {
    "data": Data(dataset="folder"),
    "clips": Clips(frames=4, size=24, stride=2),
    "model": Model(width=16, depth=2, heads=2, patch=8),
}


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Path:
    """Weights of a classifier without a run."""
    path = tmp_path_factory.mktemp("bare") / "bare.safetensors"
    save_weights(build_classifier(Finetune(**SMALL), 2), path)
    return path


def command(verb: str, place: Path, weights: Path, *options: str) -> None:
    words = [verb, str(place / "videos"), "--weights", str(weights)]
    words += ["--out", str(place / ("o.npz" if verb == "embed" else "o.csv"))]
    given = {"--size": "24", "--frames": "4", "--temporal": "1", "--spatial": "1"}
    given |= dict(zip(options[::2], options[1::2]))
    words += [word for option in given.items() for word in option]
    app(words, standalone_mode=False)


OPTIONS = [
    (("--size", "50"), "clips.size 50"),
    (("--frames", "3"), "clips.frames 3"),
    (("--frames", "5000"), "frames:"),
    (("--frames", "4096", "--size", "4096"), "536,870,912"),
    (("--temporal", "10000000000"), "temporal:"),
    (("--temporal", "1000000000"), "4 frames"),
]


@pytest.mark.parametrize("verb", ["embed", "predict"])
@pytest.mark.parametrize(("options", "says"), OPTIONS)
def test_options_that_bare_weights_cannot_have_are_one_line(place, bare, verb, options, says):
    with refused(says):
        command(verb, place, bare, *options)
    assert not list(place.glob("o*"))


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((16, 3, 2, 7, 7), "model.patch 7"),
        ((16, 3, 3, 8, 8), "model.tubelet 3"),
        ((4, 3, 2, 8, 8), "width: "),
        ((0, 3, 2, 8, 8), "width: "),
        ((16, 3, 2, 0, 0), "patch: "),
        ((16, 1, 2, 8, 8), "1 channels"),
        ((16, 3, 2, 8, 4), "8 x 4"),
        ((16, 3, 2, 8), "encoder.patch_embed.proj.weight"),
        ((10**5, 3, 1, 1, 1), "width 100000"),  # a model of 10^11 weights, if it were built
    ],
)
def test_shapes_of_no_model_are_one_line(place, shape, says):
    weights = {"encoder.patch_embed.proj.weight": torch.zeros(shape)}
    first = (30, 10) if shape[0] > 100 else (3 * shape[0], shape[0])
    weights["encoder.blocks.0.attn.qkv.weight"] = torch.zeros(first)
    torch.save(weights, place / "w.pt")
    with refused(says):
        command("embed", place, place / "w.pt")


def test_a_time_in_the_future_is_no_sign_of_life(tmp_path):
    spec = Pretrain(**SMALL)
    folder = tmp_path / spec.run_id
    folder.mkdir()
    (folder / "spec.json").write_text(spec.model_dump_json())
    assert examine(folder, spec).state == "running"
    os.utime(folder, (time.time() + 10**7,) * 2)
    assert examine(folder, spec).state == "not run"


def test_output_is_made_safe_for_a_terminal(place, capsys):
    (place / "videos" / "a").rename(place / "videos" / "\x1b[31ma")
    app(
        ["prepare", "folder", "--source", str(place / "videos"), "--out", str(place / "n")],
        standalone_mode=False,
    )
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    assert "\\x1b[31ma" in said.out


def test_ctrl_c_while_libraries_are_imported_shows_no_traceback(tmp_path):
    (tmp_path / "typer.py").write_text("import time; print('here', flush=True); time.sleep(60)")
    process = subprocess.Popen(
        [sys.executable, "-m", "mgm", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{Path.cwd()}"},
        # A shell without job control starts its background jobs with SIGINT ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout.readline() == "here\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == -signal.SIGINT
