"""The alignment benchmark: its geometry is right, its tables come out, its figures repeat."""

import json
import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thermal_enhance.evaluation import bench_alignment as bench
from thermal_enhance.imaging.alignment import pixel_matrix, unit_matrix
from thermal_enhance.imaging.registration import similarity_matrix

SIZE = (160, 120)


@pytest.fixture
def pack(tmp_path):
    """A data pack of two scenes: blocks seen by both cameras."""
    for folder in ("thermal", "rgb"):
        (tmp_path / "rgbt_pairs" / folder).mkdir(parents=True)
    entries = []
    for index in range(2):
        rng = np.random.default_rng(index)
        thermal, color = np.full((240, 320), 90, np.uint8), np.full((240, 320, 3), 120, np.uint8)
        for _ in range(25):
            x, y, w, h = (int(v) for v in rng.integers((0, 0, 8, 8), (300, 220, 70, 60)))
            cv2.rectangle(thermal, (x, y), (x + w, y + h), int(rng.integers(256)), -1)
            cv2.rectangle(color, (x, y), (x + w, y + h), rng.integers(0, 256, 3).tolist(), -1)
        cv2.imwrite(str(tmp_path / f"rgbt_pairs/thermal/{index}.png"), thermal)
        cv2.imwrite(str(tmp_path / f"rgbt_pairs/rgb/{index}.png"), color)
        entries.append(
            {
                "id": f"pbvsg_{index}",
                "split": "val",
                "thermal": f"rgbt_pairs/thermal/{index}.png",
                "rgb": f"rgbt_pairs/rgb/{index}.png",
                "scene": f"s{index}",
            }
        )
    (tmp_path / "rgbt_pairs/manifest.jsonl").write_text("\n".join(map(json.dumps, entries)))
    return tmp_path


def test_every_condition_is_measured_and_written(pack, capsys, tmp_path):
    target = tmp_path / "figures.json"
    options = ["--data", str(pack), "--sets", "pbvsg", "--scale", "4", "--json", str(target)]
    assert bench.main(options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(bench.CONDITIONS)
    rows = {row["condition"]: row for row in json.loads(target.read_text())}
    assert set(rows) == set(bench.CONDITIONS)
    assert rows["aligned"]["start"] == 0.0 and rows["aligned"]["median"] < 4.0
    assert rows["misaligned"]["start"] > 4.0
    assert rows["wrong"]["median"] is None and rows["wrong"]["misled"] is None
    assert rows["dark"]["trust"] < 0.1


def test_without_data_it_says_so(tmp_path, capsys):
    assert bench.main(["--data", str(tmp_path)]) == 2
    assert "--data" in capsys.readouterr().err


@given(st.floats(0.85, 1.2), st.floats(-0.2, 0.2), st.floats(-12, 12), st.floats(-12, 12))
@settings(max_examples=30, deadline=None)
def test_grid_error_is_zero_at_the_truth_and_a_shift_beside_it(scale, angle, dx, dy):
    truth = unit_matrix(similarity_matrix(SIZE, scale, angle, dx, dy), SIZE, SIZE)
    assert bench.grid_error(truth, truth, SIZE) < 1e-6
    # Three pixels beside it in the thermal picture, whatever RGB's scale.
    beside = truth @ unit_matrix(similarity_matrix(SIZE, 1.0, 0.0, 3.0, 0.0), SIZE, SIZE)
    assert bench.grid_error(beside, truth, SIZE) == pytest.approx(3.0, abs=1e-6)


def test_a_matrix_that_folds_over_is_infinitely_wrong():
    folded = np.array([[1.0, 0, 0], [0, 1, 0], [-2.0, 0, 1]])
    assert math.isinf(bench.grid_error(folded, np.eye(3), SIZE))


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_warped_cases_agree_with_their_truth(seed):
    rng = np.random.default_rng(seed)
    matrix = bench.mild_misalignment(rng, SIZE) @ bench.corner_jitter(rng, SIZE, 0.08)
    truth = unit_matrix(np.linalg.inv(matrix), SIZE, SIZE)
    # A thermal pixel's place in the moved RGB picture is filled from that very pixel.
    pixel = np.array([40.0, 70.0, 1.0])
    there = pixel_matrix(truth, SIZE, SIZE) @ pixel
    source = matrix @ (there / there[2])
    assert np.allclose(source[:2] / source[2], pixel[:2], atol=1e-6)


def test_figures_repeat(pack):
    names = ("misaligned", "wide", "wrong")
    runs = [bench.measure(pack, "pbvsg", scale=4, names=names) for _ in range(2)]
    for first, second in zip(*runs):
        assert (first.condition, first.trust) == (second.condition, second.trust)
        assert first.median == second.median or math.isnan(first.median)
