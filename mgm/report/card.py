"""The model card of exported weights (README.md).

It describes the weights and lists the table cells that use them. Its head has the metadata that
model hubs read.
"""

from pathlib import Path
from typing import Any

import yaml

from mgm.reading import file_digest
from mgm.report.cells import fill
from mgm.report.findings import Findings
from mgm.report.words import caveat_of
from mgm.results.frame import commit_of, examine_all
from mgm.results.outputs import write_output
from mgm.spec import Finetune, Pretrain, Spec, data_name, kind_of, parents, read_spec
from mgm.study.suite import registry_of

LICENCE = "apache-2.0"
SEEN = "number with these weights"


def write_card(run: Path, out: Path, to: str, notes: str) -> None:
    """Write README.md, the model card, next to weights that `mgm export` wrote for `to`.

    Args:
        notes: how to load the weights. Paths of this machine are removed from it.
    """
    spec = read_spec(run)
    assert isinstance(spec, Pretrain | Finetune)
    library = "transformers" if to == "hf" else "pytorch"
    use = notes.removeprefix(f"wrote {out}").lstrip(":/ ").replace(str(out), ".")
    digest = file_digest(run / "weights.safetensors")
    write_output(out / "README.md", model_card(run, spec, digest, library, use))


def model_card(run: Path, spec: Pretrain | Finetune, digest: str, library: str, notes: str) -> str:
    """Return the card as Markdown with a YAML head.

    `model-index` in the head has one result per table cell. It is the accuracy of this run, or of
    a run that was trained from it.

    Args:
        digest: SHA-256 of the run's own weights.
        library: library that loads the weights, "transformers" or "pytorch".
        notes: instructions for loading them, one per line.
    """
    # None: the run belongs to no study.
    registry = registry_of(run.parent) if (run.parent / "scale.json").is_file() else None
    statuses = examine_all(run.parent, registry.specs if registry else {spec.run_id: spec})
    result = statuses[spec.run_id].result if spec.run_id in statuses else None
    findings = Findings(registry, statuses, run.parent) if registry else None
    evaluations, lines = _of_cells(findings, spec) if findings else ([], [])
    kinds = registry.kinds if registry else {}
    head: dict[str, Any] = {
        "license": LICENCE,
        "library_name": library,
        "tags": ["video", "masked-autoencoder", "mgm", spec.model.backbone],
    }
    if isinstance(spec, Finetune):
        head["pipeline_tag"] = "video-classification"
    if evaluations:
        head["model-index"] = [{"name": spec.run_id, "results": evaluations}]
    data = result["data"] if result else {}
    digest_of_data = data.get("digest", spec.data.digest or "not recorded")
    note = data.get("note", "")
    facts = {
        "Run": f"`{spec.run_id}`, {spec.stage}, seed {spec.seed}"
        + "".join(f", from `{parent}`" for parent in parents(spec)),
        "Scale": f"{registry.scale.name}. {caveat_of(registry.scale)}"
        if registry
        else "none, a single run",
        "Data": f"{data_name(spec.data, note, kinds)}, digest `{digest_of_data}`. {note}".strip(),
        "Code": f"mgm at commit {commit_of(result) or 'unknown'}" if result else "not recorded",
        "Weights": "converted from the run's weights.safetensors, which has the SHA-256 digest "
        f"`{digest}`",
        "Licence": "Apache-2.0, as the code. The data have their own terms.",
    }
    table = (
        f"| table | row | column | {SEEN} | mean of the cell [95 % interval], runs |\n"
        "|---|---|---|---|---|\n" + "\n".join(lines)
    )
    head_lines = "\n".join(f"- **{name}**: {fact}" for name, fact in facts.items())
    use = "\n".join(f"- {line}" for line in notes.splitlines())
    return (
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n\n# {spec.run_id}\n\n{head_lines}\n\n"
        f"## Results\n\n{table if lines else 'No finished table cell uses these weights.'}\n\n"
        f"## Use\n\n{use}\n"
    )


def _of_cells(findings: Findings, spec: Spec) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the table cells that use a run.

    Returns:
        The results for `model-index`, and one line of Markdown per cell.
    """
    evaluations, lines, registry = [], [], findings.registry
    for cell in (cell for table in registry.tables.values() for cell in table.cells):
        row, shown = fill(cell, findings), []
        for run_spec, value in zip(cell.runs, row.values):
            result = findings.statuses[run_spec.run_id].result
            own = spec.run_id in (run_spec.run_id, *parents(run_spec))
            if value is None or result is None or not own:
                continue
            shown.append(f"{value:.{cell.decimals}f}")
            kind = kind_of(run_spec.data, kinds=registry.kinds)
            prefix = "generated-" if kind == "generated" else ""
            metric = {
                "type": "accuracy" if cell.metric == "top1" else cell.metric,
                "value": round(value, 4),
                "name": f"{cell.metric}: table {cell.table}, {cell.row}, {cell.column} "
                f"({run_spec.stage}, seed {run_spec.seed})",
            }
            evaluations.append(
                {
                    "task": {"type": "video-classification"},
                    "dataset": {
                        "type": f"{prefix}{run_spec.data.dataset}",
                        "name": data_name(run_spec.data, kinds=registry.kinds),
                        "split": "test",
                        "revision": result["data"]["digest"],
                    },
                    "metrics": [metric],
                }
            )
        # A study leaves a draw out until all its rows are done.
        if shown and row.estimate:
            mean, low, high = (f"{value:.{cell.decimals}f}" for value in row.estimate[:3])
            bounds = f" [{low}, {high}]" if row.estimate.has_interval else ""
            lines.append(
                f"| {cell.table} | {cell.row} | {cell.column} | {', '.join(shown)} | "
                f"{mean}{bounds}, {row.estimate.n} |"
            )
    return evaluations, lines
