"""`vlc map-regions`: regions are given the attributes that their picture's caption names (ViLLA, stage 2's data).

A region has an attribute of its picture where its score is within a margin of that of the picture's best region (Varma
et al., ICCV 2023, arXiv 2308.11194, section 3.2).
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from vlc.curate.build import Plan, encode_image
from vlc.data.attributes import Attributes
from vlc.data.record import Record, Source
from vlc.data.regions import Region
from vlc.errors import ConfigError
from vlc.inference.derived_data import decodable, in_chunks, write_derived
from vlc.inference.model import Model

_CHUNK = 128  # images in memory


@dataclass(frozen=True)
class RegionMapping:
    """What the data set is a function of, beside the model.

    Attributes:
        source: What the data is called.
        columns: How its columns are read.
        name: The caption source of the regions' new texts.
        captions: The caption source whose texts are looked through for attributes; empty: all.
        margin: How far a region's score may lie below the best of its picture.
        shard_records: Images to a shard.
    """

    source: str
    columns: str = ""
    name: str = "mapped"
    captions: str = ""
    margin: float = 0.2
    shard_records: int = 4096


def map_attributes(
    scores: Float[np.ndarray, "R A"], present: Bool[np.ndarray, " A"], margin: float
) -> Bool[np.ndarray, "R A"]:
    """Which of the attributes of a picture each of its regions has."""
    return present[None] & (scores >= scores.max(axis=0, keepdims=True) - margin)


def map_regions(model: Model, source: Source, settings: RegionMapping, out: str | Path) -> dict[str, Any]:
    """Writes a data set whose regions have the texts that were mapped to them, an attribute each; images of which no
    region has one are left out and counted. Stopped and called again it goes on.

    Args:
        model: Trained by `objectives.attribute_mil`.
        source: With regions; their labels and texts are not looked at.
        settings: What is written.
        out: The folder.

    Raises:
        ConfigError: The model knows no attributes.
        DataError: The folder holds another data set, no region is left, or the disk is full.
    """
    names = Attributes.parse(model.config.data.regions.attributes)
    if not model.config.model.regions.attributes or not names:
        raise ConfigError(
            "This model knows no attributes: it was not trained by config.objectives.attribute_mil (docs/regions.md)."
        )
    if settings.margin < 0:
        raise ConfigError("--margin must be 0 or more.")
    plan = asdict(settings) | {"model": model.fingerprint, "records in the source": len(source)}
    return write_derived(
        source, out, plan, lambda images, left_out: _mapped(model, source, images, settings, names, left_out),
        made_by=f"`vlc map-regions` from {settings.source}", nothing="no image with a mapped region is left",
    )  # fmt: skip


def _mapped(
    model: Model, source: Source, images: range, settings: RegionMapping, names: Attributes, left_out: dict[str, int]
) -> Iterator[tuple[Record, bytes]]:
    plan = Plan(settings.source)
    for some in in_chunks(source, images, _CHUNK, left_out):
        records = [replace(one, regions=_proposals(one.regions), graph=()) for one in decodable(model, some, left_out)]
        boxes = [[region.box for region in record.regions] for record in records]
        for record, scores in zip(records, model.attribute_scores([one.image for one in records], boxes), strict=True):
            texts = record.captions.get(settings.captions, ()) if settings.captions else record.all_captions()
            has = map_attributes(scores, names.named(texts) > 0, settings.margin) if len(scores) else np.zeros((0, 0))
            regions = tuple(
                replace(region, captions={settings.name: tuple(names.names[i] for i in np.flatnonzero(row))})
                for region, row in zip(record.regions, has, strict=True)
                if row.any()
            )
            if regions:
                yield replace(record, regions=regions), encode_image(record, plan)
            else:
                left_out["no region mapped"] = left_out.get("no region mapped", 0) + 1


def _proposals(regions: Sequence[Region]) -> tuple[Region, ...]:
    """Where something is, and nothing of what: neither relations of regions nor what is known of them."""
    return tuple(Region(region.box, region.mask) for region in regions if region.kind in ("", "entity"))
