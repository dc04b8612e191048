"""Measure the videos of a study for `studies/rule.py`, on one small draw: lines of rule.csv.

    python studies/rule_table.py STUDY [NAME=FOLDER ...]

NAME is a prepared dataset of the study. What needs a dataset without a folder is left out. Gains
are those of the runs in results/STUDY, and empty where there are none. So are `random` and
`histogram`, the accuracies of random weights and of a histogram of motion vectors; without runs
they are measured too.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from rule import RESULTS, TABLE, finished

from mgm.data.index import Video, read_index
from mgm.data.synthetic.generator import generate
from mgm.data.synthetic.params import parse_params
from mgm.results.archive import is_packed
from mgm.stages.advice import HISTOGRAM, RANDOM, static_contrast
from mgm.stages.inspect import spread
from mgm.stages.measure.controls import controls
from mgm.stages.measure.visible import visible
from mgm.study import CONFIG, STUDIES
from mgm.study.expand import expand
from mgm.study.load import load_study
from mgm.study.scales import UNSCALED, load_scale
from mgm.study.videos import datasets_of

VIDEOS = 120
SMALL = {"train_per_class": 10, "test_per_class": 10, "seed": 860}
KNOWN = {"random": RANDOM, "histogram": HISTOGRAM}
# Rows that change other fields are left out.
FIELDS = {"mask", "mask.ratio", "mask.guidance", "optim.steps", "clips.frames"}


def measure(name: str, folders: dict[str, Path]) -> pd.DataFrame:
    """Return the lines of a study."""
    study = load_study(STUDIES / f"{name}.yaml")
    scale = load_scale(CONFIG / f"{study.scale}.yaml") if study.scale else UNSCALED
    sets = datasets_of([study], scale)
    plan = expand([study], scale, sets)
    results = RESULTS / name
    done = results.is_dir() or is_packed(results)
    runs = finished(results) if done else pd.DataFrame(columns=["mean", "gain", "n"])
    lines = list[dict[str, Any]]()
    for dataset in study.shown:
        # The first draw of each row.
        cells = {
            cell.row: cell
            for cell in reversed(plan.cells)
            if (cell.dataset, cell.stage, cell.metric) == (dataset, "probe", "top1")
            and cell.pretraining
            and study.rows[cell.row].changes.keys() <= FIELDS
        }
        specs: dict[str, Any] = {row: plan.specs[cell.pretraining] for row, cell in cells.items()}
        row, cell = next(iter(cells.items()))
        probe: Any = plan.specs[cell.run_id]
        trained, tested = (
            next(key for key, of in sets.items() if of.digest == digest)
            for digest in (specs[row].data.digest, probe.data.digest)
        )
        fields = sets[trained].generate
        if not fields and not {trained, tested} <= folders.keys():
            continue
        with TemporaryDirectory() as folder:
            if fields:
                index = generate(parse_params(fields | SMALL, dataset), Path(folder))
            else:
                index = read_index(folders[trained])
            measured = features(spread(index.train, VIDEOS), specs)
            of = [(dataset, title) for title in KNOWN.values()]
            if {*of} <= {*runs.index}:
                reached = runs.loc[of, "mean"]
            else:
                whole = index if fields else read_index(folders[tested])
                reached = controls(whole, probe).set_index("title").top1[[*KNOWN.values()]]
        # Draws of the same videos, also of other studies.
        videos = parse_params(fields | {"seed": 0}, dataset).digest if fields else trained
        for row, spec in reversed(specs.items()):
            lines.append(
                {"study": name, "dataset": dataset, "row": row, "videos": videos}
                | {"steps": spec.optim.steps, "mask": spec.mask.name, "ratio": spec.mask.ratio}
                | {"guidance": spec.mask.guidance}
                | measured[row]
                | dict(zip(KNOWN, reached))
                | {"gain": runs.gain.get((dataset, row)), "n": runs.n.get((dataset, row), 0)}
            )
    return pd.DataFrame(lines).round(3)


def features(videos: list[Video], specs: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return what each row leaves visible of the first clips of videos, and their contrast."""
    # Row by row, since masks of one pass have the same guidance.
    found = {
        row: visible(videos, spec.clips, spec.model, [spec.mask])[0] for row, spec in specs.items()
    }
    spec = next(iter(specs.values()))
    contrast = static_contrast(videos, spec.clips, spec.model)
    names = ("texture", "motion", "energy", "without")
    return {
        row: {name: of[name] for name in names} | {"contrast": contrast}
        for row, of in found.items()
    }


def main(name: str, *folders: str) -> None:
    places = {key: Path(folder) for key, _, folder in (text.partition("=") for text in folders)}
    lines = measure(name, places)
    if TABLE.exists():
        table = pd.read_csv(TABLE)
        lines = pd.concat([table[table.study != name], lines])
    lines.to_csv(TABLE, index=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
