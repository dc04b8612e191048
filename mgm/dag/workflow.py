"""The runs of a suite as Snakemake's rules need them: batches, inputs, commands and targets.

A batch is the runs of one job. Its mark, results/NAME/batches/CALL/BATCH.done, says that each of
them has ended, finished or failed: a failed run holds up the runs that start from it alone. A mark
is of one call of Snakemake. The next call asks the runs themselves what is to do, and needs the
marks of batches that lack a run. So no call deletes a mark that another one waits for.

The Snakefile builds a `Workflow` in every process, so importing this must not import torch.
"""

import hashlib
import os
import shlex
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd

from mgm.console import show
from mgm.drawn.params import parse_params
from mgm.errors import UserError, nearest, valid
from mgm.files import locked, write_text
from mgm.results.frozen import freeze
from mgm.results.run import RESULT, status
from mgm.spec import FLOWS, PUBLISHED, STAGES, FrozenModel, Spec, drawn_masks, parents
from mgm.study import STUDIES
from mgm.study.expand import expand, with_parents
from mgm.study.scales import load_suite
from mgm.study.settings import require_effect


class DagOptions(FrozenModel):
    """Options of `snakemake --config`. All may be left out."""

    # A name in studies/, or a YAML file. Default: smoke, and with the profile slurm paper.
    study: str = ""
    # Set by the profile slurm: jobs start through its launch.sh.
    slurm: bool = False


class Workflow:
    """The runs of one suite, their datasets, and the commands that make both.

    Attributes:
        specs: every run by its id, parents before children.
        places: the folder of each dataset, by key.
        batches: the run ids of each batch, by its name. The name begins with the stage.
        call: a name of this call of Snakemake.
    """

    def __init__(self, config: Mapping[str, Any], call: str = ""):
        with valid("--config ", f"the options are {', '.join(DagOptions.model_fields)}"):
            self.options = options = DagOptions.model_validate(config)
        self.suite = suite = load_suite(options.study or ("paper" if options.slurm else "smoke"))
        self.studies, self.scale, self.name = suite.studies, suite.scale, suite.name
        # A study of its own says how it runs; of several, their scale does.
        alone = suite.studies[0] if len(suite.studies) == 1 else None
        self.execution = (alone and alone.execution) or suite.scale.execution
        self.call, self._lock = call, ExitStack()
        self.results, self.logs = Path("results", self.name), Path("logs", self.name)
        self.reports = Path("reports", self.name)
        require_effect(self.studies, self.scale)
        self.expansion = expand(self.studies, self.scale)
        self.specs, self.datasets = self.expansion.specs, self.expansion.datasets
        self.places = {key: one.place for key, one in self.datasets.items()}
        self.keys = {str(place): key for key, place in self.places.items()}
        self._key_of = {(one.name, one.digest): key for key, one in self.datasets.items()}
        # A Slurm job per run: jobs wait in the queue, not for each other.
        per_job = (alone and alone.specs_per_job) or suite.scale.specs_per_job
        self.batches = self._batches(1 if options.slurm else per_job)
        self._batch_of = {one: name for name, batch in self.batches.items() for one in batch}

    def _batches(self, most: int) -> dict[str, list[str]]:
        """Return batches of up to `most` runs of one stage.

        The runs of a batch have the same depth in the DAG, so none depends on another, and the same
        tables and figures need them: a table makes no run of others.
        """
        targets_of = dict.fromkeys(self.specs, "")
        for target in self.expansion.targets:
            for spec in self.shown_by(target):
                targets_of[spec.run_id] += f" {target}"
        depths, groups = dict[str, int](), dict[tuple[Any, ...], list[str]]()
        for run_id, spec in self.specs.items():
            depths[run_id] = 1 + max((depths[parent] for parent in parents(spec)), default=-1)
            key = depths[run_id], spec.stage, targets_of[run_id]
            groups.setdefault(key, []).append(run_id)
        batches = dict[str, list[str]]()
        for group in groups.values():
            count = -(-len(group) // most)
            for start, end in pairwise(len(group) * part // count for part in range(count + 1)):
                batch = group[start:end]
                digest = hashlib.sha256(" ".join(batch).encode()).hexdigest()
                batches[f"{self.specs[batch[0]].stage}-batch-{digest[:10]}"] = batch
        return batches

    @property
    def pages(self) -> dict[str, str]:
        """The file that each target writes: of all the page, of a study its cells."""
        pages = dict[str, str]()
        for study in self.studies:
            files = {}
            for key, view in study.shown_views.items():
                kind = "tables" if view.kind in ("table", "paper") else "figures"
                drawn = "png" if view.show not in ("", "coverage") else "svg"
                ending = "csv" if kind == "tables" else drawn
                files[key] = str(self.reports / kind / f"{key}.{ending}")
            cells = str(self.reports / "tables" / f"cells-{study.study}.csv")
            pages = {study.study: cells, **pages, **files}
        # The first rule is what Snakemake makes by default.
        return {"all": str(self.reports / "index.html"), **pages}

    @cached_property
    def lacks(self) -> set[str]:
        """The runs to be made: those that are not finished, and parents without their weights.

        They are what they were at first, since a plan of jobs must not change.
        """
        lacks, needed = set[str](), set[str]()
        # Children come after their parents.
        for run_id, spec in reversed(self.specs.items()):
            if status(self.results / run_id, weights=run_id in needed).state != "finished":
                lacks.add(run_id)
                needed.update(parents(spec))
        return lacks

    def shows(self, target: str) -> list[str]:
        """Return the files that a study, a table or a figure is made of. "all" shows every run.

        They are the marks of the batches that lack a run of it, and the newest spec of the others,
        which is written when a run starts.
        """
        runs = [spec.run_id for spec in self.shown_by(target)]
        marks = [self.mark(self._batch_of[run_id]) for run_id in runs if run_id in self.lacks]
        done = [f"{self.results}/{run_id}/spec.json" for run_id in runs if run_id not in self.lacks]
        newest = max(filter(os.path.isfile, done), key=os.path.getmtime, default=None)
        return [*dict.fromkeys(marks), *filter(None, [newest])]

    def shown_by(self, target: str) -> list[Spec]:
        """Return the runs of a study, a table or a figure, and those that they start from."""
        return with_parents(self.specs, self.expansion.targets[target])

    def key(self, spec: Spec) -> str:
        """Return the key of a run's dataset."""
        return self._key_of[spec.data.dataset, spec.data.digest]

    def makes(self, batch: str) -> list[Spec]:
        """Return the runs of a batch. A run's id is a batch of this run alone."""
        if batch not in self.batches and batch not in self.specs:
            raise UserError(f"{self.name}: has no run {batch}; {nearest(batch, self.specs)}")
        return [self.specs[one] for one in self.batches.get(batch, [batch])]

    def needs(self, batch: str) -> list[str]:
        """Return the input files of a batch's job: its data, and marks of parents that lack."""
        files = set[str]()
        for spec in self.makes(batch):
            place = self.places[self.key(spec)]
            files.add(str(place / "index.json"))
            alone = batch not in self.batches
            for parent in self.lacks.intersection(parents(spec)):
                files.add(self.mark(parent if alone else self._batch_of[parent]))
            for mask in drawn_masks(spec):
                if mask.guidance in FLOWS:
                    files.add(str(place / f"tracks-{mask.guidance}.json"))
        return sorted(files)

    def mark(self, batch: str) -> str:
        """Return the file that says that a batch has ended in this call."""
        return str(self.results / "batches" / self.call / f"{batch}.done")

    def whole(self, target: str) -> list[str]:
        """Return the files that say that a page shows all its runs.

        One of them is of this call if the target lacks a run, so that it is made again.
        """
        whole = self.lacks.isdisjoint(spec.run_id for spec in self.shown_by(target))
        return [f"{self.results}/whole/{target}.done", *([] if whole else [self.mark(target)])]

    def result(self, run_id: str) -> str:
        return f"{self.results}/{run_id}/{RESULT}"

    def run(self, batch: str) -> str:
        """Return the command of a batch's job, which writes its mark.

        A run of its own that fails leaves no mark, and its job fails.
        """
        batched = self.makes(batch)
        # Another call may have made them meanwhile.
        specs = [spec for spec in batched if spec.run_id in self.lacks] or batched
        words = ["mgm", "run", *(str(self._spec_file(spec.run_id)) for spec in specs)]
        words += [*self.data_of(specs), "--out", str(self.results)]
        words += self.execution.words(specs[0].stage)
        if batch in self.batches:
            return shlex.join([*words, "--mark", self.mark(batch)])
        return f"{shlex.join(words)} && touch {shlex.quote(self.mark(batch))}"

    def data_of(self, specs: Iterable[Spec]) -> list[str]:
        """Return the words of the command line that name the datasets of runs."""
        keys = dict.fromkeys(map(self.key, specs))
        given = (f"{self.datasets[key].name}={self.places[key]}" for key in keys)
        return [word for one in given for word in ("--data", one)]

    def made_from(self, place: str) -> list[str]:
        """Return the indices that a dataset is made from."""
        key = self.keys[place]
        return [str(self.places[part] / "index.json") for part in self._parts(key)]

    def _parts(self, key: str) -> list[str]:
        """Return the datasets that a dataset is made from, if they are of this workflow."""
        dataset, published = self.datasets[key], PUBLISHED.get(key)
        parts = dataset.adapt or (published.derived_from if published and dataset.root else ())
        return [part for part in parts if part in self.datasets]

    def prepare(self, place: str, processes: int = 0) -> str:
        """Return the command that makes a dataset."""
        key = self.keys[place]
        dataset, parts = self.datasets[key], self._parts(key)
        if dataset.generate:
            words = ["drawn", "--params", str(self._params_file(key))]
        elif parts:
            folders = (str(self.places[part]) for part in parts)
            words = [dataset.name, *sum(zip(("--source", "--target"), folders), ())]
        else:
            words = [key if key in PUBLISHED else "folder", "--source", "DIR"]
        if processes and not parts:
            words += ["--processes", str(processes)]
        return shlex.join(["mgm", "prepare", *words, "--out", place])

    def start(self, places: Iterable[str]) -> None:
        """Freeze the study, and write the files that jobs read. Call it before the first job.

        Until this process ends, a second call is refused.

        Args:
            places: the datasets that jobs make.
        """
        # Runs are named by what they see, so downloads are prepared before runs are planned.
        if missing := [place for place in places if self.datasets[self.keys[place]].root]:
            first = ", then ".join(f"`{one}`" for one in self.prepared_by(missing))
            raise UserError(f"{missing[0]}/index.json: is missing; run {first}")
        self._lock.enter_context(locked(self.results / "start.lock", self.name, wait=False))
        # Marks of calls that have ended.
        shutil.rmtree(self.results / "batches", ignore_errors=True)
        file = self.options.study
        own = file if file.endswith((".yaml", ".yml")) else ""
        freeze(self.results, self.studies, self.scale, self.expansion, own)
        files = {
            self._spec_file(run_id): spec.model_dump_json(indent=1)
            for run_id, spec in self.specs.items()
        }
        for key, dataset in self.datasets.items():
            if dataset.generate:
                drawn = parse_params(dataset.generate, key).model_dump_json(indent=1)
                files[self._params_file(key)] = drawn
        for path, text in files.items():
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                write_text(path, text)
        cost = f" All of it takes {self.suite.cost}." if self.suite.cost else ""
        show(
            f"{self.name}, scale {self.scale.name}: you can stop at any time; the same command "
            f"continues.{cost}"
        )

    def prepared_by(self, places: Iterable[str]) -> list[str]:
        """Return the commands that prepare downloads, in their order."""
        commands = list[str]()
        # A set comes before those that are made of it.
        for place in sorted(places, key=lambda place: len(self.made_from(place))):
            command = self.prepare(place)
            # A study may have a script that prepares its videos.
            for script in STUDIES.glob("*.py"):
                if f"{self.keys[place]}-".startswith(f"{script.stem}-"):
                    command = f"python studies/{script.name} DIR"
            commands.append(command)
        return [*dict.fromkeys(commands)]

    def unknown(self, asked: Iterable[str]) -> str:
        """Return which targets there are if one of those that are asked for is none."""
        targets = self.expansion.targets
        for name in asked:
            if not (name in targets or name == "report" or "/" in name or Path(name).exists()):
                return f"mgm: {name}: {self.name} has no such target; it has {', '.join(targets)}"
        return ""

    def about(self, asked: Iterable[str] = ()) -> str:
        """Return what a dry run makes: missing datasets, then the runs of tables and studies.

        Args:
            asked: targets. Those that are no table, figure or study stand for all of them.
        """
        targets = self.expansion.targets
        names = [name for name in asked if name in targets] or [*targets]
        runs_of = {name: self.shown_by(name) for name in names}
        keys = {self.key(spec) for runs in runs_of.values() for spec in runs}
        keys |= {part for key in keys for part in self._parts(key)}
        lacks = {key: str(self.places[key]) for key in self.datasets if key in keys}
        lacks = {key: lacks[key] for key in lacks if not Path(lacks[key], "index.json").is_file()}
        lines = [f"{self.name}, scale {self.scale.name}"]
        if own := [lacks[key] for key in lacks if self.datasets[key].root]:
            lines.append(f"Missing datasets: {', '.join(own)}. Run first:")
            lines += [f"  {command}" for command in self.prepared_by(own)]
        if drawn := [key for key in lacks if self.datasets[key].generate]:
            lines.append(f"Datasets that the first jobs draw: {len(drawn)}, such as {drawn[0]}.")
        rows = {}
        for name, runs in runs_of.items():
            waits = [spec for spec in runs if spec.run_id in self.lacks]
            every, to_do = (Counter(spec.stage for spec in part) for part in (runs, waits))
            cells = {stage: f"{every[stage] - to_do[stage]} of {every[stage]}" for stage in every}
            rows[name] = cells | {"to do": len(waits)}
        table = pd.DataFrame.from_dict(rows, orient="index")
        stages = [stage for stage in STAGES if stage in table]
        lines += ["Runs that are done:", table[[*stages, "to do"]].fillna("").to_string()]
        return "\n".join(lines)

    def _spec_file(self, run_id: str) -> Path:
        return self.results / "specs" / f"{run_id}.json"

    def _params_file(self, key: str) -> Path:
        return self.results / "datasets" / f"{key}.json"
