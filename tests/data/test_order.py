"""In which order records are visited: mixtures, epochs, and what a change of processes leaves as it was."""

import numpy as np
import pytest

from vlc.data.captions import CaptionChoice, Mix
from vlc.data.images import Preprocess
from vlc.data.order import visits
from vlc.data.pipeline import Lengths, MakeExample, train_batches
from vlc.data.sources import Mixture, Scenes, open_mixture
from vlc.errors import ConfigError


def mixture(rule: str, weights=(5, 3, 2), lengths=(700, 500, 90)) -> Mixture:
    names = "abc"[: len(weights)]
    sources = {name: Scenes(side=8, length=n, seed=i) for i, (name, n) in enumerate(zip(names, lengths, strict=True))}
    return Mixture(sources, dict(zip(names, weights, strict=True)), rule)


def test_a_mixture_of_three_over_100_000_draws():
    lengths = (16_000, 9_000, 5_000)  # long ones: Grain shuffles short ranges slowly
    order = visits(mixture("weights", lengths=lengths), seed=1)
    drawn = np.array([order[i] for i in range(100_000)])
    starts = np.cumsum([0, *lengths])
    parts = np.searchsorted(starts[1:], drawn, side="right")
    shares = np.bincount(parts) / len(drawn)
    bound = 4 * np.sqrt(np.array([0.5, 0.3, 0.2]) * np.array([0.5, 0.7, 0.8]) / len(drawn))
    assert (np.abs(shares - [0.5, 0.3, 0.2]) <= bound).all()
    for part, length in enumerate(lengths):  # each source goes through exact epochs of its own
        own = drawn[parts == part]
        epochs = own[: len(own) // length * length].reshape(-1, length)
        assert (np.sort(epochs, axis=1) == np.arange(length) + starts[part]).all()
        assert not np.array_equal(epochs[0], epochs[1])
    for start in (0, 777, 50_000):  # any stretch has the shares, to within a draw
        counts = np.bincount(parts[start : start + 1000], minlength=3)
        assert (np.abs(counts - [500, 300, 200]) <= 2).all()


def test_epochs_are_exact_where_asked():
    source = mixture("epochs", weights=(1, 2, 3), lengths=(70, 50, 9))
    order = visits(source, seed=1)
    epoch = 70 + 2 * 50 + 3 * 9
    for number in range(3):
        drawn = np.array([order[number * epoch + i] for i in range(epoch)])
        counts = np.bincount(drawn, minlength=129)
        assert (counts == [1] * 70 + [2] * 50 + [3] * 9).all()


def test_the_records_of_a_mixture_are_those_of_its_sources():
    source = mixture("weights", lengths=(7, 5, 3))
    assert len(source) == 15
    for index, (name, own) in {0: ("a", 0), 6: ("a", 6), 7: ("b", 0), 14: ("c", 2)}.items():
        assert source[index].key == source.sources[name][own].key
    with pytest.raises(IndexError):
        source[15]


@pytest.mark.parametrize(
    ("weights", "rule", "said"),
    [
        ({"a": 0.0}, "weights", "must be positive"),
        ({"a": 1.5}, "epochs", "a whole number"),
        ({"b": 1.0}, "weights", "names 'b', but config.data.sources has a"),
        ({"a": 1.0}, "shares", "must be one of"),
    ],
)
def test_a_mixture_that_cannot_be_is_said(weights, rule, said):
    with pytest.raises(ConfigError, match=said):
        open_mixture({"a": "scenes"}, weights, rule)


@pytest.fixture(scope="module")
def make(request):
    tokenizer = request.getfixturevalue("tokenizer")
    return MakeExample(
        Scenes(side=16, length=203), Preprocess(12, crop_scale=(0.5, 1.0), flip=True), CaptionChoice(Mix({})),
        tokenizer, Lengths(8, 8, 8),
    )  # fmt: skip


def keys(make, start, stop, **options):
    """Index and pixels of every example of the global batches from `start` to `stop`."""
    processes = options.pop("processes", 1)
    steps = [set() for _ in range(start, stop)]
    for process in range(processes):
        rows = range(process, 8, processes)
        batches = train_batches(make, batch_size=8, seed=4, start_step=start, rows=rows, **options)
        for step in steps:
            batch = next(batches)
            step |= {(int(i), image.tobytes()) for i, image in zip(batch["index"], batch["image"], strict=True)}
        batches.close()
    return steps


def test_exact_return_in_fifty_random_trials(make):
    rng = np.random.default_rng(0)
    whole = keys(make, 0, 60)
    for _ in range(50):
        killed = int(rng.integers(1, 50))
        end = killed + int(rng.integers(1, 5))
        before = keys(
            make, max(0, killed - 3), killed, processes=int(rng.choice([1, 2, 4])), threads=int(rng.integers(1, 4))
        )
        after = keys(make, killed, end, processes=int(rng.choice([1, 2, 4])), threads=int(rng.integers(1, 4)))
        assert before + after == whole[max(0, killed - 3) : end]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [3])
def test_a_return_with_another_number_of_workers(make, workers):
    assert keys(make, 5, 9, workers=workers, processes=2) == keys(make, 5, 9)


def test_fewer_processes_in_the_middle_of_an_epoch(make):
    """203 records in batches of 8: 4 processes for ten steps, 2 for eight, 1 to the end of the epoch."""
    parts = keys(make, 0, 10, processes=4) + keys(make, 10, 18, processes=2) + keys(make, 18, 26)
    seen = [index for step in parts for index, _ in step]
    assert len(seen) == 208
    rest = keys(make, 25, 26)[0]
    assert len(set(seen[:200])) == 200  # none twice before the epoch ends
    assert {index for step in parts[:25] for index, _ in step} | {index for index, _ in rest} == set(range(203))
