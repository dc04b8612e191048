"""No field of a spec is idle: another value gives other weights, predictions or numbers."""

from typing import Any
from zlib import crc32

import pytest
import torch
from safetensors.torch import load_file

from mgm.data.index import read_index
from mgm.spec import (
    CONTROLS,
    Finetune,
    FinetuneOptim,
    Measure,
    Optim,
    Probe,
    RunOptions,
    Spec,
    dotted,
    leaves,
    nested,
)
from mgm.stages import evaluate, probe
from mgm.stages.controls import controls
from mgm.stages.coverage import coverage, hidden
from mgm.stages.finetune import finetune
from mgm.stages.pretrain import pretrain
from mgm.stages.run import RunContext, run_specs
from mgm.stages.saliency import saliency
from mgm.study.settings import DECIDED
from tests.helpers.other_values import OTHER
from tests.helpers.small_runs import PRETRAIN, SMALL

# The first step warms up, from a rate of 0.
OPTIM: Any = {"batch": 4, "steps": 3, "epochs": 4, "warmup_epochs": 1, "precision": "float32"}
START = PRETRAIN.model_copy(update={"optim": Optim(lr=0.064, **OPTIM)})
MIXED = {"mixup": 0.8, "cutmix": 1.0}
SPECS: dict[str, Spec] = {
    "pretrain": START,
    "finetune": Finetune(**SMALL, optim=FinetuneOptim(lr=0.064, **OPTIM), augment=MIXED),
    "probe": Probe(**SMALL),
    **{name: Measure(name=name, **SMALL) for name in ("saliency", "coverage", "hidden")},
    "controls": Measure(name="controls", **SMALL),
}
STAGES: dict[str, Any] = {
    **{"pretrain": pretrain, "finetune": finetune, "probe": probe.probe, "controls": controls},
    **{"saliency": saliency, "coverage": coverage, "hidden": hidden},
}
# Values that differ from these specs' own, where those of other tests do not.
HERE = {"optim.precision": "bf16", "parent": START.run_id}
# What names the videos, and a version that no other code makes.
ELSEWHERE = DECIDED.keys() - {"seed", "parent"}
# Views of the small set's square videos are the same crop.
SQUARE = {"views.spatial"}
# The jitter of two slots sums to zero, and that of few patches is smaller than one.
LARGER = {"clips.frames": 8, "clips.size": 32, "model.patch": 4}
# A test's windows are its strides.
SAMPLING = {"finetune": "window", "pretrain": "window"}


@pytest.fixture(scope="module")
def outcome(data, tmp_path_factory):
    """Return a function that runs a spec, and returns all that came of it."""
    results, known = tmp_path_factory.mktemp("results"), dict[str, Any]()
    parents, real = tmp_path_factory.mktemp("parents"), evaluate.over_videos
    run_specs([START], {"ssv2": [data]}, parents)
    index = read_index(data)

    def call(kind: str, spec: Spec) -> Any:
        if spec.run_id not in known:
            known[spec.run_id] = run(kind, spec)
        return known[spec.run_id]

    def run(kind: str, spec: Spec) -> Any:
        folder, seen = results / spec.run_id, list[Any]()

        def over_videos(*arguments: Any, **options: Any) -> Any:
            # Scores and features: accuracies of a few videos do not distinguish them.
            found = real(*arguments, **options)
            seen.extend(crc32(values.tobytes()) for values in found)
            return found

        folder.mkdir()
        context = RunContext(folder, parents, index, RunOptions(), torch.device("cpu"), 0)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(evaluate, "over_videos", over_videos)
            patched.setattr(probe, "over_videos", over_videos)
            # Two of each are enough to show a difference.
            patched.setattr(probe, "PENALTIES", (1e-2, 1.0))
            patched.setattr("mgm.stages.controls.CONTROLS", CONTROLS[-2:])
            seen.append(STAGES[kind](spec, context))
        if (predictions := folder / "predictions.csv").is_file():
            seen.append(predictions.read_text())
        if (weights := folder / "weights.safetensors").is_file():
            seen.append(
                {name: crc32(x.numpy().tobytes()) for name, x in load_file(weights).items()}
            )
        return seen

    return call


def changed(kind: str, fields: dict[str, Any]) -> Spec:
    spec = SPECS[kind]
    return type(spec).model_validate(nested(dotted(spec.model_dump(mode="json")) | fields))


def read_by(kind: str) -> list[str]:
    """Return the fields of a spec that its run reads."""
    spec = SPECS[kind]
    unread = spec.unread[getattr(spec, "name", "")]
    return [name for name in leaves(type(spec)) if name not in unread | ELSEWHERE | SQUARE]


@pytest.mark.parametrize(
    ("kind", "field"), [(kind, field) for kind in SPECS for field in read_by(kind)]
)
def test_another_value_gives_another_result(outcome, kind, field):
    value = (OTHER | HERE)[field]
    if field == "clips.sampling":
        value = SAMPLING.get(kind, "segments")
    plain = LARGER if field == "mask.jitter" else {}
    own, other = (changed(kind, plain | fields) for fields in ({}, {field: value}))
    assert outcome(kind, own) != outcome(kind, other)


@pytest.mark.parametrize("kind", [kind for kind in SPECS if kind not in ("pretrain", "finetune")])
def test_a_field_that_stands_as_unread_changes_nothing(outcome, kind):
    unread = SPECS[kind].unread[getattr(SPECS[kind], "name", "")]
    # Other masks have no jitter.
    fields = {name: OTHER[name] for name in unread - ELSEWHERE - {"mask.name"}}
    assert outcome(kind, changed(kind, fields)) == outcome(kind, changed(kind, {}))
