"""How good a video is: measure it, compare it with others, read and write what was measured."""

from vidgen.evaluation.measure import evaluate
from vidgen.evaluation.report import Report, read_reports

__all__ = ["Report", "evaluate", "read_reports"]
