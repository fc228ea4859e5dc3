"""Label maps of a clip from a few painted frames."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

import vidgen
from tests.media_clips import write_clip
from vidgen import cli
from vidgen.commands import evaluate as evaluate_command
from vidgen.commands import label as command
from vidgen.errors import CheckpointError, ConfigError, InputError
from vidgen.labeling import head as head_module
from vidgen.labeling.clips import Labeling
from vidgen.labeling.head import FrameFeatures, TrainedHead
from vidgen.labeling.instances import InstanceTracker
from vidgen.labeling.motion import Evidence
from vidgen.labeling.painted import alignment, find_table, index_by_content, read_painted
from vidgen.labeling.parts import find_parts
from vidgen.labeling.refine import refine
from vidgen.labeling.writing import head_path, table_path
from vidgen.media import images, labels
from vidgen.media.frames import Frame, open_sink, open_source
from vidgen.media.labels import LabelTable
from vidgen.weights.files import pack

HEIGHT, WIDTH, LENGTH = 64, 96, 8
RATE = Fraction(1, 25)
COLORS = ((70, 130, 180), (90, 160, 60), (200, 40, 40))


def scene(time: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A red disk that rolls over grass under a sky, all with texture that moves along; picture and classes."""
    generator = np.random.default_rng(seed)
    texture = cv2.GaussianBlur(generator.uniform(-70, 70, (HEIGHT, WIDTH + 80, 1)).astype(np.float32), (0, 0), 1.2)
    classes = np.zeros((HEIGHT, WIDTH), np.int64)
    classes[HEIGHT // 2 :] = 1
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    classes[(rows - 34) ** 2 + (columns - 20 - 3 * time) ** 2 < 15**2] = 2
    shade = np.where(classes == 2, np.roll(texture, 3 * time, 1)[:, :WIDTH], texture[:, :WIDTH])
    picture = np.array(COLORS, np.float32)[classes] + shade[:, :, None]
    return picture.clip(0, 255).astype(np.uint8), classes


def write_scene(folder: Path, times: Sequence[int] = tuple(range(LENGTH)), seed: int = 0) -> Path:
    """A folder of pictures and beside it one of label maps of all of them."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "labels").mkdir(exist_ok=True)
    for time in times:
        picture, classes = scene(time, seed)
        images.write_png(folder / "images" / f"f{time:03d}.png", picture)
        images.write_png(folder / "labels" / f"f{time:03d}.png", classes.astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene of 8 frames."""
    return write_scene(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def labeled(clip: Path) -> dict[str, Labeling]:
    """The clip labeled from its first frame and from its last."""
    return {name: vidgen.label(clip / "images", [clip / "labels" / name]) for name in ("f000.png", "f007.png")}


def accuracy(labeling: object, folder: Path) -> float:
    maps = [images.read_labels(path) for path in sorted((folder / "labels").iterdir())]
    frames = list(labeling)  # type: ignore[call-overload]
    assert len(frames) == len(maps)
    return float(np.mean([(frame.classes == right).mean() for frame, right in zip(frames, maps, strict=True)]))


def test_one_painted_frame_labels_the_clip(clip: Path, labeled: dict[str, Labeling]) -> None:
    assert all(accuracy(labeling, clip) > 0.93 for labeling in labeled.values())


def test_a_painted_frame_stays_as_it_was_painted(clip: Path, labeled: dict[str, Labeling]) -> None:
    right = images.read_labels(clip / "labels" / "f007.png")
    last = list(labeled["f007.png"])[7]
    assert (last.classes == right).all()
    assert last.confidence.min() == 1


def test_the_command_writes_maps_table_head_and_report_that_other_commands_read(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels"
    result = command.label(
        str(clip / "images"),
        [str(clip / "labels" / "f000.png")],
        f"{out}/",
        suggest=2,
        confidence=str(tmp_path / "confidence.mkv"),
        overlay=str(tmp_path / "overlay.mp4"),
        instances=str(tmp_path / "objects.mkv"),
    )
    written = open_source(out, kind="labels")
    assert written.frame_names == tuple(f"f{time:03d}" for time in range(LENGTH))
    assert set(np.unique([frame.pixels for frame in written])) == {0, 1, 2}
    assert LabelTable.from_file(table_path(out)).values == (0, 1, 2)
    assert len(result["paint_next"]) == 2
    assert "f000" not in result["paint_next"]
    objects = open_source(tmp_path / "objects.mkv", kind="labels").read(0, LENGTH)
    assert objects[0].pixels.dtype == np.uint16
    assert {int(np.median(frame.pixels[30:38, 20 + 3 * time])) for time, frame in enumerate(objects)} == {2000}
    again = command.label(str(clip / "images"), [], str(tmp_path / "again.mkv"), head=head_path(out))
    assert again["frames"] == LENGTH
    assert again["painted"] == []
    repeated = open_source(tmp_path / "again.mkv", kind="labels").read(0, LENGTH)
    assert np.mean([(one.pixels == other.pixels).mean() for one, other in zip(repeated, written, strict=True)]) > 0.9


def test_the_same_seed_gives_the_same_labels(clip: Path, labeled: dict[str, Labeling]) -> None:
    again = vidgen.label(clip / "images", [clip / "labels" / "f000.png"])
    first, second = ([frame.classes for frame in labeling] for labeling in (labeled["f000.png"], again))
    assert all((one == other).all() for one, other in zip(first, second, strict=True))


def test_what_was_not_painted_is_learned_around(clip: Path, tmp_path: Path) -> None:
    painted = images.read_labels(clip / "labels" / "f004.png")
    painted[:, :20] = 255
    painted[:8] = 255
    images.write_png(tmp_path / "4.png", painted)
    assert accuracy(vidgen.label(clip / "images", [tmp_path / "4.png"]), clip) > 0.9


def test_colors_are_classes_and_smoothed_outlines_the_nearest_of_them(
    clip: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = LabelTable(("sky", "grass", "ball"), COLORS, None)
    painted = table.colorize(images.read_labels(clip / "labels" / "f004.png").astype(np.int64))
    large = cv2.resize(painted, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    smoothed = cv2.resize(large, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    smoothed = cv2.GaussianBlur(smoothed, (3, 3), 0.6)
    images.write_png(tmp_path / "4.png", smoothed)
    with caplog.at_level(logging.WARNING):
        found, known = read_painted([tmp_path / "4.png"], open_source(clip / "images"))
    assert known.num_classes == 3
    assert set(known.colors) == set(COLORS)
    assert "blended" in caplog.text
    order = [known.colors.index(color) for color in COLORS]
    right = np.array(order)[images.read_labels(clip / "labels" / "f004.png")]
    assert (found[0].classes == right).mean() > 0.98


def test_255_is_unpainted_beside_ids_and_a_class_beside_gray_levels() -> None:
    ids, levels = (np.array([row], np.uint8) for row in ([0, 1, 34, 255], [36, 115, 237, 255]))
    counted, gray = (find_table([Frame(pixels, 0, "x.png")]) for pixels in (ids, levels))
    assert (counted.values, counted.ignore) == ((0, 1, 34), (255,))
    assert (gray.values, gray.ignore) == ((36, 115, 237, 255), ())


def test_a_photograph_is_no_painted_frame(clip: Path) -> None:
    with pytest.raises(InputError, match="photograph"):
        find_table([Frame(scene(0)[0], 0, "photo.png")])


def test_a_painted_frame_of_another_size_is_refused(clip: Path, tmp_path: Path) -> None:
    images.write_png(tmp_path / "0.png", np.zeros((10, 12), np.uint8))
    with pytest.raises(InputError, match=r"0\.png: is 12x10, but .*images is 96x64"):
        vidgen.label(clip / "images", [tmp_path / "0.png"])


def test_a_number_that_the_clip_lacks_is_refused(clip: Path, tmp_path: Path) -> None:
    images.write_png(tmp_path / "44.png", scene(0)[1].astype(np.uint8))
    with pytest.raises(InputError, match=r"no frame of .* has the number 44; there are f000 to f007"):
        vidgen.label(clip / "images", [tmp_path / "44.png"])
    video = write_clip(tmp_path / "clip.mp4", [scene(time)[0] for time in range(LENGTH)])
    with pytest.raises(InputError, match="has the frames 0 to 7, and no frame 44"):
        vidgen.label(video, [tmp_path / "44.png"])


def test_two_painted_files_of_one_frame_are_refused(clip: Path, tmp_path: Path) -> None:
    for name in ("a3.png", "b3.png"):
        images.write_png(tmp_path / name, scene(3)[1].astype(np.uint8))
    with pytest.raises(InputError, match=r"b3\.png: is the same frame of the clip as .*a3\.png"):
        vidgen.label(clip / "images", [tmp_path / "a3.png", tmp_path / "b3.png"])


def test_a_name_without_number_is_placed_by_its_content(clip: Path, tmp_path: Path) -> None:
    images.write_png(tmp_path / "painted.png", scene(5)[1].astype(np.uint8))
    found, _ = read_painted([tmp_path / "painted.png"], open_source(clip / "images"))
    assert found[0].index == 5


def test_outlines_of_another_clip_fit_no_frame(clip: Path) -> None:
    other = np.zeros((HEIGHT, WIDTH), np.int64)
    other[5:20, 5:30] = 1
    assert alignment(scene(2)[1], scene(2)[0]) > alignment(other, scene(2)[0])
    with pytest.raises(InputError, match="fit no frame"):
        index_by_content(np.zeros((HEIGHT, WIDTH), np.int64), open_source(clip / "images"), "x.png")


def test_nothing_painted_is_refused(clip: Path, tmp_path: Path) -> None:
    images.write_png(tmp_path / "0.png", np.full((HEIGHT, WIDTH), 255, np.uint8))
    table = labels.plain(3, ignore=(255,))
    with pytest.raises(InputError, match="nothing is painted"):
        vidgen.label(clip / "images", [tmp_path / "0.png"], table=table)
    with pytest.raises(ConfigError, match="no painted frame"):
        command.label(str(clip / "images"), [], str(tmp_path / "out"))


def test_cuts_are_found_and_each_scene_is_labeled_from_its_own_frame(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = [scene(time) for time in range(6)]
    # Colors of the second scene mean something else: sky and grass have changed their names.
    second = [(255 - picture, np.array([1, 0, 2])[classes]) for picture, classes in (scene(time, 7) for time in range(6))]
    frames = [*first, *second]
    with open_sink(tmp_path / "clip.mkv", time_base=RATE, frame_rate=1 / RATE, quality="lossless") as sink:
        for index, (picture, _) in enumerate(frames):
            sink.write(picture, index)
    for index in (2, 8):
        images.write_png(tmp_path / f"{index}.png", frames[index][1].astype(np.uint8))
    with caplog.at_level(logging.INFO):
        labeling = vidgen.label(tmp_path / "clip.mkv", [tmp_path / "2.png", tmp_path / "8.png"])
    assert [list(part) for part in labeling.parts] == [list(range(6)), list(range(6, 12))]
    assert "cuts before frame 6" in caplog.text
    right = [(frame.classes == frames[frame.index][1]).mean() for frame in labeling]
    assert min(right) > 0.85


def test_a_flash_is_no_cut(tmp_path: Path) -> None:
    for index in range(10):
        picture = scene(index)[0]
        images.write_png(tmp_path / f"{index}.png", np.full_like(picture, 255) if index == 5 else picture)
    assert find_parts(open_source(tmp_path)) == [range(10)]


def test_a_head_file_that_is_none_is_refused(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "head.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"head\.safetensors"):
        vidgen.label(clip / "images", head=tmp_path / "head.safetensors")


def test_a_saved_head_answers_as_before(labeled: dict[str, Labeling], tmp_path: Path) -> None:
    labeling = labeled["f000.png"]
    labeling.head.save(tmp_path / "head.safetensors")
    loaded = TrainedHead.load(tmp_path / "head.safetensors", labeling.features)
    image = torch.linspace(-1, 1, 3 * 64 * 96).reshape(1, 3, 64, 96)
    assert torch.equal(labeling.head.probabilities(image, labeling.features), loaded.probabilities(image, labeling.features))
    assert loaded.table == labeling.table


def test_answers_add_up_to_1_at_a_quarter_of_the_size(labeled: dict[str, Labeling]) -> None:
    labeling = labeled["f000.png"]
    for height, width in ((64, 96), (96, 32), (384, 512)):
        image = torch.linspace(-1, 1, 3 * height * width).reshape(1, 3, height, width)
        shares = labeling.head.probabilities(image, labeling.features)
        assert shares.shape == (1, 3, height // 4, width // 4)
        assert shares.min() >= 0
        assert torch.allclose(shares.sum(1), torch.ones(()), atol=1e-5)


def test_a_head_of_an_earlier_format_is_refused(labeled: dict[str, Labeling], tmp_path: Path) -> None:
    head = labeled["f000.png"].head
    (tmp_path / "old.safetensors").write_bytes(pack(head.network.state_dict(), {**head.metadata(), "format": "1"}))
    with pytest.raises(CheckpointError, match="has format 1 on efficientnet_lite0; this version reads 2") as caught:
        TrainedHead.load(tmp_path / "old.safetensors", labeled["f000.png"].features)
    assert "label the clip anew" in str(caught.value.hint)


def test_parts_of_a_view_lie_alike_in_all_its_scales() -> None:
    rows, columns = torch.arange(96), torch.arange(128)
    places = (rows[:, None] * 1000 + columns)[None, None].float()
    taps = [F.interpolate(places, scale_factor=scale, mode="nearest") for scale in (1, 1 / 2, 1 / 4, 1 / 8)]
    generator = np.random.default_rng(0)
    for _ in range(8):
        part = head_module._View(taps, places[0].long()).part((6, 30), generator)
        assert [tuple(tap.shape[-2:]) for tap in part.taps] == [(48, 128), (24, 64), (12, 32), (6, 16)]
        assert (part.targets[0] == part.taps[0][0, 0]).all()
        assert len({int(tap[0, 0, 0, 0]) for tap in part.taps}) == 1


def test_enlarged_frames_are_cut_around_small_things_as_often_as_around_large_ones() -> None:
    painted = np.zeros((60, 80), np.int64)
    painted[:, :10] = -1
    painted[20:22, 50:53] = 1
    generator, shown = np.random.default_rng(0), []
    for _ in range(200):
        top, left = head_module._place(torch.from_numpy(painted), (960, 1280), (384, 512), generator)
        assert 0 <= top <= 960 - 384
        assert 0 <= left <= 1280 - 512
        shown.append(top <= 336 and top + 384 >= 336 and left <= 816 and left + 512 >= 816)
    assert np.mean(shown) > 0.5


def test_features_are_never_in_bf16() -> None:
    features = FrameFeatures.load()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert {tap.dtype for tap in features(torch.zeros(1, 3, 64, 96))} == {torch.float32}


def test_refined_outlines_follow_the_picture() -> None:
    picture = np.full((64, 96, 3), 40, np.uint8)
    picture[:, 43:] = 220
    shares = np.zeros((2, 32, 48), np.float32)
    shares[0, :, :23], shares[1, :, 23:] = 1, 1  # one small pixel too far to the right
    numbers, confidence = refine(shares, picture, radius=2)
    plain, _ = refine(shares, picture, radius=0)
    right = (np.arange(96) >= 43)[None].repeat(64, 0)
    assert (numbers == right).mean() > (plain == right).mean()
    assert confidence.min() >= 0
    assert confidence.max() <= 1


def test_evidence_adds_up_by_weight_and_survives_packing() -> None:
    one = Evidence(torch.tensor([1.0, 0.0])[None, :, None, None], torch.full((1, 1, 1, 1), 3.0))
    other = Evidence(torch.tensor([0.0, 1.0])[None, :, None, None], torch.full((1, 1, 1, 1), 1.0))
    both = one.plus(other)
    assert both.shares.flatten().tolist() == pytest.approx([0.75, 0.25])
    assert both.weight.item() == 4
    unpacked = Evidence.unpacked(one.packed(), 2)
    assert unpacked.shares.flatten().tolist() == [1, 0]
    assert unpacked.weight.item() == 3


# --- instances ------------------------------------------------------------------------------------------------------------


def disks(*places: tuple[int, int]) -> np.ndarray:
    """Class 1 in disks of radius 6 at (row, column), 0 elsewhere."""
    rows, columns = np.mgrid[:40, :80]
    classes = np.zeros((40, 80), np.int64)
    for row, column in places:
        classes[(rows - row) ** 2 + (columns - column) ** 2 <= 36] = 1
    return classes


def test_objects_keep_their_numbers_along_the_motion_and_through_each_other() -> None:
    tracker = InstanceTracker(labels.plain(2), counted=[1])
    still = np.zeros((2, 20, 40), np.float32)
    first = tracker(disks((20, 20), (20, 60)))
    left, right = first[20, 20], first[20, 60]
    assert {int(left), int(right)} == {1000, 1001}
    assert first[0, 0] == 0
    columns = range(24, 36, 4)
    for column in columns:  # both move towards the other by 4 pixels of the full size, 2 of the flow's
        flow = still.copy()
        flow[0, :, :20], flow[0, :, 20:] = -2, 2
        result = tracker(disks((20, column), (20, 80 - column)), flow)
        assert result[20, column] == left
        assert result[20, 80 - column] == right
    touching = tracker(disks((20, 35), (20, 45)), flow)
    assert touching[20, 33] == left
    assert touching[20, 47] == right


def test_what_appears_gets_a_new_number_and_after_a_cut_everything_does() -> None:
    tracker = InstanceTracker(labels.plain(2), counted=[1])
    still = np.zeros((2, 20, 40), np.float32)
    tracker(disks((20, 20)))
    assert set(np.unique(tracker(disks((20, 20), (20, 60)), still))) == {0, 1000, 1001}
    tracker.reset()
    assert set(np.unique(tracker(disks((20, 20)), still))) == {0, 1002}


def test_a_narrow_thing_in_front_leaves_one_object_and_a_wide_gap_makes_two() -> None:
    still = np.zeros((2, 20, 40), np.float32)
    whole = np.zeros((40, 80), np.int64)
    whole[15:25, 20:60] = 1
    for gap, count in ((slice(39, 41), 1), (slice(34, 46), 2)):
        tracker = InstanceTracker(labels.plain(2), counted=[1])
        tracker(whole)
        cut = whole.copy()
        cut[:, gap] = 0
        assert len(set(np.unique(tracker(cut, still))) - {0}) == count


def test_ids_without_room_for_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="16 bits"):
        InstanceTracker(LabelTable(("far",), ((1, 2, 3),), (200,)))


# --- evaluation -----------------------------------------------------------------------------------------------------------


def test_evaluation_judges_by_a_head_trained_on_the_real_frames(clip: Path) -> None:
    report = evaluate_command.run(
        str(clip / "images"),
        target=str(clip / "images"),
        label_maps=str(clip / "labels"),
        metrics="miou,pixel_acc,miou_target,pixel_acc_target",
        no_cache=True,
    )
    scores = {name: score.value for name, score in report.metrics.items()}
    assert scores["miou"] == scores["miou_target"] > 0.8
    assert scores["pixel_acc"] == scores["pixel_acc_target"] > 0.9


# --- the chain ------------------------------------------------------------------------------------------------------------


def test_from_one_painted_frame_to_a_translated_video_in_four_commands(clip: Path, tmp_path: Path) -> None:
    root, run = tmp_path / "mine", tmp_path / "run"
    (root / "images").mkdir(parents=True)
    write_clip(root / "images" / "ball.mp4", [scene(time)[0] for time in range(LENGTH)])
    maps = root / "labels" / "ball.mkv"
    images.write_png(tmp_path / "3.png", scene(3)[1].astype(np.uint8))
    assert cli.main(["-q", "label", str(root / "images" / "ball.mp4"), str(tmp_path / "3.png"), "-o", str(maps)]) == 0
    sets = (
        f"data.root={root}",
        "data.frames=null",
        f"data.condition.labels.table={table_path(maps)}",
        "data.width=96",
        "train.init=null",
        "data.height=64",
        "model.generator={kind: compact, base_channels: 4, max_generated: 0.35}",
    )
    words = [word for text in sets for word in ("--set", text)]
    assert cli.main(["-q", "train", "vid2vid/camvid_small", *words, "--steps", "2", "-o", str(run)]) == 0
    edited = [np.where(frame.pixels == 2, 1, frame.pixels).astype(np.uint8) for frame in open_source(maps, kind="labels")]
    with open_sink(tmp_path / "edited.mkv", time_base=RATE, frame_rate=1 / RATE, kind="labels") as sink:
        for index, ids in enumerate(edited):
            sink.write(ids, index)
    assert cli.main(["-q", "translate", str(run), str(tmp_path / "edited.mkv"), "-o", str(tmp_path / "out.mp4")]) == 0
    assert open_source(tmp_path / "out.mp4").count() == LENGTH


# --- real frames ----------------------------------------------------------------------------------------------------------


def test_a_street_is_labeled_from_its_first_frame(data_root: Path, tmp_path: Path) -> None:
    folder = data_root / "camvid"
    if not folder.is_dir():
        pytest.skip("no such clip")
    _pictures, maps = (sorted((folder / kind / "0016E5").iterdir()) for kind in ("images", "labels"))
    labeling = vidgen.label(f"{folder / 'images' / '0016E5'}[0:9]", [maps[0]])
    right = [(frame.classes == images.read_labels(maps[frame.index])).mean() for frame in labeling]
    assert len(right) == 9
    assert np.mean(right[1:]) > 0.93
