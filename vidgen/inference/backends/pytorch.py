"""PyTorch: the translator itself. It is always there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vidgen.runtime import Runtime
from vidgen.translators.base import Translator
from vidgen.types import Condition


@dataclass(frozen=True)
class TorchBackend:
    """Computes the steps of a translator; see `vidgen.inference.session.Backend`."""

    translator: Translator[Any]
    runtime: Runtime
    has_noise: bool = False
    """Whether it declares a seed of noise as an input."""

    def step(self, arrays: Mapping[str, np.ndarray], state: Any, seed: int) -> tuple[np.ndarray, Any]:
        condition = self._condition(arrays)
        if self.has_noise:
            condition = condition.with_tensors(noise=torch.tensor([seed]))
        with torch.inference_mode(), self.runtime.autocast():
            output, state = self.translator.translate(condition, state)
        return output.frames[0, 0].float().cpu().numpy(), state

    def prime(self, arrays: Mapping[str, np.ndarray], frames: np.ndarray) -> Any:
        known = self.runtime.place(torch.from_numpy(frames)[None])
        with torch.inference_mode(), self.runtime.autocast():
            return self.translator.prime(self._condition(arrays).repeat(len(frames)), known)

    def describe(self) -> str:
        return f"torch {torch.__version__}, {self.runtime.describe()}"

    def _condition(self, arrays: Mapping[str, np.ndarray]) -> Condition:
        return Condition(**{name: self.runtime.place(torch.from_numpy(value)) for name, value in arrays.items()})
