"""`vlc caption --data`: the same data set however it was stopped or shared, with scores that are true."""

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import read_config
from tests.inference.test_captioning import captioner
from vlc.config import check_config
from vlc.curate.build import verify
from vlc.data.record import Record, Source
from vlc.data.sources import Scenes, open_source
from vlc.errors import ConfigError, DataError
from vlc.generate import DecodingOptions
from vlc.inference import recaption as module
from vlc.inference.captioning import CaptionRequest
from vlc.inference.recaption import Recaption, recaption
from vlc.train.inputs import alignment_bins

ASKED = CaptionRequest(1.5, DecodingOptions(num_return_sequences=3, top_p=0.9, seed=4), control={"source": "long"})
WANTED = Recaption("scenes", request=ASKED, shard_records=4)


@pytest.fixture(scope="module")
def model(tokenizer):
    return captioner(tokenizer)


@pytest.fixture(scope="module")
def source():
    return Scenes(side=16, length=10)


@pytest.fixture(scope="module")
def whole(model, source, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    recaption(model, source, WANTED, out, reranker=model, quiet=True)
    return out


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_captions_stand_beside_the_old_ones_with_their_scores(model, source, whole):
    assert verify(whole) == []
    written = open_source(str(whole))
    assert len(written) == 10
    for index in (0, 7):
        record = written[index]
        assert {name: record.captions[name] for name in source[index].captions} == dict(source[index].captions)
        new = record.captions["longVLC"]
        expected = module.generate_captions(model, source[index].image[None], ASKED, indices=np.asarray([index]))[0]
        assert set(new) == {caption.text for caption in expected if caption.text}
        assert list(record.scores["longVLC"]) == sorted(record.scores["longVLC"], reverse=True)
        for name, texts in record.captions.items():
            np.testing.assert_allclose(record.scores[name], model.score(record.image, texts)[0], atol=1e-5)


class _Stop(Exception):
    pass


def test_stopped_it_goes_on_to_the_same_bytes(model, source, whole, tmp_path, monkeypatch):
    real, calls = module.write_shard, []

    def failing(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise _Stop
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_shard", failing)
        with pytest.raises(_Stop):
            recaption(model, source, WANTED, tmp_path, reranker=model, quiet=True)
    counted = []
    monkeypatch.setattr(module, "write_shard", lambda *a: counted.append(a[1]) or real(*a))
    recaption(model, source, WANTED, tmp_path, reranker=model, quiet=True)
    assert len(counted) == 2 and files(tmp_path) == files(whole)
    recaption(model, source, WANTED, tmp_path, reranker=model, quiet=True)
    assert len(counted) == 2  # done


def test_processes_share_the_shards(model, source, whole, tmp_path):
    assert recaption(model, source, WANTED, tmp_path, reranker=model, part=1, parts=2, quiet=True) is None
    assert recaption(model, source, WANTED, tmp_path, reranker=model, part=0, parts=2, quiet=True) is not None
    assert files(tmp_path) == files(whole)


def test_another_wish_in_the_same_folder_is_refused(model, source, whole):
    other = Recaption("scenes", request=CaptionRequest(2.0, ASKED.decoding), shard_records=4)
    with pytest.raises(DataError, match="built otherwise"):
        recaption(model, source, other, whole, reranker=model, quiet=True)


def test_the_misaligned_are_dropped_and_the_best_kept(model, source, whole, tmp_path):
    """Scores alone, of the data set with new captions: nothing is written anew, captions below the bar go, and those of
    an earlier round stay, though they are called as new ones would be."""
    had = [open_source(str(whole))[i] for i in range(10)]
    bar = float(np.median([s for record in had for s in record.flat_scores()]))
    wanted = Recaption("whole", request=None, min_score=bar, keep=1, name="longVLC")
    manifest = recaption(model, open_source(str(whole)), wanted, tmp_path, reranker=model, quiet=True)
    kept = list(open_source(str(tmp_path)))
    assert all(score >= bar for record in kept for score in record.flat_scores())
    good = [[s for s in record.flat_scores() if s >= bar] for record in had]
    assert manifest["records"] == sum(map(bool, good))
    by_key = {record.key: record for record in kept}
    for record in had:
        best = max(record.scores["longVLC"])
        assert ("longVLC" in by_key[record.key].captions) == (best >= bar), record.key
    left = manifest["left out"]["records"]
    assert left.get("no caption left", 0) == 10 - manifest["records"]
    with pytest.raises(DataError, match="Lower --min-score"):
        none = Recaption("whole", request=None, min_score=2.0)
        recaption(model, open_source(str(whole)), none, tmp_path / "none", reranker=model, quiet=True)


class Damaged(Source):
    """Two good images between a damaged one and a record that cannot be read."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if index == 3:
            raise DataError("gone", "file")
        return Record(str(index), b"no image" if index == 0 else np.full((20, 20, 3), 90, np.uint8), {"alt": ("x",)})


def test_what_cannot_be_read_is_left_out_and_counted(model, tmp_path):
    manifest = recaption(model, Damaged(), WANTED, tmp_path, reranker=model, quiet=True)
    assert manifest["records"] == 2 and manifest["left out"]["records"] == {"image": 1, "file": 1}
    assert [record.key for record in open_source(str(tmp_path))] == ["1", "2"]


def test_scores_become_the_bins_of_alignment(whole):
    """A captioner trained on the data set learns how well each caption fits; the edges stay with it."""
    config = read_config("captioner_frozen", "smoke")
    config.model.decoder.control.alignment = 4
    source = open_source(str(whole))
    scores = [score for record in source for score in record.flat_scores()]
    edges, _ = alignment_bins(config, source)
    assert np.allclose(edges, np.linspace(min(scores), max(scores), 5)[1:-1])
    config.model.decoder.control.edges = edges
    check_config(config)
    assert alignment_bins(config, source) == (edges, 0)
    with pytest.raises(ConfigError, match="no scores"):
        config.model.decoder.control.edges = ()
        alignment_bins(config, Scenes(side=16, length=3))


def test_a_wish_that_cannot_be_met_leaves_nothing_behind(model, source, tmp_path):
    wanted = Recaption("x", request=CaptionRequest(control={"length": 99}))
    with pytest.raises(ConfigError, match="from 1 to 5"):
        recaption(model, source, wanted, tmp_path / "out", reranker=model, quiet=True)
    assert not (tmp_path / "out").exists()


def test_without_a_judge_nothing_can_be_dropped(model, source, tmp_path):
    for wanted in (Recaption("x", min_score=0.1), Recaption("x", keep=1), Recaption("x", request=None)):
        with pytest.raises(ConfigError, match="--reranker MODEL"):
            recaption(model, source, wanted, tmp_path, quiet=True)
