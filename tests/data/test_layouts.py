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


def folder_of(tmp_path, name, text, encoding="utf-8"):
    write_images(tmp_path)
    (tmp_path / name).write_bytes(text.encode(encoding))
    return open_source(str(tmp_path))


def test_surplus_cells_are_counted_not_cut_off(tmp_path):
    source = folder_of(tmp_path, "captions.csv", "image,caption\n0.jpg,a dog, running on grass\n1.jpg,two boats\n")
    assert texts(source) == [("two boats",)] and source.skipped == {"row": 1}
    assert "has 1 more cell than the header. A caption that holds ','" in source.problems[0]


def test_a_quote_in_a_tsv_is_a_letter(tmp_path):
    rows = 'image\tcaption\n0.jpg\t"Hello" says a cat\n1.jpg\t"a 5"" screen"\n2.jpg\t"open\n'
    assert texts(folder_of(tmp_path, "captions.tsv", rows)) == [('"Hello" says a cat',), ('a 5" screen',), ('"open',)]


def test_two_columns_of_one_name_are_refused(tmp_path):
    with pytest.raises(DataError, match="two of its columns are called 'caption'"):
        folder_of(tmp_path, "captions.csv", "image,caption,caption\n0.jpg,a,b\n")


@pytest.mark.parametrize("wrong", ["neg_caption", "wrong_caption", "false_captions", "foil_caption", "hard_captions"])
def test_what_is_not_true_of_an_image_is_no_caption(wrong, tmp_path):
    rows = f"image\tcaption\t{wrong}\n" + "".join(f"{name}\t{text}\tnot {text}\n" for name, text in ROWS)
    assert texts(folder_of(tmp_path, "captions.tsv", rows)) == WHOLE


def test_a_column_that_is_guessed_is_said(tmp_path, caplog):
    folder_of(tmp_path, "captions.csv", "image,caption,qwenguess_caption\n0.jpg,a,b\n")
    assert 'The column "qwenguess_caption" is taken for captions, as the source "qwenguess"' in caplog.text


@pytest.mark.parametrize("form", ["lines", "utf-16 lines", "utf-16 csv", "lists"])
def test_forms_of_other_tools_are_read(form, tmp_path):
    lines = "".join(json.dumps({"image": name, "caption": text}) + "\n" for name, text in ROWS)
    table = "image,caption\n" + "".join(f'{name},"{text}"\n' for name, text in ROWS)
    lists = json.dumps([{"image": name, "caption": [text]} for name, text in ROWS])  # BLIP's
    name, text, encoding = {
        "lines": ("captions.json", lines, "utf-8"),
        "utf-16 lines": ("captions.jsonl", lines, "utf-16"),
        "utf-16 csv": ("captions.csv", table, "utf-16"),
        "lists": ("captions.json", lists, "utf-8"),
    }[form]
    assert texts(folder_of(tmp_path, name, text, encoding)) == WHOLE


@pytest.mark.parametrize("form", ["struct", "bytes"])
def test_images_within_parquet_are_told_apart(form, tmp_path):
    image = jpeg() if form == "bytes" else {"bytes": jpeg(), "path": "0.jpg"}
    pq.write_table(pa.table({"image": [image], "caption": ["a cat"]}), tmp_path / "captions.parquet")
    with pytest.raises(DataError, match=r"holds the images themselves \(column 'image'\).*save_to_disk"):
        open_source(str(tmp_path))


def test_a_null_among_captions_costs_itself_alone(tmp_path):
    rows = [{"image": "0.jpg", "captions": ["a", None, "b"], "boxes": [[0, 0, 1.0000002, 1]]},
            {"image": "1.jpg", "captions": {"alt": [None], "long": ["c"]}}]  # fmt: skip
    source = folder_of(tmp_path, "captions.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert texts(source) == [("a", "b"), ("c",)] and not source.skipped and source[0].boxes.max() == 1


def test_halves_of_a_letter_are_mended(tmp_path, capsys):
    """`\\ud83d` alone is in JSON of many crawls; it can be written nowhere."""
    lines = '{"image": "0.jpg", "caption": "a dog \\ud83d"}\n{"image": "1.jpg", "caption": "a cat \\ud83d\\ude00"}\n'
    source = folder_of(tmp_path, "captions.jsonl", lines)
    assert texts(source) == [("a dog \ufffd",), ("a cat \U0001f600",)]
    assert main(["data", "stats", str(tmp_path), "--out", str(tmp_path / "s.png")]) == 0
    assert main(["data", "build", str(tmp_path), "--out", str(tmp_path / "built")]) == 0
    built = open_source(str(tmp_path / "built"))
    assert {record.all_captions() for record in map(built.__getitem__, range(2))} == set(texts(source))


def tar_of(path, *members):
    with tarfile.open(path, "w") as archive:
        for name, data, *link in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if link:
                info.type, info.linkname = tarfile.LNKTYPE, link[0]
            archive.addfile(info, io.BytesIO(data))
    return open_source(str(path))


def test_a_mask_beside_an_image_is_not_taken_for_it(tmp_path):
    image, mask = jpeg(200), jpeg(0)
    for order in (1, -1):
        members = [("0.jpg", image), ("0.png", mask)][::order]
        source = tar_of(tmp_path / f"{order}.tar", *members, ("0.txt", b"a cat"))
        assert source[0].image == image and source.skipped == {"second image": 1}
    (tmp_path / "f").mkdir()
    for name, data in (("0.jpg", image), ("0.png", mask), ("0.txt", b"a cat")):
        (tmp_path / "f" / name).write_bytes(data)
    source = open_source(str(tmp_path / "f"))
    assert source[0].image == image and source.skipped == {"second image": 1}


def test_members_that_people_have(tmp_path):
    """What macOS adds is passed over; other suffixes, hard links and names that are no Unicode are read."""
    source = tar_of(
        tmp_path / "a.tar", ("._0.jpg", b"Mac OS X"), ("0.jpg", jpeg(1)), ("0.txt", b"zero"),
        ("1.avif", b"x"), ("1.txt", b"one"), ("2.jpg", b"", "0.jpg"), ("2.txt", b"two"),
        ("caf\udce9.JFIF", jpeg(3)), ("caf\udce9.txt", b"three"),
    )  # fmt: skip
    assert [source.names(i)[0] for i in range(len(source))] == ["0", "1", "2", "caf\ufffd"]
    assert source[2].image == source[0].image and not source.skipped


@pytest.mark.parametrize("name", ["data[1]", "a,b", "what#1", "a#b,c[2]"])
def test_a_path_that_exists_is_that_path(name, tmp_path):
    folder = tmp_path / name
    folder.mkdir()
    tar_of(tmp_path / "x.tar", ("0.jpg", jpeg()), ("0.txt", b"zero"))
    (tmp_path / "x.tar").rename(folder / "x.tar")
    assert len(open_source(str(folder))) == len(open_source(str(folder / "x.tar"))) == 1


def test_rows_of_one_image_are_put_together_wherever_they_stand(tmp_path):
    rows = "".join(f"{name},{word}\n" for word in ("first", "second", "third") for name, _ in ROWS)
    assert texts(folder_of(tmp_path, "captions.csv", f"image,caption\n{rows}")) == [("first", "second", "third")] * 3


def test_the_first_answer_of_a_conversation_is_the_caption(tmp_path):
    turns = [("human", "Describe."), ("gpt", "A red car."), ("human", "Which colour?"), ("gpt", "Red")]
    row = {"image": "0.jpg", "conversations": [{"from": who, "value": what} for who, what in turns]}
    assert texts(folder_of(tmp_path, "captions.jsonl", json.dumps(row)))[0] == ("A red car.",)
