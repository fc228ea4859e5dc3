"""Noise of generators in use: drawn from seeds here, or handed in by whoever runs the generator as a function of its inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Draw:
    """One tensor of noise that a step asks for.

    Attributes:
        distribution: uniform in 0..1, or standard normal.
        shape: of the tensor.
        seed: of the whole video, or of each frame (its number); draws of one frame follow each other in one stream.
        offset: added to the seed of the video.
    """

    distribution: Literal["uniform", "normal"]
    shape: tuple[int, ...]
    seed: Literal["video", "frame"]
    offset: int = 0


Source = Callable[[Draw], Tensor]
_source: ContextVar[Source | None] = ContextVar("source of noise", default=None)


@contextmanager
def given_by(source: Source) -> Iterator[None]:
    """Within it, noise is what `source` answers, in the order in which a step asks."""
    token = _source.set(source)
    try:
        yield
    finally:
        _source.reset(token)


def seed_of(seeds: Tensor) -> int:
    """The seed of the first sample; any where the noise itself is handed in."""
    return 0 if _source.get() is not None else int(seeds[0])


def uniform_of_video(shape: Sequence[int], seed: int, offset: int) -> Tensor:
    """float32 in 0..1 that depends on the seed and on `offset` alone."""
    source = _source.get()
    if source is not None:
        return source(Draw("uniform", tuple(shape), "video", offset))
    generator = torch.Generator().manual_seed((seed + offset) % 2**63)
    return torch.rand(*shape, generator=generator)


def normal_of_frame(shape: Sequence[int], device: torch.device | str, generator: torch.Generator | None) -> Tensor:
    """Standard normal float32 on `device`; a generator of another device gives the same numbers everywhere."""
    source = _source.get()
    if source is not None:
        return source(Draw("normal", tuple(shape), "frame"))
    return torch.randn(*shape, device=device if generator is None else generator.device, generator=generator).to(device)


def normal_of_video(shape: Sequence[int], seed: int, offset: int = 0) -> Tensor:
    """Standard normal float32 that depends on the seed and on `offset` alone."""
    source = _source.get()
    if source is not None:
        return source(Draw("normal", tuple(shape), "video", offset))
    generator = torch.Generator().manual_seed((seed + offset) % 2**63)
    return torch.randn(*shape, generator=generator)
