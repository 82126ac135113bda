"""Training: state, step, checkpoints, logs, and the loop that ties them together."""

from vlc.train.loop import EXIT_PREEMPTED, train

__all__ = ["EXIT_PREEMPTED", "train"]
