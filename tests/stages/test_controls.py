import numpy as np
import pytest

from mgm.spec import CONTROLS, Measure, Views
from mgm.stages.controls import EDGES, binned, controls, model_free, motion_features
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


def test_every_control_is_measured_and_motion_tells_the_classes(trained, tmp_path):
    """The classes of the drawn set are motions, which the histogram of vectors tells apart."""
    spec = Measure(**SMALL, name="controls", views=Views(temporal=2, spatial=1))
    metrics = controls(spec, trained.context(tmp_path))
    assert metrics.keys() == {"chance", *(control.name for control in CONTROLS)}
    assert metrics["chance"] == pytest.approx(100 / 3)
    # All files have the same length, rate and size.
    for name in ("frames", "duration", "picture_size"):
        assert metrics[name] == pytest.approx(metrics["chance"])
    assert metrics["vector_histogram"] > 60


def test_features_do_not_depend_on_workers(trained):
    train, test = trained.index.train[:5], trained.index.test[:3]
    one, two = (model_free(train, test, workers) for workers in (0, 2))
    for a, b in zip(one, two):
        assert a.keys() == b.keys() == {c.name for c in CONTROLS if c.kind != "model"}
        assert all(np.array_equal(a[name], b[name]) for name in a)


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
