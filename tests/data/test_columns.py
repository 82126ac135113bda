"""Which columns are captions, by the names that people give them."""

import pytest

from vlc.data.sources.columns import BY_NAME, source_name
from vlc.errors import DataError


@pytest.mark.parametrize(
    ("row", "captions"),
    [
        ({"caption": "a"}, {"text": ("a",)}),
        ({"text": "a", "alt_text": "b"}, {"text": ("a",), "alt": ("b",)}),
        ({"raw_caption": "a", "longLLA_captions": ["b", "c"]}, {"raw": ("a",), "longLLA": ("b", "c")}),
        ({"shortSV": "a", "title": "b", "long description": "c"}, {"shortSV": ("a",), "title": ("b",), "long": ("c",)}),
        ({"captions": ["a"], "num_captions": 5, "topic": "x", "short_side": 7, "license": "y"}, {"text": ("a",)}),
        ({"captions": {"alt": ["a"]}, "blip_caption": "b"}, {"alt": ("a",), "blip": ("b",)}),
        ({"captions": "['a', 'b']"}, {"text": ("a", "b")}),
    ],
)
def test_captions_by_the_names_of_columns(row, captions):
    assert BY_NAME.captions_of(row, "x") == captions


def test_the_image_is_the_first_name_that_is_known():
    assert BY_NAME.image_of({"url": "http://x", "ImagePath": "a.jpg"}, "x") == "a.jpg"
    assert BY_NAME.image_of({"url": "http://x"}, "x") == "http://x"
    assert source_name("captions") == "captions" and source_name("raw_caption") == "raw"


@pytest.mark.parametrize("boxes", [[[0, 0, 1]], [["a", 0, 1, 1]], [[0, 0, 2, 1]], 5])
def test_boxes_that_are_none_are_said(boxes):
    with pytest.raises(DataError, match="box"):
        BY_NAME.parts_of({"boxes": boxes}, "x")
