"""Pretrained networks, filled at random: the same tensors in an independent implementation give the same numbers."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import torchmetrics.functional.image.dists as their_dists
import torchmetrics.functional.image.lpips as their_lpips
from torch import Tensor, nn
from torchvision import models

from tests.tiny_networks import I3D_LAYERS, clip_tensors, dino_tensors, filled, i3d_tensors, torchmetrics_file
from vidgen.errors import CheckpointError
from vidgen.metrics import backbones


@pytest.fixture
def frames() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    first = torch.rand(2, 3, 64, 80, generator=generator)
    return first, (first + 0.2 * torch.randn(first.shape, generator=generator)).clamp(0, 1)


def random_network(name: str) -> nn.Module:
    """torchvision's network without its classifier, which is most of it."""
    network = backbones.empty(lambda: getattr(models, name)(weights=None))
    network.classifier = nn.Identity()
    return filled(network)


def random_inception(**options) -> nn.Module:
    return filled(backbones.empty(lambda: models.inception_v3(weights=None, init_weights=False, **options))).eval()


@pytest.mark.parametrize(("net", "name"), [("squeeze", "squeezenet1_1"), ("alex", "alexnet"), ("vgg", "vgg16")])
def test_lpips_equals_that_of_torchmetrics_on_the_same_weights(net, name, frames, monkeypatch):
    monkeypatch.setattr(their_lpips, "_get_tv_model_features", lambda net, pretrained: random_network(net).features)
    theirs = their_lpips._NoTrainLpips(net=net, pnet_rand=True)
    parts = {key: key.split(".") for key in theirs.net.state_dict()}
    backbone = {
        "features." + ".".join(parts[key][2:] if parts[key][0] == "slices" else parts[key][1:]): value
        for key, value in theirs.net.state_dict().items()
    }
    ours = backbones.Lpips(backbone, torchmetrics_file(f"lpips_models/{net}.pth"))
    assert ours.name == name
    found = ours.distance(ours.features(frames[0]), ours.features(frames[1]))
    torch.testing.assert_close(found.float(), theirs(*frames, normalize=True).flatten(), rtol=1e-5, atol=1e-7)
    assert ours.distance(ours.features(frames[0]), ours.features(frames[0])).abs().max() == 0


def test_dists_equals_that_of_torchmetrics_on_the_same_weights(frames, monkeypatch):
    network = random_network("vgg16")
    monkeypatch.setattr(their_dists, "vgg16", lambda weights: copy.deepcopy(network))
    ours = backbones.Dists(network.state_dict(), torchmetrics_file("dists_models/weights.pt"))
    torch.testing.assert_close(ours(*frames).float(), their_dists.DISTSNetwork()(*frames).detach(), rtol=1e-4, atol=1e-6)
    assert ours(frames[0], frames[0]).abs().max() < 1e-12


def test_the_inception_network_of_fid_equals_that_of_torch_fidelity(tmp_path: Path):
    theirs = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    network = random_inception(aux_logits=False, num_classes=1008)
    torch.save(network.state_dict(), tmp_path / "inception.pth")
    extractor = theirs.FeatureExtractorInceptionV3("i", ["2048"], feature_extractor_weights_path=str(tmp_path / "inception.pth"))
    frames = torch.randint(0, 256, (1, 3, 50, 70), dtype=torch.uint8)
    found = backbones.FidInception(network.state_dict())(frames)
    torch.testing.assert_close(found, extractor(frames)[0], rtol=1e-5, atol=1e-6)


def test_pooling_of_fid_differs_from_torchvisions_only_at_the_border_and_in_the_last_block():
    """Without torch-fidelity: a network whose pooling branches are closed gives what torchvision's own forward gives."""
    network = random_inception(aux_logits=False, num_classes=1008)
    for name, module in network.named_modules():
        if name.endswith("branch_pool.bn"):
            module.weight.data.zero_()
            module.bias.data.zero_()
    frames = torch.randint(0, 256, (1, 3, 299, 299), dtype=torch.uint8)
    network.fc = nn.Identity()
    found = backbones.FidInception({**network.state_dict(), "fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)})
    with torch.no_grad():
        expected = network.eval()((frames.float() - 128) / 128)
    torch.testing.assert_close(found(frames), expected, rtol=1e-4, atol=1e-5)


def test_resizing_as_tensorflow_takes_corners_without_half_pixels():
    ramp = torch.arange(12.0).view(1, 1, 3, 4)
    found = backbones.resized_as_tensorflow(ramp, 6)[0, 0].numpy()
    for row in range(6):
        for column in range(6):
            y, x = row * 3 / 6, column * 4 / 6
            top, left = math.floor(y), math.floor(x)
            bottom, right = min(top + 1, 2), min(left + 1, 3)
            values = ramp[0, 0].numpy()
            upper = values[top, left] * (1 - x + left) + values[top, right] * (x - left)
            lower = values[bottom, left] * (1 - x + left) + values[bottom, right] * (x - left)
            assert found[row, column] == pytest.approx(upper * (1 - y + top) + lower * (y - top), abs=1e-5)


def test_sifid_features_are_torchvisions_before_the_second_pooling():
    network = random_inception()
    seen = []
    network.maxpool2.register_forward_hook(lambda module, given, result: seen.append(given[0]))
    frame = torch.rand(1, 3, 75, 80)
    with torch.no_grad():
        network.transform_input = False
        network(frame * 2 - 1)
    found = backbones.SifidInception(network.state_dict())(frame)
    torch.testing.assert_close(found, seen[0][0].flatten(1).T, rtol=1e-4, atol=1e-5)


def unit(tensors: Mapping[str, Tensor], name: str, values: np.ndarray, stride: int) -> np.ndarray:
    """Convolution with TensorFlow's SAME padding, batch normalisation and rectifier, position by position."""
    weight = tensors[f"{name}.conv3d.weight"].double().numpy()
    kernel = weight.shape[2:]
    values = same(values, kernel, (stride,) * 3)
    size = [(side - window) // stride + 1 for side, window in zip(values.shape[1:], kernel, strict=True)]
    result = np.empty((len(weight), *size))
    for t, y, x in np.ndindex(*size):
        at = [slice(stride * k, stride * k + window) for k, window in zip((t, y, x), kernel, strict=True)]
        result[:, t, y, x] = (weight * values[:, at[0], at[1], at[2]]).sum(axis=(1, 2, 3, 4))
    part = {key: tensors[f"{name}.bn.{key}"].double().numpy()[:, None, None, None] for key in BATCH_NORM}
    result = (result - part["running_mean"]) / np.sqrt(part["running_var"] + 1e-3) * part["weight"] + part["bias"]
    return result.clip(min=0)


BATCH_NORM = ("running_mean", "running_var", "weight", "bias")


def same(values: np.ndarray, kernel: tuple[int, ...], stride: tuple[int, ...]) -> np.ndarray:
    margins = [(0, 0)]
    for side, window, step in zip(values.shape[1:], kernel, stride, strict=True):
        total = max(window - (step if side % step == 0 else side % step), 0)
        margins.append((total // 2, total - total // 2))
    return np.pad(values, margins)


def pool(values: np.ndarray, kernel: tuple[int, ...], stride: tuple[int, ...]) -> np.ndarray:
    values = same(values, kernel, stride)
    size = [(side - window) // step + 1 for side, window, step in zip(values.shape[1:], kernel, stride, strict=True)]
    result = np.empty((len(values), *size))
    for at in np.ndindex(*size):
        slices = tuple(slice(step * k, step * k + window) for k, step, window in zip(at, stride, kernel, strict=True))
        result[(slice(None), *at)] = values[(slice(None), *slices)].max(axis=(1, 2, 3))
    return result


def test_i3d_equals_loops_over_positions():
    tensors = i3d_tensors(width=2)
    clip = torch.rand(1, 3, 10, 196, 196, generator=torch.Generator().manual_seed(3)) * 2 - 1
    values = clip[0].double().numpy()
    for layer in I3D_LAYERS:
        if isinstance(layer, tuple):
            values = pool(values, *layer)
        elif layer.startswith("Mixed"):
            branches = [
                unit(tensors, f"{layer}.b0", values, 1),
                unit(tensors, f"{layer}.b1b", unit(tensors, f"{layer}.b1a", values, 1), 1),
                unit(tensors, f"{layer}.b2b", unit(tensors, f"{layer}.b2a", values, 1), 1),
                unit(tensors, f"{layer}.b3b", pool(values, (3, 3, 3), (1, 1, 1)), 1),
            ]
            values = np.concatenate(branches)
        else:
            values = unit(tensors, layer, values, 2 if "7x7" in layer else 1)
    assert values.shape[1:] == (2, 7, 7)
    expected = tensors["logits.conv3d.weight"].double().numpy()[:, :, 0, 0, 0] @ values.mean(axis=(1, 2, 3))
    expected += tensors["logits.conv3d.bias"].double().numpy()
    np.testing.assert_allclose(backbones.I3d(tensors)(clip)[0].numpy(), expected, rtol=1e-3, atol=1e-4)


def layer_norm(values: np.ndarray, weight: Tensor, bias: Tensor, eps: float) -> np.ndarray:
    mean, variance = values.mean(axis=1, keepdims=True), values.var(axis=1, keepdims=True)
    return (values - mean) / np.sqrt(variance + eps) * weight.double().numpy() + bias.double().numpy()


def attention(values: np.ndarray, qkv: Tensor, qkv_bias: Tensor, out: Tensor, out_bias: Tensor) -> np.ndarray:
    width = values.shape[1]
    query, key, value = np.split(values @ qkv.double().numpy().T + qkv_bias.double().numpy(), 3, axis=1)
    heads = []
    for start in range(0, width, 64):
        part = slice(start, start + 64)
        scores = query[:, part] @ key[:, part].T / 8
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        heads.append(weights / weights.sum(axis=1, keepdims=True) @ value[:, part])
    return np.concatenate(heads, axis=1) @ out.double().numpy().T + out_bias.double().numpy()


def linear(values: np.ndarray, weight: Tensor, bias: Tensor) -> np.ndarray:
    return values @ weight.double().numpy().T + bias.double().numpy()


def patch_tokens(frame: np.ndarray, weight: Tensor) -> np.ndarray:
    side = weight.shape[-1]
    flat = weight.double().numpy().reshape(len(weight), -1)
    rows, columns = frame.shape[1] // side, frame.shape[2] // side
    cells = [frame[:, side * r : side * (r + 1), side * c : side * (c + 1)].ravel() for r in range(rows) for c in range(columns)]
    return np.stack(cells) @ flat.T


def normalized(frame: Tensor, mean: tuple[float, ...], deviation: tuple[float, ...]) -> np.ndarray:
    values = frame[0].double().numpy()
    return (values - np.array(mean)[:, None, None]) / np.array(deviation)[:, None, None]


def test_dino_equals_a_transformer_written_with_numpy():
    tensors = dino_tensors(width=128, depth=2, patch=32)
    frame = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(4))
    values = patch_tokens(normalized(frame, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), tensors["patch_embed.proj.weight"])
    values += tensors["patch_embed.proj.bias"].double().numpy()
    values = np.concatenate([tensors["cls_token"].double().numpy()[0], values]) + tensors["pos_embed"].double().numpy()[0]
    for index in range(2):
        part = {name.removeprefix(f"blocks.{index}."): value for name, value in tensors.items()}
        inner = layer_norm(values, part["norm1.weight"], part["norm1.bias"], 1e-6)
        names = ("attn.qkv.weight", "attn.qkv.bias", "attn.proj.weight", "attn.proj.bias")
        values = values + attention(inner, *(part[name] for name in names))
        inner = linear(
            layer_norm(values, part["norm2.weight"], part["norm2.bias"], 1e-6), part["mlp.fc1.weight"], part["mlp.fc1.bias"]
        )
        gelu = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
        values = values + linear(gelu, part["mlp.fc2.weight"], part["mlp.fc2.bias"])
    expected = layer_norm(values, tensors["norm.weight"], tensors["norm.bias"], 1e-6)[0]
    np.testing.assert_allclose(backbones.DinoTransformer(tensors)(frame)[0].numpy(), expected, rtol=1e-3, atol=1e-4)


def test_dino_looks_at_the_whole_of_a_wide_frame():
    network = backbones.DinoTransformer(dino_tensors(width=64, depth=1, patch=32))
    frame = torch.rand(1, 3, 60, 120)
    changed = frame.clone()
    changed[..., -20:] = 0
    assert not torch.allclose(network(frame), network(changed), atol=1e-4)


def test_clip_equals_a_transformer_written_with_numpy():
    tensors = clip_tensors(width=128, depth=2, patch=32, embedding=16)
    frame = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(5))
    visual = {name.removeprefix("visual."): value for name, value in tensors.items()}
    mean, deviation = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    values = patch_tokens(normalized(frame, mean, deviation), visual["conv1.weight"])
    values = (
        np.concatenate([visual["class_embedding"].double().numpy()[None], values]) + visual["positional_embedding"].double().numpy()
    )
    values = layer_norm(values, visual["ln_pre.weight"], visual["ln_pre.bias"], 1e-5)
    for index in range(2):
        part = {name.removeprefix(f"transformer.resblocks.{index}."): value for name, value in visual.items()}
        inner = layer_norm(values, part["ln_1.weight"], part["ln_1.bias"], 1e-5)
        names = ("attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj.weight", "attn.out_proj.bias")
        values = values + attention(inner, *(part[name] for name in names))
        inner = linear(
            layer_norm(values, part["ln_2.weight"], part["ln_2.bias"], 1e-5), part["mlp.c_fc.weight"], part["mlp.c_fc.bias"]
        )
        values = values + linear(inner / (1 + np.exp(-1.702 * inner)), part["mlp.c_proj.weight"], part["mlp.c_proj.bias"])
    expected = layer_norm(values[:1], visual["ln_post.weight"], visual["ln_post.bias"], 1e-5)[0] @ visual["proj"].double().numpy()
    found = backbones.ClipTransformer({**tensors, "logit_scale": torch.tensor(1.0)})(frame)[0].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_clip_looks_at_the_middle_of_a_wide_frame():
    network = backbones.ClipTransformer(clip_tensors(width=64, depth=1, patch=32, embedding=8))
    frame = torch.rand(1, 3, 60, 120)
    changed = frame.clone()
    changed[..., -20:] = 0
    torch.testing.assert_close(network(frame), network(changed))


@pytest.mark.parametrize(
    "build",
    [
        lambda tensors: backbones.Lpips(tensors, {}),
        lambda tensors: backbones.Dists(tensors, {}),
        backbones.FidInception,
        backbones.SifidInception,
        backbones.I3d,
        backbones.DinoTransformer,
        backbones.ClipTransformer,
    ],
)
def test_weights_of_another_network_are_refused_by_name(build):
    with pytest.raises(CheckpointError, match="these weights are not those of"):
        build({"layer.weight": torch.zeros(3, 3)})


def test_tensors_of_another_shape_are_refused():
    tensors = dino_tensors(width=64, depth=1, patch=32)
    with pytest.raises(CheckpointError, match=r"not those of DINO: norm.weight is \[3\], not \[64\]"):
        backbones.DinoTransformer({**tensors, "norm.weight": torch.zeros(3)})
