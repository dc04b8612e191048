import csv
from html.parser import HTMLParser

import pytest
from fake_results import finish_all, registry

from mgm.report.collect import COLUMNS, examine_all, rows
from mgm.report.tables import DASH, MINUS, _tex, number, write_tables


@pytest.fixture
def written(tmp_path):
    known = registry()
    finish_all(tmp_path / "results", known, steps=2)
    (tmp_path / "results" / known.tables["4e"].cells[0].runs[0].run_id / "result.json").write_text("{}")
    collected = rows(known, tmp_path / "results", examine_all(known, tmp_path / "results"))["4e"]
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
    assert len(grid) == 2 + 14
    assert {line.count("|") for line in grid} == {9}


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
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert len(body) == 14
    assert {line.count(" & ") for line in body} == {7}
