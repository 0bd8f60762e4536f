"""Bringing two unsynchronised streams together: pair buffer, latest-only mailbox, clock-jump handling.

Nothing here knows ROS, threads of its own or pixels: stamps and arrival times go in as integers, and the
caller says what time it is, so that a live node and a deterministic replay run the same code.
"""

from thermal_enhance.pairing.buffer import PairBuffer
from thermal_enhance.pairing.clock import Cadence, Jump, JumpDetector
from thermal_enhance.pairing.mailbox import LatestMailbox
from thermal_enhance.pairing.pairs import Pair, PairConfig, Stamped

__all__ = [
    "Cadence",
    "Jump",
    "JumpDetector",
    "LatestMailbox",
    "Pair",
    "PairBuffer",
    "PairConfig",
    "Stamped",
]
