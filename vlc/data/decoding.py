"""Pictures of every kind to RGB: encoded bytes, and pictures that Pillow has opened."""

import contextlib
import io
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import simplejpeg
from PIL import Image

from vlc.errors import DataError

PIXEL_LIMIT = 100_000_000
# `upright`: turned as EXIF or XMP says, transparency laid on white, 16 bits scaled. `plain`: as stored, by Pillow's own
# `convert("RGB")`, which drops transparency and clips 16 bits: what open_clip, transformers and big_vision do.
CONVERSIONS = ("upright", "plain")

Needed = Callable[[float, float], tuple[float, float]]

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_XMP = b"http://ns.adobe.com/xap/1.0/"

warnings.filterwarnings("ignore", module=r"PIL\..*")  # damaged EXIF is not worth a line a picture
Image.MAX_IMAGE_PIXELS = None  # `decode` has a limit of its own, which raises where Pillow's only warns


def decode(data: bytes, *, where: str, needed: Needed | None = None, convert: str = "upright") -> Image.Image:
    """Decodes an image to RGB; of an animation the first frame.

    Args:
        data: JPEG, PNG, WebP or whatever else Pillow reads.
        where: The file, for messages.
        needed: From width and height to the least of both that are of use; a JPEG is then decoded at the smallest scale
            that gives them.
        convert: One of `CONVERSIONS`.

    Raises:
        DataError: The data is damaged, no image, or has more than `PIXEL_LIMIT` pixels.
    """
    with _reading(where):
        return _load(_open(data, where), needed, convert)[0]


def decode_pixels(data: bytes, *, where: str, needed: Needed | None = None, convert: str = "upright") -> np.ndarray:
    """As `decode`, the same pixels `[height, width, 3]` uint8, and in half the time for an ordinary JPEG.

    Raises:
        DataError: As `decode`.
    """
    pixels = _plain_jpeg(data, needed, convert)
    return np.asarray(decode(data, where=where, needed=needed, convert=convert)) if pixels is None else pixels


def to_rgb(image: Image.Image, *, where: str, convert: str = "upright") -> Image.Image:
    """A picture that Pillow has opened, by the same rules as encoded bytes.

    Raises:
        DataError: As `decode`.
    """
    with _reading(where):
        _check_size(image, where)
        return _load(image, None, convert)[0]


@dataclass(frozen=True)
class Examined:
    """What is known of an image after it was read.

    Attributes:
        width: Pixels across, upright.
        height: Pixels down, upright.
        format: `JPEG`, `PNG`, ...
        picture: The image, at reduced scale where that is cheaper.
    """

    width: int
    height: int
    format: str
    picture: Image.Image


def examine(data: bytes, *, where: str, least: int = 64) -> Examined:
    """Reads all of an image, so that every damage is found, but decodes no more than `least` pixels a side need.

    Raises:
        DataError: As `decode`.
    """
    with _reading(where):
        image = _open(data, where)
        kind, (width, height) = image.format or "", image.size
        picture, turn = _load(image, lambda *_: (least, least), "upright")
        return Examined(*((height, width) if turn >= 5 else (width, height)), kind, picture)


def picture_size(image: bytes | np.ndarray, *, where: str, convert: str = "upright") -> tuple[int, int]:
    """Width and height of a picture as `decode` gives it, without reading its pixels.

    Raises:
        DataError: As `decode`.
    """
    if isinstance(image, np.ndarray):
        return image.shape[1], image.shape[0]
    with _reading(where):
        opened = _open(image, where)
        turned = convert == "upright" and _orientation(opened) >= 5
        return (opened.height, opened.width) if turned else opened.size


@contextlib.contextmanager
def _reading(where: str) -> Iterator[None]:
    """Whatever decoding raises is the image's fault: Pillow's plugins raise anything on damaged files."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{where}: not a readable image ({type(error).__name__}: {error}).", "image") from error


def _open(data: bytes, where: str) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    _check_size(image, where)
    return image


def _check_size(image: Image.Image, where: str) -> None:
    if not 0 < image.width * image.height <= PIXEL_LIMIT:
        raise DataError(
            f"{where}: {image.width} x {image.height} is over the limit of {PIXEL_LIMIT:,} pixels."
            if image.width * image.height
            else f"{where}: {image.width} x {image.height} has no pixel.",
            "image too large" if image.width * image.height else "image",
        )


def _load(image: Image.Image, needed: Needed | None, convert: str) -> tuple[Image.Image, int]:
    """The picture, and the orientation that it was turned from."""
    turn = _orientation(image) if convert == "upright" and image.format == "JPEG" else 1
    if needed and image.format == "JPEG":
        least = _turned(needed(*_turned(image.size, turn)), turn)
        image.draft("RGB", (math.ceil(least[0]), math.ceil(least[1])))
    image.load()
    if convert == "plain":
        return image.convert("RGB"), 1
    turn = _orientation(image) if image.format != "JPEG" else turn  # of other kinds it may stand after the pixels
    rgb = _upright_rgb(image)
    return (rgb.transpose(_TURNS[turn]) if turn in _TURNS else rgb), turn


def _orientation(image: Image.Image) -> int:
    """By EXIF, ImageMagick's raw profile or XMP, all of which Pillow looks through; 1 where they are damaged."""
    try:
        turn = int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a broken EXIF costs the turn only
        return 1
    return turn if turn in _TURNS else 1


def _turned(size: tuple[float, float], turn: int) -> tuple[float, float]:
    """A turn may exchange the sides; the larger is then asked of both."""
    return (max(size), max(size)) if turn != 1 else size


def _upright_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F" or (image.mode == "I" and image.format in ("TIFF", None)):
        return _by_range(np.asarray(image, np.float64)).convert("RGB")
    if image.mode in ("I", "I;16", "I;16B", "I;16L", "I;16N"):  # 16-bit grey would be clipped, not scaled, by convert
        return _grey(np.asarray(image, np.float32) / 257).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(canvas, image).convert("RGB")
    return image.convert("RGB")


def _by_range(values: np.ndarray) -> Image.Image:
    """Numbers whose scale no file says: shares of 1, bytes, or 16 bits, whichever holds all of them."""
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 65535):  # NaN too
        raise ValueError(f"its numbers go from {low:g} to {high:g}, which is no range of brightness")
    return _grey(values * 255 if high <= 1 else values if high <= 255 else values / 257)


def _grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))


# -- ordinary JPEGs, by libjpeg-turbo directly ------------------------------------------------------------------------


def _plain_jpeg(data: bytes, needed: Needed | None, convert: str) -> np.ndarray | None:
    """The pixels of a colour JPEG without a flaw that need not be turned; `None` for all else, which Pillow judges."""
    if data[:2] != b"\xff\xd8" or (convert == "upright" and _may_be_turned(data)):
        return None
    try:
        down, across, colours, _ = simplejpeg.decode_jpeg_header(data)
        height, width = int(down), int(across)
        if colours != "YCbCr" or width * height > PIXEL_LIMIT:
            return None
        scale = 1
        if needed:
            least_width, least_height = needed(width, height)
            while scale < 8 and width >= 2 * scale * least_width and height >= 2 * scale * least_height:
                scale *= 2
        return simplejpeg.decode_jpeg(data, "RGB", min_height=-(-height // scale), min_width=-(-width // scale))
    except ValueError:
        return None


def _may_be_turned(data: bytes) -> bool:
    """Whether a JPEG has EXIF, or XMP that speaks of an orientation, in any of the segments before its pixels."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker, size = data[place + 1], int.from_bytes(data[place + 2 : place + 4])
        if marker == 0xDA:  # the pixels begin
            return False
        if marker == 0xE1:
            start, end = place + 4, place + 2 + size
            if data.startswith(b"Exif\0\0", start):
                return True
            if data.startswith(_XMP, start) and data.find(b"Orientation", start, end) >= 0:
                return True
        place += 2 + size
    return True  # of another form than it should be
