"""Which regions of a picture are trained on at a visit, with what words, and where they lie in what the model sees."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from vlc.data.captions import OF_REGION, matching
from vlc.data.frame import Frame, cover_of_boxes, cover_of_mask, visible_share
from vlc.data.record import flatten_captions
from vlc.data.regions import Region
from vlc.errors import DataError

LABEL = "label"  # the caption source that is a region's class


def captions_of_regions(regions: Sequence[Region]) -> dict[str, list[str]]:
    """Captions by kind of region and source, `entity/long`; regions of no kind are `region`."""
    found: dict[str, list[str]] = {}
    for region in regions:
        for source, texts in region.captions.items():
            found.setdefault(f"{region.kind or 'region'}{OF_REGION}{source}", []).extend(texts)
    return found


class Chosen(NamedTuple):
    """Some regions of a picture.

    Attributes:
        boxes: As shares of what the model sees.
        cover: Share of each patch, row by row, that each region covers.
        texts: What is said of each.
        sources: The caption source of each text.
        counts: Regions that are shown, that lie (mostly) outside of the crop, and that are more than are wanted.
        regions: They themselves.
    """

    boxes: Float[np.ndarray, "N 4"]
    cover: Float[np.ndarray, "N P"]
    texts: list[str]
    sources: list[str]
    counts: Int[np.ndarray, " 3"]
    regions: list[Region]

    def classes(self) -> Int[np.ndarray, " N"]:
        """A number of the class of each, -1 of one that has none."""
        return np.array([class_number(region.label) for region in self.regions], np.int32)


def class_number(name: str) -> int:
    """A number of 31 bits that equal names share, and others hardly ever; -1 of no name."""
    return zlib.crc32(" ".join(name.lower().split()).encode()) >> 1 if name.strip() else -1


@dataclass(frozen=True)
class RegionChoice:
    """Chooses regions.

    Attributes:
        count: The most of a picture; others are drawn at each visit where there are more.
        sources: Caption sources that a region's text is drawn from, `LABEL` for its class; names may end in `*`.
            Empty: all of its captions, or its class where it has none. Regions without such a text are not chosen.
        visible: The least share of its area that must be seen.
        masks: Whether a region that has a mask covers that, or its box.
        silent: Whether regions need no text, and none is drawn.
    """

    count: int
    sources: tuple[str, ...] = ()
    visible: float = 0.2
    masks: bool = True
    silent: bool = False

    def __call__(
        self,
        regions: Sequence[Region],
        frame: Frame,
        grid: tuple[int, int],
        rng: np.random.Generator,
        *,
        size: Callable[[], tuple[int, int]],
        where: str = "image",
    ) -> Chosen:
        """Chooses.

        Args:
            regions: Of the picture.
            frame: What of the picture is seen.
            grid: Rows and columns of patches.
            rng: All randomness comes from here.
            size: Gives width and height of the picture, which its masks must have; asked only where there are some.
            where: The picture, for messages.

        Raises:
            DataError: A mask is of another size than the picture.
        """
        told = [(region, texts) for region in regions if (texts := self.texts_of(region))]
        boxes = frame.boxes([region.box for region, _ in told])
        seen = np.flatnonzero(visible_share(boxes) >= self.visible)
        chosen = np.sort(rng.permutation(seen)[: self.count]) if len(seen) > self.count else seen
        said = [told[i][1][int(rng.integers(len(told[i][1])))] for i in chosen]
        counts = np.array([len(chosen), len(told) - len(seen), len(seen) - len(chosen)], np.int32)
        inside = boxes[chosen].clip(0, 1)
        cover = cover_of_boxes(inside, *grid)
        masked = [(row, region.mask) for row, i in enumerate(chosen) if (region := told[i][0]).mask and self.masks]
        for row, mask in masked:
            assert mask is not None
            if (mask.width, mask.height) != size():
                raise DataError(
                    f"{where}: a mask is {mask.width} x {mask.height}, and the picture {size()[0]} x {size()[1]}.",
                    "region",
                )
            drawn = cover_of_mask(mask.pixels(), frame, *grid)
            cover[row] = drawn if drawn.any() else cover[row]
        shown = [told[i][0] for i in chosen]
        return Chosen(inside, cover, [text for _, text in said], [source for source, _ in said], counts, shown)

    def texts_of(self, region: Region) -> list[tuple[str, str]]:
        """What may be said of a region, each with its source."""
        if self.silent:
            return [("", "")] if region.kind in ("", "entity") else []
        label = {LABEL: (region.label,)} if region.label else {}
        if not self.sources:
            return flatten_captions(region.captions or label)
        captions = dict(region.captions) | label
        names = dict.fromkeys(name for pattern in self.sources for name in matching(captions, pattern))
        return flatten_captions({name: captions[name] for name in names})
