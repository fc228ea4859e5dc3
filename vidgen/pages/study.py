"""A perceptual study as one page: the stimuli at one size and compression, and what is asked about them.

The page is self-contained: one file without external references. Each participant has an order of their own, which follows from the
study and the participant's name, and downloads the answers as a file for `vidgen.evaluation.study`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vidgen import durable, progress
from vidgen.errors import ConfigError, InputError
from vidgen.evaluation.study import Kind, Method, Stimulus, Study, with_id
from vidgen.media import images, paths
from vidgen.media.frames import Frame, FrameSource, PictureSource, files_read, list_sources, open_source
from vidgen.media.video import Quality
from vidgen.pages import players, templates

EXPOSURE_SECONDS = 1.0
"""How long pictures are in sight where something is to be told from the real; see `write_study`."""
REAL = "real"
CHECK_TILES = (6, 8)
MIN_HEIGHT = 32
_SECONDS_TO_ANSWER = 2.5
_PICTURE_STEPS: tuple[tuple[float, int | None], ...] = ((1, None), (1, 95), (1, 90), (0.75, 90), (0.5, 90), (0.35, 90))
_CLIP_STEPS: tuple[tuple[float, Quality], ...] = ((1, "good"), (1, "draft"), (0.75, "draft"), (0.5, "draft"), (0.35, "draft"))
_SAMPLE_NUMBER = re.compile(r"[-_]\d+$")
_TITLES: dict[Kind, str] = {"paired": "Real or generated?", "unpaired": "Real or generated?", "preference": "Compare {thing}s"}
_PROMPTS: dict[Kind, str] = {
    "paired": "Which {thing} is real?",
    "unpaired": "Is this {thing} real?",
    "preference": "Which {thing} looks more real?",
}


@dataclass(frozen=True)
class _Material:
    """A picture or a clip as it was given.

    Attributes:
        name: without its folder and suffix.
        source: the file of a picture, or the frames of a clip.
        size: (height, width).
    """

    name: str
    source: Path | FrameSource
    size: tuple[int, int]

    @property
    def is_clip(self) -> bool:
        return not isinstance(self.source, Path)


@dataclass(frozen=True)
class _Version:
    """One thing to show: a material, or the same with its tiles shuffled and its colors inverted, as nobody takes for real.

    Attributes:
        method: None for a real one.
        group: versions of one group have one height, and, in pairs, one shape.
    """

    method: str | None
    material: _Material
    group: str
    is_check: bool = False


def write_study(
    methods: Mapping[str, str],
    real: str | None,
    out: Path,
    *,
    kind: Kind,
    title: str | None = None,
    prompt: str | None = None,
    exposure_seconds: float | None = None,
    is_unlimited: bool = False,
    num_trials: int = 50,
    num_checks: int = 5,
    seed: int = 0,
    fps: float | None = None,
    max_height: int = 480,
    max_megabytes: float = 30.0,
    overwrite: bool = False,
) -> tuple[Study, list[str]]:
    """Write a page that asks people about generated pictures or clips.

    Versions of one scene have one name; numbers at the end of names (car-1) count samples of one scene, and a single real one is
    the partner of all. If each method has one thing alone, they are versions of one scene.

    Args:
        methods: by name, where the stimuli of each are: a folder of pictures, a folder of clips, a picture, or a clip.
        real: where the real ones are.
        out: the page (.html).
        kind: paired and unpaired studies compare with real ones, a preference methods with each other.
        prompt: the question.
        exposure_seconds: how long stimuli are in sight; by default 1 for pictures in paired and unpaired studies.
        is_unlimited: stimuli stay until the answer; the default of clips and preferences.
        num_trials: that each participant answers.
        num_checks: how many more check attention.
        seed: chooses the checks and, with the participant's name, the order.
        fps: frames per second of folders of pictures.
        max_height: of a stimulus.
        max_megabytes: about how large the page may become; stimuli are compressed, then made smaller for it.

    Returns:
        what the page asks, and what was changed or left out, in words.

    Raises:
        InputError: an input cannot be read, or nothing belongs together.
        ConfigError: `real` or methods are missing or too many for the kind of study.
        OutputError: `out` exists, or cannot be written.
    """
    _check_request(kind, methods, real)
    wheres = [*methods.values(), *([real] if real is not None else [])]
    with durable.claim([out], inputs=[file for where in wheres for file in files_read(where)], overwrite=overwrite):
        rate = None if fps is None else Fraction(fps).limit_denominator(100_000)
        generated = {name: _materials(where, rate) for name, where in methods.items()}
        originals = {} if real is None else _materials(real, rate)
        is_of_clips = _is_of_clips({**generated, **({REAL: originals} if real is not None else {})})
        versions, questions, notes = _questions(kind, generated, originals)
        generator = np.random.default_rng(seed)
        checks = _checks(kind, versions, questions, num_checks, generator)
        contents, sizes, reductions = _encoded(versions, max_height, max_megabytes * 1e6 * 3 / 4, is_of_clips, kind, seed)
        thing = "clip" if is_of_clips else "picture"
        is_limited = exposure_seconds is not None or (kind != "preference" and not is_of_clips and not is_unlimited)
        definition = {
            "kind": kind,
            "title": title or _TITLES[kind].format(thing=thing),
            "prompt": prompt or _PROMPTS[kind].format(thing=thing),
            "seed": seed,
            "exposure_milliseconds": round(1000 * (exposure_seconds or EXPOSURE_SECONDS)) if is_limited else None,
            "num_trials": min(num_trials, _max_trials(kind, versions, questions)),
            "methods": [Method(name=name, names=list(materials)).model_dump() for name, materials in generated.items()],
            "stimuli": [
                Stimulus(
                    role="check" if version.is_check else "real" if version.method is None else "generated",
                    method=version.method,
                    name=version.material.name,
                    sha256=hashlib.sha256(content).hexdigest(),
                ).model_dump()
                for version, content in zip(versions, contents, strict=True)
            ],
            "questions": questions,
            "checks": checks,
        }
        study = with_id(definition)
        media = [
            {"uri": templates.data_uri(content, _type_of(content)), "height": size[0], "width": size[1]}
            for content, size in zip(contents, sizes, strict=True)
        ]
        page = templates.render(
            "study.html.j2",
            study=study,
            thing=thing,
            minutes=max(1, round(study.length * (_SECONDS_TO_ANSWER + (exposure_seconds or EXPOSURE_SECONDS)) / 60)),
            payload={"study": study.to_dict(), "media": media, "clips": is_of_clips},
        )
        durable.write_text(out, page)
    return study, [*notes, *reductions]


def _check_request(kind: Kind, methods: Mapping[str, str], real: str | None) -> None:
    if REAL in methods and kind != "preference":
        raise ConfigError(f"{REAL}: is no name of a method", hint="`real` names the real ones")
    if kind == "preference":
        if len(methods) < 2:
            raise ConfigError(f"a preference is between two methods or more, got {len(methods)}")
        if real is not None:
            raise ConfigError("`real`: a preference compares methods with each other", hint="name the real ones as a method")
    elif real is None:
        raise ConfigError(f"`real` is missing: in a {kind} study, people tell generated from real")


# --- what is there --------------------------------------------------------------------------------------------------------


def _materials(where: str, rate: Fraction | None) -> dict[str, _Material]:
    """Pictures or clips by name, in their order."""
    sources = list_sources(where)
    if len(sources) == 1:
        source = _opened(sources[0], rate)
        if isinstance(source, PictureSource):
            names = source.frame_names or ()
            return {name: _Material(name, file, images.read_size(file)) for name, file in zip(names, source.files, strict=True)}
    result: dict[str, _Material] = {}
    for path in sources:
        source = _opened(path, rate)
        location = Path(paths.split_cut(str(path))[0])
        name = location.name if location.is_dir() else location.stem
        if name in result:
            raise InputError(
                f"{paths.display(where)}: holds several called {paths.display(name)}; each stimulus has a name of its own"
            )
        result[name] = _Material(
            name, source.files[0] if isinstance(source, PictureSource) and source.single else source, source.size
        )
    return result


def _opened(path: Path, rate: Fraction | None) -> FrameSource:
    return open_source(path) if rate is None else open_source(path, frame_rate=rate)


def _is_of_clips(sets: Mapping[str, Mapping[str, _Material]]) -> bool:
    kinds = {name: {material.is_clip for material in materials.values()} for name, materials in sets.items()}
    if len(set.union(*kinds.values())) > 1:
        words = ", ".join(
            f"{name}: {' and '.join('clips' if item else 'pictures' for item in found)}" for name, found in kinds.items()
        )
        raise InputError(f"a study shows either pictures or clips, found {words}")
    return True in next(iter(kinds.values()))


def _questions(
    kind: Kind, generated: Mapping[str, Mapping[str, _Material]], originals: Mapping[str, _Material]
) -> tuple[list[_Version], list[list[int]], list[str]]:
    """What can be shown, which of it belongs together, and what was left out."""
    versions: list[_Version] = []
    places: dict[tuple[str | None, str], int] = {}

    def place(method: str | None, material: _Material, group: str) -> int:
        key = (method, material.name)
        if key not in places:
            places[key] = len(versions)
            versions.append(_Version(method, material, group))
        return places[key]

    questions: list[list[int]] = []
    notes: list[str] = []
    if kind == "unpaired":
        everything = [(None, originals), *generated.items()]
        questions = [[place(method, material, "")] for method, materials in everything for material in materials.values()]
    elif kind == "paired":
        for method, materials in generated.items():
            lonely = []
            for material in materials.values():
                partner = _partner(material.name, originals)
                if partner is None:
                    lonely.append(material.name)
                    continue
                questions.append([place(None, partner, partner.name), place(method, material, partner.name)])
            notes += _left_out(method, lonely, "no real one of the same name")
    else:
        if all(len(materials) == 1 for materials in generated.values()):  # one thing each is one scene, whatever its name
            scene = next(name for materials in generated.values() for name in materials)
            generated = {method: {scene: material} for method, held in generated.items() for material in held.values()}
        names = list(dict.fromkeys(name for materials in generated.values() for name in materials))
        for first, second in combinations(generated, 2):
            for name in names:
                pair = generated[first].get(name), generated[second].get(name)
                if pair[0] is not None and pair[1] is not None:
                    questions.append([place(first, pair[0], name), place(second, pair[1], name)])
        for method, materials in generated.items():
            others = {name for other, held in generated.items() if other != method for name in held}
            notes += _left_out(method, [name for name in materials if name not in others], "no other method has that name")
    if not questions:
        sides = {**({REAL: originals} if kind == "paired" else {}), **generated}
        listed = "; ".join(f"{name} has {paths.few(list(materials), 3)}" for name, materials in sides.items())
        raise InputError(f"nothing belongs together: {listed}", hint="give versions of one scene the same file name")
    return versions, questions, notes


def _partner(name: str, originals: Mapping[str, _Material]) -> _Material | None:
    comparable = {paths.comparable(other): material for other, material in originals.items()}
    if len(originals) == 1:
        return next(iter(originals.values()))
    return comparable.get(paths.comparable(name)) or comparable.get(_SAMPLE_NUMBER.sub("", paths.comparable(name)))


def _left_out(method: str, names: Sequence[str], why: str) -> list[str]:
    return [f"{method}: left out {paths.few(names, 3)}: {why}"] if names else []


def _max_trials(kind: Kind, versions: Sequence[_Version], questions: Sequence[Sequence[int]]) -> int:
    """How many different questions a participant can have; unpaired, half of them on real ones."""
    if kind != "unpaired":
        return len(questions)
    num_real = sum(versions[question[0]].method is None for question in questions)
    return 2 * min(num_real, len(questions) - num_real)


def _checks(
    kind: Kind, versions: list[_Version], questions: Sequence[Sequence[int]], num_checks: int, generator: np.random.Generator
) -> list[list[int]]:
    """Questions with a certain answer, whose stimuli are added to `versions`."""
    checks: list[list[int]] = []
    order = generator.permutation(len(questions))
    for number in range(num_checks):
        if kind == "unpaired" and number % 2:
            checks.append([])
            continue
        question = questions[order[number % len(order)]]
        good = question[0]
        checks.append([*([] if kind == "unpaired" else [good]), len(versions)])
        versions.append(replace(versions[good], is_check=True))
    return checks


# --- stimuli as bytes -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scrambled:
    """The frames of a clip, each as `_scramble` makes it."""

    source: FrameSource
    seed: int

    @property
    def size(self) -> tuple[int, int]:
        return self.source.size

    @property
    def time_base(self) -> Fraction:
        return self.source.time_base

    @property
    def frame_rate(self) -> Fraction:
        return self.source.frame_rate

    def __iter__(self) -> Iterator[Frame]:
        for frame in self.source:
            yield replace(frame, pixels=_scramble(frame.pixels, self.seed))


def _scramble(pixels: np.ndarray, seed: int) -> np.ndarray:
    """A picture uint8 [H,W,3] with its tiles shuffled and its colors inverted."""
    height, width = pixels.shape[:2]
    rows, columns = (min(count, side) for count, side in zip(CHECK_TILES, (height, width), strict=True))
    tile_height, tile_width = height // rows, width // columns
    result = 255 - pixels
    inverted = result.copy()
    for number, origin in enumerate(np.random.default_rng(seed).permutation(rows * columns)):
        (to_row, to_column), (row, column) = divmod(number, columns), divmod(int(origin), columns)
        tile = inverted[row * tile_height :, column * tile_width :][:tile_height, :tile_width]
        result[to_row * tile_height :, to_column * tile_width :][:tile_height, :tile_width] = tile
    return result


def _encoded(
    versions: Sequence[_Version], max_height: int, max_bytes: float, is_of_clips: bool, kind: Kind, seed: int
) -> tuple[list[bytes], list[tuple[int, int]], list[str]]:
    """The content of each version, its (height, width), and what was reduced: by the same measure, or it would tell them apart."""
    groups: dict[str, list[int]] = {}
    for index, version in enumerate(versions):
        groups.setdefault(version.group, []).append(index)
    steps: Sequence[tuple[float, Any]] = _CLIP_STEPS if is_of_clips else _PICTURE_STEPS
    for scale, quality in steps:
        contents: dict[int, bytes] = {}
        sizes: dict[int, tuple[int, int]] = {}
        for members in progress.follow(list(groups.values()), "preparing stimuli", len(groups)):
            sizes |= _sizes(versions, members, max_height, scale, kind, is_of_clips)
            if is_of_clips:
                contents |= _clips(versions, members, sizes, quality, kind, seed)
            else:
                contents |= {index: _picture(versions[index], sizes[index], quality, seed) for index in members}
        if sum(map(len, contents.values())) <= max_bytes:
            break
    order = range(len(versions))
    notes = _size_notes(versions, sizes, kind)
    if quality not in (None, "good"):
        notes.append(f"all stimuli are compressed alike to stay within {templates.megabytes(max_bytes)}")
    return [contents[index] for index in order], [sizes[index] for index in order], notes


def _sizes(
    versions: Sequence[_Version], members: Sequence[int], max_height: int, scale: float, kind: Kind, is_of_clips: bool
) -> dict[int, tuple[int, int]]:
    """(height, width) of each: the height of the lowest, and in pairs the shape of the first, so that nothing is enlarged."""
    lowest = min(versions[index].material.size[0] for index in members)
    height = max(min(lowest, MIN_HEIGHT), round(scale * min(max_height, lowest)))
    result = {}
    for index in members:
        shape = versions[index if kind == "unpaired" else members[0]].material.size
        result[index] = players.even_size(shape, height) if is_of_clips else (height, max(1, round(shape[1] * height / shape[0])))
    return result


def _picture(version: _Version, size: tuple[int, int], quality: int | None, seed: int) -> bytes:
    assert isinstance(version.material.source, Path)
    pixels = players.fit(images.read_picture(version.material.source), size)
    if version.is_check:
        pixels = _scramble(pixels, seed)
    if quality is None:
        return images.encode_png(pixels)
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return cv2.imencode(".jpg", np.ascontiguousarray(pixels[:, :, ::-1]), options)[1].tobytes()


def _clips(
    versions: Sequence[_Version],
    members: Sequence[int],
    sizes: Mapping[int, tuple[int, int]],
    quality: Quality,
    kind: Kind,
    seed: int,
) -> dict[int, bytes]:
    """Clips of one group end with the shortest and have the times of the first; unpaired ones have their own."""
    frames: dict[str, players.Frames] = {}
    for index in members:
        source = versions[index].material.source
        assert isinstance(source, FrameSource)
        frames[str(index)] = _Scrambled(source, seed) if versions[index].is_check else source
    result: dict[int, bytes] = {}
    for batch in [[index] for index in members] if kind == "unpaired" else [members]:
        chosen = {str(index): frames[str(index)] for index in batch}
        videos, _, _ = players.encode(chosen, str(batch[0]), sizes[batch[0]], quality, None)
        result |= {int(name): content for name, content in videos.items()}
    return result


def _size_notes(versions: Sequence[_Version], sizes: Mapping[int, tuple[int, int]], kind: Kind) -> list[str]:
    notes = []
    changed = sorted({version.material.size for index, version in enumerate(versions) if version.material.size != sizes[index]})
    if changed:
        listed = paths.few([f"{width}x{height}" for height, width in changed], 3)
        notes.append(f"brought to one height: {listed} became {_range(list(sizes.values()))}")
    shapes: dict[bool, set[float]] = {True: set(), False: set()}
    for version in versions:
        height, width = version.material.size
        shapes[version.method is None].add(round(width / height, 2))
    if kind == "unpaired" and shapes[True] != shapes[False]:
        notes.append("real and generated ones differ in shape, by which they can be told apart: crop them alike first")
    padded = [
        index for index, version in enumerate(versions) if kind != "unpaired" and _is_padded(version.material.size, sizes[index])
    ]
    if padded:
        named = paths.few([versions[index].material.name for index in padded], 3)
        notes.append(f"of another shape than their partners, so padded with black: {named}; crop them alike first")
    return notes


def _is_padded(size: tuple[int, int], to: tuple[int, int]) -> bool:
    return abs(size[1] / size[0] * to[0] / to[1] - 1) > 0.02 + 2 / to[1]


def _range(sizes: Sequence[tuple[int, int]]) -> str:
    low, high = min(sizes), max(sizes)
    return f"{low[1]}x{low[0]}" if low == high else f"{low[1]}x{low[0]} to {high[1]}x{high[0]}"


def _type_of(content: bytes) -> str:
    return "image/png" if content.startswith(b"\x89PNG") else "image/jpeg" if content.startswith(b"\xff\xd8") else "video/mp4"
