import hashlib
from dataclasses import fields, replace

import numpy as np
import pytest

from mgm.drawn import people
from mgm.drawn.params import ACTIONS, Synthetic

PARAMS = Synthetic(layout="people", size=96)


def test_a_class_is_a_recorded_action():
    assert set(people.recordings()) == {*ACTIONS}
    assert PARAMS.names == ACTIONS


def test_every_machine_draws_these_pixels():
    """If the drawing changed on purpose, raise GENERATOR_VERSION and put the new value here."""
    digest = hashlib.sha256()
    for number in range(15):
        digest.update(people.draw(PARAMS, people.scene(PARAMS, "train", number)))
    assert (PARAMS.digest, digest.hexdigest()[:16]) == ("04c2d55ea9cf", "3d92cd97872bc501")


def test_only_the_action_depends_on_the_class():
    few = PARAMS.model_copy(update={"classes": 7})
    for number in (3, 8, 20):
        one, other = (people.scene(params, "test", number) for params in (PARAMS, few))
        for field in fields(one):
            if field.name != "label":
                np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


@pytest.mark.parametrize("number", range(30))
def test_the_person_stays_in_the_picture_and_in_its_box(number, monkeypatch):
    person = people.scene(PARAMS, "train", number)
    frames = people.draw(PARAMS, person).astype(int)
    monkeypatch.setattr(people.cv2, "line", lambda *_, **__: None)
    monkeypatch.setattr(people.cv2, "circle", lambda *_, **__: None)
    changed_THW = (frames != people.draw(PARAMS, person)).any(-1)
    pixels_TJ2, _, _ = people.joints(PARAMS, person)
    assert pixels_TJ2.min() >= 0
    assert pixels_TJ2.max() <= 96
    boxes_TK4 = people.boxes(PARAMS, person)
    assert boxes_TK4.shape == (24, 1, 4)
    # Smooth edges and widths in whole pixels reach up to three pixels further.
    margin = 3
    for changed_HW, (top, left, bottom, right) in zip(changed_THW, boxes_TK4[:, 0], strict=True):
        row, column = np.nonzero(changed_HW)
        assert row.min() >= top - margin
        assert row.max() + 1 <= bottom + margin
        assert column.min() >= left - margin
        assert column.max() + 1 <= right + margin


def test_a_mirrored_person_is_the_mirror_image():
    person = people.scene(PARAMS, "train", 5)
    one, other = (replace(person, mirrored=mirrored) for mirrored in (True, False))
    np.testing.assert_array_equal(people.draw(PARAMS, one), people.draw(PARAMS, other)[:, :, ::-1])
    left, right = people.boxes(PARAMS, one)[..., 1], people.boxes(PARAMS, other)[..., 3]
    np.testing.assert_allclose(left, 96 - right, atol=1e-4)  # float32
