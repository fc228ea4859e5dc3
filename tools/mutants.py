"""Change one line of the code at a time, and see whether the tests of its room notice.

    python tools/mutants.py                                   # 8 changes of each room
    python tools/mutants.py flow/warp.py --sample 50          # of one file
    python tools/mutants.py vidgen/training/loop.py --all --show
    python tools/mutants.py --table                           # what is known so far

Every change is one of: a comparison or an operator turned into its neighbor, a number changed, a condition reversed, a statement or
an argument left out. The changed file lies in a copy of the repository; this one is never touched. Results are kept in a file, so
that an interrupted run goes on where it stopped; a change of the file or its tests makes them anew.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import importlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click

REPOSITORY = Path(__file__).resolve().parents[1]
ROOMS: dict[str, tuple[str, ...]] = {
    "flow/warp.py": ("test_flow_warp",),
    "vidgen/networks/losses.py": ("test_networks_losses", "test_losses_literal"),
    "vidgen/networks/patches.py": ("test_networks_patches",),
    "vidgen/networks/image_pool.py": ("test_losses_literal",),
    "vidgen/translators/vid2vid.py": ("test_vid2vid", "test_losses_literal"),
    "vidgen/translators/pix2pixhd.py": ("test_losses_literal",),
    "vidgen/training/loop.py": ("test_training_loop",),
    "vidgen/weights/checkpoints.py": ("test_training_runs",),
    "vidgen/durable.py": ("test_durable", "test_training_runs"),
    "vidgen/metrics/temporal.py": ("test_metrics_temporal",),
    "vidgen/metrics/quality.py": ("test_metrics_quality",),
    "vidgen/metrics/score.py": ("test_metrics_score",),
    "vidgen/metrics/distribution.py": ("test_metrics_distribution",),
    "vidgen/metrics/segmentation.py": ("test_metrics_segmentation",),
    "vidgen/evaluation/inputs.py": ("test_evaluation_inputs", "test_evaluation"),
    "vidgen/evaluation/measure.py": ("test_evaluation",),
    "vidgen/media/video.py": ("test_media_video", "test_media_frames"),
    "vidgen/media/labels.py": ("test_media_labels",),
    "vidgen/data/clips.py": ("test_data_clips", "test_data_reference_flow"),
    "vidgen/data/reference_flow.py": ("test_data_reference_flow",),
}
"""Files whose rules matter most, and the test files that are to know them."""

RESULTS = REPOSITORY / "build" / "mutants.jsonl"
_PRELOADED = (
    "torch",
    "torch._dynamo",
    "torchvision",
    "cv2",
    "kornia",
    "av",
    "PIL.Image",
    "pydantic",
    "safetensors.torch",
    "pytest",
)

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip
_NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "minimum": "maximum", "maximum": "minimum"}


@dataclass(frozen=True)
class Mutant:
    """A changed file.

    Attributes:
        line, column: where, 1-based and 0-based.
        change: before and after, in one line.
        source: of the whole file.
    """

    file: str
    line: int
    column: int
    change: str
    source: str


# -- changes ---------------------------------------------------------------------------------------------------------------


def mutants_of(file: str, count: int | None = None, seed: int = 0) -> list[Mutant]:
    """Changes of a file, in the order of its lines: all, or so many by chance."""
    tree = ast.parse((REPOSITORY / file).read_text(encoding="utf-8"))
    places = [(number, index) for number, node in enumerate(_code(tree)) for index in range(len(_changes(node)))]
    if count is not None and count < len(places):
        places = random.Random(f"{seed} {file}").sample(places, count)
    found = [_mutant(file, tree, number, index) for number, index in places]
    return sorted(found, key=lambda mutant: (mutant.line, mutant.column))


def _mutant(file: str, tree: ast.AST, number: int, index: int) -> Mutant:
    """The file with one change of one of its nodes."""
    changed = copy.deepcopy(tree)
    target = next(itertools.islice(_code(changed), number, None))
    before, line, column = _text(target), getattr(target, "lineno", 0), getattr(target, "col_offset", 0)
    after = _changes(target)[index](target)
    source = ast.unparse(ast.fix_missing_locations(changed))
    return Mutant(file, line, column, f"{before}  ->  {after if after is not None else _text(target)}", source)


def _text(node: ast.AST) -> str:
    return " ".join(ast.unparse(node).split())[:100]


def _code(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only say something: annotations, docstrings, messages of errors and of the log."""
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns", "type_comment", "decorator_list", "bases"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or _only_says(child):
                continue
            yield child
            if not isinstance(child, ast.Raise | ast.Assert):
                yield from _code(child)


def _only_says(node: ast.AST) -> bool:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    if isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom):
        return True
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return True
    called = node.value if isinstance(node, ast.Expr) else node
    return isinstance(called, ast.Call) and ast.unparse(called.func).startswith(("log.", "logging.", "Field", "click."))


def _changes(node: ast.AST) -> list[Callable[[ast.AST], str | None]]:
    """Functions that change a node like this in place; one gives words for the result where the node itself does not show it."""
    match node:
        case ast.Compare(ops=[op, *_]) if type(op) in _COMPARISONS:
            return [_compare]
        case ast.BinOp(op=op) if type(op) in _OPERATORS and not _is_text(node):
            return [_operate]
        case ast.AugAssign(op=op) if type(op) in _OPERATORS:
            return [_operate, _leave_out]
        case ast.BoolOp():
            return [_swap_and_or]
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            return [_drop_sign]
        case ast.Constant(value=bool() | int() | float()):
            return [_other_constant]
        case ast.IfExp() | ast.While():
            return [_reverse]
        case ast.If(body=[ast.Raise()], orelse=[]):
            return [_leave_out]
        case ast.If():
            return [_reverse]
        case ast.Call(func=ast.Name(id=name)) if name in _NAMES:
            return [_other_name]
        case ast.Call(keywords=[_, *_]):
            return [_drop_keyword(index) for index, keyword in enumerate(node.keywords) if keyword.arg is not None]
        case ast.Expr(value=ast.Call()) | ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            return [_leave_out]
        case ast.Slice(lower=lower, upper=upper) if lower is not None or upper is not None:
            return [_whole_slice]
    return []


def _is_text(node: ast.BinOp) -> bool:
    return any(isinstance(part, ast.JoinedStr) or (isinstance(part, ast.Constant) and isinstance(part.value, str | bytes))
               for part in (node.left, node.right))  # fmt: skip


def _compare(node: ast.AST) -> None:
    assert isinstance(node, ast.Compare)
    node.ops[0] = _COMPARISONS[type(node.ops[0])]()


def _operate(node: ast.AST) -> None:
    assert isinstance(node, ast.BinOp | ast.AugAssign)
    node.op = _OPERATORS[type(node.op)]()


def _swap_and_or(node: ast.AST) -> None:
    assert isinstance(node, ast.BoolOp)
    node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()


def _drop_sign(node: ast.AST) -> None:
    assert isinstance(node, ast.UnaryOp)
    node.op = ast.UAdd() if isinstance(node.op, ast.USub) else ast.Not()
    if isinstance(node.op, ast.Not):
        node.operand = ast.UnaryOp(ast.Not(), node.operand)


def _other_constant(node: ast.AST) -> None:
    assert isinstance(node, ast.Constant)
    value = node.value
    if isinstance(value, bool):
        node.value = not value
    elif isinstance(value, int):
        node.value = value + 1
    else:
        assert isinstance(value, float)
        node.value = value * 2 or 1.0


def _reverse(node: ast.AST) -> None:
    assert isinstance(node, ast.IfExp | ast.While | ast.If)
    node.test = ast.UnaryOp(ast.Not(), node.test)


def _other_name(node: ast.AST) -> None:
    assert isinstance(node, ast.Call)
    assert isinstance(node.func, ast.Name)
    node.func.id = _NAMES[node.func.id]


def _drop_keyword(index: int) -> Callable[[ast.AST], str | None]:
    def drop(node: ast.AST) -> None:
        assert isinstance(node, ast.Call)
        del node.keywords[index]

    return drop


def _whole_slice(node: ast.AST) -> str:
    assert isinstance(node, ast.Slice)
    node.lower = node.upper = None
    return "[:]"


def _leave_out(node: ast.AST) -> str:
    node.__class__ = ast.Pass  # in place, whatever holds it
    node.__dict__ = {name: value for name, value in node.__dict__.items() if name in ("lineno", "col_offset")}
    return "pass"


# -- trials ----------------------------------------------------------------------------------------------------------------


class Copy:
    """A copy of the repository in which one file at a time is changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=REPOSITORY, capture_output=True, check=True
        )
        for name in filter(None, listed.stdout.decode().split("\0")):
            if (REPOSITORY / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(REPOSITORY / name, folder / name)

    def survives(self, file: str, source: str | None, tests: Sequence[str], seconds: float) -> str:
        """caught, survived, or slow: the tests took longer than they may, which counts as caught."""
        original = (self.folder / file).read_bytes()
        if source is not None:
            (self.folder / file).write_text(source, encoding="utf-8")
        try:
            return self._tested(tests, seconds)
        finally:
            (self.folder / file).write_bytes(original)

    def _tested(self, tests: Sequence[str], seconds: float) -> str:
        child = os.fork()
        if child == 0:
            os.setsid()
            self._become_pytest(tests)
        status = None
        deadline = time.monotonic() + seconds
        try:
            while time.monotonic() < deadline:
                finished, status = os.waitpid(child, os.WNOHANG)
                if finished:
                    return "survived" if status == 0 else "caught"
                status = None
                time.sleep(0.05)
            return "slow"
        finally:
            if status is None:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)

    def _become_pytest(self, tests: Sequence[str]) -> None:
        code = 3
        try:
            os.chdir(self.folder)
            (self.folder / "temporary").mkdir(exist_ok=True)
            os.environ["TMPDIR"] = tempfile.tempdir = str(self.folder / "temporary")
            os.environ["PYTHONPATH"] = str(self.folder)
            sys.path.insert(0, str(self.folder))
            sys.dont_write_bytecode = True
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            import pytest

            files = [f"tests/{name}.py" for name in tests if (self.folder / "tests" / f"{name}.py").exists()]
            code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *files]))
        finally:
            os._exit(code)


def _key(file: str, tests: Sequence[str]) -> str:
    """Changes with the file and with its tests."""
    digest = hashlib.sha256()
    for path in (REPOSITORY / file, *(REPOSITORY / "tests" / f"{name}.py" for name in tests)):
        digest.update(path.read_bytes() if path.is_file() else b"-")
    return digest.hexdigest()[:12]


def _known() -> list[dict[str, object]]:
    if not RESULTS.is_file():
        return []
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]


def _current(rooms: Sequence[str]) -> list[dict[str, object]]:
    """Results that still hold, of these files."""
    keys = {file: _key(file, ROOMS[file]) for file in rooms}
    return [row for row in _known() if row["file"] in keys and row["key"] == keys[str(row["file"])]]


@click.command(help=__doc__)
@click.argument("rooms", nargs=-1, type=click.Choice(list(ROOMS)))
@click.option("--sample", type=click.IntRange(1), default=8, show_default=True, help="Changes of each file, by chance.")
@click.option("--all", "everything", is_flag=True, help="All changes of each file.")
@click.option("--seed", default=0, show_default=True, help="Of the chance.")
@click.option("--table", is_flag=True, help="Only show what is known.")
@click.option("--show", is_flag=True, help="List the changes instead of trying them.")
def main(rooms: tuple[str, ...], sample: int, everything: bool, seed: int, table: bool, show: bool) -> None:
    """Try them, and report."""
    files = rooms or tuple(ROOMS)
    if not table:
        chosen = {file: mutants_of(file, None if everything else sample, seed) for file in files}
        if show:
            for mutant in (mutant for mutants in chosen.values() for mutant in mutants):
                click.echo(f"{mutant.file}:{mutant.line}: {mutant.change}")
            return
        _try_all(chosen)
    _report(files)


def _try_all(chosen: dict[str, list[Mutant]]) -> None:
    done = {(row["file"], row["line"], row["column"], row["change"]) for row in _current(tuple(chosen))}
    untried = {
        file: [mutant for mutant in mutants if (file, mutant.line, mutant.column, mutant.change) not in done]
        for file, mutants in chosen.items()
    }
    if not any(untried.values()):
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in _PRELOADED:  # once for all trials, which are forked
        importlib.import_module(name)
    RESULTS.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch, RESULTS.open("a", encoding="utf-8") as results:
        place = Copy(Path(scratch))
        for file, left in untried.items():
            if not left:
                continue
            began = time.monotonic()
            if place.survives(file, None, ROOMS[file], 1200) != "survived":
                raise click.ClickException(f"{file}: its tests {', '.join(ROOMS[file])} fail already without any change")
            limit = 20 + 4 * (time.monotonic() - began)
            for mutant in left:
                outcome = place.survives(file, mutant.source, ROOMS[file], limit)
                row = {**asdict(mutant), "outcome": outcome, "key": _key(file, ROOMS[file])}
                del row["source"]
                results.write(json.dumps(row) + "\n")
                results.flush()
                click.echo(f"{outcome:9} {mutant.file}:{mutant.line}: {mutant.change}", err=True)


def _report(files: Sequence[str]) -> None:
    rows = _current(files)
    click.echo(f"{'file':34} {'changes':>8} {'caught':>7} {'survived':>9}")
    for file in files:
        outcomes = [row["outcome"] for row in rows if row["file"] == file]
        if outcomes:
            survived = outcomes.count("survived")
            click.echo(f"{file:34} {len(outcomes):8} {len(outcomes) - survived:7} {survived:9}")
    survived = sum(row["outcome"] == "survived" for row in rows)
    share = f", {100 * (len(rows) - survived) / len(rows):.0f} % caught" if rows else ""
    click.echo(f"{'all':34} {len(rows):8} {len(rows) - survived:7} {survived:9}{share}")
    for row in rows:
        if row["outcome"] == "survived":
            click.echo(f"survived  {row['file']}:{row['line']}: {row['change']}")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # an end in good order removes the temporary folders
    main()
