"""Encoded bytes to the square uint8 pixels that a model sees."""

import contextlib
import io
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageOps

from vlc.data.augment import parse_augment
from vlc.errors import CheckpointError, ConfigError, DataError

PIXEL_LIMIT = 100_000_000
_ORIENTATION = 0x0112
_HEADER = 1 << 16  # bytes in which EXIF would stand
INTERPOLATIONS = ("antialiased", "bilinear")
RESIZE_RULES = ("squash", "crop", "pad")
_PIL_ERRORS = (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, Image.DecompressionBombError)

cv2.setNumThreads(1)  # images are made by several threads already
warnings.filterwarnings("ignore", module=r"PIL\..*")  # damaged EXIF is not worth a line a picture
Image.MAX_IMAGE_PIXELS = None  # `decode` has a limit of its own, which raises where Pillow's only warns


def decode(
    data: bytes, *, where: str, needed: Callable[[float, float], tuple[float, float]] | None = None
) -> Image.Image:
    """Decodes an image to RGB, upright, its transparency laid on white; of an animation the first frame.

    Args:
        data: JPEG, PNG, WebP or whatever else Pillow reads.
        where: The file, for messages.
        needed: From width and height to the least of both that are of use; a JPEG is then decoded at the smallest scale
            that gives them.

    Raises:
        DataError: The data is damaged, no image, or has more than `PIXEL_LIMIT` pixels.
    """
    with _reading(where):
        return _load(_open(data, where), needed)


def decode_pixels(
    data: bytes, *, where: str, needed: Callable[[float, float], tuple[float, float]] | None = None
) -> np.ndarray:
    """As `decode`, the same pixels `[height, width, 3]` uint8, and in half the time for an ordinary JPEG.

    Raises:
        DataError: As `decode`.
    """
    pixels = _plain_jpeg(data, needed)
    return np.asarray(decode(data, where=where, needed=needed)) if pixels is None else pixels


def _plain_jpeg(data: bytes, needed: Callable[[float, float], tuple[float, float]] | None) -> np.ndarray | None:
    """The pixels of an upright colour JPEG without a flaw; `None` for all else, which Pillow then judges."""
    if data[:2] != b"\xff\xd8" or data.find(b"Exif\0\0", 0, _HEADER) >= 0:
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


@dataclass(frozen=True)
class Examined:
    """What a look at an image tells.

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
        turned = _orientation(image) >= 5
        picture = _load(image, lambda *_: (least, least))
        return Examined(*((height, width) if turned else (width, height)), kind, picture)


@contextlib.contextmanager
def _reading(where: str) -> Iterator[None]:
    try:
        yield
    except _PIL_ERRORS as error:
        raise DataError(f"{where}: not a readable image ({error}).", "image") from error


def _open(data: bytes, where: str) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    if image.width * image.height > PIXEL_LIMIT:
        raise DataError(
            f"{where}: {image.width} x {image.height} is over the limit of {PIXEL_LIMIT:,} pixels.", "image too large"
        )
    return image


def _orientation(image: Image.Image) -> int:
    return int(image.getexif().get(_ORIENTATION, 1)) if "exif" in image.info else 1


def _load(image: Image.Image, needed: Callable[[float, float], tuple[float, float]] | None) -> Image.Image:
    turned = _orientation(image) != 1
    if needed and image.format == "JPEG":
        least = _turn(needed(*_turn(image.size, turned)), turned)
        image.draft("RGB", (math.ceil(least[0]), math.ceil(least[1])))
    image.load()
    return _to_rgb(ImageOps.exif_transpose(image) if turned else image)


def _turn(size: tuple[float, float], turned: bool) -> tuple[float, float]:
    """An orientation other than upright may exchange the sides; the larger is then asked of both."""
    return (max(size), max(size)) if turned else size


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("I", "I;16", "I;16B", "I;16L"):  # 16-bit grey would be clipped, not scaled, by convert
        return Image.fromarray((np.asarray(image, np.float32) / 257).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(canvas, image).convert("RGB")
    return image.convert("RGB")


def resample(pixels: np.ndarray, size: int, interpolation: str = "antialiased") -> np.ndarray:
    """Resizes to a square.

    Args:
        pixels: `[height, width, 3]` uint8.
        size: Pixels on a side of what is returned.
        interpolation: `antialiased`: to a whole multiple of the size first, whose blocks are then averaged.
            `bilinear`: from the nearest four pixels alone, in two thirds of the time, with the aliasing of
            `tf.image.resize`.
    """
    if interpolation == "bilinear":
        return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_LINEAR)
    down, across = (max(1, math.ceil(side / size - 0.1)) for side in pixels.shape[:2])
    if down == across == 1:
        return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_CUBIC)
    fine = cv2.resize(pixels, (size * across, size * down), interpolation=cv2.INTER_LINEAR)
    return cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA)


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes the model's input. It is saved in every checkpoint, and loading refuses to go on without.

    Attributes:
        size: Pixels on a side.
        resize: `squash` ignores the aspect, `crop` fills and cuts the centre, `pad` fits and fills with grey.
        mean: Mean by channel, in [0, 1], subtracted on the device.
        std: Standard deviation by channel, divided by on the device.
        crop_scale: In training, share of the area that a random resized crop keeps, at least and at most.
        flip: In training, whether half of the images are mirrored. Wrong wherever captions say left and right.
        interpolation: Of random crops, one of `INTERPOLATIONS`, see `resample`.
        augment: In training, `auto` (AutoAugment), `rand` or `rand(ops=2, magnitude=9)` (RandAugment), or nothing.
    """

    size: int
    resize: str = "squash"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    crop_scale: tuple[float, float] = (1.0, 1.0)
    flip: bool = False
    augment: str = ""
    interpolation: str = "antialiased"

    def __post_init__(self) -> None:
        if self.resize not in RESIZE_RULES:
            raise ConfigError(f"config.data.image.resize is {self.resize!r}; it must be one of {RESIZE_RULES}.")
        if self.interpolation not in INTERPOLATIONS:
            raise ConfigError(
                f"config.data.image.interpolation is {self.interpolation!r}; it must be one of {INTERPOLATIONS}."
            )
        object.__setattr__(self, "_augment", parse_augment(self.augment))

    def __getstate__(self) -> dict[str, Any]:
        return asdict(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _augment=parse_augment(state["augment"]))

    def __call__(
        self, image: bytes | np.ndarray, *, where: str = "image", rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """Returns pixels `[size, size, 3]` uint8; with a generator, augmented for training.

        Without one the resampling is Pillow's bicubic. A random crop is resampled by `resample`, which is several times
        faster and as free of aliasing.

        Raises:
            DataError: The image is damaged.
        """
        if rng is None or not (self.flip or self.augment or self.crop_scale[0] < 1):
            return self._plain(image, where)
        cropping = self.crop_scale[0] < 1
        pixels = self._random_crop(image, where, rng) if cropping else self._plain(image, where)
        if self.flip and rng.random() < 0.5:
            pixels = pixels[:, ::-1]
        augment = self._augment  # pyright: ignore[reportAttributeAccessIssue]
        if augment:
            pixels = np.asarray(augment(Image.fromarray(np.ascontiguousarray(pixels)), rng))
        return pixels

    def _plain(self, image: bytes | np.ndarray, where: str) -> np.ndarray:
        if isinstance(image, np.ndarray):
            if image.shape == (self.size, self.size, 3):
                return image
            picture = Image.fromarray(image)
        else:
            pixels = decode_pixels(image, where=where, needed=lambda width, height: (self.size, self.size))
            picture = Image.fromarray(pixels)
        return np.asarray(self._resize(picture))

    def _resize(self, picture: Image.Image) -> Image.Image:
        size = (self.size, self.size)
        if self.resize == "crop":
            return ImageOps.fit(picture, size, Image.Resampling.BICUBIC)
        if self.resize == "pad":
            return ImageOps.pad(picture, size, Image.Resampling.BICUBIC, color=(128, 128, 128))
        return picture.resize(size, Image.Resampling.BICUBIC)

    def _random_crop(self, image: bytes | np.ndarray, where: str, rng: np.random.Generator) -> np.ndarray:
        """A crop with an aspect between 3:4 and 4:3, resized."""
        area = rng.uniform(*self.crop_scale)
        aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        across, down = rng.random(), rng.random()  # where it lies, as shares of the room that is left

        def shares(width: float, height: float) -> tuple[float, float]:
            """Of width and height that are kept."""
            side = math.sqrt(area * width * height)
            return min(side * math.sqrt(aspect) / width, 1.0), min(side / math.sqrt(aspect) / height, 1.0)

        def needed(width: float, height: float) -> tuple[float, float]:
            wide, high = shares(width, height)
            return self.size / wide, self.size / high

        pixels = image if isinstance(image, np.ndarray) else decode_pixels(image, where=where, needed=needed)
        height, width = pixels.shape[:2]
        wide, high = (max(1, round(n * share)) for n, share in zip((width, height), shares(width, height), strict=True))
        left, top = round(across * (width - wide)), round(down * (height - high))
        return resample(pixels[top : top + high, left : left + wide], self.size, self.interpolation)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Preprocess":
        """Raises `CheckpointError` when a field is missing or unknown."""
        try:
            fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
            return cls(**fields)
        except TypeError as error:
            raise CheckpointError(f"The saved preprocessing does not fit this version: {error}.") from error
