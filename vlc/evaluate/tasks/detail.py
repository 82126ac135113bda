"""What captions say in detail: their claims, judged one by one, and their language."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from vlc.curate.edits import find_reader
from vlc.data.record import Record
from vlc.data.sources.scenes.world import SHAPES
from vlc.errors import ConfigError, did_you_mean
from vlc.evaluate.metrics import units
from vlc.evaluate.metrics.intervals import Figure
from vlc.evaluate.metrics.objects_named import ObjectNames, read_object_names
from vlc.evaluate.metrics.text_statistics import text_statistics
from vlc.units import (
    Claim,
    claims_of_scene,
    distinct,
    find_claim_reader,
    find_judge,
    find_synonyms,
    judge_by_scene,
    judged,
    matched,
    nearest,
)

METRICS = ("units", "capture", "dnli", "events", "entities", "chair", "text")
# Figure, its heading, and how it is written: see `COLUMNS` of captions.
COLUMNS = (
    ("units_precision", "units P", 100), ("units_recall", "units R", 100), ("units_f1", "units F1", 100),
    ("dcscore", "DCScore form", 100), ("units", "units", 0), ("capture", "CAPTURE form", 100),
    ("capture_objects", "objects", 100), ("capture_attributes", "attributes", 100),
    ("capture_relations", "relations", 100), ("dnli_precision", "entailed", 100),
    ("dnli_contradiction", "contradicted", 100), ("dnli_recall", "entailed R", 100),
    ("dnli_recall_ratio", "entailed ratio", 100), ("event_precision", "events P", 100),
    ("event_recall", "events R", 100), ("event_f1", "events F1", 100), ("entity", "entities", 100),
    ("entity_recall", "entities R", 100), ("entity_nearness", "nearness", 100), ("chair_i", "CHAIRi", 100),
    ("chair_s", "CHAIRs", 100), ("sentences", "sentences", 0), ("words_a_sentence", "words/sentence", 0),
    ("nouns", "nouns", 0), ("adjectives", "adjectives", 0), ("verbs", "verbs", 0), ("adverbs", "adverbs", 0),
    ("grade", "grade", 0), ("mtld", "MTLD", 0),
)  # fmt: skip
Embed = Callable[[Sequence[str]], Float[np.ndarray, "N D"]]


@dataclass(frozen=True)
class DetailOptions:
    """What is asked of captions.

    Attributes:
        metrics: Of `METRICS`.
        claims: What reads claims; `auto`: exactly of scenes, else by rules.
        judge: Who judges them; `auto`: the scene, else the references.
        seconds: How long a judge may think about a caption.
        objects: A file of names of objects, for `chair`; empty: shapes of scenes.
        soft: Unit embeddings of texts by which claims are nearly alike; `None`: they are alike or not.
        soft_name: Of what.
    """

    metrics: tuple[str, ...] = ()
    claims: str = "auto"
    judge: str = "auto"
    seconds: float = 60.0
    objects: str = ""
    soft: Embed | None = None
    soft_name: str = ""


def check_metrics(names: Sequence[str]) -> tuple[str, ...]:
    """The names themselves; `all` stands for all.

    Raises:
        ConfigError: There is no such metric.
    """
    for name in names:
        if name not in (*METRICS, "all"):
            raise ConfigError(f'--metrics "{name}" is not known.{did_you_mean(name, METRICS)}')
    return METRICS if "all" in names else tuple(names)


@dataclass(frozen=True)
class Known:
    """What captions of an image are judged by, without its pixels.

    Attributes:
        key: Of its record.
        references: What is said of it.
        scene: That it was drawn from; `None` of other data.
        labels: Classes of its regions.
    """

    key: str
    references: Sequence[str]
    scene: Any = None
    labels: tuple[str, ...] = ()

    @classmethod
    def of(cls, record: Record, references: Sequence[str]) -> "Known":
        labels = tuple(region.label for region in record.regions if region.label)
        return cls(record.key, references, record.extra.get("scene"), labels)


class DetailScorer:
    """Scores captions of some images in detail; all of them are scenes, or none is taken for one."""

    def __init__(self, options: DetailOptions, images: Sequence[Known]):
        """
        Args:
            options: What is asked.
            images: What is known of each.

        Raises:
            ConfigError: A reader, judge or file is not there, or has no truth to judge by.
        """
        self.options, self.images = options, images
        exact = all(image.scene is not None for image in images)
        self.by_truth = exact and options.judge == "auto" and options.claims in ("auto", "scenes")
        self.names = self._names(exact)
        self.reads_claims = bool(set(options.metrics) - {"chair", "text"})
        if self.reads_claims:  # else neither a grammar nor WordNet is loaded
            reader, judge = options.claims, options.judge
            self.reader = find_claim_reader(reader if reader != "auto" else "scenes" if exact else "rules")
            self.synonyms = find_synonyms()
            self.judge = find_judge("references" if judge == "auto" else judge, self.synonyms.same, options.seconds)
        if "text" in options.metrics:
            self.words = find_reader()

    def _names(self, exact: bool) -> ObjectNames | None:
        if "chair" not in self.options.metrics:
            return None
        if self.options.objects:
            return read_object_names(self.options.objects)
        if not exact:
            raise ConfigError("--metrics chair needs names of objects: --objects FILE, a line for each, as CHAIR's.")
        return ObjectNames({shape: shape for shape in SHAPES})

    def notes(self) -> dict[str, str]:
        """What made the figures."""
        said = {}
        if self.reads_claims:
            who = "the scenes themselves" if self.by_truth else self.judge.name
            said["claims"] = f"Claims read by {self.reader.name}, judged by {who}; synonyms by {self.synonyms.name}."
            said["soft"] = (
                f"Words nearly alike by {self.options.soft_name}."
                if self.options.soft
                else "CAPTURE and entities in their form without a sentence encoder (--soft MODEL)."
            )
        return said

    def score(self, captions: Sequence[str]) -> dict[str, Figure]:
        """Means over images, with the figure of each."""
        rows = [self._of_image(image, caption) for image, caption in zip(self.images, captions, strict=True)]
        names = list(dict.fromkeys(name for row in rows for name in row))
        found = {name: Figure.where_known(np.array([row.get(name, np.nan) for row in rows])) for name in names}
        if "event_precision" in found:  # of the averaged sides, as published
            found["event_f1"] = _harmonic(found["event_precision"], found["event_recall"])
        return found

    def _of_image(self, image: Known, caption: str) -> dict[str, float]:
        asked = set(self.options.metrics)
        found: dict[str, float] = {}
        if self.reads_claims:
            same = self.synonyms.same
            said, meant = list(self.reader.read(caption)), self._meant(image)
            # The truth of a scene lists no relations, and so they are not compared with it.
            listed = [claim for claim in said if claim.kind != "relation"] if self.by_truth else said
            near = nearest(listed, meant, self.options.soft) if self.options.soft and listed and meant else None
            claimed = self._judged(image, said, meant, both=bool(asked & {"dnli", "events"}))
            parts = {
                "units": lambda: units.dcscore(claimed, same),
                "capture": lambda: units.capture(listed, meant, same, near),
                "dnli": lambda: units.dnli(claimed),
                "events": lambda: units.autodq(claimed),
                "entities": lambda: units.entity_figures(listed, meant, near, same),
            }
            found |= {name: value for part, make in parts.items() if part in asked for name, value in make().items()}
        if self.names is not None:
            there = self.names.known(image.labels)
            there += [name for text in image.references for name in self.names.named(text)]
            there += [obj.shape for obj in image.scene.objects] if image.scene is not None else []
            found |= units.hallucinated(self.names.named(caption), there)
        return found | (text_statistics(caption, self.words) if "text" in asked else {})

    def _meant(self, image: Known) -> list[Claim]:
        """The truth of a scene, or all that the references claim, each thing once."""
        if self.by_truth:
            return claims_of_scene(image.scene)
        return distinct(claim for text in image.references for claim in self.reader.read(text))

    def _judged(self, image: Known, said: list[Claim], meant: list[Claim], *, both: bool) -> units.Claimed:
        if self.by_truth:
            verdicts, _ = judge_by_scene(image.scene, said)
            back = matched(said, meant, self.synonyms.same)[1].astype(float)
            return units.Claimed(said, meant, verdicts, back)
        verdicts = judged(self.judge, said, meant, image.key)
        return units.Claimed(said, meant, verdicts, judged(self.judge, meant if both else [], said, image.key))


def _harmonic(one: Figure, other: Figure) -> Figure:
    def over(rows: np.ndarray) -> float:
        assert one.over is not None
        assert other.over is not None
        return units.harmonic(one.over(rows), other.over(rows))

    return Figure(units.harmonic(one.value, other.value), over)
