"""What a user may hand over as images, read into pixels a chunk at a time."""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from vlc.data.images import Preprocess
from vlc.errors import DataError

AnyImage = str | Path | bytes | np.ndarray | Image.Image
Images = AnyImage | Iterable[AnyImage]


def image_chunks(images: Images, size: int) -> Iterator[list[AnyImage]]:
    """Images in lists of at most `size`; a generator is read no further than the chunk that is asked for."""
    single = isinstance(images, (str, Path, bytes, Image.Image)) or (
        isinstance(images, np.ndarray) and images.ndim != 4
    )
    items: Iterable[AnyImage] = [images] if single else images  # pyright: ignore[reportAssignmentType]
    return map(list, itertools.batched(items, size))


def read_images(images: list[AnyImage], preprocess: Preprocess) -> np.ndarray:
    """Pixels `[B, S, S, 3]` uint8.

    Raises:
        DataError: An image is missing or damaged.
    """
    return np.stack([_read(image, preprocess) for image in images])


def _read(image: AnyImage, preprocess: Preprocess) -> np.ndarray:
    if isinstance(image, (str, Path)):
        try:
            return preprocess(Path(image).read_bytes(), where=str(image))
        except OSError as error:
            raise DataError(f"{image}: cannot be read ({error.strerror}).") from error
    if isinstance(image, Image.Image):
        image = np.asarray(image.convert("RGB"))
    return preprocess(image)
