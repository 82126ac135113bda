"""Segmentation by windows that slide, and by masks that another model proposes (OVSeg)."""

import json

import numpy as np
import pytest
from PIL import Image

from vlc.cli import main
from vlc.data.masks import Mask
from vlc.errors import ConfigError, DataError
from vlc.evaluate.metrics.zero_shot import class_embeddings
from vlc.evaluate.tasks.proposals import Proposal, check_ensemble, pixel_scores, read_proposals
from vlc.evaluate.tasks.windows import _starts, check_windows, window_field
from vlc.interop import write_native


def softmax(x):
    return np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)


def test_windows_cover_all_of_a_picture():
    assert _starts(4, 4) == [0] and _starts(5, 4) == [0, 1] and _starts(9, 4) == [0, 2, 4, 5]
    for length in range(4, 30):
        starts = _starts(length, 4)
        assert {start + i for start in starts for i in range(4)} == set(range(length))


def test_a_picture_of_the_model_s_size_is_one_window(tiny_regions, rng):
    size = tiny_regions.preprocess.size
    picture = rng.integers(0, 256, (size, size, 3)).astype(np.uint8)
    tokens = tiny_regions.encode_image(picture).tokens[0]
    field = window_field(tiny_regions, picture, size, lambda patches: patches[:, :5])
    np.testing.assert_allclose(field.reshape(-1, 5), tokens[:, :5], atol=1e-5)


def test_where_windows_overlap_their_mean_counts(tiny_regions, rng):
    model, size, grid = tiny_regions, tiny_regions.preprocess.size, tiny_regions.grid
    picture = rng.integers(0, 256, (size, 2 * size, 3)).astype(np.uint8)
    field = window_field(model, picture, size, lambda patches: patches[:, :5])
    assert field.shape == (grid, 2 * grid, 5)
    half = grid // 2 * (size // grid)
    cuts = [picture[:, left : left + size] for left in (0, half, size)]
    first, second, third = (model.encode_image(np.ascontiguousarray(cut)).tokens[0, :, :5] for cut in cuts)
    first, second, third = (x.reshape(grid, grid, 5) for x in (first, second, third))
    step = grid // 2
    np.testing.assert_allclose(field[:, :step], first[:, :step], atol=1e-5)
    np.testing.assert_allclose(field[:, step:grid], (first[:, step:] + second[:, : grid - step]) / 2, atol=1e-5)
    np.testing.assert_allclose(field[:, grid + step :], third[:, step:], atol=1e-5)


def test_the_class_of_a_mask_by_the_formula(tiny_regions, rng):
    model = tiny_regions
    picture = rng.integers(0, 256, (40, 60, 3)).astype(np.uint8)
    inside = np.zeros((40, 60), bool)
    inside[5:25, 10:40] = True
    other = np.zeros((40, 60), bool)
    other[20:35, 30:50] = True
    prompts = class_embeddings(model.encode_text(["red", "blue", "green"]).embed, 3)
    crop = model.encode_regions(picture, masks=[inside, other], crop=True)
    whole = model.encode_regions(picture, masks=[inside, other])
    by_crop, by_patches = (softmax(model.scales.logit_scale * x @ prompts.T) for x in (crop, whole))
    named = (0.2, 0.5, 0.3)
    proposals = [Proposal(Mask.of(inside), 0.9, named), Proposal(Mask.of(other), 0.6)]
    for share in (0.0, 0.7, 1.0):
        found = pixel_scores(model, picture, proposals, prompts, share, "a.png")
        both = np.stack([np.array(named), by_patches[1]]) ** (1 - share) * by_crop**share
        both /= both.sum(axis=1, keepdims=True)
        wanted = 0.9 * inside[..., None] * both[0] + 0.6 * other[..., None] * both[1]
        np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert not pixel_scores(model, picture, [], prompts, 0.7, "a.png").any()
    with pytest.raises(DataError, match="a mask is 60 x 40, the picture 30 x 20"):
        pixel_scores(model, picture[::2, ::2], proposals, prompts, 0.7, "a.png")


def entry(mask, **more):
    return {"segmentation": mask.plain(), **more}


def test_proposals_are_read(tmp_path):
    mask = Mask.of(np.eye(4, dtype=bool))
    empty = Mask.of(np.zeros((4, 4), bool))
    path = tmp_path / "found.json"
    rows = [entry(mask, image="val/a.jpg", score=0.5), entry(mask, file_name="a.png", scores=[0.1, 0.9]),
            entry(mask, image_id=7), entry(empty, image="a.jpg")]  # fmt: skip
    path.write_text(json.dumps(rows))
    found = read_proposals(path, 2)
    assert {name: len(some) for name, some in found.items()} == {"a": 2, "7": 1}
    assert found["a"][0].score == 0.5 and found["a"][1].classes == (0.1, 0.9)
    for wrong, said in (
        ("nothing", "no readable JSON"),
        ([], "a list of proposals"),
        ([{"image": "a"}], "entry 0: a proposal is"),
        ([entry(mask)], "it names no image"),
        ([entry(mask, image="a", scores=[1])], "it has 1 scores, and there are 2"),
        ([{"image": "a", "segmentation": {"size": [4, 4], "counts": [3]}}], "entry 0: a mask is"),
    ):
        path.write_text(wrong if isinstance(wrong, str) else json.dumps(wrong))
        with pytest.raises(DataError, match=said):
            read_proposals(path, 2)


def test_options_that_make_no_sense(tiny_regions):
    with pytest.raises(ConfigError, match="--ensemble"):
        check_ensemble(tiny_regions, 1.5)
    with pytest.raises(ConfigError, match="--windows 8"):
        check_windows(tiny_regions, 8)


def test_the_task_with_both(tiny_regions, tmp_path, capsys, draw):
    write_native(tiny_regions.as_imported(), tmp_path / "model")
    (tmp_path / "data" / "masks").mkdir(parents=True)
    proposals = []
    for number in range(3):
        draw(tmp_path / "data" / "images" / f"{number}.jpg", size=(48, 36))
        mask = np.zeros((36, 48), np.uint8)
        mask[:, 24:], mask[:4] = 1, 255
        Image.fromarray(mask).save(tmp_path / "data" / "masks" / f"{number}.png")
        for sea, scores in ((False, [1, 0]), (True, [0, 1])):  # the proposer is right, and is believed
            part = (mask == 1) if sea else (mask == 0)
            proposals.append(entry(Mask.of(part), image=f"{number}.jpg", scores=scores))
    (tmp_path / "data" / "classes.txt").write_text("sky\nsea\n")
    (tmp_path / "found.json").write_text(json.dumps(proposals[:4]))  # of two of three
    arguments = ["eval", str(tmp_path / "model"), "--task", "segmentation", "--data", str(tmp_path / "data")]
    arguments += ["--templates", "simple", "--cache", str(tmp_path / "cache"), "--out", str(tmp_path)]
    found = {}
    for name, more in (
        ("once", []), ("windows", ["--windows", "48"]),
        ("both", ["--proposals", str(tmp_path / "found.json"), "--ensemble", "0", "--windows", "48"]),
    ):  # fmt: skip
        assert main([*arguments, *more]) == 0
        found[name] = json.loads((tmp_path / "eval.json").read_text())["tasks"]["segmentation"]
    assert found["both"]["images_with_proposals"] == 2 and found["both"]["images"] == 3
    third = 3 * found["both"]["pixel_accuracy"] - 2  # of the picture without proposals
    assert -1e-6 <= third <= 1 + 1e-6 and found["both"]["pixel_accuracy"] >= 2 / 3
    (tmp_path / "found.json").write_text(json.dumps([entry(Mask.of(np.ones((4, 4), bool)), image="x.png")]))
    assert main([*arguments, "--proposals", str(tmp_path / "found.json")]) != 0
    assert "no proposal is of any of these 3 pictures" in capsys.readouterr().err
