"""Every kind of image becomes upright RGB, and a damaged one is an error that says so."""

import io

import numpy as np
import pytest
from PIL import Image

from vlc.data import images
from vlc.data.images import Preprocess, decode
from vlc.errors import CheckpointError, ConfigError, DataError


def encoded(image: Image.Image, form: str = "png", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_all_modes_become_rgb(mode):
    array = np.full((8, 10), 128, np.uint8)
    if mode == "I;16":
        image = Image.fromarray(np.full((8, 10), 128 * 257, np.uint16))
    else:
        image = Image.fromarray(array).convert(mode)
    data = encoded(image, "tiff" if mode == "CMYK" else "png")
    pixels = np.asarray(decode(data, where="x"))
    assert pixels.shape == (8, 10, 3)
    if mode not in ("1", "P"):
        assert abs(int(pixels.mean()) - 128) <= 2


def test_transparency_is_laid_on_white():
    pixels = np.asarray(decode(encoded(Image.new("RGBA", (4, 4), (255, 0, 0, 0))), where="x"))
    assert (pixels == 255).all()


def test_exif_rotation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.new("RGB", (20, 10)), "jpeg", exif=exif)
    assert decode(data, where="x").size == (10, 20)


def test_an_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (6, 6), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "gif", save_all=True, append_images=frames[1:])
    assert tuple(np.asarray(decode(data, where="x"))[0, 0]) == (255, 0, 0)


@pytest.mark.parametrize("data", [b"", b"not an image", encoded(Image.new("RGB", (300, 300)), "jpeg")[:200]])
def test_damage_is_an_error_with_a_reason(data):
    with pytest.raises(DataError, match=r"here\.jpg") as error:
        decode(data, where="here.jpg")
    assert error.value.reason == "image"


def test_a_decompression_bomb_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(images, "PIXEL_LIMIT", 100)
    with pytest.raises(DataError, match="over the limit") as error:
        decode(encoded(Image.new("RGB", (20, 20))), where="x")
    assert error.value.reason == "image too large"


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
@pytest.mark.parametrize("size", [(40, 20), (20, 40), (1, 1)])
def test_every_rule_gives_a_square(resize, size):
    data = encoded(Image.new("RGB", size, "red"))
    pixels = Preprocess(16, resize)(data)
    assert pixels.shape == (16, 16, 3) and pixels.dtype == np.uint8
    assert tuple(pixels[8, 8]) == (255, 0, 0)


def test_augmentation_is_a_function_of_the_generator(rng):
    image = rng.integers(0, 255, (32, 48, 3), dtype=np.uint8)
    augment = Preprocess(16, crop_scale=(0.3, 1.0), flip=True)
    one, same, other = (augment(image, rng=np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    assert np.array_equal(augment(image), augment(image))


def test_preprocessing_survives_json():
    value = Preprocess(16, "pad", crop_scale=(0.5, 1.0))
    assert Preprocess.from_json(value.to_json()) == value
    with pytest.raises(CheckpointError):
        Preprocess.from_json({"size": 16, "colour": 1})
    with pytest.raises(ConfigError, match="squish"):
        Preprocess(16, "squish")
