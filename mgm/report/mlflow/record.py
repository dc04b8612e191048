"""The record of each run that MLflow should hold, from the files alone.

A run is found in MLflow by its tags. `table`, `row` and `column` name the cells it fills, itself or through a child, joined by "; " where
there are several, and `table.NAME` the cells of that one table as "row / column; ..."; docs/dashboard.md shows searches.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from mgm.experiments.registry import Registry
from mgm.runs.log import LARGEST, log_lines
from mgm.runs.result import RunStatus, examine
from mgm.spec import Mask, Pretrain, Spec, dotted, parents

FORMAT = 3  # of what is mirrored; another one mirrors all anew
STATUS = {"run": "finished", "running": "running", "failed": "failed", "altered": "altered", "not run": "stopped"}  # the tag `status`
LOGGED = ("loss", "lr", "grad_norm", "clips_per_s", "memory_mb", "coverage", "trivial_loss")
LONGEST = 5000  # letters of a tag; newer MLflow takes 8000
DIGEST, STEP, PREFIX, FINAL = "mgm.digest", "mgm.step", "mgm.prefix", "mgm.final"  # tags, for the next sync; see `Record.tags`
OURS = (
    *("verb", "status", "why", "scale", "seed", "parents", "folder", "data", "data.digest", "data.note", "device", "seal"),
    *("table", "row", "column", "commit", "dirty", "weights.sha256", "weights.path", "mlflow.source.name", "mlflow.source.git.commit"),
)

Metric = tuple[str, float, int, int]  # key, value, milliseconds since 1970, step


@dataclass(frozen=True)
class Record:
    """A run in MLflow's terms. `curve` and `final` are its metrics, in training by step and of its result."""

    run_id: str
    status: str
    parents: tuple[str, ...]
    params: dict[str, str]
    facts: dict[str, str]
    curve: list[Metric]
    final: list[Metric]
    files: dict[str, str]  # small artefacts by name
    mask: tuple[str, float, str] | None  # name, ratio, and digest of `arrays`, those of Figure 5, which may show it
    arrays: Path
    weights: Path | None  # where its weights are, if they are
    start: int
    end: int | None

    @property
    def last(self) -> int:
        return self.curve[-1][3] if self.curve else -1

    @cached_property
    def prefix(self) -> str:
        return self.prefix_to(self.last)

    @cached_property
    def digest(self) -> str:
        rest = (self.run_id, self.parents, self.final, self.files, self.mask, self.start, self.end)
        return digest_of([FORMAT, self.prefix, self.facts, *rest])

    @property
    def tags(self) -> dict[str, str]:
        """All tags but the parent's id in MLflow. The last three tell the next sync what of the metrics is there."""
        return self.facts | {DIGEST: self.digest, STEP: str(self.last), PREFIX: self.prefix, FINAL: digest_of(self.final)}

    def prefix_to(self, step: int) -> str:
        """Digest of what cannot change in an MLflow run: its parameters, and the metrics up to `step`."""
        return digest_of([FORMAT, self.params, [metric for metric in self.curve if metric[3] <= step]])

    def continues(self, tags: Mapping[str, str]) -> bool:
        """Tell whether the MLflow run with these tags is wholly written, and this record adds nothing but metrics after its last."""
        whole = bool(tags.get(DIGEST)) and tags.get(PREFIX) == self.prefix_to(int(tags.get(STEP, -1)))
        whole &= tags.get("weights.sha256") in (None, self.facts.get("weights.sha256"))
        return whole and tags.get(FINAL) in (digest_of([]), digest_of(self.final))


class Entry(NamedTuple):
    """A run that has left something: a signature of its files, names, times and sizes, and what they said when they were read."""

    signature: str
    status: str
    digest: str


class Records:
    """The records of a registry's runs. `entries` are what is known of them, parents first; `scan` brings them up to date."""

    def __init__(self, registry: Registry, results: Path, entries: Mapping[str, Entry] | None = None):
        self.registry, self.results, self.cells = registry, results, _cells(registry)
        self.entries = dict(entries or {})
        self.masks = ""  # digest of the arrays of Figure 5
        self.arrays = results / registry.mask_clip.run_id / "arrays.npz" if registry.mask_clip else Path()

    def scan(self) -> dict[str, Entry]:
        """Read the runs whose files changed, or that may have stopped since; return all entries."""
        known, self.entries, self.masks = self.entries, {}, self._digest_of_masks()
        for run_id, spec in self.registry.specs.items():
            if not (self.results / run_id).is_dir():
                continue
            signature, entry = self._signature(spec), known.get(run_id)
            if entry is None or entry.signature != signature or entry.status == "running":
                record = self.read(run_id)
                entry = Entry(signature, record.status, record.digest) if record else None
            if entry:
                self.entries[run_id] = entry
        return self.entries

    def read(self, run_id: str) -> Record | None:
        """The record of a run, None if it has left nothing. Its parents' entries are up to date."""
        spec = self.registry.specs[run_id]
        bad = [parent for parent in parents(spec) if parent in self.entries and self.entries[parent].status == "altered"]
        run = RunStatus("altered", f"{run_id}: its parent {bad[0]} is altered") if bad else examine(self.results / run_id, spec)
        return None if run.state == "not run" and not run.why else self._record(spec, run)

    def _signature(self, spec: Spec) -> str:
        """A digest that changes when the run's record may have changed, but for how long ago its files were written."""
        files = sorted((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in os.scandir(self.results / spec.run_id))
        before = [self.entries[parent].signature for parent in parents(spec) if parent in self.entries]
        masks = self.masks if _is_plain(spec) else ""
        return digest_of([FORMAT, self.registry.scale.name, spec.model_dump_json(), self.cells.get(spec.run_id), masks, files, before])

    def _digest_of_masks(self) -> str:
        run = self.registry.mask_clip
        shown = examine(self.arrays.parent, run).result if run and self.arrays.is_file() else None
        return shown["files"].get(self.arrays.name, "") if shown else ""

    def _record(self, spec: Spec, run: RunStatus) -> Record:
        folder, result = self.results / spec.run_id, run.result or {}
        lines = [] if run.state == "altered" else log_lines(folder)
        curve = [
            (f"train/{name}", float(line[name]), _milliseconds(line.get("time")), line["step"])
            for line in lines
            for name in LOGGED
            if is_number(line.get(name))
        ]
        last = curve[-1][3] if curve else 0
        start, end = (_milliseconds(result.get(name)) for name in ("started", "finished"))
        weights = folder / "weights.safetensors"
        return Record(
            spec.run_id,
            STATUS[run.state],
            parents(spec),
            {name: value if isinstance(value, str) else json.dumps(value) for name, value in dotted(spec.model_dump(mode="json")).items()},
            {name: _short(text) for name, text in self._facts(spec, run, weights).items() if text},
            curve,
            [(f"test/{name}", float(value), end, last) for name, value in result.get("metrics", {}).items() if is_number(value)],
            {"spec.json": spec.model_dump_json(indent=1) + "\n"} | ({"result.json": json.dumps(result, indent=1) + "\n"} if result else {}),
            (spec.mask.name, spec.mask.ratio, self.masks) if self.masks and _is_plain(spec) else None,
            self.arrays,
            weights if result.get("weights_sha256") and weights.exists() else None,
            start or (curve[0][2] if curve else 0),
            end or (curve[-1][2] if curve else None),
        )

    def _facts(self, spec: Spec, run: RunStatus, weights: Path) -> dict[str, str]:
        result, cells = run.result, self.cells.get(spec.run_id, [])
        facts = {
            "verb": spec.verb,
            "status": STATUS[run.state],
            "why": "" if run.state == "running" else run.why,
            "scale": self.registry.scale.name,
            "seed": str(spec.seed),
            "parents": " ".join(parents(spec)),
            "folder": f"{self.results.name}/{spec.run_id}",
            "data": spec.data.dataset,
            "data.digest": spec.data.digest,
            "mlflow.source.name": f"mgm {spec.verb}",
            "table": "; ".join(dict.fromkeys(table for table, _, _ in cells)),
            "row": "; ".join(dict.fromkeys(row for _, row, _ in cells)),
            "column": "; ".join(dict.fromkeys(column for _, _, column in cells)),
        }
        for table in dict.fromkeys(table for table, _, _ in cells):
            facts[f"table.{table}"] = "; ".join(dict.fromkeys(f"{row} / {column}" for name, row, column in cells if name == table))
        if result:
            facts |= {
                "commit": result["commit"],
                "mlflow.source.git.commit": result["commit"],
                "dirty": str(result["dirty"]).lower(),
                "data.digest": result["data"]["digest"],
                "data.note": result["data"]["note"],
                "weights.sha256": result["weights_sha256"] or "",
                "weights.path": f"{self.results.name}/{spec.run_id}/{weights.name}" if weights.exists() else "",
                "device": result["device"],
                "seal": result["seal"],
            }
        return facts


def is_ours(tag: str) -> bool:
    """Tell a tag that `Record.tags` may have from MLflow's own, and from those of someone who looked at the run."""
    return tag in OURS or tag.startswith(("mgm.", "table."))


def digest_of(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cells(registry: Registry) -> dict[str, list[tuple[str, str, str]]]:
    """Run id -> (table, row, column) of the cells it fills, itself or through a child."""
    cells: dict[str, list[tuple[str, str, str]]] = {}
    for table in registry.tables.values():
        for cell in table.cells:
            for run in registry.with_parents(run.run_id for run in cell.runs):
                cells.setdefault(run.run_id, []).append((cell.table, cell.row, cell.column))
    return cells


def _is_plain(spec: Spec) -> TypeGuard[Pretrain]:
    """Tell whether a run's mask is as Figure 5 shows masks: with the usual edge, jitter and guidance."""
    return isinstance(spec, Pretrain) and spec.mask == Mask(name=spec.mask.name, ratio=spec.mask.ratio)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _milliseconds(time: Any) -> int:
    """Milliseconds since 1970 of seconds since then, or of an ISO date; 0 where there is none."""
    if isinstance(time, str):
        return int(datetime.fromisoformat(time).timestamp() * 1000)
    return int(1000 * time) if is_number(time) and 0 < time < LARGEST / 1000 else 0
