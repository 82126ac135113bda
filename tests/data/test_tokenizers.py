"""Ids of fixed length, pads outside the vocabulary, and where tokens stand in the text."""

import pytest

from vlc.data.tokenizers import SentencePiece, load_tokenizer
from vlc.data.tokenizers.sentence_piece import BOS_ID, EOS_ID
from vlc.errors import DataError


def test_text_survives(tokenizer):
    text = "a large striped red circle is left of the blue star."
    (ids,) = tokenizer.encode([text], 48)
    assert tokenizer.decode(ids) == text
    assert ids[0] == BOS_ID and EOS_ID in ids
    assert ids[-1] == tokenizer.pad_id == tokenizer.vocab_size


def test_a_long_text_keeps_its_end_mark(tokenizer):
    (ids,) = tokenizer.encode(["red circle " * 50], 10)
    assert len(ids) == 10 and ids[-1] == EOS_ID


def test_the_pad_is_no_word(tokenizer):
    assert tokenizer.pad_id not in tokenizer.encode(["! ! " + "x" * 30], 64)[0][:3]
    assert tokenizer.decode([tokenizer.pad_id] * 3) == ""


@pytest.mark.parametrize("text", ["A red Circle.", "Über 3 rote Kreise, ünd é", "日本 red circle"])
def test_spans_are_characters_of_the_text(text):
    tokenizer = SentencePiece.train([text, "a b c"] * 20, 200)
    spans = tokenizer.spans(text)
    (ids,) = tokenizer.encode([text], 64)
    assert len(spans) == (ids != tokenizer.pad_id).sum() - 1  # all but the end mark
    covered = "".join(text[a:b] for a, b in spans)
    assert covered.replace(" ", "") == text.replace(" ", "")


def test_training_is_reproducible():
    texts = [f"word{i} and more" for i in range(100)]
    assert SentencePiece.train(texts, 80).model == SentencePiece.train(texts, 80).model


def test_damaged_and_missing_models_are_said_plainly(tmp_path):
    with pytest.raises(DataError, match="vlc data tokenizer"):
        load_tokenizer(tmp_path / "none.model")
    (tmp_path / "bad.model").write_bytes(b"\xff\xff nonsense")
    with pytest.raises(DataError, match="Not a SentencePiece model"):
        load_tokenizer(tmp_path / "bad.model")
    with pytest.raises(DataError, match="No tokenizer of 3 pieces"):
        SentencePiece.train(["abcdefg"], 3)


def test_long_captions_are_trained_on():
    """SentencePiece alone passes over what is longer than 4,192 bytes, and then knows letters only."""
    long = ["a yellow submarine sails under green water " * 200] * 3
    tokenizer = SentencePiece.train(long, 100)
    assert len(tokenizer.ids("submarine", 50)) <= 4
