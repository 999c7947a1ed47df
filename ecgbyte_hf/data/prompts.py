"""How ECGs and a question become the text a language model completes. The one place for the wording and the budget."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from string import Formatter
from typing import Any

from ecgbyte_hf.models.errors_ecg_byte import BudgetError, EcgDataError
from ecgbyte_hf.provenance import write_json

PROMPT_FILE = "ecg_prompt.json"
# Where a language model's folder keeps the ECG tokenizer, the feature extractor and the prompt.
ECG_SUBFOLDER = "ecg_byte"


# Text is counted in steps of this many tokens when the ECG's share is worked out. So most questions about one ECG see
# the same cut of it: it is encoded once for all of them, and they fit in one training row. Costs at most 31 tokens.
TEXT_STEP = 32


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

    Raises:
        EcgDataError: a text without its placeholders or with others, or lengths that leave nothing for the ECG.

    Example:
        >>> EcgPrompt().render("<|ecg_start|><|ecg_end|>", "Is the rhythm regular?")
        '<|ecg_start|><|ecg_end|>\nQuestion: Is the rhythm regular?\nAnswer:'
    """

    template: str = "{ecg}\nQuestion: {question}\nAnswer:"
    completion: str = " {answer}"
    answer_separator: str = ", "
    max_length: int = 1024
    reserve: int = 64

    def __post_init__(self) -> None:
        """Check what a file or a user gave."""
        _check_placeholders("template", self.template, {"ecg", "question"})
        _check_placeholders("completion", self.completion, {"answer"})
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

    def render_answer(self, answers: list[str]) -> str:
        """The completion, without an end-of-sequence token: the trainer adds it."""
        return self.completion.format(answer=self.answer_separator.join(answers))

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
        tokens = len(tokenizer(self.render(ecg_token, question))["input_ids"]) - bool(ecg_token)
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
        except (ValueError, TypeError) as error:
            raise EcgDataError(f"{path}: not an ECG prompt ({error})") from error


def _check_placeholders(name: str, text: Any, wanted: set[str]) -> None:
    try:
        fields = [field for _, field, _, _ in Formatter().parse(text) if field is not None]
    except (TypeError, ValueError) as error:
        raise EcgDataError(f"got {name}={text!r}, expected text with {sorted(wanted)} in braces ({error})") from error
    if sorted(fields) != sorted(wanted):
        raise EcgDataError(f"got {name}={text!r} with the placeholders {fields}, expected {sorted(wanted)} once each")
