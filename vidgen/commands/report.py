"""One page that shows what was measured and trained: verdicts, tables, curves under a synchronised player, maps, samples.

The page is one file without any reference to another: it opens from a disk, a mail or an archive, today and in ten years.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import vidgen
from vidgen import durable
from vidgen.commands import pages
from vidgen.commands.pages import clips, curves, maps
from vidgen.errors import ConfigError, InputError
from vidgen.media import images, paths
from vidgen.media.frames import FOLDER_FRAME_RATE, Frame, FrameSource, PictureSource, open_source
from vidgen.metrics import temporal
from vidgen.metrics.report import Scores, compare_scores
from vidgen.metrics.score import METRICS, Score, base_of

log = logging.getLogger(__name__)

DEFAULT_RANK_KEY = "warp_error_norm"
_HEADLINES = (
    "warp_error@1",
    "warp_error_norm",
    "motion_fidelity",
    "flicker_global",
    "flicker_local",
    "sharpness_ratio",
    "psnr",
    "ssim",
)
_SAME = ("source", "target", "flow", "flow_from", "size", "strides", "num_frames")
_BETTER = {"low": "lower", "high": "higher", "one": "near 1", "context": "context"}
_ARROWS = {"low": "↓", "high": "↑", "one": "≈ 1"}
_NOT_MEASURED: dict[str, Any] = {"value": None, "reason": "not measured", "note": None, "n": 0, "skipped": 0}
_SAMPLE_RATE = Fraction(2)
_SHARE_OF_VIDEOS = 0.7


def report(
    inputs: Sequence[str],
    out: Path,
    *,
    max_megabytes: float = 30.0,
    max_height: int = 480,
    fps: float | None = None,
    rank_by: str = DEFAULT_RANK_KEY,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a page on runs and scores.

    Args:
        inputs: run folders, and files that `vidgen evaluate --json` wrote, also as NAME=FILE.
        out: the page.
        max_megabytes: about how large the page may become; videos are made smaller for it.
        max_height: of the videos shown.
        fps: frames per second of folders of pictures, which state none.
        rank_by: the score that ranks several outputs.

    Returns:
        where the page is, how large it is, and what could not be shown.

    Raises:
        InputError: an input is neither a run nor scores.
        ConfigError: `rank_by` is no score that has a better end.
        OutputError: `out` exists, or cannot be written.
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"{paths.display(out)}: a report is a page; expected a name that ends with .html")
    if base_of(rank_by) in METRICS and METRICS[base_of(rank_by)].better == "context":
        raise ConfigError(f"--rank-by {rank_by}: says how far to trust other scores, not which output is better")
    durable.check_writable_target(out, overwrite=overwrite)
    runs, scored = _read_inputs(inputs)
    if scored and not any(rank_by in item.metrics for item in scored) and rank_by != DEFAULT_RANK_KEY:
        raise ConfigError(f"--rank-by {rank_by}: none of the scores has it")
    budget = max_megabytes * 1e6 * _SHARE_OF_VIDEOS * 3 / 4 / (len(runs) + bool(scored))
    notes: list[str] = []
    measured = _Measured.of(scored, notes, rank_by) if scored else None
    shown = measured.show(budget, max_height, fps) if measured is not None else {}
    trainings = [_training(f"run{index}", run, budget, max_height) for index, run in enumerate(runs)]
    payload = {
        "players": {**shown.get("players", {}), **{key: value for run in trainings for key, value in run["players"].items()}},
        "charts": shown.get("charts", []),
        "trainings": [run["charts"] for run in trainings],
    }
    page = pages.render(
        "report.html.j2",
        title=_title(runs, scored),
        version=vidgen.__version__,
        measured=measured and {**measured.values(), **shown},
        trainings=trainings,
        notes=notes,
        payload=payload,
    )
    durable.write_text(out, page)
    notes = [*notes, *(note for run in trainings for note in run["notes"])]
    return {
        "page": str(out),
        "megabytes": round(out.stat().st_size / 1e6, 2),
        "outputs": [item.name for item in scored],
        "runs": [str(run) for run in runs],
        "notes": notes,
    }


def _title(runs: Sequence[Path], scored: Sequence[_Scored]) -> str:
    names = [*(run.resolve().name for run in runs), *(item.name for item in scored)]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


# --- reading --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scored:
    """Scores of one output.

    Attributes:
        name: how the page calls the output.
        file: where the scores were read from.
        metrics: key -> {value, unit, better, n, skipped, reason}.
        columns: per-frame values.
    """

    name: str
    file: Path
    metrics: dict[str, dict[str, Any]]
    rankable: bool
    reasons: list[str]
    cuts: list[int]
    comparisons: dict[str, dict[str, dict[str, Any]]]
    provenance: dict[str, Any]
    columns: dict[str, np.ndarray]

    def value(self, key: str) -> float | None:
        return self.metrics.get(key, {}).get("value")

    def scores(self) -> Scores:
        """As `vidgen.metrics.report` wants them."""
        found = {
            key: Score(entry["value"], entry["n"], entry["skipped"], entry["reason"])
            for key, entry in self.metrics.items()
            if base_of(key) in METRICS
        }
        return Scores(found, self.reasons, self.cuts, self.provenance, self.columns)


def _read_inputs(inputs: Sequence[str]) -> tuple[list[Path], list[_Scored]]:
    runs, scored = [], []
    for text in inputs:
        name, path = pages.named_input(text)
        if path.is_dir():
            if not (path / "metrics.jsonl").is_file():
                raise InputError(
                    f"{paths.display(path)}: holds no metrics.jsonl, so it is no run", hint="give a run folder or a file of scores"
                )
            runs.append(path)
        else:
            scored += _read_scores(path, name)
    return runs, _distinct(scored)


def _read_scores(path: Path, name: str | None) -> list[_Scored]:
    """The scores in a file: one object, or several by name."""
    paths.check_file(path)
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{paths.display(path)}: is not JSON ({error})", hint="vidgen evaluate --json writes scores") from error
    if _holds_scores(content):
        return [_scored(content, path, name)]
    if isinstance(content, dict) and content and all(map(_holds_scores, content.values())):
        return [_scored(part, path, key) for key, part in content.items()]
    raise InputError(f"{paths.display(path)}: holds no scores", hint="vidgen evaluate --json writes them")


def _holds_scores(content: Any) -> bool:
    if not isinstance(content, dict) or "schema_version" not in content:
        return False
    return all(isinstance(content.get(key), dict) for key in ("metrics", "verdict", "provenance"))


def _scored(content: dict[str, Any], file: Path, name: str | None) -> _Scored:
    """Scores from JSON values, of which nothing is believed before it is looked at."""
    verdict, provenance = content["verdict"], content["provenance"]
    output = str(provenance.get("output") or file.stem)
    per_frame = content.get("per_frame")
    return _Scored(
        name=name or paths.display(Path(output).stem or output),
        file=file,
        metrics={str(key): _metric(entry) for key, entry in content["metrics"].items() if isinstance(entry, dict)},
        rankable=verdict.get("rankable") is True,
        reasons=[str(reason) for reason in _list(verdict.get("reasons"))],
        cuts=[cut for cut in _list(content.get("cuts")) if isinstance(cut, int)],
        comparisons=_comparisons(content.get("comparisons")),
        provenance=provenance,
        columns={str(key): _column(values) for key, values in per_frame.items()} if isinstance(per_frame, dict) else {},
    )


def _metric(entry: dict[str, Any]) -> dict[str, Any]:
    value = pages.finite(entry.get("value"))
    reason = entry.get("reason") or (None if value is not None else "no reason is given")
    counts = {name: entry[name] if isinstance(entry.get(name), int) else 0 for name in ("n", "skipped")}
    texts = {name: str(entry.get(name) or "") for name in ("unit", "better")}
    note = entry.get("note")
    return {
        "value": value,
        "reason": None if reason is None else str(reason),
        "note": None if note is None else str(note),
        **texts,
        **counts,
    }


def _comparisons(content: Any) -> dict[str, dict[str, dict[str, Any]]]:
    if not isinstance(content, dict):
        return {}
    return {
        str(name): {str(key): {part: pages.finite(entry.get(part)) for part in ("value", "difference", "low", "high")}
                    for key, entry in entries.items() if isinstance(entry, dict)}
        for name, entries in content.items()
        if isinstance(entries, dict)
    }  # fmt: skip


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _column(values: Any) -> np.ndarray:
    return np.array([math.nan if (found := pages.finite(value)) is None else found for value in _list(values)], dtype=np.float64)


def _distinct(scored: Sequence[_Scored]) -> list[_Scored]:
    """The same with names that differ: by the file of scores where outputs are called alike, and by a count where that is too."""
    result: list[_Scored] = []
    for item in scored:
        alike = sum(other.name == item.name for other in scored) > 1
        name = base = f"{item.name} ({paths.display(item.file.stem)})" if alike and item.file.stem != item.name else item.name
        count = 1
        while any(name == other.name for other in result):
            count += 1
            name = f"{base} {count}"
        result.append(_Scored(**{**vars(item), "name": name}))
    return result


# --- what was measured ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Measured:
    """The scores of all outputs, side by side.

    Attributes:
        scored: best first where they can be compared, else as given.
        differences: what keeps them from being compared, in words.
        notes: a list that takes what could not be shown.
    """

    scored: list[_Scored]
    differences: list[str]
    rank_by: str
    notes: list[str]

    @staticmethod
    def of(scored: Sequence[_Scored], notes: list[str], rank_by: str) -> _Measured:
        differences = _differences(scored)
        if not any(rank_by in item.metrics for item in scored):
            rank_by = next(iter(key for item in scored for key in item.metrics), rank_by)
        if not differences:
            scored = sorted(scored, key=lambda item: _rank_key(item, rank_by))
        return _Measured(list(scored), differences, rank_by, notes)

    def values(self) -> dict[str, Any]:
        """What the template shows as text."""
        return {
            "outputs": [self._card(item) for item in self.scored],
            "ranking": self._ranking() if len(self.scored) > 1 and not self.differences else [],
            "rank_by": self.rank_by,
            "rank_about": METRICS[base_of(self.rank_by)].about if base_of(self.rank_by) in METRICS else "",
            "differences": self.differences,
            "rows": self._rows(),
            "comparisons": [
                {"first": item.name, "second": name, "entries": entries}
                for item in self.scored
                for name, entries in item.comparisons.items()
            ],
            "provenance": [(item.name, _flat(item.provenance), paths.display(item.file)) for item in self.scored],
        }

    def _card(self, item: _Scored) -> dict[str, Any]:
        known = {key: item.metrics[key] for key in _HEADLINES if item.value(key) is not None}
        return {
            "name": item.name,
            "path": item.provenance.get("output"),
            "rankable": item.rankable,
            "reasons": item.reasons,
            "headlines": [(key, entry["value"], entry["unit"], _ARROWS.get(entry["better"], "")) for key, entry in known.items()],
            "num_frames": item.provenance.get("num_frames"),
            "coverage": item.value("coverage@1"),
            "cuts": item.cuts,
        }

    def _ranking(self) -> list[dict[str, Any]]:
        best = self.scored[0]
        place, rows = 0, []
        for item in self.scored:
            ranked = item.rankable and item.value(self.rank_by) is not None
            place += ranked
            rows.append(
                {
                    "place": place if ranked else None,
                    "name": item.name,
                    "value": item.value(self.rank_by),
                    "reasons": item.reasons,
                    "difference": None if item is best else self._difference(best, item),
                }
            )
        return rows

    def _difference(self, best: _Scored, item: _Scored) -> dict[str, Any] | None:
        """How far `item` is from the best, with a 95 % interval; None where the values of the frames are not known."""
        if "sharpness" not in best.columns or "sharpness" not in item.columns:
            return None
        strides = [stride for stride in _list(item.provenance.get("strides")) if isinstance(stride, int) and stride > 0] or [1]
        try:
            compared = compare_scores(item.scores(), best.scores(), partial(_summarise, strides=strides))
        except (InputError, KeyError, ValueError, IndexError) as error:
            log.debug("%s and %s: no interval (%s)", item.name, best.name, error)
            return None
        return compared.get(self.rank_by)

    def _rows(self) -> list[dict[str, Any]]:
        """A line of the table for each score."""
        keys = sorted({key for item in self.scored for key in item.metrics}, key=_table_order)
        return [self._row(key) for key in keys]

    def _row(self, key: str) -> dict[str, Any]:
        known = next(item.metrics[key] for item in self.scored if key in item.metrics)
        values = {item.name: value for item in self.scored if item.rankable and (value := item.value(key)) is not None}
        distance = _distance_from_best(known["better"])
        is_contest = len(set(values.values())) > 1 and base_of(key) not in curves.OF_REFERENCE and not self.differences
        best = min(map(distance, values.values())) if is_contest and distance is not None else None
        return {
            "key": key,
            "about": METRICS[base_of(key)].about if base_of(key) in METRICS else "",
            "unit": known["unit"],
            "better": _BETTER.get(known["better"], known["better"]),
            "cells": [
                {
                    **item.metrics.get(key, _NOT_MEASURED),
                    "best": best is not None
                    and item.name in values
                    and distance is not None
                    and distance(values[item.name]) == best,
                }
                for item in self.scored
            ],
        }

    # --- pictures

    def show(self, budget: float, max_height: int, fps: float | None) -> dict[str, Any]:
        """Player, curves and maps; whatever cannot be read is left out, with a note."""
        sources = self._open(fps)
        columns = {item.name: item.columns for item in self.scored if item.columns}
        if not columns:
            self.notes.append("the scores hold no values of single frames, so there are no curves; measure again to get them")
        num_frames = min(
            (count for item in self.scored if isinstance(count := item.provenance.get("num_frames"), int)), default=None
        )
        shown = self._players(sources, budget, max_height, num_frames) if sources else {}
        length = max((len(values) for named in columns.values() for values in named.values()), default=0)
        times = _extended(shown.pop("times", []), length, 1 / float(fps or self._frame_rate()))
        charts = curves.frame_charts(columns)
        cuts = sorted({cut for item in self.scored for cut in item.cuts})
        return {
            "videos": [],
            "reductions": [],
            **shown,
            "charts": charts,
            "players": {"main": {"times": times, "cuts": cuts, "name": "frames"}} if charts or shown else {},
            "maps": (drawn := self._maps(sources)),
            "wheel": maps.wheel() if drawn else "",
        }

    def _frame_rate(self) -> float:
        rates = [pages.finite(item.provenance.get("frame_rate")) for item in self.scored]
        return next((rate for rate in rates if rate), float(FOLDER_FRAME_RATE))

    def _open(self, fps: float | None) -> dict[str, FrameSource]:
        """The videos: source and target, of which there is one where the outputs share it, then the outputs."""
        rate = Fraction(fps if fps is not None else self._frame_rate()).limit_denominator(100_000)
        sources: dict[str, FrameSource] = {}
        for role in ("source", "target"):
            named = {text: item for item in reversed(self.scored) if isinstance(text := item.provenance.get(role), str)}
            for text, item in named.items():
                label = role if len(named) == 1 else f"{role} of {item.name}"
                self._try_open(sources, label, text, item, rate)
        if "source" in sources and "target" in sources and _same_text(self.scored, "source", "target"):
            sources = {"source and target": sources["source"]}
        for item in self.scored:
            text = item.provenance.get("output")
            if isinstance(text, str):
                self._try_open(sources, item.name, text, item, rate)
        return sources

    def _try_open(self, sources: dict[str, FrameSource], label: str, text: str, item: _Scored, rate: Fraction) -> None:
        where = text if Path(text).is_absolute() or _exists(text) else str(item.file.parent / text)
        try:
            if text == "-":
                raise InputError("it came from standard input, which is not kept")
            source = open_source(where, allow_truncated=True, frame_rate=rate)
        except InputError as error:
            self.notes.append(f"{label} is not shown: {error}. If it was moved, put it back or measure it where it is now.")
            return
        name = f"{label} (output)" if label in sources else label
        sources[name] = source
        stated = item.provenance.get("num_frames")
        if (
            isinstance(source, PictureSource)
            and isinstance(stated, int)
            and source.num_frames is not None
            and source.num_frames < stated
        ):
            self.notes.append(f"{label} has {source.num_frames} frames now, and had at least {stated} when it was measured")

    def _players(self, sources: dict[str, FrameSource], budget: float, max_height: int, num_frames: int | None) -> dict[str, Any]:
        lead = next((name for name, source in sources.items() if not isinstance(source, PictureSource)), next(iter(sources)))
        try:
            shown = clips.embed(sources, lead=lead, max_bytes=budget, max_height=max_height, max_frames=num_frames)
        except InputError as error:
            self.notes.append(f"the videos are not shown: {error}")
            return {}
        self.notes.extend(f"{name}: {source.damage}" for name, source in sources.items() if source.damage)
        if num_frames is not None and len(shown.times) < num_frames and not any("first" in words for words in shown.reductions):
            self.notes.append(f"the players end after {len(shown.times)} frames, {num_frames} were measured")
        if len(shown.times) == num_frames:
            self._note_changes(shown.digests)
        names = [item.name for item in self.scored]
        return {
            "videos": [
                {"name": name, "color": names.index(name) if name in names else None, "uri": shown.uri(name)}
                for name in shown.videos
            ],
            "reductions": shown.reductions,
            "times": shown.times,
            "size": shown.size,
        }

    def _note_changes(self, digests: Mapping[str, str]) -> None:
        """Say which videos are not those that were measured."""
        for item in self.scored:
            if item.provenance.get("fps") is not None:
                continue
            for name, role in ((item.name, "output"), ("source", "source"), ("target", "target")):
                measured = _content_digest(item, role)
                if name in digests and measured is not None and measured != digests[name]:
                    note = (
                        f"{name} has changed since {item.name} was measured: the player shows what is there now, scores are of then"
                    )
                    self.notes.append(note)

    def _maps(self, sources: Mapping[str, FrameSource]) -> list[dict[str, Any]]:
        if self.differences:
            return []
        provenance = self.scored[0].provenance
        role = provenance.get("flow_from")
        reference = sources.get(str(role)) or sources.get("source and target")
        outputs = {item.name: sources[item.name] for item in self.scored if item.name in sources}
        size = _size(provenance.get("size"))
        if reference is None or not outputs or size is None:
            return []
        errors = {item.name: item.columns["warp_error@1"] for item in self.scored if "warp_error@1" in item.columns}
        num_frames = min([len(values) for values in errors.values()], default=0)
        try:
            moments = maps.choose_moments({name: values[:num_frames] for name, values in errors.items()}, num_frames)
            return maps.draw(reference, outputs, moments, size)
        except InputError as error:
            self.notes.append(f"there are no maps: {error}")
            return []


def _extended(times: list[float], length: int, interval: float) -> list[float]:
    """The times of `length` frames or more: where fewer are shown than were measured, the curves go on at the same pace."""
    if len(times) > 1:
        interval = times[-1] / (len(times) - 1)
    start = times[-1] + interval if times else 0.0
    return times + [start + index * interval for index in range(length - len(times))]


def _summarise(columns: temporal.Columns, strides: Sequence[int]) -> dict[str, Score]:
    """The scores of a stretch of frames, for intervals."""
    means = {key: temporal.mean_score(columns, key, "no frame has it") for key in columns if base_of(key) in METRICS}
    return means | temporal.summarise(columns, strides)


def _size(size: Any) -> tuple[int, int] | None:
    """(height, width) of the canvas, where that is what it is."""
    if isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) and 16 <= side <= 4096 for side in size):
        return size[0], size[1]
    return None


def _exists(text: str) -> bool:
    try:
        return Path(paths.split_cut(text)[0]).exists()
    except (OSError, ValueError):
        return False


def _same_text(scored: Sequence[_Scored], first: str, second: str) -> bool:
    return all(item.provenance.get(first) == item.provenance.get(second) for item in scored)


def _differences(scored: Sequence[_Scored]) -> list[str]:
    """In which of the conditions of measuring the scores differ, in words."""
    words = []
    for key in _SAME:
        values = [item.provenance.get(key) for item in scored]
        found = dict.fromkeys("none" if value is None else json.dumps(value, default=str).strip('"') for value in values)
        digests = {_content_digest(item, key) for item in scored}
        if len(digests) > 1 or (None in digests and len(found) > 1):
            words.append(f"{key.replace('_', ' ')}: {' / '.join(found)}{' with another content' if len(found) == 1 else ''}")
    return words


def _content_digest(item: _Scored, role: str) -> str | None:
    """What the frames of an input were when it was measured; None where the scores do not say."""
    digests = item.provenance.get("content_sha256")
    found = digests.get(role) if isinstance(digests, dict) else None
    return found if isinstance(found, str) else None


def _rank_key(item: _Scored, key: str) -> tuple[bool, bool, float]:
    value = item.value(key)
    distance = _distance_from_best(item.metrics.get(key, {}).get("better", "low"))
    return not item.rankable, value is None, distance(value) if distance is not None and value is not None else math.inf


def _distance_from_best(better: str) -> Callable[[float], float] | None:
    """A function that is smallest at the best value; None where there is no better."""
    return {
        "low": lambda value: value,
        "high": lambda value: -value,
        "one": lambda value: abs(math.log(value)) if value > 0 else math.inf,
    }.get(better)


def _table_order(key: str) -> tuple[int, list[float], str]:
    names = list(METRICS)
    base = base_of(key)
    return names.index(base) if base in names else len(names), [float(part) for part in re.findall(r"\d+", key)], key


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested values as lines of text."""
    lines: list[tuple[str, str]] = []
    for key, part in value.items():
        name = f"{prefix}{str(key).replace('_', ' ')}"
        if isinstance(part, Mapping):
            lines += _flat(part, f"{name}: ")
        elif part is not None:
            lines.append((name, ", ".join(map(str, part)) if isinstance(part, list) else str(part)))
    return lines


# --- training -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Samples:
    """Pictures of one size, one after another, as the frames of a clip."""

    files: Sequence[Path]
    size: tuple[int, int]
    time_base: Fraction = 1 / _SAMPLE_RATE
    frame_rate: Fraction = _SAMPLE_RATE

    def __iter__(self):  # type: ignore[no-untyped-def]
        for index, file in enumerate(self.files):
            yield Frame(images.read_picture(file), index, paths.display(file))


def _training(key: str, run: Path, budget: float, max_height: int) -> dict[str, Any]:
    """Curves and samples of a run."""
    training = curves.read_training(run / "metrics.jsonl")
    notes = list(training.faults)
    if not training.charts:
        notes.append("no step is recorded yet")
    config = run / "config.yaml"
    values: dict[str, Any] = {
        "key": key,
        "name": run.resolve().name,
        "num_steps": training.num_steps,
        "stages": [name for _, name in training.marks],
        "config": config.read_text("utf-8", "replace") if config.is_file() else None,
        "notes": notes,
        "reductions": [],
        "players": {},
        "samples": None,
        "clip": None,
        "charts": {"key": key, "charts": training.charts, "steps": training.steps, "marks": training.marks},
    }
    _add_samples(values, run / "samples", budget, max_height)
    return values


def _add_samples(values: dict[str, Any], folder: Path, budget: float, max_height: int) -> None:
    """All sample pictures as one clip that runs through training, and the newest sample clip."""
    found = paths.list_folder(folder) if folder.is_dir() else []
    steps = {int(match[1]): file for file in found if (match := re.fullmatch(r"step-(\d{1,12})\.png", file.name))}
    newest = next((file for file in reversed(found) if re.fullmatch(r"step-\d{1,12}\.mp4", file.name)), None)
    try:
        if steps:
            files = [steps[step] for step in sorted(steps)]
            pictures = _Samples(files, images.read_size(files[-1]))
            shown = clips.embed({"samples": pictures}, lead="samples", max_bytes=budget / 2, max_height=2 * max_height)
            values["samples"] = shown.uri("samples")
            values["players"][f"{values['key']}-samples"] = {"times": shown.times, "steps": sorted(steps), "cuts": []}
            values["reductions"] += shown.reductions
        if newest is not None:
            clip = clips.embed({"sample": open_source(newest)}, lead="sample", max_bytes=budget / 2, max_height=2 * max_height)
            values["clip"] = clip.uri("sample")
            values["clip_name"] = paths.display(newest.name)
            values["players"][f"{values['key']}-clip"] = {"times": clip.times, "cuts": []}
            values["reductions"] += clip.reductions
    except InputError as error:
        values["notes"].append(f"not all samples are shown: {error}")
    if not steps:
        values["notes"].append("there are no samples yet")
