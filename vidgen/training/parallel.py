"""Several processes as one: set-up under torchrun, and gradient synchronisation by torch's own DistributedDataParallel.

A step's clips are dealt out over the processes and every loss is divided by the number of clips of the whole step, so one and
two processes give the same losses.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vidgen.errors import ConfigError
from vidgen.translators.base import Networks, Translator
from vidgen.types import Batch, Losses, Output, Phase, Step


def start(device: torch.device) -> None:
    """Join the process group that torchrun describes in the environment; nothing to do for a single process."""
    if "RANK" in os.environ and not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")


def finish() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """Number of this process, 0 for the first or only one."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share_of(count: int, at_once: int) -> list[range]:
    """This process's part of a step's `count` clips, in groups of `at_once`.

    Raises:
        ConfigError: the clips cannot be dealt out evenly.
    """
    groups, rest = divmod(count, at_once)
    if rest or groups % world_size():
        raise ConfigError(
            f"train.batch_size: {count} clips cannot be dealt out to {world_size()} processes in groups of {at_once}"
            " (train.micro_batch_size); make it a multiple of their product"
        )
    return [range(group * at_once, (group + 1) * at_once) for group in range(rank(), groups, world_size())]


def mean_over_processes(values: Tensor) -> Tensor:
    """Element-wise mean over the processes."""
    if dist.is_initialized():
        dist.all_reduce(values)
        values /= world_size()
    return values


def any_process(flag: bool) -> bool:
    """True everywhere if it is true anywhere."""
    if not dist.is_initialized():
        return flag
    value = torch.tensor(float(flag))
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return bool(value)


def wait_for_all() -> None:
    """Return when every process has come here."""
    if dist.is_initialized():
        dist.barrier()


class PhaseLosses(nn.Module):
    """The losses of one phase as a module whose parameters are exactly those that learn in it."""

    def __init__(self, translator: Translator[Any], phase: Phase) -> None:
        super().__init__()
        self.learners = nn.ModuleList(phase.modules)
        self._phase = phase
        object.__setattr__(self, "_translator", translator)  # not a submodule: its other parameters must stay out of the reduction

    def forward(self, step: Step, batch: Batch, output: Output, networks: Networks) -> Losses:
        translator: Translator[Any] = self._translator  # type: ignore[assignment]
        return translator.losses(self._phase, step, batch, output, networks)


class Synchronized:
    """Calls the losses of a phase so that the backward pass that follows averages gradients over the processes.

    The generator's forward pass runs outside; only the hooks on the phase's parameters matter for the reduction.
    """

    def __init__(self, translator: Translator[Any], phase: Phase) -> None:
        module = PhaseLosses(translator, phase)
        self._call: nn.Module = module
        if dist.is_initialized():
            self._call = DistributedDataParallel(module, broadcast_buffers=False, find_unused_parameters=True)

    def losses(self, step: Step, batch: Batch, output: Output, networks: Networks) -> Losses:
        result: Losses = self._call(step, batch, output, networks)
        return result

    def without_reduction(self, skip: bool) -> AbstractContextManager[None]:
        """While gradients of several groups of clips add up, only the last one reduces."""
        if skip and isinstance(self._call, DistributedDataParallel):
            return self._call.no_sync()
        return nullcontext()
