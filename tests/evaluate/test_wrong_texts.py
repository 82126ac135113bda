"""`vlc eval --task wrong_texts`: by rule, with an interval, and the data's own wrong texts."""

import json

import pytest

import vlc
from tests.evaluate.test_tasks import run
from vlc.errors import DataError


def test_wrong_texts_are_told_by_rule(tiny_folder, draw, tmp_path):
    """The scores are those of `Model.similarity`; the data's own wrong texts are a group of their own."""
    model = vlc.load(tiny_folder)
    rows = [("a red ball on a table", ["a red ball on a hat"]), ("two dogs run", []), ("hello", [])]
    for number in range(3):
        draw(tmp_path / "data" / f"{number}.png")
    lines = [
        json.dumps({"image": f"{i}.png", "captions": [text]} | ({"negatives": wrong} if wrong else {}))
        for i, (text, wrong) in enumerate(rows)
    ]
    (tmp_path / "data" / "captions.jsonl").write_text("\n".join(lines))
    found = run(model, ["wrong_texts"], tmp_path, data=tmp_path / "data" / "captions.jsonl", score="both")["tasks"]
    by = found["wrong_texts"]["embed"]
    assert found["wrong_texts"]["images"] == 3 and by["of the data"]["pairs"] == 1
    assert by["all"]["pairs"] == 1 + 3 + 3 == sum(one["pairs"] for name, one in by.items() if name != "all")
    scores = (
        model.encode_image([tmp_path / "data" / "0.png"]).embed @ model.encode_text([rows[0][0], *rows[0][1]]).embed.T
    )
    assert by["of the data"]["preferred"] == float(scores[0, 0] > scores[0, 1])
    low, high = by["all"]["interval"]
    assert 0 <= low <= by["all"]["preferred"] <= high <= 1
    assert found["wrong_texts"]["reader"].startswith("spaCy")
    (tmp_path / "data" / "captions.jsonl").write_text(lines[2])
    with pytest.raises(DataError, match="no wrong text could be made"):
        run(model, ["wrong_texts"], tmp_path, data=tmp_path / "data" / "captions.jsonl")
