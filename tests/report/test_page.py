"""`mgm report` on made-up results: its files and its page, also in a browser and in a clone."""

import json
import re
from html import unescape

import pandas as pd
import pytest
from typer.testing import CliRunner

from mgm.cli import app
from mgm.errors import UserError
from mgm.report.page import Report, warnings, words
from mgm.results.frame import load
from mgm.results.frozen import freeze
from mgm.results.run import UNFROZEN
from mgm.study.expand import expand
from tests.helpers.browser import chromium
from tests.helpers.fake_results import draw_arrays, finish_all, of_paper, smoke, study_of

HOSTILE = "<script>alert(1)</script>\nA & B"


def results_of(results, name, studies, scale):
    """Freeze studies as results/NAME, and finish their runs."""
    known = expand(studies, scale)
    freeze(results / name, studies, scale, known)
    finish_all(results / name, known.specs)
    return known


def report_of(name, place, reports):
    """Return the report of the results in a folder, to be written to reports/NAME."""
    return Report(load(name, place), reports / name)


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    """Results and report of parts of the paper, with a run that failed and one half written."""
    place = tmp_path_factory.mktemp("suite")
    studies, scale = of_paper("table1", "table2", "table4e"), smoke()
    known = results_of(place / "results", "made", studies, scale)
    draw_arrays(place / "results/made", known)
    runs = [spec for spec in known.specs.values() if spec.stage == "finetune"]
    (place / "results/made" / runs[0].run_id / "result.json").unlink()
    (place / "results/made" / runs[0].run_id / "error.txt").write_text(f"out of memory {HOSTILE}")
    (place / "results/made" / runs[1].run_id / "result.json").write_text('{"run_id": ')
    return place, report_of("made", place / "results", place / "reports").write().parent, runs


def test_what_is_shown_has_fixed_places(suite):
    _, report, _ = suite
    tables = {path.name for path in (report / "tables").iterdir()}
    keys = ("table1", "table2a", "table2b", "table2c", "table2d", "table4e")
    assert {f"{key}.{end}" for key in keys for end in ("csv", "md")} <= tables
    figures = {path.name for path in (report / "figures").iterdir()}
    assert {"figure1.svg", "figure4a.svg", "figure4b.svg", "figure5.png"} <= figures
    found = pd.read_csv(report / "tables/claims.csv")
    assert {"quote", "place", "paper", "mean", "low", "high"} <= {*found.columns}
    assert found[found.status == "finished"]["mean"].notna().all()


def test_the_page_links_to_what_is_there_and_escapes_what_it_shows(suite):
    _, report, runs = suite
    text = (report / "index.html").read_text()
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len({*ids})
    assert {*re.findall(r'href="#([^"]+)"', text)} <= {*ids}
    links = {link for link in re.findall(r'(?:href|src)="([^"#]+)"', text) if "data:" not in link}
    links = {link for link in links if not link.endswith(("result.json", "../index.html"))}
    assert all((report / link).exists() for link in links)
    assert "<script" not in text
    assert "out of memory &lt;script&gt;" in text
    # A run without a result is named, with its file.
    assert f"{runs[1].run_id}/result.json" in unescape(text)
    assert "Runs that need a look: 2" in text


def test_one_table_or_figure_is_written_alone_or_says_what_it_lacks(suite, tmp_path):
    place, _, _ = suite
    made = load("made", place / "results")
    for key in ("table4e", "figure5"):
        path = Report(made, tmp_path / key / "made").write_only(key)
        assert {file.stem for file in path.parent.iterdir()} == {key}
    with pytest.raises(
        UserError, match=r"table4x: no such study, table or figure; did you mean table4e"
    ):
        Report(made, tmp_path).write_only("table4x")
    with pytest.raises(UserError, match="figure6"):
        Report(made, tmp_path).write_only("figure6")


def test_a_damaged_picture_is_named_and_the_page_has_the_rest(tmp_path):
    known = results_of(tmp_path, "made", of_paper("table4e"), smoke((0,)))
    draw_arrays(tmp_path / "made", known)
    path = tmp_path / "made" / known.pictures["figure5"] / "arrays.npz"
    path.write_bytes(path.read_bytes()[:-900])
    # A result of another run.
    measured = tmp_path / "made" / known.pictures["coverage"] / "result.json"
    measured.write_text(measured.read_text().replace(measured.parent.name, "measure-other"))
    page = report_of("made", tmp_path, tmp_path / "reports").write()
    text = unescape(page.read_text())
    assert f"{path} is damaged" in text
    assert f"Run {measured.parent.name} is not finished." in text
    assert (page.parent / "tables/table4e.csv").is_file()


def test_a_page_says_first_that_no_row_is_above_what_sees_no_motion():
    row = {"dataset": "one", "title": "One", "metric": "top1", "n": 8, "n_test": 9, "chance": 25}
    row |= {"row": "MGM", "control": False, "mean": 27.0, "low": 22.0}
    leak = row | {"row": "File facts", "metric": "file_facts", "control": True, "mean": 85.7}
    above = row | {"dataset": "two", "title": "Two", "low": 26.0}
    first, second = warnings(pd.DataFrame([row, leak, above]))
    assert first == "No row is shown to beat guessing the largest class (One, 25.0 %)."
    assert "file facts" in second
    assert "One, 85.7 %" in second
    assert not warnings(pd.DataFrame([above, above | {"chance": float("nan")}]))


def test_a_page_explains_the_words_that_it_has(suite):
    names = ["MGM", "MGM, shuffled", "Linear probe"]
    assert [word for word, _ in words("folds\nMGM, shuffled\nLinear probe, change")] == names
    text = (suite[1] / "index.html").read_text()
    assert "<dt>Fine-tuned</dt>" in text
    assert "<dt>Attentive probe</dt>" not in text


PREDICTIONS = [{"in": "one", "row": "MGM", "minus": "Tube", "above": -99}]


def test_a_study_judges_its_predictions_and_marks_later_ones(tmp_path):
    study = study_of(predictions=PREDICTIONS, question=HOSTILE, limitations={"<i>": HOSTILE})
    results_of(tmp_path / "results", "small", [study], smoke((0,)))
    page = report_of("small", tmp_path / "results", tmp_path / "reports").write()
    table = pd.read_csv(page.parent / "tables/predictions.csv", keep_default_na=False)
    assert table.verdict.tolist() == ["holds"]
    assert "<script" not in page.read_text()
    assert "before the first run" in page.read_text()
    for saw, says in ((UNFROZEN, "Not frozen before the first test"), ("", "before the first run")):
        for path in (tmp_path / "results/small").glob("*/result.json"):
            path.write_text(json.dumps(json.loads(path.read_text()) | {"study_sha256": saw}))
        page = report_of("small", tmp_path / "results", tmp_path / "reports").write()
        assert says in page.read_text()
    # A view that is gone leaves page and folder; a later prediction is marked.
    later = [*PREDICTIONS, {"in": "three", "row": "MGM", "minus": "Tube", "below": -99}]
    views = {"mine": {"columns": ["Fine-tuned"]}}
    later = study_of(predictions=later, views=views)
    # JSON is YAML.
    text = later.model_dump_json(by_alias=True, exclude_defaults=True)
    (tmp_path / "small.yaml").write_text(text)
    frozen = tmp_path / "results/small/study.yaml"
    old = re.sub(r"date: .*", "date: '2025-12-31T00:00:00+00:00'", frozen.read_text())
    frozen.write_text(re.sub("file: .*", f"file: {tmp_path / 'small.yaml'}", old))
    assert (page.parent / "tables/table-one.csv").exists()
    report_of("small", tmp_path / "results", tmp_path / "reports").write()
    assert not (page.parent / "tables/table-one.csv").exists()
    assert 'id="table-one"' not in page.read_text()
    table = pd.read_csv(page.parent / "tables/predictions.csv", keep_default_na=False)
    assert table.verdict.tolist() == ["holds", "refuted"]
    assert table.note.tolist() == ["", "added after runs began"]
    assert "on 2025-12-31, before the first run" in page.read_text()


def test_a_page_answers_first_and_the_index_has_its_answer(tmp_path):
    """Without an author's answer, it is that of the predictions, and else of the differences."""
    for number, (fields, said) in enumerate(
        (
            ({"answer": "Yes."}, "Yes."),
            ({"predictions": PREDICTIONS}, r"MGM minus Tube: \S+\s\[.*\] \(.*, as predicted\."),
            (
                {"compare": [["MGM", "Tube"]]},
                r"MGM minus Tube: \S+\s\[.*\] \(Linear probe, 8 datasets\), .*\.",
            ),
        )
    ):
        name = f"small{number}"
        known = results_of(tmp_path / "results", name, [study_of(**fields)], smoke(tuple(range(8))))
        assert known.specs
        done = CliRunner().invoke(
            app,
            ["report", name, "--results", str(tmp_path / "results"), "--reports", str(tmp_path)],
        )
        assert done.exit_code == 0, done.output
        text = (tmp_path / name / "index.html").read_text()
        [answer] = re.findall(r'<p class="answer">(.*?)</p>', text)
        assert re.match(said, unescape(answer)), answer
        index = (tmp_path / "index.html").read_text()
        assert answer in index
        assert f'href="{name}/index.html"' in index
        if number:
            chart, table = text.index("figures/compared.svg"), text.index("tables/table-one.csv")
            assert text.index(answer) < chart < table


def test_without_a_finished_run_the_page_says_so(tmp_path):
    done = CliRunner().invoke(
        app, ["report", "smoke", "--results", str(tmp_path), "--reports", str(tmp_path / "reports")]
    )
    assert done.exit_code == 0, done.output
    text = (tmp_path / "reports/smoke/index.html").read_text()
    assert "0 of" in text
    assert "None of its runs is finished." in text


@pytest.mark.chromium
def test_a_browser_shows_every_picture_at_the_width_of_a_phone_and_of_a_desk(suite):
    _, report, _ = suite
    with chromium() as browser:
        for width in (390, 1280):
            page = browser.new_page(viewport={"width": width, "height": 900})
            errors = []
            page.on("console", lambda message, errors=errors: errors.append(message.text))
            page.goto((report / "index.html").as_uri())
            page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
            # Tables scroll by themselves, the page does not.
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            shown = "[...document.images].map(image => [image.naturalWidth, image.width])"
            sizes = page.evaluate(shown)
            assert len(sizes) == len([*(report / "figures").iterdir()])
            assert all(natural > 0 and wide > 200 for natural, wide in sizes)
            assert not errors
