"""Texts whose words no longer stand as people put them."""

from collections import Counter

import numpy as np
import pytest

from vlc.data import broken_texts
from vlc.data.broken_texts import break_text

TEXT = "a red star and a blue ring on the left"


def test_broken_texts_differ_and_are_the_same_for_a_seed():
    made = [break_text(TEXT, np.random.default_rng(seed)) for seed in range(200)]
    assert made == [break_text(TEXT, np.random.default_rng(seed)) for seed in range(200)]
    assert TEXT not in made
    assert len(set(made)) > 100
    words = Counter(TEXT.split())
    same = sum(Counter(text.split()) == words for text in made)  # exchanged or shuffled
    more = sum(len(text.split()) > len(TEXT.split()) for text in made)  # repeated or put in
    fewer = sum(len(text.split()) < len(TEXT.split()) for text in made)
    assert same + more + fewer == 200
    assert min(same, more, fewer) > 20


@pytest.mark.parametrize("way", broken_texts._WAYS)
def test_each_way_moves_runs_of_at_most_four_words(way):
    words, rng = TEXT.split(), np.random.default_rng(0)
    for _ in range(100):
        made = way(words, rng)
        assert not made or abs(len(made) - len(words)) <= 4
        assert set(made) <= set(words)


def test_what_cannot_be_broken():
    rng = np.random.default_rng(0)
    assert break_text("star", rng) == break_text("", rng) == ""
    assert break_text("a a", rng) in ("", "a", "a a a", "a a a a")
