"""Wrong texts and classes of regions: read, kept, made by scenes, and as an example has them."""

import json

import numpy as np
import pytest

from vlc.data.captions import CaptionChoice, Mix
from vlc.data.images import Preprocess
from vlc.data.pipeline import Lengths, MakeExample
from vlc.data.region_choice import RegionChoice, class_number
from vlc.data.regions import read_region
from vlc.data.sources import Scenes
from vlc.errors import DataError


def test_wrong_texts_of_regions_are_read_and_kept():
    region = read_region({"box": [0, 0, 1, 1], "captions": ["a red dog", "a dog"], "negatives": ["a blue dog"]}, "x")
    assert region.negatives == {"a dog": ("a blue dog",), "a red dog": ("a blue dog",)}
    assert read_region(json.loads(json.dumps(region.plain())), "x") == region
    named = read_region({"box": [0, 0, 1, 1], "captions": ["a dog"], "negatives": {"a  dog": ["a cat", " "]}}, "x")
    assert named.negatives == {"a dog": ("a cat",)}
    with pytest.raises(DataError, match='negatives are of its captions, and "a cow" is none'):
        read_region({"box": [0, 0, 1, 1], "captions": ["a dog"], "negatives": {"a cow": ["a cat"]}}, "x")
    assert read_region({"box": [0, 0, 1, 1]}, "x").negatives == {}


def test_wrong_texts_of_scenes_are_wrong_in_one_word():
    plain, scenes = Scenes(length=5), Scenes(length=5, region_negatives=True)
    for index in range(5):
        record = scenes[index]
        assert not any(region.negatives for region in plain[index].regions)
        for region in record.regions:
            if region.kind != "entity":
                continue
            has = {*region.attributes, region.label}
            assert set(region.negatives) == {text for texts in region.captions.values() for text in texts}
            for text, wrong in region.negatives.items():
                assert len(wrong) == len(set(wrong)) and len(wrong) >= 11  # at least the other shapes
                for other in wrong:
                    changed = [b for a, b in zip(text.split(), other.split(), strict=True) if a != b]
                    assert len(changed) == 1 and changed[0] not in has


def test_classes_and_wrong_texts_of_an_example(tokenizer):
    scenes = Scenes(side=32, length=6, region_negatives=True)
    make = MakeExample(
        scenes, Preprocess(32), CaptionChoice(Mix({})), tokenizer, Lengths(32, 32, 32, 12),
        regions=RegionChoice(4, ("brief",)), patch=8, region_classes=True, region_negatives=3, class_source="reference",
    )  # fmt: skip
    for index in range(6):
        record = scenes[index]
        made = make.make(record, np.random.default_rng(0))
        count = int(made["region_counts"][0])
        assert made["region_hard"].shape == (4, 3, 12) and (made["region_hard"][count:] == tokenizer.pad_id).all()
        assert (made["region_classes"][count:] == -1).all()
        labels = {class_number(region.label): region for region in record.regions if region.label}
        assert set(made["region_classes"][:count].tolist()) <= labels.keys()
        for row in range(count):
            right = tokenizer.decode(made["region_text"][row])
            wrong = [tokenizer.decode(ids) for ids in made["region_hard"][row]]
            known = [region.negatives.get(right, ()) for region in record.regions]
            assert len(set(wrong)) == 3 and any(set(wrong) <= set(some) for some in known)
        assert made["classes"] == class_number(record.captions["reference"][0])
    assert class_number("  Dog ") == class_number("dog") != class_number("cat") and class_number(" ") == -1
