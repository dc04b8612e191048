#!/usr/bin/env bash
# gpu.sh COMMAND...: run a command on one GPU of MGM_GPUS, a list as in CUDA_VISIBLE_DEVICES. The
# command holds the GPU's lock, and this waits until one is free. The kernel frees the lock when the
# command and its children have ended, however they end. Without a list, just run the command.
set -euo pipefail
IFS=, read -ra gpus <<< "${MGM_GPUS-}"
while ((${#gpus[@]})); do
    for gpu in "${gpus[@]}"; do
        # Old names of MIG slices contain slashes.
        exec 8> "/tmp/mgm-gpu-$UID-${gpu//[^A-Za-z0-9-]/_}.lock"
        if flock --nonblock 8; then
            export CUDA_VISIBLE_DEVICES=$gpu
            exec "$@"
        fi
    done
    sleep 1
done
exec "$@"
