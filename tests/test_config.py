"""Every setting has a range that its default lies in; what is outside is one error, what is seldom meant a warning."""

import math

import pytest

from tests.conftest import ROOT, read_config
from vlc.config import check_config, config_warnings, default_config, get_key
from vlc.config.reference import reference_page
from vlc.config.sections import Settings
from vlc.data.sources import open_source
from vlc.errors import ConfigError
from vlc.settings import walk
from vlc.train.inputs import data_warnings

SETTINGS = dict(walk(Settings))
WRONG = [
    ("model.text.length", 1, "a whole number, 3 or more"),
    ("model.init_logit_scale", 0.0, "above 0"),
    ("optimizer.ema", 1.5, "below 1"),
    ("data.image.mean", (0.5,), "3 numbers"),
    ("data.image.std", (0.5, 0.0, 0.5), "above 0"),
    ("data.image.crop_scale", (0.9, 0.5), "rising order"),
    ("objectives.clip.label_smoothing", -0.5, "0 or more and below 1"),
    ("objectives.clip.label_smoothing", 1.5, "0 or more and below 1"),
    ("objectives.grouping.threshold", 1.5, "-1 or more and below 1"),
    ("objectives.filip.smoothing", -1.0, "0 or more"),
    ("objectives.filip.weight", -1.0, "0 or more"),
    ("objectives.clip.weight", math.nan, "0 or more"),
    ("data.captions.merge", 0, "1 or more"),
    ("data.captions.sub_captions", -1, "0 or more"),
    ("optimizer.lr", math.inf, "0 or more"),
    ("optimizer.b2", 1.0, "below 1"),
    ("model.decoder.parallel", 2.0, "from 0 to 1"),
    ("optimizer.schedule", "cosin", 'Did you mean "cosine"'),
    ("data.image.resize", "stretch", "Known: crop"),
]  # fmt: skip


def changed(key, value):
    config = default_config()
    *parents, last = key.split(".")
    target = get_key(config, ".".join(parents)) if parents else config
    with target.ignore_type():
        target[last] = value
    return config


@pytest.mark.parametrize("key, value, said", WRONG, ids=lambda x: str(x)[:40])
def test_a_value_out_of_range_is_one_error_that_says_the_range(key, value, said):
    with pytest.raises(ConfigError, match=rf"config\.{key} is .*{said}"):
        check_config(changed(key, value))


@pytest.mark.parametrize("key", SETTINGS)
def test_the_default_is_allowed_and_no_setting_takes_what_is_not_its_kind(key):
    setting = SETTINGS[key]
    setting.check(key, setting.default)
    assert setting.help and setting.range
    for wrong in (None, object(), math.nan):
        assert not setting.allows(wrong), wrong
    if isinstance(setting.default, int) and not isinstance(setting.default, bool):
        assert not setting.allows(0.5) and not setting.allows(True)


def test_images_can_be_resized_in_all_ways_that_preprocessing_knows():
    for way in ("squash", "crop", "pad", "shortest", "longest"):
        check_config(changed("data.image.resize", way))


def test_the_reference_page_is_that_of_the_declarations():
    assert (ROOT / "docs" / "config.md").read_text() == reference_page(), (
        "python -m vlc.config.reference > docs/config.md"
    )


def test_a_warm_up_longer_than_the_run_is_a_warning():
    config = default_config()
    assert config_warnings(config) == []
    config.optimizer.warmup_steps = config.steps + 1
    (warning,) = config_warnings(config)
    assert "warmup_steps=1001 is more than config.steps=1000" in warning


def test_what_the_data_lack_is_a_warning_each(tmp_path):
    lines = [f'{{"image": "{i}.jpg", "captions": {{"alt": ["a dog"]}}}}' for i in range(4)]
    (tmp_path / "captions.jsonl").write_text("\n".join(lines))
    config = default_config()
    config.data.train, config.batch_size = str(tmp_path), 4
    source = open_source(str(tmp_path))  # its images are never read
    assert data_warnings(config, source) == []
    config.data.captions.mix, config.batch_size = "alt:0.5,long*:0.5", 8
    large, mix = data_warnings(config, source)
    assert "config.batch_size=8 is more than the 4 records" in large
    assert "config.data.captions.mix names long*, which none of the sampled records has; they have alt" in mix


def test_the_smoke_form_takes_ones_own_data(tmp_path):
    """It names no caption source that only scenes have."""
    for name in ("quickstart", "own_images", "flickr8k", "captioner_frozen", "dreamlip_b16_cc3m"):
        captions = read_config(name, "smoke").data.captions
        assert not (captions.mix or captions.target or captions.slots or captions.sub_sources), name
