"""Pretrained networks that compare pictures, built from the tensors of a published file: LPIPS, DISTS, Inception, I3D, CLIP, DINO.

They are built here and not taken from an optional package, so that a score does not depend on what is installed beside. Widths
and depths are read off the tensors where the layout allows it. Nothing here opens a file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidgen.errors import CheckpointError

Tensors = Mapping[str, Tensor]
Module = TypeVar("Module", bound=nn.Module)

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
INCEPTION_SIDE = 299
I3D_SIDE = 224
VIT_SIDE = 224
_CLIP_MEAN, _CLIP_DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_LPIPS_MEAN, _LPIPS_DEVIATION = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_LPIPS_TAPS = {
    "squeezenet1_1": (1, 4, 7, 9, 10, 11, 12),
    "alexnet": (1, 4, 7, 9, 11),
    "vgg16": (3, 8, 15, 22, 29),
}


def fill(module: Module, tensors: Tensors, what: str, *, prefix: str = "") -> Module:
    """`module` with the tensors that begin with `prefix`, frozen; others are ignored, but its own must all be there.

    Raises:
        CheckpointError: some are missing or of another shape.
    """
    own = module.state_dict()
    matching = {name: tensors[prefix + name] for name in own if prefix + name in tensors}
    # Files older than PyTorch 0.4.1 do not count batches; nothing here reads that count.
    missing = [prefix + name for name in own if name not in matching and not name.endswith("num_batches_tracked")]
    wrong = [
        f"{prefix}{name} is {list(value.shape)}, not {list(own[name].shape)}"
        for name, value in matching.items()
        if value.shape != own[name].shape
    ]
    if missing or wrong:
        fault = f"{len(missing)} tensors are missing, such as {missing[0]}" if missing else wrong[0]
        raise CheckpointError(f"these weights are not those of {what}: {fault}")
    module.load_state_dict(matching, strict=False)
    return module.eval().requires_grad_(False)


def empty(build: Callable[[], Module]) -> Module:
    """What `build` makes, without the seconds that random values take; to be filled."""
    with torch.device("meta"):
        module = build()
    return module.to_empty(device="cpu")


def _normalized(frames: Tensor, mean: tuple[float, ...], deviation: tuple[float, ...]) -> Tensor:
    return (frames - frames.new_tensor(mean)[:, None, None]) / frames.new_tensor(deviation)[:, None, None]


# --- paired: LPIPS, DISTS -------------------------------------------------------------------------------------------------


def lpips_backbone(tensors: Tensors) -> str:
    """Which of torchvision's networks the tensors are of.

    Raises:
        CheckpointError: none that LPIPS knows.
    """
    if "features.3.squeeze.weight" in tensors:
        return "squeezenet1_1"
    first = tensors.get("features.0.weight")
    if first is not None and first.shape[-1] == 11:
        return "alexnet"
    if "features.28.weight" in tensors:
        return "vgg16"
    raise CheckpointError("these weights are not those of torchvision's squeezenet1_1, alexnet or vgg16")


class Lpips(nn.Module):
    """Learned perceptual distance, version 0.1.

    Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018.

    Args:
        backbone: state dict of torchvision's squeezenet1_1, alexnet or vgg16 (the classifier may be missing).
        heads: `lin0.model.1.weight`, ... of the same network.
    """

    def __init__(self, backbone: Tensors, heads: Tensors) -> None:
        from torchvision import models

        super().__init__()
        self.name = lpips_backbone(backbone)
        self._taps = _LPIPS_TAPS[self.name]
        layers = empty(lambda: getattr(models, self.name)(weights=None).features[: self._taps[-1] + 1])
        self._layers = fill(layers, backbone, f"torchvision's {self.name}", prefix="features.")
        try:
            self._weights = [heads[f"lin{index}.model.1.weight"].float().view(1, -1, 1, 1) for index in range(len(self._taps))]
        except KeyError as error:
            raise CheckpointError(f"these heads are not those of LPIPS on {self.name}: {error.args[0]} is missing") from error

    @torch.no_grad()
    def features(self, frames: Tensor) -> list[Tensor]:
        """[N,3,H,W] in 0..1 -> the feature maps compared, of unit length at every position."""
        values = _normalized(frames * 2 - 1, _LPIPS_MEAN, _LPIPS_DEVIATION)
        taps = []
        for index, layer in enumerate(self._layers.children()):
            values = layer(values)
            if index in self._taps:
                taps.append(values / (values.square().sum(dim=1, keepdim=True) + 1e-8).sqrt())
        return taps

    def distance(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        """Distance of the frames behind two results of `features`, float64 [N]."""
        total = torch.zeros(len(first[0]), dtype=torch.float64)
        for mine, theirs, weight in zip(first, second, self._weights, strict=True):
            total += ((mine - theirs).square() * weight).sum(dim=1).flatten(1).mean(dim=1, dtype=torch.float64)
        return total


class Dists(nn.Module):
    """Structure and texture similarity of deep features, as a distance.

    Source: Ding et al., "Image Quality Assessment: Unifying Structure and Texture Similarity", 2020, equations 3 to 5.

    Args:
        backbone: state dict of torchvision's vgg16 (the classifier may be missing).
        weights: `alpha` and `beta`, one value for each of 3 + 64 + 128 + 256 + 512 + 512 channels.
    """

    _TAPS, _POOLS = (3, 8, 15, 22, 29), (4, 9, 16, 23)

    def __init__(self, backbone: Tensors, weights: Tensors) -> None:
        from torchvision import models

        super().__init__()
        layers = empty(lambda: models.vgg16(weights=None).features[: self._TAPS[-1] + 1])
        self._layers = fill(layers, backbone, "torchvision's vgg16", prefix="features.")
        try:
            alpha, beta = (weights[name].double().flatten() for name in ("alpha", "beta"))
        except KeyError as error:
            raise CheckpointError(f"these weights are not those of DISTS: {error.args[0]} is missing") from error
        total = alpha.sum() + beta.sum()
        self._texture, self._structure = alpha / total, beta / total

    @torch.no_grad()
    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Distance of [N,3,H,W] in 0..1, float64 [N]; 0 for equal frames."""
        textures, structures = [], []
        for mine, theirs in zip(self._features(first), self._features(second), strict=True):
            mine, theirs = mine.double().flatten(2), theirs.double().flatten(2)
            mean, other_mean = mine.mean(dim=2), theirs.mean(dim=2)
            variances = mine.var(dim=2, correction=0) + theirs.var(dim=2, correction=0)
            covariance = (mine * theirs).mean(dim=2) - mean * other_mean
            textures.append((2 * mean * other_mean + 1e-6) / (mean.square() + other_mean.square() + 1e-6))
            structures.append((2 * covariance + 1e-6) / (variances + 1e-6))
        similarity = (torch.cat(textures, dim=1) * self._texture + torch.cat(structures, dim=1) * self._structure).sum(dim=1)
        return 1 - similarity

    def _features(self, frames: Tensor) -> list[Tensor]:
        values, taps = _normalized(frames, IMAGENET_MEAN, IMAGENET_DEVIATION), [frames]
        for index, layer in enumerate(self._layers.children()):
            values = _root_mean_square_pool(values) if index in self._POOLS else layer(values)
            if index in self._TAPS:
                taps.append(values)
        return taps


def _root_mean_square_pool(values: Tensor) -> Tensor:
    """Half size by the root of the 3x3 Hann-weighted mean square, which lets no frequency fold over."""
    window = values.new_tensor([0.25, 0.5, 0.25])
    kernel = (window[:, None] * window).expand(values.shape[1], 1, 3, 3)
    return (F.conv2d(values.square(), kernel, stride=2, padding=1, groups=values.shape[1]) + 1e-12).sqrt()


# --- sets of pictures: Inception ------------------------------------------------------------------------------------------


def _empty_inception(**options: int) -> nn.Module:
    from torchvision.models import inception_v3

    return empty(lambda: inception_v3(weights=None, aux_logits=False, init_weights=False, **options))


class FidInception(nn.Module):
    """The 2048 features of FID and KID: the Inception network of 2015 with the pooling and the resizing of TensorFlow 1.

    Source: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", 2017. Equal to torch-fidelity's extractor.

    Args:
        tensors: of `weights-inception-2015-12-05-6726825d.pth`.
    """

    def __init__(self, tensors: Tensors) -> None:
        super().__init__()
        network = fill(_empty_inception(num_classes=1008), tensors, "the Inception network of FID")
        mean = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
        pools: dict[str, Callable[[Tensor], Tensor]] = dict.fromkeys(("5b", "5c", "5d", "6b", "6c", "6d", "6e", "7b"), mean)
        pools["7c"] = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)
        names = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")
        mixed = {name: getattr(network, f"Mixed_{name}") for name in names}
        blocks = [_Pooled(block, pools[name]) if name in pools else block for name, block in mixed.items()]
        self._layers = nn.Sequential(*_stem(network), nn.MaxPool2d(3, 2), *blocks)
        assert isinstance(network.fc, nn.Linear)
        self._classes = network.fc

    @torch.no_grad()
    def probabilities(self, features: Tensor) -> Tensor:
        """Of the 1008 classes [N,1008], for the Inception Score; without the bias, as torch-fidelity takes them."""
        return F.linear(features, self._classes.weight).softmax(1)

    @torch.no_grad()
    def forward(self, frames: Tensor) -> Tensor:
        """[N,3,H,W] in 0..255 -> [N,2048]."""
        values = (resized_as_tensorflow(frames.float(), INCEPTION_SIDE) - 128) / 128
        return self._layers(values).mean(dim=(2, 3))


class _Pooled(nn.Module):
    """A block of Inception whose pooling branch pools in another way."""

    def __init__(self, block: nn.Module, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._block, self._pool = block, pool

    def forward(self, values: Tensor) -> Tensor:
        branches = self._block._forward(values)[:-1]  # type: ignore[operator]
        return torch.cat([*branches, self._block.branch_pool(self._pool(values))], dim=1)  # type: ignore[operator]


def _stem(network: nn.Module) -> list[nn.Module]:
    """The layers up to the second pooling."""
    names = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
    return [getattr(network, name) if name else nn.MaxPool2d(3, 2) for name in names]


def resized_as_tensorflow(frames: Tensor, side: int) -> Tensor:
    """[N,C,H,W] at `side` x `side`, bilinear as TensorFlow 1 has it: no half-pixel centers, no smoothing."""

    def lines(count: int) -> tuple[Tensor, Tensor, Tensor]:
        # The scale is rounded to float32 first, as TensorFlow does, so that positions agree bit for bit.
        positions = torch.arange(side, dtype=torch.float32) * torch.tensor(count / side, dtype=torch.float32)
        low = positions.long()
        return low, (low + 1).clamp(max=count - 1), positions - low

    (top, bottom, down), (left, right, across) = (lines(count) for count in frames.shape[-2:])
    rows = [frames[..., index, :] for index in (top, bottom)]
    upper, lower = (row[..., left] + (row[..., right] - row[..., left]) * across for row in rows)
    return upper + (lower - upper) * down[:, None]


class SifidInception(nn.Module):
    """The 192 features at every position before Inception's second pooling, of which SIFID compares the distribution.

    Source: Shaham et al., "SinGAN", ICCV 2019; the released script takes torchvision's weights, and pictures at their size.

    Args:
        tensors: state dict of torchvision's inception_v3; only its first five convolutions are read.
    """

    def __init__(self, tensors: Tensors) -> None:
        super().__init__()
        network = _empty_inception()
        names = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
        for name in names:
            fill(getattr(network, name), tensors, "torchvision's inception_v3", prefix=f"{name}.")
        self._layers = nn.Sequential(*_stem(network)).eval()

    @torch.no_grad()
    def forward(self, frame: Tensor) -> Tensor:
        """[1,3,H,W] in 0..1 -> [positions, 192]."""
        return self._layers(frame * 2 - 1)[0].flatten(1).T


# --- sets of clips: I3D ---------------------------------------------------------------------------------------------------


class I3d(nn.Module):
    """The 400 logits of FVD and KVD: Inception-v1 inflated over time, averaged over what is left of time.

    Source: Carreira and Zisserman, "Quo Vadis, Action Recognition?", CVPR 2017; Unterthiner et al., "FVD", 2019.

    Args:
        tensors: named as in `i3d_pretrained_400.pt` (`Conv3d_1a_7x7.conv3d.weight`, ...); widths are read off them.
    """

    _PLAN = (
        ("Conv3d_1a_7x7",),
        ((1, 3, 3), (1, 2, 2)),
        ("Conv3d_2b_1x1", "Conv3d_2c_3x3"),
        ((1, 3, 3), (1, 2, 2)),
        ("Mixed_3b", "Mixed_3c"),
        ((3, 3, 3), (2, 2, 2)),
        ("Mixed_4b", "Mixed_4c", "Mixed_4d", "Mixed_4e", "Mixed_4f"),
        ((2, 2, 2), (2, 2, 2)),
        ("Mixed_5b", "Mixed_5c"),
    )

    def __init__(self, tensors: Tensors) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        try:
            for names in self._PLAN:
                if isinstance(names[0], tuple):
                    layers.append(_SamePool3d(*names))
                    continue
                layers += [
                    _Mixed3d(tensors, name)
                    if name.startswith("Mixed")
                    else _Unit3d(tensors, name, stride=2 if "7x7" in name else 1)
                    for name in names
                ]
            self._head = tensors["logits.conv3d.weight"].flatten(1), tensors["logits.conv3d.bias"]
        except KeyError as error:
            raise CheckpointError(f"these weights are not those of I3D: {error.args[0]} is missing") from error
        self._layers = nn.Sequential(*layers).eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, clips: Tensor) -> Tensor:
        """[N,3,16,224,224] in -1..1 -> [N,400]."""
        pooled = F.avg_pool3d(self._layers(clips), (2, 7, 7), stride=1)
        weight, bias = self._head
        return pooled.mean(dim=(2, 3, 4)) @ weight.T + bias


class _Unit3d(nn.Module):
    """Convolution, batch normalisation, rectifier."""

    def __init__(self, tensors: Tensors, name: str, stride: int = 1) -> None:
        super().__init__()
        weight = tensors[f"{name}.conv3d.weight"]
        num_out, num_in, depth, height, width = weight.shape
        self._kernel, self._stride = (depth, height, width), (stride,) * 3
        self.conv3d = nn.Conv3d(num_in, num_out, self._kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(num_out, eps=1e-3)
        fill(self, tensors, "I3D", prefix=f"{name}.")

    def forward(self, values: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv3d(_padded_same(values, self._kernel, self._stride))))


class _Mixed3d(nn.Module):
    def __init__(self, tensors: Tensors, name: str) -> None:
        super().__init__()
        names = (("b0",), ("b1a", "b1b"), ("b2a", "b2b"), ("", "b3b"))
        self._branches = nn.ModuleList(
            nn.Sequential(*(_Unit3d(tensors, f"{name}.{part}") if part else _SamePool3d((3, 3, 3), (1, 1, 1)) for part in parts))
            for parts in names
        )

    def forward(self, values: Tensor) -> Tensor:
        return torch.cat([branch(values) for branch in self._branches], dim=1)


class _SamePool3d(nn.Module):
    def __init__(self, kernel: tuple[int, ...], stride: tuple[int, ...]) -> None:
        super().__init__()
        self._kernel, self._stride = kernel, stride

    def forward(self, values: Tensor) -> Tensor:
        return F.max_pool3d(_padded_same(values, self._kernel, self._stride), self._kernel, self._stride)


def _padded_same(values: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Zeros around, so that the result has ceil(side / stride) positions, as TensorFlow's SAME: the odd one goes behind."""
    margins: list[int] = []
    for side, window, step in reversed(list(zip(values.shape[2:], kernel, stride, strict=True))):
        total = max((math.ceil(side / step) - 1) * step + window - side, 0)
        margins += [total // 2, total - total // 2]
    return F.pad(values, margins)


# --- consistency: CLIP and DINO -------------------------------------------------------------------------------------------


class DinoTransformer(nn.Module):
    """The class token of DINO's vision transformer, as VBench's subject consistency reads it.

    Source: Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021; Huang et al., "VBench", 2024:
    the shorter side becomes 224 by bilinear interpolation that does not smooth.

    Args:
        tensors: of `dino_vitbase16_pretrain.pth`; width and depth are read off them, heads are 64 wide.
    """

    def __init__(self, tensors: Tensors) -> None:
        super().__init__()
        names = {
            "norm1": "ln_1",
            "norm2": "ln_2",
            "attn.qkv.weight": "self_attention.in_proj_weight",
            "attn.qkv.bias": "self_attention.in_proj_bias",
            "attn.proj": "self_attention.out_proj",
            "mlp.fc1": "mlp.0",
            "mlp.fc2": "mlp.3",
        }
        try:
            self._patches = _patches(tensors, "patch_embed.proj.weight", tensors["patch_embed.proj.bias"])
            self._token, self._positions = tensors["cls_token"].view(1, 1, -1), tensors["pos_embed"].squeeze(0)
        except KeyError as error:
            raise CheckpointError(f"these weights are not those of DINO: {error.args[0]} is missing") from error
        self._blocks = _encoder_blocks(tensors, "blocks.", names, "DINO", eps=1e-6)
        self._norm = fill(nn.LayerNorm(self._token.shape[-1], eps=1e-6), tensors, "DINO", prefix="norm.")

    @torch.no_grad()
    def forward(self, frame: Tensor) -> Tensor:
        """[1,3,H,W] in 0..1 -> [1,D]."""
        frame = _shorter_side(frame, VIT_SIDE, "bilinear")
        patches = self._patches(_normalized(frame, IMAGENET_MEAN, IMAGENET_DEVIATION))
        values = torch.cat([self._token, patches.flatten(2).transpose(1, 2)], dim=1) + self._positions_for(patches.shape[-2:])
        return self._norm(self._blocks(values))[:, 0]

    def _positions_for(self, size: torch.Size) -> Tensor:
        """The position of each patch; of a grid other than the trained one, interpolated as DINO does."""
        first, rest = self._positions[:1], self._positions[1:]
        side = math.isqrt(len(rest))
        if tuple(size) == (side, side):
            return self._positions
        grid = rest.T.view(1, -1, side, side)
        # The 0.1 keeps rounding from losing a row; it is part of the interpolation's scale in DINO too.
        factors = tuple((count + 0.1) / side for count in size)
        grid = F.interpolate(grid, scale_factor=factors, mode="bicubic")
        return torch.cat([first, grid[0].flatten(1).T])


class ClipTransformer(nn.Module):
    """The picture embedding of CLIP's vision transformer, as VBench's background consistency reads it.

    Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021; Huang et al., "VBench",
    2024: the shorter side becomes 224 by bicubic interpolation that does not smooth, and the middle is taken.

    Args:
        tensors: named as in OpenAI's files (`visual.conv1.weight`, ...); the text half is ignored.
    """

    def __init__(self, tensors: Tensors) -> None:
        super().__init__()
        tensors = {name.removeprefix("visual."): value.float() for name, value in tensors.items() if value.is_floating_point()}
        names = {
            "ln_1": "ln_1",
            "ln_2": "ln_2",
            "attn.in_proj": "self_attention.in_proj",
            "attn.out_proj": "self_attention.out_proj",
            "mlp.c_fc": "mlp.0",
            "mlp.c_proj": "mlp.3",
        }
        try:
            self._patches = _patches(tensors, "conv1.weight", None)
            self._token, self._positions = tensors["class_embedding"].view(1, 1, -1), tensors["positional_embedding"]
            self._projection = tensors["proj"]
        except KeyError as error:
            raise CheckpointError(f"these weights are not those of CLIP: {error.args[0]} is missing") from error
        width = self._token.shape[-1]
        self._before, self._after = (
            fill(nn.LayerNorm(width), tensors, "CLIP", prefix=f"{name}.") for name in ("ln_pre", "ln_post")
        )
        visual = {name: value for name, value in tensors.items() if name.startswith("transformer.resblocks.")}
        self._blocks = _encoder_blocks(visual, "transformer.resblocks.", names, "CLIP", eps=1e-5)
        for block in self._blocks:
            block.get_submodule("mlp").add_module("1", _QuickGelu())

    @torch.no_grad()
    def forward(self, frame: Tensor) -> Tensor:
        """[1,3,H,W] in 0..1 -> [1,D]."""
        frame = _shorter_side(frame, VIT_SIDE, "bicubic")
        top, left = (round((side - VIT_SIDE) / 2) for side in frame.shape[-2:])
        frame = frame[..., top : top + VIT_SIDE, left : left + VIT_SIDE]
        patches = self._patches(_normalized(frame, _CLIP_MEAN, _CLIP_DEVIATION)).flatten(2).transpose(1, 2)
        values = torch.cat([self._token, patches], dim=1) + self._positions
        return self._after(self._blocks(self._before(values))[:, 0]) @ self._projection


class _QuickGelu(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return values * torch.sigmoid(1.702 * values)


def _shorter_side(frame: Tensor, side: int, mode: str) -> Tensor:
    """[1,3,H,W] whose shorter side is `side`, without smoothing; the longer one is rounded down as torchvision does."""
    height, width = frame.shape[-2:]
    size = (side, int(side * width / height)) if height <= width else (int(side * height / width), side)
    return F.interpolate(frame, size=size, mode=mode, align_corners=False).clamp(0, 1)


def _patches(tensors: Tensors, name: str, bias: Tensor | None) -> nn.Conv2d:
    weight = tensors[name]
    layer = nn.Conv2d(3, weight.shape[0], weight.shape[-1], stride=weight.shape[-1], bias=bias is not None)
    own = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    fill(layer, own, "a vision transformer")
    return layer


def _encoder_blocks(tensors: Tensors, prefix: str, names: Mapping[str, str], what: str, *, eps: float) -> nn.Sequential:
    """torchvision's transformer blocks with the tensors `prefix` + number + one of `names`."""
    from torchvision.models.vision_transformer import EncoderBlock

    renamed = {}
    for name, value in tensors.items():
        if name.startswith(prefix):
            number, _, rest = name.removeprefix(prefix).partition(".")
            old = next((old for old in names if rest.startswith(old)), rest)
            renamed[f"{number}.{names.get(old, old)}{rest.removeprefix(old)}"] = value
    count = 1 + max((int(name.partition(".")[0]) for name in renamed), default=-1)
    blocks = []
    for index in range(count):
        hidden = renamed.get(f"{index}.mlp.0.weight")
        if hidden is None:
            raise CheckpointError(f"these weights are not those of {what}: block {index} is incomplete")
        block = EncoderBlock(hidden.shape[1] // 64, hidden.shape[1], hidden.shape[0], 0.0, 0.0, partial(nn.LayerNorm, eps=eps))
        blocks.append(fill(block, renamed, what, prefix=f"{index}."))
    return nn.Sequential(*blocks)
