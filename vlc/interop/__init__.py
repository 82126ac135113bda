"""Checkpoints of other libraries, in and out. Nothing in a file is executed."""

from vlc.interop.export import FORMATS, describe_exports, export_model
from vlc.interop.load import Imported, at_size, describe, import_model
from vlc.interop.lora import base_of, is_lora_folder, merge_lora, read_lora, write_lora
from vlc.interop.mixing import greedy_soup, mix
from vlc.interop.native import is_native, read_native, write_native
from vlc.interop.text_length import at_length

__all__ = [
    "FORMATS",
    "Imported",
    "at_length",
    "at_size",
    "base_of",
    "describe",
    "describe_exports",
    "export_model",
    "greedy_soup",
    "import_model",
    "is_lora_folder",
    "is_native",
    "merge_lora",
    "mix",
    "read_lora",
    "read_native",
    "write_lora",
    "write_native",
]
