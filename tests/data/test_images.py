"""Every kind of image becomes upright RGB, and a damaged one is an error that says so."""

import contextlib
import io
import pickle
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from vlc.data import decoding, images
from vlc.data.augment import OPS, apply_op
from vlc.data.decoding import decode, decode_pixels, examine
from vlc.data.images import Preprocess
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


def oriented(place: str) -> bytes:
    """A 20 x 10 picture, red at its left, that says by one of many ways that it is to be turned to the right."""
    picture = Image.new("RGB", (20, 10), "white")
    picture.paste("red", (0, 0, 6, 10))
    exif = Image.Exif()
    exif[0x0112] = 6
    data = exif.tobytes()
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    if place == "JPEG EXIF":
        return encoded(picture, "jpeg", exif=exif, quality=95)
    if place == "JPEG EXIF behind 64 KB":
        plain = encoded(picture, "jpeg", exif=exif, quality=95)
        filler = b"\xff\xed" + (65_000).to_bytes(2) + bytes(64_998)
        return plain[:2] + filler * 2 + plain[2:]
    if place == "JPEG XMP":
        plain = encoded(picture, "jpeg", quality=95)
        segment = b"http://ns.adobe.com/xap/1.0/\0" + xmp
        return plain[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2) + segment + plain[2:]
    if place == "PNG eXIf":
        return encoded(picture, "png", exif=exif)
    if place == "PNG eXIf after the pixels":
        chunk = b"eXIf" + data[6:]
        plain = encoded(picture, "png")
        made = (len(chunk) - 4).to_bytes(4) + chunk + zlib.crc32(chunk).to_bytes(4)
        return plain[:-12] + made + plain[-12:]
    if place == "PNG raw profile":
        words = PngInfo()
        words.add_text("Raw profile type exif", f"\nexif\n{len(data):8}\n{data.hex()}\n")
        return encoded(picture, "png", pnginfo=words)
    return encoded(picture, "webp", exif=exif, lossless=True)


WAYS = ("JPEG EXIF", "JPEG EXIF behind 64 KB", "JPEG XMP", "PNG eXIf", "PNG eXIf after the pixels", "PNG raw profile",
        "WebP EXIF")  # fmt: skip


@pytest.mark.parametrize("place", WAYS)
def test_an_orientation_is_found_wherever_it_stands(place):
    pixels = decode_pixels(oriented(place), where="x")
    assert pixels.shape == (20, 10, 3)
    assert pixels[2, 5, 1] < 60 and pixels[15, 5, 1] > 200, "red is now at the top"


def test_a_broken_exif_costs_the_turn_alone():
    for broken in (b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12", b"Exif\0\0" + bytes(range(40))):
        data = encoded(Image.new("RGB", (20, 10), "red"), "jpeg", exif=broken)
        assert decode_pixels(data, where="x").shape == (10, 20, 3)


@pytest.mark.parametrize("form", ["jpeg", "png", "webp", "gif", "tiff", "avif", "dds", "bmp"])
def test_whatever_damaged_bytes_raise_is_the_images_fault(form, rng):
    good = encoded(Image.fromarray(rng.integers(0, 255, (24, 31, 3), np.uint8)), form)
    for _ in range(150):
        data = bytearray(good)
        for place in rng.integers(0, len(data), rng.integers(1, 6)):
            data[place] = rng.integers(256)
        data = bytes(data[: rng.integers(4, len(data) + 1)] if rng.random() < 0.3 else data)
        for read in (lambda data: decode_pixels(data, where="x"), lambda data: examine(data, where="x")):
            with contextlib.suppress(DataError):
                read(data)


@pytest.mark.parametrize(
    ("size", "rule"), [((3000, 1), "longest"), ((1, 3000), "longest"), ((1, 3000), "squash"), ((3000, 1), "crop")]
)
def test_a_picture_of_one_line_is_one_too(size, rule):
    assert Preprocess(64, resize=rule)(encoded(Image.new("RGB", size)), where="x").shape == (64, 64, 3)


def test_a_small_file_that_would_become_a_huge_picture_is_refused():
    with pytest.raises(DataError, match="before it is cut, over the limit") as error:
        Preprocess(224, resize="shortest")(encoded(Image.new("L", (1, 8000))), where="x")
    assert error.value.reason == "image too large"


@pytest.mark.parametrize("most", [1, 255, 65535])
@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_numbers_without_a_scale_are_not_black(kind, most):
    if kind == np.int32 and most == 1:
        return  # a mask
    ramp = (np.linspace(0, most, 64).reshape(8, 8)).astype(kind)
    pixels = np.asarray(decode(encoded(Image.fromarray(ramp), "tiff"), where="x"))
    assert np.abs(pixels[..., 0].ravel() - np.linspace(0, 255, 64)).max() <= 1.01
    with pytest.raises(DataError, match="no range of brightness"):
        decode(encoded(Image.fromarray(ramp * 0 - 5), "tiff"), where="x")


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
    monkeypatch.setattr(decoding, "PIXEL_LIMIT", 100)
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


def photo(size, **options) -> bytes:
    rng = np.random.default_rng(0)
    grain = rng.integers(0, 255, (size[1] // 3, size[0] // 3, 3), dtype=np.uint8)
    return encoded(Image.fromarray(grain).resize(size, Image.Resampling.BICUBIC), "jpeg", **options)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_the_fast_decoder_gives_pillows_pixels_at_every_scale(subsampling, progressive):
    data = photo((601, 403), subsampling=subsampling, progressive=progressive)
    for least in (None, 500, 100, 60, 20):
        needed = None if least is None else (lambda width, height, least=least: (least, least))
        fast, slow = decode_pixels(data, where="x", needed=needed), decode(data, where="x", needed=needed)
        assert np.array_equal(fast, np.asarray(slow))


def test_the_fast_decoder_leaves_all_else_to_pillow(monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(Image.new("RGB", (20, 10), "red"), "jpeg", exif=exif)
    assert decode_pixels(turned, where="x").shape == (20, 10, 3)
    for mode in ("L", "CMYK"):
        assert decode_pixels(encoded(Image.new(mode, (9, 7)), "jpeg"), where="x").shape == (7, 9, 3)
    with pytest.raises(DataError, match=r"here\.jpg"):
        decode_pixels(photo((300, 300))[:-800], where="here.jpg")
    monkeypatch.setattr(decoding, "PIXEL_LIMIT", 100)
    with pytest.raises(DataError, match="over the limit"):
        decode_pixels(photo((60, 60)), where="x")


def test_a_turned_jpeg_at_reduced_scale_keeps_what_is_needed():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = photo((800, 400), exif=exif)
    picture = decode(data, where="x", needed=lambda width, height: (100, 200))
    assert picture.height == 2 * picture.width and picture.width >= 100 and picture.height < 800


def test_resampling_is_as_free_of_aliasing_as_pillows():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (375, 500, 3), dtype=np.uint8))
    exact = np.asarray(picture.resize((224, 224), Image.Resampling.BICUBIC), float)
    error = {
        name: np.abs(images.resample(np.asarray(picture), (224, 224), name) - exact).mean()
        for name in ("antialiased", "bilinear")
    }
    assert error["antialiased"] < 0.6 * error["bilinear"]
    for size in ((1, 1), (3, 4000), (4000, 3), (224, 224), (225, 223)):
        flat = np.full((size[1], size[0], 3), 77, np.uint8)
        assert (images.resample(flat, (224, 224)) == 77).all()


@pytest.mark.parametrize("augment", ["auto", "rand", "rand(ops=3, magnitude=5)"])
def test_augmentation_policies_are_functions_of_the_generator(augment, rng):
    image = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
    make = Preprocess(32, augment=augment)
    results = [make(image, rng=np.random.default_rng(seed)) for seed in range(40)]
    assert all(result.shape == image.shape and result.dtype == np.uint8 for result in results)
    assert sum(not np.array_equal(result, image) for result in results) > 25
    again = pickle.loads(pickle.dumps(make))
    assert np.array_equal(results[3], again(image, rng=np.random.default_rng(3)))
    assert np.array_equal(make(image), image)  # evaluation is not augmented


@pytest.mark.parametrize("name", sorted(OPS))
def test_every_operation_does_nothing_at_magnitude_0_where_it_has_a_strength(name, rng):
    picture = Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8))
    weak, strong = (np.asarray(apply_op(picture, name, level, rng)) for level in (0, 10))
    if OPS[name].strongest:
        assert np.abs(weak.astype(int) - np.asarray(picture)).max() <= 1
        assert not np.array_equal(strong, np.asarray(picture))
    assert strong.shape == (24, 24, 3)


def test_a_policy_that_cannot_be_is_said():
    for text in ("radn", "rand(ops=x)", "rand(magnitude=11)"):
        with pytest.raises(ConfigError, match=r"image\.augment"):
            Preprocess(16, augment=text)
    with pytest.raises(ConfigError, match=r"image\.interpolation"):
        Preprocess(16, interpolation="cubic")
