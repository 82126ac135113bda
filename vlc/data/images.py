"""Encoded bytes to the square uint8 pixels that a model sees."""

import contextlib
import io
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
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
RESIZE_RULES = ("squash", "crop", "pad", "shortest", "longest")
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
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


def _shorter_side(size: tuple[int, int], target: int) -> tuple[int, int]:
    """The size at which the shorter side is `target`; the longer one is cut to whole pixels."""
    width, height = size
    return (target, int(target * height / width)) if width <= height else (int(target * width / height), target)


def _longer_side(size: tuple[int, int], target: int) -> tuple[int, int]:
    """The size at which the longer side is `target`; the other is rounded."""
    ratio = max(size) / target
    return round(size[0] / ratio), round(size[1] / ratio)


def _on_black(picture: Image.Image, side: int) -> Image.Image:
    canvas = Image.new("RGB", (side, side))
    canvas.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return canvas


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes the model's input. It is saved in every checkpoint, and loading refuses to go on without.

    Attributes:
        size: Pixels on a side.
        resize: `squash` ignores the aspect, `crop` fills and cuts the centre, `pad` fits and fills with grey. As CLIP's
            releases do: `shortest` scales the shorter side to `resize_to` in whole pixels, then cuts the centre;
            `longest` (open_clip) fits the longer side and fills with black.
        mean: Mean by channel, in [0, 1], subtracted on the device.
        std: Standard deviation by channel, divided by on the device.
        crop_scale: In training, share of the area that a random resized crop keeps, at least and at most.
        flip: In training, whether half of the images are mirrored. Wrong wherever captions say left and right.
        interpolation: Of random crops, one of `INTERPOLATIONS`, see `resample`.
        augment: In training, `auto` (AutoAugment), `rand` or `rand(ops=2, magnitude=9)` (RandAugment), or nothing.
        resample: Of whole images, one of `FILTERS` (Pillow's, without aliasing), or `aliased`: `tf.image.resize`.
        resize_to: The shorter side that `shortest` scales to; 0: `size`.
        centre: How `shortest` finds the first pixel of the centre: `floor` (transformers) or `round` (torchvision).
        full_scale: Whether large JPEGs are decoded at full scale before they are resized, as other libraries do.
            Without it they are decoded several times faster, and a pixel may differ by a few levels.
    """

    size: int
    resize: str = "squash"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    crop_scale: tuple[float, float] = (1.0, 1.0)
    flip: bool = False
    augment: str = ""
    interpolation: str = "antialiased"
    resample: str = "bicubic"
    resize_to: int = 0
    centre: str = "floor"
    full_scale: bool = False

    def __post_init__(self) -> None:
        choices = {
            "resize": RESIZE_RULES,
            "interpolation": INTERPOLATIONS,
            "resample": (*FILTERS, "aliased"),
            "centre": ("floor", "round"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ConfigError(f"config.data.image.{name} is {getattr(self, name)!r}; it must be one of {known}.")
        if self.resample == "aliased" and self.resize in ("crop", "pad"):
            raise ConfigError(f"config.data.image.resample=aliased does not go with resize={self.resize}.")
        if self.resize_to and (self.resize != "shortest" or self.resize_to < self.size):
            raise ConfigError(
                f"config.data.image.resize_to is {self.resize_to}; it goes with resize=shortest, and is at least the "
                f"size, {self.size}."
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
            least = max(self.size, self.resize_to)
            needed = None if self.full_scale else lambda width, height: (least, least)
            picture = Image.fromarray(decode_pixels(image, where=where, needed=needed))
        return np.asarray(self._resize(picture))

    def _resize(self, picture: Image.Image) -> Image.Image:
        size = (self.size, self.size)
        if self.resize == "shortest":
            return self._centre(self._resampled(picture, _shorter_side(picture.size, self.resize_to or self.size)))
        if self.resize == "crop":
            return ImageOps.fit(picture, size, FILTERS[self.resample])
        if self.resize == "pad":
            return ImageOps.pad(picture, size, FILTERS[self.resample], color=(128, 128, 128))
        if self.resize == "longest":
            return _on_black(self._resampled(picture, _longer_side(picture.size, self.size)), self.size)
        return self._resampled(picture, size)

    def _resampled(self, picture: Image.Image, size: tuple[int, int]) -> Image.Image:
        if self.resample == "aliased":
            return Image.fromarray(cv2.resize(np.asarray(picture), size, interpolation=cv2.INTER_LINEAR))
        return picture.resize(size, FILTERS[self.resample])

    def _centre(self, picture: Image.Image) -> Image.Image:
        left, top = ((side - self.size) / 2 for side in picture.size)
        # Half to even, as torchvision's Python does.
        left, top = (round(left), round(top)) if self.centre == "round" else (math.floor(left), math.floor(top))
        return picture.crop((left, top, left + self.size, top + self.size))

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

    def squashed(self) -> "Preprocess":
        """The same without cutting anything off: the aspect is given up instead."""
        return replace(self, resize="squash", resize_to=0)

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
