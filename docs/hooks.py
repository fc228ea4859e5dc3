"""Generated pages of the documentation: the command reference from click, the configurations, and the changelog."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from vidgen import cli  # noqa: E402
from vidgen.commands import catalog  # noqa: E402


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Fill the places that are marked with `<!-- generated: NAME -->`."""
    return re.sub(r"<!-- generated: (\w+) -->", lambda match: _GENERATORS[match[1]](), markdown)


def commands() -> str:
    """Every command with its usage, options and examples."""
    return "\n\n".join(_command(("vidgen", *words), command) for words, command in _walk(cli.cli))


def configurations() -> str:
    """The shipped configurations, by name, with their descriptions."""
    rows = [f"| `{name}` | {text} |" for name, text in catalog.configurations().items()]
    return "\n".join(["| name | description |", "|---|---|", *rows])


def translators() -> str:
    """The translators with their papers."""
    rows = [f"| `{name}` | {about['about']} | {about['paper']} |" for name, about in catalog.translators().items()]
    return "\n".join(["| name | what it is | paper |", "|---|---|---|", *rows])


def changelog() -> str:
    """CHANGELOG.md, without its title."""
    return (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8").partition("\n")[2]


_GENERATORS = {"commands": commands, "configurations": configurations, "translators": translators, "changelog": changelog}


def _walk(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if command.hidden:
            continue
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from _walk(command, (*path, name))


def _command(words: tuple[str, ...], command: click.Command) -> str:
    context = click.Context(command, info_name=" ".join(words))
    usage = " ".join([*words, *command.collect_usage_pieces(context)])
    help_text = (command.help or "").replace("'vidgen ", "`vidgen ").replace("'", "`")
    parts = [f"{'#' * len(words)} {' '.join(words[1:])}", f"```text\n{usage}\n```", _prose(help_text)]
    if isinstance(command, cli.Command):
        parts.append("```sh\n" + "\n".join(command.examples) + "\n```")
        rows = [record for parameter in command.get_params(context) if (record := parameter.get_help_record(context))]
        options = [f"| `{_cell(names)}` | {_cell(text)} |" for names, text in rows]
        parts.append("\n".join(["| option | meaning |", "|---|---|", *options]))
    return "\n\n".join(parts)


def _prose(text: str) -> str:
    """A help text as Markdown; what follows a `\\b` keeps its lines."""
    blocks = re.split(r"\n\n", text)
    return "\n\n".join(f"```text\n{block[2:]}\n```" if block.startswith("\b\n") else " ".join(block.split()) for block in blocks)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
