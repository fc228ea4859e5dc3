"""The command line as its users meet it: what is printed where, and which exit code ends it."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from tests import tiny
from vidgen import cli
from vidgen.errors import VidgenError
from vidgen.media.frames import open_sink
from vidgen.media.images import write_png
from vidgen.translators import available

RUN = "model: {kind: vid2vid}\ndata: {root: clips, condition: {labels: {num_classes: 3}}}\n"


def verbs(group: click.Group = cli.cli, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command."""
    for name, command in group.commands.items():
        if command.hidden:
            continue
        yield from verbs(command, (*path, name)) if isinstance(command, click.Group) else [(*path, name)]


def find(words: tuple[str, ...]) -> cli.Command:
    command: Any = cli.cli
    for word in words:
        command = command.commands[word]
    assert isinstance(command, cli.Command)
    return command


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(RUN)
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Six frames of noise that moves by one pixel a frame."""
    noise = np.random.default_rng(0).integers(0, 255, (48, 72, 3), dtype=np.uint8)
    with open_sink(tmp_path / "clip.mkv", time_base=Fraction(1, 25), frame_rate=Fraction(25), quality="lossless") as sink:
        for index in range(6):
            sink.write(np.roll(noise, index, axis=1), index)
    return tmp_path / "clip.mkv"


@pytest.fixture
def extra_command() -> Iterator[Callable[[Callable[[], Any]], None]]:
    """Adds a function as the command `vidgen extra` for the time of a test."""

    def add(function: Callable[[], Any]) -> None:
        cli.cli.command("extra", example="vidgen extra")(function)

    yield add
    cli.cli.commands.pop("extra", None)


def start(code: str, **options: Any) -> subprocess.Popen[str]:
    """A Python process in which `cli` is the command line's module."""
    text = f"import sys, time\nfrom vidgen import cli\n{code}"
    return subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


# --- help -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [(), ("config",), *verbs()], ids=" ".join)
def test_help_is_whole_and_gives_an_example(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*words, "-h"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"Usage: {' '.join(('vidgen', *words))}")
    assert "..." not in re.sub(r"[A-Z]\]?\.\.\.|0, 1, \.\.\. from", "", out)  # arguments that repeat
    assert "Example:\n    " in out or "Examples:\n    " in out or words == ("config",)
    assert err == ""


def test_commands_are_listed_in_the_order_of_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["--help"])
    out = capsys.readouterr().out
    places = [out.index(f"\n  {name} ") for name in ("demo", "train", "translate", "evaluate", "config", "doctor")]
    assert places == sorted(places)


def test_no_command_shows_the_list_and_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Usage: vidgen")


# --- wrong usage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("trian x.yaml", "error: No such command 'trian'. Did you mean 'train'?\nhint: 'vidgen --help' explains it\n"),
        (
            "doctor --foldr x",
            "error: No such option '--foldr'. Did you mean '--folder'?\nhint: 'vidgen doctor --help' explains it\n",
        ),
        ("train x.yaml --steps 0", "error: Invalid value for '--steps': 0 is not in the range x>=1.\n"),
        ("train x.yaml --time-limit 5", "error: '5' is no duration\nhint: write it like 90s, 5m, 1h30m or 0.5h\n"),
        ("translate model", "error: Missing option '-o' / '--out'.\n"),
        ("translate model -o out", "error: no input was given\nhint: name inputs, or a list of them with --inputs\n"),
    ],
)
def test_wrong_usage_is_one_line_a_hint_and_exit_code_2(line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(message)
    assert len(err.splitlines()) == 2


# --- spellings of earlier releases ------------------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What the command line calls, in place of calling it."""
    made: list[tuple[str, dict[str, Any]]] = []

    def call(verb: str, /, **options: Any) -> dict[str, Any]:
        made.append((verb, {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}))
        return {}

    monkeypatch.setattr(cli, "_call", call)
    return made


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("demo --minutes 0.5", "demo --time-limit 30s"),
        ("translate m a.mkv -o b.mp4 --weights average", "translate m a.mkv -o b.mp4 --checkpoint ema"),
        ("translate m a.mkv -o b.mp4 --labels ids", "translate m a.mkv -o b.mp4 --label-encoding ids"),
        ("translate m a.mkv -o b.mp4 --samples 3", "translate m a.mkv -o b.mp4 --num-samples 3"),
        ("translate m a.mkv -o b.mp4 --steady 0.5", "translate m a.mkv -o b.mp4 --smoothing 0.5"),
        ("sample a.png -o b.png --num 2 --budget 5m", "sample a.png -o b.png --num-samples 2 --time-limit 5m"),
        ("animate a.png -o b.mp4 --frames 9 --model m", "animate a.png -o b.mp4 --num-frames 9 --run m"),
        ("sample a.png -o b.png --weights sifid=x", "sample a.png -o b.png --pretrained sifid=x"),
        ("evaluate a --weights lpips=x --weights fid=y", "evaluate a --pretrained lpips=x --pretrained fid=y"),
        ("flow estimate a -o b --weights w", "flow estimate a -o b --engine-weights w"),
        ("flow table --streets 2 --weights w", "flow table --num-streets 2 --engine-weights w"),
        (
            "flow train runs/f --initial w --streets 3 --precision bfloat16",
            "flow train -o runs/f --init w --num-streets 3 --precision bf16",
        ),
        ("styles m d -o s --count 4", "styles m d -o s --num-styles 4"),
        ("models import x.pth --from vid2vid -o w --labels 35", "models import x.pth --from vid2vid -o w --label-table 35"),
        ("data preview d -o p.png --columns 2", "data preview d -o p.png --num-columns 2"),
        ("config new a --kind pix2pix", "config new a --model pix2pix"),
        ("edit m labels.png -o b.png --set object=3:class=car", "edit-labels m labels.png -o b.png --set-class 3:car"),
        ("edit m labels.png -o b.png --set object=3:style=4", "edit-labels m labels.png -o b.png --set-style 3:4"),
        ("edit tree.png moved.png -o b.png --mask m.png", "edit-image tree.png moved.png -o b.png --mask m.png"),
    ],
)
def test_an_old_spelling_does_what_the_new_one_does_and_warns(
    old: str, new: str, calls: list[tuple[str, dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(old.split()) == 0
    warned = capsys.readouterr().err.splitlines()
    assert warned
    assert all(line.startswith("warning: ") and " is deprecated and goes away in vidgen 0.3.0; use " in line for line in warned)
    before = [*calls]
    calls.clear()
    assert cli.main(new.split()) == 0
    assert capsys.readouterr().err == ""
    assert [verb for verb, _ in before] == [verb for verb, _ in calls]
    for (_, earlier), (_, now) in zip(before, calls, strict=True):
        assert {key: value for key, value in earlier.items() if key not in now} == {}
        assert {key: now[key] for key in earlier} == earlier


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("demo --minutes 1 --time-limit 5m", "--minutes is the old name of --time-limit; give only --time-limit."),
        ("edit tree.png moved.png -o b.png --remove 3", "--remove has no effect here: 'vidgen edit-image' has no such option."),
        ("edit m labels.png -o b.png --mask m.png", "--mask has no effect here: 'vidgen edit-labels' has no such option."),
        ("flow train a -o b", "the run folder is given twice; give it once, with -o."),
        ("flow train", "Missing option '-o' / '--out'."),
    ],
)
def test_an_old_spelling_never_drops_an_option(
    line: str, message: str, calls: list[tuple[str, dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(line.split()) == 2
    assert f"error: {message}\n" in capsys.readouterr().err
    assert calls == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_old_spelling_works_in_the_environment(
    calls: list[tuple[str, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VIDGEN_DEMO_MINUTES", "2")
    assert cli.main(["demo"]) == 0
    assert calls[0][1]["minutes"] == 2
    assert "--minutes is deprecated" in capsys.readouterr().err


# --- results ----------------------------------------------------------------------------------------------------------


def test_a_result_is_lines_for_people_and_one_object_for_programs(run_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check = ["config", "check", str(run_file), "--settings-only"]
    assert cli.main(check) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["valid  yes", "model  vid2vid", "data   clips"]
    for line in (["--json", *check], [*check, "--json"]):
        assert cli.main(line) == 0
        out, err = capsys.readouterr()
        assert json.loads(out) == {"file": str(run_file), "valid": True, "model": "vid2vid", "data": "clips"}
        assert err == ""


def test_nested_results_are_indented() -> None:
    result = {"a": 1.23456789, "long_name": None, "b": {"c": True, "d": [1, 2.5]}, "e": [{"f": "x"}], "g": {}}
    assert cli.summarize(result) == "a          1.2346\nb\n  c  yes\n  d  1, 2.5\ne\n  f  x"
    assert cli.summarize({"size": [2, 3], "notes": ["a, b", "c"]}) == "size   2, 3\nnotes\n  a, b\n  c"


def test_show_prints_a_configuration_that_is_valid_again(run_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "show", str(run_file), "--set", "train.seed=7"]) == 0
    shown = capsys.readouterr().out
    run_file.write_text(shown)
    assert cli.main(["config", "show", str(run_file)]) == 0
    assert capsys.readouterr().out == shown
    assert "seed: 7" in shown


def test_a_new_configuration_is_valid_and_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    assert cli.main(["config", "new", str(tmp_path / "mine")]) == 0
    assert cli.main(["config", "check", str(path), "--settings-only"]) == 0
    path.write_text("kept")
    assert cli.main(["config", "new", str(path)]) == 1
    assert path.read_text() == "kept"
    assert "--overwrite" in capsys.readouterr().err
    assert cli.main(["config", "new", str(path), "-y"]) == 0


def test_the_schema_accepts_every_shipped_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["additionalProperties"] is False
    assert {"model", "data", "train"} == set(schema["properties"])
    for path in sorted(Path(__file__).parents[1].glob("configs/*/*.yaml")):
        assert cli.main(["-q", "config", "check", "--settings-only", str(path)]) == 0, capsys.readouterr().err


def test_doctor_says_what_works_by_trying_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--folder", str(tmp_path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report["formats"].values()) == {"yes"}
    assert report["devices"]["cpu"] == "yes"
    assert report["packages"]["torch"] != "missing"
    assert report["memory_and_disk"]["disk_free_gib"] > 0
    assert list(tmp_path.iterdir()) == []
    assert cli.main(["doctor", "--folder", str(tmp_path / "absent"), "--json"]) == 0
    assert "No such file" in json.loads(capsys.readouterr().out)["formats"][".mp4"]


# --- failures ---------------------------------------------------------------------------------------------------------


def test_all_faults_of_a_configuration_come_out_and_exit_code_2(run_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "check", str(run_file), "--set", "model.knd=1", "--set", "train.seed=x"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        f"error: --set model.knd=1: model.knd: unknown key, did you mean 'kind'?{err.splitlines()[0].partition('?')[2]}",
        "  --set train.seed=x: train.seed: Input should be a valid integer, got 'x'",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["data.root=absent"], "absent"),
        (["data.condition.labels={table: cityscape}"], "cityscape"),
        (["model.losses.perceptual_weight=1"], "model.losses.perceptual_weight: needs vgg19"),
        (["model.losses.perceptual_weight=1", "train.pretrained={vgg19: absent.pth}"], "absent.pth: no such file"),
        (["train.flow=raft-small"], "train.flow: "),
        (["train.init=absent"], "absent: no such weights file or run folder"),
        (["data.width=50"], "data.width: 50 is not a multiple of 4"),
        (["data.frames=0:1"], "has 1 frames; this model needs at least"),
        (["data.pattern={labels: '*.tif'}"], "no file in it fits data.pattern.labels"),
    ],
)
def test_check_reports_what_training_refuses_in_the_same_words(
    changes: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = [word for change in changes for word in ("--set", change)]
    file = str(tiny.write_config(tmp_path, tiny.write_data(tmp_path / "data", 1, 6)))
    assert cli.main(["config", "check", file]) == 0
    capsys.readouterr()
    assert cli.main(["config", "check", file, *sets]) == 2
    checked = capsys.readouterr().err
    assert message in checked
    assert cli.main(["-q", "train", file, "-o", str(tmp_path / "run"), *sets]) in (1, 2)
    assert capsys.readouterr().err == checked


def test_check_names_every_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tiny.write_config(tmp_path, tmp_path / "absent"))
    assert cli.main(["config", "check", file, "--set", "model.losses.perceptual_weight=1"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("hint: ")]
    assert len(lines) == 2


@pytest.mark.parametrize("kind", available())
def test_a_new_configuration_needs_only_its_data(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "mine.yaml")
    assert cli.main(["config", "new", path, "--model", kind]) == 0
    assert cli.main(["config", "check", path]) == 2
    assert "path/to/data" in capsys.readouterr().err
    if kind in ("singan", "consingan"):
        write_png(tmp_path / "data" / "image.png", np.zeros((48, 64, 3), np.uint8))
        sets = ["--set", f"data.root={tmp_path / 'data'}"]
    else:
        data = tiny.write_data(tmp_path / "data", 1, 30)
        sets = ["--set", f"data.root={data}", "--set", "data.condition.labels={num_classes: 4}"]
        if kind == "pix2pix":  # whose U-Net halves its input eight times
            sets += ["--set", "data.width=256", "--set", "data.height=256"]
    assert cli.main(["config", "check", path, *sets]) == 0, capsys.readouterr().err


def test_a_missing_checkpoint_is_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "show", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}: holds no checkpoint; train one first")


def test_a_missed_gate_is_exit_code_4_after_the_scores(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["evaluate", str(clip), "--source", str(clip), "--no-cache", "--fast", "--metrics", "frame_diff"]
    assert cli.main([*line, "--json"]) == 0
    key = next(iter(json.loads(capsys.readouterr().out)["metrics"]))
    assert cli.main([*line, "--fail-if", f"{key}>0"]) == 4
    out, err = capsys.readouterr()
    assert key in out
    assert err.splitlines()[-1].startswith(f"error: {key} is ")


def test_a_missing_score_is_exit_code_3_only_when_strict(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["evaluate", str(clip), "--target", str(clip), "--no-cache", "--fast", "--metrics", "ms_ssim"]
    assert cli.main(line) == 0
    assert cli.main([*line, "--strict"]) == 3
    assert "error: no value for ms_ssim" in capsys.readouterr().err


def test_a_program_gets_the_error_as_an_object_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "check", str(tmp_path / "absent.yaml"), "--json"]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out) == {"error": f"{tmp_path / 'absent.yaml'}: no such file", "hint": None}
    assert err == f"error: {tmp_path / 'absent.yaml'}: no such file\n"


def test_a_bug_is_one_line_and_a_traceback_only_with_debug(
    extra_command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    extra_command(lambda: 1 // 0)
    assert cli.main(["extra"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("bug: ZeroDivisionError in test_cli.py:")
    assert "Traceback" not in err
    assert "--debug" in err
    assert cli.main(["extra", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("kind", VidgenError.__subclasses__(), ids=lambda kind: kind.__name__)
def test_every_expected_error_ends_with_its_own_exit_code(
    kind: type[VidgenError], extra_command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise kind("clip.mp4: is short", hint="cut it")

    extra_command(fail)
    assert cli.main(["extra"]) == kind.exit_code
    assert capsys.readouterr().err.endswith(": clip.mp4: is short\nhint: cut it\n")


def test_a_flow_error_is_told_like_any_other(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", str(clip), "--source", str(clip), "--flow", "magic", "--no-cache"]) == 2
    assert capsys.readouterr().err.startswith("error: flow engine 'magic' is not known")


# --- signals, pipes, names --------------------------------------------------------------------------------------------

SLEEP = """
def sleep():
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("cleaned up", flush=True)
cli.cli.command("sleep", example="vidgen sleep")(sleep)
sys.exit(cli.main(["sleep"]))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_command_in_order_with_its_exit_code(number: int, code: int) -> None:
    process = start(SLEEP)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert out == "cleaned up\n"
    assert "Traceback" not in err


def test_an_interrupted_command_can_say_how_to_go_on(
    extra_command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def stop() -> None:
        raise KeyboardInterrupt("saved; go on with --resume")

    extra_command(stop)
    assert cli.main(["extra"]) == 130
    assert capsys.readouterr().err == "interrupted: saved; go on with --resume\n"


def test_a_closed_pipe_ends_quietly() -> None:
    process = start(
        "cli.cli.command('late', example='-')(lambda: {'heard': sys.stdin.readline()})\nsys.exit(cli.main(['late']))",
        stdin=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stdin.write("go on\n")
    process.stdin.close()
    assert process.stderr.read() == ""
    assert process.wait(30) == 1
    process.stderr.close()


def test_a_name_that_is_no_utf8_is_shown_escaped(tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.yaml")
    Path(name).write_text("- a\n")
    line = [sys.executable, "-m", "vidgen", "config", "check", name]
    done = subprocess.run([*line, "--json"], capture_output=True, timeout=60, env={**os.environ, "PYTHONIOENCODING": "utf-8"})
    assert done.returncode == 2
    assert rb"\xff.yaml: expected" in done.stderr
    assert r"\xff.yaml: expected" in json.loads(done.stdout)["error"]


# --- log --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "shown"),
    [
        ([], ["reading", "warning: damaged"]),
        (["-v"], ["frame 3", "reading", "warning: damaged", "warning: a library speaks"]),
        (["-q"], []),
    ],
)
def test_the_log_goes_to_stderr_as_much_as_is_asked_for(
    flags: list[str], shown: list[str], extra_command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def talk() -> dict[str, str]:
        log = logging.getLogger("vidgen.media.video")
        log.debug("frame 3")
        log.info("reading")
        log.warning("damaged")
        logging.getLogger("py.warnings").warning("a library speaks")
        return {"done": "yes"}

    extra_command(talk)
    assert cli.main(["extra", *flags]) == 0
    out, err = capsys.readouterr()
    assert out == "done  yes\n"
    assert err.splitlines() == shown


def test_errors_have_color_on_a_terminal_unless_it_is_not_wanted() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    for flags, color in (([], True), (["--no-color"], False)):
        ours, theirs = os.openpty()
        line = [sys.executable, "-m", "vidgen", *flags, "trian"]
        assert subprocess.run(line, stderr=theirs, env=environment, timeout=60, check=False).returncode == 2
        assert (b"\x1b[" in os.read(ours, 1000)) == color
        os.close(ours)
        os.close(theirs)


# --- shells -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "line", "option"),
    [
        ("VIDGEN_TRAIN_STEPS", "train x.yaml", "--steps"),
        ("VIDGEN_TRANSLATE_NUM_SAMPLES", "translate m a -o b", "--num-samples"),
        ("VIDGEN_FLOW_TABLE_NUM_STREETS", "flow table", "--num-streets"),
        ("VIDGEN_EDIT_IMAGE_START_SCALE", "edit-image a b -o c", "--start-scale"),
    ],
)
def test_options_can_be_set_in_the_environment(
    name: str, line: str, option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, "-1")
    assert cli.main(line.split()) == 2
    assert f"'{option}'" in capsys.readouterr().err


def test_a_shell_completes_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", "bash"]) == 0
    assert "_VIDGEN_COMPLETE=bash_complete" in capsys.readouterr().out
    script = Path(sys.executable).with_name("vidgen")
    asked = {**os.environ, "_VIDGEN_COMPLETE": "bash_complete", "COMP_WORDS": "vidgen tr", "COMP_CWORD": "1"}
    done = subprocess.run([script], env=asked, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines() == ["plain,train", "plain,translate"]
