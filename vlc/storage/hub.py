"""Models on the Hugging Face hub, `hf://ORG/NAME@REVISION/FOLDER`, by its own library, cache and tokens."""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from vlc.errors import CheckpointError, ConfigError

_SCHEME = "hf://"
_TOKEN = "(hf auth login, or HF_TOKEN)"
_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/@]+))?(?:/(?P<inside>.+?))?/?")
_READ = ("*.json", "*.txt", "*.model", "*.metadata", "*.safetensors", "*.npz")  # of a model; no pickles


@dataclass(frozen=True)
class HubName:
    """A model, or a folder or file in it."""

    repo: str
    revision: str | None
    inside: str


def is_hub(path: str | os.PathLike[str]) -> bool:
    """Whether a path names a model on the hub."""
    return str(path).startswith(_SCHEME)


def refuse_hub(path: str | os.PathLike[str], option: str) -> None:
    """Raises a `ConfigError` where something else than a model would be written to the hub."""
    if is_hub(path):
        raise ConfigError(
            f"{path}: {option} is a folder on the disk or in a bucket; the hub takes models: vlc export MODEL --format "
            f"safetensors --push {path}"
        )


def read_hub_name(path: str | os.PathLike[str]) -> HubName:
    """The parts of `hf://ORG/NAME@REVISION/FOLDER`; a revision with a slash is written with `%2F`.

    Raises:
        CheckpointError: It is written otherwise.
    """
    found = _NAME.fullmatch(str(path).removeprefix(_SCHEME))
    if not found:
        raise CheckpointError(f"{path}: write hf://ORG/NAME, hf://ORG/NAME@REVISION, or either with /FOLDER after it.")
    return HubName(found["repo"], unquote(found["revision"]) if found["revision"] else None, found["inside"] or "")


def from_hub(path: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """The path itself, or the folder on the disk that a model on the hub was copied to.

    Settings, tokenizers and weights are copied, of these safetensors and `.npz` alone. What is in the library's cache
    already is not copied again; with `HF_HUB_OFFLINE=1` nothing is asked for.

    Raises:
        CheckpointError: There is no such model, it may not be read, or the hub cannot be reached.
    """
    if not is_hub(path):
        return path
    from huggingface_hub import snapshot_download

    name = read_hub_name(path)
    if name.inside.endswith(".npz"):
        wanted = [name.inside]
    else:
        wanted = [f"{name.inside}/{pattern}" if name.inside else pattern for pattern in _READ]
    with _hub_errors(path):
        folder = Path(snapshot_download(name.repo, revision=name.revision, allow_patterns=wanted))
    found = folder / name.inside
    if not found.exists():
        raise CheckpointError(f"{path}: {name.repo} has nothing called {name.inside} that could be read.")
    return found


def push_to_hub(folder: Path, path: str, *, private: bool = False) -> str:
    """Uploads a folder as a model, which is made where there is none.

    Args:
        folder: On the disk.
        path: `hf://ORG/NAME`, or with `@BRANCH`.
        private: Whether only those who may see it; of a model that is made.

    Returns:
        The address of what was added.

    Raises:
        CheckpointError: It may not be written, or the hub cannot be reached.
    """
    from huggingface_hub import HfApi

    name = read_hub_name(path)
    with _hub_errors(path):
        hub = HfApi()
        hub.create_repo(name.repo, private=private, exist_ok=True)
        if name.revision:
            hub.create_branch(name.repo, branch=name.revision, exist_ok=True)
        done = hub.upload_folder(
            repo_id=name.repo, folder_path=folder, path_in_repo=name.inside or None, revision=name.revision,
            commit_message="Upload a model exported by vlc",
        )  # fmt: skip
    return str(done.commit_url)


@contextlib.contextmanager
def _hub_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns what the hub's library raises into one line."""
    from huggingface_hub import errors

    try:
        yield
    except (errors.HFValidationError, errors.HfHubHTTPError, OSError) as error:
        raise CheckpointError(f"{path}: {_said(error)}.") from error


def _said(error: Exception) -> str:
    from huggingface_hub import errors

    first = (str(error).splitlines() or [type(error).__name__])[0][:200]
    for kind, text in (  # the more special ones first
        (errors.HFValidationError, f"is no name of the hub ({first})"),
        (errors.GatedRepoError, f"its terms must be accepted on its page first, and a token be there {_TOKEN}"),
        (errors.RevisionNotFoundError, "the model is there, but not this revision"),
        (errors.RepositoryNotFoundError, f"the hub has no such model, or it is private and needs a token {_TOKEN}"),
        (errors.LocalEntryNotFoundError,
         "is not in the cache, and the hub cannot be reached or is not to be asked (HF_HUB_OFFLINE)"),
    ):  # fmt: skip
        if isinstance(error, kind):
            return text
    if getattr(getattr(error, "response", None), "status_code", None) in (401, 403):
        return f"the token may not do that {_TOKEN}"
    return f"the hub does not answer as it should ({first})"
