"""The command as a user types it, and what it says when something is wrong."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from vlc.cli import main
from vlc.commands.shared import EXIT_BAD_INPUT
from vlc.config import config_from_json
from vlc.config.file import load_config
from vlc.data.pipeline import train_batches
from vlc.data.sources import Mixture
from vlc.train.inputs import get_tokenizer, make_example_maker, open_split

SMOKE = f"{ROOT}/configs/quickstart.py:smoke"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    assert main(["train", "--config", SMOKE, "--workdir", str(path), "--config.objectives.filip.weight=0.5"]) == 0
    return path


def test_eval_writes_numbers_and_a_report(workdir, capsys):
    assert main(["eval", "--workdir", str(workdir), "--examples", "24", "--guidance-scale", "1,2"]) == 0
    results = json.loads((workdir / "eval.json").read_text())
    assert {"retrieval", "binding", "pointing", "novel", "matched", "zero_shot", "captions"} <= results.keys()
    assert results["examples"] == 24 and [row["scale"] for row in results["captions"]] == [1.0, 2.0]
    page = (workdir / "report.html").read_text()
    assert page.count("<section>") >= 8 and not re.search(
        r'(src|href)="?http|url\(http', page
    )  # nothing is fetched from elsewhere
    assert "retrieval by embed" in capsys.readouterr().out


def test_caption_prints_one_line_an_image_and_scale(workdir, tmp_path, capsys):
    image = tmp_path / "a.png"
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(image)
    assert main(["caption", "--workdir", str(workdir), str(image), "--guidance-scale", "1,2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[:2] for line in lines] == [[str(image), "1"], [str(image), "2"]]


BAD_USE = {
    "bad scale": (["caption", "--workdir", "RUN", "x.png", "--guidance-scale", "two"], "write numbers"),
    "negative scale": (["caption", "--workdir", "RUN", "IMAGE", "--guidance-scale=-1"], "0 or more"),
    "missing image": (["caption", "--workdir", "RUN", "nowhere.png"], "nowhere.png: cannot be read"),
    "damaged image": (["caption", "--workdir", "RUN", "DAMAGED"], "not a readable image"),
}


@pytest.mark.parametrize("case", BAD_USE)
def test_bad_use_of_a_model_is_one_clear_message(case, workdir, tmp_path, capsys):
    image, damaged = tmp_path / "a.png", tmp_path / "b.jpg"
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(image)
    damaged.write_bytes(b"\xff\xd8 no jpeg")
    check_message(*BAD_USE[case], {"RUN": str(workdir), "IMAGE": str(image), "DAMAGED": str(damaged)}, capsys)


def check_message(arguments, said, names, capsys):
    """One message on stderr that says what is wrong, and no traceback."""
    assert main([names.get(word, word) for word in arguments]) == EXIT_BAD_INPUT
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error and error.startswith("vlc: ")


@pytest.mark.slow
def test_own_images_in_a_folder(tmp_path, capsys):
    rng = np.random.default_rng(0)
    rows = []
    for i in range(12):
        Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(tmp_path / f"{i}.jpg")
        rows.append({"image": f"{i}.jpg", "captions": [f"noise number {i}", "a noisy picture"]})
    (tmp_path / "5.jpg").write_bytes(b"damaged")
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    small = ["--config.data.image.size=24", "--config.steps=2", "--config.batch_size=8", "--config.log_every=1"]
    tiny = [
        f"--config.model.{t}.{k}={v}" for t in ("image", "text", "decoder") for k, v in (("width", 12), ("layers", 1))
    ]
    data = [f"--config.data.train={tmp_path}", f"--config.data.dev={tmp_path}", "--config.data.vocab_size=64"]
    out = tmp_path / "run"
    command = ["train", "--config", f"{ROOT}/configs/own_images.py", "--workdir", str(out)]
    assert main([*command, *small, *tiny, *data]) == 0
    assert "skipped/image" in (out / "metrics.jsonl").read_text()
    assert main(["eval", "--workdir", str(out)]) == 0
    results = json.loads((out / "eval.json").read_text())
    assert results["examples"] == 11 and results["skipped"] == {"image": 1}
    assert main(["data", "show", str(tmp_path), "--count", "4", "--out", str(tmp_path / "s.png")]) == 0
    assert Image.open(tmp_path / "s.png").width > 100
    capsys.readouterr()


def test_data_show_and_tokenizer(tmp_path, capsys):
    out = tmp_path / "samples.png"
    assert main(["data", "show", "--config", SMOKE, "--count", "3", "--out", str(out)]) == 0
    assert out.stat().st_size > 1000 and capsys.readouterr().out.count('"text"') == 3
    model = tmp_path / "t.model"
    assert main(["data", "tokenizer", "scenes", "--out", str(model), "--vocab-size", "200", "--records", "100"]) == 0
    assert "200 pieces" in capsys.readouterr().out


def test_a_mixture_as_typed_without_what_the_filters_leave_out(tmp_path):
    rng = np.random.default_rng(0)
    for name, count in (("a", 12), ("b", 6)):
        folder = tmp_path / name
        folder.mkdir()
        for i in range(count):
            Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(folder / f"{i}.jpg")
        rows = [{"image": f"{i}.jpg", "caption": f"{name} picture {i}" if i % 3 else "x"} for i in range(count)]
        (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    typed = [
        "--config.data.train=", "--config.data.captions.mix=", "--config.data.filters=('words(min=2)',)",
        f"--config.data.sources.one={tmp_path / 'a'}", f"--config.data.sources.two={tmp_path / 'b'}",
        "--config.data.mixture.one=3", "--config.data.mixture.two=1",
    ]  # fmt: skip
    config = load_config(SMOKE, typed)
    for _ in range(2):  # the second time it is found in the workdir
        source = open_split(config, "train", tmp_path / "run")
        assert isinstance(source, Mixture) and source.weights == {"one": 3.0, "two": 1.0} and len(source) == 12
        assert source.dropped[0] == {"step": "one: words(min=2)", "images": 4, "captions": 4}
        (tmp_path / "a" / "0.jpg").unlink(missing_ok=True)
    make = make_example_maker(config, source, get_tokenizer(config, source, None))
    batches = train_batches(make, batch_size=8, seed=0)
    assert (np.sum(next(batches)["index"] < 8), make.draws) == (6, config.steps * config.batch_size)
    batches.close()
    assert config_from_json(json.loads(config.to_json_best_effort())).data.mixture.one == 3.0


def test_data_build_verify_and_stats(tmp_path, capsys):
    folder = tmp_path / "a"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(folder / f"{i}.jpg")
    (folder / "5.jpg").write_bytes(b"damaged")
    rows = [{"image": f"{i}.jpg", "caption": "two words" if i else "one"} for i in range(6)]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n{")
    out = str(tmp_path / "out")
    assert main(["data", "build", str(folder), "--out", out, "--filter", "words(min=2)", "--workers", "1"]) == 0
    said = capsys.readouterr().out
    for line in (
        "4 records in 1 shards",
        "1 left out of the index: row of another form",
        "1 cannot be used: not a readable image",
        "dropped 1 images",
    ):
        assert line in said
    few = ["data", "build", "scenes", "--records", "3", "--out", str(tmp_path / "few"), "--workers", "1"]
    assert main(few) == 0 and "3 records in 1 shards" in capsys.readouterr().out
    assert main(["data", "verify", out]) == 0 and "all as written" in capsys.readouterr().out
    assert main(["data", "stats", out, "--out", str(tmp_path / "s.png"), "--workers", "1"]) == 0
    assert "4 of 4 records can be used" in capsys.readouterr().out
    assert Image.open(tmp_path / "s.png").width > 500
    assert json.loads((tmp_path / "s.json").read_text())["captions"]["text"]["count"] == 4
    shard = next((tmp_path / "out").glob("*.array_record*"))
    shard.write_bytes(shard.read_bytes()[:-1])
    assert main(["data", "verify", out]) == EXIT_BAD_INPUT and "bytes, not" in capsys.readouterr().err


BAD = {
    "unknown key": (["train", "--config", SMOKE, "--workdir", "W", "--config.optimizer.lrr=1"], '"optimizer.lr"'),
    "key without value": (["train", "--config", SMOKE, "--workdir", "W", "--config.steps"], "has no value"),
    "wrong type": (["train", "--config", SMOKE, "--workdir", "W", "--config.steps=many"], "many"),
    "unknown argument": (["train", "--config", SMOKE, "--workdir", "W", "--lr=1"], "--config.KEY=VALUE"),
    "missing config": (["train", "--config", f"{ROOT}/configs/quickstrat.py", "--workdir", "W"], "quickstart.py"),
    "unknown source": (
        ["train", "--config", SMOKE, "--workdir", "W", "--config.data.train=", "--config.data.mixture.x=1"],
        "--config.data.sources.x=PATH",
    ),
    "weight": (["train", "--config", SMOKE, "--workdir", "W", "--config.data.mixture.x=much"], "a weight is a number"),
    "filter": (["data", "build", "scenes", "--out", "W", "--filter", "wrods()"], '"words"'),
    "augment": (["train", "--config", SMOKE, "--workdir", "W", "--config.data.image.augment=radn"], '"rand"'),
    "verify": (["data", "verify", "W"], "manifest.json"),
    "missing data": (["train", "--config", SMOKE, "--workdir", "W", "--config.data.train=/nowhere"], "/nowhere"),
    "missing tokenizer": (
        ["train", "--config", SMOKE, "--workdir", "W", "--config.data.tokenizer=/no.model"],
        "vlc data tokenizer",
    ),
    "indivisible mesh": (["train", "--config", SMOKE, "--workdir", "W", "--config.mesh.tensor=3"], "8 devices"),
    "bad weights": (
        ["train", "--config", SMOKE, "--workdir", "W", "--config.data.captions.mix=long:x"],
        "not a number",
    ),
    "no run": (["eval", "--workdir", "W"], "train first"),
    "bad step": (["eval", "--workdir", "W", "--step", "x"], "last, best, or a number"),
    "no source": (["data", "show"], "No data was named"),
    "run in no store": (["train", "--config", SMOKE, "--workdir", "nope://b/run"], "place by --workdir"),
    "results in no store": (["eval", "W", "--task", "knn", "--data", "W", "--out", "nope://b/x"], "not known: nope"),
    "shards in no store": (["data", "build", "scenes", "--out", "nope://b/x"], "not known: nope"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_message(case, tmp_path, capsys):
    check_message(*BAD[case], {"W": str(tmp_path / "new")}, capsys)


def test_a_string_of_captions_is_refused_before_training(tmp_path, capsys):
    (tmp_path / "captions.jsonl").write_text('{"image": "a.jpg", "captions": "A dog. A cat."}\n')
    command = ["train", "--config", SMOKE, "--workdir", str(tmp_path / "run"), f"--config.data.train={tmp_path}"]
    assert main(command) == EXIT_BAD_INPUT
    assert "captions.jsonl:1" in capsys.readouterr().err
