import hashlib
import json
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from mgm.datasets import synthetic
from mgm.datasets.index import read_index
from mgm.datasets.params import CLASSES, Synthetic
from mgm.datasets.synthetic import MOTIONS, draw, generate, load_boxes, scene, tracks
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
    assert [name.lower() for name in labels] == list(CLASSES)
    for split, official in (("train", "train"), ("test", "validation")):
        rows = json.loads((out / "labels" / f"{official}.json").read_text())
        videos = [video for video in index.videos if video.split == split]
        assert [(row["id"], int(labels[row["template"]])) for row in rows] == [(Path(video.path).stem, video.label) for video in videos]
    video = index.videos[-1]
    info = probe_video(video.path)
    assert (info.frames, info.fps, info.width, info.height, info.codec, info.has_vectors) == (24, 12, 64, 64, "h264", True)
    assert (video.frames, video.fps, video.width, video.height, video.codec, video.has_vectors) == (24, 12, 64, 64, "h264", True)


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


def test_boxes_hold_what_moves_and_little_else(generated, monkeypatch):
    out, index = generated
    boxes = load_boxes(out)
    assert set(boxes) == {Path(video.path).stem for video in index.videos}
    for number in (0, 8, 9, 10):
        what = scene(Synthetic(), "train", number)
        frames = draw(Synthetic(), what).astype(int)
        with monkeypatch.context() as patch:
            patch.setattr(synthetic, "_paint", lambda *_: None)
            background = draw(Synthetic(), what).astype(int)
        changed_THW = np.abs(frames - background).max(-1) > 0
        inside_THW = np.zeros_like(changed_THW)
        boxes_TK4 = boxes[str(100_000 + number)]
        assert boxes_TK4.dtype == np.float32
        assert boxes_TK4.min() >= 0
        assert boxes_TK4.max() <= 64
        for inside_HW, boxes_K4 in zip(inside_THW, boxes_TK4, strict=True):
            for top, left, bottom, right in boxes_K4:
                inside_HW[int(np.floor(top)) : int(np.ceil(bottom)), int(np.floor(left)) : int(np.ceil(right))] = True
        assert not (changed_THW & ~inside_THW).any()
        assert changed_THW.sum() > 0.35 * inside_THW.sum()
        luma = np.array([0.299, 0.587, 0.114])
        assert (frames @ luma)[changed_THW].mean() > (background @ luma).mean() + 50


def test_every_machine_draws_these_pixels():
    """If this fails because the drawing changed, raise GENERATOR_VERSION and put the new values here."""
    digest = hashlib.sha256()
    for number in range(12):
        digest.update(draw(Synthetic(), scene(Synthetic(), "train", number)))
    assert (Synthetic().digest, digest.hexdigest()[:16]) == ("d19df0c15448", "6ebce6068b673982")


def test_a_video_is_a_function_of_seed_split_and_index():
    def pixels(split, number, **changes):
        params = Synthetic(**{"frames": 4, **changes})
        return draw(params, scene(params, split, number)).tobytes()

    assert pixels("train", 5) == pixels("train", 5, train_per_class=1, test_per_class=7, fps=30)
    assert len({pixels("train", 5), pixels("train", 17), pixels("test", 5), pixels("train", 5, seed=1)}) == 4


def test_only_the_motion_depends_on_the_class():
    few, many = Synthetic(classes=5), Synthetic(classes=12)
    for number in range(5, 12):
        one, other = scene(few, "train", number), scene(many, "train", number)
        assert one.label != other.label
        for name in ("places", "depths", "angles", "diameters", "looks", "travel", "background", "view", "pan"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_sprites_are_distributed_alike_at_every_time_and_in_opposite_classes():
    """The first frame must not give the class away. Standard error of a mean here: about half a pixel."""
    params = Synthetic(train_per_class=400, frames=5)
    centres = [[] for _ in CLASSES]
    for number in range(params.classes * params.train_per_class):
        what = scene(params, "train", number)
        centres[what.label].append(tracks(params, what)[0])
    for label in range(12):
        mean_TK2 = np.mean(centres[label], axis=0)
        np.testing.assert_allclose(mean_TK2.mean(1), 32, atol=2.5, err_msg=CLASSES[label])
    distance = [np.hypot(*np.moveaxis(np.array(centres[label]) - 32, -1, 0)).mean((0, 2)) for label in (8, 9)]
    np.testing.assert_allclose(distance[0], distance[0].mean(), atol=1.5)
    np.testing.assert_allclose(distance[0], distance[1], atol=1.5)


def test_things_move_as_their_class_says():
    params = Synthetic()
    for label, motion in enumerate(MOTIONS):
        centres_TK2, diameters_TK = tracks(params, scene(params, "train", label))
        steps = np.diff(centres_TK2, axis=0)
        steps = steps[np.abs(steps).max((1, 2)) < 10]  # a sprite that comes in again jumps
        if motion.zoom:
            growth = np.diff(diameters_TK, axis=0)
            assert (np.median(np.sign(growth)) == motion.zoom).all(), CLASSES[label]
            continue
        half = len(steps) // 2
        forth, back = np.median(steps[: half - 1], axis=(0, 1)), np.median(steps[half + 1 :], axis=(0, 1))
        speed = np.hypot(*forth)
        assert 1.3 < speed < 1.9
        np.testing.assert_allclose(forth / speed, motion.towards, atol=0.02)
        np.testing.assert_allclose(back / speed, np.array(motion.towards) * (-1 if motion.back else 1), atol=0.02)


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
