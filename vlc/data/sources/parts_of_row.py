"""The regions of a row or JSON object: the columns `regions`, `graph` and `boxes`, and GBC's `vertices`."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from vlc.data.regions import FORMATS, GRAPH, REGIONS, UNITS, Edge, PartsOfPicture, check_graph, read_region, to_shares
from vlc.data.sources import gbc
from vlc.errors import ConfigError, DataError, did_you_mean

SETTINGS = {"box_format": FORMATS, "box_units": UNITS}  # how boxes are written, and the default first
BOXES = "boxes"
# What other people's lists call the keys of a region.
_ALIASES = {
    "bbox": "box", "caption": "captions", "phrase": "captions", "description": "captions", "text": "captions",
    "category": "label", "class": "label", "name": "label", "confidence": "score", "segmentation": "mask",
}  # fmt: skip


def check_settings(names: Mapping[str, str]) -> None:
    """Raises `ConfigError` where `box_format` or `box_units` is none that is known."""
    for name, known in SETTINGS.items():
        if name in names and names[name] not in known:
            raise ConfigError(f'data.columns: {name} is "{names[name]}".{did_you_mean(names[name], known)}')


def parts_of_row(row: Mapping[str, Any], where: str, names: Mapping[str, str]) -> PartsOfPicture:
    """The regions that a row tells of.

    Args:
        row: With `regions`, objects as `read_region` takes them or under other people's names, or pairs of box and
            caption; with `boxes` alone; or with GBC's `vertices`.
        where: The row, for messages.
        names: Of `Columns`: `regions`, the column; `box_format` and `box_units`, how boxes are written.

    Raises:
        DataError: A region is none.
    """
    if gbc.VERTICES in row:
        return PartsOfPicture(*gbc.graph_of(row, where))
    found = row.get(names.get(REGIONS, REGIONS))
    found = _from_cell(found, where) if isinstance(found, str) and found else found
    if found is None or isinstance(found, (str, float)):
        found = [{"box": box} for box in _boxes(row, where)]
    if not isinstance(found, Sequence):
        raise DataError(f'{where}: "regions" must be a list, got {found!r:.60}.', "region")
    size = _size_of(row)
    regions = tuple(
        read_region(_renamed(one, f"{where}, region {i}", size, names), f"{where}, region {i}", size=size)
        for i, one in enumerate(found)
    )
    edges = tuple(_edge(edge, where) for edge in row.get(GRAPH) or ()) if regions else ()
    check_graph(regions, edges, where)
    return PartsOfPicture(regions, edges)


def _from_cell(text: str, where: str) -> Any:
    """A list that a cell of a table holds as JSON."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(
            f'{where}: the column "regions" holds {text[:40]!r}, which is no JSON ({error}). Where it is something '
            "else, say so: --columns regions=-.",
            "region",
        ) from error


def read_parts(text: str | None, where: str) -> PartsOfPicture:
    """As `PartsOfPicture.plain` wrote it."""
    return parts_of_row(json.loads(text), where, {}) if text else PartsOfPicture()


def _boxes(row: Mapping[str, Any], where: str) -> list[Any]:
    boxes = row.get(BOXES)
    if boxes is None:
        return []
    if not isinstance(boxes, Sequence) or not all(isinstance(box, Sequence) for box in boxes):
        raise DataError(f'{where}: "boxes" must be rows of left, top, right, bottom, got {boxes!r:.60}.', "region")
    return list(boxes)


def _renamed(one: Any, where: str, size: tuple[int, int] | None, names: Mapping[str, str]) -> Any:
    """A region under our names, its box in our form."""
    if isinstance(one, Sequence) and not isinstance(one, str) and len(one) == 2:
        one = {"box": one[0], "captions": one[1]}
    if not isinstance(one, Mapping):
        return one  # which is then refused
    found = {_ALIASES.get(key, key): value for key, value in one.items() if value is not None}
    if "box" in found and names.keys() & SETTINGS:
        form, units = (names.get(name, known[0]) for name, known in SETTINGS.items())
        found["box"] = to_shares(found["box"], where, form=form, units=units, size=size)
    return found


def _size_of(row: Mapping[str, Any]) -> tuple[int, int] | None:
    """Width and height, where a row says them."""
    width, height = row.get("width"), row.get("height")
    return (width, height) if isinstance(width, int) and isinstance(height, int) else None


def _edge(value: Any, where: str) -> Edge:
    try:
        parent, child, phrase, *more = value
        return Edge(int(parent), int(child), str(phrase), *more)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{where}: an edge is [parent, child, words, source, place, start], got {value!r:.60}.", "region"
        ) from error
