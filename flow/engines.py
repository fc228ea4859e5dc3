"""One interface over several ways to estimate optical flow.

An engine is a callable (first, second) -> flow on batches; `create_engine` makes one by name, `estimate` and `estimate_video`
use one. Every engine accepts images of any size (padding by replication inside) and may be called from several threads.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from safetensors.torch import load as parse_safetensors
from torch import Tensor, nn

from flow.errors import FlowError
from flow.files import SUFFIXES, read_flow
from flow.network import FlowNetwork
from flow.pixels import quantize
from flow.warp import pad_images

Engine = Callable[[Tensor, Tensor], Tensor]
"""(first, second), both float [N,3,H,W] in -1..1 -> float32 [N,2,H,W], pixels, from the grid of `first` into `second`."""

SHIPPED_WEIGHTS = Path(__file__).parent / "weights" / "network.safetensors"
_OPENCV_MIN_SIZE = 16
# Where a side is shorter than a patch at the finest scale of the fast preset, OpenCV chooses scales by the width alone and then
# reads beside the image.
_DIS_PATCH_SIZE, _FAST_FINEST_SCALE = 8, 2
_FAST_MIN_SIZE = _DIS_PATCH_SIZE << _FAST_FINEST_SCALE
_PARAMETERS = {
    "dis": "(medium preset, finest scale 0, 10 variational iterations)",
    "dis-fast": "(fast preset)",
    "farneback": "(0.5, 3, 15, 3, 5, 1.2)",
    "learned": ", 10 variational iterations",
}


def estimate(first: Tensor, second: Tensor, engine: str | Engine = "dis") -> Tensor:
    """Flow from the grid of `first` into `second`, so that `flow.warp.warp(second, flow)` looks like `first`.

    Args:
        first, second: float [N,3,H,W] in -1..1.
        engine: a name that needs no file (`create_engine` lists them), or an engine made before.

    Returns:
        float32 [N,2,H,W], pixels, on the device of `first`, without gradient.

    Raises:
        FlowError: the images or the engine cannot be used.
    """
    return _resolve(engine)(first, second)


def estimate_video(
    frames: Iterable[Tensor], engine: str | Engine = "dis", *, into: Literal["previous", "next"] = "previous"
) -> Iterator[Tensor]:
    """Flow between consecutive frames, one field for each pair, holding two frames at a time.

    Args:
        frames: float [3,H,W] in -1..1 each.
        engine: as in `estimate`.
        into: "previous" gives frame t's grid into frame t-1 for t = 1, 2, ...; "next" gives frame t-1's grid into frame t.

    Yields:
        float32 [2,H,W], pixels; one fewer than there are frames.

    Raises:
        FlowError: the engine or a frame cannot be used, or the size changes on the way.
    """
    compute = _resolve(engine)
    previous: Tensor | None = None
    for index, frame in enumerate(frames):
        current = frame[None]
        if previous is not None:
            if current.shape != previous.shape:
                raise FlowError(f"frame {index} is {_size(current)}, the frame before it {_size(previous)}; all must be alike")
            pair = (current, previous) if into == "previous" else (previous, current)
            yield compute(*pair)[0]
        previous = current


def create_engine(name: str, *, path: Path | str | None = None, sha256: str | None = None) -> Engine:
    """An engine by name.

    Args:
        name: one of `ENGINES`.
        path: the weights file of raft-small and raft-large (required), or of learned (default: the one shipped, if any); the
            folder of flow files of folder.
        sha256: expected SHA-256 of the weights file, hexadecimal; a .pth file that torchvision does not publish needs it.

    Raises:
        FlowError: an unknown name, or `path` is missing, unwanted or cannot be used.
    """
    if name not in ENGINES:
        raise FlowError(f"flow engine {name!r} is not known; there are {', '.join(ENGINES)}")
    if name in ("raft-small", "raft-large"):
        return Raft(name, path, sha256)
    if name == "learned":
        return Learned(path, sha256)
    if name == "folder":
        return Folder(path)
    if path is not None:
        raise FlowError(f"flow engine {name} reads no file, but {path} was given")
    if name == "farneback":
        return Farneback()
    return Dis.fast() if name == "dis-fast" else Dis()


def describe(name: str, path: Path | str | None = None) -> str:
    """What an engine's results depend on, in words: its name, its parameters or the SHA-256 of its weights, the library under it.

    Args:
        name, path: as for `create_engine`.

    Raises:
        FlowError: the weights cannot be read.
    """
    if name in ("dis", "dis-fast", "farneback"):
        return f"{name} {_PARAMETERS[name]}, cv2 {cv2.__version__}"
    weights = path or (SHIPPED_WEIGHTS if name == "learned" else None)
    if name == "folder" or weights is None:
        return f"{name} {path or ''}".strip()
    try:
        digest = hashlib.sha256(Path(weights).read_bytes()).hexdigest()
    except OSError as error:
        raise FlowError(f"{weights}: the weights could not be read ({error.strerror or error})") from error
    libraries = f"torch {torch.__version__}" + (f", cv2 {cv2.__version__}" if name == "learned" else "")
    return f"{name} (weights sha256 {digest}{_PARAMETERS.get(name, '')}), {libraries}"


ENGINES = {
    "dis": "dense inverse search (OpenCV), accurate",
    "dis-fast": "dense inverse search (OpenCV), fast preset",
    "farneback": "polynomial expansion (OpenCV)",
    "raft-small": "RAFT small (torchvision), weights by path",
    "raft-large": "RAFT large (torchvision), weights by path",
    "learned": "the network of flow.network, weights shipped or by path",
    "folder": "precomputed files, in the order of their names",
}
"""Name -> what it is."""


class Dis:
    """Dense inverse search of OpenCV; by default the medium preset with finest scale 0 and 10 variational iterations.

    Source: Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016.
    """

    def __init__(
        self,
        preset: int = cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
        *,
        finest_scale: int | None = 0,
        num_variational_iterations: int | None = 10,
    ) -> None:
        self._preset = preset
        self._min_size = _OPENCV_MIN_SIZE if finest_scale == 0 else _FAST_MIN_SIZE
        self._finest_scale = finest_scale
        self._num_variational_iterations = num_variational_iterations
        # A cv2 object for each thread: it holds buffers, which two threads must not share and which take long to make anew.
        self._of_thread = threading.local()

    @classmethod
    def fast(cls) -> Dis:
        """OpenCV's fast preset as it is: about 20 times faster, and coarser."""
        return cls(cv2.DISOPTICAL_FLOW_PRESET_FAST, finest_scale=None, num_variational_iterations=None)

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """See `Engine`."""
        search = self._search()
        return _by_opencv(lambda a, b: search.calc(a, b, None), first, second, self._min_size)

    def _search(self) -> Any:
        """The cv2 object of this thread."""
        if hasattr(self._of_thread, "search"):
            return self._of_thread.search
        search: Any = cv2.DISOpticalFlow.create(self._preset)
        if self._finest_scale is not None:
            search.setFinestScale(self._finest_scale)
        if self._num_variational_iterations is not None:
            search.setVariationalRefinementIterations(self._num_variational_iterations)
        self._of_thread.search = search
        return search


class Farneback:
    """Polynomial expansion of OpenCV with the parameters of TecoGAN's tOF (0.5, 3, 15, 3, 5, 1.2).

    Source: Farneback, "Two-Frame Motion Estimation Based on Polynomial Expansion", SCIA 2003.
    """

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """See `Engine`."""
        calculate: Any = cv2.calcOpticalFlowFarneback
        return _by_opencv(lambda a, b: calculate(a, b, None, 0.5, 3, 15, 3, 5, 1.2, 0), first, second)


class Raft:
    """RAFT of torchvision with weights from a file that the user has; nothing is ever downloaded.

    Source: Teed and Deng, "RAFT: Recurrent All-Pairs Field Transforms for Optical Flow", ECCV 2020.
    """

    _MULTIPLE, _MIN_SIZE = 8, 128

    def __init__(self, name: str, path: Path | str | None, sha256: str | None = None) -> None:
        from torchvision.models import optical_flow

        small = name == "raft-small"
        published = optical_flow.Raft_Small_Weights if small else optical_flow.Raft_Large_Weights
        url = published.DEFAULT.url
        if path is None:
            raise FlowError(
                f"flow engine {name} needs a weights file: {url.rsplit('/', 1)[1]}, published with torchvision",
                hint=f"get {url} once and give its path, with --flow-weights or path=",
            )
        hashes = [sha256] if sha256 else [member.url.rsplit("-", 1)[1].removesuffix(".pth") for member in published]
        weights = load_weights(Path(path), hashes, pinned=sha256 is not None)
        self._network: nn.Module = (optical_flow.raft_small if small else optical_flow.raft_large)()
        fill_network(self._network, weights, path)

    @torch.no_grad()
    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """See `Engine`."""
        check_images(first, second)
        height, width = first.shape[-2:]
        inputs = (pad_images(images.float(), self._MULTIPLE, self._MIN_SIZE) for images in (first, second))
        return self._network.to(first.device)(*inputs)[-1][..., :height, :width].contiguous()


class Learned:
    """The compact network of `flow.network`, with the weights shipped or with those of a training of one's own.

    The network works at a quarter of the resolution; OpenCV's variational refinement then settles the fractions of a pixel.
    Source: of the refinement, Brox et al., "High Accuracy Optical Flow Estimation Based on a Theory for Warping", ECCV 2004.
    """

    def __init__(
        self,
        path: Path | str | None,
        sha256: str | None = None,
        *,
        num_variational_iterations: int = 10,
        network: Engine | None = None,
    ) -> None:
        """
        Args:
            network: what computes in place of torch, such as an exported graph of the same weights.
        """
        self._num_variational_iterations = num_variational_iterations
        if path is None and not SHIPPED_WEIGHTS.is_file():
            raise FlowError(
                "flow engine learned: no weights are shipped with this version",
                hint="train some with 'vidgen flow train' and give their path, or use the engine dis",
            )
        self._weights = load_network(path or SHIPPED_WEIGHTS, sha256=sha256)
        self._network = network

    @torch.no_grad()
    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """See `Engine`."""
        check_images(first, second)
        network = self._network or self._weights.to(first.device)
        flow = network(first.float(), second.float())
        return self._refined(first, second, flow) if self._num_variational_iterations else flow

    def _refined(self, first: Tensor, second: Tensor, flow: Tensor) -> Tensor:
        height, width = flow.shape[-2:]
        starts = pad_images(flow.cpu(), 1, _OPENCV_MIN_SIZE).numpy()
        flows = []
        for here, there, start in zip(_luma(first), _luma(second), starts, strict=True):
            refinement: Any = cv2.VariationalRefinement.create()
            refinement.setFixedPointIterations(self._num_variational_iterations)
            flows.append(np.stack(refinement.calcUV(here, there, *start.copy())))
        return torch.from_numpy(np.stack(flows)[..., :height, :width].copy()).to(first.device)


class Folder:
    """Flow read from files instead of estimated: the k-th pair asked for gets the k-th file in the natural order of names.

    So it fits one pass over one video, in one direction.
    """

    def __init__(self, path: Path | str | None) -> None:
        if path is None or not Path(path).is_dir():
            found = "none was given" if path is None else f"{path} is not a folder"
            raise FlowError(f"flow engine folder needs a folder of {', '.join(SUFFIXES)} files; {found}")
        self._folder = Path(path)
        self._files = sorted((file for file in self._folder.iterdir() if file.suffix.lower() in SUFFIXES), key=_natural_order)
        if not self._files:
            raise FlowError(f"{path}: holds no {', '.join(SUFFIXES)} files")
        self._next = 0
        self._lock = threading.Lock()

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """See `Engine`; the content of the images is not looked at, only their size."""
        check_images(first, second)
        with self._lock:
            start, self._next = self._next, self._next + len(first)
        if start + len(first) > len(self._files):
            raise FlowError(f"{self._folder}: holds {len(self._files)} flow files, but pair {start + len(first)} was asked for")
        flows = [self._read(file, first.shape[-2:]) for file in self._files[start : start + len(first)]]
        return torch.stack(flows).to(first.device)

    def _read(self, file: Path, size: torch.Size) -> Tensor:
        flow, known = read_flow(file)
        if flow.shape[-2:] != size:
            raise FlowError(f"{file}: is {_size(flow)}, the frames are {size[1]}x{size[0]}")
        if not known.all():
            raise FlowError(f"{file}: leaves {int((~known).sum())} pixels unknown; a folder used as an engine must be dense")
        return flow


def check_images(first: Tensor, second: Tensor) -> None:
    """Refuse a pair of images that no engine can use.

    Raises:
        FlowError: not two float [N,3,H,W] of equal shape, empty, or not finite.
    """
    for name, images in (("first", first), ("second", second)):
        if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape or not images.is_floating_point():
            raise FlowError(f"{name}: images for flow are float [N,3,H,W] in -1..1, got {images.dtype} {tuple(images.shape)}")
        if not images.isfinite().all():
            raise FlowError(f"{name}: the images for flow hold NaN or infinity")
    if first.shape != second.shape:
        raise FlowError(f"first is {tuple(first.shape)} and second {tuple(second.shape)}; a pair for flow must be alike")


def load_weights(path: Path, hashes: list[str], *, pinned: bool) -> dict[str, Tensor]:
    """Tensors of a .safetensors file, or of a .pth file whose SHA-256 is known beforehand.

    Args:
        path: the file.
        hashes: accepted SHA-256 values, hexadecimal, or their first digits.
        pinned: the user named the hash, so a .safetensors file must have it too.

    Raises:
        FlowError: the file is missing, has another hash, or holds no plain tensors.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FlowError(f"{path}: the weights could not be read ({error.strerror or error})") from error
    digest = hashlib.sha256(data).hexdigest()
    is_safetensors = path.suffix == ".safetensors"
    if (pinned or not is_safetensors) and not any(digest.startswith(known.lower()) for known in hashes):
        raise FlowError(
            f"{path}: SHA-256 is {digest}, expected one that starts with {' or '.join(hashes)}",
            hint="if these are your own weights and you trust them, give that hash, or save them as .safetensors",
        )
    try:
        if is_safetensors:
            return parse_safetensors(data)
        weights = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        raise FlowError(f"{path}: holds no weights that can be read safely ({type(error).__name__})") from error
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise FlowError(f"{path}: holds {type(weights).__name__}, not a dictionary of tensors")
    return weights


def fill_network(network: nn.Module, weights: dict[str, Tensor], path: Path | str) -> None:
    """Load `weights` into `network`, every key, and freeze it in evaluation mode.

    Raises:
        FlowError: keys or shapes differ.
    """
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise FlowError(f"{path}: these weights belong to another network ({str(error).splitlines()[1].strip()[:160]})") from error
    network.eval().requires_grad_(False)


def load_network(path: Path | str, *, sha256: str | None = None) -> FlowNetwork:
    """The network of `flow.network` with the weights of a .safetensors file, frozen, in evaluation mode.

    Raises:
        FlowError: the file is missing, damaged, of another network, or its SHA-256 is not `sha256`.
    """
    network = FlowNetwork()
    fill_network(network, load_weights(Path(path), [sha256] if sha256 else [], pinned=sha256 is not None), path)
    return network


def _resolve(engine: str | Engine) -> Engine:
    return create_engine(engine) if isinstance(engine, str) else engine


def _by_opencv(
    calculate: Callable[[np.ndarray, np.ndarray], np.ndarray], first: Tensor, second: Tensor, min_size: int = _OPENCV_MIN_SIZE
) -> Tensor:
    check_images(first, second)
    height, width = first.shape[-2:]
    try:
        flows = [calculate(a, b)[:height, :width] for a, b in zip(_luma(first, min_size), _luma(second, min_size), strict=True)]
    except cv2.error as error:
        raise FlowError(f"OpenCV could not estimate flow of {width}x{height} images ({error.err})") from error
    return torch.from_numpy(np.stack(flows)).permute(0, 3, 1, 2).contiguous().to(first.device)


def _luma(images: Tensor, min_size: int = _OPENCV_MIN_SIZE) -> list[np.ndarray]:
    """uint8 [H,W] for each image, H and W at least what OpenCV accepts."""
    images = pad_images(images.detach().float().cpu(), 1, min_size)
    pixels = quantize(images).permute(0, 2, 3, 1).numpy()
    return [cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY) for image in pixels]


def _natural_order(file: Path) -> list[tuple[int, str]]:
    """frame2 before frame10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", file.name)]


def _size(images: Tensor) -> str:
    return f"{images.shape[-1]}x{images.shape[-2]}"
