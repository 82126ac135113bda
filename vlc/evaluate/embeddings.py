"""Embeddings, computed once and kept on disk by checkpoint and data; stopped, the computation goes on where it was.

A set of embeddings is a folder of parts. A part is arrays of `PART` examples and, written last, a small file that says
which of them could not be read: without it the part does not count.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vlc.data.record import add_counts
from vlc.errors import ConfigError, DataError
from vlc.evaluate.pictures import Pictures
from vlc.inference import Model
from vlc.inference.closer import Closer
from vlc.inference.reading import ahead, progress_bar, read_encoded, read_pixels
from vlc.models import ImageEncoding, TextEncoding
from vlc.parallel import barrier, is_primary, local_indices
from vlc.storage import Place, exchange, place, working_folder, write_whole

PART = 512


@dataclass(frozen=True)
class Embedded:
    """Embeddings on disk.

    Attributes:
        folder: Of the parts.
        count: Examples, those that cannot be read included.
    """

    folder: Path
    count: int

    @property
    def parts(self) -> int:
        """How many there are."""
        return -(-self.count // PART)

    @cached_property
    def reasons(self) -> dict[int, str]:
        """Why examples cannot be used, by their number."""
        found = {}
        for part in range(self.parts):
            notes = json.loads((self.folder / f"{part:06d}.json").read_text())
            found |= {part * PART + int(place): reason for place, reason in notes["left_out"].items()}
        return found

    @property
    def skipped(self) -> dict[str, int]:
        """How many cannot be used, by reason."""
        return add_counts(*({reason: 1} for reason in self.reasons.values()))

    @cached_property
    def kept(self) -> np.ndarray:
        """Numbers of the examples that can be used."""
        return np.asarray([index for index in range(self.count) if index not in self.reasons], np.int64)

    def array(self, name: str) -> np.ndarray:
        """One array of all examples that can be used, in memory; `embed`, or `mask`."""
        parts = [np.load(self.folder / f"{part:06d}.{name}.npy") for part in range(self.parts)]
        return np.concatenate(parts)[self.kept]

    @cached_property
    def embed(self) -> np.ndarray:
        """`[N, D]` of the examples that can be used."""
        return self.array("embed")

    def blocks(self, *names: str) -> Iterator[tuple[np.ndarray, ...]]:
        """Arrays a part at a time, of the examples that can be used: what does not fit into memory at once."""
        for part in range(self.parts):
            rows = np.asarray([i for i in range(self._size(part)) if part * PART + i not in self.reasons], np.int64)
            arrays = (np.load(self.folder / f"{part:06d}.{name}.npy", mmap_mode="r") for name in names)
            if len(rows):
                yield tuple(np.asarray(array[rows]) for array in arrays)

    def token_blocks(self) -> Iterator[np.ndarray]:
        """Image tokens, a part at a time."""
        return (tokens for (tokens,) in self.blocks("tokens"))

    def _size(self, part: int) -> int:
        return min(PART, self.count - part * PART)


class Cache:
    """Where embeddings are kept.

    Attributes:
        folder: The cache; of one in a bucket the parts that are used are on the disk too.
        model: What computes them.
        quiet: No progress bar.
        closer: How images are looked at again; `None`: they are not.
    """

    def __init__(self, folder: Place | str, model: Model, *, quiet: bool = False, closer: Closer | None = None):
        self.folder, self.model, self.quiet, self.closer = place(folder), model, quiet, closer

    def images(
        self, pictures: Pictures, *, tokens: bool = False, squash: bool = False, features: bool = False
    ) -> Embedded:
        """Embeds images.

        Args:
            pictures: The images.
            tokens: Whether their tokens are kept too.
            squash: Shows the model all of an image, whatever its preprocessing cuts off.
            features: Keeps the mean feature of the image tower in place of the embedding: of a model whose embeddings
                no loss ever saw.

        Raises:
            ConfigError: Images are looked at again, and the task needs patches of one grid.
            DataError: No image can be read, or the disk is full.
        """
        preprocess = self.model.preprocess.squashed() if squash else self.model.preprocess
        kind = "image features" if features else "images"
        if squash and self.closer:
            raise ConfigError("Pictures that are looked at again are not all of one grid: this task needs one.")
        kind += f" {self.closer}" if self.closer else ""
        name = self._name(kind, pictures.version, f"{list(pictures.keys)}", tokens, preprocess.to_json())

        def prepare(part: range) -> tuple[np.ndarray, dict[int, str]]:
            return read_pixels(lambda i: pictures.read(part[i]), [pictures.keys[i] for i in part], preprocess)

        def prepare_whole(part: range) -> tuple[list[bytes | np.ndarray], dict[int, str]]:
            return read_encoded(lambda i: pictures.read(part[i]), [pictures.keys[i] for i in part], preprocess)

        def encode(pixels: Any) -> dict[str, np.ndarray]:
            if self.closer is None:
                return _image_arrays(self.model.encode_pixels(pixels), tokens, features)
            found = [_image_arrays(some, tokens, features)
                     for some in self.model.encode_image_batches(pixels, closer=self.closer)]  # fmt: skip
            return {key: np.concatenate([arrays[key] for arrays in found]) for key in found[0]}

        made = self._fill(name, len(pictures), prepare_whole if self.closer else prepare, encode, "images")
        if not len(made.kept):
            first = next(iter(made.reasons.values()), "there is none")
            raise DataError(
                f"No image can be read ({first}). The first is {pictures.keys[0] if len(pictures) else '-'}."
            )
        return made

    def texts(self, texts: Sequence[str], *, tokens: bool = False) -> Embedded:
        """Embeds texts."""
        name = self._name("texts", "", "\0".join(texts), tokens, None)

        def prepare(part: range) -> tuple[Sequence[str], dict[int, str]]:
            return texts[part.start : part.stop], {}

        def encode(some: Sequence[str]) -> dict[str, np.ndarray]:
            return _text_arrays(self.model.encode_text(some), tokens)

        return self._fill(name, len(texts), prepare, encode, "texts")

    def _name(self, kind: str, version: str, names: str, tokens: bool, preprocess: Any) -> str:
        """Another one for everything that the arrays depend on."""
        known = json.dumps([1, kind, self.model.fingerprint, version, names, tokens, preprocess], sort_keys=True)
        return hashlib.sha256(known.encode()).hexdigest()[:32]

    def _fill(
        self, name: str, count: int, prepare: Callable[[range], tuple[Any, dict[int, str]]],
        encode: Callable[[Any], dict[str, np.ndarray]], what: str,
    ) -> Embedded:  # fmt: skip
        """Computes the parts that are not there yet, each process its share of them; then waits for the others."""
        here, there = working_folder(self.folder) / "embeddings" / name, self.folder / "embeddings" / name
        exchange(here, there, last=".json")
        made = Embedded(here, count)
        own = [range(part * PART, min(count, (part + 1) * PART)) for part in local_indices(made.parts)]
        missing = [rows for rows in own if not (here / f"{rows.start // PART:06d}.json").is_file()]
        if missing:
            self._compute(here, missing, sum(map(len, own)), prepare, encode, what)
        exchange(here, there, last=".json")
        barrier(what)
        exchange(here, there, last=".json")
        return made

    def _compute(
        self, folder: Path, missing: Sequence[range], total: int,
        prepare: Callable[[range], tuple[Any, dict[int, str]]], encode: Callable[[Any], dict[str, np.ndarray]],
        what: str,
    ) -> None:  # fmt: skip
        """Computes parts; while one is encoded, the next is prepared."""
        with progress_bar(self.quiet or not is_primary()) as bar:
            task = bar.add_task(what, total=total, completed=total - sum(map(len, missing)), rate="")
            done, started = 0, time.perf_counter()
            for rows, (given, reasons) in ahead(prepare, missing):
                _write_part(folder, rows.start // PART, encode(given), reasons)
                done += len(rows)
                speed = done / (time.perf_counter() - started)
                bar.update(task, advance=len(rows), rate=f"{speed:,.0f} {what}/s")


def _image_arrays(image: ImageEncoding, tokens: bool, features: bool) -> dict[str, np.ndarray]:
    embed = image.embed
    if features:
        there = None if image.mask is None else image.mask[..., None]
        mean = np.asarray(image.features, np.float32).mean(axis=1, where=True if there is None else there)
        embed = mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    return {"embed": embed} | ({"tokens": image.tokens} if tokens else {})


def _text_arrays(text: TextEncoding, tokens: bool) -> dict[str, np.ndarray]:
    return {"embed": text.embed} | ({"tokens": text.tokens, "mask": text.mask} if tokens else {})


def _write_part(folder: Path, part: int, arrays: dict[str, np.ndarray], reasons: dict[int, str]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in arrays.items():
            partial = folder / f".{part:06d}.{name}.{os.getpid()}.npy"
            np.save(partial, np.asarray(array))
            os.replace(partial, folder / f"{part:06d}.{name}.npy")
        notes = json.dumps({"left_out": {str(index): reason for index, reason in reasons.items()}})
        write_whole(folder / f"{part:06d}.json", notes.encode())
    except OSError as error:
        raise DataError(
            f"{folder}: embeddings cannot be written ({error.strerror}). What is written is kept; name another place "
            "with --cache DIR."
        ) from error
