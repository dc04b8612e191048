import csv
import re
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest

from mgm.data.index import read_index, write_index
from mgm.errors import UserError
from mgm.results.statistics import Estimate
from mgm.spec import CONTROLS, Measure, Views
from mgm.stages.controls import (
    APPEARANCE,
    EDGES,
    WEIGHTS,
    appearance_features,
    binned,
    controls,
    look,
    meaning,
    motion_features,
    picture_features,
)
from mgm.video.motion import Motion
from tests.helpers.small_runs import SMALL


def still(frames=3, height=32, width=48):
    return Motion.none(frames, height, width)


def moving(vectors_THW2, has_mv_T=None, distance=1.0):
    frames, rows, columns, _ = vectors_THW2.shape
    shape = frames, rows, columns
    has_mv_T = np.ones(frames, bool) if has_mv_T is None else has_mv_T
    distance_THW = np.full(shape, distance, np.float32)
    return Motion(vectors_THW2.astype(np.float32), distance_THW, has_mv_T, (8 * rows, 8 * columns))


def test_numbers_become_logarithms_and_deciles():
    train_NF = np.arange(10.0)[:, None]
    found = binned(train_NF, np.array([[0.0], [4.0], [99.0]]))
    np.testing.assert_allclose(found[:, 0], np.log1p([0, 4, 99]))
    assert (found[:, 1:].sum(1) == 1).all()
    assert found[:, 1:].argmax(1).tolist() == [0, 4, 9]


def test_motion_features_are_statistics_of_vectors():
    vectors_THW2 = np.zeros((2, 4, 4, 2))
    vectors_THW2[:, :2, :2] = 6, -3
    # The short side of 32 pixels becomes 64. The distance to the reference is 2 frames.
    found = motion_features(moving(vectors_THW2, distance=2.0))
    np.testing.assert_allclose(found["vector_mean"], [1.5, -0.75])
    np.testing.assert_allclose(found["vector_four"], [1.5, 0, 0, 0.75])
    histogram = found["vector_histogram"].reshape(len(EDGES) + 1, -1) ** 2
    assert histogram[4, 4] == pytest.approx(0.75)
    assert histogram[1, 8] == pytest.approx(0.25)
    quadrants = found["vector_quadrants"].reshape(4, -1)
    assert [int(q.max()) for q in quadrants] == [1, 1, 1, 1]
    assert quadrants[0].argmax() != quadrants[1].argmax() == quadrants[3].argmax()
    assert found["vector_trajectory"].reshape(4, -1)[:, 0].tolist() == [0.25, 0.25, 6, -3]
    has_mv_T = np.array([True, False])
    one = motion_features(moving(vectors_THW2, has_mv_T, 2.0))
    np.testing.assert_allclose(one["vector_mean"], [1.5, -0.75])
    for values in motion_features(still()).values():
        assert np.isfinite(values).all()


def test_pictures_are_the_middle_frame_the_mean_and_the_mean_change(rng):
    frames = rng.integers(0, 256, (5, 12, 12, 3), np.uint8)
    found = picture_features(frames)
    np.testing.assert_allclose(found["middle_frame"], frames[2].ravel() / 255, atol=1e-6)
    np.testing.assert_allclose(found["mean_frame"], frames.mean(0).ravel() / 255, atol=1e-5)
    grey = np.stack([cv2.cvtColor(x, cv2.COLOR_RGB2GRAY) for x in frames]).astype(float)
    wanted = np.abs(np.diff(grey, axis=0)).mean(0).ravel() / 255
    np.testing.assert_allclose(found["frame_difference"], wanted, atol=1e-5)


def test_a_prepared_folder_has_the_numbers_of_the_measurement(trained, tmp_path, monkeypatch):
    """The classes of the drawn set are motions, which the histogram of vectors tells apart."""
    monkeypatch.setattr("mgm.stages.probe.PENALTIES", (1e-2, 1.0))
    spec = Measure(**SMALL, name="controls", views=Views(temporal=2, spatial=1))
    metrics = controls(spec, trained.context(tmp_path))
    assert metrics.keys() == {"chance", *(control.name for control in CONTROLS)}
    # All files have the same length, rate and size.
    for name in ("chance", "frames", "duration", "picture_size"):
        assert metrics[name] == pytest.approx(100 / 3)
    assert metrics["vector_histogram"] > 60
    text = look(trained.data, tmp_path / "table.csv", processes=1)
    rows = {row["control"]: row for row in csv.DictReader((tmp_path / "table.csv").open())}
    of_files = {control.name for control in CONTROLS if control.kind != "model"}
    assert {*rows} - {APPEARANCE.name} == {"chance"} | of_files
    for name in of_files:
        found = [float(rows[name][key]) for key in ("low", "top1", "high")]
        assert found == sorted(found)
        assert found[1] == pytest.approx(metrics[name], abs=0.01)
    # The best come first, and the sentence says that it is motion alone.
    shown = [float(line.split("  ")[-2]) for line in text.splitlines()[2:] if "  [" in line]
    assert shown == sorted(shown, reverse=True)
    assert len(shown) >= len(of_files)
    assert "but motion" in " ".join(text.splitlines()[-2:])


def leaking(trained, folder, **fields):
    """Copy a dataset in which fields of a video follow from its class."""
    shutil.copytree(trained.data, folder)
    index = read_index(folder)
    videos = tuple(
        video._replace(**{name: of(video.label) for name, of in fields.items()})
        for video in index.videos
    )
    write_index(replace(index, videos=videos))
    return folder


def test_a_leak_of_the_files_size_is_found(trained, tmp_path, monkeypatch):
    """Here without the package of ImageNet's weights, which the text names."""
    monkeypatch.setattr("mgm.stages.controls.WEIGHTS", "absent")
    folder = leaking(trained, tmp_path / "data", source_bytes=lambda label: 1000 + 500 * label)
    text = look(folder, processes=1)
    assert "File size  " in text.splitlines()[2] + text.splitlines()[3]
    assert "(File size: 100 %): the split or the encoder leaks" in " ".join(text.splitlines()[-2:])
    assert "'.[appearance]' in a clone adds them" in text


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"label": lambda label: 0}, "training videos of one class"),
        ({"split": lambda label: "train"}, "0 of .* videos are in the test split"),
    ],
)
def test_a_folder_that_cannot_be_judged_is_one_line(trained, tmp_path, fields, says):
    with pytest.raises(UserError, match=says):
        look(leaking(trained, tmp_path / "data", **fields))


@pytest.mark.parametrize(
    ("top1_of", "says"),
    [
        (
            {"bytes": 31, "middle_frame": 60},
            "File size: 31 %.* pictures .*60 %",
        ),
        ({"middle_frame": 60, "vector_histogram": 90}, "^Pictures without motion .*60 %"),
        ({"frame_difference": 40, "vector_four": 50}, "but motion .*directions: 50 %"),
        # Four points more, or an interval that has guessing.
        ({"bytes": 14}, "^Nothing here is shown"),
        ({"bytes": (20, 9)}, "^Nothing here is shown"),
    ],
)
def test_the_sentence_names_what_tells_the_class(top1_of, says):
    scores = []
    for control in CONTROLS:
        top1 = top1_of.get(control.name, 10)
        top1, low = top1 if isinstance(top1, tuple) else (top1, top1 - 3)
        scores.append((control, Estimate(top1, low, top1 + 3)))
    scores.sort(key=lambda score: -score[1].mean)
    text = meaning(scores, 10)
    assert re.search(says, text), text


def test_appearance_is_the_classifiers_own():
    """The package's weights in timm's model give the logits of the model that they are of."""
    pytest.importorskip(WEIGHTS)
    import torch

    from mgm.stages.controls import _seeing

    # The package efficientnet-lite-pytorch computed the expected numbers.
    torch.manual_seed(0)
    x = torch.rand(2, 3, 224, 224) * 2 - 1
    with torch.inference_mode():
        logits = _seeing()(x)
    expected = [[-2.9129, 0.2042, 0.9092], [-2.7531, 0.2231, 1.0583]]
    np.testing.assert_allclose(logits[:, :3], expected, atol=1e-3)
    frames_THWC = np.zeros((9, 40, 60, 3), np.uint8)
    assert appearance_features(frames_THWC).shape == (1280,)
