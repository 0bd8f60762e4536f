"""Sharp, denoised, higher-rate and still temperature-true thermal video for robots."""

__version__ = "0.1.0"
