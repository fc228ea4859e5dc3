"""Pairs of street frames with exact flow, for training and measuring estimators: as photographed, as label maps, as line art."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from flow.synthetic import KnownPair
from vidgen.data.street import CLASSES, Street, StreetFrame
from vidgen.media.conditions import canny_edges

_PALETTE = np.array([colour for _, colour in CLASSES], np.uint8)


def _as_lines(frame: StreetFrame) -> np.ndarray:
    return np.repeat(canny_edges(frame.image)[..., None], 3, axis=2)


LOOKS: dict[str, Callable[[StreetFrame], np.ndarray]] = {
    "frames": lambda frame: frame.image,
    "labels": lambda frame: _PALETTE[frame.labels],
    "lines": _as_lines,
}
"""Name -> a frame as a picture, uint8 [H,W,3]: itself, its label map in the colours of the classes, its Canny edges."""


def street_pairs(
    street: Street, start: int, num_pairs: int, looks: Sequence[str] = tuple(LOOKS)
) -> Iterator[tuple[str, KnownPair]]:
    """Consecutive frames of a street with the flow of the later into the earlier.

    Args:
        street: what to render.
        start: number of the first frame that is an earlier one.
        num_pairs: how many pairs of frames, each in all `looks`.
        looks: keys of `LOOKS`.

    Yields:
        (look, pair); the looks of a pair share their flow, float16.
    """
    before: StreetFrame | None = None
    for frame in street.frames(num_pairs + 1, start):
        if before is not None:
            flow, visible = frame.flow.astype(np.float16), ~frame.occluded
            for look in looks:
                yield look, KnownPair(LOOKS[look](frame), LOOKS[look](before), flow, visible)
        before = frame


def training_streets(num_streets: int, min_height: int, min_width: int) -> Iterable[Street]:
    """Streets of many kinds for training: small and large, slow and fast, driving, standing and backing.

    Their seeds are 0, 1, ... `num_streets` - 1.
    """
    for seed in range(num_streets):
        random = np.random.default_rng(seed)
        scale = random.choice([1.0, 1.5, 2.0])
        height = max(min_height, round(128 * scale))
        speed = [0.0, -4.0, -8.0, -12.0, None, None, None, None][random.integers(8)]
        yield Street(
            seed,
            height,
            max(min_width, 2 * height),
            fps=int(random.choice([8, 12, 12, 24])),
            variety=random.uniform(0.2, 0.9),
            speed=speed,
        )
