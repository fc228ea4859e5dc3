"""Live translation: the newest frame wins, nobody slow holds it up, and what goes wrong is one line."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests import chromium
from tests.exporting import CASES, write_model
from vidgen.commands import live as command
from vidgen.errors import ConfigError, InputError
from vidgen.inference.live import Latest, Live, LivePicture
from vidgen.inference.model import Model
from vidgen.labeling.conditions import ConditionSettings
from vidgen.labeling.head import FrameFeatures, train_head
from vidgen.labeling.stream import StreamDrawer, StreamLabeler
from vidgen.media.cameras import LiveFrame, decode_picture
from vidgen.media.drawings import line_art
from vidgen.media.frames import open_sink, open_source
from vidgen.media.labels import LabelTable
from vidgen.pages.live import LivePage, encode_jpeg

REPOSITORY = Path(__file__).resolve().parents[1]
SIZE = (32, 48)
EDGES = ({"kind": "pix2pix", "generator": CASES["pix2pix, ResNet"][0]["generator"]}, {"edges": {"low": 50, "high": 100}}, SIZE)


def live(model: Path, source: str, **options: Any) -> dict[str, Any]:
    """On torch, which needs no exported graph."""
    return command.live(model, source, backend="torch", **options)


@pytest.fixture(scope="module")
def edges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of edges, which it finds in the stream by itself."""
    return write_model(tmp_path_factory.mktemp("live") / "edges.safetensors", *EDGES)


def picture(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A square that moves over a dark ground."""
    pixels = np.full((*size, 3), 20, np.uint8)
    left = number * 3 % (size[1] - 12)
    pixels[8:20, left : left + 12] = (250, 200, 40)
    return pixels


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of video."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with open_sink(path, time_base=Fraction(1, 25), frame_rate=Fraction(25)) as sink:
        for number in range(50):
            sink.write(picture(number), number)
    return path


def frames_of(*pictures: np.ndarray, pause: float = 0.0) -> Iterator[LiveFrame]:
    for number, pixels in enumerate(pictures):
        if number:
            time.sleep(pause)
        yield LiveFrame(pixels, time.monotonic(), f"frame {number}")


def test_the_newest_item_wins_and_errors_come_through() -> None:
    latest: Latest[int] = Latest()
    for number in range(5):
        latest.put(number)
    assert (latest.take(), latest.num_replaced) == (4, 4)
    with pytest.raises(TimeoutError):
        latest.take(0.01)
    latest.close(InputError("unplugged"))
    with pytest.raises(InputError, match="unplugged"):
        latest.take()


def test_a_slow_network_skips_frames_instead_of_lagging(edges: Path) -> None:
    running = Live(Model.load(edges), frames_of(*(picture(number) for number in range(60)), pause=0.005))
    seen: list[LivePicture] = []

    def slow(result: LivePicture) -> None:
        seen.append(result)
        time.sleep(0.05)

    running.run(slow)
    assert running.num_skipped > 20
    assert len(seen) + running.num_skipped == 60
    assert [result.number for result in seen] == list(range(len(seen)))
    numbers = running.meter.describe()
    assert numbers["frames"] == len(seen)
    assert numbers["latency_ms_p95"] >= numbers["latency_ms_median"] > 0


def test_a_stream_that_changes_its_size_goes_on(edges: Path, caplog: pytest.LogCaptureFixture) -> None:
    running = Live(Model.load(edges), frames_of(picture(0), picture(1, (64, 80)), pause=0.3))
    shapes: list[tuple[int, ...]] = []
    running.run(lambda result: shapes.append(result.pixels.shape))
    assert shapes == [(*SIZE, 3)] * 2
    assert "is 80x64 now; it is brought to the 48x32 it began with" in caplog.text


def test_a_stream_that_stops_is_said_after_a_while(edges: Path) -> None:
    released = threading.Event()

    def stops() -> Iterator[LiveFrame]:
        yield from frames_of(picture(0))
        released.wait(30)

    running = Live(Model.load(edges), stops(), patience=1.0)
    with pytest.raises(InputError, match="the stream sent no frame for 1 s, after 1 frames"):
        running.run(lambda result: None)
    released.set()


def test_a_camera_that_breaks_off_is_said(edges: Path) -> None:
    def unplugged() -> Iterator[LiveFrame]:
        yield from frames_of(picture(0))
        raise InputError("camera: stopped sending after 1 frames; was it unplugged?")

    with pytest.raises(InputError, match="unplugged"):
        Live(Model.load(edges), unplugged()).run(lambda result: None)


def test_a_missing_camera_and_unfit_requests_are_one_clear_line(edges: Path, clip: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"camera:77: there is no camera /dev/video77 here \(cameras: "):
        live(edges, "camera:77", out=str(tmp_path / "out.mp4"))
    assert list(tmp_path.iterdir()) == []
    not_a_camera = tmp_path / "not-a-camera"
    not_a_camera.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"camera:.*not-a-camera: cannot be opened"):
        live(edges, f"camera:{not_a_camera}", out=str(tmp_path / "out.mp4"))
    with pytest.raises(ConfigError, match="the picture goes back to the page"):
        live(edges, "page", out=str(tmp_path / "out.mp4"))
    several = write_model(tmp_path / "several.safetensors", EDGES[0], {"pictures": ["a"], "edges": {}}, SIZE)
    with pytest.raises(InputError, match="reads a and edges for each frame, and a stream is one input"):
        live(several, str(clip), out=str(tmp_path / "out.mp4"))
    labels = write_model(tmp_path / "labels.safetensors", EDGES[0], {"labels": {"num_classes": 4}}, SIZE)
    with pytest.raises(ConfigError, match="reads label maps, and the camera of a page gives pictures"):
        live(labels, "page", port=0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match=r"cannot listen on 127\.0\.0\.1"):
            live(edges, str(clip), port=taken.getsockname()[1])


def test_a_file_goes_to_a_file_at_its_own_speed_and_the_numbers_are_written(edges: Path, clip: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    result = live(edges, str(clip), out=str(tmp_path / "out.mp4"))
    assert time.monotonic() - started > 1.9
    written = json.loads((tmp_path / "out.mp4.json").read_text())
    assert written["frames"] == result["frames"] > 5
    assert written["frames"] + written["skipped"] == 50
    assert written["latency_ms_p95"] > 0
    assert written["backend"]["backend"] == "torch"
    read = list(open_source(tmp_path / "out.mp4"))
    assert len(read) == result["frames"]
    assert read[0].pixels.shape == (*SIZE, 3)


LINES = (EDGES[0], {"pictures": ["lines"]}, SIZE)
CLASSES = (EDGES[0], {"labels": {"num_classes": 2}}, SIZE)


def test_a_stream_is_drawn_as_a_clip_is_before_it_is_translated(tmp_path: Path) -> None:
    model = Model.load(write_model(tmp_path / "lines.safetensors", *LINES))
    shown: list[np.ndarray] = []
    drawer = StreamDrawer(ConditionSettings("lines"))
    Live(model, frames_of(picture(3)), prepare=drawer).run(lambda result: shown.append(result.pixels))
    expected = np.repeat(line_art(picture(3))[..., None], 3, axis=2)
    assert (shown[0] == model.session(SIZE).step(expected)).all()


def test_a_stream_is_labeled_by_a_head_in_the_words_of_the_model(tmp_path: Path) -> None:
    first = picture(3)
    ours = LabelTable(("ground", "square"), ((0, 0, 0), (255, 255, 0)), (0, 1))
    place = tmp_path / "labels.head.safetensors"
    train_head([(first, (first[..., 0] > 100).astype(np.int64))], ours, FrameFeatures.load()).save(place)
    theirs = LabelTable(("square", "sky", "ground"), ((1, 1, 1), (2, 2, 2), (3, 3, 3)), (7, 8, 9))
    labeler = StreamLabeler(place, theirs, lambda size: size)
    for number in range(3, 7):
        ids = labeler(picture(number))
        assert np.isin(ids, (7, 9)).all()
        truth = np.where(picture(number)[..., 0] > 100, 7, 9)
        assert (ids == truth).mean() > 0.95
    assert labeler(picture(3, (64, 80))).shape == (64, 80)  # a stream may change its size
    with pytest.raises(ConfigError, match="finds the class ground, which the model does not know; it knows square"):
        StreamLabeler(place, LabelTable(("square",), ((1, 1, 1),), (7,)), lambda size: size)
    labels = write_model(tmp_path / "labels.safetensors", *CLASSES)
    with pytest.raises(ConfigError, match="the model does not know; it knows"):
        live(labels, "page", head=place, port=0)


def test_what_does_not_fit_the_preparation_of_a_stream_is_one_clear_line(edges: Path, clip: Path, tmp_path: Path) -> None:
    labels, lines = write_model(tmp_path / "labels.safetensors", *CLASSES), write_model(tmp_path / "lines.safetensors", *LINES)
    for model, options, message in (
        (lines, {"kind": "pose"}, "is drawn from people, and a stream has no points"),
        (lines, {"weights": tmp_path / "wheel"}, "nothing is to be drawn"),
        (lines, {"head": tmp_path / "head"}, "reads no label maps"),
        (lines, {"kind": "lines", "head": tmp_path / "head"}, "drawn or labeled, not both"),
        (labels, {"kind": "lines"}, "reads label maps"),
        (labels, {"head": tmp_path / "head", "labels": "ids"}, "`head` makes them here"),
        (edges, {"kind": "lines"}, "finds the edges of the stream itself"),
    ):
        with pytest.raises((ConfigError, InputError), match=message):
            live(model, str(clip), out=str(tmp_path / "out.mp4"), **options)
    assert not (tmp_path / "out.mp4").exists()


def test_raw_frames_go_to_standard_output_and_nothing_else_does(edges: Path, clip: Path) -> None:
    command = [sys.executable, "-m", "vidgen", "live", str(edges), "--source", "-", "-o", "-", "--backend", "torch"]
    with clip.open("rb") as stream:
        done = subprocess.run(
            command, stdin=stream, capture_output=True, cwd=REPOSITORY, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=100
        )
    assert done.returncode == 0, done.stderr
    count, rest = divmod(len(done.stdout), SIZE[0] * SIZE[1] * 3)
    assert count > 0
    assert rest == 0
    assert b"-pix_fmt rgb24 -s 48x32" in done.stderr


def test_a_stream_that_breaks_off_keeps_what_came_and_one_without_frames_leaves_nothing(
    edges: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks_off(*_: object, **__: object) -> Iterator[LiveFrame]:
        yield from frames_of(*(picture(number) for number in range(5)), pause=0.1)
        raise InputError("camera: broke off after 5 frames")

    monkeypatch.setattr("vidgen.commands.live.live_frames", breaks_off)
    with pytest.raises(InputError, match=r"broke off after 5 frames; the frames before are in .*kept\.mp4"):
        live(edges, "camera", out=str(tmp_path / "kept.mp4"))
    assert len(list(open_source(tmp_path / "kept.mp4"))) >= 3
    command = [sys.executable, "-m", "vidgen", "live", str(edges), "--source", "-", "-o", str(tmp_path / "out.mp4")]
    done = subprocess.run(
        [*command, "--backend", "torch"],
        input=clip.read_bytes()[:700],
        capture_output=True,
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=100,
    )
    assert done.returncode == 2
    assert done.stderr.decode().startswith("error: ")
    assert len(done.stderr.decode().splitlines()) == 1
    assert not (tmp_path / "out.mp4").exists()


@contextmanager
def served(host: str = "127.0.0.1", camera_size: tuple[int, int] | None = None) -> Iterator[LivePage]:
    page = LivePage(host, 0, title="a model", runtime="torch", statistics=lambda: {"frames": 3}, camera_size=camera_size)
    try:
        yield page
    finally:
        page.close()


def _get(page: LivePage, path: str, **headers: str) -> bytes:
    request = urllib.request.Request(f"http://127.0.0.1:{page.port}{path}", headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        content: bytes = answer.read()
    return content


def test_the_page_answers_to_this_machine_by_its_own_names_alone() -> None:
    with served() as page:
        assert json.loads(_get(page, "/stats")) == {"frames": 3}
        assert b"a model" in _get(page, "/", Host=f"localhost:{page.port}")
        for host in ("evil.example", "evil.example:8321", ""):
            with pytest.raises(urllib.error.HTTPError, match="403"):
                _get(page, "/stats", Host=host)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            _get(page, "/other")


def test_other_addresses_need_the_token() -> None:
    with served("0.0.0.0") as page:
        assert len(page.token) > 16
        assert page.token in page.address
        for path in ("/", "/stats", "/stream", "/stats?token=", "/stats?token=wrong"):
            with pytest.raises(urllib.error.HTTPError, match="403"):
                _get(page, path)
        assert json.loads(_get(page, f"/stats{page.query}")) == {"frames": 3}


def test_a_page_of_another_origin_cannot_send_frames() -> None:
    with served(camera_size=SIZE) as page:
        content = encode_jpeg(picture(0))
        for headers, data, code in (
            ({}, content, 404),
            ({"X-Vidgen": "frame"}, b"no picture", 400),
            ({"X-Vidgen": "frame"}, b"", 413),
        ):
            request = urllib.request.Request(f"http://127.0.0.1:{page.port}/frame", data, headers, method="POST")
            with pytest.raises(urllib.error.HTTPError, match=str(code)):
                urllib.request.urlopen(request, timeout=10)


def test_a_client_that_reads_slowly_misses_pictures_and_holds_up_nobody() -> None:
    noise = np.random.RandomState(0)
    with served() as page:
        slow = socket.create_connection(("127.0.0.1", page.port))
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.sendall(f"GET /stream HTTP/1.1\r\nHost: 127.0.0.1:{page.port}\r\n\r\n".encode())
        quick = urllib.request.urlopen(f"http://127.0.0.1:{page.port}/stream", timeout=10)
        slowest, received = 0.0, 0
        for number in range(40):
            pixels = noise.randint(0, 255, (240, 320, 3)).astype(np.uint8)
            started = time.monotonic()
            page.show(LivePicture(pixels, started, number))
            slowest = max(slowest, time.monotonic() - started)
            while not quick.readline().startswith(b"Content-Length"):
                pass
            quick.readline()
            received += 1
            time.sleep(0.01)
        assert received == 40
        assert slowest < 0.5
        slow.close()
        quick.close()


def test_a_picture_survives_the_way_through_jpeg() -> None:
    decoded = decode_picture(encode_jpeg(picture(4)), "a frame")
    assert np.abs(decoded.astype(int) - picture(4)).mean() < 6
    with pytest.raises(InputError, match="is no JPEG picture"):
        decode_picture(b"GIF89a", "a frame")


_PIXELS = """(() => {
  const image = document.getElementById("picture"), canvas = document.createElement("canvas");
  if (!image.naturalWidth) return "";
  canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  return [...context.getImageData(0, 0, canvas.width, canvas.height).data.slice(0, 40000)].join();
})()"""


@contextmanager
def _live_process(model: Path, source: str, seconds: int = 60) -> Iterator[str]:
    """A running `vidgen live`, and the address of its page."""
    command = [sys.executable, "-m", "vidgen", "live", str(model), "--source", source, "--port", "0", "--backend", "torch"]
    process = subprocess.Popen(
        [*command, "--time-limit", f"{seconds}s"],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        yield next(line.split()[-1] for line in lines if "live at http" in line)
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.browser
def test_the_page_shows_moving_pictures_with_their_rate(edges: Path, data_root: Path, tmp_path: Path) -> None:
    with chromium.browser(tmp_path / "profile") as page, _live_process(edges, str(data_root / "video" / "drive.mp4")) as address:
        page.call("Page.navigate", url=address)
        page.wait("document.getElementById('picture')?.naturalWidth > 0")
        first = page.ask(_PIXELS)
        page.wait("document.getElementById('numbers').textContent.includes('latency p95')")
        page.wait(f"{_PIXELS} !== {json.dumps(first)}")
        assert page.complaints == []
        assert all(request.startswith(address) for request in page.requests)


@pytest.mark.browser
def test_the_camera_of_the_page_is_translated_and_its_round_trip_shown(edges: Path, tmp_path: Path) -> None:
    camera = tmp_path / "camera.mjpeg"
    camera.write_bytes(b"".join(cv2.imencode(".jpg", picture(number, (96, 144)))[1].tobytes() for number in range(40)))
    options = (
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={camera}",
    )
    with chromium.browser(tmp_path / "profile", options) as page, _live_process(edges, "page") as address:
        page.call("Page.navigate", url=address)
        page.wait("document.getElementById('numbers')?.textContent.includes('camera to picture p95')")
        first = page.ask(_PIXELS)
        page.wait(f"{_PIXELS} !== {json.dumps(first)}")
        assert page.complaints == []
