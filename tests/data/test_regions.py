"""Regions: boxes and masks are checked, and follow the pixels wherever these go."""

import dataclasses
import json
import math

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from vlc.curate.build import Plan, build
from vlc.data.attributes import Attributes
from vlc.data.captions import CaptionChoice, Mix
from vlc.data.frame import Frame, cover_of_boxes, cover_of_mask, visible_share
from vlc.data.images import Preprocess
from vlc.data.masks import Mask
from vlc.data.pipeline import Lengths, MakeExample, mirrored
from vlc.data.region_choice import RegionChoice, captions_of_regions
from vlc.data.region_crops import crop_region
from vlc.data.regions import IMAGE, Edge, PartsOfPicture, Region, check_box, check_graph, read_region, to_shares
from vlc.data.sides import swap_sides
from vlc.data.sources import Scenes, open_source
from vlc.data.sources.columns import Columns
from vlc.data.sources.parts_of_row import read_parts
from vlc.data.sources.scenes.world import relation
from vlc.data.tokenizers import SentencePiece
from vlc.errors import ConfigError, DataError


def blob(height=13, width=9, seed=0):
    return np.random.default_rng(seed).random((height, width)) < 0.4


# -- masks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_masks_are_those_of_coco(seed):
    pixels = blob(seed=seed)
    mask = Mask.of(pixels)
    assert np.array_equal(mask.pixels(), pixels) and mask.area == pixels.sum()
    assert Mask.read(json.loads(json.dumps(mask.plain())), "x") == mask
    flat, plain, last = pixels.T.ravel(), [0], False
    for value in flat:  # column by column, beginning with the absent ones
        if value != last:
            plain.append(0)
            last = value
        plain[-1] += 1
    assert Mask.read({"size": [13, 9], "counts": plain}, "x") == mask
    rows, columns = np.nonzero(pixels)
    box = columns.min() / 9, rows.min() / 13, (columns.max() + 1) / 9, (rows.max() + 1) / 13
    assert mask.box == pytest.approx(box)


def test_polygons_are_drawn_as_coco_draws_them():
    polygon = [[1.0, 1.0, 7.5, 1.0, 7.5, 9.0, 1.0, 9.0], [0.0, 10.0, 3.0, 10.0, 3.0, 12.0]]
    wanted = coco.decode(coco.merge(coco.frPyObjects(polygon, 13, 9))).astype(bool)
    assert np.array_equal(Mask.read(polygon, "x", (13, 9)).pixels(), wanted)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"size": [13, 9], "counts": [5, 5]}, "10 pixels of 13 x 9"),
        ({"size": [13, 9], "counts": "~~"}, "no letter"),
        ({"size": [13, 9], "counts": "Q"}, "break off"),
        ({"size": [13, 9]}, "counts"),
        ([[1, 2, 3]], "three corners"),
        (5, "polygons"),
        ({"size": [3, 3], "counts": [9]}, "3 x 3, the picture 9 x 13"),
    ],
)
def test_what_is_no_mask_is_said(value, said):
    with pytest.raises(DataError, match=said) as error:
        Mask.read(value, "image 3, region 1", (13, 9))
    assert error.value.reason == "region" and "image 3, region 1" in str(error.value)


# -- boxes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ([10, 20, 60, 80], "pixels"),
        ([0.5, 0.1, 0.2, 0.9], "inverted"),
        ([0.5, 0.1, 0.5, 0.9], "no area"),
        ([-0.1, 0, 0.5, 0.5], "outside"),
        ([0, 0, 1.2, 0.5], "outside"),
        ([0, 0, 1], "four numbers"),
        ([0, 0, math.nan, 1], "finite"),
        (None, "four numbers"),
    ],
)
def test_boxes_that_are_none_are_said(box, said):
    with pytest.raises(DataError, match=said):
        check_box(box, "x")


def test_boxes_of_other_forms():
    wanted = pytest.approx((0.1, 0.2, 0.4, 0.6))
    assert check_box([0.1, 0.2, 0.4, 0.6], "x") == wanted
    assert to_shares([0.1, 0.2, 0.3, 0.4], "x", form="xywh") == wanted
    assert to_shares([0.25, 0.4, 0.3, 0.4], "x", form="cxcywh") == wanted
    assert to_shares([20, 20, 60, 40], "x", form="xywh", units="pixels", size=(200, 100)) == wanted
    assert check_box([0, 0, 1.0005, 1], "x") == (0, 0, 1, 1)  # as rounding leaves it
    with pytest.raises(DataError, match="shares of a picture"):
        to_shares([0.1, 0.2, 0.4, 0.6], "x", units="pixels", size=(200, 100))
    with pytest.raises(DataError, match="width and height"):
        to_shares([1, 2, 4, 6], "x", units="pixels")


def test_regions_from_json():
    region = Region(
        (0.1, 0.2, 0.4, 0.6), Mask.of(blob()), {"region": ("a cat",)}, "cat", ("black",), ("white",), 2, "entity", 0.5
    )
    assert read_region(json.loads(json.dumps(region.plain())), "x") == region
    assert read_region([[0, 0, 1, 1], "all of it"], "x").captions == {"region": ("all of it",)}
    assert read_region({"mask": region.mask.plain()}, "x").box == region.mask.box
    for value, said in [
        ({"boxx": [0, 0, 1, 1]}, 'Did you mean "box"'),
        ({"label": "cat"}, "neither a box nor a mask"),
        ({"box": [0, 0, 1, 1], "kind": "entty"}, "entity"),
        ({"box": [0, 0, 1, 1], "label": 3}, "label is a text"),
        ({"box": [0, 0, 1, 1], "attributes": "red"}, "list of texts"),
        ({"box": [0, 0, 1, 1], "parent": "a"}, "number of a region"),
        ("box", "a region is"),
    ]:
        with pytest.raises(DataError, match=said):
            read_region(value, "x")


def test_graphs_with_loose_ends_and_cycles_are_refused():
    boxes = [Region((0, 0, 1, 1)) for _ in range(3)]
    check_graph(boxes, [Edge(IMAGE, 0, "a"), Edge(0, 1, "b"), Edge(IMAGE, 1, "b"), Edge(1, 2, "c")], "x")
    with pytest.raises(DataError, match="goes from 0 to 3"):
        check_graph(boxes, [Edge(0, 3, "a")], "x")
    with pytest.raises(DataError, match="cycle: 0 to 1 to 2 to 0"):
        check_graph(boxes, [Edge(0, 1, "a"), Edge(1, 2, "b"), Edge(2, 0, "c")], "x")
    with pytest.raises(DataError, match="part of 7"):
        check_graph([Region((0, 0, 1, 1), parent=7)], [], "x")
    with pytest.raises(DataError, match="cycle"):
        check_graph([Region((0, 0, 1, 1), parent=0)], [], "x")


# -- what the model sees ----------------------------------------------------------------------------------------------


def drawn(width, height, box):
    """A black picture with a white box on whole pixels."""
    pixels = np.zeros((height, width, 3), np.uint8)
    left, top, right, bottom = box
    pixels[top:bottom, left:right] = 255
    return pixels


RULES = [
    {"resize": "squash"},
    {"resize": "crop"},
    {"resize": "pad"},
    {"resize": "shortest"},
    {"resize": "shortest", "resize_to": 80},
    {"resize": "longest"},
    {"crop_scale": (0.3, 0.9)},
    {"crop_scale": (0.3, 0.9), "flip": True},
    {"resize": "crop", "flip": True},
    {"resize": "naflex", "patch": 8},
    {"resize": "naflex", "patch": 8, "crop_scale": (0.4, 0.9)},
]


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("sides", [(120, 80), (80, 120)])
def test_boxes_and_masks_go_where_the_pixels_go(rule, sides):
    width, height = sides
    box = (30, 24, 66, 60)
    pixels = drawn(width, height, box)
    preprocess = Preprocess(64, **rule)
    for seed in range(4):
        seen, frame = preprocess.framed(pixels, rng=np.random.default_rng(seed))
        picture = preprocess.picture(seen)[..., 0] / 255.0
        rows, columns = picture.shape
        shares = [(box[0] / width, box[1] / height, box[2] / width, box[3] / height)]
        by_box = cover_of_boxes(frame.boxes(shares).clip(0, 1), rows, columns).reshape(rows, columns)
        by_mask = cover_of_mask(pixels[..., 0] > 0, frame, rows, columns).reshape(rows, columns)
        inside = picture if rule.get("resize") not in ("pad",) else np.where(np.isclose(picture, 128 / 255), 0, picture)
        for cover in (by_box, by_mask):
            assert np.abs(cover - inside).mean() < 0.02
        np.testing.assert_allclose(by_box, by_mask, atol=1e-6)
        if by_box.any():
            back = frame.back(frame.boxes(shares))
            np.testing.assert_allclose(back, np.asarray(shares), atol=1e-9)


def test_the_pixels_are_what_they_were():
    """A frame is told beside the pixels; they are those of a call."""
    picture = np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)
    for rule in RULES:
        preprocess = Preprocess(64, **rule)
        called = preprocess(picture, rng=np.random.default_rng(3))
        assert np.array_equal(called, preprocess.framed(picture, rng=np.random.default_rng(3))[0])


def test_cover_of_boxes_by_counting():
    """Against a grid of 16 x 16 points a patch."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        low, size = rng.random(2) * 0.7, rng.random(2) * 0.3 + 0.01
        box = np.array([[*low, *np.minimum(low + size, 1)]])
        cover = cover_of_boxes(box, 5, 7).reshape(5, 7)
        y, x = ((np.arange(n * 64) + 0.5) / (n * 64) for n in (5, 7))
        inside = ((y >= box[0, 1]) & (y < box[0, 3]))[:, None] & ((x >= box[0, 0]) & (x < box[0, 2]))[None]
        counted = inside.reshape(5, 64, 7, 64).mean(axis=(1, 3))
        np.testing.assert_allclose(cover, counted, atol=0.04)
    assert np.array_equal(cover_of_boxes(np.array([[0.0, 0, 1, 1]]), 3, 4), np.ones((1, 12)))


def test_visible_share():
    boxes = Frame(0.5, 0, 1, 1).boxes([(0.25, 0, 0.75, 1), (0, 0, 0.5, 1), (0.6, 0.2, 0.7, 0.4)])
    np.testing.assert_allclose(visible_share(boxes), [0.5, 0, 1], atol=1e-9)


# -- choice -----------------------------------------------------------------------------------------------------------


def region(left, text="thing", **more):
    return Region((left, 0.1, left + 0.1, 0.2), captions={"region": (text,)} if text else {}, **more)


def choose(choice, regions, frame=None, size=(10, 10)):
    return choice(regions, frame or Frame(), (4, 4), np.random.default_rng(0), size=lambda: size)


def test_what_is_left_out_is_counted():
    regions = [region(0.1 * i, f"thing {i}") for i in range(6)] + [region(0.8, "")]
    found = choose(RegionChoice(3), regions, Frame(0, 0, 0.35, 1))
    assert found.counts.tolist() == [3, 2, 1] and len(found.texts) == 3  # one of four is too many; two are outside
    assert choose(RegionChoice(9), regions).counts.tolist() == [6, 0, 0]
    half = choose(RegionChoice(9, visible=0.5), [region(0.3)], Frame(0, 0, 0.34, 1))
    assert half.counts.tolist() == [0, 1, 0] and not len(half.boxes)
    assert choose(RegionChoice(9), []).boxes.shape == (0, 4)


def test_texts_by_source():
    one = Region((0, 0, 1, 1), captions={"long": ("a b c",), "short": ("a",)}, label="cat")
    assert RegionChoice(1).texts_of(one) == [("long", "a b c"), ("short", "a")]
    assert RegionChoice(1, ("sh*", "label")).texts_of(one) == [("short", "a"), ("label", "cat")]
    assert RegionChoice(1).texts_of(dataclasses.replace(one, captions={})) == [("label", "cat")]
    assert RegionChoice(1, ("none",)).texts_of(one) == []


def test_a_mask_of_another_size_is_refused():
    masked = region(0.1, mask=Mask.of(np.ones((10, 10), bool)))
    assert choose(RegionChoice(1), [masked]).cover.min() == 1
    assert choose(RegionChoice(1, masks=False), [masked]).cover.min() == 0
    with pytest.raises(DataError, match="10 x 10, and the picture 20 x 10"):
        choose(RegionChoice(1), [masked], size=(20, 10))


@pytest.fixture(scope="module")
def tokenizer():
    scenes = Scenes(side=16, length=60)
    texts = [text for i in range(60) for region in scenes[i].regions for text in region.captions.get("region", ())]
    return SentencePiece.train([*texts, "left of it", "right of it"], 200)


def test_examples_have_regions_in_arrays_of_one_shape(tokenizer):
    scenes = Scenes(side=32, length=20)
    make = MakeExample(
        scenes, Preprocess(32, crop_scale=(0.4, 1.0)), CaptionChoice(Mix({"long": 1.0})), tokenizer,
        Lengths(40, 40, 40, 12), regions=RegionChoice(3), patch=8,
    )  # fmt: skip
    shown = []
    for i in range(20):
        example = make.make(scenes[i], np.random.default_rng(i))
        count = int(example["region_counts"][0])
        assert example["boxes"].shape == (3, 4) and example["cover"].shape == (3, 16)
        assert example["region_text"].shape == (3, 12) and example["cover"].dtype == np.float16
        assert not example["boxes"][count:].any() and not example["cover"][count:].any()
        assert (example["region_text"][count:] == tokenizer.pad_id).all()
        assert (example["region_text"][:count, 0] != tokenizer.pad_id).all() and example["cover"][:count].any()
        shown.append(count)
    assert max(shown) == 3
    without = dataclasses.replace(make, regions=None).make(scenes[0], np.random.default_rng(0))
    with_regions = make.make(scenes[0], np.random.default_rng(0))
    assert all(np.array_equal(without[name], with_regions[name]) for name in without if name != "seconds")


def test_a_mirrored_picture_has_mirrored_words(tokenizer):
    assert swap_sides("Left of the RIGHT one, leftmost, a right-hand man, leftover") == (
        "Right of the LEFT one, rightmost, a left-hand man, leftover"
    )
    scenes = Scenes(side=32, length=40)
    record = scenes[0]
    twin = mirrored(record)
    assert twin.captions["long"][0] == swap_sides(record.captions["long"][0]) and twin.image is record.image
    make = MakeExample(
        scenes, Preprocess(32, flip=True), CaptionChoice(Mix({"long": 1.0})), tokenizer, Lengths(60, 60, 60, 20),
        swap_sides=True,
    )  # fmt: skip
    seen = set()
    for index in range(40):
        record = scenes[index]
        example = make.make(record, np.random.default_rng(index))
        flipped = np.array_equal(example["image"], record.image[:, ::-1])
        assert flipped or np.array_equal(example["image"], record.image)
        texts = [swap_sides(text) if flipped else text for text in record.captions["long"]]
        assert example["target"].tolist() in tokenizer.encode(texts, 60).tolist()
        seen.add(flipped)
    assert seen == {True, False}


# -- sources ----------------------------------------------------------------------------------------------------------


def test_scenes_tell_the_truth():
    scenes = Scenes(side=64, length=30, overlap_rate=0.5)
    kinds = set()
    for i in range(30):
        record = scenes[i]
        scene, masks = record.extra["scene"], record.extra["masks"]
        seen = [k for k in range(len(scene.objects)) if masks[k].any()]
        entities = [one for one in record.regions if one.kind == "entity"]
        assert len(entities) == len(seen)
        for one, k in zip(entities, seen, strict=True):
            assert np.array_equal(one.mask.pixels(), masks[k]) and one.label == scene.objects[k].shape
            assert set(one.attributes) == {scene.objects[k].colour, scene.objects[k].size, scene.objects[k].texture}
            assert not set(one.attributes) & set(one.absent)
        for edge in record.graph:
            captions = record.captions if edge.parent == IMAGE else record.regions[edge.parent].captions
            if edge.start >= 0:
                text = captions[edge.source][edge.place]
                assert text[edge.start : edge.start + len(edge.phrase)] == edge.phrase
        for number, one in enumerate(record.regions):
            kinds.add(one.kind)
            if one.kind == "relation":
                a, b = (edge.child for edge in record.graph if edge.parent == number)
                where = relation(scene, seen[a], seen[b])
                assert where.split()[0] in one.captions["relation"][0] or where in ("in front of", "behind")
        check_graph(record.regions, record.graph, record.key)
        assert read_parts(PartsOfPicture(record.regions, record.graph).plain(), "x") == (record.regions, record.graph)
    assert kinds == {"entity", "relation", "composition"}
    assert not Scenes(side=64, regions=False)[0].regions


def test_regions_are_built_and_read_bit_for_bit(tmp_path):
    scenes = Scenes(side=32, length=6)
    build(scenes, Plan("scenes"), tmp_path / "built")
    source = open_source(str(tmp_path / "built"))
    for i in range(6):
        assert source[i].regions == scenes[i].regions and source[i].graph == scenes[i].graph


def test_regions_in_captions_files_and_side_files(tmp_path):
    record = Scenes(side=32)[0]
    Image.fromarray(record.image).save(tmp_path / "0.png")
    row = {"image": "0.png", "caption": "shapes", "regions": [one.plain() for one in record.regions]}
    row["graph"] = [list(edge) for edge in record.graph]
    (tmp_path / "captions.jsonl").write_text(json.dumps(row))
    found = open_source(str(tmp_path))[0]
    assert found.regions == record.regions and found.graph == record.graph
    (tmp_path / "side").mkdir()
    Image.fromarray(record.image).save(tmp_path / "side" / "0.png")
    (tmp_path / "side" / "0.json").write_text(json.dumps({k: v for k, v in row.items() if k != "image"}))
    assert open_source(str(tmp_path / "side"))[0].regions == record.regions


def test_lists_of_boxes_and_captions_in_pixels(tmp_path):
    """GRAIN's and FlexCap's kind of list, in pixels and with other names."""
    Image.fromarray(np.zeros((50, 100, 3), np.uint8)).save(tmp_path / "0.png")
    listed = [
        {"bbox": [10, 10, 20, 30], "description": "a dog", "class": "dog", "confidence": 0.9},
        [[0, 0, 50, 50], "x"],
    ]
    row = {"image": "0.png", "caption": "c", "width": 100, "height": 50, "objects": listed}
    (tmp_path / "captions.jsonl").write_text(json.dumps(row))
    columns = "regions=objects,box_format=xywh,box_units=pixels"
    dog, other = open_source(str(tmp_path), columns=columns)[0].regions
    assert dog.box == pytest.approx((0.1, 0.2, 0.3, 0.8)) and dog.label == "dog" and dog.score == 0.9
    assert dog.captions == {"region": ("a dog",)} and other.box == pytest.approx((0, 0, 0.5, 1))
    with pytest.raises(DataError, match="seems to be in pixels"):
        open_source(str(tmp_path), columns="regions=objects")
    with pytest.raises(ConfigError, match="xywh"):
        Columns.parse("box_format=xywhh")


def test_a_column_of_that_name_may_be_something_else(tmp_path):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "0.png")
    (tmp_path / "captions.csv").write_text("image,caption,regions\n0.png,a dog,North Sea\n")
    with pytest.raises(DataError, match="regions=-"):
        open_source(str(tmp_path))
    assert open_source(str(tmp_path), columns="regions=-")[0].regions == ()
    (tmp_path / "captions.csv").write_text('image,caption,regions\n0.png,a dog,"[{""box"": [0, 0, 1, 0.5]}]"\n')
    assert open_source(str(tmp_path))[0].regions == (Region((0.0, 0.0, 1.0, 0.5)),)


def test_captions_of_regions_are_named_by_kind():
    regions = [region(0.1, "a", kind="entity"), region(0.2, "b"), region(0.3, "c", kind="entity")]
    assert captions_of_regions(regions) == {"entity/region": ["a", "c"], "region/region": ["b"]}
    choice = CaptionChoice(Mix({"long": 1.0}), sub_captions=2, sub_sources=("entity/*",))
    told = captions_of_regions(regions)
    texts, _ = choice.choose({"long": ("one. two.",)}, np.random.default_rng(0), regions=told)
    assert texts[0] == "one. two." and set(texts[1:]) == {"a", "c"}
    every = CaptionChoice(Mix({"long": 1.0}), sub_captions=4)  # of the picture alone, where none of a region is named
    texts, _ = every.choose({"long": ("one. two.",)}, np.random.default_rng(0), regions=told)
    assert set(texts[1:]) <= {"one.", "two."}


def test_a_crop_is_what_is_inside_of_box_and_mask(tokenizer):
    pixels = np.random.default_rng(0).integers(0, 255, (20, 40, 3), np.uint8)
    mask = np.zeros((20, 40), bool)
    mask[4:9, 10:20] = blob(5, 10)
    mask[4, 10] = mask[8, 19] = True
    one = Region(Mask.of(mask).box, Mask.of(mask))
    crop, inside = crop_region(pixels, one, (0.5, 0.0, 1.0))
    assert crop.shape == (5, 10, 3) and np.array_equal(inside.pixels(), mask[4:9, 10:20])
    assert np.array_equal(crop[inside.pixels()], pixels[mask])
    assert (crop[~inside.pixels()] == [128, 0, 255]).all()
    box, all_of_it = crop_region(pixels, Region((0.25, 0.2, 0.5, 0.45)), (0.5, 0.5, 0.5))
    assert np.array_equal(box, pixels[4:9, 10:20]) and all_of_it.area == 50
    with pytest.raises(DataError, match="a mask is 40 x 20, and the picture 40 x 10"):
        crop_region(pixels[:10], one, (0.5, 0.5, 0.5))

    scenes = Scenes(side=48, length=10)
    make = MakeExample(
        scenes, Preprocess(32), CaptionChoice(Mix({})), tokenizer, Lengths(20, 20, 20, 20), regions=RegionChoice(1),
        patch=8, crop=True,
    )  # fmt: skip
    for index in range(10):
        example = make.make(scenes[index], np.random.default_rng(index))
        texts = [text for found in scenes[index].regions for some in found.captions.values() for text in some]
        assert tokenizer.decode(example["text"]) in texts and example["region_counts"].tolist() == [1, 0, 0]
        assert example["cover"].any()
    with pytest.raises(DataError, match="no region with a text"):
        make.make(dataclasses.replace(scenes[0], regions=()), np.random.default_rng(0))


def test_attributes_are_whole_words():
    attributes = Attributes.parse("Red, light green,green,circle")
    assert attributes.names == ("red", "light green", "green", "circle")
    assert attributes.named(["a RED thing, not bored", "circles"]).tolist() == [1, 0, 0, 0]
    assert attributes.named(["a light green circle"]).tolist() == [0, 1, 0, 1]
    assert attributes.named([]).tolist() == [0, 0, 0, 0] and not Attributes()
    with pytest.raises(ConfigError, match="twice"):
        Attributes.parse("a,A")


def test_regions_that_need_no_text():
    silent = RegionChoice(5, silent=True)
    regions = [region(0.1, ""), region(0.3, kind="entity"), region(0.5, kind="relation")]
    assert choose(silent, regions).counts.tolist() == [2, 0, 0]
