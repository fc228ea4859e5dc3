"""What a single picture or clip is enough for: animations, samples, enlargement, harmonization, editing, paint."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from vidgen import durable, single
from vidgen.commands.single import Kind, Mode, Profile, plan_single, train_single
from vidgen.errors import ConfigError, InputError, OutputError
from vidgen.media import images, paths, video
from vidgen.media.conditions import resize_picture
from vidgen.media.frames import check_output, open_sink, open_source
from vidgen.metrics.single import sifid, single_scores
from vidgen.metrics.weights import GivenWeights, Judges, build_judges
from vidgen.networks import patches
from vidgen.single import Applications, Patches, Picture, Size, Trained, read_picture
from vidgen.weights.state_dicts import read_state_dict

log = logging.getLogger(__name__)

Method = Literal["patch", "fast", "consingan", "singan"]

TRAINED: dict[str, tuple[Kind, Profile]] = {
    "fast": ("singan", "fast"),
    "consingan": ("consingan", "fast"),
    "singan": ("singan", "faithful"),
}
AUTO_SIDE = {"patch": 640, "fast": 250, "consingan": 250, "singan": 250}
"""Longer side that `--max-size auto` allows."""
AUTO_ANIMATION_SIDE, AUTO_CLIP_SIDE = 320, 160
TRAINING_SHARE = 0.85
"""Part of `--budget` that planning and training get: the rest starts the program, and makes and writes what was asked for."""
_MAX_SIDE = 8192
_SHEET = "sheet.png"


def animate(
    source: str,
    output: str,
    *,
    method: Method = "patch",
    num_frames: int | None = None,
    frame_rate: float = 12,
    loop: bool = False,
    size: str | None = None,
    aspect: str | None = None,
    start_scale: int = 1,
    alpha: float = 0.1,
    beta: float = 0.9,
    quality: Literal["draft", "good", "lossless"] = "good",
    budget_seconds: float | None = None,
    max_size: str = "auto",
    model: Path | None = None,
    allow_truncated: bool = False,
    seed: int = 0,
    overwrite: bool = False,
    device: str = "auto",
    threads: int | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Make a moving picture of a still one, or a new clip of a short one.

    Args:
        output: video, .gif, .apng, .webp, or a folder of PNG files.
        num_frames: 48, or as many as the clip has.
        loop: the first frame follows the last.
        start_scale: the coarsest scale that moves; finer ones move less.
        alpha: how strongly everything is drawn back to the picture.
        beta: how slowly it changes, 0..1.
        budget_seconds: for the whole, where the method trains.
        max_size: longer side that is worked at, or "auto".
        model: run folder to use or to train into; by default in the user's cache.
        allow_truncated: take the frames there are of a clip that is cut off.

    Returns:
        the file, its size and length, and, for a loop, the step from its last frame to its first over a mean step.
    """
    started = time.monotonic()
    _start(threads)
    check_output(output, overwrite=overwrite)
    path = Path(paths.split_cut(source)[0])
    if video.is_video(path) or path.is_dir():
        made = _clip_frames(source, method, num_frames, loop, size, aspect, max_size, seed, allow_truncated, dry_run)
        if isinstance(made, dict):
            return made
        rate, frames = made
    else:
        training = _Training(method, budget_seconds, max_size, model, seed, device, dry_run)
        picture = read_picture(path)
        applications = training.applications(picture, "animation", AUTO_ANIMATION_SIDE)
        if isinstance(applications, dict):
            return applications
        _mention_opacity(applications.picture)
        rate = Fraction(frame_rate).limit_denominator(1001)
        frames = applications.animate(
            num_frames or 48,
            loop=loop,
            size=_wanted_size(size, aspect, applications.picture.size),
            start_scale=start_scale,
            alpha=alpha,
            beta=beta,
            seed=seed,
        )
    kept = []
    with open_sink(output, time_base=1 / rate, frame_rate=rate, quality=quality, overwrite=overwrite) as sink:
        for index, frame in enumerate(frames):
            sink.write(np.ascontiguousarray(frame[:, :, :3]), index)
            kept.append(frame[::2, ::2, :3])
    result = {"output": output, "method": method, "frames": len(kept), "size": _text(frame.shape[:2]), "fps": float(rate)}
    if loop:
        result["loop_gap"] = round(single.loop_gap(kept), 3)
    return {**result, "seconds": round(time.monotonic() - started, 1)}


def sample(
    image: Path,
    output: Path,
    *,
    num_samples: int = 6,
    method: Method = "patch",
    size: str | None = None,
    aspect: str | None = None,
    start_scale: int = 0,
    score: bool = False,
    weights: Sequence[str] = (),
    budget_seconds: float | None = None,
    max_size: str = "auto",
    model: Path | None = None,
    seed: int = 0,
    overwrite: bool = False,
    device: str = "auto",
    threads: int | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Make new pictures in the manner of one: a contact sheet (.png), or a folder that holds them and the sheet.

    Args:
        size: `WIDTHxHEIGHT` of the samples.
        aspect: `WIDTH:HEIGHT`, at the picture's area.
        start_scale: samples differ from this scale on; 0 leaves the layout free.
        score: measure likeness, diversity and copying.
        weights: `sifid=FILE` or `sifid=FILE#SHA256` adds SIFID to the scores.

    Returns:
        the file, and the scores.
    """
    started = time.monotonic()
    _start(threads)
    is_sheet = _is_png(output)
    if is_sheet:
        _check_picture_output(output, overwrite)
    else:
        _check_samples_folder(output, overwrite)
    judges = _score_judges(weights, score)
    training = _Training(method, budget_seconds, max_size, model, seed, device, dry_run)
    applications = training.applications(read_picture(image), "sample")
    if isinstance(applications, dict):
        return applications
    wanted = _wanted_size(size, aspect, applications.picture.size)
    made = list(applications.sample(num_samples, size=wanted, start_scale=start_scale, seed=seed))
    seconds = time.monotonic() - started
    shown = applications.picture.pixels
    sheet = single.contact_sheet([shown, *made], num_columns=min(4, len(made) + 1))
    if is_sheet:
        images.write_png(output, made[0] if num_samples == 1 and not score else sheet)
    else:
        files = {f"{index:03d}.png": images.encode_png(pixels) for index, pixels in enumerate(made)}
        durable.write_folder(output, {**files, _SHEET: images.encode_png(sheet)})
    result = {"output": str(output), "method": method, "samples": len(made), "size": _text(made[0].shape[:2])}
    if score:
        result["scores"] = score_samples(made, shown, judges)
    return {**result, "seconds": round(seconds, 1)}


def score_samples(samples: Sequence[np.ndarray], original: np.ndarray, judges: Judges | None = None) -> dict[str, Any]:
    """The three numbers of `vidgen.metrics.single`, or the reason why one has no value; pictures uint8 [H,W,C].

    Args:
        judges: with the network of SIFID, that too.
    """
    tensors = [torch.from_numpy(np.ascontiguousarray(pixels[:, :, :3])).permute(2, 0, 1).float() / 255 for pixels in samples]
    reference = torch.from_numpy(original).permute(2, 0, 1).float() / 255
    scores = single_scores(tensors, reference)
    if judges is not None and judges.sifid is not None:
        scores["sifid"] = sifid(judges, [pixels[:, :, :3] for pixels in samples], original)
    for name, value in scores.items():
        if value.note:
            log.warning("%s: %s", name, value.note)
    return {name: score.reason if score.value is None else round(score.value, 4) for name, score in scores.items()}


def _score_judges(weights: Sequence[str], score: bool) -> Judges:
    """The networks of scores that need one."""
    given = GivenWeights.parse_all(weights)
    for name in given:
        if name != "sifid":
            raise ConfigError(f"--weights {name}: scores of samples need none of that name", hint="--weights sifid=FILE adds SIFID")
        if not score:
            raise ConfigError(f"--weights {name}: is for scores", hint="add --score")
    return build_judges(given, given, read_state_dict)


def super_resolve(
    image: Path,
    output: Path,
    *,
    factor: float = 4.0,
    method: Method = "patch",
    budget_seconds: float | None = None,
    max_size: str = "auto",
    model: Path | None = None,
    seed: int = 0,
    overwrite: bool = False,
    device: str = "auto",
    threads: int | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Enlarge a picture by any factor, with detail from the picture itself."""
    started = time.monotonic()
    _start(threads)
    _check_picture_output(output, overwrite)
    picture = read_picture(image)
    if not 1 < factor <= 16:
        raise ConfigError(f"--factor {factor:g}: expected more than 1 and at most 16")
    if max(picture.size) * factor > _MAX_SIDE and max_size == "auto":
        raise InputError(
            f"{picture.name}: {_text(picture.size)} times {factor:g} is more than {_MAX_SIDE} pixels a side",
            hint="give a smaller --factor, or --max-size to reduce the picture first",
        )
    training = _Training(method, budget_seconds, max_size, model, seed, device, dry_run)
    auto_side = max(picture.size) if method == "patch" else AUTO_SIDE[method]
    applications = training.applications(picture, "super_resolution", auto_side)
    if isinstance(applications, dict):
        return applications
    made = applications.super_resolve(factor, seed=seed)
    images.write_png(output, made)
    return _picture_result(output, method, made, started)


def harmonize(
    naive: Path,
    image: Path,
    output: Path,
    *,
    mask: Path | None = None,
    start_scale: int | None = None,
    method: Method = "patch",
    budget_seconds: float | None = None,
    max_size: str = "auto",
    model: Path | None = None,
    seed: int = 0,
    overwrite: bool = False,
    device: str = "auto",
    threads: int | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Give what was pasted into a picture the picture's look.

    Args:
        naive: the picture with something pasted into it.
        image: the picture itself, of the same size.
        mask: white where something was pasted; by default where the two pictures differ.
        start_scale: finer scales keep more of what was pasted.
    """
    training = _Training(method, budget_seconds, max_size, model, seed, device, dry_run)
    return _blend("harmonize", naive, image, output, mask, start_scale, training, overwrite, threads)


def edit(
    image: Path,
    edited: Path,
    output: Path,
    *,
    mask: Path | None = None,
    start_scale: int | None = None,
    method: Method = "patch",
    budget_seconds: float | None = None,
    max_size: str = "auto",
    model: Path | None = None,
    seed: int = 0,
    overwrite: bool = False,
    device: str = "auto",
    threads: int | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Remove the seams of a picture whose parts were copied or moved about; `mask` is as for `harmonize`."""
    training = _Training(method, budget_seconds, max_size, model, seed, device, dry_run)
    return _blend("edit", edited, image, output, mask, start_scale, training, overwrite, threads)


def _blend(
    verb: Literal["harmonize", "edit"],
    changed: Path,
    image: Path,
    output: Path,
    mask: Path | None,
    start_scale: int | None,
    training: _Training,
    overwrite: bool,
    threads: int | None,
) -> dict[str, Any]:
    started = time.monotonic()
    _start(threads)
    _check_picture_output(output, overwrite)
    original, given = read_picture(image), read_picture(changed)
    if given.size != original.size:
        raise InputError(
            f"{given.name}: {_text(given.size)}, but {original.name} is {_text(original.size)}; expected the same size"
        )
    marked = single.difference_mask(given.pixels, original.pixels) if mask is None else single.read_mask(mask, original.size)
    applications = training.applications(original, "sample")
    if isinstance(applications, dict):
        return applications
    size = applications.picture.size
    reduced = resize_picture(np.repeat(marked[:, :, None].astype(np.uint8) * 255, 3, axis=2), size).max(axis=2) > 127
    apply = applications.harmonize if verb == "harmonize" else applications.edit
    made = apply(resize_picture(given.pixels, size), reduced, start_scale=start_scale, seed=training.seed)
    images.write_png(output, made)
    return _picture_result(output, training.method, made, started)


def paint(
    painting: Path,
    image: Path,
    output: Path,
    *,
    start_scale: int = 1,
    method: Method = "patch",
    budget_seconds: float | None = None,
    max_size: str = "auto",
    model: Path | None = None,
    seed: int = 0,
    overwrite: bool = False,
    device: str = "auto",
    threads: int | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Make of a rough painting, of any size, what it means in the look of a picture.

    Args:
        start_scale: where the painting is taken in: a finer scale keeps more of it.
    """
    started = time.monotonic()
    _start(threads)
    _check_picture_output(output, overwrite)
    given = read_picture(painting)
    training = _Training(method, budget_seconds, max_size, model, seed, device, dry_run)
    applications = training.applications(read_picture(image), "sample")
    if isinstance(applications, dict):
        return applications
    made = applications.paint(resize_picture(given.pixels, applications.picture.size), start_scale=start_scale, seed=seed)
    images.write_png(output, made)
    return _picture_result(output, method, made, started)


# --- what they share ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Training:
    """The back end that is wanted, and how it is trained if it is; see `animate` for the values."""

    method: Method
    budget_seconds: float | None
    max_size: str
    model: Path | None
    seed: int
    device: str
    dry_run: bool

    def applications(self, picture: Picture, mode: Mode, auto_side: int | None = None) -> Applications | dict[str, Any]:
        """The back end, trained if need be; or, of a dry run, what would be done."""
        if self.method not in AUTO_SIDE:
            raise ConfigError(f"--method {self.method}: known are {', '.join(AUTO_SIDE)}")
        automatic = AUTO_SIDE[self.method] if auto_side is None or self.method != "patch" else auto_side
        side = _max_side(self.max_size, automatic)
        picture = picture.reduced(side)
        if min(picture.size) < patches.MIN_SIDE:
            least = patches.MIN_SIDE
            raise InputError(
                f"{picture.name}: only {_text(picture.size)} is left at --max-size {side}; {least} pixels a side are needed",
                hint="cut out a part that is less long, or give a larger --max-size",
            )
        if self.method == "patch":
            return self._by_patches(picture)
        return self._plan(picture, mode, side) if self.dry_run else self._by_training(picture, mode, side)

    def _by_patches(self, picture: Picture) -> Applications | dict[str, Any]:
        if self.model is not None:
            raise ConfigError("--model: method patch trains none", hint=f"take --method {' or '.join(TRAINED)}")
        if self.budget_seconds is not None:
            log.info("patches need no training: --budget is for --method %s", ", ".join(TRAINED))
        if not self.dry_run:
            return Patches(picture)
        scales = patches.level_sizes((1, *picture.size))
        return {"method": self.method, "training": "none", "scales": ", ".join(_text(size[1:]) for size in scales)}

    def _by_training(self, picture: Picture, mode: Mode, side: int) -> Applications:
        if self.model is not None and (self.model / "checkpoints").is_dir():
            return Trained(self.model, picture, device=self.device)
        if self.model is not None and self.model.exists() and not self.model.is_dir():
            raise ConfigError(f"--model {paths.display(self.model)}: is a file; a folder to train into was expected")
        kind, profile = TRAINED[self.method]
        folder = self.model or self._cache_folder(picture, mode)
        run, learnt, done = folder / "run", folder / "picture.png", folder / "done.json"
        if learnt.is_file() and not np.array_equal(images.read_picture(learnt), picture.pixels):
            raise ConfigError(f"{folder}: has learnt another picture than {picture.name}", hint="name a new folder with --model")
        if done.is_file():
            log.info("%s: learnt already, in %s", picture.name, folder)
            return Trained(run, picture, device=self.device)
        log.info("%s: learning it in %s", picture.name, folder)
        if not learnt.is_file():
            images.write_png(learnt, picture.pixels)
        train_single(
            learnt,
            run,
            kind=kind,
            profile=profile,
            mode=mode,
            budget_seconds=self._training_seconds,
            max_size=side,
            seed=self.seed,
            device=self.device,
        )
        durable.write_json(done, {"picture": picture.name, "kind": kind, "profile": profile, "mode": mode})
        return Trained(run, picture, device=self.device)

    @property
    def _training_seconds(self) -> float | None:
        return None if self.budget_seconds is None else TRAINING_SHARE * self.budget_seconds

    def _cache_folder(self, picture: Picture, mode: Mode) -> Path:
        """Where the model of this picture, learnt with these settings, is kept."""
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vidgen" / "single"
        settings = [picture.sha256, *TRAINED[self.method], mode, self.budget_seconds, self.seed]
        return root / hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:20]

    def _plan(self, picture: Picture, mode: Mode, side: int) -> dict[str, Any]:
        """What a training would do; the picture is planned for at its size."""
        kind, profile = TRAINED[self.method]
        with tempfile.TemporaryDirectory(prefix="vidgen-") as scratch:
            path = Path(scratch) / "picture.png"
            images.write_png(path, picture.pixels)
            plan = plan_single(
                path,
                kind=kind,
                budget_seconds=self._training_seconds,
                profile=profile,
                mode=mode,
                max_size=side,
                device=self.device,
            )
        return {"method": self.method, "training": f"about {plan.seconds:.0f} s", "scales": plan.rows()}


def _clip_frames(
    source: str,
    method: Method,
    num_frames: int | None,
    loop: bool,
    size: str | None,
    aspect: str | None,
    max_size: str,
    seed: int,
    allow_truncated: bool,
    dry_run: bool,
) -> tuple[Fraction, Iterator[np.ndarray]] | dict[str, Any]:
    if method != "patch":
        raise ConfigError(f"--method {method}: learns from one picture, not from a clip", hint="take --method patch for clips")
    clip = open_source(source, allow_truncated=allow_truncated)
    side = _max_side(max_size, AUTO_CLIP_SIDE)
    scale = min(1.0, side / max(clip.size))
    work = (max(1, round(clip.size[0] * scale)), max(1, round(clip.size[1] * scale)))
    if min(work) < patches.MIN_SIDE:
        raise InputError(f"{clip.name}: {_text(work)} pixels are too few; {patches.MIN_SIDE} a side are needed")
    if work != clip.size:
        log.info("%s: reduced from %s to %s; --max-size keeps more", clip.name, _text(clip.size), _text(work))
    if dry_run:
        scales = patches.level_sizes((clip.count(), *work), min_frames=patches.CLIP_PATCH_FRAMES)
        return {"method": method, "training": "none", "scales": ", ".join(f"{size[0]} x {_text(size[1:])}" for size in scales)}
    frames = [resize_picture(frame.pixels, work) for frame in clip]
    made = single.clip_variation(frames, num_frames or len(frames), size=_wanted_size(size, aspect, work), loop=loop, seed=seed)
    return clip.frame_rate, made


def _start(threads: int | None) -> None:
    if threads is not None:
        torch.set_num_threads(threads)


def _wanted_size(size: str | None, aspect: str | None, own: Size) -> Size | None:
    """(height, width) asked for, or None for the picture's own.

    Raises:
        ConfigError: it is no size, or below or above what can be made.
    """
    if size is None and aspect is None:
        return None
    if size is not None and aspect is not None:
        raise ConfigError("--size and --aspect: give one of them")
    text, separator = (size, "x") if size is not None else (aspect, ":")
    option = "--size" if size is not None else "--aspect"
    try:
        width, height = (float(part) for part in str(text).lower().split(separator))
    except ValueError:
        width = height = math.nan
    if not (math.isfinite(width) and math.isfinite(height)):
        example = "320x180" if size is not None else "16:9"
        raise ConfigError(f"{option} {text}: expected WIDTH{separator}HEIGHT, such as {example}")
    if aspect is not None and min(width, height) > 0:
        scale = (own[0] * own[1] / (width * height)) ** 0.5
        width, height = width * scale, height * scale
    wanted = (round(height), round(width))
    if min(wanted) < patches.MIN_SIDE or max(wanted) > _MAX_SIDE:
        raise ConfigError(f"{option} {text}: is {_text(wanted)}; sides are from {patches.MIN_SIDE} to {_MAX_SIDE} pixels")
    return wanted


def _max_side(text: str, automatic: int) -> int:
    if text == "auto":
        return automatic
    if not text.isdecimal() or not patches.MIN_SIDE <= int(text) <= _MAX_SIDE:
        raise ConfigError(f"--max-size {text}: expected auto, or pixels from {patches.MIN_SIDE} to {_MAX_SIDE}")
    return int(text)


def _is_png(output: Path) -> bool:
    if output.suffix and output.suffix.lower() != ".png":
        raise InputError(f"{paths.display(output)}: pictures are written as .png, or into a folder")
    return bool(output.suffix)


def _check_picture_output(output: Path, overwrite: bool) -> None:
    if output.suffix.lower() != ".png":
        raise InputError(f"{paths.display(output)}: pictures are written as .png")
    if output.is_dir():
        raise OutputError(f"{paths.display(output)}: is a folder; a picture is to be written")
    durable.check_writable_target(output, overwrite=overwrite)


def _check_samples_folder(output: Path, overwrite: bool) -> None:
    """As `durable.check_writable_target`; a folder is replaced only where all in it was written as samples."""
    entries = [entry.name for entry in output.iterdir()] if output.is_dir() else []
    foreign = [name for name in entries if name != _SHEET and not re.fullmatch(r"[0-9]{3,}\.png", name)]
    if foreign or (entries and _SHEET not in entries):
        example = paths.display((foreign or entries)[0])
        raise OutputError(f"{paths.display(output)}: the folder holds other things, such as {example}; it is left alone")
    durable.check_writable_target(output, overwrite=overwrite)


def _mention_opacity(picture: Picture) -> None:
    if picture.opacity is not None:
        log.info("%s: its transparent parts are laid over white", picture.name)


def _picture_result(output: Path, method: str, pixels: np.ndarray, started: float) -> dict[str, Any]:
    return {
        "output": str(output),
        "method": method,
        "size": _text(pixels.shape[:2]),
        "seconds": round(time.monotonic() - started, 1),
    }


def _text(size: Sequence[int]) -> str:
    return f"{size[1]}x{size[0]}"
