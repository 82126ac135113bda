"""Using a trained model: `load` and `Model`."""

from vlc.inference.model import Model, load, load_initial
from vlc.inference.stored import export_lora

__all__ = ["Model", "export_lora", "load", "load_initial"]
