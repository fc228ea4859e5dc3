"""Foreign weights: read without running anything in them; pretrained features loaded by path or refused by name."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vidgen.errors import CheckpointError, ConfigError
from vidgen.networks.features import Vgg19Features
from vidgen.networks.losses import perceptual
from vidgen.types import Pretrained
from vidgen.weights import pretrained
from vidgen.weights.pretrained import load_vgg19
from vidgen.weights.state_dicts import read_state_dict


class _Payload:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple:
        return os.system, (self.command,)


FORMS = ["zip", "legacy", "bare pickle", "nested in a dict", "renamed safetensors", "pt2", "zip in a zip", "7z", "tar"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("forced", [False, True])
def test_code_in_a_weights_file_never_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, forced: bool) -> None:
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    canary = tmp_path / "canary"
    payload = _Payload(f"touch {canary}")
    path = tmp_path / {"renamed safetensors": "w.safetensors", "pt2": "w.pt2"}.get(form, "w.pth")
    if form == "bare pickle":
        path.write_bytes(pickle.dumps(payload))
    elif form == "nested in a dict":
        torch.save({"weight": torch.zeros(2), "extra": [payload]}, path)
    elif form == "tar":
        with tarfile.open(path, "w") as archive:
            for name in ("sys_info", "pickle", "storages", "tensors"):  # the layout of torch before 0.1.10
                member = tarfile.TarInfo(name)
                member.size = len(pickle.dumps(payload))
                archive.addfile(member, io.BytesIO(pickle.dumps(payload)))
    elif form == "7z":
        path.write_bytes(b"7z\xbc\xaf\x27\x1c\x00\x04" + pickle.dumps(payload))
    else:
        torch.save(payload, path, _use_new_zipfile_serialization=form != "legacy")
    if form == "zip in a zip":
        inner = path.read_bytes()
        with zipfile.ZipFile(path, "w") as outer:
            outer.writestr("archive/data.pkl", inner)
            outer.writestr("archive/version", "3")
    with pytest.raises(CheckpointError):
        read_state_dict(path)
    assert not canary.exists()


def test_a_plain_state_dict_is_read_from_both_formats(tmp_path: Path) -> None:
    state = OrderedDict(a=torch.arange(4.0), b=torch.zeros(2, 3))
    torch.save(state, tmp_path / "w.pth")
    save_file(dict(state), tmp_path / "w.safetensors")
    for name in ("w.pth", "w.safetensors"):
        loaded = read_state_dict(tmp_path / name)
        assert sorted(loaded) == ["a", "b"]
        assert torch.equal(loaded["a"], state["a"])


def test_anything_but_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "weight": torch.zeros(2)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="not a plain state dict"):
        read_state_dict(tmp_path / "w.pth")


def test_a_wrong_checksum_is_refused_with_both(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "w.pth")
    found = hashlib.sha256((tmp_path / "w.pth").read_bytes()).hexdigest()
    assert read_state_dict(tmp_path / "w.pth", found[:8])
    with pytest.raises(CheckpointError, match=f"{found}, expected 12345678"):
        read_state_dict(tmp_path / "w.pth", "12345678")


@pytest.mark.parametrize("content", [b"", b"<html>", b"version https://git-lfs", b"PK\x03\x04\x00", bytes(range(200))])
def test_a_file_that_is_no_checkpoint_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"w\.pth"):
        read_state_dict(tmp_path / "w.pth")


def test_a_truncated_checkpoint_is_one_clear_error(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1000)}, tmp_path / "w.pth")
    data = (tmp_path / "w.pth").read_bytes()
    for keep in range(0, len(data), len(data) // 20):
        (tmp_path / "w.pth").write_bytes(data[:keep])
        with pytest.raises(CheckpointError):
            read_state_dict(tmp_path / "w.pth")


def _vgg_file(path: Path) -> Vgg19Features:
    torch.manual_seed(0)
    features = Vgg19Features(width_divisor=16)
    state = {**features.state_dict(), "classifier.0.weight": torch.zeros(3), "features.34.weight": torch.zeros(3)}
    torch.save(state, path)
    return features


def test_vgg_features_load_from_torchvisions_layout_and_judge_likeness(tmp_path: Path) -> None:
    original = _vgg_file(tmp_path / "vgg19.pth")
    loaded = load_vgg19(tmp_path / "vgg19.pth", width_divisor=16)
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    for a, b in zip(original(image), loaded(image), strict=True):
        assert torch.equal(a, b)
    assert [tuple(tap.shape[1:]) for tap in loaded(image)] == [(4, 64, 64), (8, 32, 32), (16, 16, 16), (32, 8, 8), (32, 4, 4)]
    assert perceptual(loaded, image, image).item() == 0
    assert perceptual(loaded, image, -image).item() > 0
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_the_full_width_vgg_has_the_published_parameters_up_to_relu5_1() -> None:
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in Vgg19Features().parameters())
    assert count == 12_944_960  # torchvision's vgg19().features[:30], counted once


def test_missing_vgg_weights_name_the_file_and_the_way_out(tmp_path: Path) -> None:
    declared = (Pretrained("vgg19", "model.losses.perceptual_weight"),)
    with pytest.raises(CheckpointError, match=r"none\.pth: no such file; it is the state dict of torchvision"):
        pretrained.load(declared, {"vgg19": tmp_path / "none.pth"})
    with pytest.raises(ConfigError, match=r"^model\.losses\.perceptual_weight: needs vgg19") as caught:
        pretrained.load(declared, {})
    assert "perceptual_weight" in str(caught.value.hint)


def test_weights_of_another_network_are_not_taken_for_vgg(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="missing"):
        load_vgg19(tmp_path / "w.pth")


def test_a_zip_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("../escape.txt", "x")
    with pytest.raises(CheckpointError):
        read_state_dict(tmp_path / "w.pth")
    assert not (tmp_path.parent / "escape.txt").exists()


def _rezipped(path: Path) -> None:
    """The same archive, compressed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("fault", ["stride 0", "shared storage", "sparse", "complex", "infinite", "deflated", "one bit"])
def test_tensors_that_are_no_weights_are_refused(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "w.pth"
    storage = torch.ones(4096)
    states = {
        "stride 0": {"a": torch.ones(1).expand(1 << 30)},
        "shared storage": {str(index): storage for index in range(100)},
        "sparse": {"a": torch.eye(3).to_sparse()},
        "complex": {"a": torch.zeros(3, dtype=torch.complex64)},
        "infinite": {"a": torch.tensor([1.0, torch.inf])},
    }
    torch.save(states.get(fault, {"a": storage}), path)
    if fault == "deflated":
        _rezipped(path)
    if fault == "one bit":
        data = bytearray(path.read_bytes())
        data[data.index(storage.numpy().tobytes()[:64]) + 100] ^= 1
        path.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match=r"w\.pth"):
        read_state_dict(path)
