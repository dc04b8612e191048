"""Result folders like those of runs, for tests of the code that reads them.

The numbers are made up. No model was trained.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mgm.results.frame import Results, joined, with_means
from mgm.results.frozen import Frozen, numbers_of
from mgm.results.run import append_log, write_result
from mgm.spec import CONTROLS, Finetune, Measure, Pretrain, Probe, Spec, parents
from mgm.study import CONFIG
from mgm.study.expand import Expansion, expand
from mgm.study.scales import Scale, load_scale, load_suite
from mgm.study.schema import Study

VIDEOS, CLASSES = 240, 12
STARTED = "2026-01-01T10:00:00+00:00"


def smoke(seeds: tuple[int, ...] = (0, 1, 2)) -> Scale:
    """Return the smoke scale with these seeds."""
    return load_scale(CONFIG / "smoke.yaml").model_copy(update={"seeds": seeds})


def of_paper(*names: str) -> list[Study]:
    """Return studies of the paper."""
    return [study for study in load_suite("smoke").studies if study.study in names]


def suite(seeds: tuple[int, ...] = (0, 1, 2), studies: tuple[str, ...] = ("table4e",)) -> Expansion:
    return expand(of_paper(*studies), smoke(seeds))


def study_of(**fields: Any) -> Study:
    """Return a small study on two drawn datasets, with changed fields."""
    return Study.model_validate(
        {
            "study": "small",
            "question": "Which mask?",
            "scale": "smoke",
            "datasets": {
                "one": {"title": "One disc", "generate": {"sprites": 1}},
                "three": {"title": "Three discs", "generate": {"sprites": 3}},
            },
            "dataset_seeds": "1-8",
            "rows": {"No pretraining": "none", "Tube": {"mask": "tube"}, "MGM": {}},
            "columns": {"Linear probe": {}, "Fine-tuned": {"stage": "finetune"}},
            "controls": ["Linear probe"],
            "compare": [["MGM", "Tube"]],
            **fields,
        }
    )


def result_of(spec: Spec, top1: float = 60.0, **fields: Any) -> dict[str, Any]:
    """Return the fields of a finished run's result."""
    metrics, n_test = {"loss": 0.5}, 0
    if isinstance(spec, Finetune | Probe):
        n_test = VIDEOS
        metrics = {"top1": top1, "outside": 0.0}
    elif isinstance(spec, Measure):
        n_test = VIDEOS if spec.name == "controls" else 0
        metrics = {control.name: 40.0 for control in CONTROLS} | {"chance": 100 / CLASSES}
        metrics |= {"saliency": 1.3, "coverage_tube": 88.6, "coverage_mgm": 85.2, "videos": 60.0}
    return {
        "run_id": spec.run_id,
        "stage": spec.stage,
        "spec": spec.model_dump(mode="json"),
        "metrics": metrics,
        "seed": spec.seed,
        "parents": dict.fromkeys(parents(spec), "0" * 64),
        "data": {
            "dataset": spec.data.dataset,
            "digest": spec.data.digest,
            "note": "generated videos (seed 0), split as drawn",
            "classes": CLASSES,
            "train": 960,
            "test": VIDEOS,
        },
        "n_test": n_test,
        "commit": "d67827d" + "0" * 33,
        "dirty": False,
        "device": "cpu",
        "versions": {"python": "3.11"},
        "started": STARTED,
        "finished": "2026-01-01T10:00:12+00:00",
        "wall_s": 12.5,
        "weights_sha256": "0" * 64 if isinstance(spec, Pretrain | Finetune) else None,
        **fields,
    }


def finish(results: Path, spec: Spec, top1: float = 60.0, steps: int = 30, **fields: Any) -> Path:
    """Write the folder of a finished run."""
    folder = results / spec.run_id
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.json").write_text(spec.model_dump_json())
    if isinstance(spec, Pretrain | Finetune):
        write_log(folder, steps, steps)
    write_result(folder, result_of(spec, top1, **fields))
    return folder


def finish_all(results: Path, specs: Mapping[str, Spec], steps: int = 3) -> None:
    """Finish every run. Accuracies are drawn, so that another run's number is another number."""
    right_N = np.random.default_rng(0).integers(96, 180, len(specs))
    for right, spec in zip(right_N.tolist(), specs.values()):
        finish(results, spec, top1=100 * right / VIDEOS, steps=steps)


def finished(results: Path, found: Expansion) -> pd.DataFrame:
    """Finish every run, and return the numbers."""
    finish_all(results, found.specs)
    return read(results, found)


def read(results: Path, found: Expansion, *studies: Study) -> pd.DataFrame:
    """Return the numbers of an expansion with the results of a folder, and the studies' means."""
    return with_means(joined(numbers_of(found), results), {one.study: one for one in studies})


def results_of(frame: pd.DataFrame, *studies: Study, frozen: Frozen | None = None) -> Results:
    """Return numbers as the results of studies."""
    table = frame[~frame.derived].drop(columns="derived")
    return Results("small", {one.study: one for one in studies}, smoke(), table, frozen)


def write_log(folder: Path, done: int, steps: int) -> None:
    """Write the log of a run that is at step `done`."""
    folder.mkdir(parents=True, exist_ok=True)
    for step in range(1, done + 1):
        line = {"step": step, "steps": steps, "loss": 0.4 + 1.5 / step**0.5, "lr": 1e-3}
        line |= {"grad_norm": 1.0, "clips_per_s": 500.0, "coverage": 0.75, "time": 1e9 + step}
        append_log(folder, line)


def clip_arrays(slots: int, masks: tuple[str, ...] = ("tube", "mgm")) -> dict[str, np.ndarray]:
    """Return made-up arrays of masks on a clip.

    The last mask has a box, and the first slot has no motion.
    """
    rng = np.random.default_rng(0)
    boxes_NS4 = np.full((len(masks), slots, 4), np.nan, np.float32)
    boxes_NS4[-1] = (1, 2, 5, 5)
    return {
        "frames_SHWC": rng.integers(0, 256, (slots, 48, 48, 3), dtype=np.uint8),
        "index_S": np.arange(slots) * 4,
        "motion_SHW2": rng.normal(size=(slots, 6, 6, 2)).astype(np.float32),
        "magnitude_SHW": rng.random((slots, 6, 6)).astype(np.float32),
        "has_motion_S": (np.arange(slots) > 0) | (slots == 1),
        "names_N": np.array(masks),
        "ratio_N": np.array([0.9, 0.75][-len(masks) :]),
        "masked_NSHW": rng.random((len(masks), slots, 6, 6)) < 0.75,
        "boxes_NS4": boxes_NS4,
    }


def draw_arrays(results: Path, known: Expansion) -> None:
    """Finish the run of Figure 5, with the arrays of three slots of a made-up clip."""
    folder = finish(results, known.specs[known.pictures["figure5"]])
    np.savez(folder / "arrays.npz", **clip_arrays(3))
