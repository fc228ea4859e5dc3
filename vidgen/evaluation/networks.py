"""The published networks that some metrics need: which file each is, and how it is loaded. Nothing is fetched."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vidgen.errors import CheckpointError, ConfigError, MissingExtraError, install_hint
from vidgen.evaluation.report import WeightsUsed
from vidgen.metrics.backbones import (
    ClipTransformer,
    DinoTransformer,
    Dists,
    FidInception,
    I3d,
    Lpips,
    SifidInception,
    lpips_backbone,
)
from vidgen.metrics.learned import MetricNetworks
from vidgen.metrics.programs import is_torchscript, load_torchscript
from vidgen.types import Pretrained
from vidgen.weights.pretrained import CATALOG
from vidgen.weights.pretrained import load as load_pretrained
from vidgen.weights.state_dicts import read_state_dict

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PublishedWeights:
    """A file that the user can have.

    Attributes:
        about: what it is.
        files: the names under which it is published; eight hexadecimal digits before the suffix begin its SHA-256.
        hashes: what its SHA-256 begins with, where the name does not say.
    """

    about: str
    files: tuple[str, ...]
    hashes: tuple[str, ...] = ()

    @property
    def known_hashes(self) -> tuple[str, ...]:
        named = (re.search(r"-([0-9a-f]{8})\.pth$", name) for name in self.files)
        return (*self.hashes, *(match[1] for match in named if match))


_VGG = "vgg16-397923af.pth"
WEIGHTS = {
    "lpips": PublishedWeights(
        "torchvision's SqueezeNet 1.1, AlexNet or VGG-16", ("squeezenet1_1-b8a52dc0.pth", "alexnet-owt-7be5be79.pth", _VGG)
    ),
    "lpips-heads": PublishedWeights("the linear heads of LPIPS 0.1 for that network", ("squeeze.pth", "alex.pth", "vgg.pth")),
    "dists": PublishedWeights("torchvision's VGG-16", (_VGG,)),
    "dists-weights": PublishedWeights("alpha and beta of DISTS", ("weights.pt",)),
    "inception": PublishedWeights("the Inception network of FID", ("weights-inception-2015-12-05-6726825d.pth",)),
    "sifid": PublishedWeights(
        "torchvision's Inception v3", ("inception_v3_google-0cc3c7bd.pth", "inception_v3_google-1a9a5a14.pth")
    ),
    "i3d": PublishedWeights("I3D trained on Kinetics-400", ("i3d_torchscript.pt", "i3d_pretrained_400.pt")),
    "clip": PublishedWeights(
        "CLIP's ViT-B/32", ("ViT-B-32.pt",), ("40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",)
    ),
    "dino": PublishedWeights("DINO's ViT-B/16", ("dino_vitbase16_pretrain.pth",)),
    "efficientnet_lite0": PublishedWeights("EfficientNet-Lite0", ("efficientnet-lite0-57934424.pth",)),
}
_PACKAGED = "efficientnet_lite0"
_IN_TORCHMETRICS = {
    "lpips-heads": "functional/image/lpips_models/{}.pth",
    "dists-weights": "functional/image/dists_models/weights.pt",
}
_HEADS = {"squeezenet1_1": "squeeze", "alexnet": "alex", "vgg16": "vgg"}


@dataclass(frozen=True)
class WeightsFile:
    """A file, and what its SHA-256 must begin with."""

    path: Path
    sha256: str | None = None

    @staticmethod
    def parse_all(texts: Iterable[str]) -> dict[str, WeightsFile]:
        """Read NAME=FILE or NAME=FILE#SHA256.

        Raises:
            ConfigError: one is not written so, or its NAME is unknown or occurs twice.
        """
        parsed: dict[str, WeightsFile] = {}
        for text in texts:
            name, sign, file = text.partition("=")
            if not (name and sign and file):
                raise ConfigError(
                    f"`weights` {text!r}: expected NAME=FILE or NAME=FILE#SHA256", hint="`weights` lpips=squeezenet1_1.pth"
                )
            if name not in WEIGHTS:
                raise ConfigError(f"`weights` {text!r}: {name} is not known; known are {', '.join(WEIGHTS)}")
            if name in parsed:
                raise ConfigError(f"`weights` {text!r}: {name} occurs twice")
            match = re.fullmatch(r"(.+)#([0-9a-fA-F]{6,64})", file)
            path, sha256 = (match[1], match[2]) if match else (file, None)
            parsed[name] = WeightsFile(Path(path).expanduser(), sha256)
        return parsed


def at_hand(files: Mapping[str, WeightsFile]) -> set[str]:
    """The networks that can be loaded: those of `files`, and the one whose package is installed."""
    package = CATALOG[_PACKAGED].package
    is_installed = package is not None and importlib.util.find_spec(package.replace("-", "_")) is not None
    return {*files, *([_PACKAGED] if is_installed else [])}


def missing_weights(metric: str, weights: str) -> ConfigError:
    """The error for a metric whose weights are not there: which file it is."""
    published = WEIGHTS[weights]
    return ConfigError(
        f"`metrics` {metric}: needs `weights` {weights}=FILE: {published.about} ({' or '.join(published.files)})",
        hint="nothing is downloaded: get the file once, from its publisher, and give its path",
    )


def load_networks(names: Iterable[str], files: Mapping[str, WeightsFile]) -> tuple[MetricNetworks, dict[str, WeightsUsed]]:
    """The networks called `names`, each from its file; and which files these were.

    Raises:
        CheckpointError: a file is missing, damaged, has another checksum, or is another network.
        MissingExtraError: the small files that torchmetrics brings are not among `files`, and it is not installed.
    """
    loader = _Loader(files)
    for name in names:
        if name in ("lpips", "dists"):
            loader.load_paired(name)
        elif name == _PACKAGED:
            loader.load_features()
        else:
            loader.load(name)
    return loader.networks, loader.used


class _Loader:
    def __init__(self, files: Mapping[str, WeightsFile]) -> None:
        self.networks = MetricNetworks()
        self.used: dict[str, WeightsUsed] = {}
        self._files = files

    def load(self, name: str) -> None:
        path = self._checked(name)
        try:
            if name == "i3d" and is_torchscript(path):
                self.networks.i3d = _scripted_i3d(path)
                return
            tensors = _run_program(name, path).state_dict() if is_torchscript(path) else self._tensors(name)
            build: dict[str, Callable[[Mapping[str, Tensor]], torch.nn.Module]] = {
                "sifid": SifidInception,
                "inception": FidInception,
                "i3d": I3d,
                "clip": ClipTransformer,
                "dino": DinoTransformer,
            }
            setattr(self.networks, name, build[name](tensors))
        except CheckpointError as error:
            raise _named(name, path, error) from error

    def load_paired(self, name: str) -> None:
        """LPIPS and DISTS: a backbone, and a small file of weights of its channels."""
        path = self._checked(name)
        try:
            backbone = self._tensors(name)
            if name == "lpips":
                heads = self._small("lpips-heads", _HEADS[lpips_backbone(backbone)])
                self.networks.lpips = Lpips(backbone, heads)
            else:
                self.networks.dists = Dists(backbone, self._small("dists-weights"))
        except CheckpointError as error:
            raise _named(name, path, error) from error

    def load_features(self) -> None:
        """EfficientNet-Lite0, from its package unless another file is to be used."""
        files = {_PACKAGED: self._checked(_PACKAGED)} if _PACKAGED in self._files else {}
        loaded = load_pretrained([Pretrained(_PACKAGED, "`metrics`")], files)
        self.networks.features = loaded.networks[_PACKAGED]
        if not files:
            self.used[_PACKAGED] = WeightsUsed(path=f"package {_PACKAGED}", sha256=loaded.sha256[_PACKAGED], published=True)

    def _tensors(self, name: str) -> Mapping[str, Tensor]:
        return read_state_dict(self._files[name].path, None)

    def _small(self, name: str, which: str = "") -> Mapping[str, Tensor]:
        if name in self._files:
            self._checked(name)
            return self._tensors(name)
        package = importlib.util.find_spec("torchmetrics")
        if package is None or package.origin is None:
            raise MissingExtraError(
                f"`weights` {name}=FILE: {WEIGHTS[name].about}: no file, and torchmetrics, which brings them, is not installed",
                hint=install_hint("metrics"),
            )
        return read_state_dict(Path(package.origin).parent / _IN_TORCHMETRICS[name].format(which), None)

    def _checked(self, name: str) -> Path:
        """The path of a file that is there and has the checksum asked for; it is entered among those used."""
        path, sha256 = self._files[name].path, self._files[name].sha256
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            expected = WEIGHTS[name]
            raise CheckpointError(
                f"`weights` {name}: {path}: {error.strerror}",
                hint=f"it is {expected.about} ({' or '.join(expected.files)}); nothing is downloaded",
            ) from error
        if sha256 is not None and not digest.startswith(sha256.lower()):
            raise CheckpointError(f"`weights` {name}: {path}: its SHA-256 is {digest}, expected {sha256}")
        known = WEIGHTS[name].known_hashes
        published = any(digest.startswith(start) for start in known) if known else None
        self.used[name] = WeightsUsed(path=os.path.abspath(path), sha256=digest, published=published)
        if published is False:
            self.networks.unpublished.add(name)
        return path


def _named(name: str, path: Path, error: CheckpointError) -> CheckpointError:
    message = str(error)
    return CheckpointError(f"`weights` {name}: {message if str(path) in message else f'{path}: {message}'}", hint=error.hint)


def _run_program(name: str, path: Path) -> torch.nn.Module:
    """A TorchScript archive, which is a program: loading it runs code that somebody else wrote, so this is said aloud."""
    log.warning("weights %s: %s is a TorchScript program: its code is run; use it only if you trust where it is from", name, path)
    return load_torchscript(path)


def _scripted_i3d(path: Path) -> Callable[[Tensor], Tensor]:
    """StyleGAN-V's port; it would scale and resize by itself, but frames come scaled and resized."""
    module = _run_program("i3d", path)

    @torch.no_grad()
    def run(clips: Tensor) -> Tensor:
        try:
            return module(clips, rescale=False, resize=False, return_features=True)
        except RuntimeError as error:
            text = " ".join(str(error).split())[:160]
            raise CheckpointError(f"`weights` i3d: {path}: is not the I3D of StyleGAN-V, or cannot run ({text})") from error

    return run
