"""Damage to files: to their bytes, and to the values of the JSON that they hold."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

_NUMBERS = (0, 1, -1, 2, 255, 256, 65535, 65536, 2**31 - 1, 2**31, -(2**31), 2**32, 2**53, 2**63, 2**64, 10**40)
_TEXTS = ("", "x", "../../x", "/dev/zero", "\0", "\x1b]0;x\a", "\ud800", "nan", "1e999", "x" * 5000, "car", "none", "1_000", "٣")
_VALUES: tuple[Any, ...] = (
    *_NUMBERS,
    *_TEXTS,
    *(None, True, False, [], {}, [[]], {"": None}, [None], 0.5, -0.0, 1e308, 5e-324),
    *(float("inf"), float("-inf"), float("nan"), [1] * 300, {str(index): index for index in range(50)}),
)
_DEEP = 3000


def mutated(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds with some damage."""
    content = rng.choice(seeds)
    structured = _mutated_values(rng, content) if rng.random() < 0.6 else None
    if structured is not None:
        return structured
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        rng.choice(_DAMAGE)(rng, data, seeds)
    return bytes(data)


def _flip(rng: random.Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    for _ in range(rng.choice((1, 1, 4, 32))):
        if data:
            data[_place(rng, data)] ^= 1 << rng.randrange(8)


def _cut(rng: random.Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    del data[_place(rng, data) :]


def _remove(rng: random.Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    start = _place(rng, data)
    del data[start : start + rng.choice((1, 2, 8, 100))]


def _overwrite(rng: random.Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    start, form = _place(rng, data), rng.choice(("<B", "<H", ">H", "<i", ">i", "<q", ">q", "<f", "<d"))
    value = rng.choice(_NUMBERS)
    packed = struct.pack(form, max(-3e38, min(3e38, value)) if form in ("<f", "<d") else _wrapped(value, form))
    data[start : start + len(packed)] = packed


def _wrapped(value: int, form: str) -> int:
    bits = 8 * struct.calcsize(form)
    value %= 1 << bits
    return value - (1 << bits) if form[1] in "iq" and value >> (bits - 1) else value


def _insert(rng: random.Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    start = _place(rng, data)
    data[start:start] = rng.choice((rng.randbytes(rng.choice((1, 4, 60))), bytes(40), b"\xff" * 9, b"\n", b'"', b"[" * _DEEP))


def _repeat(rng: random.Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    start = _place(rng, data)
    data[start:start] = data[start : start + rng.choice((1, 10, 300))] * rng.choice((1, 2, 50))


def _splice(rng: random.Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    other = rng.choice(seeds)
    data[_place(rng, data) :] = other[rng.randrange(len(other) or 1) :]


_DAMAGE: tuple[Callable[[random.Random, bytearray, Sequence[bytes]], None], ...] = (
    *(_flip, _flip, _flip, _cut, _remove, _overwrite, _overwrite, _insert, _repeat, _splice),
)


def _place(rng: random.Random, data: bytearray) -> int:
    """A place in the data, more often near its start, where headers are."""
    return rng.randrange(max(1, min(len(data), rng.choice((64, 1024, 1 << 40)))))


# -- JSON ------------------------------------------------------------------------------------------------------------------


def _mutated_values(rng: random.Random, content: bytes) -> bytes | None:
    """The same file with some values of its JSON replaced, or None where it holds none; lines of JSON and safetensors too."""
    if len(content) > 8 and (length := int.from_bytes(content[:8], "little")) < len(content) - 8:
        header = _changed(rng, content[8 : 8 + length])
        return None if header is None else len(header).to_bytes(8, "little") + header + content[8 + length :]
    lines = content.split(b"\n")
    if len(lines) > 2 and lines[0].startswith(b"{") and lines[0].endswith(b"}"):
        number = rng.randrange(len(lines) - 1)
        changed = _changed(rng, lines[number])
        return None if changed is None else b"\n".join([*lines[:number], changed, *lines[number + 1 :]])
    return _changed(rng, content)


def _changed(rng: random.Random, text: bytes) -> bytes | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        value = _with_change(rng, value)
    return json.dumps(value).encode()


def _with_change(rng: random.Random, value: Any) -> Any:
    """A value with one part of it changed; JSON inside of text is descended into too."""
    if isinstance(value, str) and value[:1] in "{[" and rng.random() < 0.9:
        try:
            return json.dumps(_with_change(rng, json.loads(value)))
        except (ValueError, RecursionError):
            pass
    if isinstance(value, dict) and value and rng.random() < 0.85:
        name = "__metadata__" if "__metadata__" in value and rng.random() < 0.7 else rng.choice(list(value))
        return _with_changed_entry(rng, value, name)
    if isinstance(value, list) and value and rng.random() < 0.8:
        index = rng.randrange(len(value))
        return [*value[:index], _with_change(rng, value[index]), *value[index + 1 :]]
    if isinstance(value, int | float) and not isinstance(value, bool) and rng.random() < 0.3:
        return rng.choice((-value, value + 1, value * 1000, value / 7, str(value), [value]))
    return rng.choice(_VALUES)


def _with_changed_entry(rng: random.Random, value: dict[str, Any], name: str) -> dict[str, Any]:
    kind = rng.random()
    if kind < 0.12:
        return {key: item for key, item in value.items() if key != name}
    if kind < 0.18:
        return {(rng.choice(_TEXTS) if key == name else key): item for key, item in value.items()}
    if kind < 0.22:
        return {**value, rng.choice(_TEXTS): rng.choice(_VALUES)}
    return {**value, name: _with_change(rng, value[name])}
