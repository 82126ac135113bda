"""Images with regions, from any of the published layouts."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlc.data.record import clean_captions
from vlc.data.sources.columns import BY_NAME, Columns
from vlc.data.sources.kind import Location, SourceKind
from vlc.data.sources.listed import SCHEMA, Listed, as_structs, image_root
from vlc.data.sources.region_files.coco import COCO
from vlc.data.sources.region_files.flickr_entities import FLICKR_ENTITIES
from vlc.data.sources.region_files.layout import Annotated, Layout, Tally
from vlc.data.sources.region_files.panoptic import PANOPTIC
from vlc.data.sources.region_files.refcoco import REFCOCO
from vlc.data.sources.region_files.visual_genome import VISUAL_GENOME
from vlc.data.table import Table, kept_table, write_table
from vlc.errors import DataError
from vlc.storage import exists, join, parent

LAYOUTS: tuple[Layout, ...] = (REFCOCO, VISUAL_GENOME, FLICKR_ENTITIES, PANOPTIC, COCO)


@dataclass(frozen=True)
class RegionFile(Listed):
    """Images with their regions, as a published annotation file has them.

    Regions that are crowds, or whose box is none, are left out and counted in `skipped`, as are images without any
    caption or class.
    """

    @classmethod
    def open(cls, path: str, split: str = "", columns: Columns = BY_NAME) -> "RegionFile":
        """Reads a file, or the folder with one; what was read is kept and found again.

        Raises:
            DataError: It is damaged, lacks something, or has no such split.
        """
        layout, file = _layout_of(Location(path))
        files = [file, *filter(exists, layout.beside(file))]
        table = kept_table(
            "regions", files, parent(file), lambda out: _index(layout, file, split, out), [layout.name, split]
        )
        if not len(table):
            known = ", ".join(table.notes["splits"])
            raise DataError(
                f"{file}: no image with a region" + (f" in the split {split!r}; it has {known}." if split else ".")
            )
        root = columns.names.get("root") or _root(file, table)
        return cls(root, table)


def _layout_of(place: Location) -> tuple[Layout, str]:
    for layout in LAYOUTS:
        file = layout.find(place)
        if file:
            return layout, file
    raise DataError(f"{place.path}: none of {'; '.join(layout.name for layout in LAYOUTS)}.")


def _root(file: str, table: Table) -> str:
    """The folder of the images: beside the file, or beside its folder, as COCO's `annotations` lies."""
    name = table.get("image", 0)
    for folder in (parent(file), parent(parent(file))):
        found = image_root(folder, name)
        if exists(join(found, name)):
            return found
    return parent(file)


def _index(layout: Layout, file: str, split: str, out: Path) -> None:
    """Writes the table of a file."""
    tally, splits = Tally(), dict[str, None]()

    def rows() -> Iterator[tuple[Any, ...]]:
        for image in layout.read(file, tally):
            splits[image.split] = None
            if split and image.split != split:
                continue
            row = _row(image, file, tally)
            if row is not None:
                yield row

    write_table(out, rows(), SCHEMA, lambda: {"skipped": tally.counts, "first": tally.first, "splits": list(splits)})


def _row(image: Annotated, file: str, tally: Tally) -> tuple[Any, ...] | None:
    try:
        captions = clean_captions(image.captions, f"{file}, {image.name}")
    except DataError as error:
        tally.add("captions", str(error))
        return None
    return image.name, as_structs(captions), image.parts.plain() or None, None, [], []


KIND = SourceKind(
    "regions of COCO, LVIS, Objects365, Pix2Cap-COCO, RefCOCO, Visual Genome or Flickr30k Entities",
    lambda place: any(layout.find(place) for layout in LAYOUTS),
    lambda place, columns, _: RegionFile.open(place.path, place.split, columns),
)
