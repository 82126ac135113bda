"""What data a run is trained on, in a few words: so that hosts with other data, or another data set, are noticed."""

import hashlib
import json
from typing import Any

from vlc.data.record import Source
from vlc.data.tokenizers import Tokenizer
from vlc.errors import DataError, StartError
from vlc.parallel import allgather_objects
from vlc.train.inputs import evenly

_SAMPLED = 256  # records whose names and captions are compared


def data_identity(source: Source, tokenizer: Tokenizer) -> dict[str, Any]:
    """How many records there are, and a digest of the names and captions of evenly spaced ones and of the tokenizer.

    Shards, filters and joins all show in what the records are. No image is read.
    """
    known = [_known_of(source, index) for index in evenly(source, _SAMPLED)]
    text = json.dumps([len(source), known, tokenizer.to_json()], sort_keys=True)
    return {"records": len(source), "digest": hashlib.sha256(text.encode()).hexdigest()[:12]}


def _known_of(source: Source, index: int) -> Any:
    try:
        captions = source.captions(index)
        return [source.names(index)[0], {name: list(texts) for name, texts in captions.items()}]
    except DataError as error:
        return error.reason


def check_same_data(identity: dict[str, Any]) -> None:
    """Makes sure that all processes read the same data.

    Raises:
        StartError: One does not; it is named.
    """
    everywhere = allgather_objects(identity)
    for process, other in enumerate(everywhere):
        if other != everywhere[0]:
            raise StartError(
                f"Process {process} reads other data than process 0: {_said(other)} instead of {_said(everywhere[0])}. "
                "All hosts must have the same shards, filters and tokenizer; look at what lies at config.data.train on "
                "both."
            )


def change_of_data(before: dict[str, Any] | None, now: dict[str, Any]) -> list[str]:
    """A line where a run goes on with other data than it had; none for checkpoints from before this was kept."""
    if before is None or before == now:
        return []
    return [
        f"the training data were {_said(before)} and are now {_said(now)}: from here on other examples come, and in "
        "another order"
    ]


def _said(identity: dict[str, Any]) -> str:
    return f"{identity['records']:,} records ({identity['digest']})"
