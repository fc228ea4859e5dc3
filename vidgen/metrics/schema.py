"""What `vidgen evaluate --json` writes, as a model that validates it and as a JSON schema for other programs.

Within a `schema_version`, keys keep their name and meaning; new ones may be added. `scores.schema.json` is the shipped copy of
`json_schema()`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from vidgen.errors import InputError

SCHEMA_FILE = Path(__file__).with_name("scores.schema.json")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class MetricValue(_Part):
    """One score."""

    value: FiniteFloat | None = Field(description="null where it could not be measured; `reason` says why")
    unit: str
    better: Literal["low", "high", "one", "context"] = Field(
        description="one: best at 1; context: says how far to trust the others"
    )
    n: int = Field(ge=0, description="frames, pairs or samples it rests on")
    skipped: int = Field(ge=0, description="more of them that could not be used")
    reason: str | None = None
    note: str | None = Field(default=None, description="how far to trust the value")
    deviation: FiniteFloat | None = Field(default=None, description="standard deviation over random subsets of the samples")


class Verdict(_Part):
    """Whether the video may be ranked by its steadiness."""

    rankable: bool
    reasons: list[str] = Field(description="why not")
    remarks: list[str] = Field(description="what else to know before believing the numbers")


class Difference(_Part):
    """Another video's score, this one's minus that, and a 95 % interval of the difference."""

    value: FiniteFloat | None
    difference: FiniteFloat | None
    low: FiniteFloat | None
    high: FiniteFloat | None


class VideoOrder(_Part):
    """The videos compared."""

    order: dict[str, list[str]] = Field(description="by score: names, best first")
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
    """Everything that the numbers depend on."""

    output: str
    source: str | None = None
    target: str | None = None
    labels: str | None = Field(default=None, description="label maps")
    reference_set: str | None
    flow: str | None = Field(description="the engine, its settings and versions")
    flow_from: Literal["source", "target"] | None
    size: list[int] | None = Field(description="height and width of the canvas everything was measured on")
    strides: list[int]
    num_frames: int
    frame_rate: FiniteFloat | None = Field(description="that the output states")
    fps: FiniteFloat | None = Field(description="that all inputs were brought to")
    versions: dict[str, str]
    weights: dict[str, WeightsUsed]
    segmenter: SegmenterUsed | None
    content_sha256: dict[str, str] = Field(description="of the decoded pixels of each input, as far as they were measured")


class ScoresDocument(_Part):
    """Scores of one video by vidgen evaluate."""

    schema_version: Literal[1]
    metrics: dict[str, MetricValue]
    verdict: Verdict
    cuts: list[int] = Field(description="frames at which the reference changes scene")
    faults: list[str] = Field(description="conditions of --fail-if that hold")
    comparisons: dict[str, dict[str, Difference]] = Field(description="by name of another video, by score")
    ranking: VideoOrder | None
    provenance: Provenance
    per_frame: dict[str, list[FiniteFloat | None]]


def json_schema() -> dict[str, Any]:
    """The JSON schema of the document."""
    schema = ScoresDocument.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def validate(document: Mapping[str, Any], where: str) -> None:
    """Check that `document` is what `vidgen evaluate --json` writes.

    Raises:
        InputError: it is not; the message names the first key that is wrong.
    """
    try:
        ScoresDocument.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"])) or "the whole"
        raise InputError(f"{where}: not scores of vidgen evaluate: {key}: {first['msg']}") from error


def shipped_schema() -> dict[str, Any]:
    """The schema file of this package."""
    return json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
