"""What is asked for before it is needed, what is copied while it is read, and indices that hosts share."""

import time
from pathlib import Path

import pytest

from benchmarks.kills import shards_in
from tests import buckets
from tests.faulty_proxy import Faults, faulty_proxy
from tests.storage.test_faults import DATA
from vlc.data.record import coming
from vlc.data.sources import open_source
from vlc.errors import DataError
from vlc.storage import ObjectPath, ahead, files, keep_near, nearest, place, read_ahead, read_range, write_whole


@pytest.fixture
def store(gcs, request):
    """A folder in a bucket, and the proxy's faults and count."""
    faults = Faults()
    with faulty_proxy(gcs, faults) as proxy, buckets.environment(buckets.gcs_environment(proxy)):
        yield f"gs://{buckets.BUCKET}/{request.node.name}", faults


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache with room for nothing."""
    monkeypatch.setenv("VLC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VLC_CACHE_GIB", "0")


def test_ranges_are_asked_for_together(store):
    root, faults = store
    write_whole(f"{root}/x", DATA)
    read_range(f"{root}/x", 0, 1)  # connected
    before = faults.requests
    read_ahead([(f"{root}/x", start, 100) for start in range(0, 3000, 100)])
    read_ahead([(f"{root}/x", 0, 100)])  # is coming already
    while faults.requests < before + 30:  # nobody reads yet
        time.sleep(0.01)
    assert all(read_range(f"{root}/x", start, 100) == DATA[start : start + 100] for start in range(0, 3000, 100))
    assert faults.requests == before + 30
    assert read_range(f"{root}/x", 0, 100) == DATA[:100]  # once more: asked again


@pytest.mark.slow
def test_what_did_not_come_is_asked_for_again(store):
    root, faults = store
    write_whole(f"{root}/x", DATA)
    faults.reset_every, faults.cut_every = 3, 4
    wanted = [(f"{root}/x", start, 500) for start in range(0, 20_000, 500)]
    read_ahead(wanted)
    assert all(read_range(*one) == DATA[one[1] : one[1] + 500] for one in wanted)
    read_ahead([(f"{root}/none", 0, 10), (f"{root}/x", len(DATA) - 5, 10)])
    faults.reset_every = faults.cut_every = 0
    with pytest.raises(DataError, match="no such object"):
        read_range(f"{root}/none", 0, 10)
    with pytest.raises(DataError, match="ends before"):
        read_range(f"{root}/x", len(DATA) - 5, 10)


def test_what_nobody_reads_leaves(monkeypatch):
    monkeypatch.setattr(ahead, "_MOST", 50)
    monkeypatch.setattr(files, "AHEAD", ahead.Ahead())
    write_whole("memory://leaves/x", DATA)
    for start in range(0, 100, 5):
        read_ahead([("memory://leaves/x", start, 5)])
    assert len(files.AHEAD._replies) == 10 and files.AHEAD._bytes == 50
    assert read_range("memory://leaves/x", 95, 5) == DATA[95:100] and files.AHEAD._bytes == 45
    assert read_range("memory://leaves/x", 0, 5) == DATA[:5] and files.AHEAD._bytes == 45


def test_files_on_the_disk_are_not_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "AHEAD", None)
    read_ahead([(str(tmp_path / "x"), 0, 5)])


def test_files_that_fit_are_copied_while_they_are_read(store, tmp_path, monkeypatch):
    root, _ = store
    monkeypatch.setenv("VLC_CACHE", str(tmp_path / "cache"))
    paths = [f"{root}/{number}" for number in range(3)]
    for path in paths:
        write_whole(path, DATA)
    copies = keep_near(paths)
    assert all(nearest(path, copy) in (path, copy) for path, copy in zip(paths, copies, strict=True))
    for copy in copies:
        while not Path(copy).exists():
            time.sleep(0.01)
        assert Path(copy).read_bytes() == DATA
    assert [nearest(path, copy) for path, copy in zip(paths, copies, strict=True)] == list(copies)
    with monkeypatch.context() as full:
        full.setattr("shutil.disk_usage", lambda path: (0, 0, 3 * len(DATA)))
        assert keep_near(paths) == tuple(paths)  # the disk would be all but full
    monkeypatch.setenv("VLC_CACHE_GIB", str(2.5 * len(DATA) / 2**30))
    assert keep_near(paths) == tuple(paths)  # no room for three
    here = [str(tmp_path / "here")]
    assert keep_near(here) == tuple(here) and nearest(here[0], here[0]) == here[0]


def records(source):
    found = [source[index] for index in coming(source, range(len(source)))]
    return [(record.key, record.image, record.captions) for record in found]


@pytest.mark.slow
def test_shards_are_the_same_near_and_far(store, cache, tmp_path, monkeypatch):
    root, faults = store
    here = open_source(shards_in(tmp_path / "here"))
    far = open_source(shards_in(place(root)))
    assert far.prefetches and not here.prefetches
    before = faults.requests
    assert records(far) == records(here) and faults.requests - before <= len(far) + 5
    captions = [far.captions(index) for index in coming(far, range(len(far)), images=False)]
    assert captions == [here.captions(index) for index in range(len(here))]
    monkeypatch.setenv("VLC_CACHE_GIB", "1")
    near = open_source(shards_in(place(root)))
    while near.prefetches:
        time.sleep(0.01)
    before = faults.requests
    assert records(near) == records(here) and faults.requests == before
    monkeypatch.setattr("vlc.data.sources.webdataset.nearest", lambda path, copy: f"{copy}-that-has-left")
    assert near[3].image == here[3].image


@pytest.mark.slow
def test_another_host_finds_the_index(store, cache, tmp_path, monkeypatch):
    """It is made once; a bucket that one may not write to has it made by each."""
    root, _ = store
    pattern = shards_in(place(root))
    first = records(open_source(pattern))
    assert len(list((place(root) / ".vlc").glob("*.arrow"))) == 2
    monkeypatch.setenv("VLC_CACHE", str(tmp_path / "another host"))
    with monkeypatch.context() as patched:
        patched.setattr("vlc.data.sources.webdataset.index_shard", None)  # is not called
        assert records(open_source(pattern)) == first
    for path in list((place(root) / ".vlc").glob("*.arrow")):
        path.write_bytes(b"damaged")
    monkeypatch.setenv("VLC_CACHE", str(tmp_path / "a third"))
    assert records(open_source(pattern)) == first


def test_a_bucket_that_may_not_be_looked_into_can_be_read(store, cache, monkeypatch):
    """Whether an index is there is then forbidden to ask: it is made here."""
    root, _ = store
    pattern = shards_in(place(root))
    looked = ObjectPath.exists

    def forbidden(self):
        if self.suffix == ".arrow":
            raise DataError("forbidden")
        return looked(self)

    monkeypatch.setattr(ObjectPath, "exists", forbidden)
    assert len(open_source(pattern)) == 128
