"""How ECGs and a question become the text a language model completes. The one place for the wording and the budget."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from numbers import Real
from pathlib import Path
from string import Formatter
from typing import Any, TypeGuard

from ecgbyte_hf.models.errors_ecg_byte import BudgetError, EcgDataError
from ecgbyte_hf.provenance import write_json

PROMPT_FILE = "ecg_prompt.json"
# Where a language model's folder keeps the ECG tokenizer, the feature extractor and the prompt.
ECG_SUBFOLDER = "ecg_byte"
# Where an encoder that reads pictures keeps its feature extractor: the image processor has the same file name.
SIGNAL_SUBFOLDER = "signal"


# Text is counted in steps of this many tokens when the ECG's share is worked out. So most questions about one ECG see
# the same cut of it: it is encoded once for all of them, and they fit in one training row. Costs at most 31 tokens.
TEXT_STEP = 32
#: What a prompt may tell about the patient; the names are those of `PreparedData.metadata`.
CONTEXT_FIELDS = ("age", "sex")
# Ages from here on are not told apart: with few people of an age it would be a hint at who it is.
_OLD = 90


@dataclass(frozen=True)
class EcgPrompt:
    r"""The wording of a prompt and the length that prompt and answer together must keep.

    The ECG block comes first, then the question. Completions start with a space and prompts do not end with one, so
    that byte-level tokenizers split the text at the same place with and without the answer.

    Args:
        template: Text with `{ecg}` and `{question}`.
        completion: Text with `{answer}`.
        answer_separator: Between the answers of a question that has several.
        max_length: Most tokens of prompt and answer together, beginning and end of sequence included. The ECG is
            cut in time to fit, the text never is.
        reserve: Tokens kept free for the answer, so that the same ECG is cut in the same way in training, where the
            answer is known, and in generation, where it is not. Rows with several questions have room for the
            others here too, when the ECG is cut.
        next_template: Text with `{question}` that follows an answer and its end, where another question is asked;
            by default the template without an ECG.
        user_template: In a chat, what the user says: text with `{ecg}` and `{question}`, a part of `template`.
        system: In a chat, the system's message, a part of `template` too.
        context: What is told about the patient before the question: some of `CONTEXT_FIELDS`. `None` until rows are
            written.
        window_seconds: Length of the windows of records that the model is trained on, 0 for whole records. `None`
            until rows are written.

    Raises:
        EcgDataError: a text without its placeholders or with others, lengths that leave nothing for the ECG, or a
            context or windows that cannot be.

    Example:
        >>> EcgPrompt().render("<|ecg_start|><|ecg_end|>", "Is the rhythm regular?")
        '<|ecg_start|><|ecg_end|>\nQuestion: Is the rhythm regular?\nAnswer:'
    """

    template: str = "{ecg}\nQuestion: {question}\nAnswer:"
    completion: str = " {answer}"
    answer_separator: str = ", "
    max_length: int = 1024
    reserve: int = 64
    next_template: str | None = None
    user_template: str | None = None
    system: str | None = None
    context: list[str] | None = None
    window_seconds: float | None = None

    def __post_init__(self) -> None:
        """Check what a file or a user gave."""
        _check_placeholders("template", self.template, {"ecg", "question"})
        _check_placeholders("completion", self.completion, {"answer"})
        if self.next_template is not None:
            _check_placeholders("next_template", self.next_template, {"question"})
        if self.user_template is not None:
            _check_placeholders("user_template", self.user_template, {"ecg", "question"})
        if self.system is not None and not isinstance(self.system, str):
            raise EcgDataError(f"got system={self.system!r}, expected text")
        _check_context(self.context)
        _check_window(self.window_seconds)
        if not isinstance(self.answer_separator, str):
            raise EcgDataError(f"got answer_separator={self.answer_separator!r}, expected text")
        for name in ("max_length", "reserve"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise EcgDataError(f"got {name}={value!r}, expected a positive number of tokens")
        if self.reserve >= self.max_length:
            raise EcgDataError(
                f"got reserve={self.reserve} and max_length={self.max_length}, expected less reserve: nothing is left "
                "for question and ECG"
            )

    def render(self, ecg: str, question: str) -> str:
        """The prompt."""
        return self.template.format(ecg=ecg, question=question.strip())

    def render_next(self, question: str) -> str:
        """The text of a further question, behind an answer and its end."""
        if self.next_template is None:
            return self.render("", question)
        return self.next_template.format(question=question.strip())

    def render_user(self, ecg: str, question: str) -> str:
        """What the user says in a chat.

        Raises:
            EcgDataError: the prompt is no chat.
        """
        if self.user_template is None:
            raise EcgDataError(
                "the model was extended with plain prompts, which hold no messages; extend the base model with "
                "--prompt-format chat"
            )
        return self.user_template.format(ecg=ecg, question=question.strip())

    def answer_text(self, answers: Sequence[str]) -> str:
        """The answers as one text."""
        return self.answer_separator.join(answers).strip()

    def render_answer(self, answers: Sequence[str]) -> str:
        """The completion, without an end-of-sequence token: the trainer adds it."""
        return self.completion.format(answer=self.answer_text(answers))

    def with_context(self, question: str, facts: Sequence[Mapping[str, Any]]) -> str:
        """The question behind what is known about the patient of each ECG.

        Args:
            question: The question.
            facts: For each ECG a mapping with `age` (years) and `sex`; `None`, or none, where unknown.

        Example:
            >>> EcgPrompt(context=["age", "sex"]).with_context("Is it regular?", [{"age": 63.0, "sex": "male"}])
            'Patient: 63 years, male. Is it regular?'
        """
        known = [_facts_text(self.context or [], of_one) for of_one in facts]
        if len(known) == 1:
            parts = [f"Patient: {known[0]}."] if known[0] else []
        else:
            places = ("First", "Second", "Third", "Fourth")
            parts = [f"{place} ECG: {text}." for place, text in zip(places, known, strict=False) if text]
        return " ".join([*parts, question.strip()])

    def text_tokens(self, tokenizer: Any, question: str, *, ecg_token: str = "") -> int:
        """Tokens of a prompt without those of its ECG.

        Args:
            tokenizer: The language model's tokenizer.
            question: The question.
            ecg_token: One ECG token, which stands for the ECG: the words around it may be divided otherwise where
                they follow one another directly. Empty where the prompt shows no ECG.

        Raises:
            BudgetError: text and `reserve` are longer than `max_length`.
        """
        return self.check_text(tokenizer, self.render(ecg_token, question), question, ecg_token=ecg_token)

    def check_text(self, tokenizer: Any, text: str, question: str, *, ecg_token: str = "") -> int:
        """As `text_tokens`, of a whole prompt with `ecg_token` in it, such as one that goes on with a conversation."""
        tokens = len(tokenizer(text)["input_ids"]) - bool(ecg_token)
        if tokens + self.reserve > self.max_length:
            raise BudgetError(
                f"question of {tokens} tokens and {self.reserve} reserved for the answer do not fit in "
                f"{self.max_length}; raise max_length: {question[:80]!r}"
            )
        return tokens

    def ecg_budget(self, text_tokens: int) -> int:
        """Tokens left for the ECG blocks of one prompt, given `text_tokens` of everything else.

        Raises:
            BudgetError: there are none.
        """
        counted = -(-text_tokens // TEXT_STEP) * TEXT_STEP
        left = self.max_length - self.reserve - counted
        if left < 1:
            raise BudgetError(
                f"text of {text_tokens} tokens (counted as {counted}) and {self.reserve} reserved for the answer "
                f"leave no room for the ECG in {self.max_length}; raise max_length"
            )
        return left

    def check_answer(self, tokenizer: Any, completion: str) -> int:
        """Tokens of a completion with its end-of-sequence token.

        Raises:
            BudgetError: longer than `reserve`.
        """
        tokens = len(tokenizer(completion, add_special_tokens=False)["input_ids"]) + 1
        if tokens > self.reserve:
            raise BudgetError(
                f"an answer of {tokens} tokens does not fit the {self.reserve} reserved for it; raise reserve (and "
                f"max_length): {completion[:80]!r}"
            )
        return tokens

    def settle(self, *, window_seconds: float | None, context: Sequence[str] | None = None) -> EcgPrompt:
        """The prompt of a model for which such rows are written: what it leaves open is set, the rest must agree.

        Args:
            window_seconds: Of the rows, `None` for whole records.
            context: What the rows tell about the patient; `None` for what the model was extended with, or nothing.

        Raises:
            EcgDataError: rows of another kind were written for this model.
        """
        self.check_windows(window_seconds)
        wanted = list(context if context is not None else self.context or [])
        if self.context is not None and self.context != wanted:
            raise EcgDataError(
                f"got the context {_context_name(wanted)}, and prompts of this model have "
                f"{_context_name(self.context)}; extend the base model anew for other rows"
            )
        return replace(self, context=wanted, window_seconds=window_seconds or 0.0)

    def check_windows(self, window_seconds: float | None) -> None:
        """Refuse ECGs of another length than the model is trained on.

        Args:
            window_seconds: Length of the windows that records are cut into, `None` for whole records.

        Raises:
            EcgDataError: the model's rows have another one.
        """
        if self.window_seconds is not None and self.window_seconds != (window_seconds or 0.0):
            option = f"give --window-seconds {self.window_seconds:g}" if self.window_seconds else "no --window-seconds"
            raise EcgDataError(
                f"got {_window_name(window_seconds)}, and this model is for {_window_name(self.window_seconds)}; "
                f"{option}, or extend the base model anew for other rows"
            )

    def save(self, folder: str | Path) -> Path:
        """Write `ecg_prompt.json`."""
        return write_json(Path(folder) / PROMPT_FILE, asdict(self))

    @classmethod
    def load(cls, folder: str | Path) -> EcgPrompt:
        """Read `ecg_prompt.json`.

        Raises:
            EcgDataError: the file is missing or malformed.
        """
        path = Path(folder) / PROMPT_FILE
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise EcgDataError(
                f"cannot read {path}: {error.strerror or error}; make the folder with `ecgbyte extend-llm`"
            ) from error
        except (ValueError, TypeError, RecursionError) as error:
            raise EcgDataError(
                f"{path}: not an ECG prompt ({error}); if a newer ecgbyte-hf wrote it, upgrade, else make the folder "
                "with `ecgbyte extend-llm`"
            ) from error


def _check_context(context: Any) -> None:
    is_list = isinstance(context, list) and len(set(map(str, context))) == len(context)
    if context is not None and not (is_list and all(name in CONTEXT_FIELDS for name in context)):
        raise EcgDataError(
            f"got context={context!r}, expected a list of {', '.join(CONTEXT_FIELDS)}, each at most once"
        )


def _check_window(seconds: Any) -> None:
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if seconds is not None and not (is_number and 0 <= seconds < math.inf):
        raise EcgDataError(f"got window_seconds={seconds!r}, expected seconds, or 0 for whole records")


def is_age(value: Any) -> TypeGuard[float]:
    """Whether it is an age in years."""
    return isinstance(value, Real) and not isinstance(value, bool) and 0 <= float(value) < math.inf


def _facts_text(context: Sequence[str], facts: Mapping[str, Any]) -> str:
    """What is known of one patient; a value that is none is as unknown as one that is absent."""
    parts = []
    for name in context:
        value = facts.get(name)
        if name == "age" and is_age(value):
            parts.append(f"over {_OLD - 1} years" if value >= _OLD else f"{int(value)} years")
        elif name == "sex" and value in ("male", "female"):
            parts.append(str(value))
    return ", ".join(parts)


def _context_name(context: Sequence[str]) -> str:
    return " and ".join(context) or "none"


def _window_name(seconds: float | None) -> str:
    return f"windows of {seconds:g} s" if seconds else "whole records"


def _check_placeholders(name: str, text: Any, wanted: set[str]) -> None:
    try:
        fields = [field for _, field, _, _ in Formatter().parse(text) if field is not None]
    except (TypeError, ValueError) as error:
        raise EcgDataError(f"got {name}={text!r}, expected text with {sorted(wanted)} in braces ({error})") from error
    if sorted(fields) != sorted(wanted):
        raise EcgDataError(f"got {name}={text!r} with the placeholders {fields}, expected {sorted(wanted)} once each")
