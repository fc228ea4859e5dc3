"""Inputs as they are typed."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vidgen import kinds
from vidgen.errors import ConfigError, InputError
from vidgen.media import images, paths, video
from vidgen.media.frames import list_sources

if TYPE_CHECKING:
    from vidgen.inference.model import Model


def check_order(model: Path, inputs: Sequence[str | Path]) -> None:
    """Refuse a model and inputs in each other's place.

    Raises:
        ConfigError: they are.
    """
    other = kinds.swapped(model, inputs)
    if other is not None:
        shown, found = (paths.display(path) for path in (model, other))
        raise ConfigError(f"{shown}: is {kinds.kind_of(model)}, and {found} is {kinds.kind_of(other)}; the model comes first")


def named_input(text: str) -> tuple[str | None, Path]:
    """NAME and PATH of `NAME=PATH`; no name where there is none, or where a file really bears such a name."""
    name, sign, path = text.partition("=")
    is_named = sign and name and path and "/" not in name and not os.path.lexists(text)
    return (name, Path(path)) if is_named else (None, Path(text))


def further_inputs(model: Model, entries: Sequence[str], *, instances: str | None = None) -> dict[str, str]:
    """The model's inputs beside the main one, by name.

    Args:
        entries: `NAME=PATH` each; without a name, the next that is left in the model's order.
        instances: the path of the input called instances.

    Raises:
        ConfigError: an entry is not NAME=PATH, or an input is named twice.
        InputError: there are more inputs than the model reads.
    """
    result = {} if instances is None else {"instances": instances}
    unnamed = []
    for entry in entries:
        name, sign, path = entry.partition("=")
        if not (sign and path):
            raise ConfigError(f"`further` {entry}: expected NAME=PATH, such as instances=objects.png")
        if name in result:
            raise ConfigError(f"`further` {entry}: {name} is named twice")
        if name:
            result[name] = path
        else:
            unnamed.append(path)
    left = [item.name for item in model.inputs[1:] if item.name not in result and item.kind != "instances"]
    if len(unnamed) > len(left):
        names = ", ".join(item.name for item in model.inputs) or "nothing"
        raise InputError(f"{unnamed[len(left)]}: this model has no use for it; it reads {names}")
    return {**result, **dict(zip(left, unnamed, strict=False))}


class Companion:
    """What belongs to each of several inputs: one source for one input, or a folder that holds one for each.

    The folder may hold them in the tree of the inputs, or side by side under their names.
    """

    def __init__(self, where: str | Path, *, several: bool, what: str) -> None:
        """Look at what is there, once for all inputs.

        Args:
            several: whether there are several inputs, so that one source cannot belong to all.
            what: a name for messages, such as "`instances`".

        Raises:
            InputError: nothing readable is there.
        """
        self._text, self._several, self._what = os.fspath(where), several, what
        self._folder = Path(paths.expanded(self._text))
        self._is_single = not several and not self._folder.is_dir()
        self._candidates: list[Path] = []
        if not self._is_single:
            try:
                self._candidates = list_sources(self._text)
            except InputError:
                if not (several and self._folder.is_dir() and any(entry.is_dir() for entry in paths.list_folder(self._folder))):
                    raise  # or the tree of the inputs is below it
        self._is_clip = self._folder.is_dir() and self._candidates == [self._folder]
        self._by_name = self._named(self._candidates)
        self._pictures: dict[str, list[Path]] | None = None

    @staticmethod
    def _named(candidates: Sequence[Path]) -> dict[str, list[Path]]:
        result: dict[str, list[Path]] = {}
        for clip in candidates:
            result.setdefault(paths.comparable(_name_of(clip)), []).append(clip)
        return result

    def of(self, job: Path, identity: str | None = None) -> str:
        """The one that belongs to an input.

        Args:
            job: a clip or picture, as `list_sources` gives it.
            identity: its path below the folder of all inputs; what lies under it here comes first.

        Raises:
            InputError: nothing there has that name, or one clip or picture is to serve several inputs.
        """
        if self._is_single:
            return self._text
        if identity is not None and "/" in identity and (mirrored := self._mirrored(identity)) is not None:
            return str(mirrored)
        candidates, by_name = self._candidates, self._by_name
        if self._is_clip and (self._several or (images.is_image(job) and job.is_file())):  # its pictures belong to one input each
            candidates = [entry for entry in paths.list_folder(self._folder) if images.is_image(entry)]
            self._pictures = self._pictures or self._named(candidates)
            by_name = self._pictures
        if len(candidates) == 1 and not self._several:
            return str(candidates[0])
        name = paths.comparable(_name_of(job))
        fitting = by_name.get(name, [])
        if len(fitting) == 1 and (len(candidates) > 1 or self._folder.is_dir()):
            return str(fitting[0])
        shown = f"{self._what} {paths.display(self._text)}"
        if len(candidates) == 1 or (self._is_clip and not fitting):
            raise OneSourceError(
                f"{shown}: is one source for several inputs; none of it is called {paths.display(name)}",
                hint="name a folder that holds one for each input, called as the input is",
            )
        count, held = len(fitting) or "none", paths.few([clip.name for clip in candidates], 3)
        raise InputError(f"{shown}: {count} of it is called {paths.display(name)}; it holds {held}")

    def _mirrored(self, identity: str) -> Path | None:
        """What lies at the input's own place in a tree like that of the inputs, whatever its suffix."""
        place = self._folder / identity
        if os.path.lexists(place):
            return place
        stem = place.stem if images.is_image(place) or video.is_video(place) or images.is_animation_name(place) else place.name
        if (place.parent / stem).is_dir():
            return place.parent / stem
        if not place.parent.is_dir():
            return None
        fitting = [entry for entry in place.parent.glob(f"{glob.escape(stem)}.*") if _name_of(entry) == stem]
        return fitting[0] if len(fitting) == 1 else None


class OneSourceError(InputError):
    """One clip or picture is named to serve several inputs."""


def _name_of(clip: Path) -> str:
    """The name of a clip without its suffix or cut; folders have no suffix, also where there is a dot in the name."""
    path = Path(paths.split_cut(os.fspath(clip))[0])
    has_suffix = not path.is_dir() and (images.is_image(path) or video.is_video(path) or images.is_animation_name(path))
    return path.stem if has_suffix else path.name


def files_of_model(model: Path) -> list[Path]:
    """What stands for a model, for claims, which keep it safe from outputs."""
    return [model, *model.rglob("*.safetensors")] if model.is_dir() else [model]


def suggestion(output: Path, suffix: str) -> str | None:
    """What to type for an output whose name should end otherwise."""
    return f"-o {output.with_suffix(suffix)}" if output.name not in ("", "..") else None
