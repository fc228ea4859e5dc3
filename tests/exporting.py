"""Untrained models of every translator and kind of generator, small enough to be exported in tests and for tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from vidgen import translators
from vidgen.data.settings import ConditionSettings
from vidgen.media import labels
from vidgen.weights.files import pack
from vidgen.weights.model_file import ModelCard

NUM_LABELS = 4
LABELS = {"labels": {"num_classes": NUM_LABELS}}
MAPS = {**LABELS, "instances": "instances"}
NARROW = {"base_channels": 4, "num_downsamplings": 2, "num_blocks": 2}

# name: model, condition, size (height, width) of training
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[int, int]]] = {
    "vid2vid": ({"kind": "vid2vid", "generator": {**NARROW, "foreground_labels": [1]}}, MAPS, (32, 48)),
    "vid2vid of poses, two scales": (
        {
            "kind": "vid2vid",
            "first_frame": "zeros",
            "generator": {**NARROW, "num_scales": 2, "num_local_blocks": 1, "upsampling": "resize"},
        },
        {"pictures": ["poses"]},
        (32, 48),
    ),
    "vid2vid, compact": (
        {"kind": "vid2vid", "generator": {"kind": "compact", "num_levels": 3, "width": 0.25, "past_tolerance": 0.2}},
        MAPS,
        (32, 48),
    ),
    "vid2vid, compact, with an anchor": (
        {
            "kind": "vid2vid",
            "generator": {"kind": "compact", "num_levels": 3, "width": 0.25, "anchor_frames": 4, "past_enlargement": 1.2},
        },
        MAPS,
        (32, 48),
    ),
    "vid2vid, compact, many classes": (
        {"kind": "vid2vid", "generator": {"kind": "compact", "num_levels": 3, "width": 0.25}},
        {"labels": {"num_classes": 30}, "instances": "instances"},
        (32, 48),
    ),
    "vid2vid without a past": (
        {"kind": "vid2vid", "num_input_frames": 1, "generator": {**NARROW, "flow": "none"}},
        LABELS,
        (32, 48),
    ),
    "pix2pix, U-Net with noise": (
        {"kind": "pix2pix", "generator": {"base_channels": 4, "num_downsamplings": 6}},
        {"edges": {"low": 50, "high": 100}},
        (128, 128),
    ),
    "pix2pix, ResNet": (
        {"kind": "pix2pix", "generator": {"network": "resnet", **NARROW, "dropout": 0}},
        {"pictures": ["a"]},
        (32, 48),
    ),
    "pix2pix, compact": (
        {"kind": "pix2pix", "generator": {"network": "compact", "num_downsamplings": 3, "width": 0.25}},
        {"edges": {"low": 50, "high": 100}},
        (32, 48),
    ),
    "pix2pixhd with styles": (
        {
            "kind": "pix2pixhd",
            "generator": {**NARROW, "num_enhancers": 1, "num_local_blocks": 1},
            "encoder": {"base_channels": 4, "num_downsamplings": 2},
        },
        MAPS,
        (32, 48),
    ),
    "pix2pixhd, compact": (
        {"kind": "pix2pixhd", "generator": {"kind": "compact", "num_levels": 3, "width": 0.25}},
        LABELS,
        (32, 48),
    ),
    "sketchygan": (
        {"kind": "sketchygan", "generator": {"base_channels": 4, "noise_channels": 8}, "num_classes": 3, "image_size": 32},
        {"sketch": {}, "classes": {"names": ["car", "house", "tree"]}},
        (32, 32),
    ),
    "style2paints": (
        {"kind": "style2paints", "generator": {"base_channels": 4}, "hint": {"encoder": "color_statistics"}},
        {"lines": {}, "style": {"size": 64}},
        (64, 64),
    ),
    "style2paints, compact": (
        {
            "kind": "style2paints",
            "generator": {"network": "compact", "width": 0.25, "num_levels": 3},
            "hint": {"encoder": "color_statistics"},
        },
        {"lines": {}, "style": {"size": 64}},
        (64, 64),
    ),
    "singan": ({"kind": "singan", "image_size": [40, 54], "base_channels": 4, "max_channels": 4}, {}, (40, 54)),
    "consingan": ({"kind": "consingan", "image_size": [40, 54], "base_channels": 4}, {}, (40, 54)),
}


def write_model(path: Path, model: dict[str, Any], condition: dict[str, Any], size: tuple[int, int]) -> Path:
    """An untrained model, as a weights file."""
    torch.manual_seed(1)
    module = translators.find(model["kind"])
    settings = ConditionSettings(**condition)
    num_labels = condition["labels"]["num_classes"] if "labels" in condition else 0
    follows: dict[str, Any] = {}
    if model["kind"] not in ("singan", "consingan"):
        follows = {
            "num_labels": num_labels,
            "condition_channels": settings.num_picture_channels,
            "use_instances": "instances" in condition,
        }
    config = module.Config(**model, **follows)
    translator = module.build(config, {})
    for name, value in translator.named_parameters():
        if name.startswith("generator") and value.ndim > 1:
            torch.nn.init.kaiming_normal_(value, a=0.5)  # so that what comes out depends on what goes in
        elif name.startswith("generator"):
            torch.nn.init.uniform_(value, 0.2, 0.8)  # a norm's shift of zero would leave nothing but rounding of an empty past
    if hasattr(translator, "num_begun_scales"):
        translator.num_begun_scales.fill_(translator.pyramid.num_levels)
    table = labels.plain(num_labels) if num_labels else None
    card = ModelCard(config, settings.model_dump(mode="json"), table, size)
    path.write_bytes(pack(translator.state_dict(), card.metadata()))
    return path
