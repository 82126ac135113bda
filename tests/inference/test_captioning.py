"""`Model.caption` and its kin: options reach the decoder, rerankers order captions, bad requests are named."""

import dataclasses
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

import vlc
from tests.tiny import tiny_config
from vlc.errors import ConfigError
from vlc.generate import DecodingOptions
from vlc.inference.captioning import CaptionRequest, generate_captions, generate_ids
from vlc.interop import Imported
from vlc.parallel.mesh import make_mesh
from vlc.train.inputs import make_preprocess
from vlc.train.state import build_model

CONTROL = ConfigDict({"length": 5, "alignment": 0, "edges": (), "best": 0, "sources": "alt,long", "lengths": (),
                      "bins": (), "present": (), "box": False, "mask": False})  # fmt: skip
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)


def captioner(tokenizer, seed=1, **changes):
    from flax import nnx

    config = tiny_config(model__decoder__control=CONTROL, model__text__length=9, **changes)
    params = nnx.state(build_model(config, tokenizer.vocab_size, jax.random.key(seed)), nnx.Param)
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda w: w + 0.3 * jnp.asarray(rng.normal(size=w.shape), w.dtype), params)
    return vlc.Model.of(Imported(config, params, tokenizer, make_preprocess(config)))


@pytest.fixture(scope="module")
def model(tokenizer):
    return captioner(tokenizer)


def test_encoded_images_and_pixels_give_the_same(model):
    plain = CaptionRequest(2.0)
    one, two = generate_ids(model, PIXELS, plain), generate_ids(model, model.encode_pixels(PIXELS), plain)
    assert np.array_equal(one.ids, two.ids) and np.allclose(one.log_prob, two.log_prob, atol=1e-4)
    assert [c[0].text for c in generate_captions(model, PIXELS, plain)] == model.caption(PIXELS, 2.0)


def test_samples_of_an_image_do_not_depend_on_the_batch(model):
    request = CaptionRequest(1.5, DecodingOptions(num_return_sequences=3, top_p=0.9, seed=4))
    together = generate_ids(model, PIXELS, request).ids
    alone = generate_ids(model, PIXELS[2:], request, indices=np.asarray([2])).ids
    assert np.array_equal(together[2], alone[0])
    other = generate_ids(
        model, PIXELS, dataclasses.replace(request, decoding=dataclasses.replace(request.decoding, seed=5))
    ).ids
    assert not np.array_equal(together, other)


def test_a_reranker_puts_the_best_first(model):
    def by_letters(pixels, captions):
        assert np.array_equal(pixels, PIXELS)
        return np.asarray([[len(text) for text in some] for some in captions])

    options = {"num_return_sequences": 3, "top_p": 0.9, "seed": 4}
    ranked = model.captions(PIXELS, 1.5, reranker=by_letters, **options)
    for found, drawn in zip(ranked, model.captions(PIXELS, 1.5, **options), strict=True):
        assert [c.score for c in found] == sorted((len(c.text) for c in drawn), reverse=True)
        assert {c.text for c in found} == {c.text for c in drawn}
    best = model.captions(PIXELS, 1.5, reranker=model, **options)
    cosines = model.score(list(PIXELS), [c.text for c in best[1]])[1]
    assert np.allclose([c.score for c in best[1]], cosines, atol=1e-5) and (np.diff(cosines) <= 0).all()


def test_what_is_asked_reaches_the_decoder(model):
    said = [model.caption(PIXELS, control=control) for control in ({}, {"length": 2}, {"length": 2, "source": "alt"})]
    assert len({tuple(captions) for captions in said}) == 3
    prompted = model.captions(PIXELS, prompt="a red")
    assert all(some[0].text.startswith("a red") for some in prompted)


def test_language_model_guidance_by_the_captioner_itself_is_guidance(model):
    """With `a = b = g` and q the captioner's own p(x): `log p(x) + g (log p(x|y) - log p(x))`."""
    own = CaptionRequest(language_model=model, language_weights=(2.5, 2.5))
    assert np.array_equal(generate_ids(model, PIXELS, own).ids, generate_ids(model, PIXELS, CaptionRequest(2.5)).ids)


def test_another_language_model_counts(model, tokenizer):
    other = captioner(tokenizer, seed=2)
    found = generate_ids(model, PIXELS, CaptionRequest(language_model=other, language_weights=(1.0, 0.0))).ids
    assert not np.array_equal(found, generate_ids(model, PIXELS, CaptionRequest()).ids)
    spread = model.spread(make_mesh({"data": 4, "fsdp": 2, "tensor": 1}))
    request = CaptionRequest(language_model=other, language_weights=(1.0, 0.0))
    assert np.array_equal(generate_ids(spread, PIXELS, request).ids, found)


WRONG = {
    "negative scale": ({"guidance_scale": -1.0}, "0 or more"),
    "endless scale": ({"guidance_scale": float("inf")}, "finite number"),
    "unknown setting": ({"num_beem": 3}, 'Did you mean "num_beams"'),
    "no such control": ({"control": {"alignment": 2}}, "it has length, source"),
    "long prompt": ({"prompt": "red " * 40}, "captions have at most 7"),
    "two guides": ({"guidance_scale": 2.0, "language_model": "self"}, "leave guidance_scale at 1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wishes_that_cannot_be_met_are_named(case, model):
    options, said = WRONG[case]
    if options.get("language_model"):
        options = options | {"language_model": model}
    with pytest.raises(ConfigError, match=said):
        model.caption(PIXELS, **options)


def test_a_language_model_that_reads_less_is_named(model, tokenizer):
    other = captioner(tokenizer, model__decoder__length=6)
    with pytest.raises(ConfigError, match="reads 5 tokens, the captioner writes 8"):
        model.caption(PIXELS, language_model=other)
    assert len(model.caption(PIXELS, language_model=other, max_new_tokens=5)) == 3


def test_a_language_model_of_another_vocabulary_is_named(model):
    from vlc.data.tokenizers import SentencePiece

    other = captioner(SentencePiece.train(["a red circle and a blue star"] * 9, 64))
    with pytest.raises(ConfigError, match="another vocabulary"):
        model.caption(PIXELS, language_model=other)


def test_guidance_without_null_conditioning_warns(tokenizer, caplog):
    model = captioner(tokenizer, objectives__caption__null_rate=0.0)
    with caplog.at_level(logging.WARNING, logger="vlc"):
        CaptionRequest(1.0).check(model)
        assert not caplog.text
        CaptionRequest(2.0).check(model)
        CaptionRequest(3.0).check(model)
    assert caplog.text.count("config.objectives.caption.null_rate") == 1
