"""How the families of models clean a text before it is cut into pieces. Leaving a step out shifts every score."""

import html
import string
from collections.abc import Callable

import ftfy

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _as_it_is(text: str) -> str:
    return text


def _lower(text: str) -> str:
    return text.lower()


def _one_space(text: str) -> str:
    return " ".join(text.split())


def _siglip(text: str) -> str:
    return _one_space(text.lower().translate(_PUNCTUATION))


def _mended(text: str) -> str:
    """Wrongly decoded letters mended and HTML entities resolved, as OpenAI's CLIP does; captions of the web need it."""
    return _one_space(html.unescape(html.unescape(ftfy.fix_text(text))))


def _clip(text: str) -> str:
    return _mended(text).lower()


def _canonical(text: str) -> str:
    return _one_space(_mended(text).replace("_", " ").translate(_PUNCTUATION).lower())


CLEANERS: dict[str, Callable[[str], str]] = {
    "": _as_it_is,
    "lower": _lower,  # SigLIP 2
    "siglip": _siglip,  # SigLIP in transformers: lower case, no punctuation
    "whitespace": _mended,  # open_clip with a tokenizer of Hugging Face
    "clip": _clip,  # OpenAI's CLIP and open_clip
    "canonical": _canonical,  # open_clip's SigLIP
}
