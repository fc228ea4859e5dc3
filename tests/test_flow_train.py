from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from flow.engines import load_network
from flow.errors import FlowError
from flow.losses import endpoint_error, multilevel_loss
from flow.network import FlowNetwork
from flow.synthetic import Scenes
from flow.train import CHECKPOINT, LOG, WEIGHTS, TrainConfig, fine_tune, learning_rate, train_supervised

TINY = TrainConfig(num_steps=4, batch_size=1, height=64, width=64, warmup_steps=2, checkpoint_every_steps=2)


def moving_clip() -> torch.Tensor:
    noise = torch.rand(1, 3, 20, 24, generator=torch.Generator().manual_seed(0))
    picture = (torch.nn.functional.interpolate(noise, size=(80, 96), mode="bicubic").clamp(0, 1) * 255).to(torch.uint8)[0]
    return torch.stack([picture[:, 4:76, 2 * t : 2 * t + 80] for t in range(5)])


class KilledError(Exception):
    pass


def train(folder, config=TINY, **options):
    return train_supervised(folder, config, **options)


def test_a_run_killed_between_checkpoints_goes_on_to_the_same_bits(tmp_path):
    train(tmp_path / "whole")
    evaluations = []

    def killed_at_the_second_checkpoint(network):
        evaluations.append(network)
        if len(evaluations) == 2:
            raise KilledError
        return {}

    with pytest.raises(KilledError):
        train(tmp_path / "killed", evaluate=killed_at_the_second_checkpoint)
    train(tmp_path / "killed")
    whole, resumed = (load_file(tmp_path / name / CHECKPOINT) for name in ("whole", "killed"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    steps = [json.loads(line)["step"] for line in (tmp_path / "killed" / LOG).read_text().splitlines()]
    assert steps == [2, 4]


def test_a_finished_run_leaves_weights_a_log_and_nothing_half_written(tmp_path):
    weights = train(tmp_path, evaluate=lambda network: {"mine": 7.0})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([CHECKPOINT, LOG, WEIGHTS])
    assert isinstance(load_network(weights), FlowNetwork)
    entry = json.loads((tmp_path / LOG).read_text().splitlines()[-1])
    assert entry["step"] == 4
    assert entry["mine"] == 7
    assert entry["held_out_endpoint_error"] > 0
    before = (tmp_path / CHECKPOINT).read_bytes()
    assert train(tmp_path) == weights
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_a_folder_is_not_resumed_with_another_configuration(tmp_path):
    train(tmp_path, replace(TINY, num_steps=2))
    with pytest.raises(FlowError, match=r"another configuration \(num_steps was 2, is 4; seed was 0, is 1\)"):
        train(tmp_path, replace(TINY, seed=1))
    (tmp_path / CHECKPOINT).write_bytes(b"damaged")
    with pytest.raises(FlowError, match="is no checkpoint of a flow training"):
        train(tmp_path)


def test_the_network_learns_a_pair_by_heart():
    torch.manual_seed(0)
    network, pairs = FlowNetwork(), Scenes(64, 64).batch(0, 1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    errors = []
    for _ in range(25):
        flows = network.pyramid(pairs.first, pairs.second)
        errors.append(float(endpoint_error(flows[-1].detach(), pairs.flow)))
        optimizer.zero_grad()
        multilevel_loss(flows, pairs.flow, pairs.visible).backward()
        optimizer.step()
    assert errors[-1] < 0.5 * errors[0]


def test_fine_tuning_without_truth_lowers_its_own_loss(tmp_path):
    config = replace(TINY, num_steps=16, warmup_steps=1, learning_rate=1e-3)
    fine_tune(tmp_path, config, moving_clip())
    losses = [entry["census"] + entry["smoothness"] for entry in map(json.loads, (tmp_path / LOG).read_text().splitlines())]
    assert min(losses[-3:]) < 0.9 * losses[0]


def test_fine_tuning_starts_from_given_weights(tmp_path):
    torch.manual_seed(1)
    network = FlowNetwork()
    save_file(network.state_dict(), tmp_path / "initial.safetensors")
    config = replace(TINY, num_steps=1, learning_rate=1e-12, weight_decay=0, precision="bfloat16")
    weights = fine_tune(tmp_path / "run", config, moving_clip(), initial=tmp_path / "initial.safetensors")
    for name, value in load_file(weights).items():
        torch.testing.assert_close(value, network.state_dict()[name])


def test_a_gradient_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(tmp_path):
    torch.manual_seed(0)
    weights = {name: torch.full_like(value, float("nan")) for name, value in FlowNetwork().state_dict().items()}
    save_file(weights, tmp_path / "nan.safetensors")
    with pytest.raises(FlowError, match="step 0: the gradient is not finite"):
        train(tmp_path / "run", initial=tmp_path / "nan.safetensors")
    assert not (tmp_path / "run" / CHECKPOINT).exists()


def test_the_learning_rate_warms_up_then_falls_to_one_percent():
    config = TrainConfig(num_steps=1000, warmup_steps=100, learning_rate=2.0)
    assert learning_rate(config, 0) == pytest.approx(0.02)
    assert learning_rate(config, 99) == learning_rate(config, 100) == pytest.approx(2)
    assert learning_rate(config, 1000) == pytest.approx(0.02)
    rates = [learning_rate(config, step) for step in range(100, 1000)]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_steps": 0}, "num_steps: must be above 0, got 0"),
        ({"height": 100}, "multiples of 16, got 100x192"),
        ({"precision": "float16"}, "must be float32 or bfloat16"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(change, words):
    with pytest.raises(FlowError, match=words):
        TrainConfig(**change)


def test_a_clip_that_cannot_be_used_is_refused(tmp_path):
    with pytest.raises(FlowError, match="80x72 is smaller than the crops of 192x160"):
        fine_tune(tmp_path, TrainConfig(), moving_clip())
    with pytest.raises(FlowError, match="2 frames or more"):
        fine_tune(tmp_path, TINY, moving_clip()[:1])
