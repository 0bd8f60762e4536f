"""How good an enhanced image or video is, in numbers."""

from thermal_enhance.metrics.image import (
    edge_correlation,
    fitted_psnr,
    gmsd,
    ms_ssim,
    psnr,
    radiometric_residual,
    ssim,
)
from thermal_enhance.metrics.temporal import (
    flicker,
    global_flicker,
    occlusion_mask,
    optical_flow,
    static_mask,
    warp_error,
)

__all__ = [
    "edge_correlation",
    "fitted_psnr",
    "flicker",
    "global_flicker",
    "gmsd",
    "ms_ssim",
    "occlusion_mask",
    "optical_flow",
    "psnr",
    "radiometric_residual",
    "ssim",
    "static_mask",
    "warp_error",
]
