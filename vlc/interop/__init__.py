"""Checkpoints of other libraries, in and out. Nothing in a file is executed."""

from vlc.interop.load import Imported, import_model

__all__ = ["Imported", "import_model"]
