import csv
import json
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from mgm.datasets import synthetic
from mgm.datasets.index import read_index
from mgm.datasets.params import CLASSES, Synthetic
from mgm.datasets.synthetic import generate, load_boxes
from mgm.errors import UserError
from mgm.video import probe_video

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
    assert {name for name in one if one[name] != two[name]} <= {"boxes.npz"}  # a zip holds times
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
    changes = {"classes": 11, "train_per_class": 81, "test_per_class": 21, "size": 80, "frames": 25, "fps": 13, "pan": 0.9, "seed": 1}
    assert set(changes) | {"kind"} == set(Synthetic.model_fields)
    assert len({Synthetic(**{name: value}).digest for name, value in changes.items()} | {Synthetic().digest}) == len(changes) + 1
