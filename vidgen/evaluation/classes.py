"""Folders of generated pictures, one per class, measured against real ones: recognition, diversity, Inception Score and FID."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidgen import progress
from vidgen.data.sequences import class_name
from vidgen.data.stills import find_stills
from vidgen.errors import InputError
from vidgen.evaluation.networks import WeightsFile, load_networks
from vidgen.media import images, paths
from vidgen.media.conditions import resize_picture
from vidgen.metrics.classes import (
    Classifier,
    cross_validated_accuracy,
    inception_score,
    mean_difference,
    pooled_features,
)
from vidgen.metrics.distribution import GaussianStatistics, frechet_distance
from vidgen.metrics.features import feature_distance, unit_features

SIZE = 128
"""Height and width at which pictures are looked at; training at 64 pixels is judged at twice its size."""
_SHUFFLE = 5


def evaluate_classes(generated: Path, real: Path, files: Mapping[str, WeightsFile] | None = None) -> dict[str, Any]:
    """Measure pictures in one folder per class.

    Args:
        generated: CLASS/NAME.png, or CLASS/NAME-1.png, -2 ... for several samples of one sketch.
        real: CLASS/NAME.png, of which a classifier learns.
        files: `inception` adds Inception Score and FID.

    Returns:
        accuracy: share of generated pictures that are taken for their class, and `accuracy_by_class`; accuracy_of_real: the same of
        real pictures that the classifier has not seen. class_score: Inception Score by that classifier, from 1 to the number of
        classes. diversity: mean absolute difference of samples of one sketch (0..255) and their distance in features.

    Raises:
        InputError: pictures lie in no class, or classes have no real pictures.
    """
    files = files or {}
    networks, used = load_networks({"efficientnet_lite0", *files}, files)
    backbone = networks.features
    assert backbone is not None
    known = _by_class(real)
    made = _by_class(generated)
    names = sorted(known)
    unknown = next((name for name in made if name not in known), None)
    if unknown is not None:
        raise InputError(f"{paths.display(generated)}: there are no real pictures of {unknown!r}; there are {', '.join(names)}")

    def seen(found: Mapping[str, Mapping[str, Path]], what: str) -> tuple[Tensor, Tensor, Tensor]:
        """Features, FID's features, classes."""
        features, deep, classes = [], [], []
        every = [(names.index(name), path) for name, files in found.items() for path in files.values()]
        for number, path in progress.follow(every, what, len(every)):
            picture = _read(path)
            with torch.no_grad():
                features.append(pooled_features(backbone(picture / 127.5 - 1)))
                if networks.inception is not None:
                    deep.append(networks.inception(picture))
            classes.append(number)
        return torch.cat(features), torch.cat(deep) if deep else torch.zeros(0), torch.tensor(classes)

    features, deep, classes = seen(known, "real pictures")
    other_features, other_deep, wanted = seen(made, "generated pictures")
    probabilities = Classifier.fit(features, classes, len(names)).probabilities(other_features)
    hits = (probabilities.argmax(1) == wanted).double()
    order = torch.from_numpy(np.random.default_rng(_SHUFFLE).permutation(len(hits)))
    scores: dict[str, Any] = {
        "pictures": len(hits),
        "real_pictures": len(classes),
        "classes": names,
        "accuracy": round(hits.mean().item(), 4),
        "accuracy_of_real": round(cross_validated_accuracy(features, classes, len(names)), 4),
        "accuracy_by_class": {
            name: round(hits[wanted == number].mean().item(), 4) for number, name in enumerate(names) if (wanted == number).any()
        },
        "class_score": round(inception_score(probabilities[order], 1)[0], 3),
        "diversity": _diversity(made, backbone),
    }
    if networks.inception is not None:
        mean, deviation = inception_score(networks.inception.probabilities(other_deep)[order])
        statistics = GaussianStatistics(), GaussianStatistics()
        for one, vectors in zip(statistics, (other_deep, deep), strict=True):
            one.add(vectors)
        scores["inception_score"] = {"mean": round(mean, 3), "deviation": round(deviation, 3)}
        scores["fid"] = round(frechet_distance(*statistics), 3)
    return {**scores, "networks": {name: file.sha256 for name, file in used.items()}}


def _by_class(folder: Path) -> dict[str, dict[str, Path]]:
    if not folder.is_dir():
        raise paths.missing(folder) if not folder.exists() else InputError(f"{paths.display(folder)}: is no folder of classes")
    found: dict[str, dict[str, Path]] = defaultdict(dict)
    for name, path in find_stills(folder).items():
        kind = class_name(name)
        if not kind:
            raise InputError(f"{paths.display(path)}: lies in no folder of a class; expected {folder.name}/CLASS/{path.name}")
        found[kind][name] = path
    return dict(found)


def _read(path: Path) -> Tensor:
    """float32 [1,3,SIZE,SIZE] in 0..255."""
    picture = resize_picture(images.read_picture(path), (SIZE, SIZE))
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None].float()


def _diversity(made: Mapping[str, Mapping[str, Path]], backbone: Any) -> dict[str, float] | None:
    """Of samples that differ in their last number alone; None where there are none."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for found in made.values():
        for name, path in found.items():
            groups[name.rpartition("-")[0]].append(path)
    pixels, distances = [], []
    for name, files in groups.items():
        if not name or len(files) < 2:
            continue
        pictures = [_read(path) for path in files]
        pixels.append(mean_difference(torch.cat(pictures)))
        with torch.no_grad():
            units = [unit_features(backbone, picture / 255) for picture in pictures]
        distances += [feature_distance(units[one], units[other]) for one in range(len(units)) for other in range(one)]
    if not pixels:
        return None
    return {"pixels": round(sum(pixels) / len(pixels), 3), "features": round(sum(distances) / len(distances), 4)}
