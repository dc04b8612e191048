"""The resources that jobs request from a Slurm cluster.

The defaults are in workflow/profiles/slurm/cluster.yaml. A user's file replaces some of them.
Partition, account and the like are `default-resources` of Snakemake.
"""

import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

from pydantic import Field

from mgm.errors import UserError, valid
from mgm.reading import deep_merge, read_yaml
from mgm.spec import FrozenModel, RunOptions
from mgm.study import WORKFLOW

PROFILE = WORKFLOW / "profiles" / "slurm"
# The user's file in the folder where Snakemake runs. It may be absent.
USUAL = "cluster.yaml"
# Snakemake's shell runs on the first node and fills in the node's name.
TORCHRUN = (
    """bash -c 'trap "" TERM USR1; exec torchrun "$@"' torchrun """
    "--signals-to-handle=SIGINT --rdzv-backend=c10d "
    "--rdzv-endpoint=$(hostname):$((10000 + SLURM_JOB_ID % 20000)) --rdzv-id=$SLURM_JOB_ID"
)
# Seconds before the time limit at which Slurm sends SIGTERM, for a last checkpoint. Slurm may send
# it a minute earlier, which is too early for jobs of a few minutes.
WARNING_S = 120


def gpus_here() -> int:
    """Return how many NVIDIA GPUs of this machine jobs may use."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return len(visible.split(",")) if visible else 0
    if not shutil.which("nvidia-smi"):
        return 0
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


class JobResources(RunOptions):
    """Resources that one job requests, and options that replace the scale's.

    `gpus` counts per node, with one process per GPU; 0: one process without a GPU. `cpus` and
    `mem_gb` count per process.
    """

    nodes: int = Field(ge=1)
    gpus: int = Field(ge=0)
    cpus: int = Field(ge=1)
    mem_gb: float = Field(gt=0)
    hours: float = Field(gt=0)

    @property
    def per_node(self) -> int:
        """Processes per node."""
        return max(self.gpus, 1)

    @property
    def processes(self) -> int:
        """Processes on all nodes."""
        return self.nodes * self.per_node


class Cluster(FrozenModel):
    """The resources of each rule, and further options of sbatch."""

    sbatch: tuple[str, ...] = ()
    jobs: dict[str, JobResources]

    def resources(self, rule: str) -> dict[str, Any]:
        """Return a rule's `resources:` for Snakemake's Slurm executor."""
        job = self.jobs[rule]
        extra = [f"--signal=TERM@{WARNING_S}"] if 3600 * job.hours > 5 * WARNING_S else []
        asked: dict[str, Any] = {
            "nodes": job.nodes,
            "mem_mb": round(1000 * job.mem_gb * job.per_node),
            "runtime": max(round(60 * job.hours), 1),
            "slurm_extra": shlex.join([*extra, *self.sbatch]),
        }
        if job.gpus:
            # 0: tasks are counted per node.
            asked |= {"gres": f"gpu:{job.gpus}", "tasks_per_gpu": 0}
            asked["cpus_per_task"] = job.cpus * job.gpus
        if job.nodes > 1:
            # The executor refuses it for one task.
            asked |= {"tasks": job.nodes, "mpi": "srun"}
        return asked

    def command_wrapper(self, rule: str, log: str) -> str:
        """Return the shell code before a job's command: `run.sh`, `srun` and torchrun.

        Slurm sends SIGTERM to all processes of a job. Snakemake's shell must survive it to requeue
        the job. Torchrun must survive it too, since it would leave a step and its checkpoint only
        30 s. The processes that it starts handle the signal themselves.
        """
        job = self.jobs[rule]
        words = [shlex.quote(str(PROFILE / "run.sh")), shlex.quote(log)]
        if job.nodes > 1:
            words += ["srun", f"--nodes={job.nodes}", f"--ntasks={job.nodes}"]
            words += ["--ntasks-per-node=1", f"--cpus-per-task={job.cpus * job.per_node}"]
            words += [f"--gres=gpu:{job.gpus}"] if job.gpus else []
            words += ["--kill-on-bad-exit=1"]
        if job.processes > 1:
            words += [TORCHRUN, f"--nnodes={job.nodes}", f"--nproc-per-node={job.per_node}"]
            words += ["--no-python"]
        return f"trap : TERM USR1; {' '.join(words)}"


def load_cluster(name: str) -> Cluster:
    """Return the profile's values, updated by the user's file.

    Raises:
        UserError: the file does not exist, or a field is unknown or invalid.
    """
    file = Path(name)
    if name != USUAL and not file.exists():
        raise UserError(f"--config cluster={name}: no such file; correct the path")
    fields = deep_merge(read_yaml(PROFILE / USUAL), read_yaml(file) if file.exists() else {})
    with valid(f"{name}: ", "the profile's cluster.yaml lists all fields"):
        return Cluster.model_validate(fields)
