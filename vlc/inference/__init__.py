"""Using a trained model: `load` and `Model`."""

from vlc.inference.model import Model, load, load_initial

__all__ = ["Model", "load", "load_initial"]
