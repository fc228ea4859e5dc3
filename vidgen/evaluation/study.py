"""Perceptual studies: what a page asks people, the files of their answers, and what those say.

A study is paired (which of two is real?), unpaired (is this real?) or a preference between methods. The page holds its definition,
`Study`, and each file of answers a copy of it, so that the files alone can be scored. Questions whose answer is certain check
whether somebody pays attention.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, NonNegativeInt, PositiveInt, ValidationError, model_validator

from vidgen import kinds
from vidgen.errors import InputError
from vidgen.media import paths

Kind = Literal["paired", "unpaired", "preference"]
Role = Literal["real", "generated", "check"]

SCHEMA_VERSION = 1
MAX_FILE_BYTES = 1 << 26


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False, frozen=True)


class Method(_Part):
    """What generated some of the stimuli.

    Attributes:
        names: of all that it gave, in their order, whether the study shows them or not.
    """

    name: str
    names: list[str]


class Stimulus(_Part):
    """A picture or a looping clip.

    Attributes:
        method: by name; None for a real one. A check has that of what it was made from.
        name: the same for all versions of one scene.
    """

    role: Role
    method: str | None
    name: str
    sha256: str


class Study(_Part):
    """What a page asks.

    Attributes:
        id: digest of all the rest.
        exposure_milliseconds: how long stimuli are in sight; None until the answer.
        questions: stimuli to show together: real and generated, one alone, or two methods in the order of `methods`.
        checks: the same, with a certain answer: the first of two, "generated" for one alone, and "real" for none, where the page
            asks for that answer in words.
    """

    schema_version: Literal[1] = 1
    id: str
    kind: Kind
    title: str
    prompt: str
    seed: NonNegativeInt
    exposure_milliseconds: PositiveInt | None
    num_trials: PositiveInt
    methods: list[Method]
    stimuli: list[Stimulus]
    questions: list[list[NonNegativeInt]] = Field(min_length=1)
    checks: list[list[NonNegativeInt]]

    @model_validator(mode="after")
    def _check_parts(self) -> Study:
        sizes = {1} if self.kind == "unpaired" else {2}
        known = {method.name for method in self.methods}
        for stimulus in self.stimuli:
            if stimulus.role == "generated" and stimulus.method not in known:
                raise ValueError(f"stimuli: {stimulus.method!r} is no method of the study")
        for where, shown, allowed in (
            *(("questions", question, sizes) for question in self.questions),
            *(("checks", check, sizes | {0} if self.kind == "unpaired" else sizes) for check in self.checks),
        ):
            if len(shown) not in allowed or len(set(shown)) < len(shown) or max(shown, default=0) >= len(self.stimuli):
                raise ValueError(f"{where}: {shown} are no stimuli of such a study")
        return self

    @property
    def length(self) -> int:
        """How many trials a participant has."""
        return self.num_trials + len(self.checks)

    def to_dict(self) -> dict[str, Any]:
        """The study as JSON values."""
        return self.model_dump(mode="json")


def with_id(definition: Mapping[str, Any]) -> Study:
    """The study of these fields, by their digest."""
    return Study.model_validate({**definition, "schema_version": SCHEMA_VERSION, "id": _digest(definition)})


def _digest(definition: Mapping[str, Any]) -> str:
    parts = {key: value for key, value in definition.items() if key not in ("id", "schema_version")}
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


class Trial(_Part):
    """One question as it was asked.

    Attributes:
        shown: stimuli from left to right.
        milliseconds: from when they came in sight to the answer.
        exposure: how long they were in sight, in milliseconds.
    """

    shown: list[NonNegativeInt]
    answer: Literal["left", "right", "real", "generated"]
    milliseconds: FiniteFloat = Field(ge=0)
    exposure: FiniteFloat = Field(ge=0)


class Answers(_Part):
    """The file that a participant downloads."""

    schema_version: Literal[1] = 1
    study: Study
    participant: str = Field(min_length=1, max_length=64)
    finished: str
    trials: list[Trial]

    @model_validator(mode="after")
    def _check_trials(self) -> Answers:
        study = self.study
        if len(self.trials) != study.length:
            raise ValueError(f"trials: {len(self.trials)} of them, but the study asks {study.length}")
        checks = Counter(tuple(sorted(check)) for check in study.checks)
        questions = {tuple(sorted(question)) for question in study.questions}
        seen: set[tuple[int, ...]] = set()
        for number, trial in enumerate(self.trials):
            key = tuple(sorted(trial.shown))
            if key in questions and key not in seen:
                seen.add(key)
            elif checks[key] > 0:
                checks[key] -= 1
            else:
                raise ValueError(f"trials.{number}: shows {trial.shown}, which the study does not ask, or not again")
            if (trial.answer in ("left", "right")) is (study.kind == "unpaired"):
                raise ValueError(f"trials.{number}: {trial.answer!r} is no answer in a study of this kind")
        return self

    def chosen(self, trial: Trial) -> int:
        """The stimulus that was chosen out of two."""
        return trial.shown[trial.answer == "right"]

    def is_check(self, trial: Trial) -> bool:
        """Whether a trial checks attention."""
        return not trial.shown or any(self.study.stimuli[index].role == "check" for index in trial.shown)

    @property
    def questions(self) -> list[Trial]:
        """The trials that count."""
        return [trial for trial in self.trials if not self.is_check(trial)]

    @property
    def num_failed_checks(self) -> int:
        """How many checks of attention got a wrong answer."""
        return sum(self._fails(trial) for trial in self.trials if self.is_check(trial))

    def _fails(self, trial: Trial) -> bool:
        if self.study.kind == "unpaired":
            return trial.answer != ("generated" if trial.shown else "real")
        return self.study.stimuli[self.chosen(trial)].role == "check"


# --- reading --------------------------------------------------------------------------------------------------------------


def read_answers(path: Path) -> Answers:
    """The answers in a file that the page of a study offered.

    Raises:
        InputError: it is missing, damaged or something else; the message names the first key that is wrong.
    """
    name = paths.display(path)
    content = paths.read_bounded(path, MAX_FILE_BYTES)
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        kind = kinds.other_kind(path, "a JSON file")
        what = f"is {kind}" if kind else f"is not JSON ({error})"
        raise InputError(f"{name}: {what}; the answers that the page of a study offers were expected") from error
    if not isinstance(document, dict) or not isinstance(document.get("study"), dict) or "trials" not in document:
        raise InputError(f"{name}: holds no answers of a study; expected the file that its page offers")
    version = document.get("schema_version")
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise InputError(f"{name}: schema_version: {str(version)[:40]!r}, but {SCHEMA_VERSION} is the one known here")
    if document["study"].get("id") != _digest(document["study"]):
        raise InputError(f"{name}: study: was changed after its page was written, or the file is damaged")
    try:
        return Answers.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        text = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{name}: not answers of a study: {f'{key[:200]}: ' if key else ''}{text}") from error
    except (OverflowError, RecursionError) as error:
        raise InputError(f"{name}: not answers of a study: {error}") from error


def json_files(path: Path) -> list[Path]:
    """The JSON files below a folder, in natural order; a file itself.

    Raises:
        InputError: the folder holds none.
    """
    if not path.is_dir():
        return [path]
    found = sorted((entry for entry in path.rglob("*.json") if entry.is_file()), key=paths.natural_key)
    if not found:
        raise InputError(f"{paths.display(path)}: holds no .json files")
    return found


def read_all(inputs: Sequence[Path]) -> dict[Path, Answers]:
    """The answers of several people to one study, by file.

    Args:
        inputs: files of answers, and folders of them.

    Raises:
        InputError: a file is none, they belong to several studies, or a participant has two with unlike answers.
    """
    result: dict[Path, Answers] = {}
    for path in (file for entry in inputs for file in json_files(entry)):
        answers = read_answers(path)
        for other, earlier in result.items():
            if earlier.study.id != answers.study.id:
                mine, theirs = (f"{item.study.title!r} ({item.study.id})" for item in (answers, earlier))
                raise InputError(f"{paths.display(path)}: answers to another study, {mine}; {paths.display(other)} is of {theirs}")
            if earlier.participant == answers.participant and earlier.trials != answers.trials:
                raise InputError(
                    f"{paths.display(path)}: participant {answers.participant!r} also answers in {paths.display(other)}, otherwise",
                    hint="each participant counts once; give one of the two files",
                )
        result[path] = answers
    return result
