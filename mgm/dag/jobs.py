"""The jobs of the DAG: their runs, commands, dependencies and files."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from mgm.results.plan import RunPlan
from mgm.spec import FLOWS, Data, Pretrain, Spec, parents
from mgm.study.scales import ScaleDataset


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


def grouped(
    plan: RunPlan, most: int, datasets: Mapping[str, ScaleDataset], key_of: Callable[[Data], str]
) -> dict[str, list[Spec]]:
    """Return the runs of each job: one run, or up to `most` of one study and stage.

    They also have one depth in the DAG, so none depends on another. They are sorted by dataset, so
    few processes decode the same videos.
    """
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
        drawn = datasets[key].name
        parts = [spec.stage, key if drawn else study_of.get(run_id, "pictures")]
        # Only runs that follow optical flow wait for it.
        parts += [flow[1]] if (flow := flow_of(spec, key)) else []
        groups.setdefault((depths[run_id], "-".join(parts)), []).append(spec)
    order, jobs = list(datasets), dict[str, list[Spec]]()
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


def in_order(jobs: Sequence[DagJob], run_ids: Sequence[str]) -> dict[str, DagJob]:
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
