"""3M-TI: RGB-guided thermal super-resolution without calibration."""
