"""Where records come from. `open_source` tells the kinds apart by what the path holds."""

from collections.abc import Mapping
from typing import Any

from vlc.data.files import exists, find, is_folder, is_glob, join
from vlc.data.record import Source
from vlc.data.sources import captions_file, huggingface, tfds
from vlc.data.sources.annotations import Annotations, is_annotations
from vlc.data.sources.array_record import PATTERN, ArrayRecord
from vlc.data.sources.columns import Columns
from vlc.data.sources.folder import Folder
from vlc.data.sources.huggingface import HuggingFace
from vlc.data.sources.mixture import Mixture
from vlc.data.sources.sample import Sample
from vlc.data.sources.scenes import Scenes
from vlc.data.sources.tfds import Tfds
from vlc.data.sources.webdataset import WebDataset
from vlc.errors import ConfigError, DataError

__all__ = [
    "Annotations",
    "ArrayRecord",
    "Columns",
    "Folder",
    "HuggingFace",
    "Mixture",
    "Sample",
    "Scenes",
    "Tfds",
    "WebDataset",
    "open_mixture",
    "open_source",
]


def open_source(spec: str, *, columns: str = "", **scenes: Any) -> Source:
    """Opens a source.

    Args:
        spec: One of, or several with commas between them:

            - `scenes`;
            - a folder with `captions.{jsonl,json,csv,tsv,parquet}`, or such a file;
            - `dataset_coco.json#SPLIT` and its like (Karpathy's), or COCO's `captions_*.json`;
            - WebDataset shards or ArrayRecord files: a folder, one file, or a glob;
            - a folder that `vlc data build`, `tfds` or `datasets.save_to_disk` wrote, with `#SPLIT` where it has
              several;
            - `tfds:NAME#SPLIT`, a dataset prepared in `TFDS_DATA_DIR`.

            Paths may be URLs that fsspec knows (`gs://`, `s3://`).
        columns: Which columns are the image and which captions, as in `"image=file,alt=title"`; see `Columns`.
        **scenes: Settings of `Scenes`, used for `"scenes"` only.

    Raises:
        DataError: The path does not exist, or holds nothing that is known.
        ConfigError: `columns` is malformed.
    """
    specs = [part.strip() for part in spec.split(",") if part.strip()]
    if not specs:
        raise DataError('No data was named. Set it with --config.data.train=PATH (or "scenes").')
    sources = [_open_one(part, Columns.parse(columns), scenes) for part in specs]
    return sources[0] if len(sources) == 1 else Mixture.of_list(sources, specs)


def open_mixture(
    specs: Mapping[str, str], weights: Mapping[str, float], rule: str, *, columns: str = "", **scenes: Any
) -> Mixture:
    """Opens a weighted mixture.

    Args:
        specs: Source by name.
        weights: Weight by name; only these are opened.
        rule: `weights` or `epochs`, see `Mixture`.
        columns: As in `open_source`.
        **scenes: As in `open_source`.

    Raises:
        ConfigError: A weight names no source.
    """
    for name in weights:
        if name not in specs:
            raise ConfigError(
                f"config.data.mixture names {name!r}, but config.data.sources has {', '.join(specs) or 'nothing'}. "
                f"Say where it is: --config.data.sources.{name}=PATH."
            )
    sources = {name: open_source(specs[name], columns=columns, **scenes) for name in weights}
    return Mixture(sources, dict(weights), rule)


def _open_one(spec: str, columns: Columns, scenes: dict[str, Any]) -> Source:
    if spec == "scenes":
        return Scenes(**scenes)
    path, _, split = spec.partition("#")
    if path.startswith("tfds:"):
        return Tfds.open(path.removeprefix("tfds:"), split, columns)
    if ".array_record" in path:
        return ArrayRecord.open(path, columns)
    if is_glob(path) or path.endswith(".tar"):
        return WebDataset.open(path, columns)
    if path.endswith(".json") and exists(path) and is_annotations(path):
        return Annotations.open(path, split, columns)
    if not exists(path):
        raise DataError(f'{spec}: no such file or folder. Give a folder, a captions file, shards, or "scenes".')
    return _open_folder(path, split, columns) if is_folder(path) else Folder.open(path, columns)


def _open_folder(path: str, split: str, columns: Columns) -> Source:
    """Tells by the files in it what a folder is."""
    if exists(join(path, huggingface.STATE_FILE)) or exists(join(path, huggingface.DICT_FILE)):
        return HuggingFace.open(path, split, columns)
    if any(exists(join(path, name)) for name in captions_file.CAPTION_FILES):
        return Folder.open(path, columns)
    own = exists(join(path, "manifest.json"))
    if exists(join(path, tfds.INFO_FILE)) and not own:
        return Tfds.open(path, split, columns)
    if find(join(path, PATTERN)):
        return ArrayRecord.open(path, columns)
    if find(join(path, "*.tar")):
        return WebDataset.open(path, columns)
    return Folder.open(path, columns)
