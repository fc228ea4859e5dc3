"""Data sets in shards: plain tar files of whole samples, and an index of what lies where in them.

A shard is read by anything that reads tar, as webdataset does: the files of a sample have one key and lie side by side, as
`KEY.images.mp4`, `KEY.labels.mkv`, `KEY.json`. Training reads them by the index instead, by seeking, so that a sample stays a pure
function of (seed, step, index) and a resumed run, or one of more processes, repeats the same bits. Files are stored as they are, so
their frames are those of the folders they come from.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Listed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

from vidgen import durable, progress
from vidgen.errors import InputError, VidgenError
from vidgen.media import images, paths
from vidgen.media.frames import Frame, FrameSource, open_source
from vidgen.media.video import FrameKind

INDEX = "index.jsonl"
FORMAT = 1
_BLOCK = 512
_MOST_BYTES = 8**11 - 1
"""Of a file in a tar header."""
_COPY_BYTES = 8 << 20
_SCRATCH_BYTES = 1 << 30
_SMALL_BYTES = 1 << 20


@dataclass(frozen=True)
class Member:
    """A file in a shard: its name there, where its content begins, its length and its SHA-256."""

    shard: int
    name: str
    offset: int
    num_bytes: int
    sha256: str

    @classmethod
    def read(cls, shard: int, value: Listed[Any]) -> Member:
        """From the index."""
        name, offset, num_bytes, sha256 = value
        return cls(shard, str(name), int(offset), int(num_bytes), str(sha256))


@dataclass(frozen=True)
class Entry:
    """A video or the pictures of a sample in one role, as `open_source` would tell of them."""

    members: tuple[Member, ...]
    files: tuple[str, ...]
    is_video: bool
    size: tuple[int, int]
    num_frames: int
    time_base: Fraction
    frame_rate: Fraction


# -- writing ---------------------------------------------------------------------------------------------------------------


class _Tar:
    """A tar file that grows by whole files; see the POSIX ustar format."""

    def __init__(self, lines: durable.Appender) -> None:
        self._file = lines
        self.num_bytes = 0

    def add(self, name: str, path: Path) -> tuple[int, int, str]:
        """Copy a file into it: where its content begins, its length and its SHA-256.

        Raises:
            InputError: it cannot be read, is too long, or changes meanwhile.
        """
        try:
            size = path.stat().st_size
            digest = hashlib.sha256()
            offset, copied = self._begin(name, size), 0
            with open(path, "rb") as file:
                while chunk := file.read(_COPY_BYTES):
                    digest.update(chunk)
                    copied += len(chunk)
                    self._write(chunk)
        except OSError as error:
            raise paths.unreadable(path, error) from error
        if copied != size:
            raise InputError(f"{paths.display(path)}: changed while it was packed")
        self._pad()
        return offset, size, digest.hexdigest()

    def add_bytes(self, name: str, data: bytes) -> None:
        """Add a small file."""
        self._begin(name, len(data))
        self._write(data)
        self._pad()

    def finish(self) -> None:
        """Two empty blocks end it."""
        self._write(bytes(2 * _BLOCK))

    def _begin(self, name: str, size: int) -> int:
        if size > _MOST_BYTES:
            raise InputError(f"{name}: is {size / 2**30:.1f} GiB; a file in a tar has at most 8")
        fields = (
            name.encode("ascii").ljust(100, b"\x00"),
            *(b"%07o\x00" % number for number in (0o644, 0, 0)),  # mode, user, group
            *(b"%011o\x00" % number for number in (size, 0)),  # and time, none
            b" " * 8,  # for the checksum
            b"0".ljust(101, b"\x00"),
            b"ustar\x00",
            b"00",
        )
        header = b"".join(fields).ljust(_BLOCK, b"\x00")
        header = header[:148] + b"%06o\x00 " % sum(header) + header[156:]
        self._write(header)
        return self.num_bytes

    def _pad(self) -> None:
        self._write(bytes(-self.num_bytes % _BLOCK))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self.num_bytes += len(data)


def pack(
    root: Path,
    roles: Mapping[str, Mapping[str, str | Path]],
    settings: Mapping[str, Any],
    output: durable.Output,
    *,
    max_bytes: int = 512 << 20,
) -> dict[str, Any]:
    """Write the samples of a data set into shards, and the index; whole or not at all.

    Args:
        root: of the data set; its small files, such as label tables, are copied along.
        roles: for each folder, what to open for each sample, by name.
        settings: how to read it, for a root without a configuration.
        output: the claimed folder.
        max_bytes: a shard ends before it grows beyond that, unless one sample is larger.

    Returns:
        counts.

    Raises:
        InputError: something cannot be read.
        OutputError: the disk is full or read-only.
    """
    names = list(dict.fromkeys(name for found in roles.values() for name in found))
    totals = {"samples": len(names), "shards": 0, "megabytes": 0.0}
    with durable.replacing_output(output) as folder:
        durable.operations.make_folder(folder)
        for file in paths.list_folder(root):
            if file.is_file() and file.stat().st_size <= _SMALL_BYTES and file.suffix in (".json", ".csv", ".yaml", ".txt"):
                durable.operations.write(folder / file.name, file.read_bytes())
        lines: list[str] = []
        left = list(enumerate(names))
        with progress.task(f"packing {root.name}", len(names)) as report:
            while left:
                number = totals["shards"]
                with durable.appending(folder / _shard_name(int(number))) as growing:
                    tar = _Tar(growing)
                    while left and (tar.num_bytes == 0 or tar.num_bytes + _size_of(roles, left[0][1]) <= max_bytes):
                        index, name = left.pop(0)
                        lines.append(json.dumps(_add(tar, int(number), index, name, roles)))
                        report(index + 1)
                    tar.finish()
                totals["shards"] += 1
                totals["megabytes"] += tar.num_bytes / 2**20
        sizes = [(folder / _shard_name(number)).stat().st_size for number in range(int(totals["shards"]))]
        header = {"format": FORMAT, "samples": len(names), "roles": list(roles), "settings": dict(settings), "bytes": sizes}
        durable.operations.write(folder / INDEX, "".join(f"{line}\n" for line in (json.dumps(header), *lines)).encode())
    return {**totals, "megabytes": round(totals["megabytes"], 2)}


def _shard_name(number: int) -> str:
    return f"{number:06d}.tar"


def _files_of(where: str | Path) -> list[Path]:
    return list(open_source(where).paths)


def _size_of(roles: Mapping[str, Mapping[str, str | Path]], name: str) -> int:
    files = [file for found in roles.values() if name in found for file in _files_of(found[name])]
    return sum(file.stat().st_size + 2 * _BLOCK for file in files)


def _add(tar: _Tar, shard: int, index: int, name: str, roles: Mapping[str, Mapping[str, str | Path]]) -> dict[str, Any]:
    """Add a sample; its line of the index."""
    key = f"{index:08d}-{re.sub(r'[^A-Za-z0-9_-]+', '-', name)[:32]}".rstrip("-")
    entries: dict[str, Any] = {}
    for folder, found in roles.items():
        if name not in found:
            continue
        source = open_source(found[name])
        role = re.sub(r"[^A-Za-z0-9_-]+", "-", folder)[:24]
        is_video = not all(images.is_image(path) for path in source.paths) or images.is_animation(source.paths[0])
        members = []
        for number, path in enumerate(source.paths):
            count = f"{number:06d}." if len(source.paths) > 1 else ""
            inside = f"{key}.{role}.{count}{path.suffix[1:].lower()}"
            members.append([inside, *tar.add(inside, path)])
        entries[folder] = {
            "members": members,
            "files": [path.name for path in source.paths],
            "video": is_video,
            "size": list(source.size),
            "frames": source.count(),
            "time_base": str(source.time_base),
            "rate": str(source.frame_rate),
        }
    about = {
        "name": name,
        "roles": {folder: {k: v for k, v in entry.items() if k != "members"} for folder, entry in entries.items()},
    }
    tar.add_bytes(f"{key}.json", json.dumps(about).encode())
    return {"name": name, "shard": shard, "roles": entries}


# -- reading ---------------------------------------------------------------------------------------------------------------


def is_packed(root: Path) -> bool:
    """Whether a root is a folder of shards."""
    return (root / INDEX).is_file()


class Shards:
    """A packed data set; get one from `at`."""

    def __init__(self, root: Path) -> None:
        """Read the index, and see that the shards are there.

        Raises:
            InputError: the index is damaged, or a shard is missing or of another length.
        """
        self.root = root
        place = paths.display(root / INDEX)
        try:
            with open(root / INDEX, "rb") as lines:
                header = json.loads(next(lines))
                if header["format"] != FORMAT:
                    raise InputError(f"{place}: has format {header['format']}; this version reads {FORMAT}")
                self.settings: dict[str, Any] = dict(header["settings"])
                self.roles: dict[str, dict[str, Entry]] = {str(role): {} for role in header["roles"]}
                sizes, num_samples = list(map(int, header["bytes"])), int(header["samples"])
                count = 0
                for line in lines:
                    value = json.loads(line)
                    for role, entry in value["roles"].items():
                        self.roles[role][value["name"]] = _entry(int(value["shard"]), entry)
                    count += 1
        except OSError as error:
            raise paths.unreadable(root / INDEX, error) from error
        except (ValueError, TypeError, KeyError, StopIteration, AttributeError, RecursionError) as error:
            raise InputError(f"{place}: is no index of shards, or damaged", hint="pack the data set again") from error
        if count != num_samples:
            raise InputError(f"{place}: tells of {count} of {num_samples} samples; it is cut off", hint="pack the data set again")
        for number, size in enumerate(sizes):
            shard = root / _shard_name(number)
            try:
                found = shard.stat().st_size
            except OSError as error:
                raise InputError(f"{paths.display(shard)}: is missing; the index tells of {len(sizes)} shards") from error
            if found != size:
                raise InputError(
                    f"{paths.display(shard)}: has {found} bytes, the index tells of {size}; it is damaged, or of another data set"
                )
        self._scratch = _Scratch(root)

    def names(self, folder: str) -> list[str]:
        """The samples of a role.

        Raises:
            InputError: there is no such role.
        """
        if folder not in self.roles:
            raise InputError(
                f"{paths.display(self.root)}: the shards hold no {folder}; they hold {paths.few(list(self.roles))}",
                hint="set data.target and data.condition to the names",
            )
        return list(self.roles[folder])

    def source(self, folder: str, name: str, kind: FrameKind) -> FrameSource:
        """The frames of a sample in a role."""
        entry = self.roles[folder][name]
        return ShardVideo(self._scratch, entry, kind) if entry.is_video else ShardPictures(self._scratch, entry, kind)


def at(root: Path) -> Shards:
    """The shards of a root; one object for all who ask.

    Raises:
        InputError: see `Shards`.
    """
    status = (root / INDEX).stat()
    return _opened(root.resolve(), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=8)
def _opened(root: Path, changed: int, size: int) -> Shards:
    return Shards(root)


def _entry(shard: int, value: Mapping[str, Any]) -> Entry:
    height, width = value["size"]
    return Entry(
        tuple(Member.read(shard, member) for member in value["members"]),
        tuple(map(str, value["files"])),
        bool(value["video"]),
        (int(height), int(width)),
        int(value["frames"]),
        Fraction(value["time_base"]),
        Fraction(value["rate"]),
    )


class _Scratch:
    """The files of shards that were read last, in a folder of this machine, since decoders want files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folder: Path | None = None
        self._lock = threading.Lock()
        self._num_bytes = 0
        self._held: OrderedDict[Member, int] = OrderedDict()

    def place(self, member: Member) -> Path:
        """Where a member lies while it is in use, the same each time."""
        with self._lock:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="vidgen-shards-"))
                weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        return self._folder / f"{member.shard}-{member.offset}{Path(member.name).suffix}"

    def name(self, member: Member) -> str:
        """For messages."""
        return paths.display(self.root / _shard_name(member.shard) / member.name)

    @contextmanager
    def file(self, member: Member) -> Iterator[Path]:
        """A member as a file of its own.

        Raises:
            InputError: its shard is missing, or its content is not what the index says.
        """
        place = self.place(member)
        with self._lock:
            if member not in self._held:
                try:
                    durable.operations.write(place, self._read(member))
                except OSError as error:
                    raise durable.describe_write_failure(error, place) from error
                self._num_bytes += member.num_bytes
                self._held[member] = 0
            self._held[member] += 1
            self._held.move_to_end(member)
        try:
            yield place
        except VidgenError as error:
            error.args = (str(error).replace(paths.display(place), self.name(member)),)
            raise
        finally:
            with self._lock:
                self._held[member] -= 1
                self._forget()

    def _forget(self) -> None:
        """Remove what was used least lately, until it is not too much."""
        for member in [member for member, uses in self._held.items() if not uses]:
            if self._num_bytes <= _SCRATCH_BYTES:
                return
            del self._held[member]
            self._num_bytes -= member.num_bytes
            assert self._folder is not None
            durable.operations.remove(self._folder / f"{member.shard}-{member.offset}{Path(member.name).suffix}")

    def _read(self, member: Member) -> bytes:
        shard = self.root / _shard_name(member.shard)
        try:
            with open(shard, "rb") as file:
                file.seek(member.offset)
                data = file.read(member.num_bytes)
        except OSError as error:
            raise paths.unreadable(shard, error) from error
        if len(data) != member.num_bytes or hashlib.sha256(data).hexdigest() != member.sha256:
            raise InputError(
                f"{self.name(member)}: its content is not what the index says; the shard is damaged, or of another data set",
                hint="copy the shard again, or pack the data set again",
            )
        return data


class _ShardSource(FrameSource):
    """What both kinds of sources share."""

    def __init__(self, scratch: _Scratch, entry: Entry, kind: FrameKind) -> None:
        self._scratch, self._entry, self._kind = scratch, entry, kind
        self.name = scratch.name(entry.members[0])
        self.size, self.num_frames = entry.size, entry.num_frames
        self.time_base, self.frame_rate = entry.time_base, entry.frame_rate
        # By their own names, by which files are paired where they are numbered.
        self.paths = tuple(scratch.root / _shard_name(entry.members[0].shard) / file for file in entry.files)

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self._entry.num_frames):
            yield from self.read(index, index + 1)

    def count(self) -> int:
        return self._entry.num_frames


class ShardVideo(_ShardSource):
    """A video in a shard."""

    def __init__(self, scratch: _Scratch, entry: Entry, kind: FrameKind) -> None:
        super().__init__(scratch, entry, kind)
        self._inner: FrameSource | None = None

    def _opened(self, path: Path) -> FrameSource:
        if self._inner is None:
            self._inner = open_source(path, kind=self._kind)
        return self._inner

    def __iter__(self) -> Iterator[Frame]:
        with self._scratch.file(self._entry.members[0]) as path:
            for index, frame in enumerate(self._opened(path)):
                yield replace(frame, name=f"{self.name} frame {index}")

    def read(self, start: int, stop: int) -> list[Frame]:
        with self._scratch.file(self._entry.members[0]) as path:
            frames = self._opened(path).read(start, stop)
        return [replace(frame, name=f"{self.name} frame {start + index}") for index, frame in enumerate(frames)]


class ShardPictures(_ShardSource):
    """Pictures in a shard, as the frames of a clip."""

    def read(self, start: int, stop: int) -> list[Frame]:
        if not 0 <= start < stop <= self._entry.num_frames:
            raise InputError(f"{self.name}: has {self._entry.num_frames} frames; {start} to {stop} were asked for")
        return [self._frame(index) for index in range(start, stop)]

    def _frame(self, index: int) -> Frame:
        member = self._entry.members[index]
        name = self._scratch.name(member)
        with self._scratch.file(member) as path:
            pixels = images.read_labels(path) if self._kind == "labels" else images.read_picture(path)
        if pixels.shape[:2] != self.size:
            height, width = pixels.shape[:2]
            raise InputError(f"{name}: {width}x{height}, but the first is {self.size[1]}x{self.size[0]}")
        return Frame(pixels, index, name)
