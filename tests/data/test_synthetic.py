from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from mgm.data.index import read_index
from mgm.data.synthetic import generator as synthetic
from mgm.data.synthetic.generator import generate, load_boxes
from mgm.data.synthetic.params import CLASSES, Synthetic
from mgm.errors import UserError
from mgm.video import probe_video

TINY = Synthetic(classes=3, train_per_class=2, test_per_class=1, size=32, frames=6)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Return a function that draws a tiny set of a kind once: (folder, index)."""
    sets = {}

    def draw(kind):
        if kind not in sets:
            out = tmp_path_factory.mktemp("tiny") / kind
            sets[kind] = (out, generate(TINY.model_copy(update={"kind": kind}), out))
        return sets[kind]

    return draw


@pytest.mark.parametrize("kind", ["ucf101", "hmdb51", "diving48"])
def test_every_kind_is_whole(tiny, kind):
    out, index = tiny(kind)
    assert read_index(out) == index == generate(TINY.model_copy(update={"kind": kind}), out)
    assert (index.digest, index.classes) == (
        TINY.model_copy(update={"kind": kind}).digest,
        CLASSES[kind][:3],
    )
    assert Counter((video.split, video.label) for video in index.videos) == {
        (split, label): count for split, count in (("train", 2), ("test", 1)) for label in range(3)
    }
    boxes = load_boxes(out)
    assert set(boxes) == {Path(video.path).stem for video in index.videos}
    for video in index.videos:
        info = probe_video(video.path)
        assert (info.frames, info.fps, info.width, info.height) == (
            video.frames,
            video.fps,
            video.width,
            video.height,
        )
        assert (info.codec, info.has_vectors, boxes[Path(video.path).stem].shape) == (
            "h264",
            True,
            (6, 5, 4),
        )


def test_chroma_is_the_mean_of_four_pixels():
    frames_THWC = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    red, green, blue = np.moveaxis(frames_THWC.astype(int), -1, 0)
    planes = synthetic._yuv420(frames_THWC)
    chroma_u, chroma_v = planes[:, 8:10].reshape(2, 4, 4), planes[:, 10:].reshape(2, 4, 4)
    for y in range(4):
        for x in range(4):
            four = (slice(None), slice(2 * y, 2 * y + 2), slice(2 * x, 2 * x + 2))
            r, g, b = (plane[four].sum((1, 2)) for plane in (red, green, blue))
            np.testing.assert_array_equal(
                chroma_u[:, y, x], (-38 * r - 74 * g + 112 * b + 512) // 1024 + 128
            )
            np.testing.assert_array_equal(
                chroma_v[:, y, x], (112 * r - 94 * g - 18 * b + 512) // 1024 + 128
            )


def test_the_codec_stream_has_b_frames_and_a_key_frame_every_twelve(tmp_path):
    params = TINY.model_copy(update={"frames": 24, "train_per_class": 1})
    with av.open(generate(params, tmp_path).videos[0].path) as container:
        kinds = "".join(
            av.video.frame.PictureType(frame.pict_type).name for frame in container.decode(video=0)
        )
    assert [kinds[0], kinds[12]] == ["I", "I"]
    assert kinds.count("I") == 2
    assert kinds.startswith("IBBP")
    assert kinds.count("B") > kinds.count("P")


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.slow
def test_processes_do_not_matter(tmp_path):
    generate(TINY, tmp_path / "one", processes=1)
    generate(TINY, tmp_path / "two", processes=2)
    one, two = files(tmp_path / "one"), files(tmp_path / "two")
    # boxes.npz is a zip file, which stores times.
    assert {name for name in one if one[name] != two[name]} <= {
        "boxes.npz",
        ".mgm.sha256",
    }
    for name, boxes in load_boxes(tmp_path / "one").items():
        np.testing.assert_array_equal(boxes, load_boxes(tmp_path / "two")[name])


def test_a_second_call_draws_nothing_and_a_missing_video_all(tmp_path, monkeypatch):
    index = generate(TINY, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(synthetic, "_draw_all", None)
        assert generate(TINY, tmp_path) == index
    Path(index.videos[3].path).unlink()
    assert generate(TINY, tmp_path) == index
    assert Path(index.videos[3].path).is_file()


def test_other_parameters_replace_the_set(tmp_path):
    generate(TINY, tmp_path)
    fewer = TINY.model_copy(update={"train_per_class": 1})
    index = generate(fewer, tmp_path)
    assert index.digest == fewer.digest != TINY.digest
    assert {path.name for path in (tmp_path / "videos").iterdir()} == {
        Path(video.path).name for video in index.videos
    }


def test_videos_of_others_are_not_touched(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "mine.mp4").write_bytes(b"mine")
    with pytest.raises(UserError, match=f"{tmp_path / 'videos'}: .*--out"):
        generate(TINY, tmp_path)
    assert (tmp_path / "videos" / "mine.mp4").read_bytes() == b"mine"


def test_the_digest_knows_every_parameter():
    changes = {
        "kind": "k400",
        "classes": 11,
        "train_per_class": 81,
        "test_per_class": 21,
        "size": 80,
        "frames": 25,
        "fps": 13,
        "pan": 0.9,
        "ground": "smooth",
        "seed": 1,
        "sprites": 3,
        "diameter": 0.3,
        "quick": 9,
        "contrast": 50,
    }
    assert {*changes, "layout"} == set(Synthetic.model_fields)
    people = Synthetic(layout="people")
    digests = {Synthetic(**{name: value}).digest for name, value in changes.items()}
    assert len(digests | {people.digest, Synthetic().digest}) == len(changes) + 2
