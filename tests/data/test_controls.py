"""What a caption is asked to be: slots in training, and at writing; scores that travel with the data."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from tests.tiny import tiny_config
from vlc.curate.build import Plan, build
from vlc.data.captions import CaptionChoice, Mix
from vlc.data.controls import Controls, even_bins, parse_control, slot_sizes
from vlc.data.images import Preprocess
from vlc.data.pipeline import Lengths, MakeExample
from vlc.data.record import Record, Source
from vlc.data.sources import Scenes, open_source
from vlc.errors import ConfigError
from vlc.train.inputs import find_controls, shown_controls

SAID = Controls(length=6, bins=3, edges=(0.1, 0.3), sources=("alt", "long*"), dropout=0.0)


def test_slots_say_length_fit_and_kind(rng):
    assert SAID.kinds == ("length", "alignment", "source")
    assert SAID.describe("a red ball", "alt", 0.05, rng).tolist() == [3, 1, 1]
    assert SAID.describe("a red ball", "longVLC", 0.2, rng).tolist() == [3, 2, 2]
    assert SAID.describe("one two three four five six seven", "short", 0.3, rng).tolist() == [0, 3, 0]
    assert SAID.describe("a red ball", "alt", float("nan"), rng, cut=True).tolist() == [0, 0, 1]
    control = SimpleNamespace(length=6, alignment=3, sources="alt, long*")
    assert slot_sizes(control) == (7, 4, 3)
    assert slot_sizes(SimpleNamespace(length=0, alignment=0, sources="")) == ()


def test_a_share_is_left_unsaid_slot_by_slot(rng):
    some = Controls(length=6, bins=3, edges=(0.1, 0.3), sources=("alt",), dropout=0.25)
    slots = np.stack([some.describe("a red ball", "alt", 0.2, rng) for _ in range(2000)])
    np.testing.assert_allclose((slots == 0).mean(axis=0), 0.25, atol=0.04)
    assert abs(np.corrcoef(slots[:, 0] == 0, slots[:, 2] == 0)[0, 1]) < 0.1


def test_asking():
    assert SAID.encode({"length": 4, "alignment": "best", "source": "long"}).tolist() == [4, 3, 2]
    assert SAID.encode({}).tolist() == [0, 0, 0]
    assert Controls().encode({}).tolist() == []


WRONG = {
    "another control": ({"mood": 1}, "it has length, alignment, source"),
    "too long": ({"length": 7}, "from 1 to 6"),
    "no number": ({"alignment": "good"}, 'from 1 to 3 or "best"'),
    "another source": ({"source": "poem"}, "knows alt, long"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_asked_for_is_named(case):
    request, said = WRONG[case]
    with pytest.raises(ConfigError, match=said):
        SAID.encode(request)
    with pytest.raises(ConfigError, match=r"config\.model\.decoder\.control empty"):
        Controls().encode({"length": 3})


def test_what_training_never_showed_cannot_be_asked_for():
    learnt = dataclasses.replace(SAID, length=24, lengths=(*range(2, 10), 12), shown_bins=(1, 3), present=("alt",))
    assert learnt.encode({"length": 12, "alignment": 3, "source": "alt"}).tolist() == [12, 3, 1]
    for request, said in (
        ({"length": 1}, "training showed no caption of this length.* It showed 2 to 9, 12"),
        ({"length": 24}, "no caption of this length"),
        ({"alignment": 2}, "no caption of this alignment"),
        ({"source": "long"}, "training showed no caption of this source, only of alt"),
    ):
        with pytest.raises(ConfigError, match=said):
            learnt.encode(request)


def test_what_the_data_show_is_found():
    config = tiny_config(model__decoder__control__length=24, model__decoder__control__sources="alt,long,poem*")
    config.data.captions.mix = "alt:1,long:2"
    found = shown_controls(config, Scenes(side=16, length=200))
    lengths = {len(text.split()) for i in range(200) for name in ("alt", "long") for text in Scenes().captions(i)[name]}
    assert found["lengths"] == tuple(sorted(n for n in lengths if n <= 24)) and 1 not in found["lengths"]
    assert found["present"] == ("alt", "long") and found["bins"] == ()


def test_what_was_learnt_is_kept_and_what_is_asked_counts():
    """A resumed run keeps what its checkpoint has, a new one adds to what it starts from, and the config is heard."""
    asked = {"model__decoder__control__length": 500, "model__decoder__control__sources": "alt,long"}
    data, fresh = Scenes(side=16, length=50), tiny_config(**asked)
    find_controls(fresh, data, None)
    shown = tuple(fresh.model.decoder.control.lengths)
    assert len(shown) > 3 and 499 not in shown
    begun = tiny_config(**asked)
    begun.model.decoder.control.update({"lengths": (3, 499), "present": ("alt",)})
    resumed = tiny_config(**asked)
    find_controls(resumed, data, begun)
    assert resumed.model.decoder.control.lengths == (3, 499) and resumed.model.decoder.control.present == ("alt",)
    other = tiny_config(**asked)
    other.model.decoder.control.lengths = (5,)
    find_controls(other, data, begun)  # what differs from the checkpoint is refused later, not passed over
    assert other.model.decoder.control.lengths == (5,)
    find_controls(begun, data, None)  # a new run from that model
    assert begun.model.decoder.control.lengths == tuple(sorted({*shown, 3, 499}))


def test_what_is_typed_is_read():
    assert parse_control("length=8, alignment=best") == {"length": 8, "alignment": "best"} and parse_control("") == {}


def test_bins_are_of_one_width():
    edges, best = even_bins([0.0, 0.1, 0.4, 0.8], 4)
    assert edges == pytest.approx((0.2, 0.4, 0.6)) and best == 4
    crowd = [0.0, *[0.3] * 20, *[0.5] * 20, 0.8]  # one of 42 is alone at the top
    assert even_bins(crowd, 4)[1] == 3
    assert (
        Controls(bins=4, best=3).encode({"alignment": "best"}) == 3
        and Controls(bins=4).encode({"alignment": "best"}) == 4
    )
    for scores in ([], [0.2, 0.2]):
        with pytest.raises(ConfigError, match="--num-return-sequences 0"):
            even_bins(scores, 4)


class Scored(Source):
    """Two scenes with a score for every caption."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        record = Scenes(side=16)[index]
        scores = {name: tuple(0.1 * (index + i) for i in range(len(texts))) for name, texts in record.captions.items()}
        return Record(record.key, record.image, record.captions, scores=scores | {"alt": (float("nan"),)})


def test_scores_travel_with_the_captions(tmp_path):
    """Also through a filter that drops captions: the others keep theirs."""
    build(Scored(), Plan("scored"), tmp_path / "all")
    build(Scored(), Plan("scored", filters=("words(min=7)",)), tmp_path / "long")
    for folder in ("all", "long"):
        for index, record in enumerate(open_source(str(tmp_path / folder))):
            for name, texts in record.captions.items():
                there = [Scored()[index].captions[name].index(text) for text in texts]
                np.testing.assert_allclose(record.scores[name], [Scored()[index].score(name, i) for i in there])
    assert "reference" not in open_source(str(tmp_path / "long"))[0].captions


def test_an_example_has_the_slots_of_its_target(tokenizer, rng):
    choice = CaptionChoice(Mix({"alt": 1.0}), target=Mix({"long": 1.0}))
    controls = Controls(length=90, bins=2, edges=(0.05,), sources=("alt", "long"), dropout=0.0)
    make = MakeExample(Scored(), Preprocess(size=16), choice, tokenizer, Lengths(8, 8, 90), controls=controls)
    record = Scored()[0]
    example = make.make(record, rng)
    ids = [tokenizer.encode([text], 90)[0].tolist() for text in record.captions["long"]]
    place = ids.index(example["target"].tolist())
    words = len(record.captions["long"][place].split())
    assert example["control"].tolist() == [words, 1 + (record.score("long", place) > 0.05), 2]
    short = MakeExample(Scored(), Preprocess(size=16), choice, tokenizer, Lengths(8, 8, 12), controls=controls)
    assert short.make(record, rng)["control"][0] == 0  # the model does not see its end
