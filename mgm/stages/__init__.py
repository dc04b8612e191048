"""What `mgm` computes: the stages of runs, and commands on trained models."""
