"""Translate a camera or a stream as it comes."""

from __future__ import annotations

import logging
import sys
import threading
import time
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vidgen import durable
from vidgen.commands.translate import input_table
from vidgen.errors import ConfigError, InputError
from vidgen.inference.backends.choice import BackendName
from vidgen.inference.live import Latest, Live, LivePicture
from vidgen.inference.model import Model
from vidgen.inference.session import WorkSize
from vidgen.media.cameras import STANDARD_INPUT, live_frames
from vidgen.media.frames import open_sink, output_place, sidecar_path, sidecar_place
from vidgen.pages.live import LOCALHOST, LivePage
from vidgen.threads import BackgroundWriter

if TYPE_CHECKING:
    from vidgen.labeling.conditions import Kind
    from vidgen.labeling.stream import Prepare
    from vidgen.runtime import Precision

log = logging.getLogger(__name__)

PAGE_CAMERA = "page"
_LABEL = "vidgen label writes such a file beside its label maps"
_TIME_BASE = Fraction(1, 1000)
_SHOW_EVERY_SECONDS = 2.0


def live(
    model: Path,
    source: str,
    *,
    out: str | None = None,
    host: str = LOCALHOST,
    port: int = 8321,
    labels: str | None = None,
    kind: Kind | None = None,
    head: Path | None = None,
    weights: Path | None = None,
    work_size: WorkSize = "auto",
    time_limit: float | None = None,
    device: str = "auto",
    precision: Precision | None = None,
    threads: int | None = None,
    backend: BackendName = "auto",
    seed: int = 0,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Translate a stream until it ends, the time is over, or the user interrupts it.

    Args:
        source: `camera`, `camera:N`, a file (at its own speed), `-` (a video on standard input), or `page`: the camera of the
            browser that opens the page.
        out: nothing for a page in the browser; a video file; `-` for raw RGB frames on standard output.
        kind: what to draw of each frame first, for models of such drawings.
        head: label each frame first with this file, which `vidgen label` writes, for models of label maps.
        weights: what finds the people to draw; see `vidgen.labeling.estimators`.
        host, port: where the page is; other addresses than this machine's own need the token that its address shows.
        time_limit: seconds.

    Returns:
        frames, frame rate and latency.

    Raises:
        InputError: the stream cannot be read, breaks off or stops.
        ConfigError: the model does not fit a stream, or the address cannot be listened on.
    """
    if source == PAGE_CAMERA and out is not None:
        raise ConfigError("`source` page: the picture goes back to the page, not to a file or standard output")
    broken: InputError | None = None
    with ExitStack() as stack:
        claim = None
        if out is not None and out != STANDARD_INPUT:
            files = [Path(source)] if Path(source).exists() else []
            claim = stack.enter_context(durable.claim([output_place(out), sidecar_place(out)], inputs=files, overwrite=overwrite))
        loaded = Model.load(model, device=device, precision=precision or "auto", backend=backend, threads=threads)
        stopping = threading.Event()
        prepare = _preparation(loaded, model, labels, kind, head, weights, work_size)
        reads: Literal["labels", "pictures"] = "labels" if loaded.condition.labels is not None and prepare is None else "pictures"
        page: LivePage | None = None
        if out is None:
            page = LivePage(
                host,
                port,
                title=f"{loaded.kind} {model.name}",
                runtime=loaded.backend.describe(),
                statistics=lambda: {**running.meter.describe(), "skipped": running.num_skipped},
                camera_size=loaded.trained_size if source == PAGE_CAMERA else None,
            )
            stack.callback(page.close)
        if page is not None and source == PAGE_CAMERA:
            if reads == "labels":
                raise ConfigError(
                    f"{model}: reads label maps, and the camera of a page gives pictures", hint=f"label them with `head`: {_LABEL}"
                )
            frames, patience = page.frames(), None
        else:
            frames, patience = live_frames(source, kind=reads, stop=stopping), 10.0
        running = Live(
            loaded,
            frames,
            seed=seed,
            table=input_table(labels, loaded),
            work_size=work_size,
            prepare=prepare,
            patience=patience,
        )
        deliver = _delivery(stack, out, page, claim, running)
        if page is not None:
            log.warning("live at %s", page.address)
        timer = threading.Timer(time_limit, running.stop) if time_limit is not None else None
        if timer is not None:
            timer.daemon = True
            timer.start()
            stack.callback(timer.cancel)
        try:
            running.run(_reporting(deliver, running))
        except KeyboardInterrupt:
            log.info("stopped")
        except InputError as error:
            if claim is None or not running.meter.num_frames:
                raise
            broken = error  # what came before is worth keeping
        finally:
            stopping.set()
            running.stop()
    result = {
        "source": source,
        "ended": str(broken) if broken is not None else "as asked for",
        "output": out or "page",
        **running.meter.describe(),
        "skipped": running.num_skipped,
        "runtime": loaded.backend.describe(),
        "backend": loaded.choice.to_dict(),
    }
    if claim is not None and out is not None:
        durable.write_json(sidecar_path(out), result)
    if broken is not None:
        raise InputError(f"{broken}; the frames before are in {out}")
    if out == STANDARD_INPUT:
        log.warning("%s frames, %s frames/s", result["frames"], result["mean_frames_per_second"])
    return result


def _preparation(
    loaded: Model, model: Path, labels: str | None, kind: Kind | None, head: Path | None, weights: Path | None, work_size: WorkSize
) -> Prepare | None:
    """What turns a frame of the stream into what the model reads; None where that is the frame itself."""
    if kind is None and head is None:
        if weights is not None:
            raise ConfigError(
                "`weights`: finds people to draw, and nothing is to be drawn", hint="say what with `kind`, such as pose"
            )
        return None
    from vidgen.labeling.conditions import ConditionSettings
    from vidgen.labeling.stream import StreamDrawer, StreamLabeler  # it loads torch, which an exported graph does without

    if kind is not None and head is not None:
        raise ConfigError("`kind` and `head`: a frame is drawn or labeled, not both")
    if head is not None:
        if loaded.table is None:
            raise ConfigError(f"`head` {head}: labels frames, and {model} reads no label maps")
        if labels is not None:
            raise ConfigError("`labels`: says how a stream of label maps stores classes, and `head` makes them here")
        return StreamLabeler(head, loaded.table, lambda size: loaded.working_size(size, work_size), weights)
    assert kind is not None
    if loaded.table is not None:
        raise ConfigError(f"`kind` {kind}: draws frames, and {model} reads label maps", hint=f"label them with `head`: {_LABEL}")
    if loaded.condition.edges is not None:
        raise ConfigError(f"`kind` {kind}: {model} finds the edges of the stream itself; leave it out")
    return StreamDrawer(ConditionSettings(kind), weights)


def _delivery(stack: ExitStack, out: str | None, page: LivePage | None, claim: durable.Claim | None, running: Live) -> Any:
    """The function that takes each picture to where it goes."""
    if page is not None:
        return page.show
    if out == STANDARD_INPUT:
        return stack.enter_context(_RawFrames(running)).newest.put
    assert out is not None
    sink = stack.enter_context(open_sink(out, time_base=_TIME_BASE, frame_rate=Fraction(30), claim=claim))
    first: list[float] = []
    last = [-1]

    def write(picture: LivePicture) -> None:
        first[:] = first or [picture.captured]
        last[0] = max(last[0] + 1, round((picture.captured - first[0]) / float(_TIME_BASE)))
        sink.write(picture.pixels, last[0])

    return stack.enter_context(BackgroundWriter(write)).put


class _RawFrames:
    """RGB bytes on standard output, by a thread: a slow reader gets the newest picture, one that is gone ends the stream."""

    def __init__(self, running: Live) -> None:
        self.newest: Latest[LivePicture] = Latest()
        self._running = running
        self._thread = threading.Thread(target=self._write, name="vidgen-raw", daemon=True)

    def __enter__(self) -> _RawFrames:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.newest.close()
        self._thread.join(5)

    def _write(self) -> None:
        is_first = True
        try:
            while (picture := self.newest.take()) is not None:
                if is_first:
                    height, width = picture.pixels.shape[:2]
                    log.warning("raw frames: ffmpeg -f rawvideo -pix_fmt rgb24 -s %dx%d -framerate 25 -i - ...", width, height)
                    is_first = False
                sys.stdout.buffer.write(picture.pixels.tobytes())
                sys.stdout.buffer.flush()
        except OSError:
            self._running.stop()


def _reporting(deliver: Any, running: Live) -> Any:
    """`deliver`, with a line of numbers now and then."""
    shown = [time.monotonic()]

    def deliver_and_report(picture: LivePicture) -> None:
        deliver(picture)
        if time.monotonic() - shown[0] >= _SHOW_EVERY_SECONDS:
            shown[0] = time.monotonic()
            now = running.meter.describe()
            log.info(
                "%s frames, %s frames/s, latency p95 %s ms, %d skipped",
                *(now[name] for name in ("frames", "frames_per_second", "latency_ms_p95")),
                running.num_skipped,
            )

    return deliver_and_report
