"""What a tokenizer is: text to ids of a fixed length and back, by the rules that a model was trained with."""

import base64
import binascii
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vlc.data.record import mend_text
from vlc.data.tokenizers.clean import CLEANERS
from vlc.errors import CheckpointError, DataError


@dataclass(frozen=True)
class Rules:
    """What is done around the pieces of a text.

    Attributes:
        clean: One of `vlc.data.tokenizers.clean.CLEANERS`, applied first.
        begin: Id put before every text, or `None`.
        end: Id put after every text; it is kept when a text is cut.
        rows: Rows of the model's token table, where there are more than pieces; 0: the same number.
        pad: Id that the family pads with. Here pads are the id `rows`; this one is for whoever compares.
        prompt: Put before every text, as the models that were trained with prompts ask for.
    """

    clean: str = ""
    begin: int | None = None
    end: int | None = None
    rows: int = 0
    pad: int | None = None
    prompt: str = ""

    def __post_init__(self) -> None:
        if self.clean not in CLEANERS:
            raise CheckpointError(f"The tokenizer cleans texts by {self.clean!r}; known: {', '.join(CLEANERS)}.")


class Tokenizer(ABC):
    """Text to ids of a fixed length and back. The pad id lies outside the vocabulary: no word can be taken for it.

    Attributes:
        rules: What is done around the pieces.
        vocab_size: Rows of the model's token table.
        pad_id: Equal to `vocab_size`.
        begin_id: What a caption starts from when it is written.
        end_id: What ends it.
    """

    kind: str

    def __init__(self, rules: Rules, pieces: int):
        self.rules = rules
        self.vocab_size = rules.rows or pieces
        self.pad_id = self.vocab_size

    @property
    @abstractmethod
    def begin_id(self) -> int: ...

    @property
    @abstractmethod
    def end_id(self) -> int: ...

    @abstractmethod
    def ids(self, text: str, length: int) -> list[int]:
        """Ids of a cleaned text with its begin and end marks, at most `length`, without pads."""

    @abstractmethod
    def text(self, ids: list[int]) -> str:
        """The text of ids without marks or pads."""

    @abstractmethod
    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where each token of `encode` stands in the cleaned text, as `[start, end)` characters; of marks `(0, 0)`."""

    @abstractmethod
    def piece(self, index: int) -> str:
        """One piece, as a label."""

    @abstractmethod
    def model_bytes(self) -> bytes:
        """The file that the tokenizer is made of."""

    def clean(self, text: str) -> str:
        """The text as it is cut into pieces, with its prompt."""
        return self.rules.prompt + CLEANERS[self.rules.clean](text)

    def encode(self, texts: str | Iterable[str], length: int) -> np.ndarray:
        """Ids `[N, length]` int32: begin, pieces, end, pads. A text too long is cut, its end mark kept.

        Args:
            texts: One or several; none gives `[0, length]`.
            length: T.

        Raises:
            DataError: A text is no string.
        """
        rows = [self.ids(self.clean(mend_text(text)), length) for text in check_texts(texts)]
        ids = np.full((len(rows), length), self.pad_id, np.int32)
        for row, found in zip(ids, rows, strict=True):
            row[: len(found)] = found
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text up to the first end mark; pads and begin marks are left out."""
        kept = []
        for token in map(int, ids):
            if token == self.end_id:
                break
            if token not in (self.begin_id, self.pad_id):
                kept.append(token)
        return self.text(kept)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The pieces themselves, for labels of a picture."""
        return [self.piece(int(i)) if i != self.pad_id else "" for i in ids]

    def to_json(self) -> dict[str, Any]:
        """What is saved in a checkpoint."""
        model = base64.b64encode(self.model_bytes()).decode()
        return {"kind": self.kind, "model": model, "rules": asdict(self.rules)}


def check_texts(texts: Any) -> list[str]:
    """Texts as a list; one alone is taken for a list of one.

    Raises:
        DataError: Something is no string: it is named with its place and type.
    """
    listed = [texts] if isinstance(texts, str) else texts
    if isinstance(listed, (bytes, Mapping)) or not isinstance(listed, Iterable):
        raise DataError(f"texts: {listed!r:.60} ({type(listed).__name__}) is no text. Give a string, or several.")
    listed = list(listed)
    for place, text in enumerate(listed):
        if not isinstance(text, str):
            hint = "; decode it first: .decode()" if isinstance(text, bytes) else ""
            raise DataError(f"text {place}: {text!r:.60} ({type(text).__name__}) is no string{hint}.")
    return listed


def saved_parts(saved: Mapping[str, Any]) -> tuple[bytes, dict[str, Any] | None]:
    """The file and the rules of a saved tokenizer.

    Raises:
        CheckpointError: The file is missing or no base64.
    """
    try:
        return base64.b64decode(saved["model"], validate=True), saved.get("rules")
    except (KeyError, TypeError, binascii.Error) as error:
        raise CheckpointError(f"The saved tokenizer is damaged ({error!r}).") from error
