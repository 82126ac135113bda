"""Ids of 10,000 texts in many languages equal those of transformers and open_clip: pieces, marks, cuts and pads."""

import json
import pickle
from types import SimpleNamespace

import numpy as np
import pytest

from tests.peers.environment import needs_peers, run_peer
from vlc.data.tokenizers import tokenizer_from_json
from vlc.interop import tokenizer_files
from vlc.interop.export import _write_tokenizer

ROWS = 500_000  # of a table that is large enough for all
READERS = {
    "clip": lambda folder: tokenizer_files.clip(folder, ROWS),
    "open_clip": lambda folder: tokenizer_files.open_clip(folder, {}, ROWS),
    "siglip": lambda folder: tokenizer_files.siglip_pieces(folder / "spiece.model", 10_000),
    "siglip2": lambda folder: tokenizer_files.siglip(folder, ROWS),
    "canonical": lambda folder: tokenizer_files.open_clip(
        folder, {"hf_tokenizer_name": "x", "tokenizer_kwargs": {"clean": "canonicalize"}}, ROWS
    ),
    "minilm": lambda folder: tokenizer_files.bert(folder, ROWS),
}


@pytest.mark.slow
@needs_peers
def test_ids_are_equal(tokens):
    texts = json.loads((tokens / "texts.json").read_text())
    assert len(texts) == 10_000 and len(set(texts)) > 9_000
    for name, read in READERS.items():
        theirs = np.load(tokens / f"{name}.npy")
        tokenizer = read(tokens / name)
        ids = tokenizer.encode(texts, theirs.shape[1])
        ours = np.where(ids == tokenizer.pad_id, tokenizer.rules.pad, ids)
        wrong = np.flatnonzero((ours != theirs).any(axis=1))
        assert not len(wrong), (name, len(wrong), texts[wrong[0]], ours[wrong[0]], theirs[wrong[0]])
        assert (ids[:, -1] == tokenizer.end_id).any(), name  # some are cut, their end mark kept
        # Saved in a checkpoint, or sent to a worker, it is the same.
        saved = json.loads(json.dumps(tokenizer.to_json()))
        for again in (tokenizer_from_json(saved), pickle.loads(pickle.dumps(tokenizer))):
            assert np.array_equal(again.encode(texts[::97], 24), ids[::97, :24])


@pytest.mark.slow
@needs_peers
@pytest.mark.parametrize("name", READERS)
def test_texts_come_back(tokens, name):
    tokenizer = READERS[name](tokens / name)
    text = "red apple on a table"
    ids = tokenizer.encode([text], 64)[0]
    assert tokenizer.decode(ids).replace(" ", "") == text.replace(" ", "")
    spans = tokenizer.spans(text)
    assert spans[int(ids[0] == tokenizer.begin_id)][0] == 0 and spans[-1][1] == len(text)
    assert len(tokenizer.pieces(ids)) == 64


@pytest.mark.slow
@needs_peers
def test_exported_ids_are_equal(tokens, tmp_path):
    """By transformers, from what vlc writes; where OpenAI's pad is written as the end mark, up to that."""
    kinds = {"clip": "clip", "open_clip": "clip", "siglip": "siglip", "siglip2": "siglip", "canonical": "siglip"}
    for name, kind in kinds.items():
        tokenizer = READERS[name](tokens / name)
        text = SimpleNamespace(length=24)
        model = SimpleNamespace(tokenizer=tokenizer, config=SimpleNamespace(model=SimpleNamespace(text=text)))
        (tmp_path / name).mkdir()
        _write_tokenizer(model, kind, tmp_path / name, [])
    run_peer("exported_tokens", tokens / "texts.json", tmp_path)
    for name in kinds:
        ours, theirs = np.load(tokens / f"{name}.npy"), np.load(tmp_path / f"{name}.npy")
        if name == "open_clip":
            after = np.cumsum(ours == ours.max(), axis=1) - (ours == ours.max()) > 0
            ours, theirs = np.where(after, 0, ours), np.where(after, 0, theirs)
        wrong = np.flatnonzero((ours != theirs).any(axis=1))
        texts = json.loads((tokens / "texts.json").read_text())
        assert not len(wrong), (name, len(wrong), [texts[i] for i in wrong[:5]], ours[wrong[0]], theirs[wrong[0]])
        back = READERS[name](tmp_path / name) if name in ("clip", "siglip2") else None
        if back is not None:
            assert np.array_equal(back.encode(texts[::11], 24), READERS[name](tokens / name).encode(texts[::11], 24))
