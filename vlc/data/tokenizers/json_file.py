"""Tokenizers of Hugging Face's `tokenizers` library: `tokenizer.json`, and CLIP's byte-pair vocabulary."""

import gzip
import json
import os
import re
from collections.abc import Iterable, Sequence
from functools import cached_property

import tokenizers as hf
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors

from vlc.data.tokenizers.base import Rules, Tokenizer
from vlc.errors import DataError

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # it warns in every forked worker

OPENAI_MARKS = ("<start_of_text>", "<end_of_text>")
HUGGING_FACE_MARKS = ("<|startoftext|>", "<|endoftext|>")
_CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_CLIP_MERGES = 49152 - 256 - 2  # that OpenAI's model uses of its file


class JsonTokenizer(Tokenizer):
    """A `tokenizer.json` and the rules around it.

    The file's own template puts the marks around a text; `rules.end` is added where that lacks it. The file's own
    padding and truncation are set aside.
    """

    kind = "json"

    def __init__(self, model: bytes, rules: Rules, parsed: hf.Tokenizer | None = None):
        self.model = model
        try:
            self._hf = parsed or hf.Tokenizer.from_str(model.decode())
        except Exception as error:  # the library raises bare Exception
            raise DataError(f"Not a tokenizer.json ({len(model)} bytes): {error}.") from error
        self._hf.no_padding()
        self._hf.no_truncation()
        pieces = self._hf.get_vocab_size()
        if rules.rows and pieces > rules.rows:
            raise DataError(
                f"The tokenizer has {pieces:,} tokens, the model's table {rules.rows:,} rows: they do not go together."
            )
        super().__init__(rules, pieces)

    def __getstate__(self) -> dict:
        return {"model": self.model, "rules": self.rules}

    def __setstate__(self, state: dict) -> None:
        self.__init__(**state)

    @cached_property
    def _marks(self) -> tuple[list[int], list[int]]:
        """What is put before and after every text, read off an empty one and one of a single letter."""
        around = self._hf.encode("").ids
        inside = self._hf.encode("a").ids
        plain = self._hf.encode("a", add_special_tokens=False).ids
        before = next(i for i in range(len(inside) + 1) if inside[i : i + len(plain)] == plain)
        first, last = around[:before], around[before:]
        if self.rules.end is not None and last[-1:] != [self.rules.end]:
            last = [*last, self.rules.end]
        return first, last

    @property
    def begin_id(self) -> int:
        first = self._marks[0]
        return first[0] if first else self.vocab_size

    @property
    def end_id(self) -> int:
        last = self._marks[1]
        return last[-1] if last else self.vocab_size

    def ids(self, text: str, length: int) -> list[int]:
        before, after = self._marks
        pieces = self._hf.encode(text, add_special_tokens=False).ids
        return [*before, *pieces[: length - len(before) - len(after)], *after]

    def marked(self, tokens: Iterable[str], rules: Rules) -> "JsonTokenizer":
        """This tokenizer by other rules, with these tokens kept whole in every text, as transformers keeps marks."""
        whole = {token.content for token in self._hf.get_added_tokens_decoder().values() if token.special}
        more = [token for token in dict.fromkeys(tokens) if token not in whole and self.id_of(token) is not None]
        if not more:
            return JsonTokenizer(self.model, rules, self._hf)  # the file is large: it is read once
        made = hf.Tokenizer.from_str(self.model.decode())
        made.add_special_tokens(more)
        return JsonTokenizer(made.to_str().encode(), rules)

    def id_of(self, token: str) -> int | None:
        """The id of a token; `None` where there is none."""
        return self._hf.token_to_id(token)

    def text(self, ids: list[int]) -> str:
        return self._hf.decode(ids, skip_special_tokens=True).replace("</w>", " ").strip()

    def spans(self, text: str) -> list[tuple[int, int]]:
        before, _ = self._marks
        return [(0, 0)] * len(before) + self._hf.encode(self.clean(text), add_special_tokens=False).offsets

    def piece(self, index: int) -> str:
        return self._hf.id_to_token(index) or ""

    def model_bytes(self) -> bytes:
        return self.model


def clip_tokenizer(merges: Sequence[str], rules: Rules, *, marks: tuple[str, str], normalise: bool) -> JsonTokenizer:
    """CLIP's byte-level pairs, from their list of merges (`"i n"`, ...).

    Args:
        merges: Pairs in the order of their ranks.
        rules: What is done around the pieces.
        marks: Names of the begin and the end mark; `OPENAI_MARKS` or `HUGGING_FACE_MARKS`.
        normalise: Whether letters are composed, spaces joined and all lower-cased here, as transformers does; open_clip
            cleans by `rules.clean`.
    """
    letters = _byte_letters()
    pairs = [(first, second) for first, second in (line.split() for line in merges)]
    names = [*letters, *(letter + "</w>" for letter in letters), *(a + b for a, b in pairs), *marks]
    vocab = {name: place for place, name in enumerate(names)}
    try:
        made = hf.Tokenizer(models.BPE(vocab=vocab, merges=pairs, end_of_word_suffix="</w>", unk_token=marks[1]))
    except Exception as error:  # the library raises bare Exception
        raise DataError(f"The list of {len(pairs):,} byte-pair merges is damaged: {error}.") from error
    if normalise:
        made.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        )
    pattern = "|".join([*(re.escape(mark) for mark in marks), _CLIP_WORDS])
    words = pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True)
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(list(marks))
    begin, end = marks
    made.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}", special_tokens=[(name, vocab[name]) for name in marks]
    )
    return JsonTokenizer(made.to_str().encode(), rules, made)


def read_merges(data: bytes, where: str) -> list[str]:
    """The merges of a `merges.txt`, a `tokenizer.json`, or OpenAI's `bpe_simple_vocab_16e6.txt.gz`.

    Raises:
        DataError: The file is none of these, or is damaged.
    """
    try:
        if data[:2] == b"\x1f\x8b":
            return gzip.decompress(data).decode().split("\n")[1 : _CLIP_MERGES + 1]
        if data.lstrip()[:1] == b"{":
            listed = json.loads(data)["model"]["merges"]
            return [pair if isinstance(pair, str) else " ".join(pair) for pair in listed]
        lines = [line for line in data.decode().split("\n") if line.strip()]
        merges = lines[1:] if lines[0].startswith("#version") else lines
        if not all(len(line.split()) == 2 for line in merges):
            raise ValueError("a line does not hold two pieces")
        return merges
    except (OSError, EOFError, ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(f"{where}: not a list of byte-pair merges ({error}).") from error


def _byte_letters() -> list[str]:
    """The letter that stands for each byte, in the order of the vocabulary: printable bytes first, as themselves."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + place) for place in range(len(others))]
