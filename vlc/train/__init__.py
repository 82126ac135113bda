"""Training: state, step, checkpoints, logs, and the loop that ties them together."""

from vlc.train.loop import train

__all__ = ["train"]
