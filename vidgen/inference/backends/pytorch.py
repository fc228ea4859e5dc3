"""PyTorch: the translator itself. It is always there."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from vidgen.runtime import Runtime
from vidgen.translators.base import Translator
from vidgen.types import Condition

log = logging.getLogger(__name__)


class TorchBackend:
    """Computes the steps of a translator; see `vidgen.inference.session.Backend`.

    Args:
        has_noise: whether it declares a seed of noise as an input.
        compiler: of `torch.compile`, such as "inductor", for steps that are compiled when the first frames of a size come: a minute
            or more, so for long videos and GPUs. Where that fails, the steps run as they are, with a warning.
    """

    def __init__(self, translator: Translator[Any], runtime: Runtime, has_noise: bool = False, compiler: Any = None) -> None:
        self.translator = translator
        self.runtime = runtime
        self._has_noise = has_noise
        self._translate: Any = translator.translate
        self._is_compiled = compiler is not None
        if compiler is not None:
            logging.getLogger("torch._dynamo").setLevel(logging.ERROR)  # it remarks on every number that a translator looks at
            self._translate = torch.compile(translator.translate, backend=compiler)

    def step(self, arrays: Mapping[str, np.ndarray], state: Any, seed: int) -> tuple[np.ndarray, Any]:
        condition = self._condition(arrays)
        if self._has_noise:
            condition = condition.with_tensors(noise=torch.tensor([seed]))
        with torch.inference_mode(), self.runtime.autocast():
            output, state = self._translated(condition, state)
        return output.frames[0, 0].float().cpu().numpy(), state

    def prime(self, arrays: Mapping[str, np.ndarray], frames: np.ndarray) -> Any:
        known = self.runtime.place(torch.from_numpy(frames)[None])
        with torch.inference_mode(), self.runtime.autocast():
            return self.translator.prime(self._condition(arrays).repeat(len(frames)), known)

    def describe(self) -> str:
        return f"torch {torch.__version__}, {self.runtime.describe()}{', compiled' if self._is_compiled else ''}"

    def _translated(self, condition: Condition, state: Any) -> tuple[Any, Any]:
        if not self._is_compiled:
            return self._translate(condition, state)
        try:
            return self._translate(condition, state)
        except Exception as error:
            # The compiler's own failures have no common class. What is wrong with the input is raised again without it.
            self._translate, self._is_compiled = self.translator.translate, False
            result = self._translate(condition, state)
            reason = (str(error).strip().splitlines() or [""])[0][:200]
            log.warning("the network cannot be compiled here (%s: %s); it runs as it is", type(error).__name__, reason)
            return result

    def _condition(self, arrays: Mapping[str, np.ndarray]) -> Condition:
        return Condition(**{name: self.runtime.place(torch.from_numpy(value)) for name, value in arrays.items()})
