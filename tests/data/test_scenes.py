"""The scenes are rich, exact and reproducible, and their captions say what is there."""

import dataclasses

import numpy as np
import pytest

from vlc.data.sources import Scenes
from vlc.data.sources.scenes import language, world
from vlc.data.sources.scenes.facts import caption_facts
from vlc.errors import ConfigError


def test_the_world_is_rich():
    assert len(world.SHAPES) >= 12 and len(world.COLOURS) >= 10
    assert len(world.SIZES) >= 3 and len(world.TEXTURES) >= 3 and len(world.RELATIONS) >= 6


def test_a_scene_is_a_function_of_seed_and_index():
    first, again, other = Scenes()[5], Scenes()[5], Scenes(seed=1)[5]
    assert np.array_equal(first.image, again.image) and first.captions == again.captions
    assert not np.array_equal(first.image, other.image)
    assert Scenes(split="test")[5].captions != first.captions


def test_every_long_and_short_caption_is_true_and_complete():
    scenes = Scenes()
    for index in range(150):
        record = scenes[index]
        for text in (*record.captions["long"], *record.captions["short"]):
            assert caption_facts(record.extra["scene"], text)["exact"] == 1.0, text


def test_a_wrong_caption_is_found_out():
    scenes = Scenes()
    for index in range(50):
        scene, style = scenes.scene(index)
        for text in scenes.hard_negatives(index):
            assert caption_facts(scene, text)["exact"] == 0.0, (text, language.long_caption(scene, style).text)
        record = scenes.subset(negatives=True)[index]
        wrong = [text for texts in record.negatives.values() for text in texts]
        assert len(wrong) > 9 and all(caption_facts(scene, text)["exact"] == 0.0 for text in wrong)
        assert set(record.negatives) == {*record.captions["short"], *record.captions["long"]}
        assert not scenes[index].negatives


def test_phrases_mark_where_objects_are_named():
    scene, style = Scenes().scene(3)
    caption = language.long_caption(scene, style)
    for phrase in caption.phrases:
        words = caption.text[phrase.start : phrase.end]
        assert words.endswith(f"{scene.objects[phrase.index].colour} {scene.objects[phrase.index].shape}")
    assert {phrase.index for phrase in caption.phrases} == set(range(len(scene.objects)))


@pytest.mark.parametrize("edit", world.EDITS)
def test_a_twin_differs_in_one_thing(edit):
    scenes, seen = Scenes(), 0
    for index in range(40):
        pair = scenes.edit_twin(index, edit)
        if pair is None:
            continue
        seen += 1
        one, two = (record.extra["scene"].objects for record in pair)
        changed = {
            field.name
            for a, b in zip(one, two, strict=True)
            for field in dataclasses.fields(a)
            if getattr(a, field.name) != getattr(b, field.name)
        }
        wanted = {"swap_place": {"x", "y"}}.get(edit, {edit.removeprefix("swap_")})
        assert changed == wanted
        assert pair[0].captions["long"] != pair[1].captions["long"]
        if edit in ("swap_colour", "swap_shape"):  # the same words, bound otherwise
            words = [sorted(f"{o.colour} {o.shape}".split()[edit == "swap_shape"] for o in objs) for objs in (one, two)]
            assert words[0] == words[1]
    assert seen > 20


def test_held_out_pairs_stay_out_of_training():
    for split in ("train", "dev", "test"):
        for index in range(200):
            scene, _ = Scenes(split=split).scene(index)
            assert not any((o.colour, o.shape) in world.HELD_OUT_PAIRS for o in scene.objects)
    scene, _ = Scenes(split="novel").scene(0)
    assert any((o.colour, o.shape) in world.HELD_OUT_PAIRS for o in scene.objects)


def test_masks_show_the_visible_part():
    for index in range(60):
        record = Scenes(side=96)[index]
        masks, objects = record.extra["masks"], record.extra["scene"].objects
        assert masks.shape == (len(objects), 96, 96)
        assert masks.sum(axis=0).max() <= 1  # each pixel belongs to one object
        assert all(mask.sum() > 12 for mask in masks), "an object is hidden"
        for mask, obj in zip(masks, objects, strict=True):
            ys, xs = np.nonzero(mask)
            left, top, right, bottom = (96 * edge for edge in obj.box)
            assert xs.min() >= left - 2 and xs.max() <= right + 2 and ys.min() >= top - 2 and ys.max() <= bottom + 2


def test_rates_of_noise_are_as_set():
    scenes = Scenes(alt_generic_rate=0.5, alt_wrong_rate=0.2, reference_generic_rate=0.8)
    generic = wrong = reference = specific = 0
    count = 2000
    for index in range(count):
        scene, _ = scenes.scene(index)
        captions = scenes.captions(index)
        is_generic = captions["alt"][0] in language.GENERIC
        generic += is_generic
        specific += not is_generic
        mentions = language.read_facts(captions["alt"][0]).mentions
        wrong += any(not language.matching_objects(scene, mention) for mention in mentions)
        reference += captions["reference"][0] in language.GENERIC
    assert abs(generic / count - 0.5) < 0.04
    assert abs(wrong / specific - 0.2) < 0.04
    assert abs(reference / count - 0.8) < 0.04


@pytest.mark.parametrize("keep", ["colour", "shape", "place"])
def test_matched_scenes_share_what_they_should(keep):
    records = Scenes().matched(2, keep, 6)
    fields = ("x", "y", "size") if keep == "place" else (keep,)
    kept = {tuple(getattr(o, f) for o in r.extra["scene"].objects for f in fields) for r in records}
    assert len(kept) == 1
    assert len({r.captions["long"][0] for r in records}) == 6


def test_an_index_beyond_the_end_is_an_error():
    with pytest.raises(IndexError):
        Scenes(length=10)[10]


def test_brief_captions_say_where_things_stand_and_their_wrong_texts_the_opposite():
    scenes = Scenes(
        side=16, length=300, objects=(1, 2), varied=True, place_rate=0.7, negatives=True, edits=("swap_place",)
    )
    plain = scenes.subset(place_rate=0.0)
    sides = {"on the left": "on the right", "at the top": "at the bottom"}
    sides |= {other: one for one, other in sides.items()}
    told = 0
    for index in range(300):
        text, (scene, _) = scenes.captions(index)["brief"][0], scenes.scene(index)
        wrong = scenes.wrong_texts(index).get(text, ())
        said = [side for side in sides if side in text]
        assert len(said) <= 1 and len(wrong) == len(said)
        for side in said:
            told += 1
            assert wrong == (text.replace(side, sides[side]),)
            mention = language.read_facts(text[: text.index(side)]).mentions[-1]
            axis, low = ("x" if side.startswith("on") else "y"), side in ("on the left", "at the top")
            placed = [getattr(scene.objects[i], axis) < 0.5 for i in language.matching_objects(scene, mention)]
            assert low in placed
        assert scenes.captions(index)["long"] == plain.captions(index)["long"]
    assert 120 < told < 230
    every = [text for index in range(300) for texts in scenes.wrong_texts(index).values() for text in texts]
    assert (
        0
        < len(every)
        < len([1 for i in range(300) for texts in scenes.subset(edits=()).wrong_texts(i).values() for _ in texts])
    )
    with pytest.raises(ConfigError, match="Did you mean"):
        Scenes(edits=("swap_places",))


def test_brief_captions_say_one_thing_of_an_object_at_the_most():
    scenes = Scenes(side=16, length=300, objects=(1, 3), varied=True)
    said = [scenes.captions(index)["brief"][0] for index in range(300)]
    facts = [language.read_facts(text) for text in said]
    assert all(language.is_true(scenes.scene(index)[0], text) for index, text in enumerate(said))
    counts = {len(mention) for one in facts for mention in one.mentions}
    assert counts == {1, 2} and {len(one.mentions) for one in facts} == {1, 2, 3}
    kinds = {name for one in facts for mention in one.mentions for name in mention}
    assert kinds == {"shape", "size", "texture", "colour"} and len(set(said)) > 200
