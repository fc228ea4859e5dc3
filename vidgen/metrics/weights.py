"""The published networks that some metrics need: which file each is, and the judge that is built from it. Nothing is fetched."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from vidgen.errors import CheckpointError, ConfigError, MissingExtraError, install_hint
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
from vidgen.metrics.programs import is_torchscript, load_torchscript

ReadTensors = Callable[[Path, str | None], Mapping[str, Tensor]]
"""(file, what its SHA-256 must begin with) -> its tensors by name."""


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
}
_IN_TORCHMETRICS = {
    "lpips-heads": "functional/image/lpips_models/{}.pth",
    "dists-weights": "functional/image/dists_models/weights.pt",
}
_HEADS = {"squeezenet1_1": "squeeze", "alexnet": "alex", "vgg16": "vgg"}


@dataclass(frozen=True)
class GivenWeights:
    """A file that the user gave, and what its SHA-256 must begin with."""

    path: Path
    sha256: str | None = None

    @staticmethod
    def parse_all(texts: Iterable[str]) -> dict[str, GivenWeights]:
        """Read NAME=FILE or NAME=FILE#SHA256.

        Raises:
            ConfigError: one is not written so, or its NAME is unknown or given twice.
        """
        given: dict[str, GivenWeights] = {}
        for text in texts:
            name, sign, file = text.partition("=")
            if not (name and sign and file):
                raise ConfigError(
                    f"--weights {text!r}: expected NAME=FILE or NAME=FILE#SHA256", hint="--weights lpips=squeezenet1_1.pth"
                )
            if name not in WEIGHTS:
                raise ConfigError(f"--weights {text!r}: {name} is not known; known are {', '.join(WEIGHTS)}")
            if name in given:
                raise ConfigError(f"--weights {text!r}: {name} is given twice")
            match = re.fullmatch(r"(.+)#([0-9a-fA-F]{6,64})", file)
            path, sha256 = (match[1], match[2]) if match else (file, None)
            given[name] = GivenWeights(Path(path).expanduser(), sha256)
        return given


def needed(metric: str, weights: str) -> ConfigError:
    """The error for a metric whose weights were not given: which option, and which file."""
    published = WEIGHTS[weights]
    return ConfigError(
        f"--metrics {metric}: needs --weights {weights}=FILE: {published.about} ({' or '.join(published.files)})",
        hint="nothing is downloaded: get the file once, from its publisher, and give its path",
    )


@dataclass
class Judges:
    """Pretrained networks at hand; None where not asked for.

    Attributes:
        i3d: [1,3,16,224,224] in -1..1 -> [1,400].
        files: by name, path, SHA-256, and whether it is the published one (None where nobody said what that is).
    """

    lpips: Lpips | None = None
    dists: Dists | None = None
    sifid: SifidInception | None = None
    inception: FidInception | None = None
    i3d: Callable[[Tensor], Tensor] | None = None
    clip: ClipTransformer | None = None
    dino: DinoTransformer | None = None
    files: dict[str, dict[str, str | bool | None]] = field(default_factory=dict)

    def note(self, weights: str) -> str | None:
        """What to say of scores that rest on `weights`."""
        if self.files.get(weights, {}).get("published") is False:
            return "not the published weights: to be compared only among values of this very file"
        return None


def build_judges(names: Iterable[str], given: Mapping[str, GivenWeights], read: ReadTensors) -> Judges:
    """The judges called `names`, each from its file.

    Raises:
        CheckpointError: a file is missing, damaged, has another checksum, or is another network.
        MissingExtraError: the small files that torchmetrics brings were not given, and it is not installed.
    """
    loader = _Loader(given, read)
    for name in names:
        if name in ("lpips", "dists"):
            loader.build_paired(name)
        else:
            loader.build(name)
    return loader.judges


class _Loader:
    def __init__(self, given: Mapping[str, GivenWeights], read: ReadTensors) -> None:
        self.judges = Judges()
        self._given, self._read = given, read

    def build(self, name: str) -> None:
        path = self._checked(name)
        try:
            if name == "i3d" and is_torchscript(path):
                self.judges.i3d = _scripted_i3d(path)
                return
            tensors = load_torchscript(path).state_dict() if is_torchscript(path) else self._tensors(name)
            build: dict[str, Callable[[Mapping[str, Tensor]], torch.nn.Module]] = {
                "sifid": SifidInception,
                "inception": FidInception,
                "i3d": I3d,
                "clip": ClipTransformer,
                "dino": DinoTransformer,
            }
            setattr(self.judges, name, build[name](tensors))
        except CheckpointError as error:
            raise _named(name, path, error) from error

    def build_paired(self, name: str) -> None:
        """LPIPS and DISTS: a backbone, and a small file of weights of its channels."""
        path = self._checked(name)
        try:
            backbone = self._tensors(name)
            if name == "lpips":
                heads = self._small("lpips-heads", _HEADS[lpips_backbone(backbone)])
                self.judges.lpips = Lpips(backbone, heads)
            else:
                self.judges.dists = Dists(backbone, self._small("dists-weights"))
        except CheckpointError as error:
            raise _named(name, path, error) from error

    def _tensors(self, name: str) -> Mapping[str, Tensor]:
        return self._read(self._given[name].path, None)

    def _small(self, name: str, which: str = "") -> Mapping[str, Tensor]:
        if name in self._given:
            self._checked(name)
            return self._tensors(name)
        package = importlib.util.find_spec("torchmetrics")
        if package is None or package.origin is None:
            raise MissingExtraError(
                f"--weights {name}=FILE: {WEIGHTS[name].about}: not given, and torchmetrics, which brings them, is not installed",
                hint=install_hint("metrics"),
            )
        return self._read(Path(package.origin).parent / _IN_TORCHMETRICS[name].format(which), None)

    def _checked(self, name: str) -> Path:
        """The path of a file that is there and has the checksum asked for; it is entered among `Judges.files`."""
        path, sha256 = self._given[name].path, self._given[name].sha256
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            wanted = WEIGHTS[name]
            raise CheckpointError(
                f"--weights {name}: {path}: {error.strerror}",
                hint=f"it is {wanted.about} ({' or '.join(wanted.files)}); nothing is downloaded",
            ) from error
        if sha256 is not None and not found.startswith(sha256.lower()):
            raise CheckpointError(f"--weights {name}: {path}: its SHA-256 is {found}, expected {sha256}")
        known = WEIGHTS[name].known_hashes
        published = any(found.startswith(start) for start in known) if known else None
        self.judges.files[name] = {"path": str(path), "sha256": found, "published": published}
        return path


def _named(name: str, path: Path, error: CheckpointError) -> CheckpointError:
    message = str(error)
    return CheckpointError(f"--weights {name}: {message if str(path) in message else f'{path}: {message}'}", hint=error.hint)


def _scripted_i3d(path: Path) -> Callable[[Tensor], Tensor]:
    """StyleGAN-V's port; it would scale and resize by itself, but frames come scaled and resized."""
    module = load_torchscript(path)

    @torch.no_grad()
    def run(clips: Tensor) -> Tensor:
        try:
            return module(clips, rescale=False, resize=False, return_features=True)
        except RuntimeError as error:
            text = " ".join(str(error).split())[:160]
            raise CheckpointError(f"--weights i3d: {path}: is not the I3D of StyleGAN-V, or cannot run ({text})") from error

    return run
