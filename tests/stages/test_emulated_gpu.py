"""The stages, embed, predict and evaluate on an emulated device.

None mixes devices, or waits for the GPU in an ordinary step.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

# (place, operation) that may wait outside of training, once per batch or once per run: results,
# weights, batches of a test, and the draws of an attentive probe.
COPY = "aten._to_copy.default"
BATCHES = {
    "apply.py:_apply",
    "controls.py:_random_weights",
    "evaluate.py:<listcomp>",
    "explained.py:losses",
    "features.py:compute",
    "probe_kinds.py:<listcomp>",
    "probe_kinds.py:_tokens",
    "probe_kinds.py:_train_attentive",
    "step_time.py:step_time",
    "visualise.py:_attention",
    "visualise.py:<listcomp>",
    "visualise.py:_arrays",
}
WEIGHTS = {
    "controls.py:_random_weights",
    "evaluate.py:evaluate",
    "explained.py:measure",
    "finetune.py:finetune",
    "apply.py:encoder",
    "apply.py:predict",
    "pretrain.py:pretrain",
    "features.py:_weights_digest",
    "probe.py:probe",
    "visualise.py:_parent",
    "weights.py:<dictcomp>",
}


def emulated(*words: object) -> list:
    """Return the waits of a process with the emulated device."""
    words = [sys.executable, "-m", "tests.helpers.emulated_gpu", *words]
    done = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_masks_and_attention_are_those_of_the_cpu_and_wait_for_nothing():
    assert emulated() == []


@pytest.mark.slow
def test_ordinary_steps_wait_for_nothing(videos, tmp_path):
    """Three steps per run, of which the last is logged: the second waits for nothing."""
    waits = emulated(videos, tmp_path / "results")
    assert {case for case, *_ in waits} >= {"mgm", "warped", "mixed", "v-jepa", "embed", "predict",
        "figure 8", "controls", "evaluate"}  # fmt: skip
    assert [wait for wait in waits if wait[1] == 1] == []
    others = {(place, operation) for _, step, place, operation in waits if step != 1}
    logged = {("loop.py:_means", COPY), ("loop.py:train", "aten._local_scalar_dense.default")}
    # Outside of training, a model checks its masks.
    logged.add(("mae.py:split", "aten._local_scalar_dense.default"))
    assert others == {(place, COPY) for place in BATCHES | WEIGHTS} | logged
