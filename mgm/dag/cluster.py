"""The resources that jobs request from a Slurm cluster.

The defaults are in workflow/profiles/slurm/cluster.yaml. A user's file replaces some of them.
"""

import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from mgm.dag import WORKFLOW
from mgm.errors import UserError, valid
from mgm.reading import deep_merge, read_yaml
from mgm.spec import FrozenModel, RunOptions

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
    def processes(self) -> int:
        """Processes on all nodes."""
        return self.nodes * max(self.gpus, 1)

    @property
    def layout(self) -> list[str]:
        """Options of sbatch and srun: one task on each node, which starts the node's processes."""
        gres = [f"--gres=gpu:{self.gpus}"] if self.gpus else []
        cpus = self.cpus * max(self.gpus, 1)
        return [
            f"--nodes={self.nodes}",
            f"--ntasks={self.nodes}",
            "--ntasks-per-node=1",
            f"--cpus-per-task={cpus}",
            *gres,
        ]


SlurmName = Annotated[str, Field(pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.,+:@-]{0,254})?$")]
# Options of sbatch that Snakemake's Slurm executor takes as separate resources.
RESOURCES = ("constraint", "qos", "clusters")
# Options that the executor or other fields of the cluster file set. The executor refuses some of
# them too, but only when it submits a job.
SET_HERE = {
    *("--wrap", "--output", "-o", "--array", "-a", "--job-name", "-J", "--parsable"),
    *("--test-only", "--help", "-h", "--usage", "--version", "-V", "--signal", "--chdir", "-D"),
    *("--partition", "-p", "--account", "-A", "--nodes", "-N", "--ntasks", "-n", "--time", "-t"),
    *("--cpus-per-task", "-c", "--mem", "--ntasks-per-node", "--requeue", "--no-requeue"),
    *("--error", "-e", "--export", "--comment", "--workdir", "--mem-per-cpu", "--gres", "--gpus"),
    *("--ntasks-per-gpu", "--cpus-per-gpu"),
}


def _as_options(text: str) -> str:
    """Return more options of sbatch, quoted for a shell.

    Raises:
        ValueError: a word is not an option, or is set elsewhere.
    """
    if not text.isprintable():
        raise ValueError("contains a character that cannot be printed; remove it")
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"is not a list of options ({error}); correct it") from None
    before = "="
    for word in words:
        if not word.startswith("-") and (not before.startswith("-") or "=" in before):
            raise ValueError(f"{word!r} is not an option of sbatch; write --NAME=VALUE")
        name, equals, _ = word.partition("=")
        if word[:2] in ("-C", "-M", "-q") or (name[2:] in RESOURCES and not equals):
            raise ValueError(f"{word}: write it as --NAME=VALUE, such as --constraint=h100")
        if name in SET_HERE or (word[:1] == "-" != word[1:2] and word[:2] in SET_HERE):
            raise ValueError(f"{word} is set by mgm or Snakemake, or by another field; remove it")
        before = word
    return shlex.join(words)


class Cluster(FrozenModel):
    """The partition of jobs, the resources of each rule, and the folders of datasets."""

    partition: SlurmName = ""
    account: SlurmName = ""
    sbatch: Annotated[str, AfterValidator(_as_options)] = ""
    data: dict[str, str] = Field(default_factory=dict)
    sources: dict[str, str] = Field(default_factory=dict)
    shards: int = Field(1, ge=1)
    jobs: dict[str, JobResources]

    def resources(self, kind: str) -> dict[str, Any]:
        """Return a rule's `resources:` for Snakemake's Slurm executor."""
        job = self.jobs[kind]
        extra = [f"--signal=TERM@{WARNING_S}"] if 3600 * job.hours > 5 * WARNING_S else []
        asked: dict[str, Any] = {}
        for word in shlex.split(self.sbatch):
            name, _, value = word.removeprefix("--").partition("=")
            if name in RESOURCES:
                asked[name] = value
            else:
                extra.append(word)
        asked |= {
            "nodes": job.nodes,
            "mem_mb": round(1000 * job.mem_gb * max(job.gpus, 1)),
            "runtime": max(round(60 * job.hours), 1),
            "slurm_extra": shlex.join(extra),
        }
        asked |= {"slurm_partition": self.partition} if self.partition else {}
        asked |= {"slurm_account": self.account} if self.account else {}
        # 0: tasks are counted per node.
        asked |= {"gres": f"gpu:{job.gpus}", "tasks_per_gpu": 0} if job.gpus else {}
        asked |= (
            {"tasks": job.nodes, "mpi": "srun", "cpus_per_task": job.cpus * max(job.gpus, 1)}
            if job.processes > 1
            else {}
        )
        return asked

    def command_wrapper(self, kind: str, log: str) -> str:
        """Return the shell code before a job's command.

        It is `run.sh`. For a job of several processes, `srun` follows and starts one torchrun per
        node.

        Slurm sends SIGTERM to all processes of a job. Snakemake's shell must survive it to requeue
        the job. Torchrun must survive it too, since it would leave a step and its checkpoint only
        30 s. The processes that it starts handle the signal themselves.
        """
        job = self.jobs[kind]
        srun = (
            f"srun {' '.join(job.layout)} --kill-on-bad-exit=1 {TORCHRUN}"
            if job.processes > 1
            else ""
        )
        srun += (
            f" --nnodes={job.nodes} --nproc-per-node={max(job.gpus, 1)} --no-python"
            if job.processes > 1
            else ""
        )
        return f"trap : TERM USR1; {shlex.quote(str(PROFILE / 'run.sh'))} {shlex.quote(log)} {srun}"

    def submit_errors(self, kinds: set[str]) -> list[str]:
        """Return an error line for each kind of job that the cluster refuses.

        This asks Slurm (`sbatch --test-only`) and submits nothing.
        """
        if not shutil.which("sbatch"):
            return [
                "sbatch is not found, so this machine has no Slurm; run this on a login node of "
                "the cluster, or `snakemake --cores all` here"
            ]
        found = []
        for kind in sorted(kinds):
            asked = self.resources(kind)
            words = ["sbatch", "--test-only", *self.jobs[kind].layout]
            words += [
                f"--mem={asked['mem_mb']}",
                f"--time={asked['runtime']}",
                *shlex.split(self.sbatch),
            ]
            words += [f"--partition={self.partition}"] if self.partition else []
            words += [f"--account={self.account}"] if self.account else []
            done = subprocess.run(
                [*words, "--wrap", "true"], capture_output=True, text=True, check=False
            )
            if done.returncode:
                reason = (
                    done.stderr.strip()
                    .splitlines()[-1]
                    .removeprefix("allocation failure: ")
                    .removeprefix("sbatch: error: ")
                )
                found.append(
                    f"Slurm refuses {kind} jobs: {reason} ({' '.join(words[2:])}); correct {USUAL}"
                )
        return found


def load_cluster(given: str, partition: str = "", account: str = "") -> Cluster:
    """Return the profile's values, updated by the user's file and then by the command line.

    Raises:
        UserError: the file does not exist, or a field is unknown or invalid.
    """
    file = Path(given)
    if given != USUAL and not file.exists():
        raise UserError(
            f"--config cluster={given}: no such file; copy {PROFILE.name}/cluster.yaml there, or "
            "leave the option out"
        )
    own = read_yaml(file) if file.exists() else {}
    fields = deep_merge(read_yaml(PROFILE / "cluster.yaml"), own)
    fields |= {
        name: value for name, value in (("partition", partition), ("account", account)) if value
    }
    if isinstance(jobs := fields.get("jobs"), dict) and "finetune" in jobs:
        # Domain adaptation is fine-tuning, so it has the same resources by default.
        adapt, finetune = jobs.get("adapt", {}), jobs["finetune"]
        both = isinstance(adapt, dict) and isinstance(finetune, dict)
        fields["jobs"] = jobs | {"adapt": deep_merge(finetune, adapt) if both else adapt}
    with valid(f"{given}: ", "the profile's cluster.yaml lists all fields"):
        return Cluster.model_validate(fields)
