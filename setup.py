"""Distribution `ecgbyte-hf`. The Rust core is a distribution of its own, `ecgbyte-rust-bpe`."""

import sys
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
CORE = "ecgbyte-rust-bpe>=0.1,<0.2"


def core_requirement() -> str:
    """The core of this checkout where there is one, so that one `pip install` builds both; else the published one.

    A source distribution must not name a folder of the machine that made it.
    """
    local = HERE / "rust_bpe"
    if (local / "Cargo.toml").is_file() and "sdist" not in sys.argv:
        return f"ecgbyte-rust-bpe @ {local.as_uri()}"
    return CORE


REQUIRES = [
    core_requirement(),
    "datasets>=5.1,<6",
    "huggingface_hub>=1.31,<3",
    "jinja2>=3.1",
    "numpy>=1.26",
    "packaging>=23",
    "pyarrow>=24",
    "PyWavelets>=1.6",
    "PyYAML>=6",
    "scipy>=1.12",
    "tokenizers>=0.23.1",
    "torch>=2.6",
    "tqdm>=4.66",
    "transformers>=5.20,<6",
    "wfdb>=4.3,<5",
]
EXTRAS = {
    "train": ["accelerate>=1.10.1", "peft>=0.21,<1", "trl>=1.16,<2"],
    "eval": ["bert-score>=0.3.13", "evaluate>=0.4.6", "nltk>=3.9", "rouge-score>=0.1.2", "sacrebleu>=2.4,<3"],
    "baselines": ["scikit-learn>=1.5,<2", "threadpoolctl>=3.1"],
    "rules": ["neurokit2>=0.2.12"],
    "plot": ["matplotlib>=3.9"],
    "interpretation": ["captum>=0.8,<1", "matplotlib>=3.9"],
    "translate": ["sacremoses>=0.1.1", "sentencepiece>=0.2.1"],
    "sampling": ["matplotlib>=3.9", "scikit-learn>=1.5,<2", "threadpoolctl>=3.1"],
}
READERS = {
    "dicom": ["pydicom>=3,<4"],
    "edf": ["pyedflib>=0.1.38"],
    "xml": ["defusedxml>=0.7.1"],
}
EXTRAS |= READERS | {"readers": sorted({requirement for group in READERS.values() for requirement in group})}
EXTRAS["all"] = sorted({requirement for group in EXTRAS.values() for requirement in group})
# Left out of "all": many machines are for few people.
EXTRAS["cluster"] = ["datatrove>=0.8,<1"]
# Left out too: it takes gigabytes, and pins its own torch.
EXTRAS["vllm"] = ["vllm>=0.8"]
EXTRAS["benchmark"] = ["matplotlib>=3.9", "rustbpe>=0.1", "sentencepiece>=0.2.1", "tiktoken>=0.12"]
EXTRAS["test"] = [
    *EXTRAS["cluster"],
    "colorspacious>=1.1.2",
    "hypothesis>=6.100",
    "ipykernel>=6.29",
    "maturin>=1.9.4,<2",
    "mypy>=1.15",
    "nbclient>=0.10",
    "nbformat>=5.10",
    "playwright>=1.50,<2",
    "pytest>=8.3",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.6",
    "ruff>=0.12",
    "scipy-stubs",
    "sierraecg>=0.4",
    "types-PyYAML",
    "types-tqdm",
]

setup(
    name="ecgbyte-hf",
    version="0.1.0",
    description="Language models that read 12-lead ECGs as tokens: ECG-Byte for Hugging Face",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    # The templates of cards are at the top of a checkout, and beside the modules of an installed package.
    packages=[*find_packages(include=["ecgbyte_hf", "ecgbyte_hf.*"]), "ecgbyte_hf.hub_cards"],
    package_dir={"ecgbyte_hf.hub_cards": "hub_cards"},
    package_data={
        "ecgbyte_hf": ["py.typed", "evaluation/statements.yaml"],
        "ecgbyte_hf.interpretation": ["report.css", "report.html", "report.js"],
        "ecgbyte_hf.hub_cards": ["*.jinja"],
    },
    python_requires=">=3.11",
    install_requires=REQUIRES,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["ecgbyte = ecgbyte_hf.cli:main"]},
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Rust",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
    ],
)
