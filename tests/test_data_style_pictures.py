"""Training pairs from pictures alone: the drawing is drawn from the picture, and the style is the picture itself, varied."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vidgen.data.clips import Clips
from vidgen.data.sequences import find_sequences
from vidgen.data.settings import DataSettings, LineSettings, StyleSettings
from vidgen.data.style_pictures import StyleView, as_style, draw_recoloring, recolor
from vidgen.errors import ConfigError
from vidgen.media import lines, pixels
from vidgen.media.images import write_png
from vidgen.types import Batch, Stage

HEIGHT, WIDTH, SIDE = 32, 48, 24
STAGE = Stage("painting", 10, 1e-3, 0.0, clip_frames=2, window_frames=2)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two clips of squares that move, one red and one blue, at twice the working size."""
    for clip, color in (("red", (210, 60, 50)), ("blue", (40, 80, 200))):
        for index in range(6):
            picture = np.full((2 * HEIGHT, 2 * WIDTH, 3), 235, np.uint8)
            picture[20:44, 6 * index : 6 * index + 30] = color
            write_png(tmp_path / "images" / clip / f"{index}.png", picture)
    return tmp_path


def _clips(root: Path, *, lines: dict[str, object] | None = None, style: dict[str, object] | None = None, **data: object) -> Clips:
    condition = {"lines": lines or {}, "style": {"size": SIDE, **(style or {})}}
    settings = DataSettings.model_validate({"root": root, "width": WIDTH, "height": HEIGHT, "condition": condition, **data})
    return Clips(settings, find_sequences(settings), None, seed=3, size_multiple=4, flow=None)


def _batch(clips: Clips, step: int) -> Batch:
    return clips.batch(STAGE, step, range(1), primer_frames=0, batch_size=1)


def test_a_batch_holds_a_drawing_of_each_frame_and_one_style_picture(root: Path) -> None:
    batch = _batch(_clips(root), 0)
    condition = batch.condition
    assert condition.frames is not None
    assert tuple(condition.frames.shape) == (1, 2, 1, HEIGHT, WIDTH)
    assert tuple(condition.tensors["style"].shape) == (1, 3, SIDE, SIDE)
    assert condition.slice_time(0, 1).tensors["style"].shape == condition.tensors["style"].shape
    assert condition.frames.min() < 0 < condition.frames.max()


def test_the_same_step_gives_the_same_clip_and_other_steps_other_pens_and_styles(root: Path) -> None:
    clips, again = _clips(root), _clips(root)
    first = _batch(clips, 4)
    _batch(again, 7)
    second = _batch(again, 4)
    assert torch.equal(first.target, second.target)
    assert all(torch.equal(value, second.condition.tensors[name]) for name, value in first.condition.tensors.items())
    styles = {_batch(clips, step).condition.tensors["style"].numpy().tobytes() for step in range(6)}
    assert len(styles) == 6


def test_samples_are_drawn_plainly_and_their_style_is_their_first_frame(root: Path) -> None:
    clips = _clips(root)
    batch = clips.excerpt(0, 1, 2, 0)
    first = pixels.quantize(batch.target[0, 0].numpy())
    assert np.array_equal(pixels.quantize(batch.condition.tensors["style"][0].numpy()), as_style(first, SIDE))
    source = clips.sequences[0].read(1)["target"].pixels
    assert batch.condition.frames is not None
    assert np.array_equal(
        pixels.quantize(batch.condition.frames[0, 0, 0].numpy()), lines.draw(source, LineSettings().plain, (HEIGHT, WIDTH))
    )


def test_a_recolored_clip_and_its_style_have_the_same_new_colors_and_the_same_lines(root: Path) -> None:
    style = {"warp": 0, "flip": False, "smallest_part": 1, "source": "frame"}
    plain, changed = (_clips(root, style={**style, "recolor": part}, flip=False) for part in (0, 1))
    differ = 0
    for step in range(4):
        before, after = _batch(plain, step), _batch(changed, step)
        assert before.condition.frames is not None
        assert after.condition.frames is not None
        assert torch.equal(before.condition.frames, after.condition.frames)
        differ += int((before.target - after.target).abs().mean() > 0.05)
        first = pixels.quantize(after.target[0, 0].numpy())
        assert np.array_equal(pixels.quantize(after.condition.tensors["style"][0].numpy()), as_style(first, SIDE))
    assert differ == 4


def test_a_style_of_the_sequence_has_its_colors(root: Path) -> None:
    clips = _clips(root, style={"source": "sequence"})
    for step in range(6):
        batch = _batch(clips, step)
        hue = batch.target[0, 0].flatten(1).amin(1).argmax()
        seen = batch.condition.tensors["style"][0].flatten(1).amin(1).argmax()
        assert hue == seen, "the square is of the sequence's color"


def test_a_view_without_variation_is_the_picture(root: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (3, 20, 30), dtype=np.uint8)
    view = StyleView(None, (0, 0, 1, 1), False, np.zeros((9, 2)))
    assert np.array_equal(view(picture, 20), as_style(picture, 20))
    mirrored = StyleView(None, (0, 0, 1, 1), True, np.zeros((9, 2)))
    assert np.array_equal(mirrored(picture, 20), as_style(picture, 20)[..., ::-1])
    bent = StyleView.draw(StyleSettings(warp=0.2), np.random.default_rng(1))
    assert not np.array_equal(bent(picture, 20), as_style(picture, 20))


def test_recoloring_keeps_what_is_light_and_what_is_dark() -> None:
    ramp = np.repeat(np.arange(0, 256, 4, dtype=np.uint8)[None, None], 3, axis=0)
    for seed in range(20):
        luma = recolor(ramp, draw_recoloring(np.random.default_rng(seed))).mean(0)[0]
        assert np.all(np.diff(luma) >= 0)
        assert luma[-1] - luma[0] > 120


def test_ranges_of_pens_are_ordered() -> None:
    with pytest.raises(ValueError, match=r"width: 2\.0 exceeds 1\.0; the smaller one comes first"):
        LineSettings(width=(2.0, 1.0))
    pens = [LineSettings(enlarge=3).pen(np.random.default_rng(seed)) for seed in range(40)]
    assert {pen.method for pen in pens} == set(lines.METHODS)
    assert all(0.7 <= pen.width <= 1.3 and 1 <= pen.enlarge <= 3 and 0.6 <= pen.strength <= 1 for pen in pens)


def test_two_inputs_of_one_name_are_refused(root: Path) -> None:
    with pytest.raises((ConfigError, ValueError), match="two inputs are called style"):
        DataSettings.model_validate({"root": root, "condition": {"pictures": ["style"], "style": {}}})
