from __future__ import annotations

import os
import resource
import signal
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flow.errors import FlowError
from flow.files import flow_to_picture, picture_scale, read_flow, write_flow

FAST = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])


def random_flow(height: int = 7, width: int = 5, seed: int = 0, scale: float = 20) -> torch.Tensor:
    return torch.randn(2, height, width, generator=torch.Generator().manual_seed(seed)) * scale


@pytest.mark.parametrize(("suffix", "tolerance"), [(".flo", 0), (".pfm", 0), (".png", 1 / 128)])
def test_what_is_written_is_read_back(tmp_path, suffix, tolerance):
    flow, known = random_flow(), torch.ones(1, 7, 5, dtype=torch.bool)
    known[0, 2, 3] = known[0, 0, 0] = False
    write_flow(tmp_path / f"folder/flow{suffix}", flow, known)
    read, read_known = read_flow(tmp_path / f"folder/flow{suffix}")
    assert torch.equal(read_known, known)
    assert ((read - flow).abs() * known).max() <= tolerance
    assert (read * ~known == 0).all()
    assert [path.name for path in (tmp_path / "folder").iterdir()] == [f"flow{suffix}"]


def test_flo_files_are_those_of_opencv(tmp_path):
    flow = random_flow()
    write_flow(tmp_path / "ours.flo", flow)
    assert np.array_equal(cv2.readOpticalFlow(str(tmp_path / "ours.flo")), flow.permute(1, 2, 0).numpy())
    assert cv2.writeOpticalFlow(str(tmp_path / "theirs.flo"), flow.permute(1, 2, 0).numpy())
    assert (tmp_path / "theirs.flo").read_bytes() == (tmp_path / "ours.flo").read_bytes()
    assert torch.equal(read_flow(tmp_path / "theirs.flo")[0], flow)


def test_pfm_files_are_those_of_opencv(tmp_path):
    flow = random_flow()
    write_flow(tmp_path / "ours.pfm", flow)
    theirs = cv2.imdecode(np.fromfile(tmp_path / "ours.pfm", np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(theirs[..., ::-1][..., :2], flow.permute(1, 2, 0).numpy())


def test_big_endian_pfm_is_read(tmp_path):
    flow = random_flow(3, 4)
    rows = np.concatenate([flow.permute(1, 2, 0).numpy(), np.zeros((3, 4, 1), np.float32)], axis=2)[::-1]
    (tmp_path / "big.pfm").write_bytes(b"PF\n4 3\n1.0\n" + rows.astype(">f4").tobytes())
    assert torch.equal(read_flow(tmp_path / "big.pfm")[0], flow)


def test_kitti_values_follow_the_devkit(tmp_path):
    pixels = np.array([[[1, 32768 - 64, 32768 + 128], [0, 0, 0], [1, 0, 65535]]], np.uint16)  # valid, v, u: OpenCV's order
    (tmp_path / "kitti.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    flow, known = read_flow(tmp_path / "kitti.png")
    assert flow[:, 0, 0].tolist() == [2, -1]
    assert flow[:, 0, 2].tolist() == [32767 / 64, -512]
    assert known.tolist() == [[[True, False, True]]]


def test_kitti_rounds_to_nearest_and_marks_what_it_cannot_hold_as_unknown(tmp_path):
    flow = torch.tensor([[[1 / 128 + 1e-4, 600.0, 511.984375]], [[0.0, 0.0, -512.0]]])
    write_flow(tmp_path / "kitti.png", flow)
    read, known = read_flow(tmp_path / "kitti.png")
    assert read[0, 0].tolist() == [1 / 64, 0, 511.984375]
    assert known.tolist() == [[[True, False, True]]]


def test_middlebury_truth_is_read_with_its_unknown_pixels(data_root):
    path = data_root / "middlebury/RubberWhale/flow10.flo"
    flow, known = read_flow(path)
    theirs = cv2.readOpticalFlow(str(path)).transpose(2, 0, 1)
    assert flow.shape == (2, 388, 584)
    assert 0.9 < known.float().mean() < 1
    assert flow.abs().max() < 10
    assert np.array_equal(flow.numpy()[:, known[0]], theirs[:, known[0]])
    assert (np.abs(theirs[:, ~known[0]]) > 1e9).any(axis=0).all()


@pytest.mark.parametrize("suffix", [".flo", ".png", ".pfm"])
def test_every_truncation_is_refused(tmp_path, suffix):
    path = tmp_path / f"flow{suffix}"
    write_flow(path, random_flow(3, 4))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(FlowError, match="flow"):
            read_flow(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(FlowError):
        read_flow(path)


def test_a_png_cut_in_the_middle_with_its_checksums_repaired_is_refused(tmp_path):
    pixels = zlib.compress((b"\0" + b"\x80\0\x80\0\0\1" * 8) * 5)
    header = struct.pack(">IIBBBBB", 8, 10, 16, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")]
    data = b"".join(struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in parts)
    (tmp_path / "half.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    with pytest.raises(FlowError, match="truncated: 245 bytes of flow where 8x10 pixels need 490"):
        read_flow(tmp_path / "half.png")


@FAST
@given(width=st.integers(-(2**31), 2**31 - 1), height=st.integers(-(2**31), 2**31 - 1), rest=st.binary(max_size=64))
def test_a_flo_header_that_lies_about_its_size_is_refused(tmp_path, width, height, rest):
    path = tmp_path / "lie.flo"
    path.write_bytes(b"PIEH" + struct.pack("<ii", width, height) + rest)
    if width > 0 and height > 0 and width * height * 8 == len(rest):
        return
    with pytest.raises(FlowError):
        read_flow(path)


@FAST
@given(data=st.data(), suffix=st.sampled_from([".flo", ".png", ".pfm"]))
def test_only_flow_errors_escape_from_damaged_files(tmp_path, data, suffix):
    path = tmp_path / f"damaged{suffix}"
    write_flow(path, random_flow(4, 3, seed=data.draw(st.integers(0, 9))))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["change", "insert", "delete"])):
            case "change":
                content[position] = data.draw(st.integers(0, 255))
            case "insert":
                content[position:position] = data.draw(st.binary(max_size=16))
            case "delete":
                del content[position : position + data.draw(st.integers(1, 16))]
        if not content:
            break
    path.write_bytes(bytes(content))
    try:
        flow, known = read_flow(path)
    except FlowError:
        return
    assert flow.isfinite().all()
    assert flow.shape[1:] == known.shape[1:]


@FAST
@given(content=st.binary(max_size=200), suffix=st.sampled_from([".flo", ".png", ".pfm"]), magic=st.booleans())
def test_only_flow_errors_escape_from_noise(tmp_path, content, suffix, magic):
    start = {".flo": b"PIEH", ".png": b"\x89PNG\r\n\x1a\n", ".pfm": b"PF\n"}[suffix] if magic else b""
    path = tmp_path / f"noise{suffix}"
    path.write_bytes(start + content)
    try:
        flow, _ = read_flow(path)
    except FlowError:
        return
    assert flow.isfinite().all()


def test_nan_in_a_file_is_refused(tmp_path):
    (tmp_path / "nan.flo").write_bytes(b"PIEH" + struct.pack("<iiff", 1, 1, float("nan"), 0))
    with pytest.raises(FlowError, match="NaN"):
        read_flow(tmp_path / "nan.flo")


@pytest.mark.parametrize(
    ("flow", "words"),
    [
        (torch.zeros(3, 4, 4), "must be float"),
        (torch.zeros(2, 0, 4), "must be float"),
        (torch.zeros(2, 4, 4, dtype=torch.int64), "must be float"),
        (torch.full((2, 4, 4), float("nan")), "not finite"),
        (torch.full((2, 4, 4), 1e12), "above 1e9"),
    ],
)
def test_flow_that_no_file_can_hold_is_not_written(tmp_path, flow, words):
    with pytest.raises(FlowError, match=words):
        write_flow(tmp_path / "flow.flo", flow)
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_not_utf8_works(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.png"))
    write_flow(path, random_flow())
    assert read_flow(path)[0].shape == (2, 7, 5)
    with pytest.raises(FlowError, match=r"\\xff"):
        read_flow(path.with_suffix(".flo"))


def test_missing_files_folders_and_other_suffixes_are_named(tmp_path):
    with pytest.raises(FlowError, match="No such file"):
        read_flow(tmp_path / "absent.flo")
    (tmp_path / "folder.flo").mkdir()
    with pytest.raises(FlowError, match=r"folder\.flo: could not be read"):
        read_flow(tmp_path / "folder.flo")
    with pytest.raises(FlowError, match=r"end in \.flo, \.png, \.pfm, not \.txt"):
        read_flow(tmp_path / "flow.txt")
    with pytest.raises(FlowError, match="could not be read"):
        read_flow("nul\0.flo")
    (tmp_path / "file").write_text("")
    with pytest.raises(FlowError, match="could not be written"):
        write_flow(tmp_path / "file/flow.flo", random_flow())


def test_a_write_that_fails_keeps_the_old_file_and_leaves_no_litter(tmp_path):
    path = tmp_path / "flow.flo"
    write_flow(path, random_flow())
    old = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(FlowError, match="could not be written"):
            write_flow(path, random_flow(100, 100))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == old
    assert [entry.name for entry in tmp_path.iterdir()] == ["flow.flo"]


def test_the_colour_of_a_motion_does_not_depend_on_what_else_is_in_the_clip():
    slow = torch.full((1, 2, 4, 4), 2.0)
    clip = torch.cat([slow, slow * 40])
    alone = flow_to_picture(slow, max_flow=10)
    assert torch.equal(alone[0], flow_to_picture(clip, max_flow=10)[0])
    assert alone.dtype == torch.uint8
    assert alone.shape == (1, 3, 4, 4)
    assert not torch.equal(alone, flow_to_picture(slow, max_flow=5))


def test_no_motion_is_white_and_directions_have_the_usual_colours():
    assert (flow_to_picture(torch.zeros(1, 2, 3, 3)) >= 254).all()
    right, left = (flow_to_picture(torch.tensor([[[[dx]], [[0.0]]]]), max_flow=10)[0, :, 0, 0].tolist() for dx in (10.0, -10.0))
    assert right[0] > 200
    assert right[2] < 120
    assert left[2] > 200
    assert left[0] < 120


def test_pictures_equal_torchvision_when_the_scale_is_the_maximum():
    from torchvision.utils import flow_to_image

    flow = random_flow(16, 16)[None]
    ours = flow_to_picture(flow, max_flow=float(flow.norm(dim=1).max()))
    assert (ours.int() - flow_to_image(flow).int()).abs().max() <= 1


def test_the_default_scale_is_the_99th_percentile_and_never_below_a_pixel():
    flow = torch.zeros(1, 2, 10, 100)
    assert picture_scale(flow) == 1
    flow[0, 0] = torch.arange(1000).view(10, 100)
    assert picture_scale(flow) == pytest.approx(989, abs=1)
    with pytest.raises(FlowError, match="above 0"):
        flow_to_picture(flow, max_flow=0)
