"""`transformers.pipeline("ecg-question-answering")`: ECGs and questions in, answers out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from transformers import Pipeline

from ecgbyte_hf.data.chat import RenderedPrompt
from ecgbyte_hf.data.prompts import is_age
from ecgbyte_hf.evaluation.language_model import EcgLanguageModel, ModelFolder
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, SignalError

TASK = "ecg-question-answering"
_KEYS = {"ecg", "question", "sampling_rate", "leads", "age", "sex"}
_BATCH_SIZE = 16
_MAX_NEW_TOKENS = 64


class EcgLanguageModelLoader:
    """What `transformers.pipeline` loads a folder's name with: the model and its ECG parts, of an adapter too."""

    @classmethod
    def from_pretrained(
        cls, folder: str, *, dtype: Any = "auto", revision: str | None = None, token: Any = None, **_: Any
    ) -> EcgLanguageModel:
        """Load as `EcgLanguageModel.load` does; what else the Auto classes take is not needed for it."""
        return EcgLanguageModel.load(folder, dtype=dtype, revision=revision, token=token)


class EcgQuestionAnsweringPipeline(Pipeline):
    """Answers questions about ECGs.

    An input is `{"ecg": ..., "question": ...}`. The ECG is the path of a recording, an `EcgRecord`, or an array
    (leads, samples) in mV with `"sampling_rate"` in Hz and `"leads"`, the names of its rows. A model whose prompts
    tell them takes the patient's `"age"` in years and `"sex"` too. An ECG that is given several times (the same path,
    the same object) is read, cleaned and encoded once in a call, and computed once for
    all its questions of a batch where the model can.

    Example::

        import ecgbyte_hf
        from transformers import pipeline

        pipe = pipeline("ecg-question-answering", model="sft")
        pipe(ecg="records500/00000/00001_hr", question="Is the rhythm regular?")
        # {"answer": "yes", "reached_limit": False, "seconds_shown": 7.2}

    Args:
        model: An `EcgLanguageModel`, which `transformers.pipeline` makes of a folder's name; or a model of
            transformers with `tokenizer`.
        tokenizer: The language model's, beside a model of transformers.
        ecg_folder: The ECG tokenizer and the prompt, beside a model of transformers (default: `ecg_byte/` in the
            folder it was loaded from).
        kwargs: Those of `Pipeline`, such as `device` and `batch_size` (16 by default), and those of a call.

    Raises:
        EcgDataError: no ECG tokenizer is found.
    """

    _load_processor: Any = False
    _load_image_processor: Any = False
    _load_video_processor: Any = False
    _load_feature_extractor: Any = False
    _load_tokenizer: Any = False

    def __init__(self, model: Any, tokenizer: Any = None, *, ecg_folder: Any = None, **kwargs: Any) -> None:
        if not isinstance(model, EcgLanguageModel):
            parts = ModelFolder.find(model.name_or_path, ecg_folder)
            own_tokenizer, *others = parts.load_texts()
            model = parts.language_model_class()(model.eval(), tokenizer or own_tokenizer, *others)
        self.language_model: EcgLanguageModel = model
        super().__init__(model=model.model, tokenizer=model.lm_tokenizer, **kwargs)

    def __call__(  # type: ignore[override]
        self,
        inputs: Any = None,
        *,
        ecg: Any = None,
        question: str | None = None,
        sampling_rate: float | None = None,
        leads: Sequence[str] | None = None,
        age: float | None = None,
        sex: str | None = None,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Answer.

        Args:
            inputs: One input, a list of them, whose ECGs are all read before the first answer, or any other iterable,
                which is read a batch at a time.
            ecg: Of a single question, in place of `inputs`.
            question: About `ecg`.
            sampling_rate: Of `ecg`, where it is an array: Hz.
            leads: Of `ecg`, where it is an array: the names of its rows.
            age: The patient's in years, for a model whose prompts tell it.
            sex: The patient's, `"male"` or `"female"`, for a model whose prompts tell it.
            batch_size: Questions at a time.
            kwargs: `max_new_tokens` (64 by default), `streamer` (of transformers, for a single question).

        Returns:
            `{"answer": text, "reached_limit": whether it was cut off, "seconds_shown": of ECG that fitted}` for one
            input, a list of these in the order of a list, an iterator for another iterable.

        Raises:
            EcgError: an input without its parts, or a recording that cannot be used; the message says which.
        """
        given = {
            "ecg": ecg,
            "question": question,
            "sampling_rate": sampling_rate,
            "leads": leads,
            "age": age,
            "sex": sex,
        }
        if inputs is None:
            inputs = {name: value for name, value in given.items() if value is not None}
        elif any(value is not None for value in given.values()):
            names = "=, ".join(name for name, value in given.items() if value is not None)
            raise EcgDataError(f"got inputs and {names}= beside them; give either")
        size = batch_size or self._batch_size or _BATCH_SIZE
        if size < 1:
            raise EcgDataError(f"got batch_size={size}, expected at least 1")
        if isinstance(inputs, Mapping):
            return self._answers([inputs], size, kwargs)[0]
        if isinstance(inputs, (list, tuple)):
            return self._answers(inputs, size, kwargs)
        return self._in_turn(inputs, size, kwargs)

    def _answers(self, inputs: Sequence[Any], size: int, kwargs: dict[str, Any]) -> list[dict[str, Any]]:
        # The base class merges the arguments of call and construction and looks after the device.
        answers: list[dict[str, Any]] = super().__call__({"inputs": list(inputs), "batch_size": size}, **kwargs)
        return answers

    def _in_turn(self, inputs: Iterable[Any], size: int, kwargs: dict[str, Any]) -> Iterator[dict[str, Any]]:
        waiting = iter(inputs)
        while batch := list(islice(waiting, size)):
            yield from self._answers(batch, size, kwargs)

    def _sanitize_parameters(
        self, max_new_tokens: int | None = None, streamer: Any = None, **unknown: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if unknown:
            raise EcgDataError(f"unknown: {', '.join(sorted(unknown))}; known: max_new_tokens, streamer, batch_size")
        if max_new_tokens is not None and max_new_tokens < 1:
            raise EcgDataError(f"got max_new_tokens={max_new_tokens}, expected at least 1")
        given = {"max_new_tokens": max_new_tokens, "streamer": streamer}
        return {}, {name: value for name, value in given.items() if value is not None}, {}

    def preprocess(self, input_: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Prompts of all inputs; each ECG is read and cleaned once."""
        signals: list[np.ndarray] = []
        contexts: list[dict[str, Any]] = []
        numbers: dict[object, int] = {}
        rows = []
        for place, one in enumerate(input_["inputs"]):
            _check_input(one, place)
            source = one["ecg"]
            is_path = isinstance(source, (str, os.PathLike))
            key = (
                os.fspath(source) if is_path else id(source),
                *(str(one.get(name)) for name in ("sampling_rate", "leads", "age", "sex")),
            )
            if key not in numbers:
                numbers[key] = len(numbers)
                signals.append(self.language_model.processor.feature_extractor.clean(_record(one)))
                contexts.append({name: one.get(name) for name in ("age", "sex")})
            rows.append({"sample_id": place, "question": one["question"], "ecg_id": [numbers[key]]})
        prompter = self.language_model.prompter_for(signals, contexts)
        return {"prompts": [prompter.prompt_for(row) for row in rows], "rows": rows, "size": input_["batch_size"]}

    def _forward(self, input_tensors: dict[str, Any], **forward_parameters: Any) -> Any:
        """Completions in the order of the prompts; questions about one ECG are asked together."""
        prompts: list[RenderedPrompt] = input_tensors["prompts"]
        streamer = forward_parameters.get("streamer")
        numbers = [row["ecg_id"][0] for row in input_tensors["rows"]]
        order = sorted(range(len(prompts)), key=lambda place: (numbers[place], place))
        is_shared = len(set(numbers)) < len(numbers) and self.language_model.shared_prefix_obstacle() is None
        if streamer is not None and len(prompts) != 1:
            raise EcgDataError(f"got a streamer for {len(prompts)} questions, expected one question")
        completions: list[Any] = [None] * len(prompts)
        size = input_tensors["size"]
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            made = self.language_model.complete(
                [prompts[place] for place in batch],
                max_new_tokens=forward_parameters.get("max_new_tokens", _MAX_NEW_TOKENS),
                shared_prefix=is_shared,
                streamer=streamer,
            )
            for place, completion in zip(batch, made, strict=True):
                completions[place] = completion
        return {"prompts": prompts, "completions": completions}

    def postprocess(self, model_outputs: dict[str, Any], **_: Any) -> list[dict[str, Any]]:
        """Answers as dictionaries."""
        return [
            {
                "answer": completion.text,
                "reached_limit": completion.reached_limit,
                "seconds_shown": prompt.seconds,
            }
            for prompt, completion in zip(model_outputs["prompts"], model_outputs["completions"], strict=True)
        ]


def _check_input(one: Any, place: int) -> None:
    wanted = 'a dictionary with "ecg" and "question", and for an array "sampling_rate" and "leads"'
    if not isinstance(one, Mapping):
        raise EcgDataError(f"input {place} is {type(one).__name__}, expected {wanted}")
    missing, unknown = {"ecg", "question"} - set(one), set(one) - _KEYS
    if missing or unknown:
        what = [f"lacks {sorted(missing)}"] * bool(missing) + [f"has {sorted(unknown)}"] * bool(unknown)
        raise EcgDataError(f"input {place} {' and '.join(what)}; expected {wanted}")
    if not isinstance(one["question"], str) or not one["question"].strip():
        raise EcgDataError(f"input {place} has the question {one['question']!r}, expected text")
    if one.get("age") is not None and not is_age(one["age"]):
        raise EcgDataError(f"input {place} has the age {one['age']!r}, expected years")
    if one.get("sex") not in (None, "male", "female"):
        raise EcgDataError(f"input {place} has the sex {one['sex']!r}, expected male or female")


def _record(one: Mapping[str, Any]) -> Any:
    """The recording of an input."""
    from ecgbyte_hf.signal.records import EcgRecord, read_ecg

    source, rate, leads = one["ecg"], one.get("sampling_rate"), one.get("leads")
    if isinstance(source, np.ndarray):
        if rate is None or leads is None:
            raise SignalError(
                f"got an array of shape {source.shape} without its sampling_rate (Hz) or leads (names of its rows); "
                "give both"
            )
        return EcgRecord(source, rate, tuple(leads), "array")
    if isinstance(source, (str, os.PathLike)):
        return read_ecg(source, sampling_rate=rate, lead_names=leads)
    if all(hasattr(source, name) for name in ("signal", "sampling_rate", "lead_names")):
        if rate is not None or leads is not None:
            raise SignalError("got sampling_rate or leads beside a record, which has its own; leave them out")
        return source
    raise SignalError(
        f"got an ECG of type {type(source).__name__}, expected a path, an EcgRecord, or a NumPy array (leads, "
        "samples) in mV"
    )
