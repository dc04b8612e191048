"""All work of the two worker processes of tests/training/test_collectives.py, in one start.

    python -m tests.helpers.two_processes FOLDER

torchrun's environment variables set the ranks. FOLDER/specs holds NAME.json specs. Each process
writes its observations to FOLDER/RANK.json.
"""

import json
import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from mgm.errors import UserError
from mgm.models import build_classifier, load_weights
from mgm.spec import Optim, RunOptions, parse
from mgm.stages import fit as fitting
from mgm.stages.evaluate import test
from mgm.stages.finetune import finetune
from mgm.stages.job import Job, Workplace, find_index
from mgm.stages.pretrain import pretrain
from mgm.stages.runner import run_all
from mgm.training import TrainingRun, collectives, train
from tests.helpers.small_runs import Numbers

COMPUTE = {"finetune": finetune}
STOP_AT = 5


def share_of(x):
    return x.chunk(collectives.world_size())[collectives.rank()]


def toy(failing, videos=1000) -> TrainingRun:
    """Return a small run. A process gets its share of a batch, and the failures of that share."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 1))

    def batches(first, waits):
        for step in range(first, 12):
            x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
            own = [
                name
                for at, clip, name in failing
                if at == step and clip in share_of(torch.arange(8))
            ]
            yield Numbers(share_of(x)), own

    def loss_of(batch):
        x = batch.x
        loss = (model(x) - x.sum(dim=1, keepdim=True)).square().mean()
        return loss, lambda: {"first": x[0, 0]}

    optim = Optim(
        lr=0.5, min_lr=0.01, batch=8, epochs=10, warmup_epochs=1, precision="float32", clip_grad=0.5
    )
    return TrainingRun("toy", model, optim, 12, videos, batches, loss_of)


# (step, clip of the batch, video)
FAILING = [
    (3, 1, "b"),
    (3, 6, "d"),
    (4, 0, "a"),
    (9, 7, "d"),
    (11, 5, "c"),
]


def trained_toy(folder: Path, videos: int, accumulate: int, **how) -> dict:
    folder.mkdir(exist_ok=True)
    run = toy(FAILING, videos)
    try:
        failed = train(run, folder, RunOptions(accumulate=accumulate, **how), lambda line: None)
    except UserError as error:
        return {"error": str(error)}
    return {
        "failed": failed,
        "weights": torch.cat([x.flatten() for x in run.model.parameters()]).tolist(),
    }


def stopped(spec, execution: Workplace) -> object:
    """Run a spec, and send SIGTERM to rank 1 alone in the middle of a step."""
    real = fitting.training_loader

    def loader(*args, first_step, **kwargs):
        for step, batch in enumerate(real(*args, first_step=first_step, **kwargs), first_step):
            if step == STOP_AT and collectives.rank() == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    fitting.training_loader = loader
    try:
        run_all([spec], COMPUTE[spec.stage], execution)
    except SystemExit as end:
        return end.code
    finally:
        fitting.training_loader = real


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    here = Workplace(folder / "two", {"ssv2": folder / "ssv2"}, RunOptions(accumulate=2))
    specs = {
        path.stem: parse(json.loads(path.read_text()), str(path))
        for path in (folder / "specs").glob("*.json")
    }
    seen: dict[str, object] = {}
    with collectives.process_group():
        seen["toy"] = trained_toy(folder / "toy", 1000, 2)
        seen["many"] = trained_toy(folder / "many", 299, 2)
        run_all([specs["pretrain"]], pretrain, here)
        for spec in (specs["tuned"], specs["dropping"]):
            run_all([spec], finetune, here)
        run_all([specs["tuned"], specs["dropping"]], finetune, here)  # done already
        again = replace(
            here, results=folder / "again", options=RunOptions(accumulate=2, checkpoint_s=1e9)
        )
        seen["status"] = [stopped(specs["dropping"], again), stopped(specs["tuned"], again)]
        if collectives.is_main():
            shutil.copytree(folder / "again", folder / "two-to-one")
        collectives.barrier()
        run_all([specs["dropping"]], finetune, again)
        run_all([specs["tuned"]], finetune, replace(here, results=folder / "one-to-two"))
        one = folder / "one" / specs["tuned"].run_id
        model = build_classifier(specs["tuned"], 3).eval()
        load_weights(model, one / "weights.safetensors")
        job = Job(specs["tuned"], folder / "tested", here, find_index(specs["tuned"], here))
        job.folder.mkdir(exist_ok=True)
        seen["top1"] = test(job, model).get("top1")
    Path(folder, f"{os.environ['RANK']}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
