#!/usr/bin/env bash
# run.sh LOG COMMAND...: runs a job's command under Slurm. Training that the time limit or a preemption stopped has left a checkpoint and
# the file MGM_STOPPED (torchrun's status is 1, whatever its processes' was), or status 138 or 143 (see docs/cluster.md): the job goes back
# into the queue under its number, and Snakemake sees it wait, not fail.
log=$1 most=100
shift
export MGM_STOPPED=$PWD/$log.stopped
rm -f "$MGM_STOPPED"
trap : TERM USR1 # the command gets it too and stops; then this script goes on
"$@" >> "$log" 2>&1
status=$?
if ((status == 138 || status == 143)) || [[ $status != 0 && -e $MGM_STOPPED ]]; then
    restarts=$(scontrol show job "$SLURM_JOB_ID" | grep -oP 'Restarts=\K\d+')
    if ((restarts < most)) && scontrol requeue "$SLURM_JOB_ID"; then
        echo "job $SLURM_JOB_ID: back in the queue, for time $((restarts + 1)) of at most $most" >> "$log"
    else
        echo "job $SLURM_JOB_ID: stopped $((restarts + 1)) times and not requeued; give such jobs more hours in cluster.yaml" >> "$log"
    fi
fi
rm -f "$MGM_STOPPED"
exit "$status"
