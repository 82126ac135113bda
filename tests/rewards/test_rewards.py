"""What captions are worth, by the formulas, and what is no reward."""

import numpy as np
import pytest

from tests.conftest import unit_rows
from vlc.data.sources import Scenes
from vlc.errors import ConfigError, DataError
from vlc.rewards import REWARDS, Cider, Fluency, Term, Written, parse_terms, total_rewards

TEXTS = [["a red dog", "a dog a dog a dog"], ["", "the blue star is left of the dog"], ["one", "one two"]]
REFERENCES = [("a red dog runs", "a dog"), ("a blue star",), ()]


def written(rng, **more):
    image = unit_rows(rng, 3, 5)
    gallery = np.concatenate([unit_rows(rng, 1, 5), image[[1, 0, 2]], unit_rows(rng, 1, 5)])
    known = [[text.split() for text in some] for some in REFERENCES]
    given = {"texts": TEXTS, "references": REFERENCES, "image": image, "text": unit_rows(rng, 3, 2, 5),
             "gallery": gallery, "own": np.array([2, 1, 3]), "scale": 20.0, "cider": Cider(known)}  # fmt: skip
    return Written(**given | more)


def test_rewards_of_a_judge(rng):
    some = written(rng, bags=np.array([0, 1, 0, 1, 1]))
    for row, place in np.ndindex(3, 2):
        cos = some.text[row, place] @ some.image[row]
        assert REWARDS["cosine"](some)[row, place] == pytest.approx(cos, abs=1e-6)
        assert REWARDS["clip_s"](some)[row, place] == pytest.approx(2.5 * max(cos, 0), abs=1e-6)
        logits = 20 * some.gallery @ some.text[row, place]
        own = some.own[row]
        wanted = logits[own] - np.log(np.exp(logits).sum())
        assert REWARDS["self_retrieval"](some)[row, place] == pytest.approx(wanted, abs=1e-4)
        bag = some.bags == some.bags[own]
        wanted = logits[own] - np.log(np.exp(logits[bag]).sum())
        assert REWARDS["bag_retrieval"](some)[row, place] == pytest.approx(wanted, abs=1e-4)
    flat = REWARDS["self_retrieval"](written(rng, scale=1.0))
    assert flat.std() < 0.3 * REWARDS["self_retrieval"](some).std()  # without the scale all are all but alike
    with pytest.raises(ConfigError, match="bags"):
        REWARDS["bag_retrieval"](written(rng))


def test_rewards_of_words(rng):
    some = written(rng)
    assert REWARDS["length"](some).tolist() == [[3, 6], [0, 8], [1, 2]]
    assert (
        REWARDS["repetition"](some)[0].tolist() == [0, pytest.approx(-3 / 5)] and REWARDS["repetition"](some)[1, 0] == 0
    )
    scores = REWARDS["cider"](some)
    assert scores[0, 0] > scores[0, 1] > 0 and not scores[2].any() and scores[1, 0] == 0


def test_units_of_scenes(rng):
    scenes = [Scenes(length=4).scene(index)[0] for index in range(3)]
    one = scenes[0].objects[0]
    name = f"{one.colour} {one.shape}"
    texts = [[f"a {name}", f"a {name} and a {name}"], ["nothing", "a thing"], ["", "x"]]
    some = written(rng, texts=texts, scenes=scenes)
    assert REWARDS["precision"](some)[0].tolist() == [1, 1] and not REWARDS["precision"](some)[1:].any()
    # Shape and colour of one object, of all with four things each and the background; to say it twice gains nothing.
    assert REWARDS["recall"](some)[0].tolist() == pytest.approx([2 / (4 * len(scenes[0].objects) + 1)] * 2)
    with pytest.raises(ConfigError, match="neither of these images has any"):
        REWARDS["precision"](written(rng, references=[(), (), ()]))


def test_units_of_references(rng):
    texts = [["a red dog", "a blue dog runs"], ["a star", ""], ["a dog", "x"]]
    some = written(rng, texts=texts)
    # The first: dog, red, runs, and the dog again, which is one claim; the second: star, blue; the third: nothing.
    assert REWARDS["precision"](some).tolist() == [[1, pytest.approx(2 / 3)], [1, 0], [0, 0]]
    assert REWARDS["recall"](some).tolist() == [[pytest.approx(2 / 3), pytest.approx(2 / 3)], [1 / 2, 0], [0, 0]]


def test_how_well_formed_captions_are(rng):
    odds = np.array([[0.0, 2.0], [-1.0, 0.0], [0.0, 30.0]])
    found = REWARDS["grammar"](written(rng, grammar=odds))
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-odds)))
    with pytest.raises(ConfigError, match=r"config\.model\.text\.grammar"):
        REWARDS["grammar"](written(rng))


def test_runs_of_words_that_people_write():
    known = Fluency([["a", "red", "dog"], ["a", "red", "star"]])
    assert known.score(["a", "red", "dog"]) == 1 and known.score(["a", "red", "star"]) == 1
    assert known.score(["red", "a", "dog"]) == pytest.approx(1 / 4)  # that which ends is known: dog and the end
    assert known.score(["a", "red", "dog", "a", "red", "dog"]) < 1 and known.score([]) == 0


def test_cider_is_pycocoevalcaps():
    try:
        from pycocoevalcap.cider.cider import Cider as Published
    except ImportError:
        pytest.skip("pycocoevalcap is not installed")
    rng, words = (
        np.random.default_rng(0),
        np.array(["a", "the", "red", "blue", "dog", "cat", "runs", "sits", "on", "mat", "near", "tree"]),
    )

    def caption(most=12):
        return " ".join(rng.choice(words, rng.integers(1, most)))

    references = {i: [caption() for _ in range(rng.integers(1, 5))] for i in range(40)}
    captions = {i: [caption()] for i in range(40)}
    captions[0], captions[1] = [references[0][0]], ["dog"]
    _, wanted = Published().compute_score(references, captions)
    own = Cider([text.split() for text in some] for some in references.values())
    found = [own.score(captions[i][0].split(), [text.split() for text in references[i]]) for i in range(40)]
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def brevity(some):
    return -REWARDS["length"](some)


def test_the_weighted_sum_and_functions_of_ones_own(rng):
    some = written(rng)
    terms = parse_terms({"length": 0.5, "tests.rewards.test_rewards.brevity": 0.2})
    total, found = total_rewards(terms, some)
    np.testing.assert_allclose(total, 0.3 * REWARDS["length"](some))
    assert found.keys() == {"length", "tests.rewards.test_rewards.brevity"}


@pytest.mark.parametrize(
    ("name", "said"),
    [("lenght", 'no reward is called "lenght". Did you mean "length"'), ("no.such.thing", "cannot be imported")],
)
def test_rewards_that_there_are_not(name, said):
    with pytest.raises(ConfigError, match=said):
        parse_terms({name: 1.0})


def test_values_that_are_none(rng):
    some = written(rng)
    wrong = np.zeros((3, 2))
    wrong[1, 1] = np.nan
    with pytest.raises(DataError, match='is nan for the caption "the blue star'):
        total_rewards([Term("mine", 1.0, lambda _: wrong)], some)
    with pytest.raises(DataError, match=r"gives \[3\] values; one for each caption is meant, \[3, 2\]"):
        total_rewards([Term("mine", 1.0, lambda _: np.zeros(3))], some)
