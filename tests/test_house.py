"""The rules of the house, checked from the syntax trees: who may import whom, and what is never written."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

# A room imports itself and rooms of smaller numbers. `vidgen/__init__.py` is the front door: it opens any room, and gives
# the version to all.
FLOORS = {
    "flow": 0,
    "errors": 0,
    "durable": 1,
    "threads": 1,
    "deprecation": 1,
    "progress": 1,
    "kinds": 1,
    "types": 2,
    "config": 3,
    "runtime": 3,
    "networks": 3,
    "translators": 4,
    "media": 4,
    "metrics": 4,
    "weights": 5,
    "data": 6,
    "training": 7,
    "inference": 7,
    "evaluation": 7,
    "labeling": 7,
    "jobs": 7,
    "single": 8,
    "single_image": 8,
    "pages": 8,
    "commands": 9,
    "cli": 10,
    "__main__": 11,
}
FRONT_DOOR = "vidgen"
SHARED = {"base", "settings", "cascade"}  # files of the translators' room that are no translators
ONLY_IN = {
    "av": {"vidgen.media.video", "vidgen.media.cameras"},
    "PIL": {"vidgen.media.images"},
    "click": {"vidgen.cli"},
    "yaml": {"vidgen.config"},
    **{name: set() for name in ("pickle", "dill", "marshal", "shelve", "joblib", "tarfile", "torchvision.io", "decord", "imageio")},
}
LOADERS = {"vidgen.weights.state_dicts", "flow.engines"}  # the last: RAFT's published files
PROGRAM_LOADERS = {"vidgen.metrics.programs"}  # for a file that the user names for that purpose
OPENERS = {
    "vidgen.durable": "it is the one",
    "vidgen.training.run": "run.lock has no content worth keeping",
    "vidgen.training.recorder": "metrics.jsonl grows by lines, and a half line is dropped on resume",
    "vidgen.media.frames": "a scratch copy of standard input",
}
FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "os.popen",
    "cv2.VideoCapture",
    "cv2.VideoWriter",
    "cv2.imread",
    "cv2.imwrite",
    "yaml.load",
    "yaml.full_load",
    "yaml.unsafe_load",
    "torch.jit.load",
    "torch.export.load",
    "torch.hub.load",
    "torchvision.io.read_image",
    "torchvision.io.read_video",
}
FORBIDDEN_METHODS = {"extractall"}
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "misc", "common"}
SLOW_AT_TOP = {"torchvision", "torchmetrics", "skimage", "tensorboard"}


@dataclass(frozen=True)
class Import:
    """One imported module or name, with its line and whether it stands at the top level."""

    target: str
    line: int
    at_top: bool


@dataclass(frozen=True)
class Source:
    """A Python file of the packages."""

    name: str
    tree: ast.Module

    @property
    def room(self) -> str:
        return room_of(self.name)

    def imports(self, known: set[str]) -> Iterator[Import]:
        """Every import; `from package import module` counts as that module where it is one of `known`."""
        top = set(map(id, self.tree.body))
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (Import(alias.name, node.lineno, id(node) in top) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                for alias in node.names:
                    full = f"{node.module}.{alias.name}"
                    ours = node.module.split(".")[0] in ("vidgen", "flow")
                    yield Import(node.module if ours and full not in known else full, node.lineno, id(node) in top)


def room_of(module: str) -> str:
    """flow, vidgen's own front door, or the part of vidgen that a module belongs to."""
    parts = module.split(".")
    return parts[0] if parts[0] == "flow" or len(parts) == 1 else parts[1]


def read(path: Path) -> Source:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return Source(name, ast.parse(path.read_text(encoding="utf-8")))


SOURCES = [read(path) for package in ("vidgen", "flow") for path in sorted((REPOSITORY / package).rglob("*.py"))]
KNOWN = {source.name for source in SOURCES}


def dotted(node: ast.AST) -> str:
    """`a.b.c` of an attribute chain of names; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (base := dotted(node.value)):
        return f"{base}.{node.attr}"
    return ""


def is_within(target: str, module: str) -> bool:
    return target == module or target.startswith(f"{module}.")


def import_faults(source: Source) -> Iterator[str]:
    """Imports that the floors or the list of single owners forbid."""
    for item in source.imports(KNOWN):
        where = f"{source.name}:{item.line}"
        if is_within(item.target, "vidgen") or is_within(item.target, "flow"):
            yield from floor_faults(source, item.target, where)
        for library, owners in ONLY_IN.items():
            if is_within(item.target, library) and source.name not in owners:
                yield f"{where}: imports {library}, which only {' and '.join(sorted(owners)) or 'nobody'} may"
        if item.at_top and item.target.split(".")[0] in SLOW_AT_TOP:
            yield f"{where}: imports {item.target} at the top, which costs every start seconds"
        if any(part in ("tools", "tests") for part in item.target.split(".")[:1]):
            yield f"{where}: imports {item.target}, which is not shipped"


def floor_faults(source: Source, target: str, where: str) -> Iterator[str]:
    room, target_room = source.room, room_of(target)
    if source.name == FRONT_DOOR or (target == FRONT_DOOR and room != "flow") or room == target_room != "translators":
        return
    if room == target_room == "translators":
        if target != "vidgen.translators" and target not in _allowed(source):
            yield f"{where}: a translator imports the translator {target}; shared blocks go down to networks"
    elif target == FRONT_DOOR or FLOORS[target_room] >= FLOORS[room]:
        yield f"{where}: {room} imports {target}, which is not below it"


def _allowed(source: Source) -> set[str]:
    """What a file of the translators' room may import of it: what is shared, its own settings, and those of the cascade."""
    own = (f"settings.{name}" for name in (source.name.rpartition(".")[2], "cascade"))
    return {f"vidgen.translators.{name}" for name in (*SHARED, *own)}


def call_faults(source: Source) -> Iterator[str]:
    """Calls that run foreign code, lose frames, or write files where a crash would leave half of one."""
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Call):
            continue
        name, where = dotted(node.func), f"{source.name}:{node.lineno}"
        keywords = {item.arg: item.value for item in node.keywords}
        allowed = name == "torch.jit.load" and source.name in PROGRAM_LOADERS
        is_method = isinstance(node.func, ast.Attribute) and node.func.attr in FORBIDDEN_METHODS
        if (name in FORBIDDEN_CALLS and not allowed) or is_method:
            yield f"{where}: calls {name or ast.unparse(node.func)}"
        if name == "torch.load" and not (source.name in LOADERS and is_literal(keywords.get("weights_only"), True)):
            yield f"{where}: torch.load belongs into {' or '.join(sorted(LOADERS))}, with a literal weights_only=True"
        for key in ("shell", "allow_pickle"):
            if key in keywords and not is_literal(keywords[key], False):
                yield f"{where}: {name}(..., {key}=...)"
        if source.room != "flow" and source.name not in OPENERS and writes(node, name):
            yield f"{where}: {name or ast.unparse(node.func)} writes; vidgen.durable does that"


def is_literal(node: ast.AST | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def writes(call: ast.Call, name: str) -> bool:
    """Whether a call opens a file for writing, or writes a whole one, by any other means than vidgen.durable."""
    if isinstance(call.func, ast.Attribute) and call.func.attr in ("write_text", "write_bytes"):
        return not name.startswith("durable.")
    if name in ("os.replace", "os.rename", "shutil.move", "torch.save", "np.save", "np.savez"):
        return True
    if name == "open" or (isinstance(call.func, ast.Attribute) and call.func.attr == "open" and name != "av.open"):
        arguments = [*call.args, *(item.value for item in call.keywords if item.arg == "mode")]
        modes = [item.value for item in arguments if isinstance(item, ast.Constant) and isinstance(item.value, str)]
        return any(set(mode) <= set("rwaxbt+") and set(mode) & set("wax+") for mode in modes)
    return False


def form_faults(source: Source) -> Iterator[str]:
    """Relative imports, `import *`, and names that say nothing."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                yield f"{source.name}:{node.lineno}: relative import"
            if any(alias.name == "*" for alias in node.names):
                yield f"{source.name}:{node.lineno}: import *"
    for part in source.name.split("."):
        if part in FORBIDDEN_NAMES:
            yield f"{source.name}: {part} says nothing about what is in it"


def test_every_room_has_a_floor() -> None:
    assert {source.room for source in SOURCES} - {FRONT_DOOR} <= set(FLOORS)


def test_rooms_import_only_from_below_and_libraries_have_one_owner() -> None:
    assert [fault for source in SOURCES for fault in import_faults(source)] == []


def test_nothing_runs_foreign_code_or_writes_past_durable() -> None:
    assert [fault for source in SOURCES for fault in call_faults(source)] == []


def test_imports_are_absolute_and_names_say_something() -> None:
    assert [fault for source in SOURCES for fault in form_faults(source)] == []


def test_imports_run_in_no_circle() -> None:
    graph = {
        source.name: {item.target for item in source.imports(KNOWN) if item.target in KNOWN} - {source.name, FRONT_DOOR}
        for source in SOURCES
        if source.name != FRONT_DOOR
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_the_training_loop_names_no_translator_and_no_file_format() -> None:
    loop = next((source for source in SOURCES if source.name == "vidgen.training.loop"), None)
    assert loop is not None
    translators = {name.split(".")[-1] for name in KNOWN if name.startswith("vidgen.translators.")} - SHARED
    texts = {node.value for node in ast.walk(loop.tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    imported = {item.target for item in loop.imports(KNOWN)}
    assert not texts & translators
    assert not {text for text in texts if text.startswith(".") and text[1:].isalnum()}
    assert not {f"vidgen.translators.{name}" for name in translators} & imported


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("flow.warp", "from vidgen.errors import InputError"),
        ("vidgen.networks.layers", "from vidgen.config import Settings"),
        ("vidgen.metrics.quality", "from vidgen.weights import files"),
        ("vidgen.translators.singan", "from vidgen.translators.vid2vid import Config"),
        ("vidgen.translators.singan", "from vidgen.translators.settings.vid2vid import Config"),
        ("vidgen.translators.settings.singan", "from vidgen.translators.singan import SinGAN"),
        ("vidgen.translators.vid2vid", "def f():\n    from vidgen.media import video"),
        ("vidgen.media.images", "import av"),
        ("vidgen.media.video", "from PIL import Image"),
        ("vidgen.commands.train", "import click"),
        ("vidgen.training.run", "from yaml import safe_load"),
        ("vidgen.data.clips", "import vidgen.training.loop"),
        ("vidgen.metrics.quality", "import torchvision"),
        ("vidgen.media.images", "from torchvision import io"),
        ("vidgen.weights.state_dicts", "import pickle"),
    ],
)
def test_a_forbidden_import_is_seen(module: str, code: str) -> None:
    assert list(import_faults(Source(module, ast.parse(code))))


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("vidgen.data.clips", "torch.load(path, weights_only=True)"),
        ("vidgen.weights.state_dicts", "torch.load(path)"),
        ("vidgen.weights.state_dicts", "torch.load(path, weights_only=safe)"),
        ("vidgen.media.video", "cv2.VideoCapture(name)"),
        ("vidgen.config", "yaml.load(text, Loader=loader)"),
        ("vidgen.commands.train", "subprocess.run(line, shell=True)"),
        ("vidgen.commands.train", "eval(text)"),
        ("vidgen.data.clips", "np.load(path, allow_pickle=True)"),
        ("vidgen.weights.state_dicts", "archive.extractall(folder)"),
        ("vidgen.commands.report", "open(path, 'w')"),
        ("vidgen.commands.report", "(folder / name).open(mode='a')"),
        ("vidgen.commands.report", "Path(name).write_text(page)"),
        ("vidgen.weights.files", "torch.save(state, path)"),
        ("vidgen.weights.state_dicts", "torch.jit.load(path)"),
    ],
)
def test_a_forbidden_call_is_seen(module: str, code: str) -> None:
    assert list(call_faults(Source(module, ast.parse(code))))


def test_what_the_house_allows_is_not_a_fault() -> None:
    code = "from vidgen import durable\ndurable.write_text(path, text)\nopen(path, 'rb')\ntorch.load(path, weights_only=True)\n"
    source = Source("vidgen.weights.state_dicts", ast.parse(code))
    assert [*import_faults(source), *call_faults(source), *form_faults(source)] == []
