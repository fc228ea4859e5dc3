"""The page on scores and runs: whole, honest, and deaf to what names and files try to make it do."""

from __future__ import annotations

import base64
import html
import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data

from vidgen.cli import main
from vidgen.commands.report import report
from vidgen.errors import ConfigError, InputError, OutputError
from vidgen.evaluation.measure import evaluate
from vidgen.evaluation.report import read_reports
from vidgen.media.frames import open_sink, open_source
from vidgen.media.images import write_png

NUM_FRAMES = 8
HOSTILE_NAME = "<img src=x onerror=alert(1)>\"'&{{ 7*7 }}"
HOSTILE = f"{HOSTILE_NAME}</script><script>alert(2)</script>"


def pan(num_frames: int = NUM_FRAMES) -> list[np.ndarray]:
    photo = skimage.data.chelsea()
    return [np.ascontiguousarray(photo[60 + t : 124 + t, 80 + 2 * t : 176 + 2 * t]) for t in range(num_frames)]


def grainy(frames: list[np.ndarray], levels: float) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [(frame + levels * generator.normal(size=frame.shape)).round().clip(0, 255).astype(np.uint8) for frame in frames]


def save(folder: Path, frames: list[np.ndarray]) -> Path:
    for index, frame in enumerate(frames):
        write_png(folder / f"{index:05d}.png", frame)
    return folder


def save_video(path: Path, frames: list[np.ndarray], times: list[int] | None = None) -> Path:
    with open_sink(path, time_base=Fraction(1, 1000), frame_rate=Fraction(10), quality="lossless") as sink:
        for frame, time in zip(frames, times or range(0, 100 * len(frames), 100), strict=True):
            sink.write(frame, time)
    return path


def measure(output: Path, source: Path, file: Path, **options: Any) -> Path:
    evaluate(str(output), source=str(source), cache=None, **{"strides": (1, 3), **options}).save(file)
    return file


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Scores of a copy, a grainy, a blurred copy, and where their source is."""
    root = tmp_path_factory.mktemp("scored")
    source = save(root / "source", pan())
    outputs = {
        "copy": save_video(root / "copy.mkv", pan()),
        "grain": save_video(root / "grain.mkv", grainy(pan(), 8)),
        "blur": save_video(root / "blur.mkv", [cv2.GaussianBlur(frame, (0, 0), 4) for frame in pan()]),
    }
    files = {name: measure(output, source, root / f"{name}.json") for name, output in outputs.items()}
    return {"source": source, **files}


def payload(page: Path) -> dict[str, Any]:
    """The values that the page's script draws."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def text_of(page: Path) -> str:
    """What one reads, without the tags."""
    body = page.read_text().partition("<body>")[2].partition("<script")[0]
    return html.unescape(" ".join(re.sub(r"<[^>]*>", " ", body).split()))


def videos_in(page: Path, folder: Path) -> dict[str, Path]:
    """The embedded videos as files, by the name the page gives them."""
    found = re.findall(r'<video src="data:video/mp4;base64,([^"]+)"[^>]*aria-label="([^"]*)"', page.read_text())
    files = {}
    for index, (content, name) in enumerate(found):
        files[html.unescape(name)] = folder / f"embedded-{index}.mp4"
        files[html.unescape(name)].write_bytes(base64.b64decode(content))
    return files


def test_a_page_says_the_verdict_and_every_score_with_its_unit_or_the_reason_why_there_is_none(tmp_path: Path, scored):
    out = tmp_path / "page.html"
    result = report([str(scored["blur"])], out)
    shown, scores = text_of(out), json.loads(scored["blur"].read_text())
    assert result["notes"] == []
    assert "not to be ranked" in shown
    for reason in scores["verdict"]["reasons"]:
        assert reason in shown
    for key, score in scores["metrics"].items():
        assert f" {key} " in shown
        assert score["unit"] in shown
        assert score["value"] is not None or score["reason"] in shown


def test_a_page_needs_no_other_file_and_no_network(tmp_path: Path, scored):
    out = tmp_path / "page.html"
    report([str(scored["copy"]), str(scored["grain"])], out)
    page = out.read_text()
    assert all(address.startswith("data:") for address in re.findall(r'(?:src|href|poster)\s*=\s*"([^"]*)"', page))
    assert not re.search(r"@import|url\(|<iframe|<object|<form", page)
    assert "default-src 'none'" in page
    assert page.count("://") == page.count("http://www.w3.org/2000/svg")


def test_the_videos_in_a_page_show_the_measured_frames_at_their_times(tmp_path: Path):
    times = [0, 100, 250, 300, 500, 620, 700, 900]
    source, output = save(tmp_path / "source", pan()), save_video(tmp_path / "uneven.mkv", grainy(pan(), 2), times)
    out = tmp_path / "page.html"
    report([str(measure(output, source, tmp_path / "scores.json"))], out)
    assert payload(out)["players"]["main"]["times"] == pytest.approx([time / 1000 for time in times])
    videos = videos_in(out, tmp_path)
    assert list(videos) == ["source", "uneven"]
    for file in videos.values():
        clip = open_source(file)
        frames = list(clip)
        assert [float(frame.pts * clip.time_base) for frame in frames] == pytest.approx([time / 1000 for time in times], abs=1e-3)
        for frame, truth in zip(frames, pan(), strict=True):
            assert np.abs(frame.pixels.astype(int) - truth).mean() < 6


def test_curves_average_to_the_scores(tmp_path: Path, scored):
    out = tmp_path / "page.html"
    report([str(scored["grain"])], out)
    charts = {chart["key"]: chart for chart in payload(out)["charts"]}
    metrics = json.loads(scored["grain"].read_text())["metrics"]

    def values(key: str, name: str = "grain") -> np.ndarray:
        series = next(item for item in charts[key]["series"] if item["name"] == name)
        return np.array([value for value in series["values"] if value is not None])

    assert values("warp_error@1").mean() == pytest.approx(metrics["warp_error@1"]["value"], rel=1e-4)
    assert values("warp_error@3").mean() == pytest.approx(metrics["warp_error@3"]["value"], rel=1e-4)
    assert values("warp_error@1", "reference").mean() == pytest.approx(metrics["warp_error_source@1"]["value"], rel=1e-4)
    assert np.sqrt(np.square(values("flicker_global")).mean()) == pytest.approx(metrics["flicker_global"]["value"], rel=1e-4)
    assert np.sqrt(np.square(values("flicker_local")).mean()) == pytest.approx(metrics["flicker_local"]["value"], rel=1e-4)
    assert values("sharpness_ratio").mean() == pytest.approx(metrics["sharpness_ratio"]["value"], rel=0.01)
    assert len(charts["warp_error@1"]["series"][0]["values"]) == NUM_FRAMES


def test_outputs_are_ranked_and_what_the_verdict_refuses_has_no_place(tmp_path: Path, scored):
    out = tmp_path / "page.html"
    result = report([str(scored[name]) for name in ("blur", "grain", "copy")], out)
    assert result["outputs"] == ["blur", "grain", "copy"]
    table = text_of(out).partition("95 % interval")[2].partition("Frame by frame")[0]
    assert re.match(r" 1 copy .* 2 grain [\d.]+ [\d.]+ [\d.e-]+ … [\d.e-]+ – blur ", table)


def test_another_score_can_rank_but_not_one_that_has_no_better_end(tmp_path: Path, scored):
    inputs = [str(scored["grain"]), str(scored["copy"])]
    report(inputs, tmp_path / "page.html", rank_by="flicker_local")
    assert "By flicker_local" in text_of(tmp_path / "page.html")
    with pytest.raises(ConfigError, match="`rank_by` coverage@1: says how far to trust"):
        report(inputs, tmp_path / "no.html", rank_by="coverage@1")
    with pytest.raises(ConfigError, match="`rank_by` psnr: none of the scores has it"):
        report(inputs, tmp_path / "no.html", rank_by="psnr")


def test_scores_that_were_measured_differently_are_not_ranked(tmp_path: Path, scored):
    other = measure(tmp_path.parent / scored["copy"].with_suffix(".mkv"), scored["source"], tmp_path / "low.json", eval_height=32)
    out = tmp_path / "page.html"
    report([str(scored["grain"]), str(other)], out)
    shown = text_of(out)
    assert "These scores cannot be compared" in shown
    assert "size: [64, 96] / [32, 48]" in shown
    assert "Ranking" not in shown
    assert "★" not in shown


def test_videos_that_moved_are_said_and_the_rest_is_shown(tmp_path: Path, scored):
    scores = json.loads(scored["grain"].read_text())
    scores["provenance"] |= {"output": str(tmp_path / "gone.mkv"), "source": str(scored["source"])}
    file = tmp_path / "scores.json"
    file.write_text(json.dumps(scores))
    out = tmp_path / "page.html"
    result = report([str(file)], out, allow_path=[scored["source"]])
    assert any("gone is not shown" in note and "not found" in note for note in result["notes"])
    assert list(videos_in(out, tmp_path)) == ["source"]
    assert payload(out)["charts"]
    assert "gone is not shown" in text_of(out)


def test_a_video_that_changed_since_it_was_measured_is_said(tmp_path: Path):
    source, output = save(tmp_path / "source", pan()), save(tmp_path / "output", grainy(pan(), 4))
    scores = measure(output, source, tmp_path / "scores.json")
    assert report([str(scores)], tmp_path / "same.html")["notes"] == []
    write_png(output / "00003.png", pan()[0])
    [note] = report([str(scores)], tmp_path / "changed.html")["notes"]
    assert note.startswith("output has changed since output was measured")


def test_curves_go_on_where_the_players_end(tmp_path: Path, scored):
    scores = json.loads(scored["grain"].read_text())
    short = save_video(tmp_path / "short.mkv", pan(5))
    scores["provenance"] |= {"output": str(short), "source": str(scored["source"])}
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    notes = report([str(tmp_path / "scores.json")], tmp_path / "page.html", allow_path=[scored["source"]])["notes"]
    assert notes[0] == f"the players end after 5 frames, {NUM_FRAMES} were measured"
    assert payload(tmp_path / "page.html")["players"]["main"]["times"] == pytest.approx([index / 10 for index in range(NUM_FRAMES)])


def test_label_maps_are_shown_in_colors_and_a_dark_start_is_not_taken_for_one(tmp_path: Path):
    classes = np.zeros((64, 96, 3), np.uint8)
    classes[:, 48:] = 7
    dark = [frame // 2 for frame in pan()]
    dark[0][:] = 0
    labels, output = save(tmp_path / "labels", [classes] * NUM_FRAMES), save(tmp_path / "dark", dark)
    report([str(measure(output, labels, tmp_path / "scores.json"))], tmp_path / "page.html")
    videos = videos_in(tmp_path / "page.html", tmp_path)
    shown = next(iter(open_source(videos["source"]))).pixels.astype(int)
    assert np.ptp(shown[:, 60:], axis=2).min() > 40
    for frame, truth in zip(open_source(videos["dark"]), dark, strict=True):
        assert np.abs(frame.pixels.astype(int) - truth).mean() < 6


def test_videos_are_found_from_wherever_scores_were_measured_or_are_shown(tmp_path: Path, monkeypatch):
    folder = tmp_path / "work"
    source, output = save(folder / "source", pan()), save_video(folder / "grain.mkv", grainy(pan(), 8))
    monkeypatch.chdir(folder)
    scores = evaluate(output.name, source=source.name, cache=None, strides=(1,))
    (folder / "printed.json").write_text(scores.to_json())
    scores.save(folder / "saved.json")
    assert json.loads((folder / "saved.json").read_text())["provenance"]["output"] == "grain.mkv"
    monkeypatch.chdir(tmp_path)
    for name in ("printed", "saved"):
        assert report([f"work/{name}.json"], tmp_path / f"{name}.html")["notes"] == []
    folder.rename(tmp_path / "moved")
    assert report(["moved/saved.json"], tmp_path / "moved.html")["notes"] == []


def test_scores_cannot_bring_videos_from_elsewhere_into_a_page(tmp_path: Path, scored, capsys):
    secret = save_video(tmp_path / "private" / "secret.mkv", pan())
    link = tmp_path / "report" / "link.mkv"
    link.parent.mkdir()
    link.symlink_to(secret)
    file = link.with_name("scores.json")
    for named in (str(secret), "../private/secret.mkv", "link.mkv", f"{secret}[0:4]"):
        scores = json.loads(scored["grain"].read_text())
        scores["provenance"] |= {"output": named, "source": None}
        file.write_text(json.dumps(scores))
        [note, *_] = report([str(file)], tmp_path / "page.html", overwrite=True)["notes"]
        assert "lies outside the folder of the scores; `allow_path`" in note
        assert videos_in(tmp_path / "page.html", tmp_path) == {}
    assert main(["report", str(file), "-o", str(tmp_path / "page.html"), "--overwrite"]) == 0
    assert f"lies outside the folder of the scores; --allow-path {secret.parent} lets it be shown" in capsys.readouterr().out
    allowed = report([str(file)], tmp_path / "page.html", allow_path=[secret.parent], overwrite=True)
    assert not any("outside" in note for note in allowed["notes"])
    assert len(videos_in(tmp_path / "page.html", tmp_path)) == 1


def test_scores_without_values_of_frames_are_shown_without_curves(tmp_path: Path, scored):
    scores = json.loads(scored["grain"].read_text())
    del scores["per_frame"]
    file = tmp_path / "old.json"
    file.write_text(json.dumps(scores))
    result = report([str(file)], tmp_path / "page.html")
    assert any("no values of single frames" in note for note in result["notes"])
    assert payload(tmp_path / "page.html")["charts"] == []


def test_names_and_texts_from_outside_stay_text(tmp_path: Path, scored):
    scores = json.loads(scored["grain"].read_text())
    folder = save(tmp_path / HOSTILE_NAME, pan())
    scores["provenance"] |= {"output": str(folder), "note": HOSTILE, HOSTILE: [HOSTILE]}
    scores["provenance"]["versions"] = {HOSTILE: HOSTILE}
    scores["verdict"] = {"rankable": False, "reasons": [HOSTILE]}
    scores["metrics"][HOSTILE] = {"value": 1.0, "unit": HOSTILE, "better": "low", "n": 1, "skipped": 0}
    scores["metrics"]["psnr"] = {"value": None, "unit": "dB", "better": "high", "n": 0, "skipped": 0, "reason": HOSTILE}
    scores["per_frame"][HOSTILE] = [1.0] * NUM_FRAMES
    scores["comparisons"] = {HOSTILE: {HOSTILE: {"value": 1, "difference": 1, "low": None, "high": None}}}
    file = tmp_path / "scores.json"
    file.write_text(json.dumps(scores))
    out = tmp_path / "page.html"
    report([str(file), f"<b bold>={scored['copy']}"], out, allow_path=[scored["copy"].parent])
    page = out.read_text()
    assert "<img src=x" not in page
    assert "<b bold>" not in page
    assert page.count("<script") == page.count("</script>") == 2
    assert "49<" not in page
    assert text_of(out).count("onerror=alert(1)>\"'&{{ 7*7 }}") > 5
    assert any("onerror" in series["name"] for chart in payload(out)["charts"] for series in chart["series"])


def test_a_page_keeps_to_its_size_by_making_the_videos_smaller_and_says_so(tmp_path: Path):
    generator = np.random.default_rng(0)
    noise = [generator.integers(0, 255, (160, 208, 3), dtype=np.uint8) for _ in range(24)]
    source, output = save(tmp_path / "source", noise), save_video(tmp_path / "noise.mkv", noise)
    scores = json.dumps(evaluate(str(output), target=str(source), metrics="psnr", cache=None).to_dict())
    (tmp_path / "scores.json").write_text(scores)
    out = tmp_path / "page.html"
    result = report([str(tmp_path / "scores.json")], out, max_megabytes=1)
    assert result["megabytes"] < 1
    assert re.search(r"shown at \d+x\d+ pixels, the original has 208x160", text_of(out))
    assert "compressed strongly" in text_of(out)


def write_run(folder: Path, num_steps: int = 50) -> Path:
    """A run folder as training leaves it."""
    lines = [
        {"step": step, "stage": "frames" if step <= 20 else "clips", "learning_rate": 1e-4, "losses": {"gan": 5 / step, "l1": 1.0}}
        for step in range(1, num_steps + 1)
    ]
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "config.yaml").write_text("translator: vid2vid\n")
    for step in (25, 50):
        write_png(folder / "samples" / f"step-{step:07d}.png", np.full((48, 64, 3), step, np.uint8))
    save_video(folder / "samples" / "step-0000050.mp4", pan())
    return folder


def test_a_run_shows_its_losses_its_stages_its_samples_and_its_configuration(tmp_path: Path):
    run, out = write_run(tmp_path / "run"), tmp_path / "page.html"
    result = report([str(run)], out)
    assert result["notes"] == []
    [training] = payload(out)["trainings"]
    charts = {chart["key"]: chart["series"][0]["values"] for chart in training["charts"]}
    assert set(charts) == {"gan", "l1", "learning_rate"}
    assert charts["gan"] == pytest.approx([5 / step for step in range(1, 51)], rel=1e-5)
    assert training["marks"] == [[1, "frames"], [21, "clips"]]
    assert "50 steps in 2 stages: frames; clips" in text_of(out)
    assert "translator: vid2vid" in text_of(out)
    samples = open_source(videos_in(out, tmp_path)["samples"])
    assert [round(float(frame.pixels.mean())) for frame in samples] == pytest.approx([25, 50], abs=2)
    assert payload(out)["players"]["run0-samples"]["steps"] == [25, 50]


def test_a_long_run_is_averaged_and_a_damaged_log_is_read_as_far_as_it_goes(tmp_path: Path):
    run, out = write_run(tmp_path / "run", 5000), tmp_path / "page.html"
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 5001, "losses": {"gan": NaN}}\n[1]\n{"step": 5002, "los')
    result = report([str(run)], out)
    assert result["notes"] == ["1 line of metrics.jsonl cannot be read and is left out"]
    [training] = payload(out)["trainings"]
    assert len(training["steps"]) == 2000
    assert all(len(chart["series"][0]["values"]) == 2000 for chart in training["charts"])


def test_a_run_without_steps_or_samples_says_so(tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    notes = report([str(tmp_path / "run")], tmp_path / "page.html")["notes"]
    assert notes == ["no step is recorded yet", "there are no samples yet"]


def test_several_scores_in_one_file_and_runs_share_a_page(tmp_path: Path, scored):
    both = {name: json.loads(scored[name].read_text()) for name in ("copy", "grain")}
    (tmp_path / "both.json").write_text(json.dumps(both))
    result = report([str(tmp_path / "both.json"), str(write_run(tmp_path / "run"))], tmp_path / "page.html")
    assert result["outputs"] == ["copy", "grain"]
    assert result["runs"] == [str(tmp_path / "run")]


def test_outputs_of_one_name_are_told_apart(tmp_path: Path, scored):
    result = report([str(scored["copy"]), str(scored["copy"]), f"ours={scored['copy']}"], tmp_path / "page.html")
    assert result["outputs"] == ["copy", "copy 2", "ours"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"{", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "holds no scores"),
        (b"{}", "holds no scores"),
        (b'{"a": {"schema_version": 1}, "b": 1}', "holds no scores"),
        (b'{"schema_version": 1}', "metrics: Field required"),
        (b'{"a": {"schema_version": 1}}', "a: not scores .* metrics: Field required"),
        (b'{"schema_version": 2}', "schema_version: '2', but 1 is the one known here"),
        (b'{"schema_version": true}', "schema_version: 'True'"),
        (b'{"schema_version": 1, "metrics": [], "verdict": {}, "provenance": {}}', "metrics: Input should be a valid dict"),
    ],
)
def test_what_holds_no_scores_is_refused_by_name(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "bad.json").write_bytes(content)
    with pytest.raises(InputError, match=f"bad.json: .*{message}"):
        report([str(tmp_path / "bad.json")], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("value", ["text", [1], {"a": 1}, True, float("nan"), 10**400], ids=lambda value: str(value)[:8])
def test_damaged_scores_make_a_page_or_one_clear_error_that_names_the_key(tmp_path: Path, scored, value: Any):
    """Every value of a file of scores replaced by another, one after the other."""
    whole = json.loads(scored["grain"].read_text())
    places = [("metrics", "psnr"), ("metrics", "warp_error@1", "value"), ("metrics", "warp_error@1", "n")]
    places += [("metrics", "warp_error@1", "better"), ("verdict", "rankable"), ("verdict", "reasons"), ("cuts",), ("ranking",)]
    places += [(key,) for key in whole] + [("provenance", key) for key in whole["provenance"]]
    places += [("per_frame", "sharpness"), ("per_frame", "warp_error@1"), ("comparisons", "other")]
    refused = 0
    for place in places:
        damaged = json.loads(scored["grain"].read_text())
        *outer, last = place
        part = damaged
        for key in outer:
            part = part[key]
        part[last] = value
        (tmp_path / "odd.json").write_text(json.dumps(damaged))
        try:
            read_reports(tmp_path / "odd.json")
        except InputError as error:
            assert str(error).startswith(f"{tmp_path / 'odd.json'}: ")  # noqa: PT017
            assert last in str(error)  # noqa: PT017
            refused += 1
    assert refused > len(places) / 2


def test_scores_cut_short_or_with_a_flipped_bit_are_one_clear_error_or_still_scores(tmp_path: Path, scored):
    whole = scored["grain"].read_bytes()
    generator = np.random.default_rng(0)
    file = tmp_path / "damaged.json"
    for round_number in range(200):
        content = bytearray(whole)
        place = int(generator.integers(len(content)))
        if round_number % 2:
            content[place] ^= 1 << int(generator.integers(8))
        else:
            del content[place:]
        file.write_bytes(bytes(content))
        try:
            read_reports(file)
        except InputError as error:
            assert str(error).startswith(f"{file}: ")  # noqa: PT017


@pytest.mark.parametrize("name", ["\0", "a" * 5000, "", "x[zz:1]", "@list", "%05d.png", "/"])
def test_a_name_that_is_none_in_scores_is_a_note(tmp_path: Path, scored, name: str):
    scores = json.loads(scored["grain"].read_text())
    scores["provenance"] |= {"output": name, "source": None, "num_frames": 10**12, "frame_rate": 1e-300, "size": [10**9, 10**9]}
    scores["cuts"] = [-5, 10**9]
    (tmp_path / "odd.json").write_text(json.dumps(scores))
    assert any("is not shown" in note for note in report([str(tmp_path / "odd.json")], tmp_path / "page.html")["notes"])


def test_scores_of_an_older_version_are_read_with_the_names_of_today(tmp_path: Path, scored):
    old = json.loads(scored["grain"].read_text())
    entry = {"value": 2.0, "unit": "grey levels 0..255", "better": "low", "n": 8, "skipped": 0}
    old["metrics"]["colour_distance"] = entry
    for key in ("remarks", "ranking", "faults"):
        old.get("verdict" if key == "remarks" else "", old).pop(key, None)
    (tmp_path / "old.json").write_text(json.dumps(old))
    assert read_reports(tmp_path / "old.json")[None]["color_distance"] == 2
    report([str(tmp_path / "old.json"), str(scored["copy"])], tmp_path / "page.html", rank_by="colour_distance")
    assert "By color_distance" in text_of(tmp_path / "page.html")


def test_a_page_is_not_written_where_it_must_not_be(tmp_path: Path, scored):
    scores = str(scored["copy"])
    with pytest.raises(ConfigError, match=r"page.txt: a report is a page"):
        report([scores], tmp_path / "page.txt")
    (tmp_path / "page.html").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        report([scores], tmp_path / "page.html")
    with pytest.raises(InputError, match=r"holds no metrics.jsonl, so it is no run"):
        report([str(tmp_path)], tmp_path / "new.html")
    report([scores], tmp_path / "page.html", overwrite=True)
    assert "vidgen report" in (tmp_path / "page.html").read_text()


def test_the_command_line_writes_the_page(tmp_path: Path, scored, capsys):
    assert main(["report", str(scored["copy"]), "-o", str(tmp_path / "page.html"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["page"] == str(tmp_path / "page.html")
    assert main(["report", str(tmp_path / "absent.json"), "-o", str(tmp_path / "new.html")]) == 2
    assert "absent.json: not found" in capsys.readouterr().err
