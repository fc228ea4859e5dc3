"""What decoders do not check: sizes that fill the memory, files that end too early, label frames whose checksum does not fit."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Literal

from vidgen import durable
from vidgen.errors import InputError

MAX_PIXELS = 64_000_000
"""Largest height x width that is decoded; beyond it a small file could fill the memory."""

_FIRST_BOXES = (b"ftyp", b"styp", b"moov", b"mdat", b"moof", b"wide", b"free", b"skip", b"pnot")
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_SLICE_FOOTER_BYTES = 8
_MIRRORED_BITS = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


def check_size(name: str, width: int, height: int) -> None:
    """Refuse frames too large to decode, from the size that the header states.

    Raises:
        InputError: there are more than `MAX_PIXELS`.
    """
    if width * height > MAX_PIXELS:
        raise InputError(
            f"{name}: {width}x{height} is {width * height / 1e6:.0f} million pixels; at most {MAX_PIXELS / 1e6:.0f} are read"
        )


def missing_bytes(path: Path) -> int:
    """How many bytes a cut-off video file lacks, by the lengths that its container states; 0 when it states none.

    Source: ISO 14496-12 section 4.2 (boxes), RFC 8794 section 6 (EBML), the RIFF header of AVI, the trailer of GIF.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(64)
        if head.startswith(_EBML):
            end = _matroska_end(head)
        elif head.startswith(b"RIFF"):
            end = 8 + int.from_bytes(head[4:8], "little")
        elif head.startswith(b"GIF8"):
            end = size + (not _ends_with_gif_trailer(file))
        else:
            end = _boxes_end(file, size) if head[4:8] in _FIRST_BOXES else 0
    return max(0, end - size)


def _boxes_end(file: BinaryIO, size: int) -> int:
    """Where the last top-level box of an MP4 or MOV file ends."""
    position = 0
    while position < size:
        file.seek(position)
        header = file.read(16).ljust(16, b"\0")
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:], "big")
        if length == 0:
            return size
        if length < 8:
            return size
        position += length
    return position


def _matroska_end(head: bytes) -> int:
    """Where the segment of a Matroska file ends; 0 when it does not say, as live recordings do."""
    after, header_size = _element_size(head, 4)
    segment = after + (header_size or 0)
    if head[segment : segment + 4] != _SEGMENT or segment + 12 > len(head):
        return 0
    after, size = _element_size(head, segment + 4)
    return 0 if size is None else after + size


def _element_size(head: bytes, start: int) -> tuple[int, int | None]:
    """Where the content of an EBML element starts, and how long it is, or None for unknown."""
    length = 9 - head[start].bit_length()
    bits = (1 << 7 * length) - 1
    value = int.from_bytes(head[start : start + length], "big") & bits
    return start + length, None if value == bits else value


def _ends_with_gif_trailer(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b";"


def set_last_gif_delay(path: Path, seconds: Fraction) -> None:
    """Let the last picture of a whole GIF stay for so long, up to 655 seconds; encoders repeat the delay before it.

    Source: GIF89a, section 23 (graphic control extension): two bytes, hundredths of a second.
    """
    place = None
    with open(path, "rb") as file:
        for block in gif_blocks(file):
            place = block.start + 4 if block.kind == "delay" else place
    if place is not None:
        durable.overwrite_bytes(path, place, min(65535, max(1, round(seconds * 100))).to_bytes(2, "little"))


@dataclass(frozen=True)
class GifBlock:
    """A part of a GIF file: a delay, a picture, anything else, or the trailer that ends the file; and where it begins."""

    kind: Literal["delay", "picture", "other", "trailer"]
    start: int


def gif_blocks(file: BinaryIO) -> Iterator[GifBlock]:
    """The blocks of a GIF until its trailer, or until something that is none or is cut off.

    Source: GIF89a, sections 17 to 27.
    """
    header = file.read(13)
    if len(header) < 13:
        return
    position = 13 + _gif_colors(header[10])
    while True:
        file.seek(position)
        lead = file.read(10)
        if lead[:1] == b";":
            yield GifBlock("trailer", position)
            return
        if lead[:1] == b"!" and len(lead) >= 2:
            kind: Literal["delay", "other"] = "delay" if lead[1] == 0xF9 else "other"
            data = position + 2
        elif lead[:1] == b"," and len(lead) == 10:
            kind, data = "picture", position + 11 + _gif_colors(lead[9])  # type: ignore[assignment]
        else:
            return
        end = _end_of_gif_data(file, data)
        if end is None:
            return
        yield GifBlock(kind, position)
        position = end


def _gif_colors(flags: int) -> int:
    """Bytes of the color table that the flags announce."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _end_of_gif_data(file: BinaryIO, position: int) -> int | None:
    """Where a chain of sub-blocks ends, or None where the file ends first."""
    file.seek(position)
    while True:
        size = file.read(1)
        if not size:
            return None
        position += 1
        if size == b"\0":
            return position
        position += size[0]
        if len(file.read(size[0])) < size[0]:
            return None


class SliceChecksums:
    """Verifies the checksum of every slice of an FFV1 video; files without checksums pass.

    Source: RFC 9043 section 4.9: a slice ends with its length (24 bits), a status byte and the CRC-32 that makes its remainder 0.
    """

    def __init__(self) -> None:
        self._any_right = self._any_wrong = False

    def accept(self, packet: bytes) -> bool:
        """Whether this packet and those before are sound; one right checksum shows that the file has them."""
        if _slices_are_right(packet):
            self._any_right = True
        else:
            self._any_wrong = True
        return not (self._any_right and self._any_wrong)


def _slices_are_right(packet: bytes) -> bool:
    # zlib computes the CRC of mirrored bits, inverted at both ends; mirrored bytes and inverted ends give that of FFV1.
    mirrored = packet.translate(_MIRRORED_BITS)
    end = len(packet)
    while end > 0:
        footer = end - _SLICE_FOOTER_BYTES
        start = footer - int.from_bytes(packet[max(footer, 0) : footer + 3], "big")
        if start < 0 or zlib.crc32(mirrored[start:end], 0xFFFFFFFF) != 0xFFFFFFFF:
            return False
        end = start
    return True
