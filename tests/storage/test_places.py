"""A place is used alike, whether it is on the disk or in a bucket."""

import os
import shutil
import threading

import pytest

from vlc.errors import ConfigError, DataError, StoreAway
from vlc.storage import (
    Unreachable,
    append_to,
    exists,
    expand_braces,
    find_in,
    is_folder,
    local_copy,
    made_for,
    open_file,
    patience,
    place,
    read_bytes,
    read_range,
    reading,
    version_of,
    write_whole,
)
from vlc.storage.patience import patiently


def test_what_is_written_is_found(root):
    file = place(root) / "a" / "b.txt"
    assert not file.exists() and not exists(root)
    write_whole(file, b"hello world")
    assert file.read_text() == "hello world" and file.is_file() and file.parent.is_dir() and is_folder(root)
    assert read_range(file, 3, 4) == b"lo w" and version_of(file)[0] == 11
    with open_file(file) as opened:
        assert opened.read(5) == b"hello" and opened.seek(-3, os.SEEK_END) == 8 and opened.read() == b"rld"
    assert [path.name for path in place(root).glob("*")] == ["a"] and find_in(f"{root}/a", "*.txt") == [str(file)]
    assert [str(path) for path in place(root).rglob("*.txt")] == [str(file)]
    before = version_of(file)
    write_whole(file, b"other bytes")
    assert version_of(file) != before and read_bytes(file) == b"other bytes"
    with pytest.raises(DataError, match="cut short"):
        read_range(file, 5, 100)
    file.unlink()
    file.unlink(missing_ok=True)
    with pytest.raises(DataError, match=r"b\.txt: cannot be read"):
        read_bytes(file)


def test_folders_are_made_and_copied_as_wholes(root, monkeypatch, tmp_path):
    monkeypatch.setenv("VLC_CACHE", str(tmp_path / "cache"))
    with made_for(f"{root}/out", new=True) as folder:
        write_whole(folder / "below" / "x.bin", b"12")
        write_whole(folder / "top.json", b"{}")
    copy = local_copy(f"{root}/out")
    assert (copy / "below" / "x.bin").read_bytes() == b"12" and (copy / "top.json").read_bytes() == b"{}"
    assert local_copy(f"{root}/out/top.json").read_bytes() == b"{}"
    write_whole(place(root) / "out" / "top.json", b"[1]")
    assert local_copy(f"{root}/out/top.json").read_bytes() == b"[1]"  # not the copy of before
    with made_for(f"{root}/out", first=("top.json",)) as folder:
        assert (folder / "top.json").read_bytes() == b"[1]"


def test_a_folder_in_a_bucket_is_new_or_refused_and_half_of_it_is_never_there(tmp_path):
    with pytest.raises(KeyError), made_for("memory://half") as folder:
        (folder / "x").write_bytes(b"1")
        raise KeyError
    assert not exists("memory://half/x")
    with pytest.raises(KeyError), made_for("memory://half", resumed=True) as folder:
        (folder / "x").write_bytes(b"1")
        raise KeyError
    with made_for("memory://half", resumed=True) as folder:
        assert (folder / "x").read_bytes() == b"1"
    assert not folder.exists()
    with pytest.raises(ConfigError, match="something already"), made_for("memory://half", new=True):
        pass


def test_copies_leave_when_there_are_too_many(monkeypatch, tmp_path):
    monkeypatch.setenv("VLC_CACHE", str(tmp_path))
    monkeypatch.setenv("VLC_CACHE_GIB", str(25 / (1 << 30)))
    for number in range(4):
        write_whole(f"memory:///many/{number}", bytes(10))
        copy = local_copy(f"memory:///many/{number}")
        os.utime(copy, (number, number))
    held = sorted(path.name for path in (tmp_path / "objects").glob("*/*"))
    assert held == ["2", "3"]
    opened = local_copy("memory:///many/3").open("rb")
    for number in range(3):
        local_copy(f"memory:///many/{number}")
    assert opened.read() == bytes(10)
    with pytest.raises(DataError, match="do not fit into the cache"):
        local_copy("memory:///many")
    for number in range(2):
        write_whole(f"memory:///few/{number}", bytes(10))
    old = local_copy("memory:///few")
    os.utime(old.parent, (0, 0))
    for copy in (tmp_path / "objects").glob("*/*"):
        os.utime(copy, (1, 1))
    write_whole("memory:///more", bytes(20))
    local_copy("memory:///more")
    assert not old.exists()  # the links to what is gone take no room


def test_logs_grow(root):
    path = place(root) / "log"
    first = append_to(path)
    first.write(b"one\n")
    first.write(b"two\n")
    first.close()
    more = append_to(path)
    more.write(b"three\n")
    more.close()
    assert path.read_bytes() == b"one\ntwo\nthree\n"
    again = append_to(path, b"one\n")
    again.write(b"2\n")
    again.close()
    assert path.read_bytes() == b"one\n2\n"


def test_a_log_that_cannot_be_written_says_so_and_goes_on(monkeypatch):
    from vlc.storage import appended
    from vlc.storage.place import ObjectPath

    broken = threading.Event()
    broken.set()
    written = []

    def write(self, data):
        if broken.is_set():
            raise OSError(28, "no room", str(self))
        written.append(data)

    monkeypatch.setattr(ObjectPath, "write_bytes", write)
    monkeypatch.setattr(appended, "_EVERY", 0.01)
    log = append_to(place("memory://broken/log"), b"")
    with pytest.raises(OSError, match="no room"):
        for _ in range(1000):
            log.write(b"x")
            threading.Event().wait(0.01)
    broken.clear()
    log.write(b"y")
    log.close()
    assert written[-1].endswith(b"xy")  # what was not heard is not lost


def test_a_copy_that_left_is_made_again(monkeypatch, tmp_path):
    from vlc.curate.build import Plan, build
    from vlc.data.sources import ArrayRecord, Scenes

    monkeypatch.setenv("VLC_CACHE", str(tmp_path))
    build(Scenes(side=16, length=4), Plan("scenes"), "memory:///records")
    source = ArrayRecord.open("memory:///records")
    key = source[1].key
    shutil.rmtree(tmp_path / "objects")
    assert source[1].key == key


def test_braces():
    assert expand_braces("a{08..11}.tar") == ["a08.tar", "a09.tar", "a10.tar", "a11.tar"]
    assert expand_braces("{a,b}/{1..2}") == ["a/1", "a/2", "b/1", "b/2"]
    assert expand_braces("{3..1}x{}") == ["3x{}", "2x{}", "1x{}"] and expand_braces("{x}.tar") == ["{x}.tar"]


class Busy(Exception):
    code = 503


class Forbidden(Exception):
    code = 403


Busy.__module__ = Forbidden.__module__ = "gcsfs.retry"


@pytest.mark.parametrize("error", [Busy("busy"), ConnectionResetError("reset"), TimeoutError(), OSError("cut")])
def test_what_passes_is_asked_again(error, monkeypatch):
    monkeypatch.setattr(patience, "_FIRST", 0.001)
    calls = []

    def ask():
        calls.append(1)
        if len(calls) < 4:
            raise error
        return "answer"

    assert patiently(ask, "gs://b/x") == "answer" and len(calls) == 4
    monkeypatch.setenv("VLC_STORE_PATIENCE", "0.01")
    with pytest.raises(Unreachable):
        patiently(lambda: (_ for _ in ()).throw(error), "gs://b/x")
    with pytest.raises(StoreAway, match="did not answer"), reading("gs://b/x"):
        patiently(lambda: (_ for _ in ()).throw(error), "gs://b/x")


@pytest.mark.parametrize(
    ("error", "said"),
    [(Forbidden("no"), "forbids"), (FileNotFoundError("x"), "no such object"), (PermissionError("x"), "forbids"),
     (OSError("Forbidden: https://x"), "forbids"), (OSError("Unable to locate credentials"), "no credentials")],
)  # fmt: skip
def test_what_does_not_pass_is_said_at_once(error, said):
    calls = []

    def ask():
        calls.append(1)
        raise error

    with pytest.raises(OSError, match=said) as raised:
        patiently(ask, "gs://b/x")
    assert len(calls) == 1 and raised.value.filename == "gs://b/x"


@pytest.mark.parametrize("value", ["much", "-1", "nan"])
def test_numbers_of_the_environment_are_checked(value, monkeypatch):
    monkeypatch.setenv("VLC_STORE_PATIENCE", value)
    with pytest.raises(ConfigError, match=rf'\$VLC_STORE_PATIENCE is "{value}"'):
        patience.patience()
