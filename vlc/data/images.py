"""RGB pictures to the square uint8 pixels that a model sees."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps

from vlc.data import naflex
from vlc.data.augment import parse_augment
from vlc.data.decoding import CONVERSIONS, PIXEL_LIMIT, decode_pixels
from vlc.data.frame import Frame
from vlc.errors import CheckpointError, ConfigError, DataError

INTERPOLATIONS = ("antialiased", "bilinear")
RESIZE_RULES = ("squash", "crop", "pad", "shortest", "longest", "naflex")
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

cv2.setNumThreads(1)  # images are made by several threads already


def resample(pixels: np.ndarray, sides: tuple[int, int], interpolation: str = "antialiased") -> np.ndarray:
    """Resizes.

    Args:
        pixels: `[height, width, 3]` uint8.
        sides: Width and height of what is returned.
        interpolation: `antialiased`: to a whole multiple of the size first, whose blocks are then averaged.
            `bilinear`: from the nearest four pixels alone, in two thirds of the time, with the aliasing of
            `tf.image.resize`.
    """
    if interpolation == "bilinear":
        return cv2.resize(pixels, sides, interpolation=cv2.INTER_LINEAR)
    width, height = sides
    down, across = math.ceil(pixels.shape[0] / height - 0.1), math.ceil(pixels.shape[1] / width - 0.1)
    down, across = max(1, down), max(1, across)
    if down == across == 1:
        return cv2.resize(pixels, sides, interpolation=cv2.INTER_CUBIC)
    fine = cv2.resize(pixels, (width * across, height * down), interpolation=cv2.INTER_LINEAR)
    return cv2.resize(fine, sides, interpolation=cv2.INTER_AREA)


def _shorter_side(size: tuple[int, int], target: int) -> tuple[int, int]:
    """The size at which the shorter side is `target`; the longer one is cut to whole pixels."""
    width, height = size
    return (target, int(target * height / width)) if width <= height else (int(target * width / height), target)


def _longer_side(size: tuple[int, int], target: int) -> tuple[int, int]:
    """The size at which the longer side is `target`; the other is rounded, to one pixel at least."""
    ratio = max(size) / target
    return max(1, round(size[0] / ratio)), max(1, round(size[1] / ratio))


def _on_black(picture: Image.Image, side: int) -> Image.Image:
    canvas = Image.new("RGB", (side, side))
    canvas.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return canvas


def _centre_square(sides: tuple[int, int]) -> Frame:
    """The largest square in the middle of a picture."""
    width, height = sides
    side = min(sides)
    return Frame.of_cut(sides, (width - side) / 2, (height - side) / 2, side, side)


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes the model's input. It is saved in every checkpoint, and loading refuses to go on without.

    Attributes:
        size: Pixels on a side.
        resize: `squash` ignores the aspect, `crop` fills and cuts the centre, `pad` fits and fills with grey. As CLIP's
            releases do: `shortest` scales the shorter side to `resize_to` in whole pixels, then cuts the centre;
            `longest` (open_clip) fits the longer side and fills with black. `naflex` keeps the aspect: as many patches
            as a square of `size` has, or a few less, packed as `vlc.data.naflex` says.
        mean: Mean by channel, in [0, 1], subtracted on the device.
        std: Standard deviation by channel, divided by on the device.
        crop_scale: In training, share of the area that a random resized crop keeps, at least and at most.
        flip: In training, whether half of the images are mirrored. Wrong wherever captions say left and right.
        interpolation: Of random crops, one of `INTERPOLATIONS`, see `resample`.
        augment: In training, `auto` (AutoAugment), `rand` or `rand(ops=2, magnitude=9)` (RandAugment), or nothing.
        resample: Of whole images, one of `FILTERS` (Pillow's, without aliasing), or `aliased`: `tf.image.resize`.
        resize_to: The shorter side that `shortest` scales to; 0: `size`.
        patch: Pixels on a side of a patch, where `naflex` needs it.
        centre: How `shortest` finds the first pixel of the centre: `floor` (transformers) or `round` (torchvision).
        convert: What becomes of turned, transparent, grey and 16-bit pictures, one of `decoding.CONVERSIONS`.
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
    patch: int = 0
    centre: str = "floor"
    full_scale: bool = False
    convert: str = "upright"

    def __post_init__(self) -> None:
        choices = {
            "resize": RESIZE_RULES,
            "interpolation": INTERPOLATIONS,
            "resample": (*FILTERS, "aliased"),
            "centre": ("floor", "round"),
            "convert": CONVERSIONS,
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ConfigError(f"config.data.image.{name} is {getattr(self, name)!r}; it must be one of {known}.")
        if self.resample == "aliased" and self.resize in ("crop", "pad", "naflex"):
            raise ConfigError(f"config.data.image.resample=aliased does not go with resize={self.resize}.")
        if self.resize_to and (self.resize != "shortest" or self.resize_to < self.size):
            raise ConfigError(
                f"config.data.image.resize_to is {self.resize_to}; it goes with resize=shortest, and is at least the "
                f"size, {self.size}."
            )
        if self.resize == "naflex" and (self.patch < 1 or self.size % self.patch):
            raise ConfigError(
                f"config.data.image.resize=naflex cuts pictures into patches; data.image.patch is {self.patch}, and a "
                f"square of {self.size} pixels is its budget."
            )
        object.__setattr__(self, "_augment", parse_augment(self.augment))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of what is returned: a square of pixels, or packed patches, which have one row more."""
        return (self.size + (self.resize == "naflex"), self.size, 3)

    def __getstate__(self) -> dict[str, Any]:
        return asdict(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _augment=parse_augment(state["augment"]))

    def __call__(
        self, image: bytes | np.ndarray, *, where: str = "image", rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """Returns pixels of `shape`, uint8; with a generator, augmented for training.

        Without one the resampling is Pillow's bicubic. A random crop is resampled by `resample`, which is several times
        faster and as free of aliasing.

        Raises:
            DataError: The image is damaged.
        """
        return self.framed(image, where=where, rng=rng)[0]

    def framed(
        self,
        image: bytes | np.ndarray,
        *,
        where: str = "image",
        rng: np.random.Generator | None = None,
        mirror: bool | None = None,
    ) -> tuple[np.ndarray, Frame]:
        """As a call, and what of the picture is shown. Operations of `augment` move pixels without a trace in it.

        Args:
            image: Encoded, or its pixels.
            where: The file, for messages.
            rng: For training.
            mirror: Whether it is mirrored; `None`: as `flip` says.
        """
        pixels, frame = self._pixels(image, where, rng, mirror)
        return (naflex.pack(pixels, self.patch, self.size) if self.resize == "naflex" else pixels), frame

    def grid(self, pixels: np.ndarray, patch: int) -> tuple[int, int]:
        """Rows and columns of the patches of what it returned."""
        return naflex.shape_of(pixels) if self.resize == "naflex" else (self.size // patch, self.size // patch)

    def picture(self, pixels: np.ndarray) -> np.ndarray:
        """What it returns, as a picture to be looked at."""
        return naflex.unpack(pixels, self.patch) if self.resize == "naflex" else pixels

    def _pixels(
        self, image: bytes | np.ndarray, where: str, rng: np.random.Generator | None, mirror: bool | None
    ) -> tuple[np.ndarray, Frame]:
        if rng is None or not (mirror or self.flip or self.augment or self.crop_scale[0] < 1):
            return self._plain(image, where)
        cropping = self.crop_scale[0] < 1
        pixels, frame = self._random_crop(image, where, rng) if cropping else self._plain(image, where)
        if mirror or (mirror is None and self.flip and rng.random() < 0.5):
            pixels, frame = pixels[:, ::-1], replace(frame, mirrored=True)
        augment = self._augment  # pyright: ignore[reportAttributeAccessIssue]
        if augment:
            pixels = np.asarray(augment(Image.fromarray(np.ascontiguousarray(pixels)), rng))
        return pixels, frame

    def _plain(self, image: bytes | np.ndarray, where: str) -> tuple[np.ndarray, Frame]:
        if isinstance(image, np.ndarray):
            if image.shape == (self.size, self.size, 3):
                return image, Frame()
            picture = Image.fromarray(image)
        else:
            needed = None if self.full_scale else self._needed
            picture = Image.fromarray(decode_pixels(image, where=where, needed=needed, convert=self.convert))
        resized, frame = self._resize(picture, where)
        return np.asarray(resized), frame

    def _needed(self, width: float, height: float) -> tuple[float, float]:
        """Width and height that a picture must be decoded to."""
        if self.resize == "naflex":
            return self._sides(height, width)
        least = max(self.size, self.resize_to)
        return least, least

    def _sides(self, height: float, width: float) -> tuple[int, int]:
        """Width and height of a picture of this shape."""
        if self.resize != "naflex":
            return self.size, self.size
        rows, columns = naflex.shape_for(height, width, self.patch, (self.size // self.patch) ** 2)
        return columns * self.patch, rows * self.patch

    def _resize(self, picture: Image.Image, where: str) -> tuple[Image.Image, Frame]:
        size = (self.size, self.size)
        if self.resize == "shortest":
            scaled = _shorter_side(picture.size, self.resize_to or self.size)
            if scaled[0] * scaled[1] > PIXEL_LIMIT:
                raise DataError(
                    f"{where}: {picture.width} x {picture.height} would become {scaled[0]} x {scaled[1]} before it is "
                    f"cut, over the limit of {PIXEL_LIMIT:,} pixels.",
                    "image too large",
                )
            return self._centre(self._resampled(picture, scaled))
        if self.resize == "crop":
            return ImageOps.fit(picture, size, FILTERS[self.resample]), _centre_square(picture.size)
        if self.resize == "pad":
            fitted = ImageOps.contain(picture, size, FILTERS[self.resample])
            padded = ImageOps.pad(fitted, size, FILTERS[self.resample], color=(128, 128, 128))
            places = [round((self.size - side) * 0.5) for side in fitted.size]  # as Pillow centres it
            return padded, Frame.of_cut(fitted.size, -places[0], -places[1], self.size, self.size)
        if self.resize == "longest":
            scaled = self._resampled(picture, _longer_side(picture.size, self.size))
            left, top = ((self.size - side) // 2 for side in scaled.size)
            return _on_black(scaled, self.size), Frame.of_cut(scaled.size, -left, -top, self.size, self.size)
        if self.resize == "naflex":
            return self._resampled(picture, self._sides(picture.height, picture.width)), Frame()
        return self._resampled(picture, size), Frame()

    def _resampled(self, picture: Image.Image, size: tuple[int, int]) -> Image.Image:
        if self.resample == "aliased":
            return Image.fromarray(cv2.resize(np.asarray(picture), size, interpolation=cv2.INTER_LINEAR))
        return picture.resize(size, FILTERS[self.resample])

    def _centre(self, picture: Image.Image) -> tuple[Image.Image, Frame]:
        left, top = ((side - self.size) / 2 for side in picture.size)
        # Half to even, as torchvision's Python does.
        left, top = (round(left), round(top)) if self.centre == "round" else (math.floor(left), math.floor(top))
        cut = picture.crop((left, top, left + self.size, top + self.size))
        return cut, Frame.of_cut(picture.size, left, top, self.size, self.size)

    def _random_crop(self, image: bytes | np.ndarray, where: str, rng: np.random.Generator) -> tuple[np.ndarray, Frame]:
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
            across, down = self._sides(high * height, wide * width)
            return across / wide, down / high

        if isinstance(image, np.ndarray):
            pixels = image
        else:
            pixels = decode_pixels(image, where=where, needed=needed, convert=self.convert)
        height, width = pixels.shape[:2]
        wide, high = (max(1, round(n * share)) for n, share in zip((width, height), shares(width, height), strict=True))
        left, top = round(across * (width - wide)), round(down * (height - high))
        cut = resample(pixels[top : top + high, left : left + wide], self._sides(high, wide), self.interpolation)
        return cut, Frame.of_cut((width, height), left, top, wide, high)

    def squashed(self) -> "Preprocess":
        """The same without cutting anything off: the aspect is given up instead."""
        return replace(self, resize="squash", resize_to=0, patch=0)

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
