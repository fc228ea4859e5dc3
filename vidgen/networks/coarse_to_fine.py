"""The generators of pix2pixHD: one network at a coarse size, and enhancers that each double it; the encoder of objects' looks.

Source: Wang et al., "High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs", CVPR 2018, section 3,
and facts of the authors' release. pix2pix's ResNet generator is the global network too.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from vidgen.networks.choices import NormKind, Upsampling
from vidgen.networks.layers import ResidualBlock, UpBlock, down, head, pyramid, stem


class GlobalGenerator(nn.Module):
    """Stem, strided convolutions, residual blocks, the way back up, a head: [N,in_channels,H,W] -> [N,out_channels,H,W], -1..1.

    Args:
        base_channels: width after the stem; it doubles with each down-sampling.
        dropout: inside the residual blocks (pix2pix).
        bias: of the convolutions before a norm; pix2pix leaves it out before batch norm.
        has_head: without one, only `features` can be used.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 3,
        base_channels: int = 64,
        num_downsamplings: int = 4,
        num_blocks: int = 9,
        *,
        norm: NormKind = "instance",
        upsampling: Upsampling = "transposed",
        dropout: float = 0.0,
        bias: bool = True,
        has_head: bool = True,
    ) -> None:
        super().__init__()
        widths = [base_channels * 2**level for level in range(num_downsamplings + 1)]
        self.down = nn.Sequential(
            stem(in_channels, widths[0], norm, bias), *(down(a, b, norm, bias) for a, b in itertools.pairwise(widths))
        )
        self.blocks = nn.Sequential(*(ResidualBlock(widths[-1], norm=norm, dropout=dropout, bias=bias) for _ in range(num_blocks)))
        self.up = nn.Sequential(
            *(UpBlock(a, b, norm=norm, upsampling=upsampling, bias=bias) for a, b in itertools.pairwise(widths[::-1]))
        )
        self.head = head(base_channels, out_channels) if has_head else None

    def features(
        self, x: Tensor | None, coarse: Tensor | None = None, begun: Tensor | None = None, seed: int | None = None
    ) -> Tensor:
        """What the head reads: [N,base_channels,H,W].

        Args:
            begun: the first convolution's result where it is known already.
            seed: of the dropout in use.
        """
        features = _encoded(self.down, x, begun)
        for block in self.blocks:
            features = block(features, seed)
        return self.up(features)

    def forward(self, x: Tensor, seed: int | None = None) -> Tensor:
        assert self.head is not None
        return torch.tanh(self.head(self.features(x, seed=seed)).float())


class LocalEnhancer(nn.Module):
    """Adds detail at twice the size of the features it is given; `base_channels` is half as wide as those."""

    def __init__(
        self, in_channels: int, base_channels: int, num_blocks: int = 3, *, norm: NormKind, upsampling: Upsampling, has_head: bool
    ) -> None:
        super().__init__()
        wide = 2 * base_channels
        self.down = nn.Sequential(stem(in_channels, base_channels, norm), down(base_channels, wide, norm))
        self.blocks = nn.Sequential(*(ResidualBlock(wide, norm=norm) for _ in range(num_blocks)))
        self.up = nn.Sequential(UpBlock(wide, base_channels, norm=norm, upsampling=upsampling))
        self.head = head(base_channels, 3) if has_head else None

    def features(self, x: Tensor | None, coarse: Tensor, begun: Tensor | None = None) -> Tensor:
        """[N,base_channels,H,W] from the input [N,in_channels,H,W] and the coarser features [N,2*base_channels,H/2,W/2]."""
        features: Tensor = self.up(self.blocks(_encoded(self.down, x, begun) + coarse))
        return features


def _encoded(encoder: nn.Sequential, x: Tensor | None, begun: Tensor | None) -> Tensor:
    if begun is None:
        return encoder(x)
    first, *others = encoder
    x = first.after(begun)  # type: ignore[operator]
    for layer in others:
        x = layer(x)
    return x


class CoarseToFineGenerator(nn.Module):
    """A global network and any number of local enhancers: [N,in_channels,H,W] -> [N,3,H,W] in -1..1.

    Args:
        base_channels: width of the global network; each enhancer has half of the one before.
        num_enhancers: doublings of the size after the global network; 0 is the global network alone.
        num_trained_levels: how many of the finest levels are trained as the finest one in turn, and so have a head; the
            published network has a single head.
    """

    def __init__(
        self,
        in_channels: int,
        base_channels: int = 64,
        num_downsamplings: int = 4,
        num_blocks: int = 9,
        num_enhancers: int = 0,
        num_local_blocks: int = 3,
        *,
        norm: NormKind = "instance",
        upsampling: Upsampling = "transposed",
        num_trained_levels: int = 1,
    ) -> None:
        super().__init__()
        first_head = num_enhancers + 1 - num_trained_levels
        levels: list[nn.Module] = [
            GlobalGenerator(
                in_channels,
                3,
                base_channels,
                num_downsamplings,
                num_blocks,
                norm=norm,
                upsampling=upsampling,
                has_head=first_head == 0,
            )
        ]
        for level in range(1, num_enhancers + 1):
            width = base_channels // 2**level
            has_head = level >= first_head
            levels.append(LocalEnhancer(in_channels, width, num_local_blocks, norm=norm, upsampling=upsampling, has_head=has_head))
        self.levels = nn.ModuleList(levels)

    def forward(self, x: Tensor | None, num_levels: int | None = None, begun: Tensor | None = None) -> Tensor:
        """The picture of the coarsest `num_levels` (all by default); no gradient goes to levels that do not learn.

        Args:
            x: [N,in_channels,H,W]; None will do where there is only one level and `begun` is given.
            begun: the result of the finest level's first convolution, where it is known already.
        """
        active = list(self.levels)[: num_levels or len(self.levels)]
        features: Tensor | None = None
        for level, seen in zip(active, [x] if len(active) == 1 else pyramid(x, len(active)), strict=True):  # type: ignore[arg-type]
            learns = any(parameter.requires_grad for parameter in level.parameters())
            needed = learns or any(value is not None and value.requires_grad for value in (seen, features))
            with torch.set_grad_enabled(torch.is_grad_enabled() and needed):
                features = level.features(seen, features, begun if level is active[-1] else None)  # type: ignore[operator]
        return torch.tanh(active[-1].head(features).float())  # type: ignore[operator]

    def first_convolution(self, num_levels: int) -> nn.Conv2d:
        """The convolution that reads the input at its full size."""
        return self.levels[num_levels - 1].down[0].conv  # type: ignore[union-attr, index]

    def learners(self, num_levels: int, *, finest_only: bool) -> list[nn.Module]:
        """The modules that learn while the coarsest `num_levels` are there: the finest level alone, or all, with one head."""
        finest = self.levels[num_levels - 1]
        if finest_only:
            return [finest]
        coarser = [part for level in list(self.levels)[: num_levels - 1] for part in (level.down, level.blocks, level.up)]
        return [*coarser, finest]  # type: ignore[list-item]


class FeatureEncoder(nn.Module):
    """The look of every pixel of a picture: [N,3,H,W] in -1..1 -> [N,num_features,H,W] in -1..1; see `average_by_region`.

    Source: section 3.4 of the paper.
    """

    def __init__(
        self, num_features: int = 3, base_channels: int = 16, num_downsamplings: int = 4, *, norm: NormKind = "instance"
    ) -> None:
        super().__init__()
        self.network = GlobalGenerator(3, num_features, base_channels, num_downsamplings, num_blocks=0, norm=norm)

    def forward(self, images: Tensor, regions: Tensor) -> Tensor:
        """Features averaged over each region of `regions`, int64 [N,H,W]."""
        return average_by_region(self.network(images), regions)


def average_by_region(features: Tensor, regions: Tensor) -> Tensor:
    """[N,C,H,W] with every pixel replaced by the mean over those with the same number in `regions`, int64 [N,H,W]."""
    averaged = []
    for values, ids in zip(features.flatten(2), regions.flatten(1), strict=True):
        _, places, counts = torch.unique(ids, return_inverse=True, return_counts=True)
        sums = values.new_zeros(len(values), len(counts)).index_add(1, places, values)
        averaged.append((sums / counts).index_select(1, places))
    return torch.stack(averaged).view_as(features)


# -- the originals' keys ---------------------------------------------------------------------------------------------------


def rename_global(keys: Iterable[str]) -> dict[str, str]:
    """Keys of the authors' GlobalGenerator or Encoder, or of pix2pix's ResnetGenerator -> keys of `GlobalGenerator`.

    The originals number layers (padding, convolution, norm, activation) inside sequences; here a block is one entry.

    Raises:
        KeyError: a key that no such network has.
    """
    keys = list(keys)
    residual = sorted({int(found[1]) for key in keys if (found := re.match(r"model\.(\d+)\.conv_block\.", key))})
    last = max(int(found[1]) for key in keys if (found := re.match(r"model\.(\d+)\.", key)))
    num_downs = (residual[0] - 4) // 3 if residual else (last - 5) // 6
    places = _block_places("model", residual[0] if residual else 0, len(residual), "blocks", keys)
    for index in range(num_downs + 1):
        places |= _layer_places(f"model.{1 + 3 * index}", f"model.{2 + 3 * index}", f"down.{index}")
    after = 4 + 3 * num_downs + len(residual)
    for index in range(num_downs):
        places |= _layer_places(f"model.{after + 3 * index}", f"model.{after + 3 * index + 1}", f"up.{index}")
    places[f"model.{after + 3 * num_downs + 1}"] = "head"
    return _renamed(keys, places)


def rename_generator(keys: Iterable[str]) -> dict[str, str]:
    """Keys of the authors' GlobalGenerator or LocalEnhancer (`model.*`, `model1_1.*`, `model1_2.*`) -> `CoarseToFineGenerator`.

    Raises:
        KeyError: a key that neither has.
    """
    keys = list(keys)
    inner = [key for key in keys if key.startswith("model.")]
    renamed = {key: f"levels.0.{name}" for key, name in rename_global(inner).items()}
    places: dict[str, str] = {}
    for level in sorted({int(found[1]) for key in keys if (found := re.match(r"model(\d+)_", key))}):
        ours, before, after = f"levels.{level}", f"model{level}_1", f"model{level}_2"
        num_blocks = len({key.split(".")[1] for key in keys if key.startswith(f"{after}.") and ".conv_block." in key})
        places |= _layer_places(f"{before}.1", f"{before}.2", f"{ours}.down.0")
        places |= _layer_places(f"{before}.4", f"{before}.5", f"{ours}.down.1")
        places |= _block_places(after, 0, num_blocks, f"{ours}.blocks", keys)
        places |= _layer_places(f"{after}.{num_blocks}", f"{after}.{num_blocks + 1}", f"{ours}.up.0")
        places[f"{after}.{num_blocks + 4}"] = f"{ours}.head"
    return renamed | _renamed([key for key in keys if not key.startswith("model.")], places)


def _layer_places(conv: str, norm: str, ours: str) -> dict[str, str]:
    return {conv: f"{ours}.conv", norm: f"{ours}.norm"}


def _block_places(sequence: str, first: int, count: int, ours: str, keys: list[str]) -> dict[str, str]:
    """Residual blocks; dropout inside moves the second half by one."""
    second = 5 if any(key.endswith(".conv_block.5.weight") for key in keys) else 6
    places: dict[str, str] = {}
    for index in range(count):
        block = f"{sequence}.{first + index}.conv_block"
        places |= _layer_places(f"{block}.1", f"{block}.2", f"{ours}.{index}.first")
        places |= _layer_places(f"{block}.{second}", f"{block}.{second + 1}", f"{ours}.{index}.second")
    return places


def _renamed(keys: Iterable[str], places: dict[str, str]) -> dict[str, str]:
    split = {key: key.rpartition(".") for key in keys}
    return {key: f"{places[layer]}.{parameter}" for key, (layer, _, parameter) in split.items()}


def rename_encoder(keys: Iterable[str]) -> dict[str, str]:
    """Keys of the authors' Encoder -> `FeatureEncoder`.

    Raises:
        KeyError: a key that it does not have.
    """
    return {key: f"network.{name}" for key, name in rename_global(keys).items()}
