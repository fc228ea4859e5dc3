"""What computes a step of a translator. PyTorch is always there; exported graphs join here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vidgen.runtime import Runtime
from vidgen.translators.base import Translator
from vidgen.types import Condition


@dataclass(frozen=True)
class TorchBackend:
    """The translator itself."""

    translator: Translator[Any]
    runtime: Runtime

    def step(self, tensors: Mapping[str, Tensor], state: Any) -> tuple[Tensor, Any]:
        with torch.inference_mode(), self.runtime.autocast():
            output, state = self.translator.translate(Condition(**tensors), state)
        return output.frames.float(), state

    def prime(self, tensors: Mapping[str, Tensor], frames: Tensor) -> Any:
        with torch.inference_mode(), self.runtime.autocast():
            return self.translator.prime(Condition(**tensors).repeat(frames.shape[1]), frames)

    def describe(self) -> str:
        return f"torch {torch.__version__}, {self.runtime.describe()}"
