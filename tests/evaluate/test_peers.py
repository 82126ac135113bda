"""The same model on the same files has the figures that CLIP_benchmark's own functions give, exactly."""

import json

import numpy as np
import pytest
from PIL import Image

import vlc
from tests.interop.conftest import references  # noqa: F401
from tests.peers.environment import needs_peers, run_peer
from vlc.evaluate.run import evaluate_tasks
from vlc.evaluate.tasks.base import Options
from vlc.evaluate.tasks.templates import CLIP

CLASSES = ("cat", "dog", "red bicycle", "house", "sea", "mountain", "tram")
WORDS = ("a", "red", "small", "cat", "dog", "near", "the", "sea", "runs", "sleeps", "old", "house", "under", "trees")


def draw(rng, path):
    """A picture of smooth random colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    coarse.resize((int(rng.integers(60, 120)), int(rng.integers(60, 120))), Image.Resampling.BICUBIC).save(path)
    return str(path)


def sentence(rng):
    return " ".join(rng.choice(WORDS, rng.integers(3, 9)))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Labelled, captioned and contrasted images, as our tasks read them and as a list for the peer."""
    root, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(7)
    order = sorted(CLASSES)
    labelled = [
        (draw(rng, root / "classes" / name.replace(" ", "_") / f"{i}.png"), order.index(name))
        for name in order
        for i in range(9)
    ]
    captioned = [(draw(rng, root / "images" / f"{i:03d}.png"), [sentence(rng) for _ in range(5)]) for i in range(60)]
    rows = [
        {"filename": path.rsplit("/", 1)[1], "split": "test", "sentences": [{"raw": text} for text in texts]}
        for path, texts in captioned
    ]
    (root / "dataset.json").write_text(json.dumps({"images": rows}))
    selected = [(path, [texts[0], texts[0][::-1]]) for path, texts in captioned]
    cases = {
        str(i): {"filename": path.rsplit("/", 1)[1], "caption": texts[0], "negative_caption": texts[1]}
        for i, (path, texts) in enumerate(selected)
    }
    (root / "swap_obj.json").write_text(json.dumps(cases))
    given = {"labelled": labelled, "captioned": captioned, "selected": selected, "classes": order}
    (root / "given.json").write_text(json.dumps(given))
    return root


@pytest.mark.slow
@needs_peers
def test_figures_equal_clip_benchmarks(references, files, tmp_path):  # noqa: F811
    folder = references / "open_clip_gelu_32"
    run_peer("evaluations", folder, files / "given.json", tmp_path / "found.json")
    theirs = json.loads((tmp_path / "found.json").read_text())
    assert sorted(theirs["templates"]) == sorted(CLIP) and len(set(CLIP)) == 80

    data = {"classification": files / "classes", "retrieval": files / "dataset.json", "sugarcrepe": files}
    options = Options({task: str(path) for task, path in data.items()})
    ours = evaluate_tasks(vlc.load(folder), list(data), options, tmp_path, cache=tmp_path, name="", quiet=True)["tasks"]

    found, wanted = ours["retrieval"]["embed"], theirs["retrieval"]
    for k in (1, 5, 10):
        assert found[f"t2i_r{k}"] == pytest.approx(wanted[f"image_retrieval_recall@{k}"], abs=1e-6)
        assert found[f"i2t_r{k}"] == pytest.approx(wanted[f"text_retrieval_recall@{k}"], abs=1e-6)
    found, wanted = ours["classification"]["embed"], theirs["classification"]
    for here, there in (("top1", "acc1"), ("top5", "acc5"), ("mean_class", "mean_per_class_recall")):
        assert found[here] == pytest.approx(wanted[there], abs=1e-6)
    assert ours["sugarcrepe"]["embed"]["swap_obj"]["text"] == pytest.approx(theirs["selection"]["text_acc"], abs=1e-6)
    assert 0 < found["top1"] < 1 and 0 < ours["retrieval"]["embed"]["t2i_r10"] < 1
