"""The compact generator: what it promises about sizes, the past, labels and statistics."""

import pytest
import torch
from torch import Tensor

from flow.warp import warp
from vidgen.networks.anchor import Anchor
from vidgen.networks.compact import (
    CompactGenerator,
    LabelWindow,
    _sharpened,
    default_blocks,
    default_widths,
    space_to_depth,
    warp_bicubic,
)
from vidgen.networks.encoding import one_hot

SMALL = {"widths": (8, 8, 16, 16, 16), "num_blocks": (0, 1, 1, 1, 1), "modulation_channels": 8, "embedding_channels": 6}


def video_generator(**changes: object) -> CompactGenerator:
    torch.manual_seed(0)
    return CompactGenerator(5, 1, num_condition_frames=2, num_past_frames=2, **{**SMALL, **changes})  # type: ignore[arg-type]


def labels_of(*shape: int) -> Tensor:
    return torch.randint(-1, 5, shape, generator=torch.Generator().manual_seed(3))


def window(num_samples: int = 2, height: int = 32, width: int = 48) -> tuple[Tensor, LabelWindow]:
    """The same condition window as dense channels and as label ids."""
    labels = labels_of(num_samples, 2, height, width)
    extras = torch.rand(num_samples, 2, 1, height, width, generator=torch.Generator().manual_seed(4))
    dense = torch.cat([one_hot(labels, 5), extras], dim=2).flatten(1, 2)
    return dense, LabelWindow(labels, extras.flatten(1, 2))


def past_of(num_samples: int = 2, height: int = 32, width: int = 48) -> Tensor:
    return torch.rand(num_samples, 6, height, width, generator=torch.Generator().manual_seed(5)) * 2 - 1


def raw_only(*values: bool) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1)


def test_the_frame_is_the_blend_of_raw_and_warped_past() -> None:
    dense, _ = window()
    generator = video_generator()
    with torch.no_grad():
        generator.flow_branch.head.bias[3] = -100.0  # no sharpening
        generator.tail.head.weight[3:] = 0  # no repair
    result = generator(dense, past_of(), raw_only=raw_only(False, False))
    assert result.flow is not None
    assert result.mask is not None
    expected = result.raw * result.mask + warp_bicubic(past_of()[:, -3:], result.flow) * (1 - result.mask)
    torch.testing.assert_close(result.frame, expected)
    assert result.frame.abs().max() <= 1
    assert result.flow.shape == (2, 2, 32, 48)


def test_label_ids_give_the_same_frame_as_their_one_hot_channels() -> None:
    dense, ids = window()
    generator = video_generator()
    for a, b in zip(
        (generator(dense, past_of()).frame, generator(dense, past_of()).mask),
        (generator(ids, past_of()).frame, generator(ids, past_of()).mask),
        strict=True,
    ):
        assert a is not None
        assert b is not None
        torch.testing.assert_close(a, b, atol=1e-4, rtol=0)


def test_without_a_past_its_pixels_do_not_matter() -> None:
    dense, _ = window()
    generator = video_generator()
    first, second = (generator(dense, past, raw_only=raw_only(True, True)) for past in (past_of(), torch.zeros_like(past_of())))
    torch.testing.assert_close(first.frame, second.frame)
    torch.testing.assert_close(first.frame, first.raw)


def test_flow_learns_even_where_frames_are_drawn_without_a_past() -> None:
    dense, _ = window()
    generator = video_generator()
    result = generator(dense, past_of(), raw_only=raw_only(True, True))
    assert result.flow is not None
    result.flow.square().sum().backward()
    gradient = generator.flow_branch.stem.weight.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


def test_samples_of_a_batch_do_not_influence_each_other() -> None:
    dense, _ = window()
    generator = video_generator()
    both = generator(dense, past_of(), raw_only=raw_only(False, True))
    for index, known in enumerate((False, True)):
        part = slice(index, index + 1)
        alone = generator(dense[part], past_of()[part], raw_only=raw_only(known))
        torch.testing.assert_close(both.frame[part], alone.frame, atol=1e-4, rtol=0)


def test_train_and_eval_mode_are_one_function_and_no_buffer_changes() -> None:
    dense, _ = window()
    generator = video_generator()
    assert "noise" not in generator.state_dict()
    in_training = generator.train()(dense, past_of()).frame
    assert torch.equal(in_training, generator.eval()(dense, past_of()).frame)


def test_noise_varies_flat_surfaces_stays_put_and_moves_when_told() -> None:
    torch.manual_seed(0)
    generator = CompactGenerator(2, **SMALL)  # type: ignore[arg-type]
    flat = one_hot(torch.zeros(1, 32, 32, dtype=torch.int64), 2)
    frame = generator(flat).frame
    assert torch.equal(frame, generator(flat).frame)
    assert not torch.allclose(frame, generator(flat, noise_shift=(3, 5)).frame)
    tile = frame[..., 8:16, 8:16]
    assert not torch.allclose(tile, frame[..., 16:24, 16:24], atol=1e-4)


def test_sharpening_leaves_flat_surfaces_alone_and_amplifies_detail() -> None:
    flat = torch.full((1, 3, 8, 8), 0.4)
    torch.testing.assert_close(_sharpened(flat, torch.ones(1, 1, 8, 8)), flat)
    dot = torch.zeros(1, 3, 9, 9)
    dot[..., 4, 4] = 0.5
    assert _sharpened(dot, torch.full((1, 1, 9, 9), 0.5))[0, 0, 4, 4].item() == pytest.approx(0.5 + 0.5 * (0.5 - 0.5 / 9))


def test_where_labels_agree_little_is_generated_anew_and_elsewhere_all() -> None:
    labels = torch.zeros(1, 2, 32, 32, dtype=torch.int64)
    labels[:, 1, :, 16:] = 1
    dense = torch.cat([one_hot(labels, 5), torch.zeros(1, 2, 1, 32, 32)], dim=2).flatten(1, 2)
    generator = video_generator(max_generated=0.25)
    torch.nn.init.zeros_(generator.flow_branch.head.weight)
    mask = generator(dense, past_of(1, 32, 32)).mask
    assert mask is not None
    assert mask[..., :14].max() <= 0.25
    assert mask[..., 14].max() < mask[..., 15].min() < 1
    assert mask[..., 16:].min() == 1


def test_a_past_of_other_colors_is_believed_less_and_texture_of_the_same_color_as_before() -> None:
    generator = video_generator(past_tolerance=0.2)
    drawn = torch.zeros(1, 3, 32, 48)
    past = drawn.clone()
    past[..., 24:] = 0.4
    believed = generator.plausibility(past, drawn)
    torch.testing.assert_close(believed[..., :14], torch.ones(1, 1, 32, 14))
    torch.testing.assert_close(believed[..., 34:], torch.full((1, 1, 32, 14), 0.0183), atol=1e-3, rtol=0)
    texture = torch.where((torch.arange(32)[:, None] + torch.arange(48)) % 2 == 0, 0.5, -0.5).expand(1, 3, 32, 48)
    torch.testing.assert_close(generator.plausibility(texture, drawn), torch.ones(1, 1, 32, 48))


def test_a_tolerance_lifts_the_bound_only_where_the_past_has_other_colors() -> None:
    labels = torch.zeros(1, 2, 32, 48, dtype=torch.int64)
    ids = LabelWindow(labels, torch.zeros(1, 2, 32, 48))
    generators = [video_generator(max_generated=0.1, past_tolerance=tolerance) for tolerance in (None, 0.05, 2.0)]
    for generator in generators:
        torch.nn.init.zeros_(generator.flow_branch.head.weight)
    bound, strict, lenient = (generator(ids, past_of(1)).mask for generator in generators)
    assert bound is not None
    assert bound.max() <= 0.1
    assert strict is not None
    assert (strict >= bound).all()
    assert strict.max() > 0.9
    assert lenient is not None
    assert ((lenient >= bound) & (lenient < 0.3)).all()


def test_texture_that_is_shown_larger_than_it_was_drawn_is_drawn_anew() -> None:
    ids = LabelWindow(torch.zeros(1, 2, 32, 48, dtype=torch.int64), torch.zeros(1, 2, 32, 48))
    generator = video_generator(max_generated=0.1, past_enlargement=1.2)
    torch.nn.init.zeros_(generator.flow_branch.head.weight)
    past = past_of(1)
    enlarged = torch.zeros(1, 1, 32, 48)
    enlarged[..., 24:] = 1.0
    result = generator(ids, past, anchor=Anchor.none(past[:, -3:])._replace(enlargement=enlarged))
    assert result.mask is not None
    assert result.anchor is not None
    assert result.mask[..., :20].max() <= 0.1
    assert result.mask[..., 28:].min() > 0.99
    assert result.anchor.enlargement[..., 28:].max() < 0.01, "what is drawn anew is as large as it was drawn"
    hinted, other = generator(ids, past), generator(ids, -past, raw_only=raw_only(False))
    assert not torch.equal(hinted.raw, other.raw)
    nothing = Anchor.none(past[:, -3:])._replace(enlargement=torch.full((1, 1, 32, 48), 9.0))
    unseen = [generator(ids, torch.cat([past[:, :3], frame], 1), anchor=nothing).raw for frame in (past[:, 3:], -past[:, 3:])]
    torch.testing.assert_close(*unseen, msg="nor is it a hint any more")


def test_agreement_follows_the_flow_and_ends_at_the_border() -> None:
    before = torch.zeros(1, 1, 16, 16, dtype=torch.int64)
    before[..., :4] = 2
    now = torch.zeros_like(before)
    now[..., 2:6] = 2
    now[..., :2] = 2
    generator = video_generator()
    ids = LabelWindow(torch.cat([before, now], 1), torch.zeros(1, 2, 16, 16))
    still, moving = torch.zeros(1, 2, 16, 16), torch.zeros(1, 2, 16, 16)
    moving[:, 0] = -2.0
    assert generator.agreement(ids, still)[..., 4:6].max() == 0
    agreed = generator.agreement(ids, moving)
    assert agreed[..., :2].max() == 0
    torch.testing.assert_close(agreed[0, 0, :, 2:4], torch.tensor([1 / 3, 2 / 3]).expand(16, 2))
    assert agreed[..., 4:].min() == 1


def test_agreement_of_pictures_falls_with_their_difference() -> None:
    torch.manual_seed(0)
    generator = CompactGenerator(0, 3, num_condition_frames=2, num_past_frames=1, **SMALL)  # type: ignore[arg-type]
    before, now = torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16)
    now[..., 8:] = 0.125
    agreed = generator.agreement(torch.cat([before, now], 1), torch.zeros(1, 2, 16, 16))
    torch.testing.assert_close(agreed[..., :8], torch.ones(1, 1, 16, 8))
    torch.testing.assert_close(agreed[..., 8:], torch.full((1, 1, 16, 8), 0.5))


def test_an_image_model_needs_no_past_and_has_no_flow() -> None:
    torch.manual_seed(0)
    generator = CompactGenerator(5, **SMALL)  # type: ignore[arg-type]
    result = generator(one_hot(labels_of(1, 32, 48).clamp(min=0), 5))
    assert result.frame.shape == (1, 3, 32, 48)
    assert result.flow is None
    assert result.mask is None


def test_the_foreground_has_a_tail_of_its_own() -> None:
    dense, _ = window(1)
    generator = video_generator(use_foreground=True)
    inside = torch.zeros(1, 1, 32, 48)
    inside[..., :24] = 1
    result = generator(dense, past_of(1), foreground_mask=inside)
    result.frame[..., 24:].sum().backward()
    assert all(p.grad is None or p.grad.abs().sum() == 0 for p in generator.foreground_tail.parameters())
    generator(dense, past_of(1), foreground_mask=inside).frame[..., :24].sum().backward()
    assert generator.foreground_tail.head.weight.grad is not None


@pytest.mark.parametrize("num_levels", [2, 3, 4, 5, 6])
def test_any_number_of_levels_takes_multiples_of_its_size(num_levels: int) -> None:
    widths = [max(4, width // 16) for width in default_widths(num_levels)]
    generator = CompactGenerator(
        3, num_condition_frames=1, num_past_frames=1, widths=widths, num_blocks=default_blocks(num_levels), modulation_channels=4
    )
    side = generator.size_multiple
    assert side == 2**num_levels == 2 ** (len(widths) - 1)
    height, width = 2 * side, 3 * side
    result = generator(one_hot(labels_of(1, height, width).clamp(0, 2), 3), torch.zeros(1, 3, height, width))
    assert result.frame.shape == (1, 3, height, width)


def test_bicubic_warping_agrees_with_bilinear_warping_at_whole_pixels_and_blurs_less_between() -> None:
    image = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1
    whole, half = torch.full((1, 2, 24, 24), 2.0), torch.full((1, 2, 24, 24), 0.5)
    torch.testing.assert_close(warp_bicubic(image, whole)[..., :20, :20], warp(image, whole)[..., :20, :20], atol=1e-4, rtol=0)
    assert warp_bicubic(image, half)[..., 4:20, 4:20].var() > warp(image, half)[..., 4:20, 4:20].var()


def test_space_to_depth_keeps_every_pixel() -> None:
    x = torch.arange(2 * 3 * 8 * 8.0).view(2, 3, 8, 8)
    packed = space_to_depth(x, 4)
    assert packed.shape == (2, 48, 2, 2)
    assert torch.equal(torch.nn.functional.pixel_shuffle(packed, 4), x)


def test_a_past_is_asked_for_where_the_generator_has_one() -> None:
    with pytest.raises(ValueError, match="past frames"):
        video_generator()(window()[0])


def test_a_drawing_is_read_from_afar_and_nothing_else_by_its_encoder() -> None:
    torch.manual_seed(0)
    generator = CompactGenerator(5, 2, num_drawing_channels=1, **SMALL)  # type: ignore[arg-type]
    seen: list[Tensor] = []
    assert generator.hint is not None
    generator.hint.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    labels, other = labels_of(1, 1, 64, 64), torch.rand(1, 1, 64, 64)
    paper = torch.ones(1, 1, 64, 64)
    stroke = paper.clone()
    stroke[..., 30:34, 10:50] = -1
    with torch.no_grad():
        frames = [generator(LabelWindow(labels, torch.cat([drawing, other], dim=1))).frame for drawing in (paper, stroke)]
        dense = generator(torch.cat([one_hot(labels[:, 0], 5), stroke, other], dim=1)).frame
        generator(LabelWindow(labels.flip(-1), torch.cat([stroke, 1 - other], dim=1)))
    assert bool(((frames[0] - frames[1]).abs().amax(1)[0, 20:24, 20:40] > 0).all()), "a line is seen from the surface beside it"
    torch.testing.assert_close(dense, frames[1], atol=1e-5, rtol=0)
    assert torch.equal(seen[1], stroke)
    assert torch.equal(seen[3], stroke)


@pytest.mark.parametrize(("num_extras", "num_past_frames"), [(0, 0), (1, 0), (2, 1)])
def test_a_drawing_needs_its_extras_and_takes_the_place_of_a_past(num_extras: int, num_past_frames: int) -> None:
    with pytest.raises(ValueError, match="so many extras, and no past"):
        CompactGenerator(5, num_extras, num_past_frames=num_past_frames, num_drawing_channels=2, **SMALL)  # type: ignore[arg-type]


def test_every_convolution_finds_its_input_in_its_own_layout() -> None:
    """Otherwise it copies it, and the gradient back: a tenth of a training step."""
    generator = CompactGenerator(5, 1, num_condition_frames=2, num_past_frames=1, **SMALL).to(  # type: ignore[arg-type]
        memory_format=torch.channels_last
    )
    copied: list[str] = []

    def look(name: str, x: Tensor) -> None:
        if not x.is_contiguous(memory_format=torch.channels_last):
            copied.append(name)

    for name, module in generator.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda module, inputs, output, name=name: look(name, inputs[0]))
    window = torch.cat([one_hot(labels_of(1, 2, 64, 64)[0], 5), torch.rand(2, 1, 64, 64)], dim=1).flatten(0, 1)[None]
    with torch.no_grad():
        generator(window, torch.rand(1, 3, 64, 64) * 2 - 1)
    assert not copied
