"""A model's inputs: their names, their order, and what is said of one that is missing."""

import numpy as np
import pytest
from pydantic import ValidationError

from vidgen.data.conditions import ConditionBuilder
from vidgen.data.settings import ConditionSettings, EdgeSettings, LabelSettings
from vidgen.errors import InputError
from vidgen.media import labels
from vidgen.media.frames import Frame

EVERYTHING = ConditionSettings(
    labels=LabelSettings(folder="maps", num_classes=3), pictures=("poses", "depth"), edges=EdgeSettings(), instances="objects"
)


def frame(name: str, *channels: int) -> Frame:
    return Frame(np.zeros((16, 24, *channels), np.uint8), 0, name)


def frames() -> dict[str, Frame]:
    pictures = {name: frame(name, 3) for name in ("poses", "depth", "edges")}
    return {"labels": frame("maps"), "instances": frame("objects"), **pictures}


def test_inputs_are_called_after_their_kind_or_their_folder_and_the_main_one_comes_first() -> None:
    assert [item.name for item in EVERYTHING.file_inputs] == ["labels", "poses", "depth", "edges", "instances"]
    assert [item.folder for item in EVERYTHING.file_inputs] == ["maps", "poses", "depth", None, "objects"]
    assert [item.reading for item in EVERYTHING.file_inputs] == ["labels", "pictures", "pictures", "pictures", "labels"]
    assert ConditionSettings().file_inputs == ()
    assert ConditionSettings(pictures=("poses",), edges=EdgeSettings()).file_inputs[0].name == "poses"


def test_two_inputs_of_one_name_are_refused() -> None:
    with pytest.raises(ValidationError, match="two inputs are called poses"):
        ConditionSettings(pictures=("poses", "poses"))
    with pytest.raises(ValidationError, match="two inputs are called labels"):
        ConditionSettings(labels=LabelSettings(num_classes=3), pictures=("labels",))


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("labels", "label maps"),
        ("instances", "instance maps"),
        ("depth", "pictures of depth"),
        ("edges", "pictures to detect edges in"),
    ],
)
def test_a_missing_input_is_named(missing: str, words: str) -> None:
    builder = ConditionBuilder(EVERYTHING, labels.plain(3))
    known = frames()
    arrays = builder.build((16, 24), known)
    assert {name: array.shape for name, array in arrays.items()} == {
        "labels": (16, 24),
        "instances": (16, 24),
        "frames": (7, 16, 24),
    }
    del known[missing]
    with pytest.raises(InputError, match=f"this model reads {words}, but got none"):
        builder.build((16, 24), known)
