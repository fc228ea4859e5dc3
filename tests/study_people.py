"""Simulated people: a study out of its page, and answers to it of known skill."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data

from vidgen.commands.study import build
from vidgen.media.images import write_png

Chooses = Callable[[list[dict[str, Any]]], int]
"""Which of the stimuli of a question somebody chooses; of one alone, 1 calls it real."""


def write_scenes(folder: Path, num_scenes: int, size: tuple[int, int], deviations: dict[str, Callable[[int], float]]) -> Path:
    """Pictures of the same scenes in folders: real, and methods that add noise of a deviation that may depend on the scene."""
    photo = skimage.data.chelsea()
    generator = np.random.default_rng(0)
    for scene in range(num_scenes):
        crop = photo[8 * scene : 8 * scene + size[0], 12 * scene : 12 * scene + size[1]]
        write_png(folder / "real" / f"{scene}.png", crop)
        for method, deviation in deviations.items():
            noisy = (crop + generator.normal(0, deviation(scene), crop.shape)).clip(0, 255).astype(np.uint8)
            write_png(folder / method / f"{scene}.png", noisy)
    return folder


def study_of(pictures: Path, page: Path, kind: Any, **options: Any) -> dict[str, Any]:
    """What a page asks about the pictures of two methods, ours and theirs; it is written before."""
    methods = [str(pictures / name) for name in ("ours", "theirs")]
    build(methods, page, kind=kind, real=None if kind == "preference" else str(pictures / "real"), **options)
    return study_in(page)


def study_in(page: Path) -> dict[str, Any]:
    """What a page asks."""
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert match is not None
    study: dict[str, Any] = json.loads(match[1])["study"]
    return study


def attentive(study: dict[str, Any], shown: list[int]) -> int | None:
    """The certain answer of a check, as `Chooses` gives it; None for another question."""
    roles = [study["stimuli"][index]["role"] for index in shown]
    if not shown:
        return 1
    return None if "check" not in roles else 0 if len(roles) == 1 else 1 - roles.index("check")


def answers_to(study: dict[str, Any], participant: str, chooses: Chooses, *, seed: int, fails: int = 0) -> dict[str, Any]:
    """A file of answers, as the page writes it; `fails` checks get the wrong answer."""
    generator = np.random.default_rng(seed)
    chosen = generator.permutation(len(study["questions"]))[: study["num_trials"]]
    trials = []
    for shown in [*(study["questions"][index] for index in chosen), *study["checks"]]:
        shown = list(generator.permutation(shown)) if shown else []
        shown = [int(index) for index in shown]
        answer = attentive(study, shown)
        if answer is None:
            answer = chooses([study["stimuli"][index] for index in shown])
        elif fails > 0:
            answer, fails = 1 - answer, fails - 1
        words = ("generated", "real") if study["kind"] == "unpaired" else ("left", "right")
        trials.append({"shown": shown, "answer": words[answer], "milliseconds": 700, "exposure": 1000})
    return {"schema_version": 1, "study": study, "participant": participant, "finished": "2026-01-01T00:00:00Z", "trials": trials}


def confused(probability: float, seed: int) -> Chooses:
    """Somebody who is wrong about what is real with this probability."""
    generator = np.random.default_rng(seed)

    def choose(stimuli: list[dict[str, Any]]) -> int:
        is_wrong = bool(generator.random() < probability)
        if len(stimuli) == 1:
            return int((stimuli[0]["role"] == "real") is not is_wrong)
        return [stimulus["role"] == "real" for stimulus in stimuli].index(not is_wrong)

    return choose


def prefers(method: str, probability: float, seed: int) -> Chooses:
    """Somebody who prefers a method with this probability."""
    generator = np.random.default_rng(seed)

    def choose(stimuli: list[dict[str, Any]]) -> int:
        is_first = stimuli[0]["method"] == method
        return int(is_first is not bool(generator.random() < probability))

    return choose
