"""Shared fixtures: where real data and parity files are, and one thread so that results do not depend on the machine."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def _folder(variable: str, default: str) -> Path:
    folder = Path(os.environ.get(variable, REPOSITORY.parent / "shared" / default))
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent (set {variable})")
    return folder


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Real clips, images and flow ground truth."""
    return _folder("VIDGEN_DATA", "data")


@pytest.fixture(scope="session")
def parity_root() -> Path:
    """Weights, inputs and outputs of the original networks."""
    return _folder("VIDGEN_PARITY", "parity")


@pytest.fixture(autouse=True, scope="session")
def _interrupts_are_heard() -> None:
    """A shell starts what runs in its background deaf to Ctrl-C, and our children would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
