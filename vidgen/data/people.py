"""Pictures of people varied in training: parts left out and points moved, anew for every frame of every clip.

Source: Wang et al., "Video-to-Video Synthesis", NeurIPS 2018, and facts of the authors' release: each limb, hand, face or body part
is left out with a probability of 0.05; where faces are removed, heads and faces are moved.
"""

from __future__ import annotations

from collections.abc import Sequence as Listed
from pathlib import Path

import cv2
import numpy as np

from vidgen.data.sequences import Sequence
from vidgen.data.settings import DataSettings, PeopleSettings, Size
from vidgen.errors import ConfigError, InputError
from vidgen.media import drawings, paths
from vidgen.media.conditions import resize_picture
from vidgen.media.drawings import PoseAugmentation
from vidgen.media.keypoints import PointFrame, read_points

_PART_SCALE = 255 / 24
_NUM_PARTS = 24
_MOST_UNLIKE = 0.2
_CLEARLY = 64


class PeopleVariation:
    """What `data.people` asks for, for the sequences of a data set.

    Raises:
        ConfigError: an input that it names does not exist.
        InputError: points are missing, or are not those that the pictures were drawn from.
    """

    def __init__(self, settings: DataSettings, sequences: Listed[Sequence]) -> None:
        self._pictures = settings.condition.pictures
        self._chosen = settings.people
        self._points: dict[tuple[str, str], list[PointFrame]] = {}
        for name, chosen in self._chosen.items():
            if name not in self._pictures:
                known = ", ".join(self._pictures) or "none"
                raise ConfigError(f"data.people: there are no pictures called {name}; data.condition.pictures has {known}")
            if chosen.points is not None:
                for sequence in sequences:
                    found = _points_of(settings.root / chosen.points, sequence, name)
                    self._points[name, sequence.name] = found
                    _check_drawn(sequence, name, chosen, found[sequence.first])

    def __call__(
        self, pictures: np.ndarray, sequence: Sequence, frame: int, whole: Size, generator: np.random.Generator
    ) -> np.ndarray:
        """The pictures of a moment, uint8 [3N,H,W], varied.

        Args:
            frame: of the part in use of the sequence.
            whole: (height, width) of its frames as they are in files.
        """
        if not self._chosen:
            return pictures
        varied = pictures.copy()
        size = (pictures.shape[1], pictures.shape[2])
        for name, chosen in self._chosen.items():
            place = 3 * self._pictures.index(name)
            planes = varied[place : place + 3]
            if chosen.points is None:
                planes[:, _dropped_parts(planes[2], chosen, generator)] = 0
            else:
                found = self._points[name, sequence.name][sequence.first + frame]
                augmentation = PoseAugmentation(generator, chosen.drop, chosen.remove_face)
                drawing = drawings.draw_pose(found.people, whole, only=chosen.drawn, augmentation=augmentation)
                planes[:] = resize_picture(drawing, size).transpose(2, 0, 1)
        return varied


def _points_of(folder: Path, sequence: Sequence, name: str) -> list[PointFrame]:
    source = sequence.inputs[name]
    where = next((path for path in (folder / sequence.name, folder / f"{sequence.name}.json") if path.exists()), None)
    if where is None:
        raise InputError(f"{paths.display(folder)}: holds no points of {sequence.name}, neither a folder nor a .json file")
    found = read_points(where, source.frame_names)
    if len(found) != source.count():
        raise InputError(f"{paths.display(where)}: has points of {len(found)} frames, but {source.name} has {source.count()}")
    return found


def _check_drawn(sequence: Sequence, name: str, chosen: PeopleSettings, found: PointFrame) -> None:
    """Refuse points that the first picture was not drawn from: other ones, or pictures that were cropped."""
    picture = sequence.read(0)[name].pixels
    drawing = drawings.draw_pose(found.people, (picture.shape[0], picture.shape[1]), only=chosen.drawn)
    differs = (cv2.absdiff(picture, drawing).max(2) > _CLEARLY).sum()
    if differs > _MOST_UNLIKE * max(1, (drawing.max(2) > 0).sum(), (picture.max(2) > 0).sum()):
        raise InputError(
            f"{sequence.inputs[name].name}: its first picture does not show the points of {found.name}",
            hint="pictures must be drawn from these points, of the same people and parts, and not be cropped",
        )


def _dropped_parts(channel: np.ndarray, chosen: PeopleSettings, generator: np.random.Generator) -> np.ndarray:
    """Where a DensePose picture shows one of the parts that are left out, bool [H,W]."""
    drops = generator.random(_NUM_PARTS + 1) < chosen.drop
    drops[0] = False
    if chosen.remove_face:
        drops[[23, 24]] = True
    parts = np.rint(channel / _PART_SCALE).astype(int)
    dropped: np.ndarray = drops[parts]
    return dropped
