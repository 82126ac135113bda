"""RefCOCO, RefCOCO+ and RefCOCOg: `refs(unc).p` with the expressions, beside `instances.json` with the objects.

The first is a pickle. It is read by an unpickler that makes lists, dictionaries, texts and numbers, and refuses
everything else, so that no code of the file is ever run; a `refs*.json` of the same content is read as well.
"""

import io
import pickle
import re
from collections.abc import Iterator
from typing import Any

from vlc.data.regions import PartsOfPicture, Region
from vlc.data.sources.kind import Location
from vlc.data.sources.region_files.coco import file_of, names_of, region_of
from vlc.data.sources.region_files.layout import Annotated, Layout, Tally, read_json
from vlc.errors import DataError
from vlc.storage import join, parent, read_bytes

_NAME = re.compile(r"refs.*\.(p|json)")


class _PlainUnpickler(pickle.Unpickler):
    """Of plain values alone."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it wants {module}.{name}, and plain lists and texts are all that is read")


def _find(place: Location) -> str:
    if place.is_folder:
        found = sorted(name for name in place.names if _NAME.fullmatch(name))
        return join(place.path, found[0]) if len(found) == 1 and "instances.json" in place.names else ""
    return place.path if place.is_file and _NAME.fullmatch(place.path.rsplit("/", 1)[-1]) else ""


def _read(path: str, tally: Tally) -> Iterator[Annotated]:
    refs, objects = _refs(path), read_json(_objects(path), dict)
    try:
        labels = names_of(objects)
        images = {image["id"]: image for image in objects["images"]}
        annotations = {annotation["id"]: annotation for annotation in objects["annotations"]}
        by_image: dict[tuple[Any, str], list[Any]] = {}
        for ref in refs:
            by_image.setdefault((ref["image_id"], ref["split"]), []).append(ref)
        for (number, split), some in by_image.items():
            image, where = images[number], f"{path}, image {number}"
            size = (int(image["width"]), int(image["height"]))
            regions: list[Region] = []
            for ref in some:
                region = region_of(annotations[ref["ann_id"]], labels, size, f"{where}, ref {ref['ref_id']}", tally)
                said = tuple(" ".join(str(sentence["sent"]).split()) for sentence in ref["sentences"])
                if region is not None:
                    regions.append(Region(region.box, region.mask, {"expression": said}, region.label))
            texts = [text for region in regions for text in region.captions["expression"]]
            yield Annotated(file_of(image), {"expression": texts}, PartsOfPicture(tuple(regions)), split)
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: an expression, object or image lacks {error}.") from error


def _refs(path: str) -> list[Any]:
    if path.endswith(".json"):
        return read_json(path, list)
    try:
        found = _PlainUnpickler(io.BytesIO(read_bytes(path)), encoding="latin1").load()
    except DataError:
        raise
    except Exception as error:  # a damaged pickle raises anything
        raise DataError(f"{path}: not a readable list of expressions ({error}).") from error
    if not isinstance(found, list):
        raise DataError(f"{path}: is no list of expressions.")
    return found


def _objects(path: str) -> str:
    return join(parent(path), "instances.json")


REFCOCO = Layout("RefCOCO's expressions", _find, _read, lambda path: [_objects(path)])
