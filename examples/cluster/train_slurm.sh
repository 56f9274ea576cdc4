#!/bin/bash
# Train a recipe on two nodes with four GPUs each:   sbatch train_slurm.sh STORE RUN
#
# At its time limit the job queues itself again and resumes at its last checkpoint:
# --resume starts a run, or resumes an existing one.
#SBATCH --job-name=icecube2nd
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4        # one process for each GPU
#SBATCH --gres=gpu:4
#SBATCH --cpus-per-task=4
#SBATCH --mem-per-cpu=4G
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300        # five minutes before the end
#SBATCH --output=%x_%j.log
set -euo pipefail
STORE=$1 RUN=$2
RECIPE=${3:-s_d32}

trap 'scontrol requeue "$SLURM_JOB_ID"' USR1
export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK

# Lightning reads ranks and addresses from SLURM's variables.
srun icecube2nd train --recipe "$RECIPE" --data "$STORE" --out "$RUN" --resume \
    --accelerator gpu --devices 4 --num-nodes 2 --strategy ddp \
    --set precision=bfloat16 --no-progress --checkpoint-minutes 10 &
wait $!
