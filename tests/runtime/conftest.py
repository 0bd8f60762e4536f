"""A small network with everything that is awkward to export, exported once for all tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from thermal_enhance.runtime.manifest import ModelManifest

TOY = ModelManifest(
    name="toy-edge",
    method="cross_modal",
    size="edge",
    version="1.0.0",
    scales=(2,),
    licence="CC0-1.0",
    parameters={"rgb": "optional", "range": [0, 1]},
)


@dataclass
class Toy:
    """A network, its two graphs, and the folder it was exported to."""

    network: Any
    graphs: list[Any]
    folder: Path
    manifest: ModelManifest


def build_network() -> Any:
    """Convolution, group norm, linear layers, attention, tables small and large, optional second view."""
    import torch
    from torch import nn
    from torch.nn import functional as F  # noqa: N812

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter = nn.Conv2d(3, 16, 3, stride=2, padding=1)
            self.norm = nn.GroupNorm(4, 16)
            self.token_norm = nn.LayerNorm(16)
            self.query_key = nn.Linear(16, 32)
            self.wide = nn.Linear(16, 128)
            self.narrow = nn.Linear(128, 16)
            self.leave = nn.Conv2d(16, 4, 1)
            self.tiny = nn.Parameter(torch.full((16,), 1e-6))
            self.register_buffer("alpha", torch.linspace(0.1, 0.999, 10))
            self.register_buffer("mixing", torch.randn(64, 64) / 8)

        def forward(self, thermal: Any, rgb: Any | None = None) -> Any:
            features = F.silu(self.norm(self.enter(thermal)))
            if rgb is not None:
                features = features + F.silu(self.norm(self.enter(rgb)))
            batch, channels, height, width = features.shape
            tokens = self.token_norm(features.flatten(2).transpose(1, 2))
            query, key = self.query_key(tokens)[:, None].chunk(2, -1)
            tokens = tokens + F.scaled_dot_product_attention(query, key, tokens[:, None])[:, 0]
            tokens = tokens + self.narrow(F.gelu(self.wide(tokens))) + self.tiny
            mixed = tokens.transpose(1, 2) @ self.mixing
            picture = F.pixel_shuffle(self.leave(mixed.reshape(batch, channels, height, width)), 2)
            return thermal[:, :1] * self.alpha[9] + 0.1 * picture

    torch.manual_seed(0)
    return Network().eval()


def wrap(network: Any) -> Any:
    """The network below another module, as graphs often are: its names get a prefix."""
    from torch import nn

    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, thermal: Any) -> Any:
            return self.network(thermal)

    return Wrapper().eval()


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """The exported toy; tests that would change its files copy it first."""
    torch = pytest.importorskip("torch", reason="needs the train extra (make test)")
    pytest.importorskip("onnxscript", reason="needs the train extra (make test)")
    from thermal_enhance.runtime.export import GraphExport, export_model

    network = build_network()
    thermal, rgb = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)
    graphs = [
        GraphExport("two_view", (16, 16), network, {"thermal": thermal, "rgb": rgb}, ["enhanced"]),
        GraphExport("one_view", (16, 16), wrap(network), {"thermal": thermal}, ["enhanced"]),
    ]
    folder = tmp_path_factory.mktemp("models") / TOY.name
    manifest = export_model(graphs, network.state_dict(), folder, TOY)
    return Toy(network, graphs, folder, manifest)
