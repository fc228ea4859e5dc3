"""The clips of a batch: what each is made from, and where its result goes."""

from __future__ import annotations

import difflib
import gc
import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from vidgen.errors import ConfigError, InputError, OutputError
from vidgen.media import images, paths, video

MAX_CLIPS = 1_000_000
"""Of one batch; a longer list is split into several."""


_FRAME_SUFFIXES = (*images.SUFFIXES, *video.SUFFIXES, images.ANIMATION_SUFFIX)


@contextmanager
def in_one_go() -> Iterator[None]:
    """Without the collector of cycles, which looks at all clips again and again while there come to be more of them."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def read_json(line: bytes) -> Any:
    """A JSON value as `json.loads` reads it, several times as fast.

    Raises:
        ValueError, RecursionError: it is none.
    """
    try:
        return from_json(line)
    except ValueError:
        return json.loads(line)  # takes halves of surrogate pairs too, which stand for file names that are no Unicode


@dataclass(frozen=True, slots=True)
class Clip:
    """One piece of work.

    Attributes:
        identity: the path of its input below the folder that holds all inputs, `/` between the parts; shards are dealt by it.
        output: where its result goes, as a path that can be opened; no two clips of a batch share one.
        values: what the task needs beside that, as JSON values: its `input`, which can be opened, and what is special to it.
        fault: why it cannot be done, where that is known already.
    """

    identity: str
    output: str
    values: Mapping[str, Any] = field(default_factory=dict)
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of a list of clips.

    Attributes:
        where: file and line, for messages.
        values: paths by the names of inputs.
        output: below the output folder; None for the place that mirrors the input's.
        options: of the command, for this clip alone.
    """

    where: str
    input: str
    values: Mapping[str, str]
    output: str | None
    options: Mapping[str, Any]


def read_list(file: Path, *, inputs: Collection[str], options: Collection[str]) -> Iterator[Listed]:
    """The clips of a list: one JSON object a line, with `input` and, where wanted, further inputs, `output` and `options`.

    Relative paths of inputs are meant from the folder of the list.

    Args:
        inputs: names of the further inputs that a line may give.
        options: names of the options that it may change.

    Raises:
        InputError: a line is no such object, or there are too many.
        ConfigError: a line has a key or an option that is not known.
    """
    paths.check_file(file)
    known, name = ("input", *inputs, "output", "options"), paths.display(file)
    count, folder = 0, os.fspath(file.parent)
    with open(file, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            count += 1
            where = f"{name}:{number}"
            if count > MAX_CLIPS:
                raise InputError(
                    f"{where}: a list holds at most {MAX_CLIPS:,} clips", hint=f"split it, as with split -l {MAX_CLIPS} {name}"
                )
            yield _listed(line, where, folder, known, options)
    if not count:
        raise InputError(f"{name}: the list names no clip")


def _listed(line: bytes, where: str, folder: str, known: Sequence[str], options: Collection[str]) -> Listed:
    try:
        value = read_json(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f'{where}: is no JSON ({error}); expected an object such as {{"input": "clip.mkv"}}') from error
    if not isinstance(value, dict):
        raise InputError(f'{where}: is no object; expected such as {{"input": "clip.mkv"}}')
    _check_keys(where, value, known)
    changed = value.get("options", {})
    if not isinstance(changed, dict):
        raise InputError(f"{where}: options is no object of options and their values")
    _check_keys(f"{where}: options", changed, options)
    texts = {key: text for key, text in value.items() if key != "options" and text is not None}
    wrong = next((key for key, text in texts.items() if not isinstance(text, str) or not text), None)
    if wrong is not None or "input" not in texts:
        raise InputError(f"{where}: {wrong or 'input'} is no path")
    output = texts.pop("output", None)
    source, further = _below(folder, texts.pop("input")), {key: _below(folder, text) for key, text in texts.items()}
    return Listed(where, source, further, output, changed)


def _check_keys(where: str, value: Mapping[str, Any], known: Collection[str]) -> None:
    for key in value:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else None
            raise ConfigError(f"{where}: there is no key {key!r}; known are {', '.join(known) or 'none'}", hint=hint)


def _below(folder: str, text: str) -> str:
    """A path of a list, which is meant from the list's own folder."""
    return text if text == "-" else os.path.join(folder, paths.expanded(text))


# Places are strings here, and no disk is asked that need not be: a batch that continues looks at a hundred thousand of them first.


def place_of(source: str) -> str:
    """What a clip is called after: its file or folder without a cut; the folder of frames that a pattern or glob takes.

    Absolute and normalized.
    """
    path = os.path.abspath(paths.split_cut(source)[0])
    name = path.rpartition(os.sep)[2]
    is_of_many = (paths.is_glob(name) or paths.is_pattern(name)) and not os.path.lexists(path)
    return os.path.dirname(path) if is_of_many else path


def common_folder(places: Sequence[str]) -> str:
    """The deepest folder that holds all these places, the root of the tree that outputs mirror.

    Raises:
        InputError: they have none, as on two drives.
    """
    # What sorts between the first and the last lies in every folder that holds both.
    first, last = min(places), max(places)
    try:
        folder = os.path.commonpath([first, last])
    except ValueError as error:
        raise InputError(f"{paths.display(places[0])}: has no folder in common with the other inputs") from error
    return os.path.dirname(folder) if folder == first else folder


def relative_name(place: str, root: str) -> str:
    """A place below the root, `/` between the parts; elsewhere, its whole path."""
    below = os.path.join(root, "")
    name = place[len(below) :] if place.startswith(below) else "." if place == root else place
    return name.replace(os.sep, "/")


def stem_of(place: str, name: str) -> str:
    """The name of a clip without the suffix of its file; folders have no suffix, also where there is a dot in the name."""
    has_suffix = place.lower().endswith(_FRAME_SUFFIXES) and not os.path.isdir(place)
    return os.path.splitext(name)[0] if has_suffix else name


def check_distinct(clips: Sequence[Clip]) -> None:
    """Refuse clips that would be written to one place, before anything is done.

    Raises:
        OutputError: two of them share an output, or names that differ by case alone, which many disks take for one.
    """
    taken: dict[str, Clip] = {}
    for clip in clips:
        other = taken.setdefault(os.path.normpath(clip.output).casefold(), clip)
        if other is not clip:
            shown = paths.display(clip.output)
            if other.identity == clip.identity:
                raise OutputError(f"{shown}: {paths.display(clip.identity)} is given twice", hint="give it once")
            raise OutputError(
                f"{shown}: is to hold two results, of {paths.display(other.identity)} and of {paths.display(clip.identity)}",
                hint="give the inputs different names, or name the outputs in a list of clips",
            )


def parse_shard(text: str | None) -> tuple[int, int]:
    """`K/N` as numbers, K from 1; `auto` reads a SLURM array's variables; None is the whole.

    Raises:
        ConfigError: it is neither, or part K is none of N.
    """
    if text is None:
        return 1, 1
    if text == "auto":
        try:
            first = int(os.environ.get("SLURM_ARRAY_TASK_MIN", "0"))
            part = int(os.environ["SLURM_ARRAY_TASK_ID"]) - first + 1
            parts = int(os.environ["SLURM_ARRAY_TASK_COUNT"])
        except (KeyError, ValueError) as error:
            raise ConfigError("`shard` auto: this is no SLURM array job", hint="give `shard` K/N") from error
    else:
        try:
            part, parts = (int(value) for value in text.split("/"))
        except ValueError as error:
            raise ConfigError(f"`shard` {text}: expected K/N, such as 1/4, or auto") from error
    if not 1 <= part <= parts:
        raise ConfigError(f"`shard` {part}/{parts}: the part must be between 1 and {parts}")
    return part, parts


def in_shard(identity: str, shard: tuple[int, int]) -> bool:
    """Whether a clip belongs to part K of N; every clip belongs to exactly one, on every machine the same."""
    part, parts = shard
    return parts == 1 or int.from_bytes(hashlib.sha256(os.fsencode(identity)).digest()[:8]) % parts == part - 1
