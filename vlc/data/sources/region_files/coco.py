"""COCO's instances, and whatever is published in their layout: LVIS, Objects365, Open Images' conversions."""

import functools
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from vlc.data.masks import Mask
from vlc.data.regions import PartsOfPicture, Region
from vlc.data.sources.kind import Location
from vlc.data.sources.region_files.layout import Annotated, Layout, Tally, labels_of, pixel_box, read_json
from vlc.errors import DataError
from vlc.storage import exists, join, open_file, parent, reading, version_of

_PREFIX = "instances_"
SEGMENTS, BOXES = b'"segments_info"', b'"bbox"'
_CHUNK, _LONGEST = 1 << 20, 16  # bytes read at once, and of the longest name that is looked for


def _find(place: Location) -> str:
    if place.is_folder:
        found = sorted(name for name in place.names if name.startswith(_PREFIX) and name.endswith(".json"))
        return join(place.path, found[0]) if len(found) == 1 else ""
    return place.path if kind_of(place) == BOXES else ""


def kind_of(place: Location) -> bytes:
    """What the annotations of a JSON file in COCO's layout have first, `SEGMENTS` or `BOXES`; empty of other files."""
    if not (place.path.endswith(".json") and place.is_file):
        return b""
    return _kind_of(place.path, version_of(place.path))


@functools.lru_cache(maxsize=64)
def _kind_of(path: str, version: tuple[int, str]) -> bytes:
    """Reads no further than it must: files of gigabytes, most of them of other layouts, are looked at as well."""
    lacking, kind, seen = {b'"images"', b'"annotations"'}, b"", b""
    with reading(path), open_file(path) as file:
        while chunk := file.read(_CHUNK):
            if not seen and not chunk.lstrip().startswith(b"{"):
                return b""
            seen = seen[-_LONGEST:] + chunk
            lacking = {name for name in lacking if name not in seen}
            there = sorted((seen.find(name), name) for name in (SEGMENTS, BOXES) if name in seen)
            kind = kind or (there[0][1] if there else b"")
            if kind and not lacking:
                return kind
    return b""


def _read(path: str, tally: Tally) -> Iterator[Annotated]:
    found = read_json(path, dict)
    captions = _captions_beside(path)
    try:
        labels, by_image = names_of(found), grouped(found)
        for image in found["images"]:
            where = f"{path}, image {image['id']}"
            size = (int(image["width"]), int(image["height"]))
            regions = tuple(_regions(by_image.get(image["id"], ()), labels, size, where, tally))
            said = {"caption": captions[image["id"]]} if image["id"] in captions else labels_of(regions)
            yield Annotated(file_of(image), said, PartsOfPicture(regions))
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: an image, annotation or category lacks {error}.") from error


def file_of(image: Mapping[str, Any]) -> str:
    """The file name of an image; LVIS gives an address alone, whose last two parts are folder and file."""
    return image["file_name"] if "file_name" in image else "/".join(image["coco_url"].rsplit("/", 2)[-2:])


def names_of(found: Mapping[str, Any]) -> dict[int, str]:
    """Classes by number, in words."""
    return {category["id"]: category["name"].replace("_", " ") for category in found["categories"]}


def grouped(found: Mapping[str, Any]) -> dict[Any, list[Mapping[str, Any]]]:
    """Annotations by image."""
    by_image: dict[Any, list[Mapping[str, Any]]] = {}
    for annotation in found["annotations"]:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    return by_image


def _regions(annotations: Any, labels: Mapping[int, str], size: tuple[int, int], where: str, tally: Tally):
    for annotation in annotations:
        region = region_of(annotation, labels, size, f"{where}, annotation {annotation.get('id')}", tally)
        if region is not None:
            yield region


def region_of(
    annotation: Mapping[str, Any], labels: Mapping[int, str], size: tuple[int, int], where: str, tally: Tally
) -> Region | None:
    """A region from an annotation; `None`, and counted, where it is a crowd or none at all."""
    if annotation.get("iscrowd"):
        tally.add("crowd", f"{where}: is a crowd.")
        return None
    box = pixel_box(annotation["bbox"], size, where, tally)
    if box is None:
        return None
    drawn, mask = annotation.get("segmentation"), None
    try:
        mask = Mask.read(drawn, where, (size[1], size[0])) if drawn else None
    except DataError as error:
        tally.add("region", str(error))
        return None
    said = annotation.get("caption") or annotation.get("description")
    return Region(
        box, mask if mask is not None and mask.area else None, {"region": (" ".join(said.split()),)} if said else {},
        labels[annotation["category_id"]],
    )  # fmt: skip


def _captions_beside(path: str) -> dict[Any, list[str]]:
    """Of COCO the captions of the same images, which stand in a file of their own."""
    captions: dict[Any, list[str]] = {}
    for other in filter(exists, _beside(path)):
        for annotation in read_json(other, dict)["annotations"]:
            captions.setdefault(annotation["image_id"], []).append(str(annotation["caption"]))
    return captions


def _beside(path: str) -> list[str]:
    name = PurePosixPath(path).name
    return [join(parent(path), name.replace(_PREFIX, "captions_", 1))] if name.startswith(_PREFIX) else []


COCO = Layout("instances in COCO's layout", _find, _read, _beside)
