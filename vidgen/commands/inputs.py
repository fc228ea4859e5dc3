"""Inputs as they are typed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vidgen.errors import ConfigError, InputError

if TYPE_CHECKING:
    from vidgen.inference.model import Model


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
