"""Folders and shards in the layouts that people have them in: found from the folder alone, or refused with the cure."""

import bz2
import gzip
import io
import json
import lzma
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.test_sources import jpeg
from vlc.cli import main
from vlc.data.record import describe_skipped
from vlc.data.sources import SideFiles, open_source
from vlc.errors import ConfigError, DataError

ROWS = [("0.jpg", "a grey cat"), ("1.jpg", "two boats; one, red"), ("2.jpg", "a street at night")]


def write_images(folder, below=""):
    (folder / below).mkdir(parents=True, exist_ok=True)
    for shade, (name, _) in enumerate(ROWS):
        (folder / below / name).write_bytes(jpeg(40 * shade))


def texts(source):
    """The captions of each record, which must be those that are told without reading its image."""
    found = []
    for index in range(len(source)):
        record = source[index]
        assert source.captions(index) == record.captions and source.names(index)[0] == record.key
        found.append(record.all_captions())
    return found


WHOLE = [(caption,) for _, caption in ROWS]


@pytest.mark.parametrize("name", ["captions.csv", "captions.tsv"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("head", ["filepath{}title", "image{}caption", "file_name{}text"])
def test_what_separates_columns_is_found_from_the_header(name, delimiter, head, tmp_path):
    write_images(tmp_path)
    lines = [head.format(delimiter), *(f'{image}{delimiter}"{caption}"' for image, caption in ROWS)]
    (tmp_path / name).write_text("\n".join(lines) + "\n")
    assert texts(open_source(str(tmp_path))) == WHOLE


def test_a_file_without_a_header_is_shown_and_can_be_counted(tmp_path):
    write_images(tmp_path)
    (tmp_path / "captions.csv").write_text("".join(f'{image},"{caption}"\n' for image, caption in ROWS))
    with pytest.raises(DataError, match=r"has no header; its first line is '0.jpg,\"a grey cat\"'.*--columns image=1"):
        open_source(str(tmp_path))
    assert texts(open_source(str(tmp_path), columns="image=1,text=2")) == WHOLE


def test_a_header_that_names_neither_says_what_it_names(tmp_path):
    (tmp_path / "captions.csv").write_text("picture;words\n0.jpg;a cat\n")
    with pytest.raises(DataError, match=r"no column of image or of captions is named; its header is picture, words"):
        open_source(str(tmp_path))
    (tmp_path / "captions.csv").write_text("image,words\n0.jpg,a cat\n")
    with pytest.raises(DataError, match=r"no column of captions is named; its header is image, words"):
        open_source(str(tmp_path))
    table = pa.table({"picture": ["0.jpg"], "caption": ["a cat"]})
    pq.write_table(table, tmp_path / "other.parquet")
    with pytest.raises(DataError, match=r"no column of image is named; it has picture, caption"):
        open_source(str(tmp_path / "other.parquet"))


def test_rows_in_another_encoding_are_counted_and_can_be_read(tmp_path, capsys):
    write_images(tmp_path)
    (tmp_path / "captions.csv").write_bytes("image,caption\n0.jpg,café\n1.jpg,naïve\n2.jpg,plain\n".encode("latin-1"))
    source = open_source(str(tmp_path))
    assert texts(source) == [("plain",)]
    count, first = describe_skipped(source)
    assert count == "2 left out: not UTF-8" and "captions.csv:2" in first
    assert texts(open_source(str(tmp_path), columns="encoding=latin-1")) == [("café",), ("naïve",), ("plain",)]
    with pytest.raises(ConfigError, match='The encoding "latin-99" is not known'):
        open_source(str(tmp_path), columns="encoding=latin-99")
    for more, said in (
        ([], "1 of 3 records can be used\n  2 left out: not UTF-8"),
        (["--encoding", "cp1252"], "3 of 3"),
    ):
        assert main(["data", "stats", str(tmp_path), "--out", str(tmp_path / "stats.png"), *more]) == 0
        assert said in capsys.readouterr().out
    assert main(["data", "show", str(tmp_path), "--count", "2", "--out", str(tmp_path / "show.png")]) == 0
    assert "2 left out: not UTF-8" in capsys.readouterr().out


@pytest.mark.parametrize("column", ["text", "additional_feature"])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("split", ["", "train"])
def test_hugging_faces_image_folder(split, kind, column, tmp_path):
    write_images(tmp_path, split)
    path = tmp_path / split / f"metadata.{kind}"
    if kind == "csv":
        path.write_text(f"file_name,{column}\n" + "".join(f'{image},"{caption}"\n' for image, caption in ROWS))
    elif kind == "jsonl":
        path.write_text("".join(json.dumps({"file_name": a, column: b}) + "\n" for a, b in ROWS))
    else:
        pq.write_table(pa.table({"file_name": [a for a, _ in ROWS], column: [b for _, b in ROWS]}), path)
    assert texts(open_source(str(tmp_path))) == WHOLE


def test_a_folder_may_have_a_colon_in_its_name(tmp_path):
    write_images(tmp_path / "at 12:30")
    (tmp_path / "at 12:30" / "captions.csv").write_text("image,caption\n0.jpg,a grey cat\n")
    assert texts(open_source(str(tmp_path / "at 12:30"))) == WHOLE[:1]


def test_flickr8k_as_kaggle_has_it(tmp_path):
    write_images(tmp_path, "Images")
    (tmp_path / "captions.txt").write_text("image,caption\n0.jpg,first a\n0.jpg,first b\n1.jpg,second\n2.jpg,third\n")
    assert texts(open_source(str(tmp_path))) == [("first a", "first b"), ("second",), ("third",)]


@pytest.mark.parametrize("name, images", [("Flickr8k.token.txt", "Flicker8k_Dataset"), ("results_20130124.token", "")])
def test_flickrs_own_token_files(name, images, tmp_path):
    write_images(tmp_path, images)
    lines = [f"{image}#{k}\t{caption} {k}" for image, caption in ROWS for k in range(2)]
    (tmp_path / name).write_text("\n".join([*lines, "a line of another kind"]) + "\n")
    source = open_source(str(tmp_path))
    assert texts(source) == [(f"{caption} 0", f"{caption} 1") for _, caption in ROWS]
    assert source.skipped == {"row": 1}


def test_coco_in_its_folder(tmp_path):
    write_images(tmp_path, "val2017")
    annotations = {
        "images": [{"id": i, "file_name": name} for i, (name, _) in enumerate(ROWS)],
        "annotations": [{"image_id": j % 3, "caption": f"caption {j}"} for j in range(6)],
    }
    (tmp_path / "captions_val2017.json").write_text(json.dumps(annotations))
    assert texts(open_source(str(tmp_path))) == [(f"caption {i}", f"caption {i + 3}") for i in range(3)]
    (tmp_path / "captions_train2017.json").write_text(json.dumps(annotations))
    with pytest.raises(DataError, match=r"several annotation files. Name one: captions_train2017.json, captions_val"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("suffix", [".txt", ".caption", ".json"])
@pytest.mark.parametrize("below", ["", "10_cats"])
def test_images_with_a_text_file_each(suffix, below, tmp_path):
    write_images(tmp_path, below)
    for name, caption in ROWS:
        written = json.dumps({"caption": caption}) if suffix == ".json" else f"{caption}\n"
        (tmp_path / below / name).with_suffix(suffix).write_text(written)
    (tmp_path / below / "alone.png").write_bytes(jpeg())
    source = open_source(str(tmp_path))
    assert isinstance(source, SideFiles) and texts(source) == WHOLE
    assert describe_skipped(source)[0] == "1 left out: without caption"
    for path in tmp_path.rglob(f"*{suffix}"):
        path.unlink()
    with pytest.raises(DataError, match="none of its 4 images has a text file of its name"):
        open_source(str(tmp_path))


def write_tar(path, members, mode="w"):
    with tarfile.open(path, mode) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def members_of(pattern, image="jpg", text="txt"):
    pairs = ((pattern.format(i), caption) for i, (_, caption) in enumerate(ROWS))
    return [one for key, caption in pairs for one in ((f"{key}.{image}", jpeg()), (f"{key}.{text}", caption.encode()))]


@pytest.mark.parametrize(
    "pattern, image, text, rule",
    [
        ("s{}", "input.jpg", "outputs.txt", "first dot"),
        ("folder.v1/s{}", "input.png", "outputs.txt", "first dot"),
        ("Track {}.05 (Clean)", "jpg", "txt", "last dot"),
        ("a/b.c/{}", "jpg", "txt", "last dot"),
    ],
)
def test_members_are_paired_by_the_rule_that_pairs_them(pattern, image, text, rule, tmp_path, caplog):
    write_tar(tmp_path / "a.tar", members_of(pattern, image, text))
    source = open_source(str(tmp_path))
    assert texts(source) == WHOLE and source.tables[0].notes["pairing"] == rule
    assert ("before the first dot" in caplog.text) == (rule == "first dot")


@pytest.mark.parametrize("named", ["a.tar", "a.tar.{}"])
@pytest.mark.parametrize(
    "kind, pack, command",
    [("gz", gzip.compress, "gunzip"), ("bz2", bz2.compress, "bunzip2"), ("xz", lzma.compress, "unxz")],
)
def test_a_compressed_tar_is_told_how_to_be_unpacked(named, kind, pack, command, tmp_path):
    write_tar(tmp_path / "plain", members_of("{}"))
    path = tmp_path / named.format(kind)
    path.write_bytes(pack((tmp_path / "plain").read_bytes()))
    for spec in (str(path), str(tmp_path)):
        with pytest.raises(DataError, match=rf"is compressed.*plain tar.*{command} < .*{path.name} > NAME.tar"):
            open_source(spec)


def test_members_that_come_twice_are_counted_and_the_later_stays(tmp_path):
    twice = [("0.jpg", jpeg(10)), ("0.jpg", jpeg(20)), ("0.txt", b"one"), ("1.jpg", jpeg(30)), ("1.txt", b"two")]
    write_tar(tmp_path / "a.tar", twice)
    source = open_source(str(tmp_path))
    assert source[0].image == jpeg(20) and len(source) == 2 and source.skipped == {"member twice": 1}


def test_samples_without_a_usable_caption_are_counted(tmp_path, capsys):
    captions = ("fine", None, float("nan"))
    pairs = ((f"{i}.jpg", jpeg(), f"{i}.json", json.dumps({"caption": one}).encode()) for i, one in enumerate(captions))
    write_tar(tmp_path / "a.tar", [member for a, b, c, d in pairs for member in ((a, b), (c, d))])
    assert main(["data", "stats", str(tmp_path / "a.tar"), "--out", str(tmp_path / "stats.png")]) == 0
    assert "1 of 3 records can be used\n  2 left out: no caption" in capsys.readouterr().out
