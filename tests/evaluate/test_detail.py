"""Figures of detail: hand-computed cases, and how each moves when one thing of a caption changes."""

import json
import math

import numpy as np
import pytest
from scipy import stats

import vlc
from tests.evaluate.test_tasks import run
from vlc.cli import main
from vlc.curate.edits import find_reader
from vlc.data.record import Record
from vlc.data.sources import Scenes
from vlc.errors import ConfigError, DataError
from vlc.evaluate.metrics import units
from vlc.evaluate.metrics.agreement import agreement
from vlc.evaluate.metrics.arena import ELO, Battle, bradley_terry, win_rates
from vlc.evaluate.metrics.choices import blind_scores, choice_figures
from vlc.evaluate.metrics.objects_named import read_object_names
from vlc.evaluate.metrics.text_statistics import mtld, text_statistics
from vlc.evaluate.metrics.units import Claimed
from vlc.evaluate.tasks.choices import read_choices
from vlc.evaluate.tasks.detail import METRICS, DetailOptions, DetailScorer, Known, check_metrics
from vlc.evaluate.tasks.judgements import read_judgements
from vlc.evaluate.tasks.scenes import open_test_scenes
from vlc.units import Claim, find_claim_reader

_UNASKED = np.zeros(0)


def _same(a: str, b: str) -> bool:
    return a == b


def _object(word: str) -> Claim:
    return Claim("object", word)


def _is(word: str, quality: str) -> Claim:
    return Claim("attribute", word, quality)


def test_units_by_hand():
    said = [_object("dog"), _is("dog", "black"), _object("cat"), _object("ball")]
    meant = [_object("dog"), _is("dog", "black"), _object("man"), _object("tree"), _object("hat")]
    found = units.dcscore(Claimed(said, meant, np.array([1, 1, 0, 1.0]), _UNASKED), _same)
    # Three of four are true; two of them are among the five of the reference, one is further: (2 + 1) / (5 + 1).
    assert found["units_precision"] == 0.75
    assert found["units_recall"] == 0.5
    assert found["units_f1"] == pytest.approx(0.6)
    assert found["dcscore"] == pytest.approx(0.6)
    doubtful = [*said, Claim("inference", "dog", "happy")]
    found = units.dcscore(Claimed(doubtful, meant, np.array([1, 1, 0, 1, np.nan]), _UNASKED), _same)
    assert found["units_precision"] == 0.6
    assert found["dcscore"] == pytest.approx((2 * 0.6 * 0.5 / 1.1 + 0.6) / 2)  # the second without what is inferred
    none = units.dcscore(Claimed([], meant, np.zeros(0), _UNASKED), _same)
    assert math.isnan(none["units_precision"])
    assert none["units_recall"] == none["units_f1"] == 0


def test_capture_by_hand():
    said = [_object("dog"), _object("cat"), _is("dog", "black")]
    meant = [_object("dog"), _is("dog", "black"), _is("dog", "wet"), Claim("relation", "dog", "on", "grass")]
    found = units.capture(said, meant, _same)
    # Objects: precision 1/2, recall 1. Attributes: precision 1, recall 1/2. Relations: none of one.
    assert found["capture_objects"] == pytest.approx(2 / 3)
    assert found["capture_attributes"] == pytest.approx(2 / 3)
    assert found["capture"] == pytest.approx((5 * 2 / 3 + 5 * 2 / 3 + 0) / 12)
    near = np.zeros((3, 4))
    near[1, 0] = 0.9  # taken: a partner in the same words is no longer near to others
    assert units.capture(said, meant, _same, near) == found
    near[2, 2] = near[0, 3] = 0.5
    assert units.capture(said, meant, _same, near) == found
    alone = units.capture([_object("dog")], [_object("dog")], _same)
    assert alone["capture"] == 1  # kinds of which there are none do not count
    assert math.isnan(units.capture([], [], _same)["capture"])


def test_what_is_nearly_alike_counts_by_how_near():
    near = np.array([[0.8, 0.1], [0.3, 0.2]])
    found = units.capture([_object("puppy"), _object("car")], [_object("dog"), _object("tree")], _same, near)
    precision, recall = (0.8 + 0.3) / 2, (0.8 + 0.2) / 2
    assert found["capture"] == pytest.approx(2 * precision * recall / (precision + recall))


def test_entailment_and_events_by_hand():
    said = [_object("dog"), Claim("event", "dog", "run"), Claim("event", "dog", "eat", "bone")]
    meant = [_object("dog"), Claim("event", "dog", "run"), Claim("event", "man", "sit"), _object("man")]
    claimed = Claimed(said, meant, np.array([1, 1, np.nan]), np.array([1, 1, np.nan, 0]))
    assert units.dnli(claimed) == pytest.approx({
        "dnli_precision": 2 / 3, "dnli_contradiction": 1 / 3, "dnli_recall": 1 / 2, "dnli_recall_ratio": 2 / 4,
    })  # fmt: skip
    assert units.autodq(claimed) == {"event_precision": 0.5, "event_recall": 0.5}
    assert math.isnan(units.autodq(Claimed([_object("a")], meant, np.ones(1), np.ones(4)))["event_precision"])


def test_entities_by_hand():
    said, meant = [_object("dog"), _object("car")], [_object("dog"), _object("man"), _is("dog", "wet")]
    found = units.entity_figures(said, meant, None, _same)
    assert found == pytest.approx({"entity": 0.5, "entity_recall": 0.5, "entity_nearness": 0.5})
    near = np.array([[1, 0.2, 0], [0.1, 0.4, 0]])
    assert units.entity_figures(said, meant, near, _same)["entity_nearness"] == pytest.approx(0.7)
    assert math.isnan(units.entity_figures([], meant, None, _same)["entity"])


def test_hallucinated_objects_by_a_list_of_names(tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("person, man, woman\ndog, puppy\nhot dog\n")
    names = read_object_names(file)
    assert names.named("Two men eat hot dogs; a puppy and a womanly dog.") == ["hot dog", "dog", "dog"]
    assert names.named("A man and his dogs") == ["person", "dog"]
    assert units.hallucinated(["person", "dog", "dog"], ["person"]) == {"chair_i": pytest.approx(2 / 3), "chair_s": 1}
    assert math.isnan(units.hallucinated([], ["dog"])["chair_i"])
    file.write_text("person, man\ndog, man\n")
    with pytest.raises(DataError, match='line 2: "man" is a name of person already'):
        read_object_names(file)


def test_statistics_of_a_text():
    found = text_statistics("The small dog quickly ate food. It slept!", find_reader())
    assert (found["sentences"], found["words_a_sentence"]) == (2, 4)
    assert (found["nouns"], found["adjectives"], found["verbs"], found["adverbs"]) == (2, 1, 2, 1)
    syllables = 1 + 1 + 1 + 2 + 1 + 1 + 1 + 1  # the, small, dog, quickly, ate, food, it, slept
    assert found["grade"] == pytest.approx(0.39 * 4 + 11.8 * syllables / 8 - 15.59)
    empty = text_statistics("", find_reader())
    assert empty["sentences"] == 0
    assert math.isnan(empty["grade"])
    assert mtld(["a"] * 10) == pytest.approx(2)  # a stretch ends at every second word
    assert math.isnan(mtld(["a", "b", "c"]))


# -- the whole, on scenes


@pytest.fixture(scope="module")
def scene():
    return Scenes(length=9, split="test", objects=(3, 3))[3]


def _figures(record: Record, caption: str, metrics=METRICS) -> dict[str, float]:
    scorer = DetailScorer(DetailOptions(metrics), [Known.of(record, record.captions["long"])])
    return {name: figure.value for name, figure in scorer.score([caption]).items()}


def test_a_perfect_caption_scores_one_and_a_forgotten_object_costs_recall_alone(scene):
    objects = scene.extra["scene"].objects
    words = [f"a {obj.size} {obj.texture} {obj.colour} {obj.shape}" for obj in objects]
    background = f" The background is {scene.extra['scene'].background}."
    perfect = _figures(scene, " and ".join(words) + "." + background)
    for name in ("units_precision", "units_recall", "units_f1", "dcscore", "capture", "dnli_precision", "dnli_recall",
                 "entity", "entity_recall", "entity_nearness"):  # fmt: skip
        assert perfect[name] == 1, name
    assert perfect["chair_i"] == perfect["chair_s"] == perfect["dnli_contradiction"] == 0
    less = _figures(scene, " and ".join(words[:-1]) + "." + background)
    lower = {"units_recall", "units_f1", "dcscore", "capture", "dnli_recall", "entity", "entity_recall"}
    for name in lower:
        assert less[name] < 1, name
    for name in ("units_precision", "dnli_precision", "entity_nearness", "chair_i", "chair_s", "dnli_contradiction"):
        assert less[name] == perfect[name], name
    more = _figures(scene, " and ".join([*words, "a small plain white cross"]) + "." + background)
    assert more["units_precision"] < 1
    assert more["units_recall"] == 1
    assert more["chair_s"] == 1


def test_exchanged_colours_are_seen():
    scenes = Scenes(length=60, split="test", objects=(2, 3))
    record, twin = next(pair for i in range(60) if (pair := scenes.edit_twin(i, "swap_colour")))
    right, wrong = (_figures(record, one.captions["long"][0]) for one in (record, twin))
    assert right["capture"] == right["units_precision"] == 1
    assert wrong["capture_attributes"] < 1
    assert wrong["capture_objects"] == 1
    assert wrong["units_precision"] < 1


def test_without_a_scene_references_judge():
    record = Record("a", b"", {"alt": ("a black dog runs on the grass",)})
    scorer = DetailScorer(DetailOptions(("units", "dnli", "events")), [Known.of(record, record.captions["alt"])])
    found = {name: f.value for name, f in scorer.score(["a black dog runs on the grass"]).items()}
    assert found["units_f1"] == found["dnli_recall"] == found["event_f1"] == 1
    found = {name: f.value for name, f in scorer.score(["a white dog"]).items()}
    assert found["units_precision"] == 0.5
    assert math.isnan(found["event_precision"])
    assert "references" in scorer.notes()["claims"]
    with pytest.raises(ConfigError, match="--objects FILE"):
        DetailScorer(DetailOptions(("chair",)), [Known.of(record, ())])
    with pytest.raises(ConfigError, match="Did you mean"):
        check_metrics(["unit"])


# -- choices, battles, agreement


def test_a_coin_has_half_to_the_power_of_the_pairs():
    rng = np.random.default_rng(0)
    groups = [f"{i // 2}" for i in range(40_000)]
    found = choice_figures(rng.random(40_000), [rng.random(2) for _ in groups], groups)
    assert found["chance_multiple_binary"] == 0.5**4
    assert found["chance_n_way"] == pytest.approx(1 / 3)
    # The two pairs of one right caption share its score: won both 1/3 of the time, not 1/4.
    assert found["binary"] == pytest.approx(0.5, abs=0.01)
    assert found["n_way"] == pytest.approx(1 / 3, abs=0.01)
    assert found["multiple_binary"] == pytest.approx(1 / 9, abs=0.01)
    tied = choice_figures(np.ones(3), [np.ones(1)] * 3, ["a", "b", "c"])
    assert tied["binary"] == tied["n_way"] == 0
    with pytest.raises(DataError, match="is no choice"):
        choice_figures(np.ones(1), [np.ones(0)], ["a"])


def test_the_middle_of_the_choices_is_told_without_a_picture():
    right = np.array([1.0, 0, 0])
    wrong = np.array([[0.8, 0.6, 0], [0.8, -0.6, 0]])
    own, others = blind_scores(right, wrong)
    assert own == pytest.approx(0.8)
    assert others == pytest.approx([(0.8 + 0.28) / 2] * 2)


def test_choices_are_read_line_by_line(tmp_path):
    file = tmp_path / "choices.jsonl"
    (tmp_path / "a.jpg").write_bytes(b"")
    file.write_text(json.dumps({"image": "a.jpg", "positive": "x", "negatives": ["y", "x", "y"], "kind": "k"}) + "\n")
    pictures, asked = read_choices(str(file))
    assert asked[0].wrong == ("y",)
    assert (asked[0].group, asked[0].kind, len(pictures)) == ("a.jpg", "k", 1)
    file.write_text('{"image": "a.jpg", "positive": "x", "negatives": ["x"]}\n')
    with pytest.raises(DataError, match="line 1: a choice needs a wrong caption"):
        read_choices(str(file))
    file.write_text('{"image": "a.jpg"}\n')
    with pytest.raises(DataError, match=r"line 1: .*is meant"):
        read_choices(str(file))


def test_ratings_of_two_are_the_odds_of_their_wins():
    battles = [Battle("a", "b", 1.0)] * 30 + [Battle("b", "a", 1.0)] * 10
    found = bradley_terry(battles, draws=20)
    assert found.names == ("a", "b")
    assert found.ratings[0] - found.ratings[1] == pytest.approx(ELO * math.log(3), rel=1e-3)
    assert found.ratings.mean() == pytest.approx(1000)
    assert found.battles.tolist() == [40, 40]
    assert (found.low <= found.ratings).all()
    assert (found.ratings <= found.high).all()


def test_ratings_find_the_strengths_that_made_the_battles_and_draws_are_half_wins():
    rng, true = np.random.default_rng(0), np.array([0, 0.4, 0.8, 1.2])
    battles = []
    for _ in range(8000):
        a, b = rng.permutation(4)[:2]
        won = float(rng.random() < 1 / (1 + math.exp(true[b] - true[a])))
        battles.append(Battle(f"m{a}", f"m{b}", won))
    found = bradley_terry(battles, draws=5)
    assert found.names == ("m3", "m2", "m1", "m0")
    assert np.diff(found.ratings / ELO) == pytest.approx([-0.4] * 3, abs=0.12)
    turned = [Battle(x.b, x.a, 1 - x.won) for x in reversed(battles)]
    assert bradley_terry(turned, draws=2).ratings == pytest.approx(found.ratings, abs=0.05)
    even = bradley_terry([Battle("a", "b", 0.5)] * 5, draws=2)
    assert even.ratings == pytest.approx([1000, 1000])


def test_battles_that_say_nothing():
    with pytest.raises(DataError, match="between a and itself"):
        bradley_terry([Battle("a", "a", 1.0, image="x")])
    with pytest.raises(DataError, match=r"a b \| c d"):
        bradley_terry([Battle("a", "b", 1.0), Battle("c", "d", 1.0)])
    with pytest.raises(DataError, match="no battle"):
        bradley_terry([])


def test_win_rates_of_equal_length():
    rng = np.random.default_rng(1)
    longer = rng.normal(2, 4, 6000)  # usually longer, and longer wins more often
    deviation = longer.std()
    won = rng.random(6000) < 1 / (1 + np.exp(-(0.2 + 1.5 * np.tanh(longer / deviation))))
    battles = [Battle("new", "old", float(w), float(x)) for w, x in zip(won, longer, strict=True)]
    found = win_rates(battles, "old")["new"]
    assert found["win_rate"] > 0.6
    assert found["length_controlled"] == pytest.approx(1 / (1 + math.exp(-0.2)), abs=0.03)
    with pytest.raises(DataError, match="third is in no battle"):
        win_rates(battles, "third")


def test_agreement_is_scipy_s_and_needs_something_to_agree_on():
    figure, human = np.array([0.1, 0.4, 0.4, 0.9, np.nan]), np.array([1, 2, 3, 3, 4.0])
    found = agreement(figure, human)
    assert found["captions"] == 4
    # Pairs: 4 agree, none disagrees; one tie on either side of six.
    assert found["tau_b"] == pytest.approx(4 / 5)
    assert found["tau_c"] == pytest.approx(2 * 4 / (4**2 * (3 - 1) / 3))
    assert found["pearson"] == pytest.approx(np.corrcoef(figure[:4], human[:4])[0, 1])
    assert found["spearman"] == pytest.approx(stats.spearmanr(figure[:4], human[:4]).statistic)
    with pytest.raises(DataError, match="two values at least"):
        agreement(np.ones(4), human[:4])


def test_flickr_s_judgements(tmp_path):
    (tmp_path / "Flickr8k.token.txt").write_text(
        "a.jpg#0\ta dog\na.jpg#1\ta brown dog\nb.jpg#0\ta cat\nb.jpg#1\ta dog\n"
    )
    expert = tmp_path / "ExpertAnnotations.txt"
    expert.write_text("a.jpg\tb.jpg#0\t1\t1\t2\na.jpg\tb.jpg#1\t4\t4\t4\n")
    found, references = read_judgements(str(expert))
    assert references == 1  # "a dog" is said of a.jpg as well
    assert found == [("a.jpg", "a cat", ("a dog", "a brown dog"), (1, 1, 2))]
    crowd = tmp_path / "CrowdFlowerAnnotations.txt"
    crowd.write_text("a.jpg\tb.jpg#0\t0.25\t1\t3\n")
    assert read_judgements(str(crowd))[0][0].judgements == (0.25,)
    expert.write_text("a.jpg\tc.jpg#0\t1\t1\t2\n")
    with pytest.raises(DataError, match=r"line 1: Flickr8k\.token\.txt has no captions of 'c.jpg'"):
        read_judgements(str(expert))
    lines = tmp_path / "own.jsonl"
    lines.write_text('{"image": "a.jpg", "caption": "x", "references": ["y"], "judgements": 3}\n')
    assert read_judgements(str(lines))[0] == [("a.jpg", "x", ("y",), (3,))]


def test_the_readers_named_in_the_figures_are_those_used():
    assert (
        find_claim_reader("scenes").name
        in DetailScorer(DetailOptions(("units",)), [Known.of(Scenes(length=1)[0], ("a",))]).notes()["claims"]
    )


# -- the commands


def test_choices_of_a_file(tiny_folder, draw, tmp_path):
    """Scores are those of `Model.similarity`; what is told without pictures stands beside."""
    model = vlc.load(tiny_folder)
    right, wrong = "a red ball on a table", ["a blue ball on a table", "a red ball on a big hat"]
    for number in range(2):
        draw(tmp_path / "data" / f"{number}.png")
    rows = [{"image": f"{i}.png", "positive": right, "negatives": wrong, "kind": f"k{i}"} for i in range(2)]
    file = tmp_path / "data" / "choices.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    found = run(model, ["choices"], tmp_path, data=file, score="embed")["tasks"]["choices"]
    images = model.encode_image([tmp_path / "data" / f"{i}.png" for i in range(2)]).embed
    scores = images @ model.encode_text([right, *wrong]).embed.T
    won = scores[:, :1] > scores[:, 1:]
    assert found["embed"]["all"]["binary"] == won.mean()
    assert found["embed"]["all"]["multiple_binary"] == won.all(axis=1).mean()
    assert found["embed"]["k1"]["binary"] == won[1].mean()
    assert found["blind"]["length"]["binary"] == 0  # the right one is never longer
    scenes = run(model, ["choices"], tmp_path / "scenes", data="scenes", score="embed", examples=6)["tasks"]["choices"]
    drawn = open_test_scenes(model, 6)
    assert scenes["questions"] == sum(bool(some) for i in range(6) for some in drawn.wrong_texts(i).values()) > 6


def test_agreement_with_people(tiny_folder, draw, tmp_path):
    model = vlc.load(tiny_folder)
    lines = []
    for number, (caption, value) in enumerate([("a red ball", 4), ("a ball", 3), ("two dogs run", 1), ("a cat", 1)]):
        draw(tmp_path / "data" / f"{number}.png")
        row = {
            "image": f"{number}.png",
            "caption": caption,
            "references": ["a red ball on a table"],
            "judgements": value,
        }
        lines.append(json.dumps(row))
    file = tmp_path / "data" / "own.jsonl"
    file.write_text("\n".join(lines))
    found = run(model, ["judgements"], tmp_path, data=file)["tasks"]["judgements"]
    assert found["captions"] == found["judgements"] == 4
    assert found["figures"]["rouge_l"]["tau_b"] > 0.8
    assert "r1" not in found["figures"]  # which is of all captions


def test_captions_fight(tmp_path, capsys, monkeypatch):
    def write(name, values):
        rows = [{"key": f"i{n}", "guidance_scale": 1.0, "caption": "word " * (3 + n), "cider": value}
                for n, value in enumerate(values)]  # fmt: skip
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)))
        return f"{name[0]}={tmp_path / name}"

    sides = [write("a.jsonl", [1, 2, 3, None]), write("b.jsonl", [0, 2, 1, 1])]
    command = ["arena", *(word for side in sides for word in ("--captions", side))]
    assert main([*command, "--by", "cider", "--out", str(tmp_path / "battles.jsonl"), "--baseline", "b"]) == 0
    printed = capsys.readouterr().out
    assert "4 battles of 4 images by cider; 0 went by the order" in printed
    assert " 75.0%" in printed  # two won, two drawn
    winners = [json.loads(line)["winner"] for line in (tmp_path / "battles.jsonl").read_text().splitlines()]
    assert winners == ["a", "tie", "a", "tie"]
    assert main(["arena", str(tmp_path / "battles.jsonl")]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("a ")
    (tmp_path / "own_arena.py").write_text(
        "def first(image, a, b):\n    return 1\ndef odd(image, a, b):\n    return 7\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert main([*command, "--by", "own_arena.first"]) == 0
    assert "4 went by the order and are draws" in capsys.readouterr().out
    for by, message in (("spice", "no such figure"), ("own_arena.odd", "answered 7.0"), ("own_arena.no", "imported")):
        assert main([*command, "--by", by]) == 2
        assert message in capsys.readouterr().err
    assert main(command[:3]) == 2
    (tmp_path / "battles.jsonl").write_text('{"a": "x", "b": "y", "winner": "x"}\n')
    assert main(["arena", str(tmp_path / "battles.jsonl")]) == 2
    assert "line 1" in capsys.readouterr().err
