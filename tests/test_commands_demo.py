"""The demo makes everything it shows, whole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vidgen.commands import demo
from vidgen.errors import OutputError
from vidgen.media.frames import open_source


def test_the_demo_leaves_a_page_whose_videos_exist_and_play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "TRAINING_SEEDS", range(1, 3))
    monkeypatch.setattr(demo, "TRAINING_FRAMES", 11)
    monkeypatch.setattr(demo, "UNSEEN_FRAMES", 5)
    monkeypatch.setattr(demo, "HEIGHT", 64)
    monkeypatch.setattr(demo, "WIDTH", 128)
    out = tmp_path / "demo"
    result = demo.demo(out, minutes=0.02)
    page = (out / "index.html").read_text()
    videos = re.findall(r'<video src="([^"]+)"', page)
    assert videos == ["labels.mp4", "result.mp4", "shipped.mp4", "truth.mp4"]
    assert {sum(1 for _ in open_source(out / name)) for name in videos} == {5}
    assert "://" not in page
    assert result["scores"]["warp_error@1"] is not None
    assert (out / "preview.png").stat().st_size > 1000
    with pytest.raises(OutputError, match="is not empty"):
        demo.demo(out, minutes=0.02)
