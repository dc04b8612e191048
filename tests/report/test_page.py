"""`mgm report` on made-up results: its files, the page, and the same as Markdown."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from markdown import markdown as render
from PIL import Image

from mgm.errors import UserError
from mgm.report import html, markdown
from mgm.report.build import build_report
from mgm.report.estimates import StudyResults, read_results, selected
from mgm.report.figures.style import drawn
from mgm.report.html import source, words
from mgm.report.page import Page, Section, Shown, shown_table, study_page
from mgm.report.tables import _csv, write_table
from mgm.report.views import dots, line, loss, table
from mgm.report.views.table import CONTROLS, TableCell
from mgm.results.result import RunStatus
from mgm.results.statistics import over_seeds
from mgm.study.scales import Steps
from mgm.study.schema import View
from tests.helpers.browser import chromium
from tests.helpers.fake_results import (
    draw_arrays,
    finish,
    finish_all,
    run_of,
    suite,
    write_log,
)
from tests.report.test_estimates import again, findings
from tests.study.test_study import small

KNOWN = suite(seeds=(0, 1))
LOST = run_of(KNOWN, "MGM (Dense)")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Results and report of a scale with a failed run."""
    place = tmp_path_factory.mktemp("built")
    results, reports = place / "results/smoke", place / "reports/smoke"
    finish_all(results, KNOWN, steps=2)
    draw_arrays(results, KNOWN)
    KNOWN.write(results)
    (results / LOST.run_id / "result.json").unlink()
    (results / LOST.run_id / "error.txt").write_text("out of memory <b>")
    return results, build_report(results, reports).parent


def test_the_page_has_every_table_claim_and_run_and_loads_nothing(built):
    _, reports = built
    text = (reports / "index.html").read_text()
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert {"table4e", "table4a", "runs", "figure-figure5", *KNOWN.specs} <= {*ids}
    linked = set(re.findall(r'href="#([^"]+)"', text))
    assert linked <= {*ids}
    assert "<script" not in text
    assert "out of memory &lt;b&gt;" in text
    links = {link for link in re.findall(r'(?:href|src)="([^"#]+)"', text) if "data:" not in link}
    assert all((reports / link).exists() for link in links)
    # A run that is finished links to its spec and, by its commit, to its result.
    assert sum(link.endswith("/spec.json") for link in links) == len(KNOWN.specs) - 1
    assert sum(link.endswith("/result.json") for link in links) == len(KNOWN.specs) - 1
    assert KNOWN.caveat.strip().split(".")[0] in text
    assert list(pd.read_csv(reports / "claims.csv").columns) == [
        *("claim", "source", "quoted", "verdict", "id", "note"),
    ]


def test_tables_show_the_numbers_of_the_frames(built):
    _, reports = built
    cells = pd.read_csv(reports / "tables/cells.csv")
    table = pd.read_csv(reports / "tables/table4e.csv")
    ours = cells[(cells.study == "table4e") & (cells.row == "MGM (Dense)")].iloc[0]
    line = table[table.row == "MGM (Dense)"].iloc[0]
    assert (line.ours, line.n, line.status) == (ours["mean"], 1, "partial")
    assert line.difference == pytest.approx(line.ours - 67.3, abs=1e-3)
    for ending in ("md", "tex"):
        assert f"{line.ours:.1f}" in (reports / f"tables/table4e.{ending}").read_text()


def test_one_target_is_written_alone_or_says_what_it_needs(built, tmp_path):
    results, _ = built
    for target in ("table4e", "figure5"):
        written = build_report(results, tmp_path / target, target)
        assert written.exists()
        assert {path.stem for path in written.parent.glob("[!.]*")} == {target}
    with pytest.raises(UserError, match="table9: no such table or figure"):
        build_report(results, tmp_path, "table9")
    empty = tmp_path / "smoke"
    empty.mkdir()
    KNOWN.write(empty)
    with pytest.raises(UserError, match="figure5: not run"):
        build_report(empty, tmp_path, "figure5")


STUDY = small(
    dataset_seeds="5-7",
    datasets={"a": {"generate": {}, "title": "First | set"}},
    predictions=[{"in": "a", "says": "MGM minus Tube above -99"}],
)


def tables_of(found: StudyResults) -> dict[str, Shown]:
    """Return the tables of a study, by key."""
    return {
        name: shown_table(found, name, view, view.title or name)
        for name, view in found.study.shown_views.items()
        if view.kind == "table"
    }


def page_of(found: StudyResults) -> Page:
    return study_page(found, tables_of(found), [])


def shown_on(page: Page) -> list[Shown]:
    return [shown for section in page.sections for shown in section.shown]


def warnings_on(page: Page) -> list[str]:
    return list(dict.fromkeys(text for shown in shown_on(page) for text in shown.warnings))


def with_controls(found: StudyResults, value: float) -> StudyResults:
    """Return results in which every control without a model has this number."""
    frame = found.frame.copy()
    frame.loc[frame.control, "value"] = value
    return replace(found, frame=frame)


def test_a_study_shows_chance_videos_controls_and_what_is_not_committed():
    found = with_controls(findings(STUDY, test=300), 10.0)
    page = page_of(found)
    notes = [text for shown in shown_on(page) for text in shown.notes]
    assert any("300 test videos; chance 25.0 %" in text for text in notes)
    assert not warnings_on(page)
    (first,) = page.sections[0].shown[:1]
    controls = list(first.table.index)[list(first.table.index).index(CONTROLS) + 1 :]
    assert controls == list(found.cells[found.cells.control & (found.cells.n > 0)].row)
    text = markdown.page(page, "x")
    row = found.cells[(found.cells.row == "MGM") & (found.cells.column == "Linear")].iloc[0]
    assert f"{row['mean']:.1f} [{row.low:.1f}, {row.high:.1f}]" in text
    # What holds is folded: it is on the page, and not in Markdown.
    (told,) = [one for one in page.sections if one.folded and "predictions" in one.title]
    (prediction,) = told.shown[0].table.itertuples()
    assert (prediction.Index, str(prediction.Commit)) == (
        "MGM minus Tube above -99",
        "not committed",
    )
    assert "above -99" not in text


def test_a_table_says_the_steps_of_each_of_its_settings():
    for steps, heads in ((60, [""]), (70, ["First: ", "Second: "])):
        longer = {"videos_of": "a", "settings": {"pretrain": {"optim.steps": steps}}}
        datasets = {"a": {"generate": {}, "title": "First"}, "b": longer | {"title": "Second"}}
        rows = {"Tube": {"mask": "tube"}, "MGM": {}}
        settings = {"pretrain": {"optim.steps": 60}}
        found = findings(small(datasets=datasets, rows=rows, settings=settings), test=300)
        view = found.study.shown_views["tableb"].model_copy(update={"datasets": ()})
        videos = "4 classes, 10 training and 300 test videos; chance 25.0 %."
        assert shown_table(found, "both", view, "Both").notes[:-1] == [
            f"{head}{videos} Pretraining: {of} steps." for head, of in zip(heads, (60, steps))
        ]


def test_a_page_warns_of_rows_below_chance():
    found = findings(STUDY, test=300)
    for status in found.statuses.values():
        if status.result:
            status.result["data"]["classes"] = 1
    assert any("above chance" in text for text in warnings_on(page_of(again(found))))


def test_a_page_warns_of_a_better_control_and_of_a_model_that_learnt_nothing():
    found = findings(STUDY, test=300)
    run_id = found.runs[found.runs.row == "MGM"].pretraining.iloc[0]
    found.statuses[run_id] = RunStatus("finished", result={"metrics": {"explained": 0.5}})
    idle, better = warnings_on(page_of(with_controls(again(found), 99.0)))
    assert "above every row" in better
    assert idle.endswith("nothing: MGM.")


def test_a_loss_is_that_of_the_logs_of_pretraining(tmp_path):
    found = replace(findings(STUDY), folder=tmp_path)
    for run_id in found.plan.specs:
        write_log(tmp_path / run_id, 20, 20)
    frame = selected(found, View(kind="loss"))
    lines = loss.data(frame, View(kind="loss"))
    starts = [run for run, spec in found.plan.specs.items() if spec.stage == "pretrain"]
    assert {*lines.run_id} <= {*starts}
    assert {"MGM", "Tube"} <= {*lines.row}
    assert (lines.groupby("run_id").step.max() == 20).all()
    (axes,) = drawn(partial(loss.draw, lines, View(kind="loss"))).axes
    assert len(axes.lines) >= lines.run_id.nunique()


def test_few_test_videos_have_a_binomial_interval_and_a_warning():
    few, many = (tables_of(findings(STUDY, test=test))["tablea"] for test in (15, 100))
    assert any("15 test videos" in text for text in few.warnings)
    assert all("binomial [" in str(cell) for cell in few.table.iloc[0, :1])
    assert not any("test videos" in text for text in many.warnings)
    assert not many.table.map(lambda cell: "binomial" in str(cell)).any(axis=None)
    found = findings(STUDY, test=300)
    for status in found.statuses.values():
        if status.result:
            status.result["data"]["groups"] = 6
    assert any("6 groups" in text for text in tables_of(again(found))["tablea"].warnings)


def test_a_page_says_what_is_wrong_with_its_runs_and_videos():
    found = findings(STUDY, test=300)
    of_test = [status.result for status in found.statuses.values() if status.result]
    for result in of_test:
        result["data"]["note"] = "split as given; warning: videos are in both splits"
    of_test[-1] |= {"dirty": True, "failed_videos": ["a.mp4"]}
    found = replace(again(found), lacking=("rows.Newer",))
    page = page_of(found)
    dirty, few, lacking = (
        any(word in text for text in page.warnings)
        for word in ("not committed", "3 datasets", "rows.Newer")
    )
    assert dirty
    assert few
    assert lacking
    assert any("both splits" in text for text in warnings_on(page))
    assert any("could not be read" in text for text in warnings_on(page))


def test_a_fine_tuned_row_shows_its_training(tmp_path):
    columns = {"Fine-tuned": {"stage": "finetune"}}
    found = replace(findings(small(columns=columns, controls=[]), test=300), folder=tmp_path)
    for value in found.plan.cells:
        log = tmp_path / value.run_id / "log.jsonl"
        log.parent.mkdir(exist_ok=True)
        # Early lines do not count.
        tops = [0.0] * 8 + [100.0 if value.row == "MGM" else 60.0] * 12
        lines = [{"step": step, "train_top1": top} for step, top in enumerate(tops)]
        log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    shown = tables_of(found)["tablea"]
    row = next(row for name, row in shown.table.iterrows() if name.startswith("Tube"))
    assert "60.0 in training" in str(row.iloc[0])
    (poor,) = shown.warnings
    assert "Tube" in poor
    assert "MGM" not in poor


def test_a_row_per_row_of_the_study_and_a_column_per_column():
    found = findings(STUDY)
    shown = tables_of(found)["tablea"].table
    names = list(shown.index)
    models = [name.split(":")[0] for name in names[: names.index(CONTROLS)]]
    assert models == list(found.study.rows)
    assert [column.split(" (")[0] for column in shown.columns] == list(found.study.columns)


def test_a_turned_table_has_the_same_cells():
    found = findings(small(datasets={name: {"generate": {}} for name in "ab"}))
    view = View(columns=("Linear",), options={"controls": False})
    turned = View(columns=("Linear",), options={"controls": False, "turned": True})
    upright, across = (table.data(selected(found, one), one) for one in (view, turned))
    assert (upright.T.to_numpy() == across.to_numpy()).all()
    assert [*across.index] == [*upright.columns]
    assert [*across.columns] == [*upright.index]


def test_a_new_column_stands_beside_the_others_also_in_markdown():
    columns = {"Linear": {}, "k-NN": {"kind": "knn"}, "Newest": {"data.labels_per_class": 3}}
    page = page_of(findings(small(datasets={"a": {"generate": {}}}, columns=columns)))
    assert "Newest (%)" in markdown.page(page, "x")


def test_a_file_of_a_table_has_the_caveat_and_the_papers_number_a_column(built):
    _, reports = built
    lines = (reports / "tables/table4e.md").read_text().splitlines()
    (head,) = [line for line in lines if "Pretraining" in line]
    (row,) = [line for line in lines if "MGM (Dense)" in line]
    column = [cell.strip() for cell in head.split("|")].index("Fine-tuned, paper")
    assert row.split("|")[column].strip() == "67.3"
    for ending in ("md", "tex"):
        text = (reports / f"tables/table4e.{ending}").read_text()
        assert KNOWN.caveat.strip().split(".")[0] in text


def test_rows_say_what_was_trained_and_quotes_alone_stand_beside_the_papers_runs(tmp_path):
    steps = Steps(factor=10, power=1, warmup=0.1)
    paper = {"steps": steps, "steps_of": {}, "overrides": {}, "backbones": {}}
    plan = suite(seeds=(0,), datasets=("ssv2", "k400"), **paper)
    for run_id in {cell.run_id for cell in plan.cells if cell.study == "table1"}:
        finish(tmp_path / "smoke", plan.specs[run_id], videos=12)
    plan.write(tmp_path / "smoke")
    found = read_results(tmp_path / "smoke")["table1"]
    (gflops,) = found.cells[(found.cells.column == "GFLOPs") & (found.cells.row == "MGM, 400")][
        "mean"
    ]
    assert gflops == pytest.approx(180.3, abs=0.1)
    view = found.study.views["table1"]
    frame = selected(found, view)
    names = list(table.data(frame, view).index)
    assert "MGM, 400: 4,000 steps" in names
    assert "MGM, 800: 8,000 steps" in names
    assert not any("OmniMAE" in name for name in names)
    repeated = table.data(frame.assign(repeats=True), view)
    assert any("OmniMAE" in name for name in repeated.index)


def test_a_dataset_that_did_not_run_is_named_beside_the_table():
    found = findings(small())
    of = {one.run_id for one in found.plan.cells if one.dataset == "b"}
    lacking = {run_id: RunStatus("not run", "") for run_id in of}
    found = again(replace(found, statuses=found.statuses | lacking))
    view = found.study.shown_views["tableb"].model_copy(update={"datasets": ()})
    shown = shown_table(found, "both", view, "Both")
    titles = [found.study.shown.get(dataset, dataset) for dataset in "ab"]
    heads = " ".join(map(str, shown.table.columns))
    assert [title in heads for title in titles] == [True, False]
    assert f"Not run: {titles[1]}." in shown.notes
    # The paper's number is shown beside "not run".
    frame = selected(found, view)
    heads = " ".join(map(str, table.data(frame.assign(paper=62.9), view).columns))
    assert all(title in heads for title in titles)
    lacking = {run_id: RunStatus("not run", "") for run_id in found.statuses}
    nothing = shown_table(again(replace(found, statuses=lacking)), "both", view, "Both")
    heads = " ".join(map(str, nothing.table.columns))
    assert all(title in heads for title in titles)


@pytest.mark.parametrize(
    "active",
    [
        "<script>alert(1)</script>",
        r"\<svg onload=alert(1)>",
        "[x](javascript:alert(1))",
        r"[x]\(y) [x](<javascript:alert(1)>)",
        "[x]\n\n[x]: javascript:alert(1)",
        "<!-- end -->",
    ],
)
def test_a_text_of_a_study_is_neither_html_nor_a_link(active):
    cells = pd.DataFrame(TableCell(active), [active], pd.Index([active], name=active))
    shown = Shown(active, "x", [active], [active], cells)
    page = Page(active, [Section([shown], active)], active, [active], active, [active])
    text = render(markdown.page(page, "smoke"), extensions=["tables"])
    assert not re.search("<(script|svg|a|!--)", text)
    assert "alert" in text or "end" in text
    assert not re.search("<(script|svg|a|!--)", html.table(cells))


def test_a_file_of_numbers_has_no_formula(tmp_path):
    texts = ["=1+1", "@SUM(A1)", "-1+cmd|' /C calc'!A0", "+1-2"]
    table = pd.DataFrame({"text": [*texts, "-0.5", "MGM"], "number": [-1.5, 2, 3, 4, 5, 6]})
    read = pd.read_csv(_csv(table, tmp_path / "x.csv"))
    assert read.text.tolist() == [*(f"'{text}" for text in texts), "-0.5", "MGM"]
    assert read.number.tolist() == table.number.tolist()


def test_a_group_of_columns_stands_once():
    heads = pd.MultiIndex.from_tuples([("F", "x"), ("F", "y"), ("S", "x")], names=["", "Row"])
    cells = pd.DataFrame([[TableCell("1"), TableCell("2"), TableCell("3")]], ["A"], heads)
    text = html.table(cells)
    assert re.search(r'<th colspan="2"[^>]*>F</th>\s*<th>S</th>', text)
    lines = markdown.markdown(cells).splitlines()
    assert [cell.strip() for cell in lines[0].split("|")[1:-1]] == ["", "F", "", "S"]
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == ["Row", "x", "y", "x"]


def test_what_has_not_changed_is_not_drawn_again(built):
    results, reports = built
    times = {path: path.stat().st_mtime_ns for path in (reports / "figures").glob("*.*")}
    assert times
    # Another process orders sets in another way.
    again = "import sys; from pathlib import Path; from mgm.report.build import build_report; "
    again += "build_report(*map(Path, sys.argv[1:]))"
    command = [sys.executable, "-c", again, results, reports]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONHASHSEED": "7"})
    assert times == {path: path.stat().st_mtime_ns for path in times}
    build_report(results, reports, "figure4a", ["pdf"])
    assert (reports / "figures/figure4a.pdf").exists()
    with pytest.raises(UserError, match="bmp: no format"):
        build_report(results, reports, formats=["bmp"])


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not here")
def test_a_table_compiles(tmp_path):
    found = findings(STUDY)
    write_table(found, tables_of(found)["tablea"], tmp_path)
    text = r"\documentclass{article}\usepackage{booktabs}\begin{document}\input{tablea}"
    (tmp_path / "all.tex").write_text(text + r"\end{document}")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "all.tex"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-2000:]


def test_marks_and_bars_are_the_tables_means_and_intervals():
    values = {"one": [1.0, 2.0, 6.0], "two": [4.0, 4.5, 5.0]}
    shown = pd.DataFrame(
        [
            {"title": "a", "row": name, "value": value, "unit": "seed"} | over_seeds(of)._asdict()
            for name, of in values.items()
            for value in of
        ]
    )
    (axes,) = dots.draw(shown, View(options={"axis": "Points", "rule": 0}, kind="dots")).axes
    bars = [part for bar in axes.collections for part in getattr(bar, "get_segments", list)()]
    for name, of in values.items():
        mean, low, high, *_ = over_seeds(of)
        assert any(np.allclose(bar[:, 0], (low, high)) for bar in bars), name
        assert any(mean in one.get_xdata() for one in axes.lines)
    points = pd.DataFrame(
        {"panel": "Probe", "line": ["MGM", "MGM", "Tube", "Tube"], "share": True, "metric": "top1"}
        | {"x": [1, 2, 1, 2], "mean": [5.0, 6, 1, 2], "low": [4.0, 5, 0, 1], "high": [6.0, 7, 2, 3]}
        | {"unit": "seed", "paper": [50.0, 60.0, np.nan, np.nan]}
    )
    view = View(kind="line", options={"x": "steps", "axis": "Steps"})
    paper, ours = drawn(partial(line.draw, points, view)).axes
    assert [axes.get_title(loc="left") for axes in (paper, ours)] == ["The paper", "Probe"]
    lines = [tuple(one.get_ydata()) for one in ours.lines]
    assert (5, 6) in lines
    assert (1, 2) in lines
    assert (50, 60) in [tuple(one.get_ydata()) for one in paper.lines]
    both = pd.concat([points, points.assign(panel="B")]).assign(paper=np.nan)
    titles = [axes.get_title(loc="left") for axes in drawn(partial(line.draw, both, view)).axes]
    assert titles == ["Probe", "B"]


def test_a_text_is_shown_with_its_code_and_true_minus_signs():
    assert words("by `mask.edge` <b>?") == "by <code>mask.edge</code> &lt;b&gt;?"
    assert words("-2.0 [-3.0, 1.0], 2-3") == ("\N{MINUS SIGN}2.0 [\N{MINUS SIGN}3.0, 1.0], 2-3")


def test_a_png_becomes_a_webp_on_the_page(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    assert source(tmp_path / "a.png").startswith("data:image/webp;base64,")


@pytest.mark.chromium
@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(built, width):
    _, reports = built
    with chromium() as browser:
        page = browser.new_context(viewport={"width": width, "height": 900}).new_page()
        complaints = []
        page.on("console", lambda message: complaints.append(message.text))
        page.goto((reports / "index.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("img").evaluate_all("all => all.every(one => one.naturalWidth > 0)")
        # Text of a chart is about as large as it was drawn.
        shares = page.locator(".chart img").evaluate_all(
            "all => all.filter(one => one.clientWidth).map(one => one.clientWidth / one.naturalWidth)"
        )
        assert min(shares) > 0.75
        assert complaints == []
