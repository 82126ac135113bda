"""`vlc data preferences`: pairs of captions, stored, and what learns from them."""

import json

import numpy as np
import pytest

from tests.tiny import tiny_config
from tests.train.test_loop import PLAIN, config, final_checksums
from vlc.cli import main
from vlc.config import check_config
from vlc.data.sources import open_source
from vlc.errors import ConfigError
from vlc.train import train

SAMPLES = [
    ["a red ball", "a red ball on a table", "a blue cat"],
    ["two dogs run", "two dogs"],
    ["one"],
    ["a cat", "a cat"],
]
TOLD = ["a red ball on a table", "two dogs run", "a hat", "a cat"]


@pytest.fixture
def sampled(draw, tmp_path):
    lines = []
    for number, (texts, told) in enumerate(zip(SAMPLES, TOLD, strict=True)):
        draw(tmp_path / "data" / f"{number}.png")
        lines.append(json.dumps({"image": f"{number}.png", "captions": {"longVLC": texts, "alt": [told]}}))
    (tmp_path / "data" / "captions.jsonl").write_text("\n".join(lines))
    return tmp_path / "data" / "captions.jsonl"


def test_the_best_and_the_worst_by_units(sampled, tmp_path, capsys):
    command = ["data", "preferences", str(sampled), "--by", "precision:1,recall:0.5", "--out", str(tmp_path / "pairs")]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "2 pairs" in printed
    assert "1 left out: one caption or none" in printed
    assert "1 left out: worth the same" in printed
    source = open_source(str(tmp_path / "pairs"))
    assert [record.captions["preferred"] for record in source] == [(TOLD[0],), (TOLD[1],)]
    assert [record.negatives[TOLD[i]] for i, record in enumerate(source)] == [("a blue cat",), ("two dogs",)]
    before = (tmp_path / "pairs" / "manifest.json").read_text()
    assert main(command) == 0  # written already
    assert (tmp_path / "pairs" / "manifest.json").read_text() == before
    for more, said in (
        (["--margin", "9"], "built otherwise"),
        (["--by", "clip_s:1", "--out", str(tmp_path / "b")], "--judge MODEL"),
        (["--by", "unit:1", "--out", str(tmp_path / "b")], "no reward is called"),
        (["--margin", "9", "--out", str(tmp_path / "b")], "no image has captions of which one is better"),
        (["--shard-records", "0", "--out", str(tmp_path / "b")], "must be 1 or more"),
    ):
        assert main([*command, *more]) == 2
        assert said in capsys.readouterr().err


def test_a_judge_decides_as_well(sampled, tiny_folder, tmp_path):
    out = tmp_path / "pairs"
    assert (
        main(["data", "preferences", str(sampled), "--by", "cosine:1", "--judge", str(tiny_folder), "--out", str(out)])
        == 0
    )
    import vlc

    model = vlc.load(tiny_folder)
    for record in open_source(str(out)):
        number = int(record.key.split(".")[0][-1])
        scores = (model.encode_image([record.image]).embed @ model.encode_text(SAMPLES[number]).embed.T)[0]
        best = record.captions["preferred"][0]
        assert best == SAMPLES[number][int(scores.argmax())]
        assert record.negatives[best] == (SAMPLES[number][int(scores.argmin())],)


STORED = PLAIN | {
    "objectives__clip__weight": 0.0, "objectives__preference__weight": 1.0, "model__decoder__layers": 2,
    "model__decoder__length": 10, "data__captions__preferred": "short", "data__captions__negatives": 1,
    "optimizer__lr": 1e-2,
}  # fmt: skip


def test_preferences_in_the_data_are_learnt_and_nothing_is_written(tmp_path):
    """Captions of scenes are preferred to those of their twins."""
    made = config(steps=4, **STORED)
    assert train(made, tmp_path / "run") == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    lost = [row["loss/preference"] for row in rows if "loss" in row]
    assert lost[0] == pytest.approx(np.log(2), rel=1e-3)  # nothing has moved from where it began
    assert np.std(lost[1:]) > 1e-3
    assert all("reward" not in row for row in rows)
    assert final_checksums(tmp_path / "run")[2] == 4


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reward__terms": "length:1"}, "nothing is written"),
        ({"objectives__policy__weight": 1.0}, "nothing is written"),
        ({"reward__updates": 2}, "nothing is written"),
        ({"objectives__preference__weight": 0.0}, "neither has weight"),
    ],
)
def test_what_does_not_go_with_stored_pairs(changes, said):
    known = {"objectives__preference__weight": 1.0, "data__captions__preferred": "preferred"}
    with pytest.raises(ConfigError, match=said):
        check_config(tiny_config(**known | changes))


def test_data_without_pairs_is_refused(tmp_path):
    made = config(steps=2, **STORED | {"data__captions__preferred": "best"})
    with pytest.raises(ConfigError, match='has a caption of the source "best"'):
        train(made, tmp_path)
