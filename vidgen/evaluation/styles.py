"""Pictures and videos that were painted in given styles: which style each has, and whether it shows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from vidgen.errors import InputError
from vidgen.evaluation.inputs import as_tensor
from vidgen.media import images, paths, video
from vidgen.media.frames import open_source, sidecar_path
from vidgen.metrics.score import Score
from vidgen.metrics.styles import style_retrieval, style_vectors


def measure_styles(result: str | Path, styles: str | Path) -> Score:
    """`style_retrieval` of the results at `result` among the pictures at `styles`.

    A result's own style is the one that the JSON file beside it names, or else the one whose name its own ends with
    (lines-sunset.png has the style sunset.jpg). Of videos the frame in the middle counts.

    Raises:
        InputError: there are no results or styles, or nothing says which style a result has.
    """
    known = {path.stem: path for path in _files(Path(styles), videos=False)}
    made = _files(Path(result), videos=True)
    names = list(known)
    own = torch.tensor([names.index(_style_of(path, names)) for path in made])
    results, wanted = (style_vectors([as_tensor(_picture(path)) for path in group]) for group in (made, known.values()))
    return style_retrieval(results, wanted, own)


def _files(where: Path, *, videos: bool) -> list[Path]:
    if not where.exists():
        raise paths.missing(where)
    entries = paths.list_folder(where) if where.is_dir() else [where]
    found = [entry for entry in entries if images.is_image(entry) or (videos and video.is_video(entry))]
    if not found:
        raise InputError(f"{paths.display(where)}: holds no {'results' if videos else 'style pictures'}")
    return found


def _style_of(path: Path, names: list[str]) -> str:
    beside = sidecar_path(path)
    if beside.is_file():
        try:
            told = Path(str(json.loads(beside.read_text(encoding="utf-8")).get("style", ""))).stem
        except (ValueError, AttributeError):
            told = ""
        if told in names:
            return told
    fitting = [name for name in names if path.stem.endswith(f"-{name}")]
    if not fitting:
        raise InputError(
            f"{paths.display(path)}: nothing says which style it has; known are {paths.few(names)}",
            hint="its name should end as its style is called (lines-sunset.png), or the JSON file beside it name the picture",
        )
    return max(fitting, key=len)


def _picture(path: Path) -> np.ndarray:
    source = open_source(path)
    place = source.count() // 2
    return source.read(place, place + 1)[0].pixels
