"""Places as words: written, read, and never cut by the tokenizer."""

import numpy as np
import pytest

from vlc.data.captions import CaptionChoice, Mix
from vlc.data.images import Preprocess
from vlc.data.pipeline import Lengths, MakeExample
from vlc.data.places import FIRST_PLACE, place_words, read_box, without_places, write_box
from vlc.data.region_choice import RegionChoice
from vlc.data.sources import Scenes
from vlc.data.tokenizers import SentencePiece


def test_boxes_in_words_and_back():
    assert write_box((0.0, 0.49, 0.5, 1.0), 10) == "<x00><y04><x05><y09>"
    assert read_box("a star <x00> <y04><x05><y09> here", 10) == pytest.approx((0.05, 0.45, 0.55, 0.95))
    rng = np.random.default_rng(0)
    for _ in range(50):
        box = np.sort(rng.random((2, 2)), axis=0).reshape(-1)
        assert np.abs(np.array(read_box(write_box(box, 24), 24)) - box).max() <= 0.5 / 24 + 1e-9
    for text in ("no place", "<x01><y02>", "<x09><y01><x02><y05>", "<x01><y01><x77><y05>"):
        assert read_box(text, 10) is None
    assert without_places("a <x00><y04> red <x05><y09> star") == "a red star"


@pytest.fixture(scope="module")
def tokenizer():
    texts = [text for i in range(60) for text in Scenes(side=8).captions(i)["short"]]
    return SentencePiece.train(texts, 120, place_words(24))


def test_words_for_places_are_pieces_with_the_first_ids(tokenizer):
    ids = tokenizer.encode(["<x00><x23><y00><y23>"], 9)[0].tolist()
    places = [one for one in ids if FIRST_PLACE <= one < FIRST_PLACE + 48]  # a space may stand before them
    assert places == [FIRST_PLACE + place for place in (0, 23, 24, 47)]
    written = f"a red star {write_box((0.1, 0.2, 0.7, 0.8), 24)}"
    back = tokenizer.decode(tokenizer.encode([written], 30)[0])
    assert read_box(back, 24) == read_box(written, 24) and without_places(back) == "a red star"


def test_targets_say_where_the_region_is_in_what_the_model_sees(tokenizer):
    scenes = Scenes(side=48, length=30)
    make = MakeExample(
        scenes, Preprocess(32, crop_scale=(0.5, 0.9)), CaptionChoice(Mix({"short": 1.0})), tokenizer,
        Lengths(30, 30, 40, 30), regions=RegionChoice(4, ("brief",)), patch=8, places=(24, 0.7),
    )  # fmt: skip
    before = after = plain = 0
    for index in range(30):
        example = make.make(scenes[index], np.random.default_rng(index))
        target = tokenizer.decode(example["target"])
        box = read_box(target, 24)
        if box is None:
            plain += 1
            continue
        shown = int(example["region_counts"][0])
        texts = [tokenizer.decode(ids) for ids in example["region_text"][:shown]]
        places = [read_box(write_box(one, 24), 24) for one in example["boxes"][:shown]]
        assert (without_places(target), box) in list(zip(texts, places, strict=True))
        before, after = before + target.startswith("<"), after + (not target.startswith("<"))
    assert min(before, after, plain) >= 4
