"""Where records come from. `open_source` tells the kinds apart by what the path holds."""

from pathlib import Path
from typing import Any

from vlc.data.record import Source
from vlc.data.sources.folder import CAPTION_FILES, Folder
from vlc.data.sources.scenes import Scenes
from vlc.data.sources.webdataset import WebDataset
from vlc.errors import DataError

__all__ = ["Folder", "Scenes", "WebDataset", "open_source"]


def open_source(spec: str, **scenes: Any) -> Source:
    """Opens a source.

    Args:
        spec: `"scenes"`, a folder with `captions.jsonl` or `captions.csv`, such a file, or WebDataset shards (a
            folder of tars, one tar, or a glob).
        **scenes: Settings of `Scenes`, used for `"scenes"` only.

    Raises:
        DataError: The path does not exist, or holds nothing that is known.
    """
    if spec == "scenes":
        return Scenes(**scenes)
    if not spec:
        raise DataError('No data was named. Set it with --config.data.train=PATH (or "scenes").')
    path = Path(spec)
    if path.suffix == ".tar" or any(letter in spec for letter in "*?["):
        return WebDataset.open(spec)
    if not path.exists():
        raise DataError(f'{spec}: no such file or folder. Give a folder, a captions file, tar shards, or "scenes".')
    if path.is_dir() and not any((path / name).is_file() for name in CAPTION_FILES) and any(path.glob("*.tar")):
        return WebDataset.open(spec)
    return Folder.open(path)
