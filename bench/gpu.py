"""Measure on a GPU: steps against transformers with MFU, steps fed from copies, a stopped run.

`bench/gpu.sh` calls it, one part at a time.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from measuring import Comparison, compared
from peers import draw, hugging_face, step_seconds

from mgm.dag.workflow import Workflow
from mgm.data.copies import copy_videos
from mgm.data.opening import cores
from mgm.masking import Grid, make_mask
from mgm.models import build_mae
from mgm.results.result import log_lines
from mgm.spec import Augment, Clips, Data, Mask, Model, Pretrain, RunOptions
from mgm.spec.compute import multiply_adds, peak_of
from mgm.stages.fit import device_copy
from mgm.stages.guidance import guided
from mgm.stages.job import best_device
from mgm.study.recipes import DECODERS, MODELS
from mgm.training.efficiency import faster
from mgm.training.optim import build_optimiser
from mgm.video.loader import Batch, training_loader
from mgm.video.planes import frames_of

BATCH = {"vit-b": 128, "vit-l": 64}
TINY = {
    "clips": Clips(frames=4, size=32),
    "model": Model(backbone="toy", width=48, depth=2, heads=4),
}


def spec_of(backbone: str, tiny: bool, mask: str = "mgm") -> Pretrain:
    """Return a pretraining at 90 % by the paper's recipe, or a tiny one."""
    sizes = TINY if tiny else {"model": MODELS[backbone], "decoder": DECODERS[backbone]}
    return Pretrain(data=Data(dataset="folder"), mask=Mask(name=mask, ratio=0.9), **sizes)


def mfu(spec: Pretrain, clips_per_s: float) -> str:
    """Return the share of the GPU's peak at this rate. A step is three forward passes."""
    peak = peak_of(torch.cuda.get_device_name()) if torch.cuda.is_available() else 0
    return f"{6 * multiply_adds(spec) * clips_per_s / peak:.1%}" if peak else "unknown"


def steps(tiny: bool, backbone: str) -> None:
    """Print the time per clip of a bf16 step on noise, against transformers with sdpa."""
    device = best_device()
    spec, count = spec_of(backbone, tiny, "tube"), 2 if tiny else BATCH[backbone]
    masked_BL = make_mask(spec.mask, Grid(*spec.grid), None, np.arange(count))
    masked_BL = torch.from_numpy(masked_BL).to(device)
    shape = (count, spec.clips.frames, spec.clips.size, spec.clips.size, 3)
    frames_BTHWC = torch.randint(0, 256, shape, dtype=torch.uint8).to(device)
    model, weight_B = build_mae(spec).to(device).train(), torch.ones(count, device=device)
    optimiser = build_optimiser(model, spec.optim)

    def loss_of():
        return model(frames_BTHWC, masked_BL, weight_B)[0]

    peer = hugging_face(spec, "sdpa", frames_BTHWC, masked_BL)
    works = [partial(step_seconds, *work, device, True) for work in ((optimiser, loss_of), peer)]
    ours, theirs = (partial(_several, work, 2 if tiny else 10) for work in works)
    with faster(model, device, RunOptions(), print):
        ours()
        name = f"{backbone}, bf16, {count} clips"
        per = count * (2 if tiny else 10)
        peers = {"transformers, sdpa": (theirs, 1.0)}
        (row,) = compared(Comparison(name, ours, peers, 3, per=per))
        start = time.perf_counter()
        ours()
        rate = per / (time.perf_counter() - start)
    print(f"{row} {rate:.0f} clips/s, MFU {mfu(spec, rate)}", flush=True)


def _several(work: Callable[[], float], count: int) -> None:
    for _ in range(count):
        work()


def fed(tiny: bool, folder: Path) -> None:
    """Print the rate of ViT-B's steps on clips that workers read from copies and tracks.

    With repeats, a video is decoded once for several clips of the batch.
    """
    device, workers = best_device(), 1 if tiny else max(cores() - 1, 1)
    spec = spec_of("vit-b", tiny)
    copies = copy_videos(draw(folder), folder / "copies", processes=min(cores(), 4))
    videos, batch, count = list(copies.videos) * 64, 2 if tiny else 128, 2 if tiny else 30
    skipped = 1 if tiny else 10
    model, (copy, copied) = build_mae(spec).to(device).train(), device_copy(device)
    optimiser = build_optimiser(model, spec.optim)

    def step(batch: Batch) -> None:
        def loss_of():
            return model(frames_BTHWC, batch.masked_BL, batch.weight_B, batch.motion_BSHW)[0]

        frames_BTHWC = batch.frames_BTHWC
        if batch.planes:
            frames_BTHWC = frames_of(spec.clips.size, *batch.planes)
        step_seconds(optimiser, loss_of, device, True)

    with faster(model, device, RunOptions(), print):
        for repeats, planes in ((1, False), (1, True), (2, True)):
            augment, pin = Augment(repeats=repeats), device.type == "cuda"
            loader = training_loader(
                videos,
                spec.clips,
                0,
                batch // repeats,
                augment=augment,
                workers=workers,
                pin=pin,
                planes=planes,
                **guided(spec.mask, spec.clips, spec.model),
            )
            # The first steps compile, and empty what workers prepared meanwhile.
            for number, one in enumerate(islice(loader, skipped + count)):
                if number == skipped:
                    start = time.perf_counter()
                step(copy(one))
                copied()
            rate = count * batch / (time.perf_counter() - start)
            print(
                f"| ViT-B, fed from copies by {workers} workers, {repeats} clips per decode, "
                f"{'planes' if planes else 'RGB'} | "
                f"{rate:.0f} clips/s, MFU {mfu(spec, rate)} |",
                flush=True,
            )
            loader.close()


def stop(tiny: bool, folder: Path) -> None:
    """Run 100 steps of `day`'s MGM on drawn videos, stop its process group, and continue it."""
    runs = Workflow({"study": "day"}, results=folder / "plan").plan.specs.values()
    spec = next(run for run in runs if isinstance(run, Pretrain) and run.mask.name == "mgm")
    index, count = draw(folder / "drawn"), 6 if tiny else 100
    data = Data(dataset="drawn", digest=index.digest)
    changes = TINY | {"model": TINY["model"].model_copy(update={"patch": 8})} if tiny else {}
    optim = spec.optim.model_copy(update={"steps": count, "batch": 4 if tiny else spec.optim.batch})
    spec = spec.model_copy(update={"data": data, "optim": optim, **changes})
    (folder / "spec.json").write_text(spec.model_dump_json())
    words = [sys.executable, "-m", "mgm", "pretrain", folder / "spec.json", "--out", folder]
    words += ["--data", f"drawn={folder / 'drawn' / 'index'}", "--accumulate", "1" if tiny else "4"]
    words += [
        "--workers",
        "1" if tiny else str(cores() - 1),
        "--checkpoint-s",
        "0" if tiny else "20",
    ]
    start, run = time.perf_counter(), folder / spec.run_id
    process = subprocess.Popen(list(map(str, words)), start_new_session=True)
    try:
        while process.poll() is None:
            if (lines := log_lines(run)) and lines[-1]["step"] >= count // 2:
                # As Slurm does at a time limit: workers get it too.
                os.killpg(process.pid, signal.SIGTERM)
                break
            time.sleep(0.05)
        stopped = process.wait()
    finally:
        # It would go on if this program is stopped.
        process.kill()
    left = log_lines(run)[-1]["step"]
    subprocess.run(list(map(str, words)), check=True)
    last = log_lines(run)[-1]
    print(
        f"| `day`: {count} steps, stopped at {left} (exit {stopped}), continued | "
        f"{time.perf_counter() - start:.0f} s, loss {last['loss']:.3f}, {last['clips_per_s']:.0f} "
        "clips/s |"
    )


PARTS: dict[str, Callable[[bool, Path], None]] = {
    "steps": lambda tiny, folder: steps(tiny, "vit-b"),
    "large": lambda tiny, folder: steps(tiny, "vit-l"),
    "fed": fed,
    "stop": stop,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--tiny", action="store_true", help="try it on a CPU")
    args = parser.parse_args()
    # A time limit ends what this program has started, too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"{device}, PyTorch {torch.__version__}, {cores()} cores")
    with tempfile.TemporaryDirectory() as folder:
        PARTS[args.part](args.tiny, Path(folder))


if __name__ == "__main__":
    main()
