"""One page that shows what was measured and trained: verdicts, tables, curves under a synchronized player, maps, samples.

The page is self-contained: one file without external references.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import vidgen
from vidgen import durable
from vidgen.errors import ConfigError, InputError
from vidgen.evaluation.compare import compare_reports, distance_from_best, is_contest
from vidgen.evaluation.report import Difference, MetricValue, Provenance, Report
from vidgen.media import images, paths
from vidgen.media.frames import FOLDER_FRAME_RATE, Frame, FrameSource, PictureSource, open_source
from vidgen.metrics.score import METRICS, RENAMED, Score, base_of
from vidgen.pages import curves, players, templates

if TYPE_CHECKING:
    from vidgen.metrics.temporal import Columns

log = logging.getLogger(__name__)

DEFAULT_RANK_KEY = "warp_error_norm"
MAX_MAP_SIDE = 4096
MIN_FRAME_RATE, MAX_FRAME_RATE = 0.01, 1000
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
_CONDITIONS = ("source", "target", "flow", "flow_from", "size", "strides", "num_frames")
_BETTER = {"low": "lower", "high": "higher", "one": "near 1", "context": "context"}
_ARROWS = {"low": "↓", "high": "↑", "one": "≈ 1"}
_NOT_MEASURED = MetricValue(value=None, unit="", better="context", n=0, skipped=0, reason="not measured")
_SAMPLE_RATE = Fraction(2)
_SHARE_OF_VIDEOS = 0.7


@dataclass(frozen=True)
class ScoredVideo:
    """A report, as the page calls it.

    Attributes:
        file: where it was read from. Videos that it names are shown where they lie below the folder of this file.
    """

    name: str
    file: Path
    report: Report

    @property
    def provenance(self) -> Provenance:
        return self.report.provenance


def write_report(
    scored: Sequence[ScoredVideo],
    runs: Sequence[Path],
    out: Path,
    *,
    max_megabytes: float = 30.0,
    max_height: int = 480,
    fps: float | None = None,
    rank_by: str = DEFAULT_RANK_KEY,
    allow_paths: Sequence[Path] = (),
    overwrite: bool = False,
) -> list[str]:
    """Write a page on runs and scores.

    Args:
        scored: what was measured.
        runs: folders of training runs.
        out: the page.
        max_megabytes: about how large the page may become; videos are made smaller for it.
        max_height: of the videos in it.
        fps: frames per second of folders of pictures, which state none.
        rank_by: the score that ranks several outputs.
        allow_paths: folders and files, besides the folder of each file of scores, whose videos may be shown. Scores can come from
            somebody else, and the page goes to somebody else: what they name elsewhere stays out of it.

    Returns:
        what could not be shown, in words.

    Raises:
        ConfigError: `out` is no page, or `rank_by` is no score that has a better end.
        OutputError: `out` exists, or cannot be written.
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"{paths.display(out)}: a report is a page; expected a name that ends with .html")
    rank_by = RENAMED.get(rank_by, rank_by)
    if base_of(rank_by) in METRICS and METRICS[base_of(rank_by)].better == "context":
        raise ConfigError(f"`rank_by` {rank_by}: says how far to trust other scores, not which output is better")
    if scored and not any(rank_by in item.report.metrics for item in scored) and rank_by != DEFAULT_RANK_KEY:
        raise ConfigError(f"`rank_by` {rank_by}: none of the scores has it")
    with durable.claim([out], inputs=[item.file for item in scored], overwrite=overwrite):
        budget = max_megabytes * 1e6 * _SHARE_OF_VIDEOS * 3 / 4 / (len(runs) + bool(scored))
        notes: list[str] = []
        measured = _Measured.of(distinct(scored), notes, rank_by, allow_paths) if scored else None
        pictures = measured.pictures(budget, max_height, fps) if measured is not None else {}
        trainings = [_training(f"run{index}", run, budget, max_height) for index, run in enumerate(runs)]
        payload = {
            "players": {
                **pictures.get("players", {}),
                **{key: value for run in trainings for key, value in run["players"].items()},
            },
            "charts": pictures.get("charts", []),
            "trainings": [run["charts"] for run in trainings],
        }
        page = templates.render(
            "report.html.j2",
            title=_title(runs, scored),
            version=vidgen.__version__,
            measured=measured and {**measured.values(), **pictures},
            trainings=trainings,
            notes=notes,
            payload=payload,
        )
        durable.write_text(out, page)
        return [*notes, *(note for run in trainings for note in run["notes"])]


def _title(runs: Sequence[Path], scored: Sequence[ScoredVideo]) -> str:
    names = [*(run.resolve().name for run in runs), *(item.name for item in scored)]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def distinct(scored: Sequence[ScoredVideo]) -> list[ScoredVideo]:
    """The same with names that differ: by the file of scores where outputs are called alike, and by a count where that is too."""
    result: list[ScoredVideo] = []
    for item in scored:
        alike = sum(other.name == item.name for other in scored) > 1
        name = base = f"{item.name} ({paths.display(item.file.stem)})" if alike and item.file.stem != item.name else item.name
        count = 1
        while any(name == other.name for other in result):
            count += 1
            name = f"{base} {count}"
        result.append(replace(item, name=name))
    return result


# --- what was measured ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Measured:
    """The scores of all outputs, side by side.

    Attributes:
        scored: best first where they can be compared, else in the order of the inputs.
        differences: what keeps them from being compared, in words.
        notes: a list that takes what could not be shown.
    """

    scored: list[ScoredVideo]
    differences: list[str]
    rank_by: str
    notes: list[str]
    allow_paths: Sequence[Path]

    @staticmethod
    def of(scored: Sequence[ScoredVideo], notes: list[str], rank_by: str, allow_paths: Sequence[Path]) -> _Measured:
        differences = _differences(scored)
        if not any(rank_by in item.report.metrics for item in scored):
            rank_by = next(iter(key for item in scored for key in item.report.metrics), rank_by)
        if not differences:
            scored = sorted(scored, key=lambda item: _rank_key(item, rank_by))
        return _Measured(list(scored), differences, rank_by, notes, allow_paths)

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
                for name, entries in item.report.comparisons.items()
            ],
            "provenance": [(item.name, _flat(item.provenance.model_dump()), paths.display(item.file)) for item in self.scored],
        }

    def _card(self, item: ScoredVideo) -> dict[str, Any]:
        known = {key: item.report.metrics[key] for key in _HEADLINES if item.report.get(key) is not None}
        return {
            "name": item.name,
            "path": item.provenance.output,
            "rankable": item.report.verdict.rankable,
            "reasons": item.report.reasons,
            "headlines": [(key, entry.value, entry.unit, _ARROWS.get(entry.better, "")) for key, entry in known.items()],
            "num_frames": item.provenance.num_frames,
            "coverage": item.report.get("coverage@1"),
            "cuts": item.report.cuts,
        }

    def _ranking(self) -> list[dict[str, Any]]:
        best = self.scored[0]
        place, rows = 0, []
        for item in self.scored:
            ranked = item.report.verdict.rankable and item.report.get(self.rank_by) is not None
            place += ranked
            rows.append(
                {
                    "place": place if ranked else None,
                    "name": item.name,
                    "value": item.report.get(self.rank_by),
                    "reasons": item.report.reasons,
                    "difference": None if item is best else self._difference(best, item),
                }
            )
        return rows

    def _difference(self, best: ScoredVideo, item: ScoredVideo) -> Difference | None:
        """How far `item` is from the best, with a 95 % interval; None where the values of the frames are not known."""
        if not all("sharpness" in other.report.per_frame for other in (best, item)):
            return None
        try:
            compared = compare_reports(item.report, best.report, partial(_summarize, strides=item.provenance.strides or [1]))
        except (InputError, KeyError, ValueError, IndexError) as error:
            log.debug("%s and %s: no interval (%s)", item.name, best.name, error)
            return None
        return compared.get(self.rank_by)

    def _rows(self) -> list[dict[str, Any]]:
        """A line of the table for each score."""
        keys = sorted({key for item in self.scored for key in item.report.metrics}, key=_table_order)
        return [self._row(key) for key in keys]

    def _row(self, key: str) -> dict[str, Any]:
        known = next(item.report.metrics[key] for item in self.scored if key in item.report.metrics)
        distances = {
            item.name: distance_from_best(value, known.better)
            for item in self.scored
            if item.report.verdict.rankable and (value := item.report.get(key)) is not None
        }
        has_best = len(set(distances.values())) > 1 and is_contest(key, known.better) and not self.differences
        best = min(distances.values()) if has_best else None
        return {
            "key": key,
            "about": METRICS[base_of(key)].about if base_of(key) in METRICS else "",
            "unit": known.unit,
            "better": _BETTER[known.better],
            "cells": [
                (item.report.metrics.get(key, _NOT_MEASURED), best is not None and distances.get(item.name) == best)
                for item in self.scored
            ],
        }

    # --- pictures

    def pictures(self, budget: float, max_height: int, fps: float | None) -> dict[str, Any]:
        """Player, curves and maps; whatever cannot be read is left out, with a note."""
        sources = self._open(fps)
        columns = {item.name: item.report.per_frame for item in self.scored if item.report.per_frame}
        if not columns:
            self.notes.append("the scores hold no values of single frames, so there are no curves; measure again to get them")
        num_frames = min(item.provenance.num_frames for item in self.scored)
        clips = self._players(sources, budget, max_height, num_frames) if sources else {}
        length = max((len(values) for named in columns.values() for values in named.values()), default=0)
        times = _extended(clips.pop("times", []), length, 1 / float(fps or self._frame_rate()))
        charts = curves.frame_charts(columns)
        cuts = sorted({cut for item in self.scored for cut in item.report.cuts})
        return {
            "videos": [],
            "reductions": [],
            **clips,
            "charts": charts,
            "players": {"main": {"times": times, "cuts": cuts, "name": "frames"}} if charts or clips else {},
            "maps": (drawn := self._maps(sources)),
            "wheel": _maps().wheel() if drawn else "",
        }

    def _frame_rate(self) -> float:
        stated = (item.provenance.frame_rate for item in self.scored)
        return next(
            (rate for rate in stated if rate is not None and MIN_FRAME_RATE <= rate <= MAX_FRAME_RATE), float(FOLDER_FRAME_RATE)
        )

    def _open(self, fps: float | None) -> dict[str, FrameSource]:
        """The videos: source and target, of which there is one where the outputs share it, then the outputs."""
        rate = Fraction(fps if fps is not None else self._frame_rate()).limit_denominator(100_000)
        sources: dict[str, FrameSource] = {}
        for role in ("source", "target"):
            named = {text: item for item in reversed(self.scored) if (text := item.provenance.path(role)) is not None}
            for text, item in named.items():
                label = role if len(named) == 1 else f"{role} of {item.name}"
                self._try_open(sources, label, text, item, rate)
        if "source" in sources and "target" in sources and _same_text(self.scored, "source", "target"):
            sources = {"source and target": sources["source"]}
        for item in self.scored:
            self._try_open(sources, item.name, item.provenance.output, item, rate)
        return sources

    def _try_open(self, sources: dict[str, FrameSource], label: str, text: str, item: ScoredVideo, rate: Fraction) -> None:
        try:
            if text == "-":
                raise InputError("it came from standard input, which is not stored")
            self._check_allowed(text, item)
            source = open_source(text, allow_truncated=True, frame_rate=rate)
        except (InputError, OSError, ValueError) as error:  # a name out of a file can be one that no system allows
            advice = getattr(error, "hint", None) or "if it was moved, put it back or measure it where it is now"
            self.notes.append(f"{label} is not shown: {error}; {advice}")
            return
        name = f"{label} (output)" if label in sources else label
        sources[name] = source
        stated = item.provenance.num_frames
        if isinstance(source, PictureSource) and source.num_frames is not None and source.num_frames < stated:
            self.notes.append(f"{label} has {source.num_frames} frames now, and had at least {stated} when it was measured")

    def _check_allowed(self, text: str, item: ScoredVideo) -> None:
        """Refuse what lies elsewhere: scores by somebody else could name any video of this machine.

        Raises:
            InputError: it lies neither below the folder of the scores nor below a path that was allowed.
        """
        place = Path(paths.split_cut(text)[0]).resolve()
        if not any(place.is_relative_to(root.resolve()) for root in (item.file.parent, *self.allow_paths)):
            folder = paths.display(place.parent)
            raise InputError(
                f"{paths.display(place)} lies outside the folder of the scores", hint=f"`allow_path` {folder} lets it be shown"
            )

    def _players(self, sources: dict[str, FrameSource], budget: float, max_height: int, num_frames: int) -> dict[str, Any]:
        lead = next((name for name, source in sources.items() if not isinstance(source, PictureSource)), next(iter(sources)))
        try:
            clips = players.embed(sources, lead=lead, max_bytes=budget, max_height=max_height, max_frames=num_frames)
        except InputError as error:
            self.notes.append(f"the videos are not shown: {error}")
            return {}
        self.notes.extend(f"{name}: {source.damage}" for name, source in sources.items() if source.damage)
        if len(clips.times) < num_frames and not any("first" in words for words in clips.reductions):
            self.notes.append(f"the players end after {len(clips.times)} frames, {num_frames} were measured")
        if len(clips.times) == num_frames:
            self._note_changes(clips.digests)
        names = [item.name for item in self.scored]
        return {
            "videos": [
                {"name": name, "color": names.index(name) if name in names else None, "uri": clips.uri(name)}
                for name in clips.videos
            ],
            "reductions": clips.reductions,
            "times": clips.times,
            "size": clips.size,
        }

    def _note_changes(self, digests: Mapping[str, str]) -> None:
        """Say which videos are not those that were measured."""
        for item in self.scored:
            if item.provenance.fps is not None:
                continue
            for name, role in ((item.name, "output"), ("source", "source"), ("target", "target")):
                measured = item.provenance.content_sha256.get(role)
                if name in digests and measured is not None and measured != digests[name]:
                    note = (
                        f"{name} has changed since {item.name} was measured: the player shows what is there now, scores are of then"
                    )
                    self.notes.append(note)

    def _maps(self, sources: Mapping[str, FrameSource]) -> list[dict[str, Any]]:
        if self.differences:
            return []
        provenance = self.scored[0].provenance
        role = provenance.flow_from
        reference = sources.get(str(role)) or sources.get("source and target")
        outputs = {item.name: sources[item.name] for item in self.scored if item.name in sources}
        if reference is None or not outputs or provenance.size is None or max(provenance.size) > MAX_MAP_SIDE:
            return []
        size = (provenance.size[0], provenance.size[1])
        errors = {
            item.name: item.report.per_frame["warp_error@1"] for item in self.scored if "warp_error@1" in item.report.per_frame
        }
        num_frames = min([len(values) for values in errors.values()], default=0)
        try:
            moments = _maps().choose_moments({name: values[:num_frames] for name, values in errors.items()}, num_frames)
            return _maps().draw(reference, outputs, moments, size)
        except InputError as error:
            self.notes.append(f"there are no maps: {error}")
            return []


def _extended(times: list[float], length: int, interval: float) -> list[float]:
    """The times of `length` frames or more: where fewer are shown than were measured, the curves go on at the same pace."""
    if len(times) > 1:
        interval = times[-1] / (len(times) - 1)
    start = times[-1] + interval if times else 0.0
    return times + [start + index * interval for index in range(length - len(times))]


def _maps() -> ModuleType:
    """What draws maps of errors; it needs torch, which pages without them do not."""
    from vidgen.pages import maps

    return maps


def _summarize(columns: Columns, strides: Sequence[int]) -> dict[str, Score]:
    """The scores of a stretch of frames, for intervals."""
    from vidgen.metrics import temporal

    means = {key: temporal.mean_score(columns, key, "no frame has it") for key in columns if base_of(key) in METRICS}
    return means | temporal.summarize(columns, strides)


def _same_text(scored: Sequence[ScoredVideo], first: str, second: str) -> bool:
    return all(item.provenance.path(first) == item.provenance.path(second) for item in scored)


def _differences(scored: Sequence[ScoredVideo]) -> list[str]:
    """In which of the conditions of measuring the scores differ, in words."""
    words = []
    for key in _CONDITIONS:
        values = [getattr(item.provenance, key) for item in scored]
        texts = dict.fromkeys("none" if value is None else json.dumps(value).strip('"') for value in values)
        digests = {item.provenance.content_sha256.get(key) for item in scored}
        if len(digests) > 1 or (None in digests and len(texts) > 1):
            words.append(f"{key.replace('_', ' ')}: {' / '.join(texts)}{' with another content' if len(texts) == 1 else ''}")
    return words


def _rank_key(item: ScoredVideo, key: str) -> tuple[bool, bool, float]:
    entry = item.report.metrics.get(key, _NOT_MEASURED)
    distance = math.inf if entry.value is None else distance_from_best(entry.value, entry.better)
    return not item.report.verdict.rankable, entry.value is None, distance


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
    listed = paths.list_folder(folder) if folder.is_dir() else []
    steps = {int(match[1]): file for file in listed if (match := re.fullmatch(r"step-(\d{1,12})\.png", file.name))}
    newest = next((file for file in reversed(listed) if re.fullmatch(r"step-\d{1,12}\.mp4", file.name)), None)
    try:
        if steps:
            files = [steps[step] for step in sorted(steps)]
            pictures = _Samples(files, images.read_size(files[-1]))
            clips = players.embed({"samples": pictures}, lead="samples", max_bytes=budget / 2, max_height=2 * max_height)
            values["samples"] = clips.uri("samples")
            values["players"][f"{values['key']}-samples"] = {"times": clips.times, "steps": sorted(steps), "cuts": []}
            values["reductions"] += clips.reductions
        if newest is not None:
            clip = players.embed({"sample": open_source(newest)}, lead="sample", max_bytes=budget / 2, max_height=2 * max_height)
            values["clip"] = clip.uri("sample")
            values["clip_name"] = paths.display(newest.name)
            values["players"][f"{values['key']}-clip"] = {"times": clip.times, "cuts": []}
            values["reductions"] += clip.reductions
    except InputError as error:
        values["notes"].append(f"not all samples are shown: {error}")
    if not steps:
        values["notes"].append("there are no samples yet")
