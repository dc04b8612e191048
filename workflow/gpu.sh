#!/usr/bin/env bash
# gpu.sh COMMAND...: run a command on the first of MGM_GPUS GPUs that no other such command has. A
# GPU is free again when its command has ended, however it ends.
set -euo pipefail
IFS=, read -ra gpus <<< "${CUDA_VISIBLE_DEVICES:-$(seq -s, 0 $((${MGM_GPUS:-1} - 1)))}"
for gpu in "${gpus[@]:0:${MGM_GPUS:-0}}"; do
    exec 8> "${TMPDIR:-/tmp}/mgm-gpu-$UID-$gpu.lock"
    if flock --nonblock 8; then
        export CUDA_VISIBLE_DEVICES=$gpu
        break
    fi
done
exec "$@"
