"""Headless Chromium, driven through a pipe by its DevTools protocol: enough to open a page, ask it things and press its buttons."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

TIMEOUT_SECONDS = 60
# Chromium listens at descriptor 3 and answers at 4; both are first moved out of each other's way.
_START_WITH_PIPES = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
for place, end in enumerate(ends, start=3):
    os.dup2(end, place)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """A page in Chromium.

    Attributes:
        requests: addresses that the page asked for since it was opened, but for itself.
        complaints: what it wrote to the console as a warning or an error, and exceptions nobody caught.
        dialogs: kinds of the dialogs that it opened, such as "beforeunload"; all are accepted.
    """

    def __init__(self, folder: Path, options: Sequence[str] = ()) -> None:
        to_browser, self._to = os.pipe()
        self._from, from_browser = os.pipe()
        command = [
            shutil.which("chromium") or "chromium",
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--remote-debugging-pipe",
            f"--user-data-dir={folder}",
            *options,
        ]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START_WITH_PIPES, str(to_browser), str(from_browser), *command],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        os.set_blocking(self._from, False)
        self._buffer, self._number, self._session = b"", 0, None
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.dialogs: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        os.close(self._to)
        os.close(self._from)
        self._process.terminate()
        self._process.wait(TIMEOUT_SECONDS)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command, and its answer; events that come meanwhile are noted."""
        number = self._send(method, parameters)
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self._note(answer)

    def _send(self, method: str, parameters: dict[str, Any]) -> int:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        return self._number

    def _receive(self) -> dict[str, Any]:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while b"\0" not in self._buffer:
            assert self._process.poll() is None, "Chromium ended"
            assert time.monotonic() < deadline, "Chromium does not answer"
            try:
                self._buffer += os.read(self._from, 1 << 20)
            except BlockingIOError:
                time.sleep(0.01)
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        kind, details = event.get("method"), event.get("params", {})
        if kind == "Network.requestWillBeSent":
            if not (address := details["request"]["url"]).startswith("data:"):
                self.requests.append(address)
        elif kind == "Page.javascriptDialogOpening":
            self.dialogs.append(details["type"])
            self._send("Page.handleJavaScriptDialog", {"accept": True})
        elif kind == "Runtime.exceptionThrown":
            self.complaints.append(str(details["exceptionDetails"]))
        elif kind == "Log.entryAdded" and details["entry"]["level"] in ("warning", "error"):
            self.complaints.append(details["entry"]["text"])
        elif kind == "Runtime.consoleAPICalled" and details["type"] in ("warning", "error", "assert"):
            self.complaints.append(str(details["args"]))

    def open(self, page: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Show a file, and wait until its videos show their first frame."""
        self.resize(width, height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=page.as_uri())
        self.wait("document.readyState === 'complete' && [...document.querySelectorAll('video')].every((v) => v.readyState >= 2)")
        self.requests = [address for address in self.requests if address != page.as_uri()]

    def resize(self, width: int, height: int) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def ask(self, script: str) -> Any:
        """The value of an expression; a promise is waited for."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, script: str) -> None:
        """Until an expression holds."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not self.ask(script):
            assert time.monotonic() < deadline, f"never holds: {script}"
            time.sleep(0.05)

    def press(self, key: str) -> None:
        """One key, at whatever has the focus."""
        text = {"text": "\r" if key == "Enter" else key} if len(key) == 1 or key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code="Space" if key == " " else key, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code="Space" if key == " " else key)

    def click(self, x: float, y: float) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def screenshot(self, file: Path, *, whole: bool = True) -> None:
        height = self.ask("document.documentElement.scrollHeight")
        width = self.ask("innerWidth")
        clip = {"clip": {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}} if whole else {}
        data = self.call("Page.captureScreenshot", captureBeyondViewport=whole, **clip)["data"]
        file.write_bytes(base64.b64decode(data))


@contextmanager
def browser(folder: Path, options: Sequence[str] = ()) -> Iterator[Browser]:
    """A browser for as long as the block runs; skips where there is none."""
    if shutil.which("chromium") is None:
        pytest.skip("chromium is not installed (apt-get install chromium)")
    found = Browser(folder, options)
    try:
        yield found
    finally:
        found.close()
