"""A picture has one embedding however it is handed over; what is no picture or text is one error that says so."""

import io

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.data.test_images import WAYS, encoded, oriented
from tests.inference.test_model import model_of
from vlc.errors import ConfigError, DataError, VlcError
from vlc.generate import DecodingOptions
from vlc.inference.captioning import CaptionRequest


@pytest.fixture(scope="module")
def model(tokenizer):
    return model_of(tokenizer)


def noise(*shape, top=255):
    return np.random.default_rng(0).integers(0, top + 1, shape).astype(np.uint8)


def odd_pictures():
    """Encoded, by what is odd about them."""
    ramp = np.linspace(0, 1, 30 * 40).reshape(30, 40)
    alpha = Image.fromarray(noise(30, 40, 4), "RGBA")
    palette = Image.fromarray(noise(30, 40, 3)).convert("P", palette=Image.Palette.ADAPTIVE)
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    return {
        **{way: oriented(way) for way in WAYS},
        "the model's own size": encoded(Image.fromarray(noise(16, 16, 3))),
        "large JPEG": encoded(Image.fromarray(noise(300, 500, 3)), "jpeg"),
        "grey": encoded(Image.fromarray(noise(30, 40))),
        "grey JPEG": encoded(Image.fromarray(noise(30, 40)), "jpeg"),
        "one bit": encoded(Image.fromarray(noise(30, 40)).convert("1")),
        "transparent": encoded(alpha),
        "grey and transparent": encoded(alpha.convert("LA")),
        "transparent WebP": encoded(alpha, "webp", lossless=True),
        "palette": encoded(palette),
        "palette with a transparent colour": encoded(palette, transparency=3),
        "16 bits": encoded(Image.fromarray((ramp * 65535).astype(np.uint16))),
        "floats": encoded(Image.fromarray(ramp.astype(np.float32)), "tiff"),
        "CMYK": encoded(Image.fromarray(noise(30, 40, 3)).convert("CMYK"), "jpeg"),
        "animation": encoded(frames[0], "gif", save_all=True, append_images=frames[1:]),
        "one pixel": encoded(Image.new("RGB", (1, 1), "green")),
        "long": encoded(Image.fromarray(noise(2, 400, 3))),
    }


PICTURES = odd_pictures()


def ways(data, path):
    """A picture in every form that a user may have it in."""
    path.write_bytes(data)
    forms = {
        "path": path, "string": str(path), "bytes": data, "bytearray": bytearray(data), "view": memoryview(data),
        "BytesIO": io.BytesIO(data), "open file": path.open("rb"), "PIL, lazy": Image.open(path),
    }  # fmt: skip
    forms["BytesIO at its end"] = io.BytesIO(data)
    forms["BytesIO at its end"].read()
    loaded = Image.open(io.BytesIO(data))
    loaded.load()
    return forms | {"PIL, loaded": loaded}


def arrays(pixels):
    """RGB pixels as arrays of several kinds."""
    return {
        "uint8": pixels, "floats": pixels / np.float64(255), "float32": (pixels / 255).astype(np.float32),
        "JAX": jnp.asarray(pixels), "JAX floats": jnp.asarray(pixels) / 255, "int32": pixels.astype(np.int32),
        "not contiguous": np.asfortranarray(pixels), "PIL": Image.fromarray(pixels),
        "RGBA": np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)]),
    }  # fmt: skip


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("convert", ["upright", "plain"])
def test_a_picture_has_one_embedding(model, name, convert, tmp_path):
    model = model_of(model.tokenizer, data__image__convert=convert)
    forms = ways(PICTURES[name], tmp_path / "picture")
    first = model.encode_image(forms.pop("path")).embed
    for way, form in forms.items():
        assert np.allclose(model.encode_image(form).embed, first, atol=1e-6), way
    together = model.encode_image(list(ways(PICTURES[name], tmp_path / "again").values())).embed
    assert np.allclose(together, first, atol=1e-6)


@pytest.mark.parametrize("shape", [(16, 16, 3), (40, 30, 3), (1, 1, 3)])
def test_an_array_is_the_picture_that_it_shows(model, shape, tmp_path):
    """Those of exactly the model's size too."""
    pixels = noise(*shape)
    first = model.encode_image(encoded(Image.fromarray(pixels))).embed
    for way, form in arrays(pixels).items():
        assert np.allclose(model.encode_image(form).embed, first, atol=1e-6), way
    batch = np.stack([pixels, pixels])
    for several in (batch, jnp.asarray(batch), list(batch), (x for x in batch), batch / 255):
        assert np.allclose(model.encode_image(several).embed, np.repeat(first, 2, 0), atol=1e-6)
    grey = pixels[..., 0]
    first = model.encode_image(encoded(Image.fromarray(grey))).embed
    for form in (grey, grey[..., None], grey / 255):
        assert np.allclose(model.encode_image(form).embed, first, atol=1e-6)


NO_PICTURES = {
    "channels first": (noise(3, 20, 20), r"\[3, 20, 20\] uint8 from 0 to 255 has its channels first"),
    "NaN": (np.full((16, 16, 3), np.nan), "not finite"),
    "-1 to 1": (np.linspace(-1, 1, 768).reshape(16, 16, 3), "from -1 to 1 is not in the range from 0 to 1"),
    "floats of bytes": (noise(16, 16, 3).astype(np.float32), "not in the range from 0 to 1"),
    "uint16": (np.full((16, 16, 3), 500, np.uint16), "has 16 bits"),
    "bool": (np.ones((16, 16, 3), bool), "no type of pixels"),
    "complex": (np.ones((16, 16, 3), complex), "no type of pixels"),
    "objects": (np.full((16, 16, 3), None), "no type of pixels"),
    "negative": (np.full((16, 16, 3), -3), "not in the range of bytes"),
    "no pixel": (np.zeros((0, 5, 3), np.uint8), "is no picture"),
    "five axes": ([np.zeros((1, 2, 3, 4, 3), np.uint8)], "is no picture"),
    "a number": (3, "3 .int. is not an image"),
    "none": (None, "None .NoneType. is not an image"),
    "a list of none": ([None], "image 0: None"),
    "a mapping": ({"image": 1}, "is not an image"),
    "text file": (io.StringIO("a"), "open as text"),
    "no image": (b"not an image", "image 0: not a readable image"),
    "empty": (b"", "not a readable image"),
    "a folder": ("/", "cannot be read"),
    "nowhere": ("/no/such.jpg", "No such file"),
}


@pytest.mark.parametrize("name", NO_PICTURES)
def test_what_is_no_picture_is_said(model, name):
    image, said = NO_PICTURES[name]
    for call in (model.encode_image, lambda image: model.score(image, "a cat")):
        with pytest.raises(DataError, match=said):
            call(image)


@pytest.mark.parametrize("pixels", [noise(2, 16, 16, 3).astype(np.float32), noise(16, 16, 3), noise(2, 15, 16, 3)])
def test_pixels_are_those_of_the_model(model, pixels):
    with pytest.raises(DataError, match=r"is not \[B, 16, 16, 3\] uint8, as this model takes them"):
        model.encode_pixels(pixels)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (None, "None .NoneType. is no text"),
        (b"a cat", "is no text"),
        ([b"a cat"], "text 0: .* is no string; decode it"),
        (["a", None], "text 1: None .NoneType. is no string"),
        ([1, 2], "text 0: 1 .int."),
        (5, "5 .int. is no text"),
        (float("nan"), "is no text"),
        ({"a": "cat"}, "is no text"),
        ([["a"]], "text 0"),
    ],
)
def test_what_is_no_text_is_said(model, texts, said):
    for call in (
        model.encode_text,
        model.token_ids,
        model.tokenizer.encode and (lambda t: model.score(noise(9, 9, 3), t)),
    ):
        with pytest.raises(DataError, match=said):
            call(texts)


def test_nothing_gives_nothing(model):
    assert model.encode_image([]).embed.shape == (0, 32) == model.encode_text([]).embed.shape
    assert model.encode_image(np.zeros((0, 16, 16, 3), np.uint8)).tokens.shape[0] == 0
    assert model.score([], ["a"]).shape == (0, 1) and model.score(noise(9, 9, 3), []).shape == (1, 0)
    assert model.score([], [], by="tokens").shape == (0, 0) and model.logits([], ["a", "b"]).shape == (0, 2)
    assert model.encode_text("a dog \ud83d").embed.shape == (1, 32)


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.floats(), st.text(max_size=8), st.binary(max_size=8),
    st.lists(st.one_of(st.none(), st.text(max_size=3), st.integers()), max_size=3), st.just({}), st.just(object()),
    st.builds(
        lambda shape, kind, top: (np.random.default_rng(0).random(shape) * top).astype(kind),
        st.lists(st.sampled_from([0, 1, 2, 3, 4, 5, 16]), max_size=5),
        st.sampled_from(["uint8", "float32", "float64", "bool", "int64", "uint16", "complex64", "float16"]),
        st.sampled_from([1, 2, 255, 1e6]),
    ),
)  # fmt: skip
NAMES = ("num_beams", "length_penalty", "num_return_sequences", "temperature", "top_k", "top_p", "seed",
         "max_new_tokens")  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(odd=ODD, other=ODD, call=st.sampled_from(["image", "pixels", "text", "score", "by", "guidance_scale", *NAMES]))
def test_a_call_with_anything_is_right_or_one_error(model, captioner, odd, other, call):
    image = noise(9, 9, 3)
    calls = {
        "image": lambda: model.encode_image(odd),
        "pixels": lambda: model.encode_pixels(odd),
        "text": lambda: model.encode_text(odd),
        "score": lambda: model.score(odd, other),
        "by": lambda: model.score(image, "a", by=odd),
        "guidance_scale": lambda: CaptionRequest(odd).check(captioner),
    } | dict.fromkeys(NAMES, lambda: CaptionRequest(1.0, DecodingOptions(**{call: odd})).check(captioner))
    try:
        found = calls[call]()
    except VlcError as error:
        assert str(error)
        return
    if call in ("image", "pixels", "text"):
        assert np.isfinite(found.embed).all()
    elif call in ("score", "by"):
        assert np.isfinite(found).all()


@pytest.fixture(scope="module")
def captioner(tokenizer):
    return model_of(tokenizer, model__decoder__layers=1)


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": "2"}, {"num_beams": 1.5}, {"num_beams": True}, {"length_penalty": float("nan")},
        {"length_penalty": None}, {"top_p": "0.9"}, {"top_p": float("nan")}, {"temperature": None},
        {"temperature": float("inf")}, {"seed": 2**32}, {"seed": -1}, {"seed": 1.0}, {"top_k": None},
        {"max_new_tokens": "3"}, {"guidance_scale": float("nan")}, {"guidance_scale": "2"}, {"guidance_scale": None},
        {"prompt": None}, {"control": "length=3"}, {"language_weights": (1,)},
        {"language_weights": (float("nan"), 1)},
    ],
    ids=str,
)  # fmt: skip
def test_decoding_options_of_another_kind_are_refused(captioner, options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        captioner.caption(noise(9, 9, 3), **options)
