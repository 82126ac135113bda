"""Captions cut into words as the Penn Treebank has them, for BLEU, ROUGE and CIDEr.

Published figures are computed after Stanford's PTBTokenizer, which is a Java program that `pycocoevalcap` brings; where
there is no Java, regular expressions stand in for it. Whoever reports a figure says which was used (`NAMES`).
"""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from vlc.errors import DataError

NAMES = {"java": "Stanford PTBTokenizer (Java)", "python": "PTB-like regular expressions (Python)"}
_JAR = "stanford-corenlp-3.4.1.jar"
_CLASS = "edu.stanford.nlp.process.PTBTokenizer"
# What COCO's evaluation leaves out; lower-cased, brackets are no longer among them, and so they stay there and here.
_LEFT_OUT = {"''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"}

_ABBREVIATIONS = "mr mrs ms dr st jr sr vs no inc ltd co corp ave blvd rd mt ft sgt lt gen gov prof rev etc e.g i.e"
_SPLIT = {
    "cannot": "can not", "gonna": "gon na", "gotta": "got ta", "lemme": "lem me", "wanna": "wan na", "gimme": "gim me",
}  # fmt: skip
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_TOKEN = re.compile(
    r"(?P<dotted>\b(?:[a-z]\.)+(?![a-z\d]))"
    rf"|(?P<abbreviation>\b(?:{'|'.join(map(re.escape, _ABBREVIATIONS.split()))})\.)"
    r"|(?P<not>n't\b)"
    r"|(?P<clitic>'n'|'(?:s|m|d|re|ve|ll|em|til|tis|twas|cause)\b)"
    r"|(?P<number>\d+(?:[.,:/]\d+)+)"
    r"|(?P<site>\w+\.(?:com|org|net)\b)"
    r"|(?P<word>[^\W_](?:(?!n't\b)\w)*(?:[-/@_](?=\w)(?:(?!n't\b)\w)+)*(?:'(?!s\b|m\b|d\b|re\b|ve\b|ll\b)\w+)?)"
    r"|(?P<dots>\.{2,})|(?P<dashes>-{2,})|(?P<other>\S)"
)


def tokenize(captions: Sequence[str], *, use: str = "auto") -> tuple[list[str], str]:
    """Captions in lower case with a space between words, without punctuation; and by what they were cut.

    Args:
        captions: Any texts.
        use: `java`, `python`, or `auto`: Java where it is.

    Raises:
        DataError: `java` is asked for and fails.
    """
    if use == "java" or (use == "auto" and has_java()):
        return _by_java(captions), "java"
    return [" ".join(_words(caption)) for caption in captions], "python"


def has_java() -> bool:
    """Whether Java and the tokenizer's jar are there."""
    return shutil.which("java") is not None and _jar() is not None


def _jar() -> Path | None:
    try:
        from pycocoevalcap.tokenizer import ptbtokenizer
    except ImportError:
        return None
    path = Path(str(ptbtokenizer.__file__)).parent / _JAR
    return path if path.is_file() else None


def _by_java(captions: Sequence[str]) -> list[str]:
    lines = "\n".join(" ".join(caption.split()) for caption in captions) + "\n"
    command = ["java", "-cp", str(_jar()), _CLASS, "-preserveLines", "-lowerCase"]
    try:
        done = subprocess.run(command, input=lines.encode(), capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        output = (getattr(error, "stderr", b"") or b"").decode("utf-8", "replace").strip().splitlines()
        raise DataError(f"Java's PTBTokenizer failed ({output[-1] if output else error}).") from error
    found = done.stdout.decode("utf-8", "replace").split("\n")[: len(captions)]
    if len(found) != len(captions):
        raise DataError(f"Java's PTBTokenizer gave {len(found)} lines for {len(captions)} captions.")
    return [" ".join(word for word in line.split() if word not in _LEFT_OUT) for line in found]


def _words(caption: str) -> list[str]:
    text = caption.lower().replace("\u2019", "'").replace("\u2018", "`")
    text = re.sub(r"[\u201c\u201d]|\"", " '' ", text)
    words: list[str] = []
    for match in _TOKEN.finditer(text):
        token = match.group()
        words += _SPLIT[token].split() if token in _SPLIT else [_BRACKETS.get(token, token)]
    return [word for word in words if word not in _LEFT_OUT]
