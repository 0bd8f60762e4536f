"""`thermal-enhance run` as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make setup)")
pytest.importorskip("thermal_enhance_msgs", reason="needs the built interfaces (make setup)")

pytestmark = pytest.mark.ros


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "thermal_enhance.cli", *arguments]


def run(tmp_path: Path, *arguments: str, timeout: float = 90) -> tuple[dict, str]:
    out = tmp_path / "out"
    done = subprocess.run(
        command("run", "--out", str(out), *arguments),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return json.loads((out / "summary.json").read_text()), done.stdout


def check(summary: dict) -> None:
    assert summary["frames_in"] == summary["frames_out"] + sum(summary["dropped"].values())
    assert summary["frames_out"] > 0
    assert set(summary["latency_ms"]) >= {"p50", "p95", "p99", "by_stage"}
    assert summary["latency_ms"]["p50"] <= summary["latency_ms"]["p95"] <= summary["latency_ms"]["p99"]


def write_frames(folder: Path, count: int = 12) -> Path:
    for name in ("thermal", "rgb"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        thermal = cv2.resize(rng.integers(3000, 5000, (12, 16)).astype(np.float32), (80, 60)).astype(
            np.uint16
        )
        cv2.imwrite(str(folder / "thermal" / f"{i:04d}.png"), np.roll(thermal, i, 1))
        cv2.imwrite(
            str(folder / "rgb" / f"{i:04d}.png"), rng.integers(0, 255, (120, 160, 3)).astype(np.uint8)
        )
    return folder


@pytest.mark.parametrize("composed", [False, True])
def test_rig(tmp_path: Path, composed: bool) -> None:
    extra = ["--composed"] if composed else []
    summary, text = run(
        tmp_path, "--source", "rig", "--mode", "classical", "--rate", "30", "--duration", "5", *extra
    )
    check(summary)
    assert "made by " in text
    assert summary["frames_in"] >= 30
    assert summary["paired"] > 0
    assert summary["source"]["published"]["thermal"] >= summary["frames_in"]
    if composed:
        assert summary["lost_in_transport"] == 0
    picture = cv2.imread(str(tmp_path / "out" / "before_after.png"))
    assert picture is not None
    assert picture.shape[1] > picture.shape[0]


def test_folder_of_frames(tmp_path: Path) -> None:
    data = write_frames(tmp_path / "data")
    summary, text = run(tmp_path, "--data", str(data), "--rate", "20", "--duration", "4")
    check(summary)
    assert summary["lost_in_transport"] == 0 or summary["lost_in_transport"] < 0.2 * summary["frames_in"]
    assert "frames in" in text


@pytest.mark.parametrize(("storage", "extra"), [("mcap", []), ("sqlite3", []), ("mcap", ["--composed"])])
def test_bag(tmp_path: Path, storage: str, extra: list[str]) -> None:
    data = write_frames(tmp_path / "data", 40)
    bag = tmp_path / "bag"
    made = subprocess.run(
        command("bag", "--thermal", str(data / "thermal"), "--rgb", str(data / "rgb"), "--out", str(bag),
                "--rate", "20", "--storage", storage),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    summary, _ = run(tmp_path, "--bag", str(bag), "--duration", "20", *extra)
    check(summary)
    assert summary["source"]["published"]["thermal"] == 40
    assert summary["frames_in"] >= 30
    assert summary["duration_s"] < 15, "the run ends with the bag"
    if extra:
        assert summary["lost_in_transport"] == 0, "frames in memory cannot get lost"


def test_no_frame_no_latency(tmp_path: Path) -> None:
    summary, text = run(tmp_path, "--source", "topics", "--duration", "1")
    assert summary["frames_in"] == 0
    assert summary["lost_in_transport"] is None
    assert summary["latency_ms"] == {"p50": None, "p95": None, "p99": None, "by_stage": {}}
    assert "p50 -, p95 -, p99 -" in text


def test_broken_picture_costs_no_summary(tmp_path: Path) -> None:
    # A folder in the picture's place: it cannot be written.
    (tmp_path / "out" / "before_after.png" / "x").mkdir(parents=True)
    summary, _ = run(tmp_path, "--source", "rig", "--duration", "3", "--composed")
    check(summary)  # the model is still loading when the run ends, most likely
    assert summary["picture"] is None


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_exits_zero_with_everything_written(tmp_path: Path, times: int) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        command("run", "--source", "rig", "--duration", "0", "--out", str(out)),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        time.sleep(6)
        for _ in range(times):
            # As a terminal does: the whole foreground group.
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.1)
        output, _ = process.communicate(timeout=30)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    check(json.loads((out / "summary.json").read_text()))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--bag", "no_such_bag"], "no_such_bag"),
        (["--data", "no_such_folder"], "no_such_folder"),
        (["--mode", "magic", "--source", "rig"], "mode"),
        (["--params-file", "no_such_file", "--source", "rig"], "no_such_file"),
    ],
)
def test_bad_arguments_are_named(tmp_path: Path, arguments: list[str], word: str) -> None:
    done = subprocess.run(
        command("run", "--out", str(tmp_path / "out"), "--duration", "3", *arguments),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert word in done.stderr
    assert "Traceback" not in done.stderr
