"""Every example of a help text, every command of the README and of the documentation, and every example script runs as it is
written, on tiny data."""

from __future__ import annotations

import io
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, redirect_stdout
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
import pytest
import torch

from flow.files import write_flow
from tests.conftest import REPOSITORY
from tests.study_people import answers_to, confused, prefers, study_in
from vidgen import cli, durable
from vidgen.commands import demo
from vidgen.data.street import Street, write_clip
from vidgen.media import images
from vidgen.media.frames import open_sink

HEIGHT, WIDTH, FPS = 48, 96, 12

# Sizes and times only: everything else is typed as it is written.
SMALL_MODEL = (
    "model.generator={base_channels: 4, num_downsamplings: 2, num_blocks: 1}",
    "model.discriminators={base_channels: 4, num_scales: 1, num_temporal_scales: 1}",
)
SLOW = ("vidgen demo", "vidgen flow table", "vidgen flow train")
SUBSTITUTIONS = (
    (r"--time-limit \d+[hm]", "--time-limit 2s"),
    (r"^(vidgen demo\b(?!.*--time-limit).*)", r"\1 --time-limit 2s"),
    (r"^(vidgen train vid2vid/.*)", r"\1 " + " ".join(f"--set '{text}'" for text in SMALL_MODEL)),
    (r"^(vidgen train vid2vid/camvid_small .*)", r"\1 --set train.init=null"),  # what it starts from is larger
    (r"^(vidgen models import .*)", r"\1 --label-table 7 --foreground 1"),
    (r"^(vidgen train (?!.*--resume).*)", r"\1 --steps 2"),
    (r"--num-frames \d+", "--num-frames 6"),
    (r"^(vidgen live .*)", r"\1 --port 0"),
    (r"^(vidgen bench .*)--size \S+", r"\1--size 96x48 --num-frames 2"),
    (r"^(vidgen export .*)", r"\1 --overwrite"),
    (r"^(vidgen animate .*--loop.*)", r"\1 --num-frames 6"),
    (r"^(vidgen flow train .*)", r"\1 --steps 2 --height 64 --width 64 --batch-size 1"),
)


def examples(group: click.Group = cli.cli) -> Iterator[str]:
    """The examples of every visible command."""
    for command in group.commands.values():
        if isinstance(command, click.Group):
            yield from examples(command)
        elif not command.hidden:
            assert isinstance(command, cli.Command)
            yield from command.examples


def commands_of(path: Path) -> list[str]:
    """The lines of vidgen in the shell blocks of a page, without comments."""
    blocks = re.findall(r"(?ms)^\s*```sh\n(.*?)^\s*```", path.read_text(encoding="utf-8"))
    lines = [re.sub(r"\s+#.*", "", line.strip()) for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.startswith("vidgen ")]


def small(line: str) -> str:
    """The same command for tiny data and seconds."""
    for pattern, replacement in SUBSTITUTIONS:
        line = re.sub(pattern, replacement, line)
    return line


def type_line(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Run one command line in this process, and give what it printed; a redirection into a file is obeyed."""
    line, _, file = small(line).partition(" > ")
    if "--devices" in line:  # the process is replaced by the launcher of several
        command = [sys.executable, "-m", *shlex.split(line)]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)
        code, out, err = done.returncode, done.stdout, done.stderr
    else:
        code = cli.main(shlex.split(line)[1:])
        out, err = capsys.readouterr()
    assert code == 0, f"{line}\n{err}"
    assert "deprecated" not in err
    if file:
        Path(file).write_text(out)
    return out


# --- the examples of the help texts -----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the examples name: a street with two trained models, pictures, published weights, known flow."""
    folder = tmp_path_factory.mktemp("workshop")
    with chdir(folder):
        _write_street()
        _write_pictures()
        small = (
            "generator: {base_channels: 4, num_downsamplings: 2, num_blocks: 1}, discriminators: {base_channels: 4, num_scales: 1}"
        )
        _train("street", f"kind: vid2vid, {small}", "")
        _train("city", f"kind: pix2pixhd, encoder: {{base_channels: 4, num_downsamplings: 2}}, {small}", ", instances: instances")
        _write_things()
        _write_scores()
        _write_answers()
        _write_fusion()
    return folder


def _write_street() -> None:
    for number in (1, 2):
        write_clip(Path("datasets/street"), Street(number, HEIGHT, WIDTH, FPS, 0.1), 6)
    shutil.copytree("datasets/street", "datasets/city")
    Path("datasets/clip/images").mkdir(parents=True)
    frames = list(Street(1000, HEIGHT, WIDTH, FPS, 0.1).frames(8))
    videos = {
        "labels.mkv": [frame.labels for frame in frames],
        "instances.mkv": [frame.instances for frame in frames],
        "clips/one.mkv": [frame.labels for frame in frames[:2]],
        "clips/two.mkv": [frame.labels for frame in frames[:2]],
        "datasets/clip/clip.mp4": [frame.image for frame in frames],
    }
    names = ("street.mp4", "real.mp4", "other.mp4", "drive.mp4", "clip.mp4", "mine/images/drive.mp4")
    videos |= dict.fromkeys(names, videos["datasets/clip/clip.mp4"])
    for name, pictures in videos.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        kind: Literal["labels", "pictures"] = "labels" if name.endswith(".mkv") else "pictures"
        with open_sink(name, time_base=Fraction(1, FPS), frame_rate=Fraction(FPS), kind=kind) as sink:
            for index, pixels in enumerate(pictures):
                sink.write(pixels, index)
    for index, frame in enumerate(frames):
        images.write_png(Path("frames") / f"{index:03d}.png", frame.image)
    for place, pixels in (
        ("leftImg8bit/train/a/a_1_1_leftImg8bit", frames[0].image),
        ("gtFine/train/a/a_1_1_gtFine_labelIds", frames[0].labels),
    ):
        images.write_png(Path("downloads/cityscapes") / f"{place}.png", pixels)
    images.write_png(Path("painted/3.png"), frames[3].labels)
    body = np.column_stack([np.linspace(10, 80, 25), np.linspace(5, 40, 25), np.ones(25)]).ravel().tolist()
    Path("poses").mkdir()
    for index in range(len(frames)):
        Path(f"poses/{index}.json").write_text(json.dumps({"people": [{"pose_keypoints_2d": body}]}))
    images.write_png(Path("labels.png"), frames[0].labels)
    images.write_png(Path("objects.png"), frames[0].instances)
    images.write_png(Path("a.png"), frames[0].image)
    images.write_png(Path("b.png"), frames[1].image)


def _write_pictures() -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
    picture = coarse.repeat(8, 0).repeat(8, 1)
    for name in ("birds.png", "small.png", "painting.png", "photo.png", "tree.png", "sketch.png", "photos/1.png", "photos/2.png"):
        images.write_png(Path(name), picture)
    images.write_png(Path("lake.jpg"), picture)
    moved, mask = picture.copy(), np.zeros_like(picture)
    moved[8:24, 40:56], mask[8:24, 40:56] = picture[24:40, 8:24], 255
    for name, pixels in (("moved.png", moved), ("pasted.png", moved), ("mask.png", mask)):
        images.write_png(Path(name), pixels)
    for pair in ("one", "two"):
        images.write_png(Path("middlebury", pair, "frame10.png"), picture)
        images.write_png(Path("middlebury", pair, "frame11.png"), picture)
        write_flow(Path("middlebury", pair, "flow10.flo"), torch.zeros(2, *picture.shape[:2]))


def _write_published(parity_root: Path) -> None:
    """Files as the authors of vid2vid name and key them."""
    for role, name in (("G0", "vid2vid_composite_fg"), ("G1", "vid2vid_composite_local_fg")):
        archive = np.load(parity_root / f"{name}.npz")
        keys = [key for key in archive.files if key.startswith("weight/")]
        torch.save({key.removeprefix("weight/"): torch.from_numpy(archive[key]) for key in keys}, f"latest_net_{role}.pth")


def _train(name: str, model: str, condition: str) -> None:
    Path(f"{name}.yaml").write_text(
        f"model: {{{model}, losses: {{perceptual_weight: 0, l1_weight: 1}}}}\n"
        f"data: {{root: datasets/{name}, condition: {{labels: {{table: street}}{condition}}}}}\n"
        "train: {steps_per_epoch: 2, sample_every_steps: 0, ema_decay: 0.9}\n"
    )
    assert cli.main(["-q", "train", f"{name}.yaml", "-o", f"runs/{name}", "--steps", "2"]) == 0


def _write_things() -> None:
    """Photos and sketches of two classes, a model of them, and what it might have generated."""
    rng = np.random.default_rng(1)
    sketch = np.full((64, 64), 255, np.uint8)
    sketch[20:44, 12], sketch[20:44, 50], sketch[20, 12:50], sketch[43, 12:50] = 0, 0, 0, 0
    images.write_png(Path("car.png"), sketch)
    for kind, color in (("car", (180, 40, 40)), ("tree", (40, 140, 50))):
        for place in range(2):
            photo = np.full((64, 64, 3), 120, np.uint8)
            photo[20:44, 12 + place : 51 + place] = color
            photo = (photo + rng.normal(0, 4, photo.shape)).clip(0, 255).astype(np.uint8)
            images.write_png(Path(f"datasets/things/photos/{kind}/{place}.png"), photo)
            images.write_png(Path(f"datasets/things/sketches/{kind}/{place}-1.png"), sketch)
            images.write_png(Path(f"generated/{kind}/0-{place}.png"), photo)
    lines = [np.repeat(np.roll(sketch, shift, 1)[..., None], 3, 2) for shift in range(3)]
    with open_sink("lines.mp4", time_base=Fraction(1, FPS), frame_rate=Fraction(FPS)) as sink:
        for index, pixels in enumerate(lines):
            sink.write(pixels, index)
    Path("things.yaml").write_text(
        "model: {kind: sketchygan, generator: {base_channels: 4}, discriminator: {base_channels: 4, objective: logistic},"
        " losses: {perceptual_weight: 0}}\n"
        "data: {root: datasets/things, target: photos, pairs: stills, condition: {classes: {}, sketch: {}}}\n"
        "train: {steps_per_epoch: 2, sample_every_steps: 0}\n"
    )
    assert cli.main(["-q", "train", "things.yaml", "-o", "runs/things", "--steps", "2"]) == 0


def _write_scores() -> None:
    with redirect_stdout(io.StringIO()) as scores:
        assert cli.main(["-q", "evaluate", "street.mp4", "--target", "real.mp4", "--strides", "1", "--json"]) == 0
    Path("scores.json").write_text(scores.getvalue())


def _write_fusion() -> None:
    """Pairs of pictures that lack a half each, and the whole ones."""
    rng = np.random.default_rng(2)
    for part in ("train", "test"):
        for index in range(2):
            whole = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
            left, right = whole.copy(), whole.copy()
            left[:, 32:], right[:, :32] = 128, 128
            for role, pixels in (("source", left), ("source2", right), ("target", whole)):
                images.write_png(Path(f"datasets/focus/{part}/{role}/{index}.png"), pixels)


def _write_answers() -> None:
    """Pictures and clips of two methods, and what people answered to studies of them."""
    for method in ("ours", "theirs"):
        for number, name in enumerate(("birds", "painting", "photo", "tree")):
            pixels = images.read_picture(Path(f"{name}.png"))
            images.write_png(Path(f"results/{method}/{name}.png"), pixels)
            images.write_png(Path(f"real/{name}.png"), np.roll(pixels, number, 1))
        for clip in ("one", "two"):
            place = Path(f"clips-{method}/{clip}.mp4")
            place.parent.mkdir(exist_ok=True)
            shutil.copy("street.mp4", place)
    command = ["-q", "study", "results/ours", "results/theirs", "-o", "workshop.html", "--num-checks", "2"]
    assert cli.main([*command, "--real", "real"]) == 0
    study = study_in(Path("workshop.html"))
    for number, name in enumerate(("anna", "ben", "chloe")):
        durable.write_json(Path(f"answers/{name}.json"), answers_to(study, name, confused(0.4, number), seed=number))
    assert cli.main([*command, "--kind", "preference", "-y"]) == 0
    study = study_in(Path("workshop.html"))
    for number, name in enumerate(("anna", "ben", "chloe")):
        durable.write_json(Path(f"preferences/{name}.json"), answers_to(study, name, prefers("ours", 0.8, number), seed=number))


@pytest.mark.parametrize("line", [pytest.param(line, marks=[pytest.mark.slow] * line.startswith(SLOW)) for line in examples()])
def test_an_example_of_a_help_text_runs(
    line: str,
    workshop: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if line.startswith("vidgen export"):
        for library in ("onnxscript", "openvino" if "openvino" in line else "onnxruntime"):
            pytest.importorskip(library)
    shutil.copytree(workshop, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    if line.startswith("vidgen models import"):
        _write_published(request.getfixturevalue("parity_root"))
    _shrink_demo(monkeypatch)
    words = shlex.split(line)
    output = Path(words[words.index("-o") + 1]) if "-o" in words else None
    if output is not None and "--resume" not in words:
        shutil.rmtree(output) if output.is_dir() else output.unlink(missing_ok=True)
    if line.startswith("eval "):
        line = line.removeprefix('eval "$(').removesuffix(')"')
    if "--apply" in line:
        assert cli.main(["-q", "label", "drive.mp4", "painted/3.png", "-o", "labels/"]) == 0
    if line.startswith("vidgen jobs"):
        assert cli.main(["-q", "condition", "clips/one.mkv", "clips/two.mkv", "--to", "edges", "-o", "results"]) == 0
        capsys.readouterr()
    if "--write-labels" in line:
        Path("labels.json").unlink(missing_ok=True)  # another example wrote it
    printed = type_line(line, capsys)
    assert printed.strip() or " > " in line
    assert output is None or output.exists()


def _shrink_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "HEIGHT": HEIGHT,
        "WIDTH": WIDTH,
        "TRAINING_SEEDS": range(1, 3),
        "TRAINING_FRAMES": 9,
        "UNSEEN_FRAMES": 12,
    }.items():
        monkeypatch.setattr(demo, name, value)


# --- pages, in the order in which a reader types them ---------------------------------------------------------------------


def test_the_readme_can_be_typed_from_top_to_bottom(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _shrink_demo(monkeypatch)
    lines = commands_of(REPOSITORY / "README.md")
    assert len(lines) > 15
    for line in lines:
        type_line(line, capsys)
    (code,) = re.findall(r"(?ms)^```python\n(.*?)^```", (REPOSITORY / "README.md").read_text(encoding="utf-8"))
    exec(code, {})
    assert "(48, 96, 3) uint8" in capsys.readouterr().out


PAGES = sorted(path for path in (REPOSITORY / "docs").rglob("*.md") if commands_of(path))


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_can_be_typed_in_order(
    page: Path, workshop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not commands_of(page)[0].startswith("vidgen demo"):  # which makes all that the page needs
        shutil.copytree(workshop, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    _shrink_demo(monkeypatch)
    for line in commands_of(page):
        (words := shlex.split(line)).append("-o")
        output = Path([*words, "none"][words.index("-o") + 1])
        if "--resume" not in words and output.is_file():  # the workshop holds inputs of that name
            output.unlink()
        type_line(line, capsys)


# --- scripts and the notebook -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "arguments", "printed"),
    [
        ("translate_folder", ["runs/street", "clips", "results"], "results/two.mp4"),
        ("session", ["runs/street", "labels.mkv"], "frame 7: 96x48, mean "),
        ("evaluate_arrays", [], "flickering: warp_error@1 0.0"),
    ],
)
def test_an_example_script_runs(
    script: str,
    arguments: list[str],
    printed: str,
    workshop: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(workshop, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [script, *arguments])
    runpy.run_path(str(REPOSITORY / "examples" / f"{script}.py"), run_name="__main__")
    assert printed in capsys.readouterr().out


def test_the_notebook_runs_from_top_to_bottom(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workshop)
    notebook = json.loads((REPOSITORY / "examples" / "session.ipynb").read_text(encoding="utf-8"))
    assert all(cell.get("outputs", []) == [] for cell in notebook["cells"])
    names: dict[str, Any] = {}
    places = {"demo/run": "runs/city", "demo/unseen/labels": "labels.mkv", "demo/unseen/instances": "instances.mkv"}
    for cell in notebook["cells"]:
        code = "".join(cell["source"])
        for place, tiny in places.items():
            code = code.replace(f'"{place}"', f'"{tiny}"')
        if cell["cell_type"] == "code":
            exec(code, names)
    assert names["frames"].shape == (8, HEIGHT, WIDTH, 3)
    assert names["report"]["psnr"] > 90
