"""The record of each run for MLflow, made from the files alone.

Tags make a run searchable. `table`, `row` and `column` name the cells that use the run or one of
its children, joined by "; ". `table.NAME` has the cells of one table as "row / column; ...".
docs/dashboard.md shows searches.
"""

import hashlib
import json
import os
import sys
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mgm.paper.registry import Registry
from mgm.report.page.svg import Panel, drawing
from mgm.results.frame import examine_all
from mgm.results.result import LARGEST, QUIET_S, RunStatus, age, examine, log_lines
from mgm.spec import Mask, Pretrain, Spec, data_name, dotted, parents

FORMAT = 5  # version of the record; a new one writes all runs again
DIGEST = "mgm.digest"  # tag: digest of the folder that was mirrored
STEP, CURVE = "mgm.step", "mgm.curve"  # tags: last step of the curve, and its digest
# Values of the tag `status`.
STATUS = {
    "run": "finished",
    "running": "running",
    "failed": "failed",
    "altered": "altered",
    "not run": "stopped",
}
LOGGED = ("loss", "lr", "grad_norm", "clips_per_s", "memory_mb", "coverage", "trivial_loss")
PARENT = "mlflow.parentRunId"  # tag with which MLflow's pages nest runs
# MLflow's own status for each value of the tag `status`.
STATUSES = {
    "finished": "FINISHED",
    "running": "RUNNING",
    "failed": "FAILED",
    "altered": "FAILED",
    "stopped": "KILLED",
}
SMALL = 1 << 20  # bytes; larger files are compared by size and time only
LARGEST_FLOAT = sys.float_info.max
LONGEST = 5000  # characters per tag; newer versions of MLflow accept 8000

Metric = tuple[str, float, int, int]  # key, value, milliseconds since 1970, step


@dataclass(frozen=True)
class RunRecord:
    """A run as MLflow stores it.

    `curve` has its metrics in training by step, `final` those of its result.
    """

    spec: Spec
    run: RunStatus
    folder: Path
    scale: str
    cells: Sequence[tuple[str, str, str]]  # table, row, column
    arrays: Path | None  # arrays of Figure 5, if it shows the run's mask

    @property
    def run_id(self) -> str:
        return self.spec.run_id

    @property
    def status(self) -> str:
        return STATUS[self.run.state]

    @property
    def result(self) -> dict[str, Any]:
        return self.run.result or {}

    @cached_property
    def curve(self) -> list[Metric]:
        return [
            (f"train/{name}", float(line[name]), _milliseconds(line.get("time")), line["step"])
            for line in (log_lines(self.folder) if self.status != "altered" else ())
            for name in LOGGED
            if _is_number(line.get(name))
        ]

    @property
    def last(self) -> int:
        return self.curve[-1][3] if self.curve else 0

    @property
    def latest(self) -> dict[str, str]:
        """Last value of each metric as text, so that NaN equals NaN."""
        values = {key: value for key, value, _, _ in (*self.curve, *self.final)}
        return {key: number_text(value) for key, value in values.items()}

    def curve_digest(self, last: int) -> str:
        """Return the digest of the parameters and of the curve up to step `last`."""
        points = [point for point in self.curve if point[3] <= last]
        return digest_of([FORMAT, self.params, points])

    def continues(self, tags: Mapping[str, str]) -> bool:
        """Return whether these tags are from an earlier, unfinished state of this run."""
        unfinished = tags.get("status") in ("running", "stopped", "failed")
        whole = bool(tags.get(DIGEST)) and STEP in tags
        return unfinished and whole and tags.get(CURVE) == self.curve_digest(int(tags[STEP]))

    def curve_after(self, tags: Mapping[str, str]) -> list[Metric]:
        """Return the points that an earlier state with these tags lacks."""
        return [point for point in self.curve if point[3] > int(tags[STEP])]

    @property
    def final(self) -> list[Metric]:
        metrics = self.result.get("metrics", {})
        return [
            (f"test/{name}", float(value), self.end or 0, self.last)
            for name, value in metrics.items()
            if _is_number(value)
        ]

    @property
    def start(self) -> int:
        return _milliseconds(self.result.get("started")) or (self.curve[0][2] if self.curve else 0)

    @property
    def end(self) -> int | None:
        return _milliseconds(self.result.get("finished")) or (
            self.curve[-1][2] if self.curve else None
        )

    @property
    def params(self) -> dict[str, str]:
        fields = dotted(self.spec.model_dump(mode="json"))
        return {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in fields.items()
        }

    @property
    def files(self) -> dict[str, str]:
        """Small artefacts by name."""
        found = {"spec.json": self.spec.model_dump_json(indent=1) + "\n"}
        return found | (
            {"result.json": json.dumps(self.result, indent=1) + "\n"} if self.result else {}
        )

    @cached_property
    def facts(self) -> dict[str, str]:
        """All tags, with empty text for those without a value."""
        spec, result = self.spec, self.result
        data, weights = result.get("data", {}), self.folder / "weights.safetensors"
        cells: dict[str, list[str]] = defaultdict(list)
        for table, row, column in self.cells:
            for name, text in (
                ("table", table),
                ("row", row),
                ("column", column),
                (f"table.{table}", f"{row} / {column}"),
            ):
                cells[name].append(text)
        facts = {
            "verb": spec.stage,
            "status": self.status,
            "why": "" if self.status == "running" else self.run.why,
            "scale": self.scale,
            "seed": str(spec.seed),
            "parents": " ".join(parents(spec)),
            "folder": f"{self.folder.parent.name}/{spec.run_id}",
            "data": data_name(spec.data),
            "data.digest": data.get("digest", spec.data.digest),
            "data.note": data.get("note", ""),
            "commit": result.get("commit", ""),
            "dirty": str(result["dirty"]).lower() if result else "",
            "weights.sha256": result.get("weights_sha256") or "",
            "weights.path": f"{self.folder.parent.name}/{spec.run_id}/{weights.name}"
            if result and weights.exists()
            else "",
            "device": result.get("device", ""),
            "seal": result.get("seal", ""),
            STEP: str(self.last),
            CURVE: self.curve_digest(self.last),
            "mlflow.source.name": f"mgm {spec.stage}",
            "mlflow.source.git.commit": result.get("commit", ""),
        } | {name: "; ".join(dict.fromkeys(texts)) for name, texts in cells.items()}
        return {
            name: text if len(text) <= LONGEST else text[: LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"
            for name, text in facts.items()
        }

    @property
    def tags(self) -> dict[str, str]:
        return {name: text for name, text in self.facts.items() if text}

    def is_ours(self, tag: str) -> bool:
        """Return whether a record may have this tag. Others are from MLflow or from users."""
        return (
            tag in self.facts
            or tag in (PARENT, "table", "row", "column")
            or tag.startswith(("mgm.", "table."))
        )


class Records:
    """Records of a registry's runs, parents before children."""

    def __init__(self, registry: Registry, results: Path):
        self.registry, self.results, self.cells = (
            registry,
            results,
            defaultdict[str, list[tuple[str, str, str]]](list),
        )
        self.arrays = (
            results / registry.mask_clip.run_id / "arrays.npz" if registry.mask_clip else Path()
        )
        for table in registry.tables.values():
            for cell in table.cells:
                for run in registry.with_parents(run.run_id for run in cell.runs):
                    self.cells[run.run_id].append((cell.table, cell.row, cell.column))

    def digests(self) -> dict[str, str]:
        """Map each run with a folder to the digest of everything in its record."""
        found: dict[str, str] = {}
        clip = _content(self.arrays) if self.arrays.is_file() else ""
        for run_id, spec in self.registry.specs.items():
            if (folder := self.results / run_id).is_dir():
                files = [
                    (file.name, _content(Path(file)))
                    for file in sorted(os.scandir(folder), key=lambda file: file.name)
                    if file.name[0] != "." and file.is_file()
                ]
                found[run_id] = digest_of(
                    [
                        FORMAT,
                        spec.model_dump_json(),
                        self.registry.scale.name,
                        self.cells[run_id],
                        clip if _is_plain(spec) else "",
                        files,
                        not (folder / "result.json").exists() and age(folder) > QUIET_S,
                        [found.get(parent) for parent in parents(spec)],
                    ]
                )
        return found

    def read(self, run_ids: Collection[str]) -> Iterator[RunRecord]:
        """Yield the records of these runs, without runs that have no files."""
        clip = self.registry.mask_clip
        arrays = (
            self.arrays
            if clip and self.arrays.is_file() and examine(self.arrays.parent, clip).result
            else None
        )
        found = examine_all(self.results, self.registry.specs, run_ids)
        for run_id in run_ids:
            spec, run = self.registry.specs[run_id], found[run_id]
            if run.state != "not run" or run.why:
                shown = arrays if _is_plain(spec) else None
                yield RunRecord(
                    spec,
                    run,
                    self.results / run_id,
                    self.registry.scale.name,
                    self.cells[run_id],
                    shown,
                )


def digest_of(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _content(file: Path) -> str:
    """Return the digest of a small file's bytes, or size and time of a large file."""
    stat = file.stat()
    return _digest_at(file, stat.st_mtime_ns, stat.st_size)


@cache
def _digest_at(file: Path, written: int, size: int) -> str:
    if size > SMALL:
        return f"{written} {size}"
    return hashlib.sha256(file.read_bytes()).hexdigest()


def number_text(value: float) -> str:
    """Format a metric for comparison. MLflow's databases store infinity as the largest float."""
    return repr(value if value != value else min(max(value, -LARGEST_FLOAT), LARGEST_FLOAT))


def _is_plain(spec: Spec) -> bool:
    """Return whether a run's mask has the default edge, jitter and guidance, as in Figure 5."""
    return isinstance(spec, Pretrain) and spec.mask == Mask(
        name=spec.mask.name, ratio=spec.mask.ratio
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _milliseconds(time: Any) -> int:
    """Convert seconds since 1970, or an ISO date, to milliseconds since 1970; 0 if unknown."""
    if isinstance(time, str):
        return int(datetime.fromisoformat(time).timestamp() * 1000)
    return int(1000 * time) if _is_number(time) and 0 < time < LARGEST / 1000 else 0


STYLE = (
    "<style>svg{background:#fff;font:7px "
    "sans-serif;fill:#6b6b6b}path,polyline{fill:none;stroke:#6b6b6b}"
    "polyline{stroke:#d55e00}</style>"
)


def artifacts(record: RunRecord) -> dict[str, bytes]:
    """Return the artefacts of a run: file name -> content."""
    files = {name: text.encode() for name, text in record.files.items()}
    loss = [
        (float(step), value)
        for key, value, _, step in record.curve
        if key == "train/loss" and np.isfinite(value)
    ]
    if loss:
        values = [value for _, value in loss]
        panel = Panel([loss], loss[-1][0], min(values), max(values))
        head, rest = drawing("curves", panel, f"training loss of {record.run_id}").split(">", 1)
        size = 'xmlns="http://www.w3.org/2000/svg" width="736" height="368"'
        files["curves.svg"] = f"{head} {size}>{STYLE}{rest}\n".encode()
    if record.arrays and isinstance(record.spec, Pretrain):
        mask = record.spec.mask
        if picture := _mask(record.arrays, record.arrays.stat().st_mtime_ns, mask.name, mask.ratio):
            files["masks.png"] = picture
    return files


@cache
def _mask(arrays: Path, written: int, name: str, ratio: float) -> bytes:
    """Draw one mask of Figure 5 as PNG; empty if the figure does not have this mask."""
    # Imported here because matplotlib takes a second to import.
    from mgm.report.figures.draw import masks_on_a_clip
    from mgm.report.figures.style import write

    with np.load(arrays, allow_pickle=False) as file:
        shown = dict(file)
    rows = np.flatnonzero((shown["names_N"] == name) & (shown["ratio_N"] == ratio))[:1]
    if not len(rows):
        return b""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "masks.png"
        write(
            masks_on_a_clip(
                {key: value[rows] if "_N" in key else value for key, value in shown.items()}
            ),
            path,
        )
        return path.read_bytes()
