"""Can the loader keep the step busy? The share of time in which the device steps and does not wait,
against what two rates predict.

One core loads so many clips a second, the device trains on so many; n workers keep it busy for n
times the one over the other, or always. On a GPU the step is ViT-B's in bf16 and the workers are as
many as the cores; on a CPU, which shares its cores with the workers, it is a small model's, and
there is a core less. The videos are generated ones like K400's, in shards (`mgm prepare --shards`)
or, with --files, as they are.
"""

import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import common
import torch
from common import Row
from loader import generate, in_shards

from mgm.masking import Grid, make_mask
from mgm.models import build_mae, reconstruction_loss
from mgm.spec import Data, Decoder, Mask, Model, Pretrain
from mgm.stages.data import motion_of
from mgm.stages.measure.step_time import step_seconds
from mgm.training.memory import set_malloc_options
from mgm.training.optim import build_optimiser
from mgm.video import Batch, Loading, probe_video, training_loader

SMALL = {"model": Model(width=96, depth=2, heads=2), "decoder": Decoder(width=48, depth=1, heads=1)}


@dataclass(frozen=True)
class Video:
    path: str
    frames: int
    label: int = 0


class Trainer:
    def __init__(self, spec: Pretrain, device: torch.device):
        self.spec, self.device = spec, device
        self.model = build_mae(spec).to(device).train()
        self.optimiser = build_optimiser(self.model, spec.optim)

    def step(self, batch: Batch) -> float:
        """Seconds, the copy to the device and the masks included."""
        started = time.perf_counter()
        batch = batch.map(lambda x: x.to(self.device, non_blocking=True))
        mask = self.spec.mask
        masked_BL = make_mask(mask, Grid(*self.spec.grid), motion_of(batch), batch.seed_B)
        step_seconds(
            self.optimiser,
            lambda: reconstruction_loss(*self.model(batch.frames_BTHWC, masked_BL), batch.weight_B),
            self.device,
            bf16=True,
        )
        return time.perf_counter() - started


def per_batch(work: Callable[[], object], repeats: int) -> float:
    """Seconds; the first one warms up."""
    return median([common.seconds(work) for _ in range(repeats + 1)][1:])


def busy_share(trainer: Trainer, batches: Iterator[Batch], first: int, steps: int) -> float:
    """Share of the time of `steps` steps, after `first` ones that live on what was loaded ahead."""
    for batch in itertools.islice(batches, first):
        trainer.step(batch)
    started = time.perf_counter()
    stepping = sum(trainer.step(batch) for batch in itertools.islice(batches, steps))
    return stepping / (time.perf_counter() - started)


def main() -> None:
    gpu, cores = torch.cuda.is_available(), len(os.sched_getaffinity(0))
    parser = common.arguments(__doc__, repeats=20)
    parser.add_argument("--batch", type=int, default=64 if gpu else 4)
    parser.add_argument("--workers", type=int, default=cores if gpu else max(1, cores - 1))
    parser.add_argument("--frames", type=int, default=300, help="of a generated video (300)")
    parser.add_argument(
        "--files", action="store_true", help="read the videos themselves, not shards of them"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    set_malloc_options()
    device = torch.device("cuda" if gpu else "cpu")
    spec = Pretrain(data=Data(dataset="folder"), mask=Mask(ratio=0.9), **({} if gpu else SMALL))
    trainer = Trainer(spec, device)
    with tempfile.TemporaryDirectory() as sources:
        whole = generate(Path(sources), args.frames)
        paths = whole if args.files else [*in_shards(whole, Path(sources) / "shards").values()]
        videos = [Video(path, probe_video(path).frames) for path in paths]

        def loader(workers: int) -> Iterator[Batch]:
            return training_loader(
                videos,
                spec.clips,
                spec.model.tubelet,
                seed=0,
                batch=args.batch,
                how=Loading(workers=workers),
            )

        alone = loader(workers=0)
        batch = next(alone)
        loads, steps = (
            args.batch / per_batch(work, args.repeats)
            for work in (lambda: next(alone), lambda: trainer.step(batch))
        )
        predicted = min(1.0, args.workers * loads / steps)
        measured = busy_share(
            trainer, loader(args.workers), first=3 * args.workers, steps=2 * args.repeats
        )
    name = f"feed {'ViT-B' if gpu else 'a small model'} ({device.type}) by {args.workers} workers{' from files' if args.files else ''}"
    rows = [
        Row(
            f"{name}, busy, against the rates' prediction",
            100 * measured,
            100 * predicted,
            measured / predicted,
            0.9,
            "%",
        )
    ]
    if gpu:
        rows.append(Row(f"{name}, busy, against always", 100 * measured, 100, measured, 0.95, "%"))
    common.finish(rows, args.json)
    print(
        f"a core loads {loads:.1f} clips/s, a step takes {steps:.1f}: {steps / loads:.1f} cores keep it busy"
    )


if __name__ == "__main__":
    main()
