"""Commands over many clips: inputs as they are typed or listed into a batch, and its report into a result."""

from __future__ import annotations

import dataclasses
import importlib
import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vidgen import durable
from vidgen.commands.inputs import Companion, OneSourceError
from vidgen.errors import ConfigError, InputError, OutputError, PartialFailure
from vidgen.jobs import batch
from vidgen.jobs.clips import (
    MAX_CLIPS,
    Clip,
    common_folder,
    in_one_go,
    parse_shard,
    place_of,
    read_list,
    relative_name,
    stem_of,
)
from vidgen.jobs.engines import Engine, Work, in_processes, in_this_process
from vidgen.media import images, paths, video
from vidgen.media.frames import OUTPUT_SUFFIXES, files_read, list_sources

log = logging.getLogger(__name__)

EngineName = Literal["local", "ray"]


@dataclass(frozen=True)
class Scale:
    """How a batch is spread.

    Attributes:
        inputs_list: a list of clips, one JSON object a line; see `vidgen.jobs.clips.read_list`.
        shard: `K/N` takes the inputs that fall into part K of N; `auto` reads a SLURM array's variables.
        engine: processes of this machine, or actors on a Ray cluster.
        workers: how many; None is this process alone, or all that a cluster has room for.
        address: of the cluster; None starts one on this machine.
        gpus: for each worker on a cluster, such as 0.5.
    """

    inputs_list: Path | None = None
    shard: str | None = None
    engine: EngineName = "local"
    workers: int | None = None
    address: str | None = None
    gpus: float | None = None
    skip_existing: bool = False
    overwrite: bool = False

    def open_engine(self) -> Engine:
        """What works on the clips.

        Raises:
            ConfigError: an option belongs to the other engine.
        """
        if self.engine == "ray":
            from vidgen.jobs.cluster import on_ray

            return on_ray(self.address, self.workers, self.gpus)
        for name, value in (("address", self.address), ("gpus", self.gpus)):
            if value is not None:
                raise ConfigError(f"`{name}` {value}: is for clusters", hint="`engine` ray")
        return in_this_process if self.workers is None else in_processes(self.workers)


@dataclass(frozen=True, slots=True)
class Source:
    """An input as it was typed or listed.

    Attributes:
        where: as `open_source` takes it.
        values: further inputs by name, of a list.
        output: below the output folder, where a list names it.
        options: that a list changes for this input.
        fault: why it cannot be read, where that shows already.
    """

    where: str
    values: Mapping[str, str] = dataclasses.field(default_factory=dict)
    output: str | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    fault: str | None = None


@dataclass(frozen=True)
class Changes:
    """What a line of a list may say beside its input: further inputs, and options by their names with a check of each."""

    inputs: Collection[str] = ()
    options: Mapping[str, Callable[[Any], bool]] = dataclasses.field(default_factory=dict)


def is_text(value: Any) -> bool:
    """A string that says something."""
    return isinstance(value, str) and bool(value)


def is_flag(value: Any) -> bool:
    """true or false."""
    return isinstance(value, bool)


def is_whole(value: Any) -> bool:
    """A whole number from 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_number(low: float, high: float) -> Callable[[Any], bool]:
    """A number within limits."""
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def is_one_of(*words: str) -> Callable[[Any], bool]:
    """One of some words."""
    return lambda value: value in words


@in_one_go()
def find_sources(inputs: Sequence[str], listed: Path | None, changes: Changes) -> list[Source]:
    """All clips that were typed and listed; of several, one that cannot be read is only its own fault.

    Raises:
        ConfigError: none was given, or a list has an unknown key or a wrong option.
        InputError: a single input is not readable, or the list is not.
    """
    if not inputs and listed is None:
        raise ConfigError("no input was given", hint="name inputs, or a list of them with `inputs_list`")
    sources: list[Source] = []
    for where in inputs:
        try:
            sources += [Source(str(clip)) for clip in list_sources(where)]
        except InputError as error:
            if len(inputs) == 1 and listed is None:
                raise
            sources.append(Source(where, fault=str(error)))
    if listed is not None:
        for line in read_list(listed, inputs=changes.inputs, options=changes.options):
            for name, value in line.options.items():
                if not changes.options[name](value):
                    raise ConfigError(f"{line.where}: options: {name}: {value!r} is no value of it")
            fault = None if _may_exist(line.input) else f"{paths.display(line.input)}: not found ({line.where})"
            sources.append(Source(line.input, line.values, line.output, line.options, fault))
    if len(sources) > MAX_CLIPS:
        raise InputError(f"{len(sources):,} inputs: a batch has at most {MAX_CLIPS:,}", hint="run it in parts")
    return sources


def _may_exist(where: str) -> bool:
    location, _ = paths.split_cut(where)
    return location == "-" or os.path.lexists(location) or paths.is_pattern(location) or paths.is_glob(location)


def is_picture(place: str) -> bool:
    """Whether the input at a place, as `place_of` gives it, is a single picture, whose result is one too."""
    return place.lower().endswith(tuple(images.SUFFIXES)) and os.path.isfile(place)


def check_folder(out: str, count: int) -> None:
    """Refuse one file for several inputs.

    Raises:
        OutputError: the output names one.
    """
    path = Path(out)
    known = path.suffix.lower() in (*OUTPUT_SUFFIXES, ".json") or images.is_image(path) or video.is_video(path)
    if known and not out.endswith(("/", os.sep)) and not path.is_dir():
        raise OutputError(f"{paths.display(out)}: is one file, and there are {count} inputs", hint="name a folder: results/")


@in_one_go()
def lay_out(sources: Sequence[Source], out: str, suffix: Callable[[str], str]) -> list[tuple[str, str]]:
    """Identity and output of each source: outputs mirror the tree of the inputs below the folder that holds them all.

    Args:
        suffix: of a result, by the place of its input.

    Raises:
        InputError: a list names an output that lies elsewhere.
    """
    folder = paths.expanded(out)
    places = [place_of(source.where) for source in sources]
    root = common_folder([place for place, source in zip(places, sources, strict=True) if source.fault is None] or places)
    result = []
    for place, source in zip(places, sources, strict=True):
        identity = relative_name(place, root)
        if source.output is not None:
            name = os.path.normpath(source.output)
            if os.path.isabs(name) or name.split(os.sep)[0] == ".." or name == ".":
                raise InputError(f"{paths.display(source.output)}: is to lie in the output folder", hint="give a path below it")
            name += "/" if source.output.endswith("/") else ""
        else:
            name = stem_of(place, identity.lstrip("/")) + suffix(place)
        result.append((identity, os.path.join(folder, name)))
    return result


class Companions:
    """The further inputs of each of several sources, by name."""

    def __init__(self, named: Mapping[str, str | Path], *, several: bool, words: Mapping[str, str] | None = None) -> None:
        words = words or {}
        self._named = {name: Companion(where, several=several, what=words.get(name, name)) for name, where in named.items()}
        self._several = several

    def of(self, source: Source, identity: str | None) -> tuple[dict[str, str], str | None]:
        """By name, with those that a list gives in the first place; and what is wrong with them.

        Raises:
            InputError: one source is to serve several inputs or, of a single one, it has none.
        """
        found = dict(source.values)
        try:
            for name, companion in self._named.items():
                if name not in found:
                    found[name] = companion.of(Path(source.where), identity)
        except InputError as error:
            if not self._several or isinstance(error, OneSourceError):
                raise
            return found, str(error)
        return found, None


def run(
    command: str,
    task: str,
    clips: Sequence[Clip],
    out: str,
    *,
    scale: Scale,
    options: Mapping[str, Any],
    decides: Mapping[str, Any],
    arguments: Mapping[str, Any],
    places: Callable[[Clip], Sequence[durable.Output]],
    reads: Callable[[Clip], Sequence[Path]],
) -> dict[str, Any]:
    """Work on all clips, and say what became of them.

    Args:
        arguments: of the command, as `encoded` gives them.

    Raises:
        PartialFailure: some failed; the others are done.
    """
    faults = [clip.fault for clip in clips if clip.fault is not None]
    if faults and len(faults) == len(clips):
        raise InputError(faults[0] + (f" (and {len(faults) - 1} more inputs)" if len(faults) > 1 else ""))
    job = batch.Job(command, Work(task, options), Path(paths.expanded(out)), decides, arguments, places, reads)
    report = batch.run(
        job,
        clips,
        engine=scale.open_engine(),
        shard=parse_shard(scale.shard),
        overwrite=scale.overwrite,
        skip_existing=scale.skip_existing,
    )
    if report.num_failed:
        total = report.num_clips
        raise PartialFailure(
            f"{report.num_failed} of {total} inputs failed; the first: {report.failures[0]}",
            hint=f"'vidgen jobs status {out}' lists them, 'vidgen jobs retry {out}' tries them again",
        )
    return report.to_dict()


def encoded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a command as JSON values, from which `decoded` makes them again."""
    return {name: _encode(value) for name, value in values.items()}


def _encode(value: Any) -> Any:
    if isinstance(value, Path):
        return {"path": str(value)}
    if isinstance(value, tuple | list):
        return [_encode(item) for item in value]
    return value


def decoded(values: Mapping[str, Any]) -> dict[str, Any]:
    """What `encoded` was given; tuples as lists."""
    return {name: _decode(value) for name, value in values.items()}


def _decode(value: Any) -> Any:
    if isinstance(value, dict):
        return Path(value["path"])
    return [_decode(item) for item in value] if isinstance(value, list) else value


# -- commands that are one call for each clip --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Calling:
    """A command whose function does one clip.

    Attributes:
        function: `module.name` below `vidgen.commands`.
        input, output: its parameters of these.
        suffix: of a result, by the place of its input.
        places: what a call with such arguments writes, its result first.
        changes: what a list may say of a clip; options by the function's own names.
        companions: parameters that name what belongs to the input; of several inputs, a folder that holds one for each.
        extra_outputs: parameters that name further results, with their suffixes; of several inputs, folders.
        single_only: parameters that make sense for one input only.
        undecisive: parameters that change no result.
    """

    command: str
    function: str
    input: str
    output: str
    suffix: Callable[[str], str]
    places: Callable[[Mapping[str, Any]], Sequence[durable.Output]]
    changes: Changes = Changes()
    companions: Collection[str] = ()
    extra_outputs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    single_only: Collection[str] = ()
    undecisive: Collection[str] = ("threads", "device", "cache", "no_cache")

    def call(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The function's own result."""
        result: dict[str, Any] = _function(self.function)(**arguments)
        return result


def _function(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(".")
    found: Callable[..., Any] = getattr(importlib.import_module(f"vidgen.commands.{module}"), function)
    return found


class Caller:
    """The worker of such a command: calls its function with what all clips share and what is special to one."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        """Look the function up; it loads what it needs with the first clip."""
        self._function = _function(options["function"])
        self._names = options["input"], options["output"]
        self._shared = decoded(options["shared"])

    def __call__(self, clip: Clip) -> dict[str, Any]:
        """Do a clip."""
        arguments = _arguments(clip, self._shared, *self._names)
        result: dict[str, Any] = self._function(**arguments, overwrite=clip.values.get("overwrite", False))
        return result


def _arguments(clip: Clip, shared: Mapping[str, Any], source: str, output: str) -> dict[str, Any]:
    return {**shared, **clip.values.get("arguments", {}), source: clip.values["input"], output: clip.output}


def call_each(
    calling: Calling,
    inputs: Sequence[str],
    out: str,
    *,
    scale: Scale,
    shared: Mapping[str, Any],
    several: bool = False,
) -> dict[str, Any]:
    """Call the function for one input or for each of several.

    Args:
        shared: its further arguments.
        several: treat one input like several.

    Raises:
        PartialFailure: some of several inputs failed.
    """
    sources = find_sources(inputs, scale.inputs_list, calling.changes)
    several = several or len(inputs) > 1 or len(sources) > 1 or scale.inputs_list is not None
    if not several:
        if scale.skip_existing:
            own = {**shared, calling.input: inputs[0], calling.output: out}
            if calling.places(own)[0].exists():
                return {"output": out, "skipped": True}
        return calling.call({**shared, calling.input: inputs[0], calling.output: out, "overwrite": scale.overwrite})
    for name in calling.single_only:
        if shared.get(name):
            raise ConfigError(f"`{name}` {_shown(shared[name])}: is for one input, and there are {len(sources)}")
    check_folder(out, len(sources))
    named = lay_out(sources, out, calling.suffix)
    further = {name: shared[name] for name in calling.companions if shared.get(name) is not None}
    companions = Companions(further, several=len(sources) > 1)
    shared_by_all = {name: value for name, value in shared.items() if name not in calling.companions}
    clips = []
    for source, (identity, output) in zip(sources, named, strict=True):
        values, fault = source.values, source.fault
        if fault is None:
            values, fault = companions.of(source, identity)
        own = {**values, **source.options}
        for name, suffix in calling.extra_outputs.items():
            if shared.get(name) is not None:
                below = os.path.relpath(output, paths.expanded(out))
                own[name] = os.path.join(shared[name], os.path.splitext(below)[0] + suffix)
        special = {"arguments": own} if own else {}
        clips.append(Clip(identity, output, {"input": source.where, **special}, fault))

    def whole(clip: Clip) -> dict[str, Any]:
        return _arguments(clip, shared_by_all, calling.input, calling.output)

    def reads(clip: Clip) -> list[Path]:
        own = whole(clip)
        return [file for name in (calling.input, *calling.companions) if own.get(name) for file in files_read(own[name])]

    return run(
        calling.command,
        "vidgen.commands.batches:Caller",
        clips,
        out,
        scale=scale,
        options={
            "function": calling.function,
            "input": calling.input,
            "output": calling.output,
            "shared": encoded(shared_by_all),
        },
        decides=_decisive(shared_by_all, calling.undecisive),
        arguments=encoded({"inputs": list(inputs), "out": out, **vars(scale), "overwrite": False, **shared}),
        places=lambda clip: calling.places(whole(clip)),
        reads=reads,
    )


def _decisive(shared: Mapping[str, Any], undecisive: Collection[str]) -> dict[str, Any]:
    """The arguments that decide results, with the content of files among them."""
    result = {name: value for name, value in encoded(shared).items() if name not in undecisive}
    for name, value in shared.items():
        if isinstance(value, Path) and value.is_file() and name not in undecisive:
            result[name] = durable.fingerprint(value).sha256
    return result


def _shown(value: Any) -> str:
    return paths.display(str(value[0] if isinstance(value, list | tuple) else value))
