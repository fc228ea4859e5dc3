"""Published checkpoints: read off their shapes, every key accounted for, and they run to the original's output."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import vidgen
from vidgen.commands import models
from vidgen.commands.styles import choose_style
from vidgen.errors import CheckpointError, ConfigError, OutputError
from vidgen.media.images import write_png
from vidgen.types import Condition
from vidgen.weights import published
from vidgen.weights.checkpoints import find_weights


def _parity(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(weights under the original's keys, inputs and outputs)"""
    archive = np.load(path)
    tensors = {name: torch.from_numpy(archive[name]) for name in archive.files if name != "config"}
    weights = {name.removeprefix("weight/"): value for name, value in tensors.items() if name.startswith("weight/")}
    return weights, {name: value for name, value in tensors.items() if not name.startswith("weight/")}


def _save(folder: Path, **states: dict[str, Tensor]) -> list[str]:
    """Files as the original names them."""
    files = [folder / f"latest_net_{role}.pth" for role in states]
    for file, state in zip(files, states.values(), strict=True):
        torch.save(state, file)
    return [str(file) for file in files]


def _import(tmp_path: Path, files: list[str], system: str = "vid2vid", **options: object) -> Path:
    output = tmp_path / "imported.safetensors"
    models.import_weights(files, system, output, overwrite=True, **options)  # type: ignore[arg-type]
    return output


@pytest.fixture
def street_files(parity_root: Path, tmp_path: Path) -> list[str]:
    """Two scales with foreground, 7 classes, no judges, as published models are."""
    coarse, _ = _parity(parity_root / "vid2vid_composite_fg.npz")
    fine, _ = _parity(parity_root / "vid2vid_composite_local_fg.npz")
    return _save(tmp_path, G0=coarse, G1=fine)


def test_an_imported_vid2vid_generator_gives_the_originals_output(parity_root: Path, tmp_path: Path) -> None:
    for name, options in (("vid2vid_composite", {}), ("vid2vid_composite_fg", {"foreground": [1]})):
        weights, values = _parity(parity_root / f"{name}.npz")
        model = vidgen.load(str(_import(tmp_path, _save(tmp_path, G0=weights), labels="7", **options)), precision="fp32")
        with torch.no_grad():
            made = model.translator.generator[0](
                values["input/condition"], values["input/previous"], foreground_mask=values.get("input/foreground_mask")
            )
        torch.testing.assert_close(made.frame, values["output/frame"], atol=1e-4, rtol=0)
        torch.testing.assert_close(made.flow, values["output/flow"], atol=1e-4, rtol=0)


def test_an_imported_model_with_a_finer_scale_translates(street_files: list[str], tmp_path: Path) -> None:
    file = _import(tmp_path, street_files, labels="7", foreground=[1], size="64x32")
    for index in range(3):
        write_png(tmp_path / "maps" / f"{index}.png", np.full((32, 64), index, np.uint8))
    frames = list(vidgen.load(str(file)).translate(str(tmp_path / "maps")))
    assert [frame.shape for frame in frames] == [(32, 64, 3)] * 3
    told = models.info(file)
    assert (told["kind"], told["size"], told["condition"]["labels"]) == ("vid2vid", "64x32", 7)
    assert told["imported"]["untrained"] == ["discriminator"]
    generator = json.loads(find_weights(file)[0].metadata["model"])["generator"]
    assert {name: generator[name] for name in ("num_scales", "num_downsamplings", "num_blocks", "num_local_blocks")} == {
        "num_scales": 2,
        "num_downsamplings": 3,
        "num_blocks": 3,
        "num_local_blocks": 2,
    }


def test_a_judge_of_motion_is_imported_where_its_file_is_given(parity_root: Path, tmp_path: Path) -> None:
    coarse, _ = _parity(parity_root / "vid2vid_composite.npz")
    judge, values = _parity(parity_root / "vid2vid_temporal_discriminator.npz")
    file = _import(tmp_path, _save(tmp_path, G0=coarse, D_T0=judge), labels="7")
    translator = vidgen.load(str(file), precision="fp32").translator
    with torch.no_grad():
        judged = translator.temporal_discriminators[0](values["input/windows"])
    torch.testing.assert_close(judged[0][0], values["output/scale0/stage0"], atol=1e-4, rtol=0)
    torch.testing.assert_close(judged[1][4], values["output/scale1/stage4"], atol=1e-4, rtol=0)
    assert models.info(file)["imported"]["untrained"] == ["discriminator"]


def _reading(parity_root: Path, tmp_path: Path, num_channels: int) -> list[str]:
    """The published generator, changed to read another number of channels a frame."""
    weights, values = _parity(parity_root / "vid2vid_composite.npz")
    first = weights["model_down_seg.1.weight"]
    num_frames = values["input/condition"].shape[1] // 7
    return _save(tmp_path, G0={**weights, "model_down_seg.1.weight": first[:, :1].repeat(1, num_frames * num_channels, 1, 1)})


def _told(file: Path) -> dict:
    metadata = find_weights(file)[0].metadata
    return {"model": json.loads(metadata["model"]), "data": {"condition": json.loads(metadata["condition"])}}


def test_the_published_street_channels_mean_cityscapes_with_instances(parity_root: Path, tmp_path: Path) -> None:
    file = _import(tmp_path, _reading(parity_root, tmp_path, 36))
    told = _told(file)
    assert (told["model"]["num_labels"], told["model"]["use_instances"]) == (35, True)
    assert told["data"]["condition"]["instances"] == "instances"
    assert json.loads(find_weights(file)[0].metadata["labels"])["names"][26] == "car"
    with pytest.raises(ConfigError, match="12 classes, but the model reads 36"):
        _import(tmp_path, _reading(parity_root, tmp_path, 36), labels="camvid")


@pytest.mark.parametrize(("num_channels", "num_pictures", "edges"), [(6, 2, False), (3, 1, False), (1, 0, True)])
def test_other_channels_mean_pictures_and_edges(
    parity_root: Path, tmp_path: Path, num_channels: int, num_pictures: int, edges: bool
) -> None:
    told = _told(_import(tmp_path, _reading(parity_root, tmp_path, num_channels)))
    assert (told["model"]["num_labels"], told["model"]["condition_channels"]) == (0, num_channels)
    assert len(told["data"]["condition"]["pictures"]) == num_pictures
    assert (told["data"]["condition"]["edges"] is not None) == edges


def test_batch_norms_without_a_batch_count_load(parity_root: Path, tmp_path: Path) -> None:
    batch, _ = _parity(parity_root / "vid2vid_composite.npz")
    means = [key for key in batch if key.endswith(".running_mean")]
    assert means
    counts = {key.replace("running_mean", "num_batches_tracked") for key in means}
    state = {key: value for key, value in batch.items() if key not in counts}
    tensors = find_weights(_import(tmp_path, _save(tmp_path, G0=state), labels="7"))[0].tensors
    assert {int(value) for key, value in tensors.items() if key.startswith("generator") and key.endswith("tracked")} == {0}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("extra", r"1 keys that the G0 of this system does not have: attention\.1\.weight"),
        ("missing", r"1 missing: image_head\.bias"),
        ("misshapen", r"of another shape: image_blocks\.0\.first\.conv\.weight is \(1, 1, 3, 3\)"),
        ("other system", r"has no usable 'model_down_seg\.1\.weight'"),
        ("nameless", r"does not end with _net_ROLE\.pth"),
        ("unknown role", r"has no network E here"),
        ("not a number", r"model_final_img\.1\.bias holds values that are not finite"),
        ("code", r"more than tensors"),
    ],
)
def test_keys_that_do_not_fit_are_refused_by_name(parity_root: Path, tmp_path: Path, fault: str, message: str) -> None:
    weights, _ = _parity(parity_root / "vid2vid_composite.npz")
    files = _save(tmp_path, G0=weights)
    if fault == "extra":
        files = _save(tmp_path, G0={**weights, "attention.1.weight": torch.zeros(1)})
    elif fault == "missing":
        files = _save(tmp_path, G0={key: value for key, value in weights.items() if key != "model_final_img.1.bias"})
    elif fault == "misshapen":
        files = _save(tmp_path, G0={**weights, "model_res_img.0.conv_block.1.weight": torch.zeros(1, 1, 3, 3)})
    elif fault == "other system":
        files = _save(tmp_path, G0={"model.1.weight": torch.zeros(4, 3, 7, 7)})
    elif fault == "nameless":
        Path(files[0]).rename(tmp_path / "weights.pth")
        files = [str(tmp_path / "weights.pth")]
    elif fault == "unknown role":
        files = _save(tmp_path, G0=weights, E={"model.1.weight": torch.zeros(4, 3, 7, 7)})
    elif fault == "not a number":
        files = _save(tmp_path, G0={**weights, "model_final_img.1.bias": torch.full((3,), torch.nan)})
    elif fault == "code":
        torch.save({"a": print}, files[0])
    with pytest.raises((CheckpointError, ConfigError), match=message):
        _import(tmp_path, files, labels="7")
    assert not (tmp_path / "imported.safetensors").exists()


def test_a_role_can_be_stated_and_an_output_is_not_overwritten(parity_root: Path, tmp_path: Path) -> None:
    weights, _ = _parity(parity_root / "vid2vid_composite.npz")
    torch.save(weights, tmp_path / "street.pth")
    told = models.import_weights([f"G0={tmp_path / 'street.pth'}"], "vid2vid", tmp_path / "w.safetensors", labels="7")
    assert told["parameters"] > told["generator_parameters"] > 0
    with pytest.raises(OutputError, match="exists already"):
        models.import_weights([f"G0={tmp_path / 'street.pth'}"], "vid2vid", tmp_path / "w.safetensors", labels="7")


@pytest.mark.parametrize("name", ["pix2pixhd_global", "pix2pixhd_local"])
def test_an_imported_pix2pixhd_generator_gives_the_originals_picture(parity_root: Path, tmp_path: Path, name: str) -> None:
    weights, values = _parity(parity_root / f"{name}.npz")
    judge, judged = _parity(parity_root / "pix2pixhd_discriminator.npz")
    statistics = {"model.2.running_mean": torch.ones(4), "model.2.running_var": torch.ones(4)}  # as the oldest files hold
    file = _import(tmp_path, _save(tmp_path, G={**weights, **statistics}, D=judge), "pix2pixhd", labels="none")
    translator = vidgen.load(str(file), precision="fp32").translator
    with torch.no_grad():
        made = translator.translate(Condition(frames=values["input/condition"][None]))[0].frames[0]
        stages = translator.discriminator(torch.cat([judged["input/condition"], judged["input/image"]], dim=1))
    torch.testing.assert_close(made, values["output/image"], atol=1e-4, rtol=0)
    torch.testing.assert_close(stages[1][4], judged["output/scale1/stage4"], atol=1e-4, rtol=0)
    assert models.info(file)["imported"]["untrained"] == []


def test_an_imported_encoder_gives_the_originals_features(parity_root: Path, tmp_path: Path) -> None:
    weights, _ = _parity(parity_root / "pix2pixhd_global.npz")
    encoder, values = _parity(parity_root / "pix2pixhd_encoder.npz")
    file = _import(tmp_path, _save(tmp_path, G=weights, E=encoder), "pix2pixhd", labels="2")
    model = vidgen.load(str(file), precision="fp32")
    assert (model.num_style_channels, model.condition.instances) == (3, "instances")
    with torch.no_grad():
        made = model.translator.generator.encoder(values["input/image"], values["input/instances"][:, 0].long())
    torch.testing.assert_close(made, values["output/features"], atol=1e-4, rtol=0)


def test_an_imported_pix2pix_gives_the_originals_picture(parity_root: Path, tmp_path: Path) -> None:
    weights, values = _parity(parity_root / "pix2pix_unet.npz")
    judge, judged = _parity(parity_root / "pix2pix_patchgan.npz")
    file = _import(tmp_path, _save(tmp_path, G=weights, D=judge), "pix2pix")
    model = vidgen.load(str(file), precision="fp32")
    assert (model.trained_size, model.condition.pictures) == ((64, 64), ("condition",))
    with torch.no_grad():
        made = model.translator.generator(values["input/condition"])
        logits = model.translator.discriminator(judged["input/pair"])[-1]
    torch.testing.assert_close(made, values["output/image"], atol=1e-4, rtol=0)
    torch.testing.assert_close(logits, judged["output/logits"], atol=1e-4, rtol=0)


def _originals_resnet(num_blocks: int, dropout: bool) -> torch.nn.Module:
    """A ResNet generator layer by layer, as the original's sequence is numbered."""
    nn = torch.nn

    def block() -> torch.nn.Module:
        drop = [nn.Dropout(0.5)] if dropout else []
        first = [nn.ReflectionPad2d(1), nn.Conv2d(16, 16, 3), nn.InstanceNorm2d(16), nn.ReLU()]
        holder = nn.Module()
        holder.conv_block = nn.Sequential(*first, *drop, nn.ReflectionPad2d(1), nn.Conv2d(16, 16, 3), nn.InstanceNorm2d(16))
        holder.forward = lambda x: x + holder.conv_block(x)  # type: ignore[method-assign]
        return holder

    def strided(a: int, b: int) -> list[torch.nn.Module]:
        return [nn.Conv2d(a, b, 3, 2, 1), nn.InstanceNorm2d(b), nn.ReLU()]

    def doubled(a: int, b: int) -> list[torch.nn.Module]:
        return [nn.ConvTranspose2d(a, b, 3, 2, 1, 1), nn.InstanceNorm2d(b), nn.ReLU()]

    stem = [nn.ReflectionPad2d(3), nn.Conv2d(3, 4, 7), nn.InstanceNorm2d(4), nn.ReLU()]
    end = [nn.ReflectionPad2d(3), nn.Conv2d(4, 3, 7), nn.Tanh()]
    whole = nn.Module()
    middle = [block() for _ in range(num_blocks)]
    whole.model = nn.Sequential(*stem, *strided(4, 8), *strided(8, 16), *middle, *doubled(16, 8), *doubled(8, 4), *end)
    return whole


@pytest.mark.parametrize("dropout", [False, True])
def test_an_imported_resnet_of_pix2pix_gives_the_originals_picture(tmp_path: Path, dropout: bool) -> None:
    torch.manual_seed(0)
    original = _originals_resnet(3, dropout).eval()
    file = _import(tmp_path, _save(tmp_path, G=original.state_dict()), "pix2pix")
    model = vidgen.load(str(file), precision="fp32")
    picture = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        made = model.translator.translate(Condition(frames=picture[None]))[0].frames[0]
        torch.testing.assert_close(made, original.model(picture), atol=1e-4, rtol=0)


def test_vid2vids_models_of_first_frames_are_generators_named_after_their_width() -> None:
    assert list(published.roles(["latest_net_G_512.pth"])) == ["G"]


def test_clusters_become_the_styles_that_are_found_beside_the_imported_weights(parity_root: Path, tmp_path: Path) -> None:
    weights, _ = _parity(parity_root / "pix2pixhd_global.npz")
    encoder, _ = _parity(parity_root / "pix2pixhd_encoder.npz")
    clusters = np.empty((), object)
    clusters[()] = {1: np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])}
    np.save(tmp_path / "features_clustered_010.npy", clusters, allow_pickle=True)
    files = [*_save(tmp_path, G=weights, E=encoder), str(tmp_path / "features_clustered_010.npy")]
    file = _import(tmp_path, files, "pix2pixhd", labels="2")
    style = choose_style(vidgen.load(str(file)), chosen=["class 1=1"])
    assert style is not None
    assert style.of_class[1] == pytest.approx([0.4, 0.5, 0.6])
