"""Flow engines side by side: how far they are off where the flow is known, how long they take, how they behave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flow.engines import Engine, create_engine, describe
from flow.synthetic import KnownPair, Scenes
from flow.warp import warp
from vidgen import progress
from vidgen.commands.flow import KnownFlow, mean_scores, measure, read_pairs
from vidgen.data.street import Street
from vidgen.data.street_pairs import street_pairs
from vidgen.errors import MissingExtraError
from vidgen.media.pixels import to_tensor

ENGINES = ("dis", "dis-fast", "farneback", "learned")

_FIRST_HELD_OUT_SEED = 100_000
_STREET_SIZE = (256, 512)
_FIRST_FRAME, _PAIRS_PER_STREET = 40, 2
_LARGE_SIZE = (448, 1024)
_CLOSED_PIXELS = 0.5


def table(
    engines: Sequence[str] = ENGINES,
    *,
    weights: Path | None = None,
    middlebury: Path | None = None,
    motorcycle: bool = False,
    num_streets: int = 6,
    num_scenes: int = 24,
) -> dict[str, Any]:
    """Measure engines on everything whose flow is known.

    Args:
        engines: names that need no file, or learned.
        weights: of engine learned; None takes those shipped.
        middlebury: folder of pairs as for `vidgen.commands.flow.evaluate`; None leaves it out.
        motorcycle: also the stereo pair of scikit-image (motions of 7 to 60 pixels).
        num_streets: procedural streets that no training has seen; each as frames, as label maps and as line art.
        num_scenes: layered scenes, as many flat ones for the scores as textured ones for the behaviour.

    Returns:
        engines (name -> what it is), scores (set -> engine -> the means of `evaluate` over its pairs; on streets, pixels that the
        second picture does not show do not count) and behaviour (engine -> still_pixels: mean length of the flow between a
        picture and itself; closed_share: part of the visible pixels of synthetic scenes from which the flow there and back leads
        to within half a pixel; large_milliseconds: processor time at 448x1024, and large_bfloat16_milliseconds for learned).

    Raises:
        InputError: a folder cannot be read.
        MissingExtraError: scikit-image is asked for and not installed.
        flow.errors.FlowError: an engine cannot be used.
    """
    sets = _sets(middlebury, motorcycle, num_streets, num_scenes)
    made = {name: create_engine(name, path=weights if name == "learned" else None) for name in engines}
    return {
        "engines": {name: describe(name, weights if name == "learned" else None) for name in engines},
        "scores": {
            kind: {
                name: mean_scores([measure(engine, *pair) for pair in progress.follow(pairs, f"measuring {name}", len(pairs))])
                for name, engine in made.items()
            }
            for kind, pairs in sets.items()
        },
        "behaviour": {name: _behaviour(engine, sets, num_scenes, can_bfloat16=name == "learned") for name, engine in made.items()},
    }


def as_text(result: Mapping[str, Any]) -> str:
    """The result of `table` in Markdown: endpoint error in pixels, and milliseconds of processor time a pair."""
    names = list(result["engines"])
    rows = [["endpoint error (pixels beyond 1 px), ms", *names]]
    for kind, scores in result["scores"].items():
        cells = (scores[name] for name in names)
        rows.append(
            [kind, *(f"{one['endpoint_error']:.3f} ({one['beyond_1px_share']:.0%}), {one['milliseconds']:.0f}" for one in cells)]
        )
    for key, digits in (("still_pixels", 4), ("closed_share", 3), ("large_milliseconds", 0), ("large_bfloat16_milliseconds", 0)):
        values = (result["behaviour"][name].get(key) for name in names)
        rows.append([key, *("" if value is None else f"{value:.{digits}f}" for value in values)])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:], "", *result["engines"].values()])


def _sets(middlebury: Path | None, motorcycle: bool, num_streets: int, num_scenes: int) -> dict[str, list[KnownFlow]]:
    sets: dict[str, list[KnownFlow]] = {}
    if middlebury is not None:
        sets["Middlebury"] = list(read_pairs(middlebury).values())
    for number in range(num_streets):
        street = Street(_FIRST_HELD_OUT_SEED + number, *_STREET_SIZE)
        for look, pair in street_pairs(street, _FIRST_FRAME, _PAIRS_PER_STREET):
            sets.setdefault(f"street {look}", []).append(_to_tensors(pair))
    flat = Scenes(192, 256, flat_share=1, seed=_FIRST_HELD_OUT_SEED).batch(0, num_scenes)
    sets["flat layers"] = [
        (one, other, flow, known) for one, other, flow, known in _each(flat.first, flat.second, flat.flow, flat.visible)
    ]
    if motorcycle:
        sets["motorcycle"] = [_motorcycle()]
    return sets


def _behaviour(engine: Engine, sets: Mapping[str, Sequence[KnownFlow]], num_scenes: int, *, can_bfloat16: bool) -> dict[str, float]:
    stills = [first for pairs in sets.values() for first, *_ in pairs[:4]]
    still = [float(engine(image, image).norm(dim=1).mean()) for image in stills]
    scenes = Scenes(192, 256, flat_share=0, seed=_FIRST_HELD_OUT_SEED).batch(0, num_scenes)
    forward, backward = engine(scenes.first, scenes.second), engine(scenes.second, scenes.first)
    residual = (forward + warp(backward, forward)).norm(dim=1, keepdim=True)[scenes.visible]
    large = torch.rand(2, 3, *_LARGE_SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    result = {
        "still_pixels": float(np.mean(still)),
        "closed_share": float((residual < _CLOSED_PIXELS).float().mean()),
        "large_milliseconds": _milliseconds(engine, large),
    }
    if can_bfloat16:
        with torch.autocast("cpu", torch.bfloat16):
            result["large_bfloat16_milliseconds"] = _milliseconds(engine, large)
    return result


def _milliseconds(engine: Engine, images: Tensor) -> float:
    first, second = images[:1], images[1:]
    truth, known = torch.zeros(1, 2, *images.shape[-2:]), torch.ones(1, 1, *images.shape[-2:], dtype=torch.bool)
    return min(measure(engine, first, second, truth, known)["milliseconds"] for _ in range(3))


def _motorcycle() -> KnownFlow:
    """The pair of the scikit-image package; the right view is the second image, so points move left by their disparity."""
    try:
        from skimage.data import stereo_motorcycle
    except ImportError as error:
        raise MissingExtraError("--motorcycle: scikit-image is not installed", hint="pip install scikit-image") from error
    left, right, disparity = stereo_motorcycle()
    known = np.isfinite(disparity)
    flow = np.stack([-np.where(known, disparity, 0), np.zeros_like(disparity)], axis=2)
    return _to_tensors(KnownPair(left, right, flow, known))


def _to_tensors(pair: KnownPair) -> KnownFlow:
    first, second = (to_tensor(image)[None] for image in pair[:2])
    flow = torch.from_numpy(pair.flow.astype(np.float32)).permute(2, 0, 1)[None]
    return first, second, flow, torch.from_numpy(pair.visible)[None, None]


def _each(*values: Tensor) -> list[KnownFlow]:
    return list(zip(*(value.split(1) for value in values), strict=True))
