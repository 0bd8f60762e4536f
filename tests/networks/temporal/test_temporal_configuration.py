from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from thermal_enhance.networks.temporal.configuration import TemporalConfig
from thermal_enhance.networks.temporal.model import TemporalModel
from thermal_enhance.networks.temporal.sizes import SIZES, base, nano


@pytest.mark.parametrize("size", SIZES)
def test_plain_values_bring_it_back(size: str) -> None:
    config = SIZES[size]()
    assert config.size == size
    assert TemporalConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"chanels": 3}, r"model\.chanels is unknown; known: size, window"),
        ({"channels": "wide"}, r"model\.channels must be a whole number, not 'wide'"),
        ({"channels": 32.5}, r"model\.channels must be a whole number, not 32\.5"),
        ({"blocks": True}, r"model\.blocks must be a whole number, not True"),
        ({"spectral_mask": 1}, r"model\.spectral_mask must be true or false, not 1"),
        ({"residual_scale": "small"}, r"model\.residual_scale must be a number"),
        ({"size": 3}, r"model\.size must be a text"),
        ({"residual_scale": 0}, "residual_scale must be above 0"),
        ({"window": 1}, "window must be at least 2, not 1"),
        ({"blocks": -1}, "blocks must be at least 0, not -1"),
        ({"scale": 3}, "scale must be 2 or 4, not 3"),
        ({"token_stride": 8}, "token_stride must be 2 or 4, not 8"),
        ({"channels": 30}, r"channels \(30\) must be a multiple of groups \(8\)"),
        ({"head_dim": 36}, r"expand \* token_channels \(96\) must be a multiple of head_dim \(36\)"),
        ({"scan_window": 12}, "scan_window must be a power of two, not 12"),
        ({"scan_backend": "cuda"}, "scan_backend must be one of reference, ssd, mamba_ssm, not 'cuda'"),
    ],
)
def test_errors_name_the_key(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TemporalConfig.from_dict(values)


def test_a_model_must_be_a_mapping() -> None:
    with pytest.raises(ValueError, match="must be a mapping"):
        TemporalConfig.from_dict("nano")  # type: ignore[arg-type]


def test_a_whole_number_will_do_for_a_number() -> None:
    assert TemporalConfig.from_dict({"residual_scale": 1}).residual_scale == 1


def test_sizes_fit_their_budgets_in_half_precision() -> None:
    def parameters(config: TemporalConfig) -> int:
        with torch.device("meta"):
            return sum(p.numel() for p in TemporalModel(config).parameters())

    assert 2 * parameters(nano()) < 2**20
    assert parameters(base()) > 1e6 and 2 * parameters(base()) < 16 * 2**20
