"""Texture that is fetched from an anchor: sampled once, renewed in time, the same however a video is cut into windows."""

import pytest
import torch
from torch import Tensor

from flow.warp import warp
from vidgen.networks.anchor import Anchor, enlargement, warp_bicubic
from vidgen.translators import vid2vid
from vidgen.types import Condition

HEIGHT, WIDTH, CLASSES, ANCHOR_FRAMES = 32, 48, 3, 8


def _texture() -> Tensor:
    return torch.rand(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1)) * 2 - 1


def _shift(across: float) -> Tensor:
    return torch.tensor([across, 0.0]).view(1, 2, 1, 1).expand(1, 2, HEIGHT, WIDTH)


def _moved(anchor: Anchor, count: int, known: Tensor, across: float = 0.5) -> Anchor:
    for _ in range(count):
        anchor = anchor.moved(_texture(), _shift(across), known, ANCHOR_FRAMES)
    return anchor


def test_texture_that_moved_half_a_pixel_a_frame_is_sampled_once_and_stays_sharp() -> None:
    known = torch.ones(1, 1, HEIGHT, WIDTH)
    anchor = _moved(Anchor.none(_texture()), ANCHOR_FRAMES, known)
    whole = _texture()[..., 4:]  # eight times half a pixel is four whole ones
    fetched = warp_bicubic(anchor.frame, anchor.flow)[..., :-4]
    torch.testing.assert_close(fetched, whole, atol=1e-4, rtol=0)
    chained = _texture()
    for _ in range(ANCHOR_FRAMES):
        chained = warp(chained, _shift(0.5))
    assert chained[..., :-4].std() < 0.8 * whole.std()


def test_the_latest_frame_takes_the_place_of_an_old_anchor() -> None:
    known = torch.ones(1, 1, HEIGHT, WIDTH)
    anchor = _moved(Anchor.none(-_texture()), ANCHOR_FRAMES, known)
    assert float(anchor.age) == ANCHOR_FRAMES
    later = torch.zeros(1, 3, HEIGHT, WIDTH)
    renewed = anchor.moved(later, _shift(0.5), known, ANCHOR_FRAMES)
    assert torch.equal(renewed.frame, later)
    assert torch.equal(renewed.flow, _shift(0.5))
    assert float(renewed.age) == 1


def test_what_was_hidden_once_stays_unknown_until_the_anchor_is_renewed() -> None:
    everywhere, hole = torch.ones(1, 1, HEIGHT, WIDTH), torch.ones(1, 1, HEIGHT, WIDTH)
    hole[..., 10:14, 20:24] = 0
    anchor = Anchor.none(_texture()).moved(_texture(), _shift(0), hole, ANCHOR_FRAMES)
    for _ in range(ANCHOR_FRAMES - 1):
        anchor = anchor.moved(_texture(), _shift(0), everywhere, ANCHOR_FRAMES)
        assert torch.equal(anchor.known, hole)
    assert torch.equal(anchor.moved(_texture(), _shift(0), everywhere, ANCHOR_FRAMES).known, everywhere)


def _zoom(factor: float) -> Tensor:
    """The flow of a picture that is shown larger by `factor` about its center."""
    down, across = torch.meshgrid(torch.arange(HEIGHT) - HEIGHT / 2, torch.arange(WIDTH) - WIDTH / 2, indexing="ij")
    return torch.stack([across, down]).float().unsqueeze(0) * (1 / factor - 1)


@pytest.mark.parametrize(("flow", "factor"), [(_zoom(1.1), 1.1), (_zoom(0.9), 1.0), (_shift(3), 1.0), (_zoom(3.0), 2**0.5)])
def test_a_flow_tells_how_much_larger_it_shows_things(flow: Tensor, factor: float) -> None:
    inside = enlargement(flow)[..., 12:-12, 12:-12].exp()
    torch.testing.assert_close(inside, torch.full_like(inside, factor))


def test_what_comes_nearer_grows_from_frame_to_frame_whether_fetched_from_an_anchor_or_not() -> None:
    known = torch.ones(1, 1, HEIGHT, WIDTH)
    for max_age in (1, 2, 8):
        anchor = Anchor.none(_texture())
        for _ in range(4):
            anchor = anchor.moved(_texture(), _zoom(1.05), known, max_age)
        torch.testing.assert_close(anchor.enlargement[..., 16, 24].exp(), torch.tensor([[1.05**4]]))


def _translator() -> vid2vid.Vid2Vid:
    torch.manual_seed(0)
    past = {"anchor_frames": ANCHOR_FRAMES, "past_tolerance": 0.2, "past_enlargement": 1.1}
    shape = vid2vid.Generator(kind="compact", num_levels=3, width=0.25, **past)  # type: ignore[arg-type]
    losses = vid2vid.LossWeights(perceptual_weight=0)
    translator = vid2vid.build(vid2vid.Config(num_labels=CLASSES, generator=shape, losses=losses))
    for name, value in translator.named_parameters():
        if name.startswith("generator") and value.ndim > 1:
            torch.nn.init.kaiming_normal_(value, a=0.5)  # so that flow and mask vary
    return translator.eval()


def _condition(num_frames: int) -> Condition:
    labels = torch.randint(0, CLASSES, (1, num_frames, 4, 6), generator=torch.Generator().manual_seed(2))
    return Condition(labels=labels.repeat_interleave(8, 2).repeat_interleave(8, 3))


@pytest.mark.parametrize("way", ["windows", "steps"])
@torch.no_grad()
def test_a_video_in_pieces_is_the_video_at_once(way: str) -> None:
    translator, num_frames = _translator(), 2 * ANCHOR_FRAMES + 3
    condition = _condition(num_frames)
    expected = translator.translate(condition)[0].frames
    assert condition.labels is not None
    pieces = []
    if way == "windows":
        carry = None
        for start in range(0, num_frames, 5):
            output, carry = translator.translate(Condition(labels=condition.labels[:, start : start + 5]), carry)
            pieces.append(output.frames)
    else:
        state = translator.first_state((HEIGHT, WIDTH))
        for index in range(num_frames):
            frame, state = translator.step(Condition(labels=condition.labels[:, index : index + 1]), state)
            pieces.append(frame)
    torch.testing.assert_close(torch.cat(pieces, 1), expected, atol=1e-5, rtol=0)
    assert (expected[:, 1:] - expected[:, :-1]).abs().mean() > 1e-3
