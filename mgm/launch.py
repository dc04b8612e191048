"""Which of how many processes this one is, as torchrun or a Slurm step says. Nothing heavy is imported here."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from mgm.errors import UserError


class Place(NamedTuple):
    """A process among those of one run. Rank 0 listens on `port` of the first of `addresses` that has a name; the others connect."""

    rank: int
    size: int
    local_rank: int
    addresses: tuple[str, ...]
    port: int


def place_of(environ: Mapping[str, str]) -> Place | None:
    """The place of this process; None if it is on its own.

    torchrun says RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT. A step of several tasks (`srun --ntasks 2 ...`) says
    SLURM_PROCID, SLURM_STEP_NUM_TASKS and SLURM_LOCALID, and which node its first task is on; the port is a function of job and step, so
    that jobs which share a node do not meet. MASTER_ADDR and MASTER_PORT, where they are set, go before what Slurm says. A batch script is
    no step of several tasks, whatever it has allocated, so what runs there without `srun` is on its own.

    Raises:
        UserError: one of them is missing, or no number.
    """

    def number(name: str) -> int:
        try:
            return int(environ[name])
        except KeyError:
            raise UserError(f"{name}: is not set, though this is one of several processes; start them by torchrun or by srun") from None
        except ValueError:
            raise UserError(f"{name}: is {environ[name]!r}, not a number; start the processes by torchrun or by srun") from None

    if "RANK" in environ and "WORLD_SIZE" in environ:
        if number("WORLD_SIZE") == 1:
            return None
        if "MASTER_ADDR" not in environ:
            raise UserError("MASTER_ADDR: is not set, though WORLD_SIZE is; start the processes by torchrun or by srun")
        return Place(number("RANK"), number("WORLD_SIZE"), number("LOCAL_RANK"), (environ["MASTER_ADDR"],), number("MASTER_PORT"))
    if "SLURM_PROCID" in environ and int(environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        if "MASTER_ADDR" in environ:
            addresses: tuple[str, ...] = (environ["MASTER_ADDR"],)
        elif environ.get("SLURM_STEP_NUM_NODES") == "1":
            addresses = ("127.0.0.1",)
        else:  # nodes that are names of one host, as in tests, are none to the network: then it is where srun runs
            named = [_first(environ.get("SLURM_STEP_NODELIST", "")), environ.get("SLURM_LAUNCH_NODE_IPADDR", "")]
            addresses = tuple(filter(None, named))
        given = number("MASTER_PORT") if "MASTER_PORT" in environ else None
        port = given or 10000 + (37 * number("SLURM_JOB_ID") + number("SLURM_STEP_ID")) % 20000
        return Place(number("SLURM_PROCID"), number("SLURM_STEP_NUM_TASKS"), number("SLURM_LOCALID"), addresses, port)
    return None


def _first(nodes: str) -> str:
    """'node07' of 'node[07-09,12],gpu1'."""
    name = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", name[0]) if name else ""
