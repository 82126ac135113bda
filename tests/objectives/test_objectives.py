"""Every objective equals its equations, in value and gradient, and the published golden values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import vlc
from tests import oracle
from tests.conftest import unit_rows
from tests.tiny import tiny_batch, tiny_config, tiny_model
from vlc.errors import ConfigError
from vlc.objectives import encode_batch, total_loss
from vlc.objectives.contrastive import refuse_same
from vlc.objectives.duplicates import digest, first_of_their_kind
from vlc.objectives.grouping import group_patches
from vlc.objectives.transport import sinkhorn

SCALE = 1 / 0.07


def waves(shape, phase):
    """A tensor without a random generator."""
    grid = np.indices(shape).astype(np.float64)
    slow = sum(a * b for a, b in zip((0.7, 1.3, 0.31, 0.17), grid, strict=False))
    fast = sum((i + 1) * b for i, b in enumerate(grid))
    return np.sin(slow + phase) + 0.5 * np.cos(2.1 * fast + phase)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


V, W, X = unit(waves((3, 4, 6), 0.2)), unit(waves((3, 5, 6), 1.1)), unit(waves((3, 4, 6), 2.3))
MASK = np.arange(5) < np.array([5, 3, 4])[:, None]
IMAGE = unit(V.mean(axis=1))
TEXT = unit((W * MASK[..., None]).sum(axis=1) / MASK.sum(axis=1)[:, None])

GOLDEN = {
    "filip": (lambda: vlc.objectives.filip_loss(V, W, MASK, SCALE), 1.737397),
    "clip": (lambda: vlc.objectives.clip_loss(IMAGE, TEXT, SCALE), 2.357568),
    "align": (
        lambda: vlc.objectives.clip_loss(IMAGE, TEXT, SCALE, label_smoothing=0.1, reduction="sum"),
        5.923127,
    ),
    "dreamlip": (lambda: vlc.objectives.multi_positive_loss(IMAGE, X, SCALE), 6.124858),
    "gbc": (lambda: vlc.objectives.multi_positive_loss(IMAGE, X, SCALE, negatives="all"), (12.446343 + 6.391361) / 2),
    "grouping": (lambda: vlc.objectives.grouping_loss(V, X, SCALE), 0.755127),
    "grouping, batch": (lambda: vlc.objectives.grouping_loss(V, X, SCALE, negatives="batch"), 2.452784),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_values(name):
    loss, value = GOLDEN[name]
    assert float(loss()) == pytest.approx(value, abs=5e-6)


def test_golden_scores():
    i2t, t2i = vlc.late_interaction(*(jnp.asarray(x, jnp.float32) for x in (V, W)), jnp.asarray(MASK))
    wanted = [[0.937974, 0.52414, 0.894506], [0.950576, 0.611666, 0.913485], [0.917655, 0.775974, 0.90685]]
    np.testing.assert_allclose(i2t, wanted, atol=2e-6)
    wanted = [[0.872293, 0.840813, 0.805058], [0.910811, 0.792624, 0.848157], [0.843004, 0.825236, 0.830031]]
    np.testing.assert_allclose(t2i, wanted, atol=2e-6)


def inputs(name):
    """Inputs with uneven sizes, padded rows among them; the first ones are differentiated."""
    rng = np.random.default_rng(3)
    image, text = unit_rows(rng, 5, 7), unit_rows(rng, 5, 7)
    patches, tokens = unit_rows(rng, 5, 6, 7), unit_rows(rng, 5, 4, 7)
    mask = np.arange(4) < np.array([4, 1, 3, 2, 4])[:, None]
    captions = unit_rows(rng, 5, 3, 7)
    hard, hard_words = unit_rows(rng, 5, 3, 7), unit_rows(rng, 5, 3, 4, 7)
    hard_mask = np.arange(4) < rng.integers(1, 5, (5, 3, 1))
    hard_mask[1], hard_mask[3, 1:] = False, False
    there = hard_mask.any(axis=2)
    labels, logits = rng.integers(0, 6, (5, 4)), rng.normal(size=(5, 4, 6)).astype(np.float32)
    o = vlc.objectives
    _, margin = oracle.hard_margin(image, text, hard, there, 9.0, 2.0)  # no gradient is taken of it
    return {
        "clip": ((image, text, 9.0), o.clip_loss, oracle.clip),
        "align": (
            (image, text, 9.0),
            lambda *a: o.clip_loss(*a, label_smoothing=0.1, reduction="sum"),
            lambda *a: oracle.clip(*a, 0.1, "sum"),
        ),
        "clip, transport": (
            (image, text, 9.0),
            lambda *a: o.clip_loss(*a, transport=0.3),
            lambda *a: oracle.clip_transported(*a, 0.3, oracle.transport(9.0 * image @ text.T)),  # no gradient of it
        ),
        "siglip": ((image, text, 9.0, -3.0), o.siglip_loss, oracle.siglip),
        "filip": (
            (patches, tokens, 9.0),
            lambda v, t, s: o.filip_loss(v, t, jnp.asarray(mask), s),
            lambda v, t, s: oracle.filip(v, t, mask, s),
        ),
        "filip, by text": (
            (patches, tokens, 9.0),
            lambda v, t, s: o.filip_loss(v, t, jnp.asarray(mask), s, scores="text"),
            lambda v, t, s: oracle.filip_by_text(v, t, mask, s),
        ),
        "slot": (
            (image, captions, 9.0),
            lambda *a: o.multi_positive_loss(*a, negatives="slot"),
            lambda *a: oracle.multi_positive(*a, "slot"),
        ),
        "all": (
            (image, captions, 9.0),
            lambda *a: o.multi_positive_loss(*a, negatives="all"),
            lambda *a: oracle.multi_positive(*a, "all"),
        ),
        "grouping": ((patches, captions, 9.0), o.grouping_loss, oracle.grouping),
        "grouping, batch": (
            (patches, captions, 9.0),
            lambda *a: o.grouping_loss(*a, threshold=0.4, negatives="batch"),
            lambda *a: oracle.grouping(*a, threshold=0.4, negatives="batch"),
        ),
        "hard_clip": (
            (image, text, hard, 9.0),
            lambda v, t, w, s: o.hard_texts.hard_clip_loss(v, t, w, jnp.asarray(there), s),
            lambda v, t, w, s: oracle.hard_clip(v, t, w, there, s),
        ),
        "hard_filip": (
            (patches, tokens, hard_words, 9.0),
            lambda v, t, w, s: o.hard_texts.hard_filip_loss(v, t, jnp.asarray(mask), w, jnp.asarray(hard_mask), s),
            lambda v, t, w, s: oracle.hard_filip(v, t, mask, w, hard_mask, s),
        ),
        "hard_margin": (
            (image, text, hard, 9.0),
            lambda v, t, w, s: o.hard_margin.hard_margin_loss(v, t, w, jnp.asarray(there, jnp.float32), s, 2.0),
            lambda v, t, w, s: oracle.hard_margin(v, t, w, there, s, 2.0, margin)[0],
        ),
        "hard_filip, by text": (
            (patches, tokens, hard_words, 9.0),
            lambda v, t, w, s: o.hard_texts.hard_filip_loss(
                v, t, jnp.asarray(mask), w, jnp.asarray(hard_mask), s, scores="text"
            ),
            lambda v, t, w, s: oracle.hard_filip_by_text(v, t, mask, w, hard_mask, s),
        ),
        "hard_filip, soft maxima both ways": (
            (patches, tokens, hard_words, 9.0),
            lambda v, t, w, s: o.hard_texts.hard_filip_loss(
                v, t, jnp.asarray(mask), w, jnp.asarray(hard_mask), s, smoothing=0.1
            ),
            lambda v, t, w, s: oracle.hard_filip(v, t, mask, w, hard_mask, s, 0.1),
        ),
        "hard_filip, soft maxima": (
            (patches, tokens, hard_words, 9.0),
            lambda v, t, w, s: o.hard_texts.hard_filip_loss(
                v, t, jnp.asarray(mask), w, jnp.asarray(hard_mask), s, scores="text", smoothing=0.1
            ),
            lambda v, t, w, s: oracle.hard_filip_by_text(v, t, mask, w, hard_mask, s, 0.1),
        ),
        "clip, wrong texts": (
            (image, text, hard, 9.0),
            lambda v, t, w, s: o.clip_loss(v, t, s, further=(w, jnp.asarray(there)), further_weight=0.5),
            lambda v, t, w, s: oracle.clip_wrong(v, t, w, there, s, 0.5),
        ),
        "siglip, wrong texts": (
            (image, text, hard, 9.0, -3.0),
            lambda v, t, w, s, b: o.siglip_loss(v, t, s, b, further=(w, jnp.asarray(there)), further_weight=0.5),
            lambda v, t, w, s, b: oracle.siglip_wrong(v, t, w, there, s, b, 0.5),
        ),
        "filip, wrong texts": (
            (patches, tokens, hard_words, 9.0),
            lambda v, t, w, s: o.filip_loss(
                v, t, jnp.asarray(mask), s, further=(w, jnp.asarray(hard_mask)), further_weight=0.5
            ),
            lambda v, t, w, s: oracle.filip_wrong(v, t, mask, w, hard_mask, s, 0.5),
        ),
        "caption, token": (
            (logits,),
            lambda x: o.caption_loss(x, jnp.asarray(labels), jnp.asarray(mask)),
            lambda x: oracle.caption(x, labels, mask, "token"),
        ),
        "caption, example": (
            (logits,),
            lambda x: o.caption_loss(x, jnp.asarray(labels), jnp.asarray(mask), average="example"),
            lambda x: oracle.caption(x, labels, mask, "example"),
        ),
    }[name]


NAMES = [
    "clip", "align", "siglip", "filip", "slot", "all", "grouping", "grouping, batch", "caption, token",
    "caption, example", "hard_clip", "hard_filip", "clip, wrong texts", "siglip, wrong texts", "filip, wrong texts",
    "filip, by text", "hard_filip, by text", "clip, transport", "hard_margin",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_value_and_gradient_equal_the_equations(name):
    args, ours, equations = inputs(name)
    places = tuple(range(len(args)))
    value, gradients = jax.value_and_grad(ours, places)(*(jnp.asarray(x, jnp.float32) for x in args))
    exact = [np.asarray(x, np.float64) for x in args]
    assert float(value) == pytest.approx(equations(*exact), rel=2e-6, abs=2e-6)
    for place, gradient in enumerate(gradients):

        def alone(x, place=place):
            return equations(*exact[:place], x, *exact[place + 1 :])

        np.testing.assert_allclose(gradient, oracle.numerical_gradient(alone, exact[place]), rtol=2e-4, atol=2e-5)


def test_without_wrong_texts_there_is_nothing_to_lose():
    rng = np.random.default_rng(0)
    image, text, hard = unit_rows(rng, 3, 8), unit_rows(rng, 3, 8), unit_rows(rng, 3, 2, 8)
    loss = jax.value_and_grad(vlc.objectives.hard_texts.hard_clip_loss, (0, 1, 2))
    value, gradients = loss(image, text, hard, jnp.zeros((3, 2)), 9.0)
    assert value == 0 and all(not np.any(gradient) for gradient in gradients)


@pytest.mark.parametrize("change", ["content", "columns"])
def test_pads_change_nothing(change):
    """Other pads change neither loss nor gradient by one bit; more pads change them by rounding at most."""
    rng = np.random.default_rng(0)
    patches, tokens = unit_rows(rng, 6, 5, 8), unit_rows(rng, 6, 4, 8)
    mask = np.arange(4) < np.array([4, 2, 3, 1, 4, 2])[:, None]
    if change == "content":
        other, other_mask = np.where(mask[..., None], tokens, 100 * rng.normal(size=tokens.shape)), mask
    else:
        other = np.concatenate([tokens, 100 * rng.normal(size=(6, 3, 8))], axis=1)
        other_mask = np.concatenate([mask, np.zeros((6, 3), bool)], axis=1)

    def run(tokens, mask):
        loss = jax.value_and_grad(vlc.objectives.filip_loss, (0, 1, 3))
        value, (d_patches, d_tokens, d_scale) = loss(patches, tokens.astype(np.float32), mask, jnp.float32(10))
        return value, d_patches, np.where(mask[:, :4, None], d_tokens[:, :4], 0), d_scale

    for a, b in zip(run(tokens, mask), run(other, other_mask), strict=True):
        if change == "content":
            assert np.array_equal(a, b)
        else:
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_pads_of_captions_change_nothing():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(3, 5, 7)).astype(np.float32), rng.integers(0, 7, (3, 5))
    mask = np.arange(5) < np.array([5, 2, 3])[:, None]
    pads = np.where(mask, labels, 10**6)  # an id outside the vocabulary
    other = np.where(mask[..., None], logits, 50.0).astype(np.float32)
    for average in ("token", "example"):
        one = vlc.objectives.caption_loss(logits, labels, mask, average=average)
        two = vlc.objectives.caption_loss(other, pads, mask, average=average)
        assert one == two and np.isfinite(one)


def test_patches_that_all_tie_count_alike():
    patches = np.ones((1, 4, 4), np.float32) / 2
    grouped = group_patches(jnp.asarray(patches), jnp.asarray(patches[:, :2]))
    np.testing.assert_allclose(grouped, patches[:, :2], atol=1e-6)
    gradient = jax.grad(vlc.objectives.grouping_loss)(jnp.asarray(patches), jnp.asarray(patches[:, :2]), 10.0)
    assert np.isfinite(gradient).all()


def test_a_threshold_of_one_keeps_the_most_similar_patch():
    rng = np.random.default_rng(0)
    patches, captions = unit_rows(rng, 4, 6, 8), unit_rows(rng, 4, 3, 8)
    found = np.asarray(group_patches(jnp.asarray(patches), jnp.asarray(captions), threshold=1.0))
    best = np.einsum("ikd,ipd->ikp", captions, patches).argmax(axis=2)
    np.testing.assert_allclose(
        found, np.take_along_axis(patches[:, None], best[:, :, None, None], 2)[:, :, 0], atol=1e-6
    )


@pytest.mark.parametrize("sentences", [1, 2, 3])
def test_sub_captions_that_come_again_are_no_negatives(sentences):
    """An image of few sentences fills its slots with the same ones: the loss is that of the different ones."""
    rng = np.random.default_rng(1)
    patches, different = unit_rows(rng, 1, 6, 8), unit_rows(rng, 1, sentences, 8)
    drawn = np.array([0, *rng.permutation(np.arange(6) % sentences)])
    ids = jnp.asarray(rng.integers(3, 50, (1, sentences, 9)))[:, drawn]
    distinct = first_of_their_kind(digest(ids))
    assert int(distinct.sum()) == sentences

    def loss(patches, captions, distinct=None):
        return vlc.objectives.grouping_loss(patches, captions, SCALE, distinct=distinct)

    value, gradient = jax.value_and_grad(loss)(jnp.asarray(patches), jnp.asarray(different[:, drawn]), distinct)
    exact, wanted = jax.value_and_grad(loss)(jnp.asarray(patches), jnp.asarray(different))
    assert float(value) == pytest.approx(float(exact), abs=1e-6)
    np.testing.assert_allclose(gradient, wanted, atol=1e-5)
    assert sentences > 1 or float(value) == 0  # one sentence has nothing to be told from


def test_an_image_with_fewer_captions_counts_with_those_it_has():
    """GBC's loss over all captions, of ragged K."""
    rng = np.random.default_rng(2)
    image, captions = unit_rows(rng, 4, 8), unit_rows(rng, 4, 3, 8)
    counts = (3, 1, 2, 3)
    present = (np.arange(3) < np.array(counts)[:, None]).astype(np.float32)
    total = 0.0
    logits = SCALE * np.einsum("id,jkd->ijk", image.astype(np.float64), captions)
    for i, count in enumerate(counts):
        rest = np.concatenate([logits[i, j, : counts[j]] for j in range(4) if j != i])
        for k in range(count):
            total += np.log(np.exp(logits[i, i, k]) + np.exp(rest).sum()) - logits[i, i, k]
            total += np.log(np.exp(logits[:, i, k]).sum()) - logits[i, i, k]
    found = vlc.objectives.multi_positive_loss(image, captions, SCALE, negatives="all", present=jnp.asarray(present))
    assert float(found) == pytest.approx(total / 2 / sum(counts), rel=1e-5)


SAME = np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]], bool)


@pytest.mark.parametrize("name", ["clip", "align", "siglip", "filip"])
def test_pairs_that_are_the_same_take_no_part(name):
    """Records 0 and 1 have one caption: the loss is the mean of what each row and column says without the other."""
    rng = np.random.default_rng(3)
    image, text = unit_rows(rng, 4, 8), unit_rows(rng, 4, 8)
    tokens, words = unit_rows(rng, 4, 5, 8), unit_rows(rng, 4, 3, 8)
    o, mask, smooth = vlc.objectives, np.ones((4, 3), bool), 0.1 if name == "align" else 0.0
    if name == "siglip":
        logits = 9 * image.astype(np.float64) @ text.T - 3
        signs = 2 * np.eye(4) - 1
        wanted = np.where(SAME, 0, np.log1p(np.exp(-signs * logits))).sum() / 4
        assert float(o.siglip_loss(image, text, 9.0, -3.0, same=jnp.asarray(SAME))) == pytest.approx(wanted, rel=1e-5)
        return
    if name == "filip":
        i2t, t2i = (9 * np.asarray(x, np.float64) for x in vlc.late_interaction(tokens, words, mask))
        found = o.filip_loss(tokens, words, jnp.asarray(mask), 9.0, same=jnp.asarray(SAME))
    else:
        i2t = t2i = 9 * image.astype(np.float64) @ text.T
        found = o.clip_loss(image, text, 9.0, label_smoothing=smooth, same=jnp.asarray(SAME))
    losses = []
    for rows in (i2t, t2i.T):
        for i in range(4):
            kept = [j for j in range(4) if not SAME[i, j]]
            logs = rows[i, kept] - np.log(np.exp(rows[i, kept]).sum())
            losses.append(-(1 - smooth) * logs[kept.index(i)] - smooth * logs.mean())
    assert float(found) == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.parametrize("negatives", ["slot", "all"])
def test_equal_captions_and_images_of_a_batch_can_be_ignored(negatives):
    """From ids to loss: with every caption and image different nothing changes, with equal ones a pair drops out."""
    off = tiny_config(objectives__filip__weight=0.0, objectives__caption__weight=0.0, model__decoder__layers=0)
    off.objectives.multi_positive.negatives = negatives
    on = off.copy_and_resolve_references()
    for name in ("clip", "multi_positive"):
        on.objectives[name].duplicates = "ignored"
    graph, params = tiny_model(off)
    batch = tiny_batch(off)

    def loss(config, batch):
        model = nnx.merge(graph, params)
        return float(total_loss(encode_batch(model, batch, config.objectives), model.scales(), config.objectives)[0])

    assert loss(on, batch) == pytest.approx(loss(off, batch), rel=1e-6)
    for part in ("text", "image"):
        twice = batch | {part: batch[part].at[5].set(batch[part][2])}
        assert loss(on, twice) < loss(off, twice) - 1e-3
    with pytest.raises(ConfigError, match='needs exchange="gather"'):
        refuse_same(SAME)


def test_losses_at_the_start_have_their_closed_forms():
    same = np.tile(unit_rows(np.random.default_rng(0), 1, 4), (8, 1))
    assert float(vlc.objectives.clip_loss(same, same, 5.0)) == pytest.approx(np.log(8), rel=1e-5)
    wanted = np.logaddexp(0, -(5 - 10)) + 7 * np.logaddexp(0, 5 - 10)
    assert float(vlc.objectives.siglip_loss(same, same, 5.0, -10.0)) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(
    "call",
    [
        lambda o: o.clip_loss(IMAGE, TEXT, 1.0, reduction="avg"),
        lambda o: o.multi_positive_loss(IMAGE, X, 1.0, negatives="slots"),
        lambda o: o.grouping_loss(V, X, 1.0, negatives="none"),
        lambda o: o.caption_loss(np.zeros((1, 1, 2)), np.zeros((1, 1), int), np.ones((1, 1), bool), average="mean"),
        lambda o: vlc.late_interaction(V, W, MASK, implementation="palas"),
    ],
)
def test_unknown_options_are_errors(call):
    with pytest.raises(ConfigError):
        call(vlc.objectives)


def test_a_transport_plan_is_doubly_stochastic_and_survives_large_logits(rng):
    logits = jnp.asarray(100 * rng.normal(size=(6, 6)), jnp.float32)
    plan = sinkhorn(logits, 500)
    assert np.isfinite(plan).all()
    np.testing.assert_allclose(plan.sum(0), 1, atol=1e-4)
    np.testing.assert_allclose(sinkhorn(jnp.asarray(rng.normal(size=(3, 6))), 50).sum(1), 1, atol=1e-4)
    np.testing.assert_allclose(sinkhorn(logits / 100, 50), oracle.transport(logits / 100), atol=1e-5)


def test_what_does_not_go_with_transport_is_refused(rng):
    image, text = unit_rows(rng, 4, 3), unit_rows(rng, 4, 3)
    for others in ({"exchange": "ring"}, {"label_smoothing": 0.1}, {"same": jnp.zeros((4, 4), bool)}):
        with pytest.raises(ConfigError, match=r"clip\.transport needs"):
            vlc.objectives.clip_loss(image, text, 9.0, transport=0.3, **others)


@pytest.mark.parametrize("near", [False, True])
def test_a_margin_adapts_and_is_bounded(rng, near):
    """Where captions are well above, the margin is the bound and nothing is lost; where they are below, it is 0."""
    image = unit_rows(rng, 4, 3)
    wrong = jnp.asarray((image if near else -image)[:, None])
    loss = vlc.objectives.hard_margin.hard_margin_loss(image, -image if near else image, wrong, jnp.ones((4, 1)), 9.0)
    assert float(loss) == pytest.approx(18.0 if near else 0.0, abs=1e-4)
    none = vlc.objectives.hard_margin.hard_margin_loss(image, image, wrong, jnp.zeros((4, 1)), 9.0)
    assert float(none) == 0.0
