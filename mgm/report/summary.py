"""The page as Markdown (index.md), which docs/ can hold. Every number is from the frames."""

from collections.abc import Mapping, Sequence

from mgm.report import blocks
from mgm.report.findings import Findings
from mgm.report.page import Figure, table
from mgm.report.tables import compared, laid_out, markdown, seen


def summary(findings: Mapping[str, Findings], figures: Mapping[str, Sequence[Figure]]) -> str:
    """Return the Markdown of what studies found: a title per study, its tables and figures."""
    return "\n\n".join(_study(found, figures[name]) for name, found in findings.items()) + "\n"


def _study(findings: Findings, figures: Sequence[Figure]) -> str:
    study = findings.study
    lines = [f"# {study.question}", *filter(None, map(findings.filled, study.answer))]
    lines += [f"*{study.caveat.strip()}*"] if study.caveat else []
    # The other figures show the numbers of the tables once more.
    lines += [
        f"![{figure.title}](figures/{figure.picture.name})"
        for figure in figures
        if figure.picture and figure.name.startswith(("over", "against", "figure"))
    ]
    for name, part in findings.study.parts.items():
        cells = seen(findings, name)
        shown = table(findings, name)["blocks"]
        data = dict.fromkeys(block["data"] for block in shown)
        lost = [
            f"**No row is above chance: {block['column']}.**" for block in shown if block["lost"]
        ]
        poor = [f"{block['column']}: {block['poor']}" for block in shown if block["poor"]]
        lines += [f"## {part.title or name}", *filter(None, [part.note, *data, *lost, *poor])]
        for controls, of_kind in cells.groupby("control", sort=False):
            first = {"Pretraining": "Control: no model"} if controls else {}
            lines.append(markdown(laid_out(findings, of_kind).rename(columns=first)))
    families = compared(findings)[["family", "column"]].drop_duplicates()
    for family, column in families.itertuples(index=False):
        title = ", ".join(filter(None, [f"Differences: {family}" if family else "Differences"]))
        lines += [f"## {title}, {column}", blocks.differences(findings, family, column=column)]
    if len(findings.predictions):
        lines += ["## Predictions", blocks.predictions(findings)]
    notes = [*study.sceptic.items(), ("When the runs stop", study.stop)]
    written = [f"**{title}.** {findings.filled(text)}" for title, text in notes if text]
    lines += ["## Notes", *written] if written else []
    lines.append(f"Written by `mgm report {findings.results.name}` from its runs.")
    return "\n\n".join(line.strip() for line in lines)
