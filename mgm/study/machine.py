"""The GPUs of a plan: their rates, given, measured or assumed."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mgm.errors import UserError
from mgm.reading import read_json, read_text
from mgm.spec.compute import multiply_adds
from mgm.study import recipes
from mgm.study.quoted import MEMORY_GB, PEAK
from mgm.study.scales import sizes_of

# Rows of bench/gpu.py. The compiled one comes first, since jobs compile where they can.
ROWS = [f"ViT-B, pretraining at 0.75, ours {how}" for how in ("compile", "eager")]

# Clips per second that one core changes by RandAugment (16 frames of 320 x 240), and bytes per
# second of the tokens that one process reads back (docs/loading.md).
AUGMENTED, TOKENS = 11.0, 1.3e9


@dataclass(frozen=True)
class Machine:
    """The GPUs of a plan.

    Attributes:
        flops: FLOP/s that one GPU sustains.
        gpus_a_run: GPUs per run.
        decoded: videos per second that the cores of one GPU decode.
        source: where `flops` comes from.
        augmented: clips per second that these cores change by RandAugment.
        tokens: bytes per second of the tokens that a probe reads back.
    """

    name: str
    flops: float
    gpus: int
    gpus_a_run: int
    decoded: float = math.inf
    source: str = ""
    augmented: float = math.inf
    tokens: float = math.inf

    @property
    def slots(self) -> int:
        """Runs that train at the same time."""
        return self.gpus // self.gpus_a_run


def read_measured(folder: Path) -> dict[str, Any]:
    """Read the training rate that bench/gpu.py measured in `folder`.

    Returns:
        The arguments `gpu`, `clips_per_s` (of ViT-B pretraining at mask ratio 0.75) and `source`
        of `machine`. Empty if nothing was measured.

    Raises:
        UserError: the files are damaged.
    """
    file, machine_file = folder / "step.jsonl", folder / "machine.json"
    if not (file.exists() and machine_file.exists()):
        return {}
    try:
        rows, where = dict(map(json.loads, read_text(file).splitlines())), read_json(machine_file)
        for row in ROWS:
            if clips_per_s := rows.get(row, {}).get("clips_per_s"):
                return {
                    "gpu": str(where["chip"]),
                    "clips_per_s": float(clips_per_s),
                    "source": f"measured: {file}, {where['date'][:10]}, {row}",
                }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{folder}: not results of bench/gpu.py ({error}); delete the folder and measure again "
            "by `make gpu`"
        ) from None
    return {}


def machine(
    gpu: str,
    utilisation: float,
    gpus: int,
    gpus_a_run: int | None = None,
    clips_per_s: float | None = None,
    decoded: float = math.inf,
    source: str = "",
) -> Machine:
    """Return a machine of `gpus`, at a share of their peak or at a measured rate.

    Args:
        gpus_a_run: GPUs per run; by default 8, as in a usual node, or all if there are fewer.
        clips_per_s: measured rate per GPU, of pretraining ViT-B with MGM (mask ratio 0.75,
            16 x 224 x 224).
        decoded: videos per second that the cores of one GPU decode; by default always enough.
        source: where the rate comes from.

    Raises:
        UserError: the GPU is unknown, or a run has more GPUs than there are.
    """
    if not clips_per_s and gpu not in PEAK:
        raise UserError(
            f"--gpu {gpu}: its peak is unknown; choose one of {', '.join(PEAK)}, or give "
            "--clips-per-s as measured"
        )
    gpus_a_run = gpus_a_run or min(8, gpus)
    if gpus_a_run > gpus:
        raise UserError(
            f"--gpus-per-run {gpus_a_run}: is more than --gpus {gpus}; choose 1 to {gpus}"
        )
    if clips_per_s:
        flops = clips_per_s * 6.0 * multiply_adds(recipes.pretrain("k400"))
        how = f"{clips_per_s:g} clips/s of ViT-B"
    else:
        flops = PEAK[gpu] * utilisation
        how = f"assumed: {utilisation:.0%} of the {gpu.upper()}'s peak"
    return Machine(gpu, flops, gpus, gpus_a_run, decoded, source or how)


def day_machine(machine: Machine, cores: int, decoded: float) -> Machine:
    """Return one GPU with the speeds of `cores` worker processes.

    Args:
        decoded: videos per second that one core decodes.
    """
    return replace(machine, decoded=cores * decoded, augmented=cores * AUGMENTED, tokens=TOKENS)


def size_for(path: Path, gpu: str) -> str:
    """Return the name of a scale's largest size that fits a GPU; empty if it has no sizes.

    Raises:
        UserError: no size fits.
    """
    wanted = {name: size.memory_gb for name, size in sizes_of(path).items() if size.memory_gb}
    held = MEMORY_GB.get(gpu)
    if not wanted or held is None:
        return ""
    fitting = [name for name, memory in wanted.items() if memory <= held]
    if not fitting:
        raise UserError(
            f"--gpu {gpu}: has {held} GB, and the smallest size of {path} takes "
            f"{min(wanted.values()):g}; choose a GPU with more"
        )
    return max(fitting, key=wanted.__getitem__)
