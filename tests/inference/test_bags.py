"""Bags of records that look alike: how they are mined, where they stand in a batch, and what is refused."""

import json

import numpy as np
import pytest

from tests.conftest import unit_rows
from vlc.cli import main
from vlc.config import parse_steps
from vlc.data.bags import Bags, read_bags, read_file
from vlc.data.captions import CaptionChoice, Mix
from vlc.data.images import Preprocess
from vlc.data.pipeline import Lengths, MakeExample, train_batches
from vlc.data.sources import Scenes
from vlc.errors import ConfigError, DataError
from vlc.evaluate.tasks.bags import found_in_bags
from vlc.inference.bags import mine_bags
from vlc.interop import write_native


def test_those_that_are_most_alike_are_in_a_bag(rng):
    centres = unit_rows(rng, 5, 8)
    embed = np.concatenate([centres + rng.normal(0, 0.05, centres.shape) for _ in range(3)])
    embed = (embed / np.linalg.norm(embed, axis=1, keepdims=True)).astype(np.float32)
    bags = mine_bags(embed[rng.permutation(15)], 3)
    assert bags.shape == (5, 3) and len(set(bags.reshape(-1).tolist())) == 15
    order = rng.permutation(15)
    found = {frozenset((order[bag] % 5).tolist()) for bag in mine_bags(embed[order], 3)}
    assert found == {frozenset([centre]) for centre in range(5)}
    some = mine_bags(embed, 2)
    assert len(some) == len({i for bag in some for i in bag}) / 2  # none is in two
    assert len(mine_bags(embed, 4, neighbours=4)) <= 3
    with pytest.raises(DataError, match="2 images make no bag of 3"):
        mine_bags(embed[:2], 3)


def test_bags_by_the_plain_rule(rng):
    embed = unit_rows(rng, 40, 6)
    cosines = embed @ embed.T
    np.fill_diagonal(cosines, -np.inf)
    free, wanted = set(range(40)), []
    for first in np.argsort(-cosines.max(axis=1), kind="stable"):
        if first in free:
            others = [int(i) for i in np.argsort(-cosines[first]) if i in free and i != first][:3]
            if len(others) == 3:
                wanted.append([int(first), *others])
                free -= set(wanted[-1])
    assert mine_bags(embed, 4, neighbours=39).tolist() == wanted


def test_where_a_bag_stands_in_a_batch():
    bags = Bags(np.arange(70).reshape(10, 7), ((0, 3), (2, 5)))
    places = [[bags.place(batch, row, 8) for row in range(8)] for batch in range(4)]
    assert places[0] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]  # the last is cut
    assert places[1][0] == (3, 0) and places[2][:6] == [(6, 0), (6, 1), (6, 2), (6, 3), (6, 4), (7, 0)]
    assert places[3][0] == (8, 0) and [bags.size_at(step) for step in (0, 1, 2, 9)] == [3, 3, 5, 5]


def batches(bags, start=0, rows=None, tokenizer=None):
    make = MakeExample(Scenes(side=16, length=70), Preprocess(16), CaptionChoice(Mix({})), tokenizer, Lengths(9, 9, 9))
    reader = train_batches(make, batch_size=8, seed=3, start_step=start, rows=rows, bags=bags)
    found = [next(reader)["index"].tolist() for _ in range(4 - start)]
    reader.close()
    return found


def test_batches_of_bags_are_the_same_wherever_a_run_begins(tokenizer):
    bags = Bags(np.arange(70).reshape(10, 7), ((0, 3), (2, 5)))
    whole = batches(bags, tokenizer=tokenizer)
    assert whole[2:] == batches(bags, 2, tokenizer=tokenizer)
    here, there = (batches(bags, rows=rows, tokenizer=tokenizer) for rows in ([0, 1, 2, 3], [4, 5, 6, 7]))
    assert [a + b for a, b in zip(here, there, strict=True)] == whole
    for batch, size in zip(whole, (3, 3, 5, 5), strict=True):
        for start in range(0, 8, size):
            part = batch[start : start + size]
            assert part == list(range(part[0], part[0] + len(part))) and part[0] % 7 == 0


def test_files_of_bags(tmp_path):
    path = tmp_path / "bags.json"
    path.write_text(json.dumps({"records": 20, "size": 3, "bags": [[0, 5, 7], [1, 2, 19]]}))
    assert read_bags(path, {}, 20, 8).sizes == ((0, 3),)
    assert read_bags(path, parse_steps("0:2,5:3", "x"), 20, 8).sizes == ((0, 2), (5, 3))
    for sizes, records, error, said in (
        ({}, 21, DataError, "is of data with 20 records, and these have 21"),
        ({1: 3}, 20, ConfigError, "begins at step 1"),
        ({0: 4}, 20, ConfigError, "4 at step 0 is not from 2 to 3"),
    ):
        with pytest.raises(error, match=said):
            read_bags(path, sizes, records, 8)
    with pytest.raises(ConfigError, match="not from 2 to 2"):
        read_bags(path, {0: 3}, 20, 2)
    for wrong in (
        "no",
        '{"records": 2, "size": 2, "bags": [[0, 1, 2]]}',
        '{"records": 2, "size": 2, "bags": [[0, 5]]}',
    ):
        path.write_text(wrong)
        with pytest.raises(DataError, match=r"bags\.json"):
            read_file(path)
    with pytest.raises(ConfigError, match="write steps and numbers"):
        parse_steps("0-3", "data.bag_sizes")


def test_what_is_found_in_a_bag():
    image = np.eye(4, dtype=np.float32)
    text = np.eye(4, dtype=np.float32)[[0, 2, 2, 0]]
    right = found_in_bags(image, text, np.array([[0, 1], [2, 3]]))
    assert right.tolist() == [[True, False], [True, False]]  # those of equal scores are wrong


def test_the_command_and_the_task(tiny_regions, tmp_path, capsys):
    write_native(tiny_regions.as_imported(), tmp_path / "model")
    out = tmp_path / "bags.json"
    mine = ["data", "bags", "scenes", "--model", str(tmp_path / "model"), "--records", "24", "--out", str(out)]
    assert main([*mine, "--size", "5"]) == 0
    found = read_file(out)
    assert found["size"] == 5 and found["records"] == 1_000_000 and "bags of 5, of 24 images" in capsys.readouterr().out
    run = ["eval", str(tmp_path / "model"), "--task", "bags", "--data", "scenes", "--out", str(tmp_path / "e")]
    run += ["--cache", str(tmp_path / "cache")]
    assert main([*run, "--examples", "24"]) == 0
    figures = json.loads((tmp_path / "e" / "eval.json").read_text())["tasks"]["bags"]
    for name in ("written", "the data's caption"):
        assert set(figures[name]) == {"r1_3", "r1_5", "r1_7"} and 0 <= figures[name]["r1_3"]["value"] <= 1
    assert main([*run, "--examples", "24", "--bags", str(out)]) != 0  # of other records
    assert "is of data with 1,000,000 records, and these have 24" in capsys.readouterr().err
    out.write_text(json.dumps({"records": 24, "size": 5, "bags": [[0, 3, 4, 9, 23], [1, 2, 5, 6, 7]]}))
    assert main([*run, "--examples", "24", "--bags", str(out)]) == 0
    figures = json.loads((tmp_path / "e" / "eval.json").read_text())["tasks"]["bags"]
    assert main([*run, "--examples", "24", "--references", "none"]) != 0
    assert '--references "none", but its captions are' in capsys.readouterr().err
    assert figures["bags"] == 2 and figures["images"] == 24 and set(figures["written"]) == {"r1_3", "r1_5"}
