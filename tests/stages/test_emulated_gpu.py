"""Pretraining, fine-tuning, probes, embed and predict on an emulated device.

None mixes devices, or waits for the GPU in an ordinary step.
"""

import json
import subprocess
import sys
from pathlib import Path

# (place, operation) that may wait outside of training, once per batch or once per run: results,
# weights, batches of a test, and the draws of an attentive probe.
COPY = "aten._to_copy.default"
BATCHES = {
    "apply.py:_values",
    "evaluate.py:<listcomp>",
    "probe.py:compute",
    "probe_kinds.py:_logits",
    "probe_kinds.py:_tokens",
    "probe_kinds.py:_train_attentive",
}
WEIGHTS = {
    "embed.py:embed",
    "finetune.py:finetune",
    "predict.py:predict",
    "pretrain.py:pretrain",
    "probe.py:_weights_digest",
    "probe.py:probe",
    "weights.py:<dictcomp>",
}


def test_ordinary_steps_wait_for_nothing(videos, tmp_path):
    """Three steps per run, of which the last is logged: the second waits for nothing."""
    words = [sys.executable, "-m", "tests.helpers.emulated_gpu", videos, tmp_path]
    done = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr[-3000:]
    waits = json.loads(done.stdout.splitlines()[-1])
    assert {case for case, *_ in waits} >= {"mgm", "warped", "mixed", "v-jepa", "embed", "predict"}
    assert [wait for wait in waits if wait[1] == 1] == []
    others = {(place, operation) for _, step, place, operation in waits if step != 1}
    logged = {("loop.py:_means", COPY), ("loop.py:train", "aten._local_scalar_dense.default")}
    assert others == {(place, COPY) for place in BATCHES | WEIGHTS} | logged
