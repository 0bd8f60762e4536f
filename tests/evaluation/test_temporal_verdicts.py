"""Tables and verdicts of the temporal figures: each line is decided by its own figure."""

from __future__ import annotations

import math

import pytest

from thermal_enhance.evaluation.temporal_methods import BICUBIC, BLEND, FLOW
from thermal_enhance.evaluation.temporal_scores import Row, Scores
from thermal_enhance.evaluation.temporal_tables import report
from thermal_enhance.evaluation.temporal_verdicts import verdicts

MODEL = "temporal-nano"


def figures(changes: dict[tuple[str, str, str], float] | None = None, flicker: float = 1.0) -> Scores:
    """PSNR by (group, method, frames), two clips each, of one set of both kinds."""
    psnr = {
        ("static", BICUBIC, "observed"): 30.0, ("moving", BICUBIC, "observed"): 30.0,
        ("static", MODEL, "observed"): 31.2, ("moving", MODEL, "observed"): 31.0,
        ("static", BLEND, "new"): 30.1, ("moving", BLEND, "new"): 26.0,
        ("static", FLOW, "new"): 30.0, ("moving", FLOW, "new"): 29.0,
        ("static", MODEL, "new"): 30.5, ("moving", MODEL, "new"): 29.6, **(changes or {}),
    }  # fmt: skip

    def row(group: str, name: str, method: str, frames: str, value: float, steady: float) -> Row:
        motion, steady = (1.0, math.nan) if group == "moving" else (0.0, steady)
        return Row(
            "m3svd_lossless", name, group, motion, method, frames, 4, value, 0.9, 0.1, steady, steady, 2.0
        )

    rows = [
        row(group, f"{group}{i}", method, frames, value + i, flicker if method == MODEL else 1.1)
        for (group, method, frames), value in psnr.items()
        for i in range(2)
    ]
    rows += [row("static", f"static{i}", "input", "observed", math.nan, 1.0) for i in range(2)]
    return Scores(rows)


def failing(scores: Scores) -> set[str]:
    lines = verdicts(scores, MODEL)
    assert len(lines) == 6
    return {line.goal.partition(", ")[2] for line in lines if not line.passed}


def test_good_figures_pass_every_line():
    assert failing(figures()) == set()


@pytest.mark.parametrize(
    ("changes", "flicker", "lines"),
    [
        (
            {("static", MODEL, "observed"): 30.8},
            1.0,
            {"observed frames, at least 1 dB over bicubic"},
        ),
        (
            {("moving", MODEL, "new"): 29.4},
            1.0,
            {"new frames of moving clips, at least 0.5 dB over optical flow"},
        ),
        (
            {("static", MODEL, "new"): 30.05},
            1.0,
            {"new frames of static clips never below the linear blend"},
        ),
        (
            {("static", MODEL, "new"): 29.9},
            1.0,
            {
                "new frames of static clips never below the linear blend",
                "new frames of static clips never below optical flow",
            },
        ),
        (
            {},
            1.01,
            {
                "flicker of block means no higher than the input's",
                "flicker of fine pixels no higher than the input's",
            },
        ),
    ],
)
def test_each_line_fails_by_its_own_figure(changes, flicker, lines):
    assert failing(figures(changes, flicker)) == lines


def test_one_clip_below_is_below():
    rows = figures().rows
    worse = [
        row if (row.method, row.frames, row.clip) != (MODEL, "new", "static1") else _with(row, 31.0)
        for row in rows
    ]
    (line,) = [v for v in verdicts(Scores(worse), MODEL) if "linear blend" in v.goal]
    assert not line.passed and "1 of 2 clips below" in line.figure


def _with(row: Row, psnr: float) -> Row:
    return Row(*[psnr if name == "psnr" else getattr(row, name) for name in row.__dataclass_fields__])


def test_tables_tell_groups_and_frames_apart():
    text = report(figures())
    assert (
        f"| M3SVD lossless | moving | 2 | 1.00 | {FLOW} | 29.50 | 0.9000 | 0.1000 | - | - | 2.000 |" in text
    )
    assert f"| M3SVD lossless | static | 2 | 0.00 | {MODEL} | 31.70 |" in text
    assert "| M3SVD lossless | static | 2 | 0.00 | input | - | 0.9000 |" in text
    assert MODEL not in report(figures(), ["temporal-base"]) and FLOW in report(figures(), ["temporal-base"])


def test_only_what_was_measured_is_decided():
    assert verdicts(Scores([row for row in figures().rows if row.method != MODEL]), MODEL) == []
