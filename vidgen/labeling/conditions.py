"""Any video as a condition video: its edges, lines or distances, or drawings of the points of people in it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from vidgen.errors import InputError
from vidgen.labeling.estimators import FETCH, PersonFinder
from vidgen.labeling.painted import frame_label
from vidgen.labeling.steadying import PointSteadier, Steadiness
from vidgen.media import drawings, edge_maps
from vidgen.media.conditions import canny_edges
from vidgen.media.drawings import PoseAugmentation
from vidgen.media.frames import FrameSource
from vidgen.media.keypoints import PointFrame, read_points

log = logging.getLogger(__name__)

Kind = Literal["edges", "edge-map", "lines", "distance", "pose", "body", "hands", "face", "densepose"]
OF_PICTURES = ("edges", "edge-map", "lines", "distance", "densepose")
OF_POINTS = ("pose", "body", "hands", "face")
KINDS = (*OF_PICTURES, *OF_POINTS)
NUM_FACE_PICTURES = 5
"""Pictures of three channels that hold the 15 channels of a face."""

_MAX_LISTED = 8


@dataclass(frozen=True)
class ConditionSettings:
    """How a condition is drawn.

    Attributes:
        kind: what is drawn.
        low, high, blur: of edges and distance, as for `vidgen.media.conditions.canny_edges`.
        line_width: of lines, in pixels.
        all_channels: of a face, all 15 channels in five pictures; otherwise the edges alone.
        crop: cut out the face's square, or the middle of a pose, as the published models were trained.
        drop: probability for each limb, hand and face to be left out, for training.
        remove_face: remove the face of DensePose pictures, and jitter the head of poses where `drop` is not 0.
        seed: of that randomness.
        steady: whether points are steadied over time; None where they are found in the frames, not where they are given.
        people: most people that are found in a frame.
        edge_network: of an edge map, weights of the edge detector HED; Canny by default.
    """

    kind: Kind
    low: float = 100
    high: float = 200
    blur: float = 0
    line_width: float = 1
    all_channels: bool = False
    crop: bool = False
    drop: float = 0
    remove_face: bool = False
    seed: int = 0
    steady: bool | None = None
    people: int = 1
    edge_network: Path | None = None


@dataclass(frozen=True)
class ConditionFrame:
    """The condition of one frame.

    Attributes:
        pictures: uint8 [H,W,3] each; one, or five for all channels of a face.
        frame: the frame itself, cropped alike, uint8 [H,W,3].
        parts: part labels of a face, uint8 [H,W]; None for other kinds.
        pts, duration: as the frame's.
        points: that it was drawn from, in pixels of the whole frame; None for what is drawn from pictures.
    """

    pictures: list[np.ndarray]
    frame: np.ndarray
    parts: np.ndarray | None
    pts: int
    duration: int | None
    points: PointFrame | None = None


@dataclass
class ConditionVideo:
    """A video as a condition; iterate over it once.

    Attributes:
        empty: frames, counted from 0, in which nobody was found; nothing is drawn there.
        steadiness: of the points, for kinds that are drawn from points.
    """

    source: FrameSource
    settings: ConditionSettings
    points: list[PointFrame] | PersonFinder | None
    empty: list[int] = field(default_factory=list)
    steadiness: Steadiness = field(default_factory=Steadiness)

    def __iter__(self) -> Iterator[ConditionFrame]:
        """Draw frame after frame.

        Raises:
            InputError: a frame cannot be read.
        """
        settings, box = self.settings, self._box()
        generator = np.random.default_rng(settings.seed)
        augmentation = PoseAugmentation(generator, settings.drop, settings.remove_face) if settings.drop else None
        steadier = PointSteadier(steady=self._is_steadied) if self.points is not None else None
        for index, frame in enumerate(self.source):
            parts, found = None, None
            if self.points is None:
                pictures = [draw_picture(frame.pixels, settings)]
            else:
                finder = self.points
                found = finder[index] if isinstance(finder, list) else finder.find(frame.pixels, frame.name)
                assert steadier is not None
                found = steadier(frame.pixels, found)
                self.steadiness = steadier.steadiness
                pictures, parts, is_empty = draw_points(found, frame.pixels, settings, augmentation)
                if is_empty:
                    self.empty.append(index)
            left, top, right, bottom = box or (0, 0, frame.pixels.shape[1], frame.pixels.shape[0])
            yield ConditionFrame(
                [np.ascontiguousarray(picture[top:bottom, left:right]) for picture in pictures],
                np.ascontiguousarray(frame.pixels[top:bottom, left:right]),
                None if parts is None else np.ascontiguousarray(parts[top:bottom, left:right]),
                frame.pts,
                frame.duration,
                found,
            )
        if self.empty:
            names = [frame_label(self.source, index) for index in self.empty]
            more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
            what = "face" if settings.kind == "face" else "person"
            log.warning(
                "%s: no %s in frames %s%s; nothing is drawn there", self.source.name, what, ", ".join(names[:_MAX_LISTED]), more
            )

    @property
    def _is_steadied(self) -> bool:
        chosen = self.settings.steady
        return isinstance(self.points, PersonFinder) if chosen is None else chosen

    def _box(self) -> tuple[int, int, int, int] | None:
        if not self.settings.crop:
            return None
        if self.settings.kind != "face":
            return drawings.pose_crop(self.source.size)
        first = next((found.landmarks for found in self._all_points() if found.landmarks is not None), None)
        if isinstance(self.points, PersonFinder):
            self.points.reset()
        if first is None:
            raise InputError(f"{self.source.name}: no frame has a face to crop to")
        return drawings.face_crop(first, self.source.size)

    def _all_points(self) -> Iterator[PointFrame]:
        assert self.points is not None
        if isinstance(self.points, list):
            yield from self.points
        else:
            yield from (self.points.find(frame.pixels, frame.name) for frame in self.source)


def draw_picture(pixels: np.ndarray, settings: ConditionSettings) -> np.ndarray:
    """What is drawn from a frame itself, uint8 [H,W,3] both."""
    if settings.kind == "densepose":
        return drawings.rescale_densepose(pixels, without_face=settings.remove_face)
    if settings.kind == "lines":
        return _in_color(drawings.line_art(pixels, settings.line_width))
    if settings.kind == "edge-map":
        return _in_color(edge_maps.edge_map(pixels, edge_map_options(settings.edge_network)))
    edges = canny_edges(pixels, settings.low, settings.high, settings.blur)
    return _in_color(drawings.edge_distance(edges) if settings.kind == "distance" else edges)


@lru_cache(maxsize=1)
def edge_map_options(edge_network: Path | None) -> edge_maps.EdgeMapOptions:
    """Edge maps by Canny, or as published by HED, which sees few textures, so that smaller lines stay.

    Raises:
        CheckpointError: the file does not hold its weights.
    """
    if edge_network is None:
        return edge_maps.EdgeMapOptions()
    import torch

    from vidgen.weights.pretrained import load_hed

    network = load_hed(edge_network)

    def detector(picture: np.ndarray) -> np.ndarray:
        pictures = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
        with torch.inference_mode():
            strengths: np.ndarray = network(pictures)[0, 0].numpy()
        return strengths

    return edge_maps.EdgeMapOptions(detector, min_pixels=5)


def draw_points(
    found: PointFrame, pixels: np.ndarray, settings: ConditionSettings, augmentation: PoseAugmentation | None = None
) -> tuple[list[np.ndarray], np.ndarray | None, bool]:
    """What is drawn from the points in a frame uint8 [H,W,3]: the drawings alike, part labels, and whether nothing was there."""
    size = (pixels.shape[0], pixels.shape[1])
    if settings.kind != "face":
        drawing = drawings.draw_pose(found.people, size, only=_ONLY[settings.kind], augmentation=augmentation)
        return [drawing], None, not drawing.any()
    landmarks = found.landmarks
    if landmarks is None:
        count = NUM_FACE_PICTURES if settings.all_channels else 1
        return [np.zeros((*size, 3), np.uint8)] * count, np.zeros(size, np.uint8), True
    face = drawings.draw_face(landmarks, size, pixels)
    if not settings.all_channels:
        return [_in_color(face.edges)], face.parts, False
    channels = face.channels.transpose(1, 2, 0)
    return [channels[:, :, start : start + 3] for start in range(0, 15, 3)], face.parts, False


_ONLY: dict[str, Literal["all", "body", "hands"]] = {"pose": "all", "body": "body", "hands": "hands"}


def open_condition(
    source: FrameSource, settings: ConditionSettings, points: str | Path | None = None, weights: Path | None = None
) -> ConditionVideo:
    """Get ready to draw the condition of a clip.

    Args:
        points: for kinds drawn from points, what `vidgen.media.keypoints.read_points` reads.
        weights: where there are no points, the file that finds them: see `vidgen.labeling.estimators`.

    Raises:
        InputError: points are missing or not wanted, cannot be read, or there are more or fewer of them than frames.
        CheckpointError: the file of the edge detector holds something else.
    """
    if settings.kind in OF_PICTURES:
        if points is not None or weights is not None:
            raise InputError(f"{settings.kind}: is drawn from the pictures and reads no points")
        if settings.edge_network is not None and settings.kind != "edge-map":
            raise InputError(f"{settings.kind}: is drawn without a network; `edge_network` is for edge-map")
        edge_map_options(settings.edge_network)
        return ConditionVideo(source, settings, None)
    if points is not None and weights is not None:
        raise InputError(
            f"{settings.kind}: points were given, so that none need be found", hint="give either `points` or `weights`"
        )
    if weights is not None:
        return ConditionVideo(source, settings, find_people(settings, weights))
    if points is None:
        raise InputError(
            f"{settings.kind}: is drawn from points, and none were given",
            hint="give OpenPose or COCO JSON, or text files of 68 landmarks, with `points`;"
            f" or the wheel that finds them with `weights` ({FETCH})",
        )
    found = read_points(points, source.frame_names)
    count = source.count()
    if len(found) != count:
        raise InputError(
            f"{found[0].name if found else points}: points of {len(found)} frames, but {source.name} has {count} frames",
            hint="each frame has one file of points; where nobody was found, it lists no people",
        )
    several = [index for index, item in enumerate(found) if len(item.people) > 1]
    if several and settings.kind == "face":
        log.warning("%s: %d frames hold several people; the first whole face is drawn", source.name, len(several))
    return ConditionVideo(source, settings, found)


def find_people(settings: ConditionSettings, weights: Path) -> PersonFinder:
    """What finds the points that are drawn.

    Raises:
        MissingExtraError, CheckpointError: as `PersonFinder`.
    """
    wanted = {"pose": ("body", "face", "hands"), "body": ("body",), "face": ("face",), "hands": ("hands",)}[settings.kind]
    return PersonFinder(weights, people=settings.people, **dict.fromkeys(wanted, True))


def _in_color(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[:, :, None], 3, axis=2)


def output_names(out: str, settings: ConditionSettings) -> Sequence[str]:
    """Names of the outputs: `out`, or five for all channels of a face, in folders numbered as training reads them.

    The number goes to the folder that holds the output: `data/face/clip1` becomes `data/face-1/clip1` to `data/face-5/clip1`.
    """
    if not (settings.kind == "face" and settings.all_channels):
        return [out]
    path = Path(out)
    numbers = range(1, NUM_FACE_PICTURES + 1)
    if path.parent.name:
        return [str(path.parent.with_name(f"{path.parent.name}-{number}") / path.name) for number in numbers]
    return [str(path.with_name(f"{path.stem}-{number}{path.suffix}")) for number in numbers]
