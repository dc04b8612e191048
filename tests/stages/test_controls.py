"""Controls: features against obvious slow versions, and reasons where one cannot be measured."""

from dataclasses import replace

import numpy as np
import pytest

from mgm.data.index import read_index
from mgm.spec import Measure, Probe, Views
from mgm.stages.measure import measure
from mgm.stages.measure.controls import (
    CONTROLS,
    classify,
    controls,
    controls_now,
    interval,
    read,
    remarks,
)
from mgm.stages.measure.simple_features import EDGES, binned, motion_features, picture_features
from mgm.stages.runner import run_all
from mgm.video import read_clip
from mgm.video.clip import Motion
from tests.helpers.small_runs import SMALL

LIKE = Probe(**SMALL, views=Views(temporal=2, spatial=1), train_clips=2)


@pytest.fixture(scope="module")
def index(videos):
    return read_index(videos)


@pytest.fixture(scope="module")
def measured(index):
    return read(index, LIKE)


def test_motion_features_are_what_a_slow_loop_finds(index):
    clip = read_clip(index.train[0].path, range(index.train[0].frames))
    found = motion_features(clip.motion)
    vectors, counts = [], np.zeros((4, 81))
    height, width = clip.distance_THW.shape[1:]
    for t in np.flatnonzero(clip.has_motion_T):
        for row in range(height):
            for column in range(width):
                dx, dy = 2 * clip.motion_THW2[t, row, column] / clip.distance_THW[t, row, column]
                vectors.append((dx, dy))
                across, down = (sum(value > edge for edge in EDGES) for value in (dx, dy))
                quadrant = 2 * (row >= height / 2) + (column >= width / 2)
                counts[quadrant, 9 * down + across] += 1
    mean = np.mean(vectors, 0)
    assert found["vector_mean"] == pytest.approx(mean, abs=1e-5)
    four = found["vector_four"]
    assert four[:2] - four[2:] == pytest.approx(mean, abs=1e-5)
    assert (four >= 0).all()
    assert found["vector_histogram"] ** 2 == pytest.approx(counts.sum(0) / counts.sum())
    quadrants = counts / counts.sum(1, keepdims=True)
    assert found["vector_quadrants"].reshape(4, 81) ** 2 == pytest.approx(quadrants)


def test_the_trajectory_follows_the_largest_vector():
    motion = np.zeros((4, 4, 4, 2), np.float32)
    for t in range(4):
        motion[t, 1, t] = (8, 0)
    moving = Motion(motion, np.ones((4, 4, 4), np.float32), np.ones(4, bool), (64, 64))
    x, y, dx, dy = motion_features(moving)["vector_trajectory"].reshape(4, -1)
    assert x[[0, -1]] == pytest.approx([0.125, 0.875])
    assert (np.diff(x) > 0).all()
    assert (y == 0.375).all()
    assert (dx == 8).all()
    assert (dy == 0).all()


def test_small_pictures_are_means(index):
    clip = read_clip(index.train[0].path, range(6), motion=False)
    frames = clip.frames_THWC.astype(float)[:, :24, :24]
    found = picture_features(np.ascontiguousarray(clip.frames_THWC[:, :24, :24]))
    blocks = frames.mean(0).reshape(12, 2, 12, 2, 3).mean((1, 3)) / 255
    assert found["mean_frame"] == pytest.approx(blocks.ravel(), abs=1e-5)
    still = picture_features(np.repeat(clip.frames_THWC[:1], 3, 0))
    assert (still["frame_difference"] == 0).all()
    assert still["mean_frame"] == pytest.approx(still["middle_frame"], abs=1e-6)


def test_a_run_of_controls_has_every_number(execution, index, result_of):
    spec = Measure(**SMALL, name="controls", views=LIKE.views, train_clips=2)
    run_all([spec], measure, execution)
    metrics = result_of(spec)["metrics"]
    # the generated videos differ in neither duration nor picture size
    same = {"frames", "duration", "picture_size"}
    assert metrics.keys() == {one.name for one in CONTROLS} - same | {"chance"}
    table = controls(index, spec)
    assert table.set_index("control").top1.dropna().to_dict() == {
        name: value for name, value in metrics.items() if name != "chance"
    }


def test_random_weights_are_the_probes(execution, index, result_of, measured):
    from mgm.stages.probe import probe

    run_all([LIKE], probe, execution)
    table = classify(index, measured, LIKE).set_index("control")
    assert table.top1["random_weights"] == pytest.approx(result_of(LIKE)["metrics"]["top1"])


def with_videos(index, keep=lambda video: True, change=lambda video: video):
    return replace(index, videos=tuple(change(video) for video in index.videos if keep(video)))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda index: replace(index, classes=("one",)), "has 1 class"),
        (lambda index: with_videos(index, lambda one: one.split == "train"), "no test videos"),
        (
            lambda index: with_videos(index, lambda one: one.split == "test" or one.label == 0),
            "fewer than 2 classes",
        ),
    ],
)
def test_what_cannot_be_measured_says_why(index, change, says):
    table = controls(change(index), LIKE)
    assert table.top1.isna().all()
    assert table.why.str.contains(says).all()


def test_two_clips_are_too_few(index):
    few = replace(index, videos=(index.train[0], index.train[-1], index.test[0]))
    table = controls(few, LIKE, weights=False).set_index("control")
    assert "at least 3 to hold some out" in table.why["middle_frame"]


def test_videos_without_vectors(index, measured):
    none = with_videos(index, change=lambda video: replace(video, has_vectors=False))
    table = classify(none, measured, LIKE).set_index("control")
    assert "no video has motion vectors" in table.why["vector_histogram"]
    assert table.top1.notna()["mean_frame"]
    paths = {video.path for video in index.videos[::2]}
    some = with_videos(
        index, change=lambda video: replace(video, has_vectors=video.path not in paths)
    )
    assert "have no motion vectors and count as still" in remarks(some)[0]


def test_a_group_that_is_a_class_is_remarked(index):
    grouped = with_videos(
        index,
        change=lambda video: replace(
            video, group="scene" if video.label == 0 else video.path[-6:-5]
        ),
    )
    assert any(index.classes[0] in text and "one group" in text for text in remarks(grouped))
    assert not remarks(index)


def test_durations_that_give_the_class_away_are_a_warning(index, measured):
    told = with_videos(index, change=lambda video: replace(video, frames=12 + video.label))
    features = dict(measured)
    lengths = np.array([[video.frames] for video in told.videos], float)
    features["frames"] = binned(lengths, lengths)
    table = classify(told, features, LIKE).set_index("control")
    assert table.warning["frames"] == (
        "the number of frames alone predicts the class: 100 % (chance 33 %)"
    )
    assert not table.warning["middle_frame"]


def test_the_interval_covers_groups():
    draw = np.random.default_rng(1)
    right = draw.random((1, 200)) < 0.5
    alone = interval(right, [str(n) for n in range(200)])
    assert alone[0] == pytest.approx(43, abs=3)
    assert alone[1] == pytest.approx(57, abs=3)
    grouped = interval(np.repeat(right, 10, axis=1), np.repeat(np.arange(200), 10).tolist())
    assert grouped == pytest.approx(alone, abs=1)


def test_the_command_prints_a_line_per_control(videos, tmp_path):
    path = tmp_path / "spec.json"
    path.write_text(LIKE.model_dump_json())
    text = controls_now(videos, path, 0)
    assert all(one.title in text for one in CONTROLS)
    assert "chance 33.3 %" in text
