"""Pictures of any shape: nothing is cut off, and the pads behind their patches change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from tests import oracle
from tests.conftest import unit_rows
from tests.tiny import VOCAB, leaves, tiny_batch, tiny_config
from vlc.config import check_config
from vlc.data.images import Preprocess
from vlc.data.naflex import pack, shape_for, unpack
from vlc.errors import ConfigError
from vlc.evaluate.metrics.retrieval import token_scores
from vlc.evaluate.report import figures
from vlc.inference import Model
from vlc.inference.comparison import all_scores, pair_scores
from vlc.interop import Imported
from vlc.interop.load import at_size
from vlc.models.cached_decoder import CachedDecoder
from vlc.models.places import places_of_shapes, places_of_square, sines_at, table_at
from vlc.objectives import encode_batch, filip_loss, total_loss
from vlc.parallel import batch_sharding, make_mesh, state_sharding
from vlc.similarity import late_interaction
from vlc.train.inputs import make_preprocess
from vlc.train.patches import random_patches
from vlc.train.state import build_model
from vlc.train.step import loss_and_gradient

PATCH, SHAPES = 8, ((2, 4), (3, 2), (4, 4), (1, 5))


def naflex_config(**changes):
    """Budgets of 16 patches."""
    return tiny_config(data__image__size=32, data__image__resize="naflex", model__image__patch=PATCH, **changes)


def pictures(seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (rows * PATCH, columns * PATCH, 3), np.uint8) for rows, columns in SHAPES]


def packed(size):
    return jnp.asarray(np.stack([pack(picture, PATCH, size) for picture in pictures()]))


@pytest.mark.parametrize(
    ("height", "width"), [(480, 640), (640, 480), (64, 64), (7, 3000), (2000, 3), (1, 1), (33, 517)]
)
def test_a_picture_gets_as_many_patches_as_fit_in_its_own_aspect(height, width):
    rows, columns = shape_for(height, width, 16, 256)
    assert 1 <= rows * columns <= 256
    more = shape_for(height, width, 16, 300)
    assert more[0] * more[1] >= rows * columns
    if 0.25 < height / width < 4:  # whole patches of a near square keep the aspect
        assert abs(np.log((rows / columns) / (height / width))) < 0.15
        assert rows * columns > 200 or height == 1


def test_what_is_packed_is_the_picture_and_can_be_looked_at():
    preprocess = Preprocess(64, resize="naflex", patch=8)
    y, x = np.mgrid[:90, :200]
    picture = np.stack([y, x, y + x], axis=-1).astype(np.uint8) // 2
    seen = preprocess(picture)
    shown = preprocess.picture(seen)
    rows, columns = shape_for(90, 200, 8, 64)
    assert seen.shape == preprocess.shape == (65, 64, 3) and shown.shape == (rows * 8, columns * 8, 3)
    left, right = shown[:, : columns * 4], shown[:, columns * 4 :]
    assert right[..., 1].mean() > left[..., 1].mean() + 30  # nothing is out of order
    assert np.array_equal(pack(shown, 8, 64), seen)
    for picture in pictures():
        assert np.array_equal(unpack(pack(picture, PATCH, 32), PATCH), picture)


def test_crops_and_flips_keep_their_own_aspect():
    preprocess = Preprocess(64, resize="naflex", patch=8, crop_scale=(0.3, 0.6), flip=True)
    y, x = np.mgrid[:60, :240]
    picture = np.stack([y, x, 0 * x], axis=-1).astype(np.uint8)
    grids, directions = set(), set()
    for seed in range(20):
        shown = preprocess.picture(preprocess(picture, rng=np.random.default_rng(seed))).astype(int)
        grids.add(shown.shape[:2])
        directions.add(int(np.sign(shown[:, -1, 1].mean() - shown[:, 0, 1].mean())))
    assert len(grids) > 1 and directions == {-1, 1}


def test_a_table_is_resampled_as_a_picture_is():
    """Against JAX's own resizing, whose triangles are those of PyTorch where the grid grows or shrinks."""
    table = jax.random.normal(jax.random.key(0), (36, 5))
    for rows, columns in ((6, 6), (3, 9), (12, 2), (1, 5)):
        places = places_of_shapes(6, jnp.asarray([[rows, columns]]), rows * columns)
        expected = jax.image.resize(table.reshape(6, 6, 5), (rows, columns, 5), "linear", antialias=True)
        np.testing.assert_allclose(table_at(table, places)[0], expected.reshape(-1, 5), atol=1e-5)
    assert table_at(table, places_of_square(6, 6)) is table
    own, other = places_of_square(4, 4), places_of_shapes(4, jnp.asarray([[4, 4]]), 20)
    np.testing.assert_allclose(sines_at(other, 16)[0, :16], sines_at(own, 16), atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"model__image__pool": "map"},
        {"model__image__pool": "mean", "model__image__positions": "sines", "model__image__rotary": True},
        {"model__image__pool": "cls", "model__image__registers": 2, "model__decoder__memory": "pooled"},
        {"model__image__pool": "queries", "model__image__queries": 3, "model__image__pool_heads": 2},
    ],
)
def test_pads_change_nothing(changes):
    """The same pictures with a larger budget have more pads, and all else stays."""
    config = naflex_config(**changes)
    check_config(config)
    config.model.image.grid = 4
    model = build_model(config, VOCAB, jax.random.key(0))
    small, large = (model.encode_image(packed(size)) for size in (32, 48))
    np.testing.assert_allclose(small.embed, large.embed, atol=2e-6)
    if small.mask is not None:
        assert small.mask.sum(axis=1).tolist() == [rows * columns for rows, columns in SHAPES]
        assert not np.asarray(large.tokens)[~np.asarray(large.mask)].any()
        np.testing.assert_allclose(large.tokens[:, :16], small.tokens, atol=2e-6)
    text = model.encode_text(tiny_batch(config, 4)["text"])
    scores = [late_interaction(image.tokens, text.tokens, text.mask, image_mask=image.mask) for image in (small, large)]
    np.testing.assert_allclose(scores[0], scores[1], atol=2e-6)
    ids = tiny_batch(config, 4)["target"]
    logits = [model.caption_logits(image, ids) for image in (small, large)]
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-5)
    stepwise = CachedDecoder(model, large)
    first, _ = stepwise.step(ids[:, 0], jnp.int32(0), stepwise.start(4))
    np.testing.assert_allclose(first[0], logits[0][:, 0], atol=1e-5)


def test_a_square_picture_packed_is_the_same_as_the_square():
    config = naflex_config()
    model = build_model(config, VOCAB, jax.random.key(0))
    picture = pictures()[2]
    whole, same = model.encode_image(picture[None]), model.encode_image(pack(picture, PATCH, 32)[None])
    np.testing.assert_allclose(whole.embed, same.embed, atol=1e-6)
    np.testing.assert_allclose(whole.tokens, same.tokens, atol=1e-6)
    assert whole.mask is None


def example(count=16, patches=7, tokens=6, width=8):
    rng = np.random.default_rng(0)
    return {
        "images": unit_rows(rng, count, patches, width),
        "texts": unit_rows(rng, count, tokens, width),
        "mask": np.arange(tokens) < np.maximum(rng.integers(0, tokens + 1, count), np.arange(count) == 0)[:, None],
        "image_mask": np.arange(patches) < rng.integers(1, patches + 1, count)[:, None],
        "wrong": unit_rows(rng, count, 2, tokens, width),
        "wrong_mask": np.arange(tokens) < rng.integers(0, tokens + 1, (count, 2, 1)),
    }


@pytest.mark.parametrize("smoothing", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("implementation", ["xla", "reference"])
def test_scores_are_those_of_each_image_without_its_pads(implementation, smoothing):
    x = example()
    i2t, t2i = late_interaction(
        x["images"], x["texts"], x["mask"], image_mask=x["image_mask"], smoothing=smoothing,
        implementation=implementation,
    )  # fmt: skip
    for row in range(len(i2t)):
        alone = x["images"][row : row + 1, : x["image_mask"][row].sum()]
        expected = oracle.late_interaction(alone, x["texts"], x["mask"], smoothing)
        np.testing.assert_allclose(i2t[row], expected[0][0], atol=1e-5 * (1 + 2 * smoothing))
        np.testing.assert_allclose(t2i[row], expected[1][0], atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"scores": "text"}, {"smoothing": 0.05}, {"keep_tokens": 0.5}, {"hard": True}])
@pytest.mark.parametrize("exchange", ["gather", "ring"])
def test_the_loss_is_the_same_on_a_mesh_and_pads_have_no_gradient(options, exchange):
    x = {name: jnp.asarray(value) for name, value in example().items()}
    options = dict(options)
    further = (x["wrong"], x["wrong_mask"]) if options.pop("hard", False) else None

    def loss(images, texts, scale, exchange="gather"):
        return filip_loss(
            images, texts, x["mask"], scale, image_mask=x["image_mask"], exchange=exchange, further=further, **options
        )

    inputs = x["images"], x["texts"], jnp.float32(5.0)
    expected = jax.value_and_grad(loss, (0, 1, 2))(*inputs)
    assert not np.asarray(expected[1][0])[~np.asarray(x["image_mask"])].any()
    if options.get("keep_tokens"):
        return  # what is kept depends on the local batch
    mesh = make_mesh({"data": 4, "fsdp": 2, "tensor": 1})
    rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    with jax.set_mesh(mesh):
        placed = [jax.device_put(value, rows) for value in inputs[:2]]
        found = jax.jit(jax.value_and_grad(lambda *a: loss(*a, exchange=exchange), (0, 1, 2)))(*placed, inputs[2])
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_what_stands_in_pads_never_reaches_the_loss_or_the_gradient():
    config = naflex_config(objectives__filip__smoothing=0.05)
    graph, params = nnx.split(build_model(config, VOCAB, jax.random.key(0)))
    batch = tiny_batch(config, 4) | {"image": packed(32)}
    noisy = np.array(batch["image"])
    for row, (rows, columns) in enumerate(SHAPES):
        for number in range(rows * columns, 16):
            down, across = divmod(number, 4)
            noisy[row, down * PATCH : (down + 1) * PATCH, across * PATCH : (across + 1) * PATCH] = 255

    @jax.jit
    def run(images):
        def loss(params):
            model = nnx.merge(graph, params)
            encoded = encode_batch(model, batch | {"image": images}, config.objectives)
            return total_loss(encoded, model.scales(), config.objectives)[0]

        return jax.value_and_grad(loss)(params)

    for one, other in zip(*(jax.tree.leaves(run(images)) for images in (batch["image"], noisy)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_flip_drops_patches_that_there_are():
    """Of an image with as many patches as are kept, all are; of one with more, none of its pads."""
    kept = np.asarray(random_patches(packed(32), PATCH, 0.5, jax.random.key(0)))
    assert kept.shape == (4, 8)
    for row, (rows, columns) in zip(kept, SHAPES, strict=True):
        assert (row < rows * columns).sum() == min(8, rows * columns)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model__image__stem": "conv"}, "stem=patch"),
        ({"data__image__augment": "auto"}, "crops and flips do"),
        ({"data__image__patch": 4}, "leave it at 0"),
    ],
)
def test_what_does_not_go_together_is_named(changes, said):
    with pytest.raises(ConfigError, match=said):
        check_config(naflex_config(**changes))
    with pytest.raises(ConfigError, match="its budget"):
        Preprocess(30, resize="naflex", patch=8)


def test_a_trained_model_shows_its_word_maps_in_the_picture_s_own_shape(tokenizer):
    config = naflex_config()
    config.data.image.patch = PATCH
    graph, params = nnx.split(build_model(config, tokenizer.vocab_size, jax.random.key(0)))
    model = Model(graph, params, config, tokenizer, make_preprocess(config))
    pieces, maps = model.word_maps(np.zeros((20, 70, 3), np.uint8), "a red cat")
    rows, columns = shape_for(20, 70, PATCH, 16)
    assert maps.shape == (len(pieces), rows, columns)
    image, text = model.encode_image(pictures()), model.encode_text(["a red cat", "a dog"])
    i2t, t2i = all_scores(model, image, text, "tokens")
    for by_row, by_pair in ((token_scores(image.tokens, text)[0], i2t), (token_scores(image.tokens, text)[1], t2i)):
        np.testing.assert_allclose(by_row, by_pair, atol=1e-6)
    owner = np.array([1, 3])
    paired = pair_scores(model, image, text, owner, "tokens")
    np.testing.assert_allclose(paired, (i2t[owner, [0, 1]] + t2i[owner, [0, 1]]) / 2, atol=1e-5)
    squares = np.stack([model.preprocess.squashed()(picture) for picture in pictures()])
    assert model.encode_pixels(squares).tokens.shape == (4, 16, 32)  # as segmentation wants them
    heat = figures.word_maps([{"image": np.zeros((24, 48, 3), np.uint8), "maps": [("cat", maps[0][:2, :2])]}])
    assert heat.startswith(b"\x89PNG")
    assert figures._enlarge(maps[0], rows * 8, columns * 8).shape == (rows * 8, columns * 8)


@pytest.mark.slow
def test_every_gradient_is_the_same_on_a_mesh_and_in_parts():
    config = naflex_config(model__image__pool="map", objectives__filip__smoothing=0.05)
    graph, params = nnx.split(build_model(config, VOCAB, jax.random.key(0)))
    batch = tiny_batch(config, 16) | {"image": jnp.concatenate([packed(32)] * 4)}

    def run(shape, accumulate):
        mesh = make_mesh(
            dict(zip(("data", "fsdp", "tensor"), shape, strict=True)), jax.devices()[: int(np.prod(shape))]
        )
        step = jax.jit(lambda params, batch: loss_and_gradient(graph, params, batch, config.objectives, accumulate))
        with jax.set_mesh(mesh):
            placed = jax.device_put(params, state_sharding(params, mesh)), jax.device_put(batch, batch_sharding(mesh))
            total, _, gradient = step(*placed)
        return float(total), leaves(gradient)

    (total, gradient), (also, other) = run((1, 1, 1), 1), run((2, 2, 2), 2)
    np.testing.assert_allclose(also, total, rtol=1e-5)
    for path, value in gradient.items():
        np.testing.assert_allclose(other[path], value, atol=1e-4 * np.abs(value).max() + 1e-6, err_msg=path)


def test_another_budget_leaves_the_table_as_it_is(tokenizer):
    """As `--image-size` asks for it: a packed picture of the same grid keeps its embedding."""
    config = naflex_config()
    params = nnx.state(build_model(config, tokenizer.vocab_size, jax.random.key(0)), nnx.Param)
    small = Imported(config, params, tokenizer, make_preprocess(config))
    large = at_size(small, 48)
    assert large.preprocess.shape == (49, 48, 3) and large.config.model.image.grid == 4 and not large.notes
    one, other = (Model.of(model).encode_pixels(np.asarray(packed(size))) for model, size in ((small, 32), (large, 48)))
    np.testing.assert_allclose(one.embed, other.embed, atol=2e-6)
