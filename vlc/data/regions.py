"""Parts of a picture: where they are, what is said of them, and how they hang together.

A region has a box, a mask, or both. Regions of one picture may form a graph (GBC, Hsieh et al., 2024, arXiv 2407.06723,
section 2): its root is the picture itself, and an edge goes from a caption to the region that some words of it name.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from vlc.data.masks import Box, Mask
from vlc.errors import DataError, did_you_mean

KINDS = ("", "entity", "composition", "relation")
IMAGE = -1  # the parent that is the picture itself
_ROUNDING = 1e-3  # by which an edge may lie outside of its picture
_KEYS = ("box", "mask", "captions", "label", "attributes", "absent", "parent", "kind", "score", "negatives")
REGIONS, GRAPH = "regions", "graph"  # columns of JSON
FORMATS = ("xyxy", "xywh", "cxcywh")
UNITS = ("shares", "pixels")


@dataclass(frozen=True)
class Region:
    """A part of a picture.

    Attributes:
        box: Left, top, right and bottom, as shares of the picture's width and height.
        mask: Its pixels, where known.
        captions: What is said of it, by source.
        label: Its class; empty where it is not known.
        attributes: Those that it has.
        absent: Attributes that it is known not to have; of all others nothing is known.
        parent: The region that it is a part of; `IMAGE`: of none.
        kind: What it is in a graph, one of `KINDS`; empty where there is none.
        score: How sure is whoever found it; NaN where nobody says.
        negatives: Wrong texts that are almost its captions, by caption.
    """

    box: Box
    mask: Mask | None = None
    captions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    label: str = ""
    attributes: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    parent: int = IMAGE
    kind: str = ""
    score: float = math.nan
    negatives: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """As JSON has it, without what is not known; `read_region` gives the same region again."""
        found: dict[str, Any] = {"box": list(self.box)}
        found |= {"mask": self.mask.plain()} if self.mask is not None else {}
        found |= {"captions": {source: list(texts) for source, texts in self.captions.items()}} if self.captions else {}
        found |= {name: list(getattr(self, name)) for name in ("attributes", "absent") if getattr(self, name)}
        found |= {name: getattr(self, name) for name in ("label", "kind") if getattr(self, name)}
        found |= {"negatives": {text: list(wrong) for text, wrong in self.negatives.items()}} if self.negatives else {}
        found |= {"parent": self.parent} if self.parent != IMAGE else {}
        return found | ({"score": self.score} if math.isfinite(self.score) else {})


class Edge(NamedTuple):
    """From words of a caption to the region that they name.

    Attributes:
        parent: The region that has the caption; `IMAGE`: the picture.
        child: The region that is named.
        phrase: The words.
        source: The caption's source; empty where no caption of the parent has the words.
        place: The caption's place among those of its source.
        start: Where the words begin in it, in characters; -1 where no caption has them.
    """

    parent: int
    child: int
    phrase: str
    source: str = ""
    place: int = 0
    start: int = -1


class PartsOfPicture(NamedTuple):
    """Regions and the edges of their graph."""

    regions: tuple[Region, ...] = ()
    graph: tuple[Edge, ...] = ()

    def plain(self) -> str:
        """As a table keeps it; empty where there is nothing."""
        if not self.regions:
            return ""
        return json.dumps({REGIONS: [region.plain() for region in self.regions], GRAPH: [list(e) for e in self.graph]})


def check_box(box: Any, where: str) -> Box:
    """A box as shares of the picture.

    Edges that lie outside by less than a thousandth, as rounding leaves them, are moved to the picture's.

    Raises:
        DataError: It is no box, lies outside, is inverted or of no area, or seems to be in pixels.
    """
    values = _numbers(box, where)
    if any(abs(value) > 1.5 for value in values) and all(value >= -_ROUNDING for value in values):
        raise DataError(
            f"{where}: the box {_shown(values)} seems to be in pixels; shares of width and height, from 0 to 1, are "
            "meant. Of a file whose boxes are in pixels say --columns box_units=pixels (config.data.columns).",
            "region",
        )
    left, top, right, bottom = values
    if right <= left or bottom <= top:
        what = "has no area" if right == left or bottom == top else "is inverted"
        raise DataError(
            f"{where}: the box {_shown(values)} {what}; left, top, right and bottom are meant. Of a file whose last "
            "two are width and height say --columns box_format=xywh.",
            "region",
        )
    if min(values) < -_ROUNDING or max(values) > 1 + _ROUNDING:
        raise DataError(f"{where}: the box {_shown(values)} lies outside of its picture.", "region")
    inside = tuple(min(max(value, 0.0), 1.0) for value in values)
    return inside[0], inside[1], inside[2], inside[3]


def to_shares(
    box: Any, where: str, *, form: str = "xyxy", units: str = "shares", size: tuple[float, float] | None = None
) -> Box:
    """A box of another form, checked.

    Args:
        box: Four numbers.
        where: The region, for messages.
        form: `xyxy`: left, top, right, bottom. `xywh`: left, top, width, height. `cxcywh`: the centre first.
        units: `shares` of the sides, or `pixels`.
        size: Width and height of the picture, which pixels need.

    Raises:
        DataError: As `check_box`; or pixels are meant, and all are shares, or the size is not known.
    """
    a, b, c, d = _numbers(box, where)
    if form == "xywh":
        a, b, c, d = a, b, a + c, b + d
    elif form == "cxcywh":
        a, b, c, d = a - c / 2, b - d / 2, a + c / 2, b + d / 2
    if units == "pixels":
        if size is None:
            raise DataError(f"{where}: a box in pixels needs the picture's width and height.", "region")
        width, height = size
        if max(a, b, c, d) <= 1 and min(width, height) > 2:
            raise DataError(
                f"{where}: the box {_shown((a, b, c, d))} seems to be shares of a picture of {width:g} x {height:g}; "
                "pixels are meant.",
                "region",
            )
        a, b, c, d = a / width, b / height, c / width, d / height
    return check_box((a, b, c, d), where)


def read_region(value: Any, where: str, *, size: tuple[int, int] | None = None) -> Region:
    """A region from JSON, as `Region.plain` writes it; the box may be left out where there is a mask.

    Args:
        value: An object with some of `box`, `mask`, `captions` (by source, a list, or one), `label`, `attributes`,
            `absent`, `parent`, `kind`, `score`, `negatives` (by caption, or a list for all of its captions, as
            FG-CLIP's have); or a pair of box and caption, as FlexCap's lists have.
        where: The region, for messages.
        size: Width and height of the picture, where known.

    Raises:
        DataError: Something is missing, unknown, or of another form.
    """
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2:
        value = {"box": value[0], "captions": value[1]}
    if not isinstance(value, Mapping):
        raise DataError(f'{where}: a region is {{"box": [...], "captions": [...]}}, got {value!r:.60}.', "region")
    for key in value:
        if key not in _KEYS:
            raise DataError(f'{where}: a region has no "{key}".{did_you_mean(key, _KEYS)}', "region")
    upright = None if size is None else (size[1], size[0])
    mask = Mask.read(value["mask"], where, upright) if value.get("mask") is not None else None
    if value.get("box") is None and mask is None:
        raise DataError(f"{where}: a region has neither a box nor a mask.", "region")
    if mask is not None and not mask.area:
        raise DataError(f"{where}: the mask is empty.", "region")
    box = check_box(value["box"], where) if value.get("box") is not None else mask.box if mask else None
    assert box is not None
    kind, parent, score = value.get("kind", ""), value.get("parent", IMAGE), value.get("score", math.nan)
    if kind not in KINDS:
        raise DataError(f"{where}: kind is {kind!r}.{did_you_mean(str(kind), KINDS[1:])}", "region")
    if not isinstance(parent, int) or not isinstance(score, (int, float)):
        raise DataError(f"{where}: parent is the number of a region, and score a number.", "region")
    captions = read_captions(value.get("captions"), where)
    return Region(
        box, mask, captions, _text(value.get("label", ""), "label", where),
        _texts(value.get("attributes"), "attributes", where), _texts(value.get("absent"), "absent", where),
        parent, kind, float(score), _read_negatives(value.get("negatives"), captions, where),
    )  # fmt: skip


def _read_negatives(value: Any, captions: Mapping[str, Sequence[str]], where: str) -> dict[str, tuple[str, ...]]:
    """Wrong texts by caption; a list is of all captions."""
    if value is None:
        return {}
    known = {text for texts in captions.values() for text in texts}
    if not isinstance(value, Mapping):
        wrong = _texts(value, "negatives", where)
        return dict.fromkeys(sorted(known), wrong) if wrong else {}
    found = {" ".join(text.split()): _texts(wrong, f"negatives of {text!r}", where) for text, wrong in value.items()}
    for text in found:
        if text not in known:
            raise DataError(f'{where}: negatives are of its captions, and "{text:.60}" is none of them.', "region")
    return {text: wrong for text, wrong in found.items() if wrong}


def read_captions(value: Any, where: str) -> dict[str, tuple[str, ...]]:
    """Captions of a region by source; those without one are of the source `region`. Empty ones are left out."""
    if isinstance(value, str):
        value = [value]
    named = value if isinstance(value, Mapping) else {"region": value}
    found = {source: _texts(texts, f"captions of {source!r}", where) for source, texts in named.items()}
    return {source: texts for source, texts in found.items() if texts}


def check_graph(regions: Sequence[Region], edges: Iterable[Edge], where: str) -> None:
    """Checks that parents and edges name regions that there are, and that no region is below itself.

    Raises:
        DataError: The first that does not hold.
    """
    count = len(regions)
    below: dict[int, list[int]] = {}
    for number, region in enumerate(regions):
        if not IMAGE <= region.parent < count:
            raise DataError(f"{where}: region {number} is a part of {region.parent}; there are {count}.", "region")
        below.setdefault(region.parent, []).append(number)
    for edge in edges:
        if not (IMAGE <= edge.parent < count and 0 <= edge.child < count):
            raise DataError(
                f'{where}: the edge "{edge.phrase}" goes from {edge.parent} to {edge.child}; there are {count} '
                "regions.",
                "region",
            )
        below.setdefault(edge.parent, []).append(edge.child)
    cycle = _cycle(below)
    if cycle:
        raise DataError(f"{where}: the graph has a cycle: {' to '.join(map(str, cycle))}.", "region")


def _cycle(below: Mapping[int, Sequence[int]]) -> list[int]:
    """The regions of a cycle, the first again at the end; empty where there is none."""
    done: set[int] = set()
    for root in below:
        path: list[int] = []
        waiting = [iter((root,))]
        while waiting:
            node = next(waiting[-1], None)
            if node is None:
                waiting.pop()
                if path:
                    done.add(path.pop())
            elif node in path:
                return [*path[path.index(node) :], node]
            elif node not in done:
                path.append(node)
                waiting.append(iter(below.get(node, ())))
    return []


def find_phrase(captions: Mapping[str, Sequence[str]], phrase: str) -> tuple[str, int, int]:
    """Source and place of the first caption that has some words, and where they begin; `("", 0, -1)` where none has."""
    wanted = phrase.lower()
    for source, texts in captions.items():
        for place, text in enumerate(texts):
            start = text.lower().find(wanted)
            if wanted and start >= 0:
                return source, place, start
    return "", 0, -1


def _numbers(box: Any, where: str) -> tuple[float, float, float, float]:
    try:
        a, b, c, d = (float(value) for value in box)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: a box is four numbers, got {box!r:.60}.", "region") from error
    if not all(map(math.isfinite, (a, b, c, d))):
        raise DataError(f"{where}: a box is four finite numbers, got {box!r:.60}.", "region")
    return a, b, c, d


def _shown(values: Iterable[float]) -> str:
    return "[" + ", ".join(f"{value:.4g}" for value in values) + "]"


def _text(value: Any, what: str, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{where}: {what} is a text, got {value!r:.60}.", "region")
    return " ".join(value.split())


def _texts(value: Any, what: str, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(text, str) for text in value):
        raise DataError(f"{where}: {what} must be a list of texts, got {value!r:.60}.", "region")
    return tuple(" ".join(text.split()) for text in value if text.strip())
