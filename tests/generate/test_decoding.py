"""Guidance equals the paper's rule, and greedy decoding what a search step by step finds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.objectives.test_objectives import waves
from tests.tiny import VOCAB, tiny_batch, tiny_config, tiny_model
from vlc.data.tokenizers.sentence_piece import BOS_ID, EOS_ID
from vlc.generate import greedy as generate_greedy
from vlc.generate.guidance import guided_log_probs

greedy = functools.partial(generate_greedy, begin_id=BOS_ID, end_id=EOS_ID)
GOLDEN = {1: (0, 0.1476), 1.5: (7, 0.2811), 2: (7, 0.4562), 3: (7, 0.7758), 4: (7, 0.9271)}


@pytest.mark.parametrize("scale", GOLDEN)
def test_golden_guidance(scale):
    unconditional, conditional = waves((8,), 0.4), waves((8,), 1.9)
    scores = guided_log_probs(jnp.asarray(conditional)[None], jnp.asarray(unconditional)[None], scale)[0]
    best, probability = GOLDEN[scale]
    assert int(scores.argmax()) == best
    assert float(jnp.exp(scores[7])) == pytest.approx(probability, abs=6e-5)
    assert float(jnp.exp(scores).sum()) == pytest.approx(1, rel=1e-5)


@pytest.fixture(scope="module", params=["tokens", "embedding"])
def model_and_image(request):
    config = tiny_config(model__decoder__memory=request.param, model__decoder__layers=2)
    graph, params = tiny_model(config)
    rng = np.random.default_rng(0)  # as random as they are, fresh weights would say the same word for ever
    params = jax.tree.map(lambda w: w + 0.3 * jnp.asarray(rng.normal(size=w.shape), w.dtype), params)
    model = nnx.merge(graph, params)
    return model, model.encode_image(tiny_batch(config, 5)["image"])


def slow_greedy(model, image, scale):
    """Without cache: every prefix is read again from the start, with and without the image."""
    length = model.decoder.length
    read = jax.jit(model.caption_logits)
    captions = []
    for row in range(len(image.embed)):
        alone = jax.tree.map(lambda x, row=row: x[row : row + 1], image)
        words = [BOS_ID]
        while len(words) < length and words[-1] != EOS_ID:
            ids = jnp.asarray([words + [VOCAB] * (length - len(words))])  # what comes later is not seen
            logits = [read(alone, ids, jnp.asarray([null]))[:, len(words) - 1] for null in (False, True)]
            words.append(int((logits[1] + scale * (logits[0] - logits[1])).argmax()))
        captions.append(words[1:] + [VOCAB] * (length - len(words)))
    return np.asarray(captions)


@pytest.mark.parametrize("scale", [0.0, 1.0, 1.5, 3.0])
def test_greedy_equals_a_search_without_cache(model_and_image, scale):
    model, image = model_and_image
    ids, total = greedy(model, image, scale, guided=True)
    assert np.array_equal(ids, slow_greedy(model, image, scale))
    assert (total < 0).all()


def test_scale_one_is_ordinary_decoding(model_and_image):
    model, image = model_and_image
    assert np.array_equal(greedy(model, image, 1.0, guided=True)[0], greedy(model, image, 1.0, guided=False)[0])


def test_scale_zero_does_not_see_the_image(model_and_image):
    model, image = model_and_image
    ids, _ = greedy(model, image, 0.0, guided=True)
    assert (ids == ids[0]).all()


def test_a_finished_caption_stays_finished(model_and_image):
    model, image = model_and_image
    for row in np.asarray(greedy(model, image, 2.0, guided=True)[0]):
        ended = np.flatnonzero(row == EOS_ID)
        if len(ended):
            assert (row[ended[0] + 1 :] == VOCAB).all()
