"""Where records come from. `open_source` tells the kinds apart by what the path holds.

A kind of source is a file with a `Source` and a `SourceKind`, listed in `KINDS`.
"""

import re
from collections.abc import Mapping
from typing import Any

from vlc.data.record import Source
from vlc.data.sources import annotations, array_record, folder, huggingface, region_files, side_files, tfds, webdataset
from vlc.data.sources.annotations import Annotations
from vlc.data.sources.array_record import ArrayRecord
from vlc.data.sources.captions_file import CAPTION_FILES, SUFFIXES
from vlc.data.sources.columns import Columns
from vlc.data.sources.folder import Folder
from vlc.data.sources.huggingface import HuggingFace
from vlc.data.sources.kind import Location, SourceKind
from vlc.data.sources.mixture import Mixture
from vlc.data.sources.region_files import RegionFile
from vlc.data.sources.sample import Sample
from vlc.data.sources.scenes import Scenes
from vlc.data.sources.scenes.source import KIND as SCENES
from vlc.data.sources.side_files import SideFiles
from vlc.data.sources.tfds import Tfds
from vlc.data.sources.webdataset import WebDataset
from vlc.errors import ConfigError, DataError
from vlc.storage import exists

__all__ = [
    "KINDS",
    "Annotations",
    "ArrayRecord",
    "Columns",
    "Folder",
    "HuggingFace",
    "Mixture",
    "RegionFile",
    "Sample",
    "Scenes",
    "SideFiles",
    "Tfds",
    "WebDataset",
    "open_mixture",
    "open_source",
]


_COMMAS = re.compile(r",(?![^{}]*\})")  # those between braces belong to a name
# The first that matches is taken: a folder with a captions file is read by that file, whatever else lies there.
KINDS: tuple[SourceKind, ...] = (
    SCENES,
    huggingface.KIND,
    region_files.KIND,
    annotations.KIND,
    folder.KIND,
    tfds.KIND,
    array_record.KIND,
    webdataset.KIND,
    side_files.KIND,
)


def open_source(spec: str, *, columns: str = "", **scenes: Any) -> Source:
    """Opens a source.

    Args:
        spec: One of, or several with commas between them:

            - `scenes`;
            - a folder with `captions.{jsonl,json,csv,tsv,parquet,txt}`, Hugging Face's `metadata.{csv,jsonl,parquet}`
              or `Flickr8k.token.txt`, or such a file;
            - a folder of images, each with a `.txt`, `.caption` or `.json` of its name;
            - `instances_*.json` in COCO's layout, `panoptic_*.json`, Pix2Cap-COCO's, `refs(unc).p#SPLIT` of RefCOCO,
              Visual Genome's `region_descriptions.json`, or a folder with one; the folder of Flickr30k Entities;
            - `dataset_coco.json#SPLIT` and its like (Karpathy's), COCO's `captions_*.json`, or a folder with one;
            - WebDataset shards or ArrayRecord files: a folder, one file, a glob, `{00000..00999}.tar`, or a list with
              `::` between the files;
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
    # What exists under the very name is that, whatever letters are in it.
    specs = [spec] if exists(spec) else [part.strip() for part in _COMMAS.split(spec) if part.strip()]
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
    path, _, split = spec.rpartition("#") if "#" in spec and not exists(spec) else (spec, "", "")
    place = Location(path, split)
    for kind in KINDS:
        if kind.matches(place):
            return kind.open(place, columns, scenes)
    if place.is_file:
        raise DataError(f"{spec}: a captions file ends in {', '.join(SUFFIXES)}; shards end in .tar or .array_record.")
    if place.is_folder:
        raise DataError(
            f"{spec}: no captions file in this folder ({CAPTION_FILES[0]}, captions.csv, metadata.csv, ...), no "
            "shards, no prepared dataset, no image with a text file of its name. Write one line for each image into "
            f'{CAPTION_FILES[0]}: {{"image": "a.jpg", "captions": ["what it shows"]}}'
        )
    raise DataError(f'{spec}: no such file or folder. Give a folder, a captions file, shards, or "scenes".')
