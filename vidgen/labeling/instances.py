"""Object numbers that stay with their objects along a clip: connected areas of a class, followed along the motion."""

from __future__ import annotations

from collections.abc import Collection

import cv2
import numpy as np

from vidgen.errors import InputError
from vidgen.media.edits import FIRST_OBJECT
from vidgen.media.labels import LabelTable

_MAX_ID = 65535
_MOST_NUMBERS = FIRST_OBJECT - 1
_LEAST_PART = 0.1
_OWN_PART = 0.5
_GAP = 0.5


class InstanceTracker:
    """Instance maps of consecutive frames, ids as in Cityscapes: id of the class * 1000 + number; the id alone where uncounted.

    An area takes the number of the object that most of it was, moved along the flow. An object that something narrow cuts in two
    keeps its number in both parts; parts further apart are objects of their own. An area into which several objects have grown
    together is divided among them, each pixel going to the nearest. A new area gets a new number.

    Args:
        table: with ids, not colors.
        counted: classes whose objects are counted; None for all.

    Raises:
        InputError: a counted class has an id that has no room for numbers in 16 bits.
    """

    def __init__(self, table: LabelTable, counted: Collection[int] | None = None) -> None:
        assert table.values is not None
        self._values = np.array(table.values, np.int64)
        self._counted = sorted(range(table.num_classes) if counted is None else counted)
        for number in self._counted:
            if table.values[number] * FIRST_OBJECT + _MOST_NUMBERS > _MAX_ID:
                raise InputError(
                    f"label table: {table.names[number]} has the id {table.values[number]}; instance ids (id * 1000 + number)"
                    f" have 16 bits and reach to id {_MAX_ID // FIRST_OBJECT - 1}",
                    hint="name the classes to count",
                )
        self._next = dict.fromkeys(self._counted, 0)
        self._last: np.ndarray | None = None

    def reset(self) -> None:
        """Nothing is followed from the frames before, as after a cut; numbers go on."""
        self._last = None

    def __call__(self, classes: np.ndarray, flow: np.ndarray | None = None) -> np.ndarray:
        """The instance map of the next frame, uint16 [H,W].

        Args:
            classes: int64 [H,W].
            flow: float32 [2,h,w], from the grid of this frame into the one before, pixels of its own size; None where there is
                nothing to follow.
        """
        expected = self._moved(classes.shape, flow)
        result = self._values[classes]
        for number in self._counted:
            mask = classes == number
            if mask.any():
                result[mask] = self._numbered(number, mask, expected)
        self._last = result
        return result.astype(np.uint16)

    def _moved(self, shape: tuple[int, ...], flow: np.ndarray | None) -> np.ndarray:
        """The last instance map, moved to this frame; -1 where it came from outside."""
        if self._last is None or flow is None:
            return np.full(shape, -1, np.int64)
        height, width = shape
        dx, dy = (
            cv2.resize(np.ascontiguousarray(part), (width, height), interpolation=cv2.INTER_LINEAR) * (full / part.shape[axis])
            for part, full, axis in ((flow[0], width, 1), (flow[1], height, 0))
        )
        x = np.arange(width, dtype=np.float32) + dx
        y = np.arange(height, dtype=np.float32)[:, None] + dy
        columns, rows = np.rint(x).astype(np.int64), np.rint(y).astype(np.int64)
        inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
        return np.where(inside, self._last[rows.clip(0, height - 1), columns.clip(0, width - 1)], -1)

    def _numbered(self, number: int, mask: np.ndarray, expected: np.ndarray) -> np.ndarray:
        """Ids of the pixels of one class, in the order of `mask`."""
        first = int(self._values[number]) * FIRST_OBJECT
        count, areas = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        ids = np.full(mask.shape, -1, np.int64)
        of_class = (expected // FIRST_OBJECT == self._values[number]) & (expected >= first) & mask
        claims = [_Claim.of(areas == area, expected, of_class) for area in range(1, count)]
        sizes: dict[int, int] = {}
        for claim in claims:
            for known, pixels in claim.pixels.items():
                sizes[known] = max(sizes.get(known, 0), pixels)
        largest = {known: claim for claim in claims for known, pixels in claim.pixels.items() if pixels == sizes[known]}
        for claim in sorted(claims, key=lambda item: -item.size):
            # An object's largest part keeps its number, and so do other parts that were mostly it and are not far away.
            heirs = {
                known: pixels
                for known, pixels in claim.pixels.items()
                if largest[known] is claim or (pixels >= _OWN_PART * claim.size and not claim.is_apart_from(largest[known]))
            }
            total = sum(heirs.values())
            heirs = {known: pixels for known, pixels in heirs.items() if pixels >= _LEAST_PART * total}
            if not heirs:
                ids[claim.mask] = first + self._new_number(number)
            elif len(heirs) == 1:
                ids[claim.mask] = next(iter(heirs))
            else:
                ids[claim.mask] = _divided(claim.mask, expected, list(heirs))
        return ids[mask]

    def _new_number(self, number: int) -> int:
        given = self._next[number]
        self._next[number] = min(given + 1, _MOST_NUMBERS)
        return given


class _Claim:
    """A connected area, and the objects of the frame before that it covers."""

    def __init__(self, mask: np.ndarray, pixels: dict[int, int]) -> None:
        self.mask, self.pixels, self.size = mask, pixels, int(mask.sum())

    def is_apart_from(self, other: _Claim) -> bool:
        """Whether the gap to another area is wider than half of this one: two objects, not one behind something narrow."""
        distance = cv2.distanceTransform((~other.mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_3)
        return float(distance[self.mask].min()) > _GAP * self.size**0.5

    @classmethod
    def of(cls, mask: np.ndarray, expected: np.ndarray, of_class: np.ndarray) -> _Claim:
        known, counts = np.unique(expected[mask & of_class], return_counts=True)
        return cls(mask, dict(zip(known.tolist(), counts.tolist(), strict=True)))


def _divided(mask: np.ndarray, expected: np.ndarray, objects: list[int]) -> np.ndarray:
    """Each pixel of an area to the nearest of several objects; ids in the order of `mask`."""
    distances = [
        cv2.distanceTransform((~(mask & (expected == known))).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_3) for known in objects
    ]
    return np.array(objects, np.int64)[np.argmin(np.stack([distance[mask] for distance in distances]), axis=0)]
