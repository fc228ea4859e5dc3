"""The demo makes everything it shows, whole."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

from vidgen.commands import demo
from vidgen.errors import OutputError, OutputExistsError
from vidgen.media.frames import open_source


def test_the_demo_leaves_one_page_whose_videos_show_the_same_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "TRAINING_SEEDS", range(1, 3))
    monkeypatch.setattr(demo, "TRAINING_FRAMES", 11)
    monkeypatch.setattr(demo, "UNSEEN_FRAMES", 5)
    monkeypatch.setattr(demo, "HEIGHT", 64)
    monkeypatch.setattr(demo, "WIDTH", 128)
    out = tmp_path / "demo"
    result = demo.demo(out, minutes=0.02)
    page = (out / "index.html").read_text()
    videos = re.findall(r'<video src="data:video/mp4;base64,([^"]+)"[^>]*aria-label="([^"]*)"', page)
    names = [name for _, name in videos]
    assert (names[0], names[-1]) == ("label map: what the model reads", "ground truth")
    assert any(name.startswith("generated") for name in names)
    for index, (content, _) in enumerate(videos):
        (tmp_path / f"{index}.mp4").write_bytes(base64.b64decode(content))
        clip = open_source(tmp_path / f"{index}.mp4")
        assert [round(float(frame.pts * clip.time_base) * demo.FPS, 1) for frame in clip] == [0, 1, 2, 3, 4]
    assert "://" not in page
    assert result["scores"]["warp_error@1"] is not None
    assert (out / "preview.png").stat().st_size > 1000
    assert {entry.name for entry in out.iterdir()} == demo.WRITTEN
    with pytest.raises(OutputExistsError, match="demo: holds an earlier demo"):
        demo.demo(out, minutes=0.02)
    (out / "thesis.tex").touch()
    with pytest.raises(OutputError, match=r"holds other things, such as thesis\.tex"):
        demo.demo(out, minutes=0.02, overwrite=True)
