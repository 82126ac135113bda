"""Tools that keep and show runs, behind one small interface: TensorBoard, Weights & Biases, MLflow, Trackio."""

from vlc.track.background import Background
from vlc.track.open import TRACKERS, check_trackers, known_to, open_trackers
from vlc.track.tracker import TrackedRun, Tracker

__all__ = ["TRACKERS", "Background", "TrackedRun", "Tracker", "check_trackers", "known_to", "open_trackers"]
