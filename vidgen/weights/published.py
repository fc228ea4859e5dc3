"""Published checkpoints of the original systems -> weights files of ours.

The originals store plain state dicts, one per network, without the architecture: it is read off the shapes. Every key of a file
must find its place, and every weight of ours its key; what a file lacks altogether (the discriminators of a published generator)
starts untrained, and the result says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vidgen import config, translators
from vidgen.errors import CheckpointError, ConfigError
from vidgen.media import labels as tables
from vidgen.media.labels import LabelTable
from vidgen.weights.files import Weights, load_into
from vidgen.weights.model_file import ModelCard
from vidgen.weights.state_dicts import read_state_dict

State = dict[str, Tensor]
Size = tuple[int, int]

_ROLE = re.compile(r"_net_([A-Z][A-Za-z0-9_]*)\.(?:pth|pt|safetensors)$")
_STATISTICS = (".running_mean", ".running_var", ".num_batches_tracked")


@dataclass(frozen=True)
class Part:
    """One file: a network of the original.

    Attributes:
        role: which network it is, such as G0 or D_T1.
        state: its weights under the original's keys.
        where: the file, for messages.
    """

    role: str
    state: State
    where: str

    def shape(self, key: str, dims: int = 4) -> tuple[int, ...]:
        """Of a weight that the architecture is read off.

        Raises:
            CheckpointError: there is no such key, or it is no weight of that kind.
        """
        if key not in self.state or self.state[key].ndim != dims or 0 in self.state[key].shape:
            raise CheckpointError(f"{self.where}: has no usable {key!r}; is it the {self.role} of this system?")
        return tuple(self.state[key].shape)

    def count(self, pattern: str) -> int:
        """How many different things the first group of `pattern` matches among the keys."""
        found = (re.match(pattern, key) for key in self.state)
        return len({match[1] for match in found if match})

    @property
    def norm(self) -> str:
        """batch where there are learned scales (one number per channel), else instance."""
        return "batch" if any(key.endswith(".weight") and value.ndim == 1 for key, value in self.state.items()) else "instance"


@dataclass(frozen=True)
class Place:
    """Where a network of the original goes.

    Attributes:
        module: path of the module of ours that it fills.
        keys: what its keys look like.
        rename: its keys -> those of our module.
    """

    module: str
    keys: re.Pattern[str]
    rename: Callable[[Iterable[str]], dict[str, str]]


@dataclass(frozen=True)
class Layout:
    """What the shapes of a set of files say.

    Attributes:
        model: configuration of the translator.
        num_channels: of the condition, per frame.
        places: the networks that there may be, by role.
        size: (height, width) that the published models of this kind work at.
    """

    model: dict[str, Any]
    num_channels: int
    places: dict[str, Place]
    size: Size


def roles(files: Sequence[str]) -> dict[str, Path]:
    """Which network each file is: by its name (`latest_net_G0.pth`), or as stated (`G0=weights.pth`).

    Raises:
        ConfigError: a name says nothing, or two files have one role.
    """
    found: dict[str, Path] = {}
    for text in files:
        stated = re.match(r"([A-Z][A-Za-z0-9_]*)=(.+)$", text)
        named = _ROLE.search(text)
        if stated:
            role, path = stated[1], Path(stated[2])
        elif named:
            role, path = named[1], Path(text)
        else:
            raise ConfigError(f"{text}: its name does not end with _net_ROLE.pth", hint=f"say which network it is, as in G={text}")
        role = re.sub(r"^G_\d+$", "G", role)  # vid2vid's models of first frames are named after their width
        if role in found:
            raise ConfigError(f"{text}: {found[role]} is the {role} already")
        found[role] = path
    return found


def import_weights(
    system: str,
    files: Sequence[str],
    *,
    labels: str | None = None,
    size: Size | None = None,
    foreground: Sequence[int] = (),
) -> Weights:
    """Weights of ours from the files of a published model.

    Args:
        system: one of `SYSTEMS`.
        files: state dicts, each named after its network (`latest_net_G0.pth`) or given as `ROLE=FILE`.
        labels: meaning of the label maps it reads: cityscapes, camvid, a number of classes, a table file, or `none` for a model
            that reads pictures; by default what the number of channels suggests.
        size: (height, width) to work at; by default that of the published models.
        foreground: classes that vid2vid's foreground branch makes; by default the Cityscapes car.

    Raises:
        CheckpointError: a file is unsafe or broken, or a key has no place or is missing.
        ConfigError: an unknown system, a file's role is not clear, or `labels` do not fit its channels.
    """
    if system not in SYSTEMS:
        raise ConfigError(f"{system}: not an importable system; there are {', '.join(SYSTEMS)}")
    parts = {role: _read(role, path) for role, path in roles(files).items()}
    found = SYSTEMS[system](parts)
    for part in parts.values():
        if part.role not in found.places:
            raise CheckpointError(f"{part.where}: {system} has no network {part.role} here; there are {', '.join(found.places)}")
    condition, channels, table = _condition(found.num_channels, labels)
    if foreground:
        found.model["generator"]["foreground_labels"] = list(foreground)
    settings = config.from_data({**found.model, **channels}, translators.find(system).Config, f"{system} files")
    card = ModelCard(settings, condition, table, size or found.size)
    torch.manual_seed(0)
    translator = card.build()
    for role, part in parts.items():
        _fill(translator.get_submodule(found.places[role].module), part, found.places[role])
    filled = {found.places[role].module.split(".")[0] for role in parts}
    learns = [name for name, child in translator.named_children() if next(child.parameters(), None) is not None]
    untrained = [name for name in learns if name not in filled]
    origin = {"system": system, "files": [part.where for part in parts.values()], "untrained": untrained}
    return Weights(translator.state_dict(), {**card.metadata(), "imported": json.dumps(origin)})


def _read(role: str, path: Path) -> Part:
    state = read_state_dict(path)
    if not state:
        raise CheckpointError(f"{path}: holds no weights")
    return Part(role, _without_unused_statistics(state), str(path))


def _without_unused_statistics(state: State) -> State:
    """Running statistics stay where a learned scale says that the normalisation is a batch norm.

    Old instance norms stored them too, and never used them. The oldest batch norms lack the count of batches.
    """
    kept = dict(state)
    for name in [key.removesuffix(".running_mean") for key in state if key.endswith(".running_mean")]:
        if f"{name}.weight" in state:
            kept.setdefault(f"{name}.num_batches_tracked", torch.tensor(0))
        else:
            for suffix in _STATISTICS:
                kept.pop(name + suffix, None)
    return kept


def _fill(module: nn.Module, part: Part, place: Place) -> None:
    """Load a part into its module, every key accounted for.

    Raises:
        CheckpointError: a key has no place, is missing, or has another shape; some are named.
    """
    strange = [key for key in part.state if not place.keys.match(key)]
    if strange:
        listed = ", ".join(strange[:5]) + ("..." if len(strange) > 5 else "")
        raise CheckpointError(f"{part.where}: {len(strange)} keys that the {part.role} of this system does not have: {listed}")
    try:
        names = place.rename(part.state)
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(f"{part.where}: a key has no place in the {part.role} of this system ({error})") from error
    load_into(module, {names[key]: value for key, value in part.state.items()}, part.where)


def _condition(num_channels: int, labels: str | None) -> tuple[dict[str, Any], dict[str, Any], LabelTable | None]:
    """What `num_channels` per frame are: the data's condition, the model's numbers for it, and the label table.

    Raises:
        ConfigError: the labels do not fit.
    """
    table = _table(num_channels, labels)
    if table is None:
        num_pictures, num_edges = divmod(num_channels, 3)
        if num_edges > 1:
            raise ConfigError(f"the model reads {num_channels} channels, which are not pictures of three", hint="see --labels")
        names = [f"condition{index + 1}" if num_pictures > 1 else "condition" for index in range(num_pictures)]
        return {"pictures": names, "edges": {} if num_edges else None}, {"condition_channels": num_channels}, None
    rest = num_channels - table.num_classes
    if rest not in (0, 1):
        raise ConfigError(
            f"--labels: {table.num_classes} classes, but the model reads {num_channels} channels (the classes, and one if it reads "
            "instances)"
        )
    condition = {"labels": {"num_classes": table.num_classes}, "instances": "instances" if rest else None}
    return condition, {"num_labels": table.num_classes, "use_instances": bool(rest)}, table


def _table(num_channels: int, labels: str | None) -> LabelTable | None:
    if labels is None:
        if num_channels in (35, 36):
            return tables.CITYSCAPES
        return None if num_channels % 3 == 0 or num_channels == 1 else tables.plain(num_channels)
    if labels == "none":
        return None
    if labels.isdecimal() and int(labels) > 0:
        return tables.plain(int(labels))
    return tables.find(labels)


def _required(parts: Mapping[str, Part], role: str) -> Part:
    if role not in parts:
        raise CheckpointError(f"no file is the network {role}", hint=f"name it ..._net_{role}.pth, or write {role}=FILE")
    return parts[role]


# -- vid2vid ---------------------------------------------------------------------------------------------------------------

_BRANCHES = r"(model_(down_seg|down_img|res_img|res_flow|up_img|up_flow)|indv_(down|res|up))\.\d+\."
_HEADS = r"(model_final_(img|flow|w)|indv_final)\.1\.(weight|bias)$"
_COMPOSITE = re.compile(f"{_BRANCHES}|{_HEADS}")
_MULTISCALE = re.compile(r"scale\d+_layer\d+\.[01]\.")
_CITYSCAPES_CAR, _CITYSCAPES_CLASSES = 26, 35


def _vid2vid(parts: Mapping[str, Part]) -> Layout:
    """Composite generators G0, G1, ...; the discriminator of frames D and the temporal ones D_T0, D_T1, ..."""
    coarse = _required(parts, "G0")
    base_channels, window_channels = coarse.shape("model_down_seg.1.weight")[:2]
    past_channels = coarse.shape("model_down_img.1.weight")[1] if coarse.count("(model_down_img)") else 0
    num_frames = past_channels // 3 + 1
    if past_channels % 3 or window_channels % num_frames:
        raise CheckpointError(f"{coarse.where}: {window_channels} condition and {past_channels} past channels do not go together")
    num_scales = 1 + sum(bool(re.fullmatch(r"G[1-9]\d*", role)) for role in parts)
    num_temporal = sum(role.startswith("D_T") for role in parts)
    generator = {
        "base_channels": base_channels,
        "num_downsamplings": coarse.count(r"model_up_img\.(\d+)\.weight$") // (2 if coarse.norm == "batch" else 1),
        "num_blocks": coarse.count(r"model_down_seg\.(\d+)\.conv_block") + coarse.count(r"model_res_img\.(\d+)\.conv_block"),
        "num_scales": num_scales,
        "norm": coarse.norm,
        "flow": "learned" if coarse.count("(model_final_flow)") else "none",
        "foreground_labels": [_CITYSCAPES_CAR] if coarse.count("(indv_final)") else [],
    }
    if "G1" in parts:
        generator["num_local_blocks"] = parts["G1"].count(r"model_up_img\.(\d+)\.conv_block")
    discriminators: dict[str, Any] = {}
    for role in ("D_T0", "D"):
        if role in parts:
            discriminators |= _multiscale_discriminator(parts[role])
    discriminators["num_temporal_scales"] = num_temporal
    if num_temporal:
        discriminators["num_temporal_frames"] = (_required(parts, "D_T0").shape("scale0_layer0.0.weight")[1] + 2) // 5
    renames = translators.find("vid2vid").RENAMES
    places = {f"G{scale}": Place(f"generator.{scale}", _COMPOSITE, renames["generator"]) for scale in range(num_scales)}
    places["D"] = Place("discriminator", _MULTISCALE, renames["discriminator"])
    for scale in range(num_temporal):
        places[f"D_T{scale}"] = Place(f"temporal_discriminators.{scale}", _MULTISCALE, renames["discriminator"])
    model = {"kind": "vid2vid", "num_input_frames": num_frames, "generator": generator, "discriminators": discriminators}
    height = 256 * 2 ** (num_scales - 1)
    return Layout(model, window_channels // num_frames, places, (height, 2 * height))


def _multiscale_discriminator(part: Part) -> dict[str, Any]:
    """Shape of a multi-scale discriminator; the last of its scales is the finest.

    Trained without feature matching, each scale is one sequence.
    """
    num_sequences = part.count(r"layer(\d+)\.")
    num_scales = num_sequences or part.count(r"(scale\d+)_layer")
    finest = f"layer{num_scales - 1}.0.weight" if num_sequences else f"scale{max(0, num_scales - 1)}_layer0.0.weight"
    first = r"layer0\." if num_sequences else "scale0_layer"
    num_convolutions = sum(bool(re.match(first, key)) and value.ndim == 4 for key, value in part.state.items())
    return {
        "base_channels": part.shape(finest)[0],
        "num_layers": max(1, num_convolutions - 2),
        "num_scales": num_scales,
        "norm": part.norm,
    }


# -- pix2pix ---------------------------------------------------------------------------------------------------------------

_UNET = re.compile(r"model\.model\.(\d+\.model\.)*\d+\.(weight|bias|running_mean|running_var|num_batches_tracked)$")
_SEQUENCE = re.compile(r"model\.\d+\.(conv_block\.\d+\.)?(weight|bias|running_mean|running_var|num_batches_tracked)$")
_PATCH = re.compile(r"(model|net)\.\d+\.(weight|bias|running_mean|running_var|num_batches_tracked)$")


def _pix2pix(parts: Mapping[str, Part]) -> Layout:
    """A U-Net or ResNet generator G, and the patch or pixel discriminator D."""
    made = _required(parts, "G")
    renames = translators.find("pix2pix").RENAMES
    if made.count(r"(model\.model)\."):
        base_channels, num_channels = made.shape("model.model.0.weight")[:2]
        depth = max(key.count("model") for key in made.state) - 1
        generator = {"network": "unet", "base_channels": base_channels, "num_downsamplings": depth, "norm": made.norm}
        place, side = Place("generator", _UNET, renames["unet"]), 2**depth
    else:
        shape, num_channels = _resnet(made)
        drops = 0.0 if made.count(r".*conv_block\.(5)\.weight") else 0.5
        generator = {"network": "resnet", **shape, "norm": made.norm, "dropout": drops}
        place, side = Place("generator", _SEQUENCE, renames["resnet"]), 256
    model = {"kind": "pix2pix", "generator": generator, "discriminator": _patch_discriminator(parts["D"]) if "D" in parts else {}}
    places = {"G": place, "D": Place("discriminator", _PATCH, renames["discriminator"])}
    return Layout(model, num_channels, places, (side, side))


def _resnet(part: Part) -> tuple[dict[str, int], int]:
    """Shape of a generator in one sequence, and the channels it reads."""
    blocks = sorted({int(found[1]) for key in part.state if (found := re.match(r"model\.(\d+)\.conv_block", key))})
    if not blocks:
        raise CheckpointError(f"{part.where}: has no residual blocks; is it the {part.role} of this system?")
    base_channels, num_channels = part.shape("model.1.weight")[:2]
    shape = {"base_channels": base_channels, "num_downsamplings": (blocks[0] - 4) // 3, "num_blocks": len(blocks)}
    return shape, num_channels


def _patch_discriminator(part: Part) -> dict[str, Any]:
    if part.count("(net)"):
        return {"network": "pixel", "base_channels": part.shape("net.0.weight")[0], "norm": part.norm}
    num_convolutions = sum(value.ndim == 4 for value in part.state.values())
    shape = {"base_channels": part.shape("model.0.weight")[0], "num_layers": max(1, num_convolutions - 2)}
    return {"network": "patch", **shape, "norm": part.norm}


# -- pix2pixHD -------------------------------------------------------------------------------------------------------------

_COARSE_TO_FINE = re.compile(r"model(\d+_[12])?\.\d+\.(conv_block\.\d+\.)?\w+$")
_DISCRIMINATORS = re.compile(r"(scale\d+_layer\d+\.[01]|layer\d+\.\d+)\.\w+$")


def _pix2pixhd(parts: Mapping[str, Part]) -> Layout:
    """The generator G (global, or with local enhancers), the encoder of styles E, and the discriminators D."""
    made = _required(parts, "G")
    shape, num_channels = _resnet(made)
    num_enhancers = made.count(r"model(\d+)_1\.")
    generator = {**shape, "num_enhancers": num_enhancers, "norm": made.norm}
    if num_enhancers:
        generator["num_local_blocks"] = made.count(r"model1_2\.(\d+)\.conv_block")
    model: dict[str, Any] = {"kind": "pix2pixhd", "generator": generator}
    if "E" in parts:
        convolutions = [key for key, value in parts["E"].state.items() if key.endswith(".weight") and value.ndim == 4]
        last = max(convolutions, key=lambda key: int(re.sub(r"\D", "", key) or 0), default="")
        num_features = parts["E"].shape(last)[0]
        model["encoder"] = {
            "base_channels": parts["E"].shape("model.1.weight")[0],
            "num_downsamplings": len(convolutions) // 2 - 1,
            "num_features": num_features,
            "regions": "labels" if num_channels - num_features == _CITYSCAPES_CLASSES else "instances",
        }
        num_channels -= num_features
    if "D" in parts:
        model["discriminators"] = _multiscale_discriminator(parts["D"])
    renames = translators.find("pix2pixhd").RENAMES
    places = {
        "G": Place("generator.image", _COARSE_TO_FINE, renames["generator"]),
        "E": Place("generator.encoder", _SEQUENCE, renames["encoder"]),
        "D": Place("discriminator", _DISCRIMINATORS, renames["discriminator"]),
    }
    height = 512 * 2**num_enhancers
    return Layout(model, num_channels, places, (height, 2 * height))


SYSTEMS: dict[str, Callable[[Mapping[str, Part]], Layout]] = {"pix2pix": _pix2pix, "pix2pixhd": _pix2pixhd, "vid2vid": _vid2vid}
"""Whose checkpoints are imported -> how their shapes are read."""
