"""The paper's claims, by its own tables and by made-up runs."""

import pandas as pd
import pytest

from mgm.report.cells import places_of
from mgm.report.claims import claims, holds, number_of
from mgm.report.tables import claims_table
from mgm.results.frame import read_csv
from mgm.study.expand import expand
from mgm.study.scales import load_suite
from mgm.study.schema import PAPER
from tests.helpers.fake_results import finished, read, results_of

# What the paper's text says and its tables contradict.
CONTRADICTED = {
    "Our MGM outperforms previous VideoMAE by 1.2% on Something-Something V2 (SSv2)",
    "our MGM consistently outperforms VideoMAE by +1.4% at 800 epochs of pretraining",
    "better performance comparing to other recent works, at no additional cost",
    "a significant gap of over 20% between Table 3 and Table 2",
}


def test_the_papers_tables_contradict_four_of_its_claims(tmp_path):
    suite = load_suite("paper")
    studies = {study.study: study for study in suite.studies}
    found = expand(suite.studies, suite.scale)
    table = claims(places_of(results_of(read(tmp_path, found), *suite.studies)), studies)
    assert len(table) == len(read_csv(PAPER / "claims.csv"))
    assert {*table[~table.agrees].quote} == CONTRADICTED
    assert {*table.status} == {"not rerun", "not run"}
    # Rows that read alike are of different tables.
    assert claims_table(table).shown.empty
    shown = claims_table(table.assign(status="finished")).shown
    alike = shown[shown.Difference == "MGM minus VideoMAE"]["Printed in"]
    assert {"Table 2a, Diving48", "Table 3, UCF14 → HMDB7"} <= {*alike}


def test_ours_stands_beside_with_its_interval(tmp_path):
    suite = load_suite("paper")
    scale = suite.scale.model_copy(update={"seeds": (0, 1, 2)})
    studies = {study.study: study for study in suite.studies}
    found = expand(suite.studies, scale)
    frame = finished(tmp_path, found)
    table = claims(places_of(results_of(frame, *suite.studies)), studies)
    own = frame[(frame.study == "table4e") & (frame.column == "Fine-tuned")]
    wide = own.pivot_table(index="seed", columns="row", values="value")
    [one] = table[table.quote == "dense MGM outperforms dense SMM by 1.4%"].itertuples()
    values = wide["MGM (Dense)"] - wide["SMM (Dense)"]
    assert one.mean == pytest.approx(values.mean())
    assert (one.n, one.unit, one.paper, one.status) == (3, "seeds", 1.4, "finished")
    assert {*one.run_ids.split()} == {*own[own.row.isin(("MGM (Dense)", "SMM (Dense)"))].run_id}


@pytest.mark.parametrize(
    ("says", "value", "right"),
    [
        ("is 1.3", 1.3, True),
        ("is 1.3", 1.2, False),
        ("above 0", 0.1, True),
        ("above 0", 0.0, False),
        ("below 0", -0.1, True),
        ("at least -0.2", -0.2, True),
        ("at least -0.2", -0.3, False),
    ],
)
def test_a_claim_holds_by_its_words(says, value, right):
    assert holds(says, value) is right


def test_a_number_is_named_by_its_printed_row_or_by_ours():
    ours = number_of("table1", "SSv2: Top1", "MGM, 800")
    cell = {"dataset": "ssv2", "row": "MGM, 800", "column": "Fine-tuned"}
    assert cell.items() | {("paper", 70.6)} <= ours.items()
    alone = number_of("table1", "K400: Top1", "MAM2")
    assert alone["paper"] == 82.3
    assert pd.isna(alone["row"])
    assert number_of("table4d", "K400", "Mini-K200")["paper"] == 78.2
    with pytest.raises(ValueError, match="0 rows are called MGM, 801"):
        number_of("table1", "SSv2: Top1", "MGM, 801")
