"""Writing files so that a reader finds the old content or the new, whole, whatever happens in between.

Everything vidgen writes goes to a temporary sibling first, is flushed to disk, and is then renamed over its final name
(write, fsync, replace, fsync of the folder). Temporary names belong to one process, so that two never write into one file; what a
killed process left behind is removed by the next one that writes there. A job claims its outputs before any work: see `claim`.
The operations are gathered in `Operations` so that tests can make any single one of them fail.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import platform
import re
import shutil
import stat
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vidgen.errors import BusyError, OutputError, OutputExistsError, printable

if sys.platform == "win32":
    import msvcrt
else:
    try:
        import fcntl
    except ImportError:  # platforms without it have no locks to offer
        fcntl = None  # type: ignore[assignment]

PART = ".part"
MANIFEST = ".vidgen.json"
"""In a folder that vidgen filled: names, sizes and SHA-256 of what it wrote there, which is all that it ever replaces."""

_CHUNK_BYTES = 8 << 20
_MAX_MANIFEST_BYTES = 256 << 20
_MAX_SIDECAR_BYTES = 1 << 20
_PROBE_BYTES = 4096
_MAX_NAME_BYTES = 150
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_HOST = f"{zlib.crc32(platform.node().encode(errors='replace')):08x}"
_PART_NAME = re.compile(rf"\..*\.(?P<host>[0-9a-f]{{8}})-(?P<process>\d+)-\d+{re.escape(PART)}(\..*)?", re.DOTALL)
_ASIDE_NAME = re.compile(rf"\.(?P<name>.*)\.old\.[0-9a-f]{{8}}-\d+-\d+{re.escape(PART)}", re.DOTALL)

_numbers = itertools.count()
_parts_in_use: set[str] = set()
_swept_folders: set[str] = set()


class Operations:
    """The file operations that durable writes are made of; a test replaces `operations` to inject faults."""

    def write(self, path: Path, data: bytes | memoryview) -> None:
        # Never through a symbolic link, which would empty whatever it points to.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _NO_FOLLOW, 0o666), "wb") as file:
            view = memoryview(data)
            for start in range(0, len(view), _CHUNK_BYTES):
                file.write(view[start : start + _CHUNK_BYTES])

    def make_folder(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)

    def sync(self, path: Path) -> None:
        """Flush a file, or the entries of a folder, to the disk; Windows knows no such thing for folders."""
        if sys.platform == "win32" and path.is_dir():
            return
        descriptor = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
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
    name = printable(path)
    if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        try:
            free = f"{shutil.disk_usage(path.parent).free / 2**20:.0f} MiB free"
        except OSError:
            free = "free space unknown"
        return OutputError(
            f"{name}: no space left to write ({free}; {error.strerror})", hint="free some disk space and run the same command again"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(f"{name}: not allowed to write here ({error.strerror})", hint="choose another place")
    return OutputError(f"{name}: could not be written ({error.strerror or error})")


# -- locks ---------------------------------------------------------------------------------------------------------------


@contextmanager
def lock(path: Path, *, keep: bool = False) -> Iterator[None]:
    """Hold a lock file, which names its owner, in a folder that exists; the lock ends with the process, however that ends.

    The file is never opened through a symbolic link, and nothing is written to it before it is ours.

    Args:
        keep: leave the file there afterwards.

    Raises:
        BusyError: another process, or another holder in this one, has it.
        OutputError: it cannot be written, or is no regular file.
    """
    try:
        descriptor = _locked(path)
    except BaseException as stop:
        if not keep and not isinstance(stop, Exception):  # a signal, which may come as soon as the file is there
            _remove_unheld(path)
        raise
    try:
        yield
    finally:
        if not keep:
            _remove_quietly(path)
        _release(descriptor)
        if not keep and sys.platform == "win32":  # where an open file stays
            _remove_quietly(path)


@contextmanager
def held_folder(path: Path, name: str) -> Iterator[None]:
    """Hold a folder of a run, which is created, by the lock file `name` in it; the lock ends with the process.

    Raises:
        BusyError: another process trains in it.
        OutputError: it cannot be written to.
    """
    try:
        operations.make_folder(path)
    except OSError as error:
        raise describe_write_failure(error, path) from error
    with ExitStack() as held:
        try:
            held.enter_context(lock(path / name, keep=True))
        except BusyError as error:
            owner = str(error).rpartition("(")[2].rstrip(")")
            raise BusyError(
                f"{printable(path)}: another training is running here ({owner})", hint="choose another folder"
            ) from error
        yield


def _locked(path: Path) -> int:
    """A descriptor of the file at `path`, locked, with the process as its content."""
    while True:
        descriptor = _opened_to_write(path, os.O_RDWR | os.O_CREAT)
        try:
            status = os.fstat(descriptor)
            if not _try_lock(descriptor):
                raise BusyError(f"{printable(path)}: another process is writing here ({_owner(descriptor)})")
            if _is_at(path, status):
                # A whole block, so that a full disk is found now and not after the work.
                os.lseek(descriptor, 0, os.SEEK_SET)
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()}".encode().ljust(_PROBE_BYTES))
                return descriptor
        except OSError as error:
            _release(descriptor)
            raise describe_write_failure(error, path) from error
        except BaseException:
            os.close(descriptor)
            raise
        _release(descriptor)  # its owner removed it between our opening and locking


def _remove_unheld(path: Path) -> None:
    """Remove a lock file that nobody holds."""
    try:
        descriptor = _opened_to_write(path, os.O_RDWR)
    except OutputError:
        return
    try:
        if _try_lock(descriptor) and _is_at(path, os.fstat(descriptor)):
            _remove_quietly(path)
    finally:
        _release(descriptor)


def holder(path: Path) -> str | None:
    """Who holds a lock file at the moment, or None; nothing is changed, and no link is followed."""
    try:
        descriptor = os.open(path, os.O_RDWR | getattr(os, "O_NONBLOCK", 0) | _NO_FOLLOW)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        return None if _try_lock(descriptor) else _owner(descriptor)
    finally:
        _release(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        elif fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # Some network file systems know no locks; there, unique temporary names are all the protection there is.
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)
    return True


def _release(descriptor: int) -> None:
    # Explicitly, since a forked child may hold the same open file for longer.
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, 0, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
        elif fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    except OSError:
        pass
    os.close(descriptor)


def _owner(descriptor: int) -> str:
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        return printable(os.read(descriptor, 64).decode("ascii", "replace").strip()) or "unknown process"
    except OSError:
        return "unknown process"


def _is_at(path: Path, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.lstat(), status)
    except OSError:
        return False


# -- claims --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Output:
    """A place that a job writes to.

    Attributes:
        path: a file; a JSON file about another output, which is replaced where it says that vidgen wrote it; a folder that the
            job fills alone; or a folder in which it numbers files.
        kind: which of these.
        numbered: for numbered files, a regular expression of their names; their folder may hold other things too.
        name: how messages call it.
    """

    path: Path
    kind: Literal["file", "sidecar", "folder", "numbered"] = "file"
    numbered: str = ""
    name: str = ""

    @property
    def is_file(self) -> bool:
        return self.kind in ("file", "sidecar")

    @property
    def label(self) -> str:
        return self.name or printable(self.path)

    @property
    def location(self) -> Path:
        """The path without links; the last part of a file is kept, since a link there is replaced and not followed."""
        absolute = Path(os.path.abspath(self.path))
        if self.is_file:
            return Path(os.path.realpath(absolute.parent), absolute.name)
        return Path(os.path.realpath(absolute))

    @property
    def folder(self) -> Path:
        """Where its temporary files and its lock are."""
        return self.location if self.kind == "numbered" else self.location.parent

    @property
    def lock_path(self) -> Path:
        if self.kind == "numbered":
            return self.location / f".{zlib.crc32(self.numbered.encode(errors='surrogateescape')):08x}.lock"
        return self.folder / f".{_short(self.location.name)}.lock"

    @property
    def manifest(self) -> Path:
        if self.kind == "numbered":
            return self.location / f".{zlib.crc32(self.numbered.encode(errors='surrogateescape')):08x}{MANIFEST}"
        return self.location / MANIFEST

    def exists(self) -> bool:
        """Whether something is there already: a file, a folder that is not empty, or one of the numbered files."""
        path = self.location
        if self.is_file or not path.is_dir():
            return os.path.lexists(path)
        return any(self.kind == "folder" or self.matches(entry) for entry in os.listdir(path))

    def matches(self, name: str) -> bool:
        """Whether a file of this name in the folder would be one of the numbered files."""
        return re.fullmatch(self.numbered, name, re.DOTALL) is not None


class Claim:
    """Outputs that a job holds, so that no other job writes to them; see `claim`."""

    def __init__(self, outputs: Iterable[Output]) -> None:
        self._keys = {(output.location, output.numbered) for output in outputs}

    def covers(self, output: Output) -> bool:
        """Whether `output` is one of the claimed ones."""
        return (output.location, output.numbered) in self._keys


@contextmanager
def claim(outputs: Sequence[Output | Path], *, inputs: Iterable[Path] = (), overwrite: bool = False) -> Iterator[Claim]:
    """Hold all outputs of a job, checked before any work: they can be written, and nothing that counts is lost by it.

    An existing output is refused unless `overwrite`, which replaces a file, but of a folder only what vidgen wrote there and
    nobody changed since. Two outputs never share a place, and no output is also an input.

    Args:
        outputs: files, by their path, and other places.
        inputs: files and folders that the job reads.

    Raises:
        OutputExistsError: an output exists and `overwrite` is off.
        BusyError: another job writes there now.
        OutputError: anything else of the above, or the place cannot be written to.
    """
    places = [output if isinstance(output, Output) else Output(output) for output in outputs]
    check_places(places, inputs=inputs, overwrite=overwrite)
    with ExitStack() as held:
        for place in places:
            held.enter_context(_folder(place.folder))
            try:
                held.enter_context(lock(place.lock_path))
            except BusyError as error:
                raise BusyError(
                    f"{place.label}: {str(error).partition(': ')[2]}", hint="wait for it, or choose another name"
                ) from error
            _swept_folders.discard(os.fspath(place.folder))
            _sweep(place.folder)
            check_place(place, overwrite=overwrite)  # again: its last writer may have come in between
        yield Claim(places)


def check_place(output: Output, *, overwrite: bool) -> None:
    """Refuse an output that exists, or that could not be written; see `claim`.

    Raises:
        OutputExistsError: it exists and `overwrite` is off.
        OutputError: it cannot exist, or something foreign is in its way.
    """
    path = output.location
    try:
        for parent in path.parents:
            if os.path.lexists(parent):
                if not parent.is_dir():
                    raise OutputError(f"{output.label}: {printable(parent)} is a file, not a folder")
                if not os.access(parent if not path.is_dir() or output.kind != "numbered" else path, os.W_OK):
                    raise OutputError(f"{output.label}: the folder {printable(parent)} is not writable")
                break
        if not os.path.lexists(path):
            return
        if output.is_file:
            _check_file_place(output, overwrite)
        else:
            _check_folder_place(output, overwrite)
    except OSError as error:
        raise describe_write_failure(error, path) from error


def _check_file_place(output: Output, overwrite: bool) -> None:
    path = output.location
    if path.is_dir():
        raise OutputError(f"{output.label}: is a folder; a file is to be written", hint="choose another name")
    if not path.is_symlink() and not path.is_file():
        raise OutputError(f"{output.label}: is neither a file nor a folder", hint="choose another name")
    if not overwrite and not (output.kind == "sidecar" and _is_own_sidecar(path)):
        raise _exists(output)


def _is_own_sidecar(path: Path) -> bool:
    """Whether a file is JSON that tells which version of vidgen wrote it."""
    try:
        if path.is_symlink() or path.stat().st_size > _MAX_SIDECAR_BYTES:
            return False
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(value, dict) and isinstance(value.get("vidgen"), str)


def _check_folder_place(output: Output, overwrite: bool) -> None:
    path = output.location
    if not path.is_dir():
        raise OutputError(f"{output.label}: is a file, not a folder", hint="choose another name")
    entries = [entry for entry in sorted(os.listdir(path)) if output.kind == "folder" or output.matches(entry)]
    if not entries:
        return
    foreign = _foreign_entry(output, entries)
    if foreign is not None and (output.kind == "folder" or overwrite):
        raise OutputError(
            f"{output.label}: the folder holds other things, such as {printable(foreign)}; it is left alone",
            hint="choose another folder; only what was written by vidgen, and not changed since, is replaced",
        )
    if not overwrite:
        raise _exists(output)


def _foreign_entry(output: Output, entries: Sequence[str]) -> str | None:
    """A file or folder that vidgen did not write there, or that somebody changed since."""
    written = _read_manifest(output.manifest)
    for entry in entries:
        path = output.location / entry
        if path == output.manifest:
            continue
        files = [path] if path.is_symlink() or not path.is_dir() else [child for child in path.rglob("*") if not child.is_dir()]
        for file in files:
            name = file.relative_to(output.location).as_posix()
            if file.is_symlink() or not file.is_file() or name not in written or fingerprint(file, written[name]) != written[name]:
                return name
        if not files:
            return entry
    return None


def _exists(output: Output) -> OutputExistsError:
    return OutputExistsError(f"{output.label}: exists already", hint="choose another name, or allow that it is overwritten")


def check_places(outputs: Sequence[Output], *, inputs: Iterable[Path] = (), overwrite: bool = False) -> None:
    """What `claim` checks, for jobs too many to hold all their outputs at once; each is claimed when its turn comes.

    Raises:
        OutputError: see `claim`.
    """
    _check_distinct(outputs)
    _check_apart(outputs, inputs)
    for output in outputs:
        check_place(output, overwrite=overwrite)


def _check_distinct(outputs: Sequence[Output]) -> None:
    taken: dict[tuple[str, str], Output] = {}
    folders = {output.location: output for output in outputs if output.kind == "folder"}
    for output in outputs:
        # Names that differ by case alone are one file on many disks.
        if taken.setdefault((os.fspath(output.location).casefold(), output.numbered), output) is not output:
            raise OutputError(
                f"{output.label}: is to hold two results of one job", hint="give the inputs different names, or run them apart"
            )
    for output in outputs:
        places = output.location.parents if output.kind != "numbered" else (output.location, *output.location.parents)
        outer = next((folders[place] for place in places if place in folders), None)
        if outer is not None:
            raise OutputError(f"{output.label}: lies inside {outer.label}, which is an output too")


def _check_apart(outputs: Sequence[Output], inputs: Iterable[Path]) -> None:
    """Refuse outputs that would replace or join what is read."""
    read = {Path(os.path.realpath(source)): source for source in inputs}
    if not read:
        return
    identities = {identity: source for source in read if (identity := _identity(source)) is not None}
    above = {parent: source for source in read for parent in source.parents}
    for output in outputs:
        place, source = output.location, None
        if output.kind == "numbered":
            numbered = (path for path in read if path.parent == place and output.matches(path.name))
            source = place if place in read else next(numbered, None)
        elif place in read:
            source = place
        elif (identity := _identity(place)) is not None and identity in identities:
            source = identities[identity]
        elif output.kind == "folder" and place in above:
            source = above[place]
        if source is not None:
            raise OutputError(f"{output.label}: is also read as an input ({printable(read[source])})", hint="choose another name")


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells files apart, whatever names and links lead to them."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    """Create a folder and those above it; afterwards those of them that stayed empty disappear again."""
    created = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        try:
            operations.make_folder(path)
        except OSError as error:
            raise describe_write_failure(error, path) from error
        yield
    finally:
        for folder in created:
            try:
                folder.rmdir()
            except OSError:
                break


# -- temporary siblings --------------------------------------------------------------------------------------------------


def part_path(path: Path) -> Path:
    """A new temporary sibling for `path`; it keeps the suffix, which decides the container of a video."""
    return path.with_name(f".{_short(path.stem)}.{_HOST}-{os.getpid()}-{next(_numbers)}{PART}{path.suffix}")


def _short(name: str) -> str:
    """The name, or a hash of one so long that nothing could be added to it."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= _MAX_NAME_BYTES else hashlib.sha256(encoded).hexdigest()[:32]


def _sweep(folder: Path) -> None:
    """Remove what killed processes of this machine left in a folder, once per process."""
    key = os.path.realpath(folder)  # one folder has many names, and what is in use must be known under all of them
    if key in _swept_folders:
        return
    _swept_folders.add(key)
    try:
        entries = os.listdir(folder)
    except OSError:
        return
    for entry in entries:
        match = _PART_NAME.fullmatch(entry)
        if match is None or match["host"] != _HOST or f"{key}/{entry}" in _parts_in_use:
            continue
        if int(match["process"]) == os.getpid() or not _is_running(int(match["process"])):
            if aside := _ASIDE_NAME.fullmatch(entry):
                _restore(folder / entry, folder / aside["name"])
            else:
                _remove_quietly(folder / entry)


def _restore(aside: Path, path: Path) -> None:
    """Bring back a folder whose replacement was interrupted between two renamings."""
    try:
        if path.exists():
            operations.remove(aside)
        else:
            operations.replace(aside, path)
    except OSError:
        pass


def _is_running(process: int) -> bool:
    if sys.platform == "win32":
        return True  # there, asking would end it
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path to write a file or fill a folder under; on success it takes the place of `path` durably.

    On any exception the temporary is removed and `path` is left as it was.

    Raises:
        OutputError: an operation failed (disk full, no permission).
    """
    with _temporary(path) as temporary:
        yield temporary
        _publish(temporary, path)


@contextmanager
def replacing_output(output: Output) -> Iterator[Path]:
    """As `replacing`, for a claimed place; folders get a manifest, and numbered files take their names one by one at the end.

    Raises:
        OutputError: an operation failed, or something foreign came in the way since the place was claimed.
    """
    path = output.location
    if output.is_file:
        with replacing(path) as temporary:
            yield temporary
        return
    with _temporary(path / "numbered" if output.kind == "numbered" else path) as temporary:
        yield temporary
        if not temporary.is_dir():
            return
        check_place(output, overwrite=True)
        names = {file.relative_to(temporary).as_posix(): fingerprint(file) for file in temporary.rglob("*") if file.is_file()}
        if output.kind == "folder":
            _write_manifest(temporary / MANIFEST, names)
            _publish(temporary, path)
        else:
            _publish_numbered(temporary, output, names)


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    temporary = part_path(path)
    in_use = os.path.join(os.path.realpath(temporary.parent), temporary.name)
    try:
        operations.make_folder(path.parent)
        _sweep(path.parent)
        _parts_in_use.add(in_use)
        yield temporary
    except OSError as error:
        raise describe_write_failure(error, path) from error
    finally:
        _remove_quietly(temporary)
        _parts_in_use.discard(in_use)


def _publish(temporary: Path, path: Path) -> None:
    _sync_all(temporary)
    if path.is_dir() and temporary.is_dir():
        _replace_folder(temporary, path)
    else:
        operations.replace(temporary, path)
    operations.sync(path.parent)


def _sync_all(path: Path) -> None:
    if path.is_dir():
        for child in sorted(path.rglob("*")):
            operations.sync(child)
    operations.sync(path)


def _replace_folder(temporary: Path, path: Path) -> None:
    """Put a folder in the place of another; the old one comes back if that fails."""
    aside = path.with_name(f".{path.name}.old.{_HOST}-{os.getpid()}-{next(_numbers)}{PART}")
    operations.replace(path, aside)
    try:
        operations.replace(temporary, path)
    except BaseException:
        operations.replace(aside, path)
        raise
    operations.remove(aside)


def _publish_numbered(temporary: Path, output: Output, names: Mapping[str, Fingerprint]) -> None:
    """Move files into a folder that may hold others; the manifest names old and new ones until all have their place."""
    folder = output.location
    # A foreign manifest may name anything; only such names as this output gives are removed, and those hold no path.
    old = {
        name: known for name, known in _read_manifest(output.manifest).items() if output.matches(name) and Path(name).name == name
    }
    _sync_all(temporary)
    write_json(output.manifest, _manifest({**old, **names}, complete=False))
    for name in sorted(names):
        operations.replace(temporary / name, folder / name)
    for name in old.keys() - names.keys():
        operations.remove(folder / name)
    operations.sync(folder)
    write_json(output.manifest, _manifest(names, complete=True))


def remove_if_empty(path: Path) -> None:
    """Remove a folder that holds nothing any more."""
    try:
        path.rmdir()
    except OSError:
        pass


def _remove_quietly(path: Path) -> None:
    try:
        operations.remove(path)
    except OSError:
        pass


# -- manifests -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fingerprint:
    """What tells whether a file is still the one that was written."""

    num_bytes: int | None
    """None where only the content was recorded."""
    sha256: str


def fingerprints(contents: Mapping[str, bytes]) -> dict[str, Fingerprint]:
    """Those of contents that are yet to be written, by name."""
    return {name: Fingerprint(len(data), hashlib.sha256(data).hexdigest()) for name, data in contents.items()}


def fingerprint(path: Path, expected: Fingerprint | None = None) -> Fingerprint:
    """That of a file; its content is not read where its size differs from the expected one already."""
    size = path.stat().st_size
    if expected is not None and expected.num_bytes not in (None, size):
        return Fingerprint(size, "")
    with path.open("rb") as file:
        return Fingerprint(size, hashlib.file_digest(file, "sha256").hexdigest())


def _manifest(names: Mapping[str, Fingerprint], *, complete: bool) -> dict[str, Any]:
    files = {name: [print_.num_bytes, print_.sha256] for name, print_ in sorted(names.items())}
    return {"format": 1, "complete": complete, "files": files}


def _write_manifest(path: Path, names: Mapping[str, Fingerprint]) -> None:
    operations.write(path, _json(_manifest(names, complete=True)))


def _read_manifest(path: Path) -> dict[str, Fingerprint]:
    """What vidgen wrote, by its name in the folder; nothing where there is no manifest, or one that cannot be read."""
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > _MAX_MANIFEST_BYTES:
            return {}
        files = json.loads(path.read_bytes())["files"]
        return {str(name): Fingerprint(int(size), str(digest)) for name, (size, digest) in files.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return {}


# -- whole files and folders ---------------------------------------------------------------------------------------------


def write_bytes(path: Path, data: bytes) -> None:
    """Replace the content of `path` by `data`, all or nothing."""
    with replacing(path) as temporary:
        operations.write(temporary, data)


def write_text(path: Path, text: str) -> None:
    """Replace the content of `path` by `text` in UTF-8, all or nothing."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object; ASCII only, so that any name survives any terminal and any reader."""
    write_bytes(path, _json(value))


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, default=str) + "\n").encode()


def write_folder(path: Path, files: Mapping[str, bytes | Callable[[], bytes]]) -> None:
    """Create the folder `path` with all of `files` (name -> content, or a function that gives it) or none of them."""
    with replacing(path) as temporary:
        _fill(temporary, files)


def fill_output_folder(output: Output, files: Mapping[str, bytes | Callable[[], bytes]]) -> None:
    """As `write_folder`, for a claimed folder that a user names; with a manifest of what was written.

    Raises:
        OutputError: see `replacing_output`.
    """
    with replacing_output(output) as temporary:
        _fill(temporary, files)


def _fill(folder: Path, files: Mapping[str, bytes | Callable[[], bytes]]) -> None:
    operations.make_folder(folder)
    for name, content in files.items():
        operations.write(folder / name, content() if callable(content) else content)


def overwrite_bytes(path: Path, offset: int, data: bytes) -> None:
    """Change a few bytes in the middle of a file that is not published yet."""
    with os.fdopen(os.open(path, os.O_RDWR | _NO_FOLLOW), "r+b") as file:
        file.seek(offset)
        file.write(data)


class Appender:
    """A file that only grows, by whole lines or by bytes; see `appending`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor

    def write_line(self, line: str) -> None:
        """Add a line, which a reader sees at once.

        Raises:
            OutputError: the disk is full, or gone.
        """
        self.write(f"{line}\n".encode("utf-8", "backslashreplace"))

    def write(self, data: bytes) -> None:
        """Add bytes.

        Raises:
            OutputError: the disk is full, or gone.
        """
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError as error:
            raise describe_write_failure(error, self._path) from error

    def sync(self) -> None:
        """Flush what was written to the disk.

        Raises:
            OutputError: that failed.
        """
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise describe_write_failure(error, self._path) from error


@contextmanager
def appending(path: Path) -> Iterator[Appender]:
    """A text file in UTF-8 that grows by lines; it is no link, so that nothing is added to a file elsewhere.

    Raises:
        OutputError: it cannot be opened, or is no regular file of its own.
    """
    descriptor = _opened_to_write(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        yield Appender(path, descriptor)
    finally:
        os.close(descriptor)


def _opened_to_write(path: Path, flags: int) -> int:
    """A descriptor of a regular file that has no other name.

    Raises:
        OutputError: it is something else, or cannot be opened.
    """
    try:
        descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | _NO_FOLLOW, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP or path.is_symlink():
            raise OutputError(f"{printable(path)}: is a symbolic link; a file of its own was expected") from error
        raise describe_write_failure(error, path) from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(descriptor)
        raise OutputError(f"{printable(path)}: is no regular file of its own")
    return descriptor
