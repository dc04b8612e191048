"""The workflow of one scale or study: its options, datasets and jobs, and the files that jobs read.

The Snakefile builds it in every process, so importing this must not import torch.
"""

import os
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from mgm.dag.cluster import load_cluster
from mgm.dag.jobs import DagJob, flow_of, grouped, in_order
from mgm.dag.options import PREPARED, DagOptions, named
from mgm.data.synthetic.params import Synthetic, parse_params
from mgm.errors import UserError, nearest, valid
from mgm.reading import read_text
from mgm.report.views import check_views
from mgm.results import atomic
from mgm.results.archive import unpack
from mgm.results.lock import folder_lock, wait_for_lock
from mgm.results.plan import FOLDER, SPECS, RunPlan, read_plan
from mgm.results.result import examine
from mgm.spec import PUBLISHED, Data, LoadOptions, RunOptions, Spec, parents
from mgm.study import CONFIG, STUDIES, WORKFLOW
from mgm.study.expand import Layers, expand
from mgm.study.load import of_paper
from mgm.study.scales import ScaleDataset, file_of
from mgm.study.schema import Study
from mgm.study.videos import datasets_of


class Workflow:
    """The experiments of one scale or study, and the jobs that run them.

    Args:
        config: the options of `snakemake --config` (`DagOptions`).
        writes: unpack archived results, and delete markers of results that were deleted.
            Otherwise the constructor writes nothing.
        examines: a job is done only if the results of its runs are valid, as a report asks. It
            takes about 3 ms per run.

    Attributes:
        sources: published datasets that jobs prepare, each with the folder of its download.
        places: each dataset with the folder of its index.
        generated: each generated dataset with its parameters.
        built: the datasets that jobs make, each with those it is made from.
        preparation: the words after `mgm` that make each dataset.
        layers: where the fields of each run come from.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        results: Path = Path("results"),
        reports: Path = Path("reports"),
        data: Path = Path("data"),
        writes: bool = False,
        examines: bool = False,
    ):
        self.examines = examines
        with valid("--config ", f"the options are {', '.join(DagOptions.model_fields)}"):
            self.options = options = DagOptions.model_validate(dict(config))
        self.cluster = load_cluster(options.cluster) if options.cluster else None
        self.sources = options.sources
        study, self.scale = named(options)
        studies = [study] if study else of_paper(self.scale)
        for one in studies:
            check_views(one)
        self.name = study.study if study else self.scale.name
        self.results, self.reports = results / self.name, reports / self.name
        self.logs = Path("logs") / self.name
        self.expected_cost = study.expected_cost if study else self.scale.expected_cost
        self.specs_per_job = (study and study.specs_per_job) or self.scale.specs_per_job
        self.execution = (study and study.execution) or self.scale.execution
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
        self.layers: Layers = {}
        self.plan = expand(studies, self.scale, self.datasets, self.layers)
        if study:
            self.plan = self._plan_of(study, file_of(options.study, STUDIES))
        elif (own := STUDIES / f"{self.name}.yaml").is_file():
            raise UserError(
                f"{self.name}: is the name of {own}; give study={self.name}, or another name"
            )
        self._require_labels()

        groups = grouped(self.plan, self.specs_per_job, self.datasets, self.key_of)
        self.made_by = {spec.run_id: name for name, specs in groups.items() for spec in specs}
        jobs = [*self._dataset_jobs(), *(self._run_job(*group) for group in groups.items())]
        self.jobs = in_order(jobs, list(self.plan.specs))
        if writes:
            unpack(self.results)
        self.done = {name for name in self.jobs if self.is_done(name)}
        for name in self.jobs.keys() - self.done if writes else ():
            self.marker(name).unlink(missing_ok=True)

    def _plan_of(self, study: Study, file: Path) -> RunPlan:
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

    def _place(self, name: str, dataset: ScaleDataset, data: Path) -> None:
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

    def _dataset_jobs(self) -> list[DagJob]:
        """Return the jobs that make datasets and optical flow."""
        built, jobs = self.built, list[DagJob]()
        for name, made_from in built.items():
            words, job = self.preparation[name], f"prepare-{name}"
            place, after = (
                self.places[name],
                [f"prepare-{part}" for part in made_from if part in built],
            )
            # On this machine one process draws a dataset: two would wait for each other.
            parallel, threads = name in self.generated, 1
            # A study reads its videos as they are, which must have motion vectors.
            if name in self.sources and not self.plan.file:
                words, threads, parallel = [*words, "--copy", "mp4"], 0, True
            index = [place / "index.json"]
            threads = self.threads("prepare", threads) if parallel else 1
            jobs += [DagJob(job, words, index, after, threads=threads, parallel=parallel)]
        specs = self.plan.specs.values()
        flows = {flow_of(spec, self.key_of(spec.data)) for spec in specs}
        for name, method in sorted(flow for flow in flows if flow):
            place = self.places[name]
            jobs += [
                DagJob(
                    f"flow-{name}-{method}",
                    ["track", str(place), "--method", method],
                    [place / f"tracks-{method}.json"],
                    [f"prepare-{name}"] if name in built else [],
                    threads=self.threads("flow", 1),
                    parallel=True,
                )
            ]
        return jobs

    def _run_job(self, name: str, specs: Sequence[Spec]) -> DagJob:
        """Return the job of these runs."""
        stage, made_by = specs[0].stage, self.made_by
        key_of = {spec.run_id: self.key_of(spec.data) for spec in specs}
        keys = sorted({*key_of.values()})
        words = [stage, *(str(self.spec_file(spec.run_id)) for spec in specs)]
        for key in keys:
            words += ["--data", f"{self.datasets[key].name or key}={self.places[key]}"]
        words += ["--out", str(self.results)]
        options = self.options_of(stage)
        words += options.words(options_read_by(stage))
        after = {made_by[parent] for spec in specs for parent in parents(spec) if parent in made_by}
        after |= {f"prepare-{key}" for key in keys if key in self.built}
        flows = (flow_of(spec, key_of[spec.run_id]) for spec in specs)
        after |= {"flow-{}-{}".format(*flow) for flow in flows if flow}
        threads = self.threads(stage, options.threads)
        makes = [self.results / spec.run_id / "result.json" for spec in specs]
        return DagJob(name, words, makes, sorted(after), specs, threads)

    def options_of(self, stage: str) -> RunOptions:
        """Return the options of a stage's jobs: the scale's or the study's, then the cluster's."""
        options = self.execution
        return options.changed(self.cluster.jobs[stage]) if self.cluster else options

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
        job = self.jobs[name]
        if not all(path.is_file() for path in job.makes or (self.marker(name),)):
            return False
        asked = job.specs if self.examines else ()
        return all(examine(self.results / x.run_id, x).state == "finished" for x in asked)

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
        """Return the resources that a rule requests from the cluster, or one GPU of this machine.

        Without a GPU, Snakemake has no limit of them.
        """
        if self.cluster:
            return self.cluster.resources(rule)
        return {"gpus": 1} if rule not in ("prepare", "flow") else {}

    def words(self, name: str, threads: int) -> str:
        """Return the words after `mgm` of a job's command."""
        job = self.jobs[name]
        return shlex.join([*job.words, *(["--processes", str(threads)] if job.parallel else [])])

    def launcher(self, name: str) -> str:
        """Return the shell code before a job's command.

        On this machine a job ends when Snakemake ends: `exec` makes Snakemake its parent.
        """
        log = str(self.logs / f"{name}.log")
        if self.cluster:
            return self.cluster.command_wrapper(self.jobs[name].rule, log)
        here = [str(WORKFLOW / "here.sh"), log, str(self.results / "jobs.lock")]
        if self.resources(self.jobs[name].rule):
            here.append(str(WORKFLOW / "gpu.sh"))
        return f"exec {shlex.join(here)}"

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
        for stale in {*(self.results / "specs").glob("*.json")} - files.keys():
            stale.unlink()


def options_read_by(stage: str) -> Collection[str]:
    """Return the names of the options that a stage's command has."""
    kind = RunOptions if stage in ("pretrain", "finetune") else LoadOptions
    return kind.model_fields
