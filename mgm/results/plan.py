"""A plan: every number that studies want with the run that has it, and the spec of every run.

`mgm.study.expand` makes it. The DAG writes it to results/NAME/plan when it starts: cells.csv and
specs.json. What reads results joins it with the runs' files (`mgm.results.frame`), and expands
nothing.
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from mgm.errors import UserError, nearest
from mgm.reading import read_json, read_text
from mgm.results import atomic
from mgm.results.archive import PLAN as FOLDER
from mgm.results.archive import PLANNED, unpack
from mgm.spec import Spec, parents, parse

# The last is the study's file, for a folder of results that was moved without it.
CELLS, SPECS, COPY = PLANNED
NO_SEED = -1  # the dataset seed of a dataset that is not drawn


class Cell(NamedTuple):
    """A number that a study wants, or a picture, whose row, column and metric are empty.

    Attributes:
        title: of the dataset.
        dataset_seed: the dataset's seed; `NO_SEED` if it has none.
        metric: the number's name in the run's result.
        control: whether it is measured without a model.
        pretraining: the run that `run_id` starts from, also over others; empty without one.
        views: keys of the study's views that show it.
    """

    study: str
    dataset: str
    title: str
    dataset_seed: int
    seed: int
    row: str
    column: str
    stage: str
    metric: str
    control: bool
    run_id: str
    pretraining: str
    views: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunPlan:
    """The cells of one folder of results, and its runs.

    Attributes:
        name: of the study or the scale.
        specs: specs by run id, parents before children.
        caveat: what the numbers allow to conclude, by the scale.
        file: the study's own file, as seen from the folder of results. Empty: the paper's studies.
        words: the content of that file.
    """

    name: str
    cells: list[Cell]
    specs: dict[str, Spec] = field(default_factory=dict)
    caveat: str = ""
    file: str = ""
    words: str = ""

    @cached_property
    def targets(self) -> dict[str, list[str]]:
        """The studies and `parts`, with the runs that they show. A table goes before a study."""
        studies = {"all": list(self.specs)}
        for cell in self.cells:
            studies.setdefault(cell.study, []).append(cell.run_id)
        return studies | self.parts

    @cached_property
    def parts(self) -> dict[str, list[str]]:
        """The views, such as table4e and figure5, with the runs that they show."""
        parts = dict[str, list[str]]()
        for cell in self.cells:
            for key in cell.views:
                parts.setdefault(key, []).append(cell.run_id)
        return parts

    def runs_of(self, target: str) -> list[Spec]:
        """Return the runs that a target needs, parents first.

        Raises:
            UserError: there is no such target.
        """
        if target not in self.targets:
            raise UserError(f"{target}: no such target; {nearest(target, self.targets)}")
        return self.with_parents(self.targets[target])

    def with_parents(self, run_ids: Iterable[str]) -> list[Spec]:
        """Return these runs and the runs that they start from, parents first."""
        wanted = set(run_ids)
        for run_id in reversed(self.specs):
            if run_id in wanted:
                wanted.update(parents(self.specs[run_id]))
        return [spec for run_id, spec in self.specs.items() if run_id in wanted]

    def texts(self) -> dict[str, str]:
        """Return the content of the plan's files by name."""
        file = io.StringIO()
        writer = atomic.table_writer(file)
        writer.writerow(Cell._fields)
        for cell in self.cells:
            values = cell._asdict() | {
                "dataset_seed": "" if cell.dataset_seed == NO_SEED else cell.dataset_seed,
                "control": int(cell.control),
                "views": " ".join(cell.views),
            }
            writer.writerow(values.values())
        cells = file.getvalue()
        head = {"name": self.name, "file": self.file, "caveat": self.caveat, "cells": digest(cells)}
        # A line per run.
        runs = (
            f"{json.dumps(name)}: {spec.model_dump_json()}" for name, spec in self.specs.items()
        )
        specs = "{" + json.dumps(head)[1:-1] + ', "runs": {\n' + ",\n".join(runs) + "\n}}\n"
        return {CELLS: cells, SPECS: specs} | ({COPY: self.words} if self.words else {})

    def is_new(self, results: Path) -> bool:
        """Return whether the folder `results` has another plan, or none."""
        return bool(self._changed(results))

    def write(self, results: Path) -> None:
        """Write the plan to the folder `results`. Unchanged files are left alone."""
        for path, text in self._changed(results).items():
            atomic.write(path, text)

    def _changed(self, results: Path) -> dict[Path, str]:
        files = {results / FOLDER / name: text for name, text in self.texts().items()}
        return {
            path: text
            for path, text in files.items()
            if not path.exists() or path.read_bytes() != text.encode()
        }


def digest(cells: str) -> str:
    return hashlib.sha256(cells.encode()).hexdigest()


def read_plan(results: Path) -> RunPlan:
    """Read the plan of a folder of results, which is unpacked first.

    Raises:
        UserError: there is none, or it is damaged.
    """
    unpack(results)
    if not results.is_dir():
        packed = [place.name.partition(".")[0] for place in results.parent.glob("*.tar.xz")]
        advice = nearest(results.name, sorted(packed))
        raise UserError(
            f"{results}: no such folder of results; run its experiments first, or name another: "
            f"{advice}"
        )
    place = results / FOLDER
    if not (place / SPECS).is_file():
        raise UserError(
            f"{place}: no such plan; `snakemake --cores 1 report` with the --config of these "
            "results writes it"
        )
    advice = f"delete {place}, and `snakemake --cores 1 report` with its --config writes it again"
    try:
        fields = read_json(place / SPECS)
        text = read_text(place / CELLS)
        if fields["cells"] != digest(text):
            raise UserError(f"{place / CELLS}: changed since it was written; {advice}")
        specs = {run_id: parse(spec, run_id) for run_id, spec in fields["runs"].items()}
        if wrong := [run_id for run_id, spec in specs.items() if spec.run_id != run_id]:
            raise UserError(f"{place / SPECS}: {wrong[0]} is another run; {advice}")
        words = read_text(place / COPY) if (place / COPY).exists() else ""
        return RunPlan(fields["name"], _cells(text), specs, fields["caveat"], fields["file"], words)
    except (KeyError, TypeError, ValueError, AttributeError, FileNotFoundError) as error:
        raise UserError(f"{place}: is not a plan ({error!r}); {advice}") from None


def _cells(text: str) -> list[Cell]:
    # By their places: archives of older versions call a dataset seed otherwise.
    _, *rows = csv.reader(io.StringIO(text, newline=""))
    return [_cell(*row) for row in rows]


def _cell(*texts: str) -> Cell:
    cell: Any = Cell(*texts)  # type: ignore[arg-type]
    return cell._replace(
        dataset_seed=int(cell.dataset_seed or NO_SEED),
        seed=int(cell.seed),
        control=cell.control == "1",
        views=tuple(cell.views.split()),
    )
