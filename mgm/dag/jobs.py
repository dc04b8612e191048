"""The jobs of the DAG: their runs, commands, dependencies and files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

from mgm.dag.setting import Setting
from mgm.results.result import lacks_weights
from mgm.spec import FLOWS, PUBLISHED, LoadOptions, Pretrain, RunOptions, Spec, parents
from mgm.study.registry import Registry
from mgm.study.scales import Scale


@dataclass(frozen=True)
class DagJob:
    """A job of the DAG: one call of `mgm`. Its name starts with the name of its rule.

    Attributes:
        words: the command's words after `mgm`.
        makes: the job is done when these files exist. If empty, it is done when its command
            succeeded.
        after: names of the jobs that it waits for.
        threads: 0: every core.
        parallel: its command has an option `--processes`.
        priority: of the jobs that can start, the one with the highest starts first (`in_order`).
    """

    name: str
    rule: str
    words: tuple[str, ...]
    makes: tuple[Path, ...] = ()
    after: tuple[str, ...] = ()
    specs: tuple[Spec, ...] = ()
    threads: int = 1
    parallel: bool = False
    priority: int = 0


def runs_of_jobs(registry: Registry) -> dict[str, list[Spec]]:
    """Return the runs of each job: one run, or up to `specs_per_job` of them.

    Runs of a job have the same stage and DAG depth, so none depends on another. Table 4e (the mask
    ablation), Table 1 (the longest) and runs that wait for optical flow have separate jobs. The
    other jobs are sorted by dataset and table. So few processes decode the same dataset, and a
    single target trains few runs of other targets.
    """
    specs, scale = registry.specs, registry.scale
    if scale.specs_per_job == 1:
        return {
            run_id.replace(spec.stage, rule_of(spec, scale), 1): [spec]
            for run_id, spec in specs.items()
        }
    order, key_of = list(scale.datasets), scale.key_of
    home = {
        spec.run_id: f"table{name}"
        for name, table in registry.tables.items()
        if table.own_jobs
        for spec in registry.runs_of(f"table{name}")
        if spec.stage != "measure"
    }
    generation: dict[str, int] = {}
    for run_id, spec in specs.items():  # parents come first
        above = [parent for parent in parents(spec) if parent in generation]
        generation[run_id] = 1 + max((generation[parent] for parent in above), default=-1)
        if flow_of(spec, scale) or "flow" in map(home.get, above):
            home[run_id] = "flow"
    groups: dict[str, list[Spec]] = {}
    for spec in sorted(specs.values(), key=lambda spec: order.index(key_of(spec.data))):
        # Datasets of a study may have one name in specs, so its jobs read one dataset.
        part = key_of(spec.data) if scale.study else home.get(spec.run_id, "others")
        name = f"{rule_of(spec, scale)}-{part}-{generation[spec.run_id]}"
        groups.setdefault(name, []).append(spec)
    jobs: dict[str, list[Spec]] = {}
    for name, group in groups.items():
        count = -(-len(group) // scale.specs_per_job)
        cuts = [len(group) * part // count for part in range(count + 1)]
        jobs |= {
            f"{name}-{part}": group[start:end]
            for part, (start, end) in enumerate(pairwise(cuts), start=1)
        }
    return jobs


def rule_of(spec: Spec, scale: Scale) -> str:
    """Return the name of a run's rule: its stage, or `adapt` for domain adaptation."""
    dataset = scale.datasets.get(scale.key_of(spec.data))
    published = PUBLISHED.get(spec.data.dataset)
    parts = dataset.adapt if dataset and dataset.adapt else published and published.derived_from
    return "adapt" if spec.stage == "finetune" and parts and len(parts) == 2 else spec.stage


def flow_of(spec: Spec, scale: Scale) -> tuple[str, str] | None:
    """Return the dataset and the method of the optical flow that guides a run's mask, if any."""
    return (
        (scale.key_of(spec.data), spec.mask.guidance)
        if isinstance(spec, Pretrain) and spec.mask.guidance in FLOWS
        else None
    )


def in_order(jobs: Sequence[DagJob], rank: Mapping[str, int]) -> dict[str, DagJob]:
    """Return the jobs by name, with priorities in the order of their runs' ranks.

    Of the jobs that can start, the one whose first run has the lowest rank does. A dataset is made
    before the first run that reads it.
    """
    place = {
        job.name: min((rank[spec.run_id] for spec in job.specs), default=len(rank)) for job in jobs
    }
    for job in reversed(jobs):
        for needed in job.after:
            place[needed] = min(place[needed], place[job.name])
    return {job.name: replace(job, priority=len(rank) - place[job.name]) for job in jobs}


def dataset_jobs(setting: Setting) -> list[DagJob]:
    """Return the jobs that make datasets and optical flow.

    The datasets are generated, published (under `sources`), or made from other datasets.
    """
    every, built = setting.threads("prepare", 0), setting.built_datasets
    prepare = partial(DagJob, rule="prepare")
    jobs = []
    for name in built:
        place, words = setting.places[name], tuple(setting.preparation(name))
        job, whole = f"prepare-{name}", (*words, "--out", str(place))
        index = (place / "index.json",)
        # A study reads its videos as they are, which must have motion vectors.
        if name in setting.sources and not setting.scale.study:
            source = (*words, "--out", str(place / "source"))
            index_of_source = (place / "source" / "index.json",)
            first = prepare(f"{job}-source", words=source, makes=index_of_source)
            whole += ("--copy", "mp4")
            count = setting.shards
            shards = [
                prepare(
                    f"{job}-{part}-of-{count}",
                    words=(*whole, "--shard", f"{part}/{count}"),
                    after=(first.name,),
                    threads=every,
                    parallel=True,
                )
                for part in range(1, count + 1)
            ]
            after = tuple(shard.name for shard in shards)
            last = prepare(job, words=whole, makes=index, after=after, parallel=True)
            jobs += [first, *shards, last]
        else:
            parts = setting.derived.get(name, ())
            after = tuple(f"prepare-{part}" for part in parts if part in built)
            # On this machine one process draws a dataset: two would wait for each other and leave a
            # core idle.
            drawn = name in setting.generated
            threads = (every or 1) if drawn else 1
            jobs.append(
                prepare(job, words=whole, makes=index, after=after, threads=threads, parallel=drawn)
            )
    weights = ("--weights", setting.scale.flow_weights) if setting.scale.flow_weights else ()
    flows = {flow_of(spec, setting.scale) for spec in setting.registry.specs.values()}
    for name, method in sorted(flow for flow in flows if flow):
        place = setting.places[name]
        jobs.append(
            DagJob(
                f"flow-{name}-{method}",
                "flow",
                ("flow", str(place), "--method", method, *weights),
                (place / f"flow-{method}.json",),
                (f"prepare-{name}",) if name in built else (),
                threads=setting.threads("flow", 1),
                parallel=True,
            )
        )
    return jobs


def weights_jobs(registry: Registry, results: Path) -> dict[str, str]:
    """Return the finished runs whose weights are gone but needed, each with its rebuilding job.

    Archived runs have no weights. Those are needed that unfinished runs start from.
    """
    jobs: dict[str, str] = {}
    for run_id, spec in reversed(registry.specs.items()):  # children come before their parents
        if run_id in jobs or not (results / run_id / "result.json").is_file():
            jobs |= {
                parent: f"{rule_of(registry.specs[parent], registry.scale)}-weights-{parent}"
                for parent in parents(spec)
                if parent in registry.specs and lacks_weights(results / parent)
            }
    return jobs


def run_job(
    setting: Setting, name: str, specs: list[Spec], makers: Mapping[str, Sequence[str]]
) -> DagJob:
    """Return the job of these runs.

    Args:
        makers: the jobs that make each run or its weights.
    """
    scale, stage, rule = setting.scale, specs[0].stage, rule_of(specs[0], setting.scale)
    keys = sorted({scale.key_of(spec.data) for spec in specs})
    words = [stage, *(str(setting.spec_file(spec.run_id)) for spec in specs)]
    for key in keys:
        words += ["--data", f"{scale.datasets[key].name or key}={setting.places[key]}"]
    words += ["--out", str(setting.results)]
    if stage == "measure" and scale.flow_weights:
        words += ["--weights", scale.flow_weights]
    options = scale.execution
    if setting.cluster:
        options = options.changed(setting.cluster.jobs[rule])
    kind = RunOptions if stage in ("pretrain", "finetune") else LoadOptions
    words += options.words(kind.model_fields)
    after = {job for spec in specs for parent in parents(spec) for job in makers.get(parent, ())}
    after |= {f"prepare-{key}" for key in keys if key in setting.built_datasets}
    after |= {"flow-{}-{}".format(*flow) for spec in specs if (flow := flow_of(spec, scale))}
    return DagJob(
        name,
        rule,
        tuple(words),
        tuple(setting.results / spec.run_id / "result.json" for spec in specs),
        tuple(sorted(after)),
        tuple(specs),
        # The runs of a scale for one GPU use it in turn, so each can have every core.
        setting.threads(rule, 0 if scale.memory_gb else scale.execution.threads),
    )
