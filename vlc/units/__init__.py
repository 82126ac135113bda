"""What a text claims: primitive units, the readers that find them, and the judges that say which are so."""

from vlc.units.claim import KINDS, Claim, distinct
from vlc.units.judging import Judge, by_references, find_judge, judged
from vlc.units.matching import Alike, matched, nearest
from vlc.units.reading import ClaimReader, find_claim_reader, own_function
from vlc.units.scene_claims import claims_of_scene, judge_by_scene, read_scene_claims
from vlc.units.synonyms import Synonyms, find_synonyms

__all__ = [
    "KINDS",
    "Alike",
    "Claim",
    "ClaimReader",
    "Judge",
    "Synonyms",
    "by_references",
    "claims_of_scene",
    "distinct",
    "find_claim_reader",
    "find_judge",
    "find_synonyms",
    "judge_by_scene",
    "judged",
    "matched",
    "nearest",
    "own_function",
    "read_scene_claims",
]
