"""The jobs of the DAG:

what each process is called with, what it makes and what it waits for; and which runs share a
process.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from mgm.paper.cost import longest_chains, train_flops
from mgm.paper.registry import Registry
from mgm.spec import CODEC, Pretrain, Spec, parents


@dataclass(frozen=True)
class Job:
    """One process, `mgm RULE WORDS`. Its name begins with its rule's."""

    name: str
    rule: str
    words: tuple[str, ...]
    makes: tuple[Path, ...]  # it is done when they exist; none: when it ended well
    after: tuple[str, ...] = ()  # names of jobs
    specs: tuple[Spec, ...] = ()
    threads: int = 1  # 0: every core
    parallel: bool = False  # it takes `--processes`
    priority: int = (
        0  # the length of the longest chain that starts with it, in per mille of the longest of all
    )


def batches(registry: Registry) -> dict[str, list[Spec]]:
    """Runs by job name: one run a job, named by its id, or up to `specs_per_job` of one verb and
    one generation, so that no job waits for itself.

    Table 4e, the mask ablation, has batches of its own, and so have Table 1, the longest, and what
    waits for optical flow. In the others
    runs on one dataset lie side by side, and of those table by table: few datasets are decoded
    twice, and a single target trains little for others.
    """
    specs, scale = registry.specs, registry.scale
    if scale.specs_per_job == 1:
        return {run_id: [spec] for run_id, spec in specs.items()}
    places = list(scale.datasets)
    alone = [f"table{name}" for name, table in registry.tables.items() if table.own_jobs]
    home = {spec.run_id: target for target in alone for spec in registry.runs_of(target)}
    generation: dict[str, int] = {}
    for run_id, spec in specs.items():  # parents come first
        generation[run_id] = 1 + max(
            (generation.get(parent, 0) for parent in parents(spec)), default=-1
        )
        if flow_of(spec) or any(home.get(parent) == "flow" for parent in parents(spec)):
            home[run_id] = "flow"
    groups: dict[str, list[Spec]] = {}
    for run_id in sorted(specs, key=lambda run_id: places.index(specs[run_id].data.dataset)):
        name = f"{specs[run_id].verb}-{home.get(run_id, 'others')}-{generation[run_id]}"
        groups.setdefault(name, []).append(specs[run_id])
    found: dict[str, list[Spec]] = {}
    for name, group in groups.items():
        count = -(-len(group) // scale.specs_per_job)
        cuts = [len(group) * part // count for part in range(count + 1)]
        found |= {
            f"{name}-{part}": group[start:end]
            for part, (start, end) in enumerate(pairwise(cuts), start=1)
        }
    return found


def flow_of(spec: Spec) -> tuple[str, str] | None:
    """The dataset whose optical flow a run's mask follows, and the method; None for other runs."""
    return (
        (spec.data.dataset, spec.mask.guidance)
        if isinstance(spec, Pretrain) and spec.mask.guidance not in CODEC
        else None
    )


def prioritised(jobs: Sequence[Job]) -> dict[str, Job]:
    """The jobs by name, with their priorities: what others wait for longest should start first."""
    chains = longest_chains(
        {job.name: sum(map(train_flops, job.specs)) for job in jobs},
        {job.name: job.after for job in jobs},
    )
    longest = max(chains.values(), default=0.0) or 1.0
    return {
        job.name: replace(job, priority=round(1000 * chains[job.name] / longest)) for job in jobs
    }


def in_order(jobs: Sequence[Job], rank: Mapping[str, int]) -> dict[str, Job]:
    """Return the jobs by name, with priorities that follow their runs' ranks.

    What makes datasets goes first. A run starts as soon as what it waits for is done, and before
    any run of a higher rank: a row of the table is complete before the next one begins.
    """
    first = len(rank)
    return {
        job.name: replace(
            job,
            priority=first - min((rank[spec.run_id] for spec in job.specs), default=-1),
        )
        for job in jobs
    }
