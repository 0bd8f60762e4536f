"""Configurations: sizes, recipes, and errors that name the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from thermal_enhance.networks.cross_modal.configuration import CrossModalConfig
from thermal_enhance.networks.cross_modal.model import CrossModalModel
from thermal_enhance.networks.cross_modal.provider import build, split
from thermal_enhance.networks.cross_modal.sizes import SIZES, base, edge, sd_turbo
from thermal_enhance.training.recipe import load_recipe

RECIPES = Path(__file__).resolve().parents[2] / "config" / "recipes"


@pytest.mark.parametrize("size", SIZES)
def test_plain_values_bring_it_back(size: str) -> None:
    config = SIZES[size]()
    assert config.size == size
    assert CrossModalConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"denoyser": {}}, r"model\.denoyser is unknown; known: size, autoencoder"),
        ({"denoiser": {"width": 3}}, r"model\.denoiser\.width is unknown"),
        ({"denoiser": 3}, r"model\.denoiser must be a mapping"),
        ({"denoiser": {"channels": 48}}, r"model\.denoiser\.channels must be a list, not 48"),
        ({"denoiser": {"channels": [48, 72]}}, r"denoiser\.channels and denoiser\.attention"),
        ({"denoiser": {"channels": [48, 72, 97]}}, r"denoiser\.channels must be multiples of groups"),
        ({"autoencoder": {"channels": [8, 16]}}, r"autoencoder\.channels needs four numbers"),
        ({"autoencoder": {"channels": ["a", 1, 2, 3]}}, r"model\.autoencoder"),
        ({"timestep": 1000}, r"timestep must lie in 0\.\.999, not 1000"),
        ({"timestep": "late"}, r"model\.timestep must be a number, not 'late'"),
        ({"skips": 1}, r"model\.skips must be true or false, not 1"),
        ({"fusion": "sum"}, r"fusion must be one of csm, .*not 'sum'"),
        ({"task_rank": -1}, "task_rank must be at least 0, not -1"),
        ({"query_chunk": -1}, "query_chunk must be at least 0, not -1"),
        ({"vae": "taesd"}, r"model\.vae is unknown"),
        ({"size": "sd-turbo"}, r"model\.pretrained must name a diffusers folder"),
    ],
)
def test_errors_name_the_key(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(values)


def parameters(config: CrossModalConfig) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in CrossModalModel(config).parameters())


def test_own_sizes_fit_their_budgets_in_half_precision() -> None:
    assert 2 * parameters(edge()) < 16 * 2**20
    assert parameters(base()) > 15e6 and 2 * parameters(base()) < 48 * 2**20


def test_no_joint_attention_above_32x32_tokens_at_512() -> None:
    for config in (edge(), base()):
        sides = [64 >> level for level, on in enumerate(config.denoiser.attention) if on]
        assert sides and max(sides) <= 32


def test_sd_turbo_has_the_published_unet() -> None:
    from diffusers import UNet2DConditionModel

    from thermal_enhance.networks.cross_modal.model import build_unet

    with torch.device("meta"):
        unet = build_unet(sd_turbo().denoiser, 4)
    assert isinstance(unet, UNet2DConditionModel)
    assert sum(p.numel() for p in unet.parameters()) == pytest.approx(865.9e6, rel=1e-4)
    assert tuple(unet.config.attention_head_dim) == (5, 10, 20, 20)
    assert sd_turbo().denoiser.multiple == 64


@pytest.mark.parametrize("size", ["base", "sd-turbo"])
def test_recipes_describe_the_sizes(size: str) -> None:
    recipe = load_recipe(RECIPES / f"cross_modal-{size}.yaml")
    assert recipe.name == f"cross_modal-{size}" and recipe.method == "cross_modal"
    settings, config = split(recipe.model)
    assert config == SIZES[size]()
    assert (settings is None) == (size == "base")
    if settings is not None:
        assert (settings.unet_rank, settings.vae_rank, settings.unet_trainable) == (16, 4, "lora")
