"""The documentation: it builds without a warning, is complete, asks no other host for anything, and fits a telephone."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import vidgen
from tests import chromium
from tests.conftest import REPOSITORY
from vidgen import cli, config, deprecation


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    if importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("mkdocstrings") is None:
        pytest.skip("the extra docs is not installed")
    folder = tmp_path_factory.mktemp("site")
    line = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)]
    done = subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if not command.hidden:
            yield (*path, name), command
            if isinstance(command, click.Group):
                yield from commands(command, (*path, name))


@pytest.mark.slow
def test_every_command_option_configuration_and_public_name_is_in_the_site(site: Path) -> None:
    page = (site / "commands.html").read_text(encoding="utf-8")
    for words, command in commands(cli.cli):
        assert f'id="{"-".join(words)}"' in page
        options = [option for option in command.params if isinstance(option, click.Option) and not option.hidden]
        assert [option.opts for option in options if max(option.opts, key=len) not in page] == []
    names = (site / "configuration.html").read_text(encoding="utf-8")
    assert [name for name in config.shipped() if f"<code>{name}</code>" not in names] == []
    python = (site / "python.html").read_text(encoding="utf-8")
    public = set(vidgen.__all__) - {"__version__"}
    assert {name for name in public if not re.search(rf'id="[\w.]+\.{name}"', python)} == set()
    assert "<!-- generated" not in page + names


@pytest.mark.slow
def test_the_site_names_no_address_of_another_host_to_load_from(site: Path) -> None:
    loaded = r'<(?:script|img|iframe|source|video)[^>]+src="(https?:)?//|<link[^>]+href="(https?:)?//(?![^"]*")'
    assert [path.name for path in site.rglob("*.html") if re.search(loaded, path.read_text(encoding="utf-8"))] == []
    sheets = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert len(sheets) > 10_000
    assert re.findall(r"url\(['\"]?https?:", sheets) == []


@pytest.mark.browser
def test_pages_fit_the_screen_and_ask_only_their_own_folder(site: Path, tmp_path: Path) -> None:
    with chromium.browser(tmp_path) as browser:
        for width in (1280, 400):
            for page in ("index", "commands", "python", "concepts", "recipes/measuring"):
                browser.open(site / f"{page}.html", width=width, height=900)
                assert browser.ask("document.documentElement.scrollWidth") <= width, page
                assert browser.ask("getComputedStyle(document.querySelector('.md-header')).position") == "sticky"
                assert [request for request in browser.requests if not request.startswith(("file:", "data:"))] == []


def test_the_changelog_has_the_version_of_the_package_on_top() -> None:
    text = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.findall(r"(?m)^## (\S+)(.*)$", text)[0]
    is_released = "dev" not in vidgen.__version__
    assert newest == (vidgen.__version__.partition(".dev")[0], "" if is_released else " (unreleased)")


def test_an_old_name_says_what_to_use_and_fails_once_its_release_of_removal_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns(DeprecationWarning, match=r"^the option --old is deprecated and goes away in vidgen 0\.3\.0; use --new$"):
        deprecation.deprecated("the option --old", "--new", "0.3.0")
    monkeypatch.setattr(vidgen, "__version__", "0.3.0")
    with pytest.raises(RuntimeError, match="delete it"):
        deprecation.deprecated("the option --old", "--new", "0.3.0")


def test_no_old_name_outlives_its_release() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in sorted((REPOSITORY / "vidgen").rglob("*.py")))
    releases = {*re.findall(r'\("\S+", "(\d+\.\d+\.\d+)"\)', text), cli.OLD_SPELLINGS_END}
    numbers = {tuple(map(int, release.split("."))) for release in releases}
    assert min(numbers) > tuple(int(part) for part in vidgen.__version__.split(".")[:3])
