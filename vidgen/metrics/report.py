"""The report on a video: scores, verdict and comparisons, as a table, as JSON values and as CSV; and the limits it must keep."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vidgen.errors import ConfigError, InputError, PartialFailure, QualityGateError
from vidgen.metrics.score import METRICS, Score, base_of, metric_of
from vidgen.metrics.temporal import Columns

SCHEMA_VERSION = 1
NUM_RESAMPLES = 500
_OF_REFERENCE = ("warp_error_source", "warp_error_target")
_GATE = re.compile(r"\s*([\w@/]+)\s*(<=|>=|<|>)\s*(\S+)\s*")


@dataclass(frozen=True)
class Gate:
    """A condition that fails the evaluation where it holds, such as `warp_error@1>0.02`."""

    key: str
    comparison: str
    limit: float

    @staticmethod
    def parse(text: str) -> Gate:
        """Read a condition.

        Raises:
            ConfigError: it is not KEY, a comparison and a number, or the key is unknown.
        """
        match = _GATE.fullmatch(text)
        try:
            key, comparison, limit = match.groups() if match else ("", "", "")
            gate = Gate(key, comparison, float(limit))
        except ValueError:
            gate = None
        if gate is None or math.isnan(gate.limit):
            raise ConfigError(
                f"--fail-if {text!r}: expected KEY, one of < <= > >=, and a number", hint="--fail-if 'warp_error@1>0.02'"
            )
        if base_of(gate.key) not in METRICS:
            raise ConfigError(f"--fail-if {text!r}: no metric is called {gate.key!r}", hint="vidgen evaluate --list-metrics")
        return gate

    def fault(self, scores: Mapping[str, Score]) -> str | None:
        """What is wrong, or None; a missing value is a fault, since nobody knows that it would have passed."""
        key = self.key if self.key in scores else f"{self.key}@1"
        if key not in scores:
            return f"{self.key} was not measured"
        value = scores[key].value
        if value is None:
            return f"{key} has no value: {scores[key].reason}"
        holds = {"<": value < self.limit, "<=": value <= self.limit, ">": value > self.limit, ">=": value >= self.limit}
        return f"{key} is {value:.6g}, which is {self.comparison} {self.limit:g}" if holds[self.comparison] else None


@dataclass(frozen=True)
class Scores:
    """The report on one video.

    Attributes:
        scores: by key; see `vidgen.metrics.score.METRICS` for units and meaning.
        reasons: why the video should not be ranked; empty where it may.
        cuts: frames at which the reference changes scene.
        provenance: everything the numbers depend on.
        columns: per-frame values behind the scores, without those that span a cut.
        faults: conditions of `--fail-if` that were missed, in words.
        comparisons: by name of another video, by key: its value, the difference, and a 95 % interval of the difference.
        ranking: the videos compared, in order; None without comparisons.
        remarks: what else one should know before one believes the numbers.
    """

    scores: dict[str, Score]
    reasons: list[str]
    cuts: list[int]
    provenance: dict[str, Any]
    columns: Columns = field(repr=False)
    faults: list[str] = field(default_factory=list)
    comparisons: dict[str, dict[str, dict[str, float | None]]] = field(default_factory=dict)
    ranking: Ranking | None = None
    remarks: list[str] = field(default_factory=list)

    def __getitem__(self, key: str) -> float | None:
        return self.scores[key].value

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values; keys stay what they are within a `schema_version`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "metrics": {key: _score_to_dict(key, score) for key, score in self.scores.items()},
            "verdict": {"rankable": not self.reasons, "reasons": self.reasons, "remarks": self.remarks},
            "cuts": self.cuts,
            "faults": self.faults,
            "comparisons": self.comparisons,
            "ranking": None if self.ranking is None else {"order": self.ranking.order, "left_out": self.ranking.left_out},
            "provenance": self.provenance,
            "per_frame": {
                name: [float(value) if math.isfinite(value) else None for value in values] for name, values in self.columns.items()
            },
        }

    def to_json(self) -> str:
        """The report as JSON text; `vidgen.metrics.schema` describes it."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def table(self) -> str:
        """The report as text for people."""
        return table(self.to_dict())


def _score_to_dict(key: str, score: Score) -> dict[str, Any]:
    metric = metric_of(key)
    result = {"value": score.value, "unit": metric.unit, "better": metric.better, "n": score.count, "skipped": score.skipped}
    words = {"reason": score.reason, "note": score.note, "deviation": score.deviation}
    return result | {name: word for name, word in words.items() if word is not None}


def table(result: Mapping[str, Any]) -> str:
    """`Scores.to_dict` as text: one metric a line, then comparisons, then the verdict."""
    metrics = result["metrics"]
    rows = [(key, _shown(score["value"]), score["better"], _remark(score)) for key, score in metrics.items()]
    lines = _aligned([("metric", "value", "better", "unit, or why there is no value"), *rows])
    for name, differences in result["comparisons"].items():
        lines += ["", f"compared with {name} (difference, 95 % interval)"]
        shown = [
            (key, *(_shown(entry[part]) for part in ("value", "difference", "low", "high"))) for key, entry in differences.items()
        ]
        lines += _aligned(shown)
    ranking = result.get("ranking")
    if ranking is not None:
        lines += ["", "ranking, best first", *_aligned([(key, ", ".join(names)) for key, names in ranking["order"].items()])]
        lines += [f"left out: {name}: {'; '.join(reasons)}" for name, reasons in ranking["left_out"].items()]
    reasons = result["verdict"]["reasons"]
    verdict = [f"not to be ranked: {reason}" for reason in reasons] or ["may be ranked: nothing speaks against it"]
    verdict += [f"note: {remark}" for remark in result["verdict"].get("remarks", ())]
    cuts = [f"cuts before frames {', '.join(map(str, result['cuts']))}"] if result["cuts"] else []
    return "\n".join([*lines, *cuts, "", *verdict])


def _remark(score: Mapping[str, Any]) -> str:
    if score.get("reason"):
        return str(score["reason"])
    spread = f", deviation {_shown(score['deviation'])}" if score.get("deviation") is not None else ""
    return score["unit"] + spread + (f"; {score['note']}" if score.get("note") else "")


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column), default=0) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"


def enforce(result: Mapping[str, Any], *, strict: bool = False) -> None:
    """Fail as `--fail-if` and `--strict` ask, after `Scores.to_dict` was shown.

    Raises:
        QualityGateError: a condition of `--fail-if` holds, or its metric has no value.
        PartialFailure: `strict`, and some metric has no value.
    """
    if result["faults"]:
        raise QualityGateError("; ".join(result["faults"]))
    missing = [f"{key} ({score['reason']})" for key, score in result["metrics"].items() if score["value"] is None]
    if strict and missing:
        raise PartialFailure("no value for " + ", ".join(missing))


def compare_scores(
    first: Scores, second: Scores, summarise: Callable[[Columns], dict[str, Score]], *, seed: int = 0
) -> dict[str, dict[str, float | None]]:
    """By key: the value of `second`, `first` minus `second`, and a 95 % interval of that from resampled stretches of frames.

    Both are resampled at the same frames, so that what is hard for both does not widen the interval. Stretches, since
    neighbouring frames are alike (moving-block bootstrap, Künsch 1989). Scores that do not come from frames have no interval.

    Raises:
        InputError: the videos differ in length.
    """
    length, other_length = (len(scores.columns.get("sharpness", ())) for scores in (first, second))
    if length != other_length:
        raise InputError(f"compared videos must be equally long: {length} and {other_length} frames")
    generator = np.random.default_rng(seed)
    block = math.ceil(math.sqrt(length))
    draws: dict[str, list[float]] = {}
    for _ in range(NUM_RESAMPLES if length else 0):
        starts = generator.integers(0, length - block + 1, size=math.ceil(length / block))
        chosen = (starts[:, None] + np.arange(block)).ravel()[:length]
        drawn = [
            _values(summarise({name: values[chosen] for name, values in scores.columns.items()})) for scores in (first, second)
        ]
        for key in drawn[0].keys() & drawn[1].keys():
            draws.setdefault(key, []).append(drawn[0][key] - drawn[1][key])
    result: dict[str, dict[str, float | None]] = {}
    for key in first.scores:
        if key not in second.scores or metric_of(key).better == "context" or base_of(key) in _OF_REFERENCE:
            continue
        value, other = first[key], second[key]
        difference = None if value is None or other is None else value - other
        enough = difference is not None and length > block and len(draws.get(key, ())) >= NUM_RESAMPLES // 2
        low, high = (float(bound) for bound in np.percentile(draws[key], [2.5, 97.5])) if enough else (None, None)
        result[key] = {"value": other, "difference": difference, "low": low, "high": high}
    return result


@dataclass(frozen=True)
class Ranking:
    """Videos in order.

    Attributes:
        order: by key: names of the videos that have such a score, best first.
        left_out: by name: why the video is in no order that it could win by being blurred, frozen or blank.
    """

    order: dict[str, list[str]]
    left_out: dict[str, list[str]]


def rank(reports: Mapping[str, Scores]) -> Ranking:
    """Put the videos in order by each score that has a better and a worse.

    A video that the verdict refuses is ranked only where it is compared with a target, a reference set or label maps. Scores that
    are marked unreliable rank nobody.
    """
    left_out = {name: report.reasons for name, report in reports.items() if report.reasons}
    order: dict[str, list[str]] = {}
    for key in dict.fromkeys(key for report in reports.values() for key in report.scores):
        metric, found = metric_of(key), {name: report.scores[key] for name, report in reports.items() if key in report.scores}
        if metric.better == "context" or base_of(key) in _OF_REFERENCE:
            continue
        by_fidelity = metric.needs in ("target", "reference set", "segmenter") and not key.startswith("warp")
        values = {
            name: score.value
            for name, score in found.items()
            if score.value is not None and (by_fidelity or name not in left_out) and not (score.note or "").startswith("unreliable")
        }
        if len(values) > 1:
            order[key] = sorted(values, key=lambda name: _distance_to_best(values[name], metric.better))
    return Ranking(order, left_out)


def _distance_to_best(value: float, better: str) -> float:
    if better == "one":
        return abs(math.log(value)) if value > 0 else math.inf
    return -value if better == "high" else value


def _values(scores: Mapping[str, Score]) -> dict[str, float]:
    return {key: score.value for key, score in scores.items() if score.value is not None}


def frames_csv(columns: Columns) -> str:
    """One line per frame; empty where a frame has no such value."""
    names = sorted(columns)
    lines = [",".join(["frame", *names])]
    for index, values in enumerate(zip(*(columns[name] for name in names), strict=True)):
        lines.append(",".join([str(index), *("" if math.isnan(value) else repr(float(value)) for value in values)]))
    return "\n".join(lines) + "\n"


def scores_csv(scores: Mapping[str, Scores]) -> str:
    """One line per video; empty where it has no such score."""
    keys = list(dict.fromkeys(key for report in scores.values() for key in report.scores))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["video", *keys])
    for name, report in scores.items():
        values = (report.scores.get(key, Score(None)).value for key in keys)
        writer.writerow([name, *("" if value is None else repr(value) for value in values)])
    return buffer.getvalue()
