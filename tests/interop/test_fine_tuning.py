"""Fine-tuning: LoRA (what moves, that merging changes nothing, the small folder), heads alone, prompt vectors."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import vlc
from tests.conftest import read_config
from tests.tiny import leaves, tiny_config
from vlc.cli import main
from vlc.config import check_config, config_warnings, resolve_auto
from vlc.errors import CheckpointError, ConfigError
from vlc.inference import load_initial
from vlc.inference.stored import read_run
from vlc.interop import export_model, merge_lora, write_native
from vlc.models.lora import is_lora, merged
from vlc.storage import place
from vlc.train.frozen import is_frozen
from vlc.train.loop import train
from vlc.train.state import build_model

TEXTS = ["a red ball on the grass", "two dogs", "nothing"]


@pytest.fixture(scope="module")
def tuned(tiny_import, tmp_path_factory):
    """The folder of a model, and the workdir of a run that trained LoRA of rank 3 on it."""
    folder = tmp_path_factory.mktemp("lora")
    write_native(tiny_import, folder / "base")
    config = read_config("clip_b16", "smoke")
    config.init, config.mesh.fsdp = str(folder / "base"), 1
    config.model.lora.update({"rank": 3, "alpha": 6.0})
    config.optimizer.lr = 0.03
    assert train(config, folder / "run", load_initial=load_initial) == 0
    return folder


def embeddings(model: vlc.Model) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 40, 30, 3), np.uint8)
    return np.stack([model.encode_image(pixels).embed, model.encode_text(TEXTS).embed])


def test_only_its_matrices_move(tuned, tiny_import):
    before, after = leaves(tiny_import.params), leaves(read_run(place(tuned / "run")).params)
    added = {name for name in after if is_lora(name)}
    assert added and all(np.array_equal(before[name], after[name]) for name in after.keys() - added)
    assert all(after[name].any() for name in added if "lora_out" in name)
    assert {name.split("/")[0] for name in added} == {"image_tower", "text_tower"}


def test_merged_is_the_same_function(tuned):
    run = read_run(place(tuned / "run"))
    assert run.config.model.lora.rank == 3
    apart, whole = embeddings(vlc.Model.of(run)), embeddings(vlc.load(tuned / "run"))
    assert vlc.load(tuned / "run").config.model.lora.rank == 0
    assert np.abs(apart - whole).max() < 1e-5
    assert np.abs(whole - embeddings(vlc.load(tuned / "base"))).max() > 1e-3


def test_stacked_and_single_maps_are_merged_alike():
    rng = np.random.default_rng(0)
    kernel, a, b = rng.normal(size=(2, 4, 3, 5)), rng.normal(size=(2, 4, 6)), rng.normal(size=(2, 6, 3, 5))
    both = merged(*(np.float32(x) for x in (kernel, a, b)), 0.5)
    for layer in range(2):
        expected = kernel[layer] + 0.5 * np.einsum("ir,rhk->ihk", a[layer], b[layer])
        assert np.allclose(both[layer], expected, atol=1e-5)
    output = rng.normal(size=(3, 5, 4)), rng.normal(size=(3, 5, 6)), rng.normal(size=(6, 4))
    expected = output[0] + 2 * np.einsum("hkr,ro->hko", *output[1:])
    assert np.allclose(merged(*(np.float32(x) for x in output), 2.0), expected, atol=1e-4)


def test_the_small_folder_is_the_model(tuned, tmp_path):
    assert main(["export", str(tuned / "run"), "--format", "lora", "--out", str(tmp_path / "small")]) == 0
    assert np.array_equal(embeddings(vlc.load(tmp_path / "small")), embeddings(vlc.load(tuned / "run")))
    size, whole = ((folder / name).stat().st_size for folder, name in (
        (tmp_path / "small", "lora.safetensors"), (tuned / "base", "model.safetensors")))  # fmt: skip
    assert size < 0.5 * whole
    meta = json.loads((tmp_path / "small" / "lora.json").read_text())
    assert meta["base"] == str(tuned / "base")
    with pytest.raises(CheckpointError, match="no LoRA"):
        vlc.inference.export_lora(tuned / "base", "last", tmp_path / "none")


def test_a_base_that_is_another_or_gone_is_told(tuned, tiny_import, tmp_path):
    main(["export", str(tuned / "run"), "--format", "lora", "--out", str(tmp_path / "small")])
    path = tmp_path / "small" / "lora.json"
    meta = json.loads(path.read_text())
    path.write_text(json.dumps(meta | {"base": str(tmp_path / "nowhere")}))
    with pytest.raises(CheckpointError, match=r"cannot be loaded.*no such file"):
        vlc.load(tmp_path / "small")
    other = jax.tree.map(lambda x: x + 1, tiny_import.params)
    write_native(dataclasses.replace(tiny_import, params=other), tmp_path / "other")
    path.write_text(json.dumps(meta | {"base": str(tmp_path / "other")}))
    with pytest.raises(CheckpointError, match="made for another model"):
        vlc.load(tmp_path / "small")
    path.write_text(json.dumps(meta))
    weights = tmp_path / "small" / "lora.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8] + b"00000000")
    with pytest.raises(CheckpointError, match="checksum"):
        vlc.load(tmp_path / "small")


def test_before_and_after_are_mixed(tuned, tiny_import, tmp_path):
    """WiSE-FT of a base and LoRA on it, though the run had another alpha and other crops."""
    paths = [str(tuned / "base"), str(tuned / "run")]
    assert main(["mix", *paths, "--weights", "3,1", "--out", str(tmp_path / "mixed")]) == 0
    before, after, mixed = (leaves(vlc.load(path).params) for path in (*paths, tmp_path / "mixed"))
    assert all(np.allclose(x, 0.75 * before[name] + 0.25 * after[name], atol=1e-6) for name, x in mixed.items())


def test_lora_beside_nothing_is_told(tmp_path):
    config = read_config("clip_b16", "smoke")
    config.model.lora.rank, config.mesh.fsdp = 2, 1
    assert any("without config.init" in line for line in config_warnings(config))
    assert train(config, tmp_path / "run") == 0
    assert main(["export", str(tmp_path / "run"), "--format", "lora", "--out", str(tmp_path / "small")]) == 2
    assert not (tmp_path / "small").exists()
    config.model.lora.matrices = ()
    with pytest.raises(ConfigError, match="names no matrix"):
        nnx.eval_shape(lambda: build_model(resolve_auto(config, "cpu"), 300, jax.random.key(0)))


def test_a_run_goes_on_and_its_merged_model_can_be_tuned_again(tuned, tmp_path):
    model = vlc.load(tuned / "run").as_imported()
    export_model(model, tmp_path / "whole", "safetensors")
    config = read_config("clip_b16", "smoke")
    config.init, config.mesh.fsdp = str(tmp_path / "whole"), 1
    config.model.lora.update({"rank": 2, "matrices": ("text_tower/*/query",)})
    assert train(config, tmp_path / "again", load_initial=load_initial) == 0
    config.steps += 2
    assert train(config, tmp_path / "again", load_initial=load_initial) == 0
    again = read_run(place(tmp_path / "again"))
    assert {name for name in leaves(again.params) if is_lora(name)} == {
        f"text_tower/stack/blocks/attention/query/{part}/value" for part in ("lora_in", "lora_out")
    }
    assert merge_lora(merge_lora(again)).config.model.lora.rank == 0


def test_heads_alone_are_trained_on_request(tiny_import):
    config = tiny_import.config.copy_and_resolve_references()
    config.optimizer.trained = ("image_embed", "log_scale")
    still = leaves(is_frozen(tiny_import.params, config.optimizer))
    assert {name for name, hold in still.items() if not hold} == {
        name for name in still if name.startswith(("image_embed/", "log_scale"))
    }
    config.optimizer.frozen = config.optimizer.trained
    with pytest.raises(ConfigError, match="nothing is left"):
        is_frozen(tiny_import.params, config.optimizer)
    config.optimizer.trained, config.optimizer.frozen = ("image_embd",), ()
    with pytest.raises(ConfigError, match=r'optimizer.trained: no parameter is called "image_embd"'):
        is_frozen(tiny_import.params, config.optimizer)


@pytest.mark.parametrize("causal", [True, False])
def test_prompt_vectors_that_are_words_give_the_text_with_these_words(tokenizer, causal):
    config = tiny_config(model__text__causal=causal, model__text__length=20, model__decoder__layers=0)
    plain = build_model(config, tokenizer.vocab_size, jax.random.key(1))
    config.model.text.update({"prompts": 3, "positions": 20, "length": 17})
    prompted = build_model(config, tokenizer.vocab_size, jax.random.key(1))
    prompted = with_weights_of(plain, prompted)
    words = tokenizer.encode(["a small red"], 20)[0]
    prompted.text_tower.prompts[...] = plain.text_tower.embed.tokens[...][words[1:4]]
    short = jnp.asarray(tokenizer.encode(["circle", "star and ring"], 17))
    whole = jnp.concatenate([short[:, :1], jnp.broadcast_to(words[1:4], (2, 3)), short[:, 1:]], axis=1)
    ours, theirs = prompted.encode_text(short), plain.encode_text(whole)
    if config.model.text.pool != "mean":
        np.testing.assert_allclose(ours.embed, theirs.embed, atol=1e-5)
    real = np.asarray(ours.mask)
    np.testing.assert_allclose(ours.tokens[:, 1:][real[:, 1:]], theirs.tokens[:, 4:][real[:, 1:]], atol=1e-5)


def with_weights_of(source, target):
    theirs, (graph, ours) = nnx.state(source, nnx.Param).flat_state(), nnx.split(target)
    known = dict(theirs)
    for path, value in ours.flat_state():
        if path in known:
            value[...] = known[path][...]
    return nnx.merge(graph, ours)


def test_prompt_vectors_alone_are_trained(tiny_import, tuned, tmp_path):
    config = read_config("clip_b16", "smoke")
    config.init, config.mesh.fsdp, config.model.text.prompts = str(tuned / "base"), 1, 2
    config.optimizer.trained = ("text_tower/prompts",)
    assert train(config, tmp_path / "run", load_initial=load_initial) == 0
    before, after = leaves(tiny_import.params), leaves(vlc.load(tmp_path / "run").params)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert after.keys() - before.keys() == {"text_tower/prompts/value"}
    made = vlc.load(tmp_path / "run").config.model.text
    assert made.length == tiny_import.config.model.text.length - 2 and made.positions == made.length + 2
    assert vlc.load(tmp_path / "run").encode_text(TEXTS).tokens.shape[1] == made.length
    with pytest.raises(ConfigError, match=r"need as many positions"):
        check_config(tiny_config(model__text__prompts=4))
    reading = {"model__decoder__reads": "text", "model__text__prompts": 2, "model__text__positions": 20}
    with pytest.raises(ConfigError, match=r"does not go with config.model.text.prompts"):
        check_config(tiny_config(**reading))


def test_a_matrix_that_is_not_there_is_named(tiny_import):
    config = tiny_import.config.copy_and_resolve_references()
    config.model.lora.update({"rank": 2, "matrices": ("quary",)})
    with pytest.raises(ConfigError, match=r'no matrix is called "quary".*Did you mean "query"'):
        nnx.eval_shape(lambda: build_model(config, 300, jax.random.key(0)))
