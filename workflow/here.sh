#!/usr/bin/env bash
# here.sh LOG LOCK COMMAND...: run a job's command on this machine. Print its output and store it in
# LOG. When Snakemake ends for any reason, the command gets SIGTERM. It holds LOCK until it has
# ended, and the next Snakemake waits for that.
set -euo pipefail
exec > >(tee -i "$1") 2>&1 9> "$2"
# It fails on a file system without locks, where nothing stops a second Snakemake.
flock --shared 9 || true
MGM_PARENT=$PPID exec "${@:3}"
