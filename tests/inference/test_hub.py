"""Models on the hub, against a stand-in server: loaded, pinned, private, pushed; what cannot be is one line."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import vlc
from tests.conftest import ROOT
from tests.hub_server import TOKEN, Hub, hub_server
from tests.inference.test_model import model_of
from vlc.cli import main
from vlc.errors import CheckpointError, ConfigError
from vlc.interop.native import write_native
from vlc.storage import from_hub, push_to_hub
from vlc.storage.hub import HubName, read_hub_name


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with nothing on it, and an empty cache; nobody is logged in."""
    import huggingface_hub.constants as constants

    made = Hub()
    with hub_server(made) as url:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setenv("HF_TEST_URL", url)
        yield made


@pytest.fixture
def folder(tokenizer, tmp_path):
    write_native(model_of(tokenizer).as_imported(), tmp_path / "model")
    return tmp_path / "model"


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def embedding(path):
    return vlc.load(path).encode_text(["a red circle"]).embed


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("hf://org/a.b-c", HubName("org/a.b-c", None, "")),
        ("hf://org/name@v1.0/", HubName("org/name", "v1.0", "")),
        ("hf://org/name@refs%2Fpr%2F1/part/b16.npz", HubName("org/name", "refs/pr/1", "part/b16.npz")),
    ],
)
def test_names(path, parts):
    assert read_hub_name(path) == parts


@pytest.mark.parametrize("path", ["hf://name", "hf://", "hf://org/na me", "hf://org/name@"])
def test_names_that_are_none(path):
    with pytest.raises(CheckpointError, match="write hf://ORG/NAME"):
        read_hub_name(path)


def test_a_model_is_loaded_once_and_then_from_the_cache(hub, folder):
    sha = hub.commit("org/clip", {**files_of(folder), "pytorch_model.bin": b"pickled", "README.md": b"#"})
    first = embedding("hf://org/clip")
    assert np.array_equal(first, embedding(folder))
    assert any("model.safetensors" in asked for asked in hub.asked) and not any(
        "pytorch" in asked for asked in hub.asked
    )
    hub.asked.clear()
    assert np.array_equal(first, embedding(f"hf://org/clip@{sha}")) and not hub.asked
    hub.down = True
    assert np.array_equal(first, embedding(f"hf://org/clip@{sha}"))
    assert vlc.load(f"hf://org/clip@{sha}").path == f"hf://org/clip@{sha}"


def test_revisions_and_folders(hub, folder, tokenizer, tmp_path):
    hub.commit("org/clip", files_of(folder))
    other = model_of(tokenizer, model__init_logit_scale=5.0)
    write_native(other.as_imported(), tmp_path / "other")
    hub.commit("org/clip", files_of(tmp_path / "other"), "v2")
    hub.commit("org/many", {f"inner/{name}": data for name, data in files_of(folder).items()})
    scales = [vlc.load(f"hf://org/{name}").scales.logit_scale for name in ("clip", "clip@v2", "many/inner")]
    assert scales[1] == pytest.approx(5.0) and scales[0] == scales[2] != scales[1]


def test_what_cannot_be_loaded_is_said(hub, folder, monkeypatch):
    hub.commit("org/clip", files_of(folder))
    for path, said in (
        ("hf://org/none", "no such model, or it is private"),
        ("hf://org/clip@v9", "not this revision"),
        ("hf://org/clip/inner", "nothing called inner"),
    ):
        with pytest.raises(CheckpointError, match=said):
            vlc.load(path)
    hub.private.add("org/clip")
    with pytest.raises(CheckpointError, match="needs a token"):
        vlc.load("hf://org/clip")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.gated.add("org/clip")
    with pytest.raises(CheckpointError, match="terms must be accepted"):
        vlc.load("hf://org/clip")
    hub.gated.clear()
    assert vlc.load("hf://org/clip")


def test_pickled_weights_are_not_asked_for(hub):
    hub.commit("org/old", {"config.json": b'{"model_type": "clip"}', "pytorch_model.bin": b"pickled"})
    assert [path.name for path in Path(from_hub("hf://org/old")).iterdir()] == ["config.json"]


def test_a_model_is_pushed_and_loaded_again(hub, folder, tmp_path, monkeypatch, capsys):
    assert main(["export", str(folder), "--format", "safetensors", "--push", "hf://org/new"]) == 2
    assert "the token may not" in capsys.readouterr().err
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert main(["export", str(folder), "--format", "safetensors", "--push", "hf://org/new", "--private"]) == 0
    assert "/org/new/commit/" in capsys.readouterr().out and "org/new" in hub.private
    assert np.array_equal(embedding("hf://org/new"), embedding(folder))
    branch = ["--out", str(tmp_path / "out"), "--push", "hf://org/new@v2"]
    assert main(["export", str(folder), "--format", "safetensors", *branch]) == 0
    assert (tmp_path / "out" / "vlc.json").is_file() and set(hub.commits["org/new"]) >= {"main", "v2"}
    assert np.array_equal(embedding("hf://org/new@v2"), embedding(folder))


def test_where_a_model_goes_must_be_named(folder, capsys):
    assert main(["export", str(folder), "--format", "safetensors"]) == 2
    assert "--push hf://ORG/NAME" in capsys.readouterr().err


def test_only_models_go_to_the_hub(folder, capsys):
    assert main(["export", str(folder), "--format", "safetensors", "--out", "hf://org/name"]) == 2
    assert "the hub takes models" in capsys.readouterr().err
    from vlc.config import default_config
    from vlc.train.loop import train

    with pytest.raises(ConfigError, match="--workdir is a folder"):
        train(default_config(), "hf://org/run")


def test_a_hub_that_is_down_is_said(hub, folder, monkeypatch):
    hub.down = True
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    with pytest.raises(CheckpointError, match=r"cannot be reached|does not answer"):
        from_hub("hf://org/clip")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(CheckpointError, match="does not answer"):
        push_to_hub(folder, "hf://org/new")


@pytest.mark.slow
def test_the_commands_take_models_of_the_hub(hub, folder, tmp_path):
    """With the library's own variables, in processes of their own; then without any network."""
    hub.commit("org/clip", files_of(folder))
    env = {name: value for name, value in os.environ.items() if not name.startswith("TPU_")} | {
        "PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": os.environ["HF_TEST_URL"]
    }  # fmt: skip

    def command(*words, **more):
        run = [sys.executable, "-m", "vlc.cli", *words]
        return subprocess.run(run, cwd=tmp_path, env=env | more, capture_output=True, text=True)

    done = command("eval", "hf://org/clip", "--data", "scenes", "--examples", "8")
    assert done.returncode == 0 and (tmp_path / "eval" / "clip" / "eval.json").is_file(), done.stdout + done.stderr
    again = ("export", "hf://org/clip", "--format", "safetensors", "--out", str(tmp_path / "copy"))
    done = command(*again, HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    done = command("eval", "hf://org/other", HF_HUB_OFFLINE="1")
    assert done.returncode == 2 and "HF_HUB_OFFLINE" in done.stderr and "Traceback" not in done.stderr, done.stderr
