"""The command line as its users meet it: what is printed where, and which exit code ends it."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import logging
import os
import shlex
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

from vidgen import cli
from vidgen.errors import VidgenError
from vidgen.media.frames import open_sink

RUN = "model: {kind: vid2vid}\ndata: {root: clips, condition: {labels: {num_classes: 3}}}\n"


def verbs(group: click.Group = cli.cli, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command."""
    for name, command in group.commands.items():
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
    assert "..." not in out.replace("INPUT...", "").replace("SCORES...", "").replace("ARGS]...", "")
    assert "Example:\n    " in out or words == ("config",)
    assert err == ""


@pytest.mark.parametrize("words", [words for words in verbs() if words != ("completion",)], ids=" ".join)
def test_every_example_fits_the_function_it_calls(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(cli, "_call", lambda verb, /, **options: calls.append((verb, options)) or {})
    command = find(words)
    arguments = shlex.split(command.example.partition(" > ")[0])
    assert tuple(arguments[: len(words) + 1]) == ("vidgen", *words)
    with command.make_context(" ".join(words), arguments[len(words) + 1 :]) as context:
        click.Command.invoke(command, context)
    verb, options = calls[0]
    module, name = verb.split(".")
    function = getattr(importlib.import_module(f"vidgen.commands.{module}"), name)
    inspect.signature(function).bind(**options)
    known = set(inspect.signature(function).parameters)
    if verb == "evaluate.run":  # it hands the rest on
        known |= set(inspect.signature(importlib.import_module("vidgen.commands.evaluate").evaluate).parameters)
    if verb == "flow.train":
        known |= {field.name for field in dataclasses.fields(importlib.import_module("flow.train").TrainConfig)}
    assert set(options) <= known


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
        ("translate model", "error: Missing argument 'INPUT...'.\n"),
    ],
)
def test_wrong_usage_is_one_line_a_hint_and_exit_code_2(line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(message)
    assert len(err.splitlines()) == 2


# --- results ----------------------------------------------------------------------------------------------------------


def test_a_result_is_lines_for_people_and_one_object_for_programs(run_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "check", str(run_file)]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["valid  yes", "model  vid2vid", "data   clips"]
    for line in (["--json", "config", "check", str(run_file)], ["config", "check", str(run_file), "--json"]):
        assert cli.main(line) == 0
        out, err = capsys.readouterr()
        assert json.loads(out) == {"file": str(run_file), "valid": True, "model": "vid2vid", "data": "clips"}
        assert err == ""


def test_nested_results_are_indented() -> None:
    result = {"a": 1.23456789, "long_name": None, "b": {"c": True, "d": [1, 2.5]}, "e": [{"f": "x"}], "g": {}}
    assert cli.summarise(result) == "a          1.2346\nb\n  c  yes\n  d  1, 2.5\ne\n  f  x"


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
    assert cli.main(["config", "check", str(path)]) == 0
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
        assert cli.main(["-q", "config", "check", str(path)]) == 0, capsys.readouterr().err


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
        "--set train.seed=x: train.seed: Input should be a valid integer, got 'x'",
    ]


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
    assert rb"\udcff.yaml: expected" in done.stderr
    assert json.loads(done.stdout)["error"].startswith(f"{name}: expected")


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


def test_errors_have_colour_on_a_terminal_unless_it_is_not_wanted() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    for flags, colour in (([], True), (["--no-color"], False)):
        ours, theirs = os.openpty()
        line = [sys.executable, "-m", "vidgen", *flags, "trian"]
        assert subprocess.run(line, stderr=theirs, env=environment, timeout=60, check=False).returncode == 2
        assert (b"\x1b[" in os.read(ours, 1000)) == colour
        os.close(ours)
        os.close(theirs)


# --- shells -----------------------------------------------------------------------------------------------------------


def test_options_can_be_set_in_the_environment(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("VIDGEN_TRAIN_STEPS", "0")
    assert cli.main(["train", "x.yaml"]) == 2
    assert "'--steps'" in capsys.readouterr().err


def test_a_shell_completes_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", "bash"]) == 0
    assert "_VIDGEN_COMPLETE=bash_complete" in capsys.readouterr().out
    script = Path(sys.executable).with_name("vidgen")
    asked = {**os.environ, "_VIDGEN_COMPLETE": "bash_complete", "COMP_WORDS": "vidgen tr", "COMP_CWORD": "1"}
    done = subprocess.run([script], env=asked, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines() == ["plain,train", "plain,translate"]
