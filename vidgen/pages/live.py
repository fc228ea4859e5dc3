"""The page of a live translation: a small server for a browser on this machine, and with a token for others."""

from __future__ import annotations

import hmac
import ipaddress
import json
import secrets
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2
import numpy as np

from vidgen.errors import ConfigError, InputError
from vidgen.inference.live import Latest, LivePicture
from vidgen.media.cameras import LiveFrame, decode_picture
from vidgen.pages.templates import render

LOCALHOST = "127.0.0.1"
_QUALITY = 90
_BOUNDARY = "vidgen-frame"
_MAX_FRAME_BYTES = 16 * 2**20
_SLOWEST_SECONDS = 10.0
"""A client that takes no byte for so long is let go."""


class LivePage:
    """Serves the newest picture to any number of browsers, and takes frames from a page's camera.

    A slow browser misses pictures and holds up nobody. From this machine no token is needed, but requests must name it by its
    address or as localhost, so that no other page can reach it under a name of its own; on other addresses every request needs
    the token.

    Args:
        title, runtime: what the page says of the model.
        statistics: gives the numbers that it shows.
        camera_size: (height, width) of the frames to ask the page's camera for; None where the frames come from elsewhere.

    Raises:
        ConfigError: the address cannot be listened on.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        title: str,
        runtime: str,
        statistics: Callable[[], dict[str, Any]],
        camera_size: tuple[int, int] | None = None,
    ) -> None:
        self.is_local = _is_local(host)
        self.token = "" if self.is_local else secrets.token_urlsafe(16)
        self.title, self.runtime, self.statistics, self.camera_size = title, runtime, statistics, camera_size
        self.sent: Latest[LiveFrame] = Latest()
        self.newest: LivePicture | None = None
        self.changed = threading.Condition()
        self.is_closed = False
        self._jpeg: tuple[int, bytes] = (-1, b"")
        try:
            self._server = _Server((host, port), self)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(
                f"`port` {port}: cannot listen on {host} ({reason})", hint="choose another port, or 0 for any free one"
            ) from error
        self.port: int = self._server.server_address[1]
        self.host = host
        threading.Thread(target=self._server.serve_forever, name="vidgen-page", daemon=True).start()

    @property
    def query(self) -> str:
        """What every address ends with."""
        return f"?token={self.token}" if self.token else ""

    @property
    def address(self) -> str:
        """Where the page is."""
        host = socket.gethostname() if self.host in ("0.0.0.0", "::") else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/{self.query}"

    def show(self, picture: LivePicture) -> None:
        """Offer a picture to all browsers."""
        with self.changed:
            self.newest = picture
            self.changed.notify_all()

    def frames(self) -> Iterator[LiveFrame]:
        """What the page's camera sends."""
        while (frame := self.sent.take()) is not None:
            yield frame

    def close(self) -> None:
        """Let all browsers go."""
        with self.changed:
            self.is_closed = True
            self.changed.notify_all()
        self.sent.close()
        self._server.shutdown()
        self._server.server_close()

    def next_picture(self, seen: int, timeout: float) -> LivePicture | None:
        """The newest picture after number `seen`; None if none comes, or no more will."""
        with self.changed:
            self.changed.wait_for(lambda: self.is_closed or (self.newest is not None and self.newest.number > seen), timeout)
            return None if self.newest is None or self.newest.number <= seen else self.newest

    def picture_of(self, captured: float, timeout: float) -> LivePicture | None:
        """The first picture of a frame that was captured then or later."""
        with self.changed:
            self.changed.wait_for(lambda: self.is_closed or (self.newest is not None and self.newest.captured >= captured), timeout)
            return None if self.newest is None or self.newest.captured < captured else self.newest

    def jpeg(self, picture: LivePicture) -> bytes:
        """As a file; encoded once, however many look at it."""
        number, content = self._jpeg
        if number != picture.number:
            content = encode_jpeg(picture.pixels)
            self._jpeg = (picture.number, content)
        return content


def encode_jpeg(pixels: np.ndarray) -> bytes:
    """uint8 [H,W,3] RGB as a JPEG file."""
    _, content = cv2.imencode(".jpg", np.ascontiguousarray(pixels[:, :, ::-1]), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return content.tobytes()


def _is_local(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], page: LivePage) -> None:
        self.page = page
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle is no fault."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _SLOWEST_SECONDS
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "vidgen", ""

    def do_GET(self) -> None:
        page, path = self.server.page, urllib.parse.urlsplit(self.path).path
        if not self._may():
            return
        if path == "/":
            nonce = secrets.token_urlsafe(16)
            height, width = page.camera_size or (0, 0)
            text = render(
                "live.html.j2",
                model=page.title,
                runtime=page.runtime,
                camera=page.camera_size is not None,
                query=page.query,
                nonce=nonce,
                width=width,
                height=height,
            )
            policy = (
                f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'unsafe-inline'; img-src 'self' blob: data:; "
                "media-src blob: mediastream:; connect-src 'self'; frame-ancestors 'none'"
            )
            self._answer(text.encode(), "text/html; charset=utf-8", policy=policy)
        elif path == "/stats":
            self._answer(json.dumps(page.statistics()).encode(), "application/json")
        elif path == "/stream":
            self._stream()
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        page = self.server.page
        if not self._may():
            return
        length = self.headers.get("Content-Length", "")
        # A header of our own, which pages of other origins may not send without being asked first.
        if urllib.parse.urlsplit(self.path).path != "/frame" or page.camera_size is None or "X-Vidgen" not in self.headers:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        if not length.isdecimal() or not 0 < int(length) <= _MAX_FRAME_BYTES:
            self.close_connection = True
            self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        content, captured = self.rfile.read(int(length)), time.monotonic()
        try:
            pixels = decode_picture(content, "the page's frame")
        except InputError as error:
            self._answer(str(error).encode(), "text/plain; charset=utf-8", status=HTTPStatus.BAD_REQUEST)
            return
        page.sent.put(LiveFrame(pixels, captured, "the page's camera"))
        picture = page.picture_of(captured, 60)
        if picture is None:
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE)
            return
        self._answer(page.jpeg(picture), "image/jpeg")

    def log_message(self, *_: Any) -> None:
        """Requests are not worth a line each."""

    def _may(self) -> bool:
        """Whether the request may be answered; one that may not gets its answer here."""
        page = self.server.page
        if page.token:
            given = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query).get("token", [""])[0]
            if hmac.compare_digest(given.encode(), page.token.encode()):
                return True
            self.send_error(HTTPStatus.FORBIDDEN, "the address needs its token")
            return False
        name = urllib.parse.urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
        if _is_local(name):
            return True
        self.send_error(HTTPStatus.FORBIDDEN, "this server answers to localhost alone")
        return False

    def _answer(self, content: bytes, kind: str, *, status: HTTPStatus = HTTPStatus.OK, policy: str | None = None) -> None:
        self.send_response(status)
        everything = {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }
        if policy is not None:
            everything["Content-Security-Policy"] = policy
        for name, value in everything.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _stream(self) -> None:
        page, seen = self.server.page, -1
        self.close_connection = True
        self.connection.settimeout(_SLOWEST_SECONDS)
        # A small buffer, so that a slow reader is noticed at once and gets the newest picture next, not old ones.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        while not page.is_closed:
            picture = page.next_picture(seen, 1)
            if picture is None:
                continue
            seen, content = picture.number, page.jpeg(picture)
            head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(content)}\r\n\r\n"
            self.wfile.write(head.encode() + content + b"\r\n")
