"""Places: files and folders on disks and in buckets, by one set of names. Nothing else asks which of them one is."""

from vlc.storage.appended import Appended, append_to
from vlc.storage.copies import cache_folder, local_copy, made_for, upload, working_folder
from vlc.storage.files import (
    IMAGE_FOLDERS,
    exists,
    expand_braces,
    find,
    find_in,
    find_shards,
    is_folder,
    is_glob,
    is_remote,
    join,
    open_file,
    parent,
    read_bytes,
    read_range,
    reading,
    version_of,
    write_whole,
    writing,
)
from vlc.storage.hub import from_hub, is_hub, push_to_hub, refuse_hub
from vlc.storage.patience import Unreachable
from vlc.storage.place import ObjectPath, Place, place, write_json

__all__ = [
    "IMAGE_FOLDERS",
    "Appended",
    "ObjectPath",
    "Place",
    "Unreachable",
    "append_to",
    "cache_folder",
    "exists",
    "expand_braces",
    "find",
    "find_in",
    "find_shards",
    "from_hub",
    "is_folder",
    "is_glob",
    "is_hub",
    "is_remote",
    "join",
    "local_copy",
    "made_for",
    "open_file",
    "parent",
    "place",
    "push_to_hub",
    "read_bytes",
    "read_range",
    "reading",
    "refuse_hub",
    "upload",
    "version_of",
    "working_folder",
    "write_json",
    "write_whole",
    "writing",
]
