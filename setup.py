"""Metadata of the distribution; tools are configured in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
version = re.search(r'__version__ = "(.+)"', (here / "keras_ext/__init__.py").read_text()).group(1)

setup(
    name="keras-ext",
    version=version,
    description="GlobalPointer, exact multilabel losses and text pipelines for Keras 3",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=find_packages(include=["keras_ext", "keras_ext.*"]),
    python_requires=">=3.11,<3.14",
    install_requires=[
        "keras>=3.15,<4",
        "numpy>=1.26",
        "h5py>=3.11",
        "tokenizers>=0.21",
        "safetensors>=0.4.5",
        "ml_dtypes>=0.5",
        "scipy>=1.11",
    ],
    extras_require={
        "tf": ["tensorflow>=2.20"],
        "tf-cpu": ["tensorflow-cpu>=2.20"],
        "jax": ["jax>=0.6"],
        "examples": ["matplotlib>=3.9", "pillow>=10", "scikit-learn>=1.5"],
        "faiss": ["faiss-cpu>=1.8"],
        "test": [
            "pytest>=8",
            "pytest-xdist>=3.6",
            "hypothesis>=6.100",
            "seqeval>=1.2.2",
            "scikit-learn>=1.5",
            "matplotlib>=3.9",
            "ruff>=0.9",
            "tensorboard>=2.20",
            "faiss-cpu>=1.8",
            "pillow>=10",
            "filelock>=3.13",
            "requests>=2.31",
            "jax>=0.6",
        ],
    },
)
