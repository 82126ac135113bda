"""COCO's panoptic segments, and Pix2Cap-COCO (arXiv 2501.13893), whose segments have descriptions.

The masks of an image are one PNG, in a folder beside the file; a pixel's three bytes are the number of its segment, the
lowest first.
"""

import io
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from vlc.data.masks import Mask
from vlc.data.regions import PartsOfPicture, Region
from vlc.data.sources.kind import Location
from vlc.data.sources.region_files.coco import SEGMENTS, file_of, kind_of, names_of
from vlc.data.sources.region_files.layout import Annotated, Layout, Tally, labels_of, pixel_box, read_json
from vlc.errors import DataError
from vlc.storage import exists, is_far, is_folder, join, parent, read_bytes


def _find(place: Location) -> str:
    if place.is_folder:
        found = sorted(name for name in place.names if re.fullmatch(r"(panoptic|pix2cap_coco)_\w+\.json", name))
        return join(place.path, found[0]) if len(found) == 1 else ""
    return place.path if kind_of(place) == SEGMENTS else ""


def _read(path: str, tally: Tally) -> Iterator[Annotated]:
    found = read_json(path, dict)
    try:
        labels, images = names_of(found), {image["id"]: image for image in found["images"]}
        folder = _masks_folder(path, found["annotations"][0]["file_name"] if found["annotations"] else "")
        for annotation in found["annotations"]:
            image = images[annotation["image_id"]]
            where, size = f"{path}, image {image['id']}", (int(image["width"]), int(image["height"]))
            numbers = _numbers(join(folder, annotation["file_name"]), size)
            regions = tuple(_regions(annotation["segments_info"], numbers, labels, size, where, tally))
            yield Annotated(file_of(image), labels_of(regions), PartsOfPicture(regions))
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: an image, annotation, segment or category lacks {error}.") from error


def _masks_folder(path: str, name: str) -> str:
    """Where the PNGs are: in a folder called as the file, or `panoptic_{train,val}2017`, here or one further up."""
    tried = _folders(path)
    for folder in tried:
        if exists(join(folder, name)):
            return folder
    raise DataError(f"{path}: the masks are not beside it ({name} is in none of {', '.join(tried)}).")


def _folders(path: str) -> list[str]:
    stem = PurePosixPath(path).stem
    split = stem.rsplit("_", 1)[-1]
    names = dict.fromkeys((stem, f"panoptic_{split}", f"panoptic_{split}2017", "masks"))
    return [join(folder, one) for folder in (parent(path), parent(parent(path))) for one in names]


def _numbers(path: str, size: tuple[int, int]) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(read_bytes(path))) as image:
            pixels = np.asarray(image.convert("RGB")).astype(np.int64)
    except DataError:
        raise
    except Exception as error:  # whatever a damaged picture makes Pillow raise
        raise DataError(f"{path}: not a readable mask ({error}).") from error
    if pixels.shape[:2] != (size[1], size[0]):
        raise DataError(f"{path}: is {pixels.shape[1]} x {pixels.shape[0]}, and its picture {size[0]} x {size[1]}.")
    return pixels @ np.array([1, 256, 256**2])


def _regions(segments: Any, numbers: np.ndarray, labels: Mapping[int, str], size: tuple[int, int], where: str, tally):
    for segment in segments:
        at = f"{where}, segment {segment['id']}"
        if segment.get("iscrowd"):
            tally.add("crowd", f"{at}: is a crowd.")
            continue
        pixels = numbers == segment["id"]
        box = pixel_box(segment["bbox"], size, at, tally) if pixels.any() else None
        if box is None:
            if not pixels.any():
                tally.add("region", f"{at}: no pixel of the mask has its number.")
            continue
        said = " ".join((segment.get("description") or "").split())
        yield Region(box, Mask.of(pixels), {"region": (said,)} if said else {}, labels[segment["category_id"]])


def _beside(path: str) -> list[str]:
    return (
        [folder for folder in _folders(path) if is_folder(folder)] if not is_far(path) else []
    )  # a store's have no time


PANOPTIC = Layout("panoptic segments in COCO's layout, those of Pix2Cap-COCO among them", _find, _read, _beside)
