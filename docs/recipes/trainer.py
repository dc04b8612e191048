"""Pretrain Hugging Face's VideoMAE on a prepared folder, with the Trainer and MGM's masks.

mgm prepare folder --source DIR --out data/mine
python trainer.py data/mine
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments, VideoMAEConfig, VideoMAEForPreTraining

import mgm
from mgm.data.index import read_index
from mgm.rng import clip_seed, generator
from mgm.video.store import read_clips
from mgm.video.transform import multiscale

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


class Clips(Dataset):
    """Clips of 16 frames, every second one, cut as VideoMAE does. The epoch seeds their masks."""

    def __init__(self, folder: Path, mask: str = "mgm"):
        self.videos, self.mask, self.epoch = read_index(folder).train, mask, 0

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, sample: int) -> tuple[np.ndarray, np.ndarray]:
        video, seed = self.videos[sample], clip_seed(0, self.epoch, sample)
        track = video.read_track()
        start = generator(seed, "sample").integers(max(video.frames - 30, 1))
        index_T = np.minimum(start + np.arange(0, 32, 2), video.frames - 1)
        crop = multiscale(video.height, video.width, 224, generator(seed, "crop"))
        (frames_THWC,) = read_clips(video.path, track, [index_T], [crop], 224)
        motion = track[index_T].under(crop, 224, (video.height, video.width))
        return frames_THWC, mgm.masks(motion, self.mask, seed=seed).reshape(-1)


def collate(samples: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, torch.Tensor]:
    """Return what `VideoMAEForPreTraining` takes."""
    pixels = [(frames_THWC / 255 - MEAN) / STD for frames_THWC, _ in samples]
    return {
        "pixel_values": torch.tensor(np.stack(pixels), dtype=torch.float32).permute(0, 1, 4, 2, 3),
        "bool_masked_pos": torch.from_numpy(np.stack([masked_L for _, masked_L in samples])),
    }


def train(folder: Path, out: str, config: VideoMAEConfig, **arguments) -> Trainer:
    """Pretrain with Hugging Face's Trainer. `arguments` are those of `TrainingArguments`."""
    model = VideoMAEForPreTraining(config)
    given = TrainingArguments(out, remove_unused_columns=False, **arguments)
    trainer = Trainer(model, given, data_collator=collate, train_dataset=Clips(folder))
    trainer.train()
    return trainer


if __name__ == "__main__":
    # Without use_mean_pooling=False, Hugging Face's encoder has no final norm.
    train(Path(sys.argv[1]), "videomae", VideoMAEConfig(use_mean_pooling=False))
