"""`python -m mgm` is `mgm`: what `torchrun ... -m mgm` starts."""

from mgm.cli import main

main()
