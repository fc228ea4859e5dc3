"""Where and how precisely to compute: device, bf16 where it is fast, threads, memory layout."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vidgen.errors import ConfigError

Precision = Literal["auto", "fp32", "bf16"]


def bf16_is_fast(device: torch.device) -> bool:
    """Whether the processor multiplies bf16 in hardware (AMX or AVX512-BF16; on a GPU: natively)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return False


def limit_threads(threads: int | None) -> None:
    """Let torch use so many processor threads; None leaves their number as it is."""
    if threads is not None:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class Runtime:
    """A device and a precision. Weights stay float32; convolutions run in bf16 under autocast where that is chosen."""

    device: torch.device
    use_bf16: bool

    @classmethod
    def choose(cls, device: str = "auto", precision: Precision = "auto", threads: int | None = None) -> Runtime:
        """Resolve "auto", and limit the threads.

        Raises:
            ConfigError: the device does not exist here.
        """
        limit_threads(threads)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        if device == "cuda" and "LOCAL_RANK" in os.environ:
            device = f"cuda:{os.environ['LOCAL_RANK']}"  # one process per GPU
        try:
            chosen = torch.device(device)
        except RuntimeError as error:
            hint = f"a CUDA device has its number behind it: cuda:{device}" if device.isdecimal() else None
            raise ConfigError(f"--device {device}: unknown; use auto, cpu, cuda, cuda:N or mps", hint=hint) from error
        if chosen.type == "cuda" and (not torch.cuda.is_available() or (chosen.index or 0) >= torch.cuda.device_count()):
            raise ConfigError(
                f"--device {device}: PyTorch finds {torch.cuda.device_count()} CUDA devices here", hint="use --device cpu"
            )
        if chosen.type == "mps" and not torch.backends.mps.is_available():
            raise ConfigError("--device mps: not available here", hint="use --device cpu")
        use_bf16 = precision == "bf16" or (precision == "auto" and bf16_is_fast(chosen))
        return cls(chosen, use_bf16)

    def autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.use_bf16)

    def place(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device)

    def prepare(self, module: nn.Module) -> nn.Module:
        """Move to the device in channels_last layout, which the convolution kernels prefer."""
        return module.to(self.device).to(memory_format=torch.channels_last)

    def prepare_for_use(self, module: nn.Module) -> nn.Module:
        """Leave training mode, and store convolution weights in the precision of use, so that no frame converts them again."""
        if self.use_bf16:
            for part in module.modules():
                if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
                    part.to(torch.bfloat16)
        return module.requires_grad_(False).eval()

    def describe(self) -> str:
        return f"{self.device}, {'bf16 convolutions' if self.use_bf16 else 'fp32'}, {torch.get_num_threads()} threads"
