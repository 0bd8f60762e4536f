"""Package metadata; setup.py rather than pyproject because colcon's ament_python builds need it."""

from pathlib import Path

from setuptools import find_packages, setup

# Resolved: `colcon build --symlink-install` runs a symlink to this file from its build folder.
HERE = Path(__file__).resolve().parent
SHARE = "share/thermal_enhance"


def share_files(folder: str) -> list[tuple[str, list[str]]]:
    """(target folder, files) pairs that install `folder` into the package's share, structure kept."""
    # Called from the repository root by pip, from the ros2_ws symlink by colcon: keep paths relative.
    groups: dict[str, list[str]] = {}
    for path in sorted((HERE / folder).rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            relative = path.relative_to(HERE)
            groups.setdefault(f"{SHARE}/{relative.parent}", []).append(str(relative))
    return list(groups.items())


setup(
    name="thermal_enhance",
    version="0.1.0",
    description="Sharper, denoised, higher-rate and still temperature-true thermal video for robots",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    maintainer="thermal_enhance maintainers",
    maintainer_email="maintainers@thermal-enhance.dev",
    license="Apache-2.0",
    package_dir={"": "thermal_enhance_pkg"},
    packages=find_packages("thermal_enhance_pkg"),
    package_data={"thermal_enhance": ["py.typed", "evaluation/traces/*"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/thermal_enhance"]),
        (SHARE, ["package.xml"]),
        *share_files("launch"),
        *share_files("config"),
        *share_files("models"),
    ],
    zip_safe=False,
    python_requires=">=3.10",
    install_requires=[
        "numpy>=1.26",
        "onnxruntime>=1.20",
        "opencv-python-headless>=4.8",
        "PyYAML>=5.4",
        "rich>=13",
        "rosbags>=0.10",
        "safetensors>=0.4.3",
    ],
    extras_require={
        "dev": ["pytest>=8", "pytest-timeout", "hypothesis>=6", "ruff", "mypy", "types-PyYAML"],
        # Training and export. torch exactly: another release drags other versions of everything along.
        "train": [
            "torch==2.13.0",
            "diffusers>=0.41",
            "transformers>=5.20",
            "peft>=0.21",
            "accelerate>=1.15",
            "onnx>=1.20",
            "onnxscript>=0.7",
            "onnx-ir>=1.0",
            "matplotlib>=3.10",
        ],
        # The loss term lpips. It brings torchvision, which needs another torch: an environment of its own.
        "perceptual": ["lpips>=0.1.4"],
        # Compiles without a GPU; Linux and Windows on x86-64.
        "tensorrt": ["tensorrt-rtx==1.7.1.116 ; platform_machine == 'x86_64' or platform_machine == 'AMD64'"],
    },
    entry_points={
        "console_scripts": [
            "thermal-enhance = thermal_enhance.cli:main",
            "enhancement_node = thermal_enhance.entry:enhancement_node",
            "task_router_node = thermal_enhance.entry:task_router_node",
            "camera_rig_node = thermal_enhance.entry:camera_rig_node",
            "frame_folder_node = thermal_enhance.entry:frame_folder_node",
            "replay_node = thermal_enhance.entry:replay_node",
            "thermal_enhance_container = thermal_enhance.entry:container",
        ],
    },
)
