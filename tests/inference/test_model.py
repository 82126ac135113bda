"""`Model`: many texts are encoded as one by one, a model spread over devices as on one, and what it has not it says."""

import jax
import numpy as np
import pytest
from flax import nnx

import vlc
from tests.tiny import leaves, tiny_config
from vlc.config import check_config
from vlc.data.sources import Scenes
from vlc.errors import CheckpointError, ConfigError
from vlc.evaluate.dev import retrieval_score
from vlc.evaluate.metrics.retrieval import token_scores
from vlc.evaluate.metrics.zero_shot import class_scores
from vlc.inference.comparison import pair_scores
from vlc.interop import Imported, write_native
from vlc.parallel.mesh import make_mesh
from vlc.train.inputs import make_preprocess
from vlc.train.state import build_model


def model_of(tokenizer, **changes):
    plain = {"model__decoder__layers": 0, "objectives__caption__weight": 0.0, "model__text__length": 60}
    config = tiny_config(**(plain | changes))
    params = nnx.state(build_model(config, tokenizer.vocab_size, jax.random.key(1)), nnx.Param)
    return vlc.Model.of(Imported(config, params, tokenizer, make_preprocess(config)))


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(0)
    words = ("red", "circle", "left", "of", "a", "blue", "star", "small", "dotted")
    return [" ".join(rng.choice(words, rng.integers(1, 30))) for _ in range(150)]


@pytest.mark.parametrize("attend_pads", [False, True])
def test_many_texts_are_encoded_as_at_full_length(tokenizer, texts, attend_pads):
    pool = {"model__text__pool": "end"} if attend_pads else {}
    model = model_of(tokenizer, model__text__causal=False, model__text__attend_pads=attend_pads, **pool)
    many, full = model.encode_text(texts), model.encode_ids(model.token_ids(texts))
    assert np.array_equal(many.mask, full.mask) and many.tokens.shape == full.tokens.shape
    assert np.allclose(many.embed, full.embed, atol=2e-6)
    assert np.allclose(many.tokens[many.mask], full.tokens[full.mask], atol=2e-6)
    assert (model._widths(60) == [60]) == attend_pads  # pads that are looked at cannot be cut off


def test_spread_over_devices_it_is_the_same(tokenizer, texts):
    model = model_of(tokenizer)
    spread = model.spread(make_mesh({"data": 4, "fsdp": 2, "tensor": 1}))
    images = np.random.default_rng(0).integers(0, 256, (11, 16, 16, 3), np.uint8)
    for one, other in (
        (model.encode_pixels(images), spread.encode_pixels(images)),
        (model.encode_text(texts[:20]), spread.encode_text(texts[:20])),
    ):
        assert one.embed.shape == other.embed.shape
        assert np.allclose(one.embed, other.embed, atol=2e-6)
    assert spread.fingerprint == model.fingerprint


def test_what_a_model_is_not_it_says(tokenizer, tmp_path):
    model = model_of(tokenizer)
    with pytest.raises(ConfigError, match="has no captioner"):
        model.caption(np.zeros((16, 16, 3), np.uint8))
    write_native(model.as_imported(), tmp_path / "model")
    for options, says in (
        ({"step": 3}, "this is none"),
        ({"tokenizer": "x.model"}, "has its tokenizer"),
        ({"image_size": 20}, "cannot be cut into patches of 8"),
    ):
        with pytest.raises(CheckpointError, match=says):
            vlc.load(tmp_path / "model", **options)
    with pytest.raises(CheckpointError, match="one of the hub is hf://"):
        vlc.load("openai/clip-vit-base-patch32")


def pictures(count, size=16):
    rng = np.random.default_rng(4)
    return rng.integers(0, 256, (count, size, size, 3), np.uint8)


def test_a_score_by_something_else_names_the_choices(tokenizer):
    model = model_of(tokenizer)
    with pytest.raises(ConfigError, match=r'by is "token", which is not known. Did you mean "tokens"'):
        model.score(pictures(1), ["a star"], by="token")


def test_tokens_are_compared_as_they_were_trained(tokenizer, texts):
    """By both directions, or by the words of a text alone: in scores, ranks, retrieval and zero-shot classes."""
    both, by_text = (model_of(tokenizer, objectives__filip__scores=how) for how in ("both", "text"))
    assert (both.one_way, by_text.one_way) == (False, True)
    image, text = both.encode_image(pictures(3)), both.encode_text(texts[:4])
    i2t, t2i = vlc.late_interaction(image.tokens, text.tokens, text.mask)
    np.testing.assert_allclose(both.score(pictures(3), texts[:4], by="tokens"), (i2t + t2i) / 2, atol=1e-6)
    np.testing.assert_allclose(by_text.score(pictures(3), texts[:4], by="tokens"), t2i, atol=1e-6)
    pairs = pair_scores(by_text, image, text, np.array([0, 1, 2, 0]), "tokens")
    np.testing.assert_allclose(pairs, np.asarray(t2i)[[0, 1, 2, 0], range(4)], atol=1e-6)
    for model, ranked in ((both, i2t), (by_text, t2i)):
        found = token_scores(image.tokens, text, one_way=model.one_way)
        np.testing.assert_allclose(found[0], ranked, atol=1e-6)
        classes = class_scores(model, image, texts[:4], ["{}"], by="tokens")
        np.testing.assert_allclose(classes, ranked, atol=1e-6)


def test_tokens_are_trained_to_be_compared_in_one_way():
    both = {"objectives__filip__scores": "text", "objectives__hard_filip__weight": 1.0, "data__captions__negatives": 2}
    with pytest.raises(ConfigError, match="compares tokens in one way"):
        check_config(tiny_config(**both))
    check_config(tiny_config(**both, objectives__hard_filip__scores="text"))


def test_a_model_of_fixed_places_takes_images_of_another_size(tokenizer, tmp_path):
    """Where places are sines there is no table to resample."""
    model = model_of(tokenizer, model__image__positions="sines")
    write_native(model.as_imported(), tmp_path / "sines")
    larger = vlc.load(tmp_path / "sines", image_size=2 * model.config.data.image.size)
    assert larger.encode_image(pictures(1)).tokens.shape[1] == 4 * model.encode_image(pictures(1)).tokens.shape[1]
    assert all(np.array_equal(x, leaves(model.params)[name]) for name, x in leaves(larger.params).items())


def test_a_model_that_compares_nothing_cannot_be_scored_by_retrieval(tokenizer):
    off = {f"objectives__{name}__weight": 0.0 for name in ("clip", "filip", "multi_positive", "grouping")}
    with pytest.raises(ConfigError, match="was not trained to compare"):
        retrieval_score(model_of(tokenizer, **off), Scenes(length=4), 4)


def test_a_generator_is_read_a_batch_at_a_time(tokenizer):
    model = model_of(tokenizer)
    images, taken = pictures(2 * model.batch_size + 3), []

    def given():
        for image in images:
            taken.append(1)
            yield image

    batches = model.encode_image_batches(given())
    first = next(batches)
    assert len(first.embed) == len(taken) == model.batch_size
    whole = model.encode_image(images)
    assert np.allclose(np.concatenate([first.embed, *(batch.embed for batch in batches)]), whole.embed, atol=1e-6)
    assert np.allclose(model.encode_image(given()).embed, whole.embed, atol=1e-6)
    for by in ("embed", "tokens"):
        scores = model.score(given(), ["a star", "a circle"], by=by)
        assert scores.shape == (len(images), 2)
        assert np.allclose(scores[:5], model.score(images[:5], ["a star", "a circle"], by=by), atol=1e-6)


def test_a_model_says_what_it_is(tokenizer, tmp_path):
    write_native(model_of(tokenizer).as_imported(), tmp_path / "model")
    text = repr(vlc.load(tmp_path / "model"))
    for said in (
        "image tower: 1 layers of width 32, 16 px in patches of 8", "text tower: 1 layers of width 32, 60 tokens",
        "tokenizer: SentencePiece, 2", "embeddings of 32 numbers, trained by clip, filip", " parameters",
        f"from {tmp_path / 'model'}",
    ):  # fmt: skip
        assert said in text, text
    assert "captioner" not in text
