"""What is installed: the lock, the console script, the wheel."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest

import vidgen
from tests import tiny
from vidgen import errors
from vidgen.media import images

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCKED_EXTRAS = ("test", "dev", "docs", "track", "metrics", "cluster")


def tracked(*folders: str) -> list[str]:
    done = subprocess.run(["git", "ls-files", "-z", *folders], cwd=REPOSITORY, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [name for name in done.stdout.decode().split("\0") if name and (REPOSITORY / name).exists()]


def test_the_lock_names_no_address_and_hashes_every_package() -> None:
    text = (REPOSITORY / "requirements.lock").read_text(encoding="ascii")
    assert "://" not in text
    entries = re.split(r"\n(?=\S)", text.strip())
    assert len(entries) > 50
    assert [entry for entry in entries if not re.match(r"[\w.-]+==\S+.*\\\n\s+--hash=sha256:[0-9a-f]{64}", entry)] == []


def test_the_lock_holds_every_dependency() -> None:
    locked = set(re.findall(r"(?m)^([\w.-]+)==", (REPOSITORY / "requirements.lock").read_text(encoding="ascii")))
    extras = [name for extra in LOCKED_EXTRAS for name in PROJECT["optional-dependencies"][extra]]
    wanted = {re.split(r"[\[<>=!~ ;]", line)[0].lower() for line in [*PROJECT["dependencies"], *extras]} - {errors.DISTRIBUTION}
    assert wanted <= locked


def test_the_console_script_gives_the_version() -> None:
    script = Path(sys.executable).with_name("vidgen")
    for line in ([script], [sys.executable, "-m", "vidgen"]):
        done = subprocess.run([*line, "--version"], capture_output=True, text=True, check=True, timeout=60)
        assert done.stdout == f"vidgen {vidgen.__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["translate", "--help"], ["config"], ["nonsense"], ["completion", "bash"]])
def test_help_and_usage_load_nothing_slow(arguments: list[str]) -> None:
    code = (
        "import sys; from vidgen.cli import main; main(sys.argv[1:]);"
        "slow = {'torch', 'torchvision', 'kornia', 'numpy', 'av', 'cv2', 'PIL', 'pydantic', 'rich', 'jinja2'} & set(sys.modules);"
        "sys.exit(f'loaded {slow}' if slow else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("line", "printed"),
    [
        ("config list", "vid2vid/street"),
        ("config show tiny.yaml", "batch_size"),
        ("config check tiny.yaml --settings-only", "vid2vid"),
        ("config new mine.yaml --model singan", "mine.yaml"),
        ("models list", "pix2pixhd"),
        ("data check data", "faults"),
        ("data preview data -o sheet.png", "sheet.png"),
        ("data import facades halves -o ours", "drawings"),
        ("report run -o runs.html", "runs.html"),
        ("compare a=data/images/clip0 b=data/images/clip1 -o page.html", "page.html"),
    ],
)
def test_commands_that_need_no_torch_do_not_load_it(line: str, printed: str, tmp_path: Path) -> None:
    tiny.write_data(tmp_path / "data", 2, 3)
    images.write_png(tmp_path / "halves" / "train" / "1.png", np.zeros((32, 64, 3), np.uint8))
    tiny.write_config(tmp_path, tmp_path / "data")
    (tmp_path / "run").mkdir()
    losses = '{"step": 1, "stage": "a", "learning_rate": 0.1, "losses": {"l1": 1.0}}\n'
    (tmp_path / "run" / "metrics.jsonl").write_text(losses)
    code = "import sys; from vidgen.cli import main; sys.exit(main(sys.argv[1:]) or 'torch' in sys.modules)"
    command = [sys.executable, "-X", "importtime", "-c", code, *line.split()]
    environment = {"PYTHONPATH": str(REPOSITORY), **os.environ}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not re.search(r"\| +torch$", done.stderr, re.MULTILINE)
    assert printed in done.stdout


def test_the_wheel_holds_both_packages_with_their_data_and_nothing_else(tmp_path: Path) -> None:
    packaged, configs = tracked("vidgen", "flow"), tracked("configs")
    for name in [*packaged, *configs, "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"]:
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / name, tmp_path / "source" / name)
    code = f"from setuptools import build_meta; print(build_meta.build_wheel({str(tmp_path)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "source", capture_output=True, text=True, check=True, timeout=120
    )
    with zipfile.ZipFile(tmp_path / done.stdout.splitlines()[-1]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        about = {name.partition("/")[2]: wheel.read(name).decode() for name in wheel.namelist() if ".dist-info/" in name}
        wheel.extractall(tmp_path / "installed")
    assert names == {*packaged, *(f"vidgen/{name}" for name in configs)}
    assert {"vidgen/py.typed", "flow/py.typed"} <= names
    assert "vidgen = vidgen.cli:main" in about["entry_points.txt"]
    assert f"Name: {errors.DISTRIBUTION}\n" in about["METADATA"]
    assert f"Version: {vidgen.__version__}\n" in about["METADATA"]
    line = [sys.executable, "-m", "vidgen", "config", "list", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    listed = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, check=True, timeout=60).stdout
    assert {f"configs/{name}.yaml" for name in json.loads(listed)} == set(configs)


def test_every_line_that_installs_an_extra_names_our_own_package() -> None:
    """The name of the package to import belongs to another project where pip looks."""
    extras = PROJECT["optional-dependencies"]
    named = []
    for name in tracked():
        path = REPOSITORY / name
        if path.suffix in (".py", ".md", ".yaml", ".yml", ".toml", ".ipynb") and path != Path(__file__):
            named += re.findall(r"pip install [^\n`]*?([\w-]+)\[([\w,-]+)\]", path.read_text(encoding="utf-8"))
    assert {package for package, _ in named} <= {errors.DISTRIBUTION}
    assert {extra for _, text in named for extra in text.split(",")} <= set(extras)
    assert errors.install_hint("track") == "pip install 'vidgen-toolkit[track]'"
    used = re.findall(r'install_hint\("(\w+)"\)', "".join(path.read_text() for path in (REPOSITORY / "vidgen").rglob("*.py")))
    assert used
    assert set(used) <= set(extras)


def test_set_up_needs_only_a_posix_shell() -> None:
    script = REPOSITORY / "tools" / "bootstrap"
    assert script.read_text(encoding="ascii").startswith("#!/bin/sh\n")
    subprocess.run(["sh", "-n", str(script)], check=True, timeout=10)


def test_set_up_refuses_an_old_python_in_one_line(tmp_path: Path) -> None:
    for name in ("requirements.lock", "pyproject.toml", "setup.py", "tools/bootstrap"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(REPOSITORY / name, tmp_path / name)
    (tmp_path / "old").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "old").chmod(0o755)
    done = subprocess.run(
        ["sh", str(tmp_path / "tools" / "bootstrap")],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env={"PATH": "/usr/bin:/bin", "PYTHON": str(tmp_path / "old")},
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: Python 3.11 or newer is needed, found ")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / ".venv").exists()
