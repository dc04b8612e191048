"""What the workflow tells its user: before it starts, when it stops, and at its end."""

import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

from mgm.dag.study import Workflow
from mgm.results.log import log_lines


def overview(workflow: Workflow) -> str:
    """Return what the DAG will do and take, to be printed before it starts."""
    specs = workflow.registry.specs
    stages = Counter(spec.verb for spec in specs.values())
    done = sum((workflow.results / run_id / "result.json").exists() for run_id in specs)
    jobs = len(workflow.jobs) - len(workflow.done)
    return (
        f"{workflow.name}: {len(specs)} runs"
        f" ({', '.join(f'{count} {stage}' for stage, count in stages.items())}), {done} of them done;"
        f" at most {jobs + 1} jobs. The whole takes {workflow.scale.expected_cost}.\n"
        f"Stop it whenever you like; called again, it continues."
        f" The page will be {workflow.reports / 'index.html'}"
    )


def wanted(dag: Any) -> set[str]:
    """Return the names of the jobs that Snakemake's DAG will run."""
    markers = {getattr(job.wildcards, "job", "") for job in dag.needrun_jobs()} - {""}
    return {marker.partition("~")[0] for marker in markers}


def ended_early(workflow: Workflow, names: Iterable[str], started: float) -> str:
    """Return which of these jobs began after `started` (seconds since 1970) and are not done."""
    jobs = [name for name in names if not workflow.is_done(name)]
    logs = [workflow.logs / f"{name}.log" for name in jobs]
    begun = [str(log) for log in logs if log.exists() and log.stat().st_mtime >= started]
    left = f"{len(jobs)} jobs are not done" if jobs else "stopped after the last job"
    reason = f"; see {', '.join(begun)}" if begun else ""
    return f"mgm: {workflow.name}: {left}{reason}. The same command continues."


def training_share(workflow: Workflow, started: float, cores: int) -> str:
    """Return the share of the cores' time since `started` that training steps took.

    Loading counts as training. Without a training step, return an empty text.
    """
    logs = (log_lines(workflow.results / run_id) for run_id in workflow.registry.specs)
    lines = [line for log in logs for line in log if line.get("time", 0.0) >= started]
    steps_s = sum(line.get("seconds", 0.0) for line in lines)
    if not steps_s:
        return ""
    wall_s = time.time() - started
    minutes, seconds = divmod(round(wall_s), 60)
    share = steps_s / (cores * wall_s)
    return (
        f"{workflow.name}: {minutes} min {seconds:02d} s;"
        f" training steps took {share:.0%} of {cores} cores' time"
    )


if __name__ == "__main__":
    # `make reproduce` prints it first.
    print(overview(Workflow({})))
