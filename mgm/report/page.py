"""`mgm report`: tables, figures and the page from the results that exist.

It never trains. Runs that are missing are named.
"""

import re
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from functools import cached_property
from os.path import relpath
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader

from mgm.errors import UserError, nearest
from mgm.files import write_text
from mgm.report import charts, style
from mgm.report.cells import Places, cells, differences, places_of, records, verdicts
from mgm.report.claims import claims
from mgm.report.tables import (
    Table,
    claims_table,
    differences_table,
    paper_table,
    predictions_table,
    quotes,
    study_table,
    texts_of,
    typeset,
    write_csv,
)
from mgm.results.frame import Results, read_csv
from mgm.results.frozen import WANTED
from mgm.results.run import status
from mgm.spec import CONTROLS
from mgm.study import STUDIES
from mgm.study.schema import CONTROL_ROWS, PAPER, Study, View, read_yaml

# The question and the answer of each study.
ANSWERS = "tables/answers.csv"
NOTHING = "None of its runs is finished."
# Of a study's views below its predictions: all numbers, then the rest.
ORDER = {"paper": 0, "table": 0}
# Of what was found, if no author has answered.
MOST = 2
# Controls that see no motion, and what it means that they are above every row.
LEAKS = {
    "file facts": (
        [control.title for control in CONTROLS if control.kind == "file"],
        "look at the split and the encoder",
    ),
    "a picture of 12 x 12": (
        [control.title for control in CONTROLS if control.name in ("middle_frame", "mean_frame")],
        "a model can be right without motion",
    ),
}
# What readers did not know, by a pattern of where it stands: units, and titles of rows and columns.
WORDS = {
    "world": (
        "World",
        "a drawn dataset. Its seed draws what moves, on what background, and all videos; "
        "a class is a motion.",
    ),
    "Random [Tt]ube": ("Random Tube", "hides the same patches in all frames, as VideoMAE does."),
    "MGM": ("MGM", "hides a box that follows the video's motion vectors."),
    "MGM.*shuffled": ("MGM, shuffled", "the same box, but it follows another video's motion."),
    "SMM": ("SMM", "simulated motion: the mask moves at random, not by motion vectors."),
    "[Pp]robe": (
        "Linear probe",
        "a linear classifier of frozen features: the mean of all tokens; with 4 x 4, of as many "
        "regions; with change, of regions minus their mean over time.",
    ),
    "Attentive": ("Attentive probe", "one layer of attention and a classifier, on a frozen model."),
    "Fine-tuned": ("Fine-tuned", "all weights are trained with labels, after pretraining."),
    "No pretraining|Random weights": ("No pretraining", "starts from random weights."),
}
CLAIMS = (
    "Each claim is a difference of two numbers: what the text says, what the paper's tables give, "
    "and ours."
)


@dataclass(frozen=True)
class Shown:
    """A table or a figure on the page, or why there is none. `files` are paths from the page."""

    key: str
    title: str
    note: str = ""
    table: Table | None = None
    why: str = ""
    files: Sequence[str] = ()


@dataclass(frozen=True)
class Report:
    """Writes what the page shows of studies to `folder`, reports/NAME.

    Attributes:
        written: the files of tables and figures that it has written.
    """

    results: Results
    folder: Path
    written: set[Path] = field(default_factory=set)

    def numbers_of(self, study: Study) -> pd.DataFrame:
        """Return the cells of a study."""
        return self.numbers[self.numbers.study == study.study]

    def compared(self, study: Study, view: View) -> pd.DataFrame:
        """Return the paired differences of a view."""
        pairs = [*study.compare]
        if view.minus:
            pairs = [(row, view.minus) for row in view.rows or study.rows if row != view.minus]
        scope, places = view.model_copy(update={"rows": ()}), self.places[study.study]
        places = {at: own for at, own in places.items() if scope.has(at[0], "", at[1])}
        return selected(differences(places, study, pairs), view)

    @cached_property
    def numbers(self) -> pd.DataFrame:
        """The cells of all studies, with the number that the paper prints for the same run."""
        numbers = pd.concat(map(cells, self.places.values()), ignore_index=True)
        keys = ["study", "dataset", "row", "column"]
        quoted = self.quoted.dropna(subset="row").drop_duplicates(keys)
        numbers = numbers.merge(quoted[[*keys, "paper"]], how="left", on=keys)
        same_runs = numbers.run_ids.where(numbers.run_ids != "")
        same = numbers.groupby([same_runs, "metric"]).paper.transform("first")
        return numbers.assign(paper=numbers.paper.fillna(same))

    @cached_property
    def places(self) -> dict[str, Places]:
        """The numbers of each study by dataset and column."""
        return places_of(self.results)

    @cached_property
    def verdicts(self) -> dict[str, pd.DataFrame]:
        """The predictions of each study."""
        return {name: verdicts(self.results, name) for name in self.results.studies}

    @cached_property
    def quoted(self) -> pd.DataFrame:
        """The numbers that the paper prints in the tables and figures of these studies."""
        parts = []
        for name, study in self.results.studies.items():
            views = study.shown_views.items()
            keys = {key for key, view in views if view.kind == "paper"}
            # A figure of the study of a printed table, which may have other rows.
            if any(view.quoted for _, view in views) and (PAPER / f"{name}.csv").is_file():
                keys.add(name)
            parts += [quotes(key).assign(study=name) for key in sorted(keys)]
        names = ["study", "dataset", "row", "column", "line", "epochs", "paper"]
        quoted = pd.concat(parts) if parts else pd.DataFrame(columns=names)
        return quoted.astype({"paper": float})

    def write(self) -> Path:
        """Write everything. The files of views that are gone go too."""
        studies, frame, found = self.results.studies, self.results.frame, None
        # What has mostly run comes first, in the order of the paper.
        done = (frame.status == "finished").groupby(frame.study).mean()
        ordered = sorted(studies.values(), key=lambda study: done.get(study.study, 0.0) < 0.5)
        sections = [self.section(study) for study in ordered]
        if len(self.quoted):
            about = Shown("claims", "The paper's claims", CLAIMS)
            found = self._table(about, claims_table(claims(self.places, studies)))
        write_csv(self.numbers, self._file("tables/cells.csv"))
        for name in studies:
            self.write_cells(name)
        answers = [
            {"study": study.study, "question": study.question, "answer": part["answer"]}
            for study, part in zip(ordered, sections)
        ]
        write_csv(pd.DataFrame(answers), self._file(ANSWERS))
        for path in [*self.folder.glob("tables/*"), *self.folder.glob("figures/*")]:
            if path not in self.written:
                path.unlink()
        write_text(self.folder / "index.html", self.html(sections, found))
        return self.folder / "index.html"

    def write_only(self, key: str) -> Path:
        """Write a table or a figure, or all of a study. Return the path of the first."""
        studies = self.results.studies
        views = {
            name: (view, one) for one in studies.values() for name, view in one.shown_views.items()
        }
        if key not in views and key not in studies:
            raise UserError(
                f"{key}: no such study, table or figure; {nearest(key, [*views, *studies])}"
            )
        keys = [key] if key in views else [*studies[key].shown_views]
        parts = [self.show(one, *views[one]) for one in keys]
        if not (files := [file for shown in parts for file in shown.files]):
            raise UserError(f"{key}: {parts[0].why}")
        return self.folder / files[0] if key in views else self.write_cells(key)

    def write_cells(self, study: str) -> Path:
        """Write all numbers of a study, and return the path."""
        path = self._file(f"tables/cells-{study}.csv")
        write_csv(self.numbers[self.numbers.study == study], path)
        return path

    def _file(self, name: str) -> Path:
        self.written.add(self.folder / name)
        return self.folder / name

    def missing(self, only: str = "") -> list[str]:
        """Return a line per failed run of a view or study, and one that counts those that wait."""
        table = self.results.table
        runs = table[table.run_id.isin(self.results.needed(only))]
        lacks = runs[runs.status != "finished"].drop_duplicates("run_id")
        said = lacks[lacks.why != ""]
        lines = [f"{run.run_id}: {run.status}: {run.why}" for run in said.itertuples()]
        waiting = len(lacks) - len(said)
        return lines + [f"{waiting} more runs have no result"] * bool(waiting)

    def section(self, study: Study) -> dict[str, Any]:
        """Return what the page has of a study: what was found first, then the other views."""
        views = sorted(study.shown_views.items(), key=lambda item: ORDER.get(item[1].kind, 1))
        made = {key: self.show(key, view, study) for key, view in views}
        first = [made.pop(key) for key, view in views if view.kind == "differences"]
        found: dict[str, Any] = {"study": study, "shown": [*made.values()]}
        found |= {"answer": self.answer(study), "warnings": warnings(self.numbers_of(study))}
        end = f"-{study.study}" if len(self.results.studies) > 1 else ""
        of = f" of {re.sub('^table', 'Table ', study.study)}" * bool(end)
        if len(judged := self.verdicts[study.study]):
            paper = self.numbers_of(study).groupby("row").paper.first()
            one, other = judged.row.map(paper), judged["minus"].map(paper)
            judged = judged.assign(paper=one - other)
            about = Shown(f"predictions{end}", f"Predictions{of}")
            found["predictions"] = self._table(about, predictions_table(judged))
        if len(compared := differences(self.places[study.study], study)):
            about = Shown(f"differences{end}", f"Paired differences{of}")
            found["differences"] = self._table(about, differences_table(compared))
            if not any(one.files for one in first):
                lines = self.differences(study, View(kind="differences"))
                about = Shown(f"compared{end}", f"Differences{of}")
                first.append(self._figure(about, lambda: charts.differences(lines), lines))
        return found | {"first": first}

    def answer(self, study: Study) -> str:
        """Return a study's answer, or without one its first predictions or differences."""
        if study.answer:
            return study.answer
        judged = self.verdicts[study.study]
        if len(judged):
            found = judged[judged["mean"].notna()][:MOST]
            known = {"holds": "as predicted", "refuted": "which refutes the prediction"}
            ends = found.verdict.map(known).fillna("so the prediction is " + found.verdict)
            what = found.row.where(found.row == "", found.row + " minus " + found["minus"])
            what = what.where((what != "") & (found["minus"] != ""), found.says)
        else:
            found = differences(self.places[study.study], study)[:MOST]
            # Without an interval nothing is shown.
            bounds = found[["low", "high"]].astype(float).replace([-np.inf, np.inf], np.nan)
            shown = (bounds.low > 0) | (bounds.high < 0)
            ends = shown.map({True: "which is shown", False: "so no difference is shown"})
            what = found.row + " minus " + found["minus"]
        facts = zip(what, found.column, texts_of(found), found.n, found.unit, ends)
        return " ".join(
            f"{name}: {typeset(number)} ({column}, {n:.0f} {unit}), {end}."
            for name, column, number, n, unit, end in facts
        )

    def show(self, key: str, view: View, study: Study) -> Shown:
        """Return a view of a study, and write its files."""
        about, own = Shown(key, view.title or key, view.note), self.numbers_of(study)
        if view.kind == "paper":
            # At the paper's size, its numbers compare with ours.
            alike = self.results.scale.name == "paper"
            made = self._table(about, paper_table(key, own, alike))
            found = made.table is not None and made.table.csv["mean"].notna().any()
            return made if found else replace(made, why=NOTHING)
        if view.kind == "table":
            part = selected(own, view)
            if part.empty:
                return replace(about, why=NOTHING)
            gains = self.compared(study, view) if view.minus else None
            return self._table(about, study_table(part, view.turned, gains))
        if view.kind == "clips":
            return self._clips(about, view, study)
        if view.kind == "gains":
            marks = self.gains(study, view)
            return self._figure(about, lambda: charts.gains(marks), marks)
        if view.kind == "chart" and view.x in ("epochs", "ratio", "steps"):
            own = self.curves(study, view)
            together = self.results.scale.name == "paper"
            return self._figure(
                about, lambda: charts.draw(charts.points_of(own, view, together), view.x), own
            )
        lines = self.differences(study, view)
        return self._figure(about, lambda: charts.differences(lines, view.minus), lines)

    def curves(self, study: Study, view: View) -> pd.DataFrame:
        """Return the cells of a view that draws them over a number, such as epochs."""
        own = selected(self.numbers_of(study), view)
        if not view.quoted:
            own = own.assign(paper=np.nan)
        elif view.x == "epochs":
            # What the paper prints, and is not rerun here.
            alone = self.quoted[(self.quoted.study == study.study) & self.quoted.epochs.notna()]
            alone = alone[~alone.row.isin([*study.rows])]
            if view.rows:
                alone = alone[alone.line.isin(own.line)]
            facts: Any = {"title": alone.dataset, "metric": "top1", "share": True, "control": False}
            alone = selected(alone.assign(row="", **facts), view.model_copy(update={"rows": ()}))
            own = pd.concat([own, alone], ignore_index=True)
        return own if own["mean"].notna().any() else own[:0]

    def gains(self, study: Study, view: View) -> pd.DataFrame:
        """Return a mark per unit of each difference of a view, as `charts.gains` draws it."""
        places, over = self.places[study.study], study.views[view.over]
        across, marks = places.get((over.datasets[0], over.columns[0])), list[dict[Any, Any]]()
        if across is None:
            return pd.DataFrame()
        for line in records(self.compared(study, view)):
            pair = line["row"], line["minus"]
            own, other = places[line["dataset"], line["column"]].paired(pair), across.paired(pair)
            marks += [line | {"x": other[n], "y": own[n]} for n in own if n in other]
        points = " (points)" * across.share
        return pd.DataFrame(marks).assign(over=over.columns[0], points=points)

    def differences(self, study: Study, view: View) -> pd.DataFrame:
        """Return a line per difference of a view, as `charts.differences` draws it."""
        lines = self.compared(study, view)
        places = ["dataset", "column", "row", "minus"]
        judged = records(self.verdicts[study.study])
        known = {tuple(one[place] for place in places) for one in judged if not one["note"]}
        # A prediction of A minus B is one of B minus A.
        known |= {(*place, minus, row) for *place, row, minus in known}
        found = [*lines[places].itertuples(index=False, name=None)]
        paper = self.numbers_of(study).set_index(["dataset", "column", "row"]).paper.to_dict()
        printed = [
            paper.get((*place, row), np.nan) - paper.get((*place, minus), np.nan)
            for *place, row, minus in found
        ]
        lines = lines.assign(
            name=lines.row if view.minus else lines.row + " minus " + lines.minus,
            panel=lines.column,
            predicted=[line in known for line in found],
            paper=printed if view.quoted else np.nan,
        )
        if lines.title.nunique() == 1:
            return lines
        # A panel with a single difference has its datasets as lines.
        if not lines.duplicated(["dataset", "column"]).any():
            return lines.assign(name=lines.title)
        lines = lines.assign(panel=lines.column + ": " + lines.title)
        order = [*study.datasets]
        return lines.sort_values("dataset", key=lambda names: names.map(order.index), kind="stable")

    def _clips(self, about: Shown, view: View, study: Study) -> Shown:
        """Draw what a run of the view's own has measured, or its arrays."""
        run_id, folder = self.results.pictures.get(about.key, ""), self.results.folder
        if not folder:
            return replace(about, why="A csv.xz has numbers alone. Run the study for this figure.")
        result = status(folder / run_id).result if run_id else None
        if not result:
            return replace(about, why=f"Run {run_id} is not finished.")
        from mgm.report import clips

        note = f"Scale {self.results.scale.name}, run {run_id}."
        if view.show == "coverage":
            metrics = result.metrics
            return self._figure(about, lambda: charts.coverage(metrics, note), metrics)
        path = folder / run_id / "arrays.npz"
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = dict(file)
        # A damaged file may raise any exception.
        except Exception:
            return replace(about, why=f"{path} is damaged. Delete its folder, and run it again.")
        # Models have the names of the study's rows.
        table = self.results.table
        rows = table[(table.study == study.study) & table.row.ne("")]
        row_of = dict(zip(rows.pretraining.where(rows.pretraining != "", rows.run_id), rows.row))
        parents = table.parents[table.run_id == run_id].iloc[0].split()
        name = {"reconstructions": "names_P", "attention": "names_N"}.get(view.show)
        if name and {*parents} <= row_of.keys():
            arrays[name] = np.array([row_of[one] for one in parents])
        return self._figure(about, lambda: clips.DRAW[view.show](arrays, note), arrays, "png")

    def _table(self, about: Shown, table: Table) -> Shown:
        csv, md = (f"tables/{about.key}.{ending}" for ending in ("csv", "md"))
        table.write(self._file(csv), self._file(md), f"{about.title}. {about.note}")
        return replace(about, table=table, files=[csv, md])

    def _figure(
        self, about: Shown, draw: Callable[[], Any], shown: Sized, ending: str = "svg"
    ) -> Shown:
        """Write a figure of what is `shown`, if there is something."""
        if not len(shown):
            return replace(about, why=NOTHING)
        file = f"figures/{about.key}.{ending}"
        style.write(draw, self._file(file))
        return replace(about, files=[file])

    def html(self, sections: Sequence[Mapping[str, Any]], found: Shown | None) -> str:
        """Return the page."""
        every = [one for part in sections for one in (*part["shown"], part.get("differences"))]
        # A table, the differences and the predictions may have the same interval.
        names = ["mean", "low", "high"]
        found_in = [one.table.csv for one in every if one and one.table]
        ends = {tuple(line) for csv in found_in for line in csv[names].to_numpy(float).tolist()}
        frame, folder = self.results.frame, self.results.folder
        # A dataset that is a mean of others has no runs of its own.
        runs = frame[~frame.derived].drop_duplicates("run_id")
        late = (frame.column != "") & ~frame.as_frozen
        return _rendered(
            "page.html.j2",
            name=self.results.name,
            results=self.results,
            sections=sections,
            intervals=sum(bool(np.isfinite(low)) for _, low, _ in ends),
            claims=found,
            words=words("\n".join(self.numbers[["unit", "row", "column"]].to_numpy(str).flat)),
            runs=records(runs),
            added=frame.study[late & ~frame.control].value_counts().to_dict(),
            frozen=self.frozen(),
            place=quote(relpath(folder, self.folder)) if folder else "",
        )

    def frozen(self) -> str:
        """Return when the studies were frozen, as a sentence."""
        results, frozen = self.results, self.results.frozen
        if not frozen or any(map(results.began_before, results.studies)):
            return "Not frozen before the first test: predictions may be younger than results."
        later = any(results.began_before(study, False) for study in results.studies)
        commit, _, dirty = frozen.commit.partition("-")
        return (
            f"Frozen on {frozen.date[:10]}, before the first {'test' if later else 'run'}, at "
            f"commit {commit[:8]}{' with changes that were not committed' * bool(dirty)}."
        )


def write_index(results: Path, reports: Path) -> Path:
    """Write the page of all studies that have results: each with its question and its answer."""
    names = {path.name.split(".")[0] for path in results.glob("*.csv.xz")}
    names |= {path.parent.name for path in results.glob(f"*/{WANTED}")}
    listed = []
    for name in sorted(names):
        answers, own = reports / name / ANSWERS, STUDIES / f"{name}.yaml"
        if answers.is_file():
            studies = read_csv(answers).to_dict("records")
        elif own.is_file():
            fields = read_yaml(own, "study")
            studies = fields.get("studies", [fields])
        else:
            studies = []
        listed.append({"name": name, "studies": studies, "written": answers.is_file()})
    write_text(reports / "index.html", _rendered("index.html.j2", listed=listed))
    return reports / "index.html"


def _rendered(template: str, **fields: Any) -> str:
    place = FileSystemLoader(Path(__file__).parent)
    known = Environment(loader=place, autoescape=True, trim_blocks=True)
    return known.get_template(template).render(fields)


def warnings(numbers: pd.DataFrame) -> list[str]:
    """Return sentences about datasets on which no row of a study is shown to see motion."""
    found = dict[str, list[str]]()
    tests = numbers[numbers.metric.isin(("top1", *CONTROL_ROWS.values())) & (numbers.n > 0)]
    # A mean of datasets has no test of its own.
    tests = tests[tests.n_test > 0]
    for _, own in tests.groupby("dataset", sort=False):
        rows, controls = own[~own.control], own[own.control]
        title, chance = own.title.iloc[0], own.chance.iloc[0]
        if rows.empty:
            continue
        # Without an interval, a number is its own lower end.
        lowest = rows.low.where(np.isfinite(rows.low), rows["mean"])
        if lowest.max() <= chance:
            found.setdefault("No row is shown to beat guessing the largest class ({}).", []).append(
                f"{title}, {chance:.1f} %"
            )
        for what, (names, meaning) in LEAKS.items():
            best = controls[controls.row.isin(names)]["mean"].max()
            if best > rows["mean"].max():
                line = f"By {what} alone, more is right than by any row ({{}}): {meaning}."
                found.setdefault(line, []).append(f"{title}, {best:.1f} %")
    return [line.format("; ".join(places)) for line, places in found.items()]


def words(text: str) -> list[tuple[str, str]]:
    """Return the words that a page's text has, and what they mean."""
    return [meaning for pattern, meaning in WORDS.items() if re.search(pattern, text)]


def selected(numbers: pd.DataFrame, view: View) -> pd.DataFrame:
    """Return the numbers that a view shows."""
    places = numbers[["dataset", "row", "column"]].to_numpy()
    return numbers[np.array([view.shows(*place) for place in places], bool)]
