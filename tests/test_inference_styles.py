"""Styles: clusters of what was there, in a file that holds only numbers; an object keeps its style."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vidgen.errors import CheckpointError, ConfigError, InputError
from vidgen.inference.styles import StyleAssignment, Styles, cluster, gather, object_features

ROAD, CAR = 0, 1


def _rows(vectors: list[list[float]], share: float = 0.1) -> np.ndarray:
    return np.array([[*vector, share] for vector in vectors], np.float32)


def test_clusters_are_the_styles_that_were_there_the_most_frequent_first() -> None:
    rng = np.random.default_rng(0)
    red, blue = rng.normal([0.8, -0.8], 0.02, (30, 2)), rng.normal([-0.8, 0.8], 0.02, (10, 2))
    centres = cluster({CAR: _rows([*red.tolist(), *blue.tolist()])}, 2)[CAR]
    assert centres.shape == (2, 2)
    np.testing.assert_allclose(centres, [[0.8, -0.8], [-0.8, 0.8]], atol=0.03)
    assert np.array_equal(centres, cluster({CAR: _rows([*red.tolist(), *blue.tolist()])}, 2)[CAR])


def test_a_class_has_no_more_styles_than_objects_and_small_objects_count_only_where_there_is_no_large_one() -> None:
    mixed = np.concatenate([_rows([[1, 1], [0.5, 0.5]]), _rows([[-1, -1]], share=0.001)])
    found = cluster({ROAD: mixed, CAR: _rows([[-1, -1]], share=0.001)}, 10)
    assert sorted(found[ROAD].tolist()) == [[0.5, 0.5], [1, 1]]
    assert found[CAR].tolist() == [[-1, -1]]


def test_features_of_objects_come_with_their_class_and_share() -> None:
    labels, regions = np.array([[ROAD, CAR], [ROAD, CAR], [-1, CAR], [-1, CAR]]), np.array([[7, 26], [7, 26], [0, 27], [0, 27]])
    features = (regions / 100).astype(np.float32)[None]
    found = {item.number: item for item in object_features(features, labels, regions)}
    assert (found[26].label, found[27].label, found[0].label, found[26].share) == (CAR, CAR, -1, 0.25)
    assert found[27].vector == pytest.approx([0.27])
    assert {label: len(rows) for label, rows in gather(found.values()).items()} == {ROAD: 1, CAR: 2}


def test_what_is_written_is_read_again_and_other_files_are_refused(tmp_path: Path) -> None:
    made = Styles({CAR: np.array([[0.5, 0.25]], np.float32), 33: np.zeros((2, 2), np.float32)}, {"data": "städte"})
    made.write(tmp_path / "s.safetensors")
    read = Styles.read(tmp_path / "s.safetensors")
    assert {label: centres.tolist() for label, centres in read.centres.items()} == {CAR: [[0.5, 0.25]], 33: [[0, 0], [0, 0]]}
    assert read.origin == {"data": "städte"}
    (tmp_path / "other.safetensors").write_bytes(b"\x80\x02ccode")
    with pytest.raises(CheckpointError):
        Styles.read(tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match=r"style 2: class 33 has the styles 0\.\.1"):
        read.one(33, 2)
    with pytest.raises(ConfigError, match=r"class 5 has no styles; classes with styles: \[1, 33\]"):
        read.one(5, 0)
    with pytest.raises(InputError, match="one width"):
        Styles({0: np.zeros((1, 2), np.float32), 1: np.zeros((1, 3), np.float32)})


def test_choices_win_over_the_draw_and_an_object_keeps_its_style_from_frame_to_frame() -> None:
    styles = Styles({CAR: np.arange(20, dtype=np.float32).reshape(10, 2)})
    labels = np.array([[ROAD, CAR, CAR, CAR]])
    instances = np.array([[ROAD, 1001, 1002, 1003]])
    style = StyleAssignment(2, styles, of_object={1002: np.array([-1.0, -2.0])})
    features = style.features(labels, instances)
    assert features.shape == (2, 1, 4)
    assert features.dtype == np.float32
    assert features[:, 0, 0].tolist() == [0, 0]
    assert features[:, 0, 2].tolist() == [-1, -2]
    assert features[:, 0, 1].tolist() in styles.centres[CAR].tolist()
    moved = style.features(labels[:, ::-1], instances[:, ::-1])
    assert np.array_equal(moved, features[:, :, ::-1])
    everything = StyleAssignment(2, styles, of_class={CAR: np.array([9.0, 9.0])}).features(labels, instances)
    assert everything[0].tolist() == [[0, 9, 9, 9]]
    draws = {tuple(StyleAssignment(2, styles, seed=seed).features(labels, instances)[:, 0, 3].tolist()) for seed in range(20)}
    assert len(draws) > 3
