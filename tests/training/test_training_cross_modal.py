"""The cross-modal training task: batches as live, every loss a recipe can name, block means met."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch (pip install 'thermal_enhance[train]')")
pytest.importorskip("diffusers", reason="needs diffusers (pip install 'thermal_enhance[train]')")

from thermal_enhance.training import cross_modal_losses as losses
from thermal_enhance.training.cross_modal_task import build_task, meet_block_means
from thermal_enhance.training.recipe import DataConfig, Recipe, SourceConfig

TINY = {
    "autoencoder": {"channels": [4, 4, 8, 8], "latent_channels": 4},
    "denoiser": {
        "channels": [8, 8],
        "attention": [False, True],
        "head_dim": 4,
        "groups": 4,
        "context_dim": 4,
    },
    "task_rank": 2,
}


def recipe(**change: object) -> Recipe:
    data = DataConfig((SourceConfig("msrs"), SourceConfig("pbvsg")), crop=64, margin=16)
    values: dict[str, object] = {"task": {"scales": [8], "scale_weights": [1.0]}, "model": TINY, **change}
    return Recipe(name="tiny", method="cross_modal", data=data, batch=2, steps=2, **values)  # type: ignore[arg-type]


@pytest.fixture
def weights(tmp_path: Path, pack: Path) -> Path:
    task = build_task(recipe(), pack)
    path = tmp_path / "best.safetensors"
    task.save_weights(task.build_model(recipe()), path)
    return path


def test_a_batch_is_a_function_of_its_step_and_has_the_live_input(pack: Path) -> None:
    one = recipe()
    sampler = build_task(one, pack).sampler(one, "train")
    first, again, other = sampler.batch(3), sampler.batch(3), sampler.batch(4)
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["truth"], other["truth"])
    assert first["thermal"].shape == (2, 3, 64, 64) and first["low"].shape == (2, 1, 8, 8)
    assert first["truth"].abs().max() <= 1.0


def test_without_rgb_no_step_has_any(pack: Path) -> None:
    alone = recipe(ablation={"rgb": False})
    task = build_task(alone, pack)
    sampler = task.sampler(task.recipe, "train")
    assert all("rgb" not in sampler.batch(step) for step in range(6))


@pytest.mark.parametrize(
    "terms", [{"psnr": 1.0, "gradient": 0.2}, {"l2": 1.0, "gmsd": 0.5}, {"charbonnier": 1.0}]
)
def test_every_loss_reaches_the_weights(pack: Path, terms: dict[str, float]) -> None:
    one = recipe(loss=terms)
    task = build_task(one, pack)
    model = task.build_model(one)
    loss, parts = task.loss(model, task.sampler(one, "train").batch(0), 0)
    loss.backward()
    assert parts.keys() == {*terms, "gain_db"}
    assert sum(float(p.grad.abs().sum()) for p in model.parameters() if p.grad is not None) > 0


def test_features_of_a_trained_autoencoder_stand_in_for_lpips(pack: Path, weights: Path) -> None:
    term = losses.build({"features": 1.0}, "cpu", weights)
    truth = torch.rand(2, 1, 32, 32)
    assert float(term(truth, truth)[0]) == pytest.approx(0, abs=1e-6)
    made = (truth + 0.1 * torch.randn_like(truth)).requires_grad_(True)
    loss, _ = term(made, truth)
    loss.backward()
    assert loss > 0 and made.grad is not None and made.grad.abs().sum() > 0
    settings = {"scales": [8], "scale_weights": [1.0], "features_from": str(weights)}
    one = recipe(loss={"features": 1.0}, task=settings)
    task = build_task(one, pack)
    _, parts = task.loss(task.build_model(one), task.sampler(one, "train").batch(0), 0)
    assert parts["features"] > 0


def test_losses_that_cannot_be_had_are_refused(weights: Path) -> None:
    with pytest.raises(ValueError, match=r"loss\.style: no such term; known: .*gradient.*psnr"):
        losses.build({"style": 1.0}, "cpu", None)
    with pytest.raises(ValueError, match=r"loss\.features needs a feature extractor"):
        losses.build({"features": 1.0}, "cpu", None)


def test_the_result_meets_the_block_means_but_where_they_are_not_the_truths() -> None:
    made, low = torch.rand(2, 1, 32, 32), torch.rand(2, 1, 4, 4)
    met = meet_block_means(made, low, torch.tensor([1.0, 0.0]))
    means = torch.nn.functional.avg_pool2d(met, 8)
    assert np.allclose(means[0], low[0], atol=1e-5)
    assert torch.equal(met[1], made[1])
