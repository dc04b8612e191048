"""Starting: seconds from a process's start to its first optimiser step, beside a bare `import
torch`.

The first step is over when a run logs its second, so that is what we wait for. A probe has no steps
to log: we wait for its result, which is later still.
"""

import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import common
from common import Row, paired, seconds

from mgm.data.synthetic.make import generate
from mgm.data.synthetic.params import Synthetic
from mgm.spec import (
    Clips,
    Data,
    Decoder,
    Finetune,
    FinetuneOptim,
    Model,
    Optim,
    Pretrain,
    Probe,
    Spec,
)

PARAMS = Synthetic(classes=2, train_per_class=4, test_per_class=2, size=32, frames=12)
MGM = str(Path(sys.executable).with_name("mgm"))
SHAPES = {
    "data": Data(dataset="ssv2", digest=PARAMS.digest),
    "clips": Clips(frames=4, size=32, stride=2, flip=False),
    "model": Model(width=16, depth=1, heads=2, patch=8),
}
STEPS = {"batch": 2, "steps": 100, "precision": "float32"}
RUNS = [
    (
        Pretrain(**SHAPES, decoder=Decoder(width=8, depth=1, heads=2), optim=Optim(**STEPS)),
        "log.jsonl",
        2,
        4,
    ),
    (Probe(**SHAPES), "result.json", 1, 4),
    (Finetune(**SHAPES, optim=FinetuneOptim(**STEPS)), "log.jsonl", 2, 9),
]  # what to run, the file that shows its first step, the lines to wait for, the goal in seconds


def start(spec: Spec, file: str, lines: int, videos: Path) -> float:
    """Run `spec` in a process until `file` has so many lines; end it."""
    with tempfile.TemporaryDirectory() as out:
        spec_file, log = Path(out, "spec.json"), Path(out, spec.run_id, file)
        spec_file.write_text(spec.model_dump_json())
        command = [MGM, spec.verb, str(spec_file), "--out", out, "--data", f"ssv2={videos}"]
        started = time.perf_counter()
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            ended = False
            while not log.exists() or log.read_text().count("\n") < lines:
                if ended:  # and the file had its last chance
                    sys.exit(
                        f"mgm {spec.verb} ended before its first step: {process.stderr.read() if process.stderr else ''}"
                    )
                ended = process.poll() is not None
                time.sleep(0.005)
            took = time.perf_counter() - started
            process.kill()
        return took


def bare_torch() -> float:
    return seconds(lambda: subprocess.run([sys.executable, "-c", "import torch"], check=True))


def shown_help() -> float:
    return seconds(lambda: subprocess.run([MGM, "--help"], check=True, stdout=subprocess.DEVNULL))


def main() -> None:
    parser = common.arguments(__doc__, repeats=3)
    parser.add_argument(
        "--verbs", nargs="+", default=[spec.verb for spec, *_ in RUNS], help="what to start (all)"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        videos = Path(folder, "videos")
        generate(PARAMS, videos)

        def verb(spec: Spec, file: str, lines: int, goal: float) -> list[Row]:
            took = paired(lambda: start(spec, file, lines, videos), bare_torch, args.repeats)
            return [Row(f"mgm {spec.verb} to its first step", *took, goal, "s", "ours")]

        tasks = {
            "help": lambda: [
                Row("mgm --help", *paired(shown_help, bare_torch, args.repeats), 0.5, "s", "ours")
            ]
        }
        tasks |= {run[0].verb: partial(verb, *run) for run in RUNS if run[0].verb in args.verbs}
        rows = common.measured("start", "a minute", tasks, args.json)
    common.finish(rows, args.json)


if __name__ == "__main__":
    main()
