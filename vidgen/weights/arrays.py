"""The `.npy` files in which pix2pixHD keeps its clusters: a pickled dictionary, read here without unpickling.

Unpickling runs whatever the file asks for. Here its instructions are only listed (`pickletools.genops` executes nothing), and those
that build a dictionary of plain number arrays are followed; anything else is refused.
"""

from __future__ import annotations

import io
import pickletools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidgen.errors import CheckpointError

_MAX_BYTES = 64 << 20
_ARRAY = "numpy.core.multiarray._reconstruct"
_SCALAR = "numpy.core.multiarray.scalar"
_KNOWN = {_ARRAY, _SCALAR, "numpy.ndarray", "numpy.dtype", "_codecs.encode"}
_NUMBERS = re.compile(r"[fiu][1248]$")

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_IGNORED = {"PROTO", "FRAME", "STOP"}
_MARK = object()


@dataclass
class _Name:
    """Something the file would import; only remembered."""

    text: str


@dataclass
class _Made:
    """What a call would have made; only remembered."""

    by: str
    arguments: tuple[Any, ...]
    state: Any = None


def read_array_dictionary(path: Path) -> dict[int, np.ndarray]:
    """Whole number -> array of numbers, from a `.npy` file that holds a dictionary.

    Raises:
        CheckpointError: the file is missing, damaged, or asks for anything but such a dictionary.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise CheckpointError(f"{path}: is larger than any file of clusters")
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        whole = _follow(_body(data))
        if not (isinstance(whole, _Made) and whole.by == _ARRAY and isinstance(whole.state[4], list)):
            raise ValueError("it is no dictionary in an array")
        (content,) = whole.state[4]
        if not isinstance(content, Mapping):
            raise ValueError(f"it holds a {type(content).__name__}, not a dictionary")
        return {int(_number(key)): _array(value) for key, value in content.items()}
    except Exception as error:  # damaged files raise whatever numpy and pickletools stumble over, tokenize.TokenError even
        raise CheckpointError(
            f"{path}: is not a file of clusters, or asks for more than numbers; refused ({error})",
            hint="expected what pix2pixHD's encode_features.py writes, such as features_clustered_010.npy",
        ) from error


def _body(data: bytes) -> bytes:
    """What follows the header, which must announce one Python object."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read_header(stream)
    if kind != np.dtype(object) or shape != ():
        raise ValueError(f"it is an array of {kind} and shape {shape}")
    return stream.read()


def _follow(pickled: bytes) -> Any:
    """The value that the instructions build, with every import and call only remembered.

    Raises:
        ValueError: an instruction or a name that number arrays do not need.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    argument: Any
    for instruction, argument, _ in pickletools.genops(pickled):
        name = instruction.name
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE"):
            stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[name]())
        elif name in ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"):
            stack.append(tuple(_to_mark(stack) if name == "TUPLE" else _last(stack, int(name[-1]))))
        elif name in ("LIST", "DICT"):
            items = _to_mark(stack)
            stack.append(items if name == "LIST" else _pairs(items))
        elif name in ("APPEND", "APPENDS"):
            items = _last(stack, 1) if name == "APPEND" else _to_mark(stack)
            stack[-1].extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = _last(stack, 2) if name == "SETITEM" else _to_mark(stack)
            stack[-1].update(_pairs(items))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            stack.append(_named(argument.replace(" ", ".") if name == "GLOBAL" else ".".join(_last(stack, 2))))
        elif name == "REDUCE":
            called, arguments = _last(stack, 2)
            stack.append(_called(called, arguments))
        elif name == "BUILD":
            (state,) = _last(stack, 1)
            stack[-1].state = state
        elif name not in _IGNORED:
            raise ValueError(f"instruction {name}")
    (result,) = stack
    return result


def _named(text: str) -> _Name:
    plain = text.replace("numpy._core.", "numpy.core.")
    if plain not in _KNOWN:
        raise ValueError(f"it wants {text}")
    return _Name(plain)


def _called(called: Any, arguments: tuple[Any, ...]) -> Any:
    if not isinstance(called, _Name):
        raise ValueError("it calls something it made")
    if called.text == "_codecs.encode":  # how Python 3 writes bytes for Python 2
        text, encoding = arguments
        if encoding != "latin1":
            raise ValueError(f"encoding {encoding!r}")
        return text.encode("latin1")
    return _Made(called.text, arguments)


def _array(value: Any) -> np.ndarray:
    """The numbers of a remembered array."""
    if not isinstance(value, _Made) or value.by != _ARRAY:
        raise ValueError("a value is no array")
    _, shape, kind, column_major, content = value.state
    numbers = np.frombuffer(_as_bytes(content), _dtype(kind)).reshape(shape, order="F" if column_major else "C")
    if not np.isfinite(numbers).all():
        raise ValueError("a number is not finite")
    return numbers


def _number(value: Any) -> Any:
    if isinstance(value, _Made) and value.by == _SCALAR:
        kind, content = value.arguments
        return np.frombuffer(_as_bytes(content), _dtype(kind))[0].item()
    if not isinstance(value, int | float) or value != int(value):
        raise ValueError(f"key {value!r} is no whole number")
    return value


def _dtype(value: Any) -> np.dtype:
    if not isinstance(value, _Made) or value.by != "numpy.dtype" or not _NUMBERS.match(value.arguments[0]):
        raise ValueError("an array holds no plain numbers")
    order = value.state[1] if value.state else "<"
    if order not in ("<", ">", "|", "="):
        raise ValueError(f"byte order {order!r}")
    return np.dtype(order + value.arguments[0])


def _as_bytes(content: Any) -> bytes:
    return content.encode("latin1") if isinstance(content, str) else bytes(content)


def _last(stack: list[Any], count: int) -> list[Any]:
    items = stack[-count:]
    if len(items) < count or any(item is _MARK for item in items):
        raise ValueError("its instructions do not fit together")
    del stack[-count:]
    return items


def _to_mark(stack: list[Any]) -> list[Any]:
    place = max(index for index, item in enumerate(stack) if item is _MARK)
    items = stack[place + 1 :]
    del stack[place:]
    return items


def _pairs(items: list[Any]) -> dict[Any, Any]:
    """Keys and values in turn; a remembered number is a key by its value."""
    return {_number(key): value for key, value in zip(items[::2], items[1::2], strict=True)}
