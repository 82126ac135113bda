"""Encoded bytes to the square uint8 pixels that a model sees."""

import io
import warnings
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from vlc.errors import CheckpointError, ConfigError, DataError

PIXEL_LIMIT = 100_000_000
RESIZE_RULES = ("squash", "crop", "pad")
_PIL_ERRORS = (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, Image.DecompressionBombError)

Image.MAX_IMAGE_PIXELS = None  # `decode` has a limit of its own, which raises where Pillow's only warns


def decode(data: bytes, *, where: str, at_least: int = 0) -> Image.Image:
    """Decodes an image to RGB, upright, its transparency laid on white.

    Args:
        data: JPEG, PNG, WebP or whatever else Pillow reads.
        where: The file, for messages.
        at_least: A JPEG may be decoded at reduced scale as long as both sides stay this long.

    Raises:
        DataError: The data is damaged, no image, or has more than `PIXEL_LIMIT` pixels.
    """
    try:
        image = Image.open(io.BytesIO(data))
        if image.width * image.height > PIXEL_LIMIT:
            raise DataError(
                f"{where}: {image.width} x {image.height} is over the limit of {PIXEL_LIMIT:,} pixels.",
                "image too large",
            )
        if at_least:
            image.draft("RGB", (at_least, at_least))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged EXIF is not worth a line a picture
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
    except _PIL_ERRORS as error:
        raise DataError(f"{where}: not a readable image ({error}).", "image") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "I;16", "I;16B", "I;16L"):  # 16-bit grey would be clipped, not scaled, by convert
        return Image.fromarray((np.asarray(image, np.float32) / 257).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(canvas, image).convert("RGB")
    return image.convert("RGB")


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
    """

    size: int
    resize: str = "squash"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    crop_scale: tuple[float, float] = (1.0, 1.0)
    flip: bool = False

    def __post_init__(self) -> None:
        if self.resize not in RESIZE_RULES:
            raise ConfigError(f"config.data.image.resize is {self.resize!r}; it must be one of {RESIZE_RULES}.")

    def __call__(
        self, image: bytes | np.ndarray, *, where: str = "image", rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """Returns pixels `[size, size, 3]` uint8; with a generator, augmented for training.

        Raises:
            DataError: The image is damaged.
        """
        augmented = rng is not None and (self.flip or self.crop_scale[0] < 1)
        if isinstance(image, np.ndarray) and image.shape == (self.size, self.size, 3) and not augmented:
            return image
        encoded = isinstance(image, bytes)
        picture = decode(image, where=where, at_least=self.size) if encoded else Image.fromarray(image)
        if rng is None:
            return np.asarray(self._resize(picture))
        if self.crop_scale[0] < 1:
            picture = picture.resize(
                (self.size, self.size), Image.Resampling.BICUBIC, box=self._random_box(picture, rng)
            )
        else:
            picture = self._resize(picture)
        if self.flip and rng.random() < 0.5:
            picture = ImageOps.mirror(picture)
        return np.asarray(picture)

    def _resize(self, picture: Image.Image) -> Image.Image:
        size = (self.size, self.size)
        if self.resize == "crop":
            return ImageOps.fit(picture, size, Image.Resampling.BICUBIC)
        if self.resize == "pad":
            return ImageOps.pad(picture, size, Image.Resampling.BICUBIC, color=(128, 128, 128))
        return picture.resize(size, Image.Resampling.BICUBIC)

    def _random_box(self, picture: Image.Image, rng: np.random.Generator) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of a random crop with an aspect between 3:4 and 4:3."""
        area = picture.width * picture.height * rng.uniform(*self.crop_scale)
        aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        width = min(np.sqrt(area * aspect), picture.width)
        height = min(np.sqrt(area / aspect), picture.height)
        left, top = rng.uniform(0, picture.width - width), rng.uniform(0, picture.height - height)
        return left, top, left + width, top + height

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
