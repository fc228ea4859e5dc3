"""What a data set consists of and how a model's condition is made from it, as configurations say it. Needs no torch."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from vidgen.config import Settings
from vidgen.data.augment import AugmentSettings
from vidgen.errors import ConfigError
from vidgen.media import labels, lines
from vidgen.media.frames import FrameSource
from vidgen.media.labels import LabelTable

if TYPE_CHECKING:
    from vidgen.types import InputKind

Size = tuple[int, int]
"""(height, width) in pixels."""


@dataclass(frozen=True)
class FileInput:
    """An input of a model that comes from files.

    Attributes:
        name: how data sets, sessions and commands call it: labels, instances, edges, or the folder of a kind of picture.
        kind: as the translator declares it, which decides how its frames become tensors.
        folder: in a data set; None where it is found in the target itself.
    """

    name: str
    kind: InputKind
    folder: str | None

    @property
    def per_frame(self) -> bool:
        """Whether each frame has its own; one holds for the whole video otherwise."""
        return self.kind != "style_picture"

    @property
    def reading(self) -> Literal["labels", "pictures"]:
        """How its files are decoded."""
        return "labels" if self.kind in ("labels", "instances") else "pictures"

    @property
    def description(self) -> str:
        """For messages, such as "label maps" or "pictures of poses"."""
        fixed = {
            "labels": "label maps",
            "instances": "instance maps",
            "edges": "pictures to detect edges in",
            "lines": "line drawings",
            "style_picture": "a style picture",
            "sketch": "sketches",
        }
        return fixed.get(self.kind, f"pictures of {self.name}")


class LabelSettings(Settings):
    """Label maps as a condition."""

    folder: str = "labels"
    """Under the data's root: a folder of sequences, each a folder of PNG label maps or an FFV1 video."""
    table: str | None = None
    """What the values mean: an included table by name (cityscapes, cityscapes_train_ids, camvid, camvid_11, camvid_32, ade20k,
    coco_stuff, voc, mapillary, street; palette:NAME for files of its colors), a table file, discover (every id or color that
    occurs), or main_colors (the few main colors of antialiased pictures of labels); nothing for plain ids 0..num_classes-1."""
    num_classes: Annotated[int, Field(ge=1, le=65536)] | None = None
    ignore: tuple[int, ...] = ()
    """Values that belong to no class."""

    @model_validator(mode="after")
    def _one_meaning(self) -> LabelSettings:
        if self.table is None and self.num_classes is None:
            raise ValueError(
                "set table (a name such as cityscapes or palette:camvid, discover, main_colors or a file) or num_classes"
            )
        return self


class EdgeSettings(Settings):
    """Canny edges of the pictures as a condition."""

    low: Annotated[int, Field(ge=0, le=1000)] = 100
    high: Annotated[int, Field(ge=0, le=1000)] = 200
    blur: Annotated[float, Field(ge=0, le=20)] = 0.0
    """Standard deviation in pixels of a Gaussian that smooths the picture first."""
    drawn: Literal["apart", "over"] = "apart"
    """apart: in a channel of their own, white on black. over: in black over the pictures, and over label maps as pixels of no
    class (DeepSIM's super-primitive)."""


class LineSettings(Settings):
    """Line drawings as a condition: drawn from the target in training, read as they are in use.

    Every clip is drawn by a pen of its own, so that a model does not know one kind of lines alone.
    """

    methods: Annotated[tuple[lines.Method, ...], Field(min_length=1)] = lines.METHODS
    """xdog: dark lines and dark areas, as a pen inks them. high_pass: what is darker than its surroundings, paler and finer."""
    width: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(le=10)]] = (0.7, 1.3)
    """Least and greatest width of lines."""
    enlarge: Annotated[float, Field(ge=1, le=8)] = 2.0
    """They are drawn from the picture at up to this times the working size, since drawings in use are larger too."""
    strength: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(le=1)]] = (0.6, 1.0)
    """Palest and darkest ink."""

    @model_validator(mode="after")
    def _ordered(self) -> LineSettings:
        for name in ("width", "strength"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: {low} exceeds {high}; the smaller one comes first")
        return self

    def pen(self, generator: np.random.Generator) -> lines.Pen:
        """A pen for a clip."""
        method = self.methods[int(generator.integers(len(self.methods)))]
        width, strength = (float(generator.uniform(*ends)) for ends in (self.width, self.strength))
        return lines.Pen(method, width, float(generator.uniform(1, self.enlarge)), strength)

    @property
    def plain(self) -> lines.Pen:
        """The pen of samples and of validation."""
        return lines.Pen(self.methods[0], sum(self.width) / 2, self.enlarge)


class StyleSettings(Settings):
    """A picture whose style the whole video is to have. In training it is found in the target, and varied, so that it tells colors
    rather than where they are."""

    size: Annotated[int, Field(ge=8, le=1024)] = 224
    """Style pictures are brought to size x size, whatever their aspect."""
    source: Literal["frame", "sequence"] = "sequence"
    """frame: the clip's first frame itself. sequence: any frame of its sequence."""
    flip: bool = True
    """Mirror half of them."""
    warp: Annotated[float, Field(ge=0, le=0.5)] = 0.15
    """The control points of a thin-plate spline move by up to this part of the width and of the height."""
    smallest_part: Annotated[float, Field(gt=0, le=1)] = 0.7
    """A random part of the picture is taken, with sides of at least this share."""
    recolor: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Part of the clips whose frames and style picture are recolored together (hue, saturation, tint): where a data set has one
    look, a model learns from these that colors follow the style."""


class SketchSettings(Settings):
    """Drawings as a condition: the distance of every pixel to the nearest stroke."""

    folder: str | None = None
    """Folder of drawings, dark on light; without one, training draws edge maps of the target. Pictures of one name with -1, -2 at
    its end are several drawings of one target."""
    polarity: Literal["dark", "light"] = "dark"
    """Whether strokes are dark on light or light on dark."""
    detector: Literal["canny", "sobel"] = "canny"
    """What finds the edges of edge maps."""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 25 / 255
    """Strength from which on there is an edge; of sobel, as a part of the greatest."""
    min_pixels: Annotated[int, Field(ge=0)] = 12
    """Smaller lines of edge maps are removed, in pixels of a picture of 256."""


class ClassSettings(Settings):
    """The class of every picture as a condition: the folder that it lies in."""

    names: tuple[str, ...] = ()
    """Folders that are used, in the order of their numbers; all that there are by default."""


class PeopleSettings(Settings):
    """How pictures of people are varied in training, so that a model bears gaps: anew for every frame, the same for the same seed
    and step."""

    points: str | None = None
    """Folder under the root with the points that the pictures were drawn from: a folder of OpenPose JSON, or a COCO file, for each
    sequence. They are drawn anew in every step. Without one, the pictures are DensePose's."""
    drawn: Literal["all", "body", "hands"] = "all"
    """What of the people the pictures show."""
    drop: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Probability for each limb, each hand and each face, or each part of DensePose, to be left out."""
    remove_face: bool = False
    """Remove the face of DensePose pictures; move the head of drawn people by about 5 pixels, and their face by 2."""


class ConditionSettings(Settings):
    """Everything a model reads of a frame; empty for generators that read only noise."""

    labels: LabelSettings | None = None
    pictures: tuple[str, ...] = ()
    """Folders of pictures that are read as they are (pose drawings, line art), three channels each."""
    sketch: SketchSettings | None = None
    """Drawings, in a channel of their own."""
    classes: ClassSettings | None = None
    """The class of the whole picture; pictures then lie in one folder per class, under the folders of target and inputs."""
    edges: EdgeSettings | None = None
    """Edges detected in the target. Translation detects them in its input, or, where the model also reads labels or pictures,
    in the last of the other inputs."""
    instances: str | None = None
    """Folder of instance maps, of which the boundaries are read."""
    lines: LineSettings | None = None
    """Line drawings, one channel: in training they are drawn from the target."""
    style: StyleSettings | None = None
    """A style picture for the whole video, for models that read one."""

    @property
    def num_picture_channels(self) -> int:
        drawn = int(self.sketch is not None) + int(self.lines is not None)
        return 3 * len(self.pictures) + drawn + int(self.edges is not None and self.edges.drawn == "apart")

    @property
    def file_inputs(self) -> tuple[FileInput, ...]:
        """What is read from files, the main input first; none for generators that read only noise."""
        inputs = [FileInput("labels", "labels", self.labels.folder)] if self.labels else []
        inputs += [FileInput(folder, "picture", folder) for folder in self.pictures]
        inputs += [FileInput("lines", "lines", None)] if self.lines else []
        inputs += [FileInput("sketch", "sketch", self.sketch.folder)] if self.sketch else []
        inputs += [FileInput("edges", "edges", None)] if self.edges else []
        inputs += [FileInput("instances", "instances", self.instances)] if self.instances is not None else []
        inputs += [FileInput("style", "style_picture", None)] if self.style else []
        return tuple(inputs)

    @model_validator(mode="after")
    def _distinct_names(self) -> ConditionSettings:
        names = [item.name for item in self.file_inputs]
        double = next((name for name in names if names.count(name) > 1), None)
        if double is not None:
            raise ValueError(f"two inputs are called {double}; rename the folder of pictures")
        return self


def label_table(settings: LabelSettings, root: Path, sources: Sequence[FrameSource]) -> LabelTable:
    """The table that `settings` name; `sources` are read only to discover one.

    Raises:
        ConfigError: the name is neither built in nor a file.
    """
    if settings.table is None:
        assert settings.num_classes is not None
        return labels.plain(settings.num_classes, settings.ignore)
    if settings.table == "discover":
        return labels.discover(sources)
    if settings.table == "main_colors":
        return labels.main_colors(sources)
    if labels.is_named(settings.table):
        return labels.named(settings.table)
    for path in (Path(settings.table), root / settings.table):
        if path.is_file():
            return LabelTable.from_file(path)
    near = difflib.get_close_matches(settings.table, (*labels.NAMES, *labels.PALETTES, "discover", "main_colors"), n=1)
    raise ConfigError(
        f"data.condition.labels.table: {settings.table!r} is neither a file nor one of discover, main_colors, {labels.KNOWN}",
        hint=f"did you mean {near[0]}?" if near else None,
    )


class SourceSettings(Settings):
    """Another source of training pairs beside the first: other folders under the same root."""

    target: str | None = None
    """Folder of real pictures; that of the first source by default."""
    pictures: tuple[str, ...] | None = None
    """Folders of condition pictures, as many as in the first source."""
    labels: str | None = None
    """Folder of label maps with the classes of the first source."""
    sketches: str | None = None
    """Folder of drawings."""


class DataSettings(Settings):
    """Training data and how it is cut, resized and varied."""

    root: Path
    target: str = "images"
    """Folder (or a single file) under the root with the real pictures."""
    condition: ConditionSettings = ConditionSettings()
    """What the model reads; empty for generators that read only noise."""
    pairs: Literal["sequences", "stills", "side_by_side"] = "sequences"
    """sequences: folders of frames, or videos. stills: every picture is a sequence of its own, paired by name. side_by_side: so
    is every picture of `target`, and it holds two, A on the left and B on the right; a condition whose folder is `target` too
    (a picture, where none is named) is the other half."""
    direction: Literal["a_to_b", "b_to_a"] = "a_to_b"
    """Which half of side_by_side pictures is made from the other."""
    pattern: Mapping[str, str] = Field(default_factory=dict)
    """Which files of a folder are read, such as `labels: "*_labelIds.png"`, where it holds others too; by the name of the input
    (target, labels, instances, or the folder of pictures). The part that `*` stands for is the name by which files are paired."""
    sequences: tuple[str, ...] | None = None
    """Names of the sequences to use; all by default."""
    exclude: tuple[str, ...] = ()
    """Text files under the root that list single pictures to leave out, one name a line: a target with all its drawings, or one
    drawing; folders and suffixes may be left away. So Sketchy's info/testset.txt and info/invalid-error.txt."""
    frames: str | None = None
    """Part of every sequence to use, `first:stop` in frames, such as 0:70; of single pictures, the part of all of them."""
    held_out: str | None = None
    """Part of every sequence that training never sees, such as 70:80: at every checkpoint the distance of generated and real
    frames in the features of EfficientNet-Lite0 is logged, and the weights that come closest are kept as best.safetensors."""
    width: Annotated[int, Field(ge=8)] | None = None
    """Working width in pixels; the source's own, or that which follows the height, by default."""
    height: Annotated[int, Field(ge=8)] | None = None
    """Working height; by default it follows the width at each source's aspect, rounded to what the model needs."""
    fit: Literal["crop", "stretch"] = "crop"
    """Where width and height have another aspect than the frames: crop takes the largest part of that aspect from their middle,
    stretch distorts them."""
    crop_width: Annotated[int, Field(ge=8)] | None = None
    crop_height: Annotated[int, Field(ge=8)] | None = None
    """Size of a random crop, the same for all frames of a clip; no crop by default."""
    enlarge: Annotated[float, Field(ge=1, le=2)] = 1.0
    """Clips are enlarged by a random factor of up to this before the crop."""
    flip: bool = True
    """Mirror half of the clips. It doubles what there is to learn, so not where left and right differ for good: the hair of one
    person, a street that is driven on one side."""
    augment: AugmentSettings = AugmentSettings()
    """Deformations of clips; none by default."""
    people: Mapping[str, PeopleSettings] = Field(default_factory=dict)
    """Gaps and shifts in pictures of people, by the name of their folder: `openpose: {points: poses}`, `densepose: {}`."""
    sources: Mapping[str, SourceSettings] = Field(default_factory=dict)
    """Further sources by name; the schedule says which share of the samples comes from each, the rest from the first."""
    max_frame_step: Annotated[int, Field(ge=1)] = 1
    """Clips take every n-th frame, n drawn from 1 to this."""
    cache_mb: Annotated[int, Field(ge=0)] = 2048
    """Memory for decoded frames."""
    workers: Annotated[int, Field(ge=0, le=64)] = 1
    """Threads that prepare the next clips; 0 prepares each when it is needed."""

    @field_validator("frames", "held_out")
    @classmethod
    def _range(cls, value: str | None) -> str | None:
        if value is not None:
            parse_range(value)
        return value

    @model_validator(mode="after")
    def _kept_apart(self) -> DataSettings:
        if self.held_out is not None:
            if self.frames is None:
                raise ValueError(f"held_out: {self.held_out} needs frames too, so that training leaves them out")
            (first, stop, _), (start, end, _) = (parse_range(text).indices(1 << 62) for text in (self.frames, self.held_out))
            if first < end and start < stop:
                raise ValueError(f"held_out: {self.held_out} overlaps with frames {self.frames}")
        return self

    @model_validator(mode="after")
    def _people_of_videos(self) -> DataSettings:
        if self.people and self.pairs != "sequences":
            raise ValueError("people: varies the pictures of sequences; leave pairs at sequences")
        return self

    @model_validator(mode="after")
    def _class_folders(self) -> DataSettings:
        if self.condition.classes is not None and self.pairs == "sequences":
            raise ValueError("condition.classes: the folders of classes hold single pictures; set pairs to stills or side_by_side")
        if self.exclude and self.pairs == "sequences":
            raise ValueError("exclude: leaves out single pictures; set pairs to stills or side_by_side")
        return self

    @model_validator(mode="after")
    def _known_patterns(self) -> DataSettings:
        known = ["target", *(item.name for item in self.condition.file_inputs if item.folder is not None)]
        for name, pattern in self.pattern.items():
            if name not in known:
                raise ValueError(f"pattern: there is no input {name}; known are {', '.join(known)}")
            if pattern.count("*") != 1 or "/" in pattern:
                raise ValueError(f"pattern: {name}: {pattern!r} must be a file name with one *, such as *_labelIds.png")
        return self

    @model_validator(mode="after")
    def _other_half(self) -> DataSettings:
        shown = self.condition
        if self.pairs == "side_by_side" and self.target not in {item.folder for item in shown.file_inputs}:
            object.__setattr__(self, "condition", shown.model_copy(update={"pictures": (self.target, *shown.pictures)}))
        return self


def parse_range(text: str) -> slice:
    """`first:stop` (either may be missing) -> slice.

    Raises:
        ValueError: anything else.
    """
    parts = text.split(":")
    if len(parts) != 2 or not all(part == "" or part.isdecimal() for part in parts):
        raise ValueError(f"expected first:stop in frames, such as 0:70, got {text!r}")
    first, stop = (int(part) if part else None for part in parts)
    if stop is not None and stop <= (first or 0):
        raise ValueError(f"the range {text} is empty")
    return slice(first, stop)


def source_settings(settings: DataSettings, source: SourceSettings) -> DataSettings:
    """The settings of one further source."""
    condition = settings.condition
    if source.pictures is not None:
        condition = condition.model_copy(update={"pictures": source.pictures})
    if source.labels is not None and condition.labels is not None:
        condition = condition.model_copy(update={"labels": condition.labels.model_copy(update={"folder": source.labels})})
    if source.sketches is not None:
        if condition.sketch is None:
            raise ConfigError("data.sources: names sketches, but data.condition.sketch is not set")
        condition = condition.model_copy(update={"sketch": condition.sketch.model_copy(update={"folder": source.sketches})})
    changes = {"target": source.target or settings.target, "condition": condition, "sources": {}}
    if source.pictures is not None:
        changes["people"] = {}
    return settings.model_copy(update=changes)
