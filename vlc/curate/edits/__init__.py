"""Wrong texts for real captions: parts exchanged or replaced by rules, on a grammar or on lists of words."""

from vlc.curate.edits.records import Tally, add_wrong_texts, edits_of
from vlc.curate.edits.rules import RULES, USUAL, Edit, check_rules, wrong_texts
from vlc.curate.edits.words import Reader, find_reader, read_by_lists

__all__ = [
    "RULES",
    "USUAL",
    "Edit",
    "Reader",
    "Tally",
    "add_wrong_texts",
    "check_rules",
    "edits_of",
    "find_reader",
    "read_by_lists",
    "wrong_texts",
]
