"""Using a trained model: `load` and `Model`."""

from vlc.inference.model import Model, load

__all__ = ["Model", "load"]
