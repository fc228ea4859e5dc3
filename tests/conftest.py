"""Shared fixtures: where real data and parity files are, and one thread so that results do not depend on the machine."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the programs that tests start; read when torch is imported

import pytest
import torch

from vidgen import cli

REPOSITORY = Path(__file__).resolve().parents[1]
_STARTED = time.monotonic()


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Real clips, images and flow ground truth."""
    folder = Path(os.environ.get("VIDGEN_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent (set VIDGEN_DATA)")
    return folder


@pytest.fixture(scope="session")
def parity_root() -> Path:
    """Weights, inputs and outputs of the original networks."""
    return Path(__file__).with_name("data") / "parity"


@pytest.fixture(autouse=True, scope="session")
def _temporary_files_lie_with_those_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What a process that a test kills leaves behind goes with the folders of the tests, of which pytest keeps the newest."""
    folder = str(tmp_path_factory.mktemp("temporary"))
    os.environ.setdefault("RAY_TMPDIR", tempfile.gettempdir())  # its sockets have no room for a long path
    os.environ["TMPDIR"] = tempfile.tempdir = folder


@pytest.fixture(autouse=True, scope="session")
def _one_thread_from_the_start() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _one_thread_again() -> Iterator[None]:
    """Commands that a test calls may set another number."""
    yield
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _log_as_at_first() -> Iterator[None]:
    """The command line, called in this process by a test or by what a test is prepared with, sets levels and handlers for good."""
    _reset_log()
    yield
    _reset_log()


def _reset_log() -> None:
    for name, level in (
        (None, logging.WARNING),
        ("vidgen", logging.NOTSET),
        ("flow", logging.NOTSET),
        ("py.warnings", logging.NOTSET),
    ):
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.handlers[:] = [handler for handler in logger.handlers if not isinstance(handler, cli.Log)]
    logging.captureWarnings(False)
    logging.disable(logging.NOTSET)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how long the whole run took, to watch that the tests stay quick."""
    ran = sum(len(terminalreporter.stats.get(kind, ())) for kind in ("passed", "failed"))
    minutes, seconds = divmod(round(time.monotonic() - _STARTED), 60)
    terminalreporter.write_line(f"{ran} tests in {minutes} min {seconds} s")


@pytest.fixture(autouse=True, scope="session")
def _interrupts_are_heard() -> None:
    """A shell starts what runs in its background deaf to Ctrl-C, and our children would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
