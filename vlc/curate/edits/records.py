"""Wrong texts for all captions of a record, counted."""

import collections
import dataclasses
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vlc.curate.edits.rules import wrong_texts
from vlc.curate.edits.words import Reader
from vlc.data.record import Record


@dataclass
class Tally:
    """What was made.

    Attributes:
        captions: Captions that have wrong texts.
        records: Records of which some caption has.
        texts: Wrong texts by rule.
        rules: The rule by caption and wrong text, of the last record.
    """

    captions: int = 0
    records: int = 0
    texts: collections.Counter[str] = field(default_factory=collections.Counter)
    rules: dict[tuple[str, str], str] = field(default_factory=dict)

    def plain(self) -> dict[str, object]:
        """As a manifest has it."""
        return {"captions": self.captions, "records": self.records, "texts": dict(sorted(self.texts.items()))}


def add_wrong_texts(record: Record, reader: Reader, count: int, rules: Sequence[str], tally: Tally) -> Record:
    """The record with wrong texts for each caption, after those that it has: a function of its key and captions alone.

    Args:
        record: Any.
        reader: Reads the captions.
        count: The most for a caption.
        rules: Of `RULES`.
        tally: Counts what is made.
    """
    captions, found = record.all_captions(), dict(record.negatives)
    before, tally.rules = tally.captions, {}
    for text in dict.fromkeys(captions):
        rng = np.random.default_rng([zlib.crc32(record.key.encode()), zlib.crc32(text.encode())])
        edits = wrong_texts(text, captions, reader, rng, count=count, rules=rules)
        if edits:
            found[text] = (*found.get(text, ()), *(edit.text for edit in edits))
            tally.captions += 1
            tally.texts.update(edit.kind for edit in edits)
            tally.rules |= {(text, edit.text): edit.kind for edit in edits}
    tally.records += tally.captions > before
    return dataclasses.replace(record, negatives=found)
