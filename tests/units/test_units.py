"""Claims: read, matched and judged, on texts small enough to be read by hand."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from vlc.curate.edits import Reader, read_by_lists
from vlc.data.sources import Scenes
from vlc.data.sources.scenes import language, world
from vlc.errors import ConfigError, DataError
from vlc.units import (
    Claim,
    Judge,
    by_references,
    claims_of_scene,
    find_claim_reader,
    find_judge,
    find_synonyms,
    judge_by_scene,
    judged,
    matched,
    read_scene_claims,
)
from vlc.units.grammar_claims import read_by_grammar


def _said(text: str, reader: str = "rules") -> set[tuple[str, str]]:
    return {(claim.kind, claim.text) for claim in find_claim_reader(reader).read(text)}


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        (
            "Two young men in white shirts are playing soccer on a wet field.",
            {
                ("object", "man"), ("attribute", "two man"), ("attribute", "young man"), ("object", "shirt"),
                ("attribute", "white shirt"), ("relation", "man in shirt"), ("event", "man play soccer"),
                ("object", "soccer"), ("relation", "man on field"), ("object", "field"), ("attribute", "wet field"),
            },
        ),
        ("The ball is red.", {("object", "ball"), ("attribute", "red ball")}),
        ("A red star to the left of a ring.", {
            ("object", "star"), ("attribute", "red star"), ("object", "ring"), ("relation", "star left of ring")}),
        ("A woman sits next to her dog.", {
            ("object", "woman"), ("event", "woman sit"), ("object", "dog"), ("relation", "woman next to dog")}),
        ("a picture of a few things", {("object", "thing"), ("attribute", "few thing")}),
        ("", set()),
    ],
)  # fmt: skip
def test_claims_of_english(text, claims):
    assert _said(text) == claims


def test_claims_without_a_grammar():
    found = read_by_grammar("a small dog on a red bench", Reader("lists", read_by_lists))
    assert [claim.text for claim in found] == ["dog", "small dog", "bench", "red bench", "dog on bench"]


def test_a_scene_told_by_its_caption_is_true_and_its_twin_is_not():
    scenes = Scenes(length=40, split="test", objects=(2, 4))
    for index in range(40):
        scene, style = scenes.scene(index)
        claims = read_scene_claims(language.long_caption(scene, style).text)
        verdicts, meant = judge_by_scene(scene, claims)
        assert verdicts.all()
        assert sorted(meant.values()) == list(range(len(scene.objects)))
        facts = {(c.kind, *c.words) for c in claims_of_scene(scene)}
        assert facts <= {(c.kind, *c.words) for c in claims}
        for edit in world.EDITS:
            if (pair := scenes.edit_twin(index, edit)) is not None:
                wrong = read_scene_claims(pair[1].captions["long"][0])
                assert not judge_by_scene(scene, wrong)[0].all(), (edit, index)


def test_the_same_thing_twice_is_one_too_many():
    scene = world.Scene("black", (world.SceneObject("star", "red", "small", "plain", 0.5, 0.5),))
    assert judge_by_scene(scene, read_scene_claims("a red star"))[0].tolist() == [1, 1]
    told = read_scene_claims("a small star and a red star")  # may be one, and is taken for two
    assert judge_by_scene(scene, told)[0].mean() == 0.5
    told = read_scene_claims("A small red star. The red star is shown.")
    assert judge_by_scene(scene, told)[0].tolist() == [1, 1, 1]


def test_claims_match_one_to_one_and_in_any_order():
    couch, sofa = Claim("object", "couch"), Claim("object", "sofa")
    same = find_synonyms().same
    has, taken = matched([sofa, couch], [couch], same)
    assert has.tolist() == [False, True]  # the same word before a synonym
    assert taken.tolist() == [True]
    rng = np.random.default_rng(0)
    some = [Claim("object", word) for word in ("car", "auto", "automobile", "dog", "cat", "couch")]
    meant = [Claim("object", word) for word in ("machine", "car", "sofa", "hound", "dog")]
    counts = {int(matched([some[i] for i in rng.permutation(6)], [meant[j] for j in rng.permutation(5)], same)[0].sum())
              for _ in range(20)}  # fmt: skip
    assert len(counts) == 1


def test_synonyms_are_whole_words():
    same = find_synonyms().same
    assert same("couch", "sofa")
    assert not same("cat", "cattle")
    assert not same("red", "colored")
    assert not same("man", "woman")


def test_references_entail_deny_or_say_nothing():
    meant = [Claim("object", "dog"), Claim("attribute", "dog", "black")]
    said = [
        Claim("object", "dog"),
        Claim("attribute", "dog", "white"),
        Claim("attribute", "dog", "wet"),
        Claim("object", "cat"),
    ]
    found = by_references(said, meant, lambda a, b: a == b)
    assert found[:2].tolist() == [1, 0]
    assert np.isnan(found[2:]).all()


def _sleeps(claims, meant):
    time.sleep(5)
    return [1.0] * len(claims)


@pytest.mark.parametrize(
    ("verdicts", "message"),
    [
        (_sleeps, "no answer in 0.1 seconds"),
        (lambda claims, meant: [1.0], "0, 1 or NaN for each of 2 claims"),
        (lambda claims, meant: [0.5, 1.0], "0, 1 or NaN for each of 2 claims"),
        (lambda claims, meant: ["yes", "no"], "did not give numbers"),
        (lambda claims, meant: 1 / 0, "failed .ZeroDivisionError"),
    ],
)
def test_what_a_judge_may_not_answer(verdicts, message):
    with pytest.raises(DataError, match=f"img: the judge mine.*{message}"):
        judged(Judge("mine", verdicts, 0.1), [Claim("object", "a"), Claim("object", "b")], [], "img")


def test_readers_and_judges_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "own_units.py").write_text(
        "def read(text):\n    return [('object', word) for word in text.split()]\n"
        "def bad(text):\n    return ['object']\n"
        "def judge(claims, meant):\n    return [float(c.subject in {m.subject for m in meant}) for c in claims]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    claims = find_claim_reader("own_units.read").read("dog cat")
    assert claims == [Claim("object", "dog"), Claim("object", "cat")]
    assert judged(find_judge("own_units.judge", str.__eq__), claims, claims[:1], "x").tolist() == [1, 0]
    with pytest.raises(DataError, match=r"own_units\.bad did not give claims"):
        find_claim_reader("own_units.bad").read("dog")
    with pytest.raises(ConfigError, match="not a reader of claims"):
        find_claim_reader("mine")
    with pytest.raises(ConfigError, match=r"own_units\.other cannot be imported"):
        find_judge("own_units.other", str.__eq__)


def test_claims_do_not_depend_on_how_words_are_hashed():
    program = (
        "from vlc.units import find_claim_reader, find_synonyms, matched\n"
        "read = find_claim_reader().read\n"
        "a, b = read('a man and a guy on a couch near a car'), read('two men sit on a sofa by an automobile')\n"
        "print([c.text for c in a], matched(a, b, find_synonyms().same)[0].tolist())"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", program], env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("0", "1")
    }  # fmt: skip
    assert len(said) == 1
