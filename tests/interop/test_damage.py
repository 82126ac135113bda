"""Damaged checkpoints: each is one clear error, and none is loaded."""

import json
import pickle
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

import vlc
from vlc.cli import main
from vlc.config import resolve_auto, shrink
from vlc.data.images import Preprocess
from vlc.data.tokenizers import Rules, clip_tokenizer
from vlc.data.tokenizers.json_file import HUGGING_FACE_MARKS
from vlc.errors import CheckpointError
from vlc.interop import Imported, at_size, export_model, import_model
from vlc.interop.settings import imported_config
from vlc.train.state import build_model

FORMS = ("huggingface", "open_clip", "safetensors", "npz")
WEIGHTS = {
    "huggingface": "model.safetensors",
    "open_clip": "open_clip_model.safetensors",
    "safetensors": "model.safetensors",
    "npz": "model.npz",
}
MERGES = ["n d</w>", "c a", "ca t</w>", "d o", "do g</w>"]


@pytest.fixture(scope="session")
def clip_shaped() -> Imported:
    """A model that transformers and open_clip can hold."""
    tokenizer = clip_tokenizer(MERGES, Rules(pad=517), marks=HUGGING_FACE_MARKS, normalise=True)
    config = shrink(imported_config())
    config.model.image.update({"pre_norm": True, "patch_bias": False, "eps": 1e-5, "activation": "gelu", "layers": 2})
    config.model.text.update({"eps": 1e-5, "activation": "gelu", "layers": 2, "pad_row": 517, "length": 12})
    preprocess = Preprocess(32, resize="shortest", full_scale=True)
    config.data.image.update(preprocess.to_json())
    run = resolve_auto(config, "cpu")
    params = nnx.state(build_model(run, tokenizer.vocab_size, jax.random.key(0)), nnx.Param)
    return Imported(config, params, tokenizer, preprocess)


def vit_arrays() -> dict[str, np.ndarray]:
    """A single ViT with big_vision's names."""
    rng, width = np.random.default_rng(0), 16
    shapes = {"embedding/kernel": (4, 4, 3, width), "embedding/bias": (width,), "cls": (1, 1, width)}
    shapes |= {"pos_embedding": (1, 5, width), "head/kernel": (width, 10), "head/bias": (10,)}
    norms = ["Transformer/encoder_norm"]
    for layer in range(2):
        block = f"Transformer/encoderblock_{layer}"
        norms += [f"{block}/LayerNorm_{number}" for number in range(2)]
        attention = f"{block}/MultiHeadDotProductAttention_0"
        for part in ("query", "key", "value"):
            shapes |= {f"{attention}/{part}/kernel": (width, 2, 8), f"{attention}/{part}/bias": (2, 8)}
        shapes |= {f"{attention}/out/kernel": (2, 8, width), f"{attention}/out/bias": (width,)}
        for number, sizes in enumerate(((width, 32), (32, width))):
            dense = f"{block}/MlpBlock_0/Dense_{number}"
            shapes |= {f"{dense}/kernel": sizes, f"{dense}/bias": sizes[1:]}
    shapes |= {f"{norm}/{part}": (width,) for norm in norms for part in ("scale", "bias")}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture(scope="session")
def sound(clip_shaped, tmp_path_factory):
    """One folder of each form, none of them damaged."""
    root = tmp_path_factory.mktemp("sound")
    for form in FORMS[:3]:
        export_model(clip_shaped, root / form, form)
    (root / "npz").mkdir()
    np.savez(root / "npz" / "model.npz", **vit_arrays())
    return root


def path_of(form, folder):
    return folder / "model.npz" if form == "npz" else folder


@pytest.mark.parametrize("form", FORMS)
def test_undamaged_they_load(sound, clip_shaped, form):
    model = vlc.load(path_of(form, sound / form))
    if form != "npz":
        for ours, theirs in zip(jax.tree.leaves(model.params), jax.tree.leaves(clip_shaped.params), strict=True):
            assert ours.shape == theirs.shape and (form != "safetensors" or np.array_equal(ours, theirs))
    assert model.encode_image(np.zeros((9, 7, 3), np.uint8)).embed.shape[0] == 1


# -- ways to damage


def cut(share):
    def damage(folder, form):
        path = folder / WEIGHTS[form]
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    return damage


def fill_with(data):
    return lambda folder, form: (folder / WEIGHTS[form]).write_bytes(data)


def remove_weights(folder, form):
    (folder / WEIGHTS[form]).unlink()


def edit(change):
    """Changes the arrays of the file, which then is sound as a file."""

    def damage(folder, form):
        path = folder / WEIGHTS[form]
        if form == "npz":
            arrays = change(dict(np.load(path)))
            path.unlink()
            np.savez(path, **arrays)
        else:
            safetensors.numpy.save_file(change(safetensors.numpy.load_file(path)), path)

    return damage


def last_layer(arrays):
    """An array of the last layer that is no square."""
    in_it = (".1.", "stack/blocks", "block_1/")
    return next(n for n in sorted(arrays) if any(part in n for part in in_it) and _oblong(arrays[n]))


def _oblong(array):
    return array.ndim >= 2 and array.shape[0] != array.shape[1]


def put(change):
    return lambda arrays: arrays | {last_layer(arrays): change(arrays[last_layer(arrays)])}


def renamed(arrays):
    name = last_layer(arrays)
    return {(f"{key}_" if key == name else key): value for key, value in arrays.items()}


def without(arrays):
    return {key: value for key, value in arrays.items() if key != last_layer(arrays)}


def another_layer(arrays):
    """Of a deeper model."""
    more = {
        key.replace(".1.", ".2.").replace("block_1/", "block_3/"): value
        for key, value in arrays.items()
        if ".1." in key or "block_1/" in key
    }
    return arrays | (more or {"image_tower/stack/blocks/extra": np.zeros(3, np.float32)})


def not_a_number(array):
    array = array.copy()
    array.flat[7] = np.nan
    return array


WEIGHT_DAMAGE = {
    "cut_in_half": cut(0.5),
    "cut_at_the_end": cut(0.999),
    "cut_in_the_header": cut(0.0005),
    "empty": fill_with(b""),
    "another_format": fill_with(b"\x80\x04pickled?" * 50),
    "missing": remove_weights,
    "renamed": edit(renamed),
    "without_one": edit(without),
    "transposed": edit(put(lambda x: np.ascontiguousarray(x.T))),
    "flattened": edit(put(np.ravel)),
    "whole_numbers": edit(put(lambda x: x.astype(np.int32))),
    "double": edit(put(lambda x: x.astype(np.float64))),
    "extra_layer": edit(another_layer),
    "not_a_number": edit(put(not_a_number)),
}
CONFIG = {"huggingface": "config.json", "open_clip": "open_clip_config.json", "safetensors": "vlc.json"}


def json_file(name, change):
    def damage(folder, form):
        path = folder / (CONFIG[form] if name == "config" else name)
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    return damage


def text_file(name, change):
    def damage(folder, form):
        path = folder / (CONFIG[form] if name == "config" else name)
        path.write_text(change(path.read_text()))

    return damage


def gone(name):
    return lambda folder, form: (folder / name).unlink()


def setting(*keys, value):
    """Sets one value deep in a config."""

    def change(found):
        inner = found
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        return found

    return json_file("config", change)


def drop(key):
    return json_file("config", lambda found: {k: v for k, v in found.items() if k != key})


def half(text):
    return text[: len(text) // 2]


def more_tokens(found):
    found["model"]["vocab"] |= {f"extra{i}": 600 + i for i in range(3)}
    return found


OTHER_DAMAGE = {
    ("huggingface", "config_cut"): text_file("config", half),
    ("huggingface", "config_a_list"): text_file("config", lambda _: "[1]"),
    ("huggingface", "another_architecture"): setting("model_type", value="align"),
    ("huggingface", "variable_resolution"): setting("model_type", value="siglip2"),
    ("huggingface", "one_layer_more"): setting("vision_config", "num_hidden_layers", value=3),
    ("huggingface", "one_layer_less"): setting("text_config", "num_hidden_layers", value=1),
    ("huggingface", "another_width"): setting("text_config", "hidden_size", value=48),
    ("huggingface", "heads_that_do_not_divide"): setting("vision_config", "num_attention_heads", value=5),
    ("huggingface", "another_patch"): setting("vision_config", "patch_size", value=16),
    ("huggingface", "unknown_activation"): setting("vision_config", "hidden_act", value="relu"),
    ("huggingface", "a_part_of_another_type"): setting("text_config", value=7),
    ("huggingface", "eps_a_word"): setting("text_config", "layer_norm_eps", value="small"),
    ("huggingface", "longer_texts"): setting("text_config", "max_position_embeddings", value=77),
    ("huggingface", "no_tokenizer"): gone("tokenizer.json"),
    ("huggingface", "tokenizer_cut"): text_file("tokenizer.json", half),
    ("huggingface", "tokenizer_too_large"): json_file("tokenizer.json", more_tokens),
    ("huggingface", "no_preprocessing"): gone("preprocessor_config.json"),
    ("huggingface", "preprocessing_cut"): text_file("preprocessor_config.json", half),
    ("huggingface", "another_size"): json_file("preprocessor_config.json", lambda p: p | {"crop_size": 64}),
    ("huggingface", "std_of_zero"): json_file("preprocessor_config.json", lambda p: p | {"image_std": [0, 1, 1]}),
    ("huggingface", "not_normalised"): json_file("preprocessor_config.json", lambda p: p | {"do_normalize": False}),
    ("open_clip", "config_cut"): text_file("config", half),
    ("open_clip", "no_model_cfg"): drop("model_cfg"),
    ("open_clip", "no_preprocess_cfg"): drop("preprocess_cfg"),
    ("open_clip", "layer_scale"): setting("model_cfg", "vision_cfg", "ls_init_value", value=0.1),
    ("open_clip", "another_tower"): setting("model_cfg", "vision_cfg", "timm_model_name", value="convnext_base"),
    ("open_clip", "no_tokenizer"): gone("tokenizer.json"),
    ("open_clip", "another_width"): setting("model_cfg", "text_cfg", "width", value=64),
    ("safetensors", "config_cut"): text_file("config", half),
    ("safetensors", "no_tokenizer"): drop("tokenizer"),
    ("safetensors", "no_preprocessing"): drop("preprocess"),
    ("safetensors", "tokenizer_damaged"): setting("tokenizer", "model", value="%%%"),
    ("safetensors", "unknown_setting"): setting("config", "model", "colour", value="red"),
    ("safetensors", "preprocessing_of_another_version"): setting("preprocess", "sharpen", value=1),
}  # fmt: skip
DAMAGE = {(form, name): how for form in FORMS for name, how in WEIGHT_DAMAGE.items()} | OTHER_DAMAGE


def test_there_are_enough():
    assert len(DAMAGE) >= 50


@pytest.mark.parametrize(("form", "name"), DAMAGE)
def test_a_damaged_checkpoint_is_one_error(sound, tmp_path, capsys, form, name):
    folder = tmp_path / "model"
    shutil.copytree(sound / form, folder)
    DAMAGE[form, name](folder, form)
    with pytest.raises(CheckpointError) as raised:
        vlc.load(path_of(form, folder))
    message = str(raised.value)
    assert str(folder) in message and len(message) < 4000
    if form in ("huggingface", "open_clip") and name in ("renamed", "without_one", "transposed", "flattened", "double"):
        assert ".1." in message  # the array is named, with its shape or type
        assert ("[" in message) == (name != "double")
    if form in ("huggingface", "open_clip"):
        assert main(["import", str(folder), "--out", str(tmp_path / "out")]) == 2
        assert message.splitlines()[0] in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


def test_nothing_in_a_checkpoint_is_executed(sound, tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    folder = tmp_path / "model"
    shutil.copytree(sound / "huggingface", folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(CheckpointError, match="can run code when opened"):
        vlc.load(folder)
    objects = np.empty(1, object)
    objects[0] = Payload()
    np.savez(tmp_path / "evil.npz", **(vit_arrays() | {"cls": objects}))
    with pytest.raises(CheckpointError, match="Python objects"):
        vlc.load(tmp_path / "evil.npz")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("half", [np.float16, ml_dtypes.bfloat16])
def test_shards_and_half_precision(sound, tmp_path, half):
    folder = tmp_path / "model"
    shutil.copytree(sound / "huggingface", folder)
    arrays = safetensors.numpy.load_file(folder / "model.safetensors")
    names = sorted(arrays)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    (folder / "model.safetensors").unlink()
    for shard, held in shards.items():
        safetensors.numpy.save_file({name: arrays[name].astype(half) for name in held}, folder / shard)
    index = {"weight_map": {name: shard for shard, held in shards.items() for name in held}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    whole, halves = (import_model(path) for path in (sound / "huggingface", folder))
    for a, b in zip(jax.tree.leaves(whole.params), jax.tree.leaves(halves.params), strict=True):
        assert np.array_equal(np.asarray(a).astype(half).astype(np.float32), np.asarray(b))
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002\.safetensors"):
        import_model(folder)


def test_positions_are_resampled_on_request_only(sound, clip_shaped):
    larger = vlc.load(sound / "huggingface", image_size=64)
    assert larger.encode_image(np.zeros((9, 7, 3), np.uint8)).tokens.shape[1] == 64
    assert larger.notes == ("position embeddings resampled from 32 to 64 pixels",)
    for form in FORMS[2:]:
        assert vlc.load(path_of(form, sound / form), image_size=64).config.data.image.size == 64
    same = at_size(import_model(sound / "huggingface"), 32)
    positions = [model.params["image_tower"]["positions"].get_value() for model in (same, clip_shaped)]
    assert np.allclose(*positions, atol=1e-6)
    with pytest.raises(CheckpointError, match="cannot be cut into patches of 8"):
        at_size(import_model(sound / "huggingface"), 60)


def test_an_export_is_never_written_over_anything(sound, clip_shaped, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    for form in FORMS[:3]:
        with pytest.raises(CheckpointError, match="there is something already"):
            export_model(clip_shaped, tmp_path, form)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert main(["export", str(sound / "huggingface"), "--format", "onnx", "--out", str(tmp_path / "new")]) == 2


def test_what_the_other_side_cannot_use_is_told(tiny_import, clip_shaped, tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.model\.image\.pre_norm is False, it must be True"):
        export_model(tiny_import, tmp_path / "a", "huggingface")
    assert not (tmp_path / "a").exists()
    config = clip_shaped.config.copy_and_resolve_references()
    config.model.token_head, config.model.decoder.layers = "own", 1
    config.model.decoder.update({"width": 32, "heads": 2, "length": 12})
    run = resolve_auto(config, "cpu")
    params = nnx.state(build_model(run, clip_shaped.tokenizer.vocab_size, jax.random.key(0)), nnx.Param)
    filip = Imported(config, params, clip_shaped.tokenizer, clip_shaped.preprocess)
    notes = export_model(filip, tmp_path / "b", "huggingface")
    assert len(notes) == 5 and "left out: the caption decoder" in notes
    assert any("not turned by their EXIF" in note for note in notes)
    assert "late interaction" in (tmp_path / "b" / "README.md").read_text()
    back = vlc.load(tmp_path / "b").encode_text(["a cat"]).embed
    assert np.allclose(back, vlc.Model.of(filip).encode_text(["a cat"]).embed, atol=1e-6)
