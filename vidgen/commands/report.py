"""`vidgen report`: runs and files of scores, by name or without, into one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vidgen.commands.inputs import named_input
from vidgen.errors import InputError
from vidgen.evaluation.report import read_reports
from vidgen.media import paths
from vidgen.pages.report import DEFAULT_RANK_KEY, ScoredVideo, distinct, write_report


def report(
    inputs: Sequence[str],
    out: Path,
    *,
    max_megabytes: float = 30.0,
    max_height: int = 480,
    fps: float | None = None,
    rank_by: str = DEFAULT_RANK_KEY,
    allow_path: Sequence[Path] = (),
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a page on runs and scores; options are those of `vidgen.pages.report.write_report`.

    Args:
        inputs: run folders, and files that `vidgen evaluate --json` wrote, also as NAME=FILE.

    Returns:
        where the page is, how large it is, and what could not be shown.

    Raises:
        InputError: an input is neither a run nor scores.
    """
    runs: list[Path] = []
    scored: list[ScoredVideo] = []
    for text in inputs:
        name, path = named_input(text)
        if path.is_dir():
            if not (path / "metrics.jsonl").is_file():
                raise InputError(
                    f"{paths.display(path)}: holds no metrics.jsonl, so it is no run", hint="give a run folder or a file of scores"
                )
            runs.append(path)
        else:
            scored += _read(path, name)
    scored = distinct(scored)
    notes = write_report(
        scored,
        runs,
        out,
        max_megabytes=max_megabytes,
        max_height=max_height,
        fps=fps,
        rank_by=rank_by,
        allow_paths=allow_path,
        overwrite=overwrite,
    )
    return {
        "page": str(out),
        "megabytes": round(out.stat().st_size / 1e6, 2),
        "outputs": [item.name for item in scored],
        "runs": [str(run) for run in runs],
        "notes": notes,
    }


def _read(path: Path, name: str | None) -> list[ScoredVideo]:
    scored = []
    for key, item in read_reports(path).items():
        output = item.provenance.output
        scored.append(ScoredVideo(key or name or paths.display(Path(output).stem or output), path, item))
    return scored
