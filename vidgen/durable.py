"""Writing files so that a reader finds the old content or the new, whole, whatever happens in between.

Everything vidgen writes goes to a temporary sibling first, is flushed to disk, and is then renamed over its final name
(write, fsync, replace, fsync of the folder). A crash leaves at most a `.part` file, which the next writer of that name removes.
The operations are gathered in `Operations` so that tests can make any single one of them fail.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vidgen.errors import OutputError

PART = ".part"
_CHUNK_BYTES = 8 << 20


class Operations:
    """The file operations that durable writes are made of; a test replaces `operations` to inject faults."""

    def write(self, path: Path, data: bytes | memoryview) -> None:
        with open(path, "wb") as file:
            view = memoryview(data)
            for start in range(0, len(view), _CHUNK_BYTES):
                file.write(view[start : start + _CHUNK_BYTES])

    def make_folder(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)

    def sync(self, path: Path) -> None:
        """Flush a file, or the entries of a folder, to the disk."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def replace(self, source: Path, target: Path) -> None:
        os.replace(source, target)

    def remove(self, path: Path) -> None:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


operations = Operations()


def describe_write_failure(error: OSError, path: Path) -> OutputError:
    """One line for a failed write, with the numbers that matter when the disk is full."""
    if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        try:
            free = f"{shutil.disk_usage(path.parent).free / 2**20:.0f} MiB free"
        except OSError:
            free = "free space unknown"
        return OutputError(
            f"{path}: no space left to write ({free}; {error.strerror})", hint="free some disk space and run the same command again"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(f"{path}: not allowed to write here ({error.strerror})", hint="choose another place with -o")
    return OutputError(f"{path}: could not be written ({error.strerror or error})")


def part_path(path: Path) -> Path:
    """The temporary sibling under which `path` is written; it keeps the suffix, which decides the container of a video."""
    return path.with_name(f".{path.stem}{PART}{path.suffix}")


def check_writable_target(path: Path, *, overwrite: bool) -> None:
    """Refuse early, before any work, an output that exists or cannot exist.

    Raises:
        OutputError: `path` exists and `overwrite` is off, or its parent is a file.
    """
    if path.exists() and not overwrite:
        raise OutputError(f"{path}: exists already", hint="add --overwrite to replace it, or choose another name with -o")
    for parent in path.parents:
        if parent.exists():
            if not parent.is_dir():
                raise OutputError(f"{path}: {parent} is a file, not a folder")
            if not os.access(parent, os.W_OK):
                raise OutputError(f"{path}: the folder {parent} is not writable")
            break


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path to write a file or fill a folder under; on success it takes the place of `path` durably.

    On any exception the temporary is removed and `path` is left as it was.

    Raises:
        OutputError: an operation failed (disk full, no permission).
    """
    temporary = part_path(path)
    try:
        operations.make_folder(path.parent)
        operations.remove(temporary)
        yield temporary
        if temporary.is_dir():
            for child in sorted(temporary.rglob("*")):
                operations.sync(child)
        operations.sync(temporary)
        if path.is_dir() and temporary.is_dir():
            _replace_folder(temporary, path)
        else:
            operations.replace(temporary, path)
        operations.sync(path.parent)
    except OSError as error:
        _remove_quietly(temporary)
        raise describe_write_failure(error, path) from error
    except BaseException:
        _remove_quietly(temporary)
        raise


def _replace_folder(temporary: Path, path: Path) -> None:
    """Put a folder in the place of another; the old one comes back if that fails."""
    aside = path.with_name(f".{path.name}.old{PART}")
    operations.remove(aside)
    operations.replace(path, aside)
    try:
        operations.replace(temporary, path)
    except BaseException:
        operations.replace(aside, path)
        raise
    operations.remove(aside)


def _remove_quietly(path: Path) -> None:
    try:
        operations.remove(path)
    except OSError:
        pass


def write_bytes(path: Path, data: bytes) -> None:
    """Replace the content of `path` by `data`, all or nothing."""
    with replacing(path) as temporary:
        operations.write(temporary, data)


def write_text(path: Path, text: str) -> None:
    """Replace the content of `path` by `text` in UTF-8, all or nothing."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object; ASCII only, so that any name survives any terminal and any reader."""
    write_text(path, json.dumps(value, indent=2, default=str) + "\n")


def write_folder(path: Path, files: Mapping[str, bytes | Callable[[], bytes]]) -> None:
    """Create the folder `path` with all of `files` (name -> content, or a function that makes it) or none of them."""
    with replacing(path) as temporary:
        operations.make_folder(temporary)
        for name, content in files.items():
            operations.write(temporary / name, content() if callable(content) else content)
