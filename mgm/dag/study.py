"""The workflow of one scale: its registry, the folders of its data, and its jobs.

The Snakefile builds it in every process, so importing it must not import torch.
"""

import shlex
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, nullcontext
from itertools import count
from pathlib import Path
from typing import Any

from mgm.dag import WORKFLOW
from mgm.dag.cluster import load_cluster
from mgm.dag.config import Config, parse_config
from mgm.dag.jobs import (
    batches,
    dataset_jobs,
    in_order,
    prioritised,
    rebuild_job,
    run_job,
    weights_jobs,
)
from mgm.data.index import read_index
from mgm.data.synthetic.params import Synthetic, parse_params
from mgm.errors import UserError
from mgm.paper import CONFIG, STUDIES
from mgm.paper.comparison import load_study, scale_of
from mgm.paper.scales import Dataset, Scale, file_of, load_scale
from mgm.paper.suite import make_registry
from mgm.results import atomic
from mgm.results.archive import unpack
from mgm.results.lock import folder_lock, wait_for_flock
from mgm.spec import OWN, PUBLISHED

# Datasets that jobs can prepare from a user's downloads, and datasets made from others.
PREPARED = tuple(name for name, dataset in PUBLISHED.items() if not dataset.derived_from)
DERIVED = {
    name: dataset.derived_from for name, dataset in PUBLISHED.items() if dataset.derived_from
}


def scale_file(scale: str, study: str = "") -> Path:
    """Return the file of a scale, or of the scale that a study names."""
    return file_of((study and load_study(file_of(study, STUDIES)).scale) or scale, CONFIG)


class Workflow:
    """The experiments of one scale under one name.

    The constructor writes nothing, except the index of a user's own videos.

    Args:
        config: the options of `snakemake --config` (`mgm.dag.config`). Without `cluster`, jobs run
            on this machine.
        index_videos: index new and changed videos of `--config videos=DIR`. If False, use the
            existing index.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        results: Path = Path("results"),
        reports: Path = Path("reports"),
        data: Path = Path("data"),
        index_videos: bool = True,
    ):
        options = parse_config(config)
        given = options.model_dump(include={"flow_weights", "weights"}, exclude_unset=True)
        self.cluster = load_cluster(options.cluster) if options.cluster is not None else None
        sources = {} if options.videos is not None else self._sources(options)
        prepared_in = self.cluster.data if self.cluster else {}
        if options.study:
            study = load_study(file_of(options.study, STUDIES))
            there = {
                name
                for name, place in study.datasets.items()
                if name in sources
                or Path(prepared_in.get(name, place.root), "index.json").is_file()
            }
            scale = scale_of(study.without_absent(there), size=options.gpu)
        else:
            scale = load_scale(file_of(options.scale, CONFIG), given, options.gpu)
        if options.steps:
            scale = scale.shortened(options.steps)
        # The downloads of the published datasets that jobs prepare.
        self.sources = {
            name: source
            for name, source in sources.items()
            if name in scale.datasets and not scale.datasets[name].generate
        }
        for name, source in self.sources.items():
            if not Path(source).exists():
                raise UserError(f"sources: {name}: {source} does not exist; correct the path")
        self.yes = options.yes
        if unknown := sorted(set(prepared_in) - {*PREPARED, *DERIVED}):
            raise UserError(
                f"cluster: data.{unknown[0]}: is not a published dataset; choose from "
                f"{', '.join((*PREPARED, *DERIVED))}"
            )
        scale = scale.placed(prepared_in)
        self.name = options.name or scale.name
        self.results, self.reports = results / self.name, reports / self.name
        self.logs = Path("logs") / self.name
        # Holds the lock for as long as this object lives.
        self._locked: ExitStack | None = None
        # Each dataset with the folder of its index.
        self.places: dict[str, Path] = {}
        # Each generated dataset with its generator's parameters as JSON.
        self.generated: dict[str, str] = {}
        # Each derived dataset with the datasets that it is made from.
        self.derived: dict[str, tuple[str, ...]] = {}
        if options.videos is not None and options.sources:
            raise UserError(
                "--config sources: names published datasets, and "
                f"videos={options.videos} replaces them; leave one of the two out"
            )
        self.shards = options.shards or (self.cluster.shards if self.cluster else 1)
        # Run ids, each with the weights that the user gives for a row of a table.
        self.external: dict[str, Path] = {}
        if scale.weights:
            # This imports torch.
            from mgm.stages.parents import external_run_id

            self.external = dict(
                external_run_id(path, f"weights: {row}", row) for row, path in scale.weights.items()
            )
        scale = scale.model_copy(update={"weights": dict(zip(scale.weights, self.external))})
        if options.videos is not None:
            if self.name == scale.name:
                raise UserError(
                    f"--config name={options.name}: is the scale's own name, so results would "
                    "mix; choose another name"
                    if options.name
                    else f"--config videos={options.videos}: has no name, so its results would mix "
                    f"with those of scale {self.name}; add name=..."
                )
            scale = self._own(scale, Path(options.videos), data, index_videos)
        else:
            scale = self._filled(scale, data)
        self.scale = scale
        self.registry = make_registry(scale)
        self._require_labels()
        of_job = batches(self.registry)
        self.made_by = {spec.run_id: name for name, specs in of_job.items() for spec in specs}
        # Finished runs whose weights are computed again, each with its job.
        self.rebuilt = weights_jobs(self.registry, self.results)
        jobs = [
            *dataset_jobs(self),
            *(rebuild_job(self, run_id) for run_id in reversed(self.rebuilt)),
            *(run_job(self, name, specs) for name, specs in of_job.items()),
        ]
        rank = {run_id: place for place, run_id in enumerate(self.registry.specs)}
        self.jobs = in_order(jobs, rank) if scale.study else prioritised(jobs)
        self.done = {name for name in self.jobs if self.is_done(name)}
        self._markers = {name: self._free_marker(name) for name in self.jobs.keys() - self.done}

    def _own(self, scale: Scale, videos: Path, data: Path, index_videos: bool) -> Scale:
        from mgm.data.folder import index_folder

        prepared = (videos / "index.json").is_file()
        self.places[OWN] = place = videos if prepared else data / self.name
        if prepared:
            index = read_index(videos)
        elif index_videos:
            # Another Snakemake on these results may be reading this index.
            jobs = self.results / "jobs"
            with folder_lock(jobs) if jobs.is_dir() else nullcontext():
                index = index_folder(videos, place)
        elif (place / "index.json").is_file():
            index = read_index(place)
        else:
            raise UserError(
                f"--config videos={videos}: has no index, and a dry run opens no videos; run"
                f" `mgm prepare folder --source {shlex.quote(str(videos))} --out "
                f"{shlex.quote(str(place))}` first"
            )
        dataset = Dataset(
            root=str(videos),
            digest=index.digest,
            grouped=index.grouped,
            several_labels=index.several_labels,
        )
        own = {OWN: dataset}
        # Some masks of other papers need optical flow, which shards do not contain.
        return scale.model_copy(update={"datasets": own, "other_masks": False})

    def _filled(self, scale: Scale, data: Path) -> Scale:
        datasets: dict[str, Dataset] = {}
        for name, dataset in scale.datasets.items():
            if dataset.generate:
                params = parse_params(
                    dataset.generate, f"scale {scale.name}: datasets.{name}.generate"
                )
                self.generated[name] = params.model_dump_json()
                digest = params.digest
            elif dataset.adapt:
                from mgm.data.published.derived import pda_digest

                if unknown := [other for other in dataset.adapt if other not in datasets]:
                    raise UserError(
                        f"scale {scale.name}: datasets.{name}.adapt names {unknown[0]}, which is "
                        "not a dataset above it"
                    )
                self.derived[name] = dataset.adapt
                digest = pda_digest(name, *(datasets[other].digest for other in dataset.adapt))
            else:
                self.places[name] = Path(dataset.root)
                datasets[name] = dataset
                if name in DERIVED and {*DERIVED[name]} <= {*self.sources}:
                    self.derived[name] = DERIVED[name]
                continue
            self.places[name] = data / f"{dataset.name or name}-{digest}"
            datasets[name] = dataset.model_copy(update={"digest": digest})
        return scale.model_copy(update={"datasets": datasets})

    def _require_labels(self) -> None:
        """Refuse runs with more labels per class than their generated dataset has videos.

        Raises:
            UserError: such a run. The error names both fields.
        """
        given = {
            name: Synthetic.model_validate_json(params).train_per_class
            for name, params in self.generated.items()
        }
        for spec in self.registry.specs.values():
            wanted, dataset = spec.data.labels_per_class, self.scale.key_of(spec.data)
            if wanted > (held := given.get(dataset, wanted)):
                raise UserError(
                    f"scale {self.scale.name}: {spec.stage} takes data.labels_per_class {wanted}, "
                    f"but datasets.{dataset}.generate.train_per_class is {held}; lower the first "
                    "or raise the second"
                )

    def _sources(self, options: Config) -> dict[str, str]:
        """Return the downloads that the user gives for published datasets.

        Raises:
            UserError: a dataset cannot be prepared by jobs.
        """
        if options.sources is not None:
            given = options.sources
        else:
            given = self.cluster.sources if self.cluster else {}
        short = {"ucf101": options.ucf101, "hmdb51": options.hmdb51}
        given = {**given, **{name: source for name, source in short.items() if source}}
        if unknown := sorted(set(given) - set(PREPARED)):
            raise UserError(
                f"sources: {unknown[0]}: cannot be prepared by jobs; choose from "
                f"{', '.join(PREPARED)}"
            )
        return given

    def threads(self, kind: str, here: int) -> int:
        """Return the threads of a rule's jobs: the cluster's `cpus`, or `here` on this machine."""
        return self.cluster.jobs[kind].cpus if self.cluster else here

    def start(self) -> None:
        """Write the files that jobs read: the scale, the specs and the generators' parameters.

        Call it once before the first job, under the lock. Unchanged files are left alone.
        """
        unpack(self.results)
        files = {self.results / "scale.json": self.scale.model_dump_json(indent=1)}
        files |= {
            self.spec_file(run_id): spec.model_dump_json(indent=1)
            for run_id, spec in self.registry.specs.items()
        }
        files |= {self.params_file(dataset): params for dataset, params in self.generated.items()}
        for path, text in files.items():
            if not path.exists() or path.read_text() != text + "\n":
                atomic.write(path, text + "\n")
        if self.external:
            from mgm.stages.parents import link

            for run_id, weights in self.external.items():
                link(weights, self.results / run_id)
        for stale in set((self.results / "specs").glob("*.json")) - set(files):
            stale.unlink()
        for marker in (self.results / "jobs").glob("*-*"):
            if self.job_of(marker.name) not in self.done:
                marker.unlink()

    def is_done(self, name: str) -> bool:
        """Return whether a job is done: its files exist, or its marker if it makes no files."""
        job = self.jobs[name]
        return (
            all(path.is_file() for path in job.makes)
            if job.makes
            else (self.results / "jobs" / job.name).exists()
        )

    def lock(self) -> None:
        """Lock these results for this Snakemake until its process ends.

        Jobs of a killed Snakemake hold `jobs.lock` (workflow/here.sh) until they have written a
        checkpoint. This waits for them.

        Raises:
            UserError: another Snakemake works on these results.
        """
        if self._locked:
            return
        self._locked = ExitStack()
        (self.results / "jobs").mkdir(parents=True, exist_ok=True)
        self._locked.enter_context(folder_lock(self.results / "jobs"))
        with (self.results / "jobs.lock").open("w") as file:
            wait_for_flock(
                file,
                f"{self.name}: waiting until the jobs of a killed Snakemake have written "
                "checkpoints",
            )

    def spec_file(self, run_id: str) -> Path:
        return self.results / "specs" / f"{run_id}.json"

    def params_file(self, dataset: str) -> Path:
        return self.results / "datasets" / f"{dataset}.json"

    @property
    def built_datasets(self) -> list[str]:
        """Return the datasets that jobs make. Users prepare the others."""
        return list(dict.fromkeys([*self.generated, *self.sources, *self.derived]))

    def markers(self, names: Iterable[str]) -> list[str]:
        """Return the markers of the jobs in `names` that are not done.

        The marker is a job's only declared output, since Snakemake deletes the declared outputs of
        a failed job.
        """
        return [self._markers[name] for name in names if name not in self.done]

    def _free_marker(self, name: str) -> str:
        """Return the marker that a job will write: JOB, or JOB~2, JOB~3, ... if JOB exists.

        If a user deletes results, their marker still exists. The job must then write another one.
        """
        folder = self.results / "jobs"
        names = (name if part == 1 else f"{name}~{part}" for part in count(1))
        return str(folder / next(one for one in names if not (folder / one).exists()))

    def job_of(self, marker: str) -> str:
        """Return the name of a marker's job."""
        return marker.partition("~")[0]

    def needed_by(self, target: str) -> list[str]:
        """Return the inputs of a table or figure: existing results, and markers of the others."""
        runs = self.registry.runs_of(target)
        there = (self.results / spec.run_id / "result.json" for spec in runs)
        return [*self.markers_of(target), *(str(path) for path in there if path.is_file())]

    def markers_of(self, target: str) -> list[str]:
        """Return the markers of the jobs that make a table's or figure's runs."""
        runs = self.registry.runs_of(target)
        return self.markers(dict.fromkeys(self.made_by[spec.run_id] for spec in runs))

    def command_wrapper(self, name: str) -> str:
        """Return the shell code before a job's command.

        On a cluster it starts the job's processes. On this machine it makes the job end when
        Snakemake ends: `exec` makes Snakemake the parent of the job.
        """
        log = str(self.logs / f"{name}.log")
        if self.cluster:
            return self.cluster.command_wrapper(self.jobs[name].rule, log)
        return "exec " + shlex.join(
            [str(WORKFLOW / "here.sh"), log, str(self.results / "jobs.lock")]
        )

    def resources(self, rule: str) -> dict[str, Any]:
        """Return the resources that a rule requests from the cluster; none on this machine."""
        return self.cluster.resources(rule) if self.cluster else {}

    def preparation(self, name: str) -> list[str]:
        """Return the words after `mgm` that prepare a dataset, without `--out`."""
        if name in self.generated:
            return ["prepare", "synthetic", "--params", str(self.params_file(name))]
        parts = self.derived.get(name) or DERIVED.get(name)
        if not parts:
            return ["prepare", name, "--source", self.sources.get(name, "DIR")]
        options = [
            word
            for option, part in zip(("source", "target"), parts)
            for word in (f"--{option}", str(self.places[part]))
        ]
        return ["prepare", name, *options]
