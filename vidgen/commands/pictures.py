"""The commands over a single picture or clip: words to options, results to files."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch

from vidgen import durable, progress
from vidgen.commands.batches import Calling, Changes, EngineName, Scale, call_each, is_flag, is_text, is_whole
from vidgen.errors import ConfigError, InputError
from vidgen.evaluation.networks import WeightsFile, load_networks
from vidgen.media import images, paths
from vidgen.media.conditions import resize_picture
from vidgen.media.frames import files_read, open_sink, output_place
from vidgen.metrics.learned import MetricNetworks
from vidgen.metrics.score import Score
from vidgen.metrics.single import AnimationMeter, sifid, single_scores
from vidgen.networks import patches
from vidgen.runtime import limit_threads
from vidgen.single_image import library
from vidgen.single_image.clips import loop_gap
from vidgen.single_image.options import Method, Purpose, Shape, SingleImageOptions, Walk
from vidgen.single_image.pictures import MAX_SIDE, contact_sheet, read_picture, size_text

log = logging.getLogger(__name__)

_SHEET = "sheet.png"


@dataclass(frozen=True)
class _Call:
    """What all these commands are told beside their own.

    Attributes:
        dry_run: only say what would be done.
        started: of `time.monotonic`.
    """

    options: SingleImageOptions
    overwrite: bool
    dry_run: bool
    started: float

    @classmethod
    def begin(
        cls,
        *,
        method: Method = "patch",
        budget_seconds: float | None = None,
        max_size: str = "auto",
        model: Path | None = None,
        seed: int = 0,
        overwrite: bool = False,
        device: str = "auto",
        threads: int | None = None,
        dry_run: bool = False,
    ) -> Self:
        """From the options of the command line.

        Raises:
            ConfigError: one of them says nothing that can be done.
        """
        limit_threads(threads)
        options = SingleImageOptions(method, budget_seconds, _max_side(max_size), model, seed, device)
        return cls(options, overwrite, dry_run, time.monotonic())

    def plan(self, source: str | Path, purpose: Purpose) -> dict[str, Any]:
        """What a dry run answers."""
        return library.plan(source, purpose, self.options).report()

    def claim(self, place: durable.Output, *read: str | Path | None) -> AbstractContextManager[durable.Claim]:
        """Hold the output, apart from all that is read."""
        inputs = [file for where in read if where is not None for file in files_read(where)]
        return durable.claim([place], inputs=inputs, overwrite=self.overwrite)

    def write(self, output: Path, pixels: np.ndarray) -> dict[str, Any]:
        """Write one picture, and say so."""
        images.write_png(output, pixels)
        return self.result(output, size=size_text(pixels.shape))

    def result(self, output: str | Path, **values: Any) -> dict[str, Any]:
        """What a command answers."""
        seconds = round(time.monotonic() - self.started, 1)
        return {"output": str(output), "method": self.options.method, **values, "seconds": seconds}


def animate_each(
    inputs: Sequence[str],
    out: str,
    *,
    inputs_list: Path | None = None,
    shard: str | None = None,
    engine: EngineName = "local",
    workers: int | None = None,
    address: str | None = None,
    gpus: float | None = None,
    skip_existing: bool = False,
    overwrite: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Animate one or many pictures and clips; further options are those of `animate`.

    Args:
        out: of several inputs a folder, whose tree mirrors theirs.
    """
    scale = Scale(inputs_list, shard, engine, workers, address, gpus, skip_existing, overwrite)
    calling = Calling(
        "animate",
        "pictures.animate",
        "source",
        "output",
        lambda place: ".mp4",
        lambda arguments: [output_place(arguments["output"])],
        Changes((), {"seed": is_whole, "loop": is_flag, "num_frames": is_whole, "size": is_text, "aspect": is_text}),
        single_only=("model", "dry_run"),
    )
    return call_each(calling, inputs, out, scale=scale, shared=options)


def animate(
    source: str,
    output: str,
    *,
    num_frames: int | None = None,
    frame_rate: float = 12,
    loop: bool = False,
    size: str | None = None,
    aspect: str | None = None,
    start_scale: int | None = None,
    alpha: float = 0.1,
    beta: float = 0.9,
    motion: float = 1.0,
    score: bool = False,
    quality: Literal["draft", "good", "lossless"] = "good",
    allow_truncated: bool = False,
    **shared: Any,
) -> dict[str, Any]:
    """Make a moving picture of a still one, or a new clip of a short one.

    Args:
        output: video, .gif, .apng, .webp, or a folder of PNG files.
        score: measure the frames' motion, and their sharpness and rim against what is animated; see `AnimationMeter`.

    Returns:
        the file, its size and length, the scores, and, for a loop, the step from its last frame to its first over a mean step.
    """
    call = _Call.begin(**shared)
    walk = Walk(num_frames, loop, start_scale, alpha, beta, _shape(size, aspect), motion)
    small = []
    meter = None
    with call.claim(output_place(output), source) as claim:
        if call.dry_run:
            return call.plan(source, "animation")
        animation = library.animate(source, walk, call.options, frame_rate=frame_rate, allow_truncated=allow_truncated)
        rate = Fraction(animation.frame_rate)
        with open_sink(output, time_base=1 / rate, frame_rate=rate, quality=quality, claim=claim) as sink:
            for index, frame in enumerate(progress.follow(animation.frames, "rendering", num_frames)):
                sink.write(np.ascontiguousarray(frame[:, :, :3]), index)
                small.append(frame[::2, ::2, :3])
                if score:
                    meter = meter or AnimationMeter([resize_picture(pixels, frame.shape[:2]) for pixels in animation.original])
                    meter.add(frame[:, :, :3])
    values: dict[str, Any] = {"frames": len(small), "size": size_text(frame.shape), "fps": float(rate)}
    if loop:
        values["loop_gap"] = round(loop_gap(small), 3)
    if meter is not None:
        values["scores"] = _stated(meter.scores())
    return call.result(output, **values)


def sample(
    image: Path,
    output: Path,
    *,
    num_samples: int = 6,
    size: str | None = None,
    aspect: str | None = None,
    start_scale: int = 0,
    score: bool = False,
    weights: Sequence[str] = (),
    **shared: Any,
) -> dict[str, Any]:
    """Make new pictures in the style of one: a contact sheet (.png), or a folder that holds them and the sheet.

    Args:
        score: measure likeness, diversity and copying.
        weights: `sifid=FILE` or `sifid=FILE#SHA256` adds SIFID to the scores.

    Returns:
        the file, and the scores.
    """
    call = _Call.begin(**shared)
    place = durable.Output(output, "file" if _is_png(output) else "folder")
    networks = _score_networks(weights, score)
    shape = _shape(size, aspect)
    with call.claim(place, image):
        if call.dry_run:
            return call.plan(image, "sample")
        picture = read_picture(image)
        samples = list(library.sample(picture, num_samples, call.options, shape=shape, start_scale=start_scale))
        original = picture.downscaled(call.options.side("sample", max(picture.size))).pixels
        sheet = contact_sheet([original, *samples], num_columns=min(4, len(samples) + 1))
        if place.is_file:
            images.write_png(output, samples[0] if num_samples == 1 and not score else sheet)
        else:
            files = {f"{index:03d}.png": images.encode_png(pixels) for index, pixels in enumerate(samples)}
            durable.fill_output_folder(place, {**files, _SHEET: images.encode_png(sheet)})
    result = call.result(output, samples=len(samples), size=size_text(samples[0].shape))
    return {**result, "scores": score_samples(samples, original, networks)} if score else result


def super_resolve(image: Path, output: Path, *, factor: float = 4.0, **shared: Any) -> dict[str, Any]:
    """Enlarge a picture by any factor, with detail from the picture itself."""
    call = _Call.begin(**shared)
    with call.claim(_picture_place(output), image):
        if call.dry_run:
            return call.plan(image, "super_resolution")
        return call.write(output, library.super_resolve(image, factor, call.options))


def harmonize(
    naive: Path, image: Path, output: Path, *, mask: Path | None = None, start_scale: int | None = None, **shared: Any
) -> dict[str, Any]:
    """Give what was pasted into a picture the picture's style.

    Args:
        naive: the picture with something pasted into it.
        image: the picture itself, of the same size.
        mask: white where something was pasted; by default where the two pictures differ.
        start_scale: finer scales keep more of what was pasted.
    """
    call = _Call.begin(**shared)
    with call.claim(_picture_place(output), naive, image, mask):
        if call.dry_run:
            return call.plan(image, "sample")
        return call.write(output, library.harmonize(naive, image, call.options, mask=mask, start_scale=start_scale))


def edit(
    image: Path, edited: Path, output: Path, *, mask: Path | None = None, start_scale: int | None = None, **shared: Any
) -> dict[str, Any]:
    """Remove the seams of a picture whose parts were copied or moved about; `mask` is as for `harmonize`."""
    call = _Call.begin(**shared)
    with call.claim(_picture_place(output), image, edited, mask):
        if call.dry_run:
            return call.plan(image, "sample")
        return call.write(output, library.edit_image(image, edited, call.options, mask=mask, start_scale=start_scale))


def paint(painting: Path, image: Path, output: Path, *, start_scale: int = 1, **shared: Any) -> dict[str, Any]:
    """Make of a rough painting, of any size, what it means in the style of a picture.

    Args:
        start_scale: where the painting is injected: a finer scale keeps more of it.
    """
    call = _Call.begin(**shared)
    with call.claim(_picture_place(output), painting, image):
        if call.dry_run:
            return call.plan(image, "sample")
        return call.write(output, library.paint(painting, image, call.options, start_scale=start_scale))


# -- scores ----------------------------------------------------------------------------------------------------------------


def score_samples(samples: Sequence[np.ndarray], original: np.ndarray, networks: MetricNetworks | None = None) -> dict[str, Any]:
    """The three numbers of `vidgen.metrics.single`, or the reason why one has no value; pictures uint8 [H,W,C].

    Args:
        networks: with the network of SIFID, that too.
    """
    tensors = [torch.from_numpy(np.ascontiguousarray(pixels[:, :, :3])).permute(2, 0, 1).float() / 255 for pixels in samples]
    reference = torch.from_numpy(original).permute(2, 0, 1).float() / 255
    scores = single_scores(tensors, reference)
    if networks is not None and networks.sifid is not None:
        scores["sifid"] = sifid(networks, [pixels[:, :, :3] for pixels in samples], original)
    for name, value in scores.items():
        if value.note:
            log.warning("%s: %s", name, value.note)
    return _stated(scores)


def _stated(scores: Mapping[str, Score]) -> dict[str, Any]:
    """Each value, or the reason why there is none."""
    return {name: score.reason if score.value is None else round(score.value, 4) for name, score in scores.items()}


def _score_networks(weights: Sequence[str], score: bool) -> MetricNetworks:
    """The networks of scores that need one."""
    files = WeightsFile.parse_all(weights)
    for name in files:
        if name != "sifid":
            raise ConfigError(f"pretrained network {name}: scores of samples need none of that name; sifid=FILE adds SIFID")
        if not score:
            raise ConfigError(f"pretrained network {name}: is for scores of samples, which were not asked for", hint="add --score")
    return load_networks(files, files)[0]


# -- words and outputs -----------------------------------------------------------------------------------------------------


def _shape(size: str | None, aspect: str | None) -> Shape:
    """What `--size` or `--aspect` asks for.

    Raises:
        ConfigError: it is none.
    """
    if size is not None and aspect is not None:
        raise ConfigError("--size and --aspect: give one of them")
    if size is not None:
        width, height = _two_numbers("--size", size, "x", "320x180")
        return Shape(size=(round(height), round(width)))
    if aspect is not None:
        width, height = _two_numbers("--aspect", aspect, ":", "16:9")
        return Shape(aspect=width / height)
    return Shape()


def _two_numbers(option: str, text: str, separator: str, example: str) -> tuple[float, float]:
    try:
        first, second = (float(part) for part in text.lower().split(separator))
    except ValueError:
        first = second = math.nan
    if not (0 < first < math.inf and 0 < second < math.inf):
        raise ConfigError(f"{option} {text}: expected WIDTH{separator}HEIGHT, such as {example}")
    return first, second


def _max_side(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or not patches.MIN_SIDE <= int(text) <= MAX_SIDE:
        raise ConfigError(f"--max-size {text}: expected auto, or pixels from {patches.MIN_SIDE} to {MAX_SIDE}")
    return int(text)


def _is_png(output: Path) -> bool:
    if output.suffix and output.suffix.lower() != ".png":
        raise InputError(f"{paths.display(output)}: pictures are written as .png, or into a folder")
    return bool(output.suffix)


def _picture_place(output: Path) -> durable.Output:
    if output.suffix.lower() != ".png":
        raise InputError(f"{paths.display(output)}: pictures are written as .png")
    return durable.Output(output)
