"""The jobs of the DAG: their runs, commands, dependencies and files."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from mgm.spec import FLOWS, LoadOptions, Pretrain, RunOptions, Spec, parents

if TYPE_CHECKING:
    from mgm.dag.workflow import Workflow


@dataclass(frozen=True)
class Job:
    """A job of the DAG: one call of `mgm`. Its name starts with the name of its rule.

    Attributes:
        words: the command's words after `mgm`.
        makes: the job is done when these files exist. If empty, it is done when its command
            succeeded.
        after: names of the jobs that it waits for.
        threads: 0: every core.
        parallel: its command has an option `--processes`.
        priority: of the jobs that can start, the one with the highest starts first.
    """

    name: str
    words: Sequence[str]
    makes: Sequence[Path] = ()
    after: Sequence[str] = ()
    specs: Sequence[Spec] = ()
    threads: int = 1
    parallel: bool = False
    priority: int = 0

    @property
    def rule(self) -> str:
        return self.name.partition("-")[0]


def grouped(workflow: "Workflow") -> dict[str, list[Spec]]:
    """Return the runs of each job: one run, or up to `specs_per_job` of one study and stage.

    They also have one depth in the DAG, so none depends on another. They are sorted by dataset, so
    few processes decode the same videos.
    """
    plan, most, key_of = workflow.plan, workflow.specs_per_job, workflow.key_of
    specs = plan.specs
    if most == 1:
        return {run_id: [spec] for run_id, spec in specs.items()}
    # A run of several studies is of the first.
    runs = dict[str, list[str]]()
    for cell in plan.cells:
        runs.setdefault(cell.study, []).extend([cell.run_id] if cell.metric else [])
    study_of = {
        spec.run_id: name
        for name, run_ids in reversed(runs.items())
        for spec in plan.with_parents(run_ids)
    }
    depths, groups = dict[str, int](), dict[tuple[int, str], list[Spec]]()
    # Parents come first.
    for run_id, spec in specs.items():
        above = (depths[parent] for parent in parents(spec) if parent in depths)
        depths[run_id] = 1 + max(above, default=-1)
        key = key_of(spec.data)
        # Draws of one dataset have one name in specs, so each has its own jobs.
        drawn = workflow.datasets[key].name
        parts = [spec.stage, key if drawn else study_of.get(run_id, "pictures")]
        # Only runs that follow optical flow wait for it.
        parts += [flow[1]] if (flow := flow_of(spec, key)) else []
        groups.setdefault((depths[run_id], "-".join(parts)), []).append(spec)
    order, jobs = list(workflow.datasets), dict[str, list[Spec]]()
    for (depth, name), group in sorted(groups.items(), key=lambda item: item[0][0]):
        group.sort(key=lambda spec: order.index(key_of(spec.data)))
        count = -(-len(group) // most)
        cuts = pairwise(len(group) * part // count for part in range(count + 1))
        jobs |= {f"{name}-{depth}-{part}": group[a:b] for part, (a, b) in enumerate(cuts, 1)}
    return jobs


def flow_of(spec: Spec, key: str) -> tuple[str, str] | None:
    """Return the method of the optical flow that guides a run's mask, after its dataset's key."""
    if isinstance(spec, Pretrain) and spec.mask.guidance in FLOWS:
        return key, spec.mask.guidance
    return None


def in_order(jobs: Sequence[Job], run_ids: Sequence[str]) -> dict[str, Job]:
    """Return the jobs by name, with priorities in the order of their first runs.

    What a job waits for goes before it.
    """
    rank = {run_id: place for place, run_id in enumerate(run_ids)}
    place = {
        job.name: min((rank[spec.run_id] for spec in job.specs), default=len(rank)) for job in jobs
    }
    for job in reversed(jobs):
        for needed in job.after:
            place[needed] = min(place[needed], place[job.name])
    return {job.name: replace(job, priority=len(rank) - place[job.name]) for job in jobs}


def dataset_jobs(workflow: "Workflow") -> list[Job]:
    """Return the jobs that make datasets and optical flow."""
    built, jobs = workflow.built, list[Job]()
    for name, made_from in built.items():
        words, job = workflow.preparation[name], f"prepare-{name}"
        place, after = (
            workflow.places[name],
            [f"prepare-{part}" for part in made_from if part in built],
        )
        # On this machine one process draws a dataset: two would wait for each other.
        parallel, threads = name in workflow.generated, 1
        # A study reads its videos as they are, which must have motion vectors.
        if name in workflow.sources and not workflow.plan.file:
            words, threads, parallel = [*words, "--copy", "mp4"], 0, True
        index = [place / "index.json"]
        threads = workflow.threads("prepare", threads) if parallel else 1
        jobs += [Job(job, words, index, after, threads=threads, parallel=parallel)]
    specs = workflow.plan.specs.values()
    flows = {flow_of(spec, workflow.key_of(spec.data)) for spec in specs}
    for name, method in sorted(flow for flow in flows if flow):
        place = workflow.places[name]
        jobs += [
            Job(
                f"flow-{name}-{method}",
                ["track", str(place), "--method", method],
                [place / f"tracks-{method}.json"],
                [f"prepare-{name}"] if name in built else [],
                threads=workflow.threads("flow", 1),
                parallel=True,
            )
        ]
    return jobs


def run_job(workflow: "Workflow", name: str, specs: Sequence[Spec]) -> Job:
    """Return the job of these runs."""
    stage, made_by = specs[0].stage, workflow.made_by
    key_of = {spec.run_id: workflow.key_of(spec.data) for spec in specs}
    keys = sorted({*key_of.values()})
    words = [stage, *(str(workflow.spec_file(spec.run_id)) for spec in specs)]
    for key in keys:
        words += ["--data", f"{workflow.datasets[key].name or key}={workflow.places[key]}"]
    words += ["--out", str(workflow.results)]
    options = workflow.execution
    if workflow.cluster:
        options = options.changed(workflow.cluster.jobs[stage])
    kind = RunOptions if stage in ("pretrain", "finetune") else LoadOptions
    words += options.words(kind.model_fields)
    after = {made_by[parent] for spec in specs for parent in parents(spec) if parent in made_by}
    after |= {f"prepare-{key}" for key in keys if key in workflow.built}
    flows = (flow_of(spec, key_of[spec.run_id]) for spec in specs)
    after |= {"flow-{}-{}".format(*flow) for flow in flows if flow}
    # 0: runs that use one GPU in turn have every core.
    threads = workflow.threads(stage, 0 if workflow.in_turn else options.threads)
    makes = [workflow.results / spec.run_id / "result.json" for spec in specs]
    return Job(name, words, makes, sorted(after), specs, threads)
