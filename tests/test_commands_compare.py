"""Videos next to each other: panels in step, or an error that says why not."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import skimage.data

from vidgen.cli import main
from vidgen.commands.compare import compare
from vidgen.commands.flow import estimate
from vidgen.errors import ConfigError, InputError, OutputError
from vidgen.media.frames import open_sink, open_source
from vidgen.media.images import write_png
from vidgen.pages.players import embed

HEIGHT, WIDTH = 64, 96


def pan(num_frames: int = 6) -> list[np.ndarray]:
    photo = skimage.data.chelsea()
    return [np.ascontiguousarray(photo[60 + t : 60 + HEIGHT + t, 80 + 2 * t : 80 + WIDTH + 2 * t]) for t in range(num_frames)]


def shades(levels: list[int], height: int = HEIGHT, width: int = WIDTH) -> list[np.ndarray]:
    return [np.full((height, width, 3), level, np.uint8) for level in levels]


def save(path: Path, frames: list[np.ndarray], rate: int = 10) -> str:
    with open_sink(path, time_base=Fraction(1, rate), frame_rate=Fraction(rate), quality="lossless") as sink:
        for index, frame in enumerate(frames):
            sink.write(frame, index)
    return str(path)


def read(path: Path) -> list[np.ndarray]:
    return [frame.pixels for frame in open_source(path)]


def test_panels_stand_side_by_side_under_their_names_at_one_size_and_rate(tmp_path: Path):
    first, second = save(tmp_path / "a.mkv", pan()), save(tmp_path / "b.mkv", shades([200] * 6, 128, 192))
    out = tmp_path / "both.mkv"
    result = compare([first, f"other={second}"], out, quality="lossless")
    assert result == {"output": str(out), "shows": ["a", "other"], "frames": 6, "notes": []}
    assert open_source(out).frame_rate == 10
    for frame, truth in zip(read(out), pan(), strict=True):
        strip = frame.shape[0] - HEIGHT
        assert 10 < strip < HEIGHT
        assert frame.shape[1] == 2 * WIDTH
        assert np.array_equal(frame[strip:, :WIDTH], truth)
        assert (frame[strip:, WIDTH:] == 200).all()
        assert frame[:strip, :WIDTH].max() > 150
        assert frame[:strip, WIDTH:].max() > 150


def test_more_than_three_panels_fill_rows(tmp_path: Path):
    inputs = [f"{name}={save(tmp_path / f'{name}.mkv', shades([60 * index + 40]))}" for index, name in enumerate("abcd")]
    compare(inputs, tmp_path / "grid.mkv", quality="lossless")
    [frame] = read(tmp_path / "grid.mkv")
    assert frame.shape[1] == 2 * WIDTH
    corners = frame[frame.shape[0] // 2 - 5, [5, -5], 0], frame[-5, [5, -5], 0]
    assert np.array_equal(corners, [[40, 100], [160, 220]])


def test_another_shape_is_fitted_with_black_beside_it(tmp_path: Path):
    first, tall = save(tmp_path / "a.mkv", shades([90])), save(tmp_path / "tall.mkv", shades([200], 64, 32))
    compare([first, tall], tmp_path / "both.mkv", quality="lossless")
    [frame] = read(tmp_path / "both.mkv")
    row = frame[-20, WIDTH:, 0]
    assert list(row[[0, 31, 32, 63, 64, 95]]) == [0, 0, 200, 200, 0, 0]


def test_a_wipe_shows_the_first_left_of_its_edge_and_the_second_right(tmp_path: Path):
    inputs = [save(tmp_path / "a.mkv", shades([50] * 30)), save(tmp_path / "b.mkv", shades([220] * 30))]
    compare(inputs, tmp_path / "wipe.mkv", view="wipe", quality="lossless")
    edges = []
    for frame in read(tmp_path / "wipe.mkv"):
        row = frame[-10, :, 0]
        edges.append(int((row == 50).sum()))
        assert list(row) == sorted(row, key=lambda level: (level != 50, level != 255))
    assert max(edges) - min(edges) > WIDTH / 2


def test_the_difference_of_equal_videos_is_black(tmp_path: Path):
    same, other = save(tmp_path / "a.mkv", shades([100])), save(tmp_path / "b.mkv", shades([110]))
    for second, level in ((same, 0), (other, 40)):
        compare([f"x={same}", f"y={second}"], tmp_path / "d.mkv", view="difference", quality="lossless", overwrite=True)
        assert (read(tmp_path / "d.mkv")[0][-HEIGHT:] == level).all()


def test_videos_of_different_length_are_refused_or_cut(tmp_path: Path):
    inputs = [save(tmp_path / "a.mkv", pan(6)), save(tmp_path / "b.mkv", pan(4))]
    with pytest.raises(InputError, match=r"differ in length: a has 6 frames \(0.60 s\), b has 4 frames \(0.40 s\)") as caught:
        compare(inputs, tmp_path / "both.mkv")
    assert "`allow_trim`" in (caught.value.hint or "")
    assert not (tmp_path / "both.mkv").exists()
    assert compare(inputs, tmp_path / "both.mkv", allow_trim=True)["frames"] == 4
    assert len(read(tmp_path / "both.mkv")) == 4


def test_frames_of_a_slower_video_are_shown_longer(tmp_path: Path):
    slow, fast = save(tmp_path / "slow.mkv", shades([40, 80, 120]), 10), save(tmp_path / "fast.mkv", shades(list(range(6))), 20)
    compare([slow, fast], tmp_path / "both.mkv", quality="lossless")
    clip = open_source(tmp_path / "both.mkv")
    assert clip.frame_rate == 20
    frames = read(tmp_path / "both.mkv")
    assert [frame[-5, 5, 0] for frame in frames] == [40, 40, 80, 80, 120, 120]
    assert [frame[-5, -5, 0] for frame in frames] == list(range(6))
    with pytest.raises(InputError, match=r"slow has 3 frames \(0.30 s\), short has 4 frames \(0.20 s\)"):
        compare([slow, save(tmp_path / "short.mkv", shades([1, 2, 3, 4]), 20)], tmp_path / "new.mkv")


def test_the_last_frame_is_shown_as_long_as_in_the_video_that_leads(tmp_path: Path):
    with open_sink(tmp_path / "long.mkv", time_base=Fraction(1, 100), frame_rate=Fraction(10)) as sink:
        for pixels, pts in zip(shades([40, 80, 120]), (0, 10, 20), strict=True):
            sink.write(pixels, pts, 300 if pts == 20 else 10)
    compare([str(tmp_path / "long.mkv")] * 2, tmp_path / "both.mp4")
    estimate(tmp_path / "long.mkv", output=tmp_path / "flow.mp4")
    encoded = embed({"long": open_source(tmp_path / "long.mkv")}, lead="long", max_bytes=10**6, max_height=64)
    (tmp_path / "page.mp4").write_bytes(encoded.videos["long"])
    for name, num_frames in (("both.mp4", 3), ("flow.mp4", 2), ("page.mp4", 3)):
        clip = open_source(tmp_path / name)
        shown = list(clip)
        assert len(shown) == num_frames
        assert shown[-1].duration * clip.time_base == pytest.approx(3, abs=0.011), name


def test_videos_of_as_many_frames_are_shown_frame_by_frame_whatever_their_rates(tmp_path: Path):
    slow, fast = save(tmp_path / "slow.mkv", shades([40, 80, 120]), 12), save(tmp_path / "fast.mkv", shades([1, 2, 3]), 25)
    [note] = compare([slow, fast], tmp_path / "both.mkv", quality="lossless")["notes"]
    assert note == "frame rates differ (slow has 12, fast has 25 per second): shown frame by frame, at the times of slow"
    assert open_source(tmp_path / "both.mkv").frame_rate == 12
    assert [(frame[-5, 5, 0], frame[-5, -5, 0]) for frame in read(tmp_path / "both.mkv")] == [(40, 1), (80, 2), (120, 3)]
    compare([slow, fast], tmp_path / "both.html")
    assert '"times": [0.0, 0.083' in (tmp_path / "both.html").read_text()


def test_a_folder_of_pictures_takes_the_rate_of_the_video_beside_it(tmp_path: Path):
    for index, frame in enumerate(pan()):
        write_png(tmp_path / "frames" / f"{index}.png", frame)
    compare([str(tmp_path / "frames"), save(tmp_path / "b.mkv", pan(), 12)], tmp_path / "both.mp4")
    assert open_source(tmp_path / "both.mp4").frame_rate == 12


def test_a_page_holds_every_video_with_its_name_as_text(tmp_path: Path):
    inputs = [save(tmp_path / "a.mkv", pan()), f"<b>&'\"={save(tmp_path / 'b.mkv', pan())}"]
    compare(inputs, tmp_path / "page.html", view="wipe")
    page = (tmp_path / "page.html").read_text()
    assert page.count('src="data:video/mp4;base64,') == 2
    assert "<b>" not in page
    assert "&lt;b&gt;&amp;&#39;&#34;" in page
    assert 'value="wipe" checked' in page
    assert not re.search(r'(?:src|href)="(?!data:)', page)


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path):
    for folder in ("ours", "theirs"):
        (tmp_path / folder).mkdir()
    inputs = [save(tmp_path / folder / "out.mkv", pan(1)) for folder in ("ours", "theirs", "theirs")[:2]]
    result = compare([*inputs, inputs[0]], tmp_path / "all.mkv")
    assert result["shows"] == ["ours/out", "theirs/out", "ours/out (3)"]


def test_wrong_use_is_one_clear_error(tmp_path: Path, capsys):
    video = save(tmp_path / "a.mkv", pan(2))
    with pytest.raises(ConfigError, match="needs at least two videos, got 1"):
        compare([video], tmp_path / "x.mp4")
    with pytest.raises(ConfigError, match="`view` wipe: shows two videos, got 3"):
        compare([video] * 3, tmp_path / "x.mp4", view="wipe")
    with pytest.raises(InputError, match=r"cannot write \.txt"):
        compare([video, video], tmp_path / "x.txt")
    with pytest.raises(OutputError, match="is also read as an input"):
        compare([video, video], Path(video))
    assert main(["compare", video, str(tmp_path / "absent.mkv"), "-o", str(tmp_path / "x.mp4")]) == 2
    assert "absent.mkv: not found" in capsys.readouterr().err
    assert main(["compare", video, video, "-o", str(tmp_path / "x.mp4"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 2
