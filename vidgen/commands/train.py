"""Train a translator from a configuration."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from flow.engines import Engine, create_engine, describe
from flow.errors import FlowError
from vidgen import translators
from vidgen.data.clips import Clips
from vidgen.data.reference_flow import CachedFlow, FlowFiles
from vidgen.data.sequences import Sequence as ClipSequence
from vidgen.data.sequences import find_classes, find_sequences, find_table
from vidgen.errors import CheckpointError, ConfigError, Terminated, TrainingError, Unfinished, VidgenError
from vidgen.media import paths
from vidgen.media.labels import LabelTable
from vidgen.networks.features import Vgg19Features
from vidgen.runtime import Precision, Runtime
from vidgen.threads import in_order
from vidgen.training import parallel, run
from vidgen.training import settings as run_settings
from vidgen.training.estimate import estimate
from vidgen.training.held_out import HeldOut
from vidgen.training.loop import Groups, LoopSettings, Trainer, stage_of
from vidgen.training.recorder import Recorder, StopRequest
from vidgen.training.run import Folder
from vidgen.training.settings import FlowSettings, RunSettings
from vidgen.training.timing import fitting_stretch
from vidgen.translators.base import Networks, Translator
from vidgen.types import Batch, Stage
from vidgen.weights import checkpoints, pretrained
from vidgen.weights.model_file import ModelCard, start_from

log = logging.getLogger(__name__)

_FREE_TRAIN_KEYS = {
    "init",
    "max_steps",
    "max_nonfinite_steps",
    "keep_checkpoints",
    "checkpoint_every_steps",
    "sample_every_steps",
    "sample_frames",
    "tensorboard",
    "process_timeout_minutes",
}
_FREE_DATA_KEYS = {"root", "cache_mb", "workers"}
"""What may change between the parts of one run without changing its result."""
_SCHEDULE_KEYS = ("model.schedule", "train.steps_per_epoch ", "train.stretch ")
"""What may change too, as long as the steps that are done have their place in the new schedule."""
_NUM_CALIBRATION_FRAMES = 32
_FAREWELL_SECONDS, _REJOIN_SECONDS = 60.0, 600.0


def train(
    config: Path | None = None,
    out: Path | None = None,
    *,
    sets: Sequence[str] = (),
    resume: bool = False,
    overwrite: bool = False,
    steps: int | None = None,
    time_limit_seconds: float | None = None,
    stop_after_seconds: float | None = None,
    devices: int = 1,
    hosts: int = 1,
    rendezvous: str | None = None,
    restarts: int = 0,
    requeue: bool = False,
    device: str = "auto",
    precision: Precision | None = None,
    threads: int | None = None,
    dry_run: bool = False,
    init: Path | None = None,
) -> dict[str, Any]:
    """Train, or go on training, the run in folder `out`.

    The same call again goes on from the newest checkpoint. A run that ended by its time limit or a signal goes on the same way.

    Args:
        config: configuration file, or the folder of a run to go on with; may be left out to go on with the one in `out`.
        out: run folder; `runs/<name of the configuration>` by default.
        sets: `key=value` changes to the configuration.
        resume: insist that there is a run to go on with.
        time_limit_seconds: stretch or shrink the schedule so that a new run is complete after so long; the plan is measured on
            the first steps, stored with the run, and kept when it is resumed.
        stop_after_seconds: stop after so long, in the middle of the schedule if need be; the same call again goes on.
        steps: train this many steps in all, fewer than the schedule has or more; overrides `train.max_steps`.
        devices: processes to train with, on each machine.
        hosts, rendezvous: machines that train together, each of which runs the same call, and the HOST:PORT where they meet.
        restarts: how often all processes are started again, from the last checkpoint, where one fails.
        requeue: raise `Unfinished` where the run stopped before its end, by `stop_after_seconds` or a signal.
        dry_run: report sizes and memory instead of training.
        init: sets `train.init`: weights to start from; not the same as resuming.

    Returns:
        run folder, steps, seconds and last losses; or the estimate of a dry run.

    Raises:
        ConfigError, InputError, CheckpointError, OutputError, TrainingError, Terminated, Unfinished: see each.
        KeyboardInterrupt: interrupted; everything is saved.
    """
    if config is None and out is None:
        raise ConfigError("train needs a configuration file, or -o with a run folder to go on with")
    if config is not None and config.is_dir():
        if not (config / run.CONFIG).is_file():
            raise ConfigError(f"{config}: is a folder without {run.CONFIG}; a configuration file or a run folder was expected")
        out, config = out or config, config / run.CONFIG
    folder = Folder(out if out is not None else Path("runs") / Path(str(config)).stem)
    if not dry_run:
        folder.check()
    settings = _settings(config, folder, sets, steps, precision)
    if init is not None:
        settings = settings.model_copy(update={"train": settings.train.model_copy(update={"init": str(init)})})
    if parallel.is_restart():
        overwrite = False  # what is there now was begun by this very call
    is_new = overwrite or not folder.config.is_file()
    if time_limit_seconds is not None and not is_new:
        settings = _stretched(settings, run_settings.load_run_config(folder.config, []).train.stretch)
    if hosts > 1 and rendezvous is None:
        raise ConfigError(f"`hosts` {hosts}: they need a place to meet", hint="`rendezvous` HOST:PORT, with one of them as HOST")
    if devices * hosts > 1 and "RANK" not in os.environ and not dry_run:
        patience = 60 * settings.train.process_timeout_minutes + (_REJOIN_SECONDS if restarts else _FAREWELL_SECONDS)
        _run_under_torchrun(devices, hosts, rendezvous, restarts, threads, patience)
        return _ended(folder, requeue)
    runtime = Runtime.choose(device, settings.train.precision, threads)
    sequences = find_sequences(settings.data)
    settings = settings.model_copy(update={"data": find_classes(settings.data, sequences)})
    table = find_table(settings.data, sequences)
    seed = settings.train.seed
    size = Clips(settings.data, sequences, table, seed=seed, size_multiple=1, flow=None).size
    settings = run.follow_data(settings, table, size)
    loaded = _pretrained(settings, runtime)
    torch.manual_seed(settings.train.seed)
    if dry_run:
        translator = _shapes_of(settings, loaded)
    else:
        translator = run.build(settings, loaded.networks)
        runtime.prepare(translator)
    flow = _flow_engine(settings.train.flow) if translator.needs_flow else None
    clips = Clips(
        settings.data,
        sequences,
        table,
        seed=seed,
        size_multiple=translator.size_multiple,
        flow=None if flow is None else _reference_flow(settings.train.flow, flow, sequences),
    )
    stages = run.stages(settings, clips)
    clips.check(stages, translator.num_primer_frames)
    if dry_run:
        return estimate(settings, translator, stages, clips, runtime)
    with parallel.together(runtime.device, settings.train.process_timeout_minutes):
        networks = {**loaded.networks, "flow": flow}
        if time_limit_seconds is not None and is_new:
            stretch = _fitting_stretch(settings, translator, stages, networks, runtime, clips, time_limit_seconds)
            settings = _stretched(settings, stretch)
            stages = run.stages(settings, clips)
        trainer = Trainer(translator, stages, _loop_settings(settings), networks, runtime)
        card = run.model_card(settings, table, clips.size, loaded.sha256)
        with folder.locked() if parallel.rank() == 0 else nullcontext():
            _resume_or_start(folder, settings, trainer, card, clips, resume=resume, overwrite=overwrite, init=init)
            return _run(folder, settings, clips, trainer, card, stop_after_seconds, requeue)


def problems(settings: RunSettings) -> list[VidgenError]:
    """What `train` would refuse, in its own words, without training: data, label table, pretrained networks, flow engine, and what
    the model asks of the data; of the model, only shapes are made."""
    found: list[VidgenError] = []
    sequences: list[ClipSequence] = []
    table: LabelTable | None = None
    followed: RunSettings | None = None
    loaded: pretrained.Loaded | None = None
    with _noting(found):
        sequences = find_sequences(settings.data)
        settings = settings.model_copy(update={"data": find_classes(settings.data, sequences)})
        table = find_table(settings.data, sequences)
        clips = Clips(settings.data, sequences, table, seed=settings.train.seed, size_multiple=1, flow=None)
        followed = run.follow_data(settings, table, clips.size)
    with _noting(found):
        declared = translators.find(settings.model.kind).pretrained(settings.model)
        loaded = pretrained.load(declared, settings.train.pretrained)
    with _noting(found):
        _reference_flow(settings.train.flow, _flow_engine(settings.train.flow), sequences)
    with _noting(found):
        if settings.train.init is not None:
            checkpoints.find_weights(Path(settings.train.init))
    if followed is not None and loaded is not None:
        with _noting(found):
            translator = _shapes_of(followed, loaded)
            multiple = translator.size_multiple
            clips = Clips(settings.data, sequences, table, seed=settings.train.seed, size_multiple=multiple, flow=None)
            clips.check(run.stages(followed, clips), translator.num_primer_frames)
    return found


@contextmanager
def _noting(found: list[VidgenError]) -> Iterator[None]:
    try:
        yield
    except VidgenError as error:
        found.append(error)


def _shapes_of(settings: RunSettings, loaded: pretrained.Loaded) -> Translator[Any]:
    """The translator without its numbers: on the meta device, which holds none."""
    with torch.device("meta"):
        return run.build(settings, loaded.networks)


def _settings(
    config: Path | None, folder: Folder, sets: Sequence[str], steps: int | None, precision: Precision | None
) -> RunSettings:
    changes = list(sets)
    if steps is not None:
        changes.append(f"train.max_steps={steps}")
    if precision is not None:
        changes.append(f"train.precision={precision}")
    if config is None:
        if not folder.config.is_file():
            raise ConfigError(f"{folder.path}: no run to go on with", hint="name a configuration file: vidgen train CONFIG -o ...")
        config = folder.config
    return run_settings.load_run_config(config, changes)


def _flow_engine(settings: FlowSettings) -> Engine:
    """The engine that estimates flow between real frames; DIS for those that files of flow do not cover.

    Raises:
        ConfigError: its weights are missing or cannot be used.
    """
    if settings.engine == "folder":
        return create_engine("dis")
    try:
        return create_engine(settings.engine, path=settings.weights, sha256=settings.sha256)
    except FlowError as error:
        raise ConfigError(f"train.flow: {error}", hint=error.hint) from error


def _reference_flow(settings: FlowSettings, engine: Engine, sequences: Sequence[ClipSequence]) -> Engine | FlowFiles:
    """What clips take their flow from.

    Raises:
        ConfigError: files of flow are missing or do not fit the sequences.
    """
    if settings.engine == "folder":
        if settings.weights is None:
            raise ConfigError("train.flow: engine folder needs train.flow.weights, a folder of flow files for each sequence")
        return FlowFiles(settings.weights, {sequence.name: sequence.roles[0].count() for sequence in sequences})
    if settings.cache is None:
        return engine
    return CachedFlow(engine, describe(settings.engine, settings.weights), settings.cache)


def _pretrained(settings: RunSettings, runtime: Runtime) -> pretrained.Loaded:
    """The pretrained networks that the translator declares, on the run's device."""
    declared = translators.find(settings.model.kind).pretrained(settings.model)
    loaded = pretrained.load(declared, settings.train.pretrained)
    for network in loaded.networks.values():
        if isinstance(network, Vgg19Features):
            network.input_normalization = settings.train.perceptual_input_normalization
        runtime.prepare(network)
    return loaded


def _loop_settings(settings: RunSettings) -> LoopSettings:
    train = settings.train
    return LoopSettings(
        seed=train.seed,
        ema_decay=train.ema_decay,
        max_grad_norm=train.max_grad_norm,
        max_nonfinite_steps=train.max_nonfinite_steps,
        max_steps=train.max_steps,
        optimizer=train.optimizer,
    )


def _resume_or_start(
    folder: Folder,
    settings: RunSettings,
    trainer: Trainer,
    card: ModelCard,
    clips: Clips,
    *,
    resume: bool,
    overwrite: bool,
    init: Path | None,
) -> None:
    writes = parallel.rank() == 0
    if overwrite and writes:
        folder.clear()
    parallel.wait_for_all()
    found = folder.newest_checkpoint(log.warning if writes else None)
    if found is None:
        if resume:
            raise CheckpointError(f"{folder.path}: no checkpoint to resume from")
        if folder.is_run and not overwrite:  # it was stopped before its first checkpoint: the same one starts again
            _check_same_run(folder, settings, clips, trainer.stages, 0)
        if settings.train.init is not None:
            weights, path = checkpoints.find_weights(Path(settings.train.init))
            anew = start_from(trainer.translator, card, weights, path)
            if writes:
                log.info("starting from %s%s", path, f"; these parts start anew: {paths.few(anew, 8)}" if anew else "")
        trainer.calibrate(_calibration(trainer, clips))
        parallel.wait_for_all()  # the others may still be reading what a stopped run left
        if writes:
            folder.clear()
            folder.write_config(settings)
        parallel.wait_for_all()
        return
    if init is not None:
        raise ConfigError(f"--init: {folder.path} holds a run already", hint="choose another -o, or --overwrite")
    _check_same_run(folder, settings, clips, trainer.stages, found.progress.step)
    model = found.read(checkpoints.MODEL)
    check_same_networks(model.metadata if model else {}, card, found.path)
    trainer.restore(found)
    if writes:
        folder.keep_metrics_until(found.progress.step, log.warning)
        folder.write_config(settings)
        if found.progress.step < trainer.total_steps:
            log.info("going on from step %d of %d", found.progress.step, trainer.total_steps)
        else:
            log.info("the run is complete: %d of %d steps", found.progress.step, trainer.total_steps)
    parallel.wait_for_all()


def _calibration(trainer: Trainer, clips: Clips) -> Iterator[Batch]:
    """Real frames from all over the data, one at a time."""
    places = [(index, frame) for index, sequence in enumerate(clips.sequences) for frame in range(sequence.num_frames)]
    step = max(1, len(places) // _NUM_CALIBRATION_FRAMES)
    for index, frame in places[::step]:
        yield clips.excerpt(index, frame, 1, 0).map(trainer.runtime.place)


def check_same_networks(metadata: Mapping[str, str], card: ModelCard, where: Path) -> None:
    """
    Raises:
        CheckpointError: the run was trained with another pretrained network.
    """
    before = ModelCard.read(metadata, str(where)).pretrained
    for name, sha256 in card.pretrained.items():
        if before.get(name, sha256) != sha256:
            raise CheckpointError(
                f"{where}: was trained with another {name} (SHA-256 {before[name][:12]}..., this file's is {sha256[:12]}...)"
            )


def _check_same_run(folder: Folder, settings: RunSettings, clips: Clips, stages: tuple[Stage, ...], num_steps_done: int) -> None:
    """A run may only be made longer, moved, or logged differently; anything else would not be the same run.

    Raises:
        CheckpointError: it would not.
    """
    before = run_settings.load_run_config(folder.config, [])
    free = {"train": _FREE_TRAIN_KEYS, "data": _FREE_DATA_KEYS}
    old, new = (config.model_dump(mode="json", exclude=free) for config in (before, settings))
    changed = list(_differences(old, new))
    rescheduled = [change for change in changed if change.startswith(_SCHEDULE_KEYS)]
    if changed and changed == rescheduled and num_steps_done:
        _check_schedule(folder, run.stages(before, clips), stages, num_steps_done, "; ".join(changed[:3]))
    elif changed:
        raise CheckpointError(
            f"{folder.path}: holds a run with other settings ({'; '.join(changed[:3])})",
            hint="choose another -o to start afresh, or --overwrite to discard that run",
        )


def _check_schedule(
    folder: Folder, before: tuple[Stage, ...], stages: tuple[Stage, ...], num_steps_done: int, changed: str
) -> None:
    """Accept another schedule in which the steps that are done have their place.

    Raises:
        CheckpointError: it is too short, or would have trained another part of the model by now.
    """
    total = sum(stage.num_steps for stage in stages)
    if total < num_steps_done:
        raise CheckpointError(
            f"{folder.path}: {num_steps_done} steps are done, more than the schedule now has ({total}; {changed})"
        )
    old, new = (list(schedule)[stage_of(schedule, num_steps_done - 1)[0]] for schedule in (before, stages))
    kinds = [replace(stage, name="", num_steps=0, learning_rate=0.0, final_learning_rate=0.0) for stage in (old, new)]
    if kinds[0] != kinds[1]:
        raise CheckpointError(
            f"{folder.path}: after {num_steps_done} steps it is in the stage {old.name!r}, but with this schedule it would be in "
            f"{new.name!r}, which trains differently ({changed})",
            hint="make only the last stage longer, or start another run from its weights",
        )
    log.info("the schedule has %d steps; it had %d (%s)", total, sum(stage.num_steps for stage in before), changed)


def _differences(old: Any, new: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        old, new = (dict(enumerate(value)) for value in (old, new))
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}, key=str):
            yield from _differences(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else str(key))
    elif old != new:
        yield f"{prefix} was {_brief(old)}, is {_brief(new)}"


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _stretched(settings: RunSettings, stretch: float) -> RunSettings:
    return settings.model_copy(update={"train": settings.train.model_copy(update={"stretch": stretch})})


def _fitting_stretch(
    settings: RunSettings,
    translator: Translator[Any],
    stages: tuple[Stage, ...],
    networks: Networks,
    runtime: Runtime,
    clips: Clips,
    seconds: float,
) -> float:
    """The run's `train.stretch` for which its schedule is complete after `seconds`."""

    def batches(stage: Stage, steps: Iterable[int]) -> Generator[Groups, None, None]:
        return in_order(lambda step: _groups(settings, clips, translator, stage, step), iter(steps), settings.data.workers)

    factor = fitting_stretch(translator, stages, _loop_settings(settings), networks, runtime, batches, seconds=seconds)
    return settings.train.stretch * factor


def _groups(
    settings: RunSettings, clips: Clips, translator: Translator[Any], stage: Stage, step: int, progress: float = 0.0
) -> Groups:
    """This process's clips of one step."""
    count, primer_frames = settings.train.batch_size, translator.num_primer_frames
    return [
        (indices, clips.batch(stage, step, indices, primer_frames=primer_frames, batch_size=count, progress=progress))
        for indices in parallel.share_of(count, settings.train.micro_batch_size)
    ]


def _run(
    folder: Folder,
    settings: RunSettings,
    clips: Clips,
    trainer: Trainer,
    card: ModelCard,
    stop_after_seconds: float | None,
    requeue: bool,
) -> dict[str, Any]:
    def make(step: int) -> Groups:
        number, step_in_stage = stage_of(trainer.stages, step)
        stage = trainer.stages[number]
        return _groups(settings, clips, trainer.translator, stage, step, progress=step_in_stage / stage.num_steps)

    stop = StopRequest()
    held_out = None
    if settings.data.held_out is not None:
        multiple = trainer.translator.size_multiple
        held_out = HeldOut(settings.data, clips.table, size_multiple=multiple, networks=trainer.networks, inputs=card.inputs)
    recorder = Recorder(folder, settings, clips, card, stop=stop, stop_after_seconds=stop_after_seconds, held_out=held_out)
    steps = iter(range(trainer.progress.step, trainer.total_steps))
    batches = in_order(make, steps, settings.data.workers)
    with stop.listening(), recorder.recording(trainer):
        trainer.run(lambda step: next(batches), recorder)
    batches.close()
    again = f"vidgen train -o {folder.path} --resume"
    is_complete = trainer.progress.step >= trainer.total_steps
    if requeue and not is_complete and not parallel.is_started_by_torchrun():
        raise Unfinished(f"saved after step {trainer.progress.step} of {trainer.total_steps}; the same command goes on")
    if stop.signal is not None:
        message = f"saved after step {trainer.progress.step} of {trainer.total_steps}; go on with: {again}"
        if stop.signal == signal.SIGTERM:
            raise Terminated(message)
        raise KeyboardInterrupt(message)
    return {
        "run": str(folder.path),
        "steps": trainer.progress.step,
        "of_steps": trainer.total_steps,
        "minutes": round(trainer.progress.seconds / 60, 2),
        "ended": "before its end, as asked; the same command goes on" if recorder.out_of_time else "complete",
    }


def _run_under_torchrun(
    devices: int, hosts: int, rendezvous: str | None, restarts: int, threads: int | None, patience: float
) -> None:
    """Let torchrun start `devices` processes of this command here, and wait for them.

    Args:
        patience: seconds after which torchrun itself is ended where none of its processes is left, since it would wait for
            machines that a broken network hides from it.

    Raises:
        TrainingError: they failed, more often than they may be started again.
        Terminated: this process was asked to end; they have saved.
    """
    environment = {"OMP_NUM_THREADS": str(threads or max(1, (os.cpu_count() or 1) // devices)), **os.environ}
    # Each start of the processes meets at a store of its own. In one that outlives them a process that is started again may find
    # where those of the start before listened, and wait there in vain.
    environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    meeting = ["--standalone"]
    if hosts > 1:
        # One name for what meets at one place: a run's next start, or another run's, meets anew.
        name = os.environ.get("SLURM_JOB_ID", "vidgen")
        meeting = [f"--nnodes={hosts}", "--rdzv-backend=c10d", f"--rdzv-endpoint={rendezvous}", f"--rdzv-id={name}"]
        own, there = _addresses(str(rendezvous))
        # Names of machines may lead nowhere, and addresses of namespaces and containers belong to none.
        meeting += [f"--local-addr={own}", f"--rdzv-conf=is_host={'true' if own == there else 'false'}"]
    agent = [*meeting, f"--nproc-per-node={devices}", f"--max-restarts={restarts}", "-m", "vidgen", *sys.argv[1:]]
    # Each of them would print the result; it is printed once, here.
    process = subprocess.Popen([sys.executable, "-m", "torch.distributed.run", *agent], env=environment, stdout=subprocess.DEVNULL)
    received: list[int] = []

    def forward(number: int, frame: object) -> None:
        received.append(number)
        process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        code = _wait(process, patience)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if signal.SIGINT in received:
        raise KeyboardInterrupt("the run is saved; the same command goes on")
    if received:
        raise Terminated("the run is saved; the same command goes on")
    if code:
        raise TrainingError("one of the processes failed; see above", hint="the same command goes on from the last checkpoint")


def _wait(agent: subprocess.Popen[bytes], patience: float) -> int:
    """The exit code of torchrun; 1 where it had to be ended."""
    has_worked, alone_since = False, time.monotonic()
    while True:
        try:
            return agent.wait(timeout=1)
        except subprocess.TimeoutExpired:
            pass
        if _has_children(agent.pid):
            has_worked, alone_since = True, time.monotonic()
        elif has_worked and time.monotonic() - alone_since > patience:
            log.error("no process is left here, and the other machines do not answer")
            agent.kill()
            agent.wait()
            return 1


def _has_children(process: int) -> bool:
    """Whether a process has any that live; yes, where the system does not say."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return True
    return any(_lives(child) for child in children)


def _lives(process: str) -> bool:
    """Whether a process runs, and does not only wait to be buried by its parent."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _addresses(rendezvous: str) -> tuple[str, str]:
    """The address of this machine on the way to the place where all meet, and that of the place.

    Raises:
        ConfigError: there is no way, or the place is no HOST:PORT.
    """
    host, _, port = rendezvous.rpartition(":")
    try:
        family, *_, place = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(place)  # sends nothing
            return str(probe.getsockname()[0]), str(place[0])
    except (OSError, ValueError, OverflowError) as error:
        raise ConfigError(f"`rendezvous` {rendezvous}: cannot be reached ({error}); expected HOST:PORT") from error


def _ended(folder: Folder, requeue: bool) -> dict[str, Any]:
    """How a run of several processes ended, by its folder.

    Raises:
        Unfinished: before its end, and that is to be an error.
    """
    settings = run_settings.load_run_config(folder.config, [])
    sequences = find_sequences(settings.data)
    table = find_table(settings.data, sequences)
    clips = Clips(settings.data, sequences, table, seed=settings.train.seed, size_multiple=1, flow=None)
    total = sum(stage.num_steps for stage in run.stages(settings, clips))
    total = min(total, settings.train.max_steps or total)
    found = folder.newest_checkpoint()
    step = found.progress.step if found is not None else 0
    if requeue and step < total:
        raise Unfinished(f"saved after step {step} of {total}; the same command goes on")
    ended = "complete" if step >= total else "before its end, as asked; the same command goes on"
    return {"run": str(folder.path), "steps": step, "of_steps": total, "ended": ended}
