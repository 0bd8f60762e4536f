"""The schedule's numbers and the one-step map, against the published ones and diffusers' own."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from thermal_enhance.networks.diffusion.one_step import OneStepMap, alphas_cumprod, log_snr

# METHODS 0.2: t, abar, sqrt(1 - abar), log SNR.
TABLE = [
    (0, 0.99915, 0.029, 7.07),
    (1, 0.99830, 0.041, 6.37),
    (20, 0.98131, 0.137, 3.96),
    (49, 0.95263, 0.218, 3.00),
    (99, 0.89546, 0.323, 2.15),
    (149, 0.82922, 0.413, 1.58),
    (199, 0.75524, 0.495, 1.13),
    (249, 0.67543, 0.570, 0.733),
    (299, 0.59218, 0.639, 0.373),
    (399, 0.42609, 0.758, -0.298),
    (499, 0.27767, 0.850, -0.956),
    (599, 0.16175, 0.916, -1.65),
    (749, 0.05662, 0.971, -2.81),
    (999, 0.00466, 0.998, -5.36),
]


@pytest.mark.parametrize(("step", "abar", "sigma", "snr"), TABLE)
def test_schedule_has_the_published_numbers(step: int, abar: float, sigma: float, snr: float) -> None:
    share = float(alphas_cumprod()[step])
    assert share == pytest.approx(abar, abs=6e-6)
    assert (1 - share) ** 0.5 == pytest.approx(sigma, abs=6e-4)
    assert float(log_snr()[step]) == pytest.approx(snr, abs=6e-3)


def test_log_snr_falls_strictly() -> None:
    assert bool((log_snr().diff() < 0).all())


@pytest.mark.parametrize(
    ("step", "a", "b"), [(199, 1.1507, 0.5693), (499, 1.898, 1.613), (999, 14.65, 14.62)]
)
def test_factors_of_the_map(step: int, a: float, b: float) -> None:
    tables = OneStepMap()
    assert float(tables.a[step]) == pytest.approx(a, rel=4e-4)
    assert float(tables.b[step]) == pytest.approx(b, rel=4e-4)


def test_map_undoes_the_forward_process() -> None:
    clean, noise = torch.randn(3, 4, 5, 6), torch.randn(3, 4, 5, 6)
    step = torch.tensor([1, 199, 600])
    abar = alphas_cumprod()[step].float().reshape(-1, 1, 1, 1)
    latent = abar.sqrt() * clean + (1 - abar).sqrt() * noise
    assert torch.allclose(OneStepMap()(latent, noise, step), clean, atol=1e-5)


def test_map_is_what_diffusers_predicts_as_the_original_sample() -> None:
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
    )
    latent, noise = torch.randn(1, 4, 3, 3), torch.randn(1, 4, 3, 3)
    wanted = scheduler.step(noise, 199, latent).pred_original_sample
    assert torch.allclose(OneStepMap()(latent, noise, torch.tensor(199)), wanted, atol=1e-5)


def test_map_computes_in_float32_and_has_no_weights() -> None:
    network = OneStepMap().to(torch.bfloat16)
    latent = torch.ones(1, 1, 1, 1, dtype=torch.bfloat16)
    made = OneStepMap()(latent, latent, torch.tensor(999))
    assert made.dtype == torch.bfloat16
    # 14.65 - 14.62: nothing would be left of it in bfloat16.
    assert float(made) == pytest.approx(0.034, abs=1e-3)
    assert not network.state_dict()
