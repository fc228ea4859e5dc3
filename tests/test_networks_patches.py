"""Pictures and clips made of patches: what is searched, found, blended and kept."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vidgen.networks import patches
from vidgen.networks.patches import Example, Matches, Matching


def textured(frames: int = 1, height: int = 24, width: int = 32, seed: int = 0) -> Tensor:
    """Smooth random colours [3,T,H,W] in -1..1."""
    coarse = torch.rand(1, 3, frames, height // 4, width // 4, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return F.interpolate(coarse, (frames, height, width), mode="trilinear", align_corners=False)[0]


def true_distances(volume: Tensor, other: Tensor) -> Tensor:
    """Mean squared difference of every 7x7 patch with every one of another picture."""
    first, second = (F.unfold(v[:, 0][None], 7)[0].T for v in (volume, other))
    return torch.cdist(first, second).square() / first.shape[1]


@pytest.fixture
def search_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pictures are searched by PatchMatch too."""
    monkeypatch.setattr(patches, "_MAX_EXACT_PAIRS", 0)


def test_a_pyramid_ends_with_the_size_and_begins_near_the_coarsest_side():
    sizes = patches.level_sizes((1, 186, 248))
    assert sizes[-1] == (1, 186, 248)
    assert sizes[0] == (1, 24, 32)
    ratios = [after[1] / before[1] for before, after in pairwise(sizes)]
    assert all(1.2 < ratio < 1.45 for ratio in ratios)
    assert patches.level_sizes((1, 20, 300)) == [(1, 20, 300)]
    assert min(size[0] for size in patches.level_sizes((16, 90, 120), min_frames=3)) >= 3
    assert patches.level_sizes((2, 90, 120))[0][0] == 1


def test_resizing_time_and_space_keeps_flat_colours():
    volume = torch.tensor([0.3, -0.5, 1.0])[:, None, None, None].expand(3, 4, 10, 12)
    resized = patches.resize(volume, (7, 15, 9))
    assert resized.shape == (3, 7, 15, 9)
    assert torch.allclose(resized, volume[:, :1, :1, :1].expand_as(resized), atol=1e-5)


def test_resizing_keeps_what_is_there_in_its_place():
    rows, columns = torch.arange(12.0)[:, None], torch.arange(16.0)
    resized = patches.resize((rows + 2 * columns)[None, None], (1, 24, 40))
    rows, columns = (torch.arange(24.0) + 0.5)[:, None] / 2 - 0.5, (torch.arange(40.0) + 0.5) / 2.5 - 0.5
    assert (resized[0, 0] - rows - 2 * columns)[6:-6, 6:-6].abs().max() < 1e-3


def test_distances_of_descriptions_are_mean_squared_differences():
    volume, other = textured(), textured(seed=1)
    example = Example(volume, volume, Matching(num_components=147, layout=0))
    described = torch.cdist(example.describe(other), example.keys).square()
    assert torch.allclose(described, true_distances(other, volume), atol=1e-4)


def test_few_components_keep_most_of_the_distance():
    volume = textured()
    example = Example(volume, volume, Matching(num_components=24, layout=0))
    described, true = torch.cdist(example.keys, example.keys).square(), true_distances(volume, volume)
    assert (described <= true + 1e-4).all()
    assert described.mean() > 0.95 * true.mean()


@pytest.mark.parametrize("completeness", [None, 0.01])
def test_a_picture_made_of_its_own_patches_is_itself(completeness):
    volume = textured()
    matching = Matching(completeness=completeness)
    made, matches, _ = patches.refine(
        volume, Example(volume, volume, matching), None, None, matching, torch.Generator().manual_seed(0)
    )
    assert torch.allclose(made, volume, atol=1e-5)
    assert torch.equal(matches.indices, torch.arange(18 * 26))


def test_patchmatch_finds_nearly_what_comparing_all_finds(search_only):
    volume, other = textured(), textured(seed=1)
    matching = Matching(layout=0)
    example = Example(volume, volume, matching)
    queries = example.describe(other)
    best = torch.cdist(queries, example.keys).square().min(dim=1).values
    matches = Matches.aligned((1, 18, 26), example.grid)
    patches.search(matches, queries, example.keys, None, 8, torch.Generator().manual_seed(0))
    assert (matches.costs >= best - 1e-5).all()
    assert matches.costs.mean() < 1.1 * best.mean()
    again = (example.keys[matches.indices] - queries).square().sum(1)
    assert torch.allclose(matches.costs, again, atol=1e-5)


def test_patchmatch_follows_a_shift(search_only):
    volume = textured(height=40, width=48)
    matching = Matching(completeness=None, layout=0)
    example = Example(volume, volume, matching)
    shifted = volume[:, :, 5:, 9:]
    made, matches, _ = patches.refine(shifted, example, None, None, matching, torch.Generator().manual_seed(0))
    rows, columns = matches.places[1].view(29, 33), matches.places[2].view(29, 33)
    right = (rows == torch.arange(29)[:, None] + 5) & (columns == torch.arange(33) + 9)
    assert right.float().mean() > 0.97
    assert (made - shifted).abs().mean() < 0.01


def test_enlarged_matches_point_to_the_same_relative_places():
    coarse = Matches.aligned((1, 10, 12), (1, 10, 12))
    fine = coarse.enlarged((1, 20, 24), (1, 20, 24))
    assert (fine.indices == torch.arange(20 * 24)).all()
    odd = coarse.enlarged((1, 13, 17), (1, 21, 9))
    assert odd.places[1].max() < 21
    assert odd.places[2].max() < 9


def test_completeness_lets_rare_parts_of_the_example_appear():
    example = torch.zeros(3, 1, 30, 40) - 0.5
    example[:, :, 10:18, 10:18] = 1.0
    guess = torch.zeros(3, 1, 30, 40) - 0.5 + 0.05 * torch.randn(3, 1, 30, 40, generator=torch.Generator().manual_seed(0))
    bright = {}
    for completeness in (None, 1e-4):
        matching = Matching(completeness=completeness, layout=0)
        made, _, _ = patches.refine(guess, Example(example, example, matching), None, None, matching, torch.Generator())
        bright[completeness] = (made > 0).float().mean().item()
    assert bright[None] == 0
    assert bright[1e-4] > 0.005


def test_layout_keeps_patches_at_their_height():
    example = textured(height=40, width=40)
    guess = torch.randn(3, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    moved = {}
    for layout in (0.0, 100.0):
        matching = Matching(completeness=None, layout=layout)
        _, matches, _ = patches.refine(guess, Example(example, example, matching), None, None, matching, torch.Generator())
        moved[layout] = (matches.places[1].view(34, 34) - torch.arange(34)[:, None]).abs().float().mean().item()
    assert moved[100.0] < 0.5
    assert moved[0.0] > 5


def test_what_is_made_has_the_size_the_colours_and_the_seed_asked_for():
    example = textured(height=40, width=48)
    sizes, example_sizes = [(1, 24, 40), (1, 36, 60)], [(1, 24, 29), (1, 40, 48)]

    def make(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return patches.synthesize(
            example, sizes, example_sizes, lambda size: torch.randn(3, *size, generator=generator), seed=seed
        ).volume

    first = make(1)
    assert first.shape == (3, 1, 36, 60)
    assert torch.equal(first, make(1))
    assert (first - make(2)).abs().mean() > 0.02
    assert first.min() >= example.min() - 1e-4
    assert first.max() <= example.max() + 1e-4


def test_opacity_comes_along_with_its_patch():
    example = torch.cat([textured(), (textured()[:1] > 0).float()])
    matching = Matching()
    made, _, _ = patches.refine(example, Example(example, example, matching), None, None, matching, torch.Generator())
    assert made.shape[0] == 4
    assert torch.allclose(made[3], example[3], atol=1e-5)


def test_a_loop_of_frames_is_made_so_that_the_last_leads_to_the_first():
    frames = 8
    wave = torch.stack([textured(height=20, width=24).roll(t, 3)[:, 0] for t in range(frames)], dim=1)
    matching = Matching(window=(3, 7, 7), num_iterations=2)
    sizes = [(frames, 20, 24)]

    def gap(loop: bool) -> float:
        generator = torch.Generator().manual_seed(0)
        made = patches.synthesize(
            wave, sizes, sizes, lambda size: wave + 0.1 * torch.randn(3, *size, generator=generator), loop=loop, matching=matching
        ).volume
        steps = (made[:, 1:] - made[:, :-1]).abs().mean()
        return ((made[:, -1] - made[:, 0]).abs().mean() / steps).item()

    assert gap(True) < gap(False)


@pytest.mark.parametrize("loop", [True, False])
def test_what_is_made_says_which_voxel_of_the_example_each_comes_from(loop):
    example = torch.stack([textured(height=24, width=28).roll(2 * t, 3)[:, 0] for t in range(6)], dim=1)
    sizes = [(6, 24, 28)]
    matching = Matching(window=(3, 7, 7), num_iterations=2)
    made = patches.synthesize(example, sizes, sizes, lambda size: example.clone(), loop=loop, matching=matching)
    assert made.places.shape == made.volume.shape
    frames, rows, columns = made.places
    copied = example[:, frames, rows, columns]
    assert (copied - made.volume).abs().mean() < 0.25 * example.std()


def test_enlarging_agrees_with_the_picture_and_is_sharper_than_bicubic():
    side = torch.arange(96)
    sharp = ((side[:, None] // 12 + side // 12) % 2).float().expand(3, 1, 96, 96) * 1.4 - 0.7
    small = patches.resize(sharp.contiguous(), (1, 32, 32))
    made = patches.enlarge(small, 3.0)
    plain = patches.resize(small, (1, 96, 96))
    assert made.shape == (3, 1, 96, 96)
    assert (patches.resize(made, (1, 32, 32)) - small).abs().mean() < 0.02
    assert (made - sharp).abs().mean() < 0.8 * (plain - sharp).abs().mean()


@pytest.mark.parametrize("axis", [0, 1], ids=["rows", "columns"])
def test_enlarging_sharpens_along_both_axes(axis):
    side = torch.arange(72)
    stripes = (side // 12 % 2).float() * 1.4 - 0.7
    sharp = (stripes[:, None] if axis == 0 else stripes).expand(3, 1, 72, 72).contiguous()
    small = patches.resize(sharp, (1, 24, 24))
    made, plain = patches.enlarge(small, 3.0), patches.resize(small, (1, 72, 72))
    assert (made - sharp).abs().mean() < 0.4 * (plain - sharp).abs().mean()


def test_the_last_random_search_reaches_the_next_patch_but_one_place_away():
    """One patch has no neighbors to learn from, and two places leave no wider search than a radius of one."""
    keys = torch.tensor([[0.0], [1.0]])
    matches = Matches(torch.zeros(3, 1, dtype=torch.int64), (1, 1, 1), (1, 1, 2))
    patches.search(matches, keys[1:], keys, None, 20, torch.Generator().manual_seed(0))
    assert matches.places.flatten().tolist() == [0, 0, 1]
    assert matches.costs.tolist() == [0]


def test_an_enlargement_is_put_right_until_it_agrees_with_the_picture():
    picture = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(0)) - 0.5
    away = patches.resize(patches.enlarge(picture, 2.0), (1, 32, 32)) - picture
    assert away.abs().mean() < 0.01


def test_as_many_principal_components_stand_for_a_patch_as_are_asked_for():
    picture = torch.rand(3, 1, 20, 24, generator=torch.Generator().manual_seed(0))
    for count in (1, 5, 24):
        assert Example(picture, picture, Matching(num_components=count)).basis.shape[0] == count
