"""`vlc eval --task`: each kind of data, what is left out, what is kept and reused, and what bad input says."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import vlc
from vlc.cli import main
from vlc.errors import ConfigError, DataError
from vlc.evaluate import embeddings
from vlc.evaluate.embeddings import Cache
from vlc.evaluate.metrics.probes import knn_scores, linear_scores
from vlc.evaluate.metrics.ranking import Block, block_ranks, ranks
from vlc.evaluate.metrics.reference_based import reference_figures
from vlc.evaluate.metrics.zero_shot import accuracy, without_later_twins
from vlc.evaluate.pictures import Pictures
from vlc.evaluate.run import compared, evaluate_tasks
from vlc.evaluate.tasks.base import Options
from vlc.evaluate.tasks.compositionality import _outcome, read_cases
from vlc.evaluate.tasks.labelled import open_labelled
from vlc.evaluate.tasks.segmentation import open_masked, predict, read_mask
from vlc.evaluate.tasks.templates import read_templates
from vlc.inference.comparison import all_scores, pair_scores

COLOURS = {"blue_sky": (20, 40, 220), "grass": (30, 200, 40), "poppy": (220, 30, 30)}


@pytest.fixture(scope="module")
def model(tiny_folder):
    return vlc.load(tiny_folder)


@pytest.fixture
def classes(tmp_path, draw):
    """Three classes in two splits, one picture of which is damaged."""
    for split, count in (("train", 8), ("val", 4)):
        for name, colour in COLOURS.items():
            for number in range(count):
                draw(tmp_path / "data" / split / name / f"{number}.png", colour)
    (tmp_path / "data" / "val" / "grass" / "0.png").write_bytes(b"no picture")
    return tmp_path / "data"


def run(model, tasks, tmp_path, **options):
    data = options.pop("data")
    data = data if isinstance(data, dict) else {"": str(data)}
    asked = Options(data, **options)
    return evaluate_tasks(model, tasks, asked, tmp_path / "out", cache=tmp_path / "cache", name="tiny", quiet=True)


def test_classification_and_probes_share_embeddings(model, classes, tmp_path, monkeypatch):
    found = run(model, ["classification", "linear", "knn"], tmp_path, data=classes, score="both")["tasks"]
    assert found["linear"]["top1"] == found["knn"]["top1"] == 1.0  # colours are easily told apart
    assert found["linear"]["train_images"] == 24
    by_embed = found["classification"]["embed"]
    assert found["classification"]["images"] == 11 and found["classification"]["skipped"] == {"image": 1}
    assert {row["class"]: row["images"] for row in by_embed["by_class"]} == {"blue sky": 4, "grass": 3, "poppy": 4}
    assert by_embed["mean_class"] == pytest.approx(np.mean([row["top1"] for row in by_embed["by_class"]]))
    saved = json.loads((tmp_path / "out" / "eval.json").read_text())
    assert saved["tasks"]["classification"] == found["classification"]
    assert "hardest classes" in (tmp_path / "out" / "report.html").read_text()

    # All is on disk now: another run computes no embedding, and finds the same.
    monkeypatch.setattr(vlc.Model, "encode_pixels", None)
    again = run(model, ["classification"], tmp_path, data=classes, score="both")
    assert again["tasks"]["classification"]["embed"]["top1"] == by_embed["top1"]


def test_scores_of_classes_are_means_over_prompts(model, classes, tmp_path):
    (tmp_path / "t.txt").write_text("a {}\nthere is {c} in it\n")
    found = run(model, ["classification"], tmp_path, data=classes, score="both", templates=str(tmp_path / "t.txt"))
    files = [p for p in sorted((classes / "val").rglob("*.png")) if p.stat().st_size > 100]
    image = model.encode_image(files)
    names, truth = [n.replace("_", " ") for n in COLOURS], [list(COLOURS).index(p.parent.name) for p in files]
    prompts = [model.encode_text([f"a {name}", f"there is {name} in it"]).embed.mean(axis=0) for name in names]
    scores = image.embed @ np.stack([p / np.linalg.norm(p) for p in prompts]).T
    rank = ranks(scores, np.asarray(truth)[:, None] == np.arange(3))
    figures = found["tasks"]["classification"]
    assert figures["embed"]["top1"] == pytest.approx(float((rank < 1).mean()))
    by_token = []
    for name in names:
        i2t, _ = vlc.late_interaction(image.tokens, *_tokens(model, [f"a {name}", f"there is {name} in it"]))
        by_token.append(np.asarray(i2t).mean(axis=1))
    rank = ranks(np.stack(by_token, axis=1), np.asarray(truth)[:, None] == np.arange(3))
    assert figures["tokens"]["top1"] == pytest.approx(float((rank < 1).mean()))


def _tokens(model, texts):
    text = model.encode_text(texts)
    return text.tokens, text.mask


def test_names_of_classes(tmp_path, draw):
    for folder in ("n01440764", "n01443537"):
        draw(tmp_path / "val" / folder / "a.png")
    with pytest.raises(DataError, match="WordNet numbers"):
        open_labelled(str(tmp_path))
    (tmp_path / "LOC_synset_mapping.txt").write_text("n01440764 tench, Tinca tinca\nn01443537 goldfish, Carassius\n")
    assert open_labelled(str(tmp_path)).classes == ["tench", "goldfish"]
    (tmp_path / "names.json").write_text('{"n01440764": "a fish"}')
    with pytest.raises(DataError, match="no name for 'n01443537'"):
        open_labelled(str(tmp_path), names=str(tmp_path / "names.json"))
    (tmp_path / "names.txt").write_text("one\ntwo\nthree\n")
    with pytest.raises(DataError, match="3 names, but there are 2 classes"):
        open_labelled(str(tmp_path), names=str(tmp_path / "names.txt"))
    with pytest.raises(DataError, match="no folder 'train'"):
        open_labelled(str(tmp_path), split="train")


def test_retrieval_of_karpathys_splits(model, tmp_path, draw):
    rows = []
    for number in range(12):
        draw(tmp_path / "val2014" / f"{number}.png")
        sentences = [{"raw": f"picture {number} said {word}"} for word in ("so", "thus", "else")[: 1 + number % 3]]
        split = "train" if number > 8 else "test"
        rows.append({"filepath": "val2014", "filename": f"{number}.png", "split": split, "sentences": sentences})
    (tmp_path / "val2014" / "4.png").write_bytes(b"\x89PNG damaged")
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": rows, "dataset": "coco"}))
    found = run(model, ["retrieval"], tmp_path, data=tmp_path / "dataset_coco.json", score="both")["tasks"]["retrieval"]
    kept = [number for number in range(9) if number != 4]
    assert found["images"] == 8 and found["skipped"] == {"image": 1}
    assert found["texts"] == sum(1 + number % 3 for number in kept)
    image = model.encode_image([tmp_path / "val2014" / f"{n}.png" for n in kept])
    text = model.encode_text([s["raw"] for n in kept for s in rows[n]["sentences"]])
    owner = np.repeat(np.arange(8), [1 + n % 3 for n in kept])
    scores = image.embed @ text.embed.T
    belongs = owner[None, :] == np.arange(8)[:, None]
    assert found["embed"]["i2t_r1"] == pytest.approx(float((ranks(scores, belongs) < 1).mean()))
    assert found["embed"]["t2i_r5"] == pytest.approx(float((ranks(scores.T, belongs.T) < 5).mean()))
    i2t, t2i = vlc.late_interaction(image.tokens, text.tokens, text.mask)
    assert found["tokens"]["i2t_r5"] == pytest.approx(float((ranks(np.asarray(i2t), belongs) < 5).mean()))
    assert found["tokens"]["t2i_r1"] == pytest.approx(float((ranks(np.asarray(t2i).T, belongs.T) < 1).mean()))


def test_other_images_of_the_same_names_have_embeddings_of_their_own(model, tmp_path, draw):
    rows = [{"filename": f"{n}.png", "split": "test", "sentences": [{"raw": f"picture {n}"}]} for n in range(30)]
    (tmp_path / "dataset.json").write_text(json.dumps({"images": rows}))
    for folder in ("a", "b"):
        for row in rows:
            draw(tmp_path / folder / row["filename"])
    for folder in ("a", "b"):
        options = {"images": str(tmp_path / folder), "score": "embed"}
        run(model, ["retrieval"], tmp_path, data=tmp_path / "dataset.json", **options)
    assert len(list((tmp_path / "cache" / "embeddings").iterdir())) == 3  # the texts, and each folder's images
    with pytest.raises(ConfigError, match="PATH#SPLIT"):
        run(model, ["retrieval"], tmp_path, data="scenes", split="val")


@pytest.mark.parametrize("values", [3, 1000])
def test_ranks_in_blocks_are_the_ranks(rng, values):
    """With three values nearly all scores are ties."""
    i2t, t2i = (rng.integers(0, values, (23, 57)).astype(np.float32) for _ in range(2))
    i2t[3, 4] = np.nan
    owner = np.sort(rng.integers(0, 23, 57))

    def blocks():
        for i in range(0, 23, 7):
            for t in range(0, 57, 13):
                rows, columns = slice(i, min(i + 7, 23)), slice(t, min(t + 13, 57))
                yield Block(rows, columns, i2t[rows, columns], t2i[rows, columns])

    image_rank, text_rank = block_ranks(blocks, owner, 23)
    belongs = owner[None, :] == np.arange(23)[:, None]
    assert np.array_equal(image_rank, ranks(i2t, belongs))
    assert np.array_equal(text_rank, ranks(t2i.T, belongs.T))


def test_embeddings_in_a_bucket_are_shared_by_hosts(model, tmp_path, draw, monkeypatch):
    monkeypatch.setattr(embeddings, "PART", 4)
    pictures = Pictures.of_files([draw(tmp_path / "images" / f"{number}.png") for number in range(10)])
    cache = f"memory:///embeddings-{tmp_path.name}"
    monkeypatch.setenv("VLC_CACHE", str(tmp_path / "one host"))
    first = Cache(cache, model, quiet=True).images(pictures, tokens=True)
    for file in [*first.folder.glob("000001*")]:
        file.unlink()
    monkeypatch.setattr(model, "encode_pixels", None)  # is not called any more
    Cache(cache, model, quiet=True).images(pictures, tokens=True)
    monkeypatch.setenv("VLC_CACHE", str(tmp_path / "another host"))
    second = Cache(cache, model, quiet=True).images(pictures, tokens=True)
    assert second.folder != first.folder and np.array_equal(second.embed, first.embed)
    assert np.array_equal(np.concatenate(list(second.token_blocks())), np.concatenate(list(first.token_blocks())))


def test_embedding_goes_on_where_it_was_stopped(model, tmp_path, draw, monkeypatch):
    monkeypatch.setattr(embeddings, "PART", 4)
    files = [draw(tmp_path / "images" / f"{number}.png") for number in range(10)]
    pictures, seen = Pictures.of_files(files), []
    encode = model.encode_pixels

    def stopped(pixels):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(len(pixels))
        return encode(pixels)

    monkeypatch.setattr(model, "encode_pixels", stopped)
    with pytest.raises(KeyboardInterrupt):
        Cache(tmp_path / "cache", model, quiet=True).images(pictures)
    seen.clear()
    found = Cache(tmp_path / "cache", model, quiet=True).images(pictures)
    assert seen == [2]  # only the last part
    pixels = np.stack([model.preprocess(file.read_bytes()) for file in files])
    assert np.allclose(found.embed, encode(pixels).embed, atol=1e-6)

    # A changed image or another model has embeddings of its own.
    draw(files[0])
    assert Pictures.of_files(files).version != pictures.version
    same = model.as_imported()
    other = replace(same, params=jax.tree.map(lambda x: x + 1e-3, same.params))
    assert vlc.Model.of(same).fingerprint == model.fingerprint != vlc.Model.of(other).fingerprint


def sugarcrepe(folder, draw):
    draw(folder / "images" / "a.png")
    cases = {"0": {"filename": "a.png", "caption": "a red dot", "negative_caption": "a blue dot"},
             "7": {"filename": "a.png", "caption": "the same", "negative_caption": "the same"}}  # fmt: skip
    (folder / "swap_att.json").write_text(json.dumps(cases))


def winoground(folder, draw):
    for name in ("ex_0_img_0", "ex_0_img_1"):
        draw(folder / "images" / f"{name}.png")
    row = {"id": 0, "image_0": "ex_0_img_0", "image_1": "ex_0_img_1", "caption_0": "x on y", "caption_1": "y on x"}
    (folder / "examples.jsonl").write_text(json.dumps(row | {"collapsed_tag": "Object"}) + "\n")


def aro(folder, draw):
    draw(folder / "images" / "1.jpg", size=(60, 50))
    row = {"image_path": "1.jpg", "bbox_x": 5, "bbox_y": 6, "bbox_w": 20, "bbox_h": 30,
           "true_caption": "the dog by the door", "false_caption": "the door by the dog"}  # fmt: skip
    (folder / "visual_genome_relation.json").write_text(json.dumps([row]))


@pytest.mark.parametrize("suite", [sugarcrepe, winoground, aro])
def test_compositionality(model, tmp_path, draw, suite):
    suite(tmp_path, draw)
    name = suite.__name__
    found = run(model, [name], tmp_path, data=tmp_path, score="both")["tasks"][name]
    for how in ("embed", "tokens"):
        groups = found[how]
        if name == "sugarcrepe":  # equal captions have equal scores, which is wrong
            assert groups["swap_att"]["text"] in (0.0, 0.5) and groups["swap_att"]["cases"] == 2
    case = read_cases(name, tmp_path)[0]
    pictures = [Image.open(path).convert("RGB").crop(box) for path, box in case.images]
    scores = model.score(pictures, list(case.texts))
    if name != "sugarcrepe":
        outcome = {key: float(value) for key, value in _outcome(scores, scores).items()}
        assert next(iter(found["embed"].values())) == outcome | {"cases": 1}


def test_ties_are_wrong_whatever_argmax_finds():
    equal = np.ones((2, 2))
    assert _outcome(equal, equal) == {"text": False, "image": False, "group": False}
    assert _outcome(np.asarray([[0.5, 0.5]]), np.asarray([[0.5, 0.5]])) == {"text": False}
    right = np.asarray([[0.9, 0.1], [0.2, 0.8]])
    assert _outcome(right, right) == {"text": True, "image": True, "group": True}


def test_segmentation(model, tmp_path, draw):
    for number in range(3):
        draw(tmp_path / "images" / f"{number}.jpg", size=(48, 36))
        mask = np.zeros((36, 48), np.uint8)
        mask[:, 24:], mask[:4] = 1, 255
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(tmp_path / "masks" / f"{number}.png")
    (tmp_path / "classes.txt").write_text("sky\nsea\n")
    found = run(model, ["segmentation"], tmp_path, data=tmp_path, templates="simple")["tasks"]["segmentation"]
    assert found["images"] == 3 and 0 <= found["miou"] <= found["pixel_accuracy"] <= 1
    # By hand: the patch's best token of each prompt, enlarged, compared pixel by pixel.
    right = total = 0
    hits, union = np.zeros(2), np.zeros(2)
    text = model.encode_text(["a photo of a sky.", "a photo of a sea."])
    for number in range(3):
        tokens = model.encode_image(tmp_path / "images" / f"{number}.jpg").tokens[0]
        scores = np.stack([(tokens @ text.tokens[c][text.mask[c]].T).max(axis=1) for c in range(2)], axis=1)
        mask = read_mask(tmp_path / "masks" / f"{number}.png", 2)
        predicted = predict(scores.reshape(*[round(len(scores) ** 0.5)] * 2, 2), mask.shape)
        counted = mask != 255
        right, total = right + (predicted == mask)[counted].sum(), total + counted.sum()
        for c in range(2):
            hits[c] += ((predicted == c) & (mask == c))[counted].sum()
            union[c] += ((predicted == c) | (mask == c))[counted].sum()
    assert found["pixel_accuracy"] == pytest.approx(right / total)
    assert found["miou"] == pytest.approx(float(np.mean((hits / union)[union > 0])))
    with pytest.raises(DataError, match="class number 1, but there are 1 names"):
        read_mask(tmp_path / "masks" / "0.png", 1)


def test_a_patch_is_enlarged_in_its_place():
    scores = (np.eye(4)[:, :2] + np.eye(4)[:, 2:]).reshape(2, 2, 2)  # classes 0 1 / 0 1
    assert predict(scores, (40, 60))[:, :20].max() == 0 and predict(scores, (40, 60))[:, 40:].min() == 1


def test_nearest_neighbours_vote(rng):
    def unit(*shape):
        x = rng.normal(size=shape).astype(np.float32)
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    train, queries, labels = unit(50, 8), unit(7, 8), rng.integers(0, 3, 50)
    cosines = queries @ train.T
    wanted = np.zeros((7, 3))
    for q in range(7):
        for place in np.argsort(-cosines[q])[:20]:
            wanted[q, labels[place]] += np.exp((cosines[q, place] - 1) / 0.07)
    assert np.allclose(knn_scores(train, labels, queries, 3), wanted, rtol=1e-4)


def test_a_linear_probe_finds_the_minimum(rng):
    """At the minimum the gradient is nothing: features times errors equal the penalty."""
    centres = rng.normal(size=(4, 6))
    labels = rng.integers(0, 4, 400)
    train = (centres[labels] + rng.normal(size=(400, 6))).astype(np.float32)
    scores, strength = linear_scores(train, labels, train, 4)
    design = np.hstack([train, np.ones((400, 1))])
    weights = np.linalg.lstsq(design, scores, rcond=None)[0]
    chance = np.exp(scores - scores.max(axis=1, keepdims=True))
    errors = chance / chance.sum(axis=1, keepdims=True) - np.eye(4)[labels]
    gradient = design.T @ errors / 400
    gradient[:-1] += strength * weights[:-1]
    assert np.abs(gradient).max() < 2e-3
    assert float((scores.argmax(axis=1) == labels).mean()) > 0.75


def test_what_is_compared(model):
    assert compared(model, "auto") == ("tokens", "embed")  # it was trained with both
    assert compared(model, "embed") == ("embed",) and compared(model, "both") == ("embed", "tokens")
    with pytest.raises(ConfigError, match='Did you mean "tokens"'):
        compared(model, "token")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--task", "clasification"], 'Did you mean "classification"'),
        (["--task", "retrieval"], "No data for the task retrieval"),
        (["--task", "linear", "--data", "{}/val"], "a probe is trained on a folder `train`"),
        (["--task", "sugarcrepe", "--data", "{}"], "none of sugarcrepe's files is there"),
        (["--task", "winoground", "--data", "{}"], "examples.jsonl: cannot be read"),
        (["--task", "segmentation", "--data", "{}"], "no folders images and masks"),
        (["--task", "classification", "--data", "{}/none"], "no such folder"),
        (["--task", "classification", "--data", "{}", "--templates", "mine"], "neither a file nor a known name"),
        (["--task", "classification", "--data", "{}", "--score", "all"], '--score is "all"'),
        (["--data", "a", "--data", "b"], "Several --data go with --task"),
    ],
)
def test_bad_input_of_vlc_eval(tiny_folder, classes, tmp_path, capsys, arguments, says):
    given = [argument.format(classes) for argument in arguments]
    assert main(["eval", str(tiny_folder), "--out", str(tmp_path / "o"), "--cache", str(tmp_path / "c"), *given]) == 2
    assert says in capsys.readouterr().err


def test_templates_have_one_place_for_the_name(tmp_path):
    (tmp_path / "t.txt").write_text("a photo of {}\na photo\n")
    with pytest.raises(DataError, match='"a photo" does not'):
        read_templates(str(tmp_path / "t.txt"))


def test_the_command(tiny_folder, classes, tmp_path, capsys):
    out, cache = ["--out", str(tmp_path / "out")], ["--cache", str(tmp_path / "cache")]
    data = ["--data", str(classes), "--templates", "simple", "--examples", "9"]
    assert main(["eval", str(tiny_folder), "--task", "classification,knn", *data, *out, *cache]) == 0
    said = capsys.readouterr().out
    assert "classification  tokens" in said and "knn" in said and "eval.json" in said
    assert json.loads((tmp_path / "out" / "eval.json").read_text())["tasks"]["classification"]["images"] <= 9


@pytest.mark.parametrize("listed", [["poppy", "grass", "blue sky"], ["Grass", "blue_sky", "poppy"]])
def test_names_in_another_order_belong_to_their_folders(classes, listed):
    (classes / "classes.txt").write_text("\n".join(listed))
    found = open_labelled(str(classes))
    assert [name.lower().replace("_", " ") for name in found.classes] == ["blue sky", "grass", "poppy"]


def test_numbers_are_in_their_order(tmp_path, draw):
    for number in range(12):
        draw(tmp_path / str(number) / "0.png")
    (tmp_path / "classes.txt").write_text("\n".join(f"name {number}" for number in range(12)))
    found = open_labelled(str(tmp_path))
    for path, label in zip(found.pictures.keys, found.labels, strict=True):
        assert found.classes[label] == f"name {Path(path).parent.name}"


def test_names_that_belong_nowhere_are_refused(classes):
    (classes / "classes.txt").write_text("sky\ngrass\nflower\n")
    with pytest.raises(DataError, match="nothing tells which of its names belongs to the folder 'blue_sky'"):
        open_labelled(str(classes))


def test_of_classes_of_one_name_the_first_is_right():
    scores, classes, labels = (
        np.asarray([[0.9, 0.1, 0.9], [0.9, 0.1, 0.9], [0.2, 0.8, 0.2]]),
        ["a", "b", "a"],
        [0, 2, 1],
    )
    found = accuracy(without_later_twins(scores, labels, classes), labels)
    assert found["top1"] == pytest.approx(2 / 3)  # the image of class 2 is taken for class 0, as by an argmax
    assert (scores.argmax(axis=1) == labels).mean() == pytest.approx(2 / 3)


@pytest.mark.parametrize("kind", ["names", "numbers"])
def test_ade20k_counts_from_one(tmp_path, draw, kind):
    draw(tmp_path / "images" / "0.jpg", size=(8, 8))
    (tmp_path / "annotations").mkdir()
    mask = np.zeros((8, 8), np.uint8)
    mask[2:5], mask[5:] = 1, (2 if kind == "numbers" else 1)
    Image.fromarray(mask).save(tmp_path / "annotations" / "0.png")
    (tmp_path / "classes.txt").write_text("wall\nsky\n")
    if kind == "names":
        (tmp_path / "objectInfo150.txt").write_text("")
    data = open_masked(tmp_path)
    seen = read_mask(data.masks[0], 2, first=data.first)
    assert data.first == 1 and (seen[:2] == 255).all() and (seen[2:5] == 0).all()


def only(model, *objectives):
    """The model as if trained by these alone."""
    config = model.config.copy_and_resolve_references()
    for name in config.objectives:
        config.objectives[name].weight = float(name in objectives)
    return vlc.Model.of(replace(model.as_imported(), config=config))


def test_what_no_loss_ever_saw_is_never_compared(model, classes, tmp_path, draw):
    picture, texts = draw(tmp_path / "x.png"), ["a red ball", "two dogs", "grass"]
    filip, clip, captioner = only(model, "filip"), only(model, "clip"), only(model, "caption")
    image, text = filip.encode_image(picture), filip.encode_text(texts)
    i2t, t2i = vlc.late_interaction(image.tokens, text.tokens, text.mask)
    np.testing.assert_allclose(filip.score(picture, texts), (i2t + t2i) / 2, atol=1e-6)
    np.testing.assert_allclose(filip.logits(picture, texts), i2t * filip.scales.token_logit_scale, rtol=1e-5)
    np.testing.assert_allclose(clip.score(picture, texts), image.embed @ text.embed.T, atol=1e-6)
    for wrong, by in ((filip, "embed"), (clip, "tokens")):
        with pytest.raises(ConfigError, match="no loss ever saw"):
            wrong.score(picture, texts, by=by)
        with pytest.raises(ConfigError, match="no loss ever saw"):
            run(wrong, ["classification"], tmp_path, data=classes, score="both")
    for call in (lambda: captioner.score(picture, texts), lambda: captioner.logits(picture, texts),
                 lambda: run(captioner, ["classification"], tmp_path, data=classes)):  # fmt: skip
        with pytest.raises(ConfigError, match="not trained to compare images with texts"):
            call()
    with pytest.raises(ConfigError, match="no loss ever saw"):
        clip.word_maps(picture, texts[0])
    found = run(filip, ["classification", "knn"], tmp_path, data=classes)["tasks"]
    assert "embed" not in found["classification"] and found["classification"]["tokens"]["top1"] >= 0
    assert found["knn"]["features"] == "mean of the image tower" and found["knn"]["top1"] == 1.0
    assert run(captioner, ["linear"], tmp_path, data=classes)["tasks"]["linear"]["top1"] == 1.0


def test_pairs_score_as_all_with_all(model, tmp_path, draw):
    pictures = [draw(tmp_path / f"{i}.png") for i in range(3)]
    texts, owner = ["a red ball", "two dogs and a very long cat", "grass", "x"], np.array([2, 0, 1, 1])
    image, text = model.encode_image(pictures), model.encode_text(texts)
    for by in ("embed", "tokens"):
        i2t, t2i = all_scores(model, image, text, by)
        found = pair_scores(model, image, text, owner, by)
        np.testing.assert_allclose(found, ((i2t + t2i) / 2)[owner, np.arange(4)], atol=1e-6)


def test_captions_that_are_cut_are_counted_and_what_is_left_out_adds_up(model, tmp_path, draw):
    """Eight records: one picture is damaged, one is missing; two long captions are one row of ids to the model."""
    rows = []
    for number in range(8):
        draw(tmp_path / f"{number}.png")
        words = "a very long caption that goes on and on " * 20 + str(number) if number < 2 else f"short {number}"
        rows.append({"image": f"{number}.png", "captions": [words]})
    (tmp_path / "6.png").write_bytes(b"damaged")
    (tmp_path / "7.png").unlink()
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = run(model, ["retrieval"], tmp_path, data=tmp_path)
    figures = found["tasks"]["retrieval"]
    assert figures["images"] + sum(figures["skipped"].values()) == 8 and figures["skipped"] == {"file": 1, "image": 1}
    assert figures["cut"] == 2 and figures["cut_to_the_same"] == 1
    assert "2 captions are longer than the" in (tmp_path / "out" / "report.html").read_text()
    for number in range(7):
        (tmp_path / f"{number}.png").unlink()
    with pytest.raises(DataError, match=r"No record can be read. The first says: .*0.png"):
        run(model, ["retrieval"], tmp_path, data=tmp_path)


@pytest.mark.parametrize("images", [1, 3])
def test_cider_that_is_nothing_by_definition_says_so(images):
    pytest.importorskip("pycocoevalcap")
    found, notes = reference_figures(["a red ball"] * images, [["a red ball", "a ball"]] * images, tokenizer="python")
    assert found["cider"].value == 0 and "CIDEr is 0 by its definition" in notes["cider"]
    with pytest.raises(DataError, match="1 of 2 images have none"):
        reference_figures(["a", "b"], [["a"], []])
    with pytest.raises(DataError, match="no caption to be scored"):
        reference_figures([], [])
