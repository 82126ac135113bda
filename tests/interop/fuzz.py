"""Folders with one setting changed: what the other library makes of each, and what vlc does."""

import collections
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import jax
import numpy as np

import vlc
from tests.interop.mutations import write_cases
from tests.peers import inputs
from tests.peers.environment import run_peer
from vlc.errors import VlcError
from vlc.inference.comparison import logits_of

TEXT_BASES = ("sentences", "pylate", "multi_vector", "colbert")
BASES = ("clip_quick_16", "clip_gelu_14", "siglip", "siglip2", "open_clip_gelu_32", "open_clip_siglip",
         "open_clip_coca")  # fmt: skip
NEAR = 1e-4


@dataclass
class Found:
    """What came of the cases of a folder.

    Attributes:
        counts: `equal`, `image equal, text said to differ` in the model's notes, `refused` by vlc, `refused by both` or
            by the library alone.
        wrong: Cases that give something else without a word, or a traceback.
    """

    counts: collections.Counter = field(default_factory=collections.Counter)
    wrong: list[str] = field(default_factory=list)


def try_all(base: Path, scratch: Path, *, every: int = 1) -> Found:
    """Changes each setting of a folder in turn, and compares what both sides make of it.

    Args:
        base: A folder of `tests/peers/references.py`.
        scratch: Where the changed folders go.
        every: Tries one case in so many.
    """
    scratch.mkdir(parents=True)
    names = write_cases(base, scratch)
    for number, name in enumerate(list(names)):
        if number % every:
            shutil.rmtree(scratch / name)
            del names[name]
    run_peer("fuzzed", scratch)
    found = Found()
    for number, (name, what) in enumerate(names.items()):
        if number % 50 == 0:
            jax.clear_caches()
        outcome = _outcome(scratch, name)
        if outcome in (
            "equal",
            "image equal, text said to differ",
            "refused",
            "refused by both",
            "refused by the library alone",
        ):
            found.counts[outcome] += 1
        else:
            found.wrong.append(f"{base.name}: {what}: {outcome}")
    return found


def _outcome(scratch: Path, name: str) -> str:
    theirs = scratch / f"{name}.npz"
    if name.startswith(TEXT_BASES):
        return _outcome_of_texts(scratch / name, theirs)
    try:
        model = vlc.load(scratch / name)
    except VlcError:
        return "refused" if theirs.exists() else "refused by both"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if not theirs.exists():
        return "refused by the library alone"
    same = "image equal, text said to differ" if _text_is_said_to_differ(model) else "equal"
    return _difference(model, dict(np.load(theirs))) or same


def _outcome_of_texts(folder: Path, theirs: Path) -> str:
    """As `_outcome`, of a folder that reads queries and documents."""
    found, refused = {}, []
    for role in ("", "document", "query"):
        try:
            found[role] = vlc.load(folder, role=role).encode_text(inputs.FUZZED)
        except VlcError as error:
            refused.append((role, error))
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    if not theirs.exists():
        return "refused by the library alone" if found else "refused by both"
    if not found:
        return "refused"
    expected = dict(np.load(theirs))
    for role, text in found.items():
        if "text" in expected:
            ours, name = text.embed, "query" if role == "query" else "text"
        else:
            ours, name = text.tokens[text.mask], role or "document"
        if role == "document" and "text" in expected:
            continue
        if ours.shape != expected[name].shape or not np.abs(ours - expected[name]).max() < NEAR:
            return f"{role or 'text'} differs"
    return "equal" if not refused or "text" in expected else "refused"


def _text_is_said_to_differ(model: vlc.Model) -> bool:
    return any("lower-cased" in note for note in model.notes)


def _difference(model: vlc.Model, theirs: dict[str, np.ndarray]) -> str:
    """How vlc's outputs differ; empty where they do not."""
    texts = list(inputs.FUZZED)
    ids = model.token_ids(texts)
    pad = model.tokenizer.rules.pad
    ids = np.where(ids == model.tokenizer.pad_id, -1 if pad is None else pad, ids)
    if not np.array_equal(ids, theirs["ids"]) and not _text_is_said_to_differ(model):
        return f"ids differ in {(ids != theirs['ids']).any(axis=1).sum()} texts"
    pixels = np.stack([model.preprocess(inputs.encoded(image)) for image in inputs.images()[:3]])
    image = model.config.data.image
    levels = 255 * (theirs["pixels"].transpose(0, 2, 3, 1) * np.asarray(image.std) + np.asarray(image.mean))
    if levels.shape != pixels.shape or np.abs(levels - pixels).max() > 1.01:
        return "pixels differ"
    seen, words = (
        model.encode_pixels(levels.round().clip(0, 255).astype(np.uint8)),
        model.encode_ids(model.token_ids(texts)),
    )
    parts = {"image": seen.embed, "text": words.embed, "logits": logits_of(model, seen, words)}
    if _text_is_said_to_differ(model):
        parts = {"image": seen.embed}
    for part, ours in parts.items():
        bound = NEAR * (max(1.0, np.abs(theirs[part]).max()) if part == "logits" else 1)
        if ours.shape != theirs[part].shape or not np.abs(ours - theirs[part]).max() < bound:
            return f"{part} differs"
    return ""
