from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from flow.engines import ENGINES, SHIPPED_WEIGHTS, Dis, Learned, create_engine, describe, estimate, estimate_video
from flow.errors import FlowError
from flow.files import read_flow, write_flow
from flow.losses import endpoint_error
from flow.network import FlowNetwork
from flow.synthetic import Scenes
from flow.warp import forward_backward_occlusion, warp
from tests.conftest import REPOSITORY

OPENCV = ["dis", "dis-fast", "farneback"]


def texture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """A picture with detail at all sizes, [1,3,H,W] in -1..1."""
    random = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), np.float32)
    for cells in (3, 6, 12, 24, 48):
        image += cv2.resize(random.random((cells, cells, 3), np.float32), (width, height), interpolation=cv2.INTER_CUBIC) - 0.5
    return torch.from_numpy(image / np.abs(image).max()).permute(2, 0, 1)[None]


def pan(dx: int, dy: int, height: int = 96, width: int = 128) -> tuple[torch.Tensor, torch.Tensor]:
    """A still and the same seen by a camera that moved: the picture moves by (dx, dy)."""
    still = texture(height + 40, width + 40)
    return still[..., 20 : 20 + height, 20 : 20 + width], still[..., 20 - dy : 20 - dy + height, 20 - dx : 20 - dx + width]


@pytest.fixture(scope="module")
def middlebury(data_root):
    def load(name: str):
        def image(index: int) -> torch.Tensor:
            pixels = cv2.imdecode(np.fromfile(data_root / f"middlebury/{name}/frame1{index}.png", np.uint8), cv2.IMREAD_COLOR)
            return torch.from_numpy(pixels[..., ::-1].copy()).permute(2, 0, 1)[None] / 127.5 - 1

        return image(0), image(1), *read_flow(data_root / f"middlebury/{name}/flow10.flo")

    return load


@pytest.mark.parametrize("name", OPENCV)
@pytest.mark.parametrize("motion", [(3, 2), (-4, 1)])
def test_a_pan_is_found_with_its_sign_and_its_length(name, motion):
    first, second = pan(*motion)
    flow = estimate(first, second, name)
    assert flow.shape == (1, 2, 96, 128)
    assert flow.dtype == torch.float32
    assert flow[0, :, 16:-16, 16:-16].mean(dim=(1, 2)).tolist() == pytest.approx(motion, abs=0.15)
    assert (warp(second, flow) - first)[..., 8:-8, 8:-8].abs().mean() < 0.1 * (second - first).abs().mean()


@pytest.mark.parametrize(("name", "mean_pixels"), [("dis", 0), ("dis-fast", 0), ("farneback", 0.01)])
def test_a_still_pair_has_no_motion(name, mean_pixels):
    still = texture(64, 80)
    assert estimate(still, still, name).abs().mean() <= mean_pixels


@pytest.mark.parametrize(
    ("pair", "error"),
    [("RubberWhale", 0.114), ("Venus", 0.303), ("Urban2", 0.448), ("Grove2", 0.163)],
)
def test_dis_reaches_its_known_error_on_middlebury(middlebury, pair, error):
    first, second, truth, known = middlebury(pair)
    found = (Dis()(first, second)[0] - truth).norm(dim=0)[known[0]].mean()
    assert found == pytest.approx(error, rel=0.05)


def test_dis_finds_most_of_the_ground_hidden_by_a_moving_square():
    ground, square = texture(120, 140, 1), texture(60, 60, 2)
    first, second = ground.clone(), ground.clone()
    first[..., 30:90, 40:100] = square
    second[..., 33:93, 47:107] = square
    hidden = torch.zeros(120, 140, dtype=torch.bool)
    hidden[33:93, 47:107] = True
    hidden[30:90, 40:100] = False
    found = forward_backward_occlusion(estimate(first, second), estimate(second, first))[0, 0]
    assert hidden.sum() == 579
    assert (found & hidden).sum() / hidden.sum() > 0.85


@pytest.mark.parametrize("name", OPENCV)
@pytest.mark.parametrize("size", [(1, 1), (5, 40), (11, 11), (17, 33)])
def test_any_size_is_accepted(name, size):
    flow = estimate(texture(*size), texture(*size), name)
    assert flow.shape == (1, 2, *size)
    assert flow.isfinite().all()


@pytest.mark.parametrize("name", OPENCV)
def test_a_batch_gives_what_its_pairs_give_alone(name):
    pairs = [pan(3, 2), pan(-2, 0), pan(0, 5)]
    together = estimate(torch.cat([a for a, _ in pairs]), torch.cat([b for _, b in pairs]), name)
    assert torch.equal(together, torch.cat([estimate(a, b, name) for a, b in pairs]))


@pytest.mark.parametrize("name", OPENCV)
def test_one_engine_serves_several_threads_at_once(name):
    engine = create_engine(name)
    pairs = [pan(dx, 1) for dx in range(-6, 6)]
    alone = [engine(*pair) for pair in pairs]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda pair: engine(*pair), pairs * 3))
    assert all(torch.equal(a, b) for a, b in zip(alone * 3, together, strict=True))


def test_a_video_gives_one_flow_for_each_pair_in_the_direction_asked_for():
    still = texture(80, 120)
    frames = [still[0, :, 8:72, 8 + 2 * t : 88 + 2 * t] for t in range(4)]  # the picture moves by (-2, 0)
    back, forth = (list(estimate_video(iter(frames), into=into)) for into in ("previous", "next"))
    assert len(back) == len(forth) == 3
    assert torch.equal(back[1], estimate(frames[2][None], frames[1][None])[0])
    assert back[0][0, 16:-16, 16:-16].mean() == pytest.approx(2, abs=0.1)
    assert forth[0][0, 16:-16, 16:-16].mean() == pytest.approx(-2, abs=0.1)
    assert list(estimate_video([])) == list(estimate_video(frames[:1])) == []


def test_a_video_is_read_only_as_far_as_its_flow_is_asked_for():
    taken = []

    def frames():
        for t in range(10):
            taken.append(t)
            yield texture(16, 16)[0]

    next(estimate_video(frames(), "dis-fast"))
    assert taken == [0, 1]


def test_a_video_that_changes_size_names_the_frame():
    with pytest.raises(FlowError, match="frame 2 is 16x20, the frame before it 16x16"):
        list(estimate_video([texture(16, 16)[0], texture(16, 16)[0], texture(20, 16)[0]]))


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (torch.zeros(3, 16, 16), torch.zeros(3, 16, 16), r"float \[N,3,H,W\]"),
        (torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16), r"float \[N,3,H,W\]"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), torch.zeros(1, 3, 16, 16), "uint8"),
        (torch.zeros(0, 3, 16, 16), torch.zeros(0, 3, 16, 16), "got"),
        (torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 17), "must be alike"),
        (torch.zeros(1, 3, 16, 16), torch.full((1, 3, 16, 16), float("nan")), "second: .*NaN"),
    ],
)
@pytest.mark.parametrize("name", OPENCV)
def test_images_that_cannot_be_used_are_refused_in_one_line(name, first, second, words):
    with pytest.raises(FlowError, match=words):
        estimate(first, second, name)


def test_an_unknown_engine_is_answered_with_the_known_ones():
    with pytest.raises(FlowError, match="'flownet' is not known; there are dis, dis-fast, farneback"):
        create_engine("flownet")
    with pytest.raises(FlowError, match="reads no file"):
        create_engine("dis", path="weights.pth")
    assert {"dis", "dis-fast", "farneback", "raft-small", "raft-large", "learned", "folder"} <= set(ENGINES)


def raft_small() -> torch.nn.Module:
    from torchvision.models.optical_flow import raft_small

    torch.manual_seed(0)
    return raft_small().eval()


def test_raft_from_a_file_is_raft_of_torchvision(tmp_path):
    network = raft_small()
    save_file(network.state_dict(), tmp_path / "raft.safetensors")
    first, second = pan(3, 2, 128, 136)
    with torch.no_grad():
        expected = network(first, second)[-1]
    engine = create_engine("raft-small", path=tmp_path / "raft.safetensors")
    torch.testing.assert_close(engine(first, second), expected)
    assert engine(first[..., :40, :50], second[..., :40, :50]).shape == (1, 2, 40, 50)


def test_raft_without_weights_names_the_file_and_where_to_get_it():
    with pytest.raises(FlowError, match=r"raft_small_C_T_V2-01064c6d\.pth") as caught:
        create_engine("raft-small")
    assert caught.value.hint.startswith("get https://")
    with pytest.raises(FlowError, match=r"absent\.pth: the weights could not be read"):
        create_engine("raft-large", path="absent.pth")


def test_a_pth_file_is_loaded_only_when_its_hash_is_the_expected_one(tmp_path):
    path = tmp_path / "raft.pth"
    torch.save(raft_small().state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(FlowError, match=f"SHA-256 is {digest}, expected one that starts with"):
        create_engine("raft-small", path=path)
    assert create_engine("raft-small", path=path, sha256=digest.upper())
    with pytest.raises(FlowError, match="SHA-256"):
        create_engine("raft-small", path=path, sha256="0" * 64)


def test_a_safetensors_file_must_have_the_hash_the_user_names(tmp_path):
    path = tmp_path / "raft.safetensors"
    save_file(raft_small().state_dict(), path)
    with pytest.raises(FlowError, match="SHA-256"):
        create_engine("raft-small", path=path, sha256="0" * 64)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"version https://git-lfs"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_that_holds_no_weights_is_refused(tmp_path, content, suffix):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(FlowError, match="holds no weights that can be read safely"):
        create_engine("raft-small", path=path, sha256=hashlib.sha256(content).hexdigest())


def test_weights_of_another_network_are_refused(tmp_path):
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(FlowError, match="belong to another network"):
        create_engine("raft-small", path=tmp_path / "other.safetensors")


def test_the_learned_engine_is_the_network_with_the_weights_of_a_file(tmp_path):
    torch.manual_seed(0)
    network = FlowNetwork()
    save_file(network.state_dict(), tmp_path / "network.safetensors")
    first, second = pan(3, 2, 50, 70)
    with torch.no_grad():
        expected = network(first, second)
    plain = Learned(tmp_path / "network.safetensors", num_variational_iterations=0)
    assert torch.equal(plain(first, second), expected)
    with pytest.raises(FlowError, match="SHA-256"):
        create_engine("learned", path=tmp_path / "network.safetensors", sha256="0" * 64)


def test_without_shipped_weights_the_learned_engine_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr("flow.engines.SHIPPED_WEIGHTS", tmp_path / "absent.safetensors")
    with pytest.raises(FlowError, match="no weights are shipped"):
        create_engine("learned")


# -- what is shipped -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learned() -> Learned:
    return Learned(None)


def test_the_shipped_weights_are_small_and_have_a_card():
    assert SHIPPED_WEIGHTS.stat().st_size < 5_000_000
    assert sum(value.numel() for value in load_file(SHIPPED_WEIGHTS).values()) < 2_000_000
    card = (SHIPPED_WEIGHTS.parent / "README.md").read_text()
    assert hashlib.sha256(SHIPPED_WEIGHTS.read_bytes()).hexdigest() in card
    assert hashlib.sha256(SHIPPED_WEIGHTS.read_bytes()).hexdigest() in describe("learned")


def test_the_shipped_network_beats_no_motion_by_far_and_dis_fast_on_middlebury(middlebury, learned):
    errors, lengths = [], []
    for pair in ("Grove2", "RubberWhale", "Urban2", "Venus"):
        first, second, truth, known = middlebury(pair)
        errors.append(float(endpoint_error(learned(first, second), truth[None], known[None])))
        lengths.append(float(endpoint_error(0 * truth[None], truth[None], known[None])))
    assert np.mean(errors) < 0.4 * np.mean(lengths)
    assert np.mean(errors) < 0.598


def test_the_shipped_network_finds_the_motion_of_flat_areas_better_than_dis(learned):
    pairs = Scenes(128, 160, flat_share=1, seed=50_000).batch(0, 12)
    errors = {
        name: float(endpoint_error(engine(pairs.first, pairs.second), pairs.flow, pairs.visible))
        for name, engine in (("learned", learned), ("dis", Dis()))
    }
    assert errors["learned"] < errors["dis"]


def test_the_shipped_network_sees_little_motion_in_a_still_pair(middlebury, learned):
    first = middlebury("RubberWhale")[0]
    assert float(learned(first, first).norm(dim=1).mean()) < 0.05


def test_refinement_settles_fractions_of_a_pixel(middlebury, learned):
    first, second, truth, known = middlebury("RubberWhale")
    rough = Learned(None, num_variational_iterations=0)
    assert endpoint_error(learned(first, second), truth[None], known[None]) < 0.9 * endpoint_error(
        rough(first, second), truth[None], known[None]
    )


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (7, 5), (33, 65)])
def test_the_shipped_network_takes_any_size_and_batch(size, learned):
    first, second = torch.rand(2, 3, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    together = learned(first, second)
    assert together.shape == (3, 2, *size)
    alone = torch.cat([learned(first[i : i + 1], second[i : i + 1]) for i in range(3)])
    assert torch.allclose(together, alone, atol=0.02)


def flow_folder(folder: Path, count: int) -> list[torch.Tensor]:
    flows = [torch.full((2, 16, 20), float(index)) for index in range(count)]
    for index, flow in enumerate(flows):
        write_flow(folder / f"flow{index + 8}.flo", flow)
    (folder / "notes.txt").write_text("not a flow")
    return flows


def test_a_folder_gives_its_files_in_natural_order(tmp_path):
    flows = flow_folder(tmp_path, 4)  # flow8, flow9, flow10, flow11
    frames = [torch.zeros(3, 16, 20)] * 5
    found = list(estimate_video(frames, create_engine("folder", path=tmp_path)))
    assert all(torch.equal(a, b) for a, b in zip(found, flows, strict=True))
    batch = create_engine("folder", path=tmp_path)(torch.zeros(3, 3, 16, 20), torch.zeros(3, 3, 16, 20))
    assert torch.equal(batch, torch.stack(flows[:3]))


def test_a_folder_that_does_not_fit_the_video_is_refused(tmp_path):
    flow_folder(tmp_path / "flows", 1)
    engine = create_engine("folder", path=tmp_path / "flows")
    images = torch.zeros(1, 3, 16, 20)
    with pytest.raises(FlowError, match="is 20x16, the frames are 22x16"):
        engine(torch.zeros(1, 3, 16, 22), torch.zeros(1, 3, 16, 22))
    with pytest.raises(FlowError, match="holds 1 flow files, but pair 2 was asked for"):
        engine(images, images)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FlowError, match="holds no"):
        create_engine("folder", path=tmp_path / "empty")
    with pytest.raises(FlowError, match="is not a folder"):
        create_engine("folder", path=tmp_path / "absent")
    known = torch.ones(1, 16, 20, dtype=torch.bool)
    known[0, 0, :3] = False
    write_flow(tmp_path / "sparse/0.flo", torch.zeros(2, 16, 20), known)
    with pytest.raises(FlowError, match="leaves 3 pixels unknown"):
        create_engine("folder", path=tmp_path / "sparse")(images, images)


SCAN = """
import sys
import torch
from flow.engines import create_engine
generator = torch.Generator().manual_seed(0)
for name in sys.argv[1:]:
    engine = create_engine(name)
    for height in (1, 8, 16, 31, 32):
        for width in (1, 33, 90, 160, 320, 640) if name != "learned" else (1, 90, 320):
            noise = torch.rand(1, 3, height, width, generator=generator) * 2 - 1
            for first in (noise, torch.zeros_like(noise)):
                print(name, height, width, flush=True)
                flow = engine(first, first.roll(1, -1))
                assert flow.shape == (1, 2, height, width) and flow.isfinite().all(), "not finite"
    print(name, "done", flush=True)
"""


def test_no_size_of_image_crashes_an_engine_or_gives_flow_that_is_not_finite():
    names = ["dis", "dis-fast", "farneback", *(["learned"] if SHIPPED_WEIGHTS.exists() else [])]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-c", SCAN, *names]
    done = subprocess.run(command, env={**environment, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout.splitlines()[-1:] + done.stderr.splitlines()[-1:]
    assert [line for line in done.stdout.splitlines() if line.endswith("done")] == [f"{name} done" for name in names]
