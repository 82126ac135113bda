"""Pictures that are looked at again, closer."""

import json

import numpy as np
import pytest
from PIL import Image

from vlc.cli import main
from vlc.data.sources import Scenes
from vlc.errors import ConfigError
from vlc.inference.closer import Closer, part_boxes, zoom_box


@pytest.fixture(scope="module")
def images():
    scenes = Scenes(side=80, length=3)
    return [scenes[i].image for i in range(3)]


def test_the_box_around_the_best_patches():
    alike = np.zeros(12)
    alike[[1, 6]] = 2, 1  # row 0 column 1, and row 1 column 2, of 3 x 4
    assert zoom_box(alike, (3, 4), 1) == (0.25, 0, 0.5, 1 / 3)
    assert zoom_box(alike, (3, 4), 2) == (0.25, 0, 0.75, 2 / 3)
    padded = np.append(alike, [9, 9])  # pads are no patches
    assert zoom_box(padded, (3, 4), 2) == (0.25, 0, 0.75, 2 / 3)


def test_parts_of_a_picture_tile_it():
    boxes = np.array(part_boxes((2, 3)))
    assert len(boxes) == 13 and boxes[0].tolist() == [0, 0, 0.5, 0.5] and boxes[-1].tolist() == [2 / 3, 2 / 3, 1, 1]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    assert area[:4].sum() == pytest.approx(1) and area[4:].sum() == pytest.approx(1)


@pytest.mark.parametrize("by", ["likeness", "oddness"])
def test_a_zoom_is_a_crop_beside_the_picture(tiny_regions, images, by):
    model, patches = tiny_regions, tiny_regions.grid**2
    whole, seen = model.encode_image(images), model.encode_image(images, closer=Closer(zoom=1, by=by))
    assert seen.tokens.shape[1] == 2 * patches and seen.features.shape[1] == 2 * patches
    np.testing.assert_allclose(seen.tokens[:, :patches], whole.tokens, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(seen.embed, axis=1), 1, atol=1e-5)
    side = 80 // model.grid
    fits = []
    for patch in range(patches):  # one patch is cut out, whichever it is
        y, x = divmod(patch, model.grid)
        crop = model.encode_image(np.ascontiguousarray(images[0][y * side : (y + 1) * side, x * side : (x + 1) * side]))
        fits.append(np.abs(crop.tokens[0] - seen.tokens[0, patches:]).max())
        if fits[-1] < 1e-4:
            between = whole.embed[0] + crop.embed[0]
            np.testing.assert_allclose(seen.embed[0], between / np.linalg.norm(between), atol=1e-4)
    assert min(fits) < 1e-4


def test_a_zoom_on_everything_changes_no_embedding(tiny_regions, images):
    everything = Closer(zoom=tiny_regions.grid**2)
    seen = tiny_regions.encode_image(images, closer=everything)
    np.testing.assert_allclose(seen.embed, tiny_regions.encode_image(images).embed, atol=1e-5)


def test_the_best_patches_of_parts_are_kept(tiny_regions, images):
    patches = tiny_regions.grid**2
    everything = tiny_regions.encode_image(images, closer=Closer(parts=(2,), keep=4 * patches))
    some = tiny_regions.encode_image(images, closer=Closer(parts=(2,), keep=3))
    assert everything.tokens.shape[1] == 5 * patches and some.tokens.shape[1] == patches + 3
    for row in range(3):
        known = {token.tobytes() for token in np.round(everything.tokens[row, patches:], 4)}
        assert all(token.tobytes() in known for token in np.round(some.tokens[row, patches:], 4))
    assert tiny_regions.encode_image(images, closer=Closer(parts=(3,))).tokens.shape[1] == 2 * patches


def test_scores_of_pictures_that_are_looked_at_again(tiny_regions, images):
    closer = Closer(zoom=2, parts=(2,))
    seen = tiny_regions.encode_image(images, closer=closer)
    wanted = seen.embed @ tiny_regions.encode_text(["a red circle", "a star"]).embed.T
    made = tiny_regions.score(images, ["a red circle", "a star"], by="embed", closer=closer)
    np.testing.assert_allclose(made, wanted, atol=1e-5)
    assert len(tiny_regions.encode_image([], closer=closer).embed) == 0


@pytest.mark.parametrize(
    "wrong", [{}, {"zoom": -1}, {"parts": (1,)}, {"zoom": 2, "keep": 4}, {"zoom": 2, "by": "like"}]
)
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(ConfigError, match=r"Closer|zoom"):
        Closer(**wrong)


def test_tasks_look_again(tiny_folder, tmp_path, capsys, draw):
    for name in ("red", "blue"):
        for number in range(2):
            draw(tmp_path / "data" / name / f"{number}.png", size=(90, 60))
    (tmp_path / "data" / "red" / "torn.png").write_bytes(b"no picture")
    arguments = [
        "eval",
        str(tiny_folder),
        "--task",
        "classification",
        "--data",
        str(tmp_path / "data"),
        "--score",
        "both",
    ]
    arguments += ["--cache", str(tmp_path / "cache"), "--templates", "simple"]
    found = []
    for number, more in enumerate(([], ["--zoom", "2"], ["--parts", "2,3", "--keep", "5", "--closer-by", "oddness"])):
        assert main([*arguments, *more, "--out", str(tmp_path / str(number))]) == 0
        found.append(json.loads((tmp_path / str(number) / "eval.json").read_text())["tasks"]["classification"])
    assert all(one["images"] == 4 and sum(one["skipped"].values()) == 1 for one in found)
    assert len(list((tmp_path / "cache" / "embeddings").iterdir())) >= 3  # none is taken for another
    refused = ["eval", str(tiny_folder), "--task", "regions", "--data", "scenes", "--zoom", "2", "--out", str(tmp_path)]
    assert main(refused) != 0 and "--zoom and --parts are for" in capsys.readouterr().err


def test_pictures_of_any_size(tiny_regions):
    wide = np.asarray(Image.linear_gradient("L").resize((200, 50)).convert("RGB"))
    seen = tiny_regions.encode_image([wide, wide[:, :60]], closer=Closer(zoom=2, parts=(2,), keep=2))
    assert seen.tokens.shape[:2] == (2, 2 * tiny_regions.grid**2 + 2) and np.isfinite(seen.embed).all()
