"""Wrong texts by rules: what each makes, what it leaves alone, and how builds keep them."""

import json

import numpy as np
import pytest

from tests.curate.test_filters import make_source, texts
from vlc.cli import main
from vlc.curate.build import Plan, build
from vlc.curate.edits import RULES, USUAL, Reader, find_reader, kinds, read_by_lists, wrong_texts
from vlc.curate.edits.words import groups
from vlc.data.sources import open_source
from vlc.errors import ConfigError, DataError

LISTS = Reader("lists", read_by_lists)
GRAMMAR = find_reader()


def made(rule, text, *others, reader=GRAMMAR, count=99):
    edits = wrong_texts(text, (text, *others), reader, np.random.default_rng(0), count=count, rules=(rule,))
    assert {edit.kind for edit in edits} <= {rule}
    return {edit.text for edit in edits}


def test_the_grammar_is_there():
    assert GRAMMAR.name.startswith("spaCy 3")


@pytest.mark.parametrize(
    ("rule", "text", "wrong"),
    [
        ("swap_nouns", "A black dog chases a white cat .", {"A black cat chases a white dog ."}),
        ("swap_nouns", "A girl throws a soccer ball .", {"A soccer ball throws a girl ."}),
        ("swap_nouns", "A black dog and a white cat are asleep.", {"A black cat and a white dog are asleep."}),
        ("swap_subject_and_object", "a boy jumps onto the rock", {"the rock jumps onto a boy"}),
        ("swap_subject_and_object", "An old man rides a horse.", {"A horse rides an old man."}),
        ("swap_phrases", "A man in a red hat sits on a bench.", {"A man in a bench sits on a red hat."}),
        ("swap_attributes", "a black dog and a white cat", {"a white dog and a black cat"}),
    ],
)
def test_parts_are_exchanged(rule, text, wrong):
    assert made(rule, text) == wrong


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("swap_nouns", "a man and a woman"),  # the same thing in another order
        ("swap_nouns", "A dog is next to a cat."),
        ("swap_nouns", "A boy meets a girl."),
        ("swap_subject_and_object", "Two dogs chase a ball."),  # a ball chase
        ("swap_attributes", "a black dog and another black dog"),
        ("swap_attributes", "a black and white dog"),
        ("swap_phrases", "A man with a hat and a bag."),
        ("replace_relation", "A man walks on a sunny day."),
        ("replace_action", "A man is walking a dog."),  # not what he does with himself
        ("replace_attribute", "a man"),
        ("shuffle_words", "one"),
    ],
)
def test_what_may_be_true_after_all_is_left_alone(rule, text):
    assert not made(rule, text)


@pytest.mark.parametrize("reader", [GRAMMAR, LISTS], ids=["grammar", "lists"])
def test_words_are_replaced_by_others_of_their_kind(reader):
    assert "an orange ball in the grass" in made("replace_attribute", "a red ball in the grass", reader=reader)
    assert "a cat in the grass" in made("replace_object", "a dog in the grass", reader=reader)
    assert "Two cats run" in made("replace_object", "Two dogs run", reader=reader)
    assert "five red balls" in made("replace_attribute", "two red balls", reader=reader)
    assert made("replace_relation", "A dog sleeps under the table.", reader=reader) == {"A dog sleeps on the table."}
    assert "A man is standing ." in made("replace_action", "A man is sitting .", reader=reader)
    assert made("replace_object", "A soccer ball", reader=reader) <= {
        f"A {sport} ball" for group in groups(kinds.OBJECTS["sport"]) for sport in group
    }


@pytest.mark.parametrize("reader", [GRAMMAR, LISTS], ids=["grammar", "lists"])
def test_what_any_caption_says_is_taken_to_be_true(reader):
    alone = made("replace_object", "a dog runs", reader=reader)
    beside = made("replace_object", "a dog runs", "two kittens look on", reader=reader)
    assert alone - beside == {"a cat runs"} and beside < alone
    assert made("swap_attributes", "a red cup, a blue mug", "a blue cup, a red mug", reader=reader) == set()


def test_groups_are_apart():
    """A word in two groups of a kind would replace itself."""
    for table in (kinds.ATTRIBUTES, kinds.OBJECTS, kinds.ACTIONS, kinds.RELATIONS):
        for kind, row in table.items():
            words = [word for group in groups(row) for word in set(group)]
            assert len(words) == len(set(words)) and len(groups(row)) > 1, kind


def test_as_many_as_asked_for_of_different_rules():
    text = "A brown dog with a red ball jumps over a small log in the snow."
    edits = wrong_texts(text, [text], GRAMMAR, np.random.default_rng(1), count=6)
    assert len(edits) == 6 and len({edit.text for edit in edits}) == 6
    assert len({edit.kind for edit in edits}) >= 5 and "shuffle_words" not in {edit.kind for edit in edits}
    assert edits == wrong_texts(text, [text], GRAMMAR, np.random.default_rng(1), count=6)
    assert not any(edit.text.lower() == text.lower() for edit in edits)
    shuffled = made("shuffle_words", text)
    words = [sorted(one.lower().strip(".").replace("an ", "a ").split()) for one in (*shuffled, text)]
    assert len(words) == 2 and words[0] == words[1]


def test_any_text_is_read():
    for text in ("", " ", "?!", "12 %", "犬が走る。", "a\nb", "A" * 500, "it 's a dog 's dog"):
        for reader in (GRAMMAR, LISTS):
            edits = wrong_texts(text, [text], reader, np.random.default_rng(0), count=3, rules=tuple(RULES))
            assert len(edits) <= 3 and all(edit.text and edit.text != text for edit in edits)


def test_a_rule_that_is_not_there():
    with pytest.raises(ConfigError, match=r'no rule "swap_noun".*swap_nouns'):
        made("swap_noun", "a dog")


def test_a_build_keeps_them_and_says_how_many(tmp_path, capsys):
    source = make_source(tmp_path / "a", texts("a red ball", "hello", "two dogs"))
    command = ["data", "build", str(tmp_path / "a"), "--out", str(tmp_path / "out"), "--negatives", "2"]
    assert main([*command, "--shard-records", "2"]) == 0
    assert "wrong texts for 2 of 3 captions, of 66.7% of the records, read by spaCy" in capsys.readouterr().out
    records = list(open_source(str(tmp_path / "out")))
    assert [len(record.negatives.get(record.all_captions()[0], ())) for record in records] == [2, 0, 2]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["negatives"]["records"] == 2 and sum(manifest["negatives"]["texts"].values()) == 4
    assert manifest["plan"]["rules"] == list(USUAL)
    build(source, Plan(str(tmp_path / "a"), negatives=2, shard_records=1), tmp_path / "shards", workers=2)
    assert [record.negatives for record in open_source(str(tmp_path / "shards"))] == [one.negatives for one in records]
    with pytest.raises(DataError, match="negatives"):
        build(source, Plan(str(tmp_path / "a"), negatives=3, shard_records=1), tmp_path / "shards")


def test_without_wrong_texts_a_build_is_as_before(tmp_path):
    source = make_source(tmp_path / "a", texts("a red ball"))
    manifest = build(source, Plan(str(tmp_path / "a")), tmp_path / "out")
    assert "negatives" not in manifest and not {"negatives", "rules", "reader"} & set(manifest["plan"])


def test_a_rule_needs_a_number(tmp_path, capsys):
    make_source(tmp_path / "a", texts("a red ball"))
    command = ["data", "build", str(tmp_path / "a"), "--out", str(tmp_path / "out"), "--rule", "swap_nouns"]
    assert main(command) == 2 and "--negatives" in capsys.readouterr().err
    assert main([*command, "--negatives", "-1"]) == 2 and "0 or more" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
