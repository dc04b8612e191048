#!/usr/bin/env bash
# here.sh LOG LOCK COMMAND...: runs a job's command on this machine, shows its lines and keeps them in LOG. The command gets SIGTERM when
# Snakemake is gone, whatever ended that, and holds LOCK until it has ended itself; the next Snakemake waits for it.
set -euo pipefail
exec > >(tee -i "$1") 2>&1 9> "$2"
flock --shared 9
exec setpriv --pdeathsig TERM "${@:3}"
