"""The enhancement node as the transport benchmark runs it where thermal has to wait for its RGB frame.

The passthrough tier has no use for RGB, so the node as shipped lets thermal frames go at once. Compared with a
node that hands out pairs only, that is an advantage of the tier and not of the transport; here the tier claims to
need RGB, everything else is the shipped node.

    python -m thermal_enhance.evaluation.bench_transport_ours --autostart --ros-args -p mode:=passthrough
"""

from __future__ import annotations

import sys

from thermal_enhance.enhancers.ladder import LadderConfig, QualityLadder
from thermal_enhance.enhancers.passthrough import PassthroughEnhancer
from thermal_enhance.nodes.enhancement_node import EnhancementNode
from thermal_enhance.nodes.process import run_node


class PairedPassthrough(PassthroughEnhancer):
    """Passthrough that makes its node wait for RGB."""

    name = "passthrough_paired"
    uses_rgb = True


class PairedNode(EnhancementNode):
    """The enhancement node with `PairedPassthrough` as its only tier."""

    def configure(self) -> None:
        """As shipped, then with the tier that waits."""
        super().configure()
        assert self._pipeline is not None
        self._ladder = QualityLadder([PairedPassthrough()], LadderConfig())
        self._pipeline.set_ladder(self._ladder).close()


def main(args: list[str] | None = None) -> int:
    """Run the node in a process of its own."""
    return run_node(PairedNode, args)


if __name__ == "__main__":
    sys.exit(main())
