"""What can be chosen of the blocks, in the words of configurations. Needs no torch."""

from __future__ import annotations

from typing import Literal

NormKind = Literal["batch", "instance", "none"]
Upsampling = Literal["transposed", "resize"]

GanObjective = Literal["least_squares", "hinge", "vanilla"]
CriticObjective = Literal["least_squares", "hinge", "vanilla", "wasserstein"]
"""The Wasserstein critic needs `vidgen.networks.losses.gradient_penalty` beside it."""

Judge = Literal["features", "pixels", "segmentation"]
"""What a discriminator beside the feature losses sees:

- features: normalized features of the pretrained network.
- pixels: tiles of about 22 pixels.
- segmentation: pixels, and it says of each which class it shows or that it is generated. Source: Sushko et al., "You Only Need
  Adversarial Supervision for Semantic Image Synthesis" (OASIS), ICLR 2021.
"""

Form = Literal["paper", "gru", "stretched", "image", "residual"]
"""How a unit mixes its features x with an image I of their size ([.,.] joins channels, P projects x where widths differ):

- paper: m = sigmoid(conv([x, I])), z = f(conv([m x, I])), n = sigmoid(conv([x, I])), y = (1 - n) z + n P(x); equations 3 to 7.
- gru: the same with n's opposite as the gate, as in a gated recurrent unit: y = (1 - u) P(x) + u z.
- stretched: gru with gates of leaky ReLUs that are stretched to 0..1 over each map. The release's decoder.
- image: the mask is on what the image adds, x' = x + m conv(I), and y = P(x) + conv(f(N(conv(f(N(x')))))). The release's encoder
  and discriminator.
- residual: y = P(x) + f(conv([x, I])), without masks: what the paper compares with.
"""

HintNormalization = Literal["picture", "data"]
SkipKind = Literal["paper", "symmetric"]

LevelNorm = Literal["batch", "none"]
MIN_SIDE = 12
"""Shortest side of a level of the pyramid of a single picture, in pixels: the discriminators see 11."""
