"""One way to announce that a name goes away: a warning for one release, an error in our own tests when its time has come."""

from __future__ import annotations

import logging
import warnings

import vidgen

log = logging.getLogger(__name__)


def deprecated(what: str, instead: str, removed_in: str) -> None:
    """Warn that `what` still works but that `instead` is to be used.

    Args:
        removed_in: the release that no longer knows the old name, such as "0.3.0".

    Raises:
        RuntimeError: that release is reached: the code that calls this is to be deleted.
    """
    if _numbers(vidgen.__version__) >= _numbers(removed_in):
        raise RuntimeError(f"{what} was to be removed in {removed_in}, and this is {vidgen.__version__}; delete it")
    message = f"{what} is deprecated and goes away in vidgen {removed_in}; use {instead}"
    log.warning("%s", message)
    warnings.warn(message, DeprecationWarning, stacklevel=3)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
