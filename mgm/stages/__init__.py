"""What `mgm` computes, one module per stage: pretrain, finetune, probe, predict and others."""
