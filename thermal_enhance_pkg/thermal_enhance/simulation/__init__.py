"""The simulated rig: a small world, two cameras, their faults, and the truth behind them."""
