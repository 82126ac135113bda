"""Every other kind of source gives the same records: ArrayRecord, TFDS, Hugging Face, Parquet, URLs, lists."""

import importlib.util
import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import buckets
from tests.data.damage import picture
from tests.data.test_sources import write_tar
from tests.storage.conftest import gcs  # noqa: F401
from vlc.curate.build import Plan, build
from vlc.curate.join import join_captions
from vlc.data.sources import ArrayRecord, HuggingFace, Mixture, Tfds, WebDataset, open_source
from vlc.data.sources.listed import table_captions
from vlc.errors import ConfigError, DataError
from vlc.evaluate.tasks.labelled import open_labelled
from vlc.storage import place, upload

CAPTIONS = [{"alt": [f"IMG {i}"], "long": [f"A thing {i}. The end."]} for i in range(5)]


def write_folder(folder, name="captions.jsonl"):
    rows = []
    for i in range(5):
        (folder / f"{i}.jpg").write_bytes(picture(i))
        rows.append(
            {"image": f"{i}.jpg", "captions": CAPTIONS[i], "url": f"http://x.y/{i}", "boxes": [[0, 0.25, 0.5, 1]]}
        )
    (folder / name).write_text("\n".join(map(json.dumps, rows)))
    return folder


def same_records(source, keys=True):
    assert len(source) == 5
    for i in range(5):
        record = source[i]
        assert record.image == picture(i)
        assert record.captions == {name: tuple(texts) for name, texts in CAPTIONS[i].items()}
        if keys:
            assert record.key == f"{i}.jpg" and record.extra["url"] == f"http://x.y/{i}"
            assert np.array_equal(record.boxes, np.array([[0, 0.25, 0.5, 1]], np.float32))
    with pytest.raises(IndexError):
        source[5]


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path)


@pytest.fixture
def built(folder):
    build(open_source(str(folder)), Plan("folder", shard_records=2), folder / "built")
    return folder / "built"


def test_array_record_gives_back_what_went_in(built):
    source = open_source(str(built))
    assert isinstance(source, ArrayRecord) and source.lengths == (2, 2, 1)
    same_records(source)
    same_records(pickle.loads(pickle.dumps(source)))
    same_records(open_source(str(built / "*.array_record*")))
    assert len(open_source(str(built / "vlc_data-train.array_record-00000-of-00003"))) == 2


def test_threads_share_the_readers_of_a_dataset_and_a_new_one_is_read_anew(built, folder):
    source = open_source(str(built))
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda i: source[i % 5].image == picture(i % 5), range(4000)))
    (folder / "0.jpg").write_bytes(picture(77))
    build(open_source(str(folder)), Plan("folder", shard_records=2), folder / "again")
    for path in (folder / "again").glob("*.array_record*"):
        path.replace(built / path.name)
    assert open_source(str(built))[0].image == picture(77)


def test_a_cut_array_record_is_said(built):
    path = built / "vlc_data-train.array_record-00001-of-00003"
    path.write_bytes(path.read_bytes()[:70_000])
    with pytest.raises(DataError, match=r"00001-of-00003"):
        source = open_source(str(built))
        [source[i] for i in range(len(source))]


def test_tfds_reads_what_is_built_without_tensorflow(built):
    import sys

    source = Tfds.open(str(built))
    assert len(source) == 5 and source[3].image == picture(3) and source[3].key == "3.jpg"
    assert source[3].captions == {name: tuple(texts) for name, texts in CAPTIONS[3].items()}
    assert len(Tfds.open(str(built), "train[2:4]")) == 2
    assert len(pickle.loads(pickle.dumps(source))) == 5
    assert "tensorflow" not in sys.modules
    for split, said in (
        ("test", r"no split 'test' \(Unknown split.*Its splits: train"),
        ("train[", "no split 'train\\["),
        ("train[4:2]", "no split"),
    ):
        with pytest.raises(DataError, match=said):
            Tfds.open(str(built), split)


def test_a_tfds_dataset_that_cannot_be_read_says_why(built):
    info = built / "dataset_info.json"
    text = info.read_text()
    info.write_text(text.replace("array_record", "tfrecord"))
    with pytest.raises(DataError, match=r"was prepared as tfrecord.*Prepare it again"):
        Tfds.open(str(built))
    info.write_text(text)
    (built / "vlc_data-train.array_record-00001-of-00003").unlink()
    source = Tfds.open(str(built))
    with pytest.raises(DataError, match=r"train\[2\]: cannot be read"):
        source[2]
    for name in ("features.json", "dataset_info.json"):
        (built / name).write_text("{")
        with pytest.raises(DataError, match="its metadata is damaged"):
            Tfds.open(str(built))


def test_a_prepared_tfds_dataset(tmp_path, monkeypatch, gcs):  # noqa: F811
    import tensorflow_datasets as tfds

    class Pets(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                "captions": tfds.features.Sequence({"text": tfds.features.Text()}),
                "label": tfds.features.ClassLabel(names=["cat", "sea_horse"]),
            }
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i in range(4):
                yield (
                    i,
                    {"image": __import__("io").BytesIO(picture(i)), "captions": [{"text": f"pet {i}"}], "label": i % 2},
                )

    Pets(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    source = open_source(str(tmp_path / "pets" / "1.0.0"))
    assert isinstance(source, Tfds) and len(source) == 4
    assert {record.captions["text"][0] for record in (source[i] for i in range(4))} == {f"pet {i}" for i in range(4)}
    said = [source[i].captions["label"][0] for i in range(4)]
    assert set(said) == {"a photo of a cat.", "a photo of a sea horse."}
    labelled = open_labelled(f"tfds:{tmp_path / 'pets' / '1.0.0'}#train")  # for zero-shot classification
    assert [f"a photo of a {labelled.classes[number]}." for number in labelled.labels] == said
    assert labelled.pictures.read(2) == source[2].image
    monkeypatch.setenv("VLC_CACHE", str(tmp_path / "cache"))
    with buckets.environment(buckets.gcs_environment(gcs)):
        upload(tmp_path / "pets", place(f"gs://{buckets.BUCKET}/tfds/pets"))
        monkeypatch.setenv("TFDS_DATA_DIR", f"gs://{buckets.BUCKET}/tfds")
        for name in (f"tfds:gs://{buckets.BUCKET}/tfds/pets/1.0.0#train", "tfds:pets", "tfds:pets:1.0.0#train[:4]"):
            there = open_source(name)
            assert [there[i].image for i in range(4)] == [source[i].image for i in range(4)], name
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nothing"))
    with pytest.raises(DataError, match=r"mnist: not prepared.*download_and_prepare"):
        open_source("tfds:mnist#test")
    with pytest.raises(DataError, match="knows no such dataset"):
        open_source("tfds:nonesuch")


def test_hugging_face_datasets_on_disk(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = {
        "image": [{"bytes": picture(i), "path": f"{i}.jpg"} for i in range(5)],
        "captions": [[f"one {i}", f"two {i}"] for i in range(5)],
        "alt": [f"alt {i}" for i in range(5)],
        "width": [1] * 5,
    }
    features = datasets.Features(
        {"image": datasets.Image(), "captions": datasets.Sequence(datasets.Value("string")),
         "alt": datasets.Value("string"), "width": datasets.Value("int32")}
    )  # fmt: skip
    data = datasets.Dataset.from_dict(rows, features=features)
    data.save_to_disk(str(tmp_path / "one"), num_shards=2)
    datasets.DatasetDict({"train": data, "dev": data.select([3, 1])}).save_to_disk(str(tmp_path / "many"))
    source = open_source(str(tmp_path / "one"))
    assert isinstance(source, HuggingFace) and len(source) == 5
    assert source[4].image == picture(4) and source[4].key == "4.jpg"
    assert source[4].captions == {"text": ("one 4", "two 4"), "alt": ("alt 4",)}
    dev = open_source(str(tmp_path / "many") + "#dev")
    assert [dev[i].captions["alt"][0] for i in range(2)] == ["alt 3", "alt 1"]
    assert len(pickle.loads(pickle.dumps(dev))) == 2 and len(open_source(str(tmp_path / "many"))) == 5
    with pytest.raises(DataError, match=r"no split 'test'. There are: train, dev"):
        open_source(str(tmp_path / "many") + "#test")


def test_parquet_tsv_and_json(tmp_path):
    for i in range(5):
        (tmp_path / f"{i}.jpg").write_bytes(picture(i))
    columns = {"image": [f"{i}.jpg" for i in range(5)], "alt": [f"IMG {i}" for i in range(5)]}
    table = pa.table(columns | {"long": [[f"A thing {i}. The end."] for i in range(5)]})
    pq.write_table(table, tmp_path / "captions.parquet")
    same_records(open_source(str(tmp_path)), keys=False)
    lines = ["image\talt\tlong", *(f"{i}.jpg\tIMG {i}\tA thing {i}. The end." for i in range(5))]
    (tmp_path / "x.tsv").write_text("\n".join(lines))
    same_records(open_source(str(tmp_path / "x.tsv")), keys=False)
    rows = [{"image": f"{i}.jpg", "captions": CAPTIONS[i]} for i in range(5)]
    (tmp_path / "x.json").write_text(json.dumps(rows))
    same_records(open_source(str(tmp_path / "x.json")), keys=False)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not at all")
    with pytest.raises(DataError, match=r"bad.parquet"):
        open_source(str(tmp_path / "bad.parquet"))


def test_urls(folder):
    """A folder and shards behind a URL; `memory://` stands for any store that fsspec knows."""
    store = fsspec.filesystem("memory")
    for path in folder.glob("*"):
        if path.is_file():
            store.pipe(f"/set/{path.name}", path.read_bytes())
    same_records(open_source("memory://set"))
    same_records(open_source("memory://set/captions.jsonl"))
    tar = folder / "s.tar"
    write_tar(tar, {f"{i}.{kind}": data for i in range(5) for kind, data in
                    (("jpg", picture(i)), ("json", json.dumps({"captions": CAPTIONS[i]}).encode()))})  # fmt: skip
    store.pipe("/tars/s-0.tar", tar.read_bytes())
    same_records(open_source("memory://tars/*.tar"), keys=False)
    same_records(open_source(f"file://{tar}"), keys=False)
    with pytest.raises(DataError, match="memory://tars/nothing"):
        open_source("memory://tars/nothing")
    with pytest.raises(DataError, match="nosuch"):
        open_source("nosuch://bucket/captions.jsonl")


@pytest.mark.skipif(importlib.util.find_spec("gcsfs") is not None, reason="gcsfs is installed, and would be used")
def test_a_store_whose_package_is_missing_names_it():
    with pytest.raises(DataError, match="gcsfs"):
        open_source("gs://bucket/captions.jsonl")


def test_lists_and_globs(folder, tmp_path):
    source = open_source(f"{folder}, {folder}/captions.jsonl")
    assert isinstance(source, Mixture) and len(source) == 10 and source[7].image == picture(2)


def test_an_index_is_kept_beside_the_shards_and_made_anew_for_a_changed_one(tmp_path):
    write_tar(tmp_path / "s.tar", {"a.jpg": picture(1), "a.txt": b"one"})
    assert len(open_source(str(tmp_path / "s.tar"))) == 1
    (kept,) = (tmp_path / ".vlc").glob("*.arrow")
    kept.write_bytes(b"damaged")
    assert len(open_source(str(tmp_path / "s.tar"))) == 1
    write_tar(tmp_path / "s.tar", {f"{i}.{s}": d for i in range(30) for s, d in (("jpg", picture(i)), ("txt", b"x"))})
    assert len(open_source(str(tmp_path / "s.tar"))) == 30
    write_tar(tmp_path / "t.tar", {"z.jpg": picture(99), "z.txt": b"y"})
    assert open_source(str(tmp_path / "s.tar"))[0].image == picture(0)
    (tmp_path / "t.tar").replace(tmp_path / "s.tar")
    assert open_source(str(tmp_path / "s.tar"))[0].image == picture(99)


def test_threads_that_open_a_shard_at_once_read_it_whole(tmp_path):
    members = {f"{i}.{s}": d for i in range(40) for s, d in (("jpg", picture(i)), ("txt", b"x"))}
    for shard in range(12):
        write_tar(tmp_path / f"{shard:02d}.tar", members)
    source = WebDataset.open(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda i: source[i].image == picture(i % 40), range(len(source))))


def test_columns_by_name_and_as_told(tmp_path):
    (tmp_path / "a.jpg").write_bytes(picture(0))
    head = "Image Path,raw_caption,shortIB_captions,longSV_captions,url,topic"
    cell = '"[""One."", ""Two.""]"'
    (tmp_path / "captions.csv").write_text(f"{head}\na.jpg,raw text,short one,{cell},http://x,dogs\n")
    source = open_source(str(tmp_path))
    assert table_captions(source.table, 0) == {
        "raw": ("raw text",),
        "shortIB": ("short one",),
        "longSV": ("One.", "Two."),
    }
    told = open_source(str(tmp_path), columns="image=Image Path,mine=url")
    assert table_captions(told.table, 0) == {"mine": ("http://x",)}
    with pytest.raises(ConfigError, match="image=COLUMN"):
        open_source(str(tmp_path), columns="image")
    (tmp_path / "captions.csv").write_text('image,long\na.jpg,"[\'broken"\nb.jpg,"[not, a list]"\nc.jpg,fine\n')
    source = open_source(str(tmp_path))
    assert len(source) == 2 and source.skipped == {"captions": 1}


def test_sharegpt4v_and_dreamlip_are_joined_by_path_or_url(folder):
    turns = [{"from": "human", "value": "<image>\nDescribe."}, {"from": "gpt", "value": "A long answer. It ends."}]
    (folder / "share.json").write_text(json.dumps([{"id": "3", "image": "coco/train/3.jpg", "conversations": turns}]))
    joined = join_captions(open_source(str(folder)), str(folder / "share.json"), folder / "work")
    assert joined[3].captions["long"] == ("A long answer. It ends.",) and joined[3].captions["alt"] == ("IMG 3",)
    assert joined[2].captions == {name: tuple(texts) for name, texts in CAPTIONS[2].items()}
    notes = joined.table.notes
    assert (notes["images with captions"], notes["images without"], notes["rows without image"]) == (1, 4, 0)
    (folder / "lip.csv").write_text("Image Path,raw_caption,longLLA_captions\nhttp://x.y/1,r,A. B. C.\nhttp://z,r,x\n")
    joined = join_captions(open_source(str(folder)), str(folder / "lip.csv"), folder / "work")
    assert joined[1].captions["longLLA"] == ("A. B. C.",) and joined.table.notes["rows without image"] == 1
    rows = [{"image": image, "long": image} for image in ("x/3.jpg", "y/3.jpg", "http://z/2.jpg", "z/4.jpg")]
    (folder / "alike.jsonl").write_text("\n".join(map(json.dumps, rows)))
    joined = join_captions(open_source(str(folder)), str(folder / "alike.jsonl"), folder / "work")
    # 3.jpg could be either's, and 2.jpg of the web is another picture than ours.
    assert [i for i in range(5) if "z/4.jpg" in joined[i].captions["long"]] == [4]
    assert joined.table.notes["images with captions"] == 1
    (folder / "none.csv").write_text("image,caption\nq.jpg,x\n")
    with pytest.raises(DataError, match=r"none of its 1 rows belongs.*'q.jpg'.*'0.jpg'"):
        join_captions(open_source(str(folder)), str(folder / "none.csv"), folder / "work")


def test_captions_joined_to_shards_by_the_url_that_img2dataset_kept(tmp_path):
    info = json.dumps({"url": "http://x.y/7", "caption": "from the web"}).encode()
    write_tar(tmp_path / "0.tar", {"000.jpg": picture(1), "000.txt": b"from the web", "000.json": info})
    (tmp_path / "more.jsonl").write_text(json.dumps({"url": "http://x.y/7", "long_caption": "A. B."}))
    joined = join_captions(open_source(str(tmp_path / "0.tar")), str(tmp_path / "more.jsonl"), tmp_path)
    assert joined[0].captions == {"text": ("from the web",), "long": ("A. B.",)}


def test_many_shards_are_indexed_in_processes_and_a_broken_one_is_counted(tmp_path):
    for shard in range(18):
        write_tar(tmp_path / f"{shard:02d}.tar", {"a.jpg": picture(shard), "a.txt": b"x"})
    (tmp_path / "18.tar").write_bytes(b"no tar at all")
    source = WebDataset.open(tmp_path)
    assert len(source) == 18 and source[17].image == picture(17) and source.skipped == {"shard cut short": 1}
    assert len(list((tmp_path / ".vlc").glob("*.arrow"))) == 19


def test_an_index_that_can_be_kept_nowhere_is_held_in_memory(tmp_path, monkeypatch):
    write_tar(tmp_path / "s.tar", {"a.jpg": picture(1), "a.txt": b"one"})
    (tmp_path / ".vlc").write_text("a file where the folder would be")
    (tmp_path / "cache").write_text("and here")
    monkeypatch.setenv("VLC_CACHE", str(tmp_path / "cache"))
    source = pickle.loads(pickle.dumps(WebDataset.open(tmp_path / "s.tar")))
    assert source[0].captions == {"text": ("one",)}
    monkeypatch.setenv("VLC_CACHE", str(tmp_path / "elsewhere"))
    assert len(WebDataset.open(tmp_path / "s.tar")) == 1 and list((tmp_path / "elsewhere").rglob("*.arrow"))
