"""`mgm crate NAME`: results and their report in one zip, a Workflow Run RO-Crate.

Files lie as in a checkout (workflow/, config/, results/NAME/, reports/NAME/). So the page's links
work, and so does `mgm report`. ro-crate-metadata.json describes the files by RO-Crate 1.1 and the
Workflow Run profiles 0.5. Each run is an action: its inputs are spec, data and parent weights, its
outputs are its files, and its instrument is a stage of mgm at a commit with its libraries. Each
table cell is an entity based on the results of its runs.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from itertools import chain
from math import isfinite
from mimetypes import guess_type
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rocrate.model.contextentity import ContextEntity
from rocrate.rocrate import ROCrate

from mgm.errors import UserError
from mgm.paper.registry import Registry
from mgm.reading import file_digest
from mgm.report.build import build_report
from mgm.report.cells import FilledCell, fill_all
from mgm.report.findings import Findings
from mgm.report.words import caveat_of
from mgm.results.atomic import atomic_write
from mgm.results.frame import commit_of, examine_all
from mgm.results.result import RunStatus
from mgm.spec import Spec, parents
from mgm.version import __version__

PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
SNAKEFILE = "workflow/Snakefile"
CODE = ("README.md", "LICENSE", "CITATION.cff", "requirements.lock", "Dockerfile", "apptainer.def")
WEIGHTS = "weights.safetensors"
# Types that Python does not know everywhere.
KINDS = {".jsonl": "application/jsonl", ".npz": "application/zip", ".lock": "text/plain"}
DONE, FAILED = "http://schema.org/CompletedActionStatus", "http://schema.org/FailedActionStatus"


def write_crate(
    registry: Registry, results: Path, reports: Path, out: Path, weights: bool = False
) -> int:
    """Rebuild the report and write it with the finished and failed runs to zip file `out`.

    Args:
        results, reports: `results/NAME` and `reports/NAME`, as in `build_report`.
        weights: include weights. Otherwise the crate has only their digests.

    Returns:
        The number of runs in the crate.

    Raises:
        UserError: there is no workflow/Snakefile here, or no run is finished.
    """
    if not Path(SNAKEFILE).is_file():
        raise UserError(
            f"{SNAKEFILE}: no such file here; call `mgm crate` in the checkout that made the "
            "results"
        )
    statuses = examine_all(results, registry.specs, weights=True)
    if weights and (wrong := [run.why for run in statuses.values() if WEIGHTS in run.why]):
        raise UserError(f"{results}: {wrong[0]}, or make the crate without --weights")
    if not any(run.result for run in statuses.values()):
        raise UserError(
            f"{results}: no run is finished, so the crate would be empty; run `snakemake "
            "--cores all` first"
        )
    build_report(registry, results, reports)
    crate = Crate(registry, results, reports, statuses, weights)
    with atomic_write(out) as temporary:
        crate.crate.write_zip(temporary)
    return len(crate.actions)


class Crate:
    """Entities of a crate, created in the order of the work: workflow, runs, report."""

    def __init__(
        self,
        registry: Registry,
        results: Path,
        reports: Path,
        statuses: Mapping[str, RunStatus],
        weights: bool,
    ):
        self.crate, self.weights = ROCrate(version="1.1"), weights
        self.results, self.reports = results, reports
        self.data: dict[str, Any] = {}
        name = results.name
        self.crate.name = f"mgm: results {name}"
        self.crate.description = (
            f"Runs at scale {registry.scale.name}, with tables, figures and claims. "
            f"{caveat_of(registry.scale)}"
        )
        self.crate.license = self.entity(
            "https://spdx.org/licenses/Apache-2.0", "CreativeWork", name="Apache License 2.0"
        )
        self.crate.root_dataset["conformsTo"] = [
            self.entity(url, "CreativeWork", name=title) for url, title in PROFILES.items()
        ]
        properties = {"name": "The Snakefile of mgm"}
        workflow = self.crate.add_workflow(
            SNAKEFILE, SNAKEFILE, main=True, lang="snakemake", properties=properties
        )
        below = (sorted(Path(folder).rglob("*")) for folder in ("workflow", "config"))
        for path in (*map(Path, CODE), *chain(*below)):
            if path.is_file():
                self.file(path)
        # Absolute paths are cut to their last part.
        asked = json.dumps(_private(json.loads((results / "scale.json").read_text())), indent=1)
        described = "the requested scale, with the digests of its data"
        scale = self.file(results / "scale.json", asked, description=described)
        self.actions = [
            self.run(registry.specs[run_id], run)
            for run_id, run in statuses.items()
            if run.state in ("run", "failed")
        ]
        done = [run.result for run in statuses.values() if run.result]
        workflow["version"] = (
            " ".join(dict.fromkeys(commit_of(result) for result in done)) or "unknown"
        )
        shown = self.report(registry, statuses)
        whole = self.action(
            "#workflow",
            workflow,
            [scale, *self.data.values()],
            [*self.results_of(statuses), *shown],
            name=f"Snakemake's run of {name}",
            description=f"{len(done)} of the scale's {len(registry.specs)} runs are finished",
            startTime=min(result["started"] for result in done),
            endTime=max(result["finished"] for result in done),
        )
        self.crate.root_dataset["mentions"] = [whole, *self.actions, self.crate.get("#report")]

    def run(self, spec: Spec, run: RunStatus) -> Any:
        """Add the action of one run, with its inputs, its instrument and its files."""
        folder, result = self.results / spec.run_id, run.result or {}
        names = ("spec.json", "result.json", "log.jsonl", *result.get("files", {}))
        written = {name: self.file(folder / name) for name in names if (folder / name).is_file()}
        digests = result.get("parents_sha256", {})
        inputs = [written.pop("spec.json", None)]
        inputs += [self.weights_of(parent, digests.get(parent) or "") for parent in parents(spec)]
        outputs = list(written.values())
        facts = {"actionStatus": FAILED, "error": run.why, "description": run.why}
        if result:
            data = result["data"]
            key = f"{data['dataset']}-{data['digest']}"
            self.data[key] = self.entity(
                f"#data-{key}",
                "CreativeWork",
                identifier=data["digest"],
                description=f"{data['train']} training and {data['test']} test videos of "
                f"{data['classes']} classes; {data['note']}",
                name=f"dataset {data['dataset']}, digest {data['digest']}",
            )
            inputs.append(self.data[key])
            if digest := result["weights_sha256"]:
                outputs.append(self.weights_of(spec.run_id, digest))
            metrics = "; ".join(f"{name} {value:g}" for name, value in result["metrics"].items())
            facts = {
                "startTime": result["started"],
                "endTime": result["finished"],
                "description": f"seed {spec.seed}, {result['wall_s']:g} s on {result['device']}: "
                + metrics,
            }
        software = self.software(spec.stage, result)
        return self.action(f"#{spec.run_id}", software, inputs, outputs, **facts)

    def report(self, registry: Registry, statuses: Mapping[str, RunStatus]) -> list[Any]:
        """Add the report's files and table cells, each with the results that it is based on.

        Returns:
            The entities of the files.
        """
        targets, shown = registry.targets(), []
        for path in sorted(path for path in self.reports.rglob("*") if path.is_file()):
            based = self.results_of(spec.run_id for spec in targets.get(path.stem, ()))
            shown.append(self.file(path, isBasedOn=based))
        for cell in fill_all(Findings(registry, statuses, self.results)).values():
            table = self.reports / "tables" / f"table{cell.table}.csv"
            if file := self.crate.get(self.place(table)):
                file.append_to("about", self.cell(cell))
        self.action(
            "#report",
            self.software("report", {}),
            results := self.results_of(statuses),
            shown,
            name=f"mgm report {self.results.name}",
            description=f"tables, figures, claims and page of {len(results)} results",
            endTime=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        return shown

    def cell(self, cell: FilledCell) -> Any:
        """Add a cell with its mean and interval, based on the results of its runs."""
        name = f"table{cell.table}/{cell.row}/{cell.column}"
        bounds = zip(("value", "minValue", "maxValue"), cell.estimate or ())
        return self.entity(
            f"#{quote(name)}",
            ["CreativeWork", "PropertyValue"],
            name=name,
            isBasedOn=self.results_of(cell.run_ids),
            propertyID=cell.metric,
            description=f"{cell.status}: {cell.why}" if cell.why else cell.status,
            **{name: round(value, 4) for name, value in bounds if isfinite(value)},
        )

    def results_of(self, run_ids: Iterable[str]) -> list[Any]:
        """Return the entities of the results that these runs have."""
        paths = (self.results / run_id / "result.json" for run_id in dict.fromkeys(run_ids))
        return [entity for path in paths if (entity := self.crate.get(self.place(path)))]

    def place(self, path: Path) -> str:
        """Return where a file of the checkout, the results or the report lies in the crate."""
        for kind, folder in (("results", self.results), ("reports", self.reports)):
            if path.is_relative_to(folder):
                return f"{kind}/{self.results.name}/{path.relative_to(folder).as_posix()}"
        return path.as_posix()

    def weights_of(self, run_id: str, digest: str) -> Any:
        """Add weights as a file if wanted and present, else as an entity with their digest."""
        path = self.results / run_id / WEIGHTS
        if self.weights and path.is_file():
            return self.file(path)
        return self.entity(
            f"#weights-{run_id}",
            "CreativeWork",
            name=f"weights of {run_id}, not in the crate",
            sha256=digest,
        )

    def software(self, stage: str, result: Mapping[str, Any]) -> Any:
        """Add a stage of mgm at a commit, with the versions of its libraries."""
        versions = result.get("versions", {"mgm": __version__})
        commit = commit_of(result) if result else ""
        version = commit or versions.get("mgm", __version__)
        return self.entity(
            f"#mgm-{stage}-{version}",
            "SoftwareApplication",
            name=f"mgm {stage}",
            softwareVersion=version,
            softwareRequirements=[
                self.entity(
                    f"#{name}-{number}", "SoftwareApplication", name=name, softwareVersion=number
                )
                for name, number in versions.items()
            ],
            description=f"commit {commit or 'unknown'}",
        )

    def action(
        self, identifier: str, instrument: Any, inputs: list[Any], outputs: list[Any], **facts: Any
    ) -> Any:
        """Add an action. Without other facts, it is completed and has its id as its name."""
        properties = {"name": identifier.lstrip("#"), "actionStatus": DONE} | facts
        properties |= {"object": [entity for entity in inputs if entity], "result": outputs}
        return self.crate.add_action(instrument, identifier, properties=_given(properties))

    def file(self, path: Path, text: str = "", **facts: Any) -> Any:
        """Return the entity of a file. Add it at its first use, with `text` as its content."""
        if known := self.crate.get(place := self.place(path)):
            return known
        content = text.encode()
        properties = {
            "name": place,
            "contentSize": str(len(content) or path.stat().st_size),
            "sha256": hashlib.sha256(content).hexdigest() if text else file_digest(path),
            "encodingFormat": KINDS.get(path.suffix) or guess_type(path)[0] or "text/plain",
        }
        source = io.StringIO(text) if text else path
        return self.crate.add_file(source, place, properties=_given(properties | facts))

    def entity(self, identifier: str, kind: str | list[str], /, **facts: Any) -> Any:
        """Return the entity with this id. Create it at its first use."""
        properties = {"@type": kind} | _given(facts)
        return self.crate.get(identifier) or self.crate.add(
            ContextEntity(self.crate, identifier, properties=properties)
        )


def _private(value: Any) -> Any:
    """Cut absolute paths in a JSON value to their last part."""
    if isinstance(value, dict):
        return {name: _private(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_private(inner) for inner in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _given(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Drop empty facts, and replace each list of one by its item, as RO-Crate requires."""
    single = {
        name: value[0] if isinstance(value, list) and len(value) == 1 else value
        for name, value in facts.items()
    }
    return {name: value for name, value in single.items() if value not in ("", [], None)}
