"""What the Snakefile knows:

the scale and its registry, where data lies, and the jobs that make every run. No torch.
"""

import re
import shlex
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mgm.dag.batches import Job, batches, flow_of, in_order, prioritised
from mgm.dag.cluster import Cluster, load_cluster
from mgm.dag.config import Config, parse_config
from mgm.dag.files import WORKFLOW
from mgm.data.published import PUBLISHED
from mgm.data.synthetic.params import Synthetic, parse_params
from mgm.errors import UserError
from mgm.paper.grid import rank
from mgm.paper.scales import OWN, Dataset, Scale, load_scale
from mgm.paper.suite import make_registry
from mgm.results import files as atomic
from mgm.results.archive import unpack
from mgm.results.lock import folder_lock, wait_for_flock
from mgm.results.log import log_lines
from mgm.spec import LoadOptions, RunOptions, Spec, parents

CONFIG = WORKFLOW / "config"
PREPARED = tuple(
    name for name, dataset in PUBLISHED.items() if not dataset.derived_from
)  # from what their users downloaded
DERIVED = {
    name: dataset.derived_from for name, dataset in PUBLISHED.items() if dataset.derived_from
}


class Workflow:
    """The experiments of one scale under one name.

    `config` is Snakemake's; `mgm.dag.config` says what it takes. Without `cluster`, jobs run on
    this machine.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        results: Path = Path("results"),
        reports: Path = Path("reports"),
        data: Path = Path("data"),
    ):
        options = parse_config(config)
        own = options.scale.endswith((".yaml", ".yml"))
        given = options.model_dump(include={"flow_weights", "weights"}, exclude_unset=True)
        path = Path(options.scale) if own else CONFIG / f"{options.scale}.yaml"
        scale = load_scale(path, given, options.gpu)
        if options.steps:
            scale = _shortened(scale, options.steps)
        self.yes = options.yes
        self.cluster = (
            load_cluster(options.cluster, options.partition, options.account)
            if options.cluster is not None
            else None
        )
        scale = _placed(scale, self.cluster) if self.cluster else scale
        self.name = options.name or scale.name
        self.results, self.reports, self.logs = (
            results / self.name,
            reports / self.name,
            Path("logs") / self.name,
        )
        self.places: dict[str, Path] = {}  # dataset: the folder of its index
        self.generated: dict[str, str] = {}  # dataset: its generator's parameters as JSON
        self.derived: dict[str, tuple[str, ...]] = {}  # dataset: those it is made of
        if options.videos is not None and options.sources:
            raise UserError(
                "--config sources: are of published datasets, whose place videos="
                f"{options.videos} takes; leave one of the two out"
            )
        self.sources = {} if options.videos is not None else self._sources(options, scale)
        self.shards = options.shards or (self.cluster.shards if self.cluster else 1)
        self.external: dict[
            str, Path
        ] = {}  # run id: the weights of a table's row that a user gives
        if scale.weights:
            from mgm.stages.initial_weights import (
                external_run_id,
            )  # torch, but for those alone who give weights

            self.external = dict(
                external_run_id(path, f"weights: {row}", row) for row, path in scale.weights.items()
            )
        scale = scale.model_copy(update={"weights": dict(zip(scale.weights, self.external))})
        if options.videos is not None:
            if self.name == scale.name:
                raise UserError(
                    f"--config name={options.name}: is the scale's own name, and results would mix; choose another name"
                    if options.name
                    else f"--config videos={options.videos}: needs a name of its own, lest results mix with {self.name}'s; add name=..."
                )
            scale = self._own(scale, Path(options.videos), data)
        else:
            scale = self._filled(scale, data)
        if scale.grid:
            scale = self._without_absent(scale)
        self.scale = scale
        self.registry = make_registry(scale)
        self._require_labels()
        self._locked = ExitStack()  # lives as long as this object
        of_job = batches(self.registry)
        made_by = {spec.run_id: name for name, specs in of_job.items() for spec in specs}
        jobs = [
            *self._dataset_jobs(),
            *(self._run_job(name, specs, made_by) for name, specs in of_job.items()),
        ]
        self.jobs = in_order(jobs, rank(self.registry)) if scale.grid else prioritised(jobs)

    def _own(self, scale: Scale, videos: Path, data: Path) -> Scale:
        from mgm.data.folder import index_folder
        from mgm.data.index import read_index

        prepared = (videos / "index.json").is_file()
        self.places[OWN] = place = videos if prepared else data / self.name
        index = read_index(videos) if prepared else index_folder(videos, place)
        grouped = len({video.group for video in index.train}) < len(index.train)
        own = {OWN: Dataset(root=str(videos), digest=index.digest, grouped=grouped)}
        # other papers' masks want optical flow, which lies beside files and not in shards
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
                from mgm.data.published.pda import pda_digest

                if unknown := [other for other in dataset.adapt if other not in datasets]:
                    raise UserError(
                        f"scale {scale.name}: datasets.{name}.adapt names {unknown[0]}, which is not a dataset above it"
                    )
                self.derived[name] = dataset.adapt
                digest = pda_digest(name, *(datasets[other].digest for other in dataset.adapt))
            else:
                self.places[name] = Path(dataset.root)
                datasets[name] = dataset
                if name in DERIVED and {*DERIVED[name]} <= {*self.sources}:
                    self.derived[name] = DERIVED[name]
                continue
            self.places[name] = data / f"{name}-{digest}"
            datasets[name] = dataset.model_copy(update={"digest": digest})
        return scale.model_copy(update={"datasets": datasets})

    def _without_absent(self, scale: Scale) -> Scale:
        """Leave out the transfer datasets that nobody gave: the rest is complete without them."""
        assert scale.grid
        there = {
            name
            for name in scale.datasets
            if name in self.sources or (self.places[name] / "index.json").exists()
        }
        transfer = tuple(name for name in scale.grid.transfer if name in there)
        grid = scale.grid.model_copy(update={"transfer": transfer})
        kept = {grid.data, *transfer}
        datasets = {name: one for name, one in scale.datasets.items() if name in kept}
        self.places = {name: place for name, place in self.places.items() if name in kept}
        return scale.model_copy(update={"grid": grid, "datasets": datasets})

    def _require_labels(self) -> None:
        """Refuse, before any training, runs that take more labels a class than their generated
        videos have.
        """
        given = {
            name: Synthetic.model_validate_json(params).train_per_class
            for name, params in self.generated.items()
        }
        for spec in self.registry.specs.values():
            wanted, dataset = spec.data.labels_per_class, spec.data.dataset
            if wanted > (held := given.get(dataset, wanted)):
                raise UserError(
                    f"scale {self.scale.name}: {spec.verb} takes data.labels_per_class {wanted}, but "
                    f"datasets.{dataset}.generate.train_per_class is {held}; lower the one or raise the other"
                )

    def _sources(self, options: Config, scale: Scale) -> dict[str, str]:
        """Find where the published datasets were downloaded to, of those that are to be prepared
        here.
        """
        given = (
            options.sources
            if options.sources is not None
            else self.cluster.sources
            if self.cluster
            else {}
        )
        short = {"ucf101": options.ucf101, "hmdb51": options.hmdb51}
        given = {**given, **{name: source for name, source in short.items() if source}}
        if unknown := sorted(set(given) - set(PREPARED)):
            raise UserError(
                f"sources: {unknown[0]}: cannot be prepared by jobs; choose from {', '.join(PREPARED)}"
            )
        here = {
            name: given[name]
            for name in given
            if name in scale.datasets and not scale.datasets[name].generate
        }
        for name, source in here.items():
            if not Path(source).exists():
                raise UserError(f"sources: {name}: {source} is not there; correct the path")
        return here

    def _dataset_jobs(self) -> list[Job]:
        """What makes the generated datasets, the published ones under `sources`, those made of
        others, and optical flow.
        """
        every = self._threads("prepare", 0)
        jobs = []
        for name in self.built_datasets:
            place, words = self.places[name], tuple(self.preparation(name))
            job, index = f"prepare-{name}", (place / "index.json",)
            # A grid's datasets are small and have vectors: their files are read as they are.
            if name in self.sources and not self.scale.grid:
                source = (*words, "--out", str(place / "source"))
                jobs.append(
                    Job(f"{job}-source", "prepare", source, (place / "source" / "index.json",))
                )
                words = (*words, "--out", str(place), "--transcode")
                shards = {
                    f"{job}-{part}-of-{self.shards}": f"{part}/{self.shards}"
                    for part in range(1, self.shards + 1)
                }
                for shard, part in shards.items():
                    jobs.append(
                        Job(
                            shard,
                            "prepare",
                            (*words, "--shard", part),
                            (),
                            (f"{job}-source",),
                            threads=every,
                            parallel=True,
                        )
                    )
                jobs.append(Job(job, "prepare", words, index, tuple(shards), parallel=True))
            else:
                after = tuple(
                    f"prepare-{part}"
                    for part in self.derived.get(name, ())
                    if part in self.built_datasets
                )
                drawn = (
                    name in self.generated
                )  # by one process here: two would wait for each other, with a core idle
                words = (*words, "--out", str(place))
                jobs.append(
                    Job(
                        job,
                        "prepare",
                        words,
                        index,
                        after,
                        threads=every or 1 if drawn else 1,
                        parallel=drawn,
                    )
                )
        weights = ("--weights", self.scale.flow_weights) if self.scale.flow_weights else ()
        for name, method in sorted(
            {flow for spec in self.registry.specs.values() if (flow := flow_of(spec))}
        ):
            makes, words = (
                (self.places[name] / f"flow-{method}.json",),
                (str(self.places[name]), "--method", method, *weights),
            )
            after = (f"prepare-{name}",) if name in self.built_datasets else ()
            jobs.append(
                Job(
                    f"flow-{name}-{method}",
                    "flow",
                    words,
                    makes,
                    after,
                    threads=self._threads("flow", 1),
                    parallel=True,
                )
            )
        return jobs

    def _threads(self, kind: str, here: int) -> int:
        return self.cluster.jobs[kind].cpus if self.cluster else here

    def _run_job(self, name: str, specs: list[Spec], made_by: Mapping[str, str]) -> Job:
        here, verb = self.scale.execution, specs[0].verb
        datasets = sorted({spec.data.dataset for spec in specs})
        words = [str(self.spec_file(spec.run_id)) for spec in specs]
        words += [
            word for dataset in datasets for word in ("--data", f"{dataset}={self.places[dataset]}")
        ]
        words += ["--out", str(self.results)]
        if verb == "measure" and self.scale.flow_weights:
            words += ["--weights", self.scale.flow_weights]
        options = here.changed(self.cluster.jobs[verb]) if self.cluster else here
        kind = RunOptions if verb in ("pretrain", "finetune") else LoadOptions
        words += options.words(kind.model_fields)
        after = {made_by[parent] for spec in specs for parent in parents(spec) if parent in made_by}
        after |= {f"prepare-{dataset}" for dataset in datasets if dataset in self.built_datasets}
        after |= {"flow-{}-{}".format(*flow) for spec in specs if (flow := flow_of(spec))}
        makes = tuple(self.results / spec.run_id / "result.json" for spec in specs)
        return Job(
            name,
            verb,
            tuple(words),
            makes,
            tuple(sorted(after)),
            tuple(specs),
            # A grid's runs take one GPU in turn, so each of them takes every core.
            self._threads(verb, 0 if self.scale.grid else here.threads),
        )

    def write(self) -> None:
        """Write the scale, every spec and every generator's parameters, as files for jobs to read.

        Unchanged files are left alone.
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
            from mgm.stages.initial_weights import link

            for run_id, weights in self.external.items():
                link(weights, self.results / run_id)
        for stale in set((self.results / "specs").glob("*.json")) - set(files):
            stale.unlink()
        self._mark()

    def _mark(self) -> None:
        """Let each job's marker agree with the files it stands for: deleted results are made anew,
        those that came otherwise stay.

        A marker is all that a job declares to Snakemake, which deletes what a failed job declares.
        """
        folder = self.results / "jobs"
        folder.mkdir(parents=True, exist_ok=True)
        for job in self.jobs.values():
            if not job.makes:
                continue
            if not all(path.is_file() for path in job.makes):
                (folder / job.name).unlink(missing_ok=True)
            elif not (folder / job.name).exists():
                (folder / job.name).touch()

    def lock(self) -> None:
        """Be the one Snakemake that works on these results, until this process ends, however it
        does.

        Jobs of one that was killed are waited for: they leave a checkpoint, and hold `jobs.lock`
        meanwhile (workflow/here.sh).

        Raises:
            UserError: another one is at work.
        """
        self._locked.enter_context(folder_lock(self.results / "jobs"))
        with (self.results / "jobs.lock").open("w") as file:
            wait_for_flock(
                file,
                f"{self.name}: waiting for the jobs of a Snakemake that was killed; they leave checkpoints",
            )

    def spec_file(self, run_id: str) -> Path:
        return self.results / "specs" / f"{run_id}.json"

    def params_file(self, dataset: str) -> Path:
        return self.results / "datasets" / f"{dataset}.json"

    @property
    def built_datasets(self) -> list[str]:
        """Datasets that jobs make; the others are a user's to prepare."""
        return list(dict.fromkeys([*self.generated, *self.sources, *self.derived]))

    def markers(self, names: Iterable[str]) -> list[str]:
        """Files that say that these jobs are done."""
        return [str(self.results / "jobs" / name) for name in names]

    def markers_of(self, target: str) -> list[str]:
        """Markers of the jobs that make a table's or figure's runs."""
        wanted = {spec.run_id for spec in self.registry.runs_of(target)}
        return self.markers(
            job.name
            for job in self.jobs.values()
            if any(spec.run_id in wanted for spec in job.specs)
        )

    def command_wrapper(self, name: str) -> str:
        """What stands before a job's command, as shell code: on a cluster what starts its
        processes, here what ends it with Snakemake.

        `exec` here, so that its parent is Snakemake, whose end it is told of.
        """
        log = str(self.logs / f"{name}.log")
        if self.cluster:
            return self.cluster.command_wrapper(self.jobs[name].rule, log)
        return "exec " + shlex.join(
            [str(WORKFLOW / "here.sh"), log, str(self.results / "jobs.lock")]
        )

    def resources(self, rule: str) -> dict[str, Any]:
        """What a rule asks of a cluster; nothing of this machine."""
        return self.cluster.resources(rule) if self.cluster else {}

    def preparation(self, name: str) -> list[str]:
        """What follows `mgm prepare` for a dataset, but for `--out`."""
        if name in self.generated:
            return ["synthetic", "--params", str(self.params_file(name))]
        parts = self.derived.get(name) or DERIVED.get(name)
        if not parts:
            return [name, "--source", self.sources.get(name, "DIR")]
        options = [
            word
            for option, part in zip(("source", "target"), parts)
            for word in (f"--{option}", str(self.places[part]))
        ]
        return [name, *options]


def _shortened(scale: Scale, steps: int) -> Scale:
    """Cut every training run to `steps`; warm-up keeps its share."""
    overrides = {
        verb: {**scale.overrides.get(verb, {}), "optim.steps": steps}  # type: ignore[call-overload]
        for verb in ("pretrain", "finetune")
    }
    return scale.model_copy(update={"steps": None, "overrides": {**scale.overrides, **overrides}})


def _placed(scale: Scale, cluster: Cluster) -> Scale:
    """The scale, with its datasets where the cluster has them."""
    if unknown := sorted(set(cluster.data) - {*PREPARED, *DERIVED}):
        raise UserError(
            f"cluster: data.{unknown[0]}: is no published dataset; choose from {', '.join((*PREPARED, *DERIVED))}"
        )
    datasets = {
        name: dataset.model_copy(update={"root": cluster.data.get(name, dataset.root)})
        for name, dataset in scale.datasets.items()
    }
    return scale.model_copy(update={"datasets": datasets})


def overview(workflow: Workflow) -> str:
    """What the DAG will do and take, said before it starts."""
    specs = workflow.registry.specs
    verbs = Counter(spec.verb for spec in specs.values())
    done = sum((workflow.results / run_id / "result.json").exists() for run_id in specs)
    jobs = sum(
        not job.makes or not all(path.is_file() for path in job.makes)
        for job in workflow.jobs.values()
    )
    return (
        f"{workflow.name}: {len(specs)} runs ({', '.join(f'{count} {verb}' for verb, count in verbs.items())}), {done} of them done; "
        f"at most {jobs + 1} jobs. The whole takes {workflow.scale.expected_cost}.\n"
        f"Stop it whenever you like; called again, it continues. The page will be {workflow.reports / 'index.html'}"
    )


def wanted(dag: Any) -> set[str]:
    """Name the jobs that Snakemake's DAG will run."""
    return {getattr(job.wildcards, "job", "") for job in dag.needrun_jobs()} - {""}


def ended_early(workflow: Workflow, names: Iterable[str], started: float) -> str:
    """Say which of these jobs began since `started` (seconds since 1970) and are not done."""
    logs = {
        name: workflow.logs / f"{name}.log"
        for name in names
        if not (workflow.results / "jobs" / name).exists()
    }
    begun = [str(log) for log in logs.values() if log.exists() and log.stat().st_mtime >= started]
    if not logs:
        return f"mgm: {workflow.name}: stopped. The same command continues."
    said = f"; what ended early says why in {', '.join(begun)}" if begun else ""
    return f"mgm: {workflow.name}: {len(logs)} jobs are not done{said}. The same command continues."


def is_told(message: str) -> bool:
    """An error of Snakemake that a job's own line and `ended_early` tell already:

    a job that ended with status 2, and that jobs failed.
    """
    again = r"RuleException:\nCalledProcessError.*(non-zero exit status (2|130|138|143)\.|died with <Signals\.SIG(INT|TERM|USR1))|Error in rule|Exiting because a job|WorkflowError:\nAt least one job"
    return bool(re.match(again, message, re.DOTALL))


def training_share(workflow: Workflow, started: float, cores: int) -> str:
    """Say what share of the cores' time since `started` (seconds since 1970) training steps took,
    loading included; nothing without any.
    """
    lines = [
        line for run_id in workflow.registry.specs for line in log_lines(workflow.results / run_id)
    ]
    wall, steps = (
        time.time() - started,
        sum(line.get("seconds", 0.0) for line in lines if line.get("time", 0.0) >= started),
    )
    if not steps:
        return ""
    minutes, seconds = divmod(round(wall), 60)
    return f"{workflow.name}: {minutes} min {seconds:02d} s; training steps took {steps / (cores * wall):.0%} of {cores} cores' time"


if __name__ == "__main__":  # `make reproduce` says it first
    print(overview(Workflow({})))
