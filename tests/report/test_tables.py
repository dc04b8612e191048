"""The paper's tables in its layout, and a study's tables, from made-up cells."""

import pandas as pd
import pytest

from mgm.report.cells import by_place, cells, differences, printed
from mgm.report.tables import (
    COLUMNS,
    GUESSING,
    NOT_RERUN,
    Table,
    differences_table,
    paper_table,
    quotes,
    signed,
    study_table,
)
from mgm.results.frame import read_csv
from mgm.study.expand import expand
from tests.helpers.fake_results import finished, smoke, study_of, suite


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The cells of Table 4e with three seeds, whose accuracies are made up."""
    return cells(by_place(finished(tmp_path_factory.mktemp("made"), suite(seeds=(0, 1, 2)))))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A study on two drawn datasets, with eight units and all of its controls at 40 %."""
    study, folder = study_of(), tmp_path_factory.mktemp("small")
    return study, finished(folder, expand([study], smoke()))


def test_table_4e_has_the_papers_lines_and_ours_after_each_number(made, tmp_path):
    table = paper_table("table4e", made, differences=True)
    own = made.set_index(["row", "column"])
    for line in table.shown.to_dict("records"):
        ours = own.loc[line["Mask"], "Fine-tuned"]
        text = f"{ours['mean']:.1f} [{ours.low:.1f}, {ours.high:.1f}]"
        assert line["Ours [95 %], n = 3"] == text
        assert float(line["Ours minus paper"]) == pytest.approx(
            ours["mean"] - float(line["Paper"]), abs=0.06
        )
    assert [*table.shown.Mask] == [*printed("table4e").Mask]
    assert "3 seeds" in table.note
    table.write(tmp_path / "table4e.csv", tmp_path / "table4e.md", "Masks.")
    csv = read_csv(tmp_path / "table4e.csv")
    assert [*csv.columns[-8:]] == COLUMNS
    assert (csv.run_ids.str.split().str.len() == 3).all()
    assert text in (tmp_path / "table4e.md").read_text()


def test_table_1_names_what_is_not_rerun_and_what_is_not_run(made):
    table = paper_table("table1", made[:0]).shown
    assert len(table) == len(printed("table1"))
    ours = table.set_index("Model")["SSv2: Ours [95 %]"]
    assert ours["BEVT"] == NOT_RERUN
    assert {*ours["MGM"]} == {"not run"}
    # A heading has no number, and neither has what the paper does not print.
    assert ours["Supervised"] == ours["STMAE"] == ""


def test_each_printed_number_has_ours_of_its_own_column(tmp_path):
    known = suite(seeds=(0, 1, 2), studies=("table1",))
    own = cells(by_place(finished(tmp_path, known))).set_index(["dataset", "row"])
    table = paper_table("table1", own.reset_index()).shown
    [line] = table[(table.Model == "MGM") & (table["SSv2: Epochs"] == "800")].to_dict("records")
    for dataset, head in {"ssv2": "SSv2", "k400": "K400"}.items():
        number = own.loc[dataset, "MGM, 800"]["mean"]
        assert line[f"{head}: Ours [95 %], n = 3"].startswith(f"{number:.1f} [")
    assert line["SSv2: Ours [95 %], n = 3"] != line["K400: Ours [95 %], n = 3"]


def test_quotes_are_the_printed_numbers_with_the_epochs_of_pretraining():
    found = quotes("table1")
    found = found[found.dataset == "ssv2"].set_index("line")
    assert found.loc["BEVT", ["epochs", "paper"]].tolist() == [950, 70.6]
    # Epochs of training with labels are no epochs of pretraining.
    assert pd.isna(found.epochs["SlowFast"])


def test_guessing_is_the_first_row_and_controls_have_a_table_of_their_own(small):
    _, frame = small
    own = cells(by_place(frame))
    own = own[(own.dataset == "one") & (own.column == "Linear probe")]
    shown = study_table(own.assign(chance=25.0))
    assert [*shown.shown.Pretraining] == [GUESSING, "No pretraining", "Tube", "MGM"]
    assert shown.shown.iloc[0, 1] == "25.0"
    assert {"File size", "Mean frame, 12 x 12"} <= {*shown.controls.shown.Control}
    assert {*shown.controls.shown.Control} <= {*shown.csv.row}
    assert "8 datasets" in shown.note
    # What is not known is not shown.
    assert GUESSING not in [*study_table(own.assign(chance=float("nan"))).shown.Pretraining]
    absent = study_table(own.assign(n=own.n.mask(own.row == "File size", 0)))
    assert "File size" not in {*absent.controls.shown.Control}
    probes = cells(by_place(frame))[lambda every: every.column == "Linear probe"]
    turned = study_table(probes, turned=True)
    assert [*turned.shown.columns] == [
        "Videos",
        GUESSING,
        *(f"{row}, n = 8" for row in ("No pretraining", "Tube", "MGM")),
    ]
    assert [*turned.shown.Videos] == ["One disc", "Three discs"]


def test_counts_that_differ_stand_next_to_their_numbers(small):
    study, frame = small
    lost = (frame.row == "MGM") & (frame.dataset == "one") & (frame.dataset_seed == 3)
    frame = frame.assign(value=frame.value.mask(lost), status=frame.status.mask(lost, "not run"))
    found = differences(by_place(frame), study).assign(metric="top1")
    table = differences_table(found)
    texts = table.shown["Linear probe (points), n = 7 of 8"].tolist()
    # The head has the first of counts that as many have.
    assert [text.endswith("(n = 8)") for text in texts] == [False, True]
    own = cells(by_place(frame))
    table = study_table(own[(own.dataset == "one") & ~own.control])
    assert table.shown.set_index("Pretraining").loc["MGM"].iloc[0].endswith("(n = 7 of 8)")
    assert "over 8 datasets, or n as it stands." in table.note
    assert "(n" not in " ".join(table.shown.set_index("Pretraining").loc["Tube"])


def test_one_run_of_several_is_over_its_test_videos(small):
    frame = small[1]
    lost = (frame.dataset == "one") & ~frame.control & (frame.dataset_seed != 3)
    frame = frame.assign(value=frame.value.mask(lost), status=frame.status.mask(lost, "not run"))
    own = cells(by_place(frame))
    table = study_table(own[(own.dataset == "one") & ~own.control])
    assert "test videos, 1 of 8 runs." in table.note
    assert not any(" of 8" in name for name in table.shown)


def test_a_table_has_the_differences_from_one_of_its_rows(small):
    study, frame = small
    own = cells(by_place(frame)).assign(paper=float("nan"))
    own = own[(own.dataset == "one") & ~own.control]
    own.loc[own.row.isin(["MGM", "Tube"]), "paper"] = [65.0, 65.0, 67.3, 67.3]
    gains = differences(by_place(frame), study, [("MGM", "Tube"), ("No pretraining", "Tube")])
    table = study_table(own, gains=gains[gains.dataset == "one"])
    lines = table.shown.set_index("Pretraining")
    assert [*lines.Paper] == ["", "", "65.0", "67.3 (+2.3)"]
    means = own.set_index(["row", "column"])["mean"]
    wide = frame[(frame.dataset == "one") & (frame.column == "Fine-tuned")]
    wide = wide.pivot_table(index="seed", columns="row", values="value")
    minus = (wide["MGM"] - wide["Tube"]).mean()
    assert lines["Fine-tuned (%), n = 8"]["Tube"] == f"{means['Tube', 'Fine-tuned']:.1f}"
    sign = "+" * int(minus >= 0.05)
    text = f"{means['MGM', 'Fine-tuned']:.1f} ({sign}{minus:z.1f} ["
    assert lines["Fine-tuned (%), n = 8"]["MGM"].startswith(text)
    assert {"mean_minus", "low_minus", "high_minus"} <= {*table.csv.columns}
    # A turned table has its rows side by side, so it has no column of theirs.
    assert "Paper" not in study_table(own, turned=True, gains=gains).shown


def test_names_that_read_alike_are_not_mixed_up(small):
    """Labels are no keys: equal titles, heads and texts of differences are kept apart."""
    _, frame = small
    own = cells(by_place(frame)).assign(title="Same")
    own.loc[own.dataset == "three", "mean"] = 51.0
    table = study_table(own[~own.control])
    assert table.shown.shape == (4, 1 + 2 * 2)
    assert [*table.shown.columns[1:3]] == [*table.shown.columns[3:5]]
    assert not table.shown.iloc[:, 1].equals(table.shown.iloc[:, 3])
    names = {"Tube": "A minus B", "MGM": "B", "No pretraining": "A"}
    named = frame.assign(row=frame.row.map(names).fillna(frame.row))
    more = named[named.row == "B"].assign(row="B minus B", value=9.0)
    named = pd.concat([named, more], ignore_index=True)
    found = differences(by_place(named), study_of(), [("A minus B", "B"), ("A", "B minus B")])
    shown = differences_table(found[found.dataset == "one"]).shown
    assert [*shown.Difference] == ["A minus B minus B"] * 2
    assert shown.iloc[0, 1] != shown.iloc[1, 1]


def test_any_name_is_shown_as_it_is(tmp_path):
    names = ["None", "NA", "007", "<b>|x", "$x_1 & 5 %"]
    frame = pd.DataFrame({"name": names, "value": [1.0, float("inf"), 2, 3, 4]})
    table = Table(frame.astype(str), frame)
    table.write(tmp_path / "names.csv", tmp_path / "names.md", "A title\nof two lines.")
    found = read_csv(tmp_path / "names.csv")
    assert [*found["name"]] == names
    assert found.value[1] == ""
    assert "<b>" not in table.html()
    assert "None" in table.html()
    assert "scope=row" in table.html()
    assert r"<b>\|x" in (tmp_path / "names.md").read_text()


def test_what_rounds_to_zero_has_no_sign(small):
    study, frame = small
    found = differences(by_place(frame), study).iloc[:1].assign(mean=-0.04, low=-0.3, high=0.04)
    assert differences_table(found).shown.iloc[0, -1] == "0.0 [-0.3, 0.0]"
    assert [signed(value) for value in (-0.04, 0.04, -0.06, 1)] == ["0.0", "0.0", "-0.1", "+1.0"]
