"""A temporal model with real graphs: those of no trained network, but of its inputs and outputs."""

from __future__ import annotations

from pathlib import Path

import pytest


def export_tiny(folder: Path, name: str = "tiny", profiles: tuple = ((32, 24),)) -> Path:
    """Export a few convolutions as a temporal model into a folder of models; skips without torch."""
    torch = pytest.importorskip("torch", reason="needs the train extra (make test)")
    pytest.importorskip("onnxscript", reason="needs the train extra (make test)")
    from torch import nn
    from torch.nn import functional

    from thermal_enhance.enhancers.temporal_input import CHANNELS, CUES
    from thermal_enhance.runtime.export import GraphExport, export_model
    from thermal_enhance.runtime.manifest import ModelManifest

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Conv2d(2, 4, 4, stride=2, padding=1)
            self.cues = nn.Conv2d(len(CUES), 4, 3, stride=2, padding=1)
            self.out = nn.Conv2d(4, 64, 3, padding=1)

    class Encoder(nn.Module):
        def __init__(self, network: Network) -> None:
            super().__init__()
            self.network = network

        def forward(self, frame):
            return torch.tanh(self.network.encoder(frame))

    class Body(Encoder):
        def forward(self, features, grid, tau, cues):
            made = []
            for t in range(2):
                hidden = self.network.cues(cues[:, t])
                for x in range(3):
                    seen = functional.grid_sample(features[:, x], grid[:, t, x], align_corners=False)
                    near = torch.exp(-torch.abs(tau[:, t] - x)).reshape(-1, 1, 1, 1)
                    hidden = hidden + near * seen
                made.append(functional.pixel_shuffle(self.network.out(torch.tanh(hidden)), 8))
            return torch.stack(made, dim=1) * 0.02

    torch.manual_seed(0)
    network = Network().eval()
    graphs = []
    for width, height in profiles:
        rows, columns = height // 2, width // 2
        feeds = {
            "features": torch.rand(1, 3, 4, rows, columns),
            "grid": torch.rand(1, 2, 3, rows, columns, 2) * 2 - 1,
            "tau": torch.tensor([[1.5, 2.0]]),
            "cues": torch.rand(1, 2, len(CUES), height, width),
        }
        frame = {"frame": torch.rand(1, len(CHANNELS), height, width)}
        size = (width, height)
        graphs.append(GraphExport("encoder", size, Encoder(network), frame, ["features"]))
        graphs.append(GraphExport("body", size, Body(network), feeds, ["residual"]))
    parameters = {"window": 3, "scale": 4, "channels": list(CHANNELS), "cues": list(CUES)}
    manifest = ModelManifest(
        name=name,
        method="temporal",
        size="nano",
        version="1",
        scales=(4,),
        licence="CC0-1.0",
        parameters=parameters,
    )
    export_model(graphs, network.state_dict(), folder / name, manifest)
    return folder / name
