"""Places of each kind: on the disk, and in buckets that speak Google's and Amazon's protocols."""

import pytest

from tests import buckets


@pytest.fixture(scope="session")
def gcs(tmp_path_factory):
    """The URL of a server of Google's protocol."""
    with buckets.gcs_server() as url:
        yield url


@pytest.fixture(scope="session")
def s3(tmp_path_factory):
    """The URL of a server of Amazon's protocol."""
    if not buckets.MOTO.exists():
        pytest.skip("no .venv-peers: `make peers` makes it (Python 3.11)")
    with buckets.s3_server() as url:
        yield url


@pytest.fixture(params=["disk", "memory", "gs", pytest.param("s3", marks=pytest.mark.slow)])
def root(request, tmp_path):
    """A folder that is new."""
    name = f"{request.node.name}-{tmp_path.name}".replace("[", "-").replace("]", "")
    if request.param == "disk":
        yield str(tmp_path / "root")
    elif request.param == "memory":
        yield f"memory:///{name}"
    else:
        gs = request.param == "gs"
        url = request.getfixturevalue("gcs" if gs else "s3")
        with buckets.environment((buckets.gcs_environment if gs else buckets.s3_environment)(url)):
            yield f"{request.param}://{buckets.BUCKET}/{name}"
