"""Measure pretraining steps of ViT-B at mask ratio 0.9: alone, fed by workers, on several GPUs.

    python bench/step.py step                 on random clips
    python bench/step.py fed --index DIR      on clips that workers read from a prepared set
    torchrun --nproc-per-node N bench/step.py parallel     on random clips

Prints clips per second and the share of the GPU's peak. `--tiny` tries it on a CPU.
"""

import argparse
import time
from collections.abc import Iterator
from itertools import islice, repeat
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from mgm.data.index import read_index
from mgm.data.loader import on_device, training_batches
from mgm.device import best_device
from mgm.masking import Grid, make_mask
from mgm.models import build_mae
from mgm.spec import Clips, Data, Mask, Model, Pretrain, RunOptions
from mgm.spec.compute import multiply_adds, peak_of
from mgm.stages.run import readers
from mgm.training import distributed
from mgm.training.optim import build_optimiser

TINY = {
    "model": Model(backbone="toy", width=48, depth=2, heads=4, patch=8),
    "clips": Clips(frames=4, size=32),
}


def random_clips(spec: Pretrain, batch: int, device: torch.device) -> tuple[Tensor, ...]:
    """Return frames, masks and weights."""
    masked_BL = make_mask(Mask(name="tube", ratio=0.9), Grid(*spec.grid), None, np.arange(batch))
    shape = batch, spec.clips.frames, spec.clips.size, spec.clips.size, 3
    frames_BTHWC = torch.randint(0, 256, shape, dtype=torch.uint8)
    parts = frames_BTHWC, torch.from_numpy(masked_BL), torch.ones(batch)
    return tuple(part.to(device) for part in parts)


def fed_clips(
    spec: Pretrain, index: Path, batch: int, planes: bool, device: torch.device
) -> Iterator[tuple[Tensor, ...]]:
    videos, gpu = read_index(index).train, device.type == "cuda"
    loader = training_batches(
        videos * (1 + batch // len(videos)),
        spec.clips,
        spec.seed,
        batch,
        mask=spec.mask,
        grid=Grid(*spec.grid),
        workers=readers(RunOptions()),
        planes=planes,
        pin=gpu,
    )
    for own, _ in on_device(loader, spec.clips.size, device):
        yield own["frames_BTHWC"], own["masked_BL"], own["weight_B"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("part", choices=("step", "fed", "parallel"))
    parser.add_argument("--index", type=Path)
    parser.add_argument("--batch", type=int, default=128, help="clips per process")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    with distributed.process_group():
        device, mask = best_device(), Mask(name="mgm", ratio=0.9)
        spec = Pretrain(data=Data(dataset="folder"), mask=mask, **(TINY if args.tiny else {}))
        gpu = torch.cuda.get_device_name() if device.type == "cuda" else ""
        model = step = build_mae(spec).to(device).train()
        if gpu:
            step = torch.compile(model, dynamic=False)
        if distributed.world_size() > 1:
            step = DistributedDataParallel(step, gradient_as_bucket_view=True)
        optimiser = build_optimiser(model, spec.optim)
        for planes in (False, True) if args.part == "fed" and gpu else (False,):
            clips = repeat(random_clips(spec, args.batch, device))
            if args.part == "fed":
                clips = fed_clips(spec, args.index, args.batch, planes, device)
            # The first ten steps compile, and empty what workers have read meanwhile.
            for number, batch in enumerate(islice(clips, 10 + args.steps)):
                if number == 10:
                    start = time.perf_counter()
                optimiser.zero_grad()
                with torch.autocast(device.type, torch.bfloat16):
                    loss, _ = step(*batch)
                loss.backward()
                optimiser.step()
            loss.item()
            rate = args.steps * args.batch / (time.perf_counter() - start)
            share = 6 * multiply_adds(spec) * rate / (peak_of(gpu) or np.inf)
            print(
                f"{gpu or 'CPU'}, {args.part}{', planes' if planes else ''}, process "
                f"{distributed.rank()}: {rate:.0f} clips/s, {share:.1%} of the peak",
                flush=True,
            )


if __name__ == "__main__":
    main()
