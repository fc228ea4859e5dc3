"""Edit the objects of a label map, and render the result with a trained model."""

from __future__ import annotations

import functools
import itertools
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vidgen import durable
from vidgen.commands.inputs import check_order, files_of_model, further_inputs, suggestion
from vidgen.commands.styles import choose_style, style_of
from vidgen.errors import ConfigError, InputError
from vidgen.inference.model import Model
from vidgen.inference.styles import StyleAssignment
from vidgen.media import edits, images
from vidgen.media.edits import Scene, SceneObject
from vidgen.media.frames import Frame, files_read
from vidgen.media.labels import LabelTable
from vidgen.runtime import Precision

log = logging.getLogger(__name__)

Edit = Callable[[Scene], Scene]

_MAX_LISTED = 20
_PAINT = "CLASS:X,Y,...,RADIUS, CLASS:polygon:X,Y,X,Y,X,Y,... or CLASS:rectangle:X,Y,X,Y"


@dataclass(frozen=True)
class Orders:
    """Edits of a scene as text; see `edit_labels`."""

    classes: Sequence[str] = ()
    removals: Sequence[str] = ()
    moves: Sequence[str] = ()
    paints: Sequence[str] = ()

    def __bool__(self) -> bool:
        return any((self.classes, self.removals, self.moves, self.paints))


def edit_labels(
    model: Path,
    labels: str,
    output: Path | None = None,
    *,
    instances: str | None = None,
    further: Sequence[str] = (),
    classes: Sequence[str] = (),
    removals: Sequence[str] = (),
    moves: Sequence[str] = (),
    paints: Sequence[str] = (),
    object_styles: Sequence[str] = (),
    variants: str | None = None,
    styles: Path | None = None,
    chosen: Sequence[str] = (),
    reference: Sequence[str] | None = None,
    seed: int = 0,
    overwrite: bool = False,
    device: str = "auto",
    precision: Precision | None = None,
    threads: int | None = None,
) -> dict[str, Any]:
    """Edit a label map and render it; the edited maps are written beside the image. Without any edit, only list the objects.

    Edits are applied in this order: classes, removals, moves, paint. Without an instance map, every connected region of a class is
    an object, numbered class * 1000 + 0, 1, ... from the largest.

    Args:
        labels: one image, as `Model.open` reads it.
        further, instances: likewise the model's other inputs; see `further_inputs`.
        output: the image to write (.png); needed for edits.
        classes: `ID:CLASS`, the new class of an object.
        removals: `ID`, or `ID:CLASS` with the class that fills its place.
        moves: `ID:DX,DY`.
        paints: `CLASS:X,Y,...,RADIUS` for a stroke, `CLASS:polygon:X,Y,...`, `CLASS:rectangle:X,Y,X,Y`.
        object_styles: `ID:STYLE`, for models with a feature encoder.
        variants: `ID:N` writes N images, NAME-0.png and so on, in which the object has the styles 0..N-1.
        styles, chosen, reference, seed: styles of all other objects; see `choose_style`.

    Raises:
        ConfigError: an order is not understood.
        InputError: it names an object or class that is not there, or the maps do not fit the model.
    """
    check_order(model, [labels])
    orders = Orders(classes, removals, moves, paints)
    renders = bool(orders or object_styles or variants or styles or chosen or reference)
    if renders and output is None:
        raise ConfigError("edits need an image to write", hint="-o edited.png")
    if output is not None and output.suffix.lower() != ".png":
        raise ConfigError(f"{output}: edited images are written as .png", hint=suggestion(output, ".png"))
    loaded = Model.load(model, device=device, precision=precision or "auto", threads=threads)
    table = loaded.table
    if table is None:
        raise ConfigError(f"{model}: this model reads no label maps, so there is nothing to edit")
    opened = loaded.open(labels, further=further_inputs(loaded, further, instances=instances))
    main = opened.main.read(0, 1)[0]
    companions = {name: source.read(0, 1)[0] for name, source in opened.further.items()}
    objects = companions.get("instances")
    scene = read_scene(main, objects, table)
    if output is None or not renders:
        if output is not None:
            log.warning("%s is not written: no edit was asked for", output)
        return {"objects": _listed(scene, table)}
    for change in changes(orders, table):
        scene = change(scene)
    maps = {output.with_suffix(".labels.png"): Frame(_stored(main, scene, table), main.pts, main.name)}
    if objects is not None:
        maps[output.with_suffix(".instances.png")] = Frame(_as_ids(scene.instances), objects.pts, objects.name)
    style = choose_style(loaded, styles=styles, chosen=chosen, reference=reference, seed=seed)
    assignments = _assignments(output, style, object_styles, variants, scene, table)
    edited = list(maps.values())
    if objects is not None:
        companions["instances"] = edited[1]
    sources = (labels, instances, *(entry.partition("=")[2] for entry in further), *(reference or ()))
    read = [file for where in sources if where for file in files_read(where)]
    with durable.claim([*assignments, *maps], inputs=[*read, *files_of_model(model)], overwrite=overwrite):
        for path, style in assignments.items():
            picture = loaded.picture(edited[0], companions, style=style, seed=seed)
            images.write_png(path, picture)
        for path, frame in maps.items():
            images.write_png(path, frame.pixels)
    return {
        "output": [str(path) for path in assignments] if variants else str(output),
        "maps": [str(path) for path in maps],
        "objects": _listed(scene, table),
    }


def _listed(scene: Scene, table: LabelTable) -> dict[str, str]:
    """The largest objects by id, described."""
    return {str(item.number): _described(item, table) for item in itertools.islice(scene.objects.values(), _MAX_LISTED)}


def _assignments(
    output: Path,
    assignment: StyleAssignment | None,
    object_styles: Sequence[str],
    variants: str | None,
    scene: Scene,
    table: LabelTable,
) -> dict[Path, StyleAssignment | None]:
    """The styles of every picture to write.

    Raises:
        ConfigError: the model has no styles, or an order is not understood.
    """
    if assignment is None:
        if object_styles or variants:
            wanted = object_styles[0] if object_styles else variants
            raise ConfigError(f"{wanted}: this model has no feature encoder, so its objects have no styles")
        return {output: None}
    for text in object_styles:
        match = re.fullmatch(r"(\d+):(\d+)", text)
        if match is None:
            raise ConfigError(f"--set-style {text}: expected ID:STYLE, such as 26003:4")
        assignment = _with_style(assignment, int(match[1]), int(match[2]), scene, table)
    if variants is None:
        return {output: assignment}
    match = re.fullmatch(r"(\d+):(\d+)", variants)
    if match is None or int(match[2]) == 0:
        raise ConfigError(f"--variants {variants}: expected ID:N, such as 26003:5")
    return {
        output.with_name(f"{output.stem}-{style}{output.suffix}"): _with_style(assignment, int(match[1]), style, scene, table)
        for style in range(int(match[2]))
    }


def _with_style(assignment: StyleAssignment, number: int, style: int, scene: Scene, table: LabelTable) -> StyleAssignment:
    """The same styles, but for one object."""
    label = int(np.flatnonzero(_ids(table) == np.bincount(scene.labels[scene.mask(number)] + 1).argmax() - 1)[0])
    return replace(assignment, of_object={**assignment.of_object, number: style_of(assignment.styles, label, style)})


def read_scene(labels: Frame, instances: Frame | None, table: LabelTable) -> Scene:
    """The scene of a label map and its instance map; its labels are the ids that files store, or classes of color-coded files.

    Raises:
        InputError: the label map holds unknown values, or the maps differ in size.
    """
    classes = _ids(table)[table.decode(labels.pixels, labels.name)]
    if instances is None:
        return Scene.from_labels(classes)
    if instances.pixels.ndim != 2:
        raise InputError(f"{instances.name}: an instance map must have one channel of whole numbers, found a color picture")
    return Scene(classes, instances.pixels.astype(np.int64))


def _ids(table: LabelTable) -> np.ndarray:
    """What a scene's labels call each class; the last entry, -1, is for ignored pixels."""
    return np.array([*(table.values or range(table.num_classes)), -1], np.int64)


def _described(item: SceneObject, table: LabelTable) -> str:
    found = np.flatnonzero(_ids(table)[:-1] == item.label)
    left, top, right, bottom = item.box
    name = table.names[found[0]] if len(found) else "ignored"
    return f"{name}, {item.num_pixels} pixels, x {left}..{right - 1}, y {top}..{bottom - 1}"


def _as_ids(instances: np.ndarray) -> np.ndarray:
    """uint16, as files store ids."""
    if instances.max(initial=0) > np.iinfo(np.uint16).max:
        raise InputError(f"object {int(instances.max())}: instance maps hold ids up to 65535")
    return instances.astype(np.uint16)


def _stored(before: Frame, scene: Scene, table: LabelTable) -> np.ndarray:
    """The edited label map as files store it; what was not edited stays as it was."""
    changed = _ids(table)[table.decode(before.pixels, before.name)] != scene.labels
    edited = scene.labels[changed]
    stored = before.pixels.astype(np.uint16) if edited.max(initial=0) > np.iinfo(before.pixels.dtype).max else before.pixels.copy()
    stored[changed] = edited if table.values is not None else np.array(table.colors, np.uint8)[edited]
    return stored


# -- the grammar -----------------------------------------------------------------------------------------------------------


def changes(orders: Orders, table: LabelTable) -> list[Edit]:
    """The edits that `orders` ask for.

    Raises:
        ConfigError: an order is not understood, or names a class that the table does not know.
    """
    return [
        *(_class_change(text, table) for text in orders.classes),
        *(_removal(text, table) for text in orders.removals),
        *(_move(text) for text in orders.moves),
        *(_paint(text, table) for text in orders.paints),
    ]


def _class_change(text: str, table: LabelTable) -> Edit:
    match = re.fullmatch(r"(\d+):(.+)", text)
    if match is None:
        raise ConfigError(f"--set-class {text}: expected ID:CLASS, such as 26003:road")
    return functools.partial(edits.change_class, number=int(match[1]), label=class_of(match[2], table, f"--set-class {text}"))


def _removal(text: str, table: LabelTable) -> Edit:
    match = re.fullmatch(r"(\d+)(?::(.+))?", text)
    if match is None:
        raise ConfigError(f"--remove {text}: expected ID or ID:CLASS, such as 26003 or 26003:road")
    fill = None if match[2] is None else class_of(match[2], table, f"--remove {text}")
    return functools.partial(edits.remove_object, number=int(match[1]), fill=fill)


def _move(text: str) -> Edit:
    match = re.fullmatch(r"(\d+):([-+]?\d+),([-+]?\d+)", text)
    if match is None:
        raise ConfigError(f"--move {text}: expected ID:DX,DY in pixels, such as 26003:-40,0")
    return functools.partial(edits.move_object, number=int(match[1]), dx=int(match[2]), dy=int(match[3]))


def _paint(text: str, table: LabelTable) -> Edit:
    name, _, rest = text.partition(":")
    shape, _, listed = rest.rpartition(":")
    if not re.fullmatch(r"-?\d+(,-?\d+)*", listed) or shape not in ("", "polygon", "rectangle"):
        raise ConfigError(f"--paint {text}: expected {_PAINT}")
    numbers = [int(number) for number in listed.split(",")]
    label = class_of(name, table, f"--paint {text}")
    points = list(zip(numbers[::2], numbers[1::2], strict=False))
    if shape == "rectangle" and len(numbers) == 4:
        return functools.partial(edits.paint_rectangle, label=label, first=points[0], second=points[1])
    if shape == "polygon" and len(numbers) >= 6 and len(numbers) % 2 == 0:
        return functools.partial(edits.paint_polygon, label=label, corners=points)
    if shape == "" and len(numbers) >= 3 and len(numbers) % 2 == 1 and 0 <= numbers[-1] <= 10_000:
        return functools.partial(edits.paint_stroke, label=label, points=points, radius=numbers[-1])
    raise ConfigError(f"--paint {text}: {len(numbers)} numbers; expected {_PAINT}")


def class_of(text: str, table: LabelTable, where: str) -> int:
    """The id that scenes give a class, by its name or that id.

    Raises:
        ConfigError: there is none; those that exist are named.
    """
    ids = _ids(table)[:-1].tolist()
    if text in table.names:
        return int(ids[table.names.index(text)])
    if text.isdecimal() and int(text) in ids:
        return int(text)
    raise ConfigError(f"{where}: no class {text!r}; there are {', '.join(table.names)}")
