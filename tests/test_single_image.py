"""Pictures and clips from a single one, over patches and over trained models; input that is odd."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import tiny
from vidgen.commands.train import train
from vidgen.errors import CheckpointError, ConfigError, InputError
from vidgen.media import images
from vidgen.media.frames import FrameSink, open_sink
from vidgen.media.pixels import to_tensor
from vidgen.networks.patches import Matching
from vidgen.single_image import budget, library, training
from vidgen.single_image.clips import clip_variation, loop_gap
from vidgen.single_image.models import Patches, Trained, _range_of_colors, _reach
from vidgen.single_image.options import Shape, SingleImageOptions, Walk
from vidgen.single_image.pictures import Picture, contact_sheet, difference_mask, read_mask, read_picture


def landscape(height: int = 30, width: int = 36, seed: int = 0) -> np.ndarray:
    """Sky over ground, with texture; uint8 [H,W,3]."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 50, (height, width, 3)).astype(np.uint8)
    pixels[: height // 2] += np.array([40, 90, 180], np.uint8)
    pixels[height // 2 :] += np.array([60, 130, 20], np.uint8)
    return pixels


def still(opacity: np.ndarray | None = None, **options) -> Picture:
    return Picture(landscape(**options), opacity, "still")


QUICK = Matching(num_iterations=2)


# What is read


def saved(path: Path, image: Image.Image, **options) -> Path:
    image.save(path, **options)
    return path


def test_grey_palette_and_sixteen_bit_pictures_are_read_as_colours(tmp_path):
    grey = np.arange(20 * 24, dtype=np.uint8).reshape(20, 24)
    rgb = np.repeat(grey[:, :, None], 3, axis=2)
    for name, image in {
        "grey.png": Image.fromarray(grey),
        "palette.png": Image.fromarray(grey).convert("P"),
        "deep.png": Image.fromarray(grey.astype(np.uint16) * 257),
    }.items():
        picture = read_picture(saved(tmp_path / name, image))
        assert np.array_equal(picture.pixels, rgb), name
        assert picture.opacity is None


def test_transparent_parts_lie_over_white_and_keep_their_opacity(tmp_path):
    pixels = np.zeros((20, 24, 4), np.uint8)
    pixels[:, 12:, 3] = 255
    picture = read_picture(saved(tmp_path / "a.png", Image.fromarray(pixels)))
    assert picture.pixels[0, 0].tolist() == [255, 255, 255]
    assert picture.pixels[0, 20].tolist() == [0, 0, 0]
    assert picture.opacity is not None
    assert picture.opacity[0].tolist() == [0] * 12 + [255] * 12
    opaque = np.full((20, 24, 4), 255, np.uint8)
    assert read_picture(saved(tmp_path / "b.png", Image.fromarray(opaque))).opacity is None


def test_a_rotated_photograph_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read_picture(saved(tmp_path / "r.jpg", Image.new("RGB", (40, 20)), exif=exif)).size == (40, 20)


def test_of_an_animated_gif_the_first_frame_is_taken_and_that_is_said(tmp_path, caplog):
    caplog.set_level("INFO")
    frames = [Image.new("RGB", (24, 20), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    red = read_picture(tmp_path / "a.gif").pixels[10, 10]
    assert red[0] > 200
    assert red[2] < 50
    assert "its first frame is taken" in caplog.text


def test_a_large_photograph_is_downscaled_and_that_is_said(tmp_path, caplog):
    caplog.set_level("INFO")
    path = saved(tmp_path / "größe 大.jpg", Image.new("RGB", (4000, 3000), "green"))
    assert read_picture(path).downscaled(250).size == (188, 250)
    assert "worked at 250x188, downscaled from 4000x3000" in caplog.text


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((1, 1), "1x1; at least 16x16 pixels are needed"),
        ((3, 2000), "3x2000; at least 16x16"),
        ((20, 4000), "20x4000 downscaled to 1x250; at least 16x16 pixels are needed"),
    ],
)
def test_a_picture_too_small_to_learn_from_is_refused_in_one_line(tmp_path, size, message):
    path = saved(tmp_path / "small.png", Image.new("RGB", size))
    with pytest.raises(InputError, match=re.escape(message)):
        read_picture(path).downscaled(250)


def test_a_file_that_is_no_picture_is_refused(tmp_path):
    (tmp_path / "x.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"x\.png: not a picture"):
        read_picture(tmp_path / "x.png")


def test_masks_are_white_where_and_as_large_as_the_picture(tmp_path):
    mask = np.zeros((20, 24), np.uint8)
    mask[5:9, 7:9] = 255
    assert np.array_equal(read_mask(saved(tmp_path / "m.png", Image.fromarray(mask)), (20, 24)), mask > 0)
    with pytest.raises(InputError, match="24x20, but the picture it belongs to is 30x30"):
        read_mask(tmp_path / "m.png", (30, 30))
    with pytest.raises(InputError, match="black everywhere"):
        read_mask(saved(tmp_path / "black.png", Image.new("L", (24, 20))), (20, 24))


def test_a_mask_is_found_where_pictures_differ():
    original = landscape()
    changed = original.copy()
    changed[8:16, 10:20] = 255
    mask = difference_mask(changed, original)
    assert mask[8:16, 10:20].all()
    assert mask.sum() == 80
    with pytest.raises(InputError, match="nothing to blend in"):
        difference_mask(original, original)
    with pytest.raises(InputError, match="36x15, the original 36x30"):
        difference_mask(original[:15], original)


def test_the_same_content_has_the_same_fingerprint_whatever_its_name():
    assert still().sha256 == Picture(landscape(), None, "other").sha256
    assert still().sha256 != still(seed=1).sha256
    assert still().sha256 != still(opacity=np.zeros((30, 36), np.uint8)).sha256


# What is made


def test_samples_have_any_size_and_differ_by_seed():
    patches = Patches(still(), matching=QUICK)
    first, second = patches.sample(2, size=(40, 24), seed=3)
    assert first.shape == (40, 24, 3)
    assert not np.array_equal(first, second)
    assert np.array_equal(first, next(patches.sample(1, size=(40, 24), seed=3)))


def test_the_sky_stays_above_the_ground():
    generated = next(Patches(still(height=48, width=60)).sample(1)).astype(int)
    assert generated[:12, :, 2].mean() > generated[-12:, :, 2].mean() + 60


def test_a_finer_start_keeps_more_of_the_picture():
    picture = still(height=64, width=64)
    patches = Patches(picture, matching=QUICK)
    free, close = (next(patches.sample(1, start_scale=scale)).astype(int) for scale in (0, patches.num_scales - 1))
    assert np.abs(close - picture.pixels).mean() < np.abs(free - picture.pixels).mean()


def test_a_scale_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="start scale 9: this picture has scales 0 to"):
        next(Patches(still()).sample(1, start_scale=9))


def test_samples_of_a_transparent_picture_are_transparent():
    opacity = np.zeros((30, 36), np.uint8)
    opacity[:, 18:] = 255
    pixels = landscape()
    pixels[:, :18] = 255
    generated = next(Patches(Picture(pixels, opacity, "still"), matching=QUICK).sample(1))
    assert generated.shape == (30, 36, 4)
    assert 0.1 < (generated[:, :, 3] > 127).mean() < 0.9


@pytest.mark.parametrize("loop", [True, False])
def test_an_animation_begins_with_the_picture_and_a_loop_closes(loop):
    picture = still(height=40, width=48)
    frames = list(Patches(picture, matching=QUICK).animate(Walk(12, loop, start_scale=0), seed=1))
    assert len(frames) == 12
    assert np.abs(frames[0].astype(int) - picture.pixels).mean() < 3
    assert loop_gap(frames) > 0
    if loop:
        assert loop_gap(frames) < 1.8


def test_an_animation_moves_on_from_sample_to_sample():
    """With beta 0 each frame of a loop is a sample of its own, and the end of an open walk of two moves is the second of them."""
    model = Patches(still(height=40, width=48), matching=QUICK)
    loop = [frame.astype(float) for frame in model.animate(Walk(3, True, 0, beta=0.0), seed=3)]
    start, end = (frame.astype(float) for frame in model.animate(Walk(2, False, 0, beta=0.0), seed=3))
    assert np.array_equal(start, loop[0])
    assert np.array_equal(end, loop[2])
    assert all(np.abs(one - other).mean() > 1 for one, other in ((loop[0], loop[1]), (loop[1], loop[2]), (loop[0], loop[2])))


def sharpness(pixels: np.ndarray) -> float:
    gray = pixels.astype(float).mean(axis=2)
    return float(np.abs(4 * gray[1:-1, 1:-1] - gray[:-2, 1:-1] - gray[2:, 1:-1] - gray[1:-1, :-2] - gray[1:-1, 2:]).mean())


def balloon(height: int = 64, width: int = 80) -> np.ndarray:
    """A striped disc in a smooth sky over textured ground."""
    pixels = landscape(height, width)
    pixels[: height * 3 // 4] = (90, 140, 220)
    rows, columns = np.mgrid[:height, :width]
    disc = (rows - 20) ** 2 + (columns - 24) ** 2 < 100
    pixels[disc] = np.where((columns // 3 % 2)[..., None], (230, 60, 40), (250, 220, 60))[disc]
    return pixels


def test_every_frame_of_an_animation_is_as_sharp_as_the_picture():
    picture = Picture(balloon())
    frames = list(Patches(picture, matching=QUICK).animate(Walk(8, True, start_scale=1), seed=2))
    assert min(sharpness(frame) for frame in frames) > 0.8 * sharpness(picture.pixels)


def test_nothing_appears_in_an_animation_where_the_picture_has_nothing_and_nothing_vanishes():
    picture = Picture(balloon())
    frames = list(Patches(picture, matching=QUICK).animate(Walk(6, True, start_scale=0), seed=2))
    for frame in frames:
        assert np.abs(frame[:40, 50:].astype(int) - (90, 140, 220)).max() < 40
        assert frame[14:26, 18:30, 0].mean() > 200


def test_long_straight_edges_of_an_animated_picture_stay_straight():
    pixels = np.full((64, 80, 3), 90, np.uint8)
    pixels[:, :20] = landscape(64, 80)[:, :20]
    pixels[:, 50:54] = 240
    frames = list(Patches(Picture(pixels), matching=QUICK).animate(Walk(4, True, start_scale=0), seed=4))
    for frame in frames:
        assert frame[4:60, 51:53].min() > 200
        assert frame[4:60, 44:48].max() < 140


def test_an_animation_moves_and_has_the_size_of_the_picture():
    picture = Picture(np.repeat(np.repeat(landscape(80, 100), 4, axis=0), 4, axis=1))
    frames = list(Patches(picture, matching=QUICK).animate(Walk(3, True, start_scale=2), seed=1))
    assert frames[0].shape == (320, 400, 3)
    assert np.abs(frames[0].astype(int) - picture.pixels).max() <= 1
    assert np.abs(frames[1].astype(int) - frames[0]).mean() > 1


def test_where_an_animation_begins_to_move_follows_the_picture(data_root):
    scales = {
        name: Patches(read_picture(data_root / "single" / f"{name}.png")).calm_scale()
        for name in ("lightning1", "cows", "balloons")
    }
    assert scales["lightning1"] == 1
    assert min(scales["cows"], scales["balloons"]) >= 3


def test_alpha_draws_an_animation_back_to_the_picture():
    picture = still(height=40, width=48)

    def distance(alpha: float) -> float:
        frames = list(Patches(picture, matching=QUICK).animate(Walk(6, True, start_scale=0, alpha=alpha)))
        return float(np.mean([np.abs(frame.astype(int) - picture.pixels).mean() for frame in frames]))

    assert distance(10.0) < distance(0.1)


def test_enlargement_has_the_factor_asked_for():
    assert Patches(still()).super_resolve(2.5).shape == (75, 90, 3)


def test_what_was_pasted_takes_the_pictures_colours_and_the_rest_stays():
    picture = still(height=48, width=48)
    naive, mask = picture.pixels.copy(), np.zeros((48, 48), bool)
    mask[18:30, 18:30] = True
    naive[mask] = (255, 0, 255)
    patches = Patches(picture, matching=QUICK)
    pasted = Picture(naive)
    for generated in (patches.harmonize(pasted, mask), patches.edit(pasted, mask)):
        assert generated.shape == (48, 48, 3)
        assert np.abs(generated[mask].astype(int) - (255, 0, 255)).mean() > 40
    harmonized = patches.harmonize(pasted, mask)
    assert np.array_equal(harmonized[:10], picture.pixels[:10])


@pytest.mark.parametrize("verb", ["harmonize", "edit_image"])
def test_a_change_is_pasted_back_into_the_full_size_picture_and_its_opacity(verb):
    pixels = np.repeat(np.repeat(landscape(60, 80), 4, axis=0), 4, axis=1)
    opacity = np.full((240, 320), 255, np.uint8)
    opacity[:, :40] = 0
    opacity[:, 40:60] = 100
    original, mask = np.dstack([pixels, opacity]), np.zeros((240, 320), bool)
    mask[100:140, 200:240] = True
    changed = original.copy()
    changed[mask] = (200, 40, 40, 255)
    options = SingleImageOptions(max_side=80)
    order = (changed, original) if verb == "harmonize" else (original, changed)
    result = getattr(library, verb)(*order, options, mask=mask)
    assert result.shape == (240, 320, 4)
    assert np.array_equal(result[:, :, 3], opacity)
    far = np.ones((240, 320), bool)
    far[:, :60] = far[20:220, 100:] = False
    assert np.array_equal(result[far], original[far])
    assert np.abs(result[:, 40:60, :3].astype(int) - original[:, 40:60, :3]).max() <= 3
    assert np.abs(result[mask][:, :3].astype(int) - changed[mask][:, :3]).mean() > 3


def test_what_is_pasted_onto_transparent_ground_becomes_visible():
    original = np.dstack([landscape(48, 48), np.full((48, 48), 255, np.uint8)])
    original[:, :24, 3] = 0
    changed = original.copy()
    changed[18:30, 6:18] = (90, 130, 60, 255)
    mask = np.zeros((48, 48), bool)
    mask[18:30, 6:18] = True
    result = library.harmonize(changed, original, mask=mask)
    assert (result[20:28, 8:16, 3] > 240).all()
    assert (result[:12, :20, 3] == 0).all()


def test_a_sharp_paste_stays_sharp_although_a_small_size_is_worked_at():
    large = np.repeat(np.repeat(landscape(60, 60), 4, axis=0), 4, axis=1)
    changed, mask = large.copy(), np.zeros((240, 240), bool)
    mask[80:160, 80:160] = True
    stripes = ((np.arange(240) // 2) % 2 * 120 + 60).astype(np.uint8)
    changed[mask] = np.broadcast_to(stripes[None, :, None], (240, 240, 3))[mask]
    result = library.harmonize(changed, large, SingleImageOptions(max_side=60), mask=mask)
    inside = result[100:140, 100:140].astype(int)
    assert np.abs(inside[:, 2:] - inside[:, :-2]).mean() > 60


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "magic"}, "method magic: known are patch, fast, consingan, singan"),
        ({"max_side": 7}, "longer side 7: is worked at from 16 to 8192 pixels"),
        ({"model": Path("x")}, "model x: method patch trains none; take method fast"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        SingleImageOptions(**options)


def test_a_shape_is_a_size_or_an_aspect_at_the_pictures_area():
    assert Shape().of((30, 40)) is None
    assert Shape(size=(20, 50)).of((30, 40)) == (20, 50)
    assert Shape(aspect=2.0).of((32, 40)) == (25, 51)
    with pytest.raises(ConfigError, match=re.escape("aspect 0.01: gives 4x358; sides are from 16 to 8192 pixels")):
        Shape(aspect=0.01).of((32, 40))


def test_a_plan_says_what_would_be_done():
    plan = library.plan(landscape(48, 60), "sample")
    assert plan.training is None
    assert plan.sizes[-1] == (48, 60)
    assert plan.report() == {"method": "patch", "training": "none", "scales": "30x24, 42x34, 60x48"}


def test_pixels_of_another_kind_are_refused():
    with pytest.raises(InputError, match=re.escape("float64 [20, 20, 3]; expected uint8 [height, width, 3 or 4]")):
        library.super_resolve(np.zeros((20, 20, 3)))


def test_a_painting_becomes_texture_of_the_picture():
    picture = still(height=48, width=48)
    painting = np.zeros((24, 24, 3), np.uint8)
    painting[:18], painting[18:] = (65, 115, 205), (85, 155, 45)
    generated = Patches(picture).paint(painting)
    assert generated.shape == (48, 48, 3)
    assert generated[:28, :, 2].mean() > generated[-8:, :, 2].mean() + 60
    assert generated[:28].std() > 5


def test_a_clip_gives_clips_of_other_length_and_size(tmp_path):
    clip = [np.roll(landscape(24, 28), 2 * index, axis=1) for index in range(6)]
    generated = list(clip_variation(clip, 9, size=(20, 36), loop=True))
    assert len(generated) == 9
    assert generated[0].shape == (20, 36, 3)
    with pytest.raises(InputError, match="the clip has 2 frames; at least 3"):
        next(clip_variation(clip[:2], 9))


def test_a_clip_that_is_matched_at_a_small_size_gives_frames_as_sharp_as_its_own():
    fine = np.random.default_rng(0).integers(0, 255, (60, 76, 3), dtype=np.uint8) // 2 + landscape(60, 76)
    clip = [np.roll(fine, 4 * index, axis=1) for index in range(5)]
    generated = list(clip_variation(clip, 5, work_side=38, noise=0.0))
    assert generated[0].shape == (60, 76, 3)
    assert min(sharpness(frame) for frame in generated) > 0.6 * sharpness(fine)
    wide = list(clip_variation(clip, 4, work_side=38, size=(50, 100), loop=True))
    assert [frame.shape for frame in wide] == [(50, 100, 3)] * 4


@pytest.mark.slow
def test_a_trained_animation_begins_with_the_picture_at_its_own_size_and_moves_as_sharp_as_it(tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "MOST_STEPS", 50)
    monkeypatch.setattr(budget, "FEWEST_STEPS", 1)
    monkeypatch.setattr(budget, "_SMALLER", ({"width": 8},))
    picture = Picture(balloon())
    options = SingleImageOptions(method="fast", budget_seconds=500, max_side=40, device="cpu")
    training.train(picture.downscaled(40), tmp_path / "run", "animation", options)
    model = Trained(tmp_path / "run", picture, device="cpu")
    frames = list(model.animate(Walk(6, True), seed=1))
    assert frames[0].shape == (64, 80, 3)
    assert np.abs(frames[0].astype(int) - picture.pixels).max() <= 1
    assert np.abs(frames[3].astype(int) - frames[0]).mean() > 0.1
    assert min(sharpness(frame) for frame in frames) > 0.8 * sharpness(picture.pixels)
    assert np.abs(list(model.animate(Walk(3, True, motion=0)))[1].astype(int) - picture.pixels).max() <= 1
    assert next(model.animate(Walk(1, shape=Shape(size=(30, 90))))).shape == (30, 90, 3)


def test_colors_change_only_where_they_vary_all_around():
    picture = to_tensor(balloon())[None]
    limit = _range_of_colors(picture)[0].mean(dim=0)
    assert limit[:, 50:][:40].max() < 0.02, "the smooth sky"
    assert limit[8:12, 22:26].max() < 0.2, "the outline of what is before it"
    assert limit[56:60].min() > 0.05, "the textured ground"


def test_a_walk_goes_as_far_as_it_takes_to_move_and_no_further_than_it_may():
    assert _reach(0.5, 2.0, lambda wide: wide**0.7)[1] == pytest.approx(0.5, rel=0.12)
    assert _reach(5.0, 2.0, lambda wide: wide) == (2.0, 2.0)
    assert _reach(0.0, 2.0, lambda wide: wide) == (0.0, 0.0)


def test_the_gap_of_a_loop_is_that_of_its_neighbours():
    ramp = [np.full((4, 4, 3), 10 * value, np.uint8) for value in range(5)]
    assert loop_gap(ramp) == pytest.approx(4)
    assert loop_gap(ramp + ramp[-2:0:-1]) == pytest.approx(1)
    assert loop_gap([ramp[0], ramp[0]]) == 0


def test_a_contact_sheet_holds_every_picture_and_lays_transparency_on_white():
    clear = np.zeros((10, 8, 4), np.uint8)
    sheet = contact_sheet([np.full((6, 12, 3), 7, np.uint8), clear, clear], num_columns=2, gap=2)
    assert sheet.shape == (2 + 10 + 2 + 10 + 2, 2 + 12 + 2 + 8 + 2, 3)
    assert (sheet[2:8, 2:14] == 7).all()
    assert (sheet[2:12, 16:24] == 255).all()


def test_a_model_of_another_kind_is_refused(tmp_path):
    train(tiny.write_config(tmp_path, tiny.write_data(tmp_path / "data")), tmp_path / "run", steps=1)
    with pytest.raises(CheckpointError, match="is a vid2vid model; one that has learned a single picture is needed"):
        Trained(tmp_path / "run", still())


# What is written


@pytest.mark.parametrize("suffix", [".apng", ".webp", ".gif", ".webm", ".mp4"])
def test_animations_are_written_in_every_form(tmp_path, suffix):
    frames = [landscape(seed=seed) for seed in range(3)]
    path = tmp_path / f"bewegt é{suffix}"
    with open_sink(path, time_base=Fraction(1, 10), frame_rate=Fraction(10)) as sink:
        for index, frame in enumerate(frames):
            sink.write(frame, index)
    assert path.stat().st_size > 500
    if suffix in (".apng", ".webp", ".gif"):
        with Image.open(path) as image:
            assert image.n_frames == 3
            assert image.info["loop"] == 0
            image.seek(1)
            image.load()
            assert image.info["duration"] == 100
            if suffix == ".apng":
                assert np.array_equal(np.array(image.convert("RGB")), frames[1])


def _write_two_sizes(sink: FrameSink) -> None:
    for index, height in enumerate([30, 20]):
        sink.write(landscape(height=height), index)


def test_a_failed_animation_leaves_nothing(tmp_path):
    clock = {"time_base": Fraction(1, 10), "frame_rate": Fraction(10)}
    with pytest.raises(InputError, match="frame 1 is"), open_sink(tmp_path / "a.webp", **clock) as sink:
        _write_two_sizes(sink)
    assert list(tmp_path.iterdir()) == []


def test_pictures_with_opacity_are_written_and_read_exactly(tmp_path):
    pixels = np.dstack([landscape(), np.full((30, 36), 128, np.uint8)])
    images.write_png(tmp_path / "a.png", pixels)
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(np.array(image), pixels)
