"""Styles: typical appearances of each class, clustered from the features that an encoder gives the objects of training pictures.

Source: Wang et al., CVPR 2018 (pix2pixHD), section 3.4: instance-wise pooled encoder features, clustered per class by k-means;
a picture is then made in the style of one cluster per object. Where we differ on purpose: objects whose class has no style get
zeros instead of uninitialized memory, and a class without any large object keeps its small ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pydantic

from vidgen import durable
from vidgen.errors import CheckpointError, ConfigError, InputError
from vidgen.weights import files

LARGE = 1 / 64
"""Share of the picture from which on an object counts as large; small ones have unreliable features."""

KIND = "styles"
"""In the metadata of a file of styles."""


@dataclass(frozen=True)
class Styles:
    """Centres of clusters per class.

    Attributes:
        centres: class -> float32 [k,C], most frequent first.
        origin: what they were made from, for people.
    """

    centres: Mapping[int, np.ndarray]
    origin: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        widths = {centres.shape[-1] for centres in self.centres.values()}
        if len(widths) != 1 or any(centres.ndim != 2 or not len(centres) for centres in self.centres.values()):
            raise InputError(f"styles: expected [k,C] centres of one width C per class, got widths {sorted(widths)}")

    @property
    def num_channels(self) -> int:
        return int(next(iter(self.centres.values())).shape[1])

    def one(self, label: int, style: int) -> np.ndarray:
        """Features [C] of a style of a class.

        Raises:
            ConfigError: the class has no such style.
        """
        known = self.centres.get(label, ())
        if not 0 <= style < len(known):
            have = (
                f"has the styles 0..{len(known) - 1}"
                if len(known)
                else f"has no styles; classes with styles: {sorted(self.centres)}"
            )
            raise ConfigError(f"style {style}: class {label} {have}")
        chosen: np.ndarray = known[style]
        return chosen

    def write(self, path: Path) -> None:
        """Write a safetensors file, all or nothing."""
        import torch

        tensors = {f"class_{label}": torch.from_numpy(np.ascontiguousarray(centres)) for label, centres in self.centres.items()}
        durable.write_bytes(path, files.pack(tensors, {"kind": KIND, "origin": json.dumps(dict(self.origin))}))

    @staticmethod
    def read(path: Path) -> Styles:
        """The styles of a file.

        Raises:
            CheckpointError: it is missing, damaged or holds something else.
        """
        stored = files.read_weights(path)
        if stored.metadata.get("kind") != KIND:
            raise CheckpointError(f"{path}: holds no styles", hint="make them with: vidgen styles MODEL DATA -o styles.safetensors")
        try:
            centres = {int(name.removeprefix("class_")): value.float().numpy() for name, value in stored.tensors.items()}
            origin = pydantic.TypeAdapter(dict[str, str]).validate_json(stored.metadata["origin"], strict=True)
            return Styles(centres, origin)
        except (KeyError, ValueError, TypeError, InputError) as error:
            raise CheckpointError(f"{path}: is a damaged file of styles", hint="make them anew with: vidgen styles") from error


@dataclass(frozen=True)
class ObjectFeatures:
    """What an encoder says of one object: its class and id, its features [C], and the share of the picture it covers."""

    label: int
    number: int
    vector: np.ndarray
    share: float


def object_features(features: np.ndarray, labels: np.ndarray, regions: np.ndarray) -> list[ObjectFeatures]:
    """What each region of a picture looks like; a region's class is that of most of its pixels.

    Args:
        features: float32 [C,H,W], the same all over a region.
        labels, regions: int64 [H,W], class of each pixel and number of its region.
    """
    vectors = features.reshape(len(features), -1)
    numbers, first, places = np.unique(regions.ravel(), return_index=True, return_inverse=True)
    found = []
    for index, number in enumerate(numbers.tolist()):
        inside = labels.ravel()[places.ravel() == index]
        label = int(np.bincount(inside + 1).argmax()) - 1
        found.append(ObjectFeatures(label, number, vectors[:, first[index]], len(inside) / regions.size))
    return found


def gather(objects: Iterable[ObjectFeatures]) -> dict[int, np.ndarray]:
    """What `cluster` reads: class -> float32 [N,C+1]. Objects of no class are left out."""
    rows: dict[int, list[np.ndarray]] = {}
    for item in objects:
        if item.label >= 0:
            rows.setdefault(item.label, []).append(np.append(item.vector, item.share))
    return {label: np.array(found, np.float32) for label, found in rows.items()}


def cluster(features: Mapping[int, np.ndarray], num_styles: int = 10, *, seed: int = 0) -> dict[int, np.ndarray]:
    """Centres of up to `num_styles` clusters per class, most frequent first.

    Args:
        features: class -> float32 [N,C+1], features of each object and, last, the share of the picture it covers.
    """
    centres = {}
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 100, 1e-6)
    for label, rows in sorted(features.items()):
        large = rows[rows[:, -1] > LARGE] if (rows[:, -1] > LARGE).any() else rows
        vectors = np.ascontiguousarray(large[:, :-1], np.float32)
        found, counts = np.unique(vectors, axis=0, return_counts=True)
        if len(found) > num_styles:
            cv2.setRNGSeed(seed)
            _, members, means = cv2.kmeans(vectors, num_styles, np.zeros(0, np.int32), criteria, 10, cv2.KMEANS_PP_CENTERS)
            found, counts = np.asarray(means), np.bincount(members.ravel(), minlength=num_styles)
        centres[label] = found[np.argsort(-counts, kind="stable")]
    return centres


@dataclass(frozen=True)
class StyleAssignment:
    """Which features each object of a scene is given: those chosen for it or its class, else drawn from the styles by its id.

    The draw depends on the seed and the id alone, so an object keeps its style along a video.

    Attributes:
        num_channels: C of the features.
        styles: what is drawn from; objects that nothing is known about get zeros.
        of_object, of_class: object id, class -> features [C]; the former win.
    """

    num_channels: int
    styles: Styles | None = None
    of_object: Mapping[int, np.ndarray] = field(default_factory=dict)
    of_class: Mapping[int, np.ndarray] = field(default_factory=dict)
    seed: int = 0

    def features(self, labels: np.ndarray, instances: np.ndarray) -> np.ndarray:
        """Feature map float32 [C,H,W] of a scene given by int64 [H,W] classes and object ids."""
        num_labels = int(labels.max()) + 2
        keys, places = np.unique((instances.ravel() + 1) * num_labels + labels.ravel() + 1, return_inverse=True)
        vectors = np.stack([self._of(key % num_labels - 1, key // num_labels - 1) for key in keys.tolist()])
        painted: np.ndarray = vectors[places.ravel()].T.reshape(self.num_channels, *labels.shape)
        return np.ascontiguousarray(painted)

    def _of(self, label: int, number: int) -> np.ndarray:
        for known, key in ((self.of_object, number), (self.of_class, label)):
            if key in known:
                return known[key].astype(np.float32)
        centres = self.styles.centres.get(label) if self.styles else None
        if centres is None:
            return np.zeros(self.num_channels, np.float32)
        drawn: np.ndarray = centres[np.random.default_rng((self.seed, number + 1)).integers(len(centres))]
        return drawn.astype(np.float32)
