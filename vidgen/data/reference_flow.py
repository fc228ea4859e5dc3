"""Where the reference flow of training clips comes from, besides an engine as it is: a cache on disk, or files of flow."""

from __future__ import annotations

import hashlib
import io
import logging
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flow.files import SUFFIXES, read_flow
from flow.warp import compose, resize_flow
from vidgen import durable
from vidgen.errors import ConfigError, InputError, OutputError
from vidgen.media.paths import display, list_folder
from vidgen.types import FlowEstimator

log = logging.getLogger(__name__)

_FORMAT = "reference flow 1"
_MAX_HEADER_BYTES = 4096


class CachedFlow:
    """An engine whose results are kept in files, named by the content of both frames, the engine and its parameters.

    Flow is rounded to half precision whether it was cached or not, so that a cache never changes a run.

    Args:
        estimate: the engine.
        identity: everything its results depend on besides the frames; see `flow.engines.describe`.
        folder: of the files; made where it is missing. A field takes 4 bytes a pixel.
    """

    def __init__(self, estimate: FlowEstimator, identity: str, folder: Path) -> None:
        self._estimate, self._identity, self._folder = estimate, identity, folder
        self._writes = True

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """Flow of a batch, [N,2,H,W]; see `vidgen.types.FlowEstimator`."""
        return torch.cat([self._pair(first[index : index + 1], second[index : index + 1]) for index in range(len(first))])

    def _pair(self, first: Tensor, second: Tensor) -> Tensor:
        path = self._path(first, second)
        found = _read(path, (2, *first.shape[-2:]))
        if found is None:
            found = self._estimate(first, second)[0].cpu().numpy().astype(np.float16)
            self._write(path, found)
        return torch.from_numpy(found).float()[None].to(first.device)

    def _path(self, first: Tensor, second: Tensor) -> Path:
        digest = hashlib.sha256(f"{_FORMAT}, {self._identity}, {tuple(first.shape)}".encode())
        for frame in (first, second):
            digest.update(frame.detach().float().cpu().contiguous().numpy().tobytes())
        return self._folder / f"{digest.hexdigest()[:32]}.npy"

    def _write(self, path: Path, flow: np.ndarray) -> None:
        if not self._writes:
            return
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, flow, allow_pickle=False)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            durable.write_bytes(path, buffer.getvalue())
        except (OutputError, OSError) as error:
            log.warning("reference flow is not cached any more: %s", error)
            self._writes = False


def _read(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """A cached field, or None where there is none or it is damaged."""
    num_bytes = 2 * math.prod(shape)
    try:
        if not 0 < path.stat().st_size - num_bytes <= _MAX_HEADER_BYTES:  # before an absurd shape in it is believed
            return None
        flow = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    except Exception:  # numpy raises whatever a damaged header makes it stumble over, tokenize.TokenError even
        return None
    fits = isinstance(flow, np.ndarray) and flow.shape == shape and flow.dtype == np.float16 and bool(np.isfinite(flow).all())
    return flow if fits else None


class FlowFiles:
    """Flow from files: file k of a sequence, in natural order, takes frame k+1 into frame k (as `vidgen flow` does).

    Args:
        root: holds a folder of flow files for each sequence; the files themselves where the data are one sequence without a name.
        num_frames: sequence -> frames it has in all.

    Raises:
        ConfigError: a folder is missing or holds another number of files.
    """

    def __init__(self, root: Path, num_frames: Mapping[str, int]) -> None:
        self._files: dict[str, list[Path]] = {}
        for name, count in num_frames.items():
            folder = root / name
            if not folder.is_dir():
                raise ConfigError(
                    f"train.flow.weights: {display(folder)} is not a folder; the flow of a sequence is expected there"
                )
            files = [file for file in list_folder(folder) if file.suffix.lower() in SUFFIXES]
            if len(files) != count - 1:
                raise ConfigError(
                    f"train.flow.weights: {display(folder)} holds {len(files)} flow files, {count} frames need {count - 1}"
                )
            self._files[name] = files

    def between(self, sequence: str, later: int, earlier: int, size: tuple[int, int]) -> Tensor:
        """Flow of frame `later` into frame `earlier`, composed over those between, for frames of `size` (height, width); [1,2,H,W].

        Raises:
            InputError: a file leaves pixels unknown.
            flow.errors.FlowError: a file cannot be read.
        """
        flow: Tensor | None = None
        for number in range(later, earlier, -1):
            file = self._files[sequence][number - 1]
            step, known = read_flow(file)
            if not known.all():
                raise InputError(f"{display(file)}: leaves {int((~known).sum())} pixels unknown; reference flow must be dense")
            step = resize_flow(step[None], size)
            flow = step if flow is None else compose(flow, step)
        assert flow is not None
        return flow
