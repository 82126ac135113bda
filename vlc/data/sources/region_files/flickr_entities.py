"""Flickr30k Entities: `Sentences/ID.txt` with marked phrases, `Annotations/ID.xml` with their boxes, lists of splits.

A phrase is marked as `[/EN#283585/people Two young guys]`; its entity may have several boxes, around all of which the
region goes, as grounding is judged (Plummer et al., ICCV 2015, arXiv 1505.04870, section 4.2).
"""

import re
from collections.abc import Iterator
from xml.etree import ElementTree

from vlc.data.regions import IMAGE, Box, Edge, PartsOfPicture, Region
from vlc.data.sources.kind import Location
from vlc.data.sources.region_files.layout import Annotated, Layout, Tally, pixel_box
from vlc.errors import DataError
from vlc.storage import exists, join, parent, read_bytes

_SPLITS = ("train", "val", "test")
_FOLDERS = ("Sentences", "Annotations")
_PHRASE = re.compile(r"\[/EN#(?P<entity>\d+)/(?P<kind>[^ \]]+) (?P<words>[^\]]*)\]")


def _find(place: Location) -> str:
    if place.is_folder and place.names.issuperset(_FOLDERS):
        return next((join(place.path, f"{split}.txt") for split in _SPLITS if f"{split}.txt" in place.names), "")
    return ""


def _read(path: str, tally: Tally) -> Iterator[Annotated]:
    folder = parent(path)
    for split in _SPLITS:
        listed = join(folder, f"{split}.txt")
        for name in _lines(listed) if exists(listed) else ():
            image = _image(folder, name, split, tally)
            if image is not None:
                yield image


def _image(folder: str, name: str, split: str, tally: Tally) -> Annotated | None:
    where = join(join(folder, "Sentences"), f"{name}.txt")
    if not exists(where):
        tally.add("captions", f"{where}: is not there, and {split}.txt names it.")
        return None
    captions, mentions = [], []
    for place, line in enumerate(_lines(where)):
        text, found = _unmarked(line)
        captions.append(text)
        mentions += [(entity, kind, words, place, start) for entity, kind, words, start in found]
    boxes = _boxes(join(join(folder, "Annotations"), f"{name}.xml"), tally)
    kinds = {entity: kind for entity, kind, *_ in reversed(mentions) if entity in boxes}
    number = {entity: i for i, entity in enumerate(sorted(kinds, key=int))}
    said: dict[str, list[str]] = {entity: [] for entity in number}
    edges = []
    for entity, _, words, place, start in mentions:
        if entity in number:
            said[entity].append(words)
            edges.append(Edge(IMAGE, number[entity], words, "caption", place, start))
    regions = tuple(
        Region(
            boxes[entity], captions={"phrase": tuple(dict.fromkeys(said[entity]))}, label=kinds[entity].split("/")[0]
        )
        for entity in number
    )
    return Annotated(f"{name}.jpg", {"caption": captions}, PartsOfPicture(regions, tuple(edges)), split)


def _unmarked(line: str) -> tuple[str, list[tuple[str, str, str, int]]]:
    """A sentence without its marks, and of each phrase entity, kind, words, and where they begin in it."""
    text, found, end, line = "", [], 0, " ".join(line.split())
    for match in _PHRASE.finditer(line):
        text += line[end : match.start()]
        words = " ".join(match["words"].split())
        found.append((match["entity"], match["kind"], words, len(text)))
        text, end = text + words, match.end()
    return text + line[end:], found


def _boxes(path: str, tally: Tally) -> dict[str, Box]:
    """The box around all boxes of each entity."""
    try:
        root = ElementTree.fromstring(read_bytes(path))
        size = int(_text(root, "size/width")), int(_text(root, "size/height"))
        found: dict[str, Box] = {}
        for one in root.iterfind("object"):
            corners = one.find("bndbox")
            if corners is None:
                continue  # of the whole scene, or not to be seen
            left, top, right, bottom = (int(_text(corners, name)) for name in ("xmin", "ymin", "xmax", "ymax"))
            first = max(left - 1, 0), max(top - 1, 0)  # pixels are counted from 1
            box = pixel_box([*first, right - first[0], bottom - first[1]], size, path, tally)
            if box is None:
                continue
            for name in one.iterfind("name"):
                entity = str(name.text)
                found[entity] = _around(found.get(entity, box), box)
    except (ElementTree.ParseError, ValueError, DataError) as error:
        tally.add("region", f"{path}: no readable boxes ({error}).")
        return {}
    return found


def _around(a: Box, b: Box) -> Box:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _text(element: ElementTree.Element, name: str) -> str:
    found = element.findtext(name)
    if found is None:
        raise ValueError(f"it has no {name}")
    return found


def _lines(path: str) -> list[str]:
    return [line.strip() for line in read_bytes(path).decode().splitlines() if line.strip()]


def _beside(path: str) -> list[str]:
    return [join(parent(path), f"{split}.txt") for split in _SPLITS if not path.endswith(f"{split}.txt")]


FLICKR_ENTITIES = Layout("Flickr30k Entities' phrases", _find, _read, _beside)
