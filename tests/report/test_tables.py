import csv
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from mgm.experiments.quoted import reported
from mgm.report.cells import COLUMNS, examine_all, rows
from mgm.report.tables import BOLD, DASH, MINUS, _tex, leaders, number, write_tables
from tests.helpers.fake_results import BOTH, finish, finish_all, registry


@pytest.fixture
def written(tmp_path):
    known = registry()
    finish_all(tmp_path / "results", known, steps=2)
    (tmp_path / "results" / known.tables["4e"].cells[0].runs[0].run_id / "result.json").write_text("{}")
    collected = rows(known, examine_all(known, tmp_path / "results"))["4e"]
    write_tables(tmp_path / "tables", known.tables["4e"], collected, known.scale)
    return tmp_path / "tables", collected, known.scale


def test_csv_has_the_columns_of_the_design_and_reads_back(written):
    folder, collected, _ = written
    lines = list(csv.DictReader((folder / "table4e.csv").read_text().splitlines()))
    assert tuple(lines[0]) == COLUMNS
    assert [(line["row"], line["column"], line["status"]) for line in lines] == [(row.row, row.column, row.status) for row in collected]
    assert (lines[0]["status"], lines[0]["ours"], lines[0]["n"]) == ("altered", "", "0")
    last = lines[-2]
    assert (last["row"], float(last["paper"]), last["n"], len(last["run_ids"].split())) == ("MGM (Dense)", 67.3, "3", 3)
    assert float(last["difference"]) == pytest.approx(float(last["ours"]) - 67.3, abs=1e-3)
    assert float(last["ci_low"]) < float(last["ours"]) < float(last["ci_high"])


def test_the_others_carry_the_scale_and_every_cell(written):
    folder, collected, scale = written
    assert {path.name for path in folder.iterdir()} == {f"table4e.{ending}" for ending in ("csv", "md", "tex", "html")}
    for ending in ("md", "tex", "html"):
        text = (folder / f"table4e.{ending}").read_text()
        assert f"Scale {scale.name}" in text
        assert " ".join(scale.promise.split()[3:9]) in " ".join(text.split())
        assert "altered" in text
        assert "nan" not in text.lower().replace("finan", "")
        for row in collected[1:]:
            assert number(row.estimate.mean) in text


def test_markdown_is_a_rectangle(written):
    grid = [line for line in (written[0] / "table4e.md").read_text().splitlines() if line.startswith("|")]
    assert len(grid) == 2 + 2 + 14  # heading and rule, a title each column, a row each cell
    assert {line.count("|") for line in grid} == {7}


def test_html_is_balanced(written):
    open_tags = []

    class Check(HTMLParser):
        def handle_starttag(self, tag, attrs):
            open_tags.append(tag)

        def handle_endtag(self, tag):
            assert open_tags.pop() == tag

    Check().feed((written[0] / "table4e.html").read_text())
    assert open_tags == []


def test_tex_escapes_and_rows_have_the_headings_width(written):
    assert _tex(f"90 % of_a & b {DASH} {MINUS}1") == r"90 \% of\_a \& b -- $-$1"
    text = (written[0] / "table4e.tex").read_text()
    body = text.partition(r"\midrule")[2].split(r"\bottomrule")[0].strip().splitlines()
    assert body.pop(0).startswith(r"\multicolumn{6}{l}{\emph{SSv2}}")
    assert body[7:9] == [r"\midrule", r"\multicolumn{6}{l}{\emph{SSv2, linear probe}} \\"]
    del body[7:9]
    assert len(body) == 14
    assert {line.count(" & ") for line in body} == {5}


@pytest.fixture
def accuracies(tmp_path):
    """Table 4e's files and rows where MGM (Dense) finetunes to one list of accuracies, a value a seed, and every other mask to another."""

    def write(ours, others, name):
        known = registry(seeds=tuple(range(len(ours))), name="paper")
        for cell in known.tables["4e"].cells:
            for run, top1 in zip(cell.runs, ours if cell.row == "MGM (Dense)" else others):
                finish(tmp_path / name, run, top1, videos=1000)
        collected = rows(known, examine_all(known, tmp_path / name))["4e"]
        path = write_tables(tmp_path / name, known.tables["4e"], collected, known.scale)
        return {ending: path.with_suffix(f".{ending}").read_text() for ending in ("md", "tex", "html")}, collected

    return write


def test_bold_is_above_every_other_row_beyond_noise(accuracies):
    texts, collected = accuracies((70.0, 72.0, 74.0), (60.0, 61.9, 64.0), "beyond")  # +10.0 +10.1 +10.0
    assert [(row.row, row.column) for row in leaders(collected)] == [("MGM (Dense)", "SSv2"), ("MGM (Dense)", "SSv2, linear probe")]
    assert [texts[ending].count(mark) for ending, mark in (("md", "**72.0**"), ("tex", r"\textbf{72.0}"), ("html", "<strong>72.0<"))] == [
        2
    ] * 3
    assert all(BOLD.split(",")[0] in text for text in texts.values())


@pytest.mark.parametrize(
    ("ours", "others", "name"),
    [
        ((70.0, 72.0, 74.0), (72.0, 71.0, 69.0), "noise"),  # +1.3, its interval from -7.3 to 10.0
        ((70.0,), (10.0,), "single"),  # an interval over test videos says nothing of seeds
    ],
)
def test_nothing_is_bold_within_noise_or_of_one_seed(accuracies, ours, others, name):
    texts, collected = accuracies(ours, others, name)
    assert leaders(collected) == []
    assert "textbf" not in texts["tex"]
    assert "<strong>" not in texts["html"]
    assert not re.search(r"\*\*\d", texts["md"])


def test_nothing_is_bold_while_a_run_is_missing(accuracies, tmp_path):
    _, collected = accuracies((70.0, 72.0, 74.0), (60.0, 61.9, 64.0), "missing")
    assert leaders([replace(row, status="partial") if row.row == "Random Tube" else row for row in collected]) == []


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not here: install texlive-latex-recommended")
def test_every_table_compiles_and_fits_a_page(tmp_path):
    """With a real TeX; the longest captions, the widest rows, every status."""
    known = registry(datasets=BOTH, name="paper")
    finish_all(tmp_path / "results", known, steps=2)
    specs = [run for cell in known.tables["4e"].cells for run in cell.runs]
    (tmp_path / "results" / specs[0].run_id / "result.json").write_text("{}")
    (tmp_path / "results" / specs[4].run_id / "result.json").unlink()
    collected = rows(known, examine_all(known, tmp_path / "results"))
    for name, table in known.tables.items():
        write_tables(tmp_path, table, collected[name], known.scale)
    inputs = "\n".join(rf"\input{{table{name}}}\clearpage" for name in known.tables)
    source = (
        rf"\documentclass{{article}}\usepackage{{booktabs}}\usepackage[margin=2cm]{{geometry}}\begin{{document}}{inputs}\end{{document}}"
    )
    (tmp_path / "all.tex").write_text(source)
    ran = subprocess.run(
        ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "all.tex"], cwd=tmp_path, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout[-2000:]
    wide = [float(points) for points in re.findall(r"Overfull \\hbox \(([\d.]+)pt too wide", ran.stdout)]
    assert max(wide, default=0) < 5, ran.stdout  # points; more can be seen
    assert not re.findall(r"Missing character|Float too large|undefined", ran.stdout), ran.stdout
    assert f"({len(known.tables)} pages" in ran.stdout


@pytest.fixture
def table_1(tmp_path):
    """Table 1 at a scale, as its four files and its rows; some runs of ours are done."""

    def write(**changes):
        known = registry(datasets=BOTH, **changes)
        for cell in known.tables["1"].cells:
            for position, run in enumerate(cell.runs):
                if "1600" in cell.row or (cell.row == "MGM, SSv2, 800" and position == 0):
                    finish(tmp_path / "results", run, 50 + 5 * position)
        collected = rows(known, examine_all(known, tmp_path / "results"))["1"]
        path = write_tables(tmp_path / "tables", known.tables["1"], collected, known.scale)
        return {ending: path.with_suffix(f".{ending}").read_text() for ending in ("csv", "md", "tex", "html")}, collected

    return write


def test_table_1_has_every_cell_the_paper_prints(table_1):
    texts, collected = table_1()
    assert {(row.row, row.column) for row in collected} == {
        (row, column) for table, row, column in reported() if table == "1" and column != "GFLOPs"
    }
    lines = {line["row"]: line for line in csv.DictReader(texts["csv"].splitlines())}
    assert len(lines) == 37
    quoted = lines["BEVT, SSv2, 800+150"]
    assert (quoted["status"], quoted["paper"], quoted["ours"], quoted["n"], quoted["run_ids"]) == ("quoted", "70.6", "", "0", "")
    assert (lines["MGM, K400, 1600"]["status"], lines["MGM, SSv2, 400"]["status"]) == ("run", "not run")
    assert float(lines["MGM, K400, 1600"]["difference"]) == pytest.approx(55 - 81.7, abs=0.1)


def test_table_1_stands_in_four_sections_with_quoted_rows_dashed(table_1):
    texts, _ = table_1()
    grid = [[cell.strip() for cell in line.split("|")[1:-1]] for line in texts["md"].splitlines() if line.startswith("|")]
    assert grid[0] == ["Method", "Pretraining epochs", "Paper", "Ours", "95 % interval", "Runs", "Status"]
    titles = [line[0] for line in grid if line[0].startswith("**")]
    assert titles == [f"**{column}, {group}**" for column in ("SSv2", "K400") for group in ("supervised", "self-supervised")]
    assert ["MViTv2 (MViT-B; K400; 225 GFLOPs)", "200", "70.5", DASH, DASH, DASH, "quoted"] in grid
    assert ["SlowFast (R101 + NL)", DASH, "79.8", DASH, DASH, DASH, "quoted"] in grid
    assert ["MGM (ViT-B; SSv2; 180 GFLOPs)", "400", "69.6", "not run", DASH, "0 of 3", "not run"] in grid
    for ending, mark in (("tex", r"\emph{K400, supervised}"), ("html", 'scope="rowgroup" colspan="7">K400, supervised<')):
        assert mark in texts[ending]


def test_a_single_run_says_so_with_its_interval(table_1):
    texts, collected = table_1(seeds=(0,))
    row = next(row for row in collected if row.row == "MGM, SSv2, 800")
    assert row.estimate.n == 1
    assert row.estimate.low < 50 < row.estimate.high
    assert f"| 50.0 (n = 1) | [{row.estimate.low:.1f}, {row.estimate.high:.1f}] | 1 of 1 | run |" in texts["md"]
    assert "50.0 (partial, n = 1)" in table_1()[0]["md"]


def test_the_difference_to_the_paper_is_shown_at_its_scale_alone(table_1):
    smoke, _ = table_1()
    paper, _ = table_1(name="paper")
    for ending in ("md", "tex", "html"):
        assert "Difference" in paper[ending]
        assert "Difference" not in smoke[ending]
        assert "Scale smoke is not the paper" in smoke[ending]
    assert smoke["csv"].splitlines()[0] == paper["csv"].splitlines()[0] == ",".join(COLUMNS)
