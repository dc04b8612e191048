"""Training: the loop, optimisers, mixing, checkpoints, and several processes."""
