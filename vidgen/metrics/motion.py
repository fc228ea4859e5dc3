"""Motion of reference frames: by which engine, and kept in files so that it is estimated once."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flow.engines import Dis, create_engine, describe
from vidgen import durable
from vidgen.errors import ConfigError, OutputError
from vidgen.metrics import temporal

log = logging.getLogger(__name__)

CACHE_BYTES = 2 << 30


@dataclass(frozen=True)
class Engine:
    """An estimator of flow and the words that identify it.

    Its flow is rounded to half precision, as the cache keeps it: a cache changes no score, and a perfect copy moves exactly like
    its source.
    """

    name: str
    estimate: temporal.FlowEstimator

    @staticmethod
    def create(name: str, weights: Path | None, *, fast: bool) -> Engine:
        """The engine `name` of `flow.engines`, or OpenCV's own medium preset where it shall be `fast`.

        Raises:
            ConfigError: it cannot measure.
            flow.errors.FlowError: it is unknown, or its weights cannot be used.
        """
        if name == "folder":
            raise ConfigError("`flow` folder: measuring needs flow both ways and at every stride, and a folder holds one of them")
        if fast and name == "dis":
            return Engine("dis (medium preset)", _rounded(Dis(finest_scale=None, num_variational_iterations=None)))
        return Engine(describe(name, weights), _rounded(create_engine(name, path=weights)))


def _rounded(estimate: temporal.FlowEstimator) -> temporal.FlowEstimator:
    return lambda first, second: estimate(first, second).half().float()


class MotionCache:
    """Motion of reference frames, kept in files named by what it depends on: both frames, the engine and the format."""

    def __init__(self, engine: Engine, folder: Path | None) -> None:
        self._engine, self._folder = engine, folder.expanduser() if folder is not None else None
        self._num_bytes = _folder_bytes(self._folder) if self._folder else 0

    def __call__(self, first: Tensor, second: Tensor) -> temporal.Motion:
        path = self._path(first, second)
        motion = _read_motion(path, first.shape[-2:]) if path else None
        if motion is None:
            motion = temporal.reference_motion(first, second, self._engine.estimate)
            if path:
                self._write(path, motion)
        return motion

    def _path(self, first: Tensor, second: Tensor) -> Path | None:
        if self._folder is None:
            return None
        digest = hashlib.sha256(f"motion 2, {self._engine.name}, {tuple(first.shape)}".encode())
        for frame in (first, second):
            digest.update(frame.numpy().tobytes())
        return self._folder / f"{digest.hexdigest()[:32]}.npz"

    def _write(self, path: Path, motion: temporal.Motion) -> None:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, flow=motion.flow.half().numpy(), mask=np.packbits(motion.mask.numpy()))
        try:
            if self._num_bytes + buffer.tell() > CACHE_BYTES:
                self._num_bytes = _remove_oldest(path.parent, CACHE_BYTES // 2)
            durable.write_bytes(path, buffer.getvalue())
            self._num_bytes += buffer.tell()
        except (OutputError, OSError) as error:
            log.warning("motion is not cached any more: %s", error)
            self._folder = None


def _read_motion(path: Path, size: Sequence[int]) -> temporal.Motion | None:
    """A cached motion, or None where there is none or it is damaged."""
    height, width = size
    try:
        with np.load(path) as file:
            flow = torch.from_numpy(file["flow"]).float().view(1, 2, height, width)
            mask = np.unpackbits(file["mask"], count=height * width).reshape(1, 1, height, width).astype(bool)
        return temporal.Motion(flow, torch.from_numpy(mask))
    except Exception:  # numpy and zipfile raise whatever a damaged archive makes them stumble over
        return None


def _folder_bytes(folder: Path) -> int:
    return sum(size for _, size, _ in _files(folder))


def _remove_oldest(folder: Path, num_bytes: int) -> int:
    """Remove files, the ones written longest ago first, until no more than `num_bytes` are left; how many are."""
    files = _files(folder)
    left = sum(size for _, size, _ in files)
    for _, size, path in files:
        if left <= num_bytes:
            break
        left -= size
        path.unlink(missing_ok=True)
    return left


def _files(folder: Path) -> list[tuple[float, int, Path]]:
    """Time of writing, size and path of all files, oldest first; others may remove some meanwhile."""
    found = []
    for path in folder.glob("*.npz"):
        try:
            status = path.stat()
        except OSError:
            continue
        found.append((status.st_mtime, status.st_size, path))
    return sorted(found)
