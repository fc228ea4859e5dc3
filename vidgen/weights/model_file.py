"""What a model file says of itself: enough to use it with nothing else at hand, and versioned, so that old files go on loading."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import pydantic
import torch
from pydantic import Field
from torch.overrides import TorchFunctionMode

import vidgen
from vidgen import config, translators
from vidgen.errors import CheckpointError, VidgenError, printable
from vidgen.media import labels
from vidgen.media.labels import LabelTable
from vidgen.translators.base import Networks, Translator
from vidgen.translators.settings import ModelConfig
from vidgen.types import Input, Pretrained
from vidgen.weights import pretrained
from vidgen.weights.checkpoints import find_weights
from vidgen.weights.files import Weights, load_into

_MORE_ELEMENTS, _SPARE_ELEMENTS = 4, 1 << 22
"""What building a network may allocate, by the elements of its weights: initialization takes some of its own."""
_ALLOCATE = {getattr(torch, name) for name in ("empty", "zeros", "ones", "full", "rand", "randn", "arange", "eye", "linspace")}
_SIZE = pydantic.TypeAdapter(tuple[Annotated[int, Field(gt=0, le=1 << 16)], Annotated[int, Field(gt=0, le=1 << 16)]])

FORMAT = 1
"""The format written. 0 held the whole run's configuration, training options included; it is still read."""


@dataclass(frozen=True)
class ModelCard:
    """What a trained model is, apart from its tensors.

    Attributes:
        model: configuration of the translator.
        condition: how frames become its condition (`data.condition` of the run), as plain data.
        table: meaning of the labels it reads, or None.
        size: (height, width) of the frames it was trained on.
        pretrained: SHA-256 of each declared pretrained network.
        extra: further text: where imported weights come from.
        version: of the vidgen that wrote it.
    """

    model: ModelConfig
    condition: Mapping[str, Any]
    table: LabelTable | None
    size: tuple[int, int]
    pretrained: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, str] = field(default_factory=dict)
    version: str = vidgen.__version__

    @property
    def kind(self) -> str:
        """Name of the translator."""
        kind: str = self.model.kind  # type: ignore[attr-defined]
        return kind

    @property
    def inputs(self) -> tuple[Input, ...]:
        """What the model declares to read."""
        declared: tuple[Input, ...] = translators.find(self.kind).inputs(self.model)
        return declared

    def metadata(self) -> dict[str, str]:
        """Text for the weights file."""
        return {
            "format": str(FORMAT),
            "vidgen": self.version,
            "model": json.dumps(self.model.model_dump(mode="json")),
            "inputs": json.dumps([vars(item) for item in self.inputs]),
            "condition": json.dumps(dict(self.condition)),
            "labels": json.dumps(self.table.to_dict() if self.table else None),
            "size": json.dumps(self.size),
            "pretrained": json.dumps(dict(self.pretrained)),
            **self.extra,
        }

    @staticmethod
    def read(metadata: Mapping[str, str], where: str) -> ModelCard:
        """The card of a weights file's metadata.

        Raises:
            CheckpointError: vidgen did not write it, a later version did, or it is damaged.
        """
        if "config" not in metadata and "model" not in metadata:
            raise CheckpointError(f"{where}: these weights carry no vidgen model card; train with vidgen, or import them first")
        version = metadata.get("format", "0")
        if not version.isdecimal() or int(version) > FORMAT:
            raise CheckpointError(f"{where}: is of model format {version}; this version of vidgen reads formats up to {FORMAT}")
        try:
            if int(version) == 0:
                run = json.loads(metadata["config"])
                model, condition = run["model"], run["data"]["condition"]
            else:
                model, condition = json.loads(metadata["model"]), json.loads(metadata["condition"])
            labels = json.loads(metadata.get("labels", "null"))
            height, width = _SIZE.validate_json(metadata["size"], strict=True)
            pretrained = json.loads(metadata.get("pretrained", "{}"))
            written = json.loads(metadata.get("inputs", "[]"))
            kind = model["kind"]
            table = None if labels is None else LabelTable.from_dict(labels)
            size = (height, width)
            names = {item["name"] for item in written}
            condition = dict(condition)
            pretrained = dict(pretrained)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError, VidgenError) as error:
            raise CheckpointError(f"{where}: its model card is damaged ({error})") from error
        settings = config.from_data(model, translators.find(kind, where).Config, where)
        extra = {name: text for name, text in metadata.items() if name == "imported"}
        card = ModelCard(settings, condition, table, size, pretrained, extra, metadata.get("vidgen", "0.1"))
        unknown = names - {item.name for item in card.inputs}
        if unknown:
            known = ", ".join(item.name for item in card.inputs) or "none"
            raise CheckpointError(f"{where}: reads the input {sorted(unknown)[0]!r}, which {kind} does not declare here ({known})")
        return card

    def build(self, networks: Networks | None = None) -> Translator[Any]:
        """The untrained translator."""
        translator: Translator[Any] = translators.find(self.kind).build(self.model, networks)
        return translator

    def networks_in_use(self, where: Path, files: Mapping[str, Path]) -> Networks:
        """The pretrained networks that the model needs in use.

        Args:
            where: the model; of a run folder, the files that its configuration names serve too.
            files: weights files by the network's name.

        Raises:
            ConfigError, CheckpointError: one has no file, or another one than in training.
        """
        declared = [item for item in self.declared_networks if item.when == "both"]
        if not declared:
            return {}
        known = {**_files_of_run(where), **files}
        loaded = pretrained.load(declared, {item.name: known[item.name] for item in declared if item.name in known})
        for name, found in loaded.sha256.items():
            expected = self.pretrained.get(name, found)
            if found != expected:
                raise CheckpointError(
                    f"{printable(where)}: was trained with {name} of SHA-256 {expected[:12]}..., but that here has {found[:12]}..."
                )
        return loaded.networks

    @property
    def declared_networks(self) -> tuple[Pretrained, ...]:
        """The pretrained networks that the model declares."""
        declared: tuple[Pretrained, ...] = translators.find(self.kind).pretrained(self.model)
        return declared

    def build_for(self, weights: Weights, where: Path, networks: Networks | None = None) -> Translator[Any]:
        """The untrained translator for tensors at hand; a card that asks for one of another size takes no memory.

        Raises:
            CheckpointError: the card describes a larger network than the file holds.
        """
        num_elements = sum(tensor.numel() for tensor in weights.tensors.values())
        with _Allocations(_MORE_ELEMENTS * num_elements + _SPARE_ELEMENTS, where):
            return self.build(networks)


def _files_of_run(where: Path) -> dict[str, Path]:
    """Weights files of pretrained networks that the configuration of a run folder names; none of anything else."""
    place = where / "config.yaml"
    if not place.is_file():
        return {}
    try:
        named = config.read(place).data.get("train", {}).get("pretrained", {})
        return {name: Path(path) for name, path in named.items()}
    except (VidgenError, AttributeError, TypeError):
        return {}


class _Allocations(TorchFunctionMode):
    """Refuses allocations beyond a number of elements, before they are made."""

    def __init__(self, most: int, where: Path) -> None:
        super().__init__()
        self._left, self._where = most, where

    def __torch_function__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), options: Mapping[str, Any] | None = None
    ) -> Any:
        options = options or {}
        if function in _ALLOCATE:
            self._left -= _num_elements(*arguments, *([options["size"]] if "size" in options else []))
            if self._left < 0:
                raise CheckpointError(f"{printable(self._where)}: its model card describes a larger network than the file holds")
        return function(*arguments, **options)


def _num_elements(*sizes: Any) -> int:
    """Elements of a tensor of these sizes, given as numbers or as one sequence of them."""
    numbers = sizes[0] if sizes and isinstance(sizes[0], tuple | list | torch.Size) else sizes
    return math.prod(number for number in numbers if isinstance(number, int))


def for_use(card: ModelCard, weights: Weights, where: Path) -> Weights:
    """The content of a model file that holds only what use needs, convolutions in half precision: about a sixth of the size.

    Training can start from it (its discriminators then start anew), but not resume.
    """
    used = {item.name for item in card.declared_networks if item.when == "both"}
    hashes = {name: digest for name, digest in card.pretrained.items() if name in used}
    slim = replace(card, model=card.model.for_use(), pretrained=hashes)
    names = slim.build_for(weights, where).state_dict().keys()
    tensors = {
        name: value.half() if value.ndim > 1 and value.is_floating_point() else value
        for name, value in weights.tensors.items()
        if name in names
    }
    return Weights(tensors, slim.metadata())


_LARGEST_MISFIT = 0.5
"""Share of a generator's numbers that may start anew when a training starts from the weights of another."""


def start_from(translator: Translator[Any], card: ModelCard, weights: Weights, where: Path) -> list[str]:
    """Fill a translator for a new training with all weights that have its names and shapes.

    A model of other classes serves too: each class starts from the one of its name, or else from one that looks alike. Where that
    cannot be, and where the inputs differ, the layers that read them start anew.

    Args:
        card: of the translator.
        weights: those to start from, with their own card.

    Returns:
        the parts that start anew: those of the generator by the names of their layers, others as a whole.

    Raises:
        CheckpointError: the generator is another one: less than half of it fits.
    """
    own = translator.state_dict()
    fits = {name: value for name, value in weights.tensors.items() if name in own and own[name].shape == value.shape}
    theirs = ModelCard.read(weights.metadata, str(where)).table
    if card.table is not None and theirs is not None and card.table.names != theirs.names:
        pairs = labels.nearest_classes(card.table.names, theirs.names)
        for name in translator.per_class_parameters & weights.tensors.keys() & own.keys():
            source, start = weights.tensors[name], own[name].clone()
            if source.shape[0] == start.shape[0] and source.shape[2:] == start.shape[2:]:
                start[:, list(pairs)] = source[:, list(pairs.values())].to(start)
                fits[name] = start
    sizes = {name: value.numel() for name, value in own.items() if name.startswith("generator.")}
    missing = [name for name in sizes if name not in fits]
    if sum(sizes[name] for name in missing) > _LARGEST_MISFIT * sum(sizes.values()):
        raise CheckpointError(
            f"{where}: its generator does not fit this model; {len(missing)} of {len(sizes)} weights differ, such as {missing[0]}"
        )
    translator.load_state_dict({**own, **fits})
    anew = own.keys() - fits.keys()
    return sorted({name.rpartition(".")[0] if name in sizes else name.split(".")[0] for name in anew})


def read_card(path: Path) -> tuple[ModelCard, Weights, Path]:
    """Card and tensors of a weights file, checkpoint folder or run folder, and the file they come from.

    Raises:
        CheckpointError: there are no usable weights.
    """
    weights, file = find_weights(path)
    return ModelCard.read(weights.metadata, str(file)), weights, file


def fill(translator: Translator[Any], weights: Weights, where: Path) -> None:
    """Load the tensors into a translator, every key accounted for.

    Raises:
        CheckpointError: they belong to another model.
    """
    load_into(translator, weights.tensors, str(where))
