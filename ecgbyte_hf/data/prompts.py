"""How ECGs and a question become the text a language model completes. The one place for the wording and the budget."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ecgbyte_hf.models.errors_ecg_byte import BudgetError, EcgDataError

PROMPT_FILE = "ecg_prompt.json"
# Where a language model's folder keeps the ECG tokenizer, the feature extractor and the prompt.
ECG_SUBFOLDER = "ecg_byte"


@dataclass(frozen=True)
class EcgPrompt:
    """The wording of a prompt and the length that prompt and answer together must keep.

    The ECG block comes first, then the question. Completions start with a space and prompts do not end with one, so
    that byte-level tokenizers split the text at the same place with and without the answer.

    Args:
        template: Text with `{ecg}` and `{question}`.
        completion: Text with `{answer}`.
        answer_separator: Between the answers of a question that has several.
        max_length: Most tokens of prompt and answer together, beginning and end of sequence included. The ECG is
            cut in time to fit, the text never is.
        reserve: Tokens kept free for the answer, so that the same ECG is cut in the same way in training, where the
            answer is known, and in generation, where it is not.

    Example:
        >>> EcgPrompt().render("<|ecg_start|><|ecg_end|>", "Is the rhythm regular?")
        '<|ecg_start|><|ecg_end|>\\nQuestion: Is the rhythm regular?\\nAnswer:'
    """

    template: str = "{ecg}\nQuestion: {question}\nAnswer:"
    completion: str = " {answer}"
    answer_separator: str = ", "
    max_length: int = 1024
    reserve: int = 64

    def render(self, ecg: str, question: str) -> str:
        """The prompt."""
        return self.template.format(ecg=ecg, question=question.strip())

    def render_answer(self, answers: list[str]) -> str:
        """The completion, without an end-of-sequence token: the trainer adds it."""
        return self.completion.format(answer=self.answer_separator.join(answers))

    def ecg_budget(self, tokenizer: Any, question: str) -> int:
        """Tokens left for the ECG blocks of one row.

        Args:
            tokenizer: The language model's tokenizer.
            question: The question; its length and `reserve` are taken off `max_length`.

        Raises:
            BudgetError: the text alone does not fit.
        """
        text_tokens = len(tokenizer(self.render("", question))["input_ids"])
        left = self.max_length - self.reserve - text_tokens
        if left < 1:
            raise BudgetError(
                f"question of {text_tokens} tokens and {self.reserve} reserved for the answer leave no room for the "
                f"ECG in {self.max_length}; raise max_length: {question[:80]!r}"
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
        path = Path(folder) / PROMPT_FILE
        path.write_text(json.dumps(asdict(self), indent=2, sort_keys=True) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, folder: str | Path) -> EcgPrompt:
        """Read `ecg_prompt.json`.

        Raises:
            EcgDataError: the file is missing or malformed.
        """
        path = Path(folder) / PROMPT_FILE
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise EcgDataError(f"{path} is missing; make the folder with `ecgbyte extend-llm`") from error
        except (json.JSONDecodeError, TypeError) as error:
            raise EcgDataError(f"{path}: not an ECG prompt ({error})") from error
