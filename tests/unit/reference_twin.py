"""The reference's quantising and encoding, written down plainly, and all real records to try it on.

Python dictionaries over the texts of the vocabulary as `pickle` itself reads them: nothing of the package.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np

END = ""  # key of a node's id; letters are never empty


class ReferenceTwin:
    """Longest match from left to right over the texts of a tokenizer file."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self.vocabulary, self.merges = pickle.load(file)
        self.root: dict = {}
        for index, text in self.vocabulary.items():
            if text.isalpha() and text.islower() and text.isascii():
                node = self.root
                for letter in text:
                    node = node.setdefault(letter, {})
                assert END not in node, f"two tokens are {text!r}"
                node[END] = index

    def encode(self, text: str) -> list[int]:
        ids, position, length = [], 0, len(text)
        while position < length:
            node, ahead, found, stop = self.root, position, -1, position
            while ahead < length:
                node = node.get(text[ahead])
                if node is None:
                    break
                ahead += 1
                if END in node:
                    found, stop = node[END], ahead
            ids.append(found)
            position = stop
        return ids


def letters(signal: np.ndarray, low: float, high: float) -> str:
    """The string of a signal (leads, samples): 26 bins between low and high, lead after lead."""
    scaled = np.clip((signal.astype(np.float64) - low) / (high - low + 1e-6), 0, 1)
    symbols = np.minimum(np.floor(scaled * 26), 25).astype(np.uint8)
    return (symbols + ord("a")).tobytes().decode("ascii")


def record_paths(data: Path) -> dict[str, list[Path]]:
    """All 12-lead WFDB records of the data sets, without extension, by folder."""
    folders = {
        "ptbxl/records500": data / "ptbxl" / "records500",
        "mimic_iv_ecg": data / "mimic_iv_ecg",
        "ptbxl/records100": data / "ptbxl" / "records100",
        "ptbxl100": data / "ptbxl100",
    }
    return {
        name: sorted(path.with_suffix("") for path in folder.rglob("*.hea") if path.with_suffix(".dat").is_file())
        for name, folder in folders.items()
    }


def cleaned_signals(paths: list[Path]) -> Iterator[np.ndarray]:
    """Signals as the paper cleans them where they have 500 Hz, as they are where they have 100; none with NaN."""
    from ecgbyte_hf import EcgByteFeatureExtractor, read_ecg

    at_500 = EcgByteFeatureExtractor(on_problem=["flat", "amplitude"])
    at_100 = EcgByteFeatureExtractor(profile="none", sampling_rate=100, on_problem=["flat", "amplitude"])
    for path in paths:
        record = read_ecg(path)
        if "nan" not in record.problems:
            yield (at_500 if record.sampling_rate == 500 else at_100).clean(record)
