"""Prompts of a language model that reads ECGs through an encoder: placeholders in the text, the signals beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ecgbyte_hf.data.chat import EcgBlock, EcgPrompter, RenderedPrompt
from ecgbyte_hf.models.errors_ecg_byte import BudgetError, VocabularyError
from ecgbyte_hf.models.processing_ecg_llm import ECG_END, ECG_START, ECG_TOKEN, part_settings


@dataclass(frozen=True)
class Placeholders:
    """What a prompter must know of an encoder, in place of an ECG tokenizer.

    Attributes:
        num_ecg_tokens: Placeholders of one ECG.
        sampling_rate: Of the signals, Hz.
        fingerprint: Tells what the encoder is shown of a signal; its weights are the model's.
    """

    num_ecg_tokens: int
    sampling_rate: float
    fingerprint: str

    bos_token = ECG_START
    eos_token = ECG_END

    @classmethod
    def of(cls, processor: Any) -> Placeholders:
        """Those of an `EcgLlmProcessor`."""
        parts = [part for part in (processor.feature_extractor, processor.picture) if part is not None]
        described = json.dumps([processor.num_ecg_tokens, *(part_settings(part.to_dict()) for part in parts)])
        return cls(
            processor.num_ecg_tokens,
            float(processor.feature_extractor.sampling_rate),
            hashlib.sha256(described.encode()).hexdigest(),
        )

    def ecg_text(self, ids: Sequence[int] | np.ndarray) -> str:
        """The block of one ECG; the ids of all placeholders are the same."""
        return ECG_START + ECG_TOKEN * len(ids) + ECG_END


class EncoderPrompter(EcgPrompter):
    """Writes prompts and training rows with placeholders; the arguments are those of `EcgPrompter`.

    An ECG is never cut in time: its placeholders are few, and as many whatever its length. Rows name their ECGs, and
    prompts read their signals, for the encoder.

    Raises:
        VocabularyError: the tokenizer does not know the placeholder.
    """

    needs_signals = True

    def prompt_for(self, row: dict[str, Any]) -> RenderedPrompt:
        """The prompt of one question, with what reads the signals that it shows.

        Raises:
            BudgetError: the question and the placeholders do not fit; the message names the row.
        """
        prompt = super().prompt_for(row)
        if self.view == "question_only":
            return prompt
        return replace(prompt, signals=partial(self._signals, tuple(row["ecg_id"])))

    def conversation_row(self, row: dict[str, Any]) -> dict[str, Any]:
        """As `EcgPrompter.conversation_row`, with the numbers of the ECGs."""
        return {**super().conversation_row(row), "ecg_id": row["ecg_id"]}

    def grouped_rows(self, rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """As `EcgPrompter.grouped_rows`, with the numbers of the ECGs."""
        for made in super().grouped_rows(rows):
            yield {**made, "ecg_id": rows[0]["ecg_id"]}

    def _signals(self, ecg_ids: tuple[int, ...]) -> list[np.ndarray]:
        return [self._shown(ecg_id) for ecg_id in ecg_ids]

    def _encoded(self, ecg_ids: tuple[int, ...], budget: int) -> EcgBlock:
        count = self.ecg_tokenizer.num_ecg_tokens
        if len(ecg_ids) * (count + 2) > budget:
            raise BudgetError(
                f"{len(ecg_ids)} ECGs of {count} placeholders, a start and an end each do not fit in {budget} tokens; "
                "raise max_length, or extend the model with fewer --num-ecg-tokens"
            )
        key = (ecg_ids, 0)
        if key not in self._blocks:
            shortest = min(signal.shape[1] for signal in self._signals(ecg_ids))
            ids = tuple(np.zeros(count, np.int32) for _ in ecg_ids)
            self._blocks[key] = EcgBlock(ids, shortest / self.ecg_tokenizer.sampling_rate, False)
        return self._blocks[key]

    def _check_tokens(self) -> None:
        """A placeholder that the language model does not know would be read as letters, without any error."""
        missing = {ECG_START, ECG_TOKEN, ECG_END} - set(self.lm_tokenizer.get_vocab())
        if missing:
            raise VocabularyError(
                f"the language model's tokenizer lacks {', '.join(sorted(missing))}; use the folder that `ecgbyte "
                "extend-llm --encoder` made"
            )
