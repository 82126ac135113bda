"""A store that is busy, resets connections or cuts replies short is asked again; one that refuses is named at once."""

import time

import pytest

from tests import buckets
from tests.faulty_proxy import Faults, faulty_proxy
from vlc.errors import ConfigError, DataError
from vlc.storage import local_copy, place, read_bytes, read_range, write_whole
from vlc.train.loop import check_shared


@pytest.fixture(params=["gs", pytest.param("s3", marks=pytest.mark.slow)])
def faulty(request):
    """A folder in a bucket behind a proxy, and the faults that can be set."""
    gs = request.param == "gs"
    url, faults = request.getfixturevalue("gcs" if gs else "s3"), Faults()
    environment = buckets.gcs_environment if gs else buckets.s3_environment
    name = request.node.name.replace("[", "-").replace("]", "")
    with faulty_proxy(url, faults) as proxy, buckets.environment(environment(proxy)):
        yield f"{request.param}://{buckets.BUCKET}/{name}", faults


DATA = bytes(range(256)) * 400


def used(root):
    """Writes and reads a few objects."""
    for number in range(6):
        write_whole(f"{root}/{number}", DATA + bytes([number]))
    for number in range(6):
        assert read_bytes(f"{root}/{number}") == DATA + bytes([number])
        assert read_range(f"{root}/{number}", 1000, 5000) == DATA[1000:6000]
    assert len(list(place(root).rglob())) == 6 and local_copy(f"{root}/3").read_bytes() == DATA + b"\3"


@pytest.mark.parametrize("kind", ["resets", "short replies", "both"])
def test_what_networks_do_is_not_noticed(faulty, kind):
    root, faults = faulty
    faults.reset_every = 0 if kind == "short replies" else 5
    faults.cut_every = 0 if kind == "resets" else 7
    used(root)
    assert faults.requests > 24


def test_a_busy_store_is_waited_for(faulty):
    root, faults = faulty
    used(root)
    faults.busy_until = time.monotonic() + 3
    assert read_bytes(f"{root}/1") == DATA + b"\1"
    assert time.monotonic() >= faults.busy_until


def test_a_store_that_forbids_is_named_at_once(faulty):
    root, faults = faulty
    faults.forbidden = True
    begun = time.monotonic()
    with pytest.raises(DataError, match="forbids"):
        read_bytes(f"{root}/1")
    with pytest.raises(ConfigError, match=r"forbids.*--workdir"):
        check_shared(place(root), "--workdir")
    assert time.monotonic() - begun < 60  # not as long as what may pass is waited for


def test_a_bucket_that_is_not_there_is_named_at_once(faulty):
    root, _ = faulty
    other = root.replace(buckets.BUCKET, "no-such-bucket")
    with pytest.raises(ConfigError, match=r"no such bucket.*--workdir"):
        check_shared(place(other), "--workdir")
    with pytest.raises(DataError, match="no such bucket"):
        read_bytes(f"{other}/x")
