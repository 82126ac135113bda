"""Caption metrics give published digits, by hand-made definitions otherwise; the task writes one table of a sweep."""

import json
import shutil
import sys

import jax
import numpy as np
import pytest
from PIL import Image

import vlc
from tests.inference.test_captioning import captioner
from vlc.cli import main
from vlc.data.sources import Scenes
from vlc.errors import ConfigError, DataError
from vlc.evaluate.metrics import ptb, reference_based
from vlc.evaluate.metrics.intervals import Figure, interval
from vlc.evaluate.metrics.reference_based import reference_figures
from vlc.evaluate.metrics.reference_free import PREFIX, clip_figures, language_figures
from vlc.evaluate.tasks.captioning import read_curve, references_of
from vlc.interop import write_native

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="needs Java")

# The example of the authors' tool for CLIPScore, and the figures that its README prints for it.
SAID = [
    "an orange cat and a grey cat are lying together.",
    "a black dog wearing headphones looks at the camera as an orange cat walks in the background.",
]
MEANT = [
    [
        "two cats are sleeping next to each other.",
        "a grey cat is cuddling with an orange cat on a blanket.",
        "the orange cat is happy that the black cat is close to it.",
    ],
    [
        "a dog is wearing ear muffs as it lies on a carpet.",
        "a black dog and an orange cat are looking at the photographer.",
        "headphones are placed on a dogs ears.",
    ],
]
PUBLISHED = {"bleu1": 0.6667, "bleu2": 0.4899, "bleu3": 0.3469, "bleu4": 0.0, "rouge_l": 0.4280, "cider": 0.5637}


@pytest.mark.parametrize("words", ["python", pytest.param("java", marks=needs_java)])
def test_published_figures_to_four_digits(words, request):
    if words == "python":
        request.getfixturevalue("no_java")
    figures, notes = reference_figures(SAID, MEANT, tokenizer=words)
    assert {name: round(figures[name].value, 4) for name in PUBLISHED} == PUBLISHED
    assert notes["words"] == ptb.NAMES[words]
    if shutil.which("java"):
        assert round(figures["meteor"].value, 4) == 0.3444
    else:
        assert "Java" in notes["meteor"]
    assert "spice" in figures or "SPICE is left out" in notes["spice"]


def test_bleu_is_the_scorers_over_any_of_the_images():
    from pycocoevalcap.bleu.bleu import Bleu

    def dicts(rows):
        return ({i: texts[row][1:] for i, row in enumerate(rows)}, {i: texts[row][:1] for i, row in enumerate(rows)})

    texts = [["a b c d e f", "a b d"], ["c d e f", "f e d c b a"], ["a b c d", "a b c d"], ["b c", "a b c d e"]]
    figures = reference_based.bleu(*dicts(range(4)))
    for rows in ([0, 1, 2, 3], [2, 2, 0, 1], [3, 3, 3, 1]):
        expected, _ = Bleu(4).compute_score(*dicts(rows), verbose=0)
        found = [figure.over(np.asarray(rows)) for figure in figures]
        np.testing.assert_allclose(found, expected, rtol=1e-9)


CUT = {
    "The dog's bone isn't here, is it?": "the dog 's bone is n't here is it",
    "Mr. Smith (a man) can't see the U.S. flag...": "mr. smith -lrb- a man -rrb- ca n't see the u.s. flag",
    "A 10-year-old boy -- in a T-shirt & $5 hat at 3:30 p.m.": "a 10-year-old boy in a t-shirt & $ 5 hat at 3:30 p.m.",
    "I'm gonna go; they'll \"stay\" 50% of the time!": "i 'm gon na go they 'll stay 50 % of the time",
    "two dogs' toys": "two dogs toys",
    "A boy on a Slip 'n' Slide .": "a boy on a slip 'n' slide",
    "A man in a statefarm.com hat on a 4x4": "a man in a statefarm.com hat on a 4x4",
    "": "",
}


def test_words_are_cut_as_the_penn_treebank_has_them():
    assert ptb.tokenize(list(CUT), use="python") == (list(CUT.values()), "python")


@needs_java
def test_words_are_cut_as_java_cuts_them():
    assert ptb.tokenize(list(CUT), use="java") == (list(CUT.values()), "java")


@pytest.fixture
def no_java(monkeypatch):
    """As on a machine without it; METEOR takes seconds."""
    monkeypatch.setattr(shutil, "which", lambda name: None)


def test_without_java_the_figures_say_so(no_java):
    figures, notes = reference_figures(SAID, MEANT)
    assert "meteor" not in figures and "METEOR needs Java" in notes["meteor"]
    assert notes["words"] == ptb.NAMES["python"] and round(figures["cider"].value, 4) == 0.5637


def test_without_pycocoevalcap_the_message_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocoevalcap.cider.cider", None)
    with pytest.raises(ConfigError, match=r"vlc-jax\[eval\]"):
        reference_based.reference_figures(SAID, MEANT)


def test_intervals_cover_the_mean():
    """95% intervals of means of 60 draws hold the true mean in 90 to 99 of 100 trials."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(100):
        low, high = interval(Figure.mean(rng.exponential(size=60)), 60, draws=300)
        held += low <= 1.0 <= high
    assert 88 <= held <= 99
    assert interval(Figure(3.0), 60) is None


def test_figures_without_references_by_hand():
    """Two images; texts are embedded as unit vectors that are written here."""
    known = {
        "x": [1.0, 0.0], "y": [0.6, 0.8], "r1": [0.0, 1.0], "r2": [0.8, 0.6], "r3": [-1.0, 0.0]
    }  # fmt: skip
    vectors = {**known, **{PREFIX + name: vector for name, vector in known.items()}}
    images = np.asarray([[1.0, 0.0], [-0.8, 0.6]], np.float32)
    figures = clip_figures(
        images, ["x", "y"], [["r1", "r2"], ["r3"]], lambda texts: np.asarray([vectors[t] for t in texts], np.float32)
    )
    first, best = [2.5, 0.0], [0.8, -0.6]
    assert figures["clip_s"].value == pytest.approx(np.mean(first))
    assert figures["ref_only"].value == pytest.approx(np.mean(best))
    assert figures["ref_clip_s"].value == pytest.approx(np.mean([2 * 2.5 * 0.8 / 3.3, 0.0]))
    assert figures["r1"].value == 0.5 and figures["r5"].value == 1.0  # y finds the first image before its own
    said = language_figures([["a", "b", "a"], ["a", "b"], ["a", "b"]])
    assert {name: figure.value for name, figure in said.items()} == pytest.approx(
        {"words": 7 / 3, "vocabulary": 2, "distinct1": 2 / 7, "distinct2": 2 / 4, "different": 2 / 3}
    )


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    """Spread over eight emulated devices it would take thrice the time; other tests do that."""
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("captioner") / "model"
    write_native(captioner(tokenizer, data__train="scenes").as_imported(), path)
    return path


def test_a_sweep_writes_one_table_a_picture_and_samples(folder, tmp_path, capsys, no_java):
    command = ["eval", str(folder), "--task", "caption", "--data", "scenes", "--examples", "9", "--references",
               "reference", "--cache", str(tmp_path / "cache"), "--control", "length=4"]  # fmt: skip
    assert main([*command, "--guidance-scale", "1,2", "--out", str(tmp_path / "one")]) == 0
    printed = capsys.readouterr().out
    assert "CIDEr" in printed and "the captioner's own encoder" in printed and "SPICE" in printed
    found = json.loads((tmp_path / "one" / "eval.json").read_text())["tasks"]["caption"]
    assert [row["guidance_scale"] for row in found["scales"]] == [1.0, 2.0] and found["images"] == 9
    low, high = found["scales"][1]["r5"]["interval"]
    assert low <= found["scales"][1]["r5"]["value"] <= high and len(found["captions"]) == 9
    compared = [*command, "--guidance-scale", "1", "--compare", str(tmp_path / "one"), "--scorer", str(folder),
                "--metrics", "all"]  # fmt: skip
    assert main([*compared, "--out", str(tmp_path / "two")]) == 0
    page = (tmp_path / "two" / "report.html").read_text()
    assert f"by {folder}" in page and page.count("data:image/png") == 2 + 9 + 9
    assert "in detail" in page and "the worst by units_f1" in page and "CHAIRi" in capsys.readouterr().out
    lines = (tmp_path / "two" / "captions.jsonl").read_text().splitlines()
    scores = [json.loads(line) for line in lines]
    assert [row["key"] for row in scores] == list(found["captions"])
    written = (tmp_path / "two" / "eval.json").read_text()
    assert "NaN" not in written and '"value": null' in written  # scenes have no events
    kept = json.loads(written)["tasks"]["caption"]["scales"][0]
    for name in ("cider", "units_recall", "words"):
        assert np.mean([row[name] for row in scores]) == pytest.approx(kept[name]["value"], abs=1e-5)
    for name in ("bleu4", "r1", "clip_s"):  # the same captions, by the same scorer
        again = json.loads((tmp_path / "two" / "eval.json").read_text())["tasks"]["caption"]["scales"][0]
        assert again[name] == found["scales"][0][name]


def test_recaptioned_by_the_command(folder, tmp_path, capsys):
    options = [
        "--records",
        "5",
        "--shard-records",
        "3",
        "--max-new-tokens",
        "5",
        "--num-return-sequences",
        "2",
        "--top-k",
        "9",
    ]
    assert (
        main(["caption", "--workdir", str(folder), "--data", "scenes", "--out", str(tmp_path / "new"), *options]) == 0
    )
    assert "5 images" in capsys.readouterr().out
    assert main(["data", "verify", str(tmp_path / "new")]) == 0


def test_a_reranker_that_is_named_ranks_beams_too(folder, tmp_path, capsys):
    """CLAP-refine and its kin: the likeliest captions, ordered by another model."""
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 20, 3), np.uint8)).save(tmp_path / "a.png")
    command = ["caption", "--workdir", str(folder), str(tmp_path / "a.png"), "--num-beams", "4",
               "--num-return-sequences", "4", "--max-new-tokens", "4"]  # fmt: skip
    orders = []
    for more in ([], ["--reranker", str(folder)]):
        assert main([*command, *more]) == 0
        orders.append([line.split("\t")[2] for line in capsys.readouterr().out.splitlines()])
    model = vlc.load(folder)
    options = {"num_beams": 4, "num_return_sequences": 4, "max_new_tokens": 4}
    ranked = model.captions(tmp_path / "a.png", reranker=model, **options)[0]
    assert orders[1] == [caption.text for caption in ranked] and sorted(orders[0]) == sorted(orders[1])
    scores = [caption.score for caption in ranked]
    assert scores == sorted(scores, reverse=True)


WRONG = {
    "images and data": (["caption", "--workdir", "MODEL", "a.jpg", "--data", "scenes"], "Give image files, or"),
    "no out": (["caption", "--workdir", "MODEL", "--data", "scenes"], "--data needs --out"),
    "two scales": (["caption", "--workdir", "MODEL", "--data", "scenes", "--out", "x", "--guidance-scale", "1,2"],
                   "at one --guidance-scale"),
    "part": (["caption", "--workdir", "MODEL", "--data", "scenes", "--out", "x", "--part", "3/2"], "write 1/4"),
    "control": (["caption", "--workdir", "MODEL", "a.jpg", "--control", "length"], "of the form length=8"),
    "no curve": (["eval", "MODEL", "--task", "caption", "--data", "scenes", "--examples", "2", "--compare", "nowhere"],
                 "no sweep there"),
    "no source": (["eval", "MODEL", "--task", "caption", "--data", "scenes", "--examples", "2", "--references", "poem"],
                  'but its captions are'),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_bad_use_is_one_clear_message(case, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments, said = WRONG[case]
    assert main([str(folder) if word == "MODEL" else word for word in arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


def test_small_readers():
    record = Scenes(side=8)[0]
    assert references_of(record, "ref*,short") == (*record.captions["reference"], *record.captions["short"])
    assert references_of(record, "") == record.all_captions()
    with pytest.raises(DataError, match="poem"):
        references_of(record, "poem")
    with pytest.raises(ConfigError, match=r"eval\.json"):
        read_curve("nowhere")
