"""Images read for a model in the background: by several threads, and while others are being encoded."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vlc.data.images import Preprocess
from vlc.data.workers import cores
from vlc.errors import DataError


def read_pixels(
    read: Callable[[int], Any], keys: Sequence[str], preprocess: Preprocess
) -> tuple[np.ndarray, dict[int, str]]:
    """Pixels `[N, *preprocess.shape]` of images; one that cannot be read is grey, and its reason kept by its place.

    Args:
        read: Gives the image at a place, encoded or as an array.
        keys: What each is called in messages.
        preprocess: The model's.
    """
    grey = preprocess(_grey(preprocess))
    found, reasons = _read_all(lambda place: preprocess(read(place), where=keys[place]), len(keys), grey)
    return np.stack(found), reasons


def read_encoded(
    read: Callable[[int], Any], keys: Sequence[str], preprocess: Preprocess
) -> tuple[list[bytes | np.ndarray], dict[int, str]]:
    """Images as they are, encoded where they were: all of a large picture's pixels would fill the memory. One that
    cannot be decoded is grey, and its reason kept by its place; arguments as of `read_pixels`."""

    def one(place: int) -> bytes | np.ndarray:
        image = read(place)
        preprocess(image, where=keys[place])
        return image

    return _read_all(one, len(keys), _grey(preprocess))


def _grey(preprocess: Preprocess) -> np.ndarray:
    return np.full((preprocess.size, preprocess.size, 3), 128, np.uint8)


def _read_all[T](read: Callable[[int], T], count: int, instead: T) -> tuple[list[T], dict[int, str]]:
    """What is read of each place, by several threads; `instead` of what cannot be, and why."""
    reasons: dict[int, str] = {}

    def one(place: int) -> T:
        try:
            return read(place)
        except DataError as error:
            reasons[place] = error.reason
            return instead

    with ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(one, range(count))), reasons


def ahead[S, T](prepare: Callable[[S], T], items: Sequence[S]) -> Iterator[tuple[S, T]]:
    """Each item with what is prepared of it; while one is used, the next is prepared."""
    if not items:
        return
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(prepare, items[0])
        for number, item in enumerate(items):
            ready = coming.result()
            if number + 1 < len(items):
                coming = pool.submit(prepare, items[number + 1])
            yield item, ready


def progress_bar(quiet: bool) -> Progress:
    """A bar on standard error with counts, a rate and the time that is left; its tasks have a field `rate`."""
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), disable=quiet)
