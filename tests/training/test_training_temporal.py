"""The temporal training task: it learns, meets what was observed, keeps what it ships apart, and scores."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch (pip install 'thermal_enhance[train]')")

from torch.nn import functional

from thermal_enhance.networks.temporal.exporting import CONFIG_KEY
from thermal_enhance.training.checkpoint import load_tensors
from thermal_enhance.training.recipe import DataConfig, Recipe, SourceConfig, load_recipe
from thermal_enhance.training.temporal_task import TrainedTemporal, build_task
from thermal_enhance.training.temporal_validation import dis_interpolation, linear_blend
from thermal_enhance.training.tfm_loss import TfmLoss

ROOT = Path(__file__).parents[2]
TINY = {
    "channels": 8,
    "encoder_blocks": 1,
    "decoder_blocks": 1,
    "up_channels": 8,
    "history_channels": 4,
    "token_channels": 8,
    "head_dim": 8,
    "state": 4,
    "blocks": 1,
    "groups": 2,
    "embedding": 8,
}
FEW = {"m3svd_lossless": 1, "m3svd_mp4": 0, "drone_ir": 0, "synthetic": 1}


def recipe(**change: object) -> Recipe:
    data = DataConfig((SourceConfig("m3svd_lossless"), SourceConfig("msrs")), crop=64)
    values: dict[str, object] = {"task": {"validation": FEW}, "model": TINY, **change}
    return Recipe(name="tiny", method="temporal", data=data, batch=2, steps=20, **values)  # type: ignore[arg-type]


def test_a_step_lowers_the_loss_and_reaches_everything(pack: Path) -> None:
    torch.manual_seed(0)
    one = recipe(loss={"psnr": 1.0, "gradient": 0.2, "tfm": 0.1})
    task = build_task(one, pack)
    model = task.build_model(one)
    batch = task.sampler(one, "train").batch(0)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    seen = []
    for _ in range(12):
        optimiser.zero_grad()
        loss, parts = task.loss(model, batch, 19)
        loss.backward()
        seen.append(float(loss.detach()))
        optimiser.step()
    assert seen[-1] < seen[0]
    assert {"psnr", "gradient", "tfm", "diffusivity", "new_gain_db", "observed_gain_db"} <= parts.keys()
    assert isinstance(model.tfm, TfmLoss) and model.tfm.rho.grad is not None
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert not without


def test_observed_frames_meet_their_input_and_new_ones_do_not(pack: Path) -> None:
    one = recipe(loss={"l1": 1.0})
    task = build_task(one, pack)
    batch = task.sampler(one, "train").batch(0)
    off = torch.full_like(batch["base"], 0.5)

    class Constant(torch.nn.Module):
        def forward(self, *_inputs: torch.Tensor) -> torch.Tensor:
            return off

    batch["exact"] = torch.ones(2)
    batch["truth"] = batch["base"]
    batch["low"] = functional.avg_pool2d(batch["base"][:, 1], 4)
    _, parts = task.loss(Constant(), batch, 0)
    # Half the range off in the new frame alone, halved in shares of the range, over two pictures.
    assert parts["l1"] == pytest.approx(0.125, abs=2e-3)
    free = build_task(recipe(loss={"l1": 1.0}, task={"project": False, "validation": FEW}), pack)
    assert free.loss(Constant(), batch, 0)[1]["l1"] == pytest.approx(0.25, abs=2e-3)


def test_the_tfm_loss_rises_and_can_be_left_out(pack: Path) -> None:
    one = recipe(loss={"psnr": 1.0, "tfm": 1000.0})
    task = build_task(one, pack)
    model, batch = task.build_model(one), task.sampler(one, "train").batch(0)
    losses = [float(task.loss(model, batch, step)[0].detach()) for step in (0, 1, 2, 10)]
    assert losses[0] < losses[1] < losses[2] == losses[3]  # a tenth of 20 steps
    without = replace(one, ablation={"tfm": False})
    bare = build_task(without, pack)
    assert bare.build_model(bare.recipe).tfm is None
    assert "tfm" not in bare.loss(bare.build_model(bare.recipe), batch, 10)[1]


def test_switches_are_the_papers(pack: Path) -> None:
    task = build_task(recipe(ablation={"mask": False, "prompt": False, "warp": False}), pack)
    assert not task.config.spectral_mask and not task.config.thermal_prompt
    assert task.settings.windows.motion.method == "none"
    # As a trainer does it: with the recipe as it was written.
    trained = task.build_model(recipe(ablation={"mask": False, "prompt": False, "warp": False})).model
    assert trained.config == task.config
    names = [name for name, _ in trained.named_parameters()]
    assert names and not any("mask" in name or "prompt" in name for name in names)
    with pytest.raises(ValueError, match=r"ablation\.rgb"):
        build_task(recipe(ablation={"rgb": False}), pack)
    with pytest.raises(ValueError, match="backwards"):
        build_task(recipe(loss={"psnr": 1.0, "tfm": 0.1}, task={"windows": {"reverse": True}}), pack)
    with pytest.raises(ValueError, match=r"model\.size"):
        build_task(recipe(model={"size": "giant"}), pack)


def test_only_the_network_is_shipped_and_starts_again(pack: Path, tmp_path: Path) -> None:
    one = recipe(loss={"psnr": 1.0, "tfm": 0.1})
    task = build_task(one, pack)
    model = task.build_model(one)
    task.save_weights(model, tmp_path / "best.safetensors")
    tensors, header = load_tensors(tmp_path / "best.safetensors")
    assert json.loads(header[CONFIG_KEY]) == task.config.to_dict()
    assert {t.dtype for t in tensors.values()} == {torch.float16}
    assert tensors.keys() == model.model.state_dict().keys()
    other = task.build_model(one)
    task.load_weights(other, tmp_path / "best.safetensors")
    for name, tensor in other.model.state_dict().items():
        torch.testing.assert_close(tensor, model.model.state_dict()[name], atol=1e-3, rtol=1e-3)


def test_an_untrained_model_scores_as_its_base(pack: Path) -> None:
    one = recipe()
    task = build_task(one, pack)
    model = task.build_model(one)

    class Nothing(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, frames: torch.Tensor, grid: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
            height, width = frames.shape[-2:]
            return torch.zeros(1, grid.shape[1], 1, 4 * height, 4 * width)

    with torch.no_grad():
        scores = task.validate(Nothing())
        montage = task.montage(model)
    assert next(iter(scores)) == "gain"
    assert scores["m3svd_lossless_new_over_base"] == pytest.approx(0, abs=0.01)
    assert scores["m3svd_lossless_observed"] >= 0
    assert montage.ndim == 3 and montage.dtype == np.uint8


def test_baselines_between_two_frames() -> None:
    rng = np.random.default_rng(0)
    import cv2

    scene = cv2.GaussianBlur(rng.random((60, 100)).astype(np.float32), (0, 0), 2)
    scene = cv2.normalize(scene, None, 0, 255, cv2.NORM_MINMAX)
    first, middle, second = (scene[6:54, 10 - d : 90 - d] for d in (0, 2, 4))
    truth = cv2.resize(middle, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    blend, moved = (f(first, second, 4) for f in (linear_blend, dis_interpolation))
    errors = [np.abs(p - truth)[24:-24, 24:-24].mean() for p in (blend, moved)]
    assert errors[1] < 0.2 * errors[0]


@pytest.mark.parametrize(
    "path", sorted((ROOT / "config/recipes").glob("temporal*/*.yaml"))
    + sorted((ROOT / "config/recipes").glob("temporal-*.yaml")), ids=lambda p: p.stem,
)  # fmt: skip
def test_recipes_fit_the_task(path: Path, pack: Path) -> None:
    shipped = load_recipe(path)
    task = build_task(shipped, pack)
    assert isinstance(task.build_model(task.recipe), TrainedTemporal)
