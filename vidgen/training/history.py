"""What `metrics.jsonl` of a run tells: one line of JSON for each step, which only grows while the run goes on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pydantic

from vidgen.errors import CheckpointError, printable

_MAX_BYTES = 1 << 30


class Line(pydantic.BaseModel):
    """What a step left; losses and rates that were not finite are kept as they are."""

    model_config = pydantic.ConfigDict(extra="ignore", strict=True, frozen=True)

    step: pydantic.NonNegativeInt
    stage: str | None = None
    learning_rate: float | None = None
    losses: dict[str, float | None]
    held_out: float | None = None
    skipped_updates: pydantic.NonNegativeInt = 0


@dataclass(frozen=True)
class History:
    """The lines of a log that can be read.

    Attributes:
        texts: those lines as they are in the file.
        num_unreadable: lines that cannot be read; a last one that was never finished does not count.
    """

    lines: tuple[Line, ...] = ()
    texts: tuple[str, ...] = ()
    num_unreadable: int = 0

    @property
    def num_steps(self) -> int:
        """The last step."""
        return self.lines[-1].step if self.lines else 0

    @property
    def best(self) -> float | None:
        """The least distance of held-out frames so far."""
        return min((line.held_out for line in self.lines if line.held_out is not None), default=None)

    @property
    def fault(self) -> str | None:
        """What is wrong with the log, in words."""
        if not self.num_unreadable:
            return None
        some, are = ("1 line", "is") if self.num_unreadable == 1 else (f"{self.num_unreadable} lines", "are")
        return f"{some} of metrics.jsonl cannot be read and {are} left out"


def read_history(path: Path) -> History:
    """The log of a run; nothing where there is none.

    Raises:
        CheckpointError: it is no file, cannot be read, or is larger than any log.
    """
    if not path.exists():
        return History()
    try:
        if not path.is_file():
            raise CheckpointError(f"{printable(path)}: is no file; the log of a run was expected")
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise CheckpointError(f"{printable(path)}: cannot be read ({error.strerror})") from error
    if len(content) > _MAX_BYTES:
        raise CheckpointError(f"{printable(path)}: is larger than any log ({_MAX_BYTES >> 20} MiB)")
    *complete, last = content.split(b"\n")
    lines, texts, num_unreadable = [], [], 0
    for part in (*complete, last):
        try:
            lines.append(Line.model_validate_json(part))
            texts.append(part.decode())
        except ValueError:  # pydantic's and Unicode's
            num_unreadable += part is not last
    return History(tuple(lines), tuple(texts), num_unreadable)
