"""Which columns of a table or JSON object are the image, its captions and its regions, under the usual names."""

import ast
import codecs
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from vlc.data.record import clean_captions, mend_text
from vlc.data.regions import GRAPH, REGIONS, PartsOfPicture
from vlc.data.sources import gbc
from vlc.data.sources.parts_of_row import SETTINGS, check_settings, parts_of_row
from vlc.errors import ConfigError, DataError

log = logging.getLogger("vlc")
IMAGE = (
    "image",
    "file_name",
    "filename",
    "filepath",
    "path",
    "image_path",
    "imagepath",
    "image path",
    "img",
    "img_path",
)
ADDRESS = ("url", "image_url", "img_url")
_OWN = ("caption", "text")  # one string
_KNOWN = re.compile(
    r"(raw|alt|(short|long)(ib|sv|lla)?|title|description|synthetic|recaption|vecap|top|dense)"
    r"([_ ]?(caption|text|description)s?)?"
)
_GUESSED = re.compile(r"([a-z0-9]+)_captions?")
# What is said of an image and is not true: never taken for its caption.
_WRONG = re.compile(
    r"(neg|negative|hard|wrong|false|foil|bad|incorrect|corrupted|swapped|shuffled|distractor|counterfactual|"
    r"adversarial|contradiction|fake)\d*"
)

_NEGATIVES = "negatives"
_TWINS = "twins"
_NO_CAPTIONS = ("image", "root", _NEGATIVES, _TWINS, REGIONS, GRAPH, *SETTINGS)  # what else a column may be
_IMAGE_FILE = re.compile(r"\.(jpe?g|png|webp|gif|bmp|tiff?)(#\d+)?$", re.I)


@dataclass(frozen=True)
class Columns:
    """How rows are read.

    Attributes:
        names: Columns by what they are: `image`, `negatives`, `regions`, or the caption source they give. Empty: known
            by their names. No columns are `root`, the folder that image paths are relative to, `box_format` and
            `box_units`, how boxes are written.
        encoding: Of text files.
        any_text: Where no column has a usual name, all columns of text are captions.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    encoding: str = "utf-8"
    any_text: bool = False

    @classmethod
    def parse(cls, text: str) -> "Columns":
        """Reads `"image=Image Path,alt=title,long=llava"`: what a column is, and its name.

        Raises:
            ConfigError: A part is not of that form.
        """
        names = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            meaning, equals, column = part.partition("=")
            if not (meaning and equals and column):
                raise ConfigError(f'data.columns is "{text}"; write "image=COLUMN,SOURCE=COLUMN", as in "alt=title".')
            names[meaning.strip()] = column.strip()
        check_settings(names)
        encoding = names.pop("encoding", "utf-8")
        try:
            codecs.lookup(encoding)
        except LookupError as error:
            raise ConfigError(
                f'The encoding "{encoding}" is not known; write one such as latin-1 or cp1252.'
            ) from error
        return cls(names, encoding)

    @property
    def by_position(self) -> bool:
        """Whether columns are counted, from 1, in a file without a header: `image=1,text=2`."""
        columns = [column for meaning, column in self.names.items() if meaning not in ("root", *SETTINGS)]
        return bool(columns) and all(column.isdecimal() for column in columns)

    def settings(self) -> dict[str, Any]:
        """What the reading of a file depends on, as plain values."""
        return {**self.names, "encoding": self.encoding, "any_text": self.any_text}

    def fits(self, header: Sequence[str]) -> bool:
        """Whether a header names an image and captions."""
        return not self.what_is_missing(header)

    def what_is_missing(self, header: Sequence[str]) -> str:
        """What a header does not name, in words; empty where it names all."""
        lowered = {name.lower() for name in header if name}
        images = {self.names["image"].lower()} if "image" in self.names else {*IMAGE, *ADDRESS}
        image = bool(lowered & images)
        own = [column.lower() for meaning, column in self.names.items() if meaning not in _NO_CAPTIONS]
        if own:
            captions = bool(lowered & set(own))
        else:
            captions = any(self._is_caption(name) for name in lowered) or (self.any_text and len(lowered) > 1)
        missing = [what for what, there in (("image", image), ("captions", captions)) if not there]
        return f"no column of {' or of '.join(missing)} is named" if missing else ""

    @staticmethod
    def looks_like_a_row(cells: Sequence[str]) -> bool:
        """Whether a first line is a row and no header: one of its cells is an image file or an address."""
        return any(_IMAGE_FILE.search(cell.strip()) or "://" in cell for cell in cells)

    @staticmethod
    def _is_caption(name: str) -> bool:
        return name in (*_OWN, "captions", "conversations", gbc.VERTICES) or _gives_captions(name)

    def image_of(self, row: Mapping[str, Any], where: str) -> str:
        """The image's path or URL.

        Raises:
            DataError: No column holds one.
        """
        wanted = (self.names["image"],) if "image" in self.names else IMAGE + ADDRESS
        found = {name.lower(): name for name in row if name}
        for name in wanted:
            value = row.get(found.get(name.lower(), name))
            if isinstance(value, str) and value:
                return mend_text(value)
        raise DataError(f"{where}: no image. Give the path in a column named {' or '.join(wanted[:5])}.", "row")

    def captions_of(self, row: Mapping[str, Any], where: str) -> dict[str, tuple[str, ...]]:
        """Captions by source.

        Raises:
            DataError: There is none, or a string stands where a list is meant.
        """
        return clean_captions(self._raw_captions(row, where), where)

    def negatives_of(
        self, row: Mapping[str, Any], captions: Mapping[str, Sequence[str]], where: str
    ) -> dict[str, tuple[str, ...]]:
        """Texts that are almost a caption and wrong of the image, by caption.

        The column `negatives` holds a list, for every caption of the image, or a mapping to lists from captions or from
        caption sources.

        Raises:
            DataError: It holds something else.
        """
        value = row.get(self.names.get(_NEGATIVES, _NEGATIVES))
        if value is None or value == "":
            return {}
        named = value if isinstance(value, Mapping) else dict.fromkeys(captions, value)
        found: dict[str, list[str]] = {}
        for name, texts in named.items():
            for caption in captions.get(name, (" ".join(name.split()),)):
                found.setdefault(caption, []).extend(_wrong_texts(texts, where))
        return {caption: tuple(dict.fromkeys(wrong)) for caption, wrong in found.items() if wrong}

    def twins_of(self, row: Mapping[str, Any], where: str) -> tuple[str, ...]:
        """Images of the same file that differ from this one in one thing: the column `twins` holds a name or several.

        Raises:
            DataError: It holds something else.
        """
        value = row.get(self.names.get(_TWINS, _TWINS))
        names = [] if value is None or value == "" else _texts(value, f"{where}, twins")
        if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
            raise DataError(f'{where}: "twins" must be the name of an image, or a list; got {value!r:.60}.', "row")
        return tuple(map(mend_text, names))

    def parts_of(self, row: Mapping[str, Any], where: str) -> PartsOfPicture:
        """Regions of the image and the edges between them; see `parts_of_row`."""
        return parts_of_row(row, where, self.names)

    def _raw_captions(self, row: Mapping[str, Any], where: str) -> dict[str, Any]:
        named = {source: column for source, column in self.names.items() if source not in _NO_CAPTIONS}
        if named:
            return {
                source: _texts(row[column], f"{where}, {column}") for source, column in named.items() if row.get(column)
            }
        if gbc.VERTICES in row:
            return gbc.captions_of(row, where)
        if "conversations" in row:
            return {"long": _answers(row["conversations"], where)}
        captions: dict[str, Any] = {}
        if isinstance(row.get("captions"), Mapping):
            captions |= row["captions"]
        elif row.get("captions") is not None:
            captions["text"] = _list_cell(row["captions"], where)
        for name, value in row.items():
            if name is None or name.lower() in IMAGE or name == "captions" or value in (None, ""):
                continue
            if name in _OWN:
                captions.setdefault("text", _texts(value, f"{where}, {name}"))
            elif isinstance(value, (str, list, tuple)) and _gives_captions(name.lower()):
                _say_guess(name)
                captions[source_name(name)] = _texts(value, f"{where}, {name}")
        if not captions and self.any_text:
            others = (*IMAGE, *ADDRESS, _NEGATIVES, _TWINS)
            texts = {name: value for name, value in row.items() if name and name.lower() not in others}
            captions = {source_name(name): [value] for name, value in texts.items() if isinstance(value, str) and value}
        if not captions:
            raise DataError(f'{where}: no caption. Give "caption": "..." or "captions": ["...", "..."].', "captions")
        return captions


BY_NAME = Columns()


def source_name(column: str) -> str:
    """The caption source that a column gives: `shortSV_captions` is `shortSV`, `raw_caption` is `raw`."""
    return re.sub(r"[_ ]?(caption|text|description)s?$", "", column) or column


@lru_cache(maxsize=1024)
def _gives_captions(name: str) -> bool:
    """Whether a column of this name, in small letters, holds captions."""
    guessed = _GUESSED.fullmatch(name)
    return _KNOWN.fullmatch(name) is not None or (guessed is not None and not _WRONG.fullmatch(guessed[1]))


@lru_cache(maxsize=1024)
def _say_guess(column: str) -> None:
    """Says once that a column is taken for captions by the form of its name alone."""
    if not _KNOWN.fullmatch(column.lower()):
        log.warning(
            'The column "%s" is taken for captions, as the source "%s". Where it is none, name those that are: '
            "--columns text=COLUMN.", column, source_name(column),
        )  # fmt: skip


def _texts(value: Any, where: str) -> Any:
    """A column of captions may hold one string (a caption), a list, or a list printed into a cell."""
    if isinstance(value, str):
        return _list_cell(value, where) if _is_printed_list(value) else [value]
    return value


def _wrong_texts(value: Any, where: str) -> list[str]:
    """Texts of the column of negatives; none where there is nothing."""
    texts = [] if value is None else _texts(value, f"{where}, negatives")
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise DataError(f'{where}: "negatives" must be texts, or by caption a list of texts; got {value!r:.60}.', "row")
    return [" ".join(mend_text(text).split()) for text in texts if text.strip()]


def _is_printed_list(value: str) -> bool:
    return value.startswith("[") and value.endswith("]")


def _list_cell(value: Any, where: str) -> Any:
    """A list that was printed into a cell is read back; a string that merely looks so would be sampled by letters."""
    if not (isinstance(value, str) and _is_printed_list(value)):
        return value
    for read in (json.loads, ast.literal_eval):
        try:
            return read(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    raise DataError(f"{where}: looks like a list of captions and is none: {value[:60]!r}.", "captions")


def _answers(turns: Any, where: str) -> list[str]:
    """The caption in a conversation of ShareGPT4V (arXiv 2311.12793): the first answer; others are about details."""
    if not isinstance(turns, Sequence) or not all(isinstance(turn, Mapping) for turn in turns):
        raise DataError(f'{where}: "conversations" must be a list of {{"from", "value"}}.', "captions")
    return [str(turn.get("value", "")) for turn in turns if turn.get("from") in ("gpt", "assistant")][:1]
