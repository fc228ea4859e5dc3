"""SketchyGAN's networks: masked residual units, and the generator and the discriminator that are built of them.

Source: Chen and Hays, "SketchyGAN: Towards Diverse and Realistic Sketch to Image Synthesis", CVPR 2018, section 4, and facts of the
authors' release, whose units differ from the paper's; `Form` names both.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from vidgen.networks.choices import Form, NormKind

_STRETCH_EPS = 1e-6
_GATE_BIAS = 0.5


class SmoothReLU(nn.Module):
    """(x + sqrt(x^2 + (1 - mu)^2)) / 2 with mu = 0.7: the generator's activation in the release."""

    def forward(self, x: Tensor) -> Tensor:
        return (x + (x.square() + 0.09).sqrt()) / 2


def _sharp() -> nn.Module:
    """The discriminator's activation: one learned slope, from 0.2."""
    return nn.PReLU(init=0.2)


class ClassNorm(nn.Module):
    """Normalization whose scales and offsets are those of the sample's class (conditional batch or instance normalization).

    Batch normalization keeps averages for use, so that a result does not depend on what else is in its batch; the release takes
    the batch's own statistics at test too.

    Args:
        statistics: "none" scales and shifts alone, which serves the projected noise: the release normalizes it over the batch,
            which erases it at batch size 1.
        num_classes: 0 for one scale and offset for all.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, statistics: NormKind, channels: int, num_classes: int = 0, eps: float = 1e-5) -> None:
        super().__init__()
        self.statistics, self.eps = statistics, eps
        rows = max(1, num_classes)
        self.scales, self.offsets = nn.Parameter(torch.ones(rows, channels)), nn.Parameter(torch.zeros(rows, channels))
        if statistics == "batch":
            self.register_buffer("running_mean", torch.zeros(channels))
            self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor, classes: Tensor) -> Tensor:
        """[N,C,H,W] and the class of each sample, int64 [N]."""
        if self.statistics == "batch":
            x = F.batch_norm(x, self.running_mean, self.running_var, None, None, self.training, 0.1, self.eps)
        elif self.statistics == "instance":
            x = F.instance_norm(x, eps=self.eps)
        rows = classes if len(self.scales) > 1 else torch.zeros_like(classes)
        return x * self.scales[rows][:, :, None, None] + self.offsets[rows][:, :, None, None]


class _NoNorm(nn.Module):
    def forward(self, x: Tensor, classes: Tensor) -> Tensor:
        return x


class _Layer(nn.Module):
    """A convolution, a normalization and an activation."""

    def __init__(self, conv: nn.Module, norm: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm, self.activation = conv, norm, activation

    def forward(self, x: Tensor, classes: Tensor) -> Tensor:
        result: Tensor = self.activation(self.norm(self.conv(x), classes))
        return result


def _convolution(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 3,
    *,
    stride: int = 1,
    bias: float = 0.0,
    is_spectral: bool = False,
    keeps_scale: bool = False,
) -> nn.Module:
    """Weights from N(0, 0.02), as released, or so that values keep their size where no normalization would bring them back."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2)
    if keeps_scale:
        nn.init.kaiming_normal_(conv.weight, a=0.2)
    else:
        nn.init.normal_(conv.weight, 0.0, 0.02)
    assert conv.bias is not None
    nn.init.constant_(conv.bias, bias)
    return spectral_norm(conv) if is_spectral else conv


def stretch(gate: Tensor) -> Tensor:
    """Each map [N,C,H,W] linearly to 0..1 by its own least and greatest value; a constant map becomes 0."""
    low, high = gate.amin((2, 3), keepdim=True), gate.amax((2, 3), keepdim=True)
    return (gate - low) / (high - low + _STRETCH_EPS)


class MaskedResidualUnit(nn.Module):
    """A layer that decides, per channel and pixel, what of its features to keep and what to take anew from an image.

    Args:
        channels: of the features; `image_channels` of the image; `out_channels` of the result.
        form: see `Form`.
        resize: "up" doubles the features before, "down" averages 2x2 pixels after.
        norm: makes the normalization of so many channels; `None` for none.
        activation: makes f.
        num_convs: convolutions of the candidate z; the form "image" always has two.
        is_spectral: spectral normalization of all convolutions.
        is_last: one more normalization and activation at the end, where the form is "image", whose sum is linear.
    """

    def __init__(
        self,
        channels: int,
        image_channels: int,
        out_channels: int,
        *,
        form: Form = "paper",
        resize: Literal["up", "down"] | None = None,
        norm: Callable[[int], nn.Module] | None = None,
        activation: Callable[[], nn.Module] = SmoothReLU,
        num_convs: int = 1,
        is_spectral: bool = False,
        is_last: bool = False,
    ) -> None:
        super().__init__()
        self.form, self.resize = form, resize
        make_norm: Callable[[int], nn.Module] = norm if norm is not None else lambda _: _NoNorm()
        conv = partial(_convolution, is_spectral=is_spectral, keeps_scale=norm is None and not is_spectral)
        both = channels + image_channels
        self.project: nn.Module | None = None
        if channels != out_channels:
            is_linear = form == "image"
            self.project = _Layer(
                conv(channels, out_channels, 1),
                _NoNorm() if is_linear else make_norm(out_channels),
                nn.Identity() if is_linear else activation(),
            )
        if form == "image":
            self.before = _Layer(nn.Identity(), make_norm(channels), activation())
            self.input_gate = conv(both, channels, bias=_GATE_BIAS)
            self.from_image = conv(image_channels, channels)
            self.layers = nn.ModuleList(_Layer(nn.Identity(), make_norm(width), activation()) for width in (channels, out_channels))
            self.convs = nn.ModuleList((conv(channels, out_channels), conv(out_channels, out_channels)))
        else:
            if form != "residual":
                self.input_gate, self.output_gate = conv(both, channels), conv(both, out_channels)
            widths = [both, *[out_channels] * num_convs]
            self.layers = nn.ModuleList(
                _Layer(conv(before, after), make_norm(after), activation()) for before, after in itertools.pairwise(widths)
            )
        self.end = _Layer(nn.Identity(), make_norm(out_channels), activation()) if is_last and form == "image" else None

    def forward(self, x: Tensor, image: Tensor, classes: Tensor) -> Tensor:
        """Features [N,C,H,W] (half as high and wide where they are doubled), image [N,I,H,W], classes int64 [N]."""
        if self.resize == "up":
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        kept = x if self.project is None else self.project(x, classes)
        y = self._by_image(x, kept, image, classes) if self.form == "image" else self._by_gates(x, kept, image, classes)
        if self.end is not None:
            y = self.end(y, classes)
        return F.avg_pool2d(y, 2) if self.resize == "down" else y

    def _by_gates(self, x: Tensor, kept: Tensor, image: Tensor, classes: Tensor) -> Tensor:
        both = torch.cat([x, image], 1)
        if self.form == "residual":
            return kept + self._candidate(both, classes)
        masked, output_gate = self._gate(self.input_gate(both)) * x, self._gate(self.output_gate(both))
        candidate = self._candidate(torch.cat([masked, image], 1), classes)
        if self.form == "paper":
            return (1 - output_gate) * candidate + output_gate * kept
        return (1 - output_gate) * kept + output_gate * candidate

    def _candidate(self, z: Tensor, classes: Tensor) -> Tensor:
        for layer in self.layers:
            z = layer(z, classes)
        return z

    def _by_image(self, x: Tensor, kept: Tensor, image: Tensor, classes: Tensor) -> Tensor:
        gate = self._gate(self.input_gate(torch.cat([self.before(x, classes), image], 1)))
        z = x + gate * self.from_image(image)
        for layer, conv in zip(self.layers, self.convs, strict=True):
            z = conv(layer(z, classes))
        return kept + z

    def _gate(self, value: Tensor) -> Tensor:
        return stretch(F.leaky_relu(value, 0.2)) if self.form in ("stretched", "image") else value.sigmoid()


# --- generator ------------------------------------------------------------------------------------------------------------


def num_downsamplings(size: int) -> int:
    """Units that halve on the way down for pictures of `size` pixels, after the first convolution, which halves too: a picture of
    64x64 comes down to 2x2."""
    return size.bit_length() - 3


class SketchGenerator(nn.Module):
    """Picture from a sketch, a class and noise; every unit sees the sketch at its scale.

    The noise enters where the decoder begins, in the place of a skip connection; those of the encoder are part of the image that
    the decoder's units see. Height and width must be multiples of 2 to the number of units of
    the encoder plus one.

    Args:
        sketch_channels: of the sketch.
        num_classes: 0 where there are none.
        size: height and width in training, a power of two from 16.
    """

    def __init__(
        self,
        sketch_channels: int,
        num_classes: int,
        *,
        size: int = 64,
        base_channels: int = 64,
        noise_channels: int = 256,
        encoder_form: Form = "paper",
        decoder_form: Form = "paper",
        num_convs: int = 1,
        norm: NormKind = "batch",
    ) -> None:
        super().__init__()
        depth, base = num_downsamplings(size), base_channels
        self._noise_side = size >> depth
        make_norm = partial(_class_norm, norm, num_classes)
        self.begin = _convolution(sketch_channels, 8, 7, stride=2)
        widths = [8, *(min(base << level, 8 * base) for level in range(depth))]
        self.encoder = nn.ModuleList(
            MaskedResidualUnit(
                widths[level],
                sketch_channels,
                widths[level + 1],
                form=encoder_form,
                resize="down",
                norm=make_norm,
                num_convs=num_convs,
                is_last=level == depth - 1,
            )
            for level in range(depth)
        )
        self.noise = nn.Linear(noise_channels, base * self._noise_side**2)
        nn.init.xavier_uniform_(self.noise.weight)
        nn.init.zeros_(self.noise.bias)
        self.noise_norm, self.noise_activation = ClassNorm("none", base, num_classes), SmoothReLU()
        up = ([8, 8, 6, 4, 2, 2, 1] if depth > 4 else [6, 4, 2, 2, 1])[-(depth + 1) :]
        before = [widths[-1], *(factor * base for factor in up[:-1])]
        skips = [base, *(widths[depth - 1 - level] for level in range(1, depth)), 0]
        self.decoder = nn.ModuleList(
            MaskedResidualUnit(
                before[level],
                sketch_channels + skips[level],
                up[level] * base,
                form=decoder_form,
                resize="up",
                norm=make_norm,
                num_convs=num_convs,
                is_last=level == depth,
            )
            for level in range(depth + 1)
        )
        self.end = _convolution(base, 3, 7)

    def forward(self, sketch: Tensor, noise: Tensor, classes: Tensor) -> Tensor:
        """Sketch [N,C,H,W] in -1..1, noise [N,D], classes int64 [N] (any where there are none) -> [N,3,H,W] in -1..1."""
        return self.decode(self.sketch_pyramid(sketch), noise, classes)

    def sketch_pyramid(self, sketch: Tensor) -> list[Tensor]:
        """The sketch at every scale, finest first."""
        sketches = [sketch]
        for _ in self.encoder:
            sketches.append(F.avg_pool2d(sketches[-1], 2))
        return sketches

    def decode(self, sketches: list[Tensor], noise: Tensor, classes: Tensor) -> Tensor:
        """As `forward`, from a `sketch_pyramid`."""
        x = self.begin(sketches[0])
        features = [x]
        for unit, sketch in zip(self.encoder, sketches[1:], strict=True):
            x = unit(x, sketch, classes)
            features.append(x)
        places = self.noise(noise).unflatten(1, (-1, self._noise_side, self._noise_side))
        places = self.noise_activation(self.noise_norm(places, classes))
        if torch.compiler.is_exporting() or places.shape[-2:] != sketches[-1].shape[-2:]:
            places = F.interpolate(places, sketches[-1].shape[-2:], mode="bilinear", align_corners=False)
        skips = [places, *reversed(features[:-2]), None]
        for unit, sketch, skip in zip(self.decoder, reversed(sketches), skips, strict=True):
            x = unit(x, sketch if skip is None else torch.cat([sketch, skip], 1), classes)
        return self.end(x).float().tanh()


def _class_norm(kind: NormKind, num_classes: int, channels: int) -> nn.Module:
    return ClassNorm(kind, channels, num_classes)


# --- discriminator --------------------------------------------------------------------------------------------------------


class SketchDiscriminator(nn.Module):
    """Whether pictures are real, on a map of patches, and of which class they are.

    Args:
        num_classes: 0 for no head of classes.
        size: height and width in training.
        sketch_channels: of the sketch where it is seen too; 0 as published, where the picture alone is judged.
        is_spectral: spectral normalization of all but the head of classes, which it slows down.
        has_projection: the class is part of the judgment (Miyato and Koyama, "cGANs with Projection Discriminator", ICLR 2018), and
            there is no head of classes.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        size: int = 64,
        base_channels: int = 64,
        form: Form = "paper",
        num_convs: int = 1,
        sketch_channels: int = 0,
        is_spectral: bool = False,
        is_class_head_spectral: bool = False,
        has_projection: bool = False,
    ) -> None:
        super().__init__()
        depth = num_downsamplings(size)
        seen = 3 + sketch_channels
        self.begin = _Layer(_convolution(seen, 8, 7, is_spectral=is_spectral, keeps_scale=not is_spectral), _NoNorm(), _sharp())
        widths = [8, *([2, 4, 8, 12, 12, 12][level] * base_channels for level in range(depth))]
        self.units = nn.ModuleList(
            MaskedResidualUnit(
                before,
                seen,
                after,
                form=form,
                resize="down",
                activation=_sharp,
                num_convs=num_convs,
                is_spectral=is_spectral,
                is_last=level == depth - 1,
            )
            for level, (before, after) in enumerate(itertools.pairwise(widths))
        )
        self.judgment = _convolution(widths[-1], 1, 1, is_spectral=is_spectral, keeps_scale=not is_spectral)
        self.class_head: nn.Module | None = None
        self.class_places: nn.Module | None = None
        if num_classes and has_projection:
            places = nn.Embedding(num_classes, widths[-1])
            nn.init.normal_(places.weight, 0.0, 0.02)
            self.class_places = spectral_norm(places) if is_spectral else places
        elif num_classes:
            head = nn.Linear(widths[-1], num_classes)
            nn.init.xavier_uniform_(head.weight)
            nn.init.zeros_(head.bias)
            self.class_head = spectral_norm(head) if is_class_head_spectral else head

    def forward(self, pictures: Tensor, classes: Tensor, sketch: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Pictures [N,3,H,W] in -1..1 -> logits of being real [N,1,h,w], and of the classes [N,K] where there is that head."""
        image = pictures if sketch is None else torch.cat([pictures, sketch], 1)
        x = self.begin(image, classes)
        for unit in self.units:
            x = unit(x, image, classes)
            image = F.avg_pool2d(image, 2)
        logits: Tensor = self.judgment(x)
        if self.class_places is not None:
            logits = logits + (x * self.class_places(classes)[:, :, None, None]).sum(1, keepdim=True)
        return logits, None if self.class_head is None else self.class_head(x.mean((2, 3)))
