"""What MLflow shows of each run, made from the files alone.

Tags make a run searchable. `table`, `row` and `column` name the cells that use the run or one of
its children, joined by "; ". `table.NAME` has the cells of one table as "row / column; ...".
docs/dashboard.md shows searches.
"""

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mgm.report.figures.draw import masks_on_a_clip
from mgm.report.figures.style import write
from mgm.results.frame import examine_all, pretraining_of
from mgm.results.result import LARGEST, QUIET_S, RunStatus, age, examine, log_lines
from mgm.spec import Mask, Pretrain, Spec, data_name, dotted, kind_of, parents
from mgm.study.registry import Registry

FORMAT = 9  # version of the record; a new one writes all runs again
LOGGED = ("loss", "lr", "grad_norm", "clips_per_s", "memory_mb", "coverage", "trivial_loss")
# State of a run -> value of the tag `status`, and MLflow's own status.
STATUS = {
    "run": ("finished", "FINISHED"),
    "running": ("running", "RUNNING"),
    "failed": ("failed", "FAILED"),
    "altered": ("altered", "FAILED"),
    "not run": ("stopped", "KILLED"),
}
# Tags that a run may have at one time and lack at another.
VARYING = ("why", "table", "row", "column", "mlflow.parentRunId")
SMALL = 1 << 20  # bytes; larger files are compared by size only
LONGEST = 5000  # characters per tag; newer versions of MLflow accept 8000

Metric = tuple[str, float, int, int]  # key, value, milliseconds since 1970, step


@dataclass(frozen=True)
class Record:
    """A run as MLflow stores it.

    Attributes:
        name: stage, mask, seed and top-1 accuracy, short enough for a list.
        status: MLflow's own status.
        start, end: milliseconds since 1970.
        curve: metrics in training, by step.
        final: metrics of the result.
        files: artefacts, name -> content.
    """

    spec: Spec
    name: str
    status: str
    start: int
    end: int | None
    params: dict[str, str]
    tags: dict[str, str]
    curve: list[Metric]
    final: list[Metric]
    files: dict[str, bytes]

    @property
    def last(self) -> int:
        return self.curve[-1][3] if self.curve else 0


class Records:
    """Records of a registry's runs."""

    def __init__(self, registry: Registry, results: Path):
        self.registry, self.results = registry, results
        self.cells = defaultdict[str, list[tuple[str, str, str]]](list)
        for table in registry.tables.values():
            for cell in table.cells:
                for run in registry.with_parents(run.run_id for run in cell.runs):
                    self.cells[run.run_id].append((cell.table, cell.row, cell.column))
        # The dataset of a study, and its draw, by the digest of its videos.
        self.places = {
            value.run.data.digest: (value.dataset, value.draw) for value in registry.values
        }
        # Arrays of Figure 5.
        clip = registry.mask_clip
        arrays = results / clip.run_id / "arrays.npz" if clip else None
        shown = arrays and arrays.is_file() and examine(arrays.parent, clip).result  # type: ignore[arg-type]
        self.arrays = arrays if shown else None
        self.clip = _content(self.arrays) if self.arrays else ""

    def digests(self) -> dict[str, str]:
        """Map each run with a folder to the digest of everything in its record."""
        digests: dict[str, str] = {}
        for run_id, spec in self.registry.specs.items():
            if (folder := self.results / run_id).is_dir():
                stopped = not (folder / "result.json").exists() and age(folder) > QUIET_S
                before = [digests.get(parent) for parent in parents(spec)]
                facts = [FORMAT, spec.model_dump_json(), self.cells[run_id], stopped, before]
                files = [
                    (file.name, _content(file))
                    for file in sorted(folder.iterdir())
                    if file.name[0] != "." and file.is_file()
                ]
                shown = self.clip if _is_plain(spec) else ""
                text = json.dumps([*facts, files, shown])
                digests[run_id] = hashlib.sha256(text.encode()).hexdigest()[:16]
        return digests

    def read(self, run_id: str) -> Record | None:
        """Return the record of a run, or None for a run without files."""
        spec, folder = self.registry.specs[run_id], self.results / run_id
        run = examine_all(self.results, self.registry.specs, [run_id])[run_id]
        if run.state == "not run" and not run.why:
            return None
        result = run.result or {}
        curve = [
            (f"train/{name}", float(line[name]), _milliseconds(line.get("time")), line["step"])
            for line in (log_lines(folder) if run.state != "altered" else ())
            for name in LOGGED
            if _is_number(line.get(name))
        ]
        start = _milliseconds(result.get("started")) or (curve[0][2] if curve else 0)
        end = _milliseconds(result.get("finished")) or (curve[-1][2] if curve else None)
        final = [
            (f"test/{name}", float(value), end or 0, curve[-1][3] if curve else 0)
            for name, value in result.get("metrics", {}).items()
            if _is_number(value)
        ]
        params = {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in dotted(spec.model_dump(mode="json")).items()
        } | self._axes(spec)
        files = {"spec.json": f"{spec.model_dump_json(indent=1)}\n".encode()}
        if result:
            files["result.json"] = f"{json.dumps(result, indent=1)}\n".encode()
        if self.arrays and isinstance(spec, Pretrain) and _is_plain(spec):
            files["masks.png"] = _picture(self.arrays, self.clip, spec.mask.name, spec.mask.ratio)
        tags = self._tags(spec, run, folder)
        files = {name: content for name, content in files.items() if content}
        name = _name(spec, params.get("axis.mask", ""), result.get("metrics", {}).get("top1"))
        status = STATUS[run.state][1]
        return Record(spec, name, status, start, end, params, tags, curve, final, files)

    def _axes(self, spec: Spec) -> dict[str, str]:
        """Return the parameters that the dashboard can group by.

        A run has the mask, target and steps of the pretraining run that it starts from.
        """
        layout, draw = self.places.get(spec.data.digest, (spec.data.dataset, None))
        axes = {"layout": layout, "draw": draw, "labels": spec.data.labels_per_class or "all"}
        if spec.stage in ("pretrain", "finetune", "probe"):
            start = pretraining_of(spec, self.registry.specs)
            axes["mask"] = start.mask.name if start else "none"
            if start:
                optim = start.optim
                length = f"{optim.steps} steps" if optim.steps else f"{optim.epochs} epochs"
                axes |= {"guidance": start.mask.guidance, "target": start.target, "steps": length}
        return {f"axis.{name}": str(value) for name, value in axes.items() if value is not None}

    def _tags(self, spec: Spec, run: RunStatus, folder: Path) -> dict[str, str]:
        result = run.result or {}
        data, weights = result.get("data", {}), folder / "weights.safetensors"
        place = f"{folder.parent.name}/{spec.run_id}"
        cells: dict[str, list[str]] = defaultdict(list)
        for table, row, column in self.cells[spec.run_id]:
            texts = {"table": table, "row": row, "column": column}
            for name, text in (texts | {f"table.{table}": f"{row} / {column}"}).items():
                cells[name].append(text)
        tags = {
            "verb": spec.stage,
            "status": STATUS[run.state][0],
            "why": "" if run.state == "running" else run.why,
            "scale": self.registry.scale.name,
            "seed": str(spec.seed),
            "parents": " ".join(parents(spec)),
            "folder": place,
            "data": data_name(spec.data, data.get("note", ""), self.registry.kinds),
            "data.kind": kind_of(spec.data, data.get("note", ""), self.registry.kinds),
            "data.digest": data.get("digest", spec.data.digest),
            "data.note": data.get("note", ""),
            "commit": result.get("commit", ""),
            "dirty": str(result["dirty"]).lower() if result else "",
            "weights.sha256": result.get("weights_sha256") or "",
            "weights.path": f"{place}/{weights.name}" if result and weights.exists() else "",
            "device": result.get("device", ""),
            "seal": result.get("seal", ""),
            "mlflow.source.name": f"mgm {spec.stage}",
            "mlflow.source.git.commit": result.get("commit", ""),
        } | {name: "; ".join(dict.fromkeys(texts)) for name, texts in cells.items()}
        return {
            name: text if len(text) <= LONGEST else text[: LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"
            for name, text in tags.items()
            if text
        }


def _name(spec: Spec, mask: str, top1: Any) -> str:
    """Return "mgm, seed 0, 64.7 %, probe", with what tells runs of a list apart first."""
    own = mask or getattr(spec, "name", "")
    accuracy = f"{top1:.1f} %" if _is_number(top1) else ""
    return ", ".join(filter(None, (own, f"seed {spec.seed}", accuracy, spec.stage)))


def _content(file: Path) -> str:
    """Return the digest of a small file's bytes, or the size of a large file."""
    size = file.stat().st_size
    return str(size) if size > SMALL else hashlib.sha256(file.read_bytes()).hexdigest()


def _is_plain(spec: Spec) -> bool:
    """Return whether a run's mask has the default edge, jitter and guidance, as in Figure 5."""
    return isinstance(spec, Pretrain) and spec.mask == Mask(
        name=spec.mask.name, ratio=spec.mask.ratio, cells=spec.mask.cells
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _milliseconds(time: Any) -> int:
    """Convert seconds since 1970, or an ISO date, to milliseconds since 1970; 0 if unknown."""
    if isinstance(time, str):
        return int(datetime.fromisoformat(time).timestamp() * 1000)
    return int(1000 * time) if _is_number(time) and 0 < time < LARGEST / 1000 else 0


@cache
def _picture(arrays: Path, content: str, name: str, ratio: float) -> bytes:
    """Draw one mask of Figure 5 as PNG; empty if the figure does not have this mask."""
    with np.load(arrays, allow_pickle=False) as file:
        shown = dict(file)
    rows = np.flatnonzero((shown["names_N"] == name) & (shown["ratio_N"] == ratio))[:1]
    if not len(rows):
        return b""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "masks.png"
        clip = {key: value[rows] if "_N" in key else value for key, value in shown.items()}
        write(masks_on_a_clip(clip), path)
        return path.read_bytes()
