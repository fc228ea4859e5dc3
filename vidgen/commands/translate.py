"""Translate one or many videos with a trained model."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vidgen import durable, progress
from vidgen.commands import batches
from vidgen.commands.batches import (
    Changes,
    Companions,
    EngineName,
    Scale,
    Source,
    check_folder,
    find_sources,
    is_flag,
    is_number,
    is_one_of,
    is_picture,
    is_text,
    is_whole,
    lay_out,
)
from vidgen.commands.inputs import check_order, files_by_name, files_of_model, further_inputs
from vidgen.commands.sheets import STYLE, style_pictures, write_sheet
from vidgen.errors import ConfigError, InputError, VidgenError
from vidgen.inference.backends.choice import BackendName
from vidgen.inference.model import GRAPH_SUFFIX, WORTH_PREPARING, Model, Options
from vidgen.inference.session import WorkSize, class_number
from vidgen.jobs.clips import Clip, parse_shard, place_of
from vidgen.media import labels, lines
from vidgen.media.frames import FrameSource, files_read, open_source, output_place, sidecar_place
from vidgen.media.labels import LabelTable
from vidgen.weights.checkpoints import find_files

if TYPE_CHECKING:
    from vidgen.inference.styles import StyleAssignment
    from vidgen.runtime import Precision

log = logging.getLogger(__name__)

_FLICKERS = (
    "%s generates each frame independently, so a video will flicker: train vid2vid for videos, or smooth with --smoothing 0.7"
    " (--smoothing 0 for unrelated images)"
)


def translate(
    model: Path,
    inputs: Sequence[str],
    out: str,
    *,
    first_frame: Path | None = None,
    labels: str | None = None,
    further: Sequence[str] = (),
    instances: str | None = None,
    side_by_side: bool = False,
    work_size: WorkSize = "auto",
    steady: float | None = None,
    styles: Path | None = None,
    chosen: Sequence[str] = (),
    reference: Sequence[str] | None = None,
    start: str | None = None,
    end: str | None = None,
    frame_rate: float | None = None,
    inputs_list: Path | None = None,
    shard: str | None = None,
    engine: EngineName = "local",
    workers: int | None = None,
    address: str | None = None,
    gpus: float | None = None,
    skip_existing: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    precision: Precision | None = None,
    threads: int | None = None,
    backend: BackendName = "auto",
    compiled: bool = False,
    quality: Literal["draft", "good", "lossless"] = "good",
    seed: int = 0,
    weights: Literal["auto", "average", "ema", "last", "best"] = "auto",
    samples: int = 1,
    class_name: str | None = None,
    inverted: bool = False,
    sheet: Path | None = None,
    pretrained: Sequence[str] = (),
) -> dict[str, Any]:
    """Translate one or many inputs; see `Model.open` for what an input may be.

    Args:
        out: output file or folder of frames for one input; a folder for several, whose tree mirrors that of the inputs. A JSON
            file beside each result, named after the whole of it (out.mp4.json), tells how it was made.
        samples: how many results of each input, from one seed each; the number goes into their names (out-1.png). They differ
            where the model has noise (the dropout of pix2pix) or draws styles.
        class_name: what the inputs show, for models that know classes.
        first_frame: picture or video to continue, or a model (run folder or weights) that makes the first frame.
        further, instances: the model's other inputs; see `further_inputs`. For several inputs, each of these and `first_frame` is
            a folder that holds one for each, under its name.
        labels: how the input stores classes: auto (as in training), ids, palette:NAME or a table file.
        frame_rate: frames per second of folders of frames, which state none; 25 by default.
        steady: share of the last result in each frame of an image model, 0..1; None means 0 and a warning for videos.
        styles, chosen, reference: styles of the objects, for models with a feature encoder; see `choose_style`. Entries of `chosen`
            that are no CLASS=STYLE are style pictures (files, folders or patterns), for models that read one: every input is
            translated in every style, and where there are several their names go into those of the results.
        inverted: drawings and sketches are light on dark.
        sheet: also write a contact sheet of all results, a row for each input, a column for each style and sample.
        pretrained: NAME=FILE of pretrained networks that the model needs in use.
        backend: what computes; auto takes OpenVINO where it is installed and gives torch's frames on this machine.
        compiled: compile the network with torch first.
        inputs_list, shard, engine, workers, address, gpus: many inputs; see `batches.Scale`.

    Returns:
        of one input, how it was made; of several, what became of them, with an entry for each where there are not too many.

    Raises:
        PartialFailure: some inputs failed; the others are done.
    """
    arguments = batches.encoded({**locals(), "overwrite": False})
    scale = Scale(inputs_list, shard, engine, workers, address, gpus, skip_existing, overwrite)
    check_order(model, inputs)
    parse_shard(shard)
    sources = find_sources(inputs, inputs_list, _CHANGES)
    several = len(inputs) > 1 or len(sources) > 1 or inputs_list is not None
    if several:
        check_folder(out, len(sources))
        named = lay_out(sources, out, lambda place: ".png" if is_picture(place) else ".mp4")
    else:
        named = [(os.path.basename(place_of(sources[0].where)), out)]
    if reference and backend == "auto":
        backend = "torch"  # the encoder, which looks at the reference, is no part of an exported graph
    chosen, further, pictures = style_pictures(chosen, further)
    styles_of_results: list[Path | None] = [*pictures] or [None]
    companions, fixed = _companions(further, instances, first_frame, several=several)
    clips = []
    for source, (identity, output) in zip(sources, named, strict=True):
        values, fault = source.values, source.fault
        if fault is None:
            values, fault = companions.of(source, identity if several else None)
            values = {**fixed, **values}
        for style, index in itertools.product(styles_of_results, range(samples)):
            own: dict[str, Any] = {"input": source.where}
            named_values = values if style is None else {**values, STYLE: str(style)}
            own |= {"inputs": named_values} if named_values else {}
            own |= {"sample": index} if samples > 1 else {}
            own |= {"options": {_OPTIONS[name][0]: value for name, value in source.options.items()}} if source.options else {}
            mark = [style.stem] if style is not None and len(pictures) > 1 else []
            mark += [str(index + 1)] if samples > 1 else []
            clips.append(Clip(identity, _marked(output, "-".join(mark)) if mark else output, own, fault))
    options: dict[str, Any] = {
        "model": str(model),
        "labels": labels,
        "side_by_side": side_by_side,
        "work_size": work_size,
        "steady": steady,
        "styles": None if styles is None else str(styles),
        "chosen": list(chosen),
        "reference": None if reference is None else list(reference),
        "start": start,
        "end": end,
        "frame_rate": frame_rate,
        "device": device,
        "precision": precision,
        "threads": threads,
        "backend": backend,
        "quality": quality,
        "seed": seed,
        "weights": weights,
        "samples": samples,
        "class_name": class_name,
        "inverted": inverted,
        "compiled": compiled,
        "pretrained": list(pretrained),
        "num_frames": _enough_frames(sources) if backend == "auto" and not compiled else None,
    }
    if sheet is not None:
        durable.check_places(
            [output_place(sheet, single=True)], inputs=[file for clip in clips for file in _reads(clip)], overwrite=overwrite
        )
    if not several:
        result = _translate_one(clips, options, overwrite=overwrite, skip_existing=skip_existing)
        _write_sheet(sheet, clips)
        return result
    ignored = ("device", "threads", "backend", "compiled", "num_frames", "samples", "model")
    result = batches.run(
        "translate",
        "vidgen.commands.translate:Worker",
        clips,
        out,
        scale=scale,
        options=options,
        decides={"model": _hash_of(model, weights), **{name: options[name] for name in options if name not in ignored}},
        arguments=arguments,
        places=_places,
        reads=lambda clip: [*_reads(clip), *files_of_model(model)],
    )
    _write_sheet(sheet, clips)
    return result


def _write_sheet(sheet: Path | None, clips: Sequence[Clip]) -> None:
    if sheet is None:
        return
    rows = []
    for clip in clips:
        style = clip.values.get("inputs", {}).get(STYLE)
        rows.append(
            (Path(clip.values["input"]), None if style is None else Path(style), clip.values.get("sample", 0), str(clip.output))
        )
    write_sheet(sheet, rows)


def _translate_one(clips: Sequence[Clip], options: Mapping[str, Any], *, overwrite: bool, skip_existing: bool) -> dict[str, Any]:
    """The samples of one input, whose outputs are held from the start."""
    left = [clip for clip in clips if not (skip_existing and _places(clip)[0].exists())]
    results: list[dict[str, Any]] = [{"output": clip.output, "skipped": True} for clip in clips if clip not in left]
    places = [place for clip in left for place in _places(clip)]
    read = [Path(options["model"]), *(file for clip in left for file in _reads(clip))]
    with durable.claim(places, inputs=read, overwrite=overwrite) as claim:
        if left:
            worker = Worker(options)
            results += [worker(clip, claim) for clip in left]
    return {"results": results} if len(clips) > 1 else results[0]


class Worker:
    """A model that is loaded once and translates clip after clip."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        """Load it; the options are those of `translate`, as JSON values."""
        self.options = options
        weights = options["weights"]
        self._loading: dict[str, Any] = {
            "device": options["device"],
            "precision": options["precision"] or "auto",
            "threads": options["threads"],
        }
        self.model = Model.load(
            Path(options["model"]),
            weights="ema" if weights == "average" else weights,
            backend=options["backend"],
            num_frames=options["num_frames"],
            compiled=options["compiled"],
            pretrained=files_by_name(options["pretrained"], "`pretrained`"),
            **self._loading,
        )
        self._tables = {options["labels"]: input_table(options["labels"], self.model)}
        if options["class_name"] is not None:
            class_number(self.model.condition, options["class_name"])
        styles = None if options["styles"] is None else Path(options["styles"])
        self._styles = [
            _style(
                self.model,
                styles=styles,
                chosen=options["chosen"],
                reference=options["reference"],
                seed=options["seed"] + index,
            )
            for index in range(options["samples"])
        ]
        self._first_models: dict[str, Model] = {}
        self._has_warned = False
        self._last_main = ""

    def __call__(self, clip: Clip, claim: durable.Claim | None = None) -> dict[str, Any]:
        """Translate a clip and save it, with the JSON file beside it.

        Raises:
            VidgenError: that cannot be done.
        """
        own = {**self.options, **clip.values.get("options", {})}
        inputs = dict(clip.values.get("inputs", {}))
        first = inputs.pop("first_frame", None)
        rate = own["frame_rate"]
        reads_sketches = self.model.condition.sketch is not None  # whose lines are turned over where they are found
        opened = self.model.open(
            clip.values["input"],
            further=self._named(inputs),
            first_frames=self._first_model(Path(first)) or first if first is not None else None,
            start=own["start"],
            end=own["end"],
            frame_rate=None if rate is None else Fraction(rate).limit_denominator(1001),
            inverted=own["inverted"] and not reads_sketches,
        )
        if opened.main.name != self._last_main:
            self._last_main = opened.main.name
            _check_drawing(self.model, opened.main)
        if own["steady"] is None and self.model.facts.num_past_frames == 0 and opened.main.num_frames != 1 and not self._has_warned:
            self._has_warned = True
            log.warning(_FLICKERS, self.model.kind)
        sample = clip.values.get("sample", 0)
        chosen = Options(
            own["seed"] + sample,
            self._table(own["labels"]),
            own["work_size"],
            own["steady"] or 0.0,
            self._styles[sample],
            own["class_name"],
            own["inverted"] and reads_sketches,
        )
        translation = self.model.translate(opened, options=chosen)
        with progress.task(f"translating {Path(clip.output).name}", translation.inputs.main.num_frames) as report:
            return translation.save(
                clip.output,
                side_by_side=own["side_by_side"],
                quality=own["quality"],
                overwrite=clip.values.get("overwrite", False),
                report=report,
                claim=claim,
            )

    def _named(self, inputs: Mapping[str, str]) -> dict[str, str]:
        """Further inputs by the model's names; those that were given without one are numbered."""
        entries = [f"{'' if name.startswith('?') else name}={path}" for name, path in inputs.items() if name != "instances"]
        return further_inputs(self.model, entries, instances=inputs.get("instances"))

    def _table(self, text: str | None) -> LabelTable | None:
        if text not in self._tables:
            self._tables[text] = input_table(text, self.model)
        return self._tables[text]

    def _first_model(self, path: Path) -> Model | None:
        """The model that makes first frames, where that is what they come from."""
        if path.suffix != ".safetensors" and not (path / "checkpoints").is_dir():
            return None
        if str(path) not in self._first_models:
            self._first_models[str(path)] = Model.load(path, **self._loading)
        return self._first_models[str(path)]


def _check_drawing(model: Model, main: FrameSource) -> None:
    """Say where a model of line drawings is given something else.

    Raises:
        InputError: a picture is blank.
    """
    if model.condition.lines is None or model.inputs[0].kind != "lines":
        return
    kind = lines.kind_of_drawing(main.read(0, 1)[0].pixels)
    if kind == "blank" and main.num_frames == 1:
        raise InputError(f"{main.name}: is blank; a line drawing was expected")
    if kind == "inverted":
        log.warning("%s: looks like light lines on dark, and drawings are dark lines on light; --invert turns it over", main.name)
    if kind == "photo":
        log.warning(
            "%s: looks like a photo, not like a line drawing; 'vidgen condition %s --to lines -o lines.png' draws its lines",
            main.name,
            main.name,
        )


_OPTIONS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "seed": ("seed", is_whole),
    "start": ("start", is_text),
    "end": ("end", is_text),
    "fps": ("frame_rate", is_number(0.1, 1000)),
    "smoothing": ("steady", is_number(0, 1)),
    "side_by_side": ("side_by_side", is_flag),
    "label_encoding": ("labels", is_text),
    "quality": ("quality", is_one_of("draft", "good", "lossless")),
    "work_size": ("work_size", is_one_of("auto", "input")),
    "class": ("class_name", is_text),
    "invert": ("inverted", is_flag),
}
"""What a list may change for a clip: by the words of the command line, our name and a check."""


_CHANGES = Changes(("instances", "first_frame"), {name: check for name, (_, check) in _OPTIONS.items()})


def _companions(
    further: Sequence[str], instances: str | None, first_frame: Path | None, *, several: bool
) -> tuple[Companions, dict[str, str]]:
    """The inputs beside the main one, and the model of first frames, which serves all clips.

    Raises:
        ConfigError: an entry is not NAME=PATH, or an input is named twice.
    """
    named: dict[str, str | Path] = {} if instances is None else {"instances": instances}
    for index, entry in enumerate(further):
        name, sign, path = entry.partition("=")
        if not (sign and path):
            raise ConfigError(f"`further` {entry}: expected NAME=PATH, such as instances=objects.png")
        if name in named:
            raise ConfigError(f"`further` {entry}: {name} is named twice")
        named[name or f"?{index}"] = path
    if first_frame is not None and not _is_model(first_frame):
        named["first_frame"] = first_frame
    fixed = {"first_frame": str(first_frame)} if first_frame is not None and _is_model(first_frame) else {}
    return Companions(named, several=several, words={"first_frame": "`first_frame`"}), fixed


def _is_model(path: Path) -> bool:
    return path.suffix == ".safetensors" or (path / "checkpoints").is_dir()


def _places(clip: Clip) -> list[durable.Output]:
    return [output_place(clip.output, single=is_picture(place_of(clip.values["input"]))), sidecar_place(clip.output)]


def _reads(clip: Clip) -> list[Path]:
    return [file for where in (clip.values["input"], *clip.values.get("inputs", {}).values()) for file in files_read(where)]


def _hash_of(model: Path, weights: str) -> str:
    """Of all weights that may be used, so that no batch is continued with another model.

    Raises:
        CheckpointError: there are none.
    """
    if model.suffix.lower() == GRAPH_SUFFIX:
        return durable.fingerprint(model).sha256
    prefer: Any = "ema" if weights == "average" else weights
    return "-".join(durable.fingerprint(file).sha256 for file in find_files(model, prefer) if file is not None)


def _style(model: Model, **options: Any) -> StyleAssignment | None:
    """See `choose_style`, which a model without an encoder need not load."""
    if not model.num_style_channels and not any(options[name] for name in ("styles", "chosen", "reference")):
        return None
    from vidgen.commands.styles import choose_style

    return choose_style(model, **options)


def _enough_frames(sources: Sequence[Source]) -> int | None:
    """How many frames there will be, counted until preparing a graph pays off; None where a clip does not say how many it has."""
    total = 0
    for source in sources:
        if source.fault is not None:
            continue
        try:
            count = open_source(source.where).num_frames
        except VidgenError:  # it is opened again, as what it is, when its turn comes
            continue
        if count is None:
            return None
        total += count
        if total >= WORTH_PREPARING:
            break
    return total


def _marked(out: str, mark: str) -> str:
    path = Path(out)
    if out.endswith(("/", os.sep)):
        return f"{path}-{mark}/"
    return str(path.with_name(f"{path.stem}-{mark}{path.suffix}"))


def input_table(text: str | None, model: Model) -> LabelTable | None:
    """How the input stores classes, by the words of the command line; None means as in training."""
    if text is None or text == "auto":
        return None
    if model.table is None:
        raise ConfigError(f"--label-encoding {text}: this model reads no label maps")
    if text == "ids":
        table = labels.plain(model.table.num_classes, model.table.ignore)
    else:
        table = labels.find(text)
    if table.num_classes != model.table.num_classes:
        raise ConfigError(f"--label-encoding {text}: has {table.num_classes} classes, the model knows {model.table.num_classes}")
    return table
