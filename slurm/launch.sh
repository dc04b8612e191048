#!/usr/bin/env bash
# launch.sh NODES GPUS CPUS COMMAND...: run a job's command under Slurm, with one process per GPU of
# each node, or one per node without GPUs. CPUS are those of a node.
#
# Before the time limit Slurm sends SIGTERM (config.yaml). The run writes a checkpoint and ends with
# status 143, or under torchrun with the file MGM_STOPPED. Then the job goes back into the queue
# under its number, so Snakemake sees it wait, not fail. A cancelled job does not go back.
nodes=$1 gpus=$2 cpus=$3 most=100
shift 3
per_node=$((gpus > 0 ? gpus : 1)) words=()
if ((nodes > 1)); then
    words=(srun --nodes="$nodes" --ntasks="$nodes" --ntasks-per-node=1 --cpus-per-task="$cpus")
    ((gpus == 0)) || words+=(--gres="gpu:$gpus")
    words+=(--kill-on-bad-exit=1)
fi
if ((nodes * per_node > 1)); then
    # Torchrun must survive the signal, since it would leave its processes 30 s for a checkpoint.
    # They handle the signal themselves.
    words+=(bash -c 'trap "" TERM USR1; exec torchrun "$@"' torchrun --signals-to-handle=SIGINT
        --rdzv-backend=c10d --rdzv-endpoint="$(hostname):$((10000 + SLURM_JOB_ID % 20000))"
        --rdzv-id="$SLURM_JOB_ID" --nnodes="$nodes" --nproc-per-node="$per_node" --no-python)
fi
export MGM_STOPPED=$PWD/logs/stopped-$SLURM_JOB_ID
rm -f "$MGM_STOPPED"
# The command gets these signals too and ends. Then this script goes on.
trap : TERM USR1
"${words[@]}" "$@"
status=$?
if ((status == 138 || status == 143)) || [[ $status != 0 && -e $MGM_STOPPED ]]; then
    job=$(scontrol show job "$SLURM_JOB_ID")
    restarts=$(grep -oP 'Restarts=\K\d+' <<< "$job")
    # A cancelled job may be COMPLETING here, and so may one without time.
    if [[ $job != *JobState=RUNNING* && $job != *Reason=TimeLimit* ]]; then
        echo "job $SLURM_JOB_ID: cancelled, so not requeued"
    elif ((restarts < most)) && scontrol requeue "$SLURM_JOB_ID"; then
        echo "job $SLURM_JOB_ID: requeued, time $((restarts + 1)) of at most $most"
    else
        echo "job $SLURM_JOB_ID: not requeued after $restarts times; raise its runtime"
    fi
fi
rm -f "$MGM_STOPPED"
exit "$status"
