from __future__ import annotations

import json
import logging
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from flow.engines import estimate as estimate_flow
from flow.errors import FlowError
from flow.files import read_flow, write_flow
from flow.synthetic import Scenes
from vidgen import progress
from vidgen.commands import flow as command
from vidgen.commands import progress as displays
from vidgen.commands.flow_table import as_text, table
from vidgen.errors import InputError, OutputError
from vidgen.media.frames import open_sink, open_source
from vidgen.media.images import write_png


def pan_frames(count: int = 4, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """A still seen by a camera that moves right by 2 pixels a frame."""
    still = (Scenes(height, width + 2 * count, flat_share=0).pair(0, 0)[0] + 1) * 127.5
    pixels = still.round().to(torch.uint8).permute(1, 2, 0).numpy()
    return [np.ascontiguousarray(pixels[:, 2 * t : 2 * t + width]) for t in range(count)]


@pytest.fixture
def clip(tmp_path) -> Path:
    folder = tmp_path / "clip"
    folder.mkdir()
    for index, pixels in enumerate(pan_frames()):
        write_png(folder / f"{index}.png", pixels)
    return folder


def to_tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 127.5 - 1


def test_the_flow_of_a_video_is_a_folder_of_numbers_one_for_each_pair(clip, tmp_path):
    result = command.estimate(clip, output=tmp_path / "flow")
    assert result == {
        "output": str(tmp_path / "flow"),
        "occlusion": None,
        "kind": "flow",
        "engine": "dis",
        "backend": None,
        "num_fields": 3,
        "max_flow": None,
        "occluded_share": None,
    }
    files = sorted(path.name for path in (tmp_path / "flow").glob("[!.]*"))
    assert files == ["00000.flo", "00001.flo", "00002.flo"]
    frames = [to_tensor(pixels) for pixels in pan_frames()]
    assert torch.equal(read_flow(tmp_path / "flow/00001.flo")[0], estimate_flow(frames[2], frames[1])[0])


def test_occlusion_is_written_beside_the_flow_or_instead(clip, tmp_path):
    result = command.estimate(clip, output=tmp_path / "flow", occlusion=tmp_path / "masks")
    masks = [frame.pixels for frame in open_source(tmp_path / "masks")]
    assert len(masks) == result["num_fields"] == 3
    assert {int(value) for mask in masks for value in np.unique(mask)} <= {0, 255}
    assert np.mean([mask > 0 for mask in masks]) == pytest.approx(result["occluded_share"])
    assert (masks[1][:, -2:] > 0).mean() > 0.9, "the camera moves right: the last columns are not in the frame before"
    assert (masks[1][8:-8, 8:-8] > 0).mean() < 0.05
    alone = command.estimate(clip / "0.png", clip / "1.png", occlusion=tmp_path / "mask.png")
    assert (alone["output"], alone["kind"], alone["num_fields"]) == (None, None, 1)
    assert open_source(tmp_path / "mask.png").count() == 1


def test_occlusion_that_cannot_be_written_is_refused_before_any_work(clip, tmp_path):
    with pytest.raises(InputError, match="nothing is to be written"):
        command.estimate(clip)
    with pytest.raises(InputError, match="the picture of two pictures is written to"):
        command.estimate(clip / "0.png", clip / "1.png", occlusion=tmp_path / "mask.flo")
    with pytest.raises(InputError, match="a folder holds one direction"):
        command.estimate(clip, occlusion=tmp_path / "masks", engine="folder", weights=tmp_path)
    (tmp_path / "mask.mp4").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"mask\.mp4"):
        command.estimate(clip, output=tmp_path / "flow", occlusion=tmp_path / "mask.mp4")
    assert not (tmp_path / "flow").exists()


@pytest.mark.slow
def test_the_table_holds_every_engine_on_every_set():
    pytest.importorskip("skimage")
    engines = ("dis-fast", "learned")
    result = table(engines, motorcycle=True, num_streets=1, num_scenes=2)
    assert list(result["scores"]) == ["street frames", "street labels", "street lines", "flat layers", "motorcycle"]
    assert all(list(scores) == list(engines) for scores in result["scores"].values())
    assert result["behaviour"]["dis-fast"]["still_pixels"] == 0
    assert result["behaviour"]["learned"]["still_pixels"] < 0.1
    assert result["behaviour"]["learned"]["large_bfloat16_milliseconds"] > 0
    for kind in ("street labels", "street lines"):
        scores = result["scores"][kind]
        assert scores["learned"]["endpoint_error"] < scores["dis-fast"]["endpoint_error"]
    assert result["scores"]["motorcycle"]["dis-fast"]["endpoint_error"] == pytest.approx(3.23, rel=0.05)
    assert result["scores"]["motorcycle"]["dis-fast"]["known_share"] < 1
    lines = as_text(result).splitlines()
    assert lines[0].startswith("| endpoint error")
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


def test_flow_into_the_next_frame_is_the_other_way_round(clip, tmp_path):
    command.estimate(clip, output=tmp_path / "flow", into="next")
    frames = [to_tensor(pixels) for pixels in pan_frames()]
    assert torch.equal(read_flow(tmp_path / "flow/00001.flo")[0], estimate_flow(frames[1], frames[2])[0])


def test_what_was_written_serves_as_an_engine(clip, tmp_path):
    command.estimate(clip, output=tmp_path / "flow")
    command.estimate(clip, output=tmp_path / "again", engine="folder", weights=tmp_path / "flow")
    for name in ("00000.flo", "00002.flo"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "flow" / name).read_bytes()


@pytest.mark.parametrize(("name", "tolerance"), [("flow.flo", 0), ("flow.pfm", 0), ("flow.png", 1 / 128)])
def test_the_flow_of_two_pictures_is_a_file(clip, tmp_path, name, tolerance):
    result = command.estimate(clip / "0.png", clip / "1.png", output=tmp_path / name, kind="flow")
    expected = estimate_flow(*(to_tensor(pixels) for pixels in pan_frames()[:2]))[0]
    assert result["num_fields"] == 1
    assert (read_flow(tmp_path / name)[0] - expected).abs().max() <= tolerance


def test_a_png_of_two_pictures_is_in_colours_unless_numbers_are_asked_for(clip, tmp_path):
    result = command.estimate(clip / "0.png", clip / "1.png", output=tmp_path / "flow.png", max_flow=4)
    assert (result["kind"], result["max_flow"]) == ("picture", 4)
    pixels = open_source(tmp_path / "flow.png").read(0, 1)[0].pixels
    assert pixels.shape == (48, 64, 3)
    left = pixels[8:-8, 8:-8].mean(axis=(0, 1))  # the picture moves left: blue or cyan
    assert left[2] > left[0] + 30


def test_a_video_of_colours_keeps_the_times_of_its_frames(clip, tmp_path):
    with open_sink(tmp_path / "in.mp4", time_base=Fraction(1, 100), frame_rate=Fraction(10)) as sink:
        for pixels, pts in zip(pan_frames(), (0, 10, 25, 30), strict=True):
            sink.write(pixels, pts)
    result = command.estimate(tmp_path / "in.mp4", output=tmp_path / "flow.mp4", engine="dis-fast")
    assert result["num_fields"] == 3
    assert result["max_flow"] >= 1
    source = open_source(tmp_path / "flow.mp4")
    times = [float(frame.pts * source.time_base) for frame in source]
    assert [round(later - times[0], 3) for later in times] == [0, 0.15, 0.2]


def test_outputs_that_do_not_fit_or_exist_are_refused_before_any_work(clip, tmp_path):
    for output, second, words in [
        ("flow.flo", None, "the flow of a video is written to a folder"),
        ("flow", clip / "1.png", "the flow of two pictures is written to a .flo"),
        ("flow.mp4", clip / "1.png", "the flow of two pictures"),
    ]:
        with pytest.raises(InputError, match=words):
            command.estimate(clip / "0.png" if second else clip, second, output=tmp_path / output)
    with pytest.raises(InputError, match="the flow of a video"):
        command.estimate(clip, output=tmp_path / "flow.mp4", kind="flow")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match=r"holds other things, such as thesis\.txt"):
        command.estimate(clip, output=tmp_path / "mine", overwrite=True)
    command.estimate(clip, output=tmp_path / "flow", engine="dis-fast")
    with pytest.raises(OutputError, match="exists already"):
        command.estimate(clip, output=tmp_path / "flow")
    assert command.estimate(clip, output=tmp_path / "flow", engine="dis-fast", overwrite=True)["num_fields"] == 3


def test_inputs_that_make_no_pair_are_refused(clip, tmp_path):
    with pytest.raises(InputError, match="holds one frame; flow needs two"):
        command.estimate(clip / "0.png", output=tmp_path / "flow")
    assert not (tmp_path / "flow").exists()
    with pytest.raises(InputError, match="holds 4 frames; with two inputs each must be one picture"):
        command.estimate(clip / "0.png", clip, output=tmp_path / "flow.flo")
    with pytest.raises(FlowError, match="is not known"):
        command.estimate(clip, output=tmp_path / "flow", engine="magic")


def test_engines_are_measured_on_middlebury(data_root):
    result = command.evaluate(data_root / "middlebury", engine="dis-fast")
    assert sorted(result["pairs"]) == ["Grove2", "RubberWhale", "Urban2", "Venus"]
    assert result["mean"]["endpoint_error"] == pytest.approx(0.598, rel=0.05)
    assert result["pairs"]["RubberWhale"]["known_share"] < 1


def test_a_perfect_engine_has_no_error(clip, tmp_path):
    pair = tmp_path / "set/pair"
    pair.mkdir(parents=True)
    for index in (0, 1):
        (pair / f"{index}.png").write_bytes((clip / f"{index}.png").read_bytes())
    write_flow(pair / "truth.flo", torch.randn(2, 48, 64, generator=torch.Generator().manual_seed(0)))
    command_folder = tmp_path / "answers"
    write_flow(command_folder / "0.flo", read_flow(pair / "truth.flo")[0])
    scores = command.evaluate(tmp_path / "set", engine="folder", weights=command_folder)["pairs"]["pair"]
    assert (scores["endpoint_error"], scores["outlier_share"], scores["known_share"]) == (0, 0, 1)
    assert scores["angular_error"] == pytest.approx(0, abs=1e-4)
    write_flow(pair / "truth.flo", torch.zeros(2, 8, 8))
    with pytest.raises(InputError, match=r"is 8x8, but .*0\.png is 64x48"):
        command.evaluate(pair)
    with pytest.raises(InputError, match="neither it nor a folder in it"):
        command.evaluate(clip)


def test_an_engine_that_is_two_pixels_off_somewhere_is_wrong_beyond_one_pixel_there(clip, tmp_path):
    (tmp_path / "pair").mkdir()
    for index in (0, 1):
        (tmp_path / f"pair/{index}.png").write_bytes((clip / f"{index}.png").read_bytes())
    truth = torch.zeros(2, 48, 64)
    write_flow(tmp_path / "pair/truth.flo", truth)
    truth[0, :12] = 2.0
    write_flow(tmp_path / "answers/0.flo", truth)
    scores = command.evaluate(tmp_path / "pair", engine="folder", weights=tmp_path / "answers")["mean"]
    assert scores["beyond_1px_share"] == 0.25
    assert scores["endpoint_error"] == 0.5
    assert scores["outlier_share"] == 0
    assert scores["milliseconds"] > 0


TINY = {"num_steps": 2, "batch_size": 1, "height": 48, "width": 64, "warmup_steps": 1, "checkpoint_every_steps": 1}


def test_training_and_fine_tuning_make_weights_that_the_learned_engine_uses(clip, tmp_path):
    trained = command.train(tmp_path / "run", textures=clip, **TINY)
    tuned = command.train(tmp_path / "tuned", video=clip, initial=Path(trained["weights"]), **TINY)
    assert trained["settings"]["num_steps"] == 2
    assert "census" in json.loads((tmp_path / "tuned/log.jsonl").read_text().splitlines()[0])
    result = command.estimate(clip, output=tmp_path / "flow", engine="learned", weights=Path(tuned["weights"]))
    assert result["num_fields"] == 3


def test_measured_pairs_go_to_the_training_log_and_steps_to_the_shared_display(clip, tmp_path, caplog, monkeypatch):
    pair = tmp_path / "set/mine"
    pair.mkdir(parents=True)
    for index in (0, 1):
        (pair / f"{index}.png").write_bytes((clip / f"{index}.png").read_bytes())
    write_flow(pair / "truth.flo", torch.zeros(2, 48, 64))
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(displays, "SECONDS_BETWEEN_LINES", 0.0)
    with progress.shown_on(displays.Lines()):
        command.train(tmp_path / "run", measure_on=tmp_path / "set", **{**TINY, "num_steps": 1})
    entry = json.loads((tmp_path / "run/log.jsonl").read_text())
    assert entry["endpoint_error_mine"] > 0
    measured, follows = [record.message for record in caplog.records if record.message.startswith(("step", "training"))]
    assert measured.startswith("step 1 of 1: endpoint ")
    assert f"endpoint_error_mine {entry['endpoint_error_mine']:.3f}" in measured
    assert follows.startswith(f"training flow in {tmp_path / 'run'}: 1 of 1, ")


def test_a_setting_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(InputError, match="num_epochs: is no setting of flow training; there are num_steps, batch_size"):
        command.train(tmp_path, num_epochs=3)


def test_outputs_of_flow_are_checked_together_before_the_work(clip, tmp_path):
    with pytest.raises(OutputError, match="two results of one job"):
        command.estimate(clip, output=tmp_path / "a.mkv", occlusion=tmp_path / "a.mkv", kind="picture")
    with pytest.raises(OutputError, match="is also read as an input"):
        command.estimate(clip, output=clip, kind="picture", overwrite=True)
    command.estimate(clip, output=tmp_path / "flow")
    (tmp_path / "flow/mine.flo").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"holds other things, such as mine\.flo"):
        command.estimate(clip, output=tmp_path / "flow", overwrite=True)
