"""Masks: microseconds a clip, a batch of 64, against VideoMAE's tube mask, drawn clip by clip in
numpy.

Both end with one bool tensor on the device. The peer does as VideoMAE's code
(masking_generator.py): for each clip, zeros and ones side by side, shuffled, and repeated over the
slots. Ours draws more where a mask asks for more: MGM breaks the ties of all 8 x 784 cells of
motion and all 1568 tokens.
"""

from functools import partial

import common
import numpy as np
import torch
from common import Row, paired, seconds

from mgm.masking import MASKS, Grid, Mask, Motion, make_mask

GRID, RATIO, CELLS = Grid(slots=8, height=14, width=14), 0.75, 28


def tube_of_videomae() -> np.ndarray:
    hidden = int(RATIO * GRID.patches)
    frame = np.hstack([np.zeros(GRID.patches - hidden), np.ones(hidden)])
    np.random.shuffle(frame)
    return np.tile(frame, (GRID.slots, 1)).flatten()


def motion(batch: int) -> torch.Tensor:
    """(B, S, 28, 28) as clips have it:

    still in most places, blocks of 2 x 2 equal cells, whole numbers of quarter pixels.
    """
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 64, (batch, GRID.slots, CELLS // 2, CELLS // 2)) * (
        rng.random((batch, GRID.slots, CELLS // 2, CELLS // 2)) < 0.3
    )
    return torch.from_numpy(blocks / 4).float().repeat_interleave(2, 2).repeat_interleave(2, 3)


def main() -> None:
    parser = common.arguments(__doc__, repeats=30)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    seed_B, motion_BSHW = (
        torch.arange(args.batch, device=args.device) * 7919,
        motion(args.batch).to(args.device),
    )
    shift_BSHW2 = torch.stack((motion_BSHW, -motion_BSHW), -1) / (CELLS * 8)

    def timed(draw) -> float:
        def work():
            draw()
            if args.device != "cpu":
                torch.cuda.synchronize()

        return seconds(work) / args.batch * 1e6

    def peer() -> torch.Tensor:
        return (
            torch.from_numpy(np.stack([tube_of_videomae() for _ in range(args.batch)]))
            .to(args.device)
            .bool()
        )

    def row(name: str) -> list[Row]:
        def ours() -> float:
            return timed(
                lambda: make_mask(
                    Mask(name=name, ratio=RATIO), GRID, Motion(motion_BSHW, shift_BSHW2), seed_B
                )
            )

        return [
            Row(
                f"mask {name} ({args.device})",
                *paired(ours, lambda: timed(peer), args.repeats),
                goal=10,
                unit="us a clip",
            )
        ]

    common.finish(
        common.measured(
            "masks", "half a minute", {name: partial(row, name) for name in MASKS}, args.json
        ),
        args.json,
    )


if __name__ == "__main__":
    main()
