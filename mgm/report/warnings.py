"""What a page says of the rows of a table: their videos, and what their numbers cannot show."""

from collections.abc import Iterable

import pandas as pd

from mgm.report.estimates import StudyResults, unit_of
from mgm.results.result import LEAST_EXPLAINED
from mgm.results.statistics import ENOUGH

FITS = 95.0  # per cent of the training clips
# Test videos, or groups of them. With fewer, an interval over seeds is too narrow for new videos.
FEW_VIDEOS = 100
IN_NOTE = "warning: "


def notes_of(found: StudyResults, cells: pd.DataFrame) -> list[str]:
    """Return the videos of a table's datasets, its steps, and what its intervals are over."""
    study, titles_of, notes = found.study, dict[str, list[str]](), []
    for name, block in cells.groupby("dataset", sort=False):
        dataset, tested = str(name), block.column.isin(study.tests).any()
        parts = [videos_of(tests_of(found, dataset))] if tested else []
        # Rows of one dataset whose steps differ have them in their names.
        if len(steps := block.steps[block.steps > 0].unique()) == 1:
            parts.append(f"Pretraining: {steps[0]:,.0f} steps.")
        text = " ".join(filter(None, parts))
        titles_of.setdefault(text, []).append(study.shown.get(dataset, dataset))
    for text, titles in titles_of.items():
        notes.append(text if len(titles_of) == 1 else f"{'; '.join(titles)}: {text}" * bool(text))
    if (cells.n > 1).any():
        what = {"seed": "seeds, on the same videos", "dataset": "datasets", "run": "runs"}
        notes.append(f"Mean and 95 % interval over {what[unit_of(study)]}.")
    return [note for note in notes if note]


def tests_of(found: StudyResults, dataset: str) -> pd.DataFrame:
    """Return the finished runs that test on a dataset."""
    runs = found.runs
    tests = runs.column.isin(found.study.tests) & runs.value.notna()
    return runs[tests & (runs.dataset == dataset) & runs.classes.notna()]


def chance_of(tests: pd.DataFrame) -> float:
    """Return the chance accuracy (%): as measured, or of equally frequent classes."""
    measured = tests.chance.dropna()
    return float(measured.mean() if len(measured) else 100 / tests.classes.max())


def videos_of(tests: pd.DataFrame) -> str:
    if not len(tests):
        return ""
    counts = {name: _span(tests[name]) for name in ("classes", "train", "test")}
    groups = f" of {_span(tests.groups)} groups" if (tests.groups < tests.test).any() else ""
    return (
        f"{counts['classes']} classes, {counts['train']} training and {counts['test']} test "
        f"videos{groups}; chance {chance_of(tests):.1f} %."
    )


def warnings_of(found: StudyResults, cells: pd.DataFrame) -> list[str]:
    """Return what a reader of a table must know before its numbers."""
    study, warnings, better = found.study, list[str](), dict[str, dict[str, None]]()
    for place, block in cells[cells.column.isin(study.tests)].groupby(
        ["dataset", "column"], sort=False
    ):
        dataset, column = map(str, place)  # type: ignore[call-overload]
        tests = tests_of(found, dataset)
        models = block[~block.control & (block.n > 0)]
        controls = block[block.control & (block.n > 0)]
        if not len(models) or not len(tests):
            continue
        best = models["mean"].max()
        if study.columns[column].metric == "top1" and best <= chance_of(tests):
            warnings.append(f"No row is above chance: {column}.")
        if len(controls) and controls["mean"].max() > best:
            name = controls.sort_values("mean").row.iloc[-1]
            better.setdefault(column, {})[name] = None
        warnings += _of_learning(found, dataset, models.row)
        if poor := models.row[models.fits < FITS].tolist():
            warnings.append(
                f"{column}: below {FITS:.0f} % on the training clips at the end: {'; '.join(poor)}."
                " Such accuracies may compare how fast rows train."
            )
    for column, names in better.items():
        warnings.append(
            f"{column}: a control without a model is above every row: {'; '.join(names)}."
        )
    return list(dict.fromkeys([*_of_videos(found, cells), *warnings]))


def _of_learning(found: StudyResults, dataset: str, rows: Iterable[str]) -> list[str]:
    """Return which pretraining learnt little. Runs of older versions do not say what they explain.

    Neighbours are compared under the run's own mask, on average over the measured runs.
    """
    warnings, runs = list[str](), found.runs[found.runs.dataset == dataset]
    lowest = runs.groupby("row").learnt.min()
    if idle := [row for row in rows if lowest.get(row, 100) < LEAST_EXPLAINED]:
        warnings.append(
            f"Pretraining explains less than {LEAST_EXPLAINED} % of its loss, so it learnt "
            f"next to nothing: {'; '.join(idle)}."
        )
    leads = runs.drop_duplicates(["row", "run_id"]).groupby("row").lead.sum()
    if behind := [row for row in rows if leads.get(row, 0) < 0]:
        warnings.append(
            "The mean of the visible patches around a hidden one explains more than the model: "
            f"{'; '.join(behind)}."
        )
    return warnings


def _of_videos(found: StudyResults, cells: pd.DataFrame) -> list[str]:
    """Return what is wrong with the videos: few, unread, or shared by both splits."""
    titles_of: dict[str, list[str]] = {}
    for dataset in cells.dataset.unique():
        for text in _of_tests(tests_of(found, dataset), found.alone):
            titles_of.setdefault(text, []).append(found.study.shown.get(dataset, dataset))
    return [f"{'; '.join(titles)}: {text}" for text, titles in titles_of.items()]


def _of_tests(tests: pd.DataFrame, alone: bool) -> Iterable[str]:
    if not len(tests):
        return
    if alone and (least := int(tests.groups.min())) < FEW_VIDEOS:
        what = "groups of test videos" if (tests.groups < tests.test).any() else "test videos"
        yield (
            f"{least} {what}, fewer than {FEW_VIDEOS}, so other videos would give other numbers. "
            "The binomial interval of a number covers that; its interval over seeds does not."
        )
    parts = (part for about in tests.about.unique() for part in about.split("; "))
    yield from (f"{part.removeprefix(IN_NOTE)}." for part in parts if part.startswith(IN_NOTE))
    if (failed := int(tests.failed.max())) > 0:
        yield f"{failed} videos could not be read in a run."


def of_page(found: StudyResults) -> list[str]:
    """Return what is wrong with a study's runs: few, of changed code, or not all of its file."""
    warnings, models = list[str](), found.cells[~found.cells.control & (found.cells.n > 0)]
    if found.alone and len(models) and (most := int(models.n.max())) < ENOUGH:
        unit = unit_of(found.study) + "s" * (most > 1)
        warnings.append(f"{most} {unit}: a verdict needs {ENOUGH}.")
    runs = found.frame[found.frame.value.notna()].drop_duplicates("run_id")
    if dirty := int(runs.dirty.sum()):
        warnings.append(f"{dirty} of {len(runs)} tests ran with changes that were not committed.")
    if found.lacking:
        warnings.append(
            f"The study's file has what these results lack: {', '.join(found.lacking)}."
        )
    return warnings


def _span(values: pd.Series) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
