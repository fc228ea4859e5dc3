"""`vidgen study`: a page that asks people, and what their answers say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vidgen import durable
from vidgen.commands.inputs import named_input
from vidgen.config import parse_duration
from vidgen.errors import ConfigError
from vidgen.evaluation.study import Kind, read_all
from vidgen.evaluation.study_scores import Result, answers_csv
from vidgen.evaluation.study_scores import score as score_answers
from vidgen.media import paths
from vidgen.pages.study import write_study

UNLIMITED = "unlimited"


def build(
    inputs: Sequence[str],
    out: Path,
    *,
    kind: Kind = "paired",
    real: str | None = None,
    exposure: str | None = None,
    overwrite: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Write the page of a study; further options are those of `vidgen.pages.study.write_study`.

    Args:
        inputs: what each method generated, also as NAME=PATH; without a name, the file or folder gives it.
        exposure: such as "1s", or "unlimited".

    Returns:
        where the page is, and what it asks.

    Raises:
        ConfigError: two methods have one name, or an option does not fit.
        InputError: an input cannot be read, or nothing belongs together.
        OutputError: `out` exists, or cannot be written.
    """
    methods: dict[str, str] = {}
    for text in inputs:
        name, path = named_input(text)
        name = name or paths.display(Path(paths.split_cut(paths.expanded(path))[0]).stem or str(path))
        if name in methods:
            raise ConfigError(f"{name}: names two methods", hint="name them, as in ours=PATH")
        methods[name] = str(path)
    seconds = None if exposure in (None, UNLIMITED) else parse_duration(str(exposure))
    study, notes = write_study(
        methods,
        real,
        out,
        kind=kind,
        exposure_seconds=seconds,
        is_unlimited=exposure == UNLIMITED,
        overwrite=overwrite,
        **options,
    )
    return {
        "page": str(out),
        "megabytes": round(out.stat().st_size / 1e6, 2),
        "asks": study.prompt,
        "methods": [method.name for method in study.methods],
        "trials": study.num_trials,
        "checks": len(study.checks),
        "questions": len(study.questions),
        "notes": notes,
    }


def score(
    inputs: Sequence[Path],
    *,
    scores: Sequence[str] = (),
    max_failed_checks: int = 0,
    csv: Path | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Result:
    """What the answers of several people say.

    Args:
        inputs: files that the page of a study offered, and folders of them.
        scores: files or folders of scores, also as METHOD=PATH.
        csv: file for one line per trial.

    Raises:
        InputError: a file holds something else, or answers to another study.
        OutputError: `csv` exists, or cannot be written.
    """
    named = [named_input(text) for text in scores]
    read = [*inputs, *(path for _, path in named)]
    with durable.claim([] if csv is None else [csv], inputs=read, overwrite=overwrite):
        answers = read_all(inputs)
        result = score_answers(answers, named, max_failed_checks=max_failed_checks, seed=seed)
        if csv is not None:
            durable.write_text(csv, answers_csv(answers, max_failed_checks=max_failed_checks))
    return result


def as_json(result: Result) -> dict[str, Any]:
    """What is printed for programs."""
    return result.to_dict()


def as_table(result: Result) -> str:
    """What is printed for people."""
    return result.table()
