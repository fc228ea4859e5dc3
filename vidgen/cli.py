"""The command line: options in, one call of a function in `vidgen.commands`, its result out.

Results go to stdout (a short summary, or one JSON object with `--json`); progress, log and errors go to stderr. Every expected
failure is one line `error: ...` with a hint and an exit code; see `main`. Nothing here imports torch, so help is immediate.
"""

from __future__ import annotations

import importlib
import json
import logging
import math
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

import click

from flow.errors import FlowError
from vidgen.errors import DamagedVideoError, OutputExistsError, Terminated, VidgenError, printable, printable_lines

Result = Mapping[str, Any]
Decorated = TypeVar("Decorated", bound=Callable[..., Any])

EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143
PATH = click.Path(path_type=Path)
POSITIVE = click.IntRange(min=1)
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


class Duration(click.ParamType):
    """Seconds, written like 90s, 5m or 1h30m."""

    name = "duration"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> float:
        """Give the seconds; wrong text is wrong usage."""
        from vidgen.config import parse_duration

        return parse_duration(value) if isinstance(value, str) else value


DURATION = Duration()


class Number(click.FloatRange):
    """A number within limits; click lets nan and the infinite ones through where a side is open."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> float:
        """Give the number; what is none is wrong usage."""
        number = float(super().convert(value, parameter, context))
        if not math.isfinite(number):
            self.fail(f"{value} is no number to reckon with.", parameter, context)
        return number


@dataclass
class Screen:
    """How much is said, and in which form; filled by the global options wherever they stand on the line."""

    json: bool = False
    debug: bool = False
    verbosity: int = 0

    def show(self, result: Result, summary: Callable[[Result], str]) -> None:
        """Write a command's result to stdout."""
        click.echo(json.dumps(result, indent=2, default=str) if self.json else summary(result))

    def show_error(self, message: str, *, hint: str | None = None, word: str = "error") -> None:
        """Write an error to stderr, and as an object to stdout where a program reads it."""
        color = False if os.environ.get("NO_COLOR") else None
        message, hint = printable_lines(message), printable_lines(hint or "") or None
        click.echo(f"{click.style(f'{word}:', fg='red', bold=True)} {message}", err=True, color=color)
        if hint:
            click.echo(f"{click.style('hint:', fg='cyan', bold=True)} {hint}", err=True, color=color)
        if self.json:
            click.echo(json.dumps({"error": message, "hint": hint}))
        if self.debug:
            click.echo(traceback.format_exc(), err=True)


class Log(logging.Handler):
    """Log lines on stderr, above a progress bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; warnings and worse say so."""
        prefix = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        click.echo(prefix + printable_lines(self.format(record)), err=True)


def summarise(result: Result, indent: int = 0) -> str:
    """A result as readable lines: one per value, nested ones indented."""
    width = max((len(name) for name in result), default=0)
    lines = []
    for name, value in result.items():
        label = " " * indent + name
        if isinstance(value, Mapping):
            lines += [label, summarise(value, indent + 2)] if value else []
        elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
            lines += [label, *(summarise(item, indent + 2) for item in value)]
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
        flag("--json", callback=_set("json", True), text="One JSON object on stdout."),
        flag("-v", "--verbose", callback=_set("verbosity", 1), text="Say more on stderr."),
        flag("-q", "--quiet", callback=_set("verbosity", -1), text="Only errors on stderr."),
        flag("--debug", callback=_set("debug", True), text="Show the traceback of an error."),
        flag("--no-color", callback=_no_color, text="Plain text."),
    ]


class Command(click.Command):
    """A command that knows an example of itself and how its result reads."""

    def __init__(self, name: str, *, example: str, summary: Callable[[Result], str] = summarise, **options: Any) -> None:
        super().__init__(name, epilog=f"\b\nExample:\n  {example}", **options)
        self.example = example
        self.summary = summary
        self.params += _global_options(hidden=True)

    def invoke(self, context: click.Context) -> None:
        """Run the command and show its result, if it did not do so itself."""
        screen = context.ensure_object(Screen)
        _start_log(screen)
        result = super().invoke(context)
        if result is not None:
            screen.show(result, self.summary)


class Group(click.Group):
    """A group that lists its commands in the order of the work."""

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


def _call(verb: str, /, **options: Any) -> Result:
    """Call `vidgen.commands.<file>.<function>`, named as `file.function`; imported only now because most need torch."""
    module, function = verb.split(".")
    return getattr(importlib.import_module(f"vidgen.commands.{module}"), function)(**options)


# --- options that several commands share ----------------------------------------------------------------------------------


def _options(*decorators: Callable[[Decorated], Decorated]) -> Callable[[Decorated], Decorated]:
    def decorate(function: Decorated) -> Decorated:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


sets = click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change one value of the configuration; repeatable.")
overwrite = click.option("-y", "--overwrite", is_flag=True, help="Replace what exists.")
seed = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of everything random.")
compute = _options(
    click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]|mps", help="Where to compute."),
    click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), help="auto takes bf16 where it is fast."),
    click.option("--threads", type=POSITIVE, help="CPU threads."),
)


looks = _options(
    click.option("--styles", type=PATH, help="File of 'vidgen styles'; by default the one beside the model."),
    click.option("--style", "chosen", multiple=True, metavar="CLASS=STYLE", help="Look of all objects of a class; repeatable."),
    click.option("--reference", nargs=3, metavar="PICTURE LABELS INSTANCES", help="Objects look like those of this picture."),
)


# --- commands -------------------------------------------------------------------------------------------------------------


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "VIDGEN", "max_content_width": 110},
    params=_global_options(hidden=False),
    epilog="\b\nExample:\n  vidgen demo\nEach option can be set in the environment too: VIDGEN_TRANSLATE_DEVICE=cpu.",
)
@click.version_option(package_name="vidgen", message="%(prog)s %(version)s")
def cli() -> None:
    """Video-to-video translation: train it, use it, measure how steady the result is."""


@cli.command(example="vidgen demo -o demo")
@click.option("-o", "--out", type=PATH, default=Path("demo"), show_default=True, help="Folder to fill.")
@click.option("--minutes", type=Number(min=0.1), default=4.0, show_default=True, help="Time to train for.")
@seed
@overwrite
def demo(**options: Any) -> Result:
    """Train, translate and measure on a small made-up street."""
    return _call("demo.demo", **options)


@cli.command(example="vidgen train configs/vid2vid/street.yaml -o runs/street --time-limit 2h")
@click.argument("config", type=PATH, required=False)
@click.option("-o", "--out", type=PATH, help="Run folder.  [default: runs/NAME]")
@sets
@click.option("--resume", is_flag=True, help="Go on from the newest checkpoint of the run folder.")
@overwrite
@click.option("--steps", type=POSITIVE, help="Stop after so many steps in all.")
@click.option("--time-limit", "time_limit_seconds", type=DURATION, help="Stop and save after so long, such as 90s, 5m, 2h.")
@click.option("--devices", type=POSITIVE, default=1, show_default=True, help="Number of processes to train with.")
@compute
@click.option("--dry-run", is_flag=True, help="Show what would be trained: parameters, shapes, memory.")
@click.option("--init", type=PATH, metavar="WEIGHTS", help="Start from these weights.")
def train(**options: Any) -> Result:
    """Train a translator as one configuration file says."""
    return _call("train.train", **options)


@cli.command(example="vidgen translate runs/street labels.mkv -o street.mp4 --side-by-side")
@click.argument("model", type=PATH)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("-o", "--out", required=True, help="Video or folder of frames; a folder for several inputs.")
@click.option("--first-frame", type=PATH, help="Picture or video to continue, or a model that makes the first frame.")
@click.option("--labels", metavar="auto|ids|palette:NAME|FILE", help="How the input encodes classes.")
@click.option("--instances", metavar="INPUT", help="Video or folder of object ids.")
@click.option("--other", "others", multiple=True, metavar="INPUT", help="A further kind of picture the model reads; repeatable.")
@click.option("--work-size", type=click.Choice(["auto", "input"]), default="auto", show_default=True, help="Of the frames made.")
@click.option("--side-by-side", is_flag=True, help="Input and result in one picture.")
@click.option("--samples", type=POSITIVE, default=1, show_default=True, help="Results per input, where the model has noise.")
@click.option("--steady", type=Number(0, 1), help="Share of the last result, moved along, for models of single images.")
@looks
@click.option("--start", metavar="TIME", help="First moment to translate: seconds, or frames such as 45f.")
@click.option("--end", metavar="TIME", help="Moment to stop before.")
@click.option("--shard", metavar="K/N|auto", help="Take only part K of N of the inputs; auto reads a SLURM array.")
@click.option("--skip-existing", is_flag=True, help="Leave outputs alone that are already there.")
@overwrite
@compute
@click.option("--quality", type=click.Choice(["draft", "good", "lossless"]), default="good", show_default=True)
@seed
@click.option("--weights", type=click.Choice(["auto", "average", "last"]), default="auto", show_default=True, help="Of a run.")
def translate(**options: Any) -> Result:
    """Turn label, edge or pose videos into realistic ones."""
    return _call("translate.translate", **options)


@cli.command(example="vidgen edit runs/city labels.png --instances objects.png --remove 26003 --move 26001:-40,0 -o edited.png")
@click.argument("model", type=PATH)
@click.argument("labels")
@click.option("-o", "--out", "output", type=PATH, required=True, help="Picture to write (.png); its maps are written beside it.")
@click.option("--instances", metavar="INPUT", help="Picture of object ids.")
@click.option("--other", "others", multiple=True, metavar="INPUT", help="A further kind of picture the model reads; repeatable.")
@click.option("--set", "sets", multiple=True, metavar="object=ID:class=CLASS", help="Another class; or object=ID:style=STYLE.")
@click.option("--remove", "removals", multiple=True, metavar="ID[:CLASS]", help="Put what is around, or CLASS, in its place.")
@click.option("--move", "moves", multiple=True, metavar="ID:DX,DY", help="Move an object, in pixels.")
@click.option("--paint", "paints", multiple=True, metavar="CLASS:X,Y,R", help="Paint a disc, or as said above.")
@click.option("--variants", metavar="ID:N", help="N pictures, in which the object has the styles 0..N-1.")
@looks
@seed
@overwrite
@compute
@click.option("--mask", type=PATH, help="Of a picture whose parts were moved: white where.")
def edit(mask: Path | None, **options: Any) -> Result:
    """Change objects of a label map, and its picture.

    An ID is a number of the instance map; without one, every connected area of a class is an object, CLASS * 1000 + 0, 1 and so on
    from the largest. Without an order, nothing changes and all objects are listed. Orders are obeyed as listed here:

    \b
      --set object=26003:class=truck          another class
      --remove 26003, --remove 26003:road     what is around, or a class, takes its place
      --move 26003:-40,0                      40 pixels to the left
      --paint road:10,90,60,90,5              a stroke of radius 5 through two points
      --paint road:polygon:0,99,50,60,99,99   an area by its corners
      --paint sky:rectangle:0,0,99,30         an area by two opposite corners
      --set object=26003:style=4              a look, for models with a feature encoder
      --variants 26003:3                      three pictures, each with another look of one object

    With a picture and its copy whose parts were moved about, `vidgen edit tree.png moved.png -o out.png`, remove the seams.
    """
    if options["model"].suffix.lower() in PICTURE_SUFFIXES:
        shared = {name: options[name] for name in ("output", "seed", "overwrite", "device", "threads")}
        return _call("pictures.edit", image=options["model"], edited=Path(options["labels"]), mask=mask, **shared)
    return _call("edit.edit", **options)


# What single pictures are enough for.

training = _options(
    click.option(
        "--method",
        type=click.Choice(["patch", "fast", "consingan", "singan"]),
        default="patch",
        show_default=True,
        help="patch needs no training; fast trains in minutes; singan as published.",
    ),
    click.option("--budget", "budget_seconds", type=DURATION, help="Time to train in, such as 5m."),
    click.option("--model", type=PATH, metavar="FOLDER", help="Keep the trained model here, or use it from here."),
    click.option("--max-size", default="auto", show_default=True, metavar="auto|N", help="Reduce to this longer side first."),
    click.option("--dry-run", is_flag=True, help="Show what would be trained, and how long."),
    click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]|mps", help="Where to compute."),
    click.option("--threads", type=POSITIVE, help="CPU threads."),
)
shape = _options(
    click.option("--size", metavar="WxH", help="Of the result."),
    click.option("--aspect", metavar="W:H", help="Of the result, at the area of the original."),
)
picture_out = click.option("-o", "--out", "output", type=PATH, required=True, help="Picture to write (.png).")


@cli.command(example="vidgen animate lake.jpg -o lake.mp4 --loop")
@click.argument("source")
@click.option("-o", "--out", "output", required=True, help=".mp4 .webm .mkv .gif .apng .webp, or a folder of PNG files.")
@click.option("--frames", "num_frames", type=click.IntRange(1, 2000), help="How many.  [default: 48, or those of the clip]")
@click.option("--fps", "frame_rate", type=Number(1, 120), default=12, show_default=True, help="Of a still picture.")
@click.option("--loop", is_flag=True, help="Let the first frame follow the last.")
@shape
@click.option("--start-scale", type=click.IntRange(min=0), default=1, show_default=True, help="Finer scales move less.")
@click.option("--alpha", type=Number(0, 1), default=0.1, show_default=True, help="How close it stays to the picture.")
@click.option("--beta", type=Number(0, 1), default=0.9, show_default=True, help="How slowly it changes.")
@click.option("--quality", type=click.Choice(["draft", "good", "lossless"]), default="good", show_default=True)
@click.option("--allow-truncated", is_flag=True, help="Use the frames there are of a clip that is cut off.")
@training
@seed
@overwrite
def animate(**options: Any) -> Result:
    """Make a picture move, or a new clip of a short one."""
    return _call("pictures.animate", **options)


@cli.command(example="vidgen sample birds.png -o sheet.png --num 6 --aspect 16:9 --score")
@click.argument("image", type=PATH)
@click.option("-o", "--out", "output", type=PATH, required=True, help="Contact sheet (.png), or folder for samples and sheet.")
@click.option("--num", "num_samples", type=click.IntRange(1, 1000), default=6, show_default=True, help="How many.")
@shape
@click.option("--start-scale", type=click.IntRange(min=0), default=0, show_default=True, help="Finer scales keep the layout.")
@click.option("--score", is_flag=True, help="Measure likeness, diversity and copying.")
@click.option("--weights", multiple=True, metavar="sifid=FILE", help="Inception v3 of torchvision: SIFID among the scores.")
@training
@seed
@overwrite
def sample(**options: Any) -> Result:
    """Make new pictures in the manner of one, of any size."""
    return _call("pictures.sample", **options)


@cli.command("super-resolve", example="vidgen super-resolve small.png -o large.png --factor 4")
@click.argument("image", type=PATH)
@picture_out
@click.option("--factor", type=Number(min=1, min_open=True), default=4.0, show_default=True, help="Of each side.")
@training
@seed
@overwrite
def super_resolve(**options: Any) -> Result:
    """Enlarge a picture with detail of its own."""
    return _call("pictures.super_resolve", **options)


@cli.command(example="vidgen harmonize pasted.png --image painting.png --mask mask.png -o out.png")
@click.argument("naive", type=PATH)
@click.option("--image", type=PATH, required=True, help="The picture without what was pasted.")
@click.option("--mask", type=PATH, help="White where it was pasted.  [default: where the two differ]")
@picture_out
@click.option("--start-scale", type=click.IntRange(min=0), help="Finer scales keep more of what was pasted.")
@training
@seed
@overwrite
def harmonize(**options: Any) -> Result:
    """Give what was pasted into a picture the picture's look."""
    return _call("pictures.harmonize", **options)


@cli.command(example="vidgen paint sketch.png --image photo.png -o out.png --start-scale 1")
@click.argument("painting", type=PATH)
@click.option("--image", type=PATH, required=True, help="The picture whose look is wanted.")
@picture_out
@click.option("--start-scale", type=click.IntRange(min=0), default=1, show_default=True, help="Finer scales keep more of it.")
@training
@seed
@overwrite
def paint(**options: Any) -> Result:
    """Make of a rough painting what it means in a picture's look."""
    return _call("pictures.paint", **options)


def _score_table(result: Result) -> str:
    return str(_call("evaluate.table", result=result))


def _score_schema(context: click.Context, parameter: click.Parameter, given: bool) -> None:
    if given:
        click.echo(json.dumps(_call("evaluate.json_schema"), indent=2))
        context.exit()


def _list_metrics(context: click.Context, parameter: click.Parameter, given: bool) -> None:
    if given:
        context.ensure_object(Screen).show(_call("evaluate.list_metrics"), summarise)
        context.exit()


@cli.command(example="vidgen evaluate street.mp4 --source labels.mkv --target real.mp4 --fail-if 'warp_error@1>0.02'")
@click.argument("output")
@click.option("--source", metavar="INPUT", help="What the video was made from.")
@click.option("--target", metavar="INPUT", help="Paired real frames.")
@click.option("--reference-set", metavar="FOLDER", help="Real pictures or videos that are not paired.")
@click.option("--metrics", default="default", show_default=True, metavar="default|all|A,B", help="What to measure.")
@click.option("--flow", default="dis", show_default=True, metavar="ENGINE", help="Engine that estimates motion.")
@click.option("--flow-weights", type=PATH, help="Its weights file, where it needs one.")
@click.option("--flow-from", type=click.Choice(["auto", "source", "target"]), default="auto", show_default=True)
@click.option("--eval-height", type=POSITIVE, default=288, show_default=True, help="Reduce to this height first.")
@click.option("--strides", default="1,3,9", show_default=True, metavar="A,B", help="Distances in frames to compare at.")
@click.option("--fast", is_flag=True, help="Coarser flow, and stride 1 only.")
@click.option("--fps", metavar="RATE", help="Bring all inputs to this frame rate first, by the frame nearest in time.")
@click.option("--weights", multiple=True, metavar="NAME=FILE[#SHA256]", help="A published network some metrics need; repeatable.")
@click.option("--segmenter", metavar="NET", help="TorchScript or .onnx file or MODULE:FUNCTION that finds classes; its code runs.")
@click.option("--segmenter-range", type=click.Choice(["unit", "signed", "imagenet"]), default="unit", show_default=True)
@click.option("--segmenter-classes", metavar="A,B", help="The label class that each of its classes stands for.")
@click.option("--label-maps", metavar="INPUT", help="Label maps to compare its answers with.  [default: the source]")
@click.option("--labels", metavar="ids|NAME|palette:NAME|FILE", help="What the values of label maps mean.")
@click.option("--allow-trim", is_flag=True, help="Measure the common part of inputs that differ in length.")
@click.option("--allow-truncated", is_flag=True, help="Use the frames there are of a video that is cut off.")
@click.option("--cache", type=PATH, metavar="FOLDER", help="Keeps the motion of the reference.  [default: ~/.cache/vidgen/flow]")
@click.option("--no-cache", is_flag=True, help="Do not keep the motion of the reference for the next time.")
@click.option("--csv", type=PATH, help="Write one line of scores per video.")
@click.option("--per-frame", type=PATH, help="Write the values of every frame as CSV.")
@click.option("--compare", multiple=True, metavar="NAME=INPUT", help="Measure another video too, and compare; repeatable.")
@click.option("--fail-if", multiple=True, metavar="CONDITION", help="Exit with 4 where it holds; repeatable.")
@click.option("--strict", is_flag=True, help="Exit with 3 where a metric has no value.")
@click.option("--list-metrics", is_flag=True, is_eager=True, expose_value=False, callback=_list_metrics, help="Show them all.")
@click.option("--schema", is_flag=True, is_eager=True, expose_value=False, callback=_score_schema, help="JSON schema of --json.")
def evaluate(strict: bool, **options: Any) -> None:
    """Measure how steady a video is, and how close to real ones."""
    result = _call("evaluate.run", **options)
    click.get_current_context().ensure_object(Screen).show(result, _score_table)
    _call("evaluate.enforce", result=result, strict=strict)


@cli.command(example="vidgen report scores.json other.json runs/street -o report.html")
@click.argument("inputs", nargs=-1, required=True, metavar="RUN|SCORES...")
@click.option("-o", "--out", type=PATH, default=Path("report.html"), show_default=True, help="The page.")
@click.option("--max-megabytes", type=Number(min=1), default=30.0, show_default=True, help="About how large it may be.")
@click.option("--max-height", type=click.IntRange(min=96), default=480, show_default=True, help="Of the videos in it.")
@click.option("--fps", type=Number(min=0.1, max=1000), help="Frames per second of folders of pictures.")
@click.option("--rank-by", default="warp_error_norm", show_default=True, metavar="SCORE", help="What ranks several outputs.")
@overwrite
def report(**options: Any) -> Result:
    """Show scores and training as one self-contained page."""
    return _call("report.report", **options)


@cli.command(example="vidgen compare ours=street.mp4 theirs=other.mp4 real=frames/ -o compare.html")
@click.argument("inputs", nargs=-1, required=True, metavar="[NAME=]INPUT...")
@click.option("-o", "--out", required=True, help="A page (.html), or a video of labelled panels (.mp4 .webm .mkv .gif).")
@click.option("--view", type=click.Choice(["side", "wipe", "difference"]), default="side", show_default=True)
@click.option("--height", type=click.IntRange(min=16), help="Of a panel.  [default: of the lowest input; at most 480 in a page]")
@click.option("--fps", type=Number(min=0.1, max=1000), help="Frames per second of folders of pictures.")
@click.option("--allow-trim", is_flag=True, help="Show the common part of inputs that differ in length.")
@click.option("--max-megabytes", type=Number(min=1), default=30.0, show_default=True, help="Size of a page.")
@click.option("--quality", type=click.Choice(["draft", "good", "lossless"]), default="good", show_default=True, help="Of a video.")
@overwrite
def compare(**options: Any) -> Result:
    """Show videos next to each other, in step."""
    return _call("compare.compare", **options)


class FlowGroup(Group):
    """Estimates flow where no other command is named."""

    default = "estimate"


@cli.group(cls=FlowGroup)
def flow() -> None:
    """Optical flow. `vidgen flow A [B] -o OUT` estimates it between two pictures or along a video."""


engine = _options(
    click.option("--engine", default="dis", show_default=True, metavar="NAME", help="dis, dis-fast, farneback, learned or raft-*."),
    click.option("--weights", type=PATH, help="The engine's weights file, or a folder of flow files."),
    click.option("--sha256", metavar="HEX", help="Expected checksum of the weights file."),
)


@flow.command("estimate", example="vidgen flow estimate drive.mp4 -o flow.mp4")
@click.argument("first")
@click.argument("second", required=False)
@click.option("-o", "--out", "output", help=".flo, .pfm, .png or video file, or a folder of .flo files.")
@click.option("--occlusion", metavar="OUT", help="Write what the other frame does not show: .png, video or folder.")
@engine
@click.option("--into", type=click.Choice(["previous", "next"]), default="previous", show_default=True, help="Where it points.")
@click.option("--kind", type=click.Choice(["flow", "picture"]), help="Numbers or colours; by default what the output suggests.")
@click.option("--max-flow", type=Number(min=0, min_open=True), help="Length in pixels that gets full colour.")
@overwrite
def flow_estimate(**options: Any) -> Result:
    """Estimate flow and write it as numbers or colours."""
    return _call("flow.estimate", **options)


@flow.command("eval", example="vidgen flow eval middlebury --engine dis")
@click.argument("folder")
@engine
def flow_eval(engine: str, **options: Any) -> Result:
    """Measure engines (separated by commas) against known flow."""
    return {name: _call("flow.evaluate", engine=name, **options) for name in engine.split(",")}


def _flow_table(result: Result) -> str:
    return str(_call("flow_table.as_text", result=result))


@flow.command("table", example="vidgen flow table --middlebury middlebury --motorcycle")
@click.option("--engine", default="dis,dis-fast,farneback,learned", show_default=True, metavar="A,B", help="Engines to compare.")
@click.option("--weights", type=PATH, help="Weights of engine learned, instead of those shipped.")
@click.option("--middlebury", type=PATH, metavar="FOLDER", help="Also measure on its pairs.")
@click.option("--motorcycle", is_flag=True, help="Also measure on the stereo pair of scikit-image.")
@click.option("--streets", "num_streets", type=click.IntRange(min=1), default=6, show_default=True, help="Held-out streets.")
def flow_table(engine: str, **options: Any) -> None:
    """Compare engines on everything whose motion is known, and how they behave."""
    result = _call("flow_table.table", engines=engine.split(","), **options)
    click.get_current_context().ensure_object(Screen).show(result, _flow_table)


@flow.command("train", example="vidgen flow train runs/flow --textures photos --measure middlebury")
@click.argument("folder")
@click.option("--textures", type=PATH, help="Photographs for the made-up scenes to wear.")
@click.option("--video", metavar="INPUT", help="Fine-tune on this video, without truth.")
@click.option("--initial", type=PATH, metavar="WEIGHTS", help="Weights to begin with.")
@click.option("--streets", "num_streets", type=click.IntRange(min=0), default=0, show_default=True, help="Streets to mix in.")
@click.option("--measure", "measure_on", type=PATH, metavar="FOLDER", help="Known flow to measure at every checkpoint.")
@click.option("--steps", "num_steps", type=POSITIVE, default=10000, show_default=True)
@click.option("--height", type=POSITIVE, default=160, show_default=True, help="Of the training images.")
@click.option("--width", type=POSITIVE, default=192, show_default=True)
@click.option("--batch-size", type=POSITIVE, default=4, show_default=True)
@click.option("--learning-rate", type=Number(min=0, min_open=True), default=8e-4, show_default=True, help="The highest.")
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True)
@click.option("--device", default="cpu", show_default=True)
def flow_train(**options: Any) -> Result:
    """Train the learned engine, or go on with it."""
    return _call("flow.train", **options)


@cli.command(example="vidgen styles runs/city datasets/city -o runs/city/styles.safetensors")
@click.argument("model", type=PATH)
@click.argument("data", type=PATH)
@click.option("-o", "--out", "output", type=PATH, required=True, help="File to write; translate finds it in the run folder.")
@click.option("--count", "num_styles", type=POSITIVE, default=10, show_default=True, help="Styles per class, at most.")
@seed
@overwrite
@compute
def styles(**options: Any) -> Result:
    """Find the typical looks of each class in a data set."""
    return _call("styles.styles", **options)


@cli.group()
def models() -> None:
    """Weights files: import published ones, look into one."""


@models.command("import", example="vidgen models import --from vid2vid latest_net_G0.pth latest_net_G1.pth -o city.safetensors")
@click.argument("files", nargs=-1, required=True, metavar="FILES")
@click.option("--from", "system", required=True, metavar="SYSTEM", help="Whose: pix2pix, pix2pixhd, singan (a folder) or vid2vid.")
@click.option("-o", "--out", "output", type=PATH, required=True, help="Weights file to write (.safetensors).")
@click.option("--labels", metavar="NAME|COUNT|FILE|none", help="Label maps it reads; by default as its channels suggest.")
@click.option("--size", metavar="WIDTHxHEIGHT", help="Size to work at; by default that of the published models.")
@click.option("--foreground", type=click.IntRange(min=0), multiple=True, metavar="CLASS", help="Of vid2vid's foreground branch.")
@overwrite
def models_import(**options: Any) -> Result:
    """Make a weights file from published ones; each is named like latest_net_G.pth, or given like G=street.pth."""
    return _call("models.import_weights", **options)


@models.command("info", example="vidgen models info runs/street")
@click.argument("file", type=PATH)
def models_info(**options: Any) -> Result:
    """Say what a weights file or a run holds."""
    return _call("models.info", **options)


@cli.group()
def data() -> None:
    """Training data: check it, look at it."""


@data.command("check", example="vidgen data check datasets/street --write-labels labels.json")
@click.argument("root", type=PATH)
@click.option("--config", type=PATH, help="Training configuration whose data section is checked too.")
@sets
@click.option("--write-labels", type=PATH, metavar="FILE", help="Write the label values that were found as a table.")
@overwrite
def data_check(**options: Any) -> Result:
    """Count, pair and decode every file, and list what does not fit."""
    return _call("data.check", **options)


@data.command("preview", example="vidgen data preview datasets/street -o preview.png")
@click.argument("root", type=PATH)
@click.option("-o", "--out", type=PATH, required=True, help="PNG file to write.")
@click.option("--columns", "num_columns", type=POSITIVE, default=4, show_default=True, help="Moments of each sequence.")
@overwrite
def data_preview(**options: Any) -> Result:
    """Draw a contact sheet, labels in colour."""
    return _call("data.preview", **options)


@cli.group()
def config() -> None:
    """Configuration files: check, show, start a new one."""


@config.command("check", example="vidgen config check configs/vid2vid/street.yaml --set optimizer.learning_rate=1e-4")
@click.argument("file", type=PATH)
@sets
def config_check(**options: Any) -> Result:
    """Say whether a file is valid, and every fault where it is not."""
    return _call("config.check", **options)


def _yaml(result: Result) -> str:
    from vidgen.config import to_yaml

    return to_yaml(result).rstrip()


@config.command("show", example="vidgen config show configs/vid2vid/street.yaml", summary=_yaml)
@click.argument("file", type=PATH)
@sets
def config_show(**options: Any) -> Result:
    """Print a file, or what a run was trained with, in full."""
    return _call("config.show", **options)


@config.command("new", example="vidgen config new street.yaml --kind vid2vid")
@click.argument("file", type=PATH)
@click.option("--kind", default="vid2vid", show_default=True, help="The translator.")
@overwrite
def config_new(**options: Any) -> Result:
    """Write a commented template."""
    return _call("config.new", **options)


@config.command("schema", example="vidgen config schema > vidgen.schema.json", summary=lambda result: json.dumps(result, indent=2))
def config_schema(**options: Any) -> Result:
    """Print the JSON schema, for completion in editors."""
    return _call("config.schema", **options)


@cli.command(example="vidgen doctor")
@click.option("--folder", type=PATH, default=Path(), show_default=True, help="Where results would be written.")
def doctor(**options: Any) -> Result:
    """Show what a bug report needs: versions, devices, codecs."""
    return _call("doctor.doctor", **options)


@cli.command(example='eval "$(vidgen completion bash)"', summary=lambda result: result["script"])
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> Result:
    """Print the script that completes commands in a shell."""
    from click.shell_completion import get_completion_class

    maker = get_completion_class(shell)
    assert maker is not None
    return {"shell": shell, "script": maker(cli, {}, "vidgen", "_VIDGEN_COMPLETE").source()}


# --- running --------------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and give the exit code.

    0 done; 1 expected failure or bug; 2 wrong usage, input or configuration; 3 some of several inputs failed; 4 quality gate
    missed; 130 interrupted; 143 terminated. A command that saved its state before it was stopped says how to go on in the
    message of its `KeyboardInterrupt` or `Terminated`.
    """
    if "_VIDGEN_COMPLETE" in os.environ:
        cli.main(prog_name="vidgen")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    screen = Screen()
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        code = _run(sys.argv[1:] if arguments is None else list(arguments), screen)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the flush at exit is quiet too
        return 1
    finally:
        signal.signal(signal.SIGTERM, previous)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(EXIT_TERMINATED)


def _run(arguments: list[str], screen: Screen) -> int:
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
        screen.show_error(str(error), hint=hint, word="stopped" if isinstance(error, Terminated) else "error")
        return error.exit_code
    except KeyboardInterrupt as stop:
        screen.show_error(str(stop) or "nothing more was done", word="interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        message = f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}: {' '.join(str(error).split())}"
        screen.show_error(message, word="bug", hint="run again with --debug, and send what it says to the authors")
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
