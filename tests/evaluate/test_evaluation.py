"""Ranks, recall, binding, pointing and facts: each against cases worked out by hand."""

import numpy as np
import pytest

import vlc
from vlc.data.record import Record, Source
from vlc.data.sources import Scenes
from vlc.data.sources.scenes import language, world
from vlc.data.sources.scenes.facts import caption_facts
from vlc.errors import ConfigError, DataError
from vlc.evaluate.metrics.ranking import Block, ranks, recall
from vlc.evaluate.metrics.regions import patch_cover
from vlc.evaluate.metrics.retrieval import recalls
from vlc.evaluate.metrics.zero_shot import accuracy
from vlc.evaluate.overview import good_records
from vlc.evaluate.report.page import Report
from vlc.evaluate.tasks.guidance import word_f1
from vlc.evaluate.tasks.scenes import _pair_accuracy, edit_twin_accuracy


def test_ranks_count_ties_as_wrong():
    scores = np.array([[0.1, 0.9, 0.5], [0.5, 0.5, 0.5], [0.2, 0.1, 0.3]])
    assert ranks(scores, np.eye(3, dtype=bool)).tolist() == [2, 2, 0]


def test_a_collapsed_model_scores_nothing():
    for value in (0.0, np.nan, np.inf):
        scores = np.full((4, 4), value)
        assert ranks(scores, np.eye(4, dtype=bool)).tolist() == [3, 3, 3, 3]


def test_any_of_several_captions_counts():
    scores = np.array([[0.9, 0.1, 0.2], [0.8, 0.3, 0.4]])  # two images; captions 0 and 1 belong to image 0
    found = recalls(lambda: [Block(slice(0, 2), slice(0, 3), scores, scores)], np.array([0, 0, 1]), 2)
    assert found["i2t_r1"] == 0.5 and found["i2t_r5"] == 1.0
    assert found["t2i_r1"] == pytest.approx(2 / 3)


def test_recall():
    assert recall(np.array([0, 4, 9, 20]), "x") == {"x_r1": 0.25, "x_r5": 0.5, "x_r10": 0.75}


def test_zero_shot_accuracy():
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.5, 0.5]])
    found = accuracy(scores, [0, 1, 1])
    assert found == {"top1": pytest.approx(1 / 3), "top5": 1.0, "mean_class": 0.5}


def test_pairs_need_both_sides_for_a_group():
    right = np.array([[2.0, 1.0], [1.0, 2.0]])
    assert _pair_accuracy(right, right) == {"text": 1.0, "image": 1.0, "group": 1.0}
    assert _pair_accuracy(np.ones((2, 2)), np.ones((2, 2))) == {"text": 0.0, "image": 0.0, "group": 0.0}
    biased = np.array([[2.0, 1.0], [4.0, 3.0]])  # the first caption always wins, and so does the second image
    assert _pair_accuracy(biased, biased) == {"text": 0.5, "image": 0.5, "group": 0.0}


def test_scenes_of_one_object_have_no_swaps(tiny_folder):
    found = edit_twin_accuracy(vlc.load(tiny_folder), Scenes(side=32, objects=(1, 1), length=20), 4)
    assert set(found) == set(world.ATTRIBUTES)


def testpatch_cover():
    masks = np.zeros((1, 8, 8), bool)
    masks[0, :2, :4] = True
    assert patch_cover(masks, 2).tolist() == [[[0.5, 0.0], [0.0, 0.0]]]


def test_facts_of_a_caption():
    scene, style = Scenes().scene(0)
    names = [f"{o.colour} {o.shape}" for o in scene.objects]
    some = caption_facts(scene, f"a {names[0]}")
    assert some["correct"] == 1 and some["covered"] == 1 / len(names) and some["exact"] == 0 and some["named"] == 2
    assert caption_facts(scene, "a picture of a few shapes")["named"] == 0
    assert caption_facts(scene, language.long_caption(scene, style).text)["exact"] == 1
    other = next(c for c in language.COLOURS if all(o.colour != c for o in scene.objects))
    wrong = caption_facts(scene, f"a {other} {scene.objects[0].shape}")
    assert wrong["correct"] == 0 and wrong["attributes"] == 0.5


def test_facts_are_read_with_their_relations():
    facts = language.read_facts("A large striped red ring. There is a blue star to the left of the red ring.")
    assert facts.mentions[0] == {"size": "large", "texture": "striped", "colour": "red", "shape": "ring"}
    assert facts.relations == ((1, "left of", 2),) and facts.background is None
    assert language.read_facts("Everything is on a navy background.").background == "navy"


def test_word_f1():
    assert word_f1("a red circle.", "A red circle") == 1.0
    assert word_f1("a a a", "a dog") == pytest.approx(2 / 5)
    assert word_f1("cat", "dog") == 0.0


def test_records_that_cannot_be_read_are_passed_over():
    class Half(Source):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            if index % 2:
                raise DataError("damaged")
            return Record(str(index), b"", {"text": ("x",)})

    assert [r.key for r in good_records(Half(), 10)] == ["0", "2"]


def test_a_report_escapes_what_it_shows():
    report = Report("<b>title</b>", "sub")
    report.table("t", "n", ["a"], [["<script>"], [0.5]])
    page = report.render()
    assert "<script>" not in page and "<b>title</b>" not in page and "50.0%" in page


def test_no_data_to_evaluate_on_is_said_plainly(tokenizer):
    from tests.conftest import read_config
    from vlc.evaluate.overview import open_eval_source

    class Trained:
        config = read_config("own_images")

    with pytest.raises(ConfigError, match="--data PATH"):
        open_eval_source(Trained(), "", 10)
