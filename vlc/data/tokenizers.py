"""SentencePiece tokenizers: trained from captions by one command, saved with the data and in every checkpoint."""

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import sentencepiece as spm

from vlc.errors import DataError

UNK_ID, BOS_ID, EOS_ID = 0, 1, 2


class Tokenizer:
    """Text to ids of a fixed length and back. The pad id lies outside the vocabulary: no word can be taken for it.

    Attributes:
        model: The serialised SentencePiece model.
        vocab_size: Number of pieces.
        pad_id: Equal to `vocab_size`.
    """

    def __init__(self, model: bytes):
        self.model = model
        try:
            self._pieces = spm.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise DataError(f"Not a SentencePiece model ({len(model)} bytes): {error}.") from error
        self.vocab_size: int = self._pieces.vocab_size()
        self.pad_id = self.vocab_size

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Reads a `.model` file.

        Raises:
            DataError: The file cannot be read or is no SentencePiece model.
        """
        try:
            return cls(Path(path).read_bytes())
        except OSError as error:
            raise DataError(
                f"{path}: the tokenizer cannot be read ({error.strerror}). "
                "Train one with: vlc data tokenizer SOURCE --out FILE"
            ) from error

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> "Tokenizer":
        """Trains a lower-casing byte-pair model (Sennrich et al. 2016) on captions.

        Args:
            texts: Captions.
            vocab_size: Pieces at the most; fewer when the captions do not hold so many.

        Raises:
            DataError: There is no text, or fewer pieces are asked for than the captions have letters.
        """
        target = io.BytesIO()
        try:
            spm.SentencePieceTrainer.train(  # pyright: ignore[reportAttributeAccessIssue]
                sentence_iterator=iter(texts),
                model_writer=target,
                model_type="bpe",
                vocab_size=vocab_size,
                hard_vocab_limit=False,
                normalization_rule_name="nmt_nfkc_cf",
                unk_id=UNK_ID,
                bos_id=BOS_ID,
                eos_id=EOS_ID,
                pad_id=-1,
                num_threads=1,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise DataError(
                f"No tokenizer of {vocab_size} pieces can be trained from these captions: {error}"
            ) from error
        return cls(target.getvalue())

    def save(self, path: str | Path) -> None:
        """Writes the model; a reader never sees half of it."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        partial.write_bytes(self.model)
        partial.replace(path)

    def encode(self, texts: Iterable[str], length: int) -> np.ndarray:
        """Ids `[N, length]` int32: begin, pieces, end, pads. A text too long is cut, its end mark kept."""
        texts = list(texts)
        ids = np.full((len(texts), length), self.pad_id, np.int32)
        for row, text in zip(ids, texts, strict=True):
            pieces = self._pieces.encode(text)  # one by one: a list starts threads, which takes longer than the work
            pieces = [BOS_ID, *pieces[: length - 2], EOS_ID]
            row[: len(pieces)] = pieces
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text up to the first end mark; pads and begin marks are left out."""
        kept = []
        for token in map(int, ids):
            if token == EOS_ID:
                break
            if token not in (BOS_ID, self.pad_id):
                kept.append(token)
        return self._pieces.decode(kept)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where each token of `encode` stands in the text, as `[start, end)` characters; the begin mark is `(0, 0)`."""
        proto = self._pieces.encode(text, return_type="proto")
        return [(0, 0)] + [(piece.begin, piece.end) for piece in proto.pieces]

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The pieces themselves, for labels of a picture."""
        return [self._pieces.id_to_piece(int(i)) if i != self.pad_id else "" for i in ids]
