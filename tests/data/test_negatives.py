"""Texts that are almost right and wrong, from every kind of file that can name them, and back."""

import json
import pickle
import tarfile
from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flax import nnx

from tests.data.damage import picture
from tests.tiny import HARD, tiny_batch, tiny_config, tiny_model
from vlc.curate.build import Plan, build
from vlc.data.captions import CaptionChoice, Mix
from vlc.data.pipeline import train_batches
from vlc.data.sources import Columns, open_source
from vlc.errors import DataError
from vlc.train.inputs import make_example_maker
from vlc.train.step import wrong_texts

CAPTIONS = ["a red  cat on a mat", "a cat"]
FORMS = {
    "list": (["a blue cat on a mat", "a dog"], {"a red cat on a mat": ("a blue cat on a mat", "a dog"),
                                                "a cat": ("a blue cat on a mat", "a dog")}),
    "by caption": ({"a red  cat on a mat": ["a mat on a red cat", "a mat on a red cat"]},
                   {"a red cat on a mat": ("a mat on a red cat",)}),
    "by source": ({"text": ["a dog"]}, {"a red cat on a mat": ("a dog",), "a cat": ("a dog",)}),
    "none": (None, {}),
    "empty": ([], {}),
    "blank": ([" "], {}),
}  # fmt: skip


def written(kind, folder, value):
    row = {"captions": CAPTIONS, "negatives": value}
    if kind == "tar":
        with tarfile.open(folder / "0.tar", "w") as tar:
            for name, data in (("0.jpg", picture(0)), ("0.json", json.dumps(row).encode())):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, BytesIO(data))
        return str(folder / "0.tar")
    (folder / "0.jpg").write_bytes(picture(0))
    if kind == "jsonl":
        (folder / "captions.jsonl").write_text(json.dumps({"image": "0.jpg", **row}) + "\n")
        return str(folder)
    pq.write_table(pa.Table.from_pylist([{"image": "0.jpg", **row}]), folder / "captions.parquet")
    return str(folder / "captions.parquet")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["jsonl", "tar", "parquet"])
def test_they_are_read_and_built(kind, form, tmp_path):
    value, wanted = FORMS[form]
    (tmp_path / "in").mkdir()
    source = open_source(written(kind, tmp_path / "in", value))
    assert source[0].negatives == wanted and source[0].captions == {"text": ("a red cat on a mat", "a cat")}
    build(source, Plan("x"), tmp_path / "out")
    assert open_source(str(tmp_path / "out"))[0].negatives == wanted


def test_rows_of_one_image_are_put_together(tmp_path):
    (tmp_path / "0.jpg").write_bytes(picture(0))
    rows = [{"image": "0.jpg", "caption": text, "negatives": [f"not {text}"]} for text in ("one", "two")]
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert open_source(str(tmp_path))[0].negatives == {"one": ("not one",), "two": ("not two",)}


def test_data_without_any_are_refused_where_a_loss_needs_them(tmp_path, tokenizer):
    """It would be 0 for ever, without a word."""
    config = tiny_config(**HARD)
    (tmp_path / "0.jpg").write_bytes(picture(0))
    for negatives, fine in (([], False), (["a dog"], True)):
        row = {"image": "0.jpg", "caption": "a cat", "negatives": negatives}
        (tmp_path / f"{fine}.jsonl").write_text(json.dumps(row) + "\n")
        config.data.train = str(tmp_path / f"{fine}.jsonl")
        source = open_source(config.data.train)
        if fine:
            assert make_example_maker(config, source, tokenizer).captions.negatives == 2
        else:
            with pytest.raises(DataError, match="none of 1 records has wrong texts"):
                make_example_maker(config, source, tokenizer)


def test_a_column_can_be_named(tmp_path):
    (tmp_path / "0.jpg").write_bytes(picture(0))
    (tmp_path / "x.csv").write_text("file,title,foil\n0.jpg,a cat,a dog\n")
    source = open_source(str(tmp_path / "x.csv"), columns="image=file,text=title,negatives=foil")
    assert source[0].captions == {"text": ("a cat",)} and source[0].negatives == {"a cat": ("a dog",)}


@pytest.mark.parametrize("value", [3, [1, 2], {"text": 5}, [["a"]]])
def test_what_is_no_list_of_texts_is_said(value):
    with pytest.raises(DataError, match="negatives"):
        Columns().negatives_of({"negatives": value}, {"text": ("a cat",)}, "here")


def test_images_of_a_file_can_be_named_as_twins(tmp_path, tokenizer):
    """Both of a pair come side by side, with their own captions; a name that is not there is no twin."""
    rows = [
        {"image": "0.jpg", "caption": "a cat on a mat", "twins": "1.jpg"},
        {"image": "1.jpg", "caption": "a mat on a cat", "twins": ["0.jpg", "gone.jpg"]},
        {"image": "2.jpg", "caption": "a dog", "twins": ["gone.jpg"]},
    ]
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(picture(number))
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = pickle.loads(pickle.dumps(open_source(str(tmp_path))))
    rng = np.random.default_rng(0)
    assert source.twin(0, ("text", 0), rng).key == "1.jpg" and source.twin(1, ("text", 0), rng).key == "0.jpg"
    assert source.twin(2, ("text", 0), rng) is None
    config = tiny_config(data__train=str(tmp_path), data__twins=0.5)
    make = make_example_maker(config, source, tokenizer)
    batch = next(train_batches(make, batch_size=8, seed=0, twins=0.5))
    words = [tokenizer.decode(ids) for ids in batch["text"]]
    pairs = set(zip(words[::2], words[1::2], strict=True))
    assert pairs & {("a cat on a mat", "a mat on a cat"), ("a mat on a cat", "a cat on a mat")}
    assert not any(pair[0] == pair[1] != "a dog" for pair in pairs)
    with pytest.raises(DataError, match="twins"):
        Columns().twins_of({"twins": [1]}, "here")


def test_a_share_of_the_visits_has_wrong_texts_and_the_step_counts_them():
    choice = CaptionChoice(Mix({}), negatives=2, negatives_share=0.3)
    rng = np.random.default_rng(0)
    drawn = [choice.draw_negatives(["a", "b", "c"], [], rng) for _ in range(1000)]
    assert 250 < sum(map(bool, drawn)) < 350 and {len(texts) for texts in drawn} == {0, 2}
    config = tiny_config(**HARD)
    graph, params = tiny_model(config)
    assert wrong_texts(nnx.merge(graph, params), tiny_batch(config, 8))["wrong_texts"] == 2 - 3 / 8
