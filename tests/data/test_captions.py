"""Sentences, sub-captions and mixing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlc.data.captions import CaptionChoice, Mix, sample_sub_captions, split_sentences
from vlc.data.record import clean_captions
from vlc.errors import ConfigError, DataError


def test_sentences_end_at_stops_newlines_and_marks():
    text = "A red ball. It is 1.5 m wide!\nIs it?</s>The last one"
    assert split_sentences(text) == ["A red ball.", "It is 1.5 m wide!", "Is it?", "The last one"]
    assert split_sentences(" . .. ") == []


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        (
            "Mr. Smith, e.g. this one, waits. He is 1.8 m tall.",
            ["Mr. Smith, e.g. this one, waits.", "He is 1.8 m tall."],
        ),
        ("Dr. No. 5 vs. St. Mary! Yes?", ["Dr. No. 5 vs. St. Mary!", "Yes?"]),
        ("\u4e00\u53ea\u732b\u3002\u4e24\u53ea\u72d7\uff01", ["\u4e00\u53ea\u732b\u3002", "\u4e24\u53ea\u72d7\uff01"]),
        ("A dog.  A cat.\nA cow", ["A dog.", "A cat.", "A cow"]),
    ],
)
def test_a_full_stop_ends_a_sentence_where_it_does(text, sentences):
    assert split_sentences(text) == sentences


def test_the_last_sentence_is_drawn(rng):
    drawn = {s for _ in range(100) for s in sample_sub_captions(rng, ["One. Two. Three."], 2)}
    assert drawn == {"One.", "Two.", "Three."}


def test_one_sentence_is_enough(rng):
    assert sample_sub_captions(rng, ["Only one"], 3) == ["Only one"] * 3
    assert sample_sub_captions(rng, ["..."], 1) == ["..."]


def test_without_replacement_when_there_are_enough(rng):
    for _ in range(50):
        assert len(set(sample_sub_captions(rng, ["A. B. C.", "D."], 4))) == 4


def test_merged_sentences_are_consecutive(rng):
    drawn = {s for _ in range(100) for s in sample_sub_captions(rng, ["A. B. C."], 1, merge=2)}
    assert drawn == {"A. B.", "B. C."}


@given(st.lists(st.text(min_size=1), min_size=1, max_size=4), st.integers(1, 5), st.integers(1, 3))
def test_any_captions_give_the_count_asked_for(captions, count, merge):
    drawn = sample_sub_captions(np.random.default_rng(0), captions, count, merge=merge)
    assert len(drawn) == count and all(isinstance(text, str) for text in drawn)


def test_mixing_follows_the_weights(rng):
    choice = CaptionChoice(Mix({"alt": 1, "long": 3}))
    captions = {"alt": ("a",), "short": ("s",), "long": ("l1", "l2")}
    drawn = [choice.choose(captions, rng)[0][0] for _ in range(4000)]
    assert abs(drawn.count("a") / 4000 - 0.25) < 0.03
    assert abs(drawn.count("l1") / 4000 - 0.375) < 0.03
    assert "s" not in drawn


def test_the_target_has_a_mix_of_its_own(rng):
    choice = CaptionChoice(Mix({"long": 1}), sub_captions=2, sub_sources=("long",), target=Mix({"short": 1}))
    texts, target = choice.choose({"short": ("s",), "long": ("One. Two.",)}, rng)
    assert texts[0] == "One. Two." and set(texts[1:]) == {"One.", "Two."} and target == ("short", 0)


def test_a_mix_that_names_no_source_of_the_data_is_an_error():
    with pytest.raises(ConfigError, match="gives weight to long, but x has captions from text"):
        CaptionChoice(Mix({"long": 1.0})).check({"text": ("a",)}, "x")


def test_a_string_where_a_list_is_meant_is_an_error():
    with pytest.raises(DataError, match="one string, but a list") as error:
        clean_captions({"long": "A dog. A cat."}, "file:3")
    assert "file:3" in str(error.value) and error.value.reason == "captions"


@pytest.mark.parametrize("captions", [{"x": [1, 2]}, {"x": None}, {"x": []}, {"x": ["  "]}, {}])
def test_captions_of_other_wrong_types_are_errors(captions):
    with pytest.raises(DataError):
        clean_captions(captions, "file")


def test_one_name_may_stand_for_several_sources(rng):
    mix = Mix({"raw": 1, "long*": 1})
    captions = {"raw": ("r",), "longSV": ("sv",), "longIB": ("ib",), "shortSV": ("s",)}
    drawn = [captions[source][place] for source, place in (mix.draw(captions, rng) for _ in range(4000))]
    assert abs(drawn.count("r") / 4000 - 0.5) < 0.03 and abs(drawn.count("sv") / 4000 - 0.25) < 0.03
    assert "s" not in drawn


def test_a_mix_schedules_during_training(rng):
    mix = Mix({"alt": 3, "long": 1}, {"long": 1}, (0.2, 0.6))
    for progress, share in ((0.0, 0.75), (0.2, 0.75), (0.4, 0.375), (0.6, 0.0), (1.0, 0.0)):
        assert np.isclose(mix.at(progress)["alt"], share) and np.isclose(sum(mix.at(progress).values()), 1)
    captions = {"alt": ("a",), "long": ("l",)}
    drawn = [mix.draw(captions, rng, 0.4)[0] for _ in range(4000)]
    assert abs(drawn.count("alt") / 4000 - 0.375) < 0.03
    assert {mix.draw(captions, rng, 0.7) for _ in range(50)} == {("long", 0)}
    assert Mix({"a": 1}, {"b": 1}, (0.5, 0.5)).at(0.49) == {"a": 1.0, "b": 0.0}  # at once


def test_each_slot_may_have_a_source_of_its_own(rng):
    choice = CaptionChoice(Mix({"raw": 1}), sub_captions=3, slots=("short", "long", "long"))
    captions = {"raw": ("r",), "short": ("s",), "long": ("One. Two.",)}
    for _ in range(20):
        texts, _ = choice.choose(captions, rng)
        assert texts[:2] == ["r", "s"] and sorted(texts[2:]) == ["One.", "Two."]
    assert choice.choose({"raw": ("only",)}, rng)[0] == ["only"] * 4
    with pytest.raises(ConfigError, match="names 1 slots, but sub_captions is 2"):
        CaptionChoice(Mix({}), sub_captions=2, slots=("short",))


def test_slot_0_may_be_drawn_from_the_sentences_too(rng):
    choice = CaptionChoice(Mix({"raw": 1}), sub_captions=1, first="pool")
    captions = {"raw": ("r",), "long": ("One. Two.",)}
    assert {choice.choose(captions, rng)[0][0] for _ in range(100)} == {"r", "One.", "Two."}
    with pytest.raises(ConfigError, match="what each slot draws"):
        CaptionChoice(Mix({}), sub_captions=1, slots=("long",), first="pool")
    with pytest.raises(ConfigError, match="first is 'frist'"):
        CaptionChoice(Mix({}), first="frist")


def test_the_rule_of_the_released_dreamlip():
    assert split_sentences("A 1.5 m dog. It runs", "stops") == ["A 1", "5 m dog", "It runs"]
    with pytest.raises(ConfigError, match="split is 'words'"):
        CaptionChoice(Mix({}), split="words")
