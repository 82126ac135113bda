"""Wrong texts for all captions of a record, counted."""

import collections
import dataclasses
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vlc.curate.edits.rules import Edit, wrong_texts
from vlc.curate.edits.words import Reader
from vlc.data.record import Record


@dataclass
class Tally:
    """What was made.

    Attributes:
        captions: Captions that have wrong texts.
        records: Records of which some caption has.
        texts: Wrong texts by rule.
    """

    captions: int = 0
    records: int = 0
    texts: collections.Counter[str] = field(default_factory=collections.Counter)

    def plain(self) -> dict[str, object]:
        """As a manifest has it."""
        return {"captions": self.captions, "records": self.records, "texts": dict(sorted(self.texts.items()))}


def edits_of(record: Record, reader: Reader, count: int, rules: Sequence[str]) -> dict[str, list[Edit]]:
    """Wrong texts by caption, where there are some: a function of the record's key and captions alone.

    Args:
        record: Any.
        reader: Reads the captions.
        count: The most for a caption.
        rules: Of `RULES`; empty: `USUAL`.
    """
    captions, found = record.all_captions(), {}
    for text in dict.fromkeys(captions):
        rng = np.random.default_rng([zlib.crc32(record.key.encode()), zlib.crc32(text.encode())])
        edits = wrong_texts(text, captions, reader, rng, count=count, rules=rules)
        if edits:
            found[text] = edits
    return found


def add_wrong_texts(record: Record, reader: Reader, count: int, rules: Sequence[str], tally: Tally) -> Record:
    """The record with `edits_of` it after the wrong texts that it has; `tally` counts what is made."""
    made = edits_of(record, reader, count, rules)
    tally.captions += len(made)
    tally.records += bool(made)
    tally.texts.update(edit.kind for edits in made.values() for edit in edits)
    more = {text: (*record.negatives.get(text, ()), *(edit.text for edit in edits)) for text, edits in made.items()}
    return dataclasses.replace(record, negatives={**record.negatives, **more})
