"""The workflow of one scale or study: its options, datasets and jobs, and the files that jobs read.

The Snakefile builds it in every process, so importing this must not import torch.
"""

import os
import shlex
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from mgm.dag.cluster import load_cluster
from mgm.dag.jobs import dataset_jobs, grouped, in_order, run_job
from mgm.data.synthetic.params import Synthetic, parse_params
from mgm.errors import UserError, nearest, valid
from mgm.reading import read_text
from mgm.results import atomic
from mgm.results.archive import unpack
from mgm.results.lock import folder_lock, wait_for_lock
from mgm.results.plan import FOLDER, SPECS, Plan, read_plan
from mgm.spec import PUBLISHED, Data, FrozenModel
from mgm.study import CONFIG, STUDIES, WORKFLOW
from mgm.study.expand import expand
from mgm.study.load import load_study, of_paper
from mgm.study.scales import UNSCALED, Dataset, Scale, file_of, load_scale
from mgm.study.schema import Study
from mgm.study.videos import datasets_of

# Datasets that jobs can prepare from a user's downloads.
PREPARED = [name for name, dataset in PUBLISHED.items() if not dataset.derived_from]


def _text(value: Any) -> Any:
    """Refuse what Snakemake does not read as text, such as 007 (read as 7) and 2023_11 (202311)."""
    if isinstance(value, int | float):
        raise ValueError("Snakemake does not read it as text; quote it twice: 'NAME=\"007\"'")
    return value


Text = Annotated[str, BeforeValidator(_text)]


class Options(FrozenModel):
    """Options of `snakemake --config`; all may be left out."""

    # A scale (smoke, mini, paper), or a YAML file. Default: smoke, and with `cluster` paper.
    scale: Text = ""
    # A study of studies/, or a YAML file, in place of the paper's experiments.
    study: Text = ""
    # Published datasets that jobs prepare, each with the folder of its download. `ucf101=DIR` is
    # one of them.
    sources: dict[str, Text] = Field(default_factory=dict)
    # A YAML file with the resources of Slurm jobs. Default: jobs run on this machine.
    cluster: Text = ""

    @model_validator(mode="before")
    @classmethod
    def _sources_by_name(cls, fields: dict[str, Any]) -> dict[str, Any]:
        sources = {name: fields[name] for name in PREPARED if name in fields}
        others = {name: value for name, value in fields.items() if name not in sources}
        return {"sources": sources} | others if sources else others


class Workflow:
    """The experiments of one scale or study, and the jobs that run them.

    Args:
        config: the options of `snakemake --config` (`Options`).
        writes: unpack archived results, and delete markers of results that were deleted.
            Otherwise the constructor writes nothing.

    Attributes:
        sources: published datasets that jobs prepare, each with the folder of its download.
        places: each dataset with the folder of its index.
        generated: each generated dataset with its parameters.
        built: the datasets that jobs make, each with those it is made from.
        preparation: the words after `mgm` that make each dataset.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        results: Path = Path("results"),
        reports: Path = Path("reports"),
        data: Path = Path("data"),
        writes: bool = False,
    ):
        with valid("--config ", f"the options are {', '.join(Options.model_fields)}"):
            self.options = options = Options.model_validate(dict(config))
        self.cluster = load_cluster(options.cluster) if options.cluster else None
        self.sources = options.sources
        study, self.scale = _named(options)
        studies = [study] if study else of_paper(self.scale)
        self.name = study.study if study else self.scale.name
        self.results, self.reports = results / self.name, reports / self.name
        self.logs = Path("logs") / self.name
        self.expected_cost = study.expected_cost if study else self.scale.expected_cost
        self.specs_per_job = (study and study.specs_per_job) or self.scale.specs_per_job
        self.execution = (study and study.execution) or self.scale.execution
        self.in_turn = bool(study and study.in_turn)
        self.datasets = datasets_of(studies, self.scale)
        for name, source in self.sources.items():
            if name not in PREPARED or name not in self.datasets:
                known = [name for name in PREPARED if name in self.datasets]
                raise UserError(
                    f"sources: {name}: {self.name} has no such published dataset; "
                    f"{nearest(name, known)}"
                )
            if not Path(source).exists():
                raise UserError(f"sources: {name}: {source} does not exist; correct the path")
        self.places = dict[str, Path]()
        self.generated = dict[str, Synthetic]()
        self.built = dict[str, tuple[str, ...]]()
        self.preparation = dict[str, list[str]]()
        for name, dataset in self.datasets.items():
            self._place(name, dataset, data)
        self._keys = {(set.name or key, set.digest): key for key, set in self.datasets.items()}
        # The files of weights that rows start from, by the ids of their runs.
        self.given = dict[str, Path]()
        weights = dict[str, str]()
        for file in {row.weights for row in study.rows.values()} - {""} if study else ():
            # This imports torch.
            from mgm.stages.parents import external_run_id

            weights[file], path = external_run_id(file, f"study {self.name}: from")
            self.given[weights[file]] = path
        self.plan = expand(studies, self.scale, self.datasets, weights)
        if study:
            self.plan = self._plan_of(study, file_of(options.study, STUDIES))
        elif (own := STUDIES / f"{self.name}.yaml").is_file():
            raise UserError(
                f"{self.name}: is the name of {own}; give study={self.name}, or another name"
            )
        self._require_labels()

        groups = grouped(self)
        self.made_by = {spec.run_id: name for name, specs in groups.items() for spec in specs}
        jobs = [*dataset_jobs(self), *(run_job(self, *group) for group in groups.items())]
        self.jobs = in_order(jobs, list(self.plan.specs))
        if writes:
            unpack(self.results)
        self.done = {name for name in self.jobs if self.is_done(name)}
        for name in self.jobs.keys() - self.done if writes else ():
            self.marker(name).unlink(missing_ok=True)

    def _plan_of(self, study: Study, file: Path) -> Plan:
        """Return the plan with what a study's own file says.

        Raises:
            UserError: the study has the name of another file of this project.
        """
        known = (STUDIES / f"{self.name}.yaml", CONFIG / f"{self.name}.yaml")
        for own in filter(Path.is_file, known):
            if not file.samefile(own):
                raise UserError(
                    f"{self.name}: is the name of {own}; give study={self.name}, or another name"
                )
        # Relative, so that it holds in a copy of the folder too.
        place = os.path.relpath(file.resolve(), self.results.resolve())
        return replace(
            self.plan, name=self.name, caveat=study.caveat, file=place, words=read_text(file)
        )

    def key_of(self, data: Data) -> str:
        """Return the key of a run's videos."""
        return self._keys.get((data.dataset, data.digest), data.dataset)

    def _place(self, name: str, dataset: Dataset, data: Path) -> None:
        """Note where a dataset is and how it is made."""
        where, published = f"scale {self.scale.name}: datasets.{name}", PUBLISHED.get(name)
        parts = dataset.adapt or (published.derived_from if published else ())
        drawn = dataset.digest if dataset.generate or dataset.adapt else ""
        if dataset.generate:
            self.generated[name] = parse_params(dataset.generate, f"{where}.generate")
            words = ["synthetic", "--params", str(self.params_file(name))]
        elif parts:
            folders = (str(self.places.get(part, "DIR")) for part in parts)
            options = zip(("--source", "--target"), folders)
            words = [name, *(word for option in options for word in option)]
        else:
            words = [name, "--source", self.sources.get(name, "DIR")]
        root = data / f"{dataset.name or name}-{drawn}" if drawn else Path(dataset.root)
        self.places[name] = root
        self.preparation[name] = ["prepare", *words, "--out", str(root)]
        prepared = self.sources.keys() & self.places.keys()
        if drawn or name in self.sources or (parts and prepared >= {*parts}):
            self.built[name] = parts

    def _require_labels(self) -> None:
        """Refuse runs with more labels per class than their generated dataset has videos."""
        for spec in self.plan.specs.values():
            name = self.key_of(spec.data)
            held = self.generated[name].train_per_class if name in self.generated else None
            if held is not None and spec.data.labels_per_class > held:
                raise UserError(
                    f"scale {self.scale.name}: {spec.stage} takes data.labels_per_class "
                    f"{spec.data.labels_per_class}, but a class of {name} has {held} videos"
                )

    def spec_file(self, run_id: str) -> Path:
        return self.results / "specs" / f"{run_id}.json"

    def params_file(self, dataset: str) -> Path:
        return self.results / "datasets" / f"{dataset}.json"

    def threads(self, rule: str, here: int) -> int:
        """Return the threads of a rule's jobs: the cluster's `cpus`, or `here` on this machine."""
        return self.cluster.jobs[rule].cpus if self.cluster else here

    def marker(self, name: str) -> Path:
        """Return the file that marks a job as done.

        It is a job's only declared output, since Snakemake deletes those of a failed job.
        """
        return self.results / "jobs" / name

    def is_done(self, name: str) -> bool:
        """Return whether a job is done: its files exist, or its marker if it makes no files."""
        return all(path.is_file() for path in self.jobs[name].makes or (self.marker(name),))

    def markers(self, names: Iterable[str]) -> list[str]:
        """Return the markers of the jobs in `names` that are not done."""
        return [str(self.marker(name)) for name in names if name not in self.done]

    def markers_of(self, target: str) -> list[str]:
        """Return the markers of the jobs that make a table's or figure's runs."""
        runs = self.plan.runs_of(target)
        return self.markers(dict.fromkeys(self.made_by[spec.run_id] for spec in runs))

    @property
    def targets(self) -> list[str]:
        """Return the tables and figures that can be asked for by name."""
        return list(self.plan.parts)

    def resources(self, rule: str) -> dict[str, Any]:
        """Return the resources that a rule requests from the cluster; none on this machine."""
        return self.cluster.resources(rule) if self.cluster else {}

    def command(self, name: str, threads: int) -> str:
        """Return the shell command of a job.

        On this machine a job ends when Snakemake ends: `exec` makes Snakemake its parent.
        """
        job, log = self.jobs[name], str(self.logs / f"{name}.log")
        words = ["mgm", *job.words, *(["--processes", str(threads)] if job.parallel else [])]
        if self.cluster:
            return f"{self.cluster.command_wrapper(job.rule, log)} {shlex.join(words)}"
        here = [str(WORKFLOW / "here.sh"), log, str(self.results / "jobs.lock")]
        return f"exec {shlex.join([*here, *words])}"

    def lock(self) -> None:
        """Lock these results for this Snakemake until its process ends.

        Jobs of a killed Snakemake hold `jobs.lock` (workflow/here.sh) until they have written a
        checkpoint. This waits for them.

        Raises:
            UserError: another Snakemake works on these results.
        """
        # It holds the lock for as long as this object lives.
        self._locked = ExitStack()
        (self.results / "jobs").mkdir(parents=True, exist_ok=True)
        self._locked.enter_context(folder_lock(self.results / "jobs"))
        waiting = "waiting until the jobs of a killed Snakemake have written checkpoints"
        with (self.results / "jobs.lock").open("w") as file:
            wait_for_lock(file.fileno(), f"{self.name}: {waiting}")

    def is_new(self) -> bool:
        """Return whether the results do not have this plan yet, as it stands."""
        return self.plan.is_new(self.results)

    def start(self) -> None:
        """Write the plan, and the files that jobs read: specs and the generators' parameters.

        Call it once before the first job, under the lock. Unchanged files are left alone.

        Raises:
            UserError: the plan that is there is damaged, or of another scale or study.
        """
        place, own = self.results / FOLDER, self.results.resolve() / self.plan.file
        if (place / SPECS).exists():
            before = read_plan(self.results)
            if bool(before.file) != bool(self.plan.file):
                raise UserError(f"{place}: these results are of a scale or study of the same name")
            owner = self.results.resolve() / before.file
            if owner.is_file() and not owner.samefile(own):
                raise UserError(
                    f"{self.results}: these results are of {owner.resolve()}; give the study of "
                    f"{own.resolve()} another name"
                )
        self.plan.write(self.results)
        files = dict[Path, str]()
        for run_id, spec in self.plan.specs.items():
            files[self.spec_file(run_id)] = spec.model_dump_json(indent=1)
        for dataset, params in self.generated.items():
            files[self.params_file(dataset)] = params.model_dump_json()
        for path, text in files.items():
            if not path.exists() or path.read_text(encoding="utf-8") != text + "\n":
                atomic.write(path, text + "\n")
        if self.given:
            from mgm.stages.parents import link

            for run_id, weights in self.given.items():
                link(weights, self.results / run_id)
        for stale in {*(self.results / "specs").glob("*.json")} - files.keys():
            stale.unlink()


def _named(options: Options) -> tuple[Study | None, Scale]:
    """Return the study, if one is named, and the scale."""
    if not options.study:
        named = options.scale or ("paper" if options.cluster else "smoke")
        return None, load_scale(file_of(named, CONFIG))
    if options.scale:
        raise UserError(
            f"--config study={options.study} has its own scale; leave out scale={options.scale}"
        )
    study = load_study(file_of(options.study, STUDIES))
    present = {
        name
        for name, place in study.datasets.items()
        if name in options.sources or Path(place.root, "index.json").is_file()
    }
    scale = load_scale(file_of(study.scale, CONFIG)) if study.scale else UNSCALED
    return study.without_absent(present), scale
