"""Checkpoints of other libraries, in and out. Nothing in a file is executed."""

from vlc.interop.export import FORMATS, describe_exports, export_model
from vlc.interop.load import Imported, at_size, describe, import_model
from vlc.interop.native import is_native, read_native, write_native

__all__ = [
    "FORMATS",
    "Imported",
    "at_size",
    "describe",
    "describe_exports",
    "export_model",
    "import_model",
    "is_native",
    "read_native",
    "write_native",
]
