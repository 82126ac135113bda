"""What each filter drops, that it is counted, and that a filter which cannot be is said."""

import json

import numpy as np
import pytest

from tests.data.damage import picture
from vlc.curate import duplicates
from vlc.curate.filters import parse_filters, run_filters
from vlc.curate.selection import select
from vlc.curate.stats import as_table, summarise
from vlc.curate.survey import Survey, scripts_of, survey
from vlc.data.controls import even_bins
from vlc.data.record import Source
from vlc.data.sources import open_source
from vlc.data.workers import share_work
from vlc.errors import ConfigError, DataError


def make_source(folder, rows, pictures=None):
    """A folder of images `0.jpg`, `1.jpg`, ... with captions by source."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for i, captions in enumerate(rows):
        data = pictures[i] if pictures else picture(i)
        (folder / f"{i}.jpg").write_bytes(data)
        lines.append(json.dumps({"image": f"{i}.jpg", "captions": captions}))
    (folder / "captions.jsonl").write_text("\n".join(lines))
    return open_source(str(folder))


def left(tmp_path, source, *steps):
    """What is left, as key to captions, and the counts."""
    selection = select(source, steps, tmp_path / "work")
    records = [selection[i] for i in range(len(selection))]
    return {int(record.key.split(".")[0]): record.captions for record in records}, selection.dropped


def texts(*captions):
    return [{"text": [caption]} for caption in captions]


def test_words_drop_captions_and_the_images_that_have_no_other(tmp_path):
    source = make_source(tmp_path, [{"alt": ["one two three"], "long": ["x"]}, {"alt": ["one"]}, {"alt": ["a b"]}])
    kept, counts = left(tmp_path, source, "words(min=2)")
    assert kept == {0: {"alt": ("one two three",)}, 2: {"alt": ("a b",)}}
    assert counts == [{"step": "words(min=2)", "images": 1, "captions": 2}]


def test_a_text_filter_leaves_other_sources_alone(tmp_path):
    source = make_source(tmp_path, [{"alt": ["x"], "long": ["y"]}, {"alt": ["x"]}])
    kept, _ = left(tmp_path, source, "words(min=2, source='alt*')")
    assert kept == {0: {"long": ("y",)}}


def test_image_size(tmp_path):
    sizes = [(300, 200), (199, 300), (601, 200), (600, 200)]
    source = make_source(tmp_path, texts(*"abcd"), [picture(i, size) for i, size in enumerate(sizes)])
    assert set(left(tmp_path, source, "image_size(short=200, aspect=3)")[0]) == {0, 3}
    assert set(left(tmp_path, source, "align_image")[0]) == set()  # ALIGN wants more than 200


def test_repeated_captions(tmp_path):
    source = make_source(tmp_path, texts(*["Same"] * 2, "same", "other"))
    kept, counts = left(tmp_path, source, "repeated(images=2)")
    assert set(kept) == {3} and counts[0]["images"] == 3
    assert len(left(tmp_path, source, "repeated(images=3)")[0]) == 4


def test_captions_with_rare_words_or_pairs(tmp_path):
    source = make_source(tmp_path, texts("a b", "a b", "b a", "a zz"))
    # a 4, b 3, "a b" 2; then "b a", "zz" and "a zz" once each
    assert set(left(tmp_path, source, "frequent(top=3)")[0]) == {0, 1}
    assert len(left(tmp_path, source, "frequent(top=100)")[0]) == 4


def test_scripts_file_names_and_patterns(tmp_path):
    source = make_source(tmp_path, texts("a dog", "собака", "犬です", "IMG_1234", "beach.jpg", "dog park", "123"))
    assert set(left(tmp_path, source, "script(name='latin')")[0]) == {0, 3, 4, 5}
    assert set(left(tmp_path, source, "script(name='cyrillic')")[0]) == {1}
    assert set(left(tmp_path, source, "not_file_name")[0]) == {0, 1, 2, 5, 6}
    assert set(left(tmp_path, source, "without(pattern='DOG')")[0]) == {1, 2, 3, 4, 6}
    assert scripts_of("ab Ж 漢") == {"latin": 2, "cyrillic": 1, "cjk": 1}


def test_too_many_captions(tmp_path):
    source = make_source(tmp_path, [{"alt": ["a", "b", "c"]}, {"alt": ["a"]}])
    assert set(left(tmp_path, source, "captions_per_image(max=2)")[0]) == {1}


def test_images_of_a_test_set_are_found_after_resizing_and_compression(tmp_path):
    make_source(tmp_path / "test", texts("a", "b"), [picture(100, (300, 200)), picture(101)])
    source = make_source(tmp_path / "train", texts("x", "y", "z"), [picture(1), picture(100, (90, 60)), picture(2)])
    kept, counts = left(tmp_path, source, f"not_in(data='{tmp_path / 'test'}')")
    assert set(kept) == {0, 2} and counts[0]["images"] == 1


def test_one_of_each_group_that_looks_alike(tmp_path):
    sizes = [(60, 40), (120, 80), (90, 60), (150, 100)]
    pictures = [picture(7, size) for size in sizes] + [picture(8)]
    source = make_source(tmp_path, texts(*"abcde"), pictures)
    assert set(left(tmp_path, source, "unique(keep=1)")[0]) == {0, 4}
    assert set(left(tmp_path, source, "unique(keep=2)")[0]) == {0, 3, 4}


def test_clusters_are_sampled_evenly(tmp_path):
    source = make_source(tmp_path, texts(*map(str, range(12))))
    features = np.array([[0.0, 0], [9, 9]])[[0] * 8 + [1] * 4] + np.random.default_rng(0).normal(0, 0.1, (12, 2))
    np.savez(tmp_path / "f.npz", keys=np.array([f"{i}.jpg" for i in range(12)]), features=features)
    kept, _ = left(tmp_path, source, f"clusters(features='{tmp_path / 'f.npz'}', count=2, keep=0.5)")
    assert len([i for i in kept if i < 8]) == 4 and len([i for i in kept if i >= 8]) == 2
    np.savez(tmp_path / "g.npz", keys=np.array(["0.jpg"]), features=features[:1])
    with pytest.raises(DataError, match="no features of 11 images"):
        select(source, [f"clusters(features='{tmp_path / 'g.npz'}')"], tmp_path / "other")


def test_scores(tmp_path):
    source = make_source(tmp_path, [{"text": ["a", "b"]}, {"text": ["c"]}, {"text": ["d"]}, {"text": ["e"]}])
    rows = [{"key": f"{i}.jpg", "score": score} for i, score in enumerate([0.9, 0.1, 0.5])]
    (tmp_path / "s.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert set(left(tmp_path, source, f"score(file='{tmp_path / 's.jsonl'}', keep=0.5)")[0]) == {0, 2}
    assert set(left(tmp_path, source, f"score(file='{tmp_path / 's.jsonl'}', min=0.1)")[0]) == {0, 1, 2}
    rows = [{"key": "0.jpg", "caption": "b", "score": 0.9}, {"key": "0.jpg", "caption": "a", "score": 0.1}]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert left(tmp_path, source, f"score(file='{tmp_path / 'c.jsonl'}', min=0.5)")[0] == {0: {"text": ("b",)}}
    (tmp_path / "n.jsonl").write_text('{"key": "0.jpg", "score": "high"}')
    with pytest.raises(DataError, match="no number in a column 'score'"):
        select(source, [f"score(file='{tmp_path / 'n.jsonl'}', min=0)"], tmp_path / "other")


def test_steps_are_applied_in_turn_and_each_is_counted(tmp_path):
    source = make_source(tmp_path, texts("a b c", "a", "a b c", "IMG_1.jpg", "d e f"))
    kept, counts = left(tmp_path, source, "filip", "words(min=2)", "repeated(images=1)")
    assert kept == {}  # FILIP's size rule: all are small
    assert [(step["step"].split("(")[0], step["images"]) for step in counts] == [
        ("image_size", 5), ("script", 0), ("not_file_name", 0), ("repeated", 0), ("words", 0), ("repeated", 0)
    ]  # fmt: skip
    kept, counts = left(tmp_path, source, "words(min=2)", "repeated(images=1)")
    assert set(kept) == {4} and [step["images"] for step in counts] == [2, 2]


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("wrods(min=3)", 'Did you mean "words"'),
        ("words(mn=3)", 'Did you mean "min"'),
        ("words(3)", "with names"),
        ("words(min=", "cannot be read"),
        ("words(min=x)", "numbers or strings"),
        ("not_in", "needs data="),
        ("__import__('os')", "with names"),
        ("os()", "There is no filter 'os'"),
    ],
)
def test_a_filter_that_cannot_be_is_said(step, said):
    with pytest.raises(ConfigError, match=said):
        parse_filters([step])


@pytest.mark.parametrize("step", ["score(file='x', keep=2)", "score(file='x')", "without(pattern='(')"])
def test_values_that_cannot_be_are_said(step, tmp_path):
    source = make_source(tmp_path, texts("a"))
    with pytest.raises(ConfigError):
        select(source, [step], tmp_path / "work")


def test_a_selection_is_of_the_records_that_it_was_made_from(tmp_path):
    source = make_source(tmp_path, texts("a", "b"))
    select(source, ["words(min=1)"], tmp_path / "work")
    more = make_source(tmp_path, texts("a", "b", "c"))
    with pytest.raises(DataError, match="selected from 2 records, and the source has 3 now"):
        select(more, ["words(min=1)"], tmp_path / "work")


def test_groups_of_hashes_against_all_pairs(rng):
    hashes = rng.integers(0, 2**63, 60, dtype=np.uint64)
    near = np.concatenate([hashes, hashes[:20] ^ np.uint64(0b1011), hashes[:5]])
    found = duplicates.groups(near, 3)
    distance = np.bitwise_count(near[:, None] ^ near[None])
    expected = np.arange(len(near))
    for _ in range(len(near)):  # the least member that can be reached
        expected = np.where(distance <= 3, expected[None], len(near)).min(axis=1)
    assert np.array_equal(found, expected)
    assert np.array_equal(duplicates.near_any(near, hashes[:3], 3), (distance[:, :3] <= 3).any(axis=1))


def test_a_survey_goes_on_where_it_was_stopped_and_does_not_depend_on_workers(tmp_path, monkeypatch):
    monkeypatch.setattr("vlc.curate.survey._PART", 4)
    source = make_source(tmp_path / "a", texts(*map(str, range(10))))
    looked = []

    class Watched(Source):
        def __len__(self):
            return len(source)

        def __getitem__(self, index):
            looked.append(index)
            if len(looked) == 7:
                raise KeyboardInterrupt
            return source[index]

    with pytest.raises(KeyboardInterrupt):
        survey(Watched(), tmp_path / "one")
    found = survey(Watched(), tmp_path / "one")
    assert looked.count(0) == 1 and isinstance(found, Survey)
    assert list(found.texts) == list(survey(source, tmp_path / "two", workers=2).texts) == [str(i) for i in range(10)]


def test_the_numbers_of_a_set(tmp_path):
    rows = [{"alt": ["собака"], "long": ["A dog. It runs."]}, {"alt": ["a dog"]}, {"alt": ["a dog"]}, {"alt": ["x"]}]
    pictures = [picture(0, (50, 100)), picture(0, (100, 200)), picture(1), b"broken"]
    source = make_source(tmp_path, rows, pictures)
    found = summarise(survey(source, tmp_path / "work"), source)
    assert (found["records"], found["usable"], found["left out"]) == (4, 3, {"not a readable image": 1})
    alt = found["captions"]["alt"]
    assert (alt["count"], alt["different"], alt["scripts"]) == (3, 2, {"latin": 2, "cyrillic": 1})
    assert found["captions"]["long"]["sentences"][2] == 2
    assert found["images"]["longer side"][4] == 200 and found["images"]["formats"] == {"JPEG": 3}
    assert found["duplicates"]["groups that look alike"] == 1
    assert found["duplicates"]["captions of several images"] == 1
    table = as_table(found)
    assert "3 of 4 records can be used" in table and "cyrillic 33.3%" in table


def test_a_filter_sees_only_what_is_left(tmp_path):
    source = make_source(tmp_path, texts("a", "a", "b"))
    found = survey(source, tmp_path / "work")
    steps = parse_filters(["without(pattern='b')", "repeated(images=1)"])
    assert run_filters(found, steps, lambda spec: found).images.tolist() == [False, False, False]


def killed(shared, task):
    """Ends its process as the system does when memory runs out."""
    import os
    import signal

    if task == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return task


@pytest.mark.slow
def test_a_killed_worker_is_said_not_waited_for():
    with pytest.raises(DataError, match=r"A worker process was killed.*there were 2"):
        list(share_work(killed, None, range(6), workers=2))


def scores_of(tmp_path, *rows):
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(tmp_path / "s.jsonl")


def test_a_score_that_is_none_keeps_nothing(tmp_path):
    source = make_source(tmp_path, texts(*"abcdef"))
    values = [0.9, float("nan"), 0.5, 0.1, None]
    rows = [{"key": f"{i}.jpg", "score": value} for i, value in enumerate(values) if value is not None]
    file = scores_of(tmp_path, *rows)
    assert set(left(tmp_path, source, f"score(file='{file}', min=0.3)")[0]) == {0, 2}
    assert set(left(tmp_path, source, f"score(file='{file}', keep=0.67)")[0]) == {0, 2}, "two thirds of the scored"
    assert set(left(tmp_path, source, f"score(file='{file}', keep=0.01)")[0]) == {0}, "a small share is one at least"


def test_rows_of_images_count_beside_rows_of_captions(tmp_path):
    source = make_source(tmp_path, [{"text": ["a", "b"]}, {"text": ["c"]}, {"text": ["d"]}])
    file = scores_of(
        tmp_path, {"key": "0.jpg", "caption": "a", "score": 0.1}, {"key": "0.jpg", "score": 0.9},
        {"key": "1.jpg", "score": 0.8}, {"key": "2.jpg", "score": 0.2},
    )  # fmt: skip
    kept, _ = left(tmp_path, source, f"score(file='{file}', min=0.5)")
    assert kept == {0: {"text": ("b",)}, 1: {"text": ("c",)}}


def test_clusters_that_could_drop_nothing_and_features_that_are_none_are_said(tmp_path):
    source = make_source(tmp_path, texts(*"abcdef"))
    features = np.eye(6)
    np.savez(tmp_path / "f.npz", keys=[f"{i}.jpg" for i in range(6)], features=features)
    with pytest.raises(ConfigError, match=r"of 6 images each cluster would have about 0.0.*Set count to 1 or less"):
        select(source, [f"clusters(features='{tmp_path / 'f.npz'}', keep=0.4)"], tmp_path / "one")
    features[3, 2] = np.nan
    np.savez(tmp_path / "n.npz", keys=[f"{i}.jpg" for i in range(6)], features=features)
    with pytest.raises(DataError, match=r"the features of 3.jpg \(row 3\) hold numbers that are not finite"):
        select(source, [f"clusters(features='{tmp_path / 'n.npz'}', count=2, keep=0.5)"], tmp_path / "two")


def test_bins_do_not_see_scores_that_are_none():
    assert even_bins([0.0, float("nan"), 1.0], 2) == even_bins([0.0, 1.0], 2)
