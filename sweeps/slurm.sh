#!/bin/bash
# Several machines on one sweep under SLURM. Each task of the array runs the same command:
#
#     sbatch --array=1-8 sweeps/slurm.sh sweeps/sr.yaml --storage postgresql+psycopg://sqz@db/sqz
#
# All arguments go to `python -m sqzexplore sweep`. Options of sbatch override the lines below.
#SBATCH --job-name=sqzexplore
#SBATCH --array=1-4
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
#SBATCH --output=%x-%A_%a.log
#SBATCH --open-mode=append
#SBATCH --requeue
# A minute before the time is up; B: to this script, not to what it runs.
#SBATCH --signal=B:USR1@60

export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"
"${PYTHON:-python}" -m sqzexplore sweep "$@" &
sweep=$!

# When the time is up, stop and queue again; when cancelled or preempted, stop. In both the sweep
# leaves what it has in the study, and whoever runs it next goes on from there.
again=
trap 'again=yes; kill -TERM "$sweep"' USR1
trap 'kill -TERM "$sweep"' TERM

wait "$sweep"
status=$?
while kill -0 "$sweep" 2>/dev/null; do # a signal ended the waiting, not the sweep
    wait "$sweep"
    status=$?
done
if [[ $again && $status -ne 0 ]]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
