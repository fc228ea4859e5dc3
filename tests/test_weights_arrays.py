"""Files of clusters: the numbers come out as they went in, and nothing in a file is ever run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from vidgen.errors import CheckpointError
from vidgen.weights.arrays import read_array_dictionary


def _clusters() -> dict[int, np.ndarray]:
    rng = np.random.default_rng(0)
    return {7: rng.random((10, 3)), 26: rng.random((4, 3)).astype(np.float32), 33: np.asfortranarray(rng.random((2, 3)))}


def _write(path: Path, value: object, protocol: int) -> Path:
    """As numpy wrote it in the time of each protocol."""
    array = np.empty((), object)
    array[()] = value
    np.save(path, np.empty((), object), allow_pickle=True)
    header = path.read_bytes()[: 10 + int.from_bytes(path.read_bytes()[8:10], "little")]
    path.write_bytes(header + pickle.dumps(array, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_a_dictionary_of_arrays_is_read_from_every_protocol(tmp_path: Path, protocol: int) -> None:
    path = _write(tmp_path / "features_clustered_010.npy", _clusters(), protocol)
    read = read_array_dictionary(path)
    assert list(read) == [7, 26, 33]
    for label, expected in _clusters().items():
        np.testing.assert_array_equal(read[label], expected)
        assert read[label].dtype == expected.dtype


def test_what_numpy_writes_today_is_read_and_numbers_as_keys_too(tmp_path: Path) -> None:
    array = np.empty((), object)
    array[()] = {np.int64(26): np.ones((2, 3), ">f4")}
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    read = read_array_dictionary(tmp_path / "a.npy")
    np.testing.assert_array_equal(read[26], np.ones((2, 3)))


class _Payload:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple:
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("where", ["value", "key", "whole", "in an array"])
def test_code_in_a_file_of_clusters_never_runs(tmp_path: Path, protocol: int, where: str) -> None:
    canary = tmp_path / "canary"
    payload = _Payload(f"touch {canary}")
    inner = np.empty(1, object)
    inner[0] = payload
    content = {"value": {7: payload}, "key": {payload: np.ones(3)}, "whole": payload, "in an array": {7: inner}}[where]
    with pytest.raises(CheckpointError, match="refused"):
        read_array_dictionary(_write(tmp_path / "a.npy", content, protocol))
    assert not canary.exists()


@pytest.mark.parametrize(
    "content",
    [{7: "text"}, {7: [1, 2]}, {"car": np.ones(3)}, {7: np.array(["a"])}, {7: np.array([np.nan])}, [1, 2], {1.5: np.ones(3)}],
)
def test_anything_but_arrays_of_numbers_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(CheckpointError):
        read_array_dictionary(_write(tmp_path / "a.npy", content, 4))


def test_a_plain_array_a_missing_file_and_a_text_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "plain.npy", np.ones(3))
    (tmp_path / "text.npy").write_text("hello")
    for name in ("plain.npy", "text.npy", "none.npy"):
        with pytest.raises(CheckpointError, match=name):
            read_array_dictionary(tmp_path / name)


def test_a_damaged_file_gives_one_clear_error_or_numbers(tmp_path: Path) -> None:
    whole = _write(tmp_path / "a.npy", _clusters(), 3).read_bytes()
    rng = np.random.default_rng(0)
    for trial in range(400):
        data = bytearray(whole[: rng.integers(len(whole))] if trial % 2 else whole)
        if data:
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        (tmp_path / "b.npy").write_bytes(bytes(data))
        try:
            read = read_array_dictionary(tmp_path / "b.npy")
        except CheckpointError:
            continue
        assert all(np.isfinite(value).all() for value in read.values())
