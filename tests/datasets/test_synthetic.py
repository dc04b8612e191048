import csv
import json
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from mgm.datasets.index import read_index
from mgm.datasets.prepare import read_params
from mgm.datasets.published.ucf101 import index_ucf101
from mgm.datasets.synthetic import make as synthetic
from mgm.datasets.synthetic.drawing import draw, scene
from mgm.datasets.synthetic.layouts import video_name
from mgm.datasets.synthetic.make import generate, load_boxes
from mgm.datasets.synthetic.params import CLASSES, Synthetic
from mgm.errors import UserError
from mgm.video import probe_video, read_clip

TINY = Synthetic(classes=3, train_per_class=2, test_per_class=1, size=32, frames=6)


def test_the_set_is_laid_out_as_ssv2_with_our_index_beside_it(generated):
    out, index = generated
    assert read_index(out) == index
    assert index.digest == Synthetic(train_per_class=3, test_per_class=1).digest
    assert Counter((video.split, video.label) for video in index.videos) == {
        (split, label): count for split, count in (("train", 3), ("test", 1)) for label in range(12)
    }
    assert {Path(video.path).stem for video in index.train}.isdisjoint(Path(video.path).stem for video in index.test)
    labels = json.loads((out / "labels" / "labels.json").read_text())
    assert [name.lower() for name in labels] == list(CLASSES["ssv2"])
    for split, official in (("train", "train"), ("test", "validation")):
        rows = json.loads((out / "labels" / f"{official}.json").read_text())
        videos = [video for video in index.videos if video.split == split]
        assert [(row["id"], int(labels[row["template"]])) for row in rows] == [(Path(video.path).stem, video.label) for video in videos]
    video = index.videos[-1]
    info = probe_video(video.path)
    assert (info.frames, info.fps, info.width, info.height, info.codec, info.has_vectors) == (24, 12, 64, 64, "h264", True)
    assert (video.frames, video.fps, video.width, video.height, video.codec, video.has_vectors) == (24, 12, 64, 64, "h264", True)


def test_the_set_is_laid_out_as_k400_with_our_index_beside_it(tmp_path):
    params = TINY.model_copy(update={"kind": "k400"})
    index = generate(params, tmp_path)
    assert read_index(tmp_path) == index == generate(params, tmp_path)
    assert (index.digest, index.classes) == (params.digest, ("rising", "falling", "going sideways"))
    for split, official in (("train", "train"), ("test", "val")):
        with (tmp_path / "annotations" / f"{official}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == ["label", "youtube_id", "time_start", "time_end", "split", "is_cc"]
        assert [
            (
                f"videos/{official}/{row['label']}/{row['youtube_id']}_{int(row['time_start']):06}_{int(row['time_end']):06}.mp4",
                index.classes.index(row["label"]),
            )
            for row in rows
        ] == [(index.name(video), video.label) for video in index.videos if video.split == split]
    assert set(load_boxes(tmp_path)) == {Path(video.path).stem for video in index.videos}
    assert probe_video(index.videos[0].path).has_vectors


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Draws a tiny set of a kind, once: (its folder, its index)."""
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
    assert (index.digest, index.classes) == (TINY.model_copy(update={"kind": kind}).digest, CLASSES[kind][:3])
    assert Counter((video.split, video.label) for video in index.videos) == {
        (split, label): count for split, count in (("train", 2), ("test", 1)) for label in range(3)
    }
    boxes = load_boxes(out)
    assert set(boxes) == {Path(video.path).stem for video in index.videos}
    for video in index.videos:
        info = probe_video(video.path)
        assert (info.frames, info.fps, info.width, info.height) == (video.frames, video.fps, video.width, video.height)
        assert (info.codec, info.has_vectors, boxes[Path(video.path).stem].shape) == ("h264", True, (6, 5, 4))


def test_ucf101_is_read_as_ucf101_is(tiny, tmp_path):
    out, index = tiny("ucf101")
    again = index_ucf101(out / "videos", tmp_path)
    assert again.classes == index.classes
    assert {(video.path, video.label, video.split) for video in again.videos} == {
        (video.path, video.label, video.split) for video in index.videos
    }
    assert again.excluded == ()
    assert "6 of 6 train videos are there, 3 of 3 test videos are there" in again.note
    assert index.name(index.train[3]) == "videos/UCF-101/rising/v_rising_g09_c01.avi"
    assert {group.rpartition("_g")[2] for group in (video.group for video in again.test)} == {"01"}


def test_many_videos_of_a_class_have_names_of_their_own():
    for kind in CLASSES:
        params = Synthetic(kind=kind, train_per_class=300, test_per_class=300)
        names = [video_name(params, split, index) for split, count in params.counts.items() for index in range(count)]
        assert len({Path(name).stem for name in names}) == len(names)


def test_hmdb51_has_a_list_a_class(tiny):
    out, index = tiny("hmdb51")
    listed = {}
    for path in (out / "videos" / "testTrainMulti_7030_splits").iterdir():
        for line in path.read_text().splitlines():
            name, mark = line.split()
            listed[f"videos/hmdb51_org/{path.name.removesuffix('_test_split1.txt')}/{name}"] = {"1": "train", "2": "test"}[mark]
    assert listed == {index.name(video): video.split for video in index.videos}
    assert all(index.name(video).split("/")[2] == index.classes[video.label] for video in index.videos)


def test_diving48_has_labels_by_number_and_a_vocabulary(tiny):
    out, index = tiny("diving48")
    assert json.loads((out / "videos" / "Diving48_vocab.json").read_text()) == [["rise", "fall"], ["fall", "rise"], ["come", "go"]]
    for split, videos in (("train", index.train), ("test", index.test)):
        rows = json.loads((out / "videos" / f"Diving48_V2_{split}.json").read_text())
        assert [(f"videos/rgb/{row['vid_name']}.mp4", row["label"], row["start_frame"], row["end_frame"]) for row in rows] == [
            (index.name(video), video.label, 0, 6) for video in videos
        ]


def test_avi_keeps_frames_and_vectors_as_mp4_does(tmp_path):
    """AVI stores no presentation times, and our stream has B-frames."""
    params = Synthetic(kind="ucf101")
    frames_THWC = draw(params, scene(params, "train", 0))
    clips = []
    for name in ("x.avi", "x.mp4"):
        synthetic._encode(frames_THWC, 12, tmp_path / name)
        clips.append(read_clip(tmp_path / name, range(1, 22, 3)))
    for field, ours in vars(clips[0]).items():
        np.testing.assert_array_equal(ours, getattr(clips[1], field))
    assert abs(clips[0].frames_THWC.astype(int) - frames_THWC[1:22:3]).mean() < 8  # lossy, and of halved chroma; 20 off for a frame's shift
    assert clips[0].has_motion_T.sum() == 7


def test_chroma_is_the_mean_of_four_pixels():
    frames_THWC = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    red, green, blue = np.moveaxis(frames_THWC.astype(int), -1, 0)
    planes = synthetic._yuv420(frames_THWC)
    chroma_u, chroma_v = planes[:, 8:10].reshape(2, 4, 4), planes[:, 10:].reshape(2, 4, 4)
    for y in range(4):
        for x in range(4):
            four = (slice(None), slice(2 * y, 2 * y + 2), slice(2 * x, 2 * x + 2))
            r, g, b = (plane[four].sum((1, 2)) for plane in (red, green, blue))
            np.testing.assert_array_equal(chroma_u[:, y, x], (-38 * r - 74 * g + 112 * b + 512) // 1024 + 128)
            np.testing.assert_array_equal(chroma_v[:, y, x], (112 * r - 94 * g - 18 * b + 512) // 1024 + 128)


def test_the_codec_stream_has_b_frames_and_a_key_frame_every_twelve(generated):
    with av.open(generated[1].videos[0].path) as container:
        kinds = "".join(av.video.frame.PictureType(frame.pict_type).name for frame in container.decode(video=0))
    assert [kinds[0], kinds[12]] == ["I", "I"]
    assert kinds.count("I") == 2
    assert kinds.startswith("IBBP")
    assert kinds.count("B") > kinds.count("P")


def largest_vectors_in_boxes(videos, boxes, slack=8) -> float:
    """The mean share of a predicted frame's largest vectors whose block's centre lies in a box, straight from PyAV's vectors."""
    shares = []
    for video, boxes_TK4 in zip(videos, boxes, strict=True):
        with av.open(video.path) as container:
            container.streams.video[0].codec_context.flags2 |= av.codec.context.Flags2.export_mvs
            for t, frame in enumerate(container.decode(video=0)):
                vectors = frame.side_data.get("MOTION_VECTORS")
                if vectors is None:
                    continue
                vectors = vectors.to_ndarray()
                length = np.hypot(vectors["motion_x"], vectors["motion_y"]) / vectors["motion_scale"]
                largest = vectors[length >= length.max()]
                top, left, bottom, right = (boxes_TK4[t] + np.array([-slack, -slack, slack, slack])).T
                y, x = largest["dst_y"][:, None], largest["dst_x"][:, None]
                seen = (bottom - top > 2 * slack) & (right - left > 2 * slack)
                shares.append(((top <= y) & (y <= bottom) & (left <= x) & (x <= right) & seen).any(1).mean())
    return float(np.mean(shares))


def test_the_largest_vectors_lie_on_the_sprites(generated):
    out, index = generated
    boxes = load_boxes(out)
    own = [boxes[Path(video.path).stem] for video in index.videos]
    assert largest_vectors_in_boxes(index.videos, own) >= 0.95
    assert largest_vectors_in_boxes(index.videos, own[1:] + own[:1]) < 0.8  # of other videos: the boxes are not the whole frame


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_processes_do_not_matter(tmp_path):
    generate(TINY, tmp_path / "one", processes=1)
    generate(TINY, tmp_path / "two", processes=2)
    one, two = files(tmp_path / "one"), files(tmp_path / "two")
    assert {name for name in one if one[name] != two[name]} <= {
        "boxes.npz",
        "croissant.json",
    }  # the zip holds times
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
    assert {path.name for path in (tmp_path / "videos").iterdir()} == {Path(video.path).name for video in index.videos}


def test_an_interrupted_set_does_not_look_whole(tmp_path, monkeypatch):
    generate(TINY, tmp_path)
    Path(read_index(tmp_path).videos[0].path).unlink()
    encode, calls = synthetic._encode, []

    def stop_at_the_third(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        encode(*args)

    with monkeypatch.context() as patch:
        patch.setattr(synthetic, "_encode", stop_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            generate(TINY, tmp_path)
    with pytest.raises(UserError, match="no whole index"):
        read_index(tmp_path)
    assert len(generate(TINY, tmp_path).videos) == 9


def test_videos_of_others_are_not_touched(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "mine.mp4").write_bytes(b"mine")
    with pytest.raises(UserError, match="choose another --out"):
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
    }
    assert {*changes, "layout"} == set(Synthetic.model_fields)
    swaying = Synthetic(layout="sway")
    digests = {Synthetic(layout="sway", **{name: value}).digest for name, value in changes.items()}
    assert len(digests | {swaying.digest, Synthetic().digest}) == len(changes) + 2


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"layout": "jump"}, "layout"),
        ({"layout": "sway", "kind": "hmdb51"}, "ssv2 and k400"),
        ({"sprites": 3}, "sway"),
        ({"layout": "sway", "quick": 15}, "quick"),
    ],
)
def test_a_wrong_layout_is_one_line(wrong, told, tmp_path):
    (tmp_path / "params.json").write_text(json.dumps(wrong))
    with pytest.raises(UserError, match=told) as error:
        read_params(tmp_path / "params.json")
    assert "\n" not in str(error.value)
