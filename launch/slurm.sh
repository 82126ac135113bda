#!/bin/bash
# One run of vlc on SLURM: `launch/slurm.py` fills the lines in capitals, or copy this and fill them by hand.
#SBATCH --job-name=@NAME@
#SBATCH --nodes=@NODES@
#SBATCH --ntasks-per-node=@TASKS@
#SBATCH --time=@TIME@
#SBATCH --output=@LOGS@/%x-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=TERM@120
@MORE@

# Every task is a process of the run; they find each other by SLURM's variables. What they exit with:
#   0 done    2 bad input, 3 diverged: no use starting again    75 saved after SIGTERM    76 another process was lost
#   74 a bucket's store was away    77 diverged, for the first time at this step
# They leave by themselves when one is lost, and together when asked to stop: srun must not be faster (kill-on-bad-exit).
set -u
cd "@FOLDER@"
attempts=@RESTARTS@
for attempt in $(seq 0 "$attempts"); do
  srun --kill-on-bad-exit=0 --wait=180 @COMMAND@
  status=$?
  echo "launch: srun ended with $status (attempt $((attempt + 1)) of $((attempts + 1)))."
  case $status in
    0 | 2 | 3) exit $status ;;
    75)  # SIGTERM: the time limit is near (go on in a new turn), or someone asked for it (scancel --signal=TERM)
      [ "@REQUEUE@" = yes ] && exec scontrol requeue "$SLURM_JOB_ID"
      exit 75 ;;
  esac
done
exit $status
