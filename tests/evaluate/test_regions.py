"""Figures about regions: equal to pycocotools and to the formulas of the data sets, on small cases; and the task."""

import contextlib
import copy
import dataclasses
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from vlc.cli import main
from vlc.data.boxes import box_iou
from vlc.data.regions import Region
from vlc.data.sources import Scenes, open_source
from vlc.evaluate.metrics.intervals import Figure, interval
from vlc.evaluate.metrics.regions import (
    average_precision,
    box_recall,
    given_boxes_map,
    labelled_ap,
    r_precision,
)
from vlc.evaluate.tasks.region_data import see_regions
from vlc.evaluate.tasks.regions import Scores, drawn_regions
from vlc.inference import Model
from vlc.inference.region_mapping import map_attributes
from vlc.interop import write_native


def coco_ap(scores, labels, classes):
    """AP at an IoU of 0.5 by pycocotools, each box an image of its own and found once for every class."""
    boxes = [[10.0 * i, 0.0, 5.0, 5.0] for i in range(len(labels))]
    images = [{"id": i, "width": 500, "height": 10} for i in range(len(labels))]
    truth, found = COCO(), COCO()
    said = [
        {"id": i + 1, "image_id": i, "category_id": int(c) + 1, "bbox": boxes[i], "area": 25.0, "iscrowd": 0}
        for i, c in enumerate(labels)
    ]
    names = [{"id": c + 1, "name": str(c)} for c in range(classes)]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.dataset = {"images": images, "annotations": said, "categories": names}
        truth.createIndex()
        detections = [
            {"image_id": i, "category_id": c + 1, "bbox": boxes[i], "score": float(scores[i, c])}
            for i in range(len(labels)) for c in range(classes)
        ]  # fmt: skip
        found = truth.loadRes(detections)
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[1]


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_is_cocos(seed):
    rng = np.random.default_rng(seed)
    labels, scores = rng.integers(0, 4, 30), rng.normal(size=(30, 4)).round(1)  # with equal scores
    np.testing.assert_allclose(given_boxes_map(scores, labels), coco_ap(scores, labels, 4), atol=1e-9)


def test_average_precision_at_its_ends():
    assert average_precision(np.array([2.0, 1.0]), np.array([True, False]), 1) == 1
    assert average_precision(np.zeros(0), np.zeros(0, bool), 3) == 0
    assert np.isnan(average_precision(np.zeros(0), np.zeros(0, bool), 0))
    assert average_precision(np.array([1.0]), np.array([True]), 2) == pytest.approx(51 / 101)  # recall 0 to 0.5


def test_precision_of_attributes_over_those_that_are_known():
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.8, 0.3], [0.1, 0.4], [0.99, 0.5]])
    labels = np.array([[1, 1], [0, -1], [1, -1], [1, -1], [-1, 1]])  # the second attribute is never absent
    # ordered: 1; then 0 and 1 of equal scores, one step; then 1
    wanted = 1 / 3 * 1 + 1 / 3 * 2 / 3 + 1 / 3 * 3 / 4
    assert labelled_ap(scores, labels) == {0: pytest.approx(wanted)}


def test_r_precision_counts_ties_against_the_model():
    scores = np.array([[3.0, 2.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0]])
    relevant = np.array([[True, False, True, False], [True, True, False, False]])
    np.testing.assert_allclose(r_precision(scores, relevant), [0.5, 0.5])


def test_boxes_are_matched_one_to_one():
    truth = np.array([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]])
    np.testing.assert_allclose(box_iou(truth[:, None], truth[None])[0], np.eye(2))
    assert box_recall([truth], [truth]) == 1 and box_recall([np.zeros((0, 4))], [truth]) == 0
    assert box_recall([truth[:1].repeat(5, axis=0)], [truth]) == 0.5  # five on one object find one
    assert box_recall([np.array([[0, 0, 0.5, 0.24]])], [truth[:1]]) == 0


def test_attributes_within_a_margin_of_the_best():
    scores = np.array([[0.9, 0.1, 0.5], [0.75, 0.2, 0.2], [0.1, 0.9, 0.6]])
    has = map_attributes(scores, np.array([True, True, False]), 0.2)
    assert has.tolist() == [[True, False, False], [True, False, False], [False, True, False]]


@pytest.fixture(scope="module")
def run(tiny_regions, tmp_path_factory):
    """A folder with the model."""
    folder = tmp_path_factory.mktemp("run")
    write_native(tiny_regions.as_imported(), folder)
    return folder


def test_the_task_of_regions(run, tmp_path, capsys):
    for number, more in enumerate(([], ["--crops"])):
        out = tmp_path / str(number)
        arguments = ["eval", str(run), "--task", "regions", "--data", "scenes", "--examples", "9", "--out", str(out)]
        assert main([*arguments, "--cache", str(tmp_path / "cache"), *more]) == 0
        found = json.loads((out / "eval.json").read_text())["tasks"]["regions"]
        assert found["images"] == 9 and found["regions"] > 18
        figures = found["embed"]
        assert "regions: given regions" in (out / "report.html").read_text()
        assert {
            "class_top1",
            "class_map",
            "attribute_ap",
            "grounding",
            "class_r_precision",
            "located",
        } <= figures.keys()
        assert 0 <= figures["class_map"] <= 1 and figures["grounding_chance"] < 0.6
    assert "grounding" in capsys.readouterr().out


def test_pooled_regions_cover_what_they_should(run):
    model = Model.load(run)
    scenes = Scenes(side=model.config.data.image.size, split="test", length=4)
    regions = [[one for one in scenes[i].regions if one.kind == "entity"] for i in range(4)]
    seen = see_regions(model, [scenes[i].image for i in range(4)], regions)
    embeds = model.encode_regions(
        [scenes[i].image for i in range(4)], masks=[[r.mask for r in some] for some in regions]
    )
    np.testing.assert_allclose(seen.regions.embed, np.concatenate(embeds), atol=1e-5)
    assert np.array_equal(seen.owner, np.repeat(np.arange(4), [len(some) for some in regions]))
    there = seen.regions.tokens.any(axis=2)
    assert (there <= (seen.cover > 0)).all() and there.any(axis=1).all()


def test_regions_that_are_not_seen_are_counted(run):
    model = Model.load(run)
    wide = np.zeros((40, 120, 3), np.uint8)
    regions = [[Region((0, 0, 0.1, 1)), Region((0.4, 0.1, 0.6, 0.9))], []]
    cut = copy.copy(model)
    cut._preprocess = dataclasses.replace(model.preprocess, resize="crop")  # the outer thirds are cut off
    seen = see_regions(cut, [wide, wide], regions)
    assert seen.outside == 1 and len(seen.told) == 1 and seen.owner.tolist() == [0]
    assert see_regions(model, [wide, wide], regions).outside == 0
    nothing = see_regions(cut, [wide, wide], [[Region((0, 0, 0.1, 1), label="dog")], []])
    assert nothing.outside == 1 and not nothing.told
    scores = Scores()
    scores.add(cut, nothing, "embed", ["dog"], ["red"], ["{}"])
    assert drawn_regions(cut, nothing, "embed", ["dog"], ["{}"])[0][1] == [] and scores.figures(["dog"], []) == {}


def test_an_interval_draws_the_answers_of_an_image_together():
    """Two images, one of ten right answers and one of one wrong: of images drawn, all right or all wrong may be."""
    figure = Figure.ratio([10, 0], [10, 1])
    assert figure.value == pytest.approx(10 / 11) and interval(figure, 2) == (0.0, 1.0)
    assert figure.over(np.array([0, 1])) == pytest.approx(10 / 11)


def test_regions_are_mapped_to_a_data_set(run, tmp_path, capsys):
    out = tmp_path / "mapped"
    arguments = [
        "map-regions",
        str(run),
        "--data",
        "scenes",
        "--records",
        "7",
        "--out",
        str(out),
        "--shard-records",
        "4",
    ]
    assert main(arguments) == 0 and "2 shards" in capsys.readouterr().out
    source = open_source(str(out))
    assert 0 < len(source) <= 7
    for i in range(len(source)):
        record = source[i]
        words = " ".join(record.all_captions())
        texts = [text for one in record.regions for text in one.captions["mapped"]]
        assert texts and all(text in words for text in texts) and not any(one.label for one in record.regions)
    assert main(arguments) == 0  # what is there stays
    assert main([*arguments, "--margin", "0.5"]) != 0 and "another" in capsys.readouterr().err
