"""Graph-based captions (GBC, arXiv 2407.06723) as they are published: an object an image, with `vertices`."""

import math
from collections.abc import Mapping
from typing import Any

from vlc.data.regions import IMAGE, Edge, Region, check_box, check_graph, find_phrase
from vlc.errors import DataError

VERTICES = "vertices"
_SOURCES = {"detail": "long", "original": "alt", "bagofwords": "tags"}  # others keep their names


def captions_of(row: Mapping[str, Any], where: str) -> dict[str, list[str]]:
    """Captions of the picture by source: those of its vertex, and the one that it was found with (`alt`)."""
    captions = _captions(_root(row[VERTICES], where), where)
    if row.get("original_caption"):
        captions["alt"] = [row["original_caption"], *captions.get("alt", [])]
    return {source: list(dict.fromkeys(texts)) for source, texts in captions.items()}


def graph_of(row: Mapping[str, Any], where: str) -> tuple[tuple[Region, ...], tuple[Edge, ...]]:
    """The vertices but the picture's as regions, and the edges between them.

    An edge is kept where no caption of its parent has its words, without a place.

    Raises:
        DataError: A vertex lacks something, two have one name, or an edge leads nowhere, or round in a circle.
    """
    vertices = row[VERTICES]
    root = _root(vertices, where)
    others = [vertex for vertex in vertices if vertex is not root]
    try:
        places = {root["vertex_id"]: IMAGE} | {vertex["vertex_id"]: i for i, vertex in enumerate(others)}
        if len(places) != len(vertices):
            raise DataError(f"{where}: two vertices have one vertex_id.", "region")
        captions = {places[vertex["vertex_id"]]: _captions(vertex, where) for vertex in vertices}
        edges = [
            Edge(places[edge["source"]], _child(places, edge, where), edge["text"],
                 *find_phrase(captions[places[edge["source"]]], edge["text"]))
            for vertex in vertices for edge in vertex["out_edges"]
        ]  # fmt: skip
        regions = tuple(
            _region(vertex, captions[i], _parent(edges, i), f"{where}, {vertex['vertex_id']}")
            for i, vertex in enumerate(others)
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{where}: a vertex or edge lacks {error}.", "region") from error
    check_graph(regions, edges, where)
    return regions, tuple(edges)


def _root(vertices: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(vertices, list) or not all(isinstance(vertex, Mapping) for vertex in vertices):
        raise DataError(f'{where}: "vertices" must be a list of objects.', "region")
    roots = [vertex for vertex in vertices if vertex.get("label") == "image"]
    if len(roots) != 1:
        raise DataError(f'{where}: {len(roots)} vertices have the label "image"; one is the picture.', "region")
    return roots[0]


def _captions(vertex: Mapping[str, Any], where: str) -> dict[str, list[str]]:
    captions: dict[str, list[str]] = {}
    try:
        for desc in vertex["descs"]:
            captions.setdefault(_SOURCES.get(desc["label"]) or desc["label"], []).append(" ".join(desc["text"].split()))
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{where}: a vertex lacks {error}.", "region") from error
    return captions


def _child(places: Mapping[str, int], edge: Mapping[str, Any], where: str) -> int:
    if edge["target"] not in places:
        raise DataError(
            f'{where}: the edge "{edge["text"]}" leads to {edge["target"]!r}, which is no vertex.', "region"
        )
    return places[edge["target"]]


def _parent(edges: list[Edge], child: int) -> int:
    return next((edge.parent for edge in edges if edge.child == child), IMAGE)


def _region(vertex: Mapping[str, Any], captions: Mapping[str, list[str]], parent: int, where: str) -> Region:
    box = vertex["bbox"]
    score = box.get("confidence")
    return Region(
        check_box([box[side] for side in ("left", "top", "right", "bottom")], where),
        captions={source: tuple(texts) for source, texts in captions.items()},
        parent=parent,
        kind=vertex["label"],
        score=math.nan if score is None else float(score),
    )
