"""Packaging. `simulation/`, `datasets/` and `configs/` are installed as parts of `mtdrive` through its links."""

from setuptools import find_namespace_packages, setup

SCORING = [
    "gymnasium>=1.2",
    "hydra-core>=1.3",
    "jinja2>=3.1",
    "markupsafe>=2.1",
    "matplotlib>=3.9",
    "numba>=0.61",
    "numpy>=2.0",
    "omegaconf>=2.3",
    "opencv-python-headless>=4.10",
    "pandas>=2.2",
    "pillow>=11",
    "pyarrow>=18",
    "pydantic>=2.11",
    "pyproj>=3.7",
    "pyyaml>=6",
    "rich>=13",
    "scipy>=1.14",
    "shapely>=2.0.6",
    "tqdm>=4.66",
]
# We use names of these packages that are not public (mtdrive/seam.py), hence the upper bounds.
TRAINING = [
    "accelerate>=1.10,<1.16",
    "datasets>=4.0,<6",
    "filelock>=3.12",
    "huggingface_hub>=1.3",
    "peft>=0.17,<0.22",
    "psutil>=5.9",
    "safetensors>=0.6",
    "tokenizers>=0.22",
    "torch>=2.9,<2.14",
    "transformers>=5.20,<5.24",
    "trl>=1.16,<1.17",
]

setup(
    name="mtdrive",
    version="0.1.0",
    description="Multi-turn reinforcement learning of driving planners on NAVSIM",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_namespace_packages(include=["mtdrive", "mtdrive.*", "hydra_plugins.*"]),
    package_data={
        "mtdrive.configs": ["**/*.yaml"],
        "mtdrive.navsim_bridge": ["**/*.yaml"],
        "mtdrive.simulation.installation": ["self_check.json"],
        "mtdrive": ["**/*.html", "**/*.css", "**/*.js", "**/*.md"],
    },
    install_requires=SCORING,
    extras_require={
        "train": TRAINING,
        "dev": [
            "hypothesis>=6.100",
            "mypy>=1.17",
            "playwright>=1.55",
            "pytest>=8",
            "pytest-timeout>=2.3",
            "ruff>=0.12",
            "setuptools>=77",
            "tensorboard>=2.20",
        ],
        "notebooks": ["ipykernel>=6.29", "ipywidgets>=8.1", "nbclient>=0.10", "nbformat>=5.10"],
        "vllm": ["vllm>=0.11"],
        "ray": ["ray>=2.40"],
    },
    entry_points={"console_scripts": ["mtdrive = mtdrive.cli:main"]},
)
