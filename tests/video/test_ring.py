import os
import signal
import time

import numpy as np
import pytest

from mgm.errors import LostWorkers, UserError
from mgm.video import ring
from mgm.video.ring import read_batches

EXAMPLE = {"x_BN": np.zeros((1, 3), np.int64), "seen_B": np.zeros(1, bool)}
PARTS = 5


def fill(arrays, number, part):
    # Later parts are ready first.
    time.sleep(0.002 * (PARTS - part))
    arrays["x_BN"][part] = 10 * number + part
    arrays["seen_B"][part] = number % 2
    return number, part


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_batches_and_answers_come_in_order(workers):
    numbers = [3, 1, *range(7)]
    seen = []
    for arrays, answers in read_batches(fill, numbers, PARTS, PARTS, EXAMPLE, workers):
        number = numbers[len(seen)]
        assert answers == [(number, part) for part in range(PARTS)]
        assert arrays["x_BN"].tolist() == [[10 * number + part] * 3 for part in range(PARTS)]
        assert arrays["seen_B"].tolist() == [bool(number % 2)] * PARTS
        seen.append(number)
    assert seen == numbers


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_a_worker_is_raised(workers):
    def failing(arrays, number, part):
        if number == 2:
            raise UserError("clip 7 is gone")

    batches = read_batches(failing, range(9), 1, 1, EXAMPLE, workers)
    with pytest.raises(UserError, match="^clip 7 is gone$"):
        for _ in batches:
            pass


def test_a_worker_that_hangs_is_given_up(monkeypatch):
    def hanging(arrays, number, part):
        if number == 3:
            os.kill(os.getpid(), signal.SIGSTOP)

    monkeypatch.setattr(ring, "HANGS_S", 0)
    with pytest.raises(LostWorkers):
        list(read_batches(hanging, range(9), 1, 1, EXAMPLE, 2))
    monkeypatch.setattr(ring, "HANGS_S", 100)

    def impatient(seconds):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(read_batches(hanging, range(9), 1, 1, EXAMPLE, 2, impatient))
