"""Training: the loop, optimisers, mixing, checkpoints, and several processes."""

from mgm.training.checkpoint import load_checkpoint, remove_checkpoints, save_checkpoint
from mgm.training.loop import train
from mgm.training.mixing import mix
from mgm.training.optim import build_optimiser, learning_rate, parameter_groups
