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

from mgm.errors import UserError
from mgm.models import build_classifier, load_weights
from mgm.spec import RunOptions, parse
from mgm.stages import fit as fitting
from mgm.stages.evaluate import test
from mgm.stages.finetune import finetune
from mgm.stages.job import Job, Workplace, find_index
from mgm.stages.pretrain import pretrain
from mgm.stages.runner import run_all
from mgm.training import collectives
from tests.helpers.small_runs import Toy, ToyModel, toy_clips, toy_spec

COMPUTE = {"finetune": finetune}
STOP_AT = 5


def share_of(x):
    return x.chunk(collectives.world_size())[collectives.rank()]


def toy(failing, videos=1000) -> Toy:
    """Return a small run. A process gets its share of a batch, and the failures of that share."""

    def batches(first, waits):
        for step in range(first, 12):
            own = [
                name
                for at, clip, name in failing
                if at == step and clip in share_of(torch.arange(8))
            ]
            yield [share_of(toy_clips(step))], own

    return Toy(toy_spec(12, clip_grad=0.5), ToyModel(dropout=0.0), batches, videos)


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
        failed = run.train(folder, RunOptions(accumulate=accumulate, **how))
    except UserError as error:
        return {"error": str(error)}
    return {"failed": failed, "weights": run.weights().tolist()}


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
