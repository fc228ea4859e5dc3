"""The tools that test the tests: changes of the code, and jobs that are ended at random moments."""

from __future__ import annotations

import ast
import json
import random
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY
from tests.fuzz.mutations import mutated
from tools.mutants import ROOMS, mutants_of


def test_every_change_of_a_line_is_one_valid_change() -> None:
    file = "flow/warp.py"
    original = ast.unparse(ast.parse((REPOSITORY / file).read_text()))
    mutants = mutants_of(file)
    assert len(mutants) > 100
    for mutant in mutants:
        compile(mutant.source, file, "exec")
        different = [pair for pair in zip(original.splitlines(), mutant.source.splitlines(), strict=False) if pair[0] != pair[1]]
        assert different, mutant.change
        assert len(mutant.source.splitlines()) == len(original.splitlines()), mutant.change
        assert len(different) == 1, mutant.change
    assert any(
        mutant.change == "size[0] < height or size[1] < width  ->  size[0] < height and size[1] < width" for mutant in mutants
    )


def test_the_rooms_and_their_tests_exist() -> None:
    for file, tests in ROOMS.items():
        assert (REPOSITORY / file).is_file()
        for name in tests:
            assert (REPOSITORY / "tests" / f"{name}.py").is_file()


def test_damage_is_the_same_for_the_same_seed_and_differs_otherwise() -> None:
    seeds = [json.dumps({"a": [1, {"b": "text"}]}).encode(), bytes(range(256))]
    first, again, other = ([mutated(random.Random(f"{seed} {index}"), seeds) for index in range(50)] for seed in (1, 1, 2))
    assert first == again != other
    assert len(set(first)) > 40


@pytest.mark.slow
def test_jobs_that_are_ended_at_random_moments_end_with_the_same_bits() -> None:
    command = [sys.executable, "tools/kill.py", "--runs", "6", "--job", "translate"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["failures"] == 0
