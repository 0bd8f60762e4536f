"""The cross-modal bench with a stub in the model's place: what it asks, what it decides, what it prints."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

from thermal_enhance.enhancers.base import EnhancedFrame
from thermal_enhance.evaluation import bench_cross_modal as bench
from thermal_enhance.evaluation import stills
from thermal_enhance.evaluation.cross_modal_scores import Row, Scores, measure
from thermal_enhance.evaluation.cross_modal_tables import report
from thermal_enhance.evaluation.cross_modal_verdicts import verdicts
from thermal_enhance.imaging.frames import ThermalFrame

MODEL = "cross_modal-edge"


class Stub:
    """Bicubic, and a count of how it was used."""

    made: ClassVar[list[Stub]] = []

    def __init__(self, sampling):
        self.sampling, self.requests, self.closed = sampling, [], False
        Stub.made.append(self)

    def __call__(self, request):
        self.requests.append(request)
        data = stills.enlarge(np.asarray(request.thermal.data), request.scale)
        return EnhancedFrame(ThermalFrame(data, request.thermal.units), "stub", rgb_trust=0.5)

    def close(self):
        self.closed = True


@pytest.fixture(autouse=True)
def _fresh_stubs():
    Stub.made = []


def test_every_still_and_condition_gets_an_enhancer_of_its_own(tiny_pack):
    told = []
    rows = measure(
        tiny_pack,
        {"stub": Stub},
        sets=["pbvsg", "m3svd_clip"],
        limit=2,
        advance=lambda *what: told.append(what),
    )
    assert all(len(stub.requests) == 1 and stub.closed for stub in Stub.made)
    stub_rows = [row for row in rows if row.method == "stub"]
    assert len(stub_rows) == len(Stub.made)
    # pbvsg: two stills, two samplings, nine views each; the clip: its first and last frame, one of them late.
    assert len(stub_rows) == 2 * 2 * 9 + 2 * 9 + 1
    assert {stub.sampling for stub in Stub.made} == {"area", "off"}
    assert {row.sampling for row in rows if row.dataset == "m3svd_clip"} == {"area"}
    assert [share for share, _ in told] == [i / 6 for i in range(6)]
    again = measure(tiny_pack, {"stub": Stub}, sets=["pbvsg"], conditions=["misaligned"], limit=2)
    known = {(r.sampling, r.still): r.psnr for r in stub_rows if r.condition == "misaligned"}
    assert {(r.sampling, r.still): r.psnr for r in again}.items() <= known.items()
    assert all(math.isnan(row.residual_rms) == (row.sampling == "challenge") for row in rows)


def rows_of(psnr: dict[str, float], dataset: str = "pbvsg", method: str = MODEL) -> list[Row]:
    row = Row(dataset, "area", "", "", method, 0.0, 0.9, 0.1, 0.2, 0.5, 1.0)
    return [
        replace(row, still=f"{i}", condition=condition, psnr=value + i)
        for condition, value in psnr.items()
        for i in range(2)
    ]


GOOD = {
    "none": 28.9, "aligned": 29.6, "misaligned": 29.4, "perspective": 29.2, "wrong": 28.85, "dark": 28.9,
    "crop_none": 28.0, "crop_aligned": 28.8, "wide_fov": 28.5,
}  # fmt: skip


def decided(changes: dict[str, float], residual: float = 0.2) -> dict[str, bool]:
    bicubic = rows_of({"none": 28.0, "crop_none": 27.0}, method="bicubic")
    rows = [replace(row, residual_rms=residual) for row in rows_of({**GOOD, **changes})]
    return {line.goal: line.passed for line in verdicts(Scores(bicubic + rows), MODEL)}


def test_good_figures_pass_every_line():
    assert len(decided({})) == 9 and all(decided({}).values())


@pytest.mark.parametrize(
    ("changes", "failing"),
    [
        ({"aligned": 29.49}, {"PBVS-guided, aligned RGB, at least 1.5 dB over bicubic"}),
        (
            {"none": 29.31, "wrong": 29.3, "dark": 29.3, "misaligned": 29.6, "perspective": 29.6},
            {"PBVS-guided, aligned RGB at least 0.3 dB over none"},
        ),
        ({"misaligned": 29.35}, {"PBVS-guided, misaligned RGB keeps two thirds of what aligned gives"}),
        (
            {"aligned": 30.0},
            {
                "PBVS-guided, misaligned RGB keeps two thirds of what aligned gives",
                "PBVS-guided, misaligned RGB at most 0.3 dB below aligned",
                "PBVS-guided, perspective of 8 %: at most 0.5 dB below aligned, not below none",
            },
        ),
        ({"wrong": 28.79}, {"PBVS-guided, wrong RGB at most 0.1 dB below none"}),
        ({"dark": 28.7}, {"PBVS-guided, dark RGB at most 0.1 dB below none"}),
        (
            {"wide_fov": 27.9, "crop_aligned": 28.1},
            {"PBVS-guided, wide view of 1.62 x 1.21: at most 0.5 dB below aligned, not below none"},
        ),
    ],
)
def test_each_line_fails_by_its_own_figure(changes, failing):
    assert {goal for goal, passed in decided(changes).items() if not passed} == failing


def test_rgb_that_costs_keeps_nothing():
    lines = decided({"aligned": 28.8, "misaligned": 28.8})
    assert not lines["PBVS-guided, misaligned RGB keeps two thirds of what aligned gives"]


def test_the_worst_picture_decides_on_the_residual():
    assert not decided({}, residual=0.6)["block means within 0.5 grey level RMS of the input"]


def test_a_late_frame_is_held_against_the_same_frames():
    rows = rows_of({"none": 30.0, "aligned": 30.3}, "m3svd_clip")
    late = [row for row in rows_of({"late": 30.0}, "m3svd_clip") if row.still == "1"]
    (line,) = [v for v in verdicts(Scores(rows + late), MODEL) if "late" in v.goal]
    assert line.passed and "-0.30 dB to aligned, +0.00 dB to none" in line.figure
    text = report(Scores([*rows_of({"none": 29.0}, "m3svd_clip", "bicubic"), *rows, *late]))
    assert f"| M3SVD clip | 1 | {MODEL} | 31.00 / 0.9000 / 0.1000 | 31.30 / 0.9000 / 0.1000 |" in text


def test_only_what_was_measured_is_decided():
    assert [v.goal for v in verdicts(Scores(rows_of({"none": 30.0})), MODEL)] == [
        "block means within 0.5 grey level RMS of the input"
    ]


def test_the_command_measures_prints_and_keeps_figures(tiny_pack, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench, "of_model", lambda _models, _name, _device: Stub)
    figures = tmp_path / "figures" / "f.json"
    command = ["--data", str(tiny_pack), "--sets", "pbvsg", "--limit", "1", "--sampling", "area"]
    assert bench.main([*command, "--json", str(figures)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""  # no bar without a terminal
    text = captured.out
    assert "| PBVS-guided | 1 | bicubic |" in text and f"| PBVS-guided | 1 | {MODEL} |" in text
    assert "- no: PBVS-guided, aligned RGB, at least 1.5 dB over bicubic: +0.00 dB" in text
    content = json.loads(figures.read_text())
    assert content["verdicts"][MODEL][0]["passed"] is False and content["machine"]["processor"]
    assert {row["method"] for row in content["rows"]} == {"bicubic", "classical", MODEL}
    # The same text from the file, with nothing measured.
    Stub.made = []
    assert bench.main(["--figures", str(figures), "--data", str(tiny_pack)]) == 0
    assert capsys.readouterr().out == text and not Stub.made


def test_mistakes_are_one_sentence(tiny_pack, tmp_path, capsys):
    assert bench.main(["--data", str(tmp_path)]) == 2
    assert "no data pack found" in capsys.readouterr().err
    (tmp_path / "f.json").write_text("[]")
    assert bench.main(["--figures", str(tmp_path / "f.json")]) == 2
    assert "not a file that --json wrote" in capsys.readouterr().err
    assert bench.main(["--data", str(tiny_pack), "--folder", str(tmp_path), "--model", "nothing"]) == 1
    assert "nothing" in capsys.readouterr().err
