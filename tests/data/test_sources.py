"""Folders and tar shards: what is read, and what is said when it cannot be."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from vlc.data.sources import Folder, Scenes, WebDataset, open_source
from vlc.data.sources.listed import table_captions
from vlc.errors import DataError


def jpeg(shade: int = 120, size=(40, 30)) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((size[1], size[0], 3), shade, np.uint8)).save(buffer, format="jpeg")
    return buffer.getvalue()


def write_tar(path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_folder_with_jsonl(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    rows = [
        {"image": "a.jpg", "caption": "one"},
        {"file_name": "b.jpg", "captions": ["two", " three  words "]},
        {"image": "c.jpg", "captions": {"alt": ["x"], "long": ["y"]}},
        {"image": "a.jpg", "caption": "again"},
    ]
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    source = open_source(str(tmp_path))
    assert isinstance(source, Folder) and len(source) == 3
    assert source[0].captions == {"text": ("one", "again")} and source[0].image == jpeg()
    assert table_captions(source.table, 1) == {"text": ("two", "three words")}
    assert table_captions(source.table, 2) == {"alt": ("x",), "long": ("y",)}
    with pytest.raises(DataError, match=r"b.jpg: cannot be read"):
        source[1]


def test_folder_with_csv(tmp_path):
    (tmp_path / "captions.csv").write_text('\ufeffimage,caption,long\na.jpg,"one, two",a long one\na.jpg,three,\n')
    source = open_source(str(tmp_path / "captions.csv"))
    assert len(source) == 1 and source.table.get("image", 0) == "a.jpg"
    assert table_captions(source.table, 0) == {"text": ("one, two", "three"), "long": ("a long one",)}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"image": "a.jpg", "captions": "A dog."}', "one string, but a list"),
        ('{"image": "a.jpg", "caption": 5}', "must be a list of strings"),
        ('{"image": "a.jpg"}', "no caption"),
        ('{"caption": "A dog."}', "no image"),
        ('{"image": "a.jpg", "caption', "not valid JSON"),
        ("[1]", "expected an object"),
        ("", "holds no image"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, line, said):
    (tmp_path / "captions.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match=said) as error:
        open_source(str(tmp_path))
    assert "captions.jsonl" in str(error.value)


def test_webdataset(tmp_path):
    write_tar(tmp_path / "s-0.tar", {"a.jpg": jpeg(1), "a.txt": b"from text", "b.png": jpeg(2), "b.JSON": b"{}"})
    write_tar(
        tmp_path / "s-1.tar",
        {
            "dir/c.jpg": jpeg(3),
            "dir/c.json": json.dumps({"captions": ["one", "two"]}).encode(),
            "d.webp": jpeg(4),
            "e.txt": b"no image",
        },
    )
    source = open_source(str(tmp_path))
    assert isinstance(source, WebDataset) and len(source) == 3
    assert [source.names(i)[0] for i in range(3)] == ["a", "b", "dir/c"]
    assert source.skipped == {"without caption": 1, "without image": 1}
    assert source[0].captions == {"text": ("from text",)} and source[0].image == jpeg(1)
    assert source[2].captions == {"text": ("one", "two")} and source[2].image == jpeg(3)
    with pytest.raises(DataError, match="no caption"):
        source[1]
    assert len(open_source(str(tmp_path / "s-1.tar"))) == 1
    assert len(open_source(str(tmp_path / "s-*.tar"))) == 3


def test_a_shard_cut_short_keeps_its_whole_samples(tmp_path):
    members = {f"{i}.{kind}": jpeg(i) if kind == "jpg" else b"x" for i in range(20) for kind in ("jpg", "txt")}
    write_tar(tmp_path / "s.tar", members)
    data = (tmp_path / "s.tar").read_bytes()
    (tmp_path / "s.tar").write_bytes(data[: len(data) // 2])
    source = WebDataset.open(tmp_path / "s.tar")
    assert 5 < len(source) < 20 and source.skipped["shard cut short"] == 1
    assert all(source[i].image == jpeg(i) for i in range(len(source)))


@pytest.mark.parametrize(
    ("spec", "said"),
    [("", "No data was named"), ("/nowhere/at/all", "no such file"), ("/nowhere/*.tar", "no tar shard")],
)
def test_missing_data_is_said_plainly(spec, said):
    with pytest.raises(DataError, match=said):
        open_source(spec)


def test_an_empty_folder_says_what_it_needs(tmp_path):
    with pytest.raises(DataError, match=r"no captions file in this folder"):
        open_source(str(tmp_path))
    write_tar(tmp_path / "s.tar", {})
    with pytest.raises(DataError, match="no image with a txt or json"):
        open_source(str(tmp_path))


def test_scenes_by_name():
    assert open_source("scenes", side=32) == Scenes(side=32)
