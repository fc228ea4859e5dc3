"""What the answers to a perceptual study say: confusion, preference, agreement between people, correlation with metrics."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vidgen.errors import InputError
from vidgen.evaluation.compare import distance_from_best
from vidgen.evaluation.report import Report, read_reports
from vidgen.evaluation.study import Answers, Kind, Method, Study, json_files
from vidgen.media import paths
from vidgen.metrics import perception
from vidgen.metrics.score import METRICS, base_of, metric_of

MIN_MILLISECONDS = 200
"""Faster answers cannot come from what was seen."""


@dataclass(frozen=True)
class Exclusion:
    """A participant who does not count."""

    participant: str
    file: str
    failed_checks: int
    num_checks: int


@dataclass(frozen=True)
class Confusion:
    """How far a method is taken for real.

    Attributes:
        confusion: wrong answers; 50 % is chance: nobody can tell. Of unpaired studies the mean of `fooled` and `doubted`.
        fooled: generated ones that were called real; of unpaired studies.
        doubted: real ones that were called generated; of unpaired studies, the same for all methods.
    """

    confusion: perception.Rate
    fooled: perception.Rate | None = None
    doubted: perception.Rate | None = None


@dataclass(frozen=True)
class Preference:
    """Two methods against each other: how often the first was chosen, and how likely so uneven a split is by chance."""

    first: str
    second: str
    wins: int
    losses: int
    share: perception.Rate
    p_value: float


@dataclass(frozen=True)
class Association:
    """What a metric says of the answers.

    Attributes:
        of: "stimuli" or "methods", each of which is one entry of the correlation.
        better: which way the metric is better; for "one" the distance from 1 was correlated.
        agreement: share of preferences for the one that the metric prefers; of preference studies.
    """

    of: Literal["stimuli", "methods"]
    better: str
    correlation: perception.Correlation | None
    agreement: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Result:
    """What the answers to a study say; intervals are of 95 %."""

    title: str
    kind: Kind
    study: str
    num_participants: int
    num_answers: int
    excluded: list[Exclusion]
    methods: dict[str, Confusion] = field(default_factory=dict)
    preferences: list[Preference] = field(default_factory=list)
    strengths: dict[str, float] = field(default_factory=dict)
    agreement: perception.Agreement | None = None
    correlations: dict[str, Association] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        return asdict(self)

    def table(self) -> str:
        """The result as text."""
        lines = [
            f"{self.title} ({self.kind}): {_count(self.num_participants, 'participant')}, {_count(self.num_answers, 'answer')}"
        ]
        lines += [
            f"excluded: participant {paths.display(item.participant)} ({item.file}) failed {item.failed_checks} of "
            f"{_count(item.num_checks, 'attention check')}"
            for item in self.excluded
        ]
        if self.methods:
            unpaired = self.kind == "unpaired"
            rows = [("method", "confusion", "95 % interval", *(("called real", "95 % interval") if unpaired else ()), "answers")]
            for name, item in self.methods.items():
                further = () if item.fooled is None else (_spread(item.fooled), _interval(item.fooled))
                rows.append((name, _spread(item.confusion), _interval(item.confusion), *further, str(item.confusion.count)))
            lines += ["", *_columns(rows)]
            doubted = next(iter(self.methods.values())).doubted
            lines += [] if doubted is None else [f"real ones called generated: {_spread(doubted)}, {_interval(doubted)}"]
            lines.append("50 % is chance: nobody can tell generated from real")
        if self.preferences:
            rows = [("preferred", "to", "share", "95 % interval", "wins", "losses", "p (two-sided binomial)")]
            rows += [
                (
                    item.first,
                    item.second,
                    _spread(item.share),
                    _interval(item.share),
                    f"{item.wins}",
                    f"{item.losses}",
                    _p(item.p_value),
                )
                for item in self.preferences
            ]
            lines += ["", *_columns(rows)]
            if self.strengths:
                order = sorted(self.strengths, key=lambda name: -self.strengths[name])
                lines.append(
                    "Bradley-Terry strengths: " + ", ".join(f"{paths.display(name)} {self.strengths[name]:.3f}" for name in order)
                )
        lines += ["", self._agreement_line()]
        if self.correlations:
            rows = [("metric", "better", "Spearman", "95 % interval", "Pearson", "entries", "people agree with it")]
            rows += [(key, item.better, *_association(item)) for key, item in self.correlations.items()]
            lines += ["", f"correlation with {self._answered()}", *_columns(rows)]
        return "\n".join([*lines, *(f"note: {remark}" for remark in self.remarks)])

    def _answered(self) -> str:
        if self.kind == "preference":
            return "how often the first of two was preferred, of the metric's difference"
        return "how often a stimulus was taken for real"

    def _agreement_line(self) -> str:
        found = self.agreement
        if found is None:
            return "agreement between people: no question was answered by two"
        kappa = "not defined, all answers are the same" if found.kappa is None else f"{found.kappa:.3f}"
        questions = _count(found.num_questions, "question")
        return f"agreement between people: {found.pairwise:.1%} of pairs, Fleiss' kappa {kappa} ({questions})"


def score(
    answers: Mapping[Path, Answers], scores: Sequence[tuple[str | None, Path]] = (), *, max_failed_checks: int = 0, seed: int = 0
) -> Result:
    """What answers say.

    Args:
        answers: by their files, as `read_all` gives them.
        scores: (method, file) with scores of `vidgen.evaluate`; the method may be None where the study has one.
        max_failed_checks: who failed more checks of attention is left out.

    Raises:
        InputError: nobody is left, or scores do not belong to what the study shows.
    """
    study = next(iter(answers.values())).study
    people: dict[str, Answers] = {}
    excluded: list[Exclusion] = []
    remarks: list[str] = []
    for path, item in answers.items():
        if item.participant in people or any(other.participant == item.participant for other in excluded):
            remarks.append(f"{paths.display(path)} holds the same answers as another file, and counts once")
        elif item.num_failed_checks > max_failed_checks:
            excluded.append(Exclusion(item.participant, paths.display(path), item.num_failed_checks, len(study.checks)))
        else:
            people[item.participant] = item
    if not people:
        raise InputError(
            f"nobody is left: {_count(len(excluded), 'participant')} failed more than {max_failed_checks} attention checks",
            hint="`max_failed_checks` allows some",
        )
    if not study.checks:
        remarks.append("the study has no attention checks: nobody was excluded")
    if hurried := sorted(name for name, item in people.items() if _is_hurried(item)):
        remarks.append(
            f"answered within {MIN_MILLISECONDS} ms, half of the time or more: participant {', '.join(map(paths.display, hurried))}"
        )
    if len(people) < 5:
        remarks.append(f"{_count(len(people), 'participant')}: the intervals say little on other people")
    table = _Table.of(study, people)
    correlations = _correlations(study, table, read_scores(study, scores), seed) if scores else {}
    is_preference = study.kind == "preference"
    preferences = table.preferences(seed) if is_preference else []
    return Result(
        title=study.title,
        kind=study.kind,
        study=study.id,
        num_participants=len(people),
        num_answers=len(table.people),
        excluded=excluded,
        methods={} if is_preference else table.confusions(seed),
        preferences=preferences,
        strengths=_strengths(study, preferences),
        agreement=table.agreement(),
        correlations=correlations,
        remarks=remarks,
    )


def answers_csv(answers: Mapping[Path, Answers], *, max_failed_checks: int = 0) -> str:
    """One line per trial, for statistics of one's own."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["participant", "excluded", "trial", "check", "left", "right", "name", "answer", "milliseconds", "exposure"])
    for item in answers.values():
        excluded = int(item.num_failed_checks > max_failed_checks)
        for number, trial in enumerate(item.trials):
            shown = [item.study.stimuli[index] for index in trial.shown]
            sides = [stimulus.role if stimulus.role != "generated" else stimulus.method for stimulus in shown]
            name = shown[0].name if shown else ""
            cells = [*sides, "", ""][:2]
            check = int(item.is_check(trial))
            writer.writerow(
                [item.participant, excluded, number, check, *cells, name, trial.answer, trial.milliseconds, trial.exposure]
            )
    return buffer.getvalue()


def _is_hurried(answers: Answers) -> bool:
    return float(np.median([trial.milliseconds for trial in answers.questions])) < MIN_MILLISECONDS


@dataclass(frozen=True)
class _Table:
    """All answers that count, as columns.

    Attributes:
        people: participant of each answer, by number.
        questions: stimuli of each answer in the order of the study.
        holds: whether the generated one was taken for real, or a real one for generated; or whether the first method was preferred.
    """

    study: Study
    people: np.ndarray
    questions: list[tuple[int, ...]]
    holds: np.ndarray

    @staticmethod
    def of(study: Study, people: Mapping[str, Answers]) -> _Table:
        in_order = {tuple(sorted(question)): tuple(question) for question in study.questions}
        numbers, questions, holds = [], [], []
        for number, item in enumerate(people.values()):
            for trial in item.questions:
                question = in_order[tuple(sorted(trial.shown))]
                numbers.append(number)
                questions.append(question)
                if study.kind == "unpaired":
                    holds.append((trial.answer == "real") is (study.stimuli[question[0]].role == "generated"))
                else:
                    holds.append(item.chosen(trial) == question[study.kind == "paired"])
        return _Table(study, np.array(numbers), questions, np.array(holds))

    def _method(self, question: tuple[int, ...]) -> str | None:
        """The method that a question of a paired or unpaired study is on; None for a real one alone."""
        return self.study.stimuli[question[-1]].method

    def _rate(self, chosen: np.ndarray, seed: int, groups: np.ndarray | None = None) -> perception.Rate:
        stimuli = [self.study.stimuli[question[-1]].name for question in self.questions]
        names = np.unique(stimuli, return_inverse=True)[1]
        return perception.rate(
            self.holds[chosen], self.people[chosen], names[chosen], None if groups is None else groups[chosen], seed=seed
        )

    def confusions(self, seed: int) -> dict[str, Confusion]:
        methods = np.array([self._method(question) or "" for question in self.questions])
        is_real = methods == ""
        doubted = self._rate(is_real, seed) if is_real.any() else None
        result = {}
        for method in self.study.methods:
            is_of_method = methods == method.name
            if not is_of_method.any():
                continue
            fooled = self._rate(is_of_method, seed)
            if doubted is None:
                result[method.name] = Confusion(fooled)
            else:
                result[method.name] = Confusion(self._rate(is_of_method | is_real, seed, is_real.astype(int)), fooled, doubted)
        return result

    def preferences(self, seed: int) -> list[Preference]:
        pairs = np.array([tuple(self.study.stimuli[index].method for index in question) for question in self.questions])
        result = []
        for first, second in combinations((method.name for method in self.study.methods), 2):
            chosen = (pairs == (first, second)).all(axis=1)
            if chosen.any():
                wins, total = int(self.holds[chosen].sum()), int(chosen.sum())
                share = self._rate(chosen, seed)
                result.append(Preference(first, second, wins, total - wins, share, perception.binomial_test(wins, total)))
        return result

    def agreement(self) -> perception.Agreement | None:
        # Unpaired: real or generated, not right or wrong, or the kinds of stimuli would count as agreement by chance.
        is_real = np.array([len(question) == 1 and self.study.stimuli[question[0]].role == "real" for question in self.questions])
        counts: dict[tuple[int, ...], list[int]] = {}
        for question, answer in zip(self.questions, self.holds ^ is_real, strict=True):
            counts.setdefault(question, [0, 0])[int(answer)] += 1
        return perception.agreement(np.array(list(counts.values())))

    def shares(self) -> dict[tuple[int, ...], float]:
        """By question, how often the outcome held."""
        outcomes: dict[tuple[int, ...], list[bool]] = {}
        for question, held in zip(self.questions, self.holds, strict=True):
            outcomes.setdefault(question, []).append(bool(held))
        return {question: float(np.mean(values)) for question, values in outcomes.items()}


def _strengths(study: Study, preferences: Sequence[Preference]) -> dict[str, float]:
    names = [method.name for method in study.methods]
    if len(names) < 3 or not preferences:
        return {}
    wins = np.zeros((len(names), len(names)))
    for item in preferences:
        first, second = names.index(item.first), names.index(item.second)
        wins[first, second], wins[second, first] = item.wins, item.losses
    return dict(zip(names, map(float, perception.bradley_terry(wins)), strict=True))


# --- metrics --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scores:
    """Values of metrics, by key, then by (method, name) of a stimulus, or by method."""

    stimuli: dict[str, dict[tuple[str, str], float]]
    methods: dict[str, dict[str, float]]


def read_scores(study: Study, scores: Sequence[tuple[str | None, Path]]) -> Scores:
    """What files of scores say of the stimuli and the methods.

    Scores of one clip or picture, called as a stimulus, are of that. Scores of a folder of pictures are of the method, and their
    values of every frame of its pictures, in their order.

    Raises:
        InputError: a file holds no scores, or not of this study.
    """
    result = Scores({}, {})
    known = {method.name: method for method in study.methods}
    for name, path in scores:
        for file in json_files(path):
            for key, report in read_reports(file).items():
                method = known.get(name or key or "") or (study.methods[0] if len(known) == 1 and name is None else None)
                if method is None:
                    listed = ", ".join(map(paths.display, known))
                    raise InputError(
                        f"{paths.display(file)}: of which method? {f'{name!r} is none; ' if name else ''}the study has {listed}",
                        hint=f"write METHOD=FILE, such as {study.methods[0].name}={paths.display(path)}",
                    )
                _add_scores(result, method, report, paths.display(file))
    return result


def _add_scores(result: Scores, method: Method, report: Report, where: str) -> None:
    output = Path(paths.split_cut(report.provenance.output)[0])
    names = {paths.comparable(name): name for name in method.names}
    name = next((names[text] for text in map(paths.comparable, (output.name, output.stem)) if text in names), None)
    columns = {key: values for key, values in report.per_frame.items() if _is_of_pictures(key)}
    if name is not None:
        for key, entry in report.metrics.items():
            if entry.value is not None:
                result.stimuli.setdefault(key, {})[method.name, name] = entry.value
        return
    if report.provenance.num_frames != len(method.names):
        raise InputError(
            f"{where}: scores of {paths.display(output.name)} with {report.provenance.num_frames} frames; {method.name} has "
            f"{len(method.names)} stimuli, and none is called so",
            hint="give the scores of the same files that the study was made from",
        )
    for key, entry in report.metrics.items():
        if entry.value is not None:
            result.methods.setdefault(key, {})[method.name] = entry.value
    for key, values in columns.items():
        for stimulus, value in zip(method.names, values, strict=False):
            if np.isfinite(value):
                result.stimuli.setdefault(key, {})[method.name, stimulus] = float(value)


def _is_of_pictures(key: str) -> bool:
    """Whether a column holds a metric of single pictures that has a better and a worse."""
    metric = METRICS.get(base_of(key))
    return metric is not None and metric.better != "context" and "reference" not in metric.needs


def _correlations(study: Study, table: _Table, scores: Scores, seed: int) -> dict[str, Association]:
    shares = table.shares()
    result = {}
    for key, by_stimulus in scores.stimuli.items():
        values = {stimulus: _towards_best(key, value) for stimulus, value in by_stimulus.items()}
        entries = [pair for question, share in shares.items() if (pair := _entry(study, question, share, values)) is not None]
        result[key] = _association_of(key, "stimuli", entries, is_preference=study.kind == "preference", seed=seed)
    if study.kind != "preference":
        rates = {name: item.confusion.value for name, item in table.confusions(seed).items()}
        for key, by_method in scores.methods.items():
            if key not in result and len(by_method) >= perception.MIN_CORRELATED:
                entries = [(rates[name], _towards_best(key, value)) for name, value in by_method.items() if name in rates]
                result[key] = _association_of(key, "methods", entries, is_preference=False, seed=seed)
    return result


def _towards_best(key: str, value: float) -> float:
    """The value, or its distance from 1 where that is best."""
    return distance_from_best(value, "one") if metric_of(key).better == "one" else value


def _entry(
    study: Study, question: tuple[int, ...], share: float, values: Mapping[tuple[str, str], float]
) -> tuple[float, float] | None:
    """The share of answers and the metric's value of a question, or its difference of two; None where it has none."""
    stimuli = [study.stimuli[index] for index in question]
    found = [values.get((stimulus.method, stimulus.name)) for stimulus in stimuli if stimulus.method is not None]
    if not found or any(value is None or not np.isfinite(value) for value in found):
        return None
    numbers = [float(value) for value in found if value is not None]
    return share, numbers[0] - numbers[1] if len(numbers) == 2 else numbers[0]


def _association_of(
    key: str, of: Literal["stimuli", "methods"], entries: Sequence[tuple[float, float]], *, is_preference: bool, seed: int
) -> Association:
    answered, measured = ([entry[side] for entry in entries] for side in (0, 1))
    found = perception.correlation(measured, answered, seed=seed)
    better = metric_of(key).better
    reason = None
    if found is None:
        is_short = len(entries) < perception.MIN_CORRELATED
        reason = (
            f"{len(entries)} of {of}, {perception.MIN_CORRELATED} are needed" if is_short else "the values or answers do not vary"
        )
    agreement = None
    if is_preference and better != "context" and any(measured):
        sign = 1 if better == "high" else -1
        agreement = float(np.mean([share if sign * gap > 0 else 1 - share for share, gap in entries if gap]))
    return Association(of, better, found, agreement, reason)


# --- words ----------------------------------------------------------------------------------------------------------------


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _spread(rate: perception.Rate) -> str:
    return f"{100 * rate.value:.1f} % ± {100 * rate.deviation:.1f}"


def _interval(rate: perception.Rate) -> str:
    return f"{100 * rate.low:.1f} to {100 * rate.high:.1f} %"


def _p(value: float) -> str:
    return f"{value:.2g}" if value >= 1e-4 else "< 0.0001"


def _association(item: Association) -> tuple[str, ...]:
    agreement = "" if item.agreement is None else f"{100 * item.agreement:.1f} %"
    found = item.correlation
    if found is None:
        return "-", item.reason or "", "", "", agreement
    return (
        f"{found.spearman:.3f}",
        f"{found.low:.2f} to {found.high:.2f}",
        f"{found.pearson:.3f}",
        f"{found.count} {item.of}",
        agreement,
    )


def _columns(rows: Iterable[Sequence[str]]) -> list[str]:
    listed = [tuple(map(paths.display, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*listed, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in listed]
