"""What decoders do not check: sizes that fill the memory, files that end too early, label frames whose checksum does not fit."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Literal

from vidgen import durable
from vidgen.errors import InputError

MAX_PIXELS = 64_000_000
MAX_GIF_PIXELS = 16_000_000
"""Of a GIF, whose decoders hold several frames at four bytes a pixel; larger ones are hardly ever meant."""
"""Largest height x width that is decoded; beyond it a small file could fill the memory."""

_FIRST_BOXES = (b"ftyp", b"styp", b"moov", b"mdat", b"moof", b"wide", b"free", b"skip", b"pnot")
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_TOP_BOXES = frozenset(
    (*_FIRST_BOXES, b"mfra", b"sidx", b"ssix", b"uuid", b"meta", b"emsg", b"prft", b"udta", b"meco", b"pdin", b"imda")
)
_FRAGMENT_BOXES = frozenset(
    b"mfhd traf tfhd tfdt trun sdtp subs sbgp sgpd saiz saio senc meta uuid pssh tfxd tfrf free skip".split()
)
_MAX_TABLE_BYTES = 64 << 20
_MAX_RUN = 1 << 20
_TRACKS, _CLUSTER = 0x1654AE6B, 0x1F43B675
_SEGMENT_PARTS = frozenset((_TRACKS, _CLUSTER, 0x114D9B74, 0x1549A966, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367, 0xEC, 0xBF))
_CLUSTER_PARTS = frozenset(
    (0xE7, 0x5854, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF, 0xA1, 0x75A1, 0x9B, 0xFA, 0xFB, 0xFD, 0xA4, 0x75A2, 0x8E, 0xC8, 0xEC, 0xBF)
)
_GROUP_BLOCK = frozenset((0xA1,))
_GROUP_PARTS = _CLUSTER_PARTS - {0xE7, 0x5854, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF}
_NUMBERS = frozenset((0xE7, 0xA7, 0xAB, 0x9B, 0xFA, 0xFB, 0xFD, 0x75A2))
_MAX_NUMBER_BYTES = 8
_SLICE_FOOTER_BYTES = 8
_MAX_LZW_BITS = 12
_MAX_LZW_CODES = 1 << _MAX_LZW_BITS
_MIRRORED_BITS = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


def check_size(name: str, width: int, height: int, most: int = MAX_PIXELS) -> None:
    """Refuse frames too large to decode, from the size that the header states.

    Raises:
        InputError: there are more than `most` pixels.
    """
    if width * height > most:
        raise InputError(
            f"{name}: {width}x{height} is {width * height / 1e6:.0f} million pixels; at most {most / 1e6:.0f} are read"
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
            file.seek(0)
            end = size + (not any(block.kind == "trailer" for block in gif_blocks(file)))
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
    if len(head) <= 4:
        return 0
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


@dataclass(frozen=True)
class Structure:
    """What the parts of a file say of its pictures, whatever a demuxer makes of them.

    Attributes:
        num_frames: how many are stored, of the video track asked for; None where the format does not tell.
        fault: what does not fit, or None. A demuxer looks for the next sound part in silence.
        is_uncut: whether the edit list shows the track from end to end, so that none of its frames is hidden.
    """

    num_frames: int | None = None
    fault: str | None = None
    is_uncut: bool = False


class _Everything:
    """Contains whatever is asked for."""

    def __contains__(self, item: object) -> bool:
        return True


_ANYTHING = _Everything()


class _Misfit(Exception):
    """A part of a file that cannot stand where it stands."""


def read_structure(path: Path, track: int = 0) -> Structure:
    """Walk through the parts of a whole file, without reading its pictures.

    Args:
        track: which of the video tracks is meant, in their order.

    Source: GIF89a; ISO 14496-12, sections 4.2 (boxes) and 8 (tables and fragments); RFC 9559, section 5 (Matroska).
    """
    with open(path, "rb") as file:
        head = file.read(64)
        size = os.fstat(file.fileno()).st_size
        try:
            if head.startswith(b"GIF8"):
                return _gif_structure(file)
            if head.startswith(_EBML):
                return Structure(_matroska_frames(file, head, size, track))
            if head.startswith(b"RIFF"):
                return Structure(fault=_behind_riff(file, size))
            if head[4:8] in _FIRST_BOXES:
                count, is_uncut = _boxed_frames(file, size, track)
                return Structure(count, is_uncut=is_uncut)
        except _Misfit as misfit:
            return Structure(fault=str(misfit))
        except (IndexError, ValueError, struct.error):
            return Structure(fault="a table is cut short")
    return Structure()


def _behind_riff(file: BinaryIO, size: int) -> str | None:
    """What lies behind the parts of an AVI file, of which long ones have several; bytes that slipped in push others out there."""
    position = 0
    while position + 8 <= size:
        head = _read(file, position, 8)
        if head[:4] not in (b"RIFF", b"JUNK"):
            return None if _only_zeros(file, position) else f"{size - position} bytes lie behind its end"
        length = int.from_bytes(head[4:], "little")
        position += 8 + length + length % 2
    return None


def _gif_structure(file: BinaryIO) -> Structure:
    file.seek(0)
    blocks = list(gif_blocks(file))
    pictures = [block.start for block in blocks if block.kind == "picture"]
    fault = None if any(block.kind == "trailer" for block in blocks) else "its blocks end without a trailer"
    for index, start in enumerate(pictures):
        if fault is None and _has_gif_data_behind_its_end(file, start):
            fault = f"the data of picture {index} run on behind its end"
    return Structure(len(pictures), fault)


def _has_gif_data_behind_its_end(file: BinaryIO, start: int) -> bool:
    """Whether the data of a picture hold more than the picture: bytes that slipped in can join it to the next one.

    Encoders fill all sub-blocks but the last alike. Only where they are not is the code followed, as that takes long.

    Source: GIF89a, section 22 (image data) and appendix F (variable-length-code LZW).
    """
    head = _read(file, start, 10)
    place = start + 10 + _gif_colors(head[9])
    least = _read(file, place, 1)[0]
    parts: list[bytes] = []
    while size := file.read(1)[0]:
        parts.append(file.read(size))
    if len({len(part) for part in parts[:-1]}) <= 1 or not 2 <= least <= 8:
        return False
    num_pixels = int.from_bytes(head[5:7], "little") * int.from_bytes(head[7:9], "little")
    return _lzw_end(b"".join(parts), least, num_pixels) < sum(map(len, parts[:-1]))


def _lzw_end(data: bytes, least: int, num_pixels: int) -> int:
    """How many bytes of codes the pixels of a picture take; up to its end code, or to a code that cannot be."""
    clear = 1 << least
    fresh = [1] * clear + [0, 0]
    lengths, width, previous = fresh.copy(), least + 1, 0
    bits = num_bits = position = num_done = 0
    while num_done < num_pixels:
        while num_bits < width:
            if position == len(data):
                return position
            bits |= data[position] << num_bits
            num_bits += 8
            position += 1
        code, bits, num_bits = bits & (1 << width) - 1, bits >> width, num_bits - width
        if code == clear:
            lengths, width, previous = fresh.copy(), least + 1, 0
            continue
        if code == clear + 1 or code > len(lengths) or (code == len(lengths) and not previous):
            break
        if previous and len(lengths) < _MAX_LZW_CODES:
            lengths.append(previous + 1)
        if code >= len(lengths):
            break
        previous = lengths[code]
        num_done += previous
        if len(lengths) == 1 << width and width < _MAX_LZW_BITS:
            width += 1
    return position


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of the content of each box in a part of an MP4 file."""
    position = start
    while position + 8 <= end:
        file.seek(position)
        header = file.read(16)
        length, kind, content = int.from_bytes(header[:4], "big"), header[4:8], position + 8
        if length == 1:
            length, content = int.from_bytes(header[8:], "big"), position + 16
        elif length == 0:
            length = end - position
        if length < content - position or position + length > end:
            raise _Misfit(f"a part at byte {position} has an impossible length")
        yield kind, content, position + length
        position += length


def _boxed_frames(file: BinaryIO, size: int, track: int) -> tuple[int | None, bool]:
    """Samples of a video track in the tables and fragments of an MP4 or MOV file, and whether its edit list shows them all."""
    tracks: dict[int, tuple[int, bool]] = {}
    fragments: dict[int, int] = {}
    last_frames: dict[int, int] = {}
    for kind, start, end in _boxes(file, 0, size):
        if kind == bytes(4) and _only_zeros(file, start - 8):
            break  # space that some recorders leave
        if kind not in _TOP_BOXES:
            raise _Misfit(f"a part at byte {start - 8} is of no known kind")
        if kind == b"moov":
            tracks |= {track_id: (count, is_uncut) for track_id, count, is_uncut in _sample_tables(file, start, end)}
        elif kind == b"moof":
            for track_id, count in _fragment_samples(file, start, end, last_frames):
                fragments[track_id] = fragments.get(track_id, 0) + count
    if set(fragments) - set(_track_ids(file, size)):
        raise _Misfit("a fragment belongs to no track")
    ids = list(tracks)
    if track >= len(ids):
        return None, False
    count, is_uncut = tracks[ids[track]]
    return count + fragments.get(ids[track], 0), is_uncut and not fragments


def _only_zeros(file: BinaryIO, position: int) -> bool:
    file.seek(position)
    while block := file.read(1 << 20):
        if block.count(0) < len(block):
            return False
    return True


def _track_ids(file: BinaryIO, size: int) -> Iterator[int]:
    for kind, start, end in _boxes(file, 0, size):
        if kind == b"moov":
            for name, trak, trak_end in _boxes(file, start, end):
                if name == b"trak":
                    yield _track_id(_children(file, trak, trak_end)[b"tkhd"])


def _track_id(header: bytes) -> int:
    return int.from_bytes(header[20:24] if header[0] else header[12:16], "big")


def _children(file: BinaryIO, start: int, end: int) -> dict[bytes, bytes]:
    """The leading bytes of each box, by its type; those of containers of tables too."""
    content: dict[bytes, bytes] = {}
    for kind, inner, inner_end in _boxes(file, start, end):
        if kind in (b"mdia", b"minf", b"stbl", b"edts"):
            content |= _children(file, inner, inner_end)
        else:
            file.seek(inner)
            content[kind] = file.read(min(inner_end - inner, _MAX_TABLE_BYTES))
    return content


def _sample_tables(file: BinaryIO, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """Id and number of samples of each video track, and whether its edit list shows it whole; the tables must agree."""
    movie_scale = 0
    for kind, inner, inner_end in _boxes(file, start, end):
        if kind == b"mvhd":
            header = _read(file, inner, inner_end - inner)
            _check_header(header, 100)
            movie_scale = _time_scale(header)
        if kind != b"trak":
            continue
        boxes = _children(file, inner, inner_end)
        if b"hdlr" not in boxes or b"stsz" not in boxes or boxes[b"hdlr"][8:12] != b"vide":
            continue
        count = int.from_bytes(boxes[b"stsz"][8:12], "big")
        for table_name in (b"stts", b"ctts"):
            table = boxes.get(table_name)
            if table is not None and len(table) < _MAX_TABLE_BYTES:
                entries = int.from_bytes(table[4:8], "big")
                runs = [int.from_bytes(table[place : place + 4], "big") for place in range(8, min(8 + 8 * entries, len(table)), 8)]
                listed = sum(runs)
                if listed != count and (table_name == b"stts" or listed > 0):
                    raise _Misfit(f"its tables list {count} and {listed} frames")
        edits, is_uncut = boxes.get(b"elst"), False
        if b"tkhd" not in boxes:
            raise _Misfit("a track has no header")
        _check_header(boxes[b"tkhd"], 84)
        _check_header(boxes.get(b"mdhd", bytes(24)), 24)
        if edits is not None and len(edits) < 8 + int.from_bytes(edits[4:8], "big") * (20 if edits[0] else 12):
            raise _Misfit("its list of edits is cut short")
        if edits is not None and edits[0] == 0 and boxes[b"tkhd"][0] == 0:
            entries = int.from_bytes(edits[4:8], "big")
            total = sum(int.from_bytes(edits[place : place + 4], "big") for place in range(8, 8 + 12 * entries, 12))
            stated = int.from_bytes(boxes[b"tkhd"][20:24], "big")
            if total and stated and abs(total - stated) > 1 + stated // 1000:
                raise _Misfit(f"its edits last {total} and its track {stated} units of time")
            is_uncut = _is_uncut(edits, entries, movie_scale, boxes)
        yield _track_id(boxes[b"tkhd"]), count, is_uncut


def _is_uncut(edits: bytes, entries: int, movie_scale: int, boxes: Mapping[bytes, bytes]) -> bool:
    """Whether one edit shows the whole track, but for rounding to the movie's units of time; empty ones before it only delay it."""
    shown = [edits[place : place + 8] for place in range(8, 8 + 12 * entries, 12) if edits[place + 4 : place + 8] != b"\xff" * 4]
    times, header = boxes.get(b"stts", b""), boxes.get(b"mdhd", b"")
    if len(shown) != 1 or not movie_scale or not header or not times or len(times) >= _MAX_TABLE_BYTES:
        return False
    runs = struct.iter_unpack(">2I", times[8 : 8 + 8 * int.from_bytes(times[4:8], "big")])
    whole = Fraction(sum(number * delta for number, delta in runs), _time_scale(header) or 1)
    return Fraction(int.from_bytes(shown[0][:4], "big") + 1, movie_scale) >= whole


def _check_header(header: bytes, least: int) -> None:
    """Refuse a header of a movie or track that is too short for its version; the later one counts time in longer numbers."""
    if len(header) < least + (12 if header[0] else 0):
        raise _Misfit("a header is cut short")


def _time_scale(header: bytes) -> int:
    """Units of a second, of a movie's or a track's header."""
    place = 20 if header[0] else 12
    return int.from_bytes(header[place : place + 4], "big")


def _read(file: BinaryIO, position: int, count: int) -> bytes:
    file.seek(position)
    return file.read(count)


def _fragment_samples(file: BinaryIO, start: int, end: int, last_frames: dict[int, int]) -> Iterator[tuple[int, int]]:
    """Track and number of samples of each fragment of a track; `last_frames` is when the last of each track began so far."""
    for kind, inner, inner_end in _boxes(file, start, end):
        if kind not in _FRAGMENT_BOXES:
            raise _Misfit(f"a part at byte {inner - 8} is of no known kind")
        if kind != b"traf":
            continue
        track_id = duration = 0
        begin: int | None = None
        durations: list[int] = []
        for name, content, content_end in _boxes(file, inner, inner_end):
            if name not in _FRAGMENT_BOXES:
                raise _Misfit(f"a part at byte {content - 8} is of no known kind")
            if name not in (b"tfhd", b"tfdt", b"trun"):
                continue
            data = _read(file, content, min(content_end - content, _MAX_TABLE_BYTES))
            flags = int.from_bytes(data[1:4], "big")
            if name == b"tfhd":
                track_id = int.from_bytes(data[4:8], "big")
                place = 8 + 8 * bool(flags & 1) + 4 * bool(flags & 2)
                duration = int.from_bytes(data[place : place + 4], "big") if flags & 8 else 0
            elif name == b"tfdt":
                begin = int.from_bytes(data[4:12] if data[0] else data[4:8], "big")
            else:
                durations += _run_durations(data, flags, duration, content_end - content, content - 8)
        if begin is not None:
            if begin <= last_frames.get(track_id, -1):
                raise _Misfit(f"the fragment at byte {start - 8} begins before the one before it ends")
            last_frames[track_id] = begin + sum(durations[:-1])
        yield track_id, len(durations)


def _run_durations(data: bytes, flags: int, default: int, length: int, place: int) -> list[int]:
    """Of the samples of a run in a fragment, in units of its track."""
    count, first = int.from_bytes(data[4:8], "big"), 8 + 4 * bool(flags & 1) + 4 * bool(flags & 4)
    stride = 4 * sum(bool(flags & bit) for bit in (0x100, 0x200, 0x400, 0x800))
    if length != first + stride * count or (not stride and count > _MAX_RUN):
        raise _Misfit(f"the run of frames at byte {place} has an impossible length")
    if not flags & 0x100:
        return [default] * count
    return [int.from_bytes(data[at : at + 4], "big") for at in range(first, first + stride * count, stride)]


def _elements(file: BinaryIO, start: int, end: int, known: Container[int]) -> Iterator[tuple[int, int, int | None]]:
    """Id, start and end of the content of each EBML element, all of which must be known; None for an unknown end."""
    position = start
    while position < end:
        file.seek(position)
        head = file.read(12)
        if not head[0]:
            raise _Misfit(f"a part at byte {position} is of no known kind")
        id_length = 9 - head[0].bit_length()
        kind = int.from_bytes(head[:id_length], "big")
        if kind not in known or not head[id_length]:
            raise _Misfit(f"a part at byte {position} is of no known kind")
        after, size = _element_size(head, id_length)
        if size is None:
            yield kind, position + after, None
            return
        if position + after + size > end:
            raise _Misfit(f"a part at byte {position} has an impossible length")
        yield kind, position + after, position + after + size
        position += after + size


def _matroska_frames(file: BinaryIO, head: bytes, size: int, track: int) -> int | None:
    """Blocks of a video track in the clusters of a Matroska file; None where it states no lengths, as live recordings."""
    after, header_size = _element_size(head, 4)
    segment = after + (header_size or 0)
    content, length = _element_size(head, segment + 4)
    blocks: dict[int, int] = {}
    numbers: list[int] = []
    video: list[int] = []
    for kind, start, end in _elements(file, content, size if length is None else min(size, content + length), _SEGMENT_PARTS):
        if end is None:
            return None
        if kind == _TRACKS:
            for entry in _track_entries(file, start, end):
                numbers.append(entry[0])
                if entry[1] == 1:
                    video.append(entry[0])
        elif kind == _CLUSTER:
            for number in _block_tracks(file, start, end, _CLUSTER_PARTS - _GROUP_BLOCK):
                blocks[number] = blocks.get(number, 0) + 1
    if set(blocks) - set(numbers):
        raise _Misfit("a block belongs to no track")
    return blocks.get(video[track], 0) if track < len(video) else None


def _track_entries(file: BinaryIO, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Number and type of each track."""
    for kind, inner, inner_end in _elements(file, start, end, _ANYTHING):
        if kind != 0xAE or inner_end is None:
            continue
        number = kind_of_track = 0
        for field, place, place_end in _elements(file, inner, inner_end, _ANYTHING):
            if field in (0xD7, 0x83) and place_end is not None:
                file.seek(place)
                value = int.from_bytes(file.read(min(8, place_end - place)), "big")
                number, kind_of_track = (value, kind_of_track) if field == 0xD7 else (number, value)
        yield number, kind_of_track


def _block_tracks(file: BinaryIO, start: int, end: int, known: Container[int]) -> Iterator[int]:
    """The track number of every block in a cluster or in a group of one."""
    for kind, inner, inner_end in _elements(file, start, end, known):
        if kind == 0xA0 and inner_end is not None:
            numbers = list(_block_tracks(file, inner, inner_end, _GROUP_PARTS))
            if len(numbers) != 1:
                raise _Misfit(f"the group at byte {inner} holds {len(numbers)} blocks")
            yield from numbers
        elif kind in _NUMBERS and inner_end is not None and inner_end - inner > _MAX_NUMBER_BYTES:
            raise _Misfit(f"the number at byte {inner} has {inner_end - inner} bytes")
        elif kind in (0xA3, 0xA1):
            file.seek(inner)
            head = file.read(8)
            if not head or not head[0]:
                raise _Misfit(f"a block at byte {inner} is damaged")
            yield _element_size(head, 0)[1] or 0


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
