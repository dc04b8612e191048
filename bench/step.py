"""A pretraining step (forward, loss, backward, optimiser) of ViT-B on 16 x 224 x 224, against
Hugging Face's VideoMAE on the same clips.

Both hide the same tubes, in the same precision, on the same threads; the peer is given frames that
are normalised already, and AdamW's fused kernel. One thread of a CPU is measured in CPU seconds,
which other work disturbs less than the clock. Beside them, the share of the fastest matrix product
here that the model's multiply-adds make. bench/gpu.py has more of a GPU. The last line is ST-MAE's
claim: a step that hides 90 % against one whose encoder sees all.
"""

from collections.abc import Callable
from functools import partial

import common
import torch
from common import Row
from transformers import VideoMAEConfig, VideoMAEForPreTraining

from mgm.masking import Grid, make_mask
from mgm.models import build_mae, reconstruction_loss
from mgm.models.vit import IMAGENET_MEAN, IMAGENET_STD
from mgm.paper.cost import multiply_adds
from mgm.spec import Clips, Data, Mask, Measure, Pretrain
from mgm.stages.measure.step_time import step_seconds, step_time
from mgm.training.memory import set_malloc_options
from mgm.training.optim import build_optimiser

DATA = Data(dataset="folder")


class Steps:
    """Seconds of a step of each model on the same clips."""

    def __init__(self, ratio: float, bf16: bool, batch: int, device: torch.device, size: int = 224):
        spec = Pretrain(data=DATA, clips=Clips(size=size), mask=Mask(name="tube", ratio=ratio))
        self.spec, self.bf16, self.batch, self.device = spec, bf16, batch, device
        noise = torch.Generator().manual_seed(0)
        self.frames_BTHWC = torch.randint(
            0, 256, (batch, 16, size, size, 3), dtype=torch.uint8, generator=noise
        ).to(device)
        self.masked_BL = make_mask(
            Mask(name="tube", ratio=ratio), Grid(*spec.grid), None, torch.arange(batch)
        ).to(device)

    def ours(self) -> Callable[[], float]:
        model, weight_B = (
            build_mae(self.spec).to(self.device).train(),
            torch.ones(self.batch, device=self.device),
        )
        optimiser = build_optimiser(model, self.spec.optim)
        return self._timed(
            optimiser,
            lambda: reconstruction_loss(*model(self.frames_BTHWC, self.masked_BL), weight_B),
        )

    def peer(self, attention: str) -> Callable[[], float]:
        size = self.spec.clips.size
        config = VideoMAEConfig(
            image_size=size, use_mean_pooling=False, attn_implementation=attention
        )  # by default ViT-B
        model = VideoMAEForPreTraining(config).to(self.device).train()
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), fused=True)
        mean, std = (
            torch.tensor(channels, device=self.device) for channels in (IMAGENET_MEAN, IMAGENET_STD)
        )
        pixels_BTCHW = ((self.frames_BTHWC / 255 - mean) / std).permute(0, 1, 4, 2, 3).contiguous()
        return self._timed(
            optimiser, lambda: model(pixel_values=pixels_BTCHW, bool_masked_pos=self.masked_BL).loss
        )

    def _timed(self, optimiser, loss_of) -> Callable[[], float]:
        return lambda: clock(self.device)(
            lambda: step_seconds(optimiser, loss_of, self.device, self.bf16)
        )


def clock(device: torch.device) -> Callable[[Callable[[], object]], float]:
    return (
        common.cpu_seconds
        if device.type == "cpu" and torch.get_num_threads() == 1
        else common.seconds
    )


def measure(steps: Steps, repeats: int) -> list[Row]:
    precision, device = "bf16" if steps.bf16 else "float32", steps.device.type
    name = (
        f"step ViT-B, ratio {steps.spec.mask.ratio:g}, {precision}, batch {steps.batch} ({device})"
    )
    goals = {"eager": 2.0 if device == "cuda" else 1.2 if steps.bf16 else 1.5, "sdpa": 1.0}
    ours = steps.ours()
    times = common.compared(ours, [steps.peer(attention) for attention in goals], repeats)
    rows = [
        Row(
            f"{name}, transformers {attention}",
            steps.batch / mine,
            steps.batch / theirs,
            ratio,
            goal,
            "clips/s",
        )
        for (attention, goal), (mine, theirs, ratio) in zip(goals.items(), times)
    ]
    if goal := 0.4 if device == "cuda" else 0.0 if steps.bf16 else 0.85:
        rate, core = (
            6 * multiply_adds(steps.spec) * rows[0].ours / 1e9,
            matmul_rate(steps.device, steps.bf16) / 1e9,
        )
        rows.append(
            Row(
                f"{name}, of the fastest matrix product here",
                rate,
                core,
                rate / core,
                goal,
                "GFLOP/s",
            )
        )
    return rows


def matmul_rate(device: torch.device, bf16: bool) -> float:
    """FLOP/s of a large product by the fastest kernel that PyTorch has here:

    what a step is held against.
    """
    n = 8192 if device.type == "cuda" else 1024
    a, b = (
        torch.randn(n, n, device=device, dtype=torch.bfloat16 if bf16 else torch.float32)
        for _ in range(2)
    )
    works = [lambda: a @ b]
    if device.type == "cpu" and not bf16:
        in_onednn = a.to_mkldnn()
        works.append(lambda: torch.nn.functional.linear(in_onednn, b))

    def seconds(work: Callable[[], object]) -> float:
        return clock(device)(
            lambda: (work(), torch.cuda.synchronize() if device.type == "cuda" else None)
        )

    return 2 * n**3 / min(seconds(work) for work in works for _ in range(10))


def main() -> None:
    gpu = torch.cuda.is_available()
    parser = common.arguments(__doc__, repeats=10 if gpu else 3)
    parser.add_argument("--batch", type=int, default=64 if gpu else 1)
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.75, 0.9])
    parser.add_argument(
        "--precisions",
        nargs="+",
        default=["bf16"] if gpu else ["float32", "bf16"],
        choices=["float32", "bf16"],
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, default=224, help="of a clip, in pixels (224)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    set_malloc_options()  # as our jobs do; the peer has it as well, since it is the process's
    device = torch.device("cuda" if gpu else "cpu")

    def steps(precision: str, ratio: float) -> list[Row]:
        return measure(
            Steps(ratio, precision == "bf16", args.batch, device, args.size), args.repeats
        )

    def claim() -> list[Row]:
        found = step_time(
            Measure(data=DATA, clips=Clips(size=args.size), name="step-time"), args.repeats
        )
        times = found["masked_ms"] / 1000, found["full_ms"] / 1000
        return [
            Row(
                f"step ViT-B, 90 % hidden ({device.type}), all tokens seen",
                *times,
                found["speedup"],
                4,
                "s",
            )
        ]

    tasks = {
        f"{precision}, {ratio:g}": partial(steps, precision, ratio)
        for precision in args.precisions
        for ratio in args.ratios
    }
    common.finish(
        common.measured("step", "5 minutes", tasks | {"all tokens": claim}, args.json), args.json
    )


if __name__ == "__main__":
    main()
