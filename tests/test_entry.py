"""A process ends with its status, whatever a tier's thread is at."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest


@pytest.mark.parametrize(("holds_s", "limit_s"), [(0.2, 1.5), (60.0, 20.0)])
def test_a_hung_tier_does_not_keep_the_process_or_change_its_status(holds_s: float, limit_s: float) -> None:
    code = (
        "import sys, threading, time\n"
        "from thermal_enhance.entry import TIER_THREAD, leave\n"
        f"hang = lambda: (time.sleep({holds_s}), print('let go', flush=True))\n"
        "threading.Thread(target=hang, name=TIER_THREAD + 'model', daemon=True).start()\n"
        "print('said')\n"
        "print('begin', time.time(), flush=True)\n"
        "sys.exit(leave(3))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False
    )
    took = time.time() - float(done.stdout.split("begin")[1].split()[0])
    assert done.returncode == 3 and done.stderr == ""
    assert done.stdout.startswith("said")
    assert ("let go" in done.stdout) == (holds_s < 1)
    assert took < limit_s + 10  # a busy machine is slow to end a process
