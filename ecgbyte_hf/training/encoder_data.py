"""ECGs and texts for pretraining an encoder: held in memory once, drawn by seed, put into batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.training.encoder_texts import EcgTexts


class EcgSignals:
    """The cleaned signals of some ECGs, float32 (leads, samples) in mV.

    Args:
        prepared: The prepared folder, whole or in windows.
        ecg_ids: Which ECGs.
        in_memory: Read all of them now, into one array that worker processes share; else each is read from its file
            when it is asked for, with the 15 records beside it (3 ms).
    """

    def __init__(self, prepared: PreparedData, ecg_ids: Sequence[int], *, in_memory: bool = True) -> None:
        self._prepared = prepared
        self._place = {ecg_id: place for place, ecg_id in enumerate(sorted(set(ecg_ids)))}
        self._values: np.ndarray | None = self._read() if in_memory and self._place else None

    def __getitem__(self, ecg_id: int) -> np.ndarray:
        if self._values is None:
            return self._prepared.signal(ecg_id)
        signal: np.ndarray = self._values[self._place[ecg_id]]
        return signal

    def _read(self) -> np.ndarray:
        from tqdm.auto import tqdm

        shape = self._prepared.signal(next(iter(self._place))).shape
        values = np.empty((len(self._place), *shape), np.float32)
        signals = self._prepared.iter_signals(self._place)
        for ecg_id, signal in tqdm(signals, total=len(self._place), desc="signals", unit="record"):
            values[self._place[ecg_id]] = signal
        return values


class EcgTextDataset(Dataset[dict[str, Any]]):
    """ECGs, each with one text if the encoder takes texts.

    The text of an ECG depends on the seed, the epoch and the ECG alone, so that a training that was broken off goes on
    with the texts it would have had.

    Args:
        signals: All signals that are needed.
        ecg_ids: The ECGs, in order.
        texts: Their texts; None for an encoder that takes none.
        seed: Of the draws; None draws nothing, for evaluation.
    """

    def __init__(
        self, signals: EcgSignals, ecg_ids: Sequence[int], texts: EcgTexts | None, *, seed: int | None = None
    ) -> None:
        self.ecg_ids = list(ecg_ids)
        self._signals = signals
        self._texts = texts
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Draw the texts of another epoch from now on."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self.ecg_ids)

    def __getitem__(self, place: int) -> dict[str, Any]:
        ecg_id = self.ecg_ids[place]
        example: dict[str, Any] = {"signal": self._signals[ecg_id]}
        if self._texts is not None:
            rng = None if self._seed is None else np.random.default_rng([self._seed, self._epoch, ecg_id])
            example["text"] = self._texts.text(ecg_id, rng)
        return example


class EcgTextCollator:
    """Makes a batch of examples: signals or pictures, and token ids.

    Args:
        input_name: What the encoder calls its input.
        image_processor: Draws the signals for encoders of pictures.
        tokenizer: Of the text tower; None for an encoder that takes no text.
        max_length: Tokens of a text, longer ones are cut.
    """

    def __init__(
        self,
        input_name: str,
        *,
        image_processor: Any = None,
        tokenizer: Any = None,
        max_length: int | None = None,
    ) -> None:
        self._input_name = input_name
        self._image_processor = image_processor
        self._tokenizer = tokenizer
        self._max_length = max_length

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return `input_values` or `pixel_values`, and with texts `input_ids` and `attention_mask`."""
        batch = {self._input_name: self.inputs([example["signal"] for example in examples])}
        if self._tokenizer is not None:
            batch |= self.tokens([example["text"] for example in examples])
        return batch

    def inputs(self, signals: Sequence[np.ndarray]) -> torch.Tensor:
        """What the encoder takes, of signals (leads, samples) of one length."""
        if self._image_processor is not None:
            pixels: torch.Tensor = self._image_processor(list(signals), return_tensors="pt")["pixel_values"]
            return pixels
        return torch.from_numpy(np.stack(signals))

    def tokens(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """`input_ids` and `attention_mask` of texts, cut at `max_length`."""
        tokenised = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=self._max_length, return_tensors="pt"
        )
        return {name: tokenised[name] for name in ("input_ids", "attention_mask")}
