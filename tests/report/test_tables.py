"""The paper's tables in its layout, and a study's tables, from made-up cells."""

import pandas as pd
import pytest

from mgm.report.cells import cells, differences, printed
from mgm.report.tables import (
    COLUMNS,
    NOT_RERUN,
    Table,
    differences_table,
    paper_table,
    quotes,
    signed,
    study_table,
)
from mgm.results.frame import joined, read_csv
from mgm.study import CONFIG
from mgm.study.expand import expand
from mgm.study.scales import load_scale
from tests.helpers.fake_results import finish_all, study_of, suite


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The cells of Table 4e with three seeds, whose accuracies are made up."""
    known, folder = suite(seeds=(0, 1, 2)), tmp_path_factory.mktemp("made")
    finish_all(folder, known.specs)
    return cells(joined(known, folder))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A study on two drawn datasets, with eight units and all of its controls at 40 %."""
    study, folder = study_of(), tmp_path_factory.mktemp("small")
    known = expand([study], load_scale(CONFIG / "smoke.yaml"))
    finish_all(folder, known.specs)
    return study, joined(known, folder)


def test_table_4e_has_the_papers_lines_and_ours_after_each_number(made, tmp_path):
    table = paper_table(printed("table4e"), made, differences=True)
    own = made.set_index(["row", "column"])
    for line in table.shown.to_dict("records"):
        ours = own.loc[line["Mask"], "Fine-tuned"]
        text = f"{ours['mean']:.1f} [{ours.low:.1f}, {ours.high:.1f}]"
        assert line["Ours [95 %]"] == text
        assert float(line["ours minus paper"]) == pytest.approx(
            ours["mean"] - float(line["Acc"]), abs=0.06
        )
    assert [*table.shown.Mask] == [*printed("table4e").Mask]
    assert "3 seeds" in table.note
    table.write(tmp_path / "table4e", "Masks.")
    csv = read_csv(tmp_path / "table4e.csv")
    assert [*csv.columns[-8:]] == COLUMNS
    assert (csv.run_ids.str.split().str.len() == 3).all()
    markdown, tex = ((tmp_path / f"table4e.{end}").read_text() for end in ("md", "tex"))
    assert text in markdown
    assert text in tex
    assert r"\checkmark" in tex


def test_table_1_names_what_is_not_rerun_and_what_is_not_run(made):
    table = paper_table(printed("table1"), made[:0]).shown
    assert len(table) == len(printed("table1"))
    ours = table.set_index("Model")["SSv2: ours [95 %]"]
    assert ours["BEVT"] == NOT_RERUN
    assert {*ours["MGM"]} == {"not run"}
    # A heading has no number, and neither has what the paper does not print.
    assert ours["Supervised"] == ours["STMAE"] == ""


def test_quotes_are_the_printed_numbers_with_the_epochs_of_pretraining():
    found = quotes(printed("table1"))
    found = found[found.dataset == "ssv2"].set_index("line")
    assert found.loc["BEVT", ["epochs", "paper"]].tolist() == [950, 70.6]
    # Epochs of training with labels are no epochs of pretraining.
    assert pd.isna(found.epochs["SlowFast"])


def test_controls_stand_above_the_rows_that_they_beat(small):
    _, frame = small
    own = cells(frame)
    own = own[(own.dataset == "one") & (own.column == "Linear probe")]
    own.loc[own.row == "Mean frame, 12 x 12", "mean"] = 99.0
    shown = study_table(own)
    rows = [*shown.shown.Pretraining]
    assert rows.index("Control: Mean frame, 12 x 12") < rows.index("No pretraining")
    assert rows.index("Control: File size") > rows.index("MGM")
    assert "8 datasets" in shown.note
    probes = cells(frame)[lambda every: every.column == "Linear probe"]
    turned = study_table(probes, turned=True)
    assert [*turned.shown.columns] == ["Videos", "No pretraining", "Tube", "MGM"]
    assert [*turned.shown.Videos] == ["One disc", "Three discs"]


def test_counts_that_differ_stand_next_to_their_numbers(small):
    study, frame = small
    lost = (frame.row == "MGM") & (frame.dataset == "one") & (frame.dataset_seed == 3)
    frame = frame.assign(value=frame.value.mask(lost), status=frame.status.mask(lost, "not run"))
    found = differences(frame, study).assign(metric="top1")
    texts = differences_table(found).shown["Linear probe (points)"].tolist()
    assert texts[0].endswith("(n = 7)")
    assert texts[1].endswith("(n = 8)")
    own = cells(frame)
    table = study_table(own[(own.dataset == "one") & ~own.control]).shown
    assert table.set_index("Pretraining").loc["MGM"].iloc[0].endswith("(n = 7 of 8)")


def test_any_name_is_shown_as_it_is(tmp_path):
    names = ["None", "NA", "007", "<b>|x", "$x_1 & 5 %"]
    frame = pd.DataFrame({"name": names, "value": [1.0, float("inf"), 2, 3, 4]})
    table = Table(frame.astype(str), frame)
    table.write(tmp_path / "names", "A title\nof two lines.")
    found = read_csv(tmp_path / "names.csv")
    assert [*found["name"]] == names
    assert found.value[1] == ""
    assert "<b>" not in table.html()
    assert "None" in table.html()
    assert r"<b>\|x" in (tmp_path / "names.md").read_text()
    assert r"\$x\_1 \& 5 \%" in (tmp_path / "names.tex").read_text()


def test_what_rounds_to_zero_has_no_sign(small):
    study, frame = small
    found = differences(frame, study).iloc[:1].assign(mean=-0.04, low=-0.3, high=0.04)
    assert differences_table(found).shown.iloc[0, -1] == "0.0 [-0.3, 0.0]"
    assert [signed(value) for value in (-0.04, 0.04, -0.06, 1)] == ["0.0", "0.0", "-0.1", "+1.0"]
