#!/usr/bin/env bash
# launch.sh NODES GPUS CPUS COMMAND...: run a job's command under Slurm, with one process per GPU of
# each node, or one per node without GPUs. CPUS are those of a node.
#
# The run is told when its job ends. Two minutes before, it writes a checkpoint and ends with status
# 143, or under torchrun with the file MGM_STOPPED. Then the job goes back into the queue under its
# number, so Snakemake sees it wait, not fail. A signal that arrives does the same. A cancelled job
# does not go back.
nodes=$1 gpus=$2 cpus=$3 most=100
shift 3
per_node=$((gpus > 0 ? gpus : 1)) words=()
if ((nodes > 1)); then
    words=(srun --nodes="$nodes" --ntasks="$nodes" --ntasks-per-node=1 --cpus-per-task="$cpus")
    ((gpus == 0)) || words+=(--gres="gpu:$gpus")
    words+=(--kill-on-bad-exit=1)
fi
if ((nodes * per_node > 1)); then
    # Often only the first process of a step gets Slurm's signals. Torchrun passes them on, and gives
    # its processes time to write a checkpoint.
    words+=(torchrun --signals-to-handle=SIGINT,SIGTERM,SIGUSR1 --shutdown-timeout=110
        --rdzv-backend=c10d --rdzv-endpoint="$(hostname):$((10000 + SLURM_JOB_ID % 20000))"
        --rdzv-id="$SLURM_JOB_ID" --nnodes="$nodes" --nproc-per-node="$per_node" --no-python)
fi
export MGM_STOPPED=$PWD/logs/stopped-$SLURM_JOB_ID
rm -f "$MGM_STOPPED"
# In seconds since 1970. A job without a time limit has no end.
MGM_JOB_END=$(SLURM_TIME_FORMAT=%s scontrol show job "$SLURM_JOB_ID" | grep -oPm1 ' EndTime=\K\d+')
export MGM_JOB_END
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
