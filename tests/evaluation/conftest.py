"""A tiny data pack in the real one's form: smooth scenes whose RGB shows the same edges."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

WIDTH, HEIGHT = 160, 128
LICENCES = {"pbvsg": "not stated in repo", "m3svd": "MIT", "road": "not stated in repo", "msrs": "not stated"}


def _scene(seed: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    field = cv2.GaussianBlur(rng.random((HEIGHT, WIDTH)).astype(np.float32), (0, 0), 5)
    warm = np.where(field > np.median(field), 190, 60) + rng.normal(0, 3, field.shape)
    thermal = np.clip(cv2.GaussianBlur(warm.astype(np.float32), (0, 0), 0.7), 0, 255).astype(np.uint8)
    color = np.repeat(255 - thermal[..., None], 3, axis=2)
    return thermal, color


@pytest.fixture(scope="session")
def tiny_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures a set and split, and a validation clip of five frames."""
    root = tmp_path_factory.mktemp("pack")

    def write(name: str, image: Any) -> str:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), image)
        return name

    pairs, clips = [], []
    for number, (dataset, licence) in enumerate(LICENCES.items()):
        for split in ("train", "val"):
            for index in range(2):
                thermal, color = _scene(100 * number + 10 * index + (split == "val"))
                name = f"{dataset}_{split}{index}"
                pairs.append(
                    {
                        "id": name,
                        "split": split,
                        "thermal": write(f"rgbt_pairs/{split}/thermal/{name}.png", thermal),
                        "rgb": write(f"rgbt_pairs/{split}/rgb/{name}.png", color),
                        "scene": name,
                        "source": f"{dataset}@0",
                        "licence": licence,
                    }
                )
    for split, count in (("train", 2), ("val", 5)):
        folder = f"thermal_video/m3svd_lossless/{split}/a{split}"
        for frame in range(count):
            thermal, color = _scene(900 + (split == "val"))
            write(f"{folder}/thermal/{frame:04d}.png", np.roll(thermal, 2 * frame, 1))
            write(f"{folder}/rgb/{frame:04d}.png", np.roll(color, 2 * frame, 1))
        clips.append(
            {
                "clip": f"m3svd_lossless/a{split}",
                "split": split,
                "path": f"{folder}/thermal",
                "rgb": f"{folder}/rgb",
                "frames": count,
                "w": WIDTH,
                "h": HEIGHT,
                "source": "m3svd@0",
                "licence": "MIT (M3SVD repo)",
            }
        )
    for name, rows in (("rgbt_pairs", pairs), ("thermal_video", clips)):
        (root / name / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return root
