"""COCO's instances, and whatever is published in their layout: LVIS, Objects365, Open Images' conversions."""

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from vlc.data.masks import Mask
from vlc.data.regions import PartsOfPicture, Region
from vlc.data.sources.kind import Location
from vlc.data.sources.region_files.layout import Annotated, Layout, Tally, labels_of, pixel_box, read_json
from vlc.errors import DataError
from vlc.storage import exists, join, parent, read_bytes

_PREFIX = "instances_"


def _find(place: Location) -> str:
    if place.is_folder:
        found = sorted(name for name in place.names if name.startswith(_PREFIX) and name.endswith(".json"))
        return join(place.path, found[0]) if len(found) == 1 else ""
    return place.path if is_coco(place, b'"bbox"') and not is_coco(place, b'"segments_info"') else ""


def is_coco(place: Location, key: bytes) -> bool:
    """Whether a file is JSON in COCO's layout whose annotations have a key."""
    if not (place.path.endswith(".json") and place.is_file):
        return False
    data = read_bytes(place.path)
    return data[:64].lstrip()[:1] == b"{" and b'"images"' in data and b'"annotations"' in data and key in data


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
    name = PurePosixPath(path).name
    other = join(parent(path), name.replace(_PREFIX, "captions_", 1))
    captions: dict[Any, list[str]] = {}
    if name.startswith(_PREFIX) and exists(other):
        for annotation in read_json(other, dict)["annotations"]:
            captions.setdefault(annotation["image_id"], []).append(str(annotation["caption"]))
    return captions


COCO = Layout("instances in COCO's layout", _find, _read)
