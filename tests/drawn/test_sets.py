import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from mgm.data.index import read_index
from mgm.data.prepare import list_drawn, prepare
from mgm.drawn import discs, people
from mgm.drawn.params import ACTIONS, CLASSES, Synthetic, parse_params, place, world
from mgm.drawn.sets import draw, encode, load_boxes
from mgm.drawn.sets import yuv420 as planes_of
from mgm.errors import UserError
from mgm.spec import GENERATED
from mgm.video.store import read_clips
from mgm.video.track import Track

TINY = Synthetic(classes=3, train_per_class=2, test_per_class=1, size=32, frames=6)


def made(params: Synthetic, out: Path, processes=1):
    return prepare(list_drawn(params), out, processes=processes, drawn=params)


def pixels(video) -> np.ndarray:
    track = Track(video.track())
    return read_clips(video.path, track, [np.arange(len(track))], None, 0)[0]


@pytest.mark.parametrize("kind", [*CLASSES, "people"])
def test_every_kind_is_drawn_encoded_and_prepared(tmp_path, kind):
    changes = {"layout": "people"} if kind == "people" else {"kind": kind}
    params = TINY.model_copy(update=changes)
    index = made(params, tmp_path)
    assert read_index(tmp_path) == index
    assert (index.digest, index.classes) == (params.digest, params.names)
    assert index.note.startswith(GENERATED)
    assert Counter((video.split, video.label) for video in index.videos) == {
        (split, label): count for split, count in (("train", 2), ("test", 1)) for label in range(3)
    }
    boxes, drawing = load_boxes(tmp_path), people if kind == "people" else discs
    assert {*boxes} == {video.name for video in index.videos}
    for video in index.videos:
        assert (video.frames, video.fps, video.width, video.codec, video.vectors) == (
            *(6, 12, 32, "h264", "source"),
        )
        scene = drawing.scene(params, *place(video.name))
        assert (video.split, video.label) == (place(video.name)[0], scene.label)
        errors = pixels(video).astype(float) - drawing.draw(params, scene)
        assert 10 * np.log10(255**2 / (errors**2).mean()) > 25
        np.testing.assert_array_equal(boxes[video.name], drawing.boxes(params, scene))
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def test_processes_do_not_matter(tmp_path):
    one, two = made(TINY, tmp_path / "one"), made(TINY, tmp_path / "two", processes=2)
    for video, other in zip(one.videos, two.videos, strict=True):
        assert Path(video.path).read_bytes() == Path(other.path).read_bytes()


def test_other_parameters_replace_the_set(tmp_path):
    made(TINY, tmp_path)
    other = TINY.model_copy(update={"seed": 1})
    shutil.copytree(tmp_path, tmp_path.parent / "copy")
    index = made(other, tmp_path)
    assert index.digest == other.digest
    assert (pixels(index.videos[0]) != pixels(read_index(tmp_path.parent / "copy").videos[0])).any()


def test_the_codec_stream_has_b_frames_and_a_key_frame_every_twelve(tmp_path):
    draw(TINY.model_copy(update={"frames": 24}), "100000", tmp_path / "video.mp4")
    with av.open(str(tmp_path / "video.mp4")) as container:
        kinds = "".join(
            av.video.frame.PictureType(frame.pict_type).name for frame in container.decode(video=0)
        )
    assert [kinds[0], kinds[12]] == ["I", "I"]
    assert kinds.count("I") == 2
    assert kinds.startswith("IBBP")
    assert kinds.count("B") > kinds.count("P")


def test_a_grey_video_is_encoded(tmp_path):
    encode(np.zeros((3, 32, 32), np.uint8), 25, tmp_path / "grey.mp4", "gray")
    with av.open(str(tmp_path / "grey.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 3


def test_chroma_is_the_mean_of_four_pixels(rng):
    frames_THWC = rng.integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    planes = planes_of(frames_THWC)
    mean_THWC = frames_THWC.astype(float).reshape(2, 4, 2, 4, 2, 3).mean((2, 4))
    for rows, weights in ((slice(8, 10), (-38, -74, 112)), (slice(10, 12), (112, -94, -18))):
        chroma = planes[:, rows].reshape(2, 4, 4)
        np.testing.assert_allclose(chroma, mean_THWC @ weights / 256 + 128, atol=0.51)


def test_the_digest_knows_every_parameter():
    changes = {
        **{"kind": "k400", "classes": 11, "train_per_class": 81, "test_per_class": 21, "size": 80},
        **{"frames": 25, "fps": 13, "pan": 0.9, "ground": "textured", "seed": 1, "sprites": 3},
        **{"diameter": 0.3, "quick": 9, "contrast": 50, "layout": "people"},
    }
    assert {*changes} == {*Synthetic.model_fields}
    digests = {Synthetic(**{name: value}).digest for name, value in changes.items()}
    assert len(digests | {Synthetic().digest}) == len(changes) + 1


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"kind": "mnist"}, "kind: "),
        ({"classes": 13}, "kind ssv2 has at most 12"),
        ({"colour": "red"}, "colour is not a field"),
        ({"kind": "world", "quick": 3}, "quick: a world's seed decides it"),
    ],
)
def test_wrong_parameters_are_one_line(fields, fault):
    with pytest.raises(UserError, match=f"params.json: .*{fault}"):
        parse_params(fields, "params.json")


def test_a_world_is_drawn_by_its_seed_alone():
    """If this fails, worlds that were published have changed. Do not change these values."""
    disc = {"layout": "sway", "ground": "textured"}
    assert world(2001) == {**disc, "quick": 6, "sprites": 1, "contrast": 36, "pan": 0.8}
    assert world(2003) == {**disc, "quick": 9, "sprites": 3, "contrast": 22, "pan": 0.0}
    assert world(2004) == {"layout": "people", "ground": "textured", "contrast": 3, "pan": 0.8}
    params = parse_params({"kind": "world", "seed": 2004, "train_per_class": 7}, "")
    assert (params.digest, params.size, params.names) == (
        parse_params({**world(2004), "size": 96, "seed": 2004, "train_per_class": 7}, "").digest,
        *(96, ACTIONS),
    )
    assert parse_params({"kind": "world", "seed": 2001}, "").size == 64


def test_parameters_and_worlds_need_neither_pyav_nor_torch():
    code = (
        "import sys; from mgm.drawn.params import parse_params, world; world(1);"
        "parse_params({'kind': 'world'}, '').digest; print({'av', 'torch'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
