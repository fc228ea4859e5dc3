"""What the processes of one training leave to each other: none changes the folder of a run that another still reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from vidgen.commands import train as command
from vidgen.training import parallel
from vidgen.training.run import Folder


def test_a_run_is_cleared_only_when_every_process_has_read_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny.write_config(tmp_path, tiny.write_data(tmp_path / "data"), "pix2pixhd")
    out = tmp_path / "run"
    command.train(config, out, steps=1, sets=["train.checkpoint_every_steps=100"])
    for checkpoint in (out / "checkpoints").iterdir():  # as a run that was stopped before its first one
        checkpoint.rename(tmp_path / checkpoint.name)
    events: list[str] = []

    def noted(name: str, function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            events.append(name)
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(parallel, "wait_for_all", noted("all are here", parallel.wait_for_all))
    monkeypatch.setattr(command, "_check_same_run", noted("read", command._check_same_run))
    monkeypatch.setattr(Folder, "clear", noted("clear", Folder.clear))
    monkeypatch.setattr(Folder, "write_config", noted("write", Folder.write_config))
    command.train(config, out, steps=1, sets=["train.checkpoint_every_steps=100"])
    assert events[events.index("read") :] == ["read", "all are here", "clear", "write", "all are here"]
