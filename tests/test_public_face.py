"""What `import vidgen` offers: a change here is a change that users notice."""

from __future__ import annotations

import subprocess
import sys

import pytest

import vidgen

SURFACE = {
    "Model",
    "Session",
    "__version__",
    "animate",
    "edit_image",
    "evaluate",
    "harmonize",
    "label",
    "load",
    "paint",
    "sample",
    "super_resolve",
    "train",
}


def test_the_surface_is_the_one_that_is_promised() -> None:
    assert set(vidgen.__all__) == SURFACE
    assert set(dir(vidgen)) >= SURFACE


@pytest.mark.parametrize("name", sorted(SURFACE))
def test_every_public_name_can_be_used_and_explains_itself(name: str) -> None:
    value = getattr(vidgen, name)
    assert name == "__version__" or (value.__doc__ and value.__module__.startswith("vidgen."))


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'translat'"):
        vidgen.translat  # noqa: B018


def loaded_by(statement: str) -> set[str]:
    """Modules that a fresh interpreter has loaded after a statement."""
    code = f"import sys; {statement}; print(' '.join(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(answer.stdout.split())


def test_importing_the_package_loads_nothing_slow() -> None:
    assert not loaded_by("import vidgen") & {"torch", "numpy", "cv2", "av", "rich", "pydantic"}


def test_using_a_model_loads_no_training_no_street_and_no_terminal() -> None:
    modules = loaded_by("import vidgen.inference.model")
    slow = {name for name in modules if name.startswith(("vidgen.training", "vidgen.data.street", "vidgen.data.clips", "rich"))}
    assert slow == set()
