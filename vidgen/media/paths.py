"""File names as people mean them: natural order, numbered patterns, cuts such as `[10:90]`, and near misses."""

from __future__ import annotations

import difflib
import glob
import itertools
import os
import re
import statistics
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

from vidgen.errors import InputError, printable

Unit = Literal["frames", "seconds"]

_CUT = re.compile(r"^(?P<path>.+)\[(?P<start>[^\[\]:]*):(?P<end>[^\[\]:]*)\]$", re.DOTALL)
_NUMBER_PATTERN = re.compile(r"%(?:0(?P<width>[1-9]))?d(?![^\W\d_])")
_DIGITS = re.compile(r"(\d+)", re.ASCII)


def display(path: str | Path) -> str:
    """The name as text that any terminal can print and none obeys; see `vidgen.errors.printable`."""
    return printable(path)


def natural_key(path: str | Path) -> tuple[tuple[int, str], ...]:
    """Sorts frame2 before frame10; equal numbers with more zeros come later."""
    parts = _DIGITS.split(os.fsdecode(path))
    return tuple((int(part), part) if part.isascii() and part.isdecimal() else (-1, part) for part in parts)


def comparable(name: str) -> str:
    """The name in the form in which equal names are equal: macOS stores accents apart from their letters (NFD), others as one."""
    return unicodedata.normalize("NFC", name)


def missing(path: Path) -> InputError:
    """The error for a name that does not exist, with similar names from the same folder as the hint."""
    folder = path.parent
    if path.is_symlink():
        target = path.parent / os.readlink(path)
        why = "which leads nowhere" if os.path.lexists(target) else "which does not exist"
        return InputError(f"{display(path)}: is a link to {display(os.readlink(path))}, {why}")
    try:
        neighbors = sorted(os.listdir(folder))
    except OSError:
        return InputError(f"{display(path)}: not found; there is no folder {display(folder)}")
    twin = next((name for name in neighbors if comparable(name) == comparable(path.name)), None)
    if twin is not None:
        return InputError(f"{display(path)}: not found; {display(twin)} there is written with other Unicode characters (NFC, NFD)")
    near = difflib.get_close_matches(path.name, neighbors, n=3, cutoff=0.6)
    return InputError(f"{display(path)}: not found", hint=f"similar names there: {', '.join(map(display, near))}" if near else None)


_FOREIGN_KINDS = {
    **dict.fromkeys((".heic", ".heif", ".avif", ".jxl"), ("pictures", "PNG or JPEG")),
    **dict.fromkeys((".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf"), ("raw pictures", "PNG or JPEG")),
    **dict.fromkeys((".exr", ".hdr", ".psd", ".svg", ".tga", ".jp2", ".pdf", ".eps"), ("pictures", "PNG or JPEG")),
    **dict.fromkeys((".mts", ".m2ts", ".ts", ".mpg", ".mpeg", ".vob"), ("videos", ".mkv, which needs no encoding again")),
    **dict.fromkeys((".wmv", ".flv", ".rm", ".ogv", ".mxf", ".asf", ".f4v"), ("videos", ".mp4 or .mkv")),
}


def foreign_kind(path: Path) -> InputError | None:
    """The error for a picture or video of a well-known kind that is not read; None for other names."""
    kind = _FOREIGN_KINDS.get(path.suffix.lower())
    if kind is None:
        return None
    what, into = kind
    return InputError(f"{display(path)}: {path.suffix[1:].upper()} {what} are not read", hint=f"convert it to {into}")


def check_file(path: Path) -> None:
    """Refuse, each with its own words, what is not a readable file with content.

    Raises:
        InputError: `path` is missing, a folder, empty, not a regular file, or may not be read.
    """
    try:
        if not path.exists():
            raise missing(path)
        if path.is_dir():
            raise InputError(f"{display(path)}: is a folder, a file was expected")
        if not path.is_file():
            raise InputError(f"{display(path)}: is neither a file nor a folder")
        if path.stat().st_size == 0:
            raise InputError(f"{display(path)}: the file is empty (0 bytes)")
        with open(path, "rb"):
            pass
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """The content of a regular file that is to be small.

    Raises:
        InputError: as for `check_file`, or it is larger than `max_bytes`.
    """
    check_file(path)
    try:
        with open(path, "rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise unreadable(path, error) from error
    if len(content) > max_bytes:
        raise InputError(f"{display(path)}: larger than the {max_bytes >> 20} MiB that such a file may have")
    return content


def expanded(name: str | Path) -> str:
    """The name with a leading `~` as the home folder, which shells expand only where it is not quoted; a real `~` is kept."""
    text = os.fspath(name)
    return os.path.expanduser(text) if text.startswith("~") and not os.path.lexists(text) else text


def unreadable(path: str | Path, error: Exception) -> InputError:
    """The error for a name the operating system refuses to open."""
    return InputError(f"{display(path)}: cannot be read ({getattr(error, 'strerror', None) or error})")


def is_pattern(name: str) -> bool:
    """Whether the last part of `name` numbers its files: one `%d` or `%0Nd` with no letter behind it, as in `frames/%05d.png`."""
    return "%" in name and len(_NUMBER_PATTERN.findall(Path(name).name)) == 1


def matching_pattern(pattern: str) -> list[Path]:
    """Existing files named by a pattern such as `frames/%05d.png`, in the order of their numbers."""
    path = Path(pattern)
    expression = re.compile(pattern_expression(path.name), re.ASCII | re.DOTALL)
    matches = [(expression.fullmatch(entry.name), entry) for entry in list_folder(path.parent)]
    numbered = sorted((int(match[1]), entry) for match, entry in matches if match)
    return [entry for _, entry in numbered]


def pattern_expression(pattern: str) -> str:
    """A regular expression of the file names that `pattern` (its last part) gives; its group is the number."""
    match = _NUMBER_PATTERN.search(pattern)
    assert match is not None, pattern
    before, after = re.escape(pattern[: match.start()]), re.escape(pattern[match.end() :])
    return f"{before}([0-9]{{{int(match['width'] or 1)},18}}){after}"


def pattern_name(pattern: str, number: int) -> str:
    """The file name that `pattern` (its last part) gives to `number`."""
    return _NUMBER_PATTERN.sub(lambda match: f"{number:0{int(match['width'] or 1)}d}", pattern, count=1)


def matching_glob(pattern: str) -> list[Path]:
    """Files and folders that match a shell pattern, in natural order; `**` stands for any folders."""
    return sorted((Path(name) for name in glob.glob(pattern, recursive=True)), key=natural_key)


def is_glob(name: str) -> bool:
    """Whether `name` holds shell wildcards."""
    return glob.has_magic(name)


def list_folder(folder: Path) -> list[Path]:
    """Visible entries of `folder` in natural order.

    Raises:
        InputError: it is missing or may not be read.
    """
    try:
        return sorted((entry for entry in folder.iterdir() if not entry.name.startswith(".")), key=natural_key)
    except FileNotFoundError as error:
        raise missing(folder) from error
    except OSError as error:
        raise unreadable(folder, error) from error


def numbering_gap(paths: Sequence[Path]) -> str | None:
    """Where a numbered sequence leaves out numbers (a constant stride such as 1, 3, 5 is no gap), in words."""
    last_numbers = [re.findall(r"\d+", path.stem) for path in paths]
    if len(paths) < 3 or not all(last_numbers):
        return None
    numbers = [int(found[-1]) for found in last_numbers]
    steps = [after - before for before, after in itertools.pairwise(numbers)]
    stride = statistics.mode(steps)
    for index, step in enumerate(steps):
        if step > stride > 0:
            return f"{display(paths[index].name)} is followed by {display(paths[index + 1].name)}"
    return None


def frame_numbers(files: Sequence[Path]) -> list[int] | None:
    """The numbers that count the files of a sequence: the last ones in their names that increase from each to the next.

    None where names have no such numbers.
    """
    runs = [[int(digits) for digits in re.findall(r"\d+", path.stem, re.ASCII)] for path in files]
    if len(files) < 2:
        return None
    for place in range(1, min(map(len, runs)) + 1):
        numbers = [found[-place] for found in runs]
        if all(before < after for before, after in itertools.pairwise(numbers)):
            return numbers
    return None


def unpaired(first: Sequence[Path], second: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The files of each of two numbered sequences whose number the other one lacks; none where names have no numbers.

    Sequences that leave out the same numbers belong together even if they begin with different ones.
    """
    numbers, others = frame_numbers(first), frame_numbers(second)
    if numbers is None or others is None:
        return [], []
    steps, other_steps = ([after - before for before, after in itertools.pairwise(found)] for found in (numbers, others))
    both_regular = len(set(steps)) == len(set(other_steps)) == 1
    if steps == other_steps or (both_regular and len(steps) == len(other_steps)):
        return [], []
    return (
        [path for path, number in zip(first, numbers, strict=True) if number not in {*others}],
        [path for path, number in zip(second, others, strict=True) if number not in {*numbers}],
    )


def few(names: Sequence[str], most: int = 5) -> str:
    """The first names of a list, and how many more there are, for messages."""
    listed = ", ".join(display(name) or "(the folder itself)" for name in names[:most])
    return listed + (f" and {len(names) - most} more" if len(names) > most else "") if names else "nothing"


def unique(paths: Iterable[Path]) -> list[Path]:
    """The paths without those that lead to a file or folder already in the list (links, loops of links)."""
    seen: dict[tuple[int, int], Path] = {}
    for path in paths:
        status = path.stat()
        seen.setdefault((status.st_dev, status.st_ino), path)
    return list(seen.values())


@dataclass(frozen=True)
class Moment:
    """A place in a clip: a count of frames, or of seconds, from its start."""

    value: Fraction
    unit: Unit


@dataclass(frozen=True)
class Cut:
    """From `start` up to, and without, `end`; None is the clip's own start or end."""

    start: Moment | None = None
    end: Moment | None = None

    def __bool__(self) -> bool:
        return self.start is not None or self.end is not None


def parse_moment(text: str | None, *, plain: Unit) -> Moment | None:
    """`45f` is frames, `1.5s` is seconds, a plain number is `plain`; nothing is None.

    Raises:
        InputError: anything else, or less than 0.
    """
    if text is None or not text.strip():
        return None
    match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([fs]?)\s*", text)
    unit: Unit = plain if match is None or not match[2] else ("frames" if match[2] == "f" else "seconds")
    if match is None or (unit == "frames" and not match[1].isdecimal()):
        raise InputError(f"cut at {text!r}: expected frames such as 45f or seconds such as 1.5s")
    return Moment(Fraction(match[1]), unit)


def split_cut(where: str) -> tuple[str, Cut]:
    """Separate a suffix such as `[10:90]` or `[1.5s:]` from a name; plain numbers count frames, as slices do.

    A file that really bears such a name is left alone.
    """
    match = _CUT.match(where) if where.endswith("]") else None
    if match is None or os.path.lexists(where):
        return where, Cut()
    return match["path"], Cut(parse_moment(match["start"], plain="frames"), parse_moment(match["end"], plain="frames"))
