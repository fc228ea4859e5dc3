"""The readers of vidgen, each with whole files to begin from.

Whatever is done to such a file, its reader takes it or raises an error of `vidgen.errors` (or `flow.errors`), soon, and within
little memory; caches never raise at all.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from flow.engines import create_engine
from flow.errors import FlowError
from flow.files import read_flow, write_flow
from tests import media_clips, tiny
from vidgen import config, durable
from vidgen.commands import data as data_command
from vidgen.commands import models
from vidgen.commands.doctor_run import doctor_run
from vidgen.commands.report import report
from vidgen.data import reference_flow
from vidgen.errors import VidgenError
from vidgen.evaluation.report import read_reports
from vidgen.inference.model import Model
from vidgen.inference.styles import Styles
from vidgen.labeling.head import FrameFeatures, Head, TrainedHead
from vidgen.media import labels
from vidgen.media.drawings import draw_face, draw_pose
from vidgen.media.frames import open_source
from vidgen.media.keypoints import read_points
from vidgen.media.labels import LabelTable
from vidgen.metrics import motion, programs
from vidgen.pages.curves import read_training
from vidgen.training import run
from vidgen.training import settings as run_settings
from vidgen.weights import arrays, checkpoints, state_dicts
from vidgen.weights.files import pack
from vidgen.weights.model_file import ModelCard

EXPECTED = (VidgenError, FlowError)


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name: the file's name in the folder that `prepare` fills, with folders above it where its reader looks for it there.
        seeds: whole files.
        read: reads the file at a path to its end.
        prepare: puts beside it what the reader needs.
    """

    name: str
    seeds: Callable[[], list[bytes]]
    read: Callable[[Path], object]
    prepare: Callable[[Path], object] = lambda folder: None

    def place(self, folder: Path) -> Path:
        """Where the file is to lie in a folder, which is made ready for it."""
        self.prepare(folder)
        path = folder / self.name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vidgen-fuzz-") as folder:
        yield Path(folder)


@functools.cache
def _whole_run(kind: str = "vid2vid") -> tuple[bytes, run_settings.RunSettings, ModelCard]:
    """A model file, the settings of its run and its card."""
    with _scratch() as folder:
        settings = run_settings.load_run_config(tiny.write_config(folder, folder, kind), [])
    table, size = labels.plain(tiny.NUM_CLASSES), (tiny.HEIGHT, tiny.WIDTH)
    settings = run.follow_data(settings, table, size)
    torch.manual_seed(0)
    card = run.model_card(settings, table, size)
    return pack(run.build(settings).state_dict(), card.metadata()), settings, card


@functools.cache
def _models() -> list[bytes]:
    shipped = Path(__file__).parents[1] / "data" / "model_of_0.1.safetensors"
    return [*(_whole_run(kind)[0] for kind in ("vid2vid", "pix2pix", "pix2pixhd")), shipped.read_bytes()]


def _use_model(path: Path) -> None:
    warnings.simplefilter("ignore", DeprecationWarning)  # of keys of earlier releases, which one of the seeds has
    models.info(path)
    model = Model.load(path)
    height, width = model.trained_size
    if height * width <= 4096:
        model.session((height, width), seed=0)


# -- media -----------------------------------------------------------------------------------------------------------------


def _clip(name: str, codec: str, pixel_format: str = "yuv420p", **options: str) -> list[bytes]:
    frames = media_clips.smooth_frames(5)
    with _scratch() as folder:
        path = folder / name
        media_clips.write_clip(path, frames, codec=codec, pixel_format=pixel_format, container_options=options or None)
        return [path.read_bytes()]


def _pictures(form: str, *modes: str) -> list[bytes]:
    pixels = np.random.default_rng(0).integers(0, 255, (12, 17, 4), dtype=np.uint8)
    contents = []
    for mode in modes:
        buffer = io.BytesIO()
        deep = Image.fromarray(pixels[..., 0].astype(np.uint16) * 200)
        picture = deep if mode == "I;16" else Image.fromarray(pixels).convert(mode)
        picture.save(buffer, form)
        contents.append(buffer.getvalue())
    return contents


def _read_frames(path: Path) -> None:
    errors = []
    for kind in ("pictures", "labels"):
        try:
            for _ in open_source(path, kind=kind):
                pass
        except EXPECTED as error:
            errors.append(error)
    if len(errors) == 2:
        raise errors[0]


def _openpose() -> list[bytes]:
    def points(count: int) -> list[float]:
        return [coordinate for index in range(count) for coordinate in (10.5 + index, 20.0, 0.9)]

    people = [{"pose_keypoints_2d": points(count), "hand_left_keypoints_2d": points(21)} for count in (25, 18)]
    coco = {
        "images": [{"id": 1, "file_name": "000.png"}],
        "annotations": [{"image_id": 1, "keypoints": [10, 20, 2] * 17}],
    }
    return [json.dumps({"version": 1.3, "people": people}).encode(), json.dumps(coco).encode()]


def _landmarks() -> list[bytes]:
    return ["".join(f"{index + 0.5},{2 * index}\n" for index in range(68)).encode()]


def _use_points(path: Path) -> None:
    for frame in read_points(path):
        draw_pose(frame.people, (48, 64))
        if (landmarks := frame.landmarks) is not None:
            draw_face(landmarks, (48, 64))


# -- tables, settings, scores ------------------------------------------------------------------------------------------------


def _table_files() -> list[bytes]:
    colored = LabelTable(("road", "sky"), ((1, 2, 3), (9, 9, 9)), None, (0xFFFFFF,), nearest=True)
    return [json.dumps(table.to_dict()).encode() for table in (labels.CITYSCAPES, labels.plain(4, ignore=(255,)), colored)]


def _use_table(path: Path) -> None:
    table = LabelTable.from_file(path)
    pixels = np.zeros((4, 4) if table.values is not None else (4, 4, 3), np.uint8)
    table.colorize(table.decode(pixels, "frame"))


def _csv_files() -> list[bytes]:
    return [b"name,id,r,g,b\nroad,0,1,2,3\nsky,1,4,5,6\nignore,255,0,0,0\n", b"name, r, g, b\nroad, 0, 0, 0\nsky, 4, 5, 6\n"]


def _configurations() -> list[bytes]:
    with _scratch() as folder:
        own = [tiny.write_config(folder, folder, kind).read_bytes() for kind in ("vid2vid", "pix2pix", "pix2pixhd")]
    return [*own, *(path.read_bytes() for path in list(config.shipped().values())[::3])]


def _scores() -> list[bytes]:
    value = {"unit": "dB", "better": "high", "n": 4, "skipped": 0}
    provenance = {
        "output": "a.mp4", "source": "b.mp4", "flow": "dis", "flow_from": "source", "size": [32, 48], "strides": [1, 3],
        "num_frames": 4, "frame_rate": 25.0, "fps": None, "versions": {"vidgen": "0.2"}, "content_sha256": {"output": "ab"},
        "weights": {"clip": {"path": "c", "sha256": "00", "published": True}}, "segmenter": None,
    }  # fmt: skip
    document = {
        "schema_version": 1,
        "metrics": {"psnr": {**value, "value": 20.5}, "warp_error@1": {**value, "value": None, "reason": "no flow"}},
        "verdict": {"rankable": False, "reasons": ["short"], "remarks": []},
        "cuts": [2],
        "comparisons": {"other": {"psnr": {"value": 1.0, "difference": 2.0, "low": 1.0, "high": 3.0}}},
        "ranking": {"order": {"psnr": ["a", "b"]}, "left_out": {"c": ["still"]}},
        "provenance": provenance,
        "per_frame": {"psnr": [1.0, None, 2.0, 3.0], "luma_bend": [0.0, 0.1, 0.2, None]},
    }
    return [json.dumps(document).encode(), json.dumps({"a": document, "b": document}).encode()]


def _use_scores(path: Path) -> None:
    for item in read_reports(path).values():
        item.table()
        item.to_json()
    report([str(path)], path.with_suffix(".html"), overwrite=True)


# -- runs ------------------------------------------------------------------------------------------------------------------


def _log_lines() -> list[bytes]:
    line = {"stage": "frames", "learning_rate": 2e-4, "losses": {"l1": 0.5, "gan": float("nan")}, "skipped_updates": 1}
    return ["".join(json.dumps({"step": step, **line}) + "\n" for step in range(1, 9)).encode()]


def _prepare_run(folder: Path) -> None:
    model, settings, _ = _whole_run()
    durable.write_text(folder / "config.yaml", config.dump(settings))
    durable.write_text(folder / "run.lock", "")
    durable.write_bytes(folder / "metrics.jsonl", _log_lines()[0])
    files = {checkpoints.MODEL: model, checkpoints.OPTIMIZERS: pack({"a/0/step": torch.zeros(1)}, {})}
    checkpoints.write_checkpoint(folder / "checkpoints", checkpoints.Progress(step=3, seconds=1.5), files, keep=2)


@functools.cache
def _of_run(name: str) -> list[bytes]:
    with _scratch() as folder:
        _prepare_run(folder)
        return [(folder / name).read_bytes()]


def _use_checkpoint(path: Path) -> None:
    doctor_run(path.parents[2])
    checkpoints.find_weights(path.parents[2])


def _use_log(path: Path) -> None:
    read_training(path)
    run.Folder(path.parent).keep_metrics_until(5)
    read_training(path)


def _use_config(path: Path) -> None:
    doctor_run(path.parent)
    report([str(path.parent)], path.parent / "page.html", overwrite=True)
    run_settings.load_run_config(path, [])


@functools.cache
def _old_states() -> list[bytes]:
    """States of format 1, which held the hashes."""
    with _scratch() as folder:
        _prepare_run(folder)
        place = folder / "checkpoints/step-0000003"
        names = (checkpoints.MODEL, checkpoints.OPTIMIZERS)
        hashes = {name: hashlib.sha256((place / name).read_bytes()).hexdigest() for name in names}
    progress = {"step": 3, "stage": 0, "bad_steps": 0, "seconds": 1}
    return [json.dumps({"format_version": 1, "progress": progress, "sha256": hashes}).encode()]


def _prepare_without_manifest(folder: Path) -> None:
    _prepare_run(folder)
    (folder / "checkpoints/step-0000003/manifest.json").unlink()


# -- weights ---------------------------------------------------------------------------------------------------------------


def _torch_files() -> list[bytes]:
    contents = []
    for zipped in (True, False):
        buffer = io.BytesIO()
        torch.save({"a.weight": torch.ones(3, 2), "b": torch.zeros(4)}, buffer, _use_new_zipfile_serialization=zipped)
        contents.append(buffer.getvalue())
    return contents


def _clusters() -> list[bytes]:
    buffer = io.BytesIO()
    value: Any = {1: np.ones((2, 3), np.float32), 7: np.zeros((1, 3), np.float32)}
    np.save(buffer, np.array(value, dtype=object), allow_pickle=True)
    return [buffer.getvalue()]


def _style_files() -> list[bytes]:
    with _scratch() as folder:
        path = folder / "styles.safetensors"
        Styles({0: np.ones((2, 3), np.float32), 4: np.zeros((1, 3), np.float32)}, {"data": "here"}).write(path)
        return [path.read_bytes()]


def _use_styles(path: Path) -> None:
    found = Styles.read(path)
    found.one(0, 0)
    models.info(path)


@functools.cache
def _features() -> FrameFeatures:
    return FrameFeatures.load()


def _heads() -> list[bytes]:
    with _scratch() as folder:
        path = folder / "head.safetensors"
        TrainedHead(Head(2, _features().channels), (0, 2), labels.plain(3)).save(path)
        return [path.read_bytes()]


def _programs() -> list[bytes]:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Conv2d(3, 2, 1)), buffer)
    return [buffer.getvalue()]


def _use_program(path: Path) -> None:
    programs.is_torchscript(path)
    programs.load_torchscript(path)


# -- flow and caches ---------------------------------------------------------------------------------------------------------


def _flow_files(suffix: str) -> list[bytes]:
    with _scratch() as folder:
        path = folder / f"a{suffix}"
        write_flow(path, torch.linspace(-3, 3, 2 * 5 * 7).view(2, 5, 7))
        return [path.read_bytes()]


def _flow_network() -> list[bytes]:
    folder = Path(__file__).parents[2] / "flow" / "weights"
    return [path.read_bytes() for path in sorted(folder.glob("*.safetensors"))[:1]]


def _cached_flow() -> list[bytes]:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ones((2, 5, 7), np.float16), allow_pickle=False)
    return [buffer.getvalue()]


def _cached_motion() -> list[bytes]:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, flow=np.ones((1, 2, 5, 7), np.float16), mask=np.packbits(np.ones((5, 7), bool)))
    return [buffer.getvalue()]


def _use_cache(read: Callable[[Path], object]) -> Callable[[Path], None]:
    def use(path: Path) -> None:
        try:
            read(path)
        except EXPECTED as error:
            raise AssertionError(f"a damaged cache is a miss, not an error: {error}") from error

    return use


# -- outputs ---------------------------------------------------------------------------------------------------------------


def _prepare_output(folder: Path) -> None:
    with durable.claim([durable.Output(folder / "out", "folder")]):
        durable.fill_output_folder(durable.Output(folder / "out", "folder"), {"0.png": b"picture"})


@functools.cache
def _output_manifests() -> list[bytes]:
    with _scratch() as folder:
        _prepare_output(folder)
        return [(folder / "out" / durable.MANIFEST).read_bytes()]


def _claim_folder(path: Path) -> None:
    with durable.claim([durable.Output(path.parent, "folder")], overwrite=True):
        pass


def _claim_sidecar(path: Path) -> None:
    with durable.claim([durable.Output(path, "sidecar")]):
        pass


def _check_data(path: Path) -> None:
    data_command.check(path.parents[2])


def _prepare_data(folder: Path) -> None:
    tiny.write_data(folder, num_sequences=1, num_frames=2)


def _data_pictures() -> list[bytes]:
    with _scratch() as folder:
        _prepare_data(folder)
        return [(folder / "labels" / "clip0" / "000.png").read_bytes()]


KINDS: dict[str, Kind] = {
    "mp4": Kind("a.mp4", lambda: _clip("a.mp4", "libx264"), _read_frames),
    "fragmented": Kind("a.mp4", lambda: _clip("a.mp4", "libx264", movflags="frag_keyframe+empty_moov"), _read_frames),
    "mkv": Kind("a.mkv", lambda: _clip("a.mkv", "ffv1"), _read_frames),
    "webm": Kind("a.webm", lambda: _clip("a.webm", "libvpx-vp9"), _read_frames),
    "avi": Kind("a.avi", lambda: _clip("a.avi", "mpeg4"), _read_frames),
    "gif": Kind("a.gif", lambda: _clip("a.gif", "gif", "rgb8"), _read_frames),
    "png": Kind("a.png", lambda: _pictures("PNG", "RGB", "P", "L", "I;16", "RGBA"), _read_frames),
    "jpeg": Kind("a.jpg", lambda: _pictures("JPEG", "RGB", "L", "CMYK"), _read_frames),
    "webp": Kind("a.webp", lambda: _pictures("WEBP", "RGB", "RGBA"), _read_frames),
    "tiff": Kind("a.tif", lambda: _pictures("TIFF", "RGB", "L"), _read_frames),
    "data": Kind("labels/clip0/000.png", _data_pictures, _check_data, _prepare_data),
    "points": Kind("a.json", _openpose, _use_points),
    "landmarks": Kind("a.txt", _landmarks, _use_points),
    "table": Kind("labels.json", _table_files, _use_table),
    "csv": Kind("labels.csv", _csv_files, _use_table),
    "yaml": Kind("a.yaml", _configurations, lambda path: run_settings.load_run_config(path, [])),
    "scores": Kind("scores.json", _scores, _use_scores),
    "model": Kind("a.safetensors", _models, _use_model),
    "state_dict": Kind("a.pth", _torch_files, state_dicts.read_state_dict),
    "head": Kind("head.safetensors", _heads, lambda path: TrainedHead.load(path, _features())),
    "clusters": Kind("a.npy", _clusters, arrays.read_array_dictionary),
    "styles": Kind("styles.safetensors", _style_files, _use_styles),
    "program": Kind("a.pt", _programs, _use_program),
    "log": Kind("metrics.jsonl", _log_lines, _use_log),
    "run_config": Kind("config.yaml", lambda: _of_run("config.yaml"), _use_config, _prepare_run),
    "state": Kind(
        "checkpoints/step-0000003/state.json",
        _old_states,
        _use_checkpoint,
        _prepare_without_manifest,
    ),
    "manifest": Kind(
        "checkpoints/step-0000003/manifest.json",
        lambda: _of_run("checkpoints/step-0000003/manifest.json"),
        _use_checkpoint,
        _prepare_run,
    ),
    "flo": Kind("a.flo", lambda: _flow_files(".flo"), read_flow),
    "pfm": Kind("a.pfm", lambda: _flow_files(".pfm"), read_flow),
    "kitti": Kind("a.png", lambda: _flow_files(".png"), read_flow),
    "flow_network": Kind("a.safetensors", _flow_network, lambda path: create_engine("learned", path=path)),
    "flow_cache": Kind("a.npy", _cached_flow, _use_cache(lambda path: reference_flow._read(path, (2, 5, 7)))),
    "motion_cache": Kind("a.npz", _cached_motion, _use_cache(lambda path: motion._read_motion(path, (5, 7)))),
    "output": Kind(f"out/{durable.MANIFEST}", _output_manifests, _claim_folder, _prepare_output),
    "sidecar": Kind("a.mp4.json", lambda: [b'{"vidgen": "0.2", "model": {"sha256": "0"}}'], _claim_sidecar),
}


def quiet() -> None:
    """Say nothing of what is wrong with the files."""
    logging.disable(logging.CRITICAL)
