"""Captions of regions: dense captions by Visual Genome's formula, captions that find their own region, the task."""

import json

import numpy as np
import pytest

from vlc.cli import main
from vlc.data.regions import Region
from vlc.data.sources import Scenes
from vlc.errors import ConfigError
from vlc.evaluate.metrics.dense_captions import OVERLAPS, SCORES, Said, dense_caption_map, merge_boxes
from vlc.evaluate.metrics.reference_based import meteor_scores
from vlc.evaluate.tasks.region_captions import texts_of
from vlc.inference import Model
from vlc.inference.captioning import Caption
from vlc.inference.region_captions import _once_each
from vlc.interop import write_native


def overlap_of(a, b):
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(wide, 0) * max(high, 0)
    area = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return common / (sum(area) - common)


def word_share(texts, references):
    """The best share of a text's words that a reference has, in place of METEOR."""
    return np.array([
        max((len(set(text.split()) & set(one.split())) / len(text.split()) for one in some), default=0.0)
        for text, some in zip(texts, references, strict=True)
    ])  # fmt: skip


def plain_map(found, truth):
    """The measure once more, by loops: true boxes are all apart here, so that none are merged."""
    everything = sorted(
        ((score, image, i) for image, said in enumerate(found) for i, score in enumerate(said.scores)), reverse=True
    )
    total, precisions, detections = sum(len(said.boxes) for said in truth), [], []
    for least in OVERLAPS:
        for score in (-1, *SCORES):
            taken, right = set(), []
            for _, image, i in everything:
                overlaps = [overlap_of(found[image].boxes[i], box) for box in truth[image].boxes]
                best = int(np.argmax(overlaps))
                some = overlaps[best] > 0
                text = word_share([found[image].texts[i]], [[truth[image].texts[best]]])[0] if some else 0
                first = some and (image, best) not in taken
                taken |= {(image, best)} if some else set()
                right.append(first and overlaps[best] >= least and text > score)
            hits = np.cumsum(right)
            precision, recall = hits / np.arange(1, len(hits) + 1), hits / total
            levels = [max((p for p, r in zip(precision, recall, strict=True) if r >= t), default=0.0)
                      for t in np.linspace(0, 1, 101)]  # fmt: skip
            (detections if score == -1 else precisions).append(np.mean(levels))
    return {"map": np.mean(precisions), "detection_map": np.mean(detections)}


@pytest.mark.parametrize("seed", range(3))
def test_dense_captions_by_the_formula(seed):
    rng = np.random.default_rng(seed)
    words = np.array(["red", "blue", "small", "circle", "star", "dog"])
    truth, found = [], []
    for _ in range(6):
        corners = np.array([(x, y) for x in (0.0, 0.35, 0.7) for y in (0.0, 0.5)])[rng.permutation(6)[:4]]
        boxes = np.concatenate([corners, corners + 0.3], axis=1)
        texts = [" ".join(rng.choice(words, 3)) for _ in boxes]
        truth.append(Said(boxes, texts))
        guesses = np.concatenate([boxes + rng.normal(0, 0.04, boxes.shape), boxes + rng.normal(0, 0.08, boxes.shape)])
        said = [" ".join(rng.choice(words, 2)) for _ in guesses]
        found.append(Said(guesses, said, rng.permutation(len(guesses) * 100)[: len(guesses)].astype(float)))
    # no two scores are equal, so that their order is one
    found = [Said(s.boxes, s.texts, np.asarray(s.scores) + 1e-3 * i) for i, s in enumerate(found)]
    wanted, made = plain_map(found, truth), dense_caption_map(found, truth, word_share)
    assert 0.05 < wanted["map"] < wanted["detection_map"] < 0.95
    np.testing.assert_allclose([made["map"], made["detection_map"]], [wanted["map"], wanted["detection_map"]])


def test_dense_captions_at_their_ends():
    boxes = np.array([[0, 0, 0.4, 0.4], [0.5, 0.5, 1, 1.0]])
    truth = Said(boxes, ["a red dog", "a blue star"])
    assert dense_caption_map([Said(boxes, truth.texts, [0.1, 0.9])], [truth], word_share)["map"] == 1
    wrong = dense_caption_map([Said(boxes, ["cat", "moon"], [0.1, 0.9])], [truth], word_share)
    assert wrong == {"map": 0, "detection_map": 1}
    twice = Said(boxes[[0, 0]], ["a red dog"] * 2, [0.9, 0.8])  # the second is wrong; half of the recall is reached
    assert dense_caption_map([twice], [truth], word_share)["map"] == pytest.approx(51 / 101)
    nothing = Said(np.zeros((0, 4)), [], [])
    assert dense_caption_map([nothing, nothing], [truth, nothing], word_share)["map"] == 0


def test_boxes_that_are_one_are_merged_with_all_their_texts():
    boxes = np.array([[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.52], [0.6, 0.6, 1, 1], [0, 0, 0.5, 0.48]])
    assert [group.tolist() for group in merge_boxes(boxes)] == [[0, 1, 3], [2]]
    truth = Said(boxes, ["a dog", "a red thing", "sky", "an animal"])
    found = Said(boxes[[1, 2]], ["a red thing", "sky"], [0.5, 0.6])
    assert dense_caption_map([found], [truth], word_share)["map"] == 1


def test_meteor_of_each_caption():
    scores = meteor_scores(["a red dog", "a moon", "x"], [["a red dog"], ["two stars", "a moon"], []])
    if isinstance(scores, str):
        pytest.skip(scores)
    assert scores.tolist() == [1.0, 1.0, 0.0]


def test_each_caption_is_chosen_once():
    def some(*scored):
        return [Caption(text, -1.0, -1.0, 3, score) for text, score in scored]

    chosen = _once_each([some(("dog", -0.5), ("red dog", -0.9)), some(("dog", -0.1), ("cat", -3.0))])
    assert [one.text for one in chosen] == ["red dog", "dog"]  # the second is surer of it
    assert [one.text for one in _once_each([some(("dog", -0.5)), some(("dog", -0.1))])] == ["dog", "dog"]


def test_texts_of_a_region():
    region = Region((0, 0, 1, 1), label="dog", captions={"brief": ("red dog",), "long": ("a red dog", "a dog")})
    assert texts_of(region, "") == ["red dog", "a red dog", "a dog"]
    assert texts_of(region, "l*") == ["a red dog", "a dog"] and texts_of(region, "other") == []
    assert texts_of(Region((0, 0, 1, 1), label="dog"), "") == ["dog"]


@pytest.fixture(scope="module")
def run(tiny_regions, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write_native(tiny_regions.as_imported(), folder)
    return folder


def test_captions_of_regions_that_the_model_finds(run):
    model = Model.load(run)
    scenes = Scenes(side=model.config.data.image.size, split="test", length=3)
    images = [scenes[i].image for i in range(3)]
    found = model.dense_captions(images, least=0.0, overlap=1.0)
    assert len(found) == 3 and all(len(some) <= model.config.model.regions.queries for some in found)
    for some in found:
        assert [one.score for one in some] == sorted((one.score for one in some), reverse=True)
        assert all(0 <= one.score <= 1 and 0 <= min(one.box) <= max(one.box) <= 1 for one in some)
    again = model.caption(images[0], boxes=[one.box for one in found[0]])
    assert again == [one.text for one in found[0]]
    assert model.dense_captions(images, least=1.1) == [[], [], []] and model.dense_captions([]) == []


def test_unique_captions_are_chosen_among_several(run):
    model = Model.load(run)
    scenes = Scenes(side=model.config.data.image.size, split="test", length=3)
    images = [scenes[i].image for i in range(3)]
    boxes = [[one.box for one in scenes[i].regions if one.kind == "entity"] for i in range(3)]
    written = model.caption(images, boxes=boxes, unique=True, num_return_sequences=4, seed=3)
    assert [len(some) for some in written] == [len(some) for some in boxes]
    drawn = [model.caption(image, boxes=some, unique=True, num_return_sequences=4, seed=3)
             for image, some in zip(images, boxes, strict=True)]  # fmt: skip
    assert drawn[0] == written[0]
    with pytest.raises(ConfigError, match="num_return_sequences"):
        model.caption(images, boxes=boxes, unique=True)
    with pytest.raises(ConfigError, match="boxes, masks or points"):
        model.caption(images, unique=True, num_return_sequences=4)


@pytest.mark.parametrize("more", [[], ["--unique", "3", "--references", "brief"]])
def test_the_task_of_captions_of_regions(run, tmp_path, more):
    arguments = ["eval", str(run), "--task", "region_captions", "--data", "scenes", "--examples", "9"]
    assert main([*arguments, "--out", str(tmp_path), "--cache", str(tmp_path / "cache"), *more]) == 0
    found = json.loads((tmp_path / "eval.json").read_text())["tasks"]["region_captions"]
    assert found["images"] == 9 and found["regions"] > 18 and 0 < found["unique_chance"] < 0.6
    assert {"unique", "equal", "cider", "bleu4"} <= found.keys()
    if "meteor" in found:
        assert 0 <= found["map"] <= found["detection_map"] <= 1 and 0 <= found["map_given"] <= 1
    assert "what is said of given regions" in (tmp_path / "report.html").read_text()


def test_captions_of_no_region_are_refused(run, tmp_path, capsys):
    arguments = ["eval", str(run), "--task", "region_captions", "--data", "scenes", "--examples", "2"]
    assert main([*arguments, "--out", str(tmp_path), "--references", "german"]) != 0
    assert "no region has a caption of german" in capsys.readouterr().err
