"""Training clips: paired, cut, varied and repeatable; data that do not fit are refused by name."""

from __future__ import annotations

import itertools
import shutil
import unicodedata
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests import tiny
from vidgen.commands.data import check, enforce, preview
from vidgen.commands.train import train
from vidgen.data.clips import Clips
from vidgen.data.sequences import find_sequences, find_table
from vidgen.data.settings import ConditionSettings, DataSettings, EdgeSettings, LabelSettings, SourceSettings, parse_range
from vidgen.errors import ConfigError, InputError, PartialFailure
from vidgen.media.frames import open_sink
from vidgen.media.images import write_png
from vidgen.media.labels import LabelTable
from vidgen.threads import in_order
from vidgen.types import Batch, Stage

STAGE = Stage("test", 10, 1e-3, 0.0, clip_frames=4, window_frames=2)
LABELS = ConditionSettings(labels=LabelSettings(num_classes=4))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tiny.write_data(tmp_path / "data")


def _no_flow(current: Tensor, previous: Tensor) -> Tensor:
    return torch.zeros(len(current), 2, *current.shape[-2:])


def _clips(root: Path, *, multiple: int = 4, seed: int = 0, condition: ConditionSettings = LABELS, **settings: object) -> Clips:
    data = DataSettings.model_validate({"root": root, "condition": condition, **settings})
    sequences = find_sequences(data)
    return Clips(data, sequences, find_table(data, sequences), seed=seed, size_multiple=multiple, flow=_no_flow)


def _batch(clips: Clips, step: int = 0, stage: Stage = STAGE) -> Batch:
    return clips.batch(stage, step, range(1), primer_frames=2, batch_size=1)


def test_a_batch_depends_on_seed_and_step_alone(root: Path) -> None:
    first, again, other = _clips(root), _clips(root), _clips(root, seed=1)
    _batch(again, 5), _batch(again, 2)
    assert torch.equal(_batch(first, 3).target, _batch(again, 3).target)
    assert any(not torch.equal(_batch(first, step).target, _batch(other, step).target) for step in range(4))


def test_what_the_cache_holds_is_read_once(root: Path) -> None:
    kept, anew = _clips(root, cache_mb=64), _clips(root, cache_mb=0)
    before = _batch(kept).target
    assert torch.equal(_batch(anew).target, before)
    shutil.rmtree(root / "images")
    assert torch.equal(_batch(kept).target, before)
    with pytest.raises(InputError):
        _batch(anew)


@pytest.mark.parametrize(
    ("num_frames", "most", "expected"), [(24, 1, {1}), (24, 2, {1, 2}), (24, 3, {1, 2, 3}), (7, 9, {1}), (11, 9, {1, 2})]
)
def test_frames_of_a_clip_lie_as_far_apart_as_is_allowed_and_fits(
    tmp_path: Path, num_frames: int, most: int, expected: set[int]
) -> None:
    for frame in range(num_frames):
        write_png(tmp_path / "images" / "a" / f"{frame:02d}.png", np.full((16, 16, 3), 10 * frame, np.uint8))
        write_png(tmp_path / "labels" / "a" / f"{frame:02d}.png", np.zeros((16, 16), np.uint8))
    clips = _clips(tmp_path, max_frame_step=most)
    seen = set()
    for step in range(40):
        shades = (_batch(clips, step).target[0].mean(dim=(1, 2, 3)) + 1) * 127.5 / 10
        assert len(shades) == 6
        seen |= {round(float(after - before)) for before, after in itertools.pairwise(shades)}
    assert seen == expected


def test_one_side_of_the_size_takes_the_other_along(root: Path) -> None:
    assert _clips(root, height=16).size == _clips(root, width=24).size == (16, 24)
    assert _clips(root, height=64).size == (64, 96)


def test_one_side_of_a_crop_is_a_crop(root: Path) -> None:
    assert _batch(_clips(root, crop_width=24)).target.shape[-2:] == (tiny.HEIGHT, 24)
    assert _batch(_clips(root, crop_height=16)).target.shape[-2:] == (16, tiny.WIDTH)
    with pytest.raises(ConfigError, match=r"data\.crop_width: 23 is not a multiple of 4"):
        _clips(root, crop_width=23)


def test_every_sequence_comes_once_an_epoch(root: Path) -> None:
    clips = _clips(root, flip=False)
    seen = [_batch(clips, step).condition.labels for step in range(2)]
    classes = {int(labels.max()) for labels in seen if labels is not None}
    assert classes == {2, 3}


def test_every_epoch_has_an_order_of_its_own(tmp_path: Path) -> None:
    for sequence in range(5):
        for frame in range(4):
            name = f"{sequence}/{frame}.png"
            write_png(tmp_path / "images" / name, np.full((32, 48, 3), 40 * sequence, np.uint8))
            write_png(tmp_path / "labels" / name, np.zeros((32, 48), np.uint8))

    def orders(seed: int) -> list[tuple[int, ...]]:
        clips = _clips(tmp_path, seed=seed)
        shades = [round((float(_batch(clips, step).target.mean()) + 1) * 127.5 / 40) for step in range(20)]
        return [tuple(shades[start : start + 5]) for start in range(0, 20, 5)]

    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in orders(0))
    assert len(set(orders(0))) > 2
    assert orders(0) != orders(1)


def test_labels_and_pictures_are_mirrored_and_cropped_together(root: Path) -> None:
    clips = _clips(root, crop_width=24, crop_height=16)
    mirrored = 0
    for step in range(12):
        batch = _batch(clips, step)
        assert batch.condition.labels is not None
        assert batch.target.shape[-2:] == (16, 24)
        brightness = batch.target.mean(2)
        for label in range(3):
            inside = batch.condition.labels == label
            if inside.any() and (~inside & (batch.condition.labels < label)).any():
                lower = batch.condition.labels < label
                assert brightness[inside].mean() > brightness[lower].mean()
        mirrored += not torch.equal(batch.target, _batch(_clips(root, crop_width=24, crop_height=16, flip=False), step).target)
    assert 0 < mirrored < 12


def test_the_reference_flow_of_a_clip_starts_with_zeros_that_nobody_trusts(root: Path) -> None:
    batch = _batch(_clips(root))
    assert batch.flow is not None
    assert batch.confidence is not None
    assert batch.flow.shape == (1, 6, 2, 32, 48)
    assert batch.confidence[:, 0].max() == 0
    assert set(batch.confidence.unique().tolist()) <= {0.0, 1.0}


def test_confidence_ends_where_channels_differ_by_a_tenth_of_the_range(tmp_path: Path) -> None:
    for index, value in enumerate((100, 100, 126)):  # 26 of 255 are 0.2 of the range -1..1, squared 0.04 > 0.02
        picture = np.full((32, 48, 3), 100, np.uint8)
        picture[:, 24:, 0] = value
        write_png(tmp_path / "images" / "a" / f"{index}.png", picture)
        write_png(tmp_path / "labels" / "a" / f"{index}.png", np.zeros((32, 48), np.uint8))
    batch = _clips(tmp_path).excerpt(0, 0, 3, 0)
    assert batch.confidence is not None
    assert batch.confidence[0, 1].min() == 1
    assert batch.confidence[0, 2, 0, :, :24].min() == 1
    assert batch.confidence[0, 2, 0, :, 24:].max() == 0


def test_frames_are_read_in_natural_order(tmp_path: Path) -> None:
    for index in range(1, 12):
        for role, pixels in (("images", np.full((32, 48, 3), index * 20, np.uint8)), ("labels", np.zeros((32, 48), np.uint8))):
            write_png(tmp_path / role / "a" / f"frame{index}.png", pixels)
    target = _clips(tmp_path).excerpt(0, 0, 11, 0).target[0, :, 0, 0, 0]
    assert target.tolist() == sorted(target.tolist())


def test_videos_serve_as_sequences(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    for role, writing in (("images", "pictures"), ("labels", "labels")):
        from vidgen.media.frames import open_source

        source = open_source(root / role / "clip0", kind=writing)  # type: ignore[arg-type]
        with open_sink(
            folder / role / "one.mkv",
            time_base=Fraction(1, 25),
            frame_rate=Fraction(25),
            kind=writing,  # type: ignore[arg-type]
            quality="lossless",
        ) as sink:
            for frame in source:
                sink.write(frame.pixels, frame.pts)
    from_video, from_folder = _clips(folder).excerpt(0, 2, 5, 2), _clips(root).excerpt(0, 2, 5, 2)
    assert torch.equal(from_video.condition.labels, from_folder.condition.labels)  # type: ignore[arg-type]
    assert (from_video.target - from_folder.target).abs().max() < 0.05


def test_edges_and_pictures_become_channels(root: Path) -> None:
    condition = ConditionSettings(labels=LabelSettings(num_classes=4), pictures=("images",), edges=EdgeSettings())
    batch = _clips(root, condition=condition).excerpt(0, 0, 3, 0)
    assert batch.condition.frames is not None
    assert batch.condition.frames.shape == (1, 3, condition.num_picture_channels, 32, 48)
    assert set(batch.condition.frames[:, :, 3].unique().tolist()) <= {-1.0, 1.0}


def test_a_generator_that_reads_only_noise_gets_a_condition_of_no_channels(root: Path) -> None:
    batch = _clips(root, condition=ConditionSettings()).excerpt(0, 0, 3, 0)
    assert batch.condition.frames is not None
    assert batch.condition.frames.shape == (1, 3, 0, 32, 48)


def test_a_model_that_reads_a_condition_refuses_data_that_show_none(root: Path, tmp_path: Path) -> None:
    config = tiny.write_config(tmp_path, root)
    config.write_text(config.read_text().replace("    labels: {num_classes: 4}", "    {}"))
    with pytest.raises(ConfigError, match=r"data.condition: is empty, but this model needs label maps"):
        train(config, tmp_path / "run")


def test_single_files_make_a_pair(tmp_path: Path) -> None:
    write_png(tmp_path / "image.png", np.full((32, 48, 3), 200, np.uint8))
    write_png(tmp_path / "labels.png", np.full((32, 48), 3, np.uint8))
    condition = ConditionSettings(labels=LabelSettings(folder="labels.png", num_classes=4))
    batch = _clips(tmp_path, target="image.png", condition=condition).excerpt(0, 0, 1, 0)
    assert batch.condition.labels is not None
    assert batch.condition.labels.unique().tolist() == [3]


def test_coarse_stages_get_smaller_frames(root: Path) -> None:
    stage = Stage("coarse", 1, 1e-3, 0.0, clip_frames=2, window_frames=2, size_divisor=2)
    assert _batch(_clips(root), stage=stage).target.shape[-2:] == (16, 24)


def test_a_part_of_the_frames_can_be_held_back(root: Path) -> None:
    clips = _clips(root, frames="2:8")
    assert [sequence.num_frames for sequence in clips.sequences] == [6, 6]
    whole = _clips(root)
    assert torch.equal(clips.excerpt(0, 0, 1, 0).target, whole.excerpt(0, 2, 1, 0).target)


@pytest.mark.parametrize("text", ["5", "a:b", "7:7", "9:3", "1:2:3", "-1:4"])
def test_a_range_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected first:stop|is empty"):
        parse_range(text)


def _drop_frame(root: Path) -> str:
    (root / "labels" / "clip0" / "003.png").unlink()
    return r"labels.clip0: its numbers do not match those of .*images.clip0; without a partner: 003.png of .*images.clip0"


def _drop_last_frame(root: Path) -> str:
    (root / "labels" / "clip0" / "009.png").unlink()
    return r"labels.clip0: its numbers do not match .*: 009.png of"


def _shorter_video(root: Path) -> str:
    shutil.rmtree(root / "labels" / "clip0")
    with open_sink(root / "labels" / "clip0.mkv", time_base=Fraction(1, 25), frame_rate=Fraction(25), kind="labels") as sink:
        for index in range(9):
            sink.write(np.zeros((32, 48), np.uint8), index)
    return r"clip0.mkv: 9 frames, but .*clip0 has 10"


def _drop_sequence(root: Path) -> str:
    shutil.rmtree(root / "labels" / "clip1")
    return r"images and labels do not match; without a partner: clip1"


def _drop_role(root: Path) -> str:
    shutil.rmtree(root / "labels")
    return r"labels: no such folder or file; .* holds images"


def _resize_label(root: Path) -> str:
    for path in (root / "labels" / "clip0").iterdir():
        write_png(path, np.zeros((16, 24), np.uint8))
    return r"labels.clip0.*is 24x16, but .*images.clip0.* is 48x32"


def _colour_label(root: Path) -> str:
    for path in (root / "labels" / "clip0").iterdir():
        write_png(path, np.zeros((32, 48, 3), np.uint8))
    return r"holds colors, but the label table knows ids"


def _read_all(root: Path) -> None:
    clips = _clips(root)
    for step in range(4):
        _batch(clips, step)


@pytest.mark.parametrize(
    "spoil", [_drop_frame, _drop_last_frame, _shorter_video, _drop_sequence, _drop_role, _resize_label, _colour_label]
)
def test_data_that_do_not_fit_are_refused_by_name(root: Path, spoil) -> None:  # type: ignore[no-untyped-def]
    message = spoil(root)
    with pytest.raises(InputError, match=message):
        _read_all(root)


def test_frames_with_gaps_at_different_places_are_never_paired_by_position(root: Path) -> None:
    (root / "images" / "clip0" / "005.png").unlink()
    (root / "labels" / "clip0" / "008.png").unlink()
    with pytest.raises(InputError, match=r"without a partner: 008.png of .*images.clip0 and 005.png of .*labels.clip0"):
        _clips(root)
    (root / "images" / "clip0" / "008.png").unlink()
    (root / "labels" / "clip0" / "005.png").unlink()
    assert [sequence.num_frames for sequence in _clips(root).sequences] == [8, 10]


def test_frames_counted_from_another_number_are_paired_in_order_and_it_is_said(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path in sorted((root / "labels" / "clip1").iterdir(), reverse=True):
        path.rename(path.with_name(f"map_{int(path.stem) + 1}.png"))
    caplog.set_level("WARNING", "vidgen")
    assert len(_clips(root).sequences) == 2
    assert "begins with map_1.png, but" in caplog.text


def test_a_pattern_says_which_files_of_a_folder_are_read(tmp_path: Path) -> None:
    for frame in range(6):
        write_png(tmp_path / "leftImg8bit" / "a" / f"a_{frame}_leftImg8bit.png", np.full((32, 48, 3), 90, np.uint8))
        for ending, value in (("labelIds", 1), ("instanceIds", 2001), ("labelTrainIds", 3)):
            write_png(tmp_path / "gtFine" / "a" / f"a_{frame}_gtFine_{ending}.png", np.full((32, 48), value, np.uint16))
    condition = {"labels": {"folder": "gtFine", "num_classes": 4}, "instances": "gtFine"}
    pattern = {"labels": "*_gtFine_labelIds.png", "instances": "*_gtFine_instanceIds.png"}
    for pairs, settings in (("sequences", {}), ("stills", {"target": "*_leftImg8bit.png"})):
        clips = _clips(tmp_path, target="leftImg8bit", condition=condition, pattern={**pattern, **settings}, pairs=pairs)  # type: ignore[arg-type]
        frames = clips.sequences[0].read(0)
        values = {name: frame.pixels.flat[0] for name, frame in frames.items()}
        assert values == {"target": 90, "labels": 1, "instances": 2001}
    assert [sequence.name for sequence in clips.sequences] == [f"a/a_{frame}" for frame in range(6)]
    with pytest.raises(InputError, match=r"no file in it fits data.pattern.labels: \*_x.png"):
        _clips(tmp_path, target="leftImg8bit", condition=condition, pattern={"labels": "*_x.png"})  # type: ignore[arg-type]


def test_a_pattern_of_what_the_model_does_not_read_is_refused(root: Path) -> None:
    with pytest.raises(ValueError, match="there is no input depth; known are target, labels"):
        _clips(root, pattern={"depth": "*.png"})
    with pytest.raises(ValueError, match=r"must be a file name with one \*"):
        _clips(root, pattern={"labels": "labels.png"})


def test_names_are_equal_however_their_accents_are_stored(root: Path) -> None:
    (root / "images" / "clip1").rename(root / "images" / unicodedata.normalize("NFC", "café"))
    (root / "labels" / "clip1").rename(root / "labels" / unicodedata.normalize("NFD", "café"))
    name = unicodedata.normalize("NFD", "café")
    assert [sequence.num_frames for sequence in _clips(root, sequences=(name,)).sequences] == [10]


def test_frames_of_another_aspect_than_width_and_height_are_cropped_and_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    picture = np.full((96, 48, 3), 10, np.uint8)
    picture[36:60] = 250
    ids = np.zeros((96, 48), np.uint8)
    ids[36:60] = 3
    for frame in range(6):
        write_png(tmp_path / "images" / "tall" / f"{frame}.png", picture)
        write_png(tmp_path / "labels" / "tall" / f"{frame}.png", ids)
    caplog.set_level("WARNING", "vidgen")
    batch = _batch(_clips(tmp_path, width=48, height=24))
    assert batch.condition.labels is not None
    assert batch.condition.labels.unique().tolist() == [3]
    assert batch.target.unique().tolist() == pytest.approx([250 / 127.5 - 1])
    assert "tall: is 48x96; data.width and data.height have another aspect, so only its middle 48x24 is used" in caplog.text
    caplog.clear()
    stretched = _batch(_clips(tmp_path, width=48, height=24, fit="stretch"))
    assert stretched.condition.labels is not None
    assert stretched.condition.labels.unique().tolist() == [0, 3]
    assert not caplog.text


def test_a_size_that_only_rounds_the_aspect_crops_nothing(tmp_path: Path) -> None:
    for role, shape in (("images", (100, 151, 3)), ("labels", (100, 151))):
        for frame in range(6):
            write_png(tmp_path / role / "a" / f"{frame}.png", np.zeros(shape, np.uint8))
    assert _clips(tmp_path, width=48, height=32).sequences[0].target.size == (100, 151)


def test_a_width_that_the_model_cannot_take_names_the_next_that_it_can(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.width: 50 is not a multiple of 8.*try 48"):
        _clips(root, multiple=8, width=50)


def test_a_sequence_too_short_to_learn_from_is_refused(root: Path) -> None:
    with pytest.raises(InputError, match=r"has 2 frames; this model needs at least 3"):
        _batch(_clips(root, frames="0:2"))


def test_a_short_sequence_does_not_shorten_the_clips_of_the_others(root: Path) -> None:
    for role in ("images", "labels"):
        for path in sorted((root / role / "clip1").iterdir())[4:]:
            path.unlink()
    lengths = {_batch(_clips(root), step).target.shape[1] for step in range(2)}
    assert lengths == {4, 6}


def test_an_unknown_sequence_name_is_refused_with_those_there_are(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"'clip7' is not among clip0, clip1"):
        _clips(root, sequences=["clip7"])


def test_the_working_size_follows_the_width_at_the_aspect_of_the_source(root: Path) -> None:
    assert _clips(root, multiple=8, width=96).size == (64, 96)
    assert _clips(root, multiple=32).size == (32, 64)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_preparing_ahead_keeps_the_order_and_passes_errors_on(workers: int) -> None:
    assert list(in_order(lambda key: key * 2, iter(range(10)), workers)) == list(range(0, 20, 2))

    def fails(key: int) -> int:
        if key == 3:
            raise InputError("frame 3 is broken")
        return key

    items = in_order(fails, iter(range(10)), workers)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InputError, match="frame 3"):
        next(items)


def test_data_check_counts_and_writes_a_table_that_training_takes(root: Path, tmp_path: Path) -> None:
    table_file = tmp_path / "labels.json"
    report = check(root, write_labels=table_file)
    roles = {role["role"]: role for role in report["roles"]}
    assert (roles["images"]["holds"], roles["images"]["frames"]) == ("pictures", 20)
    assert list(roles["labels"]["classes"]) == ["id 0", "id 1", "id 2", "id 3"]
    assert LabelTable.from_file(table_file).num_classes == 4
    config = tiny.write_config(tmp_path, root)
    text = config.read_text().replace("{num_classes: 4}", f"{{table: {table_file}}}")
    config.write_text(text)
    assert train(config, tmp_path / "run", steps=1)["steps"] == 1


def test_data_check_lists_what_does_not_fit(root: Path) -> None:
    _drop_frame(root)
    shutil.rmtree(root / "labels" / "clip1")
    report = check(root)
    first, second = report["faults"]
    assert "without a partner: clip1" in first
    assert "without a partner: 003.png" in second
    with pytest.raises(PartialFailure, match=r"data: 2 faults; training would refuse"):
        enforce(report)


def test_data_preview_draws_a_row_per_sequence_of_each_role(root: Path, tmp_path: Path) -> None:
    assert preview(root, tmp_path / "sheet.png")["rows"] == 4
    assert (tmp_path / "sheet.png").stat().st_size > 1000


def test_a_mixture_takes_its_share_from_each_source_as_the_stage_goes_on(tmp_path: Path) -> None:
    for folder, value in (("edges", 10), ("sketches", 200)):
        for clip in ("a", "b"):
            write_png(tmp_path / folder / clip / "0.png", np.full((32, 48, 3), value, np.uint8))
            write_png(tmp_path / "images" / clip / "0.png", np.full((32, 48, 3), 90, np.uint8))
    settings = DataSettings(
        root=tmp_path,
        condition=ConditionSettings(pictures=("edges",)),
        sources={"sketches": SourceSettings(pictures=("sketches",))},
    )
    clips = Clips(settings, find_sequences(settings), None, seed=3, size_multiple=8, flow=None)
    stage = Stage("mixed", 100, 1e-3, 1e-3, mixture={"sketches": (0.0, 1.0)})

    def share(progress: float) -> float:
        batches = [clips.batch(stage, step, range(2), primer_frames=0, batch_size=2, progress=progress) for step in range(60)]
        values = torch.cat([batch.condition.frames[:, 0, 0, 0, 0] for batch in batches if batch.condition.frames is not None])
        return (values > 0).float().mean().item()

    assert share(0.0) == 0
    assert share(1.0) == 1
    assert share(0.5) == pytest.approx(0.5, abs=0.15)
    assert share(0.5) == share(0.5)


def test_a_mixture_of_a_source_that_does_not_exist_is_named(tmp_path: Path) -> None:
    write_png(tmp_path / "images" / "a" / "0.png", np.zeros((32, 48, 3), np.uint8))
    settings = DataSettings(root=tmp_path, condition=ConditionSettings(pictures=("images",)))
    clips = Clips(settings, find_sequences(settings), None, seed=0, size_multiple=8, flow=None)
    stage = Stage("mixed", 10, 1e-3, 1e-3, mixture={"sketches": (1.0, 1.0)})
    with pytest.raises(ConfigError, match=r"data\.sources: the schedule takes samples from 'sketches', but there are none"):
        clips.batch(stage, 0, range(1), primer_frames=0, batch_size=1)
