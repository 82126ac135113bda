"""Captions written, judged and learnt from by several processes: as by one."""

import pytest

from tests.conftest import ROOT
from tests.inference.test_captioning import captioner
from tests.launch.runs import VLC, launch, metrics
from tests.launch.test_local import finish, same_run
from vlc.interop import write_native


@pytest.mark.slow
def test_two_processes_are_rewarded_as_one(tokenizer, tmp_path):
    """The judge compares each caption with the images of both."""
    write_native(captioner(tokenizer, data__train="scenes").as_imported(), tmp_path / "judge")
    rows = {}
    for processes in (1, 2):
        workdir = tmp_path / f"run{processes}"
        command = [
            *VLC, "train", "--config", f"{ROOT / 'configs' / 'rewards.py'}:smoke", "--workdir", str(workdir),
            "--config.steps=4", "--config.log_every=1", "--config.eval.every=100000",
            "--config.reward.terms=self_retrieval:1,length:-0.1", f"--config.reward.judge={tmp_path / 'judge'}",
        ]  # fmt: skip
        finish(launch(processes, 2 // processes, command))
        rows[processes] = metrics(workdir)
    assert len(rows[1]) == 4
    same_run(rows[2], rows[1])
    assert len({row["loss"] for row in rows[1].values()}) == 4
