"""Result folders like those of jobs, for tests of the code that reads them.

The numbers are made up. No model was trained.
"""

import hashlib
import json
from pathlib import Path

import numpy as np

from mgm.reading import file_digest
from mgm.results.plan import RunPlan
from mgm.results.result import read_result, write_result
from mgm.spec import Finetune, Measure, Pretrain, Probe, Spec, parents
from mgm.study.scales import Scale, ScaleDataset, load_scale
from mgm.study.schema import CONTROLS
from tests.helpers.plans import plan_at

CONFIG = Path(__file__).parents[2] / "workflow/config"
DIGEST = "0123456789ab"
WEIGHTS_SHA256 = hashlib.sha256(b"weights").hexdigest()


def smoke(
    seeds: tuple[int, ...] = (0, 1, 2), datasets: tuple[str, ...] = ("ssv2",), **changes
) -> Scale:
    """Return the smoke scale. Digests of its generated datasets are filled in."""
    scale = load_scale(CONFIG / "smoke.yaml")
    filled = {
        name: ScaleDataset(generate=scale.datasets["ssv2"].generate, digest=DIGEST)
        for name in datasets
    }
    return scale.model_copy(
        update={
            **{"datasets": filled, "seeds": seeds, "without": ()},
            **changes,
        }
    )


def suite(
    seeds: tuple[int, ...] = (0, 1, 2), datasets: tuple[str, ...] = ("ssv2",), **changes
) -> RunPlan:
    return plan_at(smoke(seeds, datasets, **changes))


def run_of(known: RunPlan, row: str, column: str = "Fine-tuned", study: str = "table4e") -> Spec:
    """Return the first run of a cell."""
    at = (study, row, column)
    cells = (cell for cell in known.cells if (cell.study, cell.row, cell.column) == at)
    return known.specs[next(cells).run_id]


def finish(
    results: Path, spec: Spec, top1: float = 60.0, steps: int = 30, videos: int = 240
) -> Path:
    """Write the result folder of a finished run. `top1` is rounded to a whole number of videos."""
    folder = results / spec.run_id
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.json").write_text(spec.model_dump_json())
    files, metrics, n_test = {}, {}, 0
    if isinstance(spec, Pretrain | Finetune | Probe):
        write_log(folder, steps, steps)
        metrics["loss"] = 0.5
    if isinstance(spec, Finetune | Probe):
        correct = round(top1 / 100 * videos)
        labels = np.arange(videos) % 12
        rows = [
            f"v{i}.mp4,{label},{label if i < correct else (label + 1) % 12}"
            for i, label in enumerate(labels)
        ]
        (folder / "predictions.csv").write_text("path,label,prediction\n" + "\n".join(rows) + "\n")
        files["predictions.csv"] = file_digest(folder / "predictions.csv")
        metrics |= {"top1": 100 * correct / videos, "outside": 0.0}
        n_test = videos
    if isinstance(spec, Measure) and spec.name == "controls":
        metrics |= dict.fromkeys(CONTROLS.values(), 40.0) | {"chance": 8.25}
    elif isinstance(spec, Measure):
        metrics |= {"saliency": 1.3, "vectors_ms": 5.0, "flow_ms": 50.0, "speedup": 2.0}
    about = {
        "run_id": spec.run_id,
        "verb": spec.stage,
        "spec": spec.model_dump(mode="json"),
        "seed": spec.seed,
        "parents": list(parents(spec)),
        "metrics": metrics,
        "n_test": n_test,
        "failed_videos": [],
        "files": files,
        "weights_sha256": WEIGHTS_SHA256 if isinstance(spec, Pretrain | Finetune) else None,
        "commit": "d67827d" + "0" * 33,
        "dirty": False,
        "versions": {"python": "3.11", "torch": "2.8"},
        "device": "cpu",
        "threads": 1,
        "wall_s": 12.5,
        "started": "2026-01-01T10:00:00+00:00",
        "finished": "2026-01-01T10:00:12+00:00",
    }
    data = {
        "dataset": spec.data.dataset,
        "digest": spec.data.digest,
        "classes": 12,
        "train": 960,
        "test": n_test or 240,
        "note": "generated videos (seed 0), split as drawn",
    }
    write_result(folder, {**about, "data": data})
    return folder


def write_log(folder: Path, done: int, steps: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "log.jsonl", "w") as file:
        for step in range(1, done + 1):
            line = {
                "step": step,
                "steps": steps,
                "loss": 0.4 + 1.5 / step**0.5,
                "lr": 1e-3,
                "grad_norm": 1.0,
                "clips_per_s": 500.0,
            }
            file.write(
                json.dumps({**line, "memory_mb": 400.0, "coverage": 0.75, "time": 1e9 + step})
                + "\n"
            )


def finish_all(results: Path, known: RunPlan, steps: int = 30) -> None:
    """Finish every run of `known`. Accuracies vary between runs, without randomness."""
    for position, spec in enumerate(known.specs.values()):
        finish(results, spec, top1=40 + (7 * position) % 35, steps=steps)


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


def draw_arrays(results, known: RunPlan):
    """Write the arrays of the visualise job: three slots of a made-up clip."""
    folder = finish(results, known.specs[known.targets["figure5"][0]])
    np.savez(folder / "arrays.npz", **clip_arrays(3))
    result = read_result(folder)
    write_result(folder, {**result, "files": {"arrays.npz": file_digest(folder / "arrays.npz")}})
