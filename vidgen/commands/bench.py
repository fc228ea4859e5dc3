"""How fast a model runs here: backend by precision by size."""

from __future__ import annotations

import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vidgen.errors import ConfigError, VidgenError
from vidgen.inference.backends import choice
from vidgen.inference.backends.choice import BackendName
from vidgen.inference.backends.graphs import TITLES, default_threads, engine_version
from vidgen.inference.model import GRAPH_SUFFIX, Model
from vidgen.media import images

log = logging.getLogger(__name__)

WAYS: tuple[tuple[BackendName, str], ...] = (
    ("torch", "fp32"),
    ("torch", "bf16"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("onnxruntime", "fp32"),
)
_CHILD = "import json, sys; from vidgen.commands.bench import row; print(json.dumps(row(**json.loads(sys.argv[1]))))"


def bench(model: Path, *, sizes: Sequence[str] = (), num_frames: int = 10, threads: int | None = None) -> dict[str, Any]:
    """Measure every backend that is installed, each in a process of its own, since their threads would fight for the cores.

    Args:
        sizes: WxH; that of the training by default.
        num_frames: timed after two that are not.

    Returns:
        the processor, and for each row: milliseconds a frame (median), frames per second, peak memory, and the mean difference
        of the second frame to torch in fp32, in levels of 255.

    Raises:
        ConfigError: a size is not understood, or no backend could run the model.
    """
    is_graph = model.suffix.lower() == GRAPH_SUFFIX
    ways = [way for way in WAYS if engine_version(way[0]) is not None and not (is_graph and way[0] == "torch")]
    if not is_graph and len(ways) > 2:
        _prepare(model)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="vidgen-bench-") as scratch:
        for size in sizes or ("",):
            reference: np.ndarray | None = None
            for name, precision in ways:
                log.info("measuring %s %s %s", TITLES[name], precision, size)
                frames = Path(scratch) / "frame.png"
                measured = _measured(
                    {
                        "model": str(model),
                        "backend": name,
                        "precision": precision,
                        "size": _parsed(size) if size else None,
                        "num_frames": num_frames,
                        "threads": threads,
                        "keep": str(frames),
                    }
                )
                if "failed" not in measured:
                    seen = images.read_picture(frames)
                    reference = seen if reference is None else reference
                    measured["difference"] = round(float(np.abs(seen.astype(float) - reference).mean()), 3)
                rows.append({"backend": name, "precision": precision, **measured})
    if all("failed" in item for item in rows):
        raise ConfigError(f"{model}: no backend could run it; the first: {rows[0]['failed']}")
    return {
        "model": str(model),
        "processor": choice.processor().split(",")[0],
        "threads": threads or default_threads(),
        "rows": rows,
    }


def _prepare(model: Path) -> None:
    """Make the graph that the other backends run, once for all of them."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from vidgen.inference.model import prepare; prepare(sys.argv[1])", str(model)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        log.warning("no exported graph: %s", done.stderr.strip().splitlines()[-1])


def _parsed(size: str) -> list[int]:
    try:
        width, height = (int(side) for side in size.lower().split("x"))
    except ValueError:
        raise ConfigError(f"`sizes` {size}: expected WxH, such as 256x192") from None
    return [height, width]


def _measured(order: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", _CHILD, json.dumps(order)], capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def row(
    model: str,
    backend: BackendName,
    precision: Any,
    size: Sequence[int] | None,
    num_frames: int,
    threads: int | None,
    keep: str,
) -> dict[str, Any]:
    """One measurement, in this process; its second frame goes to the file `keep`."""
    started = time.monotonic()
    try:
        loaded = Model.load(model, device="cpu", precision=precision, backend=backend, threads=threads)
        if loaded.choice.backend != backend:
            return {"failed": loaded.choice.why}
        height, width = size or loaded.trained_size
        session = loaded.session((height, width), work_size="input")
        multiple = loaded.size_multiple
        inputs = [_inputs(loaded, -(-height // multiple) * multiple, -(-width // multiple) * multiple, frame) for frame in range(4)]
        session.step(inputs[0])
    except VidgenError as error:
        return {"failed": str(error)}
    first = time.monotonic() - started
    second = session.step(inputs[1])
    times, processor_times = [], []
    for frame in range(num_frames):
        began, began_processor = time.perf_counter(), time.process_time()
        session.step(inputs[frame % 4])
        times.append(time.perf_counter() - began)
        processor_times.append(time.process_time() - began_processor)
    images.write_png(Path(keep), second)
    seconds = statistics.median(times)
    return {
        "size": f"{width}x{height}",
        "ms_per_frame": round(1000 * seconds, 1),
        "processor_ms": round(1000 * statistics.median(processor_times), 1),
        "frames_per_second": round(1 / seconds, 1),
        "seconds_to_first_frame": round(first, 1),
        "peak_mb": _peak_megabytes(),
    }


def _inputs(model: Model, height: int, width: int, moment: int) -> dict[str, np.ndarray]:
    """Things of a sixteenth of the frame that move."""
    draw, facts = np.random.RandomState(3), model.facts
    rows, columns = np.arange(height) // 16, (np.arange(width) + 2 * moment) // 16
    tiles = (height // 16 + 1, width // 16 + 2)
    arrays: dict[str, np.ndarray] = {}
    if facts.table is not None:
        arrays["labels"] = draw.randint(0, facts.table.num_classes, tiles)[rows[:, None], columns][None, None]
    if facts.condition.instances is not None:
        arrays["instances"] = draw.randint(0, 1000, tiles)[rows[:, None], columns][None, None]
    channels = facts.condition.num_picture_channels
    if channels or not arrays:
        arrays["frames"] = draw.uniform(-1, 1, (channels, *tiles)).astype(np.float32)[:, rows[:, None], columns][None, None]
    return arrays


def _peak_megabytes() -> float | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    return round(found[0] / 1024, 1) if found else None


def as_text(result: dict[str, Any]) -> str:
    """The rows as a table."""
    titles = ("backend", "precision", "size", "ms_per_frame", "processor_ms", "frames_per_second", "peak_mb", "difference")
    heads = ("backend", "precision", "size", "ms/frame", "CPU ms", "frames/s", "peak MB", "difference")
    lines = [heads, *(tuple(str(item.get(title, "")) for title in titles) for item in result["rows"])]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    failed = [f"{item['backend']} {item['precision']}: {item['failed']}" for item in result["rows"] if "failed" in item]
    head = f"{result['model']} on {result['processor']}, {result['threads']} threads; difference to torch fp32 in levels of 255"
    return os.linesep.join([head, *table, *failed])
