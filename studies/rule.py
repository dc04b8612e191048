"""A rule that says, before any training, what each mask gains over random weights.

    python studies/rule.py fit             print the rule, and its errors on videos left out
    python studies/rule.py predict STUDY   write STUDY-predicted.csv
    python studies/rule.py score STUDY     compare that with the study's finished runs, and draw
                                           docs/STUDY-rule.svg

    gain = a * level + b * level * tube + c * half,   level = room * (1 - contrast / MOST)

Gains are of linear probes, in points. `room` is how far a histogram of motion vectors is above
random weights. `contrast` is how much the static patches of a clip differ, in grey levels; above
`MOST` the level is 0. `tube` is 1 for the random tube. `half` is 1 for MGM that is guided by its
own clip and hides at most half of it.

`studies/rule_table.py` measures the videos. It writes rule.csv, a line per row of a study and
dataset. A line without a gain had no runs then.
"""

import sys
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict

from mgm.report.figures.charts import gains
from mgm.report.figures.style import QUIET, write
from mgm.report.findings import read_findings
from mgm.stages.advice import level_of
from mgm.study import STUDIES
from mgm.study.load import load_study
from mgm.study.scales import file_of

TABLE, RESULTS = STUDIES / "rule.csv", Path("results")
LONGEST = 5600  # steps: the rule is not fitted to longer training
# The rule's terms, and those of what it has to beat.
RULE = ["a", "b", "c"]
NO_GAIN = (np.nan, np.nan, np.nan, 0)
OTHERS = {"tube worst, rest equal": ["one", "tube"], "constant": ["one"]}


def terms(lines: pd.DataFrame) -> pd.DataFrame:
    """Return what the rule's numbers are multiplied with, and what it could have besides."""
    level = level_of(lines)
    tube = (lines["mask"] == "tube").astype(float)
    follows = ((lines["mask"] == "mgm") & (lines.guidance != "shuffled")).astype(float)
    return pd.DataFrame(
        {
            "a": level,
            "b": level * tube,
            "c": follows * (lines.ratio <= 0.5),
            "one": 1.0,
            "tube": tube,
            "room": lines.histogram - lines.random,
            "follows": follows,
            "ratio": lines.ratio - 0.75,
            "log of steps": np.log2(lines.steps / 2800),
            "log of visible motion": np.log2(lines.motion / 20),
            "log of visible energy": np.log2(lines.energy / 100),
            "visible texture": lines.texture / 100,
            "clips without texture": lines.without / 100,
        }
    )


def weights(lines: pd.DataFrame) -> pd.Series:
    """Return weights by which videos with one number of steps count once."""
    return 1 / lines.groupby(["videos", "steps"]).row.transform("size")


def fitted(lines: pd.DataFrame, names: list[str]) -> pd.Series:
    """Return the numbers of a model of these terms."""
    model = LinearRegression(fit_intercept=False)
    return pd.Series(model.fit(terms(lines)[names], lines.gain, weights(lines)).coef_, names)


def left_out(lines: pd.DataFrame, names: list[str]) -> pd.Series:
    """Return what a model of these terms says of each line if its videos are left out."""
    said = cross_val_predict(
        LinearRegression(fit_intercept=False),
        terms(lines)[names],
        lines.gain,
        groups=lines.videos,
        cv=LeaveOneGroupOut(),
        params={"sample_weight": weights(lines)},
    )
    return pd.Series(said, lines.index)


def scores(lines: pd.DataFrame, said: pd.Series) -> dict[str, float]:
    """Return how far `said` is from the gains of lines.

    Returns:
        Root mean squares in points: `rmse`; `between`, of the mean error of videos with one number
        of steps; `within`, of the rest. `right`: the share of pairs of rows of one dataset whose
        order is right, in per cent; equal numbers are half right. `pairs`: their number.
    """
    error, weight = said - lines.gain, weights(lines)
    mean = error.groupby([lines.videos, lines.steps]).transform("mean")
    parts = {"rmse": error, "between": mean, "within": error - mean}
    found = {name: np.average(part**2, weights=weight) ** 0.5 for name, part in parts.items()}
    right = [
        0.5 + 0.5 * np.sign(round(said[one] - said[two], 6) * (lines.gain[one] - lines.gain[two]))
        for rows in lines.groupby(["study", "dataset", "steps"]).groups.values()
        for one, two in combinations(rows, 2)
    ]
    return found | {"right": 100 * float(np.mean(right)), "pairs": len(right)}


def finished(results: Path) -> pd.DataFrame:
    """Return a line per dataset and row, or control, of a study's probes.

    It has `mean`, `gain`, the gain's interval `low` and `high`, and `n`.

    A row of several columns has the first.
    """
    found = read_findings(results)[results.name]
    probes = [name for name, column in found.study.columns.items() if column.stage == "probe"]
    cells = found.cells[found.cells.column.isin(probes) & (found.cells.n > 0)]
    cells = cells.drop_duplicates(["dataset", "row"])[["dataset", "row", "column", "mean"]]
    estimates = [
        found.estimate(dataset, f"{row} minus Random weights", column)
        for dataset, row, column, _ in cells.itertuples(index=False)
    ]
    gains = [(one.mean, one.low, one.high, one.n) if one else NO_GAIN for one in estimates]
    names = ("gain", "low", "high", "n")
    return cells.assign(**dict(zip(names, zip(*gains)))).set_index(["dataset", "row"])


def drawn(lines: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Draw the gains that were found over those that the rule says: a mark per row of a dataset."""
    points = lines[["dataset", "row", "low", "high"]]
    points = points.assign(x=lines.rule, mean=lines.gain, column="The rule")
    figure = gains(points, "Gain over random weights (points)", titles, "run")
    for axes in figure.axes:
        # On this line the rule is right.
        axes.axline((0, 0), slope=1, color=QUIET, linewidth=0.8, zorder=0)
        if axes.get_xlabel():
            axes.set_xlabel("Gain that the rule says (points)")
    return figure


def main(command: str = "", name: str = "") -> None:
    table, file = pd.read_csv(TABLE), STUDIES / f"{name}-predicted.csv"
    seen = table[table.gain.notna() & (table.steps <= LONGEST) & (table.study != name)]
    seen, new = seen.reset_index(drop=True), table[table.study == name].reset_index(drop=True)
    models = {"rule": RULE} | OTHERS
    found = {model: scores(seen, left_out(seen, names)) for model, names in models.items()}
    if command == "fit":
        print(f"{len(seen)} cells of {seen.videos.nunique()} kinds of videos.")
        print(fitted(seen, RULE).round(3).to_string())
        for term in terms(seen).columns.drop(RULE):
            found |= {f"rule, {term}": scores(seen, left_out(seen, [*RULE, term]))}
    elif command == "predict":
        said = {model: terms(new)[names] @ fitted(seen, names) for model, names in models.items()}
        lines = new[["dataset", "row"]].assign(**said, error=found["rule"]["rmse"])
        lines.round(1).to_csv(file, index=False)
    elif command == "score":
        new = new.drop(columns=["gain", "n"]).merge(pd.read_csv(file), on=["dataset", "row"])
        new = new.merge(finished(RESULTS / name), on=["dataset", "row"])
        print(new[["dataset", "row", "rule", "error", "gain", "n"]].round(1).to_string(index=False))
        places = load_study(file_of(name, STUDIES)).datasets
        titles = {key: place.title for key, place in places.items()}
        write(drawn(new, titles), Path(f"docs/{name}-rule.svg"), "svg")
        found = {model: scores(new, new[model]) for model in models}
    else:
        raise SystemExit(__doc__)
    print(pd.DataFrame(found).T.round(1).to_string())


if __name__ == "__main__":
    main(*sys.argv[1:])
