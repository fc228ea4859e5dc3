"""The pages in a real browser: videos stay together, views show what they say, nothing is cut off, nothing is fetched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import skimage.io

from tests.chromium import Browser, browser
from vidgen.commands.compare import compare
from vidgen.commands.report import report
from vidgen.evaluation.measure import evaluate
from vidgen.media.frames import open_sink
from vidgen.media.images import write_png

pytestmark = pytest.mark.browser

NUM_FRAMES, RATE = 12, 10
WIDTHS = (1280, 400)
LONG_NAME = "a_very_long_name_of_an_experiment_with_learning_rate_0.0002_and_seed_42_and_more"


def pan() -> list[np.ndarray]:
    photo = skimage.data.chelsea()
    return [np.ascontiguousarray(photo[60 + t : 156 + t, 80 + 2 * t : 224 + 2 * t]) for t in range(NUM_FRAMES)]


def save(path: Path, frames: list[np.ndarray]) -> Path:
    with open_sink(path, time_base=Fraction(1, RATE), frame_rate=Fraction(RATE), quality="lossless") as sink:
        for index, frame in enumerate(frames):
            sink.write(frame, index)
    return path


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on two outputs and a run."""
    root = tmp_path_factory.mktemp("page")
    source = save(root / "source.mkv", pan())
    inverted = save(root / f"{LONG_NAME}.mkv", [255 - frame for frame in pan()])
    inputs = []
    for output in (source, inverted):
        file = root / f"{output.stem}.json"
        file.write_text(json.dumps(evaluate(str(output), source=str(source), strides=(1,), cache=None).to_dict()))
        inputs.append(f"copy={file}" if output is source else str(file))
    run = root / "run"
    lines = [{"step": step, "stage": "s", "learning_rate": 1e-3, "losses": {"l1": 1 / step}} for step in range(1, 101)]
    write_png(run / "samples" / "step-0000050.png", pan()[0])
    write_png(run / "samples" / "step-0000100.png", pan()[1])
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    report([*inputs, str(run)], root / "report.html")
    return root / "report.html"


PLAYER = "document.querySelector('[data-player=main]')"
TIMES = f"[...{PLAYER}.querySelectorAll('video')].map((video) => video.currentTime)"
SETTLED = "[...document.querySelectorAll('video')].every((video) => !video.seeking)"


def set_slider(chromium: Browser, selector: str, value: float) -> None:
    chromium.ask(
        f"(() => {{ const s = {selector}; s.value = {value}; s.dispatchEvent(new Event('input', {{ bubbles: true }})); }})()"
    )
    chromium.wait(SETTLED)


def pixel(chromium: Browser, number: int) -> list[int]:
    """The mean color that a video shows."""
    return chromium.ask(
        f"(() => {{ const v = document.querySelectorAll('video')[{number}]; const c = document.createElement('canvas');"
        " c.width = v.videoWidth; c.height = v.videoHeight; const g = c.getContext('2d'); g.drawImage(v, 0, 0);"
        " const d = g.getImageData(0, 0, c.width, c.height).data; const s = [0, 0, 0];"
        " for (let i = 0; i < d.length; i += 4) for (let k = 0; k < 3; k += 1) s[k] += d[i + k];"
        " return s.map((value) => value / (d.length / 4)); })()"
    )


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_is_cut_off_or_fetched_or_complained_about(chromium: Browser, page: Path, width: int, dark: bool):
    chromium.open(page, width=width, dark=dark)
    assert chromium.ask("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    outside = (
        "[...document.querySelectorAll('body *')].filter((e) => !e.closest('.scroll, pre, svg') &&"
        " e.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map((e) => e.outerHTML.slice(0, 200))"
    )
    assert chromium.ask(outside) == []
    assert chromium.ask("document.querySelectorAll('.chart path').length") > 5
    back = chromium.ask("getComputedStyle(document.body).backgroundColor")
    assert (back == "rgb(255, 255, 255)") is not dark
    assert chromium.requests == []
    assert chromium.complaints == []


def test_players_show_the_same_frame_after_a_seek(chromium: Browser, page: Path):
    chromium.open(page)
    for index in (7, 0, NUM_FRAMES - 1):
        set_slider(chromium, f"{PLAYER}.querySelector('.timeline')", index)
        times = chromium.ask(TIMES)
        assert len(times) == 3
        assert len(set(times)) == 1
        assert index / RATE < times[0] < (index + 1) / RATE
        assert f"frame {index} of" in chromium.ask(f"{PLAYER}.querySelector('output').textContent")


def test_a_seek_shows_exactly_that_frame(chromium: Browser, tmp_path: Path):
    levels = [np.full((64, 96, 3), 20 * index, np.uint8) for index in range(NUM_FRAMES)]
    file = save(tmp_path / "a.mkv", levels)
    compare([str(file), f"b={file}"], tmp_path / "page.html")
    chromium.open(tmp_path / "page.html")
    for index in (0, 5, 11, 3, 4):
        set_slider(chromium, f"{PLAYER}.querySelector('.timeline')", index)
        for number in (0, 1):
            assert pixel(chromium, number) == pytest.approx([20 * index] * 3, abs=4)


def test_keys_and_buttons_step_and_play(chromium: Browser, page: Path):
    chromium.open(page)
    chromium.press("ArrowRight")
    chromium.press("ArrowRight")
    chromium.press("ArrowLeft")
    chromium.wait(SETTLED)
    assert 1 / RATE < chromium.ask(TIMES)[0] < 2 / RATE
    chromium.ask(f"{PLAYER}.querySelector('[data-do=forward]').click()")
    assert chromium.ask(f"{PLAYER}.querySelector('.timeline').value") == "2"
    chromium.press(" ")
    assert chromium.ask(f"{PLAYER}.querySelector('[data-do=play]').textContent") == "Pause"
    chromium.wait(f"Number({PLAYER}.querySelector('.timeline').value) > 4")
    chromium.press(" ")
    chromium.wait(SETTLED)
    times = chromium.ask(TIMES)
    assert len(set(times)) == 1
    assert chromium.ask(f"{PLAYER}.querySelector('[data-do=play]').textContent") == "Play"
    assert chromium.complaints == []


def test_a_click_in_a_curve_seeks_and_its_cursor_follows(chromium: Browser, page: Path):
    chromium.open(page)
    box = chromium.ask(
        "(() => { const svg = document.querySelector('[data-charts=main] svg'); svg.scrollIntoView({ block: 'center' });"
        " const box = svg.getBoundingClientRect(); return [box.left, box.top, box.width, box.height]; })()"
    )
    cursor = "Number(document.querySelector('[data-charts=main] .cursor').getAttribute('x1'))"
    before = chromium.ask(cursor)
    chromium.click(box[0] + box[2] * 0.75, box[1] + box[3] / 2)
    chromium.wait(SETTLED)
    index = int(chromium.ask(f"{PLAYER}.querySelector('.timeline').value"))
    assert 6 <= index <= 10
    assert index / RATE < chromium.ask(TIMES)[1] < (index + 1) / RATE
    after = chromium.ask(cursor)
    assert after > before
    assert box[2] * 0.75 == pytest.approx(after, abs=box[2] / NUM_FRAMES)
    chromium.ask("document.querySelector('[data-charts=main] .chart').focus()")
    chromium.press("ArrowRight")
    assert int(chromium.ask(f"{PLAYER}.querySelector('.timeline').value")) == index + 1


def test_a_wipe_and_a_difference_lay_two_videos_over_each_other(chromium: Browser, page: Path):
    chromium.open(page)
    chromium.ask(f"{PLAYER}.querySelector('[value=wipe]').click()")
    set_slider(chromium, f"{PLAYER}.querySelector('.wipe')", 30)
    shown = f"[...{PLAYER}.querySelectorAll('figure')].filter((f) => getComputedStyle(f).display !== 'none')"
    boxes = chromium.ask(
        f"{shown}.map((f) => {{ const b = f.querySelector('video').getBoundingClientRect(); return [b.left, b.width]; }})"
    )
    assert len(boxes) == 2
    assert boxes[0] == boxes[1]
    assert chromium.ask(f"getComputedStyle({PLAYER}.querySelector('.b video')).clipPath") == "inset(0px 0px 0px 30%)"
    edge = chromium.ask(f"{PLAYER}.querySelector('.edge').getBoundingClientRect().left + 1")
    assert edge == pytest.approx(boxes[0][0] + 0.3 * boxes[0][1], abs=1.5)
    chromium.ask(f"{PLAYER}.querySelector('[value=difference]').click()")
    assert chromium.ask(f"getComputedStyle({PLAYER}.querySelector('.b video')).mixBlendMode") == "difference"
    assert chromium.ask("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    chromium.ask(f"{PLAYER}.querySelector('[value=side]').click()")
    assert chromium.ask(f"{shown}.length") == 3


def test_a_wipe_really_shows_one_video_left_and_the_other_right(chromium: Browser, tmp_path: Path):
    videos = [save(tmp_path / f"{level}.mkv", [np.full((96, 160, 3), level, np.uint8)] * 4) for level in (40, 220)]
    compare([str(file) for file in videos], tmp_path / "page.html", view="wipe")
    chromium.open(tmp_path / "page.html")
    chromium.screenshot(tmp_path / "shot.png", whole=False)
    pixels = skimage.io.imread(tmp_path / "shot.png")[:, :, 0]
    left, top, width, height = chromium.ask(
        "[document.querySelector('video').getBoundingClientRect()].map((b) => [b.left, b.top, b.width, b.height])[0]"
    )
    row = pixels.astype(float)[int(top + height / 2)]
    assert row[int(left + 0.2 * width)] == pytest.approx(40, abs=4)
    assert row[int(left + 0.8 * width)] == pytest.approx(220, abs=4)


def test_training_curves_smooth_and_lead_to_their_samples(chromium: Browser, page: Path):
    chromium.open(page)
    run = "document.getElementById('run0')"
    assert chromium.ask(f"{run}.querySelectorAll('.chart').length") == 2
    smooth = chromium.ask(f"{run}.querySelector('path:not(.raw)').getAttribute('d')")
    set_slider(chromium, f"{run}.querySelector('.smooth')", 0)
    assert chromium.ask(f"{run}.querySelector('path:not(.raw)').getAttribute('d')") != smooth
    chromium.ask(f"{run}.querySelector('.chart').focus()")
    chromium.press("End")
    assert chromium.ask(f"{run}.querySelector('output').textContent") == "step 100"
    chromium.press("Home")
    assert chromium.ask(f"{run}.querySelector('output').textContent") == "step 50"
    chromium.ask(f"{run}.querySelector('.logarithmic').click()")
    assert chromium.complaints == []
