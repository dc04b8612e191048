"""The files of a study: its tables and its figures.

Every number comes from `mgm.report.findings`, with intervals over the study's sampling unit.
"""

from pathlib import Path

from mgm.report import blocks
from mgm.report.figures.study import differences, over_a_number
from mgm.report.figures.style import save
from mgm.report.findings import Findings
from mgm.results import atomic
from mgm.study.formula import parse_formula

# The frames of `Findings` that are written as csv.
FRAMES = ("cells", "differences", "predictions", "values")


def write_study_tables(findings: Findings, folder: Path) -> Path:
    """Write cells, differences, predictions and values to `folder`, and return the folder.

    Each is a csv file with every column. The .md files show the same for readers.
    """
    for name in FRAMES:
        table = getattr(findings, name)
        text = table.round(4).to_csv(index=False, lineterminator="\n")
        atomic.write(folder / f"{name}.csv", text)
    written: dict[str, list[str]] = {}
    if len(findings.predictions):
        written["predictions"] = [blocks.predictions(findings)]
    for name in ("cells", "controls"):
        models = findings.cells[findings.cells.control == (name == "controls")]
        for dataset, title in findings.study.shown.items():
            if columns := " / ".join(models[models.dataset == dataset].column.unique()):
                text = blocks.KINDS[name](findings, datasets=dataset, columns=columns)
                written.setdefault(name, []).append(f"{title}, {columns}\n\n{text}")
    pairs = findings.differences[["family", "column"]].drop_duplicates()
    for family, column in pairs.itertuples(index=False):
        text = blocks.differences(findings, family, column=column)
        title = f"{family or 'Differences'}, {column}"
        written.setdefault("differences", []).append(f"{title}\n\n{text}")
    caveat = findings.study.caveat.strip()
    for name, parts in written.items():
        lines = [*parts, f"*{caveat}*"] if caveat else parts
        atomic.write(folder / f"{name}.md", "\n\n".join(lines) + "\n")
    return folder


def write_study_figures(findings: Findings, folder: Path) -> dict[str, Path]:
    """Draw the study's figures, and return their svg files: `over`, and `differences`."""
    written = {}
    if len(points := findings.points):
        numbers = points.drop(columns=["dataset", "column", "line"]).to_numpy(float)
        names = points[["dataset", "column", "line"]].to_numpy(str)
        figure = over_a_number(findings.study, points, findings.unit_name)
        save(figure, folder / "over", {"names_P3": names, "numbers_P5": numbers})
        written["over"] = folder / "over.svg"
    table = findings.differences
    # A dot is a unit, and a unit is no person.
    table = table[table.family.isin(findings.study.compare)]
    table = table[table.column == next(iter(findings.study.columns))]
    if len(table):
        units = {
            place: findings.per_unit(
                place[0], *parse_formula(place[1]).terms, table.column.iloc[0]
            ).to_numpy()
            for place in zip(table.dataset, table.says)
        }
        arrays = {f"{dataset}: {says}": values for (dataset, says), values in units.items()}
        figure = differences(findings.study, table, units, findings.unit_name)
        save(figure, folder / "differences", arrays)
        written["differences"] = folder / "differences.svg"
    return written
