"""Visual Genome: `region_descriptions.json` and `attributes.json`, with `image_data.json` for the sizes of images."""

from collections.abc import Iterator
from typing import Any

from vlc.data.regions import PartsOfPicture, Region
from vlc.data.sources.kind import Location
from vlc.data.sources.region_files.layout import Annotated, Layout, Tally, pixel_box, read_json
from vlc.errors import DataError
from vlc.storage import exists, join, parent

_DESCRIPTIONS, _ATTRIBUTES, _IMAGES = "region_descriptions.json", "attributes.json", "image_data.json"


def _find(place: Location) -> str:
    if place.is_folder:
        return next((join(place.path, name) for name in (_DESCRIPTIONS, _ATTRIBUTES) if name in place.names), "")
    return place.path if place.path.rsplit("/", 1)[-1] in (_DESCRIPTIONS, _ATTRIBUTES) and place.is_file else ""


def _read(path: str, tally: Tally) -> Iterator[Annotated]:
    folder = parent(path)
    images = read_json(join(folder, _IMAGES), list)
    described = _by_image(join(folder, _DESCRIPTIONS), "regions")
    objects = _by_image(join(folder, _ATTRIBUTES), "attributes")
    try:
        for image in images:
            number = image.get("image_id", image.get("id"))
            size, where = (int(image["width"]), int(image["height"])), f"{path}, image {number}"
            regions = [*_described(described.get(number, ()), size, where, tally)]
            texts = [text for region in regions for texts in region.captions.values() for text in texts]
            regions += _objects(objects.get(number, ()), size, where, tally)
            if regions:
                name = "/".join(image["url"].rsplit("/", 2)[-2:]) if image.get("url") else f"{number}.jpg"
                texts = texts or [", ".join(dict.fromkeys(region.label for region in regions))]
                yield Annotated(name, {"region": texts}, PartsOfPicture(tuple(regions)))
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: an image, region or object lacks {error}.") from error


def _by_image(path: str, key: str) -> dict[Any, list[Any]]:
    if not exists(path):
        return {}
    try:
        return {image.get("image_id", image.get("id")): image[key] for image in read_json(path, list)}
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: an image lacks {error}.") from error


def _described(regions: Any, size: tuple[int, int], where: str, tally: Tally) -> Iterator[Region]:
    for one in regions:
        at = f"{where}, region {one['region_id']}"
        box = pixel_box([one["x"], one["y"], one["width"], one["height"]], size, at, tally)
        if box is not None:
            yield Region(box, captions={"region": (" ".join(one["phrase"].split()),)})


def _objects(objects: Any, size: tuple[int, int], where: str, tally: Tally) -> Iterator[Region]:
    for one in objects:
        box = pixel_box([one["x"], one["y"], one["w"], one["h"]], size, f"{where}, object {one['object_id']}", tally)
        if box is not None:
            attributes = tuple(dict.fromkeys(text.strip().lower() for text in one.get("attributes") or ()))
            yield Region(box, label=one["names"][0], attributes=attributes)


def _beside(path: str) -> list[str]:
    return [join(parent(path), name) for name in (_DESCRIPTIONS, _ATTRIBUTES, _IMAGES)]


VISUAL_GENOME = Layout("Visual Genome's regions and attributes", _find, _read, _beside)
