"""A run that starts from another model keeps its towers, tokenizer and pixels; what is frozen stays, bit for bit."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

import vlc
from tests.conftest import read_config
from tests.tiny import leaves, tiny_batch, tiny_config, tiny_model
from vlc.errors import CheckpointError, ConfigError
from vlc.inference import load_initial
from vlc.interop import write_native
from vlc.interop.load import abstract_params, fill, paths_of
from vlc.train import train
from vlc.train.frozen import is_frozen
from vlc.train.initial import inherit_architecture
from vlc.train.optimizer import make_optimizer
from vlc.train.step import loss_and_gradient

FROZEN = ("image_tower", "text_tower", "image_embed", "text_embed", "image_token", "text_token")


@pytest.fixture(scope="module")
def trained(tiny_import, tmp_path_factory):
    """A captioner with control and parallel prediction on a frozen dual encoder of another size than the config's."""
    folder = tmp_path_factory.mktemp("initial")
    write_native(tiny_import, folder / "model")
    config = read_config("captioner_frozen", "smoke")
    config.model.image.width = 16  # of config.init, not of the config
    config.model.decoder.parallel = 0.5
    config.init = str(folder / "model")
    assert train(config, folder / "run", load_initial=load_initial) == 0
    return folder, config


def test_towers_stay_and_the_captioner_learns(trained, tiny_import, tokenizer):
    folder, _ = trained
    model = vlc.load(folder / "run")
    assert model.tokenizer.to_json() == tokenizer.to_json() and model.preprocess == tiny_import.preprocess
    before, after = leaves(tiny_import.params), leaves(model.params)
    for name, array in before.items():
        if name.split("/")[0] in FROZEN:
            assert np.array_equal(array, after[name]), name
    assert {name.split("/")[0] for name in after.keys() - before.keys()} == {"decoder"}
    assert {"decoder/control/value", "decoder/mask/value"} <= after.keys()
    image = np.zeros((16, 16, 3), np.uint8)
    assert len(model.captions(image, control={"length": 3}, max_new_tokens=4)[0]) == 1


def test_a_run_with_frozen_parameters_is_resumed(trained, tiny_import, tmp_path, capsys):
    folder, config = trained
    config = config.copy_and_resolve_references()
    shutil.copytree(folder / "run", tmp_path / "run")
    config.steps += 1
    assert train(config, tmp_path / "run", load_initial=load_initial) == 0
    assert f"Resuming from step {config.steps - 1}" in capsys.readouterr().out
    before, after = leaves(tiny_import.params), leaves(vlc.load(tmp_path / "run").params)
    assert all(np.array_equal(before[name], after[name]) for name in before if name.split("/")[0] in FROZEN)


@pytest.mark.slow
def test_it_goes_on_and_starts_a_further_run(trained, tmp_path, capsys):
    """The captioner is taken over with the towers and its control; its mask token only for parallel prediction."""
    folder, config = trained
    config = config.copy_and_resolve_references()
    config.init, config.model.decoder.parallel = str(folder / "run"), 0.0
    config.model.decoder.control.sources = "alt,long"
    with pytest.raises(ConfigError, match=r"its \['decoder'\]\['control'\].value is \(25, 32\), but .* \(28, 32\)"):
        train(config, tmp_path / "other", load_initial=load_initial)
    config.model.decoder.control.update({"length": 0, "sources": ""})  # nothing named: the captioner's own stays
    assert train(config, tmp_path, load_initial=load_initial) == 0
    assert "new: nothing" in capsys.readouterr().out
    further = vlc.load(tmp_path)
    assert further.config.model.decoder.control.length == 24
    before, after = leaves(vlc.load(folder / "run").params), leaves(further.params)
    assert before.keys() - after.keys() == {"decoder/mask/value"} and after.keys() <= before.keys()
    assert all(np.array_equal(before[name], after[name]) for name in after if name.startswith("image_tower"))
    assert not np.array_equal(before["decoder/control/value"], after["decoder/control/value"])


def test_it_goes_on_when_the_model_that_it_started_from_is_gone(trained, tmp_path):
    folder, config = trained
    config = config.copy_and_resolve_references()
    shutil.copytree(folder / "run", tmp_path / "run")
    config.steps, config.init = config.steps + 1, str(tmp_path / "gone")
    assert train(config, tmp_path / "run", load_initial=load_initial) == 0


def test_what_the_model_sets_otherwise_is_said(trained, tmp_path, capsys):
    config = trained[1].copy_and_resolve_references()
    config.model.image.patch, config.model.text.length = 7, 33
    assert train(config, tmp_path, load_initial=load_initial) == 0
    said = capsys.readouterr().out
    assert "keeps its own architecture, not what this config asks for" in said
    assert "config.model.image.patch is 7, the model has 8" in said and "config.model.text.length is 33" in said


@pytest.mark.parametrize("tower", ["image", "text"])
def test_a_model_of_one_tower_starts_a_dual_encoder(tiny_import, tmp_path, tower):
    """Locked-image tuning (Zhai et al., CVPR 2022), and its mirror image."""
    config = tiny_import.config.copy_and_resolve_references()
    other = {"image": "text", "text": "image"}[tower]
    config.model[other].layers = config.model.decoder.layers = 0
    if tower == "image":
        config.model.image.projection, config.model.embed_dim = "none", config.model.image.width
    parts = dataclasses.replace(
        tiny_import, config=config, tokenizer=tiny_import.tokenizer if tower == "text" else None,
        preprocess=tiny_import.preprocess if tower == "image" else None,
    )  # fmt: skip
    shapes = paths_of(abstract_params(config, parts.tokenizer))
    ours = paths_of(tiny_import.params)
    params = fill(abstract_params(config, parts.tokenizer), {path: ours[path] for path in shapes})
    write_native(dataclasses.replace(parts, params=params), tmp_path / "one")

    made = read_config("clip_b16", "smoke")
    made.init, made.mesh.fsdp = str(tmp_path / "one"), 1
    made.optimizer.frozen = (f"{tower}_tower",)
    assert train(made, tmp_path / "run", load_initial=load_initial) == 0
    model = vlc.load(tmp_path / "run")
    before, after = leaves(tiny_import.params), leaves(model.params)
    names = [name for name in after if name.startswith(f"{tower}_tower")]
    assert names and all(np.array_equal(before[name], after[name]) for name in names)
    assert np.exp(after["log_scale/value"]) == pytest.approx(made.model.init_logit_scale, rel=0.01)
    assert model.score(np.zeros((20, 30, 3), np.uint8), ["a red ball", "two dogs"]).shape == (1, 2)
    assert after["image_embed/kernel/value"].shape[-1] == made.model.embed_dim


def test_frozen_parameters_have_no_gradient_and_no_state():
    config = tiny_config(optimizer__frozen=("image_tower", "text_tower/embed"))
    graph, params = tiny_model(config)
    step = jax.jit(lambda p, b: loss_and_gradient(graph, p, b, config.objectives, 1, config.optimizer)[2])
    gradient = leaves(step(params, tiny_batch(config)))
    still = leaves(is_frozen(params, config.optimizer))
    assert {name for name, hold in still.items() if hold} == {
        name for name in gradient if name.startswith(("image_tower/", "text_tower/embed/"))
    }
    assert not any(gradient[name].any() for name, hold in still.items() if hold)
    assert all(gradient[name].any() for name in still if name.startswith(("decoder/stack", "text_tower/stack")))
    states = leaves(make_optimizer(config.optimizer, 10).init(params))
    assert not any("image_tower" in name for name in states) and any("decoder" in name for name in states)


def test_bad_starts_are_named(tmp_path):
    config = read_config("captioner_frozen", "smoke")
    config.init = str(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="load_initial"):
        train(config, tmp_path)
    with pytest.raises(CheckpointError, match="no such file or folder"):
        train(config, tmp_path, load_initial=load_initial)
    with pytest.raises(ConfigError, match='no parameter is called "image_towr"'):
        is_frozen(tiny_model(tiny_config())[1], tiny_config(optimizer__frozen=("image_towr",)).optimizer)


@pytest.mark.slow
def test_what_is_for_training_alone_stays_the_config_s(tmp_path):
    """Dropped patches, prototypes and how attention is computed; and a model of squares goes on with any shape."""
    first = read_config("quickstart", "smoke")
    first.model.image.update({"drop_patches": 0.5, "stem": "patch", "positions": "learned"})
    assert train(first, tmp_path / "first") == 0
    given = load_initial(str(tmp_path / "first"))
    second = read_config("quickstart", "smoke")
    second.init = str(tmp_path / "first")
    second.model.image.update({"prototypes": 8, "stem": "patch", "positions": "learned"})
    second.model.attention = "splash"
    second.data.image.update({"resize": "naflex", "size": 48})
    made = inherit_architecture(second, given)
    assert made.model.image.drop_patches == 0 and made.model.image.prototypes == 8 and made.model.attention == "splash"
    assert made.model.image.grid == 4 and made.data.image.size == 48 and made.data.image.resize == "naflex"
    assert train(second, tmp_path / "second", load_initial=load_initial) == 0
    model = vlc.load(tmp_path / "second")
    before, after = leaves(given.params), leaves(model.params)
    assert before["image_tower/positions/value"].shape == after["image_tower/positions/value"].shape == (16, 32)
    wide = model.encode_image(np.zeros((20, 90, 3), np.uint8))
    assert wide.mask.sum() <= 36 and wide.embed.shape == (1, 32)
