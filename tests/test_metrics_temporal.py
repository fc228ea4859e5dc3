from __future__ import annotations

import gc
import itertools
import math
import weakref

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from torch import Tensor
from torch.nn import functional as F

from flow.engines import Dis, Farneback
from flow.warp import forward_backward_occlusion, motion_boundaries
from vidgen.errors import InputError
from vidgen.metrics import temporal
from vidgen.metrics.score import METRICS, Score, base_of
from vidgen.metrics.temporal import Frames, Motion, TemporalMeter

HEIGHT, WIDTH, STEP_X, STEP_Y, NUM_FRAMES = 144, 192, 3, 2, 10
STRIDES = (1, 3, 8)
LEVEL = 1 / 255
Video = list[Tensor]
_motions: dict[tuple[bytes, bytes], Motion] = {}


def to_frame(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None].float() / 255


@pytest.fixture(scope="module")
def pan() -> Video:
    """A photo seen through a window that moves 3 pixels right and 2 down each frame."""
    photo = skimage.data.chelsea()
    starts = [(100 + STEP_Y * t, 100 + STEP_X * t) for t in range(NUM_FRAMES)]
    return [to_frame(photo[y : y + HEIGHT, x : x + WIDTH]) for y, x in starts]


@pytest.fixture(scope="module")
def noise() -> Video:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, 3, HEIGHT, WIDTH, generator=generator) for _ in range(NUM_FRAMES)]


def remembered_motion(first: Tensor, second: Tensor) -> Motion:
    key = (first.numpy().tobytes(), second.numpy().tobytes())
    if key not in _motions:
        _motions[key] = temporal.reference_motion(first, second, Dis())
    return _motions[key]


def columns(output: Video, source: Video, strides=STRIDES, chosen=frozenset(METRICS)) -> temporal.Columns:
    meter = TemporalMeter(strides, Dis(), motion_of=remembered_motion, chosen=chosen)
    return temporal.columns_of(meter.add(Frames(frame, reference)) for frame, reference in zip(output, source, strict=True))


def measure(output: Video, source: Video, strides=STRIDES) -> dict[str, Score]:
    found = columns(output, source, strides)
    return temporal.summarize(temporal.without_cuts(found, temporal.find_cuts(found)), strides)


@pytest.fixture(scope="module")
def pan_scores(pan: Video) -> dict[str, Score]:
    return measure(pan, pan)


def value(scores: dict[str, Score], key: str) -> float:
    found = scores[key].value
    assert found is not None, scores[key].reason
    return found


def alternating(video: Video, levels: float) -> Video:
    return [frame + levels * LEVEL * (-1) ** t for t, frame in enumerate(video)]


def still_motion(mask: Tensor | None = None, flow: tuple[float, float] = (0.0, 0.0)) -> Motion:
    field = torch.tensor(flow).view(1, 2, 1, 1).expand(1, 2, HEIGHT, WIDTH).contiguous()
    return Motion(field, torch.ones(1, 1, HEIGHT, WIDTH, dtype=torch.bool) if mask is None else mask)


# --- the analytic cases ---------------------------------------------------------------------------------------------------


def test_a_static_copy_has_no_temporal_error_and_no_motion_to_be_faithful_to(pan: Video):
    still = [pan[0]] * 4
    scores = measure(still, still)
    for key in ("flicker_global", "frame_diff", "tof"):
        assert value(scores, key) == 0, key
    for key in ("warp_error@1", "warp_error@3", "flicker_local", "noise_temporal"):  # the sampling grid rounds to 1e-7
        assert value(scores, key) < (1e-12 if key.startswith("warp") else 1e-4), key
    for key in ("motion_fidelity", "motion_ratio", "dup_frames"):
        assert scores[key].value is None, key
        assert "source static" in (scores[key].reason or "")
    assert torch.equal(Dis()(pan[0] * 2 - 1, pan[0] * 2 - 1), torch.zeros(1, 2, HEIGHT, WIDTH))


def test_an_integer_pan_is_steady_and_covered_except_for_what_leaves_the_frame(pan: Video, pan_scores):
    assert value(pan_scores, "warp_error@1") < 1e-6
    for stride in (1, 3):
        expected = (1 - STEP_X * stride / WIDTH) * (1 - STEP_Y * stride / HEIGHT)
        assert value(pan_scores, f"coverage@{stride}") == pytest.approx(expected, abs=0.03)
    assert pan_scores["warp_ratio_source"].value is None
    assert "8-bit rounding" in (pan_scores["warp_ratio_source"].reason or "")
    rows = columns(pan, pan)
    assert np.nansum(rows["motion_reference"]) / np.nansum(rows["motion_pixels"]) == pytest.approx(math.hypot(3, 2), rel=1e-3)


def test_a_half_pixel_shift_with_true_flow_leaves_exactly_the_loss_of_bilinear_sampling():
    picture = skimage.data.chelsea()[100 : 100 + HEIGHT, 100 : 100 + WIDTH] / 255
    frequencies_y, frequencies_x = np.fft.fftfreq(HEIGHT)[:, None], np.fft.fftfreq(WIDTH)[None]
    spectrum = np.fft.fft2(picture, axes=(0, 1))
    # The highest frequency of an even length has no half-pixel shift; without it the shifted picture is real.
    spectrum *= ((np.abs(frequencies_y) < 0.5) & (np.abs(frequencies_x) < 0.5))[..., None]
    shift = np.exp(-2j * np.pi * 0.5 * (frequencies_y + frequencies_x))[..., None]
    first, second = (
        torch.from_numpy(np.fft.ifft2(s, axes=(0, 1)).real).permute(2, 0, 1)[None] for s in (spectrum, spectrum * shift)
    )
    inside = torch.zeros(1, 1, HEIGHT, WIDTH, dtype=torch.bool)
    inside[..., 1:-1, 1:-1] = True
    bilinear = temporal.warping_error(first, second, still_motion(inside, (0.5, 0.5))).item()
    lost = 1 - np.cos(np.pi * frequencies_y) * np.cos(np.pi * frequencies_x)
    predicted = (np.abs(spectrum) ** 2 * lost[..., None] ** 2).sum() / (3 * (HEIGHT * WIDTH) ** 2)
    assert bilinear == pytest.approx(predicted, rel=0.15)
    y, x = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    grid = torch.stack([2 * x / (WIDTH - 1) - 1, 2 * y / (HEIGHT - 1) - 1], dim=-1)[None].double()
    cubic = F.grid_sample(second, grid, mode="bicubic", padding_mode="border", align_corners=True)
    assert 2 < bilinear / temporal.masked_mean((cubic - first).square(), inside).item() < 5


def test_global_flicker_is_measured_by_its_amplitude_and_even_strides_do_not_see_it(pan: Video, pan_scores):
    scores = measure(alternating(pan, 4), pan)
    assert value(scores, "flicker_global") == pytest.approx(4, rel=0.02)
    assert value(scores, "flicker_local") == pytest.approx(4, rel=0.01)
    assert value(scores, "noise_temporal") < 0.3
    for stride in (1, 3):
        added = value(scores, f"warp_error@{stride}") - value(pan_scores, f"warp_error@{stride}")
        assert added == pytest.approx((2 * 4 * LEVEL) ** 2, rel=0.01)
    assert value(scores, "warp_error@8") == pytest.approx(value(pan_scores, "warp_error@8"), rel=1e-3)


def test_independent_noise_is_measured_by_its_deviation(pan: Video, noise: Video, pan_scores):
    sigma = 8 * LEVEL
    scores = measure([frame + sigma * grain for frame, grain in zip(pan, noise, strict=True)], pan)
    added = value(scores, "warp_error@1") - value(pan_scores, "warp_error@1")
    assert added == pytest.approx(2 * sigma**2, rel=0.03)
    assert value(scores, "noise_temporal") == pytest.approx(8, rel=0.03)
    per_channel = math.sqrt(0.299**2 + 0.587**2 + 0.114**2)
    assert value(scores, "flicker_local") == pytest.approx(per_channel * 8 / (16 * math.sqrt(2)), rel=0.1)


def test_noise_fetched_between_pixels_is_averaged_by_the_bilinear_weights(noise: Video):
    fraction = (0.25, 0.5)
    weights = math.prod((1 - part) ** 2 + part**2 for part in fraction)
    inside = torch.zeros(1, 1, HEIGHT, WIDTH, dtype=torch.bool)
    inside[..., 1:-1, 1:-1] = True
    error = temporal.warping_error(noise[0], noise[1], still_motion(inside, fraction)).item()
    assert error == pytest.approx(1 + weights, rel=0.03)


def moving_square() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Two frames of a textured square that moves by (7, 3), the true flows, and the 579 pixels it covers on the way."""
    photo, back = skimage.data.chelsea(), skimage.data.coffee()
    first, second = (back[50 : 50 + HEIGHT, 50 : 50 + WIDTH].copy() for _ in range(2))
    square = photo[100:160, 150:210]
    first[40:100, 50:110], second[43:103, 57:117] = square, square
    was, will = (torch.zeros(1, 1, HEIGHT, WIDTH, dtype=torch.bool) for _ in range(2))
    was[..., 40:100, 50:110], will[..., 43:103, 57:117] = True, True
    step = torch.tensor([7.0, 3.0]).view(1, 2, 1, 1)
    return to_frame(first), to_frame(second), step * was, -step * will, will & ~was


def test_with_true_flow_the_covered_pixels_are_exactly_those_left_out():
    first, second, forward, backward, covered = moving_square()
    occluded = forward_backward_occlusion(forward, backward, reference_height=436)
    assert torch.equal(occluded, covered)
    assert covered.sum() == 579
    assert temporal.warping_error(first, second, Motion(forward, ~occluded)).item() < 1e-12
    motion = temporal.reference_motion(first, second, lambda a, b: forward if torch.equal(a, first * 2 - 1) else backward)
    assert torch.equal(motion.mask, ~(covered | motion_boundaries(forward)))
    assert temporal.warping_error(first, second, motion).item() < 1e-12


def test_flows_may_disagree_by_half_a_square_pixel_at_436_lines_and_by_less_below(pan: Video):
    def kept(disagreement: float) -> float:
        forward = still_motion(flow=(disagreement, 0.0)).flow
        flows = iter((forward, torch.zeros_like(forward)))
        return temporal.reference_motion(pan[0], pan[1], lambda first, second: next(flows)).mask.float().mean().item()

    limit = math.sqrt(0.5 * (HEIGHT / 436) ** 2 / 0.99)
    assert kept(0.98 * limit) == 1
    assert kept(1.02 * limit) == 0


def test_with_estimated_flow_most_covered_pixels_are_left_out():
    first, second, _, _, covered = moving_square()
    mask = temporal.reference_motion(first, second, Dis()).mask
    assert (~mask & covered).sum() >= 0.85 * covered.sum()


@pytest.mark.parametrize(
    ("key", "accepted", "refused"),
    [
        ("motion_ratio", (0.7, 1.0, 1.4), (0.69, 1.41)),
        ("sharpness_ratio", (0.65, 3.0), (0.64,)),
        ("smeared", (0.25,), (0.26,)),
        ("jumps", (0.03,), (0.04,)),
        ("grid", (0.25,), (0.26,)),
        ("kernel_distance/8", (0.5,), (0.51,)),
        ("textured", (0.05,), (0.049,)),
        ("coverage@1", (0.5,), (0.49,)),
    ],
)
def test_a_video_is_ranked_within_these_limits(key, accepted, refused):
    good = {"warp_error@1": 0.01, "warp_error_norm": 0.1, "motion_ratio": 1, "sharpness_ratio": 1, "textured": 1, "coverage@1": 1}
    good |= {"smeared": 0.0, "jumps": 0.0, "grid": 0.06, "grid_reference": 0.06, "kernel_distance/8": 0.0}
    for figure, is_ranked in [*((one, True) for one in accepted), *((one, False) for one in refused)]:
        scores = {name: Score.of(figure if name == key else usual, 5) for name, usual in good.items()}
        assert (temporal.verdict(scores) == []) == is_ranked, figure


def test_a_frozen_output_is_as_wrong_as_no_motion_at_all(pan: Video):
    scores = measure([pan[0]] * NUM_FRAMES, pan)
    assert value(scores, "motion_fidelity") == 1
    assert value(scores, "motion_ratio") == 0
    assert value(scores, "dup_frames") == 1
    assert any("moves 0.00x" in reason for reason in temporal.verdict(scores))


def test_a_grey_output_has_no_error_but_cannot_be_ranked(pan: Video):
    scores = measure([torch.full_like(frame, 0.5) for frame in pan], pan)
    assert value(scores, "warp_error@1") < 1e-12
    assert value(scores, "warp_psnr@1") == 100
    assert scores["warp_error_norm"].value is None
    assert "no texture" in (scores["warp_error_norm"].reason or "")
    assert len(temporal.verdict(scores)) >= 3


def test_blur_lowers_the_error_of_real_footage_but_hardly_its_error_relative_to_texture(data_root):
    files = sorted((data_root / "camvid" / "images" / "0016E5").iterdir())[:4]
    photos = [cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB).astype(np.float32) for file in files]
    real = [to_frame(cv2.resize(photo, (384, 288), interpolation=cv2.INTER_AREA)) for photo in photos]
    blurred = [
        torch.from_numpy(cv2.GaussianBlur(frame[0].permute(1, 2, 0).numpy(), (0, 0), 3)).permute(2, 0, 1)[None] for frame in real
    ]
    scores = measure(blurred, real, (1,))
    assert value(scores, "warp_error@1") < value(scores, "warp_error_source@1") / 5
    assert 1 / 3 < value(scores, "warp_ratio_source") < 1
    assert value(scores, "sharpness_ratio") < 0.5
    assert any("as sharp" in reason for reason in temporal.verdict(scores))


@pytest.mark.parametrize(
    ("change", "limit"),
    [(lambda frame: 1 - frame, 0.02), (lambda frame: frame**0.6, 0.1), (lambda frame: frame[:, [1, 2, 0]], 0.1)],
    ids=["invert", "gamma", "swap"],
)
def test_another_look_with_the_same_motion_is_faithful(pan: Video, pan_scores, change, limit):
    scores = measure([change(frame) for frame in pan[:5]], pan[:5], (1, 3))
    assert value(scores, "motion_fidelity") < limit
    assert value(scores, "motion_ratio") == pytest.approx(1, abs=limit)
    assert temporal.verdict(scores) == []


def refused(output: Video, source: Video) -> str:
    return "; ".join(temporal.verdict(measure(output, source)))


def test_a_frame_pulled_along_for_ever_smears_and_is_refused():
    """Each frame fetched from the one before by the true motion of 2.5 by 1.5 pixels: borders streak, resampling blurs."""
    photo = skimage.data.chelsea()[60:300].astype(np.float32)

    def moved(picture: np.ndarray, steps: int) -> np.ndarray:
        shift = np.array([[1, 0, -2.5 * steps], [0, 1, -1.5 * steps]])
        return cv2.warpAffine(picture, shift, picture.shape[1::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    truth = [moved(cv2.GaussianBlur(photo, (0, 0), 0.7), step)[:HEIGHT, :WIDTH] for step in range(24)]
    dragged = [truth[0]]
    for _ in truth[1:]:
        dragged.append(moved(dragged[-1], 1))
    output, source = ([to_frame(frame.round().clip(0, 255).astype(np.uint8)) for frame in clip] for clip in (dragged, truth))
    scores = measure(output, source)
    assert value(scores, "warp_error@1") < value(measure(source, source), "warp_error@1")
    assert value(scores, "smeared") > 0.25
    assert "smeared" in "; ".join(temporal.verdict(scores))


def test_a_jump_at_every_fresh_frame_is_counted_and_refused(pan: Video, noise: Video):
    """A grain that moves with the scene, and is another one after every five frames."""
    frames = [frame.clone() for frame in pan]
    for index, frame in enumerate(frames):
        grain = noise[index // 5].repeat(1, 1, 2, 2)[..., STEP_Y * index :, STEP_X * index :]
        frame += 6 * LEVEL * grain[..., :HEIGHT, :WIDTH]
    scores = measure(frames, pan)
    assert value(scores, "jumps") == pytest.approx(1 / 9)
    assert "jump against the one before" in refused(frames, pan)
    assert value(measure(pan, pan), "jumps") == 0


def test_a_checkerboard_does_not_make_a_blur_sharp(pan: Video):
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    board = ((rows + columns) % 2 * 2 - 1) * 6 * LEVEL
    spoilt = [F.avg_pool2d(frame, 5, 1, 2) + board for frame in pan]
    scores = measure(spoilt, pan)
    assert value(scores, "sharpness_ratio") < 0.65
    assert value(scores, "grid") > 0.5 > 0.1 > value(scores, "grid_reference")
    assert "repeats every 2, 4 or 8 pixels" in refused(spoilt, pan)
    assert refused(pan, pan) == ""


def test_inverted_colors_have_the_same_warping_error(pan: Video):
    scores = measure([1 - frame for frame in pan[:5]], pan[:5], (1,))
    assert value(scores, "warp_error@1") == pytest.approx(value(scores, "warp_error_source@1"), rel=1e-3)


def test_shuffled_frames_are_unsteady_and_move_wrongly(pan: Video, pan_scores):
    scores = measure([pan[index] for index in (7, 2, 9, 0, 5, 8, 1, 4, 6, 3)], pan)
    assert value(scores, "warp_error@1") > 10 * value(pan_scores, "warp_error@1")
    assert value(scores, "motion_fidelity") > 5 * 0.5
    assert temporal.verdict(scores)


def test_repeated_frames_are_counted_where_the_source_moves(pan: Video):
    repeated = [pan[index // 2 * 2] for index in range(9)]
    scores = measure(repeated, pan[:9], (1,))
    assert value(scores, "dup_frames") == 0.5
    assert value(scores, "motion_fidelity") == pytest.approx(1, abs=0.1)
    own = measure(repeated, repeated, (1,))
    assert value(own, "dup_frames") == 0


def test_averaging_over_time_shows_as_wrong_motion():
    photo = skimage.data.chelsea()
    slow = [to_frame(photo[100 : 100 + HEIGHT, 100 + t : 100 + t + WIDTH]) for t in range(NUM_FRAMES)]
    averaged = slow[:1]
    for frame in slow[1:]:
        averaged.append(0.7 * averaged[-1] + 0.3 * frame)
    scores = measure(averaged, slow, (1,))
    assert 0.15 < value(scores, "motion_fidelity") < 0.6


def test_a_pattern_fixed_to_the_screen_does_not_move(pan: Video):
    pattern = to_frame(skimage.data.coffee()[100 : 100 + HEIGHT, 200 : 200 + WIDTH])
    scores = measure([pattern + 0.02 * (frame - 0.5) for frame in pan], pan, (1,))
    assert value(scores, "motion_ratio") < 0.1
    assert temporal.verdict(scores)


def test_every_error_grows_with_flicker_and_with_noise(pan: Video, noise: Video):
    short = pan[:4]
    flickering = [measure(alternating(short, levels), short, (1, 3)) for levels in (0, 1, 2, 4, 8)]
    grainy = [
        measure([frame + levels * LEVEL * grain for frame, grain in zip(short, noise, strict=False)], short, (1, 3))
        for levels in (0, 1, 2, 4, 8)
    ]
    shared = ("warp_error@1", "warp_error@3", "warp_error_norm", "flicker_local")
    for reports, keys in ((flickering, ("flicker_global", "frame_diff")), (grainy, ("noise_temporal", "tof", "motion_fidelity"))):
        for key in (*shared, *keys):
            found = [value(scores, key) for scores in reports]
            assert found == sorted(found), key
            assert found[-1] > found[0], key


def test_mirroring_and_playing_backwards_hardly_change_a_score(pan: Video, noise: Video):
    output = [frame + 0.02 * grain for frame, grain in zip(pan[:5], noise, strict=False)]
    scores = measure(output, pan[:5], (1, 3))
    mirrored = measure([frame.flip(-1) for frame in output], [frame.flip(-1) for frame in pan[:5]], (1, 3))
    backwards = measure(output[::-1], pan[:5][::-1], (1, 3))
    for key in (
        "warp_error@1",
        "warp_error@3",
        "warp_error_norm",
        "flicker_local",
        "noise_temporal",
        "coverage@1",
        "motion_fidelity",
    ):
        assert value(mirrored, key) == pytest.approx(value(scores, key), rel=0.05), key
        assert value(backwards, key) == pytest.approx(value(scores, key), rel=0.1), key


def test_a_video_played_twice_scores_as_once_and_the_seam_is_listed_as_a_cut(pan: Video):
    other = to_frame(skimage.data.coffee()[100 : 100 + HEIGHT, 200 : 200 + WIDTH])
    clip = [*pan[:4], other, other]
    flickering = alternating(clip, 2)
    rows = columns(flickering * 2, clip * 2, (1, 3))
    assert temporal.find_cuts(rows) == [4, 6, 10]
    twice = measure(flickering * 2, clip * 2, (1, 3))
    once = measure(flickering, clip, (1, 3))
    assert value(twice, "warp_error@1") == pytest.approx(value(once, "warp_error@1"), rel=1e-6)
    assert value(twice, "warp_error@3") == pytest.approx(value(once, "warp_error@3"), rel=1e-6)
    assert twice["warp_error@1"].count == 2 * once["warp_error@1"].count == 8
    assert twice["warp_error@1"].skipped == 3


def test_motion_is_compared_only_where_there_is_texture(pan: Video, noise: Video):
    half_flat = [frame.clone() for frame in pan[:3]]
    for frame in half_flat:
        frame[..., WIDTH // 2 :] = 0.5
    grainy = [frame + 2 * LEVEL * grain for frame, grain in zip(half_flat, noise, strict=False)]
    assert temporal.textured(grainy[0])[..., WIDTH // 2 + 8 :].float().mean() < 0.01
    assert temporal.textured(pan[0]).float().mean() > 0.9
    scores = measure(grainy, half_flat, (1,))
    assert value(scores, "motion_fidelity") < 0.1
    assert 0.3 < value(scores, "textured") < 0.55


def test_motion_sums_follow_their_definitions_for_known_flows(pan: Video):
    step = still_motion(flow=(3.0, 4.0))
    meter = TemporalMeter((1,), lambda first, second: 7 * step.flow, motion_of=lambda first, second: step)
    scores = temporal.summarize(temporal.columns_of(meter.add(Frames(frame, frame)) for frame in pan[:3]), (1,))
    assert value(scores, "motion_fidelity") == pytest.approx(6)
    assert value(scores, "motion_ratio") == pytest.approx(7)
    assert value(scores, "tof") == pytest.approx(10)  # 30 pixels, capped
    assert any("moves 7.00x" in reason for reason in temporal.verdict(scores))


@pytest.mark.parametrize(
    ("error", "coverage", "cuts"),
    [
        ([1e-4, 1e-4, 2e-3, 1e-4], [0.9, 0.9, 0.9, 0.9], [3]),
        ([1e-4, 1e-4, 1e-4, 1e-4], [0.9, 0.9, 0.1, 0.9], [3]),
        ([1e-4, math.nan, 1e-4, 1e-4], [0.9, 0.0, 0.9, 0.9], [2]),
        ([1e-6, 1e-6, 9e-4, 1e-6], [0.9, 0.9, 0.9, 0.9], []),
        ([5e-3, 5e-3, 9e-3, 5e-3], [0.9, 0.9, 0.3, 0.9], []),
        ([1e-4, 1e-4, 1e-4, 1e-4], [0.15, 0.1, 0.15, 0.1], []),
        ([math.nan, math.nan, math.nan, math.nan], [0.0, 0.0, 0.0, 0.0], []),
    ],
)
def test_a_cut_is_a_jump_of_the_error_or_a_loss_of_coverage_that_the_rest_does_not_share(error, coverage, cuts):
    found = {"reference_error": np.array([math.nan, *error]), "coverage@1": np.array([math.nan, *coverage])}
    assert temporal.find_cuts(found) == cuts


def test_no_score_depends_on_the_number_of_threads(pan: Video, noise: Video):
    output = [frame + 0.02 * grain for frame, grain in zip(pan[:3], noise, strict=False)]
    results = []
    before = torch.get_num_threads(), cv2.getNumThreads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            cv2.setNumThreads(threads)
            _motions.clear()
            results.append(measure(output, pan[:3], (1,)))
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
    assert results[0].keys() == results[1].keys()
    for key, score in results[0].items():
        if score.value is None:
            assert results[1][key].value is None
        else:
            assert value(results[1], key) == pytest.approx(score.value, rel=1e-6), key


def test_a_pair_scores_the_same_alone_and_in_a_batch(pan: Video):
    pairs = [(pan[0], pan[1]), (pan[2], pan[5])]
    motions = [remembered_motion(*pair) for pair in pairs]
    batch = Motion(torch.cat([motion.flow for motion in motions]), torch.cat([motion.mask for motion in motions]))
    first, second = (torch.cat(frames) for frames in zip(*pairs, strict=True))
    for measured in (temporal.warping_error, temporal.block_flicker):
        alone = [measured(*pair, motion).item() for pair, motion in zip(pairs, motions, strict=True)]
        assert measured(first, second, batch).tolist() == pytest.approx(alone, rel=1e-9)


def test_nothing_to_follow_gives_no_value_and_a_reason(pan: Video):
    empty = torch.zeros(1, 1, HEIGHT, WIDTH, dtype=torch.bool)
    assert math.isnan(temporal.warping_error(pan[0], pan[1], still_motion(empty)).item())
    meter = TemporalMeter((1,), Dis(), motion_of=lambda first, second: still_motion(empty))
    scores = temporal.summarize(temporal.columns_of(meter.add(Frames(frame, frame)) for frame in pan[:3]), (1,))
    for key in ("warp_error@1", "warp_psnr@1", "warp_error_norm", "flicker_local", "noise_temporal", "motion_fidelity", "tof"):
        assert scores[key].value is None, key
        assert scores[key].reason, key
    assert value(scores, "coverage@1") == 0
    assert scores["warp_error@1"].skipped == 2
    assert temporal.verdict(scores)


def test_a_single_frame_has_no_temporal_score(pan: Video):
    scores = measure(pan[:1], pan[:1])
    for key in (
        "warp_error@1",
        "warp_error_source@3",
        "frame_diff",
        "flicker_global",
        "motion_fidelity",
        "dup_frames",
        "coverage@8",
    ):
        assert scores[key].value is None, key
        assert "needs at least" in (scores[key].reason or ""), key
    assert value(scores, "sharpness_ratio") == 1


def test_a_stride_longer_than_the_clip_says_how_many_frames_it_needs(pan: Video):
    scores = measure(pan[:3], pan[:3])
    assert scores["warp_error@8"].reason == "needs at least 9 frames, got 3"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_not_finite_are_refused(pan: Video, bad: float):
    broken = pan[1].clone()
    broken[0, 1, 5, 5] = bad
    with pytest.raises(InputError, match="frame 1: the output holds values that are not finite"):
        measure([pan[0], broken], pan[:2])


def test_frames_of_different_sizes_are_refused(pan: Video):
    with pytest.raises(InputError, match="frame 0: the source has shape"):
        measure([pan[0]], [pan[0][..., :-2]])


# --- independent implementations ------------------------------------------------------------------------------------------


def test_warping_error_equals_one_written_as_loops(pan: Video):
    first, second = (frame[..., 40:64, 60:90].double() for frame in (pan[0], pan[1]))
    height, width = first.shape[-2:]
    generator = torch.Generator().manual_seed(1)
    flow = torch.randn(1, 2, height, width, generator=generator, dtype=torch.float64) * 4
    mask = torch.rand(1, 1, height, width, generator=generator) < 0.7
    total = count = 0.0
    for y in range(height):
        for x in range(width):
            if not mask[0, 0, y, x]:
                continue
            at_x = min(max(x + flow[0, 0, y, x].item(), 0), width - 1)
            at_y = min(max(y + flow[0, 1, y, x].item(), 0), height - 1)
            left, top = min(int(at_x), width - 2), min(int(at_y), height - 2)
            part_x, part_y = at_x - left, at_y - top
            for channel in range(3):
                around = second[0, channel]
                fetched = (
                    around[top, left] * (1 - part_x) * (1 - part_y)
                    + around[top, left + 1] * part_x * (1 - part_y)
                    + around[top + 1, left] * (1 - part_x) * part_y
                    + around[top + 1, left + 1] * part_x * part_y
                ).item()
                total += (fetched - first[0, channel, y, x].item()) ** 2
                count += 1
    assert temporal.warping_error(first, second, Motion(flow, mask)).item() == pytest.approx(total / count, rel=1e-9)


def test_block_flicker_equals_one_written_as_loops(pan: Video):
    mask = torch.rand(1, 1, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1)) < 0.55
    change = ((pan[1] - pan[0]) * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(dim=1)[0].double()
    squares = []
    for y in range(0, HEIGHT - 15, 16):
        for x in range(0, WIDTH - 15, 16):
            followed = mask[0, 0, y : y + 16, x : x + 16]
            if followed.sum() >= 128:
                squares.append(change[y : y + 16, x : x + 16][followed].mean().item() ** 2)
    assert len(squares) < (HEIGHT // 16) * (WIDTH // 16)
    found = temporal.block_flicker(pan[0], pan[1], still_motion(mask)).item()
    assert found == pytest.approx(np.mean(squares), rel=1e-5)


def test_tof_by_farneback_equals_tecogans_call(pan: Video, noise: Video):
    output = [(frame + 0.03 * grain).clamp(0, 1) for frame, grain in zip(pan[:3], noise, strict=False)]
    meter = TemporalMeter((1,), Dis(), motion_of=remembered_motion, farneback=Farneback())
    rows = temporal.columns_of(meter.add(Frames(frame, source)) for frame, source in zip(output, pan, strict=False))

    def flows(video: Video) -> list[np.ndarray]:
        bytes_ = [(frame[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8) for frame in video]
        grays = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in bytes_]
        return [cv2.calcOpticalFlowFarneback(a, b, None, 0.5, 3, 15, 3, 5, 1.2, 0) for a, b in itertools.pairwise(grays)]

    expected = np.mean([np.linalg.norm(a - b, axis=2).mean() for a, b in zip(flows(output), flows(pan[:3]), strict=True)])
    assert value(temporal.summarize(rows, (1,)), "tof_farneback") == pytest.approx(expected, rel=1e-4)


def test_a_metric_chosen_alone_has_the_same_value_and_the_same_verdict(pan: Video, noise: Video):
    output, source = [frame + LEVEL * other for frame, other in zip(pan[:4], noise, strict=False)], pan[:4]
    together = measure(output, source, (1,))
    for name in sorted({base_of(key) for key in together}):
        alone = temporal.summarize(columns(output, source, (1,), chosen={name}), (1,))
        assert temporal.verdict(alone) == temporal.verdict(together), name
        for key in together:
            if base_of(key) == name:
                assert alone[key] == together[key]


def test_values_that_nobody_needs_are_left_out_of_the_rows(pan: Video):
    found = columns(pan[:4], pan[:4], (1,), chosen={"warp_error"})
    assert not found.keys() & {"frame_diff", "luma_bend", "block_flicker", "changed", "reference_changed", "variance_source"}


def test_every_key_is_in_the_catalog(pan_scores):
    assert {base_of(key) for key in pan_scores} <= METRICS.keys()


def test_memory_does_not_grow_with_the_length(pan: Video):
    meter = TemporalMeter((1, 3), Dis(), motion_of=lambda first, second: still_motion())
    pictures = []
    for _ in range(20):
        frame = pan[0].clone()
        pictures.append(weakref.ref(frame))
        meter.add(Frames(frame, frame))
        del frame
    gc.collect()
    assert [picture() is None for picture in pictures] == 17 * [True] + 3 * [False]


def test_a_video_of_cuts_alone_says_so_instead_of_being_called_short():
    rows = {"sharpness": np.ones(6), "frame_diff": np.full(6, 0.1), "luma_bend": np.array([np.nan, np.nan, 0.1, 0.1, 0.1, 0.1])}
    scores = temporal.summarize(temporal.without_cuts(rows, [1, 2, 3, 4, 5]), (1,))
    assert scores["flicker_global"].reason == "no 3 frames in a row without a cut"
