"""A model of another library, as ours: `import_model`."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vlc.config import Config, resolve_auto
from vlc.data.images import Preprocess
from vlc.data.tokenizers import Tokenizer
from vlc.errors import CheckpointError, ConfigError, DataError
from vlc.interop import (
    big_vision,
    huggingface,
    open_clip,
    preprocessors,
    sentence_transformers,
    settings,
    tokenizer_files,
)
from vlc.interop.late_interaction import Role
from vlc.interop.rules import Rule, dense, read_arrays
from vlc.interop.weights import Entry, Joined, Npz, Weights, find_weights, read_json
from vlc.models import DualEncoder
from vlc.settings import is_whole
from vlc.train.state import build_model

_POSITIONS = "image_tower/positions"
_BUFFERS = ("position_ids",)  # numbers 0, 1, 2, ... that older files keep beside the weights


@dataclass(frozen=True)
class Imported:
    """A model with all that it needs.

    Attributes:
        config: In our words.
        params: Our parameters, float32.
        tokenizer: `None` where there is no text tower.
        preprocess: `None` where there is no image tower.
        notes: What was left out, and why.
        step: Updates done, where it is known.
    """

    config: Config
    params: nnx.State
    tokenizer: Tokenizer | None
    preprocess: Preprocess | None
    notes: tuple[str, ...] = ()
    step: int = 0


def describe(model: Imported) -> str:
    """What a model is, in a few lines."""
    towers, lines = model.config.model, []
    for name, tower in (("image", towers.image), ("text", towers.text), ("decoder", towers.decoder)):
        if tower.layers:
            lines.append(f"{name}: {tower.layers} layers, width {tower.width}, {tower.heads} heads, {tower.activation}")
    if model.preprocess is not None:
        pixels = model.preprocess
        lines.append(
            f"images: {pixels.size} pixels, patches of {towers.image.patch}, {pixels.resize}, {pixels.resample}"
        )
    if model.tokenizer is not None:
        words = model.tokenizer
        lines.append(f"texts: {words.vocab_size:,} tokens, {towers.text.length} at the most, {words.kind}")
    count = sum(leaf.size for leaf in jax.tree.leaves(model.params))
    return "\n".join([*lines, f"{count:,} parameters", *(f"note: {note}" for note in model.notes)])


def import_model(path: str | Path, *, tokenizer: str | Path = "", role: Role = "") -> Imported:
    """Reads a model of transformers (CLIP, SigLIP, BERT), open_clip (CLIP, SigLIP, CoCa) or big_vision (`.npz`).

    Nothing in the files is executed. Every array is accounted for.

    Args:
        path: A folder with `config.json` or `open_clip_config.json`, or a `.npz`.
        tokenizer: Its tokenizer's file or folder, where it does not lie beside the weights.
        role: Whether a text model with two ways of reading (ColBERT, PyLate, prompts of sentence-transformers) reads
            queries or documents; empty: documents where tokens are compared, else the default prompt.

    Raises:
        ConfigError: The model has no such role.
        CheckpointError: A file is missing or damaged, the architecture is not known, or arrays are missing, unexpected
            or of another shape.
    """
    path = Path(path)
    if role and not path.is_dir():
        raise ConfigError(f'role="{role}": {path} is no folder of a text model.')
    try:
        if path.suffix == ".npz":
            return _from_npz(path, tokenizer)
        if (path / open_clip.CONFIG_FILE).is_file() and not _is_huggingface(path):
            return _from_open_clip(path, tokenizer)
        if (path / "config.json").is_file():
            return _from_huggingface(path, tokenizer, role)
        if (path / "modules.json").is_file():
            return _from_huggingface(path, tokenizer, role)
    except DataError as error:  # of the tokenizer's file
        raise CheckpointError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # a setting of a type that nobody writes
        raise CheckpointError(f"{path}: a setting in its files is damaged ({error!r}).") from error
    raise CheckpointError(
        f"{path}: no model that is known. A folder has a config.json (transformers), an open_clip_config.json, or "
        "checkpoints/ (a run's workdir); big_vision's are .npz files."
    )


def _is_huggingface(folder: Path) -> bool:
    """Whether a folder with both libraries' settings has the weights of transformers."""
    if not (folder / "config.json").is_file() or any((folder / name).is_file() for name in open_clip.WEIGHT_FILES[:2]):
        return False
    names = find_weights(folder, huggingface.WEIGHT_FILES).entries
    return any(name.startswith("vision_model.") for name in names)


def _from_huggingface(folder: Path, tokenizer: str | Path, role: Role) -> Imported:
    reading = sentence_transformers.read_modules(folder, role)
    inner = reading.tower
    where = str(inner / "config.json")
    given = read_json(inner / "config.json")
    words = Path(tokenizer or inner)
    kind, notes = given.get("model_type"), []
    if role and kind != "bert":
        raise ConfigError(f'role="{role}": {where} is of a model that reads all texts alike.')
    if kind == "clip":
        config, make = huggingface.clip_config(given, where), huggingface.clip_rules
        text = tokenizer_files.clip(words, _rows(given, where))
        image = preprocessors.huggingface(folder, "clip", config.data.image.size)
    elif kind in ("siglip", "siglip2"):
        naflex = kind == "siglip2"
        config, make = huggingface.siglip_config(given, where, naflex=naflex), huggingface.siglip_rules
        text = tokenizer_files.siglip(words, _rows(given, where, 32000), notes)
        image = (
            preprocessors.naflex(folder, config.model.image.patch)
            if naflex
            else preprocessors.huggingface(folder, "siglip", config.data.image.size)
        )
        config.data.image.resize = image.resize
    elif kind == "bert":
        return _from_bert(reading, given, where, words)
    else:
        raise CheckpointError(
            f"{where}: the model_type {kind!r} is not known; {_why(kind)}known: clip, siglip, siglip2, bert."
        )
    weights = find_weights(folder, huggingface.WEIGHT_FILES)
    return _finish(config, text, image, weights, make(config), notes=tuple(notes))


def _why(kind: Any) -> str:
    reasons = {
        "align": "ALIGN's image tower is an EfficientNet, which vlc does not have; ",
    }
    return reasons.get(kind, "")


def _rows(given: dict[str, Any], where: str, default: int = 49408) -> int:
    text = (given.get("text_config") or {}) | (given.get("text_config_dict") or {})
    return settings.whole(text, "vocab_size", f"{where}: text_config", default)


def _from_bert(reading: sentence_transformers.Reading, given: dict[str, Any], where: str, words: Path) -> Imported:
    """A text tower alone, with what sentence-transformers or ColBERT do around it."""
    notes = [""]
    config = huggingface.bert_config(given, where)
    weights = find_weights(reading.tower, huggingface.WEIGHT_FILES)
    inner = "bert." if "linear.weight" in weights.entries and reading.tokens is not None else ""  # ColBERT's own
    if inner:
        settings_of_linear = {"in_features": weights.entries["linear.weight"].shape[1], "bias": False}
        settings_of_linear["out_features"] = weights.entries["linear.weight"].shape[0]
        reading = replace(reading, dense=(settings_of_linear, reading.tower))
    sentence_transformers.set_texts(config, reading, notes)
    rows = settings.whole(given, "vocab_size", where)
    text = tokenizer_files.bert(words, rows, lower=reading.lower, prompt=reading.prompt)
    notes[0] = (
        f"pooler.*: the {'mean of the tokens' if config.model.text.pool == 'mean' else 'first token'} is compared"
    )
    if reading.tokens is not None:
        text = tokenizer_files.for_tokens(text, config, reading.tokens, words)
        settings.as_filip(config)
        notes[0] = "pooler.*: the tokens are what is compared"
    if reading.dense is not None and not inner:
        linear = find_weights(reading.dense[1], huggingface.WEIGHT_FILES)
        weights = Joined(weights, "linear.", linear)

    def pooler(name: str, entry: Entry) -> bool:
        return name.startswith(f"{inner}pooler.") or _is_buffer(name, entry)

    rules = huggingface.bert_rules(config, inner)
    if reading.dense is not None:
        rules += dense("text_embed", "linear" if inner else "linear.linear", bias=bool(reading.dense[0]["bias"]))
    return _finish(config, text, None, weights, rules, ignored=pooler, notes=tuple(notes))


def _from_open_clip(folder: Path, tokenizer: str | Path) -> Imported:
    where = str(folder / open_clip.CONFIG_FILE)
    given = read_json(folder / open_clip.CONFIG_FILE)
    model = settings.part(given, "model_cfg", where)
    config = open_clip.make_config(model, where)
    cfg = settings.part(model, "text_cfg", where)
    rows = settings.whole(cfg, "vocab_size", where, 49408)
    text = tokenizer_files.open_clip(Path(tokenizer or folder), cfg, rows)
    image = preprocessors.open_clip(given, config.data.image.size, where)
    weights = find_weights(folder, open_clip.WEIGHT_FILES)
    apart = any(name.startswith("text.") for name in weights.entries)
    return _finish(config, text, image, weights, open_clip.make_rules(config, apart=apart))


def _from_npz(path: Path, tokenizer: str | Path) -> Imported:
    weights = Npz(path)
    names = big_vision.find_names(weights)
    config = big_vision.make_config(weights, names)
    text = None
    if names.text is not None:
        text = tokenizer_files.siglip(Path(tokenizer or path.parent), big_vision.text_rows(weights, names))
    pixels = config.data.image
    image = Preprocess(pixels.size, resize="squash", resample="aliased", full_scale=True, convert="plain")
    alone = names.text is None
    return _finish(
        config, text, image, weights, big_vision.make_rules(config, weights, names),
        ignored=big_vision.is_classifier if alone else _is_buffer,
        notes=("head/*, pre_logits/*: a classifier is no part of the tower",) if alone else (),
    )  # fmt: skip


def _is_buffer(name: str, entry: Entry) -> bool:
    return name.rsplit(".", 1)[-1] in _BUFFERS and not entry.is_float


def _finish(
    config: Config, tokenizer: Tokenizer | None, preprocess: Preprocess | None, weights: Weights, rules: list[Rule],
    *, ignored: Callable[[str, Entry], bool] = _is_buffer, notes: tuple[str, ...] = (),
) -> Imported:  # fmt: skip
    """Reads the arrays into the model that the config describes."""
    if preprocess is not None:
        config.data.image.update(preprocess.to_json())
    if tokenizer is not None and tokenizer.rules.pad is not None and config.model.text.pool != "cls":
        config.model.text.pad_row = tokenizer.rules.pad
    shapes = abstract_params(config, tokenizer)
    arrays = read_arrays(rules, weights, paths_of(shapes), ignored=ignored)
    left = {path for path in paths_of(shapes) if path not in arrays}
    arrays |= _numbers(arrays, left)
    return Imported(config, fill(shapes, arrays), tokenizer, preprocess, notes)


def _numbers(arrays: dict[str, np.ndarray], left: set[str]) -> dict[str, np.ndarray]:
    """The learned numbers that their model does not have: tokens are compared at the scale of the embeddings."""
    scale = arrays.get("log_scale", np.float32(0))
    known = {"log_scale": scale, "token_log_scale": scale, "logit_bias": np.float32(0)}
    assert left <= set(known), f"no rule gives {sorted(left - set(known))}"
    return {path: np.asarray(known[path], np.float32) for path in left}


def abstract_params(config: Config, tokenizer: Tokenizer | None) -> nnx.State:
    """Shapes of the parameters of a model."""
    run, rows = resolve_auto(config, jax.default_backend()), rows_of(tokenizer)

    def build() -> nnx.State:
        model: DualEncoder = build_model(run, rows, jax.random.key(0))
        return nnx.state(model, nnx.Param)

    return jax.eval_shape(build)


def rows_of(tokenizer: Tokenizer | None) -> int:
    """Rows of the token table; a model without a text tower has none that counts."""
    return tokenizer.vocab_size if tokenizer is not None else 1


def fill(shapes: nnx.State, arrays: dict[str, np.ndarray]) -> nnx.State:
    """Parameters from arrays by path."""
    named = iter(paths_of(shapes))
    return jax.tree.map(lambda shape: jnp.asarray(arrays[next(named)], shape.dtype), shapes)


def paths_of(params: nnx.State) -> dict[str, Any]:
    """Parameters by their path, `image_tower/norm/scale`."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    named = ((jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves)
    return {path.removesuffix("/value"): leaf for path, leaf in named}


def at_size(imported: Imported, size: int) -> Imported:
    """The same model for images of another size: position embeddings are resampled, bicubic, without aliasing.

    Raises:
        CheckpointError: There is no image tower, or the size is no multiple of the patch.
    """
    config, preprocess = imported.config.copy_and_resolve_references(), imported.preprocess
    if preprocess is None:
        raise CheckpointError("An image size was asked for, but the model has no image tower.")
    patch, old = config.model.image.patch, config.data.image.size
    if not is_whole(size):
        raise ConfigError(f"image_size is {size!r}; it must be a whole number of pixels.")
    if size == old:
        return imported
    if size % patch or size < patch:
        raise CheckpointError(f"Images of {size} pixels cannot be cut into patches of {patch}.")
    arrays = {path: np.asarray(value) for path, value in paths_of(imported.params).items()}
    notes = imported.notes
    if preprocess.resize == "naflex":  # where every image's are resampled anyway
        config.model.image.grid = config.model.image.grid or old // patch
    elif _POSITIONS in arrays:  # sines are those of any size
        config.model.image.grid = 0
        arrays[_POSITIONS] = _resampled(arrays[_POSITIONS], old // patch, size // patch)
        notes = (*notes, f"position embeddings resampled from {old} to {size} pixels")
    to = preprocess.resize_to * size // old if preprocess.resize_to else 0
    changed = Preprocess.from_json(preprocess.to_json() | {"size": size, "resize_to": to})
    config.data.image.update(changed.to_json())
    params = fill(abstract_params(config, imported.tokenizer), arrays)
    return Imported(config, params, imported.tokenizer, changed, notes)


def _resampled(positions: np.ndarray, before: int, after: int) -> np.ndarray:
    """A table for grids of another side; what stands before the patches' rows stays."""
    first = len(positions) - before**2
    grid = positions[first:].reshape(before, before, -1)
    resized = jax.image.resize(grid, (after, after, grid.shape[-1]), "cubic", antialias=True)
    return np.concatenate([positions[:first], np.asarray(resized).reshape(-1, grid.shape[-1])])
