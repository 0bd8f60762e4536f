"""The classical benchmark: tables on constructed data, and its promises on the real one."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from thermal_enhance.evaluation import bench_enhance as bench

DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"


@pytest.fixture
def pack(tmp_path):
    """A data pack of two tiny scenes."""
    for folder in ("rgbt_pairs/thermal", "rgbt_pairs/rgb", "thermal_sr"):
        (tmp_path / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    pairs, singles = [], []
    for index in range(2):
        image = cv2.GaussianBlur(rng.uniform(0, 255, (131, 163)).astype(np.float32), (0, 0), 4) * 2 - 128
        cv2.imwrite(
            str(tmp_path / f"rgbt_pairs/thermal/{index}.png"), np.clip(image, 0, 255).astype(np.uint8)
        )
        cv2.imwrite(
            str(tmp_path / f"rgbt_pairs/rgb/{index}.png"),
            rng.integers(0, 255, (131, 163, 3)).astype(np.uint8),
        )
        pairs.append(
            {
                "id": f"pbvsg_{index}",
                "split": "val",
                "thermal": f"rgbt_pairs/thermal/{index}.png",
                "rgb": f"rgbt_pairs/rgb/{index}.png",
                "scene": f"s{index}",
            }
        )
        singles.append({"id": f"x{index}", "split": "val", "thermal": f"rgbt_pairs/thermal/{index}.png"})
    (tmp_path / "rgbt_pairs/manifest.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    (tmp_path / "thermal_sr/manifest.jsonl").write_text("\n".join(map(json.dumps, singles)))
    return tmp_path


def test_every_condition_is_scored_and_written(pack, capsys, tmp_path):
    target = tmp_path / "figures.json"
    options = ["--data", str(pack), "--sets", "pbvsg", "tisr", "--scales", "4", "--only", "quality"]
    assert bench.main([*options, "--json", str(target)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("| PBVS-guided | 4 | 2 |") and lines[2].count("/") == 6
    assert lines[3].startswith("| PBVS-TISR | 4 | 2 |") and lines[3].count("/") == 2
    figures = json.loads(target.read_text())["quality"]
    assert {row["condition"] for row in figures if row["dataset"] == "pbvsg"} == set(bench.CONDITIONS)
    assert all(row["residual_max"] <= 0.5 for row in figures if row["condition"] not in ("bicubic",))
    assert next(row for row in figures if row["condition"] == "none")["trust"] is None


def test_figures_repeat(pack):
    assert bench.measure_quality(pack, "pbvsg", 4)[2:] == bench.measure_quality(pack, "pbvsg", 4)[2:]


def test_limit_thins_evenly(pack):
    assert len(bench.load_items(pack, "pbvsg")) == 2
    assert len(bench.load_items(pack, "pbvsg", limit=1)) == 1
    assert bench.load_items(pack, "pbvsg", split="train") == []


def test_no_data_is_exit_code_two(tmp_path, capsys):
    assert bench.main(["--data", str(tmp_path), "--only", "quality"]) == 2
    assert "--data" in capsys.readouterr().err


def test_misalignment_stays_within_what_it_says():
    rng = np.random.default_rng(0)
    for _ in range(200):
        matrix = bench.random_misalignment(rng, (640, 480))
        scale = 1 / np.sqrt(np.linalg.det(matrix[:2, :2]))
        angle = np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))
        shift = matrix @ [319.5, 239.5, 1] - [319.5, 239.5, 1]
        assert 0.9 <= scale <= 1.15 and abs(angle) <= 8
        assert abs(shift[0]) <= 0.06 * 640 and abs(shift[1]) <= 0.06 * 480


def test_speed_table_has_a_line_a_case():
    rows = [
        bench.Speed("a -> b", rgb=True, quality="fast", median_ms=1.0, p95_ms=2.0, cpu_ms=0.5, yardsticks=3.0)
    ]
    assert bench.speed_table(rows).splitlines()[-1] == "| a -> b | 640x480 | fast | 1.0 | 2.0 | 0.5 | 3.00 |"


@pytest.mark.shared_data
@pytest.mark.skipif(not (DATA / "rgbt_pairs").is_dir(), reason="no ../shared/data beside the checkout")
def test_the_tier_keeps_its_promises_on_real_pictures():
    rows = {row.condition: row for row in bench.measure_quality(DATA.resolve(), "pbvsg", 8, limit=4)}
    assert rows["none"].psnr > rows["bicubic"].psnr + 0.3
    assert rows["aligned"].psnr > rows["none"].psnr + 0.2
    assert rows["misaligned"].psnr > rows["none"].psnr + 0.05
    for useless in ("wrong", "dark"):
        assert rows[useless].psnr > rows["none"].psnr - 0.1
    assert all(row.residual_max <= 0.5 for name, row in rows.items() if name != "bicubic")
