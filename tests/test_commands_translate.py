"""Translation as a user meets it: any length, size and timing in, the same out; known first frames; many inputs; bad inputs."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import vidgen
from tests import tiny
from tests.conftest import REPOSITORY
from vidgen.commands.train import train
from vidgen.commands.translate import translate
from vidgen.errors import CheckpointError, ConfigError, InputError, OutputError, PartialFailure, VidgenError
from vidgen.inference.model import Model, Options
from vidgen.media.frames import open_sink, open_source
from vidgen.media.images import write_png


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    config = tiny.write_config(folder, tiny.write_data(folder / "data"))
    train(config, folder / "run", steps=2)
    return folder / "run"


def _labels(size: tuple[int, int], index: int) -> np.ndarray:
    labels = np.zeros(size, np.uint8)
    labels[size[0] // 2 :] = 1
    labels[4:12, 3 + index % 5 : 13 + index % 5] = 2
    return labels


def _label_folder(folder: Path, num_frames: int, size: tuple[int, int] = (32, 48)) -> Path:
    for index in range(num_frames):
        write_png(folder / f"{index:04d}.png", _labels(size, index))
    return folder


def _label_video(path: Path, times: list[int], size: tuple[int, int] = (32, 48)) -> Path:
    with open_sink(path, time_base=Fraction(1, 100), frame_rate=Fraction(25), kind="labels") as sink:
        for index, pts in enumerate(times):
            sink.write(_labels(size, index), pts)
    return path


def _frames(path: Path) -> list[np.ndarray]:
    return [frame.pixels for frame in open_source(path)]


@pytest.mark.parametrize("size", [(32, 48), (33, 47), (64, 96), (41, 200)])
def test_every_input_frame_gets_an_output_frame_of_its_size(run_folder: Path, tmp_path: Path, size: tuple[int, int]) -> None:
    translate(run_folder, [str(_label_folder(tmp_path / "in", 5, size))], str(tmp_path / "out.mp4"))
    frames = _frames(tmp_path / "out.mp4")
    assert len(frames) == 5
    assert all(frame.shape == (*size, 3) for frame in frames)


def test_times_of_a_variable_rate_video_are_kept(run_folder: Path, tmp_path: Path) -> None:
    times = [0, 4, 8, 20, 21, 40]
    translate(run_folder, [str(_label_video(tmp_path / "in.mkv", times))], str(tmp_path / "out.mkv"))
    source = open_source(tmp_path / "out.mkv")
    seconds = [float(frame.pts * source.time_base) for frame in source]
    assert seconds == pytest.approx([time / 100 for time in times], abs=0.001)


def test_a_prefix_of_the_input_gives_a_prefix_of_the_output(run_folder: Path, tmp_path: Path) -> None:
    whole = list(vidgen.load(str(run_folder)).translate(_label_folder(tmp_path / "in", 6)))
    part = list(vidgen.load(str(run_folder)).translate(f"{tmp_path / 'in'}[0:3]"))
    assert len(whole) == 6
    assert len(part) == 3
    assert all(np.array_equal(a, b) for a, b in zip(whole, part, strict=False))


def test_a_file_beside_the_output_says_how_it_was_made(run_folder: Path, tmp_path: Path) -> None:
    made = translate(run_folder, [str(_label_folder(tmp_path / "in", 3))], str(tmp_path / "out.mp4"))
    written = json.loads((tmp_path / "out.mp4.json").read_text())
    assert written == {name: value for name, value in made.items() if name != "output"}
    assert (written["frames"], written["size"], written["kind"]) == (3, [32, 48], "vid2vid")
    assert len(written["model_sha256"]) == 64


def test_side_by_side_shows_the_labels_on_the_left(run_folder: Path, tmp_path: Path) -> None:
    source = _label_folder(tmp_path / "in", 2)
    translate(run_folder, [str(source)], str(tmp_path / "out/"), side_by_side=True)
    frames = _frames(tmp_path / "out")
    model = Model.load(run_folder)
    assert model.table is not None
    assert frames[1].shape == (32, 96, 3)
    assert np.array_equal(frames[1][:, :48], model.table.colorize(_labels((32, 48), 1).astype(int)))


def test_a_given_first_frame_comes_out_first_and_changes_what_follows(run_folder: Path, tmp_path: Path) -> None:
    source = _label_folder(tmp_path / "in", 3)
    picture = np.full((32, 48, 3), 200, np.uint8)
    write_png(tmp_path / "first.png", picture)
    model = Model.load(run_folder)
    plain, primed = list(model.translate(source)), list(model.translate(source, first_frames=tmp_path / "first.png"))
    assert len(primed) == 3
    assert np.array_equal(primed[0], picture)
    assert not np.array_equal(plain[1], primed[1])


def test_another_model_can_make_the_first_frame(run_folder: Path, tmp_path: Path) -> None:
    source = _label_folder(tmp_path / "in", 3)
    made = translate(run_folder, [str(source)], str(tmp_path / "out/"), first_frame=run_folder)
    assert made["first_frames_given"] == 1
    first = next(iter(Model.load(run_folder).translate(source)))
    assert np.array_equal(_frames(tmp_path / "out")[0], first)


def test_a_weights_file_alone_is_enough(run_folder: Path, tmp_path: Path) -> None:
    weights = next(run_folder.glob("checkpoints/*/model.safetensors"))
    shutil.copy(weights, tmp_path / "mine.safetensors")
    source = _label_folder(tmp_path / "in", 2)
    alone = list(vidgen.load(str(tmp_path / "mine.safetensors")).translate(source))
    last = list(vidgen.load(str(run_folder), weights="last").translate(source))
    average = list(vidgen.load(str(run_folder), weights="average").translate(source))
    assert all(np.array_equal(a, b) for a, b in zip(alone, last, strict=True))
    assert not np.array_equal(last[1], average[1])


def test_start_and_end_cut_the_input(run_folder: Path, tmp_path: Path) -> None:
    made = translate(run_folder, [str(_label_folder(tmp_path / "in", 8))], str(tmp_path / "out.mp4"), start="2f", end="6f")
    assert made["frames"] == 4


def _many(tmp_path: Path, count: int = 4) -> Path:
    for number in range(count):
        _label_folder(tmp_path / "many" / f"clip{number}", 2)
    return tmp_path / "many"


def test_a_folder_of_sequences_gives_a_video_each_and_shards_share_them_out(run_folder: Path, tmp_path: Path) -> None:
    many = _many(tmp_path)
    for part in (1, 2):
        translate(run_folder, [str(many)], str(tmp_path / "out"), shard=f"{part}/2")
        done = len(list((tmp_path / "out").glob("*.mp4")))
        assert done == 4 if part == 2 else 0 <= done <= 4
    again = translate(run_folder, [str(many)], str(tmp_path / "out"), skip_existing=True)
    assert all(result["skipped"] for result in again["results"])


def test_one_bad_input_does_not_stop_the_others(run_folder: Path, tmp_path: Path) -> None:
    many = _many(tmp_path)
    write_png(many / "clip2" / "0001.png", np.full((32, 48), 77, np.uint8))
    with pytest.raises(PartialFailure, match=r"1 of 4 inputs failed.*77"):
        translate(run_folder, [str(many)], str(tmp_path / "out"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.suffix == ".mp4") == [
        "clip0.mp4",
        "clip1.mp4",
        "clip3.mp4",
    ]


def test_an_unknown_label_names_file_value_and_range_and_leaves_nothing(run_folder: Path, tmp_path: Path) -> None:
    source = _label_folder(tmp_path / "in", 4)
    write_png(source / "0002.png", np.full((32, 48), 41, np.uint8))
    with pytest.raises(InputError, match=r"0002\.png.*41.*0"):
        translate(run_folder, [str(source)], str(tmp_path / "out.mp4"))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_an_existing_output_is_not_replaced_unless_asked(run_folder: Path, tmp_path: Path) -> None:
    source = str(_label_folder(tmp_path / "in", 2))
    (tmp_path / "out.mp4").write_bytes(b"precious")
    with pytest.raises(OutputError, match="exists already"):
        translate(run_folder, [source], str(tmp_path / "out.mp4"))
    assert (tmp_path / "out.mp4").read_bytes() == b"precious"
    translate(run_folder, [source], str(tmp_path / "out.mp4"), overwrite=True)
    assert len(_frames(tmp_path / "out.mp4")) == 2


def test_inputs_smaller_than_the_model_can_take_are_refused_with_the_least_size(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 4x4"):
        translate(run_folder, [str(_label_folder(tmp_path / "in", 1, (2, 60)))], str(tmp_path / "out/"), work_size="input")


@pytest.mark.parametrize("shard", ["0/2", "3/2", "x", "1/2/3"])
def test_a_shard_that_makes_no_sense_is_refused(run_folder: Path, tmp_path: Path, shard: str) -> None:
    with pytest.raises(ConfigError, match="`shard`"):
        translate(run_folder, [str(_label_folder(tmp_path / "in", 1))], str(tmp_path / "out/"), shard=shard)


def test_a_shard_of_a_slurm_array_is_read_from_its_variables(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = _many(tmp_path)
    for part in range(2):
        for name, value in (("MIN", 3), ("ID", 3 + part), ("COUNT", 2)):
            monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
        translate(run_folder, [str(many)], str(tmp_path / "out"), shard="auto")
    assert len(list((tmp_path / "out").glob("*.mp4"))) == 4


def test_colour_coded_labels_are_read_by_their_palette(run_folder: Path, tmp_path: Path) -> None:
    model = Model.load(run_folder)
    assert model.table is not None
    (tmp_path / "table.json").write_text(json.dumps({**model.table.to_dict(), "values": None}))
    plain = _label_folder(tmp_path / "in", 2)
    for index in range(2):
        write_png(tmp_path / "colours" / f"{index}.png", model.table.colorize(_labels((32, 48), index).astype(int)))
    translate(run_folder, [str(plain)], str(tmp_path / "a/"))
    translate(run_folder, [str(tmp_path / "colours")], str(tmp_path / "b/"), labels=str(tmp_path / "table.json"))
    assert all(np.array_equal(a, b) for a, b in zip(_frames(tmp_path / "a"), _frames(tmp_path / "b"), strict=True))


def test_no_model_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such weights file or run folder"):
        vidgen.load(str(tmp_path / "nothing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        vidgen.load(str(tmp_path / "empty"))


def test_an_interrupted_translation_leaves_no_file(run_folder: Path, tmp_path: Path) -> None:
    source = _label_video(tmp_path / "in.mkv", list(range(0, 12000, 4)))
    command = [sys.executable, "-m", "vidgen", "translate", str(run_folder), str(source), "-o", str(tmp_path / "out.mp4")]
    process = subprocess.Popen(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True
    )
    while not list(tmp_path.glob(".out*")):
        time.sleep(0.02)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in text
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


_MEASURE = """
import sys
from vidgen.inference.model import Model
model = Model.load(sys.argv[1], device="cpu")
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
for source in sys.argv[2:]:
    peak = 0
    for frames, frame in enumerate(model.translate(source), 1):
        if frames % 20 == 0:
            peak = max(peak, resident())
    print(frames, peak)
"""


def test_memory_does_not_grow_with_the_length_of_the_video(run_folder: Path, tmp_path: Path) -> None:
    lengths = (60, 700)
    videos = [_label_video(tmp_path / f"{length}.mkv", list(range(0, 4 * length, 4))) for length in lengths]
    command = [sys.executable, "-c", _MEASURE, str(run_folder), *map(str, videos)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    (short, peak), (long, later_peak) = (map(int, line.split()) for line in done.stdout.splitlines())
    assert (short, long) == lengths
    assert later_peak - peak < 24 * 2**20


_LEFT_OPEN = """
import sys
from vidgen.inference.model import Model
frames = iter(Model.load(sys.argv[1], device="cpu").translate(sys.argv[2]))
print(next(frames).shape)
"""


def test_a_translation_left_in_the_middle_does_not_hang_the_program_at_its_end(run_folder: Path, tmp_path: Path) -> None:
    source = _label_video(tmp_path / "in.mkv", list(range(0, 800, 4)))
    done = subprocess.run(
        [sys.executable, "-c", _LEFT_OPEN, str(run_folder), str(source)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "(32, 48, 3)\n"
    assert done.returncode == 0, done.stderr


def _trained_on(tmp_path: Path, condition: str) -> Path:
    config = tiny.write_config(tmp_path, tiny.write_data(tmp_path / "data"))
    config.write_text(config.read_text().replace("    labels: {num_classes: 4}", condition))
    train(config, tmp_path / "run", steps=1)
    return tmp_path / "run"


def test_a_model_of_edges_translates_a_plain_video(tmp_path: Path) -> None:
    run_folder = _trained_on(tmp_path, "    edges: {low: 50, high: 100}")
    made = translate(run_folder, [str(tmp_path / "data" / "images" / "clip0")], str(tmp_path / "out/"), side_by_side=True)
    assert made["frames"] == 10
    shown = _frames(tmp_path / "out")[0][:, :48]
    assert set(np.unique(shown)) <= {0, 255}


def test_a_model_of_two_kinds_of_pictures_needs_both(tmp_path: Path) -> None:
    run_folder = _trained_on(tmp_path, "    pictures: [images, labels]")
    images, poses = (str(tmp_path / "data" / role / "clip0") for role in ("images", "labels"))
    with pytest.raises(InputError, match="also needs pictures of labels"):
        translate(run_folder, [images], str(tmp_path / "out/"))
    assert translate(run_folder, [images], str(tmp_path / "out/"), further=[f"labels={poses}"])["frames"] == 10


def test_further_inputs_are_named_and_what_the_model_does_not_read_is_refused(tmp_path: Path) -> None:
    run_folder = _trained_on(tmp_path, "    pictures: [images, labels]")
    images, poses = (str(tmp_path / "data" / role / "clip0") for role in ("images", "labels"))
    for entries, found in (
        (["depth=x"], "no further input depth; beside images it reads labels"),
        ([f"labels={poses}", "labels=x"], "labels is named twice"),
        ([poses], "expected NAME=PATH"),
        ([f"={poses}", "=x"], "x: this model has no use for it; it reads images, labels"),
    ):
        with pytest.raises(VidgenError, match=re.escape(found)):
            translate(run_folder, [images], str(tmp_path / "out/"), further=entries)
    session = vidgen.load(run_folder).session((32, 48))
    picture = np.zeros((32, 48, 3), np.uint8)
    assert session.step(picture, labels=picture).shape == (32, 48, 3)
    with pytest.raises(InputError, match="depth: this model has no such further input; it reads images, labels"):
        session.step(picture, depth=picture)


def test_a_model_of_labels_and_edges_finds_the_edges_in_pictures_of_their_own(tmp_path: Path) -> None:
    run_folder = _trained_on(tmp_path, "    labels: {num_classes: 4}\n    edges: {drawn: over}")
    labels, images = (str(tmp_path / "data" / role / "clip0") for role in ("labels", "images"))
    with pytest.raises(InputError, match="also needs pictures to detect edges in"):
        translate(run_folder, [labels], str(tmp_path / "out/"))
    translate(run_folder, [labels], str(tmp_path / "out/"), further=[f"edges={images}"], side_by_side=True)
    shown = _frames(tmp_path / "out")[0][:, :48]
    assert (shown == 0).all(axis=2).any()


def test_a_model_of_instances_needs_them(tmp_path: Path) -> None:
    run_folder = _trained_on(tmp_path, "    labels: {num_classes: 4}\n    instances: labels")
    labels = str(tmp_path / "data" / "labels" / "clip0")
    with pytest.raises(InputError, match="needs instance maps"):
        translate(run_folder, [labels], str(tmp_path / "out/"))
    assert translate(run_folder, [labels], str(tmp_path / "out/"), instances=labels)["frames"] == 10


@pytest.fixture(scope="module")
def image_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that makes every frame alone."""
    folder = tmp_path_factory.mktemp("image_model")
    config = tiny.write_config(folder, tiny.write_data(folder / "data"))
    alone = ["model.num_input_frames=1", "model.generator.flow=none", "model.discriminators.num_temporal_scales=0"]
    train(config, folder / "run", sets=alone, steps=1)
    return folder / "run"


def test_an_image_model_warns_once_that_videos_flicker_and_steady_blends_them(
    image_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = _label_folder(tmp_path / "many/a", 4)
    _label_folder(tmp_path / "many/b", 4)
    translate(image_run, [str(tmp_path / "many")], str(tmp_path / "plain"))
    assert [record.getMessage() for record in caplog.records if "train vid2vid" in record.getMessage()][1:] == []
    assert "--smoothing" in caplog.text
    caplog.clear()
    translate(image_run, [str(source)], str(tmp_path / "out/"), steady=0.8)
    assert "--smoothing" not in caplog.text
    model = Model.load(image_run)
    plain, steady = list(model.translate(source)), list(model.translate(source, options=Options(smoothing=0.8)))
    assert np.array_equal(plain[0], steady[0])
    assert not np.array_equal(plain[1], steady[1])
    assert all(np.array_equal(a, b) for a, b in zip(_frames(tmp_path / "out"), steady, strict=True))
    translate(image_run, [str(source / "0000.png")], str(tmp_path / "one.png"))
    assert "--smoothing" not in caplog.text


def test_blending_is_refused_where_the_model_sees_its_past(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sees its own past"):
        translate(run_folder, [str(_label_folder(tmp_path / "in", 2))], str(tmp_path / "out/"), steady=0.5)


def test_one_picture_from_maps_in_memory_is_the_frame_of_a_stream(image_run: Path, tmp_path: Path) -> None:
    model = Model.load(image_run)
    source = _label_folder(tmp_path / "in", 1, (33, 47))
    alone = model.picture(open_source(source, kind="labels").read(0, 1)[0], {})
    assert np.array_equal(alone, next(iter(model.translate(source))))


# Outputs


def test_inputs_of_one_name_mirror_their_folders(run_folder: Path, tmp_path: Path) -> None:
    for name in ("a/x", "b/x"):
        _label_folder(tmp_path / name, 1)
    translate(run_folder, [str(tmp_path / "a/x"), str(tmp_path / "b/x")], str(tmp_path / "both"))
    assert sorted(str(file.relative_to(tmp_path / "both")) for file in (tmp_path / "both").rglob("*.mp4")) == ["a/x.mp4", "b/x.mp4"]


def test_two_inputs_of_one_output_are_refused_before_any_work(run_folder: Path, tmp_path: Path) -> None:
    _label_folder(tmp_path / "in/x", 1)
    _label_video(tmp_path / "in/x.mkv", [0])
    for inputs, words in (
        (["in"], r"x\.mp4: is to hold two results, of x and of x\.mkv"),
        (["in/x", "in/x"], r"x\.mp4: x is given twice"),
    ):
        with pytest.raises(OutputError, match=words):
            translate(run_folder, [str(tmp_path / name) for name in inputs], str(tmp_path / "out"), skip_existing=True)
    assert not (tmp_path / "out").exists()


def test_dots_in_folders_stay_apart(run_folder: Path, tmp_path: Path) -> None:
    for name in ("in/v1.0", "in/v1.5"):
        _label_folder(tmp_path / name, 2)
    translate(run_folder, [str(tmp_path / "in")], str(tmp_path / "out"))
    assert sorted(os.listdir(tmp_path / "out")) == ["jobs.jsonl", "v1.0.mp4", "v1.0.mp4.json", "v1.5.mp4", "v1.5.mp4.json"]


@pytest.fixture(scope="module")
def instance_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _trained_on(tmp_path_factory.mktemp("instances"), "    labels: {num_classes: 4}\n    instances: labels")


def test_several_inputs_take_the_instance_maps_of_their_names(instance_run: Path, tmp_path: Path) -> None:
    for name, count in (("one", 3), ("two", 4)):
        _label_folder(tmp_path / "in" / name, count)
        _label_folder(tmp_path / "objects" / name, count)
    clips = [str(tmp_path / "in")]
    translate(instance_run, clips, str(tmp_path / "out"), instances=str(tmp_path / "objects"))
    assert [len(_frames(tmp_path / "out" / name)) for name in ("one.mp4", "two.mp4")] == [3, 4]
    single = str(tmp_path / "objects" / "one")
    with pytest.raises(InputError, match=r"objects.one: is one source for several inputs"):
        translate(instance_run, clips, str(tmp_path / "other"), instances=single)
    shutil.rmtree(tmp_path / "objects" / "two")
    _label_folder(tmp_path / "objects" / "three", 4)
    with pytest.raises(PartialFailure, match=r"none of it is called two; it holds one, three"):
        translate(instance_run, clips, str(tmp_path / "other"), instances=str(tmp_path / "objects"))
    assert [file.name for file in (tmp_path / "other").glob("*.mp4")] == ["one.mp4"]


def test_several_stills_take_the_pictures_of_their_names(instance_run: Path, tmp_path: Path) -> None:
    _label_folder(tmp_path / "in", 2)
    _label_folder(tmp_path / "objects", 2)
    stills = [str(tmp_path / "in" / f"{index:04d}.png") for index in range(2)]
    translate(instance_run, stills, str(tmp_path / "out"), instances=str(tmp_path / "objects"))
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["0000.png", "0001.png"]


def test_one_first_frame_does_not_begin_several_clips(run_folder: Path, tmp_path: Path) -> None:
    for name, shade in (("one", 250), ("two", 10)):
        _label_folder(tmp_path / "in" / name, 2)
        write_png(tmp_path / "first" / f"{name}.png", np.full((32, 48, 3), shade, np.uint8))
    with pytest.raises(InputError, match=r"one\.png: is one source for several inputs"):
        translate(run_folder, [str(tmp_path / "in")], str(tmp_path / "out"), first_frame=tmp_path / "first/one.png")
    translate(run_folder, [str(tmp_path / "in")], str(tmp_path / "out"), first_frame=tmp_path / "first", quality="lossless")
    begins = [_frames(tmp_path / "out" / name)[0].mean() for name in ("one.mp4", "two.mp4")]
    assert begins == pytest.approx([250, 10], abs=3)


def test_frames_are_paired_by_their_numbers(instance_run: Path, tmp_path: Path) -> None:
    for folder, gap in (("labels", 5), ("objects", 8)):
        _label_folder(tmp_path / folder, 10)
        (tmp_path / folder / f"{gap:04d}.png").unlink()
    with pytest.raises(InputError, match=r"objects: its numbers do not match .*0008\.png of .*labels and 0005\.png of .*objects"):
        translate(instance_run, [str(tmp_path / "labels")], str(tmp_path / "out/"), instances=str(tmp_path / "objects"))
    (tmp_path / "labels/0008.png").unlink()
    (tmp_path / "objects/0005.png").unlink()
    done = translate(instance_run, [str(tmp_path / "labels")], str(tmp_path / "out/"), instances=str(tmp_path / "objects"))
    assert done["frames"] == 8


def test_companions_of_another_size_are_refused_before_the_work(instance_run: Path, tmp_path: Path) -> None:
    labels, objects = _label_folder(tmp_path / "labels", 2), _label_folder(tmp_path / "objects", 2, (48, 32))
    with pytest.raises(InputError, match=r"objects: is 32x48, but .*labels is 48x32; what belongs together must have one size"):
        translate(instance_run, [str(labels)], str(tmp_path / "out/"), instances=str(objects))


def test_a_portrait_first_frame_is_cropped_and_not_squeezed(
    run_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    portrait = np.full((96, 48, 3), 10, np.uint8)
    portrait[32:64] = 250  # the middle, of the input's aspect
    write_png(tmp_path / "first.png", portrait)
    inputs = Model.load(run_folder).open(_label_folder(tmp_path / "in", 2), first_frames=tmp_path / "first.png")
    assert np.unique(inputs.first_frames[0]).tolist() == [250]
    assert "first.png: is 48x96, unlike the input of 48x32; its middle 48x32 is used" in caplog.text


@pytest.mark.parametrize("name", ["two.mp4", "two.avi", "two.png"])
def test_several_inputs_need_a_folder(run_folder: Path, tmp_path: Path, name: str) -> None:
    source = str(_label_folder(tmp_path / "in", 1))
    with pytest.raises(OutputError, match=rf"{name}: is one file, and there are 2 inputs"):
        translate(run_folder, [source, source], str(tmp_path / name))
    assert not (tmp_path / name).exists()


def test_stills_and_frames_keep_their_names(run_folder: Path, tmp_path: Path) -> None:
    folder = _label_folder(tmp_path / "in", 2)
    (folder / "0001.png").rename(folder / "night.png")
    translate(run_folder, [str(folder)], str(tmp_path / "frames/"))
    translate(run_folder, [str(folder / "0000.png"), str(folder / "night.png")], str(tmp_path / "stills"))
    assert sorted(path.name for path in (tmp_path / "frames").glob("*")) == [".vidgen.json", "0000.png", "night.png"]
    assert sorted(os.listdir(tmp_path / "stills")) == ["0000.png", "0000.png.json", "jobs.jsonl", "night.png", "night.png.json"]


def test_a_foreign_file_in_the_place_of_the_description_is_found_before_the_work(run_folder: Path, tmp_path: Path) -> None:
    source = _label_folder(tmp_path / "in", 1)
    (tmp_path / "street.mp4.json").write_text('{"names": ["mine"]}')
    (tmp_path / "street.json").write_text('{"names": ["mine"]}')
    with pytest.raises(OutputError, match=r"street\.mp4\.json: exists already"):
        translate(run_folder, [str(source)], str(tmp_path / "street.mp4"))
    assert not (tmp_path / "street.mp4").exists()
    translate(run_folder, [str(source)], str(tmp_path / "other/street.mp4"))
    translate(run_folder, [str(source)], str(tmp_path / "other/street.mp4"), overwrite=True)
    translate(run_folder, [str(source)], str(tmp_path / "p/%03d.png"))
    translate(run_folder, [str(source)], str(tmp_path / "p/%03d.png"), overwrite=True)
    assert json.loads((tmp_path / "street.json").read_text()) == {"names": ["mine"]}


def test_a_source_is_never_replaced_by_its_result(run_folder: Path, tmp_path: Path) -> None:
    source = _label_video(tmp_path / "in.mkv", [0, 4])
    before = source.read_bytes()
    with pytest.raises(OutputError, match="is also read as an input"):
        translate(run_folder, [str(source)], str(source), overwrite=True)
    assert source.read_bytes() == before


def test_a_missing_input_among_several_fails_alone(run_folder: Path, tmp_path: Path) -> None:
    source = _label_folder(tmp_path / "in", 1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(PartialFailure, match=r"2 of 3 inputs failed; the first: .*gone\.mp4: not found"):
        translate(run_folder, [str(tmp_path / "gone.mp4"), str(source), str(tmp_path / "empty")], str(tmp_path / "out"))
    assert sorted(os.listdir(tmp_path / "out")) == ["in.mp4", "in.mp4.json", "jobs.jsonl"]
