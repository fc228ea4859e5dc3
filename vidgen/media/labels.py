"""Label tables: which value or color in a file is which class, and what color shows a class to people."""

from __future__ import annotations

import colorsys
import csv
import difflib
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from vidgen import kinds
from vidgen.errors import InputError
from vidgen.media import paths
from vidgen.media.frames import Frame

Color = tuple[int, int, int]

IGNORED = -1
_UNKNOWN = -2
_MAX_DISCOVERED = 256
_MAX_SHADES = 4096
_MAX_CODES = 65536
_MAX_COUNTED = 1 << 20
_MAX_TABLE_BYTES = 16 << 20
_STRIP_PIXELS = 1 << 20
_SAME_COLOR_DISTANCE = 48
_LEAST_SHARE = 0.005
_GOLDEN_RATIO = 0.618033988749895
_FOLDER = Path(__file__).with_name("label_tables")
_PALETTE = "palette:"
_WITHOUT_COLORS = ("coco_stuff",)

NAMES = (
    "cityscapes",
    "cityscapes_train_ids",
    "camvid",
    "camvid_11",
    "camvid_32",
    "ade20k",
    "coco_stuff",
    "voc",
    "mapillary",
    "street",
)
"""The tables that come with vidgen, for files of ids. Sources: Cordts et al., Cityscapes, 2016; Brostow et al., CamVid, 2009, in
the order of its label_colors.txt (32 classes) or as grouped by Badrinarayanan et al., SegNet, 2017 (12, or 11 and one ignored);
Zhou et al., ADE20K, 2017 (SceneParse150: 1..150, and 0 ignored); Caesar et al., COCO-Stuff, 2018 (pixel maps of the 171 classes
in use); Everingham et al., Pascal VOC, 2012; Neuhold et al., Mapillary Vistas, 2017 (version 1.2); the procedural street."""

PALETTES = tuple(_PALETTE + name for name in NAMES if name not in _WITHOUT_COLORS)
"""The tables for files that hold the colors of those classes."""

_ALIKE = (
    ("sky",),
    ("building", "house", "wall", "archway", "bridge", "tunnel", "fence", "guard rail"),
    ("tree", "vegetation", "vegetationmisc", "plant", "bush", "terrain", "grass"),
    ("road", "parking", "ground", "roadshoulder", "rail track"),
    ("pavement", "sidewalk", "path", "curb"),
    ("lane marking", "lanemkgsdriv", "lanemkgsnondriv", "crosswalk"),
    ("pole", "column_pole", "polegroup", "street light", "sign", "signsymbol", "traffic sign", "traffic light", "trafficlight"),
    ("car", "suvpickuptruck", "van", "truck", "truck_bus", "bus", "caravan", "trailer", "train"),
    ("pedestrian", "person", "child", "cyclist", "rider", "bicyclist", "motorcyclist"),
    ("bicycle", "motorcycle", "motorcyclescooter"),
)
"""Classes that look alike, under the names that tables give them."""

KNOWN = f"{', '.join(NAMES)}; for files of their colors palette:NAME, such as palette:camvid"
"""For messages."""


@dataclass(frozen=True)
class LabelTable:
    """What the values in label files mean.

    Attributes:
        names: of class 0, 1, ...
        colors: RGB 0..255 of each class; what pictures of labels are painted with, and how color-coded files store them.
        values: the id that files store for each class; None when files are color-coded.
        ignore: ids (0xRRGGBB for color-coded files) of pixels that belong to no class.
        nearest: whether an unknown color stands for the class of the nearest color, as in antialiased pictures of labels.
        shares_colors: whether several classes of color-coded files may have one color, which then means the first of them.
    """

    names: tuple[str, ...]
    colors: tuple[Color, ...]
    values: tuple[int, ...] | None
    ignore: tuple[int, ...] = ()
    nearest: bool = False
    shares_colors: bool = False

    def __post_init__(self) -> None:
        if (
            not self.names
            or len(self.names) != len(self.colors)
            or (self.values is not None and len(self.values) != len(self.names))
        ):
            num_values = "no" if self.values is None else len(self.values)
            raise InputError(
                f"label table: {len(self.names)} names, {len(self.colors)} colors and {num_values} values; one each per class"
            )
        if any(len(color) != 3 or not all(0 <= channel <= 255 for channel in color) for color in self.colors):
            raise InputError("label table: a color is three numbers 0..255")
        codes = [*self._codes, *self.ignore]
        if len(codes) > _MAX_CODES:
            raise InputError(f"label table: {len(codes)} values; at most {_MAX_CODES} are told apart")
        if self.values is not None and any(not 0 <= code <= 65535 for code in codes):
            raise InputError("label table: values and ignore are 0..65535")
        if self.values is None and any(not 0 <= code <= 0xFFFFFF for code in codes):
            raise InputError("label table: colors to ignore are 0..0xFFFFFF")
        counts = Counter([*dict.fromkeys(self._codes), *self.ignore] if self.shares_colors else codes)
        if max(counts.values()) > 1:
            repeated = next(code for code in codes if counts[code] > 1)
            raise InputError(f"label table: {self._describe(repeated)} stands for two classes")

    @property
    def num_classes(self) -> int:
        return len(self.names)

    @property
    def _codes(self) -> tuple[int, ...]:
        """What files store for each class: an id, or a color as 0xRRGGBB."""
        if self.values is not None:
            return self.values
        return tuple((red << 16) + (green << 8) + blue for red, green, blue in self.colors)

    @cached_property
    def _lookup(self) -> tuple[np.ndarray, np.ndarray]:
        """All codes, sorted, and the class of each."""
        codes = np.array([*self._codes, *self.ignore], dtype=np.int64)
        classes = np.array([*range(self.num_classes), *[IGNORED] * len(self.ignore)], dtype=np.int64)
        order = np.argsort(codes, kind="stable")  # of equal ones the first comes first, and is what a search finds
        return codes[order], classes[order]

    @cached_property
    def _class_of_id(self) -> np.ndarray:
        """Class of every id a file can hold."""
        classes = np.full(65536, _UNKNOWN, dtype=np.int64)
        classes[self._lookup[0]] = self._lookup[1]
        return classes

    def decode(self, pixels: np.ndarray, where: str) -> np.ndarray:
        """Class of each pixel, int64 [H,W], -1 where it is ignored.

        Args:
            pixels: as files store them: ids uint8 or uint16 [H,W], or colors uint8 [H,W,3].
            where: the file or frame, for messages.

        Raises:
            InputError: a value or color that the table does not know, or ids where it wants colors, or the reverse.
        """
        if (pixels.ndim == 3) != (self.values is None):
            self._check_no_photo(pixels, where)
            found, wanted = ("colors", "ids") if pixels.ndim == 3 else ("ids", "colors")
            fitting = matching_palettes(pixels) if pixels.ndim == 3 else []
            hint = f"its colors are those of the label table {fitting[0]}" if fitting else f"give a label table of {found}"
            raise InputError(f"{where}: holds {found}, but the label table knows {wanted}", hint=hint)
        if self.values is not None:
            classes = self._class_of_id[pixels]
        else:
            classes = np.empty(pixels.shape[:2], dtype=np.int64)
            for rows in _strips(pixels):
                classes[rows] = self._classes_of_colors(_packed(pixels[rows]))
        if classes.min(initial=0) == _UNKNOWN:
            self._check_no_photo(pixels, where)
            fitting = matching_palettes(pixels) if pixels.ndim == 3 else []
            raise self._unknown(_packed(pixels), classes, where, fitting)
        return classes

    @staticmethod
    def _check_no_photo(pixels: np.ndarray, where: str) -> None:
        if pixels.ndim == 3 and len(found := np.unique(_packed(pixels))) > _MAX_DISCOVERED:
            raise InputError(
                f"{where}: holds {len(found)} different colors, as a photo does; a label map was expected",
                hint="label maps have one id or color per class; what was smoothed or compressed has many",
            )

    def _classes_of_colors(self, stored: np.ndarray) -> np.ndarray:
        codes, classes = self._lookup
        if self.nearest:
            found, places = np.unique(stored, return_inverse=True)
            part = max(1, _STRIP_PIXELS // len(codes))
            nearest = [
                np.square(_channels(found[start : start + part])[:, None] - _channels(codes)[None]).sum(-1).argmin(1)
                for start in range(0, len(found), part)
            ]
            mapped: np.ndarray = classes[np.concatenate(nearest)][places].reshape(stored.shape)
            return mapped
        positions = np.searchsorted(codes, stored).clip(max=len(codes) - 1)
        return np.where(codes[positions] == stored, classes[positions], _UNKNOWN)

    def colorize(self, classes: np.ndarray) -> np.ndarray:
        """A picture of classes: int [H,W] to uint8 [H,W,3]; ignored pixels are black."""
        palette = np.array([*self.colors, (0, 0, 0)], dtype=np.uint8)
        return palette[classes]

    def without(self, *names: str) -> LabelTable:
        """The same table where the classes `names` are ignored; the others move up.

        Raises:
            InputError: there is no such class.
        """
        for name in names:
            if name not in self.names:
                raise InputError(f"label table: no class {name!r}; known are {', '.join(self.names)}")
        kept = [index for index, name in enumerate(self.names) if name not in names]
        dropped = tuple(code for code, name in zip(self._codes, self.names, strict=True) if name in names)
        return LabelTable(
            names=tuple(self.names[index] for index in kept),
            colors=tuple(self.colors[index] for index in kept),
            values=None if self.values is None else tuple(self.values[index] for index in kept),
            ignore=(*self.ignore, *dropped),
            nearest=self.nearest,
            shares_colors=self.shares_colors,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for JSON."""
        return {
            "names": list(self.names),
            "colors": [list(color) for color in self.colors],
            "values": None if self.values is None else list(self.values),
            "ignore": list(self.ignore),
            "nearest": self.nearest,
            **({"shares_colors": True} if self.shares_colors else {}),
        }

    @staticmethod
    def from_dict(value: Mapping[str, Any]) -> LabelTable:
        """The table that `to_dict` described.

        Raises:
            InputError: a key is missing, unknown or of the wrong kind.
        """
        unknown = set(value) - {"names", "colors", "values", "ignore", "nearest", "shares_colors"}
        if unknown or "names" not in value or "colors" not in value:
            raise InputError(f"label table: keys {sorted(value)}; expected names, colors, values, ignore")
        try:
            colors = tuple((_whole(red), _whole(green), _whole(blue)) for red, green, blue in value["colors"])
            stored = value.get("values")
            values = None if stored is None else tuple(map(_whole, stored))
            return LabelTable(
                tuple(map(str, value["names"])),
                colors,
                values,
                tuple(map(_whole, value.get("ignore", ()))),
                value.get("nearest") is True,
                value.get("shares_colors") is True,
            )
        except (TypeError, ValueError) as error:
            raise InputError(f"label table: {error}") from error

    @staticmethod
    def from_file(path: Path) -> LabelTable:
        """A table from .json (as `to_dict` gives) or .csv with the columns name, id, r, g, b.

        In a .csv, a table without the column id is color-coded, and the name `ignore` marks values of no class.

        Raises:
            InputError: missing or not such a file.
        """
        paths.check_file(path)
        name = paths.display(path)
        kind = kinds.other_kind(path, "a JSON file", "a table")
        if kind is not None:
            raise InputError(f"{name}: is {kind}; a label table (.json or .csv) was expected")
        try:
            text = paths.read_bounded(path, _MAX_TABLE_BYTES).decode("utf-8-sig")
            return _from_csv(text) if path.suffix.lower() == ".csv" else LabelTable.from_dict(json.loads(text))
        except (ValueError, AttributeError, TypeError, RecursionError, csv.Error) as error:
            raise InputError(f"{name}: not a label table in JSON or CSV ({error})") from error
        except InputError as error:
            raise InputError(f"{name}: {error}", hint=error.hint) from error

    def _describe(self, code: int) -> str:
        return f"id {code}" if self.values is not None else f"color ({code >> 16}, {code >> 8 & 255}, {code & 255})"

    def _unknown(self, stored: np.ndarray, classes: np.ndarray, where: str, fitting: Sequence[str]) -> InputError:
        unknown = classes == _UNKNOWN
        row, column = np.argwhere(unknown)[0]
        code = int(stored[row, column])
        count = int((stored == code).sum())
        others = len(np.unique(stored[unknown])) - 1
        kind = "colors" if self.values is None else "ids"
        more = f" and {others} more unknown {kind}" if others else ""
        return InputError(
            f"{where}: label {self._describe(code)} at row {row}, column {column} ({count} pixels){more};"
            f" the table knows {self._known()}",
            hint=f"its colors are those of the label table {fitting[0]}"
            if fitting
            else "is this the right label table for this file?",
        )

    def _known(self) -> str:
        codes = sorted([*self._codes, *self.ignore])
        if self.values is not None and len(codes) == codes[-1] - codes[0] + 1:
            return f"{codes[0]}..{codes[-1]}"
        listed = ", ".join(self._describe(code).split(" ", 1)[1] for code in codes[:12])
        return listed + (f" and {len(codes) - 12} more" if len(codes) > 12 else "")


def instance_ids(pixels: np.ndarray, where: str) -> np.ndarray:
    """The objects of an instance map, int64 [H,W].

    Raises:
        InputError: it holds colors.
    """
    if pixels.ndim != 2:
        raise InputError(f"{where}: an instance map must have one channel of whole numbers, found a color picture")
    return pixels.astype(np.int64)


def _whole(value: Any) -> int:
    """
    Raises:
        ValueError: the value, from a file, is no whole number.
    """
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(f"{value} is no whole number")
    return int(value)


def plain(num_classes: int, ignore: Sequence[int] = ()) -> LabelTable:
    """A table for files that store the class number itself, with colors that differ as much as possible."""
    names = tuple(f"class {index}" for index in range(num_classes))
    return LabelTable(names, distinct_colors(num_classes), tuple(range(num_classes)), tuple(ignore))


def distinct_colors(count: int) -> tuple[Color, ...]:
    """`count` different colors, each far from those just before it."""

    def color(index: int) -> Color:
        hue, brightness = index * _GOLDEN_RATIO % 1, (1.0, 0.7, 0.45)[index % 3]
        red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, brightness)
        return round(red * 255), round(green * 255), round(blue * 255)

    return tuple(color(index) for index in range(count))


def discover(sources: Iterable[Iterable[Frame]]) -> LabelTable:
    """A table made of the ids, or of the colors, that occur in label frames, in increasing order.

    Raises:
        InputError: there are more than 256 of them, ids and colors are mixed, or there is no frame.
    """
    codes: set[int] = set()
    colored: bool | None = None
    for frame in (frame for source in sources for frame in source):
        if colored not in (None, frame.pixels.ndim == 3):
            raise InputError(f"{frame.name}: {'colors' if not colored else 'ids'}, unlike the label files before it")
        colored = frame.pixels.ndim == 3
        for rows in _strips(frame.pixels):
            codes.update(np.unique(_packed(frame.pixels[rows])).tolist())
        if len(codes) > _MAX_DISCOVERED:
            raise InputError(
                f"{frame.name}: more than {_MAX_DISCOVERED} different {'colors' if colored else 'ids'}; label maps have few",
                hint="give a label table, and make sure that the files were never blurred or compressed",
            )
    if not codes:
        raise InputError("no label frames to learn the classes from")
    found = sorted(codes)
    if colored:
        return _painted([(code >> 16, code >> 8 & 255, code & 255) for code in found])
    return LabelTable(tuple(f"id {code}" for code in found), distinct_colors(len(found)), tuple(found))


def main_colors(sources: Iterable[Iterable[Frame]]) -> LabelTable:
    """A table of the colors that cover label pictures, the most frequent first; every other color means the nearest of them.

    For pictures of labels whose outlines were smoothed or compressed: colors close to a more frequent one count as that, and
    those that cover less than half a percent do not count.

    Raises:
        InputError: the files hold ids, no color covers that much, or there is no frame.
    """
    pixels: Counter[int] = Counter()
    num_pixels = 0
    for frame in (frame for source in sources for frame in source):
        if frame.pixels.ndim != 3:
            raise InputError(f"{frame.name}: holds ids, not colors", hint="for ids the table is discover, or num_classes")
        for rows in _strips(frame.pixels):
            shades, counts = np.unique(_packed(frame.pixels[rows]), return_counts=True)
            pixels.update(dict(zip(shades.tolist(), counts.tolist(), strict=True)))
        num_pixels += frame.pixels.shape[0] * frame.pixels.shape[1]
        if len(pixels) > _MAX_COUNTED:
            pixels = Counter(dict(pixels.most_common(_MAX_COUNTED // 2)))
    if not pixels:
        raise InputError("no label frames to learn the classes from")
    shares: dict[int, int] = {}
    for code, count in pixels.most_common(_MAX_SHADES):
        kept = np.array(list(shares), dtype=np.int64)
        distances = np.square(_channels(kept) - _channels(np.array([code]))).sum(-1)
        near = int(kept[distances.argmin()]) if len(kept) and distances.min() <= _SAME_COLOR_DISTANCE**2 else code
        shares[near] = shares.get(near, 0) + count
    least = _LEAST_SHARE * num_pixels
    found = [code for code, count in sorted(shares.items(), key=lambda item: -item[1]) if count >= least]
    if not found:
        raise InputError(
            "no color covers half a percent of the label pictures, as the color of a class would",
            hint="give pictures that are painted in one color for each class; photographs are none",
        )
    return replace(_painted([(code >> 16, code >> 8 & 255, code & 255) for code in found]), nearest=True)


def _painted(colors: Sequence[Color]) -> LabelTable:
    """A table for color-coded files."""
    return LabelTable(tuple(f"color {red},{green},{blue}" for red, green, blue in colors), tuple(colors), None)


def is_named(name: str) -> bool:
    """Whether `named` knows the table."""
    return name in NAMES or name in PALETTES


def named(name: str) -> LabelTable:
    """A table that comes with vidgen, for files of ids ("camvid") or for files of its colors ("palette:camvid").

    Where classes share a color, it means the first of them.

    Raises:
        InputError: no such table.
    """
    plain_name = name.removeprefix(_PALETTE)
    if name == _PALETTE + plain_name and plain_name in _WITHOUT_COLORS:
        raise InputError(f"label table {name!r}: {plain_name} has no colors of its own; its files hold ids")
    if plain_name not in NAMES:
        near = difflib.get_close_matches(plain_name, NAMES, n=1)
        hint = f"did you mean {name.removesuffix(plain_name)}{near[0]}?" if near else None
        raise InputError(f"label table {name!r}: not known; known are {KNOWN}", hint=hint)
    return _shipped(plain_name, name != plain_name)


def find(text: str) -> LabelTable:
    """The table that a person names: one that comes with vidgen, see `named`, or a file.

    Raises:
        InputError: it is neither, or the file is not a label table.
    """
    if is_named(text) or text.startswith(_PALETTE):
        return named(text)
    path = Path(paths.expanded(text))
    if not path.exists() and not path.suffix:
        return named(text)
    return LabelTable.from_file(path)


def matching_palettes(pixels: np.ndarray) -> list[str]:
    """The tables whose colors are all that a color-coded label map uint8 [H,W,3] holds, the smallest first."""
    codes = np.unique(_packed(pixels))
    if len(codes) > _MAX_DISCOVERED:
        return []
    tables = [(name, named(name)) for name in PALETTES]
    fitting = [(table.num_classes, name) for name, table in tables if np.isin(codes, table._lookup[0]).all()]
    return [name for _, name in sorted(fitting)]


def _strips(pixels: np.ndarray) -> Iterator[slice]:
    """The rows of a map in parts of about a million pixels: what is computed of them then needs little memory beside the map."""
    step = max(1, _STRIP_PIXELS // max(1, pixels.shape[1]))
    return (slice(top, top + step) for top in range(0, pixels.shape[0], step))


def _packed(pixels: np.ndarray) -> np.ndarray:
    wide = pixels.astype(np.int64)
    return wide if pixels.ndim == 2 else (wide[:, :, 0] << 16) + (wide[:, :, 1] << 8) + wide[:, :, 2]


def _channels(codes: np.ndarray) -> np.ndarray:
    """0xRRGGBB int64 [N] -> [N,3]."""
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=-1)


def _from_csv(text: str, *, colored: bool = False) -> LabelTable:
    """The table of a .csv; with `colored` that of files which hold the colors of its ids."""
    rows = list(csv.DictReader(io.StringIO(text), skipinitialspace=True))
    columns = set(rows[0]) if rows else set()
    if not columns >= {"name", "r", "g", "b"}:
        raise InputError("expected the columns name, id, r, g, b")
    has_ids = "id" in columns and not colored

    def code(row: dict[str, str]) -> int:
        return int(row["id"]) if has_ids else (int(row["r"]) << 16) + (int(row["g"]) << 8) + int(row["b"])

    classes = [row for row in rows if row["name"] != "ignore"]
    ignored = dict.fromkeys(code(row) for row in rows if row["name"] == "ignore")
    taken = set(map(code, classes)) if colored else set()
    return LabelTable(
        names=tuple(row["name"] for row in classes),
        colors=tuple((int(row["r"]), int(row["g"]), int(row["b"])) for row in classes),
        values=tuple(map(code, classes)) if has_ids else None,
        ignore=tuple(value for value in ignored if value not in taken),
        shares_colors=colored,
    )


@lru_cache
def _shipped(name: str, colored: bool) -> LabelTable:
    text = (_FOLDER / f"{name}.csv").read_text(encoding="utf-8")
    return _from_csv(text, colored=colored)


CITYSCAPES = named("cityscapes")
"""The 35 ids of Cityscapes; license plate is -1 there and 34 in maps of 35 classes."""

CAMVID = named("camvid")
"""CamVid in 12 ids, as Badrinarayanan et al. (SegNet, 2017) group its 32 classes."""

STREET = named("street")
"""The classes of the procedural street."""


def nearest_classes(names: Sequence[str], known: Sequence[str]) -> dict[int, int]:
    """For each class of `names` the one of `known` that has the same name or, where there is none, looks most alike; classes that
    nothing is like are left out.

    Example:
        >>> nearest_classes(["cyclist", "sky", "boat"], ["sky", "pedestrian"])
        {0: 1, 1: 0}
    """
    places = {name.lower(): index for index, name in reversed(list(enumerate(known)))}
    found = {}
    for index, name in enumerate(names):
        group = next((group for group in _ALIKE if name.lower() in group), ())
        place = next((places[other] for other in (name.lower(), *group) if other in places), None)
        if place is not None:
            found[index] = place
    return found
