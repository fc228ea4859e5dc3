"""`vidgen evaluate`: options as text into one call of `vidgen.evaluation.measure.evaluate`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from vidgen import durable
from vidgen.commands.batches import Calling, Changes, EngineName, Scale, call_each, is_text
from vidgen.deprecation import deprecated
from vidgen.errors import ConfigError
from vidgen.evaluation.classes import evaluate_classes
from vidgen.evaluation.measure import DEFAULT_CACHE, evaluate, find_label_table, list_metrics
from vidgen.evaluation.networks import WeightsFile
from vidgen.evaluation.report import Report, frames_csv, json_schema, scores_csv
from vidgen.media import labels as tables
from vidgen.media.frames import files_read
from vidgen.metrics.segmentation import Segmenter

__all__ = ["as_json", "as_table", "classes", "enforce", "evaluate", "json_schema", "list_metrics", "run"]


def evaluate_each(
    inputs: Sequence[str],
    out: str,
    *,
    inputs_list: Path | None = None,
    shard: str | None = None,
    engine: EngineName = "local",
    workers: int | None = None,
    address: str | None = None,
    gpus: float | None = None,
    skip_existing: bool = False,
    overwrite: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Measure each of one or many videos by itself; further options are those of `run`, and `strict`.

    Args:
        out: folder for a JSON file of scores for each, in a tree that mirrors theirs; `source`, `target` and `label_maps` are
            folders that hold one for each.
    """
    scale = Scale(inputs_list, shard, engine, workers, address, gpus, skip_existing, overwrite)
    calling = Calling(
        "evaluate",
        "evaluate.run_to_file",
        "output",
        "scores",
        lambda place: ".json",
        lambda arguments: [durable.Output(Path(arguments["scores"]))],
        Changes(("source", "target", "label_maps"), {"fps": is_text, "labels": is_text}),
        companions=("source", "target", "label_maps"),
        single_only=("compare", "csv", "per_frame"),
    )
    return call_each(calling, inputs, out, scale=scale, shared=options, several=True)


def run_to_file(output: str, scores: str, *, overwrite: bool = False, strict: bool = False, **options: Any) -> dict[str, Any]:
    """Measure one video and write its scores, whole or not at all.

    Raises:
        QualityGateError: a gate was missed; the scores are written first.
    """
    with durable.claim([Path(scores)], overwrite=overwrite):
        report = run(output, **options)
        durable.write_json(Path(scores), report.to_dict())
    enforce(report, strict=strict)
    return {"output": scores, "video": output}


def run(
    output: str,
    *,
    compare: Sequence[str] = (),
    strides: str = "1,3,9",
    cache: Path | None = None,
    no_cache: bool = False,
    fps: str | None = None,
    segmenter_classes: str | None = None,
    weights: Sequence[str] = (),
    csv: Path | None = None,
    per_frame: Path | None = None,
    overwrite: bool = False,
    **options: Any,
) -> Report:
    """Measure `output`; further options are those of `evaluate`.

    Args:
        compare: NAME=PATH each.
        strides: "1,3,9".
        fps: a number, or a fraction such as 30000/1001.
        segmenter_classes: "7,8,11".
        weights: NAME=FILE or NAME=FILE#SHA256 each.
        csv: file for one line of scores, and one for each of `compare`.
        per_frame: CSV file for the values of every frame.
        overwrite: replace these files where they exist.

    Raises:
        ConfigError: one of these is not written so.
        OutputError: a file to write exists, or is also an input; before anything is measured.
    """
    label_maps = options.get("label_maps")
    if label_maps is not None and _is_encoding(label_maps):
        deprecated(f"label maps {label_maps}", f"label_encoding {label_maps}", "0.3.0")
        options |= {"label_maps": None, "labels": options.get("labels") or label_maps}
    others: dict[str, str] = {}
    for text in compare:
        name, sign, path = text.partition("=")
        if not (name and sign and path) or name in others:
            raise ConfigError(f"`compare` {text!r}: expected NAME=PATH, each NAME once")
        others[name] = path
    read = (
        output,
        *others.values(),
        *(options.get(name) for name in ("source", "target", "reference_set", "label_maps", "styles")),
    )
    inputs = [file for where in read if where is not None for file in files_read(where)]
    with durable.claim([path for path in (per_frame, csv) if path is not None], inputs=inputs, overwrite=overwrite):
        files = WeightsFile.parse_all(weights)
        options["segmenter"] = options.get("segmenter") or _trained_segmenter(options, files)
        report = evaluate(
            output,
            compare=others,
            strides=_numbers("strides", strides, "1,3,9"),
            cache=None if no_cache else cache or DEFAULT_CACHE,
            fps=None if fps is None else _rate(fps),
            segmenter_classes=None if segmenter_classes is None else _numbers("segmenter_classes", segmenter_classes, "7,8,11"),
            weights=files,
            **options,
        )
        if per_frame is not None:
            durable.write_text(per_frame, frames_csv(report.per_frame))
        if csv is not None:
            durable.write_text(csv, scores_csv({output: report, **report.compared}))
    return report


def classes(generated: Path, *, real: Path, weights: Sequence[str] = ()) -> dict[str, Any]:
    """Measure folders of generated pictures of classes; see `evaluate_classes`.

    Args:
        weights: NAME=FILE or NAME=FILE#SHA256 each; `inception` adds Inception Score and FID.
    """
    files = WeightsFile.parse_all(weights)
    other = next((name for name in files if name not in ("inception", "efficientnet_lite0")), None)
    if other is not None:
        raise ConfigError(f"`weights` {other}: takes no part here; inception does")
    return evaluate_classes(generated, real, files)


def _is_encoding(text: str) -> bool:
    """Whether it names an encoding, which `labels` of 0.1 did, and not label maps."""
    return text == "ids" or tables.is_named(text) or Path(text).suffix.lower() in (".json", ".csv")


def _trained_segmenter(options: dict[str, Any], files: Mapping[str, WeightsFile]) -> Segmenter | None:
    """Where there are real frames with label maps and no segmentation network, one that learns from them."""
    target, label_maps = options.get("target"), options.get("label_maps")
    if target is None or label_maps is None:
        return None
    from vidgen.labeling.segmenter import train_segmenter

    given = files.get("efficientnet_lite0")
    return train_segmenter(target, label_maps, find_label_table(options.get("labels")), weights=given.path if given else None)


def _numbers(option: str, text: str, example: str) -> list[int]:
    if not re.fullmatch(r"\d{1,6}(,\d{1,6})*", text):
        raise ConfigError(f"`{option}` {text!r}: expected whole numbers separated by commas, such as {example}")
    return [int(part) for part in text.split(",")]


def _rate(text: str) -> Fraction:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise ConfigError(f"`fps` {text!r}: expected frames per second, such as 12 or 30000/1001") from error


def as_json(report: Report) -> dict[str, Any]:
    """What is printed for programs."""
    return report.to_dict()


def as_table(report: Report) -> str:
    """What is printed for people."""
    return report.table()


def enforce(report: Report, *, strict: bool) -> None:
    """Fail where a gate was missed, or, if `strict`, where a metric has no value."""
    report.enforce(strict=strict)
