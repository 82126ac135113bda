"""The `scenes` source: an unlimited, exactly reproducible stream of compositional pictures with known truth."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vlc.data.record import Record, Source
from vlc.data.regions import PartsOfPicture
from vlc.data.sources.kind import SourceKind
from vlc.data.sources.scenes import language, world
from vlc.data.sources.scenes.parts import parts_of_scene
from vlc.data.sources.scenes.render import draw
from vlc.errors import ConfigError, did_you_mean

SPLITS = {"train": 0, "dev": 1, "test": 2, "novel": 3}
_VARIANTS = 50_000  # number of style seeds


@dataclass(frozen=True)
class Scenes(Source):
    """Generated scenes, a pure function of `(seed, split, index)`.

    Every record carries captions by source, `alt` (noisy), `short`, `long` (two wordings) and `reference` (mostly
    generic, for guidance), and in `extra` the `scene`, its `style`, and the visible `masks`
    `[objects, side, side]`.

    Attributes:
        side: Pixels on a side.
        length: Number of records; indices beyond it are an error.
        split: `train`, `dev` and `test` hold different scenes without `HELD_OUT_PAIRS`; in `novel` every scene has
            a colour-shape pair that no training scene shows.
        seed: Another seed is another world.
        objects: Fewest and most objects in a scene.
        first_objects: The same, for the first part of training (a curriculum, Bengio et al., ICML 2009).
        first_share: How much of training that is.
        overlap_rate: Chance that an object partly covers another.
        alt_generic_rate: Share of alt-texts that fit any scene.
        alt_wrong_rate: Share of the others that name an object which is not there.
        reference_generic_rate: Share of `reference` captions that are generic; the others name every object.
        varied: With two caption sources more: `varied`, of all lengths from 2 words on, and `brief`, which say one
            thing of an object at the most.
        place_rate: Chance that a `brief` caption says where in the picture its first object stands.
        negatives: With wrong texts for each `short` and `long` caption: those of the scene's edit twins; and for a
            `brief` one that says where something stands, the one that has it on the other side.
        edits: Of `world.EDITS`: the twins that those are of; empty: all.
        regions: With the regions of each scene and their graph.
        region_negatives: With wrong texts for the captions of regions: one word replaced by another of its kind.
    """

    side: int = 64
    length: int = 1_000_000
    split: str = "train"
    seed: int = 0
    objects: tuple[int, int] = (2, 5)
    first_objects: tuple[int, int] = (1, 1)
    first_share: float = 0.0
    overlap_rate: float = 0.2
    alt_generic_rate: float = 0.5
    alt_wrong_rate: float = 0.2
    reference_generic_rate: float = 0.8
    varied: bool = False
    place_rate: float = 0.0
    negatives: bool = False
    edits: tuple[str, ...] = ()
    regions: bool = True
    region_negatives: bool = False

    def __post_init__(self) -> None:
        for edit in self.edits:
            if edit not in world.EDITS:
                raise ConfigError(f'config.data.scenes.edits: "{edit}" is no edit.{did_you_mean(edit, world.EDITS)}')

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Record:
        record = self.record(*self.scene(index), key=self._key(index), index=index)
        return dataclasses.replace(record, negatives=self.wrong_texts(index)) if self.negatives else record

    def at(self, progress: float) -> "Scenes":
        return self.subset(objects=self.first_objects) if progress < self.first_share else self

    def _key(self, index: int) -> str:
        return f"scenes-{self.split}-{self.seed}-{index:08d}"

    def scene(self, index: int) -> tuple[world.Scene, int]:
        """The scene with this index, and the style of its captions."""
        if not 0 <= index < self.length:
            raise IndexError(f"scene {index} of {self.length}")
        rng = self._rng(index, 0)
        pairs = "held_out" if self.split == "novel" else "seen"
        scene = world.sample_scene(rng, objects=self.objects, overlap_rate=self.overlap_rate, pairs=pairs)
        return scene, int(rng.integers(_VARIANTS))

    def record(self, scene: world.Scene, style: int, *, key: str, index: int) -> Record:
        """Draws a scene and writes its captions."""
        image, masks = draw(scene, self.side)
        parts = parts_of_scene(scene, style, masks, wrong=self.region_negatives) if self.regions else PartsOfPicture()
        extra = {"scene": scene, "style": style, "masks": masks}
        return Record(key, image, self.describe(scene, style, index), *parts, extra=extra)

    def names(self, index: int) -> tuple[str, str]:
        return self._key(index), ""

    def captions(self, index: int) -> dict[str, tuple[str, ...]]:
        """Captions by source, without drawing."""
        return self.describe(*self.scene(index), index)

    def describe(self, scene: world.Scene, style: int, index: int) -> dict[str, tuple[str, ...]]:
        """Captions by source of a scene that stands at an index."""
        rng = self._rng(index, 1)
        alt = language.alt_text(scene, rng, generic_rate=self.alt_generic_rate, wrong_rate=self.alt_wrong_rate)
        if rng.random() < self.reference_generic_rate:
            reference = language.generic_caption(rng)
        else:
            reference = language.specific_caption(scene)
        return {
            "alt": (alt,),
            "short": (language.short_caption(scene, style).text,),
            "long": (language.long_caption(scene, style).text, language.long_caption(scene, style + _VARIANTS).text),
            "reference": (reference,),
            **(self._further(scene, index) if self.varied else {}),
        }

    def _further(self, scene: world.Scene, index: int) -> dict[str, tuple[str, ...]]:
        return {
            "varied": (language.varied_caption(scene, self._rng(index, 30)),),
            "brief": (self._brief(scene, index),),
        }

    def _brief(self, scene: world.Scene, index: int, *, opposite: bool = False) -> str:
        return language.brief_caption(scene, self._rng(index, 31), place_rate=self.place_rate, opposite=opposite)

    def edit_twin(self, index: int, edit: str) -> tuple[Record, Record] | None:
        """The record and its twin, drawn and described alike but for one change (`world.EDITS`).

        Returns:
            `None` where this scene has no such twin, or its long caption would not tell.
        """
        twin = self._twin(index, edit)
        if twin is None:
            return None
        _, style = self.scene(index)
        return self[index], self.record(twin, style, key=f"{edit}-of-{index:08d}", index=index)

    def _twin(self, index: int, edit: str) -> world.Scene | None:
        scene, style = self.scene(index)
        twin = world.edit_twin(scene, self._rng(index, 2 + world.EDITS.index(edit)), edit)
        if twin is None or language.long_caption(twin, style).text == language.long_caption(scene, style).text:
            return None
        return twin

    def twin(self, index: int, caption: tuple[str, int], rng: np.random.Generator) -> Record | None:
        scene, style = self.scene(index)
        right = _caption_at(self.describe(scene, style, index), caption)
        for edit in rng.permutation(world.EDITS):
            twin = world.edit_twin(scene, rng, str(edit))
            if twin is None:
                continue
            wrong = _caption_at(self.describe(twin, style, index), caption)
            if not (language.is_true(scene, wrong) or language.is_true(twin, right)):
                return self.record(twin, style, key=f"{edit}-of-{index:08d}", index=index)
        return None

    def matched(self, index: int, keep: str, count: int) -> list[Record]:
        """The record and `count - 1` scenes that share its colours, shapes or places (`world.matched_scene`)."""
        scene, style = self.scene(index)
        rng = self._rng(index, 20 + ("colour", "shape", "place").index(keep))
        others = [world.matched_scene(scene, rng, keep) for _ in range(count - 1)]
        records = [self.record(s, style, key=f"{keep}-{i}-of-{index:08d}", index=index) for i, s in enumerate(others)]
        return [self[index], *records]

    def hard_negatives(self, index: int) -> list[str]:
        """Long captions of the scene's edit twins: each is wrong in one thing."""
        return list(self.wrong_texts(index)[self.captions(index)["long"][0]])

    def wrong_texts(self, index: int) -> dict[str, tuple[str, ...]]:
        """By `short` and `long` caption, those of the scene's edit twins in the same words, where they tell; by `brief`
        caption the one with what it says to stand somewhere on the other side."""
        scene, style = self.scene(index)
        twins = [twin for edit in self.edits or world.EDITS if (twin := self._twin(index, edit)) is not None]
        found = {}
        for write in (
            lambda of: language.short_caption(of, style).text,
            lambda of: language.long_caption(of, style).text,
            lambda of: language.long_caption(of, style + _VARIANTS).text,
        ):
            right = write(scene)
            found[right] = tuple(text for twin in twins if (text := write(twin)) != right)
        if self.varied and self.place_rate:
            right, wrong = (self._brief(scene, index, opposite=opposite) for opposite in (False, True))
            found |= {right: (wrong,)} if wrong != right else {}
        return found

    def subset(self, **changes) -> "Scenes":
        """The same world with other settings, e.g. `scenes.subset(split="test", length=512)`."""
        return dataclasses.replace(self, **changes)

    def _rng(self, index: int, stream: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, SPLITS[self.split], index, stream))


def _caption_at(captions: Mapping[str, tuple[str, ...]], caption: tuple[str, int]) -> str:
    """One caption by its source and place; empty where there is none, which is true of any scene."""
    source, place = caption
    texts = captions.get(source, ())
    return texts[place] if place < len(texts) else ""


KIND = SourceKind("generated scenes", lambda place: place.path == "scenes", lambda _, __, settings: Scenes(**settings))
