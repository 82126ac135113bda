"""Generated scenes: ground truth on which alignment, binding and guidance can be measured exactly."""

from vlc.data.sources.scenes.source import SPLITS, Scenes

__all__ = ["SPLITS", "Scenes"]
