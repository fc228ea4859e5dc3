"""The report on a video: one type from measuring to file, table and page, and the one reader of files that hold it.

Within a `schema_version`, keys of the file keep their name and meaning; new ones may be added, and a reader ignores those that it
does not know. `scores.schema.json` is the shipped copy of `json_schema()`.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PlainSerializer,
    PositiveInt,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    ValidationError,
    WithJsonSchema,
    model_serializer,
    model_validator,
)

from vidgen import durable, kinds
from vidgen.errors import ConfigError, InputError, PartialFailure, QualityGateError
from vidgen.media import paths
from vidgen.metrics.score import METRICS, RENAMED, Better, Score, base_of, metric_of

SCHEMA_VERSION = 1
SCHEMA_FILE = Path(__file__).with_name("scores.schema.json")
MAX_FILE_BYTES = 1 << 29
ROLES = ("output", "source", "target", "labels", "reference_set")
_GATE = re.compile(r"\s*([\w@/]+)\s*(<=|>=|<|>)\s*(\S+)\s*")


def _column(values: object) -> np.ndarray:
    if isinstance(values, np.ndarray):
        return values
    if not isinstance(values, list) or not all(value is None or _is_number(value) for value in values):
        raise ValueError("expected a list of finite numbers and nulls")
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


Column = Annotated[
    np.ndarray,
    BeforeValidator(_column),
    PlainSerializer(lambda values: [float(value) if math.isfinite(value) else None for value in values], return_type=list),
    WithJsonSchema({"type": "array", "items": {"anyOf": [{"type": "number"}, {"type": "null"}]}}),
]
"""One float64 per frame, NaN where it has no value; null in the file."""


class _Part(BaseModel):
    """A part of the report; what is absent and may be so is left out of the file."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False, frozen=True, arbitrary_types_allowed=True)

    @model_serializer(mode="wrap")
    def _without_absent(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        return {
            name: value
            for name, value in serialize(self).items()
            if value is not None or fields[name].is_required() or name in ("ranking", "reference_set")
        }


class MetricValue(_Part):
    """One score."""

    value: FiniteFloat | None = Field(description="null where it could not be measured; `reason` says why")
    unit: str
    better: Better = Field(description="one: best at 1; context: says how far to trust the others")
    n: NonNegativeInt = Field(description="frames, pairs or samples it rests on")
    skipped: NonNegativeInt = Field(description="more of them that could not be used")
    reason: str | None = None
    note: str | None = Field(default=None, description="how far to trust the value")
    deviation: FiniteFloat | None = Field(default=None, description="standard deviation over random subsets of the samples")

    @staticmethod
    def of(key: str, score: Score) -> MetricValue:
        """A score together with what the catalog says of its key."""
        metric = metric_of(key)
        return MetricValue(
            value=score.value,
            unit=metric.unit,
            better=metric.better,
            n=score.count,
            skipped=score.skipped,
            reason=score.reason,
            note=score.note,
            deviation=score.deviation,
        )

    @property
    def is_reliable(self) -> bool:
        """Whether the value is not marked as resting on too little."""
        return not (self.note or "").startswith("unreliable")


class Verdict(_Part):
    """Whether the video may be ranked by its steadiness."""

    rankable: bool
    reasons: list[str] = Field(description="why not")
    remarks: list[str] = Field(default_factory=list, description="what else to know before believing the numbers")


class Difference(_Part):
    """Another video's score, this one's minus that, and a 95 % interval of the difference."""

    value: FiniteFloat | None
    difference: FiniteFloat | None
    low: FiniteFloat | None
    high: FiniteFloat | None


class Ranking(_Part):
    """The videos compared."""

    order: dict[str, list[str]] = Field(description="by score: names of the videos that have it, best first")
    left_out: dict[str, list[str]] = Field(description="by name: why it is ranked by fidelity only")


class WeightsUsed(_Part):
    """A file of a published network."""

    path: str
    sha256: str
    published: bool | None = Field(description="whether it is the published file; null where that is not known")


class SegmenterUsed(_Part):
    """The network that found classes."""

    name: str
    sha256: str | None = Field(description="of its file; null for a Python function")
    range: Literal["unit", "signed", "imagenet"]
    classes: list[int] | None


class Provenance(_Part):
    """Everything that the numbers depend on. Paths are absolute, or relative to the folder of the file that holds the report."""

    output: str
    source: str | None = None
    target: str | None = None
    labels: str | None = Field(default=None, description="label maps")
    reference_set: str | None = None
    flow: str | None = Field(description="the engine, its settings and versions")
    flow_from: Literal["source", "target"] | None
    size: list[PositiveInt] | None = Field(
        description="height and width that all frames were brought to", min_length=2, max_length=2
    )
    strides: list[PositiveInt]
    num_frames: NonNegativeInt
    frame_rate: FiniteFloat | None = Field(description="that the output states")
    fps: FiniteFloat | None = Field(description="that all inputs were brought to")
    versions: dict[str, str]
    weights: dict[str, WeightsUsed]
    segmenter: SegmenterUsed | None
    content_sha256: dict[str, str] = Field(description="of the decoded pixels of each input, as far as they were measured")

    def path(self, role: str) -> str | None:
        """Where the input of this role was, or None where there was none."""
        return getattr(self, role)

    def with_paths(self, change: Any) -> Provenance:
        """The same with every path replaced by `change(path)`."""
        places = {role: path for role in ROLES if (path := self.path(role)) is not None}
        return self.model_copy(update={role: change(path) for role, path in places.items()})


class Report(_Part):
    """Scores of one video by vidgen evaluate.

    `report["psnr"]` is a value; `report.metrics["psnr"]` also says what it rests on, or why there is none.
    """

    schema_version: Literal[1] = 1
    metrics: dict[str, MetricValue] = Field(
        description="by key: a name of the catalog, also with a stride or scale: psnr, warp_error@3"
    )
    verdict: Verdict
    cuts: list[int] = Field(default_factory=list, description="frames at which the reference changes scene")
    faults: list[str] = Field(default_factory=list, description="gates that were missed, in words")
    comparisons: dict[str, dict[str, Difference]] = Field(default_factory=dict, description="by name of another video, by score")
    ranking: Ranking | None = None
    provenance: Provenance
    per_frame: dict[str, Column] = Field(
        default_factory=dict, description="values behind the scores, without those that span a cut"
    )
    _compared: dict[str, Report] = PrivateAttr(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _read_old_names(cls, document: Any) -> Any:
        """Files of older versions name some metrics otherwise."""
        if not isinstance(document, dict) or not isinstance(document.get("metrics"), dict):
            return document
        return document | {"metrics": {RENAMED.get(key, key): entry for key, entry in document["metrics"].items()}}

    @model_validator(mode="after")
    def _check_columns(self) -> Report:
        lengths = {name: len(values) for name, values in self.per_frame.items()}
        if len(set(lengths.values())) > 1:
            shortest, longest = min(lengths, key=lengths.__getitem__), max(lengths, key=lengths.__getitem__)
            raise ValueError(
                f"per_frame: {longest!r} has {lengths[longest]} values, but {shortest!r} has {lengths[shortest]}; "
                "there must be one for each frame"
            )
        return self

    def __getitem__(self, key: str) -> float | None:
        return self.metrics[key].value

    def get(self, key: str) -> float | None:
        """The value of a score; None also where it was not measured."""
        entry = self.metrics.get(key)
        return None if entry is None else entry.value

    @property
    def reasons(self) -> list[str]:
        """Why the video should not be ranked; empty where it may."""
        return self.verdict.reasons

    @property
    def compared(self) -> dict[str, Report]:
        """The reports on the videos that this one was compared with, by name; they are not part of the file."""
        return self._compared

    def compared_with(self, others: Mapping[str, Report], **changes: Any) -> Report:
        """The same with `changes`, and with the reports on other videos at hand."""
        result = self.model_copy(update=changes)
        result._compared = dict(others)
        return result

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return self.model_dump(mode="json")

    def to_json(self) -> str:
        """The report as JSON text; `json_schema` describes it."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def save(self, path: Path) -> None:
        """Write the report; paths below its folder become relative, so that the folder can be moved as a whole."""
        durable.write_text(path, self.relative_to(path.parent).to_json() + "\n")

    def relative_to(self, folder: Path) -> Report:
        """The same with paths below `folder` relative to it."""
        return self.model_copy(update={"provenance": self.provenance.with_paths(lambda path: _relative(path, folder))})

    def table(self) -> str:
        """The report as text: one metric a line, then comparisons, then the verdict."""
        rows = [(key, _text(entry.value), entry.better, _remark(entry)) for key, entry in self.metrics.items()]
        lines = _aligned([("metric", "value", "better", "unit, or why there is no value"), *rows])
        for name, differences in self.comparisons.items():
            lines += ["", f"compared with {name} (difference, 95 % interval)"]
            lines += _aligned(
                [(key, *map(_text, (entry.value, entry.difference, entry.low, entry.high))) for key, entry in differences.items()]
            )
        if self.ranking is not None:
            lines += ["", "ranking, best first", *_aligned([(key, ", ".join(names)) for key, names in self.ranking.order.items()])]
            lines += [f"left out: {name}: {'; '.join(reasons)}" for name, reasons in self.ranking.left_out.items()]
        cuts = [f"cuts before frames {', '.join(map(str, self.cuts))}"] if self.cuts else []
        verdict = [f"not to be ranked: {reason}" for reason in self.reasons] or ["may be ranked: nothing speaks against it"]
        return "\n".join([*lines, *cuts, "", *verdict, *(f"note: {remark}" for remark in self.verdict.remarks)])

    def enforce(self, *, strict: bool = False) -> None:
        """Fail where a gate was missed.

        Args:
            strict: also where a metric has no value.

        Raises:
            QualityGateError: a condition of `fail_if` holds, or its metric has no value.
            PartialFailure: `strict`, and some metric has no value.
        """
        if self.faults:
            raise QualityGateError("; ".join(self.faults))
        missing = [f"{key} ({entry.reason})" for key, entry in self.metrics.items() if entry.value is None]
        if strict and missing:
            raise PartialFailure("no value for " + ", ".join(missing))


def _relative(path: str, folder: Path) -> str:
    root = os.path.join(os.path.abspath(folder), "")
    return path.removeprefix(root) if path.startswith(root) and len(path) > len(root) else path


def _remark(entry: MetricValue) -> str:
    if entry.reason:
        return entry.reason
    spread = f", deviation {_text(entry.deviation)}" if entry.deviation is not None else ""
    return entry.unit + spread + (f"; {entry.note}" if entry.note else "")


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column), default=0) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"


# --- gates ----------------------------------------------------------------------------------------------------------------


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
                f"`fail_if` {text!r}: expected KEY, one of < <= > >=, and a number", hint="`fail_if` 'warp_error@1>0.02'"
            )
        if base_of(gate.key) not in METRICS:
            raise ConfigError(f"`fail_if` {text!r}: no metric is called {gate.key!r}", hint="`list_metrics` shows them all")
        return gate

    def fault(self, metrics: Mapping[str, MetricValue]) -> str | None:
        """What is wrong, or None; a missing value is a fault, since nobody knows that it would have passed."""
        key = self.key if self.key in metrics else f"{self.key}@1"
        if key not in metrics:
            return f"{self.key} was not measured"
        value = metrics[key].value
        if value is None:
            return f"{key} has no value: {metrics[key].reason}"
        holds = {"<": value < self.limit, "<=": value <= self.limit, ">": value > self.limit, ">=": value >= self.limit}
        return f"{key} is {value:.6g}, which is {self.comparison} {self.limit:g}" if holds[self.comparison] else None


# --- reading --------------------------------------------------------------------------------------------------------------


def read_reports(path: Path) -> dict[str | None, Report]:
    """The reports in a file: one object under the name None, or several by name.

    Relative paths in them are taken from the folder of the file; where nothing is there, as in files of vidgen 0.1, from the
    working folder.

    Raises:
        InputError: the file is missing, or is not what `Report.save` or `vidgen evaluate --json` writes; the message names the
            first key that is wrong.
    """
    paths.check_file(path)
    name = paths.display(path)
    if path.stat().st_size > MAX_FILE_BYTES:
        raise InputError(f"{name}: has {path.stat().st_size >> 20} MiB; scores have at most {MAX_FILE_BYTES >> 20}")
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        kind = kinds.other_kind(path, "a JSON file")
        if kind is not None:
            raise InputError(f"{name}: is {kind}; scores (the JSON of an evaluation) or a run folder were expected") from error
        raise InputError(f"{name}: is not JSON ({error})") from error
    if not isinstance(document, dict):
        raise InputError(f"{name}: holds no scores, but a {type(document).__name__}")
    parts: Iterator[tuple[str | None, Any]]
    if "schema_version" in document:
        parts = iter([(None, document)])
    elif document and all(isinstance(part, dict) and "schema_version" in part for part in document.values()):
        parts = iter(document.items())
    else:
        raise InputError(f"{name}: holds no scores: there is no schema_version in it")
    result: dict[str | None, Report] = {}
    for key, part in parts:
        report = validate(part, name if key is None else f"{name}: {key}")
        result[key] = report.model_copy(
            update={"provenance": report.provenance.with_paths(lambda text: _absolute(text, path.parent))}
        )
    return result


def _absolute(text: str, folder: Path) -> str:
    if text == "-" or os.path.isabs(text):
        return text
    beside = os.path.join(os.path.abspath(folder), text)
    return os.path.abspath(text) if not _exists(beside) and _exists(text) else beside


def _exists(text: str) -> bool:
    try:
        return os.path.lexists(paths.split_cut(text)[0])
    except (ValueError, InputError):
        return False


def validate(document: Mapping[str, Any], where: str) -> Report:
    """The report in JSON values, of which nothing is believed before it is checked.

    Raises:
        InputError: it is none; the message names the first key that is wrong.
    """
    version = document.get("schema_version")
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise InputError(f"{where}: schema_version: {str(version)[:40]!r}, but {SCHEMA_VERSION} is the one known here")
    try:
        return Report.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"])) or "the whole"
        raise InputError(f"{where}: not scores of vidgen evaluate: {key[:200]}: {first['msg']}") from error
    except (OverflowError, RecursionError) as error:
        raise InputError(f"{where}: not scores of vidgen evaluate: {error}") from error


def json_schema() -> dict[str, Any]:
    """The JSON schema of the file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Report.model_json_schema()}


def shipped_schema() -> dict[str, Any]:
    """The schema file of this package."""
    return json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))


# --- tables ---------------------------------------------------------------------------------------------------------------


def frames_csv(columns: Mapping[str, np.ndarray]) -> str:
    """One line per frame; empty where a frame has no such value."""
    names = sorted(columns)
    lines = [",".join(["frame", *names])]
    for index, values in enumerate(zip(*(columns[name] for name in names), strict=True)):
        lines.append(",".join([str(index), *("" if math.isnan(value) else repr(float(value)) for value in values)]))
    return "\n".join(lines) + "\n"


def scores_csv(reports: Mapping[str, Report]) -> str:
    """One line per video; empty where it has no such score."""
    keys = list(dict.fromkeys(key for report in reports.values() for key in report.metrics))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["video", *keys])
    for name, report in reports.items():
        values = map(report.get, keys)
        writer.writerow([name, *("" if value is None else repr(value) for value in values)])
    return buffer.getvalue()
