"""What comes with vidgen: its translators and its configurations. Reads their files as text, so nothing heavy is imported."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import vidgen
from vidgen import config

_PAPER = re.compile(r".*?\b(19|20)[0-9]{2}\b")
"""A citation, up to its year."""
_TRANSLATORS = Path(vidgen.__file__).parent / "translators"


def translators() -> dict[str, dict[str, str]]:
    """Name -> what it is, the paper, and its configurations."""
    kinds = {name: str(config.read(Path(name)).data["model"]["kind"]) for name in config.shipped()}
    listed = {}
    for path in sorted(_TRANSLATORS.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if not any(isinstance(node, ast.FunctionDef) and node.name == "build" for node in tree.body):
            continue  # what translators share
        title, _, rest = (ast.get_docstring(tree) or "").partition("\n")
        paper = _PAPER.match(" ".join(rest.partition("Source: ")[2].split()))
        listed[path.stem] = {
            "about": title.partition(": ")[2].rstrip("."),
            "paper": paper[0] if paper else "",
            "configurations": ", ".join(name for name, kind in kinds.items() if kind == path.stem),
        }
    return listed


def models() -> dict[str, str]:
    """Name of every trained model that comes with vidgen -> the first sentence of its card."""
    folder = _TRANSLATORS.parent / "weights" / "shipped"
    cards = {path.stem: path.with_suffix(".md") for path in sorted(folder.glob("*.safetensors"))}
    return {
        name: card.read_text(encoding="utf-8").partition(". ")[0].lstrip("# ").rstrip(".") + "." for name, card in cards.items()
    }


def configurations() -> dict[str, str]:
    """Name of every shipped configuration -> the first sentence of its description."""
    return {name: _description(path) for name, path in config.shipped().items()}


def _description(path: Path) -> str:
    lines: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        text = line.lstrip("# ")
        lines += [] if text.startswith("vidgen ") and not lines else [text]
    return " ".join(lines).partition(". ")[0].rstrip(".") + "."
