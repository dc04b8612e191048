"""The page as Markdown (index.md), which docs/ can hold. Every number is from the frames."""

from collections.abc import Mapping, Sequence

from mgm.report import blocks
from mgm.report.findings import Findings
from mgm.report.page import Figure
from mgm.report.tables import compared, laid_out, markdown, seen


def summary(findings: Mapping[str, Findings], figures: Mapping[str, Sequence[Figure]]) -> str:
    """Return the Markdown of what studies found: a title per study, its tables and figures."""
    return "\n\n".join(_study(found, figures[name]) for name, found in findings.items()) + "\n"


def _study(findings: Findings, figures: Sequence[Figure]) -> str:
    study = findings.study
    lines = [f"# {study.question}", *filter(None, map(findings.filled, study.answer))]
    lines += [f"*{study.caveat.strip()}*"] if study.caveat else []
    lines += [
        f"![{figure.title}](figures/{figure.picture.name})" for figure in figures if figure.picture
    ]
    for name, part in findings.study.parts.items():
        cells = seen(findings, name)
        lines += [f"## {part.title or name}", *filter(None, [part.note])]
        for controls, of_kind in cells.groupby("control", sort=False):
            table = laid_out(findings, of_kind)
            if controls:
                table = table.rename(columns={"Pretraining": "Control: no model"})
            lines.append(markdown(table))
    families = compared(findings)[["family", "column"]].drop_duplicates()
    for family, column in families.itertuples(index=False):
        title = ", ".join(filter(None, [f"Differences: {family}" if family else "Differences"]))
        lines += [f"## {title}, {column}", blocks.differences(findings, family, column=column)]
    if len(findings.predictions):
        lines += ["## Predictions", blocks.predictions(findings)]
    notes = [*study.sceptic.items(), ("When the runs stop", study.stop)]
    written = [f"**{title}.** {findings.filled(text)}" for title, text in notes if text]
    lines += ["## Notes", *written] if written else []
    return "\n\n".join(line.strip() for line in lines)
