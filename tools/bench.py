"""Speed and memory of vidgen on this machine, as ratios within one run; times are processor milliseconds of all threads.

    python tools/bench.py                 # everything, some minutes
    python tools/bench.py translate       # milliseconds per frame: plain fp32 against what `vidgen translate` does
    python tools/bench.py train           # the same for one training step
    python tools/bench.py efficiency      # arithmetic per second of the small recipes' training, against that of convolutions alone
    python tools/bench.py singan          # one training iteration of SinGAN's scales: as published, and as `vidgen animate` trains
    python tools/bench.py pix2pixhd       # both for the published 1024x512 model, and the ways through its first convolution
    python tools/bench.py backends        # the small video models and the included one on every installed backend
    python tools/bench.py memory          # peak memory of `translate` for 100 and for 10,000 frames, by backend

"plain" is the published network as its authors' code runs it: float32, standard memory layout, no autocast.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from vidgen.networks import label_convolution
from vidgen.networks.encoding import encode, instance_edges
from vidgen.runtime import Runtime
from vidgen.training.loop import LoopSettings, Trainer
from vidgen.training.settings import load_run_config
from vidgen.translators import pix2pixhd, singan, vid2vid
from vidgen.translators.base import Translator
from vidgen.translators.settings import DataFacts
from vidgen.types import Batch, Condition, Stage
from vidgen.weights import pretrained

console = Console(stderr=True)

# name, (height, width), generator: the published street generator and smaller relatives
TRANSLATE_CASES: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {
    "street 512x256, 128 channels (published)": ((256, 512), {"base_channels": 128, "foreground_labels": (26,)}),
    "street 512x256, 64 channels": ((256, 512), {"base_channels": 64, "foreground_labels": (26,)}),
    "street 256x128, 128 channels": ((128, 256), {"base_channels": 128, "foreground_labels": (26,)}),
    "small 256x192, 32 channels": ((192, 256), {"base_channels": 32, "num_blocks": 6}),
}
TRAIN_CASES = {
    "small 256x192, 32 channels, 2 frames": ((192, 256), {"base_channels": 32, "num_blocks": 6}, 32),
    "street 256x128, 64 channels, 2 frames": ((128, 256), {"base_channels": 64, "foreground_labels": (26,)}, 64),
}
NUM_LABELS = 35
SMALL_SIZE = (192, 256)


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    """Median processor time of `repeats` calls after one that is not counted, of all threads together.

    Processor time, because a machine that others use too gives no other number twice.
    """
    work()
    times = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return statistics.median(times)


def instruction_set() -> str:
    """The best that the processor offers for bf16."""
    if torch.cpu._is_amx_tile_supported():
        return "AMX"
    return "AVX512-BF16 without AMX" if torch.cpu._is_avx512_bf16_supported() else "no bf16"


def _model(
    shape: dict[str, Any], judge_channels: int = 64, num_labels: int = NUM_LABELS, use_instances: bool = True
) -> vid2vid.Vid2Vid:
    torch.manual_seed(0)
    return vid2vid.build(
        vid2vid.Config(
            num_labels=num_labels,
            use_instances=use_instances,
            generator=vid2vid.Generator(**shape),
            discriminators=vid2vid.Discriminators(base_channels=judge_channels),
            losses=vid2vid.LossWeights(perceptual_weight=0),
        )
    )


def _condition(num_frames: int, size: tuple[int, int]) -> Condition:
    """Blocks of random classes, as large as things in a street."""
    generator = torch.Generator().manual_seed(0)
    blocks = torch.randint(0, NUM_LABELS, (1, num_frames, size[0] // 32, size[1] // 32), generator=generator)
    labels = blocks.repeat_interleave(32, 2).repeat_interleave(32, 3)
    return Condition(labels=labels, instances=labels.clone())


def bench_translate(repeats: int, only: str = "") -> list[dict[str, Any]]:
    """Milliseconds per frame of the plain and the shipped way."""
    rows = []
    for name, (size, shape) in TRANSLATE_CASES.items():
        if only not in name:
            continue
        condition = _condition(3, size)
        seconds = {}
        for way, runtime in (("plain", Runtime(torch.device("cpu"), use_bf16=False)), ("shipped", Runtime.choose("cpu"))):
            model = _model(shape).eval()
            if way == "shipped":
                runtime.prepare(model)
                runtime.prepare_for_use(model)
            with torch.inference_mode(), runtime.autocast():
                _, carry = model.translate(condition.slice_time(0, 1))
                _, carry = model.translate(condition.slice_time(1, 2), carry)
                frame = condition.slice_time(2, 3)
                seconds[way] = median_seconds(lambda m=model, f=frame, c=carry: m.translate(f, c), repeats)  # type: ignore[misc]
            del model, carry
            gc.collect()
        rows.append(_row(name, seconds))
    return rows


def bench_train(repeats: int) -> list[dict[str, Any]]:
    """Milliseconds per update of all phases, plain and shipped."""
    rows = []
    for name, (size, shape, judge_channels) in TRAIN_CASES.items():
        seconds = {}
        for way, runtime in (("plain", Runtime(torch.device("cpu"), use_bf16=False)), ("shipped", Runtime.choose("cpu"))):
            model = _model(shape, judge_channels)
            if way == "shipped":
                runtime.prepare(model)
            stages = vid2vid.stages(
                model.config.model_copy(
                    update={"schedules": (vid2vid.Schedule(epochs=1000, clip_frames=2, window_frames=2, grow_every_epochs=10_000),)}
                ),
                1,
            )
            seconds[way] = _update_seconds(model, stages, runtime, _batch(size), repeats)
            del model
            gc.collect()
        rows.append(_row(name, seconds))
    return rows


def bench_efficiency(repeats: int) -> list[dict[str, Any]]:
    """GFLOP and seconds of an update of `vid2vid/camvid_small`, and its share of the rate of wide convolutions.

    Two clips or frames per update, as in the recipe; the first row is the yardstick: forward and backward of two 3x3 convolutions
    of 128 channels at 32x64, batch size 8, in bf16 where the processor has it.
    """
    runtime = Runtime.choose("cpu")
    convolutions = torch.nn.Sequential(*(torch.nn.Conv2d(128, 128, 3, padding=1) for _ in range(2)))
    convolutions = convolutions.to(memory_format=torch.channels_last)
    features = torch.randn(8, 128, 32, 64).to(memory_format=torch.channels_last)

    def convolve() -> None:
        with runtime.autocast():
            loss = convolutions(features).float().mean()
        loss.backward()

    works: dict[str, Callable[[], object]] = {"wide convolutions alone": convolve}
    settings = load_run_config(Path("configs/vid2vid/camvid_small.yaml"), [])
    config = settings.model.following(DataFacts(NUM_LABELS, 0, has_instances=False, size=SMALL_SIZE))
    stages = {stage.name: stage for stage in vid2vid.stages(config, 1)}
    for name, stage in stages.items():
        torch.manual_seed(0)
        model = vid2vid.build(config)
        runtime.prepare(model)
        networks = pretrained.load(vid2vid.pretrained(config), {}).networks
        batch = _batch(SMALL_SIZE, num_samples=2, clip_frames=stage.clip_frames)
        works[name] = _update(model, (stage,), runtime, batch, networks)
    rates = _rates(works, repeats)
    best = rates["wide convolutions alone"]["tflop_per_s"]
    return [{"case": name, **rate, "share": round(rate["tflop_per_s"] / best, 2)} for name, rate in rates.items()]


def _rates(works: dict[str, Callable[[], object]], repeats: int) -> dict[str, dict[str, float]]:
    """GFLOP, processor seconds, and TFLOP per second of each call; by turns, so that all of them see the same neighbors."""
    gflop = {}
    for name, work in works.items():
        work()
        with FlopCounterMode(display=False) as counter:
            work()
        gflop[name] = counter.get_total_flops() / 1e9
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            started = time.process_time()
            work()
            seconds[name].append(time.process_time() - started)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        name: {
            "gflop": round(gflop[name], 1),
            "seconds": round(median, 2),
            "tflop_per_s": round(gflop[name] / median / 1000, 3),
        }
        for name, median in medians.items()
    }


def _update(
    model: Translator, stages: tuple[Stage, ...], runtime: Runtime, batch: Batch, networks: dict[str, Any] | None = None
) -> Callable[[], object]:
    """One training step on `batch`."""
    settings = LoopSettings(seed=0, ema_decay=None, max_grad_norm=None, max_nonfinite_steps=0, max_steps=None)
    still = {"flow": lambda a, b: torch.zeros(len(a), 2, *a.shape[-2:])}
    trainer = Trainer(model, stages, settings, still | (networks or {}), runtime)
    return lambda: trainer.run(lambda step: [(range(len(batch.target)), batch)], _StopAtOnce())


def _update_seconds(model: Translator, stages: tuple[Stage, ...], runtime: Runtime, batch: Batch, repeats: int) -> float:
    """Of one training step on `batch`."""
    return median_seconds(_update(model, stages, runtime, batch), repeats)


def bench_pix2pixhd(repeats: int) -> list[dict[str, Any]]:
    """The published 1024x512 model: milliseconds of its first convolution, of a picture and of a training step."""
    size = (512, 1024)
    condition = _condition(1, size)
    labels, instances = condition.labels, condition.instances
    assert labels is not None
    assert instances is not None
    batch = Batch(condition, torch.rand(1, 1, 3, *size) * 2 - 1)
    config = pix2pixhd.Config(num_labels=NUM_LABELS, use_instances=True, losses=pix2pixhd.LossWeights(perceptual_weight=0))
    names = ("first convolution, dense", "first convolution, sums of table rows", "picture", "training step")
    seconds: dict[str, dict[str, float]] = {name: {} for name in names}
    for way, runtime in (("plain", Runtime(torch.device("cpu"), use_bf16=False)), ("shipped", Runtime.choose("cpu"))):
        model = pix2pixhd.build(config)
        if way == "shipped":
            runtime.prepare(model)
        seconds["training step"][way] = _update_seconds(model, pix2pixhd.stages(config, 1000), runtime, batch, repeats)
        model.eval()
        if way == "shipped":
            runtime.prepare_for_use(model)
        network = model.generator.image
        first = network.first_convolution(1)

        def encoded() -> torch.Tensor:
            return encode(condition, num_labels=NUM_LABELS, use_instances=True)[:, 0]

        def dense(first: torch.nn.Module = first) -> object:
            return first(encoded())

        def short(first: torch.nn.Conv2d = first) -> object:
            edges = instance_edges(instances)[:, 0]
            return label_convolution.convolve_labels(first, labels[:, 0], NUM_LABELS, edges=edges)

        def plain(network: torch.nn.Module = network) -> object:
            return network(encoded())

        def shipped(model: Translator = model) -> object:
            return model.translate(condition)

        with torch.inference_mode(), runtime.autocast():
            ways = {names[0]: dense, names[1]: dense if way == "plain" else short, names[2]: plain if way == "plain" else shipped}
            for name, work in ways.items():
                seconds[name][way] = median_seconds(work, repeats)
        del model, network, first, ways
        gc.collect()
    return [_row(f"pix2pixHD 1024x512 (published): {name}", found) for name, found in seconds.items()]


def _batch(size: tuple[int, int], num_samples: int = 1, clip_frames: int = 2) -> Batch:
    """Clips after two frames that are known."""
    shape, count = (num_samples, clip_frames + 2), num_samples
    condition = _condition(clip_frames + 2, size).map(lambda value: value.repeat(count, *[1] * (value.ndim - 1)))
    target = torch.rand(*shape, 3, *size) * 2 - 1
    return Batch(condition, target, torch.zeros(*shape, 2, *size), torch.ones(*shape, 1, *size), primer_frames=2)


# scale of a 248x186 picture, width: equal for all three ways
SINGAN_CASES = {"scale 4, 72x54": 4, "scale 7, 152x114": 7, "scale 9, 248x186": 9}
SINGAN_WIDTH = 32
SINGAN_SIZE = (186, 248)


def bench_singan(repeats: int) -> list[dict[str, Any]]:
    """Milliseconds per iteration of one scale at equal width, in processor time of this process.

    "plain" follows the original's steps in float32 without autocast or channels_last: three updates of each network, a new
    cascade of the coarser scales for each. "steps kept" does the same in bf16 where it is safe. "fast" is what a budget trains.
    """
    from vidgen.single_image.training import model_config

    plain = Runtime(torch.device("cpu"), use_bf16=False)
    shipped = Runtime.choose("cpu")
    narrow = {"max_channels": SINGAN_WIDTH}
    faithful = model_config("singan", "faithful", "animation", image_size=SINGAN_SIZE).model_copy(update=narrow)
    fast = model_config("singan", "fast", "animation", image_size=SINGAN_SIZE).model_copy(update=narrow)
    rows = []
    for name, level in SINGAN_CASES.items():
        seconds = {
            way: _singan_seconds(config, level, runtime, prepared, repeats)
            for way, config, runtime, prepared in (
                ("plain", faithful, plain, False),
                ("steps kept", faithful, shipped, True),
                ("fast", fast, shipped, True),
            )
        }
        rows.append(
            {
                "case": name,
                **{f"{way.replace(' ', '_')}_ms": round(1000 * value, 1) for way, value in seconds.items()},
                "ratio_steps_kept": round(seconds["plain"] / seconds["steps kept"], 2),
                "ratio": round(seconds["plain"] / seconds["fast"], 2),
            }
        )
    return rows


def _singan_seconds(config: Any, level: int, runtime: Runtime, prepared: bool, repeats: int) -> float:
    """Processor seconds of one iteration, after those that fill the kept cascades."""
    if config.num_kept_cascades:
        config = config.model_copy(update={"num_kept_cascades": 1})
    torch.manual_seed(0)
    model = singan.build(config)
    if prepared:
        runtime.prepare(model)
    stage = next(stage for stage in singan.stages(config, 1) if stage.num_active_scales == level + 1)
    limits = LoopSettings(seed=0, ema_decay=None, max_grad_norm=None, max_nonfinite_steps=9, max_steps=None)
    trainer = Trainer(model, (stage,), limits, {}, runtime)
    target = torch.rand(1, 1, 3, *SINGAN_SIZE) * 2 - 1
    batch = Batch(Condition(frames=target[:, :, :0]), target)
    times = []
    for _ in range(repeats + 1):
        started = time.process_time()
        trainer.run(lambda step: [(range(1), batch)], _StopAtOnce())
        times.append(time.process_time() - started)
    return statistics.median(times[1:])


class _StopAtOnce:
    def step_done(self, record: object, trainer: Trainer) -> bool:
        return True


def _row(name: str, seconds: dict[str, float]) -> dict[str, Any]:
    return {
        "case": name,
        "plain_ms": round(1000 * seconds["plain"], 1),
        "shipped_ms": round(1000 * seconds["shipped"], 1),
        "ratio": round(seconds["plain"] / seconds["shipped"], 2),
    }


# small video models of 256x192, as file to be measured like a user's own; generator, classes, whether instances are read
BACKEND_CASES: dict[str, tuple[dict[str, Any], int, bool]] = {
    "published small recipe, 32 channels": ({"base_channels": 32, "num_blocks": 6}, NUM_LABELS, True),
    "vid2vid/camvid_small": ({"kind": "compact", "width": 0.8}, 32, False),
    "compact, width 1": ({"kind": "compact"}, NUM_LABELS, True),
}


def bench_backends(repeats: int, only: str = "") -> list[dict[str, Any]]:
    """Milliseconds per frame and differences of every installed backend, each in a process of its own; see `vidgen bench`."""
    from vidgen.commands.bench import bench
    from vidgen.media.labels import plain
    from vidgen.weights.files import pack
    from vidgen.weights.model_file import ModelCard

    rows = []
    with tempfile.TemporaryDirectory() as name:
        models = {"street-world 256x128 (included)": Path("street-world")} if only in "street-world" else {}
        for case, (shape, num_labels, use_instances) in BACKEND_CASES.items():
            if only not in case:
                continue
            config = _model(shape, 64, num_labels, use_instances).config.for_use()
            condition = {"labels": {"num_classes": num_labels}, "instances": "instances" if use_instances else None}
            card = ModelCard(config, condition, plain(num_labels), (192, 256))
            models[case] = Path(name) / f"{len(models)}.safetensors"
            models[case].write_bytes(pack(vid2vid.build(config).state_dict(), card.metadata()))
        for case, model in models.items():
            found = bench(model, num_frames=max(3, repeats))["rows"]
            plain_ms = next(row["processor_ms"] for row in found if row["backend"] == "torch" and row["precision"] == "fp32")
            for row in found:
                columns = (
                    "backend",
                    "precision",
                    "ms_per_frame",
                    "processor_ms",
                    "seconds_to_first_frame",
                    "peak_mb",
                    "difference",
                )
                ratio = round(plain_ms / row["processor_ms"], 2) if "failed" not in row else row["failed"]
                rows.append({"case": case, **{column: row.get(column) for column in columns}, "ratio": ratio})
    return rows


_MEMORY_CHILD = """
import sys
from vidgen.inference.model import Model
model = Model.load(sys.argv[1], device="cpu", precision="fp32", backend=sys.argv[4])
assert model.choice.backend == sys.argv[4], model.choice.why
model.translate(sys.argv[2]).save(sys.argv[3])
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(status["VmHWM"].split()[0])  # not ru_maxrss: that begins with the peak of the process that started this one
"""


def bench_memory(lengths: tuple[int, int] = (100, 10_000)) -> list[dict[str, Any]]:
    """Peak resident memory of a whole `translate` process for a short and a long video, with every installed backend."""
    from fractions import Fraction

    from vidgen.inference.backends.graphs import ENGINES, engine_version
    from vidgen.inference.model import prepare
    from vidgen.media.frames import open_sink
    from vidgen.training import run
    from vidgen.training import settings as run_settings
    from vidgen.weights.files import pack

    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = folder / "config.yaml"
        config.write_text(
            "model: {kind: vid2vid, num_labels: 4, generator: {base_channels: 8, num_downsamplings: 2, num_blocks: 2}}\n"
            "data: {root: ., condition: {labels: {num_classes: 4}}}\n"
        )
        settings = run_settings.load_run_config(config, [])
        from vidgen.media.labels import plain

        weights = pack(run.build(settings).state_dict(), run.model_card(settings, plain(4), (32, 64)).metadata())
        (folder / "model.safetensors").write_bytes(weights)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        if any(engine_version(name) for name in ENGINES):
            prepare(folder / "model.safetensors")  # here, so that no child's peak holds the exporter
        for length in lengths:
            video = folder / f"labels-{length}.mkv"
            with open_sink(video, time_base=Fraction(1, 25), frame_rate=Fraction(25), kind="labels") as sink:
                for index in range(length):
                    labels = np.zeros((32, 64), np.uint8)
                    labels[:, index % 64 :] = 1
                    sink.write(labels, index)
        for backend in ("torch", *ENGINES):
            if engine_version(backend) is None:
                continue
            row: dict[str, Any] = {"backend": backend}
            for length in lengths:
                files = (folder / "model.safetensors", folder / f"labels-{length}.mkv", folder / f"{backend}-{length}.mp4")
                command = [sys.executable, "-c", _MEMORY_CHILD, *map(str, files), backend]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                row[f"peak_mb_{length}_frames"] = round(int(done.stdout.split()[-1]) / 1024, 1)
            rows.append({**row, "growth_mb": round(row[f"peak_mb_{lengths[1]}_frames"] - row[f"peak_mb_{lengths[0]}_frames"], 1)})
    return rows


NAMES = ("translate", "train", "efficiency", "pix2pixhd", "singan", "backends", "memory")


@click.command()
@click.argument(
    "what",
    type=click.Choice(["all", "translate", "train", "efficiency", "pix2pixhd", "singan", "backends", "memory"]),
    default="all",
)
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--only", default="", help="Of 'translate' and 'backends', the cases whose name holds this text.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def main(what: str, repeats: int, only: str, as_json: bool) -> None:
    """Measure and print."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    from vidgen.inference.backends.choice import processor

    runtime = f"{processor().split(',')[0]}, {instruction_set()}: {Runtime.choose('cpu').describe()}"
    report: dict[str, Any] = {"torch": torch.__version__, "runtime": runtime}
    jobs: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "translate": lambda: bench_translate(repeats, only),
        "train": lambda: bench_train(repeats),
        "efficiency": lambda: bench_efficiency(repeats),
        "pix2pixhd": lambda: bench_pix2pixhd(repeats),
        "singan": lambda: bench_singan(repeats),
        "backends": lambda: bench_backends(repeats, only),
        "memory": bench_memory,
    }
    for name, job in jobs.items():
        if what in ("all", name):
            console.print(f"measuring {name} ...")
            report[name] = job()
    if as_json:
        print(json.dumps(report, indent=2))
        return
    screen = Console()
    screen.print(report["runtime"])
    for name in jobs:
        if name in report:
            table = Table(*report[name][0], title=name)
            for row in report[name]:
                table.add_row(*(str(value) for value in row.values()))
            screen.print(table)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # an end in good order removes the temporary folders
    main()
