"""The errors a user can meet. Each becomes one line on stderr and an exit code; anything else is a bug.

A message answers where (file and key), what was found, and what would be right; `hint` is the next thing to type.
"""

from __future__ import annotations

import os
import unicodedata

DISTRIBUTION = "vidgen-toolkit"
"""What pip calls this project; the package to import and the command are called vidgen."""


def install_hint(extra: str) -> str:
    """The line that installs an optional part of vidgen, such as "track"; the extras stand in pyproject.toml."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


class VidgenError(Exception):
    """Base of every expected failure. `exit_code` is what the command line returns."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class InputError(VidgenError):
    """A file, folder, video, image or label map that the user gave cannot be used."""

    exit_code = 2


class DamagedVideoError(InputError):
    """A video ends early or holds broken frames; what came before is good."""


class ConfigError(VidgenError):
    """A configuration file, one of its values or a combination of options is wrong."""

    exit_code = 2


class OutputError(VidgenError):
    """A result cannot be written: something is in its way, or the disk is full or read-only."""


class OutputExistsError(OutputError):
    """The place of a result is taken; whoever asked may allow that it is replaced."""


class BusyError(OutputError):
    """Another process, or another job of this one, writes there at the moment."""


class CheckpointError(VidgenError):
    """Weights or a run folder are missing, damaged, unsafe, or belong to another model."""


class TrainingError(VidgenError):
    """Training cannot go on: losses stay non-finite, or the device ran out of memory."""


class MissingExtraError(VidgenError):
    """An optional dependency is not installed; the hint is the line that installs it, see `install_hint`."""


class QualityGateError(VidgenError):
    """A measured score misses the limit that the user set."""

    exit_code = 4


class PartialFailure(VidgenError):
    """Some of several inputs failed; the others are done."""

    exit_code = 3


class Terminated(VidgenError):
    """The process was asked to end (SIGTERM); what it had was saved first."""

    exit_code = 143


class Unfinished(VidgenError):
    """Training stopped in time, saved, before its end; the same command goes on. For schedulers that start it again."""

    exit_code = 75


def printable(text: str | os.PathLike[str]) -> str:
    """Foreign text (names, values from files) so that it says nothing to a terminal and stays on its line.

    Control characters, line ends and invisible marks that change the direction or order of text become escapes such as
    `\\x1b`, bytes that are no UTF-8 become `\\xNN`; everything else stays as it is.
    """
    decoded = os.fspath(text)
    if decoded.isascii() and decoded.isprintable():
        return decoded
    return "".join(character if _is_harmless(character) else _escape(character) for character in decoded)


def printable_lines(text: str) -> str:
    """As `printable`, for messages of several lines: further ones are indented, so that none passes for a new message."""
    first, *others = (printable(line) for line in text.split("\n"))
    return "\n".join([first, *(line if line.startswith(" ") or not line else f"  {line}" for line in others)])


def _is_harmless(character: str) -> bool:
    # Joiners within words and emoji are format characters too, and mean no harm.
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp") or character in "\u200c\u200d\u00ad"


def _escape(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte of a name that is no UTF-8; JSON may hold other surrogates
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
