"""The errors of the flow package."""

from __future__ import annotations


class FlowError(Exception):
    """A flow file, a pair of images, weights or an engine name cannot be used. The message is one line for the user."""

    exit_code = 2

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint
