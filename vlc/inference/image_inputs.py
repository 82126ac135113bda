"""What a user may hand over as images: the one door, which knows every type, shape and range that may come in."""

import io
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from os import PathLike
from typing import IO, Any

import numpy as np
from PIL import Image

from vlc.data.decoding import decode_pixels, to_rgb
from vlc.data.frame import Frame
from vlc.data.images import Preprocess
from vlc.errors import DataError
from vlc.storage import read_bytes

# A path or URL, encoded bytes, a file that is open to be read, a PIL image, or an array (NumPy, JAX, PyTorch).
AnyImage = str | PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | np.ndarray | Image.Image
Images = AnyImage | Iterable[AnyImage]
_KNOWN = "a path, encoded bytes, an open file, a PIL image, or an array [height, width, 3]"
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # by channels


def image_chunks(images: Images, size: int) -> Iterator[list[AnyImage]]:
    """Images in lists of at most `size`; a generator is read no further than the chunk that is asked for.

    Raises:
        DataError: Not images, nor a sequence of them.
    """
    if _is_array(images):
        array: Any = np.asarray(images)
        images = array if array.ndim == 4 else [array]
    elif is_one(images):
        images = [images]  # pyright: ignore[reportAssignmentType]
    if not isinstance(images, Iterable) or isinstance(images, dict):
        raise DataError(f"images: {_described(images)} is not an image. Give {_KNOWN}, or several.", "image")
    given: Any = images
    return map(list, itertools.batched(given, size))


def read_images(images: list[AnyImage], preprocess: Preprocess, *, first: int = 0) -> np.ndarray:
    """Pixels `[B, *preprocess.shape]` uint8. A picture gives the same ones however it is handed over.

    Args:
        images: Each of a type that `AnyImage` names.
        preprocess: The model's; large JPEGs are decoded at full scale, since other pictures are.
        first: Number of the first image, for messages.

    Raises:
        DataError: An image is missing, damaged, or of a type, shape or range that means nothing.
    """
    return read_framed(images, preprocess, first=first)[0]


def read_framed(images: list[AnyImage], preprocess: Preprocess, *, first: int = 0) -> tuple[np.ndarray, list[Frame]]:
    """As `read_images`, and what of each image the pixels show."""
    exact = replace(preprocess, full_scale=True)
    found = [_read(image, exact, f"image {first + place}") for place, image in enumerate(images)]
    return np.stack([pixels for pixels, _ in found]), [frame for _, frame in found]


def is_one(images: Any) -> bool:
    """Whether a user gave one image, and not several."""
    if _is_array(images):
        return np.ndim(images) < 4
    return isinstance(images, (str, PathLike, bytes, bytearray, memoryview, Image.Image)) or hasattr(images, "read")


def picture_of(image: AnyImage, preprocess: Preprocess, where: str) -> np.ndarray:
    """All pixels of an image, RGB, before it is cut or resized.

    Raises:
        DataError: As `read_images`.
    """
    found, where = _undecoded(image, preprocess, where)
    return decode_pixels(found, where=where, convert=preprocess.convert) if isinstance(found, bytes) else found


def _read(image: AnyImage, preprocess: Preprocess, where: str) -> tuple[np.ndarray, Frame]:
    found, where = _undecoded(image, preprocess, where)
    return preprocess.framed(found, where=where)


def _undecoded(image: AnyImage, preprocess: Preprocess, where: str) -> tuple[bytes | np.ndarray, str]:
    """Encoded bytes, or the pixels of what has none; and what it is called in messages."""
    if isinstance(image, (str, PathLike)):
        return read_bytes(str(image)), str(image)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image), where
    if isinstance(image, Image.Image):
        return np.asarray(to_rgb(image.copy(), where=where, convert=preprocess.convert)), where
    if hasattr(image, "read"):
        return _read_file(image, where), where
    if _is_array(image):
        picture = _picture_of(_as_array(image, where), where)
        return np.asarray(to_rgb(picture, where=where, convert=preprocess.convert)), where
    raise DataError(f"{where}: {_described(image)} is not an image. Give {_KNOWN}.", "image")


def _read_file(file: Any, where: str) -> bytes:
    """All of an open file, wherever it was read to."""
    try:
        if file.seekable():
            file.seek(0)
        data = file.read()
    except (OSError, ValueError, io.UnsupportedOperation) as error:
        raise DataError(f"{where}: the file cannot be read ({error}).") from error
    if not isinstance(data, bytes):
        raise DataError(f'{where}: the file is open as text; open it as open(path, "rb").', "image")
    return data


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array__") and not isinstance(value, Image.Image)


def _as_array(image: Any, where: str) -> np.ndarray:
    try:
        return np.asarray(image)
    except Exception as error:  # whatever another library's array raises, such as one on a device
        raise DataError(f"{where}: its array cannot be read ({error}).", "image") from error


def _picture_of(array: np.ndarray, where: str) -> Image.Image:
    """The picture that an array stands for.

    Raises:
        DataError: Its shape, type or range is not one of a picture.
    """

    def refuse(why: str) -> DataError:
        return DataError(
            f"{where}: an array {list(array.shape)} {array.dtype}{_range_of(array)} {why}. What is meant is "
            "[height, width, 3] uint8, or floats from 0 to 1; one channel is grey, four are RGBA.",
            "image",
        )

    if not array.size or array.ndim not in (2, 3):
        raise refuse("is no picture")
    channels = array.shape[2] if array.ndim == 3 else 1
    if channels not in _MODES:
        first = array.ndim == 3 and array.shape[0] in _MODES
        raise refuse("has its channels first; write array.transpose(1, 2, 0)" if first else "is no picture")
    pixels = array[:, :, 0] if array.ndim == 3 and channels == 1 else array
    if array.dtype == np.uint8:
        return Image.fromarray(np.ascontiguousarray(pixels), _MODES[channels])
    if array.dtype.kind not in "fiu" and str(array.dtype) != "bfloat16":
        raise refuse("is of no type of pixels")
    values = pixels.astype(np.float32)
    if not np.isfinite(values).all():
        raise refuse("holds numbers that are not finite")
    if array.dtype.kind in "iu":
        if array.dtype == np.uint16:
            raise refuse("has 16 bits; write (array / 257).round().astype(np.uint8)")
        if values.min() < 0 or values.max() > 255:
            raise refuse("is not in the range of bytes")
    else:
        if values.min() < 0 or values.max() > 1:
            raise refuse("is not in the range from 0 to 1")
        values = (values * 255).round()
    return Image.fromarray(np.ascontiguousarray(values.astype(np.uint8)), _MODES[channels])


def _range_of(array: np.ndarray) -> str:
    if not array.size or array.dtype.kind not in "fiub":
        return ""
    values = array.astype(np.float64)
    return f" from {values.min():g} to {values.max():g}"


def _described(value: Any) -> str:
    return f"{value!r:.60} ({type(value).__name__})"


def check_pixels(pixels: Any, preprocess: Preprocess) -> np.ndarray:
    """Pixels that are preprocessed already; a model of pictures of any shape takes squares as well.

    Raises:
        DataError: They are not `[B, *preprocess.shape]` uint8.
    """
    array, shape = np.asarray(pixels), preprocess.shape
    known = (shape, preprocess.squashed().shape)
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[1:] not in known:
        raise DataError(
            f"pixels: {list(array.shape)} {array.dtype} is not [B, {', '.join(map(str, shape))}] uint8, as this model "
            "takes them. `encode_image` takes images of any size and type.",
            "image",
        )
    return array
