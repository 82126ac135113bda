"""Every config builds at full size without computing anything, and trains two steps in its smoke form."""

import jax
import pytest

from tests.conftest import ROOT, read_config
from vlc.config import check_config, config_from_json, resolve_auto
from vlc.train import train
from vlc.train.lowering import batch_shapes, rollout_shapes
from vlc.train.optimizer import make_optimizer
from vlc.train.state import count_parameters, init_state

QUICK = ("quickstart", "dreamlip_b16_cc3m", "captioner_frozen")  # which together have most of the objectives
NAMES = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))


def test_the_promised_configs_are_there():
    wanted = "quickstart flickr8k clip_b16 align_b16 siglip_b16 filip_b32 filip_l14 dreamlip_b16_cc3m captioner_b16 "
    wanted += "captioner_finetune captioner_frozen cappa_b16"
    assert set(wanted.split()) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_builds_at_full_size(name):
    config = read_config(name)
    check_config(config)
    run = resolve_auto(config, "tpu")
    optimizer = make_optimizer(run.optimizer, run.steps)
    shapes = jax.eval_shape(lambda: init_state(run, run.data.vocab_size, optimizer, jax.random.key(0)))
    millions = count_parameters(shapes["params"]) / 1e6
    small = {
        "quickstart": (1, 3),
        "captioner_frozen": (1, 3),
        "regions": (1, 4),
        "rewards": (1, 4),
        "flickr8k": (2, 8),
        "own_images": (2, 8),
    }
    low, high = (small | {"filip_l14": (400, 450), "siglip2_b16": (800, 860)}).get(name, (140, 400))
    assert low < millions < high


FORMS = {
    "quickstart": ("plain", "places"),
    "rewards": ("judge", "cider", "clip_s", "grammar", "fluent", "both", "units", "dpo", "best", "kl", "group"),
}


@pytest.mark.parametrize(("name", "form"), [(name, form) for name, forms in FORMS.items() for form in forms])
def test_forms_go_together_and_say_what_a_batch_is(name, form):
    config = read_config(name, form)
    check_config(config)
    shapes = batch_shapes(resolve_auto(config, "cpu"))
    assert ("hard" in shapes) == (form == "places")
    assert ("broken" in shapes) == (form == "judge")
    assert ("sampled" in rollout_shapes(config)) == (name == "rewards" and form != "judge")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_its_smoke_form_trains_two_steps(name, tmp_path):
    config = read_config(name, "smoke")
    assert train(config, tmp_path) == 0
    assert (tmp_path / "checkpoints" / "2").is_dir()


@pytest.mark.parametrize("name", NAMES)
def test_it_survives_json(name):
    import json

    config = read_config(name)
    again = config_from_json(json.loads(config.to_json_best_effort()))
    assert again.to_json_best_effort() == config.to_json_best_effort()


@pytest.mark.parametrize("name", NAMES)
def test_its_docstring_has_the_command(name):
    text = (ROOT / "configs" / f"{name}.py").read_text()
    assert f"vlc train --config configs/{name}.py" in text
