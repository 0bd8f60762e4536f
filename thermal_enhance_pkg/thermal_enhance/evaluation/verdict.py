"""A line of what must be shown, decided by figures."""

from __future__ import annotations

from dataclasses import dataclass

ROUNDING_DB = 0.005
"""Two figures that print alike are taken to be equal."""


@dataclass(frozen=True)
class Verdict:
    """One line.

    Attributes:
        goal: what must be shown.
        passed: whether it is.
        figure: the figure that decides.
    """

    goal: str
    passed: bool
    figure: str

    def __str__(self) -> str:
        return f"- {'yes' if self.passed else 'no'}: {self.goal}: {self.figure}"


def at_least(value: float, limit: float) -> bool:
    """Is a figure in dB as high as it should be, by the second decimal?"""
    return value >= limit - ROUNDING_DB
