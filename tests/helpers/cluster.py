"""A real Slurm on one host: munged, slurmctld and two nodes with two pretend GPUs each.

It runs on loopback, without systemd, cgroups or accounting. It needs root and Debian's packages
slurmctld, slurmd, slurm-client and munge. Steps inside a job lose SLURM_CONF, so the configuration
is linked from /etc/slurm. A machine with its own Slurm is refused.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.helpers.services import PATH

NODES, CPUS, MEMORY_MB, GPUS = 2, 2, 6000, 2
PLACE = Path("/etc/slurm")
FILES = ("slurm.conf", "gres.conf", "cgroup.conf")


def unfit() -> str:
    """Return why a cluster cannot run here; empty if it can."""
    if os.geteuid():
        return "Slurm's daemons need root"
    places = [PLACE / name for name in FILES]
    if own := [file for file in places if os.path.lexists(file) and not _left(file)]:
        return f"{own[0]} exists: this machine has a Slurm of its own"
    return ""


def _left(file: Path) -> bool:
    """Return whether a test that was killed has left this link, and its cluster has ended."""
    return (
        file.is_symlink()
        and "pytest-of-" in str(file.readlink())
        and " is UP" not in _told("scontrol", "ping")
    )


@contextmanager
def cluster(folder: Path) -> Iterator[None]:
    """Run Slurm until the block ends. `folder` holds its state and logs."""
    for name in ("etc", "log", "state", "munge"):
        (folder / name).mkdir(parents=True, mode=0o700 if name == "munge" else 0o755)
    started = list[subprocess.Popen]()
    try:
        _configure(folder)
        key = folder / "munge" / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        files = {
            "key-file": key,
            "socket": folder / "munge.socket",
            "pid-file": folder / "munged.pid",
            "seed-file": folder / "munge" / "seed",
        }
        options = [f"--{name}={path}" for name, path in files.items()]
        options += [f"--log-file={folder / 'munged.log'}", "--force", "--foreground"]
        started.append(_start(folder, "munged", *options))
        _wait("munged", folder, lambda: (folder / "munge.socket").exists())
        started.append(_start(folder, "slurmctld", "-D", "-c"))
        started += [_start(folder, "slurmd", "-D", "-N", f"n{n + 1}") for n in range(NODES)]
        _wait("slurmctld", folder, lambda: _idle() == NODES)
        yield
    finally:
        subprocess.run(["scancel", "--user=root"], capture_output=True, timeout=20, check=False)
        with suppress(TimeoutError):
            _wait("the queue", folder, lambda: not _told("squeue", "--noheader"), 30)
        for process in reversed(started):
            process.send_signal(signal.SIGTERM)
        for process in reversed(started):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for name in FILES:
            (PLACE / name).unlink(missing_ok=True)


def _configure(folder: Path) -> None:
    host, port = socket.gethostname().split(".")[0], _free_ports(NODES + 1)
    nodes = [f"n{number}" for number in range(1, NODES + 1)]
    gpus = [folder / f"gpu{number}" for number in range(GPUS)]
    for gpu in gpus:
        # Slurm marks a node as invalid if a GPU has no file.
        gpu.symlink_to("/dev/null")
    lines = [
        "ClusterName=tests",
        f"SlurmctldHost={host}(127.0.0.1)",
        f"SlurmctldPort={port[0]}",
        "SlurmUser=root",
        # A requeued job waits until its credential expires.
        f"AuthInfo=socket={folder / 'munge.socket'},cred_expire=5",
        f"StateSaveLocation={folder / 'state'}",
        f"SlurmdSpoolDir={folder / 'spool'}.%n",
        f"SlurmctldPidFile={folder / 'slurmctld.pid'}",
        f"SlurmdPidFile={folder / 'slurmd.%n.pid'}",
        # On a loaded machine a run may start when its minute is over.
        "OverTimeLimit=10",
        "MailProg=/bin/true",
        "ProctrackType=proctrack/linuxproc",
        "JobCompType=jobcomp/none",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core_Memory",
        "SchedulerParameters=sched_min_interval=0,batch_sched_delay=0,bf_interval=2",
        "GresTypes=gpu",
        "ReturnToService=2",
        "SlurmdParameters=config_overrides",
        "MinJobAge=600",
        "CommunicationParameters=NoCtldInAddrAny,NoInAddrAny",
    ]
    lines += [
        f"NodeName={node} NodeAddr=127.0.0.1 NodeHostname={host} Port={own} CPUs={CPUS} RealMemory={MEMORY_MB} Gres=gpu:{GPUS}"
        for node, own in zip(nodes, port[1:])
    ]
    lines += [
        f"PartitionName=all Nodes={','.join(nodes)} Default=YES MaxTime=INFINITE DefaultTime=10 State=UP"
    ]
    texts = [
        "\n".join(lines),
        "\n".join(f"NodeName={node} Name=gpu File={gpu}" for node in nodes for gpu in gpus),
        "CgroupAutomount=no",
    ]
    PLACE.mkdir(exist_ok=True)
    for name, text in zip(FILES, texts):
        (folder / "etc" / name).write_text(f"{text}\n")
        (PLACE / name).unlink(missing_ok=True)
        (PLACE / name).symlink_to(folder / "etc" / name)


def _start(folder: Path, program: str, *words) -> subprocess.Popen:
    output = (
        folder / "log" / f"{program}-{'-'.join(map(str, words[-1:]))}".replace("/", "_")[:200]
    ).open("ab")
    found = shutil.which(program, path=PATH)
    return subprocess.Popen([found, *map(str, words)], stdout=output, stderr=output)


def _idle() -> int:
    return len(_told("sinfo", "--noheader", "--Node", "--states=idle", "--format=%N").split())


def _told(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, timeout=20, check=False).stdout


def _wait(what: str, folder: Path, there, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not there():
        if time.monotonic() > until:
            raise TimeoutError(
                f"{what} is not ready after {seconds:g} s; its log is in {folder / 'log'}"
            )
        time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [bound.getsockname()[1] for bound in sockets]
    for bound in sockets:
        bound.close()
    return ports
