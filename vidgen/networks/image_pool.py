"""A history of made pictures for discriminators."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class ImagePool(nn.Module):
    """Hands on each picture, or with probability 1/2 an earlier one in its place, once `size` of them are known.

    Source: Shrivastava et al., CVPR 2017, as pix2pixHD uses it. The pictures are part of the state that checkpoints hold, and
    its random numbers are those of `torch.manual_seed`, so training goes on from a checkpoint as if it had not stopped.
    Pictures of another shape than those before begin a new history.

    Buffers:
        pictures: [up to size, C, H, W].
    """

    pictures: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("pictures", torch.empty(0))

    def forward(self, pictures: Tensor) -> Tensor:
        """[N,C,H,W] -> the same shape, without gradient."""
        pictures = pictures.detach()
        if self.size == 0:
            return pictures
        if self.pictures.shape[1:] != pictures.shape[1:]:
            self.pictures = pictures.new_empty((0, *pictures.shape[1:]), dtype=torch.float32)
        return torch.cat([self._exchange(picture.unsqueeze(0)) for picture in pictures])

    def _exchange(self, picture: Tensor) -> Tensor:
        if len(self.pictures) < self.size:
            self.pictures = torch.cat([self.pictures, picture.float()])
            return picture
        if torch.rand(()) < 0.5:
            return picture
        chosen = int(torch.randint(self.size, ()))
        earlier = self.pictures[chosen : chosen + 1].clone()
        self.pictures[chosen] = picture[0]
        return earlier

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **options: Any) -> None:
        """Take the size of what is loaded: it depends on the data."""
        stored = state_dict.get(f"{prefix}pictures")
        if stored is not None:
            self.pictures = self.pictures.new_empty(stored.shape)
        super()._load_from_state_dict(state_dict, prefix, *args, **options)
