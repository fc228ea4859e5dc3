"""What a page draws as curves: scores frame by frame, losses step by step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidgen.metrics.score import METRICS, base_of
from vidgen.pages.templates import finite
from vidgen.training.history import read_history

MAX_POINTS = 2000
_DIGITS = 6

Columns = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class _Curve:
    """A curve of an output, and that of the reference beside it where there is one; both from per-frame columns."""

    key: str
    of_output: Callable[[Columns], np.ndarray]
    of_reference: Callable[[Columns], np.ndarray] | None = None
    title: str | None = None
    unit: str | None = None


_CURVES = (
    _Curve("flicker_global", lambda c: 255 * np.abs(c["luma_bend"])),
    _Curve("flicker_local", lambda c: 255 / 2 * np.sqrt(c["block_flicker"])),
    _Curve(
        "motion_ratio",
        lambda c: c["motion_output"] / c["motion_pixels"],
        lambda c: c["motion_reference"] / c["motion_pixels"],
        "motion",
        "pixels per frame",
    ),
    _Curve("motion_fidelity", lambda c: c["motion_wrong"] / c["motion_reference"]),
    _Curve("sharpness_ratio", lambda c: c["sharpness"] / c["sharpness_reference"]),
)
OF_REFERENCE = ("warp_error_target", "warp_error_source")


def frame_charts(columns: Mapping[str, Columns]) -> list[dict[str, Any]]:
    """One chart for each quantity known frame by frame: a curve for each output, and one for the reference.

    Args:
        columns: by the name of the output.
    """
    charts = [_derived(curve, columns) for curve in _CURVES]
    keys = dict.fromkeys(key for values in columns.values() for key in values if base_of(key) in METRICS)
    plain = [_plain(key, columns) for key in keys if base_of(key) not in (*OF_REFERENCE, "textured")]
    return sorted((chart for chart in (*charts, *plain) if chart is not None), key=lambda chart: _rank(chart["key"]))


def _rank(key: str) -> tuple[bool, int, str]:
    """The catalog's order, the shortest distances first; what only says how far to trust the others comes last."""
    names = list(METRICS)
    metric = METRICS[base_of(key)]
    return metric.better == "context" or key.partition("@")[2] not in ("", "1"), names.index(base_of(key)), key


def _derived(curve: _Curve, columns: Mapping[str, Columns]) -> dict[str, Any] | None:
    series = [_series(name, index, _computed(curve.of_output, values)) for index, (name, values) in enumerate(columns.items())]
    if curve.of_reference is not None:
        series.append(_reference([_computed(curve.of_reference, values) for values in columns.values()]))
    return _chart(curve.key, curve.title or curve.key, curve.unit or METRICS[curve.key].unit, series)


def _computed(formula: Callable[[Columns], np.ndarray], columns: Columns) -> np.ndarray:
    with np.errstate(all="ignore"):
        try:
            return formula(columns)
        except KeyError:
            return np.empty(0)


def _plain(key: str, columns: Mapping[str, Columns]) -> dict[str, Any] | None:
    series = [_series(name, index, values.get(key, np.empty(0))) for index, (name, values) in enumerate(columns.items())]
    if base_of(key) == "warp_error":
        stride = key.partition("@")[2]
        curves = [
            values[f"{name}@{stride}"] for name in OF_REFERENCE for values in columns.values() if f"{name}@{stride}" in values
        ]
        series.append(_reference(curves))
    if (
        METRICS[base_of(key)].better == "context"
        and METRICS[base_of(key)].needs
        and len({str(item) for item in _drawn(series)}) == 1
    ):
        series = [_reference([next(values[key] for values in columns.values() if key in values)])]
    return _chart(key, key, METRICS[base_of(key)].unit, series)


def _drawn(series: Iterable[dict[str, Any] | None]) -> list[Any]:
    return [item["values"] for item in series if item is not None]


def _chart(key: str, title: str, unit: str, series: Iterable[dict[str, Any] | None]) -> dict[str, Any] | None:
    present = [item for item in series if item is not None]
    if not present:
        return None
    metric = METRICS[base_of(key)]
    better = metric.better if title == key else ""
    return {"key": key, "title": title, "unit": unit, "better": better, "about": metric.about, "series": present}


def _series(name: str, color: int | None, values: np.ndarray) -> dict[str, Any] | None:
    if not np.isfinite(values).any():
        return None
    return {"name": name, "color": color, "values": [_rounded(value) for value in values]}


def _reference(curves: Sequence[np.ndarray]) -> dict[str, Any] | None:
    """The curve of the reference, which is one for all outputs."""
    usable = [values for values in curves if np.isfinite(values).any()]
    return _series("reference", None, usable[0]) if usable else None


def _rounded(value: float) -> float | None:
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None


# --- training -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Training:
    """What `metrics.jsonl` of a run tells.

    Attributes:
        charts: one for each loss, and one for the learning rate.
        steps: the steps of the points of every curve.
        marks: where a stage starts: (step, its name).
        num_steps: the last step.
        faults: what could not be read, in words.
    """

    charts: list[dict[str, Any]]
    steps: list[float]
    marks: list[tuple[float, str]]
    num_steps: int
    faults: list[str]


def read_training(path: Path) -> Training:
    """The losses of a run, averaged over neighboring steps where there are more than `MAX_POINTS`."""
    history = read_history(path)
    lines = history.lines
    faults = [] if history.fault is None else [history.fault]
    num_skipped = sum(1 for line in lines if line.skipped_updates)
    if num_skipped:
        faults.append(f"{num_skipped} steps skipped an update because a loss was not finite")
    names = list(dict.fromkeys(name for line in lines for name in line.losses))
    bins = np.array_split(np.arange(len(lines)), min(MAX_POINTS, len(lines))) if lines else []
    table = {name: np.array([_value(line.losses.get(name)) for line in lines]) for name in names}
    charts = [_training_chart(name, values, bins) for name, values in table.items()]
    rates = np.array([_value(line.learning_rate) for line in lines])
    charts.append(_training_chart("learning_rate", rates, bins))
    marks, stage = [], None
    for line in lines:
        if line.stage != stage:
            stage = line.stage
            marks.append((float(line.step), str(stage)))
    steps = [float(np.mean([lines[index].step for index in chosen])) for chosen in bins]
    return Training([chart for chart in charts if chart["series"]], steps, marks, history.num_steps, faults)


def _value(value: Any) -> float:
    number = finite(value)
    return math.nan if number is None else number


def _training_chart(name: str, values: np.ndarray, bins: Sequence[np.ndarray]) -> dict[str, Any]:
    means = [_mean(values[chosen]) for chosen in bins]
    series = [{"name": name, "color": 0, "values": means}] if any(mean is not None for mean in means) else []
    smooth = name != "learning_rate"
    return {"key": name, "title": name.replace("_", " "), "unit": "", "better": "", "about": "", "series": series, "smooth": smooth}


def _mean(values: np.ndarray) -> float | None:
    finite = values[np.isfinite(values)]
    return _rounded(float(finite.mean())) if len(finite) else None
