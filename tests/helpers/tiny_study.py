"""A study on a drawn dataset in few steps, for tests that run the Snakefile."""

from pathlib import Path

import yaml

from tests.helpers.programs import ROOT

DRAWN = {
    "kind": "ssv2",
    "layout": "sway",
    "quick": 1,
    "sprites": 1,
    "classes": 2,
    "train_per_class": 6,
    "test_per_class": 2,
    "size": 64,
    "frames": 24,
    "seed": 2,
}


def tiny_study(
    folder: Path, name: str = "tiny", steps: int = 12, specs_per_job: int = 3, seeds: str = "0"
) -> Path:
    """Write a study of three rows by two columns on one drawn dataset. Return its file.

    Its scale is smoke with few steps and a checkpoint at each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scale = yaml.safe_load((ROOT / "workflow" / "config" / "smoke.yaml").read_text())
    scale |= {"name": "tinyscale", "specs_per_job": specs_per_job}
    scale |= {"datasets": {"ssv2": {"generate": DRAWN}}}
    scale["execution"] |= {"checkpoint_s": 0}
    few = {"data.labels_per_class": 4}
    study = {
        "study": name,
        "question": "Which mask?",
        "scale": str(folder / f"{name}-scale.yaml"),
        "datasets": {"drawn": {"use": "ssv2"}},
        "seeds": seeds,
        "rows": {"None": "none", "Tube": {"mask": "tube"}, "MGM": {}},
        "columns": {"Probe": {}, "Fine-tuned": {"stage": "finetune"}},
        "compare": [["MGM", "Tube"]],
        "views": {"probes": {"columns": ["Probe"]}},
        "settings": {
            "pretrain": {"optim.steps": steps},
            "finetune": few | {"optim.steps": steps},
            "probe": few,
        },
    }
    (folder / f"{name}-scale.yaml").write_text(yaml.safe_dump(scale, sort_keys=False))
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return folder / f"{name}.yaml"
