"""The page of a study, built from committed runs."""

import re
from pathlib import Path

import pandas as pd
import pytest

from mgm.report.build import build_report
from mgm.report.findings import read_findings
from mgm.report.page.html import coded
from mgm.report.page.study import study_of
from mgm.study.schema import CONTROLS
from mgm.study.suite import registry_of
from tests.report.test_findings import findings
from tests.study.test_study import small

RESULTS = Path(__file__).parents[2] / "results" / "keep"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    page = build_report(registry_of(RESULTS), RESULTS, tmp_path_factory.mktemp("report"))
    return page, page.read_text(encoding="utf-8")


def test_every_cell_of_a_study_links_to_its_runs(built):
    page, text = built
    findings = read_findings(RESULTS)
    for one in findings.cells.to_dict("records"):
        row = re.escape(one["row"])
        lines = re.findall(
            rf'<tr id="cell-[^"]+"><th scope="row">{row}</th>.*?</tr>', text, re.DOTALL
        )
        linked = [set(re.findall('href="#([^"]+)"', line)) for line in lines]
        assert set(one["run_ids"].split()) in linked
    assert all(f'id="{run_id}"' in text for run_id in findings.registry.specs)
    written = pd.read_csv(page.parent / "tables" / "cells.csv")
    assert written["mean"].tolist() == pytest.approx(findings.cells["mean"].tolist(), abs=1e-4)


def test_a_refuted_prediction_stands_on_the_page_as_one_that_held(built):
    _, text = built
    verdicts = read_findings(RESULTS).predictions.verdict
    table = text[text.index('<section id="predictions">') :].split("</table>")[0]
    for verdict in ("holds", "refuted"):
        shown = len(re.findall(f'class="status is-{verdict}"', table))
        assert shown == (verdicts == verdict).sum() > 0


def test_code_in_a_studys_words_is_shown_as_code():
    assert coded("by `mask.edge` <b>?") == "by <code>mask.edge</code> &lt;b&gt;?"


def test_controls_without_a_model_stand_below_the_models_of_their_table():
    found = findings(small(draws="5-7", datasets={"a": {"generate": {}}}, predictions=[]))
    (table,) = study_of(found, {})["tables"]
    groups = table["parts"][0]["groups"]
    assert list(groups) == ["", "Controls: no model"]
    assert [one["row"] for one in groups[""]] == list(found.study.rows)
    assert {one["row"] for one in groups["Controls: no model"]} == set(CONTROLS)
