"""Segmenters, weights by path, one frame rate for all, and the schema: through the command and its function."""

from __future__ import annotations

import hashlib
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from tests.test_evaluation import grainy, measure, pan, save, save_video
from tests.test_metrics_segmentation import Brightness, scripted
from tests.tiny_networks import clip_tensors, filled
from vidgen.cli import main
from vidgen.commands import evaluate as command
from vidgen.errors import CheckpointError, ConfigError, InputError
from vidgen.evaluation import report
from vidgen.evaluation.networks import WEIGHTS, WeightsFile, load_networks
from vidgen.media.images import write_png
from vidgen.metrics.backbones import empty

ORDER = "psnr,dup_frames,pairs"


def brightness_labels(frames: list[np.ndarray]) -> list[np.ndarray]:
    network = Brightness()
    tensors = (torch.from_numpy(frame.transpose(2, 0, 1).astype(np.float32))[None] / 255 for frame in frames)
    return [network(tensor).argmax(dim=1)[0].byte().numpy() for tensor in tensors]


@pytest.fixture
def street(tmp_path: Path) -> dict[str, Path]:
    """Label maps that a segmenter finds in the target without fault, and less well in a grainy output."""
    frames = pan(3)
    labels = tmp_path / "labels"
    labels.mkdir()
    for index, ids in enumerate(brightness_labels(frames)):
        ids[0] = 255
        write_png(labels / f"{index:05d}.png", ids)
    places = {
        "output": save(tmp_path / "output", grainy(frames, 30)),
        "target": save(tmp_path / "target", frames),
        "labels": labels,
    }
    return places | {"segmenter": scripted(tmp_path / "net.pt", Brightness())}


def test_a_segmenter_judges_the_output_and_the_target_against_the_label_maps(street):
    scores = measure(
        street["output"],
        source=street["labels"],
        target=street["target"],
        segmenter=str(street["segmenter"]),
        metrics="miou,pixel_acc",
    )
    found = [brightness_labels([frame])[0] for frame in grainy(pan(3), 30)]
    right = [(a[1:] == b[1:]).mean() for a, b in zip(found, brightness_labels(pan(3)), strict=True)]
    assert scores["pixel_acc"] == pytest.approx(np.mean(right))
    assert 0.3 < scores["miou"] < 1
    truth = measure(
        street["output"],
        label_maps=street["labels"],
        target=street["target"],
        segmenter=str(street["segmenter"]),
        metrics="miou_target,pixel_acc_target",
    )
    assert truth["pixel_acc_target"] == truth["miou_target"] == 1
    assert truth.provenance.segmenter.sha256 == hashlib.sha256(street["segmenter"].read_bytes()).hexdigest()
    np.testing.assert_allclose(scores.per_frame["pixel_acc"], right)


def test_label_maps_that_cannot_be_used_are_one_clear_error(street, tmp_path: Path):
    options = {"segmenter": str(street["segmenter"]), "metrics": "miou"}
    with pytest.raises(ConfigError, match="needs label maps to compare with"):
        measure(street["output"], target=street["target"], **options)
    with pytest.raises(InputError, match="as a photo does; a label map was expected"):
        measure(street["output"], source=street["target"], **options)
    with pytest.raises(InputError, match="label id 255"):
        measure(street["output"], source=street["labels"], labels="camvid", **options)
    with pytest.raises(ConfigError, match="`segmenter_classes`: 300 is not a label class"):
        measure(street["output"], source=street["labels"], segmenter_classes=[0, 300], **options)
    with pytest.raises(ConfigError, match="`metrics` miou: needs `segmenter`"):
        measure(street["output"], source=street["labels"], metrics="miou")
    empty_maps = save(tmp_path / "empty", [])
    for index in range(3):
        write_png(empty_maps / f"{index}.png", np.full((64, 96), 255, dtype=np.uint8))
    scores = measure(street["output"], source=empty_maps, **(options | {"metrics": "miou,pixel_acc"}))
    for key in ("miou", "pixel_acc"):
        assert scores[key] is None
        assert "every pixel is ignored" in scores.metrics[key].reason


def given(**files: Path) -> dict[str, WeightsFile]:
    return {name.replace("_", "-"): WeightsFile(path) for name, path in files.items()}


@pytest.fixture
def squeezenet(tmp_path: Path) -> Path:
    network = filled(empty(lambda: models.squeezenet1_1(weights=None)))
    torch.save(network.state_dict(), tmp_path / "squeezenet.pth")
    return tmp_path / "squeezenet.pth"


class Script(nn.Module):
    """Of the contract of StyleGAN-V's I3D."""

    def forward(self, clips: Tensor, rescale: bool, resize: bool, return_features: bool) -> Tensor:
        assert not rescale
        assert not resize
        assert return_features
        return clips.flatten(2)[:, :, ::50176].flatten(1)


def test_metrics_with_weights_are_measured_where_their_file_is_given(tmp_path: Path, squeezenet: Path):
    save_file(clip_tensors(width=64, depth=1, patch=56, embedding=8), tmp_path / "clip.safetensors")
    output, target = save(tmp_path / "o", grainy(pan(4))), save(tmp_path / "t", pan(4))
    weights = given(lpips=squeezenet, clip=tmp_path / "clip.safetensors")
    scores = measure(output, target=target, weights=weights, metrics="lpips,tlp,clip_consistency", compare={"same": target})
    assert scores["lpips"] > 0
    assert scores["tlp"] > 0
    assert 0 < scores["clip_consistency"] <= 1
    assert scores.comparisons["same"]["lpips"].value == 0
    assert scores.ranking.order["lpips"] == ["same", str(output)]
    assert scores.provenance.weights["lpips"].sha256 == hashlib.sha256(squeezenet.read_bytes()).hexdigest()
    assert "not the published weights" in scores.metrics["lpips"].note
    assert scores.metrics.keys() >= {"clip_consistency", "clip_consistency@1", "clip_consistency@20"}


def test_videos_of_a_folder_are_compared_with_a_set_of_videos(tmp_path: Path):
    for name, levels in (("ours", 8), ("real", 0)):
        for index in range(2):
            save(tmp_path / name / str(index), grainy(pan(16 * (index + 1)), levels))
    weights = given(i3d=scripted(tmp_path / "i3d.pt", Script()))
    options = {"weights": weights, "metrics": "fvd,kvd"}
    scores = measure(tmp_path / "ours", reference_set=tmp_path / "real", compare={"real": tmp_path / "real"}, **options)
    assert scores["fvd"] > 0
    assert scores.metrics["fvd"].n == 3
    assert "unreliable: 3 against 3 samples" in scores.metrics["fvd"].note
    assert scores["kvd"] is None
    assert scores.comparisons["real"]["fvd"].value == pytest.approx(0, abs=1e-3)
    assert scores.ranking.order == {}
    report.validate(json.loads(scores.to_json()), "scores")
    with pytest.raises(ConfigError, match="`metrics` frame_diff: is of one video, but the output holds several"):
        measure(tmp_path / "ours", reference_set=tmp_path / "real", metrics="swd,frame_diff")


@pytest.mark.parametrize("name", sorted(WEIGHTS))
def test_a_missing_file_of_weights_names_the_option_the_path_and_what_it_is(name):
    with pytest.raises(CheckpointError, match=f"`weights` {name}: /nowhere/net.pth: No such file") as caught:
        load_networks([name], {name: WeightsFile(Path("/nowhere/net.pth"))})
    assert WEIGHTS[name].files[0] in caught.value.hint


def test_a_metric_whose_weights_are_not_given_names_option_and_file(tmp_path: Path):
    output = save(tmp_path / "o", pan(2))
    with pytest.raises(ConfigError, match=r"`metrics` lpips: needs `weights` lpips=FILE: .*squeezenet1_1-b8a52dc0.pth"):
        measure(output, target=output, metrics="lpips")


def test_weights_with_another_checksum_or_of_another_network_are_refused(tmp_path: Path, squeezenet: Path):
    output = save(tmp_path / "o", pan(2))
    digest = hashlib.sha256(squeezenet.read_bytes()).hexdigest()
    exact = WeightsFile.parse_all([f"lpips={squeezenet}#{digest[:12]}"])
    assert measure(output, target=output, weights=exact, metrics="lpips")["lpips"] == 0
    with pytest.raises(CheckpointError, match=f"its SHA-256 is {digest}, expected abcdef12"):
        measure(output, target=output, weights=WeightsFile.parse_all([f"lpips={squeezenet}#abcdef12"]), metrics="lpips")
    with pytest.raises(
        CheckpointError, match=r"`weights` dists: .*squeezenet.pth: these weights are not those of torchvision's vgg16"
    ):
        measure(output, target=output, weights=given(dists=squeezenet), metrics="dists")
    (tmp_path / "page.pth").write_text("<html>")
    with pytest.raises(CheckpointError, match=r"`weights` lpips: .*page.pth: is a web page"):
        measure(output, target=output, weights=given(lpips=tmp_path / "page.pth"), metrics="lpips")


@pytest.mark.parametrize("text", ["lpips", "=net.pth", "lpips=", "alexnet=net.pth"])
def test_weights_are_given_as_name_and_file(text):
    with pytest.raises(ConfigError, match="`weights`"):
        WeightsFile.parse_all([text])


def test_weights_that_nothing_uses_are_mentioned(tmp_path: Path, caplog):
    measure(save(tmp_path / "o", pan(2)), weights=given(i3d=tmp_path / "none.pt"), metrics="default")
    assert "weights i3d: not used, since there is no reference set" in caplog.text


def doubled(frames: list[np.ndarray]) -> list[np.ndarray]:
    return [frame for frame in frames for _ in range(2)]


@pytest.mark.parametrize(("fps", "pairs"), [("25", 11), ("50", 23), ("12.5", 5), ("5", 2)])
def test_videos_of_different_rates_are_brought_to_one_by_the_nearest_frame(tmp_path: Path, fps, pairs):
    slow, fast = save_video(tmp_path / "25.mkv", pan(12)), save_video(tmp_path / "50.mkv", doubled(pan(12)), rate=50)
    scores = measure(slow, target=fast, fps=Fraction(fps), metrics=ORDER, fast=True)
    assert scores["psnr"] == 100
    assert scores["pairs"] == pairs
    assert scores.provenance.fps == float(fps)


def test_inputs_without_a_rate_have_that_of_the_video(tmp_path: Path):
    video, folder = save_video(tmp_path / "v.mkv", pan(8), rate=10), save(tmp_path / "f", pan(8))
    scores = measure(folder, target=video, fps=Fraction(5), metrics=ORDER, fast=True)
    assert (scores["psnr"], scores["pairs"]) == (100, 3)


@pytest.mark.parametrize("fps", ["fast", "0", "1e9", "1/0", "-3"])
def test_a_frame_rate_that_is_none_is_refused(tmp_path: Path, fps):
    with pytest.raises(ConfigError, match="`fps`"):
        command.run(str(save(tmp_path / "o", pan(2))), fps=fps)


def test_a_truncated_video_is_refused_and_can_be_allowed(tmp_path: Path):
    whole, cut = save_video(tmp_path / "whole.mp4", pan(40)), tmp_path / "cut.mp4"
    data = whole.read_bytes()
    cut.write_bytes(data[: len(data) * 4 // 5])
    with pytest.raises(InputError, match="truncated"):
        measure(cut, metrics="frame_diff")
    scores = measure(cut, target=whole, metrics="psnr", allow_truncated=True, allow_trim=True)
    assert scores["psnr"] == 100
    assert 0 < scores.provenance.num_frames < 40


def test_a_perfect_copy_moves_exactly_like_its_source_and_is_called_a_copy(tmp_path: Path):
    output = save(tmp_path / "o", pan(3))
    scores = measure(output, source=output, fast=True)
    assert scores["motion_fidelity"] == scores["tof"] == 0
    assert scores["motion_ratio"] == scores["sharpness_ratio"] == 1
    assert scores.verdict.remarks == ["the output is the source itself, pixel for pixel"]
    assert not scores.reasons


def test_a_source_that_does_not_move_is_remarked(tmp_path: Path):
    still = pan(1) * 3
    assert any("does not move" in remark for remark in measure(grainy(still), source=still, fast=True).verdict.remarks)


def test_the_content_of_every_input_is_in_the_provenance(tmp_path: Path):
    frames = pan(2)
    content = hashlib.sha256(b"".join(frame.tobytes() for frame in frames)).hexdigest()
    scores = measure(save(tmp_path / "o", frames), target=frames, metrics="psnr")
    assert scores.provenance.content_sha256 == {"output": content, "target": content}


def test_the_report_of_the_command_line_is_as_the_schema_says(tmp_path: Path, capsys):
    output = save(tmp_path / "o", grainy(pan(4)))
    line = ["evaluate", str(output), "--source", str(save(tmp_path / "s", pan(4))), "--cache", str(tmp_path / "cache"), "--fast"]
    assert main([*line, "--compare", f"again={output}", "--fail-if", "warp_error>10", "--json"]) == 0
    written = json.loads(capsys.readouterr().out)
    report.validate(written, "stdout")
    assert list((tmp_path / "cache").glob("*.npz"))
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(written, report.shipped_schema())


def test_the_shipped_schema_is_the_one_of_the_code(capsys):
    assert main(["evaluate", "--schema"]) == 0
    printed = capsys.readouterr().out
    assert printed == report.SCHEMA_FILE.read_text(), "vidgen evaluate --schema > vidgen/evaluation/scores.schema.json"
    assert report.shipped_schema()["properties"]["schema_version"]["const"] == 1


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"metrics": {"psnr": {"value": "20"}}}, "metrics.psnr.value"),
        ({"per_frame": {"psnr": [1.0, "x"]}}, "per_frame.psnr"),
        ({"per_frame": {"psnr": [1.0, 2.0], "ssim": [1.0]}}, "the whole: .*'psnr' has 2 values, but 'ssim' has 1"),
        ({"provenance": {}}, "provenance.output"),
    ],
)
def test_other_documents_are_not_scores(tmp_path: Path, change, key):
    document = measure(save(tmp_path / "o", pan(2)), metrics="frame_diff").to_dict()
    report.validate(document, "ours")
    with pytest.raises(InputError, match=f"theirs: (not scores of vidgen evaluate: )?{key}"):
        report.validate(document | change, "theirs")
