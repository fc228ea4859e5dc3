"""Damaged, malicious and endless input, full disks and forks: nothing crashes, hangs, leaks or is shortened in silence."""

from __future__ import annotations

import gc
import http.server
import io
import os
import random
import re
import resource
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from tests import media_clips
from vidgen.errors import DamagedVideoError, InputError, OutputError, VidgenError
from vidgen.media import frames, integrity

CLOCK = {"time_base": Fraction(1, 25), "frame_rate": Fraction(25)}


def in_child(task: Callable[[], str], seconds: int = 20) -> str:
    """What `task` returns in a forked process, or how that process ended: a signal, or the alarm of a hang."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(seconds)
        try:
            os.write(writing, task().encode())
        except BaseException as error:
            os.write(writing, f"leaked {error!r}".encode()[:4000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read().decode()
    status = os.waitpid(child, 0)[1]
    return answer if os.WIFEXITED(status) and answer else f"died of signal {status & 127}"


# Truncation and flipped bits

CLIPS = {
    "index_last.mp4": {"with_sound": True},
    "index_first.mp4": {"container_options": {"movflags": "faststart"}, "with_sound": True},
    "intra.mov": {"codec": "mjpeg", "pixel_format": "yuvj420p", "container_options": {"movflags": "faststart"}},
    "fragmented.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}, "codec_options": {"g": "8"}},
    "plain.mkv": {},
    "sound.mkv": {"with_sound": True},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "mpeg4.avi": {"codec": "mpeg4"},
    "gif.gif": {"codec": "gif", "pixel_format": "rgb8"},
}


def reading_result(path: Path, reading: str, expected: list[np.ndarray]) -> str:
    """How reading a damaged copy of a clip went."""
    try:
        found = [frame.pixels for frame in frames.open_source(path, kind=reading)]
    except InputError as error:
        return "refused" if path.name in str(error) else f"unnamed: {error}"
    if len(found) != len(expected):
        return "short" if len(found) < len(expected) else "long"
    return "same" if all(np.array_equal(*pair) for pair in zip(found, expected, strict=True)) else "different"


def damaged_results(path: Path, reading: str, contents: Iterator[bytes]) -> Counter[str]:
    """Outcomes of reading each of `contents` under the name of `path`; one child reads them all, for speed."""
    expected = [frame.pixels for frame in frames.open_source(path, kind=reading)]
    copy = path.with_name(f"damaged_{path.name}")

    def task() -> str:
        results = []
        for content in contents:
            copy.write_bytes(content)
            signal.alarm(20)
            results.append(reading_result(copy, reading, expected))
        return "\n".join(results)

    return Counter(in_child(task).splitlines())


def truncations(content: bytes, count: int) -> Iterator[bytes]:
    return (content[: len(content) * index // (count + 1)] for index in range(1, count + 1))


def flips(content: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    generator = random.Random(seed)
    for _ in range(count):
        damaged = bytearray(content)
        for _ in range(generator.choice([1, 1, 4, 16])):
            damaged[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        yield bytes(damaged)


def label_video(path: Path) -> Path:
    with frames.open_sink(path, **CLOCK, kind="labels") as sink:
        for index, labels in enumerate(media_clips.label_frames(20)):
            sink.write(labels, index)
    return path


@pytest.mark.parametrize("count", [10, pytest.param(40, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", [*CLIPS, "labels.mkv"])
def test_a_truncated_clip_is_refused_wherever_it_ends(tmp_path, name, count):
    reading = "labels" if name == "labels.mkv" else "pictures"
    path = tmp_path / name
    if reading == "labels":
        label_video(path)
    else:
        media_clips.write_clip(path, media_clips.smooth_frames(20), **CLIPS[name])
    assert damaged_results(path, reading, truncations(path.read_bytes(), count)) == {"refused": count}


@pytest.mark.parametrize("count", [25, pytest.param(150, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", CLIPS)
def test_flipped_bits_never_crash_or_hang_and_lose_frames_in_silence_at_most_rarely(tmp_path, name, count):
    """No decoder sees every flipped bit of a picture; a lost frame shows unless the times themselves were changed."""
    path = media_clips.write_clip(tmp_path / name, media_clips.smooth_frames(20), **CLIPS[name])
    results = damaged_results(path, "pictures", flips(path.read_bytes(), count))
    assert set(results) <= {"refused", "same", "different", "short"}
    assert results["short"] <= 0.06 * count + 1


@pytest.mark.parametrize("count", [60, pytest.param(600, marks=pytest.mark.slow)])
def test_flipped_bits_never_change_labels_in_silence(tmp_path, count):
    path = label_video(tmp_path / "a.mkv")
    results = damaged_results(path, "labels", flips(path.read_bytes(), count))
    assert set(results) <= {"refused", "same"}
    assert results["refused"] > 0.8 * count


@pytest.mark.parametrize("name", ["index_first.mp4", "intra.mov", "plain.mkv", "fragmented.mp4", "gif.gif"])
def test_the_frames_before_the_damage_are_used_on_demand_and_the_damage_is_told(tmp_path, caplog, name):
    path = media_clips.write_clip(tmp_path / name, media_clips.smooth_frames(40), **CLIPS[name])
    whole = np.stack([frame.pixels for frame in frames.open_source(path)])
    content = path.read_bytes()
    for sixteenth in range(9, 16):
        path.write_bytes(content[: len(content) * sixteenth // 16 - 7])
        with pytest.raises(DamagedVideoError, match="bytes are missing at the end"):
            frames.open_source(path)
        source = frames.open_source(path, allow_truncated=True)
        assert source.damage is None
        found = [frame.pixels for frame in source]
        assert 2 < len(found) < 40
        assert np.array_equal(np.stack(found), whole[: len(found)])
        assert source.damage is not None
        assert path.name in source.damage
        assert source.damage in caplog.text
        assert len(source.read(0, len(found))) == len(found)
        with pytest.raises(InputError, match=path.name):
            source.read(0, 40)


def test_a_clip_without_one_good_frame_is_an_error_even_then(tmp_path):
    path = media_clips.write_clip(tmp_path / "a.mkv", media_clips.smooth_frames(20))
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(InputError, match=r"a\.mkv"):
        list(frames.open_source(path, allow_truncated=True))


def test_whole_files_lack_no_bytes(tmp_path):
    for name, options in CLIPS.items():
        path = media_clips.write_clip(tmp_path / name, media_clips.smooth_frames(3), **options)
        assert integrity.missing_bytes(path) == 0
        content = path.read_bytes()
        path.write_bytes(content[:-1])
        assert integrity.missing_bytes(path) == 1
        path.write_bytes(content + b"\0" * 100)
        assert integrity.missing_bytes(path) == 0


# Files that name other files and addresses


@pytest.fixture
def visits() -> Iterator[tuple[str, list[str]]]:
    """The address of a local server, and the list of what was asked of it."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", asked
        server.shutdown()


HOSTILE = {
    "concat.mp4": "ffconcat version 1.0\nfile secret.mp4\n",
    "concat_http.mkv": "ffconcat version 1.0\nfile http://{server}/concat\n",
    "playlist.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{folder}/secret.mp4\n#EXT-X-ENDLIST\n",
    "playlist.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://{server}/hls.ts\n#EXT-X-ENDLIST\n",
    "dash.mp4": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
    '<AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>http://{server}/dash.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>',
    "session.avi": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "subtitles.mkv": "1\n00:00:00,000 --> 00:00:01,000\n<img src=http://{server}/subtitle.png>\n",
    "picture.png": '<svg xmlns="http://www.w3.org/2000/svg"><image href="http://{server}/picture.png"/></svg>',
    "vector.jpg": "push graphic-context\nfill 'url(http://{server}/vector)'\npop graphic-context\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_cannot_make_vidgen_read_other_files_or_addresses(tmp_path, monkeypatch, visits, name):
    server, asked = visits
    monkeypatch.chdir(tmp_path)
    media_clips.write_clip(tmp_path / "secret.mp4", media_clips.smooth_frames(3))
    (tmp_path / name).write_text(HOSTILE[name].format(server=server, folder=tmp_path))
    for where in (name, str(tmp_path / name)):
        with pytest.raises(InputError, match=name):
            list(frames.open_source(where))
    assert asked == []


def test_a_reference_inside_a_quicktime_file_is_not_followed(tmp_path, visits):
    server, asked = visits
    path = media_clips.write_clip(tmp_path / "a.mov", media_clips.smooth_frames(3))
    content = path.read_bytes()
    reference = f"http://{server}/external.mov".encode()
    alias = len(reference) + 13
    entry = alias.to_bytes(4, "big") + b"url \0\0\0\0" + reference + b"\0"
    where = content.index(b"dref") - 4
    old = int.from_bytes(content[where : where + 4], "big")
    dref = (16 + len(entry)).to_bytes(4, "big") + b"dref" + b"\0\0\0\0\0\0\0\1" + entry
    path.write_bytes(content[:where] + dref + content[where + old :])
    with pytest.raises(InputError):
        list(frames.open_source(path))
    assert asked == []


@pytest.mark.parametrize(
    "name", ["http:x.mp4", "concat:q.mp4", "a:b.mp4", "-rf.mp4", "%03d.mp4", "$(touch pwned).mp4", "a b.mp4", "[1].mp4"]
)
def test_names_are_never_taken_for_protocols_patterns_or_commands(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    media_clips.write_clip(tmp_path / "clip.mp4", media_clips.smooth_frames(3)).rename(tmp_path / name)
    assert len(list(frames.open_source(name))) == 3
    with frames.open_sink(f"out {name}", **CLOCK) as sink:
        sink.write(media_clips.smooth_frames(1)[0], 0)
    assert sorted(os.listdir(tmp_path)) == sorted([name, f"out {name}"])


# Bombs


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_video_bomb_is_refused_from_its_header(tmp_path, name):
    path = tmp_path / name

    def make() -> str:
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
            stream.width = stream.height = 8192
            stream.pix_fmt = "yuv420p"
            frame = av.VideoFrame(8192, 8192, "yuv420p")
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return "made"

    def peak_growth() -> str:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            frames.open_source(path)
        except InputError as error:
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            return f"refused: {error}" if grown < 40 else f"took {grown} MiB"
        return "opened"

    assert in_child(make, 60) == "made"
    answer = in_child(peak_growth)
    assert answer.startswith("refused")
    assert "64 million pixels" in answer or "64 are read" in answer


# Resources


def resources() -> tuple[int, int]:
    """Threads and open files of this process."""
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))


def resident_mib() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def read_and_write(folder: Path, num_frames: int) -> str:
    """The largest growth in MiB while `num_frames` are read from one video into another."""
    written = folder / "long.mp4"
    pixels = media_clips.smooth_frames(10, 128, 256)
    with frames.open_sink(written, **CLOCK, quality="draft", overwrite=True) as sink:
        for index in range(num_frames):
            sink.write(pixels[index % 10], index)
    before = resident_mib()
    peak = 0.0
    source = frames.open_source(written)
    with frames.open_sink(folder / "copy.mp4", **CLOCK, quality="draft", overwrite=True) as sink:
        for index, frame in enumerate(source):
            sink.write(frame.pixels, index)
            if index % 50 == 0:
                peak = max(peak, resident_mib() - before)
    return f"{peak:.1f}"


@pytest.mark.parametrize("num_frames", [1000, pytest.param(10000, marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_length_of_a_video(tmp_path, num_frames):
    short = float(in_child(lambda: read_and_write(tmp_path, 100), 300))
    long = float(in_child(lambda: read_and_write(tmp_path, num_frames), 600))
    assert long - short <= 32


def test_sources_leave_no_threads_and_no_files_open(tmp_path):
    path = media_clips.write_clip(tmp_path / "a.mp4", media_clips.smooth_frames(8), with_sound=True)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(path.read_bytes()[:-100])
    source = frames.open_source(path)
    before = resources()
    for index in range(300):
        source = frames.open_source(path)
        next(iter(source))
        if index % 10 == 0:
            source.read(3, 5)
            with pytest.raises(InputError):
                list(frames.open_source(broken))
    assert resources() == before


def test_sinks_leave_no_threads_and_no_files_open_also_after_a_failure(tmp_path):
    sound = media_clips.write_clip(tmp_path / "a.mp4", media_clips.smooth_frames(8), with_sound=True)

    def fail() -> None:
        with frames.open_sink(tmp_path / "b.mp4", **CLOCK, audio=sound, overwrite=True) as sink:
            for index, pixels in enumerate(media_clips.smooth_frames(3)):
                sink.write(pixels, index)
            raise RuntimeError

    before = resources()
    for _ in range(20):
        with pytest.raises(RuntimeError):
            fail()
    assert resources() == before
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_a_child_forked_after_reading_can_collect_garbage_and_read_on(tmp_path):
    path = media_clips.write_clip(tmp_path / "a.mp4", media_clips.smooth_frames(8))
    gc.disable()
    try:
        for _ in range(20):
            source = frames.open_source(path)
            next(iter(source))
            source.read(2, 4)

        def task() -> str:
            gc.collect()
            return str(len(list(source)))

        assert in_child(task) == "8"
    finally:
        gc.enable()


# Full disks


def limit_file_size(num_bytes: int) -> None:
    """Make larger writes of this process fail, as a full disk does."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.webm", "a.gif", "out", "a.png"])
def test_a_full_disk_is_told_and_leaves_no_litter(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 256, (3, 128, 256, 3), dtype=np.uint8)

    def task() -> str:
        limit_file_size(20_000)
        try:
            with frames.open_sink(tmp_path / name, **CLOCK) as sink:
                for index in range(1 if name == "a.png" else 60):
                    sink.write(noise[index % 3], index)
        except OutputError as error:
            return f"{error} | {sorted(os.listdir(tmp_path))}"
        return "written"

    answer = in_child(task, 60)
    assert "no space left to write" in answer
    assert str(tmp_path / name) in answer
    assert answer.endswith("| []")


def test_a_full_disk_while_standard_input_is_kept_is_told(tmp_path):
    clip = media_clips.write_clip(tmp_path / "a.mkv", media_clips.smooth_frames(20))
    spool = tmp_path / "spool"
    spool.mkdir()

    def task() -> str:
        tempfile.tempdir = str(spool)
        sys.stdin = io.TextIOWrapper(io.BytesIO(clip.read_bytes()))
        limit_file_size(1000)
        try:
            frames.open_source("-")
        except OutputError as error:
            return f"{error} | {os.listdir(spool)}"
        return "opened"

    answer = in_child(task)
    assert "no space left to write" in answer
    assert answer.endswith("| []")


def test_whatever_a_source_raises_is_an_error_of_vidgen(tmp_path):
    """Random bytes behind every signature that is recognised."""
    generator = random.Random(0)
    heads = [
        b"\x1aE\xdf\xa3",
        b"RIFF\0\0\0\0AVI ",
        b"GIF89a",
        b"\0\0\0\x18ftypisom",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"BM",
        b"II*\0",
        b"P6\n9 9\n",
    ]
    for index in range(120):
        head = heads[index % len(heads)]
        path = tmp_path / ("a.png" if index % len(heads) > 3 else "a.mp4")
        path.write_bytes(head + generator.randbytes(generator.choice([1, 20, 500])))
        for reading in ("pictures", "labels"):
            with pytest.raises(VidgenError):
                list(frames.open_source(path, kind=reading))


# Silent shortness


def structured_clip(path: Path) -> Path:
    """24 frames; a fragmented file where the name says so."""
    codecs = {".gif": ("gif", "rgb8"), ".webm": ("libvpx-vp9", "yuv420p"), ".avi": ("mpeg4", "yuv420p")}
    codec, pixel_format = codecs.get(path.suffix, ("libx264", "yuv420p"))
    options = {"movflags": "frag_keyframe+empty_moov+default_base_moof"} if "fragments" in path.name else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=25, options={"g": "6"} if options else {})
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixel_format
        for index, picture in enumerate(media_clips.smooth_frames(24)):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format=pixel_format)
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def mangled(content: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Flipped bits, zeroed, repeated and missing stretches, early ends."""
    generator = random.Random(seed)
    for _ in range(count):
        data, place, length = bytearray(content), generator.randrange(len(content)), generator.randrange(1, 200)
        match generator.choice(["flip", "flip", "cut", "zero", "repeat"]):
            case "flip":
                for _ in range(generator.choice([1, 1, 2, 8])):
                    data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
            case "cut":
                del data[place:]
            case "zero":
                data[place : place + length] = bytes(len(data[place : place + length]))
            case "repeat":
                data[place:place] = data[place : place + length]
        yield bytes(data)


@pytest.mark.parametrize(("count", "seed"), [(40, 5), pytest.param(180, 2026, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["a.gif", "fragments.mp4", "a.mp4", "a.mkv", "a.webm", "a.avi"])
def test_no_damage_to_a_container_makes_a_video_shorter_in_silence(tmp_path, name, count, seed):
    path = structured_clip(tmp_path / name)
    copy = tmp_path / f"copy{path.suffix}"
    assert len(list(frames.open_source(path))) == 24
    short = []
    for index, content in enumerate(mangled(path.read_bytes(), count, seed)):
        copy.write_bytes(content)
        try:
            num_frames = len(list(frames.open_source(copy)))
        except InputError:
            continue
        if num_frames < 24:
            short.append((index, num_frames))
    # Encoders differ from one release to the next, and so do these files: one may be cut just between two fragments, which is no
    # damage that shows, or a flipped bit inside a compressed frame may make a decoder drop that frame.
    assert len(short) <= 1


def _changed(content: bytes, name: bytes, offset: int, value: int, *, last: bool = False) -> bytes:
    """The file with another byte, counted from the content of its first or last box of that name."""
    data = bytearray(content)
    data[(content.rindex if last else content.index)(name) + len(name) + offset] ^= value
    return bytes(data)


def _with_the_last_chunk_twice(content: bytes) -> bytes:
    """An AVI file in which the last picture was slipped in once more."""
    place = content.rindex(b"00dc", 0, content.rindex(b"idx1"))
    return content[:place] + content[place : content.rindex(b"idx1")] + content[place:]


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("a.mp4", lambda data: _changed(data, b"ctts", 8 * 10 + 4 + 1, 1), "23 of 24 frames .24 are stored"),
        ("a.mp4", lambda data: _changed(data, b"mvhd", 0, 1), "a header is cut short"),
        ("a.mp4", lambda data: _changed(data, b"tkhd", 0, 1), "a header is cut short"),
        ("a.mp4", lambda data: _changed(data, b"elst", 0, 1), "its list of edits is cut short"),
        ("fragments.mp4", lambda data: _changed(data, b"trun", 7, 2, last=True), "run of frames at byte [0-9]+ has an impossible"),
        ("fragments.mp4", lambda data: _changed(data, b"tfdt", 10, 0x24, last=True), "begins before the one before it ends"),
        ("fragments.mp4", lambda data: _changed(data, b"tfhd", 8, 0x80), "begins before the one before it ends"),
        ("a.webm", lambda data: re.sub(rb"\xa3(?=[\x89-\xff]\x81)", b"\xab", data, count=1), "number at byte [0-9]+ has"),
        ("a.avi", lambda data: _with_the_last_chunk_twice(data), "[0-9]+ bytes lie behind its end"),
    ],
)  # fmt: skip
def test_a_wrong_number_in_a_table_hides_no_frame_in_silence(tmp_path, name, change, reason):
    path = structured_clip(tmp_path / name)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DamagedVideoError, match=reason):
        list(frames.open_source(path))


def test_a_wrong_length_in_a_gif_joins_no_two_pictures_in_silence(tmp_path):
    path = structured_clip(tmp_path / "a.gif")
    data = bytearray(path.read_bytes())
    with open(path, "rb") as file:
        pictures = [block.start for block in integrity.gif_blocks(file) if block.kind == "picture"]
    for start, following in pairwise(pictures):
        last = place = _gif_parts(data, start)
        while data[place]:
            last, place = place, place + 1 + data[place]
        length = _gif_parts(data, following) - last - 1
        if length < 256:
            break
    data[last] = length
    path.write_bytes(data)
    with pytest.raises(DamagedVideoError, match=r"after 23 of 23 frames .the data of picture [0-9]+ run on behind its end"):
        list(frames.open_source(path))


def _gif_parts(data: bytes, start: int) -> int:
    """Where the first part of a picture's data begins."""
    return start + 11 + (3 * 2 ** ((data[start + 9] & 7) + 1) if data[start + 9] & 0x80 else 0)


def test_gif_data_in_parts_of_any_sizes_are_no_damage(tmp_path):
    path = structured_clip(tmp_path / "a.gif")
    data, parts = path.read_bytes(), bytearray()
    with open(path, "rb") as file:
        start = next(block.start for block in integrity.gif_blocks(file) if block.kind == "picture")
    first = place = _gif_parts(data, start)
    while size := data[place]:
        for part in (data[place + 1 : place + 1 + size // 3], data[place + 1 + size // 3 : place + 1 + size]):
            parts += bytes([len(part)]) + part
        place += 1 + size
    path.write_bytes(data[:first] + bytes(parts) + data[place:])
    assert len(list(frames.open_source(path))) == 24


def test_gif_blocks_that_end_without_a_trailer_are_damage(tmp_path):
    path = structured_clip(tmp_path / "a.gif")
    content = path.read_bytes()
    for damaged in (content[:-1], content[: len(content) // 2], content[:-1] + b"\0" * 50):
        path.write_bytes(damaged)
        with pytest.raises(DamagedVideoError, match="bytes are missing at the end"):
            list(frames.open_source(path))
    path.write_bytes(content + b"bytes behind the end")
    assert len(list(frames.open_source(path))) == 24
