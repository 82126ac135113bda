"""Every search finds what a slow one without a cache finds; guidance follows the paper's rule."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.objectives.test_objectives import waves
from tests.tiny import VOCAB, tiny_batch, tiny_config, tiny_model
from vlc.data.tokenizers.sentence_piece import BOS_ID, EOS_ID
from vlc.errors import ConfigError
from vlc.generate import (
    DecodingOptions,
    GuidanceWeights,
    NextToken,
    StopAt,
    UnconditionalCaptioner,
    beam_search,
    sample,
    sampling_keys,
)
from vlc.generate.guidance import guided_log_probs
from vlc.generate.sampling import choose, keep_likely
from vlc.models.cached_decoder import CachedDecoder

GOLDEN = {1: (0, 0.1476), 1.5: (7, 0.2811), 2: (7, 0.4562), 3: (7, 0.7758), 4: (7, 0.9271)}
MARKS = {"begin_id": BOS_ID, "end_id": EOS_ID}
IMAGES = 3


@pytest.mark.parametrize("scale", GOLDEN)
def test_golden_guidance(scale):
    unconditional, conditional = waves((8,), 0.4), waves((8,), 1.9)
    scores = guided_log_probs(jnp.asarray(conditional)[None], jnp.asarray(unconditional)[None], scale)[0]
    best, probability = GOLDEN[scale]
    assert int(scores.argmax()) == best
    assert float(jnp.exp(scores[7])) == pytest.approx(probability, abs=6e-5)
    assert float(jnp.exp(scores).sum()) == pytest.approx(1, rel=1e-5)


@functools.cache
def setting(memory="tokens"):
    config = tiny_config(model__decoder__memory=memory, model__decoder__layers=2)
    rng = np.random.default_rng(0)  # as random as they are, fresh weights would say the same word for ever
    with jax.ensure_compile_time_eval():  # it may first be asked for while another function is traced
        graph, params = tiny_model(config)
        params = jax.tree.map(lambda w: w + 0.3 * jnp.asarray(rng.normal(size=w.shape), w.dtype), params)
        model = nnx.merge(graph, params)
        return model, model.encode_image(tiny_batch(config, IMAGES)["image"])


@functools.cache
def reader(memory="tokens"):
    """Log-probabilities `[V]` of the next word of image `row` after words, with and without the image; no cache."""
    model, image = setting(memory)
    read = jax.jit(model.caption_logits)

    @functools.cache
    def next_word(row, words):
        alone = jax.tree.map(lambda x: x[row : row + 1], image)
        ids = jnp.asarray([words + (VOCAB,) * (model.decoder.length - len(words))])  # what comes later is not seen
        return [
            np.asarray(jax.nn.log_softmax(read(alone, ids, jnp.asarray([null]))[0, len(words) - 1]), np.float64)
            for null in (False, True)
        ]

    return next_word


def guided(row, words, scale, memory="tokens"):
    seen, null = reader(memory)(row, words)
    scores = null + scale * (seen - null)
    return scores - np.log(np.exp(scores).sum())


def words_of(scale, branches=("conditional", "unconditional"), memory="tokens"):
    return NextToken(CachedDecoder(*setting(memory), branches=branches), GuidanceWeights(scale, 1 - scale))


@functools.partial(jax.jit, static_argnums=(1, 2))
def searched(scale, decoding, memory="tokens", keys=None, prompt=None):
    """One compiled function for all scales and prompts."""
    run = beam_search if decoding.num_beams > 1 else functools.partial(sample, keys=keys)
    return run(words_of(scale, memory=memory), IMAGES, decoding, prompt=prompt, **MARKS)


def slow_greedy(row, scale, memory):
    words, total, plain = (BOS_ID,), 0.0, 0.0
    while len(words) < setting()[0].decoder.length and words[-1] != EOS_ID:
        scores = guided(row, words, scale, memory)
        best = int(scores.argmax())
        total, plain = total + scores[best], plain + reader(memory)(row, words)[0][best]
        words = (*words, best)
    return words[1:], total, plain


@pytest.mark.parametrize("memory", ["tokens", "embedding"])
@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_greedy_equals_a_search_without_cache(scale, memory):
    found = searched(scale, DecodingOptions(), memory)
    for row in range(IMAGES):
        words, total, plain = slow_greedy(row, scale, memory)
        ids = np.asarray(found.ids[row, 0])
        assert tuple(ids[: len(words)]) == words and (ids[len(words) :] == VOCAB).all()  # finished stays finished
        assert float(found.log_prob[row, 0]) == pytest.approx(total, abs=1e-3)
        assert float(found.image_log_prob[row, 0]) == pytest.approx(plain, abs=1e-3)
        assert int(found.tokens[row, 0]) == len(words)


def test_scale_one_is_ordinary_decoding_and_zero_does_not_see_the_image():
    plain = sample(words_of(1.0, branches=("conditional",)), IMAGES, DecodingOptions(), **MARKS)
    assert np.array_equal(searched(1.0, DecodingOptions()).ids, plain.ids)
    blind = searched(0.0, DecodingOptions()).ids
    assert (blind == blind[0]).all()


def brute_force(row, scale, length, penalty, prompt=()):
    """The best of all captions of at most `length` words that begin with the prompt, by normalised score."""
    best, score = None, -np.inf
    few = range(VOCAB)
    for size in range(len(prompt) + 1, length + 1):
        for words in itertools.product(few, repeat=size - len(prompt)):
            ends = words[-1] == EOS_ID
            if EOS_ID in words[:-1] or (not ends and size < length):
                continue
            all_words = (BOS_ID, *prompt, *words)
            total = sum(guided(row, all_words[:i], scale)[all_words[i]] for i in range(1 + len(prompt), len(all_words)))
            if total / len(words) ** penalty > score:
                best, score = (*prompt, *words), total / len(words) ** penalty
    return best, score


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_beam_search_equals_brute_force(penalty):
    """With as many beams as there are words, two words deep, nothing is missed."""
    decoding = DecodingOptions(num_beams=VOCAB, length_penalty=penalty, max_new_tokens=2, num_return_sequences=2)
    found = searched(1.7, decoding)
    for row in range(IMAGES):
        words, score = brute_force(row, 1.7, 2, penalty)
        assert tuple(np.asarray(found.ids[row, 0, : len(words)])) == words
        normalised = found.log_prob[row] / found.tokens[row] ** penalty
        assert float(normalised[0]) == pytest.approx(score, abs=1e-4) and normalised[1] <= normalised[0]


def slow_beam(row, scale, width, length, penalty):
    """Beam search over tuples; each turn keeps the best open hypotheses, and all that have ended."""
    alive, ended = [((BOS_ID,), 0.0)], []
    for size in range(1, length + 1):
        grown = [((*w, t), s + x) for w, s in alive for t, x in enumerate(guided(row, w, scale))]
        grown = sorted(grown, key=lambda item: -item[1])[: 2 * width]
        ended += [(w, s / size**penalty) for w, s in grown if w[-1] == EOS_ID or size == length]
        alive = [(w, s) for w, s in grown if w[-1] != EOS_ID and size < length][:width]
    return max(ended, key=lambda item: item[1])


@pytest.mark.parametrize("penalty", [0.0, 0.8])
def test_a_narrow_beam_equals_one_without_cache(penalty):
    found = searched(2.0, DecodingOptions(num_beams=3, length_penalty=penalty))
    for row in range(IMAGES):
        words, score = slow_beam(row, 2.0, 3, setting()[0].decoder.length - 1, penalty)
        assert tuple(np.asarray(found.ids[row, 0, : len(words) - 1])) == words[1:]
        assert float(found.log_prob[row, 0]) / int(found.tokens[row, 0]) ** penalty == pytest.approx(score, abs=1e-3)


@pytest.mark.parametrize("decoding", [DecodingOptions(), DecodingOptions(num_beams=3)])
def test_prompts_of_all_lengths_run_one_program(decoding):
    before = searched._cache_size()
    for words in ((), (7,), (9, 11, 13)):
        prompt = np.full((IMAGES, 11), VOCAB)
        prompt[:, : len(words)] = words
        found = searched(1.5, decoding, "tokens", None, jnp.asarray(prompt))
        assert (np.asarray(found.ids[:, 0, : len(words)]) == words).all()
        assert (np.asarray(found.tokens[:, 0]) == (found.ids[:, 0] != VOCAB).sum(axis=-1) - len(words)).all()
    assert searched._cache_size() <= before + 1
    words, score = brute_force(0, 1.5, 4, 1.0, (9, 11, 13))
    one_more = searched(1.5, DecodingOptions(num_beams=VOCAB, max_new_tokens=4), "tokens", None, jnp.asarray(prompt))
    assert tuple(np.asarray(one_more.ids[0, 0, :4])) == words
    assert float(one_more.log_prob[0, 0]) == pytest.approx(score, abs=1e-3)


def test_nucleus_and_top_k_keep_what_they_say():
    scores = jnp.log(jnp.asarray([[0.5, 0.3, 0.15, 0.05], [0.05, 0.15, 0.3, 0.5]]))

    def kept(**options):
        return np.isfinite(keep_likely(scores, **options)).tolist()

    assert kept(top_k=2) == [[True, True, False, False], [False, False, True, True]]
    assert kept(top_p=0.79) == [[True, True, False, False], [False, False, True, True]]
    assert kept(top_p=0.81) == [[True, True, True, False], [False, True, True, True]]
    assert kept(top_p=0.01) == [[True, False, False, False], [False, False, False, True]]
    assert kept(top_k=3, top_p=0.8) == [[True, True, False, False], [False, False, True, True]]  # of those kept before


def test_words_are_drawn_as_often_as_they_are_likely():
    scores = jnp.broadcast_to(jnp.log(jnp.asarray([0.6, 0.3, 0.1])), (6000, 3))
    keys = sampling_keys(1, jnp.arange(2000), 3)
    drawn = choose(scores, keys, jnp.int32(4), DecodingOptions(temperature=2.0))
    expected = np.sqrt([0.6, 0.3, 0.1]) / np.sqrt([0.6, 0.3, 0.1]).sum()
    np.testing.assert_allclose(np.bincount(drawn) / 6000, expected, atol=0.025)


def test_samples_depend_on_seed_and_image_alone():
    decoding = DecodingOptions(num_return_sequences=4, top_p=0.95)
    run = functools.partial(searched, 1.0, decoding, "tokens")
    one = run(sampling_keys(0, jnp.arange(3), 4)).ids
    assert np.array_equal(one, run(sampling_keys(0, jnp.arange(3), 4)).ids)
    assert not np.array_equal(one, run(sampling_keys(1, jnp.arange(3), 4)).ids)
    moved = run(sampling_keys(0, jnp.asarray([5, 1, 2]), 4)).ids
    assert np.array_equal(one[1:], moved[1:]) and not np.array_equal(one[0], moved[0])
    assert len({tuple(row) for row in np.asarray(one[0])}) > 1


def test_language_model_guidance_is_the_papers_sum():
    """`log q + a log p(y|x) - b log p(x)`, where q is another captioner that sees nothing, ended by another token."""
    model, image = setting()
    other, _ = setting("embedding")
    stop, a, b = 17, 2.0, 0.5

    def language():
        return StopAt(
            UnconditionalCaptioner(CachedDecoder(other, None, branches=("unconditional",))), stop_id=stop, end_id=EOS_ID
        )

    @jax.jit
    def run(weights):
        cached = CachedDecoder(model, image, branches=("conditional", "unconditional"))
        return sample(NextToken(cached, weights, language()), IMAGES, DecodingOptions(max_new_tokens=4), **MARKS)

    found = run(GuidanceWeights(a, -b, 1.0))
    for row in range(IMAGES):
        words = (BOS_ID,)
        while len(words) < 5 and words[-1] != EOS_ID:
            seen, null = reader()(row, words)
            q = reader("embedding")(row, words)[1].copy()
            q[EOS_ID] = np.logaddexp(q[EOS_ID], q[stop])
            scores = q + a * seen - b * null
            scores[stop] = -np.inf
            words = (*words, int(scores.argmax()))
        assert tuple(np.asarray(found.ids[row, 0, : len(words) - 1])) == words[1:]


WRONG = {
    "beams": ({"num_beams": 0}, "num_beams is 0"),
    "top_p": ({"top_p": 0.0}, "top_p is 0"),
    "temperature": ({"temperature": -1.0}, "temperature is -1"),
    "length": ({"max_new_tokens": 99}, "writes at most 11 tokens"),
    "sampling beams": ({"num_beams": 2, "top_k": 5}, "does not sample"),
    "more than beams": ({"num_beams": 2, "num_return_sequences": 3}, "at most one caption a beam"),
    "same samples": ({"num_return_sequences": 3, "temperature": 0.0}, "would be the same"),
}


@pytest.mark.parametrize("case", WRONG)
def test_settings_that_make_no_sense_are_named(case):
    settings, said = WRONG[case]
    with pytest.raises(ConfigError, match=said):
        DecodingOptions(**settings).check(11)
