"""SentencePiece: trained from captions by one command, or taken from another model (SigLIP)."""

import io
import os
from collections.abc import Iterable, Sequence

import sentencepiece as spm

from vlc.data.tokenizers.base import Rules, Tokenizer
from vlc.errors import DataError
from vlc.storage import write_whole

UNK_ID, BOS_ID, EOS_ID = 0, 1, 2
_LONGEST = 1 << 30  # bytes of a caption; what is longer than its default of 4,192 the trainer would pass over
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
OWN_RULES = Rules(begin=BOS_ID, end=EOS_ID)


class SentencePiece(Tokenizer):
    """A SentencePiece model and the rules around it.

    Attributes:
        model: The serialised model.
        pieces_of_model: How many pieces it has; the model's table may have more rows.
    """

    kind = "sentencepiece"

    def __init__(self, model: bytes, rules: Rules = OWN_RULES):
        self.model = model
        try:
            self._pieces = spm.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise DataError(f"Not a SentencePiece model ({len(model)} bytes): {error}.") from error
        self.pieces_of_model: int = self._pieces.vocab_size()
        super().__init__(rules, self.pieces_of_model)

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, words: Sequence[str] = ()) -> "SentencePiece":
        """Trains a lower-casing byte-pair model (Sennrich et al. 2016) on captions.

        Args:
            texts: Captions.
            vocab_size: The most pieces; there are fewer when the captions do not hold as many.
            words: Pieces of their own, never cut, with the first ids behind the marks.

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
                user_defined_symbols=list(words),
                required_chars=_LETTERS,  # a rare one would be left out, and could not be written
                max_sentence_length=_LONGEST,
                num_threads=1,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise DataError(
                f"No tokenizer of {vocab_size} pieces can be trained from these captions: {error}"
            ) from error
        return cls(target.getvalue())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the model; a reader never sees half of it."""
        write_whole(path, self.model)

    @property
    def begin_id(self) -> int:
        return BOS_ID if self.rules.begin is None else self.rules.begin

    @property
    def end_id(self) -> int:
        return EOS_ID if self.rules.end is None else self.rules.end

    def ids(self, text: str, length: int) -> list[int]:
        before = [] if self.rules.begin is None else [self.rules.begin]
        after = [] if self.rules.end is None else [self.rules.end]
        pieces = self._pieces.encode(text)  # one by one: a list starts threads, which takes longer than the work
        return [*before, *pieces[: length - len(before) - len(after)], *after]

    def text(self, ids: list[int]) -> str:
        return self._pieces.decode(ids)

    def spans(self, text: str) -> list[tuple[int, int]]:
        proto = self._pieces.encode(self.clean(text), return_type="proto")
        found = [(piece.begin, piece.end) for piece in proto.pieces]
        return found if self.rules.begin is None else [(0, 0), *found]

    def piece(self, index: int) -> str:
        return self._pieces.id_to_piece(index)

    def model_bytes(self) -> bytes:
        return self.model
