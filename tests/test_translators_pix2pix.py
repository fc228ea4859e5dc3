"""What is special to pix2pix and pix2pixHD: noise, statistics, looks, the pool of made pictures, levels."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vidgen.errors import ConfigError
from vidgen.networks.coarse_to_fine import average_by_region
from vidgen.networks.image_pool import ImagePool
from vidgen.networks.losses import gradient_penalty
from vidgen.translators import pix2pix, pix2pixhd
from vidgen.translators.settings import FeatureSettings, ScaleSchedule
from vidgen.types import Condition
from vidgen.weights.files import load_into

HEIGHT, WIDTH, CLASSES = 32, 64, 4


def _condition(num_frames: int = 1) -> Condition:
    generator = torch.Generator().manual_seed(3)
    shape = (1, num_frames, HEIGHT, WIDTH)
    instances = torch.randint(0, 3, (1, num_frames, 4, 8), generator=generator).repeat_interleave(8, 2).repeat_interleave(8, 3)
    return Condition(labels=torch.randint(0, CLASSES, shape, generator=generator), instances=26000 + instances)


def _pix2pix(**changes: Any) -> pix2pix.Pix2Pix:
    torch.manual_seed(0)
    shape = pix2pix.Generator(network="resnet", base_channels=4, num_blocks=2)
    return pix2pix.build(pix2pix.Config(num_labels=CLASSES, generator=shape, **changes)).eval()


def _pix2pixhd(**changes: Any) -> pix2pixhd.Pix2PixHD:
    torch.manual_seed(0)
    values = {
        "num_labels": CLASSES,
        "use_instances": True,
        "generator": pix2pixhd.Generator(base_channels=4, num_downsamplings=2, num_blocks=1),
        "encoder": pix2pixhd.Encoder(base_channels=4, num_downsamplings=2),
        "losses": pix2pixhd.LossWeights(perceptual_weight=0),
    }
    return pix2pixhd.build(pix2pixhd.Config(**{**values, **changes})).eval()


def _frames(translator: Any, seed: int, condition: Condition) -> torch.Tensor:
    with torch.no_grad():
        frames: torch.Tensor = translator.translate(condition.with_tensors(noise=torch.tensor([seed])))[0].frames
    return frames


def test_dropout_makes_each_seed_a_picture_of_its_own_and_leaves_a_still_video_still() -> None:
    translator, condition = _pix2pix(), _condition()
    assert torch.equal(_frames(translator, 1, condition), _frames(translator, 1, condition))
    assert not torch.equal(_frames(translator, 1, condition), _frames(translator, 2, condition))
    assert condition.labels is not None
    still = _frames(translator, 1, Condition(labels=condition.labels.expand(-1, 3, -1, -1)))
    assert torch.equal(still[:, 0], still[:, 2])


def test_without_dropout_at_test_the_seed_does_not_matter() -> None:
    translator, condition = _pix2pix(dropout_at_test=False), _condition()
    assert torch.equal(_frames(translator, 1, condition), _frames(translator, 2, condition))


def _compact(**changes: Any) -> pix2pix.Pix2Pix:
    torch.manual_seed(0)
    shape = pix2pix.Generator(network="compact", num_downsamplings=3, width=0.25)
    return pix2pix.build(pix2pix.Config(num_labels=CLASSES, generator=shape, **changes))


def test_the_compact_generator_draws_each_frame_by_itself_and_has_no_noise() -> None:
    translator, condition = _compact().eval(), _condition(2)
    both = _frames(translator, 1, condition)
    assert torch.equal(both, _frames(translator, 2, condition))
    assert condition.labels is not None
    torch.testing.assert_close(both[:, 1:], _frames(translator, 1, Condition(labels=condition.labels[:, 1:])))
    assert "noise" not in [item.name for item in pix2pix.inputs(translator.config)]


def test_discriminators_join_when_the_schedule_says_so_and_use_needs_none() -> None:
    schedule = ScaleSchedule(epochs=4, decay_epochs=2, warmup_epochs=1, adversarial_from_epoch=3, adversarial_ramp_epochs=1)
    translator = _compact(features=FeatureSettings(gan_weight=0.2), schedule=schedule)
    stages = pix2pix.stages(translator.config, 10)
    names = [[phase.name for phase in translator.phases(stage)] for stage in stages]
    assert [stage.num_steps for stage in stages] == [10, 20, 10, 20]
    assert names == [["generator"], ["generator"], *2 * [["discriminator", "generator", "feature_discriminator"]]]
    assert [stage.adversarial for stage in stages] == [(0.0, 0.0), (0.0, 0.0), (0.0, 1.0), (1.0, 1.0)]
    used = pix2pix.build(translator.config.for_use())
    assert {name.split(".")[0] for name in used.state_dict()} == {"generator"}


def test_the_compact_generator_has_three_to_six_halvings() -> None:
    with pytest.raises(ValueError, match="3 to 6"):
        pix2pix.Config(generator=pix2pix.Generator(network="compact", num_downsamplings=8))


def test_statistics_at_test_are_the_pictures_own_unless_the_configuration_says_running() -> None:
    pictures = []
    for kind in ("batch", "running"):
        translator = _pix2pix(batch_norm_at_test=kind, dropout_at_test=False)
        before = _frames(translator, 0, _condition())
        for name, buffer in translator.generator.named_buffers():
            if name.endswith("running_mean"):
                buffer.add_(1)
        pictures.append((before, _frames(translator, 0, _condition())))
    (own, still_own), (running, moved) = pictures
    assert torch.equal(own, still_own)
    assert not torch.equal(running, moved)
    assert not torch.equal(own, running)


def test_a_region_has_the_mean_of_its_pixels() -> None:
    features = torch.arange(8.0).view(1, 1, 2, 4)
    regions = torch.tensor([[[26003, 26003, 7, 7], [26003, 26003, 7, 7]]])
    expected = torch.tensor([[2.5, 2.5, 4.5, 4.5], [2.5, 2.5, 4.5, 4.5]])
    torch.testing.assert_close(average_by_region(features, regions)[0, 0], expected)


@torch.no_grad()
def test_a_reference_gives_each_object_one_look_and_given_styles_come_first() -> None:
    translator, condition = _pix2pixhd(), _condition()
    real = torch.rand(1, 1, 3, HEIGHT, WIDTH) * 2 - 1
    styles = translator.styles_of(real, condition)
    assert condition.instances is not None
    for identity in condition.instances.unique():
        looks = styles[0, 0][:, condition.instances[0, 0] == identity]
        assert looks.std(1).max() < 1e-6
    by_reference = condition.with_tensors(reference=real)
    by_styles = condition.with_tensors(reference=-real, styles=styles)
    made = [_frames(translator, 0, given) for given in (by_reference, by_styles, condition)]
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_styles_of_another_size_are_refused() -> None:
    condition = _condition()
    with pytest.raises(ValueError, match="styles"):
        condition.with_tensors(styles=torch.zeros(1, 1, 3, HEIGHT, WIDTH // 2))


def test_an_encoder_without_the_map_of_its_regions_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"encoder\.regions: is instances"):
        _pix2pixhd(use_instances=False)


def test_the_pool_goes_on_from_a_checkpoint_to_the_same_pictures() -> None:
    pictures = [torch.full((1, 2, 4, 4), float(number)) for number in range(12)]

    def judged(pool: ImagePool, start: int) -> list[float]:
        seen = []
        for number in range(start, 12):
            torch.manual_seed(number)
            seen.append(float(pool(pictures[number]).mean()))
        return seen

    whole = ImagePool(3)
    expected = judged(whole, 0)
    assert expected[:3] == [0, 1, 2]
    assert expected != list(range(12))
    first, second = ImagePool(3), ImagePool(3)
    for number in range(6):
        torch.manual_seed(number)
        first(pictures[number])
    load_into(second, first.state_dict(), "pool")
    assert judged(second, 6) == expected[6:]
    assert second(torch.zeros(1, 2, 8, 8)).shape == (1, 2, 8, 8)


def test_the_gradient_penalty_is_the_squared_distance_of_the_gradients_norm_from_one() -> None:
    real, fake = torch.ones(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)
    assert gradient_penalty(lambda x: 3 * x.flatten(1).sum(1), real, fake) == pytest.approx((3 * 2 - 1) ** 2)


def test_coarse_to_fine_is_a_list_of_stages() -> None:
    config = pix2pixhd.Config(
        num_labels=CLASSES,
        generator=pix2pixhd.Generator(num_enhancers=1),
        schedules=(
            ScaleSchedule(epochs=2, decay_epochs=0),
            ScaleSchedule(epochs=3, decay_epochs=2, finest_only_epochs=1),
        ),
    )
    made = [
        (stage.num_active_scales, stage.size_divisor, stage.learning, stage.num_steps) for stage in pix2pixhd.stages(config, 10)
    ]
    assert made == [(1, 2, "all", 20), (2, 1, "finest", 10), (2, 1, "all", 20), (2, 1, "all", 20)]
    assert pix2pixhd.stages(config, 10)[-1].final_learning_rate == 0
    with torch.device("meta"):
        translator = pix2pixhd.build(config)
    alone = translator.phases(pix2pixhd.stages(config, 10)[1])[0]
    assert list(alone.modules) == [translator.generator.image.levels[1]]
