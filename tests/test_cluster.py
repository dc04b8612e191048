"""Resources that jobs request from a cluster; tests/slurm uses a real one."""

import shlex

import pytest
import yaml

from mgm.dag.cluster import PROFILE, Cluster, load_cluster
from mgm.errors import UserError


@pytest.fixture
def file(tmp_path):
    def write(fields):
        path = tmp_path / "my cluster.yaml"
        path.write_text(yaml.safe_dump(fields))
        return str(path)

    return write


def test_a_users_file_lies_over_the_profiles(file):
    given = load_cluster(file({"jobs": {"pretrain": {"nodes": 8}}}))
    usual = Cluster.model_validate(yaml.safe_load((PROFILE / "cluster.yaml").read_text()))
    assert given.jobs["pretrain"] == usual.jobs["pretrain"].model_copy(update={"nodes": 8})
    assert given.jobs | {"pretrain": None} == usual.jobs | {"pretrain": None}


def test_resources_are_what_the_executor_reads(file):
    cluster = load_cluster(
        file(
            {
                "sbatch": ["--mail-type=FAIL", "--mail-user=$(id)"],
                "jobs": {"probe": {"hours": 0.1, "gpus": 0}},
            }
        )
    )
    pretrain = cluster.resources("pretrain")
    assert pretrain["nodes"] == 2
    assert (pretrain["tasks"], pretrain["cpus_per_task"]) == (2, 96)  # one torchrun per node
    assert pretrain["gres"] == "gpu:8"
    assert pretrain["mem_mb"] == 8 * 48000
    assert pretrain["runtime"] == 24 * 60
    # It is quoted, so that no shell runs the command.
    assert pretrain["slurm_extra"] == "--signal=TERM@120 --mail-type=FAIL '--mail-user=$(id)'"
    words = shlex.split(cluster.command_wrapper("pretrain", "a log").partition("run.sh")[2])
    assert words[:7] == [
        "a log",
        "srun",
        "--nodes=2",
        "--ntasks=2",
        "--ntasks-per-node=1",
        "--cpus-per-task=96",
        "--gres=gpu:8",
    ]
    assert words[-3:] == ["--nnodes=2", "--nproc-per-node=8", "--no-python"]
    # One node: the executor's own srun starts torchrun.
    finetune = cluster.resources("finetune")
    assert (finetune["gres"], finetune["cpus_per_task"]) == ("gpu:8", 96)
    assert not {"tasks", "mpi"} & set(finetune)
    words = cluster.command_wrapper("finetune", "log").split()
    assert "--nproc-per-node=8" in words
    assert "srun" not in words
    probe = cluster.resources("probe")
    # No warning signal: Slurm may send it a minute early, at once in a job of six minutes.
    assert "--signal" not in probe["slurm_extra"]
    assert not {"gres", "tasks", "mpi"} & set(probe)
    assert cluster.command_wrapper("probe", "log").split("run.sh")[1].split() == ["log"]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"partitions": "a"}, "partitions"),
        ({"jobs": {"pretrain": {"gpu": 4}}}, "jobs.pretrain.gpu"),
        ({"jobs": {"pretrain": {"nodes": 0}}}, "jobs.pretrain.nodes:"),
        ({"jobs": {"train": {"nodes": 1}}}, "jobs.train"),
    ],
)
def test_a_wrong_field_is_named(file, fields, named):
    with pytest.raises(UserError, match=rf"my cluster\.yaml: {named}"):
        load_cluster(file(fields))
    with pytest.raises(UserError, match="cluster=none.yaml: "):
        load_cluster("none.yaml")
