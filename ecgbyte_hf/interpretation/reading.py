"""What a language model reads when it is asked about an ECG: which tokens stand for which samples and words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ecgbyte_hf.evaluation.language_model import EcgLanguageModel
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError


@dataclass(frozen=True)
class Word:
    """Tokens that make up one word of a prompt or an answer.

    Attributes:
        text: Without the space before it.
        start: Its first token.
        stop: The token after its last.
        kind: `"text"` (the question and the words around it), `"answer"`, or `"special"` (beginning of sequence, start
            and end of the ECG).
    """

    text: str
    start: int
    stop: int
    kind: str


@dataclass(frozen=True)
class Reading:
    """A question about an ECG and its answer, as the model reads them.

    Attributes:
        signal: (leads, samples) in mV, as much of it as the model is shown.
        leads: Names of the rows.
        sampling_rate: Hz.
        question: Without the words around it.
        answer: The text that is explained.
        is_given: Whether the answer was given, rather than written by the model.
        ids: (tokens,) of prompt, answer and end of sequence.
        ecg_start: First token of the ECG.
        ecg_ids: (ECG tokens,) in the vocabulary of the ECG tokenizer.
        offsets: (ECG tokens, 2), first sample and the one after the last, in the flattened signal.
        answer_start: First token of the answer; the last token of `ids` is the end of sequence.
        words: All other tokens, in order.
        seconds: Of the ECG that there is; more than the signal has if it was cut to fit.
    """

    signal: np.ndarray
    leads: tuple[str, ...]
    sampling_rate: float
    question: str
    answer: str
    is_given: bool
    ids: np.ndarray
    ecg_start: int
    ecg_ids: np.ndarray
    offsets: np.ndarray
    answer_start: int
    words: tuple[Word, ...]
    seconds: float

    @property
    def ecg(self) -> slice:
        """The places of the ECG's tokens."""
        return slice(self.ecg_start, self.ecg_start + len(self.ecg_ids))

    @property
    def num_tokens(self) -> int:
        """Of prompt, answer and end of sequence."""
        return len(self.ids)

    @cached_property
    def token_of_sample(self) -> np.ndarray:
        """The number of the ECG token that each sample belongs to: (leads, samples)."""
        lengths = self.offsets[:, 1] - self.offsets[:, 0]
        return np.repeat(np.arange(len(lengths)), lengths).reshape(self.signal.shape)

    def to_samples(self, values: np.ndarray, *, divide: bool = True) -> np.ndarray:
        """Values of the tokens as values of the samples.

        Args:
            values: (tokens,), or those of the ECG's tokens alone.
            divide: Each token's value is shared out to its samples, so that sums stay the same. If not, each of them
                has it whole, as in the paper.

        Returns:
            (leads, samples).
        """
        of_ecg = values[self.ecg] if len(values) == self.num_tokens else values
        if divide:
            of_ecg = of_ecg / (self.offsets[:, 1] - self.offsets[:, 0])
        return np.asarray(of_ecg)[self.token_of_sample]

    def to_words(self, values: np.ndarray) -> np.ndarray:
        """Sums of (tokens,) over the tokens of each word: (words,)."""
        return np.array([values[word.start : word.stop].sum() for word in self.words])


def read_question(
    model: EcgLanguageModel,
    record: Any,
    question: str,
    *,
    answer: str | None = None,
    context: Mapping[str, Any] | None = None,
    max_new_tokens: int = 64,
) -> Reading:
    """Ask a model and keep what it read.

    Args:
        model: Loaded by `EcgLanguageModel.load`.
        record: An `EcgRecord`, which is cleaned first, or a cleaned signal (leads, samples) in mV.
        question: Plain text.
        answer: The answer to explain; by default the one that the model writes.
        context: `age` in years and `sex`, for a model whose prompts tell them.
        max_new_tokens: Longest answer.

    Raises:
        EcgDataError: the model reads ECGs through an encoder, it answers nothing, or the prompt does not hold the ECG
            as the ECG tokenizer writes it.
        BudgetError: the question leaves no room for the ECG.
    """
    from ecgbyte_hf.evaluation.encoder_language_model import EncoderLanguageModel

    if isinstance(model, EncoderLanguageModel):
        raise EcgDataError(
            "the model reads an ECG through an encoder, as embeddings that stand for no samples of their own, so its "
            "answer cannot be attributed to them; give a model that reads ECG tokens, or ask this one by `ecgbyte ask`"
        )
    signal = record if isinstance(record, np.ndarray) else model.processor.feature_extractor.clean(record)
    text = prompts_about(model, [signal], question, context=context)[0]
    is_given = answer is not None
    if answer is None:
        answer = model.complete([text], max_new_tokens=max_new_tokens)[0].text
    if not answer.strip():
        raise EcgDataError(f"there is no answer to explain for {question[:80]!r}; give one")
    return _reading(model, signal, question, text, answer, is_given=is_given)


def prompts_about(
    model: EcgLanguageModel,
    signals: Sequence[np.ndarray],
    question: str,
    *,
    context: Mapping[str, Any] | None = None,
) -> list[str]:
    """The prompts that ask one question about each of several cleaned signals."""
    prompter = model.prompter_for(signals, [context or {}] * len(signals))
    rows = ({"sample_id": number, "question": question, "ecg_id": [number]} for number in range(len(signals)))
    return [prompter.prompt_for(row).text for row in rows]


def _reading(
    model: EcgLanguageModel, signal: np.ndarray, question: str, prompt: str, answer: str, *, is_given: bool
) -> Reading:
    prompt_ids = model.prompt_tokenizer.ids(prompt)
    completion = model.prompt.render_answer([answer])
    answer_ids = model.lm_tokenizer(completion, add_special_tokens=False)["input_ids"]
    ids = np.array([*prompt_ids, *answer_ids, model.lm_tokenizer.eos_token_id], dtype=np.int64)
    start, ecg_ids = _find_ecg(model, prompt_ids)
    tokenizer = model.processor.tokenizer
    stops = np.cumsum(tokenizer.bpe.token_lengths.astype(np.int64)[ecg_ids])
    samples, rest = divmod(int(stops[-1]), len(tokenizer.leads))
    if rest or samples > signal.shape[1]:
        raise EcgDataError(
            f"the prompt's {len(ecg_ids)} ECG tokens stand for {stops[-1]} samples, which do not divide among "
            f"{len(tokenizer.leads)} leads of at most {signal.shape[1]}; use the ECG tokenizer that the model was "
            "extended with"
        )
    return Reading(
        signal=signal[:, :samples],
        leads=tuple(tokenizer.leads),
        sampling_rate=float(tokenizer.sampling_rate),
        question=question,
        answer=answer,
        is_given=is_given,
        ids=ids,
        ecg_start=start,
        ecg_ids=ecg_ids,
        offsets=np.stack([np.concatenate([[0], stops[:-1]]), stops], axis=1),
        answer_start=len(prompt_ids),
        words=tuple(_words(model.lm_tokenizer, ids, start, start + len(ecg_ids), len(prompt_ids))),
        seconds=signal.shape[1] / float(tokenizer.sampling_rate),
    )


def _find_ecg(model: EcgLanguageModel, prompt_ids: Sequence[int]) -> tuple[int, np.ndarray]:
    """Where the ECG's tokens begin in a prompt, and their ids in the ECG tokenizer's vocabulary."""
    tokenizer, to_id = model.processor.tokenizer, model.lm_tokenizer.convert_tokens_to_ids
    names = [f"<|ecg_{index}|>" for index in range(tokenizer.num_ecg_tokens)]
    known = {lm_id: index for index, lm_id in enumerate(to_id(names))}
    try:
        start = prompt_ids.index(to_id(str(tokenizer.bos_token))) + 1
        stop = prompt_ids.index(to_id(str(tokenizer.eos_token)), start)
        found = np.array([known[lm_id] for lm_id in prompt_ids[start:stop]], dtype=np.int64)
    except (ValueError, KeyError) as error:
        raise EcgDataError("the prompt holds no whole ECG to explain; use a model whose prompt has {ecg}") from error
    if not len(found):
        raise EcgDataError("the prompt's ECG has no token; use a recording with samples")
    return start, found


def _words(lm_tokenizer: Any, ids: np.ndarray, ecg_start: int, ecg_stop: int, answer_start: int) -> list[Word]:
    """Words of the tokens before the ECG, between it and the answer, and of the answer without its end."""
    pieces: list[tuple[str, int, str]] = []
    special = {*lm_tokenizer.all_special_ids, int(ids[ecg_start - 1]), int(ids[ecg_stop])}
    sections = ((0, ecg_start, "text"), (ecg_stop, answer_start, "text"), (answer_start, len(ids) - 1, "answer"))
    for start, stop, kind in sections:
        so_far = ""
        for place in range(start, stop):
            if int(ids[place]) in special:
                pieces.append((lm_tokenizer.decode([int(ids[place])]), place, "special"))
                start, so_far = place + 1, ""
                continue
            # Decoded together, since a token may hold a part of a letter.
            text = lm_tokenizer.decode(ids[start : place + 1].tolist(), clean_up_tokenization_spaces=False)
            text = text.rstrip("\ufffd")
            pieces.append((text[len(so_far) :], place, kind))
            so_far = text
    words: list[Word] = []
    for piece, place, kind in pieces:
        last = words[-1] if words else None
        begins = last is None or kind == "special" or kind != last.kind or last.stop != place
        if last is None or begins or (piece[:1].isspace() and last.text.strip()):
            words.append(Word(piece, place, place + 1, kind))
        else:
            words[-1] = Word(last.text + piece, last.start, place + 1, kind)
    return [Word(word.text.strip(), word.start, word.stop, word.kind) for word in words]
