"""Data sets as their authors lay them out, brought into the layout that training reads: a folder per role, equal names."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidgen import durable, progress
from vidgen.data.stills import find_stills
from vidgen.errors import InputError
from vidgen.media import images, labels, paths, video
from vidgen.media.drawings import draw_pose
from vidgen.media.frames import open_source
from vidgen.media.keypoints import OPENPOSE_SUFFIX, read_points

TABLE_NAME = "labels.json"
"""The label table in each part of an imported data set."""


@dataclass(frozen=True)
class Part:
    """One split of a data set, which becomes a root for training.

    Attributes:
        name: of its folder; empty where the data set has no splits.
        files: by their place in the root, such as `images/aachen/1.png`: the file that it is, or what gives the pixels of a PNG.
        table: what its label maps mean, by the name of a table that comes with vidgen.
        settings: keys of a training configuration that fit it.
        left_out: how many pictures have no partner.
    """

    name: str
    files: Mapping[str, Path | Callable[[], np.ndarray]]
    table: str | None
    settings: Mapping[str, str]
    left_out: int = 0


def read_layout(kind: str, folder: Path) -> list[Part]:
    """The splits of the data set in `folder`.

    Raises:
        InputError: the folder does not hold what `kind` says, or nothing in it has a partner.
    """
    if kind not in _READERS:
        raise InputError(f"data set {kind!r}: not known; known are {', '.join(KINDS)}")
    if not folder.is_dir():
        raise paths.missing(folder) if not folder.exists() else InputError(f"{paths.display(folder)}: is a file, not a folder")
    parts = [part for part in _READERS[kind](folder) if part.files]
    if not parts:
        held = ", ".join(paths.display(entry.name) for entry in paths.list_folder(folder)[:8]) or "nothing"
        raise InputError(f"{paths.display(folder)}: no {kind} data in it; expected {_EXPECTED[kind]}, found {held}")
    return parts


def write_layout(parts: Iterable[Part], out: Path, *, copy: bool = False) -> list[dict[str, Any]]:
    """Fill the new folder `out`, all or nothing: links to the files where they are, or copies of them.

    Returns:
        of each part its root, the number of files of each role, and how many pictures were left out.

    Raises:
        OutputError: `out` exists, or cannot be written.
    """
    parts = list(parts)
    with durable.claim([durable.Output(out, "folder")]), durable.replacing(out) as temporary:
        for part in parts:
            what = f"writing {part.name or out.name}"
            for place, content in progress.follow(part.files.items(), what, len(part.files)):
                target = temporary / part.name / place
                durable.operations.make_folder(target.parent)
                if not isinstance(content, Path):
                    images.write_png(target, content())
                elif copy or not _link(content, target):
                    shutil.copyfile(content, target)
            if part.table is not None:
                durable.write_json(temporary / part.name / TABLE_NAME, labels.named(part.table).to_dict())
    return [_describe(part, out) for part in parts]


def _describe(part: Part, out: Path) -> dict[str, Any]:
    root = out / part.name
    counts = Counter(place.partition("/")[0] for place in part.files)
    described: dict[str, Any] = {"root": str(root), **counts}
    if part.left_out:
        described["left_out"] = part.left_out
    if part.table is not None:
        described["label_table"] = part.table
    described["settings"] = [f"data.root={root}", *(f"{key}={value}" for key, value in part.settings.items())]
    return described


def _link(source: Path, target: Path) -> bool:
    """Whether a link to the file could be made; some systems refuse."""
    try:
        os.symlink(os.path.realpath(source), target)
    except (OSError, NotImplementedError):
        return False
    return True


_MAX_LIST_BYTES = 16 << 20

_CITYSCAPES_FILES = {"labelIds": "cityscapes", "labelTrainIds": "cityscapes_train_ids", "color": "palette:cityscapes"}
"""Endings of label maps, the first there is being the one to take, and the table of each."""


# --- the layouts ------------------------------------------------------------------------------------------------------------


def _cityscapes(folder: Path) -> Iterator[Part]:
    """Source: Cordts et al., 2016: leftImg8bit/SPLIT/CITY/*_leftImg8bit.png and gtFine/SPLIT/CITY with several files a frame."""
    pictures_at, labels_at = _below(folder, "leftImg8bit"), _below(folder, "gtFine") or _below(folder, "gtCoarse")
    if pictures_at is None or labels_at is None:
        return
    for split in _folders(pictures_at):
        if not (labels_at / split.name).is_dir():
            continue
        found = find_stills(labels_at / split.name)
        kinds = {table: _ending_with(found, f"_gt(Fine|Coarse)_{ending}") for ending, table in _CITYSCAPES_FILES.items()}
        table = next((table for table, files in kinds.items() if files), None)
        if table is None:
            continue
        roles = {"images": _ending_with(find_stills(split), "_leftImg8bit"), "labels": kinds[table]}
        instances = _ending_with(found, r"_gt(Fine|Coarse)_instanceIds")
        if instances:
            roles["instances"] = instances
        yield _part(split.name, roles, table)


def _cityscapes_sequence(folder: Path) -> Iterator[Part]:
    """Source: Cordts et al., 2016: leftImg8bit_sequence/SPLIT/CITY/*_leftImg8bit.png, snippets of 30, of which gtFine has one.

    Where every frame has a label map, as a segmentation of the whole sequence writes them, those are the condition. Otherwise the
    annotated frames go to `painted`, named by their position, for `labeling` to label the rest from.
    """
    pictures_at = _below(folder, "leftImg8bit_sequence")
    labels_at = _below(folder, "gtFine_sequence") or _below(folder, "gtFine")
    if pictures_at is None:
        return
    for split in _folders(pictures_at):
        maps: dict[str, Path] = {}
        table = None
        if labels_at is not None and (labels_at / split.name).is_dir():
            found = find_stills(labels_at / split.name)
            kinds = {table: _ending_with(found, f"_gtFine_{ending}") for ending, table in _CITYSCAPES_FILES.items()}
            table = next((table for table, files in kinds.items() if files), None)
            maps = kinds.get(table or "", {})
        snippets = _snippets(_ending_with(find_stills(split), "_leftImg8bit"))
        is_complete = all(name in maps for frames in snippets.values() for name in frames)
        files: dict[str, Path | Callable[[], np.ndarray]] = {}
        for snippet, frames in snippets.items():
            for position, (name, path) in enumerate(frames.items()):
                stem = name.rpartition("/")[2]
                files[f"images/{snippet}/{stem}{path.suffix.lower()}"] = path
                if name in maps:
                    place = f"labels/{snippet}/{stem}" if is_complete else f"painted/{snippet}/{position}"
                    files[f"{place}{maps[name].suffix.lower()}"] = maps[name]
        shown = {"data.condition.labels.table": TABLE_NAME} if is_complete else {"data.condition.edges": "{}"}
        yield Part(split.name, files, table, {"data.pairs": "sequences", **shown})


def _snippets(frames: Mapping[str, Path]) -> dict[str, dict[str, Path]]:
    """Frames CITY/CITY_SEQUENCE_FRAME whose numbers follow each other, by the name of the first."""
    found: dict[str, dict[str, Path]] = {}
    before: tuple[str, int] | None = None
    for name, path in frames.items():
        recording, _, number = name.rpartition("_")
        if not number.isdecimal():
            raise InputError(f"{paths.display(path)}: expected a name such as aachen_000000_000019_leftImg8bit.png")
        if before != (recording, int(number) - 1):
            snippet = found.setdefault(name.rpartition("/")[2], {})
        snippet[name] = path
        before = recording, int(number)
    return found


def _camvid(folder: Path) -> Iterator[Part]:
    """Source: Brostow et al., 2009: 701_StillsRaw_full and LabeledApproved_full; SegNet's copy: train and trainannot, and so on."""
    names = {entry.name: entry for entry in _folders(folder)}
    pairs = [("701_StillsRaw_full", "LabeledApproved_full", ""), ("images", "labels", "")]
    pairs += [(split, f"{split}{ending}", split) for split in ("train", "val", "test") for ending in ("annot", "_labels")]
    for pictures_name, labels_name, split in pairs:
        if pictures_name not in names or labels_name not in names:
            continue
        found = find_stills(names[labels_name])
        roles = {"images": find_stills(names[pictures_name]), "labels": _ending_with(found, "_L") or found}
        # The frames of a drive are numbered behind its name: 0016E5_07983.
        by_drive = {role: {_in_folder(name): path for name, path in items.items()} for role, items in roles.items()}
        yield _part(split, by_drive, _camvid_table(list(found.values())))


def _camvid_table(files: list[Path]) -> str:
    maps = [images.read_labels(path) for path in files[:: max(1, len(files) // 8)]]
    if all(pixels.ndim == 2 for pixels in maps):
        return "camvid"
    seen = np.unique(np.concatenate([np.unique(pixels.reshape(-1, 3), axis=0) for pixels in maps if pixels.ndim == 3]), axis=0)
    fitting = [name for name in labels.matching_palettes(seen[None]) if "camvid" in name]
    return "palette:camvid_32" if "palette:camvid_32" in fitting or not fitting else fitting[0]


def _ade20k(folder: Path) -> Iterator[Part]:
    """Source: Zhou et al., 2017: the SceneParse150 release, images/SPLIT/*.jpg and annotations/SPLIT/*.png."""
    pictures_at, labels_at = _below(folder, "images"), _below(folder, "annotations")
    if pictures_at is None or labels_at is None:
        return
    for split in _folders(pictures_at):
        if (labels_at / split.name).is_dir():
            yield _part(split.name, {"images": find_stills(split), "labels": find_stills(labels_at / split.name)}, "ade20k")


def _coco_stuff(folder: Path) -> Iterator[Part]:
    """Source: Caesar et al., 2018: images/SPLIT/*.jpg and stuffthingmaps (or annotations)/SPLIT/*.png; SPADE's copy: SPLIT_img, ...

    Maps that others renumbered, such as *_labelTrainIds.png, are left alone.
    """
    pictures_at = _below(folder, "images") or folder
    maps_at = _below(folder, "stuffthingmaps") or _below(folder, "annotations") or _below(folder, "pixelmaps")
    for split in _folders(pictures_at):
        if maps_at is not None and (maps_at / split.name).is_dir() and split.resolve() != (maps_at / split.name).resolve():
            maps = {name: path for name, path in find_stills(maps_at / split.name).items() if not name.endswith("_labelTrainIds")}
            yield _part(split.name, {"images": find_stills(split), "labels": maps}, "coco_stuff")
    names = {entry.name: entry for entry in _folders(folder)}
    for split_name in (name.removesuffix("_img") for name in names if name.endswith("_img")):
        if f"{split_name}_label" in names:
            roles = {"images": "_img", "labels": "_label", "instances": "_inst"}
            at = {role: names[split_name + ending] for role, ending in roles.items() if split_name + ending in names}
            yield _part(split_name, {role: find_stills(place) for role, place in at.items()}, "coco_stuff")


def _voc(folder: Path) -> Iterator[Part]:
    """Source: Everingham et al., 2012: JPEGImages, SegmentationClass, SegmentationObject, and ImageSets/Segmentation/SPLIT.txt."""
    names = ("JPEGImages", "SegmentationClass", "SegmentationObject", "ImageSets")
    root = next((place for place in _nested(folder) if all((place / name).is_dir() for name in names[:2])), None)
    if root is None:
        return
    at = {role: root / name for role, name in zip(("images", "labels", "instances"), names, strict=False) if (root / name).is_dir()}
    roles = {role: find_stills(place) for role, place in at.items()}
    lists = {path.stem: path for path in paths.list_folder(root / names[3] / "Segmentation")} if (root / names[3]).is_dir() else {}
    for split in ("train", "val"):
        if split in lists:
            listed = set(paths.read_bounded(lists[split], _MAX_LIST_BYTES).decode(errors="replace").split())
            yield _part(
                split, {role: {name: found[name] for name in found.keys() & listed} for role, found in roles.items()}, "voc"
            )
    if not {"train", "val"} & lists.keys():
        yield _part("", roles, "voc")


def _mapillary(folder: Path) -> Iterator[Part]:
    """Source: Neuhold et al., 2017: SPLIT/images/*.jpg, SPLIT/labels/*.png, SPLIT/instances/*.png, since 2.0 below SPLIT/v1.2."""
    for split in [place for near in _nested(folder) for place in _folders(near) if (place / "images").is_dir()]:
        maps_at = next((place for place in (split / "v1.2", split) if (place / "labels").is_dir()), None)
        if maps_at is not None:
            roles = {"images": find_stills(split / "images"), "labels": find_stills(maps_at / "labels")}
            if (maps_at / "instances").is_dir():
                roles["instances"] = find_stills(maps_at / "instances")
            yield _part(split.name, roles, "mapillary")


def _facades(folder: Path) -> Iterator[Part]:
    """Source: Isola et al., 2017: SPLIT/*.jpg, each the photo on the left and the drawing of its labels on the right."""
    splits = [entry for entry in _folders(folder) if entry.name in ("train", "val", "test")] or [folder]
    for split in splits:
        if not any(images.is_image(entry) for entry in paths.list_folder(split)):
            continue
        files: dict[str, Callable[[], np.ndarray]] = {}
        for name, path in find_stills(split).items():
            height, width = images.read_size(path)
            if width % 2:
                raise InputError(f"{paths.display(path)}: is {width}x{height}; two pictures side by side have an even width")
            files[f"images/{name}.png"] = _half(path, 0)
            files[f"drawings/{name}.png"] = _half(path, 1)
        settings = {"data.pairs": "stills", "data.condition.pictures": "[drawings]"}
        yield Part(split.name if split != folder else "", files, None, settings)


def _half(path: Path, side: int) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        picture = images.read_picture(path)
        middle = picture.shape[1] // 2
        return picture[:, side * middle : (side + 1) * middle]

    return read


def _openpose(folder: Path) -> Iterator[Part]:
    """Source: Cao et al., 2019: a file of keypoints for each frame of a folder of frames or of a video."""
    keypoints: dict[Path, list[Path]] = {}
    clips: dict[Path, list[Path]] = {}
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for path in sorted((Path(parent, name) for name in names if not name.startswith(".")), key=paths.natural_key):
            if path.name.endswith(OPENPOSE_SUFFIX):
                keypoints.setdefault(path.parent, []).append(path)
            elif video.is_video(path):
                clips[path] = [path]
            elif images.is_image(path):
                clips.setdefault(path.parent, []).append(path)
    # OpenPose's own renderings have the names of its files of keypoints; they are not the pictures.
    clips = {place: files for place, files in clips.items() if not all("_rendered" in path.stem for path in files)}
    files: dict[str, Path | Callable[[], np.ndarray]] = {}
    for place, frames in keypoints.items():
        partner = _clip_of(place, folder, clips, several=len(keypoints) > 1)
        name = partner.stem if partner.is_file() else partner.name
        files |= _posed(name, partner, clips[partner], frames)
    yield Part("", files, None, {"data.pairs": "sequences", "data.condition.pictures": "[openpose]"})


def _clip_of(place: Path, folder: Path, clips: Mapping[Path, list[Path]], *, several: bool) -> Path:
    """The folder of frames or the video that the keypoints in `place` belong to."""
    if place in clips:
        return place
    fitting = [
        clip for clip in clips if paths.comparable(clip.stem if clip.is_file() else clip.name) == paths.comparable(place.name)
    ]
    if len(clips) == 1 and not several:
        fitting = list(clips)
    if len(fitting) != 1:
        found = ", ".join(paths.display(clip.relative_to(folder)) for clip in clips) or "none"
        raise InputError(
            f"{paths.display(place)}: {len(fitting)} clips belong to these keypoints; expected one folder of frames or one video "
            f"called {paths.display(place.name)} (clips there: {found})"
        )
    return fitting[0]


def _posed(
    name: str, clip: Path, pictures: list[Path], keypoints: list[Path]
) -> Iterator[tuple[str, Path | Callable[[], np.ndarray]]]:
    """The files of one clip: its pictures, or the video, and a drawing for each frame."""
    source = open_source(clip)
    if clip.is_file():
        if len(keypoints) != source.count():
            raise InputError(f"{paths.display(clip)}: {source.count()} frames, but {len(keypoints)} files of keypoints")
        yield f"images/{name}{clip.suffix}", clip
        places = {path: f"{index:06d}" for index, path in enumerate(keypoints)}
    else:
        by_name = {paths.comparable(path.name.removesuffix(OPENPOSE_SUFFIX)): path for path in keypoints}
        partners = {path: by_name.get(paths.comparable(path.stem)) for path in pictures}
        alone = next((path for path, partner in partners.items() if partner is None), None)
        if alone is not None:
            raise InputError(f"{paths.display(alone)}: no keypoints belong to it; expected {alone.stem}{OPENPOSE_SUFFIX}")
        places = {partner: path.stem for path, partner in partners.items() if partner is not None}
        for path in pictures:
            yield f"images/{name}/{path.name}", path
    for path, stem in places.items():
        yield f"openpose/{name}/{stem}.png", _drawing(path, source.size)


def _drawing(path: Path, size: tuple[int, int]) -> Callable[[], np.ndarray]:
    return lambda: draw_pose(read_points(path)[0].people, size)


_READERS: dict[str, Callable[[Path], Iterator[Part]]] = {
    "cityscapes": _cityscapes,
    "cityscapes_sequence": _cityscapes_sequence,
    "camvid": _camvid,
    "ade20k": _ade20k,
    "coco_stuff": _coco_stuff,
    "voc": _voc,
    "mapillary": _mapillary,
    "facades": _facades,
    "openpose": _openpose,
}
_EXPECTED = {
    "cityscapes": "leftImg8bit/SPLIT/CITY/*_leftImg8bit.png and gtFine/SPLIT/CITY/*_gtFine_labelIds.png",
    "cityscapes_sequence": "leftImg8bit_sequence/SPLIT/CITY/*_leftImg8bit.png, beside it gtFine with label maps",
    "camvid": "701_StillsRaw_full and LabeledApproved_full, or train and trainannot (or train_labels)",
    "ade20k": "images/SPLIT/*.jpg and annotations/SPLIT/*.png",
    "coco_stuff": "images/SPLIT/*.jpg and stuffthingmaps/SPLIT/*.png (or annotations/SPLIT), or SPLIT_img and SPLIT_label",
    "voc": "JPEGImages and SegmentationClass",
    "mapillary": "training/images/*.jpg and training/labels/*.png (or training/v1.2/labels)",
    "facades": "train, val and test with pictures of two halves: the photo left, its drawing right",
    "openpose": f"files *{OPENPOSE_SUFFIX}, and the frames or the video that they belong to",
}

KINDS = tuple(_READERS)
"""The data sets that are read."""


# --- names ------------------------------------------------------------------------------------------------------------------


def _below(folder: Path, name: str) -> Path | None:
    """The folder of that name in `folder` or in one of its folders, as archives unpack it; or `folder` itself."""
    if folder.name == name:
        return folder
    candidates = [folder / name, *(entry / name for entry in _folders(folder))]
    return next((place for place in candidates if place.is_dir()), None)


def _nested(folder: Path) -> list[Path]:
    """The folder, the folders in it, and theirs, as archives unpack."""
    near = [folder, *_folders(folder)]
    return [*near, *(inner for entry in near[1:] for inner in _folders(entry))]


def _folders(folder: Path) -> list[Path]:
    return [entry for entry in paths.list_folder(folder) if entry.is_dir()]


def _ending_with(found: Mapping[str, Path], ending: str) -> dict[str, Path]:
    """Those whose names end so, under their names without it."""
    matches = ((re.fullmatch(f"(.+?){ending}", name, re.DOTALL), path) for name, path in found.items())
    return {match[1]: path for match, path in matches if match is not None}


def _in_folder(name: str) -> str:
    """The name in a folder that is called after what stands before its number."""
    start = name.rpartition("/")[2].rpartition("_")[0]
    return f"{start}/{name.rpartition('/')[2]}" if start else name


def _part(split: str, roles: Mapping[str, Mapping[str, Path]], table: str) -> Part:
    """The files of roles that share names; a picture without all its partners is left out."""
    by_role = {role: {paths.comparable(name): path for name, path in found.items()} for role, found in roles.items()}
    common = set.intersection(*(set(found) for found in by_role.values()))
    files: dict[str, Path | Callable[[], np.ndarray]] = {
        f"{role}/{name}{path.suffix.lower()}": path
        for role, found in by_role.items()
        for name, path in found.items()
        if name in common
    }
    settings = {"data.pairs": "stills", "data.condition.labels.table": TABLE_NAME}
    if "instances" in roles:
        settings["data.condition.instances"] = "instances"
    return Part(split, files, table, settings, len(by_role["images"]) - len(common))
