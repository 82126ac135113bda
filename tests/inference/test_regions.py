"""What a user asks of regions: vectors, captions, boxes; and what is no region."""

import numpy as np
import pytest
from PIL import Image

from vlc.data.masks import Mask
from vlc.data.sources import Scenes
from vlc.errors import ConfigError, DataError
from vlc.inference import Model
from vlc.inference.captioning import CaptionRequest, generate_captions

BOXES = [[0.1, 0.2, 0.6, 0.7], [0.5, 0.5, 0.9, 0.95], [0, 0, 1, 1]]


@pytest.fixture(scope="module")
def images():
    scenes = Scenes(side=40, length=3)
    return [scenes[i].image for i in range(3)]


def test_vectors_of_boxes_masks_and_points(tiny_regions, images):
    one = tiny_regions.encode_regions(images[0], boxes=BOXES)
    assert one.shape == (3, tiny_regions.config.model.embed_dim)
    np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1, rtol=1e-5)
    several = tiny_regions.encode_regions(images, boxes=[BOXES, [], BOXES[:1]])
    assert [len(found) for found in several] == [3, 0, 1]
    np.testing.assert_allclose(several[0], one, atol=1e-5)
    mask = np.zeros((40, 40), bool)
    mask[8:28, 4:24] = True
    masked = tiny_regions.encode_regions(images[0], masks=[mask, Mask.of(mask)])
    np.testing.assert_allclose(masked[0], masked[1])
    np.testing.assert_allclose(masked[0], one[0], atol=1e-5)  # the same pixels
    assert tiny_regions.encode_regions(images[0], points=[(0.5, 0.5), (0.99, 1.0)]).shape[0] == 2
    picture = Image.fromarray(images[0])
    np.testing.assert_allclose(tiny_regions.encode_regions(picture, boxes=BOXES), one, atol=1e-5)


def test_crops_are_pictures_of_their_own(tiny_regions, images):
    found = tiny_regions.encode_regions(images[0], boxes=[[0.25, 0.25, 0.75, 1], BOXES[2]], crop=True)
    cut = tiny_regions.encode_image([images[0][10:40, 10:30], images[0]]).embed
    np.testing.assert_allclose(found, cut, atol=1e-5)  # without a mask all of it is inside
    mask = np.zeros((40, 40), bool)
    mask[10:40, 10:20] = mask[10, 29] = True
    masked = tiny_regions.encode_regions([images[0], images[1]], masks=[[mask], []], crop=True)
    assert [some.shape[0] for some in masked] == [1, 0] and not np.allclose(masked[0][0], found[0], atol=1e-3)
    with pytest.raises(ConfigError, match="boxes or of masks"):
        tiny_regions.encode_regions(images[0], points=[(0.5, 0.5)], crop=True)


def test_captions_of_regions(tiny_regions, images):
    one = tiny_regions.caption(images[0], boxes=BOXES)
    assert len(one) == 3 and all(isinstance(text, str) for text in one)
    several = tiny_regions.caption(images, boxes=[BOXES[:2], [], BOXES[:1]], max_new_tokens=4)
    assert [len(found) for found in several] == [2, 0, 1]
    assert tiny_regions.caption(images[0], points=[(0.5, 0.5)], num_beams=2)
    assert isinstance(tiny_regions.caption(images[0])[0], str)
    with pytest.raises(ConfigError, match="one of boxes, masks and points"):
        tiny_regions.caption(images[0], boxes=BOXES, points=[(0.5, 0.5)])


def test_queries_and_attributes(tiny_regions, images):
    found = tiny_regions.detect(images, ["a circle", "a star"])
    assert len(found) == 3 and all(len(some) == 3 for some in found)
    for one in found[0]:
        assert one.text in ("a circle", "a star") and 0 <= one.score <= 1
        assert 0 <= one.box[0] < one.box[2] <= 1 and 0 <= one.box[1] < one.box[3] <= 1
    assert [one.score for one in found[0]] == sorted((one.score for one in found[0]), reverse=True)
    assert tiny_regions.detect(images, ["a circle"], least=1.1) == [[], [], []]
    scores = tiny_regions.attribute_scores(images[0], BOXES)
    assert scores.shape == (3, 3) and (np.abs(scores) <= 1.0001).all()


def test_a_model_without_them_says_so(tiny_import, images):
    model = Model.of(tiny_import)
    assert len(model.encode_regions(images[0], boxes=BOXES)) == 3  # which any tower of patches can
    for call, said in [
        (lambda: model.detect(images, ["a"]), "no queries"),
        (lambda: model.attribute_scores(images[0], BOXES), "no attributes"),
        (lambda: model.caption(images[0], boxes=BOXES), "no captioner"),
    ]:
        with pytest.raises(ConfigError, match=said):
            call()


def test_where_something_is(tiny_regions, images):
    with pytest.raises(ConfigError, match="no words for places"):
        tiny_regions.locate(images, ["a"] * 3)


def test_captions_begin_with_words_of_their_own(tiny_regions, images):
    pixels = np.stack([tiny_regions.preprocess(image) for image in images])
    prompts = ["red", "blue", ""]
    written = generate_captions(tiny_regions, pixels, CaptionRequest(), prompts=prompts)
    for row, prompt in enumerate(prompts):
        alone = generate_captions(tiny_regions, pixels[row : row + 1], CaptionRequest(prompt=prompt))
        assert written[row][0].text == alone[0][0].text and written[row][0].text.startswith(prompt)


@pytest.mark.parametrize(
    ("regions", "said"),
    [
        ({"boxes": [[0, 0, 20, 20]]}, "image 0, box 0: .* pixels"),
        ({"boxes": [[0.5, 0, 0.2, 1]]}, "inverted"),
        ({"masks": [np.zeros((40, 40), bool)]}, "image 0, mask 0: is empty"),
        ({"masks": [np.full((40, 40), 7)]}, "true and false"),
        ({"points": [(1.5, 0)]}, "not within 0 and 1"),
        ({"points": [3]}, "two numbers"),
    ],
)
def test_what_is_no_region_is_said(tiny_regions, images, regions, said):
    with pytest.raises(DataError, match=said):
        tiny_regions.encode_regions(images[0], **regions)
    with pytest.raises(DataError, match="regions of 1"):
        tiny_regions.encode_regions(images, boxes=[BOXES])


def test_where_the_captioner_looks(tiny_regions, images):
    words, maps = tiny_regions.written_maps(images[0], "a red circle and a star")
    assert words == ["a", "red", "circle", "and", "a", "star"]
    assert maps.shape == (6, tiny_regions.grid, tiny_regions.grid)
    np.testing.assert_allclose(maps.sum(axis=(1, 2)), 1, atol=1e-5)
    pixels = tiny_regions.preprocess(images[0])[None]
    ids = tiny_regions.tokenizer.encode("a red circle and a star", tiny_regions.caption_length + 1)
    looked = tiny_regions.caption_attention(pixels, ids[:, :-1])[0]
    spans = tiny_regions.tokenizer.spans("a red circle and a star")
    red = [i for i, (start, end) in enumerate(spans) if start < 5 and end > 2]
    np.testing.assert_allclose(maps[1].reshape(-1), looked[np.array(red) - 1].mean(axis=0), atol=1e-6)
    own = tiny_regions.caption(images[0])[0]
    assert not own or tiny_regions.written_maps(images[0])[0] == own.split()
