"""The paper's tables as printed: each line of them, read from the paper's text."""

import pytest

from mgm.report.cells import printed
from mgm.study.expand import expand
from mgm.study.scales import load_suite
from mgm.study.schema import PAPER

# As the paper's text has them, without citations and marks of footnotes.
LINES = {
    "table1": """
Supervised
SlowFast R101 + NL 106 196 K400 63.1 - - 79.8
TimeSformer ViT-B 196 15 IN21K 59.5 15 IN21K 78.0
VidTr ViT-B 351 50 K400 63.0 - - 79.1
MotionFormer ViT-B 370 90+35 IN21K + K400 66.5 90 IN21K 79.7
MViTv1 MViT-B 455 200 K400 67.7 - - 81.2
MViTv2 MViT-B 225 200 K400 70.5 - - 82.9
Self-supervised
BEVT Swin-B 282 800+150 IN1K + K400 70.6 800+150 IN1K + K400 80.6
M3Video ViT-B 180 400 SSv2 69.2 400 K400 79.7
MGM ViT-B 180 400 SSv2 69.6 400 K400 80.3
VideoMAE ViT-B 180 800 SSv2 69.6 800 K400 80.0
MGM ViT-B 180 800 SSv2 70.6 800 K400 80.8
MAM2 ViT-B + VQGAN 180 1200 SSv2 71.3 800 K400 82.3
MGM ViT-B 180 1200 SSv2 71.6 1200 K400 81.2
OmniMAE ViT-B 180 1600 IN1K + SSv2 69.5 1600 IN1K + K400 80.8
VideoMAE ViT-B 180 1600 SSv2 70.3 1600 K400 81.5
VideoMAE ViT-B 180 2400 SSv2 70.8 - - -
STMAE ViT-B 180 1600 K400 N/A 1600 K400 81.3
MotionMAE ViT-B 180 2400 SSv2 71.8 1600 K400 81.7
MGM ViT-B 180 1600 SSv2 71.8 1600 K400 81.7
MGM ViT-B 180 2400 SSv2 72.1 - - -
""",
    "table2a": """
Supervised (K400) 95.1 71.4 62.7
VideoMAE 93.3 73.5 65.3
MGM 94.2 74.6 70.2
+ K400 Finetune 97.7 81.0 82.6
""",
    "table2b": """
Supervised (SSv2) 77.8 56.3 36.2
VideoMAE 90.6 68.7 80.5
MGM 91.9 69.7 83.1
+ SSv2 Finetune 93.2 74.7 83.4
""",
    "table2c": """
Supervised (K400) 94.1 65.4 25.2
VideoMAE 70.5 45.4 10.0
MGM 77.5 49.2 14.2
""",
    "table2d": """
Supervised (SSv2) 72.9 51.8 13.2
VideoMAE 65.3 41.2 10.7
MGM 69.1 44.8 10.2
""",
    "table3": """
VideoMAE 55.7 69.6
MGM 57.6 71.4
+ K400 Finetune 79.1 96.2
""",
    "table4a": """
ViT-S 61.1
ViT-B 67.3
TimesFormer 64.7
""",
    "table4b": """
optical flow 66.0
motion vector 67.3
""",
    "table4c": """
no 67.1
yes 67.3
""",
    "table4d": """
Mini-K200 80K 78.2
K400 240K 78.6
""",
    "table4e": """
Random Block 62.9
SMM (Sparse) 64.6
Random Tube 65.0
MGM (Sparse) 65.1
SMM (Dense) 65.9
MGM (Dense) 67.3
""",
}
# Marks of Table 4e, which the text does not have: temporal propagation, spatial continuity.
MARKS = {
    "Random Block": ("static", "dense"),
    "SMM (Sparse)": ("simulated", "sparse"),
    "Random Tube": ("static", "sparse"),
    "MGM (Sparse)": ("motion", "sparse"),
    "SMM (Dense)": ("simulated", "dense"),
    "MGM (Dense)": ("motion", "dense"),
}


def test_each_table_is_there():
    tables = {path.stem for path in PAPER.glob("table*.csv")}
    assert tables == {*LINES}


@pytest.mark.parametrize("key", LINES)
def test_each_line_is_the_papers(key):
    table = printed(key)
    own = table[[name for name in table.columns if not name.endswith(": ours")]]
    lines = [
        " ".join(value for value in line if value not in ("", "✓"))
        for line in own.itertuples(index=False, name=None)
    ]
    assert lines == LINES[key].strip().splitlines()


def test_table_4e_has_its_marks():
    table = printed("table4e").set_index("Mask")
    for mask, (time, space) in MARKS.items():
        marked = [name.split(": ")[1] for name, value in table.loc[mask].items() if value == "✓"]
        assert marked == [time, space]


def test_each_of_our_cells_is_of_the_study_that_has_the_table():
    suite = load_suite("paper")
    studies = {key: study for study in suite.studies for key in study.views}
    cells = expand(suite.studies, suite.scale).cells
    known = {*cells[["study", "dataset", "row", "column"]].itertuples(index=False, name=None)}
    wanted = 0
    for key in LINES:
        for name, column in printed(key).items():
            for cell in filter(None, column if name.endswith(": ours") else ()):
                dataset, rest = cell.split("/", 1)
                place = (studies[key].study, dataset, *rest.rsplit("/", 1))
                assert place in known, place
                # The view shows what the table has, so its target runs it.
                assert studies[key].views[key].has(*place[1:]), place
                wanted += 1
    assert wanted == 78
