"""Several processes as one: set-up under torchrun, and gradient synchronisation by torch's own DistributedDataParallel.

A step's clips are dealt out over the processes and every loss is divided by the number of clips of the whole step, so one and
two processes give the same losses.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vidgen.errors import ConfigError, TrainingError
from vidgen.translators.base import Networks, Translator
from vidgen.types import Batch, Losses, Output, Phase, Step


@contextmanager
def together(device: torch.device, timeout_minutes: float) -> Iterator[None]:
    """Train in the process group that torchrun describes in the environment; nothing to do for a single process.

    Where one process dies or falls silent, every other one ends with an error, at once or after the time-out, so that whoever
    started them starts all of them again, from the last checkpoint.

    Args:
        timeout_minutes: how long the others may be silent; longer than the longest checkpoint or sample takes.

    Raises:
        TrainingError: another process is gone.
    """
    try:
        _start(device, timedelta(minutes=timeout_minutes))
        yield
    except RuntimeError as error:
        if "RANK" not in os.environ or not _is_loss(error):
            raise
        # The group is left as it is: to say goodbye to a lost process would take another time-out.
        raise TrainingError(
            f"process {os.environ['RANK']} of {os.environ.get('WORLD_SIZE', '?')}: another process of this training is gone"
            f" ({_first_line(error)})",
            hint="the last checkpoint is good; run the same command again on every machine",
        ) from error
    else:
        if dist.is_initialized():
            dist.destroy_process_group()


def _start(device: torch.device, timeout: timedelta) -> None:
    if "RANK" in os.environ and not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=timeout)


_LOSSES = ("connection closed", "connection reset", "connection refused", "timed out", "timeout", "broken pipe", "gloo", "nccl")


def _is_loss(error: RuntimeError) -> bool:
    """Whether an error says that another process cannot be reached any more."""
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in _LOSSES)


def _first_line(error: Exception) -> str:
    text = " ".join(str(error).partition("\n")[0].split())
    return re.sub(r"^\[[^\]]*\] ", "", text)[:200]


def is_started_by_torchrun() -> bool:
    """Whether an agent of torchrun watches this process, and starts all again where one fails."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_restart() -> bool:
    """Whether torchrun started this process again, after one of the group had failed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


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
