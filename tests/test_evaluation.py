from __future__ import annotations

import ast
import csv
import json
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import skimage.data

from flow.errors import FlowError
from vidgen.cli import main
from vidgen.commands import evaluate as command
from vidgen.errors import ConfigError, InputError, OutputError
from vidgen.evaluation.inputs import common_size
from vidgen.evaluation.measure import evaluate, list_metrics
from vidgen.evaluation.report import read_reports
from vidgen.media.frames import open_sink, open_source
from vidgen.media.images import write_png
from vidgen.metrics import motion, temporal

HEIGHT, WIDTH, NUM_FRAMES = 64, 96, 6


def pan(num_frames: int = NUM_FRAMES, *, height: int = HEIGHT, width: int = WIDTH) -> list[np.ndarray]:
    photo = skimage.data.chelsea()
    return [photo[60 + t : 60 + t + height, 80 + 2 * t : 80 + 2 * t + width] for t in range(num_frames)]


def grainy(frames: list[np.ndarray], levels: float = 6) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [(frame + levels * generator.normal(size=frame.shape)).round().clip(0, 255).astype(np.uint8) for frame in frames]


def save(folder: Path, frames: list[np.ndarray]) -> Path:
    folder.mkdir(parents=True)
    for index, frame in enumerate(frames):
        write_png(folder / f"{index:05d}.png", np.ascontiguousarray(frame))
    return folder


def save_video(path: Path, frames: list[np.ndarray], rate: int = 25) -> Path:
    with open_sink(path, time_base=Fraction(1, rate), frame_rate=Fraction(rate), quality="lossless") as sink:
        for index, frame in enumerate(frames):
            sink.write(np.ascontiguousarray(frame), index)
    return path


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    return save(tmp_path / "truth", pan())


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return save(tmp_path / "output", grainy(pan()))


def measure(output, **options):
    return evaluate(output, **{"cache": None, "strides": (1, 3), **options})


def test_a_result_is_measured_against_its_target(output: Path, truth: Path):
    scores = measure(output, target=truth)
    noise = np.mean([np.square((a.astype(float) - b) / 255) for a, b in zip(grainy(pan()), pan(), strict=True)])
    assert scores["warp_error@1"] == pytest.approx(2 * noise, rel=0.1)
    assert scores["warp_error_target@1"] < 1e-5
    assert scores["psnr"] == pytest.approx(-10 * np.log10(noise), abs=0.05)
    assert 0.5 < scores["ssim"] < 1
    assert scores["tpsnr"] == pytest.approx(-10 * np.log10(2 * noise), abs=0.1)
    assert scores["ms_ssim"] is None
    assert "161 pixels" in (scores.metrics["ms_ssim"].reason or "")
    assert scores.provenance.flow_from == "target"
    assert "warp_ratio_source" not in scores.metrics


def test_a_result_is_measured_against_its_source(output: Path, truth: Path):
    scores = measure(output, source=truth)
    assert scores.provenance.flow_from == "source"
    assert "psnr" not in scores.metrics
    assert "warp_error_source@3" in scores.metrics
    both = measure(output, source=save(output.parent / "flat", [np.zeros_like(frame) for frame in pan()]), target=truth)
    assert both["warp_error@1"] == scores["warp_error@1"]
    chosen = measure(output, source=truth, target=output, flow_from="source")
    assert chosen["warp_error@1"] == scores["warp_error@1"]


def test_videos_folders_and_frames_in_memory_score_alike(tmp_path: Path, output: Path, truth: Path):
    folder = measure(output, target=truth)
    memory = measure(grainy(pan()), target=pan())
    source = measure(open_source(output), target=open_source(truth))
    for other in (memory, source):
        assert {key: score.value for key, score in other.metrics.items()} == {
            key: score.value for key, score in folder.metrics.items()
        }
    video = measure(save_video(tmp_path / "o.mkv", grainy(pan())), target=save_video(tmp_path / "t.mkv", pan()))
    assert video["psnr"] == pytest.approx(folder["psnr"], rel=0.05)
    assert video.provenance.frame_rate == 25


def test_a_cache_changes_no_score_and_saves_the_motion_of_the_reference(tmp_path: Path, output: Path, truth: Path, monkeypatch):
    cache = tmp_path / "cache"
    without = measure(output, target=truth)
    first = measure(output, target=truth, cache=cache)
    files = sorted(cache.iterdir())
    assert len(files) == (NUM_FRAMES - 1) + (NUM_FRAMES - 3)
    estimated = []
    monkeypatch.setattr(temporal, "reference_motion", lambda *pair: estimated.append(pair))
    second = measure(output, target=truth, cache=cache)
    assert not estimated
    assert without.to_dict() == first.to_dict() == second.to_dict()
    for file in files:
        assert file.suffix == ".npz"


def test_a_damaged_cache_is_measured_again_and_another_engine_has_its_own(tmp_path: Path, output: Path, truth: Path):
    cache = tmp_path / "cache"
    first = measure(output, target=truth, cache=cache, strides=(1,))
    files = sorted(cache.iterdir())
    files[0].write_bytes(files[0].read_bytes()[:100])
    files[1].write_bytes(b"")
    broken = bytearray(files[2].read_bytes())
    broken[len(broken) // 2] ^= 0xFF
    files[2].write_bytes(broken)
    assert measure(output, target=truth, cache=cache, strides=(1,)).to_dict() == first.to_dict()
    measure(output, target=truth, cache=cache, flow="farneback", strides=(1,))
    assert len(list(cache.iterdir())) == 2 * len(files)


def test_a_cache_is_kept_below_its_limit(tmp_path: Path, output: Path, truth: Path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setattr(motion, "CACHE_BYTES", 20_000)
    measure(output, target=truth, cache=cache)
    assert 0 < sum(file.stat().st_size for file in cache.iterdir()) <= 20_000


def test_a_cache_that_cannot_be_written_does_not_stop_the_work(tmp_path: Path, output: Path, truth: Path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert measure(output, target=truth, cache=blocked / "cache").to_dict() == measure(output, target=truth).to_dict()


def test_inputs_of_different_length_are_refused_and_can_be_trimmed(tmp_path: Path, output: Path):
    longer = save(tmp_path / "longer", pan(8))
    with pytest.raises(InputError, match=r"output\) ends after 6 frames, but .*longer"):
        measure(output, target=longer)
    with pytest.raises(InputError, match=r"target\) ends after 6 frames"):
        measure(longer, target=output)
    scores = measure(output, target=longer, allow_trim=True)
    assert scores.provenance.num_frames == 6


def test_inputs_of_different_shape_or_frame_rate_are_refused(tmp_path: Path, output: Path):
    with pytest.raises(InputError, match="the output is 96x64, but the target 64x64"):
        measure(output, target=save(tmp_path / "square", pan(width=64)))
    videos = [save_video(tmp_path / f"{rate}.mkv", pan(), rate) for rate in (25, 50)]
    with pytest.raises(InputError, match=r"the output has 25, the target has 50"):
        measure(videos[0], target=videos[1])


def test_no_frames_at_all_are_refused(truth: Path):
    with pytest.raises(InputError, match="holds no frames"):
        measure([], target=truth)


def test_frames_that_are_not_pictures_are_refused(truth: Path):
    with pytest.raises(InputError, match=r"expected frames of uint8 \[H,W,3\], got float64"):
        measure([frame / 255 for frame in pan()], target=truth)


def test_one_frame_has_scores_of_pictures_only(truth: Path):
    scores = measure(f"{truth}[0:1]", target=f"{truth}[0:1]")
    assert scores["psnr"] == 100
    for key in ("tpsnr", "tssim", "warp_error@1", "motion_fidelity", "flicker_global"):
        assert scores[key] is None
        assert "needs at least" in scores.metrics[key].reason
    assert scores.reasons


@pytest.mark.parametrize(
    ("sizes", "limit", "expected"),
    [
        ({"output": (64, 96)}, 288, (64, 96)),
        ({"output": (65, 97)}, None, (65, 97)),
        ({"output": (720, 1280), "source": (1080, 1920)}, 288, (288, 512)),
        ({"output": (720, 1280), "source": (181, 321)}, 288, (180, 320)),
        ({"output": (192, 256), "target": (360, 480)}, 288, (192, 256)),
    ],
)
def test_everything_is_measured_at_the_height_of_the_lowest_input_and_never_higher_than_asked(sizes, limit, expected):
    assert common_size(sizes, limit) == expected


def test_only_the_metrics_asked_for_are_measured(output: Path, truth: Path, monkeypatch):
    monkeypatch.setattr(temporal, "reference_motion", None)
    scores = measure(output, target=truth, metrics="psnr, ssim")
    assert list(scores.metrics) == ["psnr", "ssim"]
    assert "not measured" in scores.reasons[0]
    alone = ["flicker_global", "frame_diff", "vbench_temporal_flickering", "grid"]
    assert list(measure(output, metrics="default").metrics) == alone


def test_all_adds_the_slow_metrics(output: Path, truth: Path):
    default, everything = measure(output, target=truth), measure(output, target=truth, metrics="all")
    assert set(everything.metrics) - set(default.metrics) == {"tof_farneback"}


def test_fast_uses_stride_one_and_says_so(output: Path, truth: Path):
    scores = measure(output, target=truth, fast=True, strides=(1, 3, 9))
    assert "warp_error@3" not in scores.metrics
    assert scores.provenance.strides == [1]
    assert "medium" in scores.provenance.flow


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": "psnt"}, "no metric is called 'psnt'"),
        ({"metrics": "warp_ratio_source"}, "needs `source`"),
        ({"metrics": "swd"}, "needs `reference_set`"),
        ({"metrics": ","}, "`metrics`"),
        ({"strides": (0, 1)}, "`strides`"),
        ({"flow_from": "source"}, "there is no `source`"),
        ({"flow_from": "output"}, "expected auto, source or target"),
        ({"flow": "folder"}, "`flow` folder"),
        ({"fail_if": ["psnr"]}, "`fail_if`"),
        ({"eval_height": 8}, "`eval_height`"),
    ],
)
def test_wrong_options_are_refused_before_any_work(output: Path, truth: Path, options, message):
    with pytest.raises(ConfigError, match=message):
        measure(output, target=truth, **options)


def test_an_unknown_engine_is_named(output: Path, truth: Path):
    with pytest.raises(FlowError, match="magic"):
        measure(output, target=truth, flow="magic")


def test_even_strides_are_measured_with_a_warning(output: Path, truth: Path, caplog):
    scores = measure(output, target=truth, strides=(2,))
    assert "warp_error@2" in scores.metrics
    assert "warp_error@1" in scores.metrics
    assert "even strides" in caplog.text


def test_a_reference_set_of_pictures_or_clips_is_compared_by_looks(tmp_path: Path, output: Path, truth: Path):
    pictures = measure(output, reference_set=truth)
    assert pictures["swd"] > 10
    assert pictures["color_distance"] > 0
    assert pictures["swd_t"] is None
    clips = tmp_path / "clips"
    save(clips / "one", pan())
    save_video(clips / "two.mkv", pan())
    assert measure(output, reference_set=clips)["swd_t"] > 10
    short = tmp_path / "short"
    for name in ("one", "two"):
        save(short / name, pan(2))
    assert measure(output, reference_set=short, metrics="swd_t")["swd_t"] is None
    mixed = save(tmp_path / "mixed", pan(2))
    write_png(mixed / "wide.png", np.ascontiguousarray(skimage.data.chelsea()[:80, :200]))
    assert measure(output, reference_set=mixed, metrics="swd,color_distance")["swd"] > 10


def test_compared_videos_have_differences_with_intervals(tmp_path: Path, output: Path, truth: Path):
    better = save(tmp_path / "better", grainy(pan(), levels=2))
    report = command.run(str(better), target=str(truth), compare=[f"worse={output}"], strides="1,3", no_cache=True)
    entry = report.comparisons["worse"]["psnr"]
    assert entry.difference == pytest.approx(report["psnr"] - entry.value)
    assert 5 < entry.low <= entry.difference <= entry.high
    assert "compared with worse" in report.table()


@pytest.mark.parametrize("options", [{"compare": ["worse"]}, {"compare": ["a=x", "a=y"]}, {"strides": "1;3"}, {"strides": ""}])
def test_options_of_the_command_line_are_checked(options):
    with pytest.raises(ConfigError, match=r"`compare`|`strides`"):
        command.run("out", **options)


def test_files_are_written_whole(tmp_path: Path, output: Path, truth: Path):
    table, frames = tmp_path / "scores.csv", tmp_path / "frames.csv"
    options = {"csv": table, "per_frame": frames, "compare": [f"again={output}"], "no_cache": True}
    scores = command.run(str(output), target=str(truth), **options)
    rows = list(csv.DictReader(table.open()))
    assert [row["video"] for row in rows] == [str(output), "again"]
    assert float(rows[0]["psnr"]) == scores["psnr"]
    lines = list(csv.DictReader(frames.open()))
    assert len(lines) == NUM_FRAMES
    assert lines[0]["warp_error@1"] == ""
    assert np.mean([float(line["warp_error@1"]) for line in lines[1:]]) == pytest.approx(scores["warp_error@1"])


def test_tables_are_checked_before_anything_is_measured(tmp_path: Path, output: Path):
    (tmp_path / "mine.csv").write_text("mine")
    for options in ({"csv": tmp_path / "mine.csv"}, {"per_frame": tmp_path / "mine.csv"}):
        with pytest.raises(OutputError, match=r"mine\.csv: exists already"):
            command.run(str(output), **options)
    with pytest.raises(OutputError, match="two results of one job"):
        command.run(str(output), csv=tmp_path / "a.csv", per_frame=tmp_path / "a.csv")
    with pytest.raises(OutputError, match="is also read as an input"):
        command.run(str(output), csv=Path(output), overwrite=True)
    assert (tmp_path / "mine.csv").read_text() == "mine"


def test_a_missed_gate_is_part_of_the_report(output: Path, truth: Path):
    scores = measure(output, target=truth, fail_if=["warp_error>1e-4", "psnr<10"])
    assert len(scores.faults) == 1
    assert json.loads(json.dumps(scores.to_dict(), allow_nan=False))["faults"] == scores.faults


def test_every_metric_is_listed_with_what_it_needs():
    needs = {name: entry["needs"] for name, entry in list_metrics().items()}
    assert needs["psnr"] == "target"
    assert needs["frame_diff"] == "nothing else"
    assert needs["warp_error"] == "source or target"
    assert needs["warp_ratio_source"] == "source"
    assert needs["miou_target"] == "target and segmenter and source or label_maps"
    assert needs["fid"] == "reference_set and weights inception"


def test_a_missed_gate_leaves_one_document_on_the_command_line_that_is_read_back(tmp_path: Path, output: Path, truth: Path, capsys):
    line = ["evaluate", str(output), "--target", str(truth), "--no-cache", "--strides", "1", "--fail-if", "psnr<60"]
    assert main([*line, "--json"]) == 4
    done = capsys.readouterr()
    scores = tmp_path / "scores.json"
    scores.write_text(done.out)
    assert json.loads(done.out)["faults"] == read_reports(scores)[None].faults != []
    assert "psnr is" in done.err
    assert main(line) == 4
    assert "warp_error@1" in capsys.readouterr().out


def test_memory_does_not_grow_with_the_video():
    """1200 frames of 72 kB (290 kB as float) pass by; nothing like their 86 MB stays."""
    frames = pan(2, height=128, width=192)
    resident: list[int] = []

    def passing():
        for index in range(1200):
            if index in (200, 1199):
                resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)
            yield frames[index % 2].copy()

    measure(passing(), target=(frames[index % 2] for index in range(1200)), metrics="psnr,frame_diff")
    assert resident[1] - resident[0] < 24 << 20


def test_a_video_smaller_than_a_block_has_no_local_flicker():
    tiny = pan(4, height=12, width=20)
    scores = measure(grainy(tiny), target=tiny)
    assert scores["flicker_local"] is None
    assert "16x16" in scores.metrics["flicker_local"].reason
    assert scores["warp_error@1"] > 0


def test_a_reference_set_of_one_folder_of_frames_is_a_clip_not_stills(tmp_path: Path):
    frames = list(np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8))
    for index, frame in enumerate(frames):
        write_png(tmp_path / "set" / "clip" / f"{index}.png", frame)
    as_clip = evaluate(frames, reference_set=tmp_path / "set", metrics="swd_t")
    as_stills = evaluate(frames, reference_set=tmp_path / "set" / "clip", metrics="swd_t")
    assert as_clip["swd_t"] == 0
    assert as_stills["swd_t"] is None


@pytest.mark.parametrize("room", ["metrics", "evaluation", "pages"])
def test_messages_of_the_library_name_parameters_and_no_options(room):
    """The command line turns the names in backticks into its options; see `vidgen.cli.Command`."""
    for file in (Path(command.__file__).parents[1] / room).glob("*.py"):
        tree = ast.parse(file.read_text())
        docstrings = {ast.get_docstring(node, clean=False) for node in ast.walk(tree) if hasattr(node, "body") and node.body
                      and isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)}  # fmt: skip
        texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        assert not [text for text in texts - docstrings if re.search(r"(?<!\w)--[a-z]", text)], file


def test_the_command_line_names_its_own_options(output: Path, truth: Path, capsys):
    assert main(["evaluate", str(output), "--target", str(truth), "--eval-height", "8"]) == 2
    assert "error: --eval-height 8: expected at least 16" in capsys.readouterr().err
    assert main(["evaluate", str(output), "--metrics", "lpips", "--target", str(truth)]) == 2
    assert "--metrics lpips: needs --pretrained lpips=FILE" in capsys.readouterr().err
    assert main(["evaluate", str(output), "--metrics", "psnt"]) == 2
    assert "hint: --list-metrics shows them all" in capsys.readouterr().err


def test_frames_with_gaps_at_different_places_are_not_compared(tmp_path: Path) -> None:
    for folder, gap in (("output", 2), ("target", 4)):
        for number in (number for number in range(6) if number != gap):
            write_png(tmp_path / folder / f"{number}.png", np.full((64, 64, 3), 40 * number, np.uint8))
    with pytest.raises(InputError, match=r"target: its numbers do not match those of .*output; without a partner: 4.png of"):
        evaluate(str(tmp_path / "output"), target=str(tmp_path / "target"))
