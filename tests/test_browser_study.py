"""The page of a study in a real browser: simulated people answer by its keys, and their files say what they know."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data

from tests.chromium import Browser, browser
from tests.study_people import Chooses, attentive, confused, prefers, study_in, study_of, write_scenes
from vidgen import cli
from vidgen.commands.study import build, score
from vidgen.media.frames import open_sink

pytestmark = pytest.mark.browser

WIDTHS = (1280, 400)
NUM_SCENES = 14
# People wait for each other's eyes; a simulated one need not.
HURRY = "const slowly = window.setTimeout; window.setTimeout = (action, wait) => slowly(action, Math.min(wait ?? 0, 5));"
SHOWN = "[...document.querySelectorAll('#stage img, #stage video')].map((e) => media.findIndex((m) => m.uri === e.src))"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    deviations = {"ours": lambda scene: 20, "theirs": lambda scene: 60}
    return write_scenes(tmp_path_factory.mktemp("pictures"), NUM_SCENES, (72, 96), deviations)


def enter(chromium: Browser, page: Path, participant: str, *, width: int = 1280, height: int = 800, dark: bool = False) -> None:
    """Open a page afresh, and press Start."""
    chromium.call("Page.navigate", url="about:blank")
    chromium.complaints.clear()
    chromium.open(page, width=width, height=height, dark=dark)
    chromium.ask("globalThis.media = JSON.parse(document.getElementById('data').textContent).media; 0")
    chromium.ask(f"document.getElementById('participant').value = {json.dumps(participant)}")
    chromium.press("Enter")
    chromium.wait("!trial.hidden")


def take(chromium: Browser, page: Path, participant: str, chooses: Chooses, folder: Path, *, is_attentive: bool = True) -> Path:
    """Answer all questions by keys, and save the file; who is not attentive answers checks wrongly."""
    study = study_in(page)
    chromium.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    enter(chromium, page, participant)
    for number in range(study["num_trials"] + len(study["checks"])):
        open_question = f"place.textContent.startsWith('{number + 1} of') && !document.querySelector('[data-answer]').disabled"
        chromium.wait(open_question)
        shown = chromium.ask(SHOWN)
        answer = attentive(study, shown)
        if answer is None:
            answer = chooses([study["stimuli"][index] for index in shown])
        elif not is_attentive:
            answer = 1 - answer
        chromium.press(("ArrowLeft", "ArrowRight")[answer])
    chromium.wait("!end.hidden")
    name = chromium.ask("document.getElementById('save').download")
    chromium.press("Enter")
    file = folder / name
    for _ in range(200):
        if file.exists() and file.stat().st_size:
            break
        chromium.ask("new Promise((resolve) => requestAnimationFrame(resolve))")
    assert chromium.ask("document.getElementById('file').textContent").startswith(f"Saved as {name}.")
    assert json.loads(file.read_text()) == json.loads(chromium.ask("document.getElementById('text').value"))
    return file


@pytest.fixture
def hurried(chromium: Browser) -> Iterator[Browser]:
    script = chromium.call("Page.addScriptToEvaluateOnNewDocument", source=HURRY)["identifier"]
    yield chromium
    chromium.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script)


@pytest.mark.parametrize(("kind", "skill"), [("paired", 0.25), ("unpaired", 0.4)])
def test_people_of_known_skill_answer_by_keys_and_the_interval_covers_it(
    hurried: Browser, kind: Any, skill: float, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study_of(pictures, tmp_path / "page.html", kind, num_trials=20, num_checks=3)
    files = [take(hurried, tmp_path / "page.html", f"person {n}", confused(skill, n), tmp_path) for n in range(4)]
    result = score(files)
    assert result.excluded == []
    assert result.num_answers == 80
    for item in result.methods.values():
        assert item.confusion.low <= skill <= item.confusion.high
        assert item.confusion.high - item.confusion.low < 0.4
    assert result.agreement is not None
    assert hurried.dialogs == []
    assert hurried.complaints == []
    assert hurried.requests == []
    assert cli.main(["study", "score", *map(str, files)]) == 0
    assert f"{kind}): 4 participants, 80 answers" in capsys.readouterr().out


def test_a_preference_between_clips_is_found_and_an_inattentive_person_is_not_counted(hurried: Browser, tmp_path: Path) -> None:
    photo = skimage.data.chelsea()
    for scene in range(6):
        for method, gain in (("ours", 1.0), ("theirs", 0.5)):
            (tmp_path / method).mkdir(exist_ok=True)
            with open_sink(tmp_path / method / f"{scene}.mp4", time_base=Fraction(1, 10), frame_rate=Fraction(10)) as sink:
                for index in range(6):
                    crop = photo[10 * scene + index : 10 * scene + index + 64, 20 * scene : 20 * scene + 96]
                    sink.write((gain * crop).astype(np.uint8), index)
    build([str(tmp_path / "ours"), str(tmp_path / "theirs")], tmp_path / "page.html", kind="preference", num_checks=2)
    files = [take(hurried, tmp_path / "page.html", str(n), prefers("ours", 0.9, n), tmp_path) for n in range(3)]
    (found,) = score(files).preferences
    assert found.share.low <= 0.9 <= found.share.high
    assert found.p_value < 0.01
    asleep = take(hurried, tmp_path / "page.html", "asleep", prefers("ours", 0.5, 5), tmp_path, is_attentive=False)
    result = score([*files, asleep])
    assert [item.participant for item in result.excluded] == ["asleep"]
    assert result.num_participants == 3
    assert hurried.complaints == []


def test_an_order_is_the_participants_own_and_the_same_every_time(chromium: Browser, pictures: Path, tmp_path: Path) -> None:
    for kind in ("paired", "unpaired", "preference"):
        study = study_of(pictures, tmp_path / f"{kind}.html", kind, num_trials=12, num_checks=4)
        chromium.open(tmp_path / f"{kind}.html")
        plan = "planTrials(JSON.parse(document.getElementById('data').textContent).study, '{}')"
        plans = {name: chromium.ask(plan.format(name)) for name in ("anna", "ben", *map(str, range(30)))}
        assert plans["anna"] == chromium.ask(plan.format("anna"))
        assert len({json.dumps(trials) for trials in plans.values()}) == len(plans)
        first_side = []
        for trials in plans.values():
            assert len(trials) == 16
            is_check = [attentive(study, shown) is not None for shown in trials]
            assert sum(is_check) == 4
            assert not is_check[0]
            asked = [tuple(sorted(shown)) for shown, check in zip(trials, is_check, strict=True) if not check]
            assert len(set(asked)) == 12
            names = [study["stimuli"][shown[-1]]["name"] for shown in asked]
            assert len(set(names)) == 12  # no scene comes twice while others are left
            methods = [study["stimuli"][shown[-1]]["method"] for shown in asked]
            if kind == "unpaired":
                assert methods.count(None) == 6
                assert methods.count("ours") == methods.count("theirs") == 3
            if kind == "paired":
                assert methods.count("ours") == 6
            if kind != "unpaired":
                swapped = [
                    list(shown) not in study["questions"] for shown, check in zip(trials, is_check, strict=True) if not check
                ]
                assert sum(swapped) == 6
                first_side.append(swapped[0])
        if first_side:
            assert 8 <= sum(first_side) <= 24


def test_pictures_are_in_sight_for_a_second_and_then_gone(chromium: Browser, pictures: Path, tmp_path: Path) -> None:
    study_of(pictures, tmp_path / "page.html", "paired", num_trials=2, num_checks=0)
    enter(chromium, tmp_path / "page.html", "7")
    chromium.wait("!document.querySelector('[data-answer]').disabled")
    visible = "[...document.querySelectorAll('#stage img')].map((e) => getComputedStyle(e).visibility)"
    assert chromium.ask(visible) == ["visible", "visible"]
    sizes = chromium.ask("[...document.querySelectorAll('#stage img')].map((e) => [e.clientWidth, e.clientHeight])")
    assert sizes[0] == sizes[1]
    assert sizes[0][0] / sizes[0][1] == pytest.approx(96 / 72, abs=0.02)
    chromium.wait("document.querySelector('#stage').classList.contains('waiting')")
    assert chromium.ask(visible) == ["hidden", "hidden"]
    chromium.press("ArrowLeft")
    chromium.press("ArrowLeft")  # while the next one is not yet in sight, a key is no answer
    chromium.wait("place.textContent.startsWith('2 of') && !document.querySelector('[data-answer]').disabled")
    box = chromium.ask("[document.querySelector('#stage').children[1].getBoundingClientRect()].map((b) => [b.x, b.y])[0]")
    chromium.click(box[0] + 5, box[1] + 5)
    chromium.wait("!end.hidden")
    trials = json.loads(chromium.ask("document.getElementById('text').value"))["trials"]
    assert 970 <= trials[0]["exposure"] <= 1300
    assert trials[0]["milliseconds"] >= trials[0]["exposure"]
    assert [trial["answer"] for trial in trials] == ["left", "right"]
    assert trials[1]["exposure"] == trials[1]["milliseconds"] < 970
    chromium.dialogs.clear()
    chromium.call("Page.navigate", url="about:blank")
    assert chromium.dialogs == ["beforeunload"]  # nothing was saved


def test_clips_loop_side_by_side_until_the_answer(chromium: Browser, tmp_path: Path) -> None:
    for method in ("ours", "theirs"):
        (tmp_path / method).mkdir()
        with open_sink(tmp_path / method / "cat.mp4", time_base=Fraction(1, 10), frame_rate=Fraction(10)) as sink:
            for index in range(5):
                sink.write(skimage.data.chelsea()[index : index + 64, :96], index)
    build([str(tmp_path / "ours"), str(tmp_path / "theirs")], tmp_path / "page.html", kind="preference", num_checks=0)
    enter(chromium, tmp_path / "page.html", "7")
    chromium.wait("!document.querySelector('[data-answer]').disabled")
    state = "[...document.querySelectorAll('#stage video')].map((v) => [v.paused, v.loop, v.muted, v.duration])"
    assert [item[:3] for item in chromium.ask(state)] == [[False, True, True]] * 2
    times = "Math.min(...[...document.querySelectorAll('#stage video')].map((v) => v.currentTime))"
    chromium.wait(f"{times} > 0.3")
    chromium.wait(f"{times} < 0.2")  # it started again
    assert not chromium.ask("document.querySelector('#stage').classList.contains('waiting')")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["paired", "unpaired"])
def test_nothing_is_cut_off_or_fetched_and_the_surround_is_gray_for_everybody(
    chromium: Browser, width: int, kind: Any, pictures: Path, tmp_path: Path
) -> None:
    study_of(pictures, tmp_path / "page.html", kind, num_trials=2, num_checks=2, title="A_very_long_title_" * 6)
    fits = "document.documentElement.scrollWidth <= innerWidth"
    for dark in (False, True):
        enter(chromium, tmp_path / "page.html", "7", width=width, height=700, dark=dark)
        chromium.wait("!document.querySelector('[data-answer]').disabled")
        assert chromium.ask(fits)
        assert chromium.ask("document.documentElement.scrollHeight <= innerHeight")
        assert chromium.ask("getComputedStyle(document.body).backgroundColor") == "rgb(77, 77, 77)"
        for name in ("welcome", "end"):
            chromium.ask(
                f"for (const name of ['welcome', 'trial', 'end']) document.getElementById(name).hidden = name !== '{name}'"
            )
            assert chromium.ask(fits)
    assert chromium.requests == []


def test_a_participant_in_the_address_is_kept(chromium: Browser, pictures: Path, tmp_path: Path) -> None:
    study_of(pictures, tmp_path / "page.html", "paired")
    chromium.call("Page.navigate", url="about:blank")
    chromium.wait("location.href === 'about:blank'")
    chromium.call("Page.navigate", url=(tmp_path / "page.html").as_uri() + "#participant=anna")
    chromium.wait("document.readyState === 'complete' && !!document.getElementById('participant')")
    assert chromium.ask("[participant.value, participant.readOnly]") == ["anna", True]
    values = set()
    for _ in range(3):
        chromium.call("Page.navigate", url="about:blank")
        chromium.open(tmp_path / "page.html")
        values.add(chromium.ask("participant.value"))
    assert len(values) > 1
    assert "" not in values
