"""A table's three files show the same cells."""

import csv
import re
import shutil
import subprocess
from dataclasses import replace

import pytest

from mgm.report.cells import COLUMNS, fill_all
from mgm.report.findings import Findings
from mgm.report.tables import BOLD, _tex, views_of, write_tables
from mgm.report.words import DASH, MINUS, number
from mgm.results.frame import examine_all
from tests.helpers.fake_results import BOTH, finish, finish_all, registry


def write(known, results, name):
    """Write a table; return the text of its files by suffix, and its view."""
    view = views_of(known, fill_all(Findings(known, examine_all(results, known.specs), results)))[
        name
    ]
    path = write_tables(results / "tables", view)
    return {
        ending: path.with_suffix(f".{ending}").read_text() for ending in ("csv", "md", "tex")
    }, view


def grids(texts):
    """Return the lines of cells that Markdown and TeX show, with the heading first."""
    md = [
        [cell.strip(" *") for cell in line.split("|")[1:-1]]
        for line in texts["md"].splitlines()
        if line.startswith("| ")
    ]
    body = re.sub(
        r"\\(toprule|midrule|bottomrule|addlinespace|emph|textbf)\b",
        "",
        texts["tex"].partition(r"\toprule")[2],
    )
    body = (
        body.partition(r"\end{tabular}")[0]
        .replace(r"\%", "%")
        .replace("--", DASH)
        .replace(r"$\rightarrow$", "→")
    )
    tex = [[cell.strip(" {}\n") for cell in line.split(" & ")] for line in body.split(r"\\")[:-1]]
    return md, tex


def test_all_formats_show_every_cell_and_the_scale(tmp_path):
    known = registry()
    finish_all(tmp_path, known, steps=2)
    (tmp_path / known.tables["4e"].cells[0].runs[0].run_id / "result.json").write_text("{}")
    texts, view = write(known, tmp_path, "4e")
    lines = list(csv.DictReader(texts["csv"].splitlines()))
    assert tuple(lines[0]) == COLUMNS
    assert [(line["row"], line["column"], line["status"]) for line in lines] == [
        (cell.row, cell.column, cell.status) for cell in view.cells
    ]
    assert (lines[0]["status"], lines[0]["ours"], lines[0]["n"]) == ("altered", "", "0")
    last = next(line for line in lines if line["row"] == "MGM (Dense)")
    assert (last["row"], float(last["paper"]), last["n"], len(last["run_ids"].split())) == (
        "MGM (Dense)",
        67.3,
        "3",
        3,
    )
    assert float(last["difference"]) == pytest.approx(float(last["ours"]) - 67.3, abs=1e-3)
    assert float(last["ci_low"]) < float(last["ours"]) < float(last["ci_high"])
    md, tex = grids(texts)
    assert md == tex
    # A heading and five titles: the paper's rows and our own per column, and the controls.
    assert len(md) == 1 + 5 + len(view.cells)
    for text in (texts["md"], texts["tex"]):
        assert f"Scale {known.scale.name}" in text
        assert all(number(cell.estimate.mean) in text for cell in view.cells[1:])


def test_markup_in_a_scales_text_is_shown_as_text(tmp_path):
    known = registry(caveat="<script>alert(1)</script> 50 % | of_a & b")
    texts, _ = write(known, tmp_path, "4e")
    assert "<script>" not in texts["md"]
    assert r"50 \% | of\_a \& b" in texts["tex"]
    assert _tex(f"{DASH} {MINUS}1") == "-- $-$1"


@pytest.fixture
def accuracies(tmp_path):
    """Function that writes Table 4e for accuracies per seed: MGM (Dense)'s and all others'."""

    def finished(ours, others):
        known = registry(seeds=tuple(range(len(ours))), name="paper")
        for cell in known.tables["4e"].cells:
            for run, top1 in zip(cell.runs, ours if cell.row == "MGM (Dense)" else others):
                finish(tmp_path, run, top1, videos=1000)
        return write(known, tmp_path, "4e")

    return finished


def test_bold_is_above_every_other_row_beyond_noise(accuracies):
    texts, view = accuracies((70.0, 72.0, 74.0), (60.0, 61.9, 64.0))  # +10.0 +10.1 +10.0
    assert [(cell.row, cell.column) for cell in view.leaders] == [
        ("MGM (Dense)", "SSv2"),
        ("MGM (Dense)", "SSv2, linear probe"),
    ]
    for ending, mark in (("md", "**72.0**"), ("tex", r"\textbf{72.0}")):
        assert texts[ending].count(mark) == 2
        assert BOLD.split(".")[0] in texts[ending]
    partial = [
        replace(cell, status="partial") if cell.row == "Random Tube" else cell
        for cell in view.cells
    ]
    assert replace(view, cells=partial).leaders == []


@pytest.mark.parametrize(
    ("ours", "others"),
    [
        ((70.0, 72.0, 74.0), (72.0, 71.0, 69.0)),  # +1.3, its interval from -7.3 to 10.0
        ((70.0,), (10.0,)),  # one seed: an interval over test videos ignores seeds
    ],
)
def test_nothing_is_bold_within_noise_or_of_one_seed(accuracies, ours, others):
    texts, view = accuracies(ours, others)
    assert view.leaders == []
    assert "textbf" not in texts["tex"]
    assert not re.search(r"\*\*\d", texts["md"])


def test_a_small_model_is_a_stand_in_for_a_backbone(tmp_path):
    texts, _ = write(registry(), tmp_path, "4a")
    named = re.findall(r"(ViT-S|ViT-B|TimesFormer) stand-in \(\d+ blocks, width \d+;", texts["md"])
    assert named == ["ViT-S", "ViT-B", "TimesFormer"]


@pytest.mark.skipif(
    not shutil.which("pdflatex"), reason="pdflatex is not here: install texlive-latex-recommended"
)
def test_every_table_compiles_and_fits_a_page(tmp_path):
    """Compile all tables with pdflatex, with finished, altered and missing runs."""
    known = registry(datasets=BOTH, name="paper")
    finish_all(tmp_path / "results", known, steps=2)
    specs = [run for cell in known.tables["4e"].cells for run in cell.runs]
    (tmp_path / "results" / specs[0].run_id / "result.json").write_text("{}")
    (tmp_path / "results" / specs[4].run_id / "result.json").unlink()
    cells = fill_all(
        Findings(known, examine_all(tmp_path / "results", known.specs), tmp_path / "results")
    )
    for view in views_of(known, cells).values():
        write_tables(tmp_path, view)
    inputs = "\n".join(rf"\input{{table{name}}}\clearpage" for name in known.tables)
    packages = r"\usepackage{booktabs}\usepackage[margin=2cm]{geometry}"
    (tmp_path / "all.tex").write_text(
        rf"\documentclass{{article}}{packages}\begin{{document}}{inputs}\end{{document}}"
    )
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "all.tex"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-2000:]
    wide = [
        float(points) for points in re.findall(r"Overfull \\hbox \(([\d.]+)pt too wide", ran.stdout)
    ]
    assert max(wide, default=0) < 5, ran.stdout  # points; a larger one is visible
    assert not re.findall(r"Missing character|Float too large|undefined", ran.stdout), ran.stdout
    assert f"({len(known.tables)} pages" in ran.stdout


@pytest.fixture
def table_1(tmp_path):
    """Function that writes Table 1, with some of our runs done, at a changed smoke scale."""

    def finished(**changes):
        known = registry(datasets=BOTH, **changes)
        for cell in known.tables["1"].cells:
            for position, run in enumerate(cell.runs):
                if "1600" in cell.row or (cell.row == "MGM, SSv2, 800" and position == 0):
                    finish(tmp_path, run, 50 + 5 * position)
        return write(known, tmp_path, "1")

    return finished


def test_table_1_stands_in_four_sections_with_quoted_rows_dashed(table_1):
    md, tex = grids(table_1()[0])
    assert md == tex
    assert md[0] == [
        "Method",
        "Pretraining epochs",
        "Paper",
        "Ours",
        "95 % interval",
        "Runs",
        "Status",
    ]
    titles = [line[0] for line in md if not any(line[1:])]
    assert titles == [
        f"{column} stand-in (generated), {group}"
        for column in ("SSv2", "K400")
        for group in ("supervised", "self-supervised")
    ]
    assert ["MViTv2 (MViT-B; K400; 225 GFLOPs)", "200", "70.5", DASH, DASH, DASH, "quoted"] in md
    assert ["SlowFast (R101 + NL)", DASH, "79.8", DASH, DASH, DASH, "quoted"] in md
    assert [
        "MGM (2 blocks, width 48; 0.015 GFLOPs; SSv2)",
        "400",
        "69.6",
        "not run",
        DASH,
        "0 of 3",
        "not run",
    ] in md


def test_a_single_run_says_so_and_the_difference_is_shown_at_the_papers_scale_alone(table_1):
    texts, view = table_1(seeds=(0,), name="paper")
    cell = next(cell for cell in view.cells if cell.row == "MGM, SSv2, 800")
    assert cell.estimate.n == 1
    assert cell.estimate.low < 50 < cell.estimate.high
    interval, lines = (
        f"[{cell.estimate.low:.1f}, {cell.estimate.high:.1f}]",
        [line[3:] for line in grids(texts)[0]],
    )
    assert ["50.0 (n = 1)", interval, number(cell.difference, sign=True), "1 of 1", "run"] in lines
    smoke, _ = table_1()
    assert "50.0 (partial, n = 1)" in smoke["md"]
    for ending in ("md", "tex"):
        assert "Difference" in texts[ending]
        assert "Difference" not in smoke[ending]
